package enforcer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

// source answers as the test says, and tells what it was asked for.
type source struct {
	mu     sync.Mutex
	answer func(ask *token.Request) token.Decision
	hold   chan struct{} // when not nil, answers wait for it
	held   chan struct{} // gets an element for each answer that waits
	asks   int
	seq    uint64 // of the last question
}

func (s *source) VerifyAtLeast(ctx context.Context, seq uint64, _ string, ask *token.Request) token.Decision {
	s.mu.Lock()
	s.asks++
	s.seq = seq
	d, hold := s.answer(ask), s.hold
	s.mu.Unlock()
	if hold == nil {
		return d
	}
	s.held <- struct{}{}
	select {
	case <-hold:
		return d
	case <-ctx.Done():
		return unavailable
	}
}

// always answers the same.
func always(d token.Decision) *source {
	return &source{answer: func(*token.Request) token.Decision { return d }, held: make(chan struct{}, 16)}
}

func (s *source) count() int { s.mu.Lock(); defer s.mu.Unlock(); return s.asks }

func (s *source) say(d token.Decision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = func(*token.Request) token.Decision { return d }
}

// begun is a cache whose feed stands at sequence 7, in a synctest bubble.
func begun(t *testing.T, s *source, cfg CacheConfig) *Cache {
	t.Helper()
	cfg.Source = s
	c, err := NewCache(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.Begin(events.Position{Seq: 7, Number: 7, Epoch: 1})
	vouch(c, 7)
	return c
}

// vouch is a pulse that says that the ledger ends at seq.
func vouch(c *Cache, seq uint64) {
	c.Observe(events.Pulse{Term: 1, Epoch: 1, Sequence: seq, Chain: events.Hash{}.String(), Time: time.Now()}, time.Now())
}

// TestRefillNeverRestores makes the race: an answer from before a revocation
// arrives after the revocation was heard.
func TestRefillNeverRestores(t *testing.T) {
	for name, c := range map[string]struct {
		after token.Decision // what the verifier says once it knows
		want  token.Reason
	}{
		"the verifier knows by then":     {token.Decision{Reason: token.ReasonRevoked, Token: someToken, Owner: someOwner, Sequence: 8, Bound: time.Minute}, token.ReasonRevoked},
		"the verifier never learns":      {allow, token.ReasonNotReady},
		"the verifier cannot be reached": {unavailable, token.ReasonNotReady},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := always(allow) // at sequence 7
				s.hold = make(chan struct{})
				cache := begun(t, s, CacheConfig{})
				got := make(chan token.Decision, 2)
				ask := func() { got <- cache.Verify(good, aQuestion) }
				go ask()
				<-s.held // the yes is on its way
				cache.Applied(commitOf(8, "token/"+someToken.String(), &events.TokenRevoked{}))
				vouch(cache, 8)
				go ask() // joins the same question
				synctest.Wait()
				s.say(c.after)
				close(s.hold)
				s.mu.Lock()
				s.hold = nil
				s.mu.Unlock()
				for range 2 {
					if d := <-got; d.Reason != c.want || d.Verdict == token.VerdictAllow {
						t.Errorf("%+v", d)
					}
				}
				if s.seq != 8 {
					t.Errorf("asked for sequence %d", s.seq)
				}
				if d := cache.Verify(good, aQuestion); d.Verdict == token.VerdictAllow {
					t.Errorf("the yes was kept: %+v", d)
				}
			})
		})
	}
}

// TestOutlivedOnArrival: a process that was stopped while an answer arrived does
// not give it to whoever joins the question afterwards.
func TestOutlivedOnArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := always(allow)
		c := begun(t, s, CacheConfig{})
		v := c.keep(key{1}, key{2}, allow, c.water.Load(), new(token.Sum(good)), aQuestion.Resource)
		if time.Sleep(allow.Bound); v.outlived(time.Now()) {
			t.Error("too old at its bound")
		}
		if time.Sleep(time.Nanosecond); !v.outlived(time.Now()) {
			t.Error("not too old past its bound")
		}
		old := allow
		old.Age = allow.Bound + time.Nanosecond
		s.say(old)
		if d := c.Verify(good, aQuestion); d.Verdict != token.VerdictUnavailable || s.count() != tries {
			t.Errorf("asked %d times, %+v", s.count(), d)
		}
	})
}

