package serve

import (
	"time"

	"context"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
)

// liveDirectory passes each question to the directory that serves now.
type liveDirectory struct {
	*live[*directory.Directory]
}

func (l liveDirectory) Applied() uint64           { return l.get().Applied() }
func (l liveDirectory) Position() events.Position { return l.get().Position() }

func (l liveDirectory) Token(id token.ID) (aggregate.Token, bool, error) { return l.get().Token(id) }

func (l liveDirectory) Tokens(q directory.TokenQuery) (directory.Page[aggregate.Token], error) {
	return l.get().Tokens(q)
}

func (l liveDirectory) NoticesDue(now time.Time, most int) ([]aggregate.Token, error) {
	return l.get().NoticesDue(now, most)
}

func (l liveDirectory) User(id token.ID) (aggregate.User, bool, error) { return l.get().User(id) }

func (l liveDirectory) UserByEmail(index string) (aggregate.User, bool, error) {
	return l.get().UserByEmail(index)
}

func (l liveDirectory) Account(id token.ID) (aggregate.Account, bool, error) {
	return l.get().Account(id)
}

func (l liveDirectory) MemberOf(account, user token.ID) (aggregate.Member, bool, error) {
	return l.get().MemberOf(account, user)
}

func (l liveDirectory) Member(id token.ID) (aggregate.Member, bool, error) { return l.get().Member(id) }

func (l liveDirectory) Members(account token.ID) ([]aggregate.Member, error) {
	return l.get().Members(account)
}

func (l liveDirectory) Memberships(user token.ID) ([]aggregate.Member, error) {
	return l.get().Memberships(user)
}

func (l liveDirectory) Resource(key string) (aggregate.Resource, bool, error) {
	return l.get().Resource(key)
}

func (l liveDirectory) Catalogue() (aggregate.Catalogue, bool, error) { return l.get().Catalogue() }

func (l liveDirectory) EachToken(ctx context.Context, visit func(*aggregate.Token) error) error {
	return l.get().EachToken(ctx, visit)
}

func (l liveDirectory) EachMember(ctx context.Context, visit func(*aggregate.Member) error) error {
	return l.get().EachMember(ctx, visit)
}

func (l liveDirectory) EachResource(ctx context.Context, visit func(*aggregate.Resource) error) error {
	return l.get().EachResource(ctx, visit)
}

func (l liveDirectory) Enforcer(id token.ID) (aggregate.Enforcer, bool, error) {
	return l.get().Enforcer(id)
}

func (l liveDirectory) Enforcers() ([]aggregate.Enforcer, error) { return l.get().Enforcers() }

func (l liveDirectory) Consumer(id token.ID) (aggregate.Consumer, bool, error) {
	return l.get().Consumer(id)
}

func (l liveDirectory) Consumers() ([]aggregate.Consumer, error) { return l.get().Consumers() }

func (l liveDirectory) ByNkey(public string) (aggregate.Credential, bool, error) {
	return l.get().ByNkey(public)
}

func (l liveDirectory) Credential(d token.Digest) (aggregate.Credential, bool, error) {
	return l.get().Credential(d)
}

func (l liveDirectory) TokensAfter(o directory.Owner, after token.ID, most int) ([]aggregate.Token, error) {
	return l.get().TokensAfter(o, after, most)
}

func (l liveDirectory) TokenCounts(o directory.Owner) (directory.Counts, bool, error) {
	return l.get().TokenCounts(o)
}

func (l liveDirectory) Sweep(of directory.Selection) (aggregate.Sweep, bool, error) {
	return l.get().Sweep(of)
}

func (l liveDirectory) LivingCount(of directory.Selection) (uint64, error) {
	return l.get().LivingCount(of)
}

func (l liveDirectory) LivingAfter(of directory.Selection, after token.ID, most int, visit func(*aggregate.Token) error) (token.ID, error) {
	return l.get().LivingAfter(of, after, most, visit)
}

func (l liveDirectory) Request(digest string) (aggregate.Request, bool, error) {
	return l.get().Request(digest)
}

func (l liveDirectory) AllAccounts(ask directory.Listing) (directory.Page[aggregate.Account], error) {
	return l.get().AllAccounts(ask)
}

func (l liveDirectory) AllUsers(ask directory.Listing) (directory.Page[aggregate.User], error) {
	return l.get().AllUsers(ask)
}

func (l liveDirectory) MembersPage(account token.ID, ask directory.Listing) (directory.Page[aggregate.Member], error) {
	return l.get().MembersPage(account, ask)
}

func (l liveDirectory) Resources(ask directory.ResourceQuery) (directory.Page[aggregate.Resource], error) {
	return l.get().Resources(ask)
}
