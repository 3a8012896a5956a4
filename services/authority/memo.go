package authority

import (
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// memo is the past as the pen sees it: what was looked up once is not looked
// up again. The commands of a commit often have one caller, a caller often
// comes again, and a creation asks for its own id when it is decided and when
// it is applied.
//
// A row that was read stays good, however far the directory comes meanwhile,
// for as long as the layers above have whatever has changed it since. They are
// pruned where a round begins; so what a commit changes is dropped from the
// memo when it becomes the state, and a new round forgets everything when more
// than the named rows may have changed: when people, accounts or memberships
// did, because the directory ends what hangs on them, after a sweep, and after a
// read of the log.
type memo struct {
	Past
	tokens      map[token.ID]found[aggregate.Token]
	users       map[token.ID]found[aggregate.User]
	accounts    map[token.ID]found[aggregate.Account]
	members     map[[2]token.ID]found[aggregate.Member]
	credentials map[token.Digest]found[aggregate.Credential]
	catalogue   map[struct{}]found[aggregate.Catalogue]
	counts      map[aggregate.Owner]found[aggregate.Counts]
}

// found is the answer to a look-up.
type found[V any] struct {
	value V
	ok    bool
}

func newMemo(past Past) *memo {
	return &memo{
		Past:        past,
		tokens:      map[token.ID]found[aggregate.Token]{},
		users:       map[token.ID]found[aggregate.User]{},
		accounts:    map[token.ID]found[aggregate.Account]{},
		members:     map[[2]token.ID]found[aggregate.Member]{},
		credentials: map[token.Digest]found[aggregate.Credential]{},
		catalogue:   map[struct{}]found[aggregate.Catalogue]{},
		counts:      map[aggregate.Owner]found[aggregate.Counts]{},
	}
}

// memoMax is how many rows are kept from one round to the next.
const memoMax = 256

// begin prepares for a round. moved says that rows may have changed which no
// commit has named.
func (m *memo) begin(moved bool) {
	if moved || len(m.tokens)+len(m.users)+len(m.accounts)+len(m.members)+len(m.credentials)+len(m.counts) > memoMax {
		m.clear()
	}
}

// people is how many rows the layer has whose change moves others with it.
func (l *layer) people() int {
	return len(l.users.rows) + len(l.accounts.rows) + len(l.members.rows) + len(l.sweeps.rows)
}

// drop forgets the tokens, the credentials, the counts and the catalogue that
// changes are about.
func (m *memo) drop(changes *layer) {
	if len(changes.published.order) > 0 {
		clear(m.catalogue)
	}
	for _, s := range changes.tokens.order {
		delete(m.tokens, s.key)
	}
	for _, s := range changes.digests.order {
		delete(m.credentials, s.key)
	}
	for _, s := range changes.counts.order {
		delete(m.counts, s.key)
	}
}

// clear forgets everything.
func (m *memo) clear() {
	clear(m.tokens)
	clear(m.users)
	clear(m.accounts)
	clear(m.members)
	clear(m.credentials)
	clear(m.catalogue)
	clear(m.counts)
}

// Token implements Past, and so do the others.
func (m *memo) Token(id token.ID) (aggregate.Token, bool, error) {
	return recall(m.tokens, id, m.Past.Token)
}

func (m *memo) User(id token.ID) (aggregate.User, bool, error) {
	return recall(m.users, id, m.Past.User)
}

func (m *memo) Account(id token.ID) (aggregate.Account, bool, error) {
	return recall(m.accounts, id, m.Past.Account)
}

func (m *memo) MemberOf(account, user token.ID) (aggregate.Member, bool, error) {
	return recall(m.members, [2]token.ID{account, user}, func(pair [2]token.ID) (aggregate.Member, bool, error) {
		return m.Past.MemberOf(pair[0], pair[1])
	})
}

func (m *memo) Credential(d token.Digest) (aggregate.Credential, bool, error) {
	return recall(m.credentials, d, m.Past.Credential)
}

func (m *memo) Catalogue() (aggregate.Catalogue, bool, error) {
	return recall(m.catalogue, struct{}{}, func(struct{}) (aggregate.Catalogue, bool, error) { return m.Past.Catalogue() })
}

func (m *memo) TokenCounts(o aggregate.Owner) (aggregate.Counts, bool, error) {
	return recall(m.counts, o, m.Past.TokenCounts)
}

// recall answers from what is known, or asks and keeps the answer. An error is
// no answer: the next one asks again.
func recall[K comparable, V any](known map[K]found[V], key K, ask func(K) (V, bool, error)) (V, bool, error) {
	if f, ok := known[key]; ok {
		return f.value, f.ok, nil
	}
	value, ok, err := ask(key)
	if err == nil {
		known[key] = found[V]{value, ok}
	}
	return value, ok, err
}

// RaisedTypes implements raiser, whether or not the past does.
func (m *memo) RaisedTypes() ([]string, error) {
	r, ok := m.Past.(raiser)
	if !ok {
		return nil, nil
	}
	return r.RaisedTypes()
}
