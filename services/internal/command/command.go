// Package command is the language between those who wish for a change and the
// authority that decides: the commands, who asks for them, and the results.
//
// It is plain data with a JSON form, so that a node without the pen can send a
// command over NATS. A command never holds a secret, only its digest.
package command

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// Caller is who asks, as far as the node that heard the request knows: a
// credential's digest. The authority authenticates and authorises it at the
// head of the ledger.
type Caller struct {
	// System is the process itself, at bootstrap. It never crosses NATS.
	System bool `json:"-"`

	Kind   token.Kind   `json:"kind"`   // of the presented secret
	Digest token.Digest `json:"digest"` // of the presented secret
	// EmailIndex is the keyed hash of the X-Auth-Email that came with an
	// API key; empty for tokens.
	EmailIndex string `json:"email_index,omitzero"`
	// Address is the client's, for the token's own condition.
	Address netip.Addr `json:"address,omitzero"`

	RequestID   string        `json:"request_id,omitzero"`
	Traceparent string        `json:"traceparent,omitzero"`
	Origin      events.Origin `json:"origin,omitzero"` // sealed for the event
	// Bulk marks imports: they never fill more than half a commit.
	Bulk bool `json:"bulk,omitzero"`
}

// Command is a wish for one event. It may be refused.
type Command interface {
	// Verb names the command in subjects and metrics: "token.create".
	Verb() string
}

// Target names a token and the owner under whom the caller addressed it. A
// token of another owner is as unknown as one that does not exist.
type Target struct {
	ID        token.ID         `json:"id"`
	OwnerKind events.OwnerKind `json:"owner_kind"`
	Owner     token.ID         `json:"owner"` // zero with OwnedByUser: the caller
}

// CreateToken makes a token. With Repeat set it is a declared repeat of a
// request whose answer was lost: when the first one was accepted, its secret
// is replaced by this one and the result names that token.
type CreateToken struct {
	Target
	Name     string       `json:"name"`
	Grant    token.Grant  `json:"grant"`
	Disabled bool         `json:"disabled,omitzero"`
	Secret   token.Digest `json:"secret"`
	// Template says from which template of the catalogue the grant was made,
	// if from one.
	Template string `json:"template,omitzero"`
	// Widens lets the token give more than it holds itself, up to what its
	// user holds.
	Widens  bool   `json:"widens,omitzero"`
	Request string `json:"request,omitzero"` // digest of actor, route, body and idempotency key
	Repeat  bool   `json:"repeat,omitzero"`
	// Foreign takes over a token of another system, with its secret: Secret is
	// token.SumForeign, and ID follows from it, so that whoever imports it again
	// finds what became of it. Only operators do that, for any owner.
	Foreign bool `json:"foreign,omitzero"`
	// DryRun asks only whether the command would be accepted. The result then
	// names no token.
	DryRun bool `json:"dry_run,omitzero"`
}

// UpdateToken replaces a token's name and grant. Status "" and Widens nil keep
// what is.
type UpdateToken struct {
	Target
	Name   string      `json:"name"`
	Grant  token.Grant `json:"grant"`
	Status string      `json:"status,omitzero"`
	Widens *bool       `json:"widens,omitzero"`
}

// RollToken replaces a token's secret. The old one dies at once when Grace is
// zero. A roll during a running grace is refused unless Force is set.
type RollToken struct {
	Target
	Secret  token.Digest  `json:"secret"`
	Grace   time.Duration `json:"grace,omitzero"`
	Force   bool          `json:"force,omitzero"`
	Request string        `json:"request,omitzero"`
	Repeat  bool          `json:"repeat,omitzero"`
}

// DisableToken suspends a token.
type DisableToken struct {
	Target
	Reason string `json:"reason,omitzero"`
}

// EnableToken ends a suspension.
type EnableToken struct {
	Target
	Reason string `json:"reason,omitzero"`
}

// RevokeToken ends a token for good.
type RevokeToken struct {
	Target
	Reason string `json:"reason,omitzero"`
	// Incident lets an operator end a token of anybody.
	Incident bool `json:"incident,omitzero"`
}

// NoteExpiry gives notice of a token's end: that it has come, or with
// DaysBefore that it comes in so many days. The system gives it, about the end
// that it has seen.
type NoteExpiry struct {
	Token      token.ID  `json:"token"`
	ExpiresOn  time.Time `json:"expires_on"`
	DaysBefore int32     `json:"days_before,omitzero"`
}