// TestSilentFeed: by the bound of each answer, and without a feed at all.
func TestSilentFeed(t *testing.T) {
	for _, bound := range []time.Duration{10 * time.Second, 30 * time.Second, 5 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			d := allow
			d.Bound = bound
			s := always(d)
			c := begun(t, s, CacheConfig{})
			c.Verify(good, aQuestion)
			time.Sleep(bound)
			if d := c.Verify(good, aQuestion); s.count() != 1 || d.Age != bound || d.Stale != (bound > staleAfter) || d.Sequence != 7 {
				t.Errorf("bound %v: asked %d times, %+v", bound, s.count(), d)
			}
			time.Sleep(time.Millisecond)
			c.Verify(good, aQuestion)
			if c.Verify(good, aQuestion); s.count() != 3 {
				t.Errorf("past a bound of %v: asked %d times", bound, s.count())
			}
			vouch(c, 7) // nothing had happened
			if d := c.Verify(good, aQuestion); s.count() != 3 || d.Age != 0 {
				t.Errorf("when it is back: asked %d times, %+v", s.count(), d)
			}
			c.Lost(errors.New("rewound"))
			c.Verify(good, aQuestion)
			if c.Verify(good, aQuestion); s.count() != 5 {
				t.Errorf("without a feed: asked %d times", s.count())
			}
		})
	}
}

// TestWhatIsKept: for how long, and under what.
func TestWhatIsKept(t *testing.T) {
	other := *aQuestion
	other.Address = netip.MustParseAddr("192.0.2.2")
	until := func(d token.Decision, after time.Duration) token.Decision { d.Until = time.Now().Add(after); return d }
	no := token.Decision{Reason: token.ReasonUnknown, Sequence: 7, Bound: time.Minute}
	byAddress := allow
	byAddress.ByAddress = true
	unbounded := allow
	unbounded.Bound = 0
	for name, c := range map[string]struct {
		d     func() token.Decision
		ask   *token.Request // the second question
		sleep time.Duration  // before it
		asks  int            // of the source
	}{
		"an allow":                    {func() token.Decision { return allow }, aQuestion, 9 * time.Second, 1},
		"from another address":        {func() token.Decision { return allow }, &other, 0, 1},
		"of a token with a condition": {func() token.Decision { return byAddress }, &other, 0, 2},
		"from the same address":       {func() token.Decision { return byAddress }, aQuestion, 0, 1},
		"before it expires":           {func() token.Decision { return until(allow, time.Second) }, aQuestion, time.Second - 1, 1},
		"when it has":                 {func() token.Decision { return until(allow, time.Second) }, aQuestion, time.Second, 2},
		"a no":                        {func() token.Decision { return no }, aQuestion, 5*time.Second - 1, 1},
		"an old no":                   {func() token.Decision { return no }, aQuestion, 5 * time.Second, 2},
		"a no until it begins":        {func() token.Decision { return until(no, time.Second) }, aQuestion, time.Second, 2},
		"nobody knows":                {func() token.Decision { return unavailable }, aQuestion, 0, 2},
		"no bound was told":           {func() token.Decision { return unbounded }, aQuestion, 0, 2},
		"another permission":          {func() token.Decision { return allow }, &token.Request{Permission: "p", Resource: aQuestion.Resource}, 0, 2},
		"another chain":               {func() token.Decision { return allow }, &token.Request{Permission: aQuestion.Permission, Resource: []string{"a.1b.2"}}, 0, 2},
		"another time":                {func() token.Decision { return allow }, &token.Request{Permission: aQuestion.Permission, Resource: aQuestion.Resource, Time: time.Now()}, 0, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := always(c.d())
			cache := begun(t, s, CacheConfig{})
			first := cache.Verify(good, aQuestion)
			time.Sleep(c.sleep)
			second := cache.Verify(good, c.ask)
			if s.count() != c.asks || second.Reason != first.Reason {
				t.Errorf("%s: asked %d times, want %d; %+v", name, s.count(), c.asks, second)
			}
		})
	}
}

