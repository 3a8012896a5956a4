package authority

import (
	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/services/internal/command"
)

// mostTokens returns how many tokens the owner may have; zero is no bound.
func (r *rules) mostTokens(v *view, o aggregate.Owner) int32 {
	if o.Kind == events.OwnedByUser {
		return r.quota.User
	}
	a, ok := v.account(o.ID)
	if !ok {
		return r.quota.Account
	}
	return r.quota.Of(a.Policy)
}

// room says whether the owner may have one token more. The count is that of the
// head, with what stands before this command in its commit, so of two that come
// at once for the last place one is refused.
func (r *rules) room(v *view, at command.Target) error {
	o := aggregate.Owner{Kind: at.OwnerKind, ID: at.Owner}
	most := r.mostTokens(v, o)
	if most == 0 {
		return nil
	}
	if n, _ := v.counts(o); n.Live >= uint64(most) {
		return fault.New(fault.QuotaReached).WithDetail("at most %d", int(most))
	}
	return nil
}

// raises says whether a policy gives an account more tokens than the one before
// it and more than is everybody's: that is for operators.
func (r *rules) raises(before, next aggregate.Policy) bool {
	return r.quota.Account > 0 && next.TokensMax > max(r.quota.Account, before.TokensMax)
}