// RegisterUser makes a person known.
type RegisterUser struct {
	ID         token.ID       `json:"id"`
	Email      events.Sealed  `json:"email"`
	EmailIndex string         `json:"email_index"`
	Name       *events.Sealed `json:"name,omitzero"`
	Operator   bool           `json:"operator,omitzero"`
}

// IssueAPIKey gives a user a Global API Key, or replaces it.
type IssueAPIKey struct {
	User   token.ID     `json:"user"`
	Secret token.Digest `json:"secret"`
}

// CreateAccount makes an account.
type CreateAccount struct {
	ID   token.ID `json:"id"`
	Name string   `json:"name"`
}

// AddMember makes a user a member of an account.
type AddMember struct {
	ID      token.ID `json:"id"`
	Account token.ID `json:"account"`
	User    token.ID `json:"user"`
	Roles   []string `json:"roles"`
}

// EnrollEnforcer lets an enforcing service ask.
type EnrollEnforcer struct {
	ID             token.ID     `json:"id"`
	Name           string       `json:"name"`
	Region         string       `json:"region,omitzero"`
	Secret         token.Digest `json:"secret"`
	CeilingSeconds int32        `json:"ceiling_seconds,omitzero"`
	Nkey           string       `json:"nkey,omitzero"` // empty: it asks over HTTP only
}

// RetireEnforcer ends that.
type RetireEnforcer struct {
	ID     token.ID `json:"id"`
	Reason string   `json:"reason,omitzero"`
}

// EnrollConsumer lets a program read the events.
type EnrollConsumer struct {
	ID     token.ID `json:"id"`
	Name   string   `json:"name"`
	Region string   `json:"region,omitzero"`
	Nkey   string   `json:"nkey"`
}

// RetireConsumer ends that.
type RetireConsumer struct {
	ID     token.ID `json:"id"`
	Reason string   `json:"reason,omitzero"`
}

// PublishCatalogue replaces the catalogue. Its ID is that of the publication: a
// second one with the same id changes nothing.
type PublishCatalogue struct {
	ID token.ID `json:"id"`
	// After is the version that it was made for, which must be the present
	// one: who would be affected was found out for that.
	After    uint32         `json:"after"`
	Document jsontext.Value `json:"document"` // a catalogue.Document
	Forced   bool           `json:"forced,omitzero"`
}

// The verbs.
func (CreateToken) Verb() string    { return "token.create" }
func (UpdateToken) Verb() string    { return "token.update" }
func (RollToken) Verb() string      { return "token.roll" }
func (DisableToken) Verb() string   { return "token.disable" }
func (EnableToken) Verb() string    { return "token.enable" }
func (RevokeToken) Verb() string    { return "token.revoke" }
func (NoteExpiry) Verb() string     { return "token.note_expiry" }
func (RegisterUser) Verb() string   { return "user.register" }
func (IssueAPIKey) Verb() string    { return "apikey.issue" }
func (CreateAccount) Verb() string  { return "account.create" }
func (AddMember) Verb() string      { return "member.add" }
func (EnrollEnforcer) Verb() string { return "enforcer.enroll" }
func (RetireEnforcer) Verb() string { return "enforcer.retire" }
func (EnrollConsumer) Verb() string { return "consumer.enroll" }
func (RetireConsumer) Verb() string { return "consumer.retire" }

func (PublishCatalogue) Verb() string { return "catalogue.publish" }

// Result is what an accepted command led to. Seq is the sequence of its
// commit: whoever reads at or after it sees the change.
type Result struct {
	Seq    uint64 `json:"seq"`
	Number uint64 `json:"number"`
	// Token is the state after the command, for commands about tokens.
	Token *aggregate.Token `json:"token,omitzero"`
	// Enforcer, Consumer, User, Account, Member and Resource likewise.
	Enforcer *aggregate.Enforcer `json:"enforcer,omitzero"`
	Consumer *aggregate.Consumer `json:"consumer,omitzero"`
	User     *aggregate.User     `json:"user,omitzero"`
	Account  *aggregate.Account  `json:"account,omitzero"`
	Member   *aggregate.Member   `json:"member,omitzero"`
	Resource *aggregate.Resource `json:"resource,omitzero"`
	// Sweep is the one that reaches furthest of the selection of a Sweep.
	Sweep *aggregate.Sweep `json:"sweep,omitzero"`
	// Redelivered says that a repeat was recognised: the secret belongs to
	// the token that the first request made.
	Redelivered bool `json:"redelivered,omitzero"`
	// Unchanged says that the command asked for what already was: nothing
	// was appended and Seq is the head.
	Unchanged bool `json:"unchanged,omitzero"`
}