// TestUnknownTypeDropsAll, as do those of which nobody can say what they change.
func TestUnknownTypeDropsAll(t *testing.T) {
	for _, data := range []events.Event{
		strange{}, &events.CataloguePublished{}, &events.EnforcerRetired{}, &events.EpochOpened{}, &events.LogOpened{},
		&events.RevocationSwept{By: events.SweepAll}, &events.RevocationSwept{By: "a new selector"}, &events.RevocationSwept{By: events.SweepOwner, Selected: "?"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := always(allow)
			c := begun(t, s, CacheConfig{})
			c.Verify(good, aQuestion)
			c.Applied(commitOf(8, "x/"+token.ID{1}.String(), data))
			vouch(c, 8)
			next := allow
			next.Sequence = 8
			s.say(next)
			if c.Verify(good, aQuestion); s.count() != 2 {
				t.Errorf("%s: asked %d times", data.EventName(), s.count())
			}
		})
	}
}

// TestEveryTypeIsJudged: a type of the standard catalogue that effectOf does not
// name drops everything, so new ones must be thought about.
func TestEveryTypeIsJudged(t *testing.T) {
	all := map[string]bool{
		"catalogue.published.v1": true, "enforcer.retired.v1": true, "epoch.opened.v1": true, "log.opened.v1": true, "revocation.swept.v1": true,
	}
	for _, name := range events.Standard.Names() {
		line, err := os.ReadFile(filepath.Join("../testdata/wire", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var r events.Record
		if err := events.Decode(bytes.TrimSuffix(line, []byte("\n")), &r); err != nil {
			t.Fatal(err)
		}
		if f := effectOf(&r); f.all != all[name] {
			t.Errorf("%s: drops all is %v", name, f.all)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := always(allow)
		c := begun(t, s, CacheConfig{Entries: 1024})
		for i := range 5000 {
			c.Verify(fmt.Sprintf("%s%d", good, i), aQuestion)
		}
		s.say(token.Decision{Reason: token.ReasonUnknown, Sequence: 7, Bound: time.Minute})
		for i := range 5000 {
			c.Verify(fmt.Sprintf("bad%d", i), aQuestion)
		}
		n := c.Stats().Entries
		if n > 1024+128 || n < 1024 {
			t.Errorf("%d entries", n)
		}
		// The bad ones have pushed nothing good out.
		before := s.count()
		hits := 0
		for i := range 5000 {
			if d := c.Verify(fmt.Sprintf("%s%d", good, i), aQuestion); d.Verdict == token.VerdictAllow {
				hits++
			}
		}
		if hits < 900 {
			t.Errorf("%d of 1024 are left, %d were asked again", hits, s.count()-before)
		}
	})
}

// TestOneFlight: however many ask the same, the source hears it once, and a
// caller that goes away does not take it from the others.
func TestOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := always(allow)
		s.hold = make(chan struct{})
		c := begun(t, s, CacheConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan token.Decision, 10)
		go func() { got <- c.VerifyContext(ctx, good, aQuestion) }()
		<-s.held
		cancel()
		if d := <-got; d.Verdict != token.VerdictUnavailable {
			t.Errorf("who has gone: %+v", d)
		}
		for range cap(got) {
			go func() { got <- c.Verify(good, aQuestion) }()
		}
		synctest.Wait()
		close(s.hold)
		for range cap(got) {
			if d := <-got; d.Verdict != token.VerdictAllow {
				t.Errorf("%+v", d)
			}
		}
		if s.count() != 1 {
			t.Errorf("asked %d times", s.count())
		}
	})
}

// TestAnotherLedger: sequences of a ledger that was restored say nothing about
// those of the one before it.
func TestAnotherLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := always(allow)
		c := begun(t, s, CacheConfig{})
		c.Applied(commitOf(8, "token/"+someToken.String(), &events.TokenUpdated{}))
		c.Observe(events.Pulse{Term: 2, Epoch: 2, Sequence: 7, Chain: events.Hash{}.String(), Time: time.Now()}, time.Now())
		if _, alive := c.Age(); alive {
			t.Error("the pen is in another epoch, and the cache believes in its feed")
		}
		c.Lost(events.ErrRewind)
		if d := c.Verify(good, aQuestion); d.Verdict == token.VerdictAllow {
			t.Errorf("by what is older than what was heard: %+v", d)
		}
		c.Begin(events.Position{Seq: 7, Number: 7, Epoch: 2})
		c.Observe(events.Pulse{Term: 2, Epoch: 2, Sequence: 7, Chain: events.Hash{}.String(), Time: time.Now()}, time.Now())
		before := s.count()
		c.Verify(good, aQuestion)
		if d := c.Verify(good, aQuestion); d.Verdict != token.VerdictAllow || s.count() != before+1 {
			t.Errorf("asked %d times, %+v", s.count()-before, d)
		}
	})
}

