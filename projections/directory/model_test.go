package directory

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// model is what the directory should say, in plain maps, found out by looking
// at everything.
type model struct {
	at        events.Position
	opened    *events.LogOpened
	tokens    map[token.ID]*aggregate.Token
	users     map[token.ID]*aggregate.User
	accounts  map[token.ID]*aggregate.Account
	members   map[token.ID]*aggregate.Member
	enforcers map[token.ID]*aggregate.Enforcer
	consumers map[token.ID]*aggregate.Consumer
	resources map[token.ID]*aggregate.Resource
	published aggregate.Catalogue
	requests  map[string]aggregate.Request // the newest of each
	digests   []token.Digest               // all that there ever were
	sweeps    map[Selection]aggregate.Sweep
	counted   map[Owner]uint64 // the sequence at which a token of theirs last came or ended
}

func newModel() *model {
	return &model{
		tokens: map[token.ID]*aggregate.Token{}, users: map[token.ID]*aggregate.User{},
		accounts: map[token.ID]*aggregate.Account{}, members: map[token.ID]*aggregate.Member{},
		enforcers: map[token.ID]*aggregate.Enforcer{}, consumers: map[token.ID]*aggregate.Consumer{}, resources: map[token.ID]*aggregate.Resource{}, requests: map[string]aggregate.Request{},
		counted: map[Owner]uint64{}, sweeps: map[Selection]aggregate.Sweep{},
	}
}

func entry[T any](m map[token.ID]*T, id token.ID) *T {
	if m[id] == nil {
		m[id] = new(T)
	}
	return m[id]
}

func (m *model) apply(t testing.TB, c events.Commit) {
	t.Helper()
	for i := range c.Records {
		r := &c.Records[i]
		var err error
		id := r.SubjectID()
		switch d := r.Data.(type) {
		case *events.LogOpened:
			m.opened = d
		case *events.UserRegistered, *events.UserUpdated, *events.UserRemoved,
			*events.APIKeyIssued, *events.APIKeyRolled, *events.APIKeyRevoked:
			err = entry(m.users, id).Apply(r)
		case *events.AccountCreated, *events.AccountUpdated, *events.AccountRemoved, *events.PolicyChanged:
			err = entry(m.accounts, id).Apply(r)
		case *events.MemberAdded, *events.MemberChanged, *events.MemberRemoved:
			err = entry(m.members, id).Apply(r)
		case *events.EnforcerEnrolled, *events.EnforcerRetired:
			err = entry(m.enforcers, id).Apply(r)
		case *events.ConsumerEnrolled, *events.ConsumerRetired:
			err = entry(m.consumers, id).Apply(r)
		case *events.ResourceRegistered, *events.ResourceUpdated, *events.ResourceMoved, *events.ResourceRemoved:
			err = entry(m.resources, id).Apply(r)
		case *events.CataloguePublished:
			err = m.published.Apply(r)
		case *events.RevocationSwept:
			var s aggregate.Sweep
			s, err = aggregate.SweepOf(r)
			m.sweep(&s)
		case *events.PenOpened, *events.EpochOpened, *events.FormatRaised:
		default:
			err = entry(m.tokens, id).Apply(r)
		}
		if err != nil {
			t.Fatalf("the story is impossible: %v", err)
		}
		m.consequences(r)
	}
	m.at = c.End
}

// sweep ends the tokens that a sweep takes.
func (m *model) sweep(s *aggregate.Sweep) {
	for _, t := range m.tokens {
		if s.Takes(t) && t.Status != aggregate.Revoked {
			t.EndSwept(s)
			m.counted[t.OwnedBy()] = s.Seq
		}
	}
	if was, there := m.sweeps[s.Selection]; !there || was.Through <= s.Through {
		m.sweeps[s.Selection] = *s
	}
}

// consequences are what an event means for other things than its subject.
func (m *model) consequences(r *events.Record) {
	id := r.SubjectID()
	end := func(owner func(*aggregate.Token) bool, of func(*aggregate.Member) bool) {
		for _, t := range m.tokens {
			if owner(t) && t.Status != aggregate.Revoked {
				t.EndWithOwner(r)
				m.counted[t.OwnedBy()] = r.Seq
			}
		}
		for _, b := range m.members {
			if of(b) {
				b.EndWith(r)
			}
		}
	}
	switch d := r.Data.(type) {
	case *events.TokenRevoked:
		m.counted[m.tokens[id].OwnedBy()] = r.Seq
	case *events.TokenCreated:
		m.counted[m.tokens[id].OwnedBy()] = r.Seq
		m.digests = append(m.digests, d.Secret)
		if d.Request != "" {
			m.requests[d.Request] = aggregate.Request{Token: id, Number: r.Number, Time: r.Time, SecretVersion: 1}
		}
	case *events.TokenRolled:
		m.digests = append(m.digests, d.Secret)
		if d.Request != "" {
			m.requests[d.Request] = aggregate.Request{Token: id, Number: r.Number, Time: r.Time, SecretVersion: m.tokens[id].SecretVersion}
		}
	case *events.APIKeyIssued:
		m.digests = append(m.digests, d.Secret)
	case *events.APIKeyRolled:
		m.digests = append(m.digests, d.Secret)
	case *events.EnforcerEnrolled:
		m.digests = append(m.digests, d.Secret)
	case *events.UserRemoved:
		end(func(t *aggregate.Token) bool { return t.OwnerKind == events.OwnedByUser && t.Owner == id },
			func(b *aggregate.Member) bool { return b.User == id })
	case *events.AccountRemoved:
		end(func(t *aggregate.Token) bool { return t.OwnerKind == events.OwnedByAccount && t.Owner == id },
			func(b *aggregate.Member) bool { return b.Account == id })
	}
}