// Authority is where commands go: the pen in this process, or the way to it.
// Errors are *fault.Error.
type Authority interface {
	// Do decides cmd at the head and returns when its event is durable.
	Do(ctx context.Context, by Caller, cmd Command) (Result, error)
	// Head returns the sequence of the ledger's last commit as the pen
	// that holds the lease knows it.
	Head(ctx context.Context) (uint64, error)
}

// decoders makes each command from its JSON.
var decoders = index(
	decoder[CreateToken](), decoder[UpdateToken](), decoder[RollToken](), decoder[DisableToken](),
	decoder[EnableToken](), decoder[RevokeToken](), decoder[RegisterUser](), decoder[IssueAPIKey](),
	decoder[CreateAccount](), decoder[AddMember](), decoder[EnrollEnforcer](), decoder[RetireEnforcer](),
	decoder[UpdateUser](), decoder[RemoveUser](), decoder[RevokeAPIKey](), decoder[UpdateAccount](),
	decoder[RemoveAccount](), decoder[ChangePolicy](), decoder[ChangeMember](), decoder[RemoveMember](),
	decoder[NoteExpiry](), decoder[RegisterResource](), decoder[UpdateResource](), decoder[MoveResource](), decoder[RemoveResource](),
	decoder[PublishCatalogue](), decoder[EnrollConsumer](), decoder[RetireConsumer](), decoder[ApplyPolicy](), decoder[Sweep](),
)

type decodeFunc struct {
	verb   string
	decode func([]byte) (Command, error)
}

func decoder[C Command]() decodeFunc {
	var zero C
	return decodeFunc{zero.Verb(), func(b []byte) (Command, error) {
		var c C
		err := json.Unmarshal(b, &c, wire, json.RejectUnknownMembers(true))
		return c, err
	}}
}

func index(all ...decodeFunc) map[string]func([]byte) (Command, error) {
	m := make(map[string]func([]byte) (Command, error), len(all))
	for _, d := range all {
		m[d.verb] = d.decode
	}
	return m
}

// wire keeps the resources of a grant as they were sent, byte for byte, and
// writes durations as nanoseconds, for which JSON has no form of its own.
var wire = json.JoinOptions(
	jsontext.PreserveRawStrings(true),
	json.WithMarshalers(json.MarshalToFunc(func(e *jsontext.Encoder, d time.Duration) error {
		return e.WriteToken(jsontext.Int(int64(d)))
	})),
	json.WithUnmarshalers(json.UnmarshalFromFunc(func(dec *jsontext.Decoder, d *time.Duration) error {
		var n int64
		if err := json.UnmarshalDecode(dec, &n); err != nil {
			return err
		}
		*d = time.Duration(n)
		return nil
	})),
)

// message is a command under way.
type message struct {
	Verb    string         `json:"verb"`
	Caller  Caller         `json:"caller"`
	Command jsontext.Value `json:"command"`
}

// Encode returns the message that carries cmd.
func Encode(by Caller, cmd Command) ([]byte, error) {
	body, err := json.Marshal(cmd, wire)
	if err != nil {
		return nil, fmt.Errorf("command: encode %s: %w", cmd.Verb(), err)
	}
	return json.Marshal(message{cmd.Verb(), by, body}, wire)
}

// Decode reads what Encode wrote.
func Decode(b []byte) (Caller, Command, error) {
	var m message
	if err := json.Unmarshal(b, &m, json.RejectUnknownMembers(true)); err != nil {
		return Caller{}, nil, fmt.Errorf("command: decode: %w", err)
	}
	decode, ok := decoders[m.Verb]
	if !ok {
		return Caller{}, nil, fmt.Errorf("command: unknown verb %q", m.Verb)
	}
	cmd, err := decode(m.Command)
	if err != nil {
		return Caller{}, nil, fmt.Errorf("command: decode %s: %w", m.Verb, err)
	}
	return m.Caller, cmd, nil
}
