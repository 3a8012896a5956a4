package command

import "watchword.dev/events/aggregate"

// Quota is how many tokens an owner may have at a time. All count that were not
// revoked, also those that are disabled or have expired: as at Cloudflare, a
// token takes its place until somebody ends it.
type Quota struct {
	// User is for each user. No account's policy changes it: a user's tokens
	// may reach into many accounts and belong to none.
	User int32
	// Account is for each account whose policy says nothing else. Only an
	// operator raises an account's own bound above it. Zero is no bound, here
	// and in User.
	Account int32
}

// Of returns how many tokens an account with this policy may have; zero is no
// bound.
func (q Quota) Of(p aggregate.Policy) int32 {
	if p.TokensMax > 0 {
		return p.TokensMax
	}
	return q.Account
}
