package management

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/prefill"
	"watchword.dev/services/internal/web"
)

// The bounds of one request of an import: rows, bytes of the body, and commands
// that are under way at a time. A commit of the pen takes half as many.
const (
	importRows   = 1000
	importBody   = 1 << 20
	importAtOnce = 256
)

// importPath is where tokens of another system are taken over.
const importPath = base + "/import/tokens"

// foreignScheme stands before the digest of a secret that another system made:
// its plain SHA-256, in hexadecimal digits.
const foreignScheme = "d0:"

// importedToken is one token of another system.
type importedToken struct {
	tokenBody `json:",inline"`
	Owner     string `json:"owner"` // e-mail address of a user, id of a user or account
	Secret    string `json:"secret"`
}

// The outcomes of a row. One that has failed can be sent again as it is.
const (
	importCreated   = "created"
	importChanged   = "changed" // of the directory
	importUnchanged = "unchanged"
	importConflict  = "conflict"
	importRefused   = "refused"
	importFailed    = "failed"
)

// importOutcome is what became of a row. The pointer is into the row.
type importOutcome struct {
	Outcome string        `json:"outcome"`
	ID      string        `json:"id,omitempty"` // of what the row is about
	Code    int           `json:"code,omitzero"`
	Reason  fault.Code    `json:"reason,omitempty"`
	Message string        `json:"message,omitempty"`
	Pointer fault.Pointer `json:"pointer,omitempty"`
}

// importRun is one request of an import of tokens.
type importRun struct {
	*importBatch
	mu     sync.Mutex // guards owners
	owners map[string]importOwner
}

// importOwner is whose a row says that its token is.
type importOwner struct {
	prefill.Owner
	err error
}

// importTokens takes over tokens of another system, each on its own: one that
// is refused does not disturb the others.
func (s *Service) importTokens(x *web.Exchange) error {
	c, err := s.operatorNow(x)
	if err != nil {
		return err
	}
	dry, err := oneOf(x.Request().URL.Query(), "dry_run", "false", "true")
	if err != nil {
		return err
	}
	raw, err := x.Body(importBody)
	if err != nil {
		return err
	}
	var b struct {
		Tokens []jsontext.Value `json:"tokens"`
	}
	if err := x.DecodeBytes(raw, &b); err != nil {
		return err
	}
	switch n := len(b.Tokens); {
	case n == 0:
		return fault.New(fault.InvalidField).WithPointer("/tokens")
	case n > importRows:
		return fault.New(fault.BatchTooLarge).WithDetail("at most %d tokens", importRows)
	}
	run := &importRun{owners: map[string]importOwner{}}
	if run.importBatch, err = s.importBatch(x, c, dry); err != nil {
		return err
	}
	out, err := run.all(x, b.Tokens, run.one)
	if err != nil {
		return err
	}
	return x.Result(struct {
		Tokens []importOutcome `json:"tokens"`
	}{out})
}

// one imports a row.
func (r *importRun) one(raw jsontext.Value) importOutcome {
	cmd, err := r.command(raw)
	if err != nil {
		return r.refusal("", err)
	}
	res, err := r.do(cmd)
	if err != nil {
		return r.refusal(cmd.ID.String(), err)
	}
	if res.Unchanged && res.Token != nil {
		return importOutcome{Outcome: importUnchanged, ID: cmd.ID.String()}
	}
	return importOutcome{Outcome: importCreated, ID: cmd.ID.String()}
}

// command reads a row.
func (r *importRun) command(raw jsontext.Value) (command.CreateToken, error) {
	var cmd command.CreateToken
	var b importedToken
	if err := web.Unmarshal(raw, &b); err != nil {
		return cmd, err
	}
	plain, err := foreignDigest(b.Secret)
	if err != nil {
		return cmd, err
	}
	if b.Status != "" && b.Status != statusActive && b.Status != statusDisabled {
		return cmd, fault.New(fault.InvalidStatus).WithPointer("/status")
	}
	owner, err := r.owner(b.Owner)
	if err != nil {
		return cmd, err
	}
	ends := b.ExpiresOn != ""
	if err := r.s.fill(&b.tokenBody, owner); err != nil {
		return cmd, err
	}
	if b.Template != "" && b.ExpiresOn != "" && !ends {
		// The same row tomorrow would be another one.
		return cmd, fault.New(fault.InvalidField).WithPointer("/expires_on").
			WithDetail("the template bounds the lifetime of what is made here: say when this token ends")
	}
	g, err := r.s.grant(&b.tokenBody)
	if err != nil {
		return cmd, err
	}
	return command.CreateToken{
		Target: command.Target{ID: r.s.foreignID(plain), OwnerKind: owner.Kind, Owner: owner.ID},
		Name:   b.Name, Grant: g, Disabled: b.Status == statusDisabled, Template: b.Template,
		Widens: b.Widens != nil && *b.Widens, Secret: token.SumForeign(plain), Foreign: true, DryRun: r.dry,
	}, nil
}

// foreignDigest reads "d0:" and the plain SHA-256 of a secret. A secret itself
// does not leave the machine of whoever imports it.
func foreignDigest(s string) (plain [sha256.Size]byte, err error) {
	refused := fault.New(fault.InvalidField).WithPointer("/secret").WithDetail("d0: and the 64 hexadecimal digits of its SHA-256; never a secret itself")
	digits, ok := strings.CutPrefix(s, foreignScheme)
	if !ok || len(digits) != 2*len(plain) {
		return plain, refused
	}
	if _, err := hex.Decode(plain[:], []byte(digits)); err != nil {
		return plain, refused
	}
	return plain, nil
}

// foreignID returns the id of the token whose secret has this digest, so that
// the same secret always is the same token, also when it was rolled or revoked.
// It is keyed: secrets of other systems may be short enough to guess, and ids
// are seen by many. Its time is none, so that what was made elsewhere stands
// before what was made here.
func (s *Service) foreignID(plain [sha256.Size]byte) token.ID {
	return s.derivedID("watchword import v1", plain[:])
}

// owner finds the owner that a row names. Many rows have the same.
func (r *importRun) owner(name string) (prefill.Owner, error) {
	r.mu.Lock()
	o, ok := r.owners[name]
	r.mu.Unlock()
	if !ok {
		o.Owner, o.err = r.s.ownerNamed(name)
		r.mu.Lock()
		r.owners[name] = o
		r.mu.Unlock()
	}
	return o.Owner, o.err
}

// ownerNamed finds a user by address or id, or an account by id.
func (s *Service) ownerNamed(name string) (prefill.Owner, error) {
	unknown := fault.New(fault.UserNotFound).WithPointer("/owner")
	if strings.Contains(name, "@") {
		u, ok, err := s.Directory.UserByEmail(s.Sealer.EmailIndex(name))
		if err == nil && !ok {
			err = unknown
		}
		return prefill.Owner{Kind: events.OwnedByUser, ID: u.ID}, err
	}
	id, err := token.ParseID(name)
	if err != nil {
		return prefill.Owner{}, fault.New(fault.InvalidField).WithPointer("/owner").WithDetail("the e-mail address of a user, or the id of a user or an account")
	}
	u, ok, err := s.Directory.User(id)
	if err != nil || ok && u.Status == aggregate.Active {
		return prefill.Owner{Kind: events.OwnedByUser, ID: id}, err
	}
	a, ok, err := s.Directory.Account(id)
	if err == nil && (!ok || a.Status != aggregate.Active) {
		err = unknown
	}
	return prefill.Owner{Kind: events.OwnedByAccount, ID: id}, err
}