// TestRewoundFeed: what was asked for while one feed was followed counts for no
// other. The one that is begun may stand before a revocation that the last one has
// told, so that nothing else knows of it.
func TestRewoundFeed(t *testing.T) {
	revoked := token.Decision{Reason: token.ReasonRevoked, Token: someToken, Owner: someOwner, Sequence: 8, Bound: time.Minute}
	rewind := func(c *Cache, lost bool) {
		c.Applied(commitOf(8, "token/"+someToken.String(), &events.TokenRevoked{}))
		if lost {
			c.Lost(events.ErrRewind)
		}
		c.Begin(events.Position{Seq: 6, Number: 6, Epoch: 1})
		vouch(c, 6)
	}
	synctest.Test(t, func(t *testing.T) {
		s := always(allow) // at sequence 7
		c := begun(t, s, CacheConfig{})
		if d := c.Verify(good, aQuestion); d.Verdict != token.VerdictAllow {
			t.Fatalf("%+v", d)
		}
		rewind(c, false)
		s.say(revoked)
		if d := c.Verify(good, aQuestion); d.Reason != token.ReasonRevoked {
			t.Errorf("what was kept: %+v", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := always(allow)
		s.hold = make(chan struct{})
		c := begun(t, s, CacheConfig{})
		got := make(chan token.Decision, 1)
		go func() { got <- c.Verify(good, aQuestion) }()
		<-s.held // the yes is on its way
		rewind(c, true)
		s.say(revoked)
		s.mu.Lock()
		close(s.hold)
		s.hold = nil
		s.mu.Unlock()
		if d := <-got; d.Reason != token.ReasonRevoked {
			t.Errorf("what was on its way: %+v", d)
		}
	})
}

// feed is a reader that delivers one commit and then fails.
type feed struct {
	fail []error
	at   []events.Position
}

func (f *feed) Head(context.Context) (uint64, error) { return 0, nil }

func (f *feed) Read(ctx context.Context, at events.Position, fn func(events.Commit) error) error {
	f.at = append(f.at, at)
	c := commitOf(at.Seq+1, "token/"+someToken.String(), &events.TokenRevoked{})
	if err := fn(*c); err != nil || len(f.fail) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	err := f.fail[0]
	f.fail = f.fail[1:]
	return err
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := always(allow)
		c, err := NewCache(CacheConfig{Source: s})
		if err != nil {
			t.Fatal(err)
		}
		at, err := From(events.Pulse{Sequence: 7, Number: 9, Epoch: 1, Chain: events.HashLine([]byte("x")).String()})
		if err != nil || at.Seq != 7 || at.Number != 9 || at.Hash != events.HashLine([]byte("x")) {
			t.Fatalf("%+v, %v", at, err)
		}
		f := &feed{fail: []error{errors.New("connection lost"), events.ErrUnknown}}
		err = Follow(t.Context(), f, at, c)
		if !errors.Is(err, ErrLost) || !errors.Is(err, events.ErrUnknown) || len(f.at) != 2 || f.at[1].Seq != 8 || c.Sequence() != 9 {
			t.Errorf("%v, read from %+v, at %d", err, f.at, c.Sequence())
		}
		if _, alive := c.Age(); alive {
			t.Error("the cache still believes in its feed")
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { synctest.Wait(); cancel() }()
		if err := Follow(ctx, f, at, c); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	if _, err := From(events.Pulse{Chain: "00"}); err == nil {
		t.Error("half a hash is taken")
	}
}

// Newest makes a feed that begins once more where it was told to.
func (f *feed) Newest(context.Context) (events.Position, error) {
	return events.Position{Seq: 100, Number: 100, Epoch: 1}, nil
}

// TestFollowNewest: after a ledger that was lost comes the next one.
func TestFollowNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := NewCache(CacheConfig{Source: always(allow)})
		if err != nil {
			t.Fatal(err)
		}
		f := &feed{fail: []error{events.ErrRewind, events.ErrUnknown}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := FollowNewest(ctx, f, c); !errors.Is(err, context.DeadlineExceeded) || len(f.at) != 3 || f.at[2].Seq != 100 || c.Sequence() != 101 {
			t.Errorf("%v, read from %+v, at %d", err, f.at, c.Sequence())
		}
	})
}
