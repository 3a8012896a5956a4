package verifyindex

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/enforcer"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
)

// thin is a cache before an index that follows a story, as an enforcing service
// and a verifier do in two processes.
type thin struct {
	t     *testing.T
	rng   *rand.Rand
	story *projectiontest.Story
	clock *clock
	index *Index
	cache *enforcer.Cache
	still bool // nothing happens while an answer is under way
	races int  // answers that were outdated while they were under way
}

// VerifyAtLeast implements enforcer.Source. Now and then the ledger goes on
// while the answer is under way.
func (h *thin) VerifyAtLeast(_ context.Context, seq uint64, secret string, ask *token.Request) token.Decision {
	if have := h.index.Sequence(); have < seq {
		h.t.Errorf("asked for sequence %d, the verifier is at %d", seq, have)
	}
	d := h.index.Verify(secret, ask)
	if !h.still && h.rng.IntN(8) == 0 {
		h.races++
		h.step()
	}
	return d
}

func (h *thin) step() {
	c := h.story.Step()
	if err := h.index.Apply([]events.Commit{c}); err != nil {
		h.t.Error(err)
	}
	h.cache.Applied(&c)
	h.clock.now = h.story.Now
	h.pulse()
}

func (h *thin) pulse() {
	p := pulse(h.story.At, h.clock.now)
	h.index.Observe(p, h.clock.now)
	h.cache.Observe(p, h.clock.now)
}

// posed is a question that was asked before.
type posed struct {
	secret string
	ask    token.Request
}

// TestCacheIsTheIndex: whatever happens in the ledger, a cache before a
// verifier answers what the verifier would. That holds every event type to what
// the cache takes it to change, and each answer to what it says may change it.
func TestCacheIsTheIndex(t *testing.T) {
	rng := projectiontest.Seed(t)
	story := projectiontest.Tell(rng, 30)
	h := &thin{t: t, rng: rng, story: story, clock: &clock{story.Now}}
	h.index = open(t, Options{Now: h.clock.Now}, vfs.NewMem())
	defer h.index.Close()
	if err := h.index.Apply(story.Commits); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.cache, err = enforcer.NewCache(enforcer.CacheConfig{Source: h, Now: h.clock.Now, Negative: time.Hour}); err != nil {
		t.Fatal(err)
	}
	h.cache.Begin(story.At)
	h.pulse()
	var questions []posed
	for range 1500 {
		switch n := rng.IntN(10); {
		case n < 2:
			h.step()
		case n == 2:
			h.clock.now = h.clock.now.Add(time.Duration(rng.IntN(3000)) * time.Millisecond)
			h.pulse()
		}
		for range 4 {
			questions = append(questions, h.question())
		}
		for range 40 {
			h.compare(&questions[rng.IntN(len(questions))])
		}
		if len(questions) > 200 {
			questions = questions[100:]
		}
	}
	if s := h.cache.Stats(); 4*s.Hits < s.Asked || h.races < 100 {
		t.Errorf("%d of %d answers came from the cache, %d were outdated on arrival: the test shows little", s.Hits, s.Hits+s.Asked, h.races)
	}
}

// question makes up a new question about a token, an API key, a stranger's
// secret or one that will be handed out only later.
func (h *thin) question() posed {
	q := posed{ask: h.story.Request()}
	switch n := h.rng.IntN(20); {
	case n == 0:
		q.secret = projectiontest.NewSecret(h.rng, token.KindUser)
	case n == 1:
		q.secret = "no secret of ours"
	case n < 5 && len(h.story.UserKeys) > 0:
		q.secret = h.story.UserKeys[h.rng.IntN(len(h.story.UserKeys))].Text
	default:
		q.secret = h.story.Secrets[h.rng.IntN(len(h.story.Secrets))].Text
	}
	return q
}

// compare asks both. Only at one sequence can they be compared.
func (h *thin) compare(q *posed) {
	before := h.clock.now
	got := h.cache.Verify(q.secret, &q.ask)
	if h.clock.now.Sub(before) > time.Millisecond {
		// The answer was under way for up to an hour: what the clock has
		// changed meanwhile is the verifier's word.
		got = h.cache.Verify(q.secret, &q.ask)
	}
	want := h.index.Verify(q.secret, &q.ask)
	if got.Verdict != want.Verdict || got.Reason != want.Reason || got.Policy != want.Policy || got.Token != want.Token ||
		got.Owner != want.Owner || got.OwnerKind != want.OwnerKind || got.Account != want.Account || got.Age > want.Age {
		h.t.Fatalf("sequence %d, %+v:\n got %+v\nwant %+v", h.story.At.Seq, q.ask, got, want)
	}
}

const freeID = "88888888888888888888888888888888"

var zoneType = strings.TrimSuffix(zoneOf, ".")

