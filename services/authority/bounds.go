package authority

import (
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// bound says whether a grant for this owner keeps the policies of the accounts
// into which it reaches: an account's token that of its account, a user's token
// those of all accounts of the user that it names. Nobody is exempt, and
// neither are imports.
func (r *rules) bound(v *view, p *principal, at command.Target, g token.Grant, now time.Time) error {
	accounts := []token.ID{at.Owner}
	if at.OwnerKind == events.OwnedByUser {
		var err error
		if accounts, err = r.reached(v, p, at, g); err != nil {
			return err
		}
	}
	for _, id := range accounts {
		a, ok := v.account(id)
		if !ok {
			continue
		}
		if err := command.KeepsPolicy(a.Policy, g, now); err != nil {
			return err
		}
	}
	return nil
}

// reached returns the accounts into which the allowing policies of a grant that
// the principal may give reach.
func (r *rules) reached(v *view, p *principal, at command.Target, g token.Grant) (all []token.ID, _ error) {
	for i := range g.Policies {
		if g.Policies[i].Effect != token.EffectAllow {
			continue
		}
		matchers, err := token.ParseResources(g.Policies[i].Resources, r.catalogue)
		if err != nil {
			return nil, command.GrantFault(err, r.catalogue)
		}
		for _, m := range matchers {
			accounts, _ := r.reach(v, p, at.OwnerKind, at.Owner, m)
			all = append(all, accounts...)
		}
	}
	return all, nil
}

// noteExpiry gives notice of a token's end, once: of the end that it has now,
// and never less pressing notice than was given before. Of what has ended
// otherwise there is none.
func (r *rules) noteExpiry(v *view, p *principal, c *command.NoteExpiry, now time.Time) (outcome, error) {
	if !p.system {
		return outcome{}, fault.NotPermitted
	}
	if c.DaysBefore < 0 || c.DaysBefore > noticeMost {
		return outcome{}, fault.InvalidField
	}
	t, ok := v.token(c.Token)
	if !ok || t.Status == aggregate.Revoked || !v.ownerLives(t) {
		return outcome{}, fault.TokenNotFound
	}
	if !t.Grant.ExpiresOn.Equal(c.ExpiresOn) || c.ExpiresOn.IsZero() || t.Given(c.DaysBefore) {
		return outcome{token: t.ID}, nil
	}
	if now.Before(c.ExpiresOn.AddDate(0, 0, -int(c.DaysBefore))) {
		return outcome{}, fault.InvalidTimes
	}
	var data events.Event = &events.TokenExpired{ExpiresOn: t.Grant.ExpiresOn}
	if c.DaysBefore > 0 {
		data = &events.TokenExpiring{ExpiresOn: t.Grant.ExpiresOn, DaysBefore: c.DaysBefore}
	}
	return outcome{token: t.ID, draft: r.tokenDraft(p, targetOf(t), now, data)}, nil
}

// noticeMost is how many days ahead notice can be given.
const noticeMost = 366

// ownerLives says whether the token has not ended with its owner.
func (v *view) ownerLives(t *aggregate.Token) bool {
	if t.OwnerKind == events.OwnedByAccount {
		return v.accountActive(t.Owner)
	}
	u, ok := v.user(t.Owner)
	return ok && u.Status == aggregate.Active
}
