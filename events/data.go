package events

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/token"
)

// Sealed is a personal field: text under a key that belongs to one person.
// Erasing the key erases the text; the bytes in the ledger stay as they are.
type Sealed struct {
	Key        string `json:"k"`
	Nonce      []byte `json:"n"`
	Ciphertext []byte `json:"ct"`
}

// Origin tells from where a command came. Both fields are personal.
type Origin struct {
	Address *Sealed `json:"address,omitzero"`
	Agent   *Sealed `json:"agent,omitzero"`
}

// OwnerKind says whether a token belongs to a user or to an account.
type OwnerKind string

// The kinds of owner.
const (
	OwnedByUser    OwnerKind = "user"
	OwnedByAccount OwnerKind = "account"
)

// TokenCreated says that a token came into being.
type TokenCreated struct {
	Name      string       `json:"name"`
	OwnerKind OwnerKind    `json:"owner_kind"`
	Owner     token.ID     `json:"owner"`
	Secret    token.Digest `json:"secret_digest"`
	Grant     token.Grant  `json:"grant"`
	Disabled  bool         `json:"disabled,omitzero"`
	// Template and TemplateVersion name the template of the catalogue that
	// the grant was made from, and the version of that catalogue; empty and
	// zero when there was none.
	Template        string `json:"template,omitzero"`
	TemplateVersion uint32 `json:"template_version,omitzero"`
	// Widens lets the token give others all that its owner holds, and not
	// only what it holds itself.
	Widens bool `json:"widens,omitzero"`
	// Foreign marks a token that was taken over from another system with its
	// secret: Secret is then token.SumForeign.
	Foreign bool `json:"foreign,omitzero"`
	// Request is the digest of the request that caused it, by which a
	// repeat of a request whose answer was lost is known.
	Request string `json:"request_digest,omitzero"`
	Origin  Origin `json:"origin,omitzero"`
}

// TokenUpdated says that a token's name and grant were replaced. It carries
// the whole new grant.
type TokenUpdated struct {
	Name   string      `json:"name"`
	Grant  token.Grant `json:"grant"`
	Status string      `json:"status,omitzero"` // "active" or "disabled" when the update also said so
	Widens bool        `json:"widens,omitzero"` // as in TokenCreated
	// Reason says why nobody asked for this grant: an account's policy was
	// applied to it. Empty for what somebody has written.
	Reason string `json:"reason,omitzero"`
	Origin Origin `json:"origin,omitzero"`
}

// TokenRolled says that a token's secret was replaced.
//
// The previous secret verifies until GraceUntil, and not at all when
// GraceUntil is zero. With Reason RollRedelivery the replaced secret is the
// one of a request whose answer was lost, never one that was in use.
type TokenRolled struct {
	Secret     token.Digest `json:"secret_digest"`
	GraceUntil time.Time    `json:"grace_until,omitzero"`
	Reason     string       `json:"reason,omitzero"`
	Request    string       `json:"request_digest,omitzero"`
	Origin     Origin       `json:"origin,omitzero"`
}

// RollRedelivery is the reason of a roll that answers a repeated request.
const RollRedelivery = "redelivery"

// TokenDisabled says that a token was suspended; TokenEnabled ends that.
type TokenDisabled struct {
	Reason string `json:"reason,omitzero"`
	Origin Origin `json:"origin,omitzero"`
}

// TokenEnabled says that a suspended token verifies again.
type TokenEnabled struct {
	Reason string `json:"reason,omitzero"`
	Origin Origin `json:"origin,omitzero"`
}

// TokenRevoked says that a token ended for good.
type TokenRevoked struct {
	Reason string `json:"reason,omitzero"`
	Origin Origin `json:"origin,omitzero"`
}

// TokenExpiring is a notice that a token's validity ends at ExpiresOn. It is
// given once for each number of days ahead.
type TokenExpiring struct {
	ExpiresOn  time.Time `json:"expires_on"`
	DaysBefore int32     `json:"days_before,omitzero"`
}