// changes are events that change what somebody holds.
var changes = []struct {
	name  string
	who   string // whose secret is asked about
	near  string // what the chain is: the zone alone, or in the account; the free zone, or the other account
	event func(c *cast) (string, events.Event)
}{
	{"a member leaves", "user", "in", func(c *cast) (string, events.Event) {
		return "member/" + idOf('m', 1).String(), &events.MemberRemoved{User: c.user, Account: c.account}
	}},
	{"a member's roles change", "user", "in", func(c *cast) (string, events.Event) {
		return "member/" + idOf('m', 1).String(), &events.MemberChanged{User: c.user, Account: c.account, Roles: []string{"Other"}}
	}},
	{"a member joins", "user", "other", func(c *cast) (string, events.Event) {
		return "member/" + idOf('m', 2).String(), &events.MemberAdded{User: c.user, Account: c.other, Roles: []string{"Editor"}}
	}},
	{"a zone is moved", "user", "alone", func(c *cast) (string, events.Event) {
		return "resource/" + idOf('r', 1).String(), &events.ResourceMoved{Type: zoneType, Resource: strings.TrimPrefix(asked, zoneOf), Parent: accountPrefix + c.other.String()}
	}},
	{"a zone is removed", "user", "alone", func(c *cast) (string, events.Event) {
		return "resource/" + idOf('r', 1).String(), &events.ResourceRemoved{Type: zoneType, Resource: strings.TrimPrefix(asked, zoneOf)}
	}},
	{"a zone is registered", "operator", "free", func(c *cast) (string, events.Event) {
		return "resource/" + idOf('r', 2).String(), &events.ResourceRegistered{Type: zoneType, Resource: freeID, Parent: accountPrefix + c.other.String()}
	}},
	{"the account above goes", "user", "alone", func(c *cast) (string, events.Event) {
		return "account/" + c.account.String(), &events.AccountRemoved{}
	}},
	{"the account goes", "account", "in", func(c *cast) (string, events.Event) {
		return "account/" + c.account.String(), &events.AccountRemoved{}
	}},
	{"keys end in the account", "key", "in", func(c *cast) (string, events.Event) {
		return "policy/" + c.account.String(), &events.PolicyChanged{KeysEnd: c.now}
	}},
	{"keys end in the account above", "key", "alone", func(c *cast) (string, events.Event) {
		return "policy/" + c.account.String(), &events.PolicyChanged{KeysEnd: c.now}
	}},
	{"a secret is handed out", "late", "in", func(c *cast) (string, events.Event) {
		return "token/" + c.tokenOf("late").String(), c.made("late", c.user)
	}},
	{"a secret of elsewhere is taken over", "elsewhere", "in", func(c *cast) (string, events.Event) {
		d := c.made("elsewhere", c.user)
		d.Foreign, d.Secret = true, token.SumForeign(sha256.Sum256([]byte(c.secrets["elsewhere"])))
		return "token/" + c.tokenOf("x").String(), d
	}},
	{"a token gets a new secret", "late", "in", func(c *cast) (string, events.Event) {
		return "token/" + c.tokenOf("user").String(), &events.TokenRolled{Secret: token.Sum(c.secrets["late"])}
	}},
	{"a key is rolled", "late key", "in", func(c *cast) (string, events.Event) {
		return "apikey/" + c.user.String(), &events.APIKeyRolled{Secret: token.Sum(c.secrets["late key"])}
	}},
}

// TestCacheHearsWhatChanges: each event that changes what somebody holds is
// heard by a cache that has just said otherwise, and by nothing else: the
// answers are kept for as long as the test runs.
func TestCacheHearsWhatChanges(t *testing.T) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			cast := newCast(t)
			rng := projectiontest.Seed(t)
			cast.secrets["late"], cast.secrets["late key"] = projectiontest.NewSecret(rng, token.KindUser), projectiontest.NewKey(rng)
			cast.secrets["elsewhere"] = "another secret of elsewhere"
			clock := &clock{cast.now}
			x := open(t, Options{Now: clock.Now}, vfs.NewMem())
			defer x.Close()
			if err := x.Apply(cast.commits); err != nil {
				t.Fatal(err)
			}
			h := &thin{t: t, rng: rng, story: &projectiontest.Story{At: cast.at}, clock: clock, index: x}
			h.still = true
			h.cache, _ = enforcer.NewCache(enforcer.CacheConfig{Source: h, Now: clock.Now, Negative: time.Hour})
			h.cache.Begin(cast.at)
			h.pulse()
			chain := map[string][]string{
				"in": {accountPrefix + cast.account.String(), asked}, "alone": {asked}, "free": {zoneOf + freeID},
				"other": {accountPrefix + cast.other.String(), asked},
			}[c.near]
			q := &posed{cast.secrets[c.who], token.Request{Permission: zoneGroups[0].Permissions[0], Resource: chain}}
			before := h.cache.Verify(q.secret, &q.ask)
			h.compare(q)
			if h.cache.Stats().Hits != 1 {
				t.Fatalf("the answer %+v is not kept", before)
			}
			cast.tell(c.event(cast))
			told := cast.commits[len(cast.commits)-1]
			if err := x.Apply([]events.Commit{told}); err != nil {
				t.Fatal(err)
			}
			h.cache.Applied(&told)
			h.story.At = told.End
			h.pulse()
			h.compare(q)
			if after := h.cache.Verify(q.secret, &q.ask); after.Reason == before.Reason {
				t.Errorf("the event changes nothing: %+v", after)
			}
		})
	}
}
