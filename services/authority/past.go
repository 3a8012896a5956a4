package authority

import (
	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// Past is what the directory knows of the ledger up to Position: the rows from
// which commands are decided.
//
// A row is always that of the end of a commit. A look-up that begins after
// Position was read reflects at least that position; it may reflect more. The
// error of a look-up means that the row could not be read, never that there is
// none.
type Past interface {
	// Position is how far the rows have come.
	Position() events.Position

	// Token, User, Account, Member, Enforcer and Consumer also find what has ended.
	Token(id token.ID) (aggregate.Token, bool, error)
	User(id token.ID) (aggregate.User, bool, error)
	Account(id token.ID) (aggregate.Account, bool, error)
	Member(id token.ID) (aggregate.Member, bool, error)
	Enforcer(id token.ID) (aggregate.Enforcer, bool, error)
	Consumer(id token.ID) (aggregate.Consumer, bool, error)

	// ByNkey finds which enforcer or consumer was ever enrolled with this
	// public nkey.
	ByNkey(public string) (aggregate.Credential, bool, error)
	// UserByEmail finds the user who has this e-mail index now.
	UserByEmail(index string) (aggregate.User, bool, error)
	// MemberOf finds the present membership of a user in an account.
	MemberOf(account, user token.ID) (aggregate.Member, bool, error)
	// Memberships finds the present memberships of a user, Members those in
	// an account.
	Memberships(user token.ID) ([]aggregate.Member, error)
	Members(account token.ID) ([]aggregate.Member, error)
	// Resource finds the registration of the resource with this key, unless
	// it was removed.
	Resource(key string) (aggregate.Resource, bool, error)
	// Catalogue finds the catalogue that was published last; false when the
	// built-in one holds.
	Catalogue() (aggregate.Catalogue, bool, error)
	// Credential finds what holds this secret now: its present one, or one
	// replaced with a grace, even when that has run out.
	Credential(d token.Digest) (aggregate.Credential, bool, error)
	// TokenCounts finds how many tokens an owner has; false when there never
	// were any. An owner that was removed has none that live.
	TokenCounts(owner aggregate.Owner) (aggregate.Counts, bool, error)
	// TokensAfter finds an owner's tokens that have not ended, at most so many,
	// in the order of their ids from behind one.
	TokensAfter(owner aggregate.Owner, after token.ID, most int) ([]aggregate.Token, error)
	// Sweep finds the sweep of a selection that reaches furthest. What it takes
	// has ended.
	Sweep(of aggregate.Selection) (aggregate.Sweep, bool, error)
	// Request finds the newest secret that a request with this digest
	// caused, within aggregate.RequestWindow.
	Request(digest string) (aggregate.Request, bool, error)
}

// raiser is implemented by a Past that keeps rows of format.raised. Version 1
// writes nothing that must be raised first, so its directory keeps none.
type raiser interface {
	RaisedTypes() ([]string, error)
}
