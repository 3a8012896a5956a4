// Package aggregate is what the ledger's events add up to: the present state
// of a token, a user, an account, a member and an enforcer.
//
// State changes only by applying a record. The directory keeps these values as
// its rows and the authority decides commands on them, so both see the same
// state at the same sequence.
package aggregate

import (
	"errors"
	"fmt"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

// ErrImpossible says that an event does not fit the state that it meets: the
// ledger holds something that no pen of this project writes.
var ErrImpossible = errors.New("aggregate: event does not fit the state")

// Status is where a thing is in its life.
type Status string

// The statuses. Expiry is not one of them: it follows from the clock.
const (
	Active   Status = "active"
	Disabled Status = "disabled"
	Revoked  Status = "revoked" // for users and accounts: removed; for enforcers: retired
)

// Token is the state of a token.
type Token struct {
	ID        token.ID         `json:"id"`
	Name      string           `json:"name"`
	OwnerKind events.OwnerKind `json:"owner_kind"`
	Owner     token.ID         `json:"owner"`
	Status    Status           `json:"status"`
	Grant     token.Grant      `json:"grant"`

	Secret token.Digest `json:"secret"`
	// Previous verifies until PreviousUntil, after a roll with a grace.
	Previous      token.Digest `json:"previous,omitzero"`
	PreviousUntil time.Time    `json:"previous_until,omitzero"`
	// SecretVersion counts the secrets that this token has had, from 1.
	SecretVersion uint32 `json:"secret_version"`

	// Template, TemplateVersion, Widens and Foreign are told at
	// events.TokenCreated.
	Template        string `json:"template,omitzero"`
	TemplateVersion uint32 `json:"template_version,omitzero"`
	Widens          bool   `json:"widens,omitzero"`
	Foreign         bool   `json:"foreign,omitzero"`
	// Notice is the last notice that was given of the token's end.
	Notice Notice `json:"notice,omitzero"`

	Created  time.Time `json:"created"`
	Modified time.Time `json:"modified"`
	Rolled   time.Time `json:"rolled,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
	Reason   string    `json:"reason,omitzero"` // of the last disable or revoke

	Creator events.Actor `json:"creator"`
	// Number is the place of its creation in the ledger, Seq the sequence
	// of the last event about it.
	Number uint64 `json:"number"`
	Seq    uint64 `json:"seq"`
}

// Apply moves the token over a record about it.
func (t *Token) Apply(r *events.Record) error {
	if t.Seq == 0 != isTokenCreated(r) || t.Status == Revoked {
		return fmt.Errorf("%w: %s at %d on token %v (%s)", ErrImpossible, r.Name, r.Number, r.SubjectID(), t.Status)
	}
	switch d := r.Data.(type) {
	case *events.TokenCreated:
		*t = Token{
			ID: r.SubjectID(), Name: d.Name, OwnerKind: d.OwnerKind, Owner: d.Owner, Status: Active, Grant: d.Grant,
			Secret: d.Secret, SecretVersion: 1, Created: r.Time, Creator: r.Actor, Number: r.Number,
			Template: d.Template, TemplateVersion: d.TemplateVersion, Widens: d.Widens, Foreign: d.Foreign,
		}
		if d.Disabled {
			t.Status = Disabled
		}
	case *events.TokenUpdated:
		t.Name, t.Grant, t.Widens = d.Name, d.Grant, d.Widens
		if d.Status != "" {
			t.Status = Status(d.Status)
		}
	case *events.TokenRolled:
		t.roll(r, d)
	case *events.TokenDisabled:
		t.Status, t.Reason = Disabled, d.Reason
	case *events.TokenEnabled:
		t.Status, t.Reason = Active, d.Reason
	case *events.TokenRevoked:
		t.end(r.Time, d.Reason)
	case *events.TokenExpiring:
		t.Notice, t.Seq = Notice{d.ExpiresOn, d.DaysBefore}, r.Seq
		return nil
	case *events.TokenExpired:
		t.Notice, t.Seq = Notice{ExpiresOn: d.ExpiresOn}, r.Seq
		return nil
	default:
		return fmt.Errorf("%w: %s on a token", ErrImpossible, r.Name)
	}
	t.Modified, t.Seq = r.Time, r.Seq
	return nil
}

func isTokenCreated(r *events.Record) bool {
	_, ok := r.Data.(*events.TokenCreated)
	return ok
}

// roll replaces the secret. A redelivery replaces only the secret that was
// never delivered and leaves the one before it, and its grace, as they are.
func (t *Token) roll(r *events.Record, d *events.TokenRolled) {
	if d.Reason != events.RollRedelivery {
		t.Previous, t.PreviousUntil = token.Digest{}, time.Time{}
		if !d.GraceUntil.IsZero() {
			t.Previous, t.PreviousUntil = t.Secret, d.GraceUntil
		}
	}
	t.Secret, t.Rolled = d.Secret, r.Time
	t.SecretVersion++
}

func (t *Token) end(at time.Time, reason string) {
	t.Status, t.Ended, t.Reason = Revoked, at, reason
	t.Previous, t.PreviousUntil = token.Digest{}, time.Time{}
}

// OwnedBy returns whose token it is.
func (t *Token) OwnedBy() Owner { return Owner{t.OwnerKind, t.Owner} }

// Account returns the account that the token belongs to, or the zero ID for a
// user's token.
func (t *Token) Account() token.ID {
	if t.OwnerKind == events.OwnedByAccount {
		return t.Owner
	}
	return token.ID{}
}

// User is the state of a person, with their Global API Key.
type User struct {
	ID         token.ID       `json:"id"`
	Status     Status         `json:"status"`
	Email      events.Sealed  `json:"email"`
	EmailIndex string         `json:"email_index"`
	Name       *events.Sealed `json:"name,omitzero"`
	Operator   bool           `json:"operator,omitzero"`
	Key        token.Digest   `json:"key,omitzero"` // zero when the user has none
	KeyIssued  time.Time      `json:"key_issued,omitzero"`
	Created    time.Time      `json:"created"`
	Modified   time.Time      `json:"modified"`
	Seq        uint64         `json:"seq"`
}

// Apply moves the user over a record about them or their key.
func (u *User) Apply(r *events.Record) error {
	d, registered := r.Data.(*events.UserRegistered)
	if u.Seq == 0 != registered || u.Status == Revoked {
		return fmt.Errorf("%w: %s at %d on user %v (%s)", ErrImpossible, r.Name, r.Number, r.SubjectID(), u.Status)
	}
	switch e := r.Data.(type) {
	case *events.UserRegistered:
		*u = User{ID: r.SubjectID(), Status: Active, Email: d.Email, EmailIndex: d.EmailIndex, Name: d.Name, Operator: d.Operator, Created: r.Time}
	case *events.UserUpdated:
		u.Email, u.EmailIndex, u.Name = e.Email, e.EmailIndex, e.Name
	case *events.UserRemoved:
		u.Status, u.Key = Revoked, token.Digest{}
	case *events.APIKeyIssued:
		u.Key, u.KeyIssued = e.Secret, r.Time
	case *events.APIKeyRolled:
		u.Key, u.KeyIssued = e.Secret, r.Time
	case *events.APIKeyRevoked:
		u.Key = token.Digest{}
	default:
		return fmt.Errorf("%w: %s on a user", ErrImpossible, r.Name)
	}
	u.Modified, u.Seq = r.Time, r.Seq
	return nil
}

// Account is the state of an account, with its policy.
type Account struct {
	ID     token.ID `json:"id"`
	Name   string   `json:"name"`
	Status Status   `json:"status"`
	Policy Policy   `json:"policy,omitzero"`
	// KeysEndSet is since when the policy has said that API keys end; zero
	// while it does not.
	KeysEndSet time.Time `json:"keys_end_set,omitzero"`

	Created  time.Time `json:"created"`
	Modified time.Time `json:"modified"`
	Seq      uint64    `json:"seq"`
}

// Apply moves the account over a record about it.
func (a *Account) Apply(r *events.Record) error {
	_, created := r.Data.(*events.AccountCreated)
	if a.Seq == 0 != created || a.Status == Revoked {
		return fmt.Errorf("%w: %s at %d on account %v (%s)", ErrImpossible, r.Name, r.Number, r.SubjectID(), a.Status)
	}
	switch e := r.Data.(type) {
	case *events.AccountCreated:
		*a = Account{ID: r.SubjectID(), Name: e.Name, Status: Active, Created: r.Time}
	case *events.AccountUpdated:
		a.Name = e.Name
	case *events.AccountRemoved:
		a.Status = Revoked
	case *events.PolicyChanged:
		a.Policy = Policy{
			LifetimeSecondsMax: e.LifetimeSecondsMax, ExpiryRequired: e.ExpiryRequired, AddressRequired: e.AddressRequired,
			TokensMax: e.TokensMax, KeysEnd: e.KeysEnd,
		}
		switch {
		case e.KeysEnd.IsZero():
			a.KeysEndSet = time.Time{}
		case a.KeysEndSet.IsZero():
			a.KeysEndSet = r.Time
		}
	default:
		return fmt.Errorf("%w: %s on an account", ErrImpossible, r.Name)
	}
	a.Modified, a.Seq = r.Time, r.Seq
	return nil
}

// Policy is what holds for all tokens that reach into an account, as it is told
// at events.PolicyChanged. The zero value bounds nothing.
type Policy struct {
	LifetimeSecondsMax int64     `json:"lifetime_seconds_max,omitzero"`
	ExpiryRequired     bool      `json:"expiry_required,omitzero"`
	AddressRequired    bool      `json:"address_required,omitzero"`
	TokensMax          int32     `json:"tokens_max,omitzero"`
	KeysEnd            time.Time `json:"keys_end,omitzero"`
}

// KeysOver reports whether API keys have ended at a time.
func (p *Policy) KeysOver(now time.Time) bool { return !p.KeysEnd.IsZero() && !now.Before(p.KeysEnd) }

// Member is the state of a user's membership of an account.
type Member struct {
	ID      token.ID  `json:"id"`
	Account token.ID  `json:"account"`
	User    token.ID  `json:"user"`
	Roles   []string  `json:"roles"`
	Status  Status    `json:"status"`
	Created time.Time `json:"created"`
	Seq     uint64    `json:"seq"`
}

// Apply moves the membership over a record about it.
func (m *Member) Apply(r *events.Record) error {
	_, added := r.Data.(*events.MemberAdded)
	if m.Seq == 0 != added || m.Status == Revoked {
		return fmt.Errorf("%w: %s at %d on member %v (%s)", ErrImpossible, r.Name, r.Number, r.SubjectID(), m.Status)
	}
	switch e := r.Data.(type) {
	case *events.MemberAdded:
		*m = Member{ID: r.SubjectID(), Account: e.Account, User: e.User, Roles: e.Roles, Status: Active, Created: r.Time}
	case *events.MemberChanged:
		m.Roles = e.Roles
	case *events.MemberRemoved:
		m.Status = Revoked
	default:
		return fmt.Errorf("%w: %s on a member", ErrImpossible, r.Name)
	}
	m.Seq = r.Seq
	return nil
}

// Enforcer is the state of an enforcing service.
type Enforcer struct {
	ID             token.ID     `json:"id"`
	Name           string       `json:"name"`
	Region         string       `json:"region,omitzero"`
	Secret         token.Digest `json:"secret"`
	CeilingSeconds int32        `json:"ceiling_seconds,omitzero"`
	Nkey           string       `json:"nkey,omitzero"` // told at events.EnforcerEnrolled
	Status         Status       `json:"status"`
	Enrolled       time.Time    `json:"enrolled"`
	Retired        time.Time    `json:"retired,omitzero"`
	Seq            uint64       `json:"seq"`
}

// Apply moves the enforcer over a record about it.
func (n *Enforcer) Apply(r *events.Record) error {
	_, enrolled := r.Data.(*events.EnforcerEnrolled)
	if n.Seq == 0 != enrolled || n.Status == Revoked {
		return fmt.Errorf("%w: %s at %d on enforcer %v (%s)", ErrImpossible, r.Name, r.Number, r.SubjectID(), n.Status)
	}
	switch e := r.Data.(type) {
	case *events.EnforcerEnrolled:
		*n = Enforcer{
			ID: r.SubjectID(), Name: e.Name, Region: e.Region, Secret: e.Secret, CeilingSeconds: e.CeilingSeconds,
			Nkey: e.Nkey, Status: Active, Enrolled: r.Time,
		}
	case *events.EnforcerRetired:
		n.Status, n.Retired = Revoked, r.Time
	default:
		return fmt.Errorf("%w: %s on an enforcer", ErrImpossible, r.Name)
	}
	n.Seq = r.Seq
	return nil
}

// Consumer is the state of a program that reads the events.
type Consumer struct {
	ID       token.ID  `json:"id"`
	Name     string    `json:"name"`
	Region   string    `json:"region,omitzero"`
	Nkey     string    `json:"nkey,omitzero"`
	Status   Status    `json:"status"` // Revoked: retired
	Enrolled time.Time `json:"enrolled"`
	Retired  time.Time `json:"retired,omitzero"`
	Seq      uint64    `json:"seq"`
}

// Apply moves the consumer over a record about it.
func (n *Consumer) Apply(r *events.Record) error {
	_, enrolled := r.Data.(*events.ConsumerEnrolled)
	if n.Seq == 0 != enrolled || n.Status == Revoked {
		return fmt.Errorf("%w: %s at %d on consumer %v (%s)", ErrImpossible, r.Name, r.Number, r.SubjectID(), n.Status)
	}
	switch e := r.Data.(type) {
	case *events.ConsumerEnrolled:
		*n = Consumer{ID: r.SubjectID(), Name: e.Name, Region: e.Region, Nkey: e.Nkey, Status: Active, Enrolled: r.Time}
	case *events.ConsumerRetired:
		n.Status, n.Retired = Revoked, r.Time
	default:
		return fmt.Errorf("%w: %s on a consumer", ErrImpossible, r.Name)
	}
	n.Seq = r.Seq
	return nil
}
