package authority

import (
	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// table is one kind of row in a layer, each with the sequence of the commit
// that wrote it. A zero value stands for a row that is gone. The zero table is
// empty.
type table[K comparable, V any] struct {
	rows  map[K]row[V]
	order []stamp[K] // every write, oldest first
	done  int        // how many of order are pruned
}

type row[V any] struct {
	value V
	seq   uint64
}

type stamp[K comparable] struct {
	key K
	seq uint64
}

func (t *table[K, V]) get(key K) (V, bool) {
	r, ok := t.rows[key]
	return r.value, ok
}

func (t *table[K, V]) set(key K, value V, seq uint64) {
	if t.rows == nil {
		t.rows = make(map[K]row[V])
	}
	t.rows[key] = row[V]{value, seq}
	t.order = append(t.order, stamp[K]{key, seq})
}

// prune forgets the rows that were last written at or before applied.
func (t *table[K, V]) prune(applied uint64) {
	for t.done < len(t.order) && t.order[t.done].seq <= applied {
		key := t.order[t.done].key
		if t.rows[key].seq <= applied {
			delete(t.rows, key)
		}
		t.done++
	}
	if t.done == len(t.order) {
		t.order, t.done = t.order[:0], 0
	} else if t.done > 1024 && t.done > len(t.order)/2 {
		t.order = append(t.order[:0], t.order[t.done:]...)
		t.done = 0
	}
}

// take moves all rows of from into t and leaves from empty.
func (t *table[K, V]) take(from *table[K, V]) {
	for _, s := range from.order {
		t.set(s.key, from.rows[s.key].value, s.seq)
	}
	clear(from.rows)
	from.order, from.done = from.order[:0], 0
}

func (t *table[K, V]) clear() {
	clear(t.rows)
	t.order, t.done = t.order[:0], 0
}

// layer is what some stretch of the ledger has changed. Values behind pointers
// are never changed once they are in it.
type layer struct {
	tokens    table[token.ID, *aggregate.Token]
	users     table[token.ID, *aggregate.User]
	accounts  table[token.ID, *aggregate.Account]
	members   table[token.ID, *aggregate.Member]
	enforcers table[token.ID, *aggregate.Enforcer]
	consumers table[token.ID, *aggregate.Consumer]
	resources table[string, *aggregate.Resource] // by key; Revoked: gone
	published table[struct{}, *aggregate.Catalogue]
	sweeps    table[aggregate.Selection, sweep]
	counts    table[aggregate.Owner, aggregate.Counts]

	emails   table[string, token.ID]         // zero: nobody's
	pairs    table[[2]token.ID, token.ID]    // account, user → membership; zero: none
	digests  table[token.Digest, credential] // zero: nobody's
	nkeys    table[string, credential]       // by public nkey
	requests table[string, aggregate.Request]

	events table[uint64, struct{}] // by number: how much there is in it
	raised []string                // by format.raised; never pruned
	term   uint64                  // the highest of pen.opened
}

type credential = aggregate.Credential

func (l *layer) prune(applied uint64) {
	l.tokens.prune(applied)
	l.users.prune(applied)
	l.accounts.prune(applied)
	l.members.prune(applied)
	l.enforcers.prune(applied)
	l.consumers.prune(applied)
	l.resources.prune(applied)
	l.published.prune(applied)
	l.sweeps.prune(applied)
	l.counts.prune(applied)
	l.emails.prune(applied)
	l.pairs.prune(applied)
	l.digests.prune(applied)
	l.nkeys.prune(applied)
	l.requests.prune(applied)
	l.events.prune(applied)
}

// take moves everything of from, which lies behind l in the ledger, into l.
func (l *layer) take(from *layer) {
	l.tokens.take(&from.tokens)
	l.users.take(&from.users)
	l.accounts.take(&from.accounts)
	l.members.take(&from.members)
	l.enforcers.take(&from.enforcers)
	l.consumers.take(&from.consumers)
	l.resources.take(&from.resources)
	l.published.take(&from.published)
	l.sweeps.take(&from.sweeps)
	l.counts.take(&from.counts)
	l.emails.take(&from.emails)
	l.pairs.take(&from.pairs)
	l.digests.take(&from.digests)
	l.nkeys.take(&from.nkeys)
	l.requests.take(&from.requests)
	l.events.take(&from.events)
	l.raised = append(l.raised, from.raised...)
	l.term = max(l.term, from.term)
	from.raised, from.term = nil, 0
}

func (l *layer) clear() {
	l.tokens.clear()
	l.users.clear()
	l.accounts.clear()
	l.members.clear()
	l.enforcers.clear()
	l.consumers.clear()
	l.resources.clear()
	l.published.clear()
	l.sweeps.clear()
	l.counts.clear()
	l.emails.clear()
	l.pairs.clear()
	l.digests.clear()
	l.nkeys.clear()
	l.requests.clear()
	l.events.clear()
	l.raised, l.term = nil, 0
}

// view is the state at one place of the ledger: layers, the newest first, over
// the Past. Look-ups never fail by themselves: the first row that could not be
// read is kept in err, and whoever decides looks at it before acting.
type view struct {
	layers []*layer
	past   Past
	before uint64 // number of the last event before the commit under way
	err    error
}

func (v *view) fail(err error) {
	if v.err == nil {
		v.err = err
	}
}

// find looks a row up in the layers, then in the past. fresh says that it came
// from a layer: then it is the end of what the layers know of it.
func find[K comparable, V any](v *view, key K, of func(*layer) *table[K, V], past func(K) (V, bool, error)) (value V, ok, fresh bool) {
	for _, l := range v.layers {
		if value, ok = of(l).get(key); ok {
			return value, true, true
		}
	}
	value, ok, err := past(key)
	if err != nil {
		v.fail(err)
		var none V
		return none, false, false
	}
	return value, ok, false
}

// ptr turns a look-up of values into one of pointers.
func ptr[K, V any](get func(K) (V, bool, error)) func(K) (*V, bool, error) {
	return func(key K) (*V, bool, error) {
		value, ok, err := get(key)
		return &value, ok, err
	}
}

func (v *view) token(id token.ID) (*aggregate.Token, bool) {
	t, ok, _ := find(v, id, func(l *layer) *table[token.ID, *aggregate.Token] { return &l.tokens }, ptr(v.past.Token))
	if ok {
		t = v.swept(t)
	}
	return t, ok
}

func (v *view) user(id token.ID) (*aggregate.User, bool) {
	u, ok, _ := find(v, id, func(l *layer) *table[token.ID, *aggregate.User] { return &l.users }, ptr(v.past.User))
	return u, ok
}

func (v *view) account(id token.ID) (*aggregate.Account, bool) {
	a, ok, _ := find(v, id, func(l *layer) *table[token.ID, *aggregate.Account] { return &l.accounts }, ptr(v.past.Account))
	return a, ok
}

func (v *view) enforcer(id token.ID) (*aggregate.Enforcer, bool) {
	n, ok, _ := find(v, id, func(l *layer) *table[token.ID, *aggregate.Enforcer] { return &l.enforcers }, ptr(v.past.Enforcer))
	return n, ok
}

func (v *view) consumer(id token.ID) (*aggregate.Consumer, bool) {
	n, ok, _ := find(v, id, func(l *layer) *table[token.ID, *aggregate.Consumer] { return &l.consumers }, ptr(v.past.Consumer))
	return n, ok
}

// nkeyTaken says whether an enforcer or a consumer was ever enrolled with this
// public nkey.
func (v *view) nkeyTaken(public string) bool {
	_, ok, _ := find(v, public, func(l *layer) *table[string, credential] { return &l.nkeys }, v.past.ByNkey)
	return ok
}

// resource returns the present registration of the resource with this key.
func (v *view) resource(key string) (*aggregate.Resource, bool) {
	s, ok := v.registration(key)
	return s, ok && s.Status == aggregate.Active
}

// registration is resource for those who also look at what has just ended.
func (v *view) registration(key string) (*aggregate.Resource, bool) {
	s, ok, _ := find(v, key, func(l *layer) *table[string, *aggregate.Resource] { return &l.resources }, ptr(v.past.Resource))
	return s, ok
}

// published returns the catalogue that was published last; the zero value is
// the built-in one.
func (v *view) published() *aggregate.Catalogue {
	c, _, _ := v.findPublished()
	return c
}

func (v *view) findPublished() (c *aggregate.Catalogue, ok, fresh bool) {
	return find(v, struct{}{}, func(l *layer) *table[struct{}, *aggregate.Catalogue] { return &l.published },
		ptr(func(struct{}) (aggregate.Catalogue, bool, error) { return v.past.Catalogue() }))
}

// emailTaken says whether a user has this e-mail index.
func (v *view) emailTaken(index string) bool {
	id, ok, _ := find(v, index, func(l *layer) *table[string, token.ID] { return &l.emails },
		func(index string) (token.ID, bool, error) {
			u, ok, err := v.past.UserByEmail(index)
			return u.ID, ok, err
		})
	return ok && !id.IsZero()
}

// member returns the present membership of a user in an account.
func (v *view) member(account, user token.ID) (*aggregate.Member, bool) {
	for _, l := range v.layers {
		id, ok := l.pairs.get([2]token.ID{account, user})
		if !ok {
			continue
		}
		for _, under := range v.layers {
			if m, ok := under.members.get(id); ok {
				return m, m.Status == aggregate.Active
			}
		}
		return nil, false // the membership has ended
	}
	m, ok, err := v.past.MemberOf(account, user)
	if err != nil {
		v.fail(err)
		return nil, false
	}
	return &m, ok && m.Status == aggregate.Active
}

// memberByID returns a membership, also one that has ended.
func (v *view) memberByID(id token.ID) (*aggregate.Member, bool) {
	m, ok, _ := find(v, id, func(l *layer) *table[token.ID, *aggregate.Member] { return &l.members }, ptr(v.past.Member))
	return m, ok
}

// memberships returns the present memberships of a user, members those in an
// account.
func (v *view) memberships(user token.ID) []*aggregate.Member {
	return v.membersWhere(v.past.Memberships, user, func(m *aggregate.Member) bool { return m.User == user })
}

func (v *view) members(account token.ID) []*aggregate.Member {
	return v.membersWhere(v.past.Members, account, func(m *aggregate.Member) bool { return m.Account == account })
}

// membersWhere lists what the past knows, as the layers say it is now, and what
// only the layers know. Their order means nothing.
func (v *view) membersWhere(past func(token.ID) ([]aggregate.Member, error), of token.ID, meant func(*aggregate.Member) bool) (all []*aggregate.Member) {
	known, err := past(of)
	if err != nil {
		v.fail(err)
		return nil
	}
	seen := map[token.ID]bool{}
	add := func(m *aggregate.Member) {
		if !seen[m.ID] && m.Status == aggregate.Active {
			all = append(all, m)
		}
		seen[m.ID] = true
	}
	for _, l := range v.layers {
		for _, row := range l.members.rows {
			if meant(row.value) {
				add(row.value)
			}
		}
	}
	for i := range known {
		add(&known[i])
	}
	return all
}

// credential returns what holds a secret.
func (v *view) credential(d token.Digest) (credential, bool) {
	c, ok, _ := find(v, d, func(l *layer) *table[token.Digest, credential] { return &l.digests }, v.past.Credential)
	if ok && v.sweeping() && (c.Kind == token.KindUser || c.Kind == token.KindAccount) {
		t, there := v.token(c.ID)
		ok = there && t.Status != aggregate.Revoked
	}
	return c, ok && !c.ID.IsZero()
}

func (v *view) request(digest string) (aggregate.Request, bool) {
	q, ok, _ := find(v, digest, func(l *layer) *table[string, aggregate.Request] { return &l.requests }, v.past.Request)
	return q, ok
}

// counts returns how many tokens an owner has. fresh is as of find.
func (v *view) counts(o aggregate.Owner) (n aggregate.Counts, fresh bool) {
	n, _, fresh = find(v, o, func(l *layer) *table[aggregate.Owner, aggregate.Counts] { return &l.counts }, v.past.TokenCounts)
	return v.withoutSwept(o, n), fresh
}

// raised says whether a format.raised names this event type.
func (v *view) raised(name string) bool {
	for _, l := range v.layers {
		for _, n := range l.raised {
			if n == name {
				return true
			}
		}
	}
	r, ok := v.past.(raiser)
	if !ok {
		return false
	}
	names, err := r.RaisedTypes()
	if err != nil {
		v.fail(err)
	}
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

// apply moves the newest layer over a record.
//
// The past may be ahead of the layers: the directory hears of a commit as soon
// as it is in the log, the pen when it is acknowledged. A row that reflects
// the record already is left alone.
func (v *view) apply(r *events.Record) error {
	v.err = nil
	top := v.layers[0]
	top.events.set(r.Number, struct{}{}, r.Seq)
	var err error
	switch d := r.Data.(type) {
	case *events.TokenCreated, *events.TokenUpdated, *events.TokenRolled, *events.TokenDisabled,
		*events.TokenEnabled, *events.TokenRevoked, *events.TokenExpiring, *events.TokenExpired:
		err = v.applyToken(r)
	case *events.UserRegistered, *events.UserUpdated, *events.UserRemoved,
		*events.APIKeyIssued, *events.APIKeyRolled, *events.APIKeyRevoked:
		err = v.applyUser(r)
	case *events.AccountCreated, *events.AccountUpdated, *events.AccountRemoved, *events.PolicyChanged:
		a, _, fresh := find(v, r.SubjectID(), func(l *layer) *table[token.ID, *aggregate.Account] { return &l.accounts }, ptr(v.past.Account))
		err = evolve(v, &top.accounts, a, fresh, (*aggregate.Account).Apply, func(a *aggregate.Account) uint64 { return a.Seq }, r)
	case *events.MemberAdded, *events.MemberChanged, *events.MemberRemoved:
		err = v.applyMember(r)
	case *events.ResourceRegistered, *events.ResourceUpdated, *events.ResourceMoved, *events.ResourceRemoved:
		err = v.applyResource(r)
	case *events.CataloguePublished:
		err = v.applyCatalogue(r)
	case *events.RevocationSwept:
		err = v.applySweep(r)
	case *events.EnforcerEnrolled, *events.EnforcerRetired:
		err = v.applyEnforcer(r)
	case *events.ConsumerEnrolled, *events.ConsumerRetired:
		err = v.applyConsumer(r)
	case *events.FormatRaised:
		top.raised = append(top.raised, d.Types...)
	case *events.PenOpened:
		top.term = max(top.term, d.Term)
	case *events.LogOpened, *events.EpochOpened:
	default:
		err = events.ErrUnknown
	}
	if err == nil {
		err = v.err
	}
	return err
}

// evolve applies r to a copy of the row old and keeps it in t, unless the row
// came from the past and reflects r already.
func evolve[T any](v *view, t *table[token.ID, *T], old *T, fresh bool, apply func(*T, *events.Record) error, seq func(*T) uint64, r *events.Record) error {
	next := new(T)
	if old != nil {
		*next = *old
	}
	if v.err != nil || !fresh && seq(next) >= r.Seq {
		return v.err
	}
	if err := apply(next, r); err != nil {
		return err
	}
	t.set(r.SubjectID(), next, r.Seq)
	return nil
}