// TokenExpired is a notice that a token's validity has ended. Verification
// does not wait for it: it compares the clock.
type TokenExpired struct {
	ExpiresOn time.Time `json:"expires_on"`
}

// APIKeyIssued says that a user was given a Global API Key. The subject is
// "apikey/<user id>": a user has one.
type APIKeyIssued struct {
	Secret token.Digest `json:"secret_digest"`
	Origin Origin       `json:"origin,omitzero"`
}

// APIKeyRolled says that the key was replaced; the old one died at once.
type APIKeyRolled struct {
	Secret token.Digest `json:"secret_digest"`
	Origin Origin       `json:"origin,omitzero"`
}

// APIKeyRevoked says that the user's key ended.
type APIKeyRevoked struct {
	Reason string `json:"reason,omitzero"`
	Origin Origin `json:"origin,omitzero"`
}

// UserRegistered says that a person is known. EmailIndex is a keyed hash of
// the address, for look-ups only.
type UserRegistered struct {
	Email      Sealed  `json:"email"`
	EmailIndex string  `json:"email_index"`
	Name       *Sealed `json:"name,omitzero"`
	// Operator marks the people who run this installation.
	Operator bool   `json:"operator,omitzero"`
	Origin   Origin `json:"origin,omitzero"`
}

// UserUpdated says that a person's address or name changed.
type UserUpdated struct {
	Email      Sealed  `json:"email"`
	EmailIndex string  `json:"email_index"`
	Name       *Sealed `json:"name,omitzero"`
	Origin     Origin  `json:"origin,omitzero"`
}

// UserRemoved says that a person is gone, with all that hangs on them: their
// tokens and their key stop verifying at this event.
type UserRemoved struct {
	Reason string `json:"reason,omitzero"`
	Origin Origin `json:"origin,omitzero"`
}

// AccountCreated says that an account exists.
type AccountCreated struct {
	Name   string `json:"name"`
	Origin Origin `json:"origin,omitzero"`
}

// AccountUpdated says that an account was renamed.
type AccountUpdated struct {
	Name   string `json:"name"`
	Origin Origin `json:"origin,omitzero"`
}

// AccountRemoved says that an account is gone: its tokens stop verifying at
// this event.
type AccountRemoved struct {
	Reason string `json:"reason,omitzero"`
	Origin Origin `json:"origin,omitzero"`
}

// MemberAdded says that a user belongs to an account. The subject is
// "member/<membership id>".
type MemberAdded struct {
	Account token.ID `json:"account"`
	User    token.ID `json:"user"`
	Roles   []string `json:"roles"`
	Origin  Origin   `json:"origin,omitzero"`
}

// MemberChanged says that a member's roles were replaced.
type MemberChanged struct {
	Account token.ID `json:"account"`
	User    token.ID `json:"user"`
	Roles   []string `json:"roles"`
	Origin  Origin   `json:"origin,omitzero"`
}

// MemberRemoved says that a user no longer belongs to an account.
type MemberRemoved struct {
	Account token.ID `json:"account"`
	User    token.ID `json:"user"`
	Origin  Origin   `json:"origin,omitzero"`
}

// ResourceRegistered says that a resource exists. The subject is
// "resource/<registration id>"; Type and Resource together are its key, under
// which policies name it, and never change. At most one registration of a key
// is alive.
type ResourceRegistered struct {
	Type     string `json:"type"`     // of the catalogue, such as com.cloudflare.api.account.zone
	Resource string `json:"resource"` // its id within the type
	Name     string `json:"name"`
	// Parent is the key of the resource that it lies in, such as
	// com.cloudflare.api.account.<id>.
	Parent string `json:"parent"`
	Origin Origin `json:"origin,omitzero"`
}

// ResourceUpdated says that a resource was renamed.
type ResourceUpdated struct {
	Type     string `json:"type"`
	Resource string `json:"resource"`
	Name     string `json:"name"`
	Origin   Origin `json:"origin,omitzero"`
}

