package authority

import (
	"bytes"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// is says whether the principal is this user, by their API key.
func (p *principal) is(user token.ID) bool {
	return p.user != nil && p.token == nil && p.user.ID == user
}

// subjectUser returns the living user whom a command of an operator, or of the
// user themselves, is about.
func (v *view) subjectUser(p *principal, id token.ID) (*aggregate.User, error) {
	if !p.operates() && !p.is(id) {
		return nil, fault.NotPermitted
	}
	u, ok := v.user(id)
	if !ok || u.Status != aggregate.Active {
		return nil, fault.UserNotFound
	}
	return u, nil
}

// registerUser makes a person known.
func (r *rules) registerUser(v *view, p *principal, c *command.RegisterUser, now time.Time) (outcome, error) {
	if !p.operates() {
		return outcome{}, fault.NotPermitted
	}
	if c.ID.IsZero() || c.EmailIndex == "" || len(c.EmailIndex) > textMax {
		return outcome{}, fault.InvalidField
	}
	if u, ok := v.user(c.ID); ok {
		if u.Status == aggregate.Active && u.EmailIndex == c.EmailIndex && u.Operator == c.Operator {
			return outcome{user: c.ID}, nil
		}
		return outcome{}, fault.Conflict
	}
	if v.emailTaken(c.EmailIndex) {
		return outcome{}, fault.Conflict
	}
	return outcome{user: c.ID, draft: r.draft(p, "user", c.ID, token.ID{}, now, &events.UserRegistered{
		Email: c.Email, EmailIndex: c.EmailIndex, Name: c.Name, Operator: c.Operator, Origin: p.caller.Origin,
	})}, nil
}

// updateUser changes what is known of a user. Their address is half of a
// credential: only an operator changes it.
func (r *rules) updateUser(v *view, p *principal, c *command.UpdateUser, now time.Time) (outcome, error) {
	u, err := v.subjectUser(p, c.ID)
	if err != nil {
		return outcome{}, err
	}
	if (c.Email == nil) != (c.EmailIndex == "") || len(c.EmailIndex) > textMax || c.NoName && c.Name != nil {
		return outcome{}, fault.InvalidField
	}
	e := &events.UserUpdated{Email: u.Email, EmailIndex: u.EmailIndex, Name: u.Name, Origin: p.caller.Origin}
	if c.Email != nil {
		if !p.operates() {
			return outcome{}, fault.NotPermitted
		}
		if c.EmailIndex != u.EmailIndex && v.emailTaken(c.EmailIndex) {
			return outcome{}, fault.Conflict
		}
		e.Email, e.EmailIndex = *c.Email, c.EmailIndex
	}
	if c.Name != nil || c.NoName {
		e.Name = c.Name
	}
	if e.EmailIndex == u.EmailIndex && sameSealed(&e.Email, &u.Email) && sameSealed(e.Name, u.Name) {
		return outcome{user: c.ID}, nil
	}
	return outcome{user: c.ID, draft: r.draft(p, "user", c.ID, token.ID{}, now, e)}, nil
}

// sameSealed says whether both are the same bytes, or not there.
func sameSealed(a, b *events.Sealed) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Key == b.Key && bytes.Equal(a.Nonce, b.Nonce) && bytes.Equal(a.Ciphertext, b.Ciphertext)
}

// removeUser ends a user. An operator does not end themselves, so that one is
// left; a user who leaves by themselves leaves no account without an
// administrator.
func (r *rules) removeUser(v *view, p *principal, c *command.RemoveUser, now time.Time) (outcome, error) {
	u, err := v.subjectUser(p, c.ID)
	if err != nil {
		return outcome{}, err
	}
	if err := checkReason(c.Reason); err != nil {
		return outcome{}, err
	}
	if p.is(c.ID) {
		if u.Operator {
			return outcome{}, fault.New(fault.NotPermitted).WithDetail("an operator is removed by another one")
		}
		for _, m := range v.memberships(u.ID) {
			if v.accountActive(m.Account) && v.lastAdministrator(m) {
				return outcome{}, fault.LastAdministrator
			}
		}
	}
	return outcome{user: c.ID, draft: r.draft(p, "user", c.ID, token.ID{}, now, &events.UserRemoved{
		Reason: c.Reason, Origin: p.caller.Origin,
	})}, nil
}

// issueAPIKey gives a user a key or replaces it: operators for anybody, users
// by their present key for themselves. Once keys have ended wherever it could be
// used there is none to be had.
func (r *rules) issueAPIKey(v *view, p *principal, c *command.IssueAPIKey, now time.Time) (outcome, error) {
	u, err := v.subjectUser(p, c.User)
	if err != nil {
		return outcome{}, err
	}
	if u.Key == c.Secret && !c.Secret.IsZero() {
		return outcome{user: c.User}, nil
	}
	if err := checkSecret(v, c.Secret); err != nil {
		return outcome{}, err
	}
	if v.keysOver(u, now) {
		return outcome{}, fault.APIKeysEnded
	}
	var data events.Event = &events.APIKeyIssued{Secret: c.Secret, Origin: p.caller.Origin}
	if !u.Key.IsZero() {
		data = &events.APIKeyRolled{Secret: c.Secret, Origin: p.caller.Origin}
	}
	return outcome{user: c.User, draft: r.draft(p, "apikey", c.User, token.ID{}, now, data)}, nil
}

// revokeAPIKey ends a user's key. An operator's own is ended by another one:
// nothing else lets an operator in, and somebody must be able to.
func (r *rules) revokeAPIKey(v *view, p *principal, c *command.RevokeAPIKey, now time.Time) (outcome, error) {
	u, err := v.subjectUser(p, c.User)
	if err != nil {
		return outcome{}, err
	}
	if err := checkReason(c.Reason); err != nil {
		return outcome{}, err
	}
	if u.Operator && p.is(c.User) {
		return outcome{}, fault.New(fault.NotPermitted).WithDetail("an operator's key is ended by another operator; roll it instead")
	}
	if u.Key.IsZero() {
		return outcome{user: c.User}, nil
	}
	return outcome{user: c.User, draft: r.draft(p, "apikey", c.User, token.ID{}, now, &events.APIKeyRevoked{
		Reason: c.Reason, Origin: p.caller.Origin,
	})}, nil
}
