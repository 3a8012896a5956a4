package authority

import (
	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/services/internal/command"
)

// Quota is how many tokens an owner may have at a time. All count that were not
// revoked, also those that are disabled or have expired: they hold their name
// and their place until somebody ends them, as at Cloudflare.
type Quota struct {
	// User is for each user. No policy of an account changes it: a user's
	// tokens reach into many accounts and belong to none.
	User int32
	// Account is for each account whose policy says nothing else. Beyond it
	// only an operator raises an account's own bound. Zero is no bound, here
	// and in User.
	Account int32
}

// of returns how many tokens the owner may have; zero is no bound.
func (q Quota) of(v *view, o aggregate.Owner) int32 {
	if o.Kind == events.OwnedByUser {
		return q.User
	}
	if a, ok := v.account(o.ID); ok {
		return q.ofAccount(a.Policy)
	}
	return q.Account
}

func (q Quota) ofAccount(p aggregate.Policy) int32 {
	if p.TokensMax > 0 {
		return p.TokensMax
	}
	return q.Account
}

// raises says whether a policy gives an account more than the one before it and
// more than is everybody's.
func (q Quota) raises(before, next aggregate.Policy) bool {
	return q.Account > 0 && next.TokensMax > max(q.Account, before.TokensMax)
}

// room says whether the owner may have one token more. The count is that of the
// head, with what stands before this command in its commit, so of two that come
// at once for the last place one is refused.
func (r *rules) room(v *view, at command.Target) error {
	o := aggregate.Owner{Kind: at.OwnerKind, ID: at.Owner}
	most := r.quota.of(v, o)
	if most == 0 {
		return nil
	}
	if n, _ := v.counts(o); n.Live >= uint64(most) {
		return fault.New(fault.QuotaReached).WithDetail("at most %d", most)
	}
	return nil
}