// ResourceMoved says that a resource, with all that lies in it, lies in another
// one from here on.
type ResourceMoved struct {
	Type     string `json:"type"`
	Resource string `json:"resource"`
	Parent   string `json:"parent"`
	Origin   Origin `json:"origin,omitzero"`
}

// ResourceRemoved says that a resource is gone. What lies in it belongs to
// nobody until it is moved.
type ResourceRemoved struct {
	Type     string `json:"type"`
	Resource string `json:"resource"`
	Reason   string `json:"reason,omitzero"`
	Origin   Origin `json:"origin,omitzero"`
}

// CataloguePublished says that a catalogue holds from here on: resource types,
// permissions, permission groups, roles and templates. It replaces the one
// before it whole.
type CataloguePublished struct {
	// Version counts from 1; the built-in catalogue, which holds until the
	// first one is published, is 0.
	Version uint32 `json:"version"`
	// Document is the catalogue in the one form that catalogue.Document
	// writes.
	Document jsontext.Value `json:"document"`
	// Forced says that it was published although tokens or members use what
	// it drops.
	Forced bool   `json:"forced,omitzero"`
	Origin Origin `json:"origin,omitzero"`
}

// PolicyChanged says what holds for all tokens that reach into an account. The
// subject is "policy/<account id>". It replaces what held before.
type PolicyChanged struct {
	// LifetimeSecondsMax bounds the time between a token's creation or
	// update and its expiry; zero does not.
	LifetimeSecondsMax int64 `json:"lifetime_seconds_max,omitzero"`
	// ExpiryRequired refuses tokens that never expire.
	ExpiryRequired bool `json:"expiry_required,omitzero"`
	// AddressRequired refuses tokens that every address may use.
	AddressRequired bool `json:"address_required,omitzero"`
	// TokensMax is how many tokens the account may own; zero is the
	// installation's default.
	TokensMax int32 `json:"tokens_max,omitzero"`
	// KeysEnd is when API keys stop to work for the account; zero is never.
	KeysEnd time.Time `json:"keys_end,omitzero"`
	Origin  Origin    `json:"origin,omitzero"`
}

// EnforcerEnrolled says that an enforcing service may ask. CeilingSeconds is
// the greatest staleness bound that it may use; zero means the defaults.
type EnforcerEnrolled struct {
	Name           string       `json:"name"`
	Region         string       `json:"region,omitzero"`
	Secret         token.Digest `json:"secret_digest"`
	CeilingSeconds int32        `json:"ceiling_seconds,omitzero"`
	// Nkey is the public key ("U" and 55 letters and digits more) with which
	// it logs in to NATS and signs its receipts; empty means that it asks
	// over HTTP only.
	Nkey   string `json:"nkey,omitzero"`
	Origin Origin `json:"origin,omitzero"`
}

// EnforcerRetired says that an enforcing service may ask no more.
type EnforcerRetired struct {
	Reason string `json:"reason,omitzero"`
	Origin Origin `json:"origin,omitzero"`
}

// ConsumerEnrolled says that a program may read the events, and nothing else.
type ConsumerEnrolled struct {
	Name   string `json:"name"`
	Region string `json:"region,omitzero"`
	// Nkey is the public key with which it logs in to NATS.
	Nkey   string `json:"nkey,omitzero"`
	Origin Origin `json:"origin,omitzero"`
}

// ConsumerRetired says that a program may read the events no more.
type ConsumerRetired struct {
	Reason string `json:"reason,omitzero"`
	Origin Origin `json:"origin,omitzero"`
}

// The selectors of a sweep.
const (
	SweepOwner    = "owner"    // Selected is the id of a user or an account: the tokens that it owns
	SweepAccount  = "account"  // Selected is the id of an account: its own tokens
	SweepTemplate = "template" // Selected is the id of a template
	SweepAll      = "all"      // Selected is empty: every token
)