// credential looks for a living holder of a secret.
func (m *model) credential(d token.Digest) (aggregate.Credential, bool) {
	for _, t := range m.tokens {
		if t.Status == aggregate.Revoked {
			continue
		}
		kind := map[events.OwnerKind]token.Kind{events.OwnedByUser: token.KindUser, events.OwnedByAccount: token.KindAccount}[t.OwnerKind]
		switch d {
		case t.Secret:
			return aggregate.Credential{Kind: kind, ID: t.ID}, true
		case t.Previous:
			return aggregate.Credential{Kind: kind, ID: t.ID, Until: t.PreviousUntil}, true
		}
	}
	for _, u := range m.users {
		if u.Key == d {
			return aggregate.Credential{Kind: token.KindKey, ID: u.ID}, true
		}
	}
	for _, n := range m.enforcers {
		if n.Secret == d && n.Status != aggregate.Revoked {
			return aggregate.Credential{Kind: token.KindEnforcer, ID: n.ID}, true
		}
	}
	return aggregate.Credential{}, false
}

// memberships returns those that have not ended and for which by says so, in
// the order of the id that it names.
func (m *model) memberships(by func(*aggregate.Member) (token.ID, bool)) []aggregate.Member {
	all := []aggregate.Member{}
	for _, b := range m.members {
		if _, mine := by(b); mine && b.Status == aggregate.Active {
			all = append(all, *b)
		}
	}
	slices.SortFunc(all, func(a, b aggregate.Member) int {
		x, _ := by(&a)
		y, _ := by(&b)
		return x.Compare(y)
	})
	return all
}

// list returns an owner's tokens in the order of their ids.
func (m *model) list(o Owner, ended bool) []aggregate.Token {
	var all []aggregate.Token
	for _, t := range m.tokens {
		if t.OwnerKind == o.Kind && t.Owner == o.ID && (ended || t.Status != aggregate.Revoked) {
			all = append(all, *t)
		}
	}
	slices.SortFunc(all, func(a, b aggregate.Token) int { return a.ID.Compare(b.ID) })
	return all
}

// ledger composes commits that a test chooses. What random stories tell is in
// package projectiontest.
type ledger struct {
	t             testing.TB
	rng           *rand.Rand
	m             *model
	now           time.Time
	made          uint64
	user, account token.ID // there from the beginning
}

// newLedger returns a ledger with a user and an account, and its commits.
func newLedger(t testing.TB) (*ledger, []events.Commit) {
	s := &ledger{
		t: t, rng: rand.New(rand.NewPCG(1, 1)), m: newModel(),
		now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
	}
	s.user, s.account = s.id(), s.id()
	return s, []events.Commit{
		s.commit("user", s.user, &events.UserRegistered{EmailIndex: "user's index"}),
		s.commit("account", s.account, &events.AccountCreated{Name: "Example Ltd"}),
	}
}

// id makes an id that is greater than those before.
func (s *ledger) id() (id token.ID) {
	s.made++
	binary.BigEndian.PutUint64(id[:], uint64(s.now.UnixMilli())<<16)
	binary.BigEndian.PutUint64(id[8:], s.made<<32|uint64(s.rng.Uint32()))
	return id
}

func (s *ledger) digest() (d token.Digest) {
	for i := range 4 {
		binary.BigEndian.PutUint64(d[8*i:], s.rng.Uint64())
	}
	return d
}

// commit composes the next commit: one event about one subject.
func (s *ledger) commit(kind string, id token.ID, data events.Event) events.Commit {
	s.t.Helper()
	return s.compose(events.Draft{Envelope: events.Envelope{Subject: kind + "/" + id.String()}, Data: data})
}

func (s *ledger) compose(drafts ...events.Draft) events.Commit {
	s.t.Helper()
	for i := range drafts {
		d := &drafts[i]
		d.ID, d.Source, d.Time, d.Actor = s.id(), "watchword/test", s.now, events.Actor{Kind: events.ActorSystem}
	}
	_, c, err := events.Compose(s.m.at, drafts)
	if err != nil {
		s.t.Fatal(err)
	}
	s.m.apply(s.t, c)
	return c
}

// create composes the making of a token that the user owns.
func (s *ledger) create(id token.ID, secret token.Digest, request string) events.Commit {
	s.t.Helper()
	return s.commit("token", id, &events.TokenCreated{
		Name: "deploy \"dns\"", OwnerKind: events.OwnedByUser, Owner: s.user, Secret: secret, Request: request,
	})
}
