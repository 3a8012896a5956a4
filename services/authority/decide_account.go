package authority

import (
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// The largest bounds that an account's policy takes.
const (
	tokensMaxMost = 1_000_000
	lifetimeMost  = 100 * 365 * 24 * time.Hour
)

// subjectAccount returns the living account that the principal may manage. To
// all but operators, one that does not exist is like one of others.
func (r *rules) subjectAccount(v *view, p *principal, id token.ID, now time.Time) (*aggregate.Account, error) {
	if !p.operates() && !r.mayAdminister(v, p, id, now) {
		return nil, fault.NotPermitted
	}
	a, ok := v.account(id)
	if !ok || a.Status != aggregate.Active {
		return nil, fault.AccountNotFound
	}
	return a, nil
}

func (r *rules) createAccount(v *view, p *principal, c *command.CreateAccount, now time.Time) (outcome, error) {
	if !p.operates() {
		return outcome{}, fault.NotPermitted
	}
	if c.ID.IsZero() {
		return outcome{}, fault.InvalidField
	}
	if err := checkName(c.Name); err != nil {
		return outcome{}, err
	}
	if a, ok := v.account(c.ID); ok {
		if a.Status == aggregate.Active && a.Name == c.Name {
			return outcome{account: c.ID}, nil
		}
		return outcome{}, fault.Conflict
	}
	return outcome{account: c.ID, draft: r.draft(p, "account", c.ID, c.ID, now, &events.AccountCreated{Name: c.Name, Origin: p.caller.Origin})}, nil
}

func (r *rules) updateAccount(v *view, p *principal, c *command.UpdateAccount, now time.Time) (outcome, error) {
	a, err := r.subjectAccount(v, p, c.ID, now)
	if err != nil {
		return outcome{}, err
	}
	if err := checkName(c.Name); err != nil {
		return outcome{}, err
	}
	if a.Name == c.Name {
		return outcome{account: c.ID}, nil
	}
	return outcome{account: c.ID, draft: r.draft(p, "account", c.ID, c.ID, now, &events.AccountUpdated{Name: c.Name, Origin: p.caller.Origin})}, nil
}

// removeAccount is for operators: it ends what others own.
func (r *rules) removeAccount(v *view, p *principal, c *command.RemoveAccount, now time.Time) (outcome, error) {
	if !p.operates() {
		return outcome{}, fault.NotPermitted
	}
	if err := checkReason(c.Reason); err != nil {
		return outcome{}, err
	}
	if !v.accountActive(c.ID) {
		return outcome{}, fault.AccountNotFound
	}
	return outcome{account: c.ID, draft: r.draft(p, "account", c.ID, c.ID, now, &events.AccountRemoved{
		Reason: c.Reason, Origin: p.caller.Origin,
	})}, nil
}

// changePolicy replaces an account's policy.
func (r *rules) changePolicy(v *view, p *principal, c *command.ChangePolicy, now time.Time) (outcome, error) {
	a, err := r.subjectAccount(v, p, c.Account, now)
	if err != nil {
		return outcome{}, err
	}
	next := c.Policy
	next.KeysEnd = next.KeysEnd.UTC().Truncate(time.Millisecond)
	if next.LifetimeSecondsMax < 0 || next.LifetimeSecondsMax > int64(lifetimeMost/time.Second) {
		return outcome{}, fault.New(fault.InvalidField).WithPointer("/lifetime_seconds_max")
	}
	if next.TokensMax < 0 || next.TokensMax > tokensMaxMost {
		return outcome{}, fault.New(fault.InvalidField).WithPointer("/tokens_max")
	}
	if r.raises(a.Policy, next) && !p.operates() {
		return outcome{}, fault.New(fault.NotPermitted).WithPointer("/tokens_max").WithDetail("above %d it is an operator's to set", int(r.quota.Account))
	}
	if !next.KeysEnd.IsZero() && (next.KeysEnd.Year() < 2000 || next.KeysEnd.Year() > 9999) {
		return outcome{}, fault.New(fault.InvalidTimes).WithPointer("/keys_end")
	}
	if command.SamePolicy(a.Policy, next) {
		return outcome{account: c.Account}, nil
	}
	return outcome{account: c.Account, draft: r.draft(p, "policy", c.Account, c.Account, now, &events.PolicyChanged{
		LifetimeSecondsMax: next.LifetimeSecondsMax, ExpiryRequired: next.ExpiryRequired, AddressRequired: next.AddressRequired,
		TokensMax: next.TokensMax, KeysEnd: next.KeysEnd, Origin: p.caller.Origin,
	})}, nil
}

// applyPolicy brings one of the account's own tokens to what its policy asks
// for. It is for those who may change the policy: it gives nobody anything, so
// that they need not hold what the token does.
//
// A user's token is not an account's to change, even where it reaches into the
// account. It meets the policy when its user changes it.
func (r *rules) applyPolicy(v *view, p *principal, c *command.ApplyPolicy, now time.Time) (outcome, error) {
	a, err := r.subjectAccount(v, p, c.Account, now)
	if err != nil {
		return outcome{}, err
	}
	if !command.SamePolicy(a.Policy, c.Policy) {
		return outcome{}, fault.Conflict
	}
	t, ok := v.token(c.Token)
	if !ok || t.OwnerKind != events.OwnedByAccount || t.Owner != c.Account {
		return outcome{}, fault.TokenNotFound
	}
	m := command.Mend(a.Policy, t, now)
	if len(m.Breaches) == 0 {
		return outcome{token: t.ID}, nil
	}
	reason := m.Reason(c.Account)
	var data events.Event = &events.TokenDisabled{Reason: reason, Origin: p.caller.Origin}
	if !m.ExpiresOn.IsZero() {
		g := t.Grant
		g.ExpiresOn = m.ExpiresOn
		data = &events.TokenUpdated{Name: t.Name, Grant: g, Widens: t.Widens, Reason: reason, Origin: p.caller.Origin}
	}
	return outcome{token: t.ID, draft: r.tokenDraft(p, targetOf(t), now, data)}, nil
}