// RevocationSwept revokes at once all tokens of its selection whose creation has
// a number at or below Through. Secrets rolled later make no difference: it is
// the creation of the token that counts. The subject is "revocation/<id>". Users'
// API keys are no tokens: no sweep ends them.
type RevocationSwept struct {
	By       string `json:"by"`
	Selected string `json:"selected,omitzero"`
	// Through is the number of an event before this one: in what comes later
	// there is nothing that this could revoke.
	Through uint64 `json:"through"`
	Reason  string `json:"reason,omitzero"`
	Origin  Origin `json:"origin,omitzero"`
}

// LogOpened is the first event of a ledger.
type LogOpened struct {
	Installation token.ID `json:"installation"`
	Brand        string   `json:"brand"`
	// PulseKey is the Ed25519 public key, in standard base64, under which
	// the pen signs its pulses.
	PulseKey []byte `json:"pulse_key"`
}

// EpochOpened says that the stream begins another life, after a restore or a
// promotion. It is the first event of its epoch.
type EpochOpened struct {
	Reason string `json:"reason"`
	// PreviousStopped is the operator's word that no pen of the epoch before
	// runs any more, nor can start again: that nothing vouches for it.
	PreviousStopped bool `json:"previous_stopped,omitzero"`
}

// PenOpened says that a pen took over with this term. Appends of an older
// term fail from here on.
type PenOpened struct {
	Term uint64 `json:"term"`
	Node string `json:"node"`
}

// FormatRaised says that every live reader knows these event types, so that
// the pen may write them.
type FormatRaised struct {
	Types []string `json:"types"`
}

// The names are constants of the wire.
func (TokenCreated) EventName() string       { return "token.created.v1" }
func (TokenUpdated) EventName() string       { return "token.updated.v1" }
func (TokenRolled) EventName() string        { return "token.rolled.v1" }
func (TokenDisabled) EventName() string      { return "token.disabled.v1" }
func (TokenEnabled) EventName() string       { return "token.enabled.v1" }
func (TokenRevoked) EventName() string       { return "token.revoked.v1" }
func (TokenExpiring) EventName() string      { return "token.expiring.v1" }
func (TokenExpired) EventName() string       { return "token.expired.v1" }
func (APIKeyIssued) EventName() string       { return "apikey.issued.v1" }
func (APIKeyRolled) EventName() string       { return "apikey.rolled.v1" }
func (APIKeyRevoked) EventName() string      { return "apikey.revoked.v1" }
func (UserRegistered) EventName() string     { return "user.registered.v1" }
func (UserUpdated) EventName() string        { return "user.updated.v1" }
func (UserRemoved) EventName() string        { return "user.removed.v1" }
func (AccountCreated) EventName() string     { return "account.created.v1" }
func (AccountUpdated) EventName() string     { return "account.updated.v1" }
func (AccountRemoved) EventName() string     { return "account.removed.v1" }
func (MemberAdded) EventName() string        { return "member.added.v1" }
func (MemberChanged) EventName() string      { return "member.changed.v1" }
func (MemberRemoved) EventName() string      { return "member.removed.v1" }
func (ResourceRegistered) EventName() string { return "resource.registered.v1" }
func (ResourceUpdated) EventName() string    { return "resource.updated.v1" }
func (ResourceMoved) EventName() string      { return "resource.moved.v1" }
func (ResourceRemoved) EventName() string    { return "resource.removed.v1" }
func (CataloguePublished) EventName() string { return "catalogue.published.v1" }
func (PolicyChanged) EventName() string      { return "policy.changed.v1" }
func (EnforcerEnrolled) EventName() string   { return "enforcer.enrolled.v1" }
func (EnforcerRetired) EventName() string    { return "enforcer.retired.v1" }
func (ConsumerEnrolled) EventName() string   { return "consumer.enrolled.v1" }
func (ConsumerRetired) EventName() string    { return "consumer.retired.v1" }
func (RevocationSwept) EventName() string    { return "revocation.swept.v1" }
func (LogOpened) EventName() string          { return "log.opened.v1" }
func (EpochOpened) EventName() string        { return "epoch.opened.v1" }
func (PenOpened) EventName() string          { return "pen.opened.v1" }
func (FormatRaised) EventName() string       { return "format.raised.v1" }
