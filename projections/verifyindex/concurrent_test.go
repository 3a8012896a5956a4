package verifyindex

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"watchword.dev/events"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
)

// TestRevocationIsSeenByAll lets readers verify while the writer creates,
// updates, rolls and revokes, moves entries, grows and renews the table: once
// Apply has returned, nobody accepts a secret that it has ended, and nobody
// ever misses one that is good.
func TestRevocationIsSeenByAll(t *testing.T) {
	for _, setup := range setups {
		t.Run(setup.name, func(t *testing.T) {
			const tokens, rounds = 300, 4000
			c := newCrowd(tokens)
			o := setup.o
			o.Now = func() time.Time { return c.now }
			x := open(t, o, vfs.NewMem())
			defer x.Close()
			apply := func(d events.Draft) {
				t.Helper()
				if err := x.Apply([]events.Commit{c.commit(d)}); err != nil {
					t.Fatal(err)
				}
			}
			apply(events.Draft{Data: &events.LogOpened{Brand: projectiontest.Brand}})
			for _, d := range c.owners() {
				apply(d)
			}
			x.Observe(pulse(c.at, c.now), c.now)
			var live, ended [tokens]atomic.Bool
			var stop atomic.Bool
			var readers sync.WaitGroup
			for r := range 4 {
				readers.Go(func() {
					for i := r; !stop.Load(); i = (i + 7) % tokens {
						was, gone := live[i].Load(), ended[i].Load()
						req := c.request(i)
						d := x.Verify(c.secret(i), &req)
						switch {
						case gone && d.Reason != token.ReasonRevoked:
							t.Errorf("token %d was revoked: %+v", i, d)
							return
						case was && d.Verdict != token.VerdictAllow && !ended[i].Load() && d.Reason != token.ReasonRevoked:
							t.Errorf("token %d is good: %+v", i, d)
							return
						}
					}
				})
			}
			rng := projectiontest.Seed(t)
			for round := range rounds {
				i := rng.IntN(tokens)
				about := events.Envelope{Subject: "token/" + idOf('t', i).String()}
				switch {
				case ended[i].Load():
				case !live[i].Load():
					apply(c.created(i))
					live[i].Store(true)
				case round > rounds/2 && rng.IntN(8) == 0:
					apply(events.Draft{Envelope: about, Data: &events.TokenRevoked{}})
					ended[i].Store(true)
				case round > rounds/2 && rng.IntN(8) == 0:
					next := token.Sum(projectiontest.NewSecret(rng, token.KindUser))
					apply(events.Draft{Envelope: about, Data: &events.TokenRolled{Secret: next}})
					ended[i].Store(true) // the secret that is asked about
				default:
					apply(events.Draft{Envelope: about, Data: &events.TokenUpdated{Grant: c.grant(i)}})
				}
			}
			stop.Store(true)
			readers.Wait()
			if setup.name == "small blocks" && x.w.table.arena.next < 100 {
				t.Errorf("only %d blocks were used: the table hardly moved", x.w.table.arena.next)
			}
		})
	}
}

// TestRenew uses up the numbers of an arena's blocks.
func TestRenew(t *testing.T) {
	c := newCrowd(50)
	x := open(t, Options{Now: func() time.Time { return c.now }, blockSize: 2 << 10, alloc: heapBlock}, vfs.NewMem())
	defer x.Close()
	commits := []events.Commit{c.commit(events.Draft{Data: &events.LogOpened{Brand: projectiontest.Brand}}), c.commit(c.owners()...)}
	for i := range c.n {
		commits = append(commits, c.commit(c.created(i)))
	}
	if err := x.Apply(commits); err != nil {
		t.Fatal(err)
	}
	x.Observe(pulse(c.at, c.now), c.now)
	first := x.w.table.arena
	for i := 0; x.w.table.arena == first; i++ {
		if i > 10*maxBlocks {
			t.Fatal("the arena was never renewed")
		}
		about := events.Envelope{Subject: "token/" + idOf('t', i%c.n).String()}
		if err := x.Apply([]events.Commit{c.commit(events.Draft{Envelope: about, Data: &events.TokenUpdated{Grant: c.grant(i % c.n)}})}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range c.n {
		req := c.request(i)
		if d := x.Verify(c.secret(i), &req); d.Verdict != token.VerdictAllow {
			t.Errorf("token %d: %+v", i, d)
		}
	}
}

// TestVerifyDoesNotAllocate in either mode, whatever the answer.
func TestVerifyDoesNotAllocate(t *testing.T) {
	for _, setup := range []struct {
		name string
		o    Options
	}{{"resident", Options{}}, {"disk", Options{MemoryBytes: 1}}} {
		t.Run(setup.name, func(t *testing.T) {
			c := newCrowd(2000)
			c.now = time.Now().UTC().Truncate(time.Millisecond)
			o := setup.o
			if setup.name == "disk" {
				o.MemoryBytes = 64 << 10
			}
			x := open(t, o, vfs.NewMem())
			defer x.Close()
			x.o.Bounds = Bounds{time.Hour, time.Hour, time.Hour}
			c.fill(t, x)
			if got := string(x.Stats().Mode); got != setup.name {
				t.Fatalf("mode %s", got)
			}
			requests := c.requests([]int32{7, 8})
			requests[1].Permission = "no.such.permission"
			stranger := projectiontest.NewSecret(projectiontest.Seed(t), token.KindUser)
			for _, ask := range []struct {
				name   string
				secret string
				req    *token.Request
				want   token.Reason
			}{
				{"allowed", c.secret(7), &requests[0], token.ReasonNone},
				{"no policy", c.secret(9), &requests[0], token.ReasonNoPolicy},
				{"unknown permission", c.secret(8), &requests[1], token.ReasonUnknownPermission},
				{"unknown", stranger, &requests[0], token.ReasonUnknown},
				{"malformed", stranger[1:], &requests[0], token.ReasonMalformed},
			} {
				if d := x.Verify(ask.secret, ask.req); d.Reason != ask.want {
					t.Errorf("%s: %+v", ask.name, d)
				}
				if raceEnabled {
					continue // the detector's own allocations are counted
				}
				if n := testing.AllocsPerRun(1000, func() { x.Verify(ask.secret, ask.req) }); n != 0 {
					t.Errorf("%s: %v allocations", ask.name, n)
				}
			}
		})
	}
}

// TestDamageIsNotUnknown: a row that cannot be read may be there.
func TestDamageIsNotUnknown(t *testing.T) {
	c := newCrowd(200)
	toggle := &errorfs.Toggle{Injector: errorfs.ErrInjected.If(errorfs.Reads)}
	fs := errorfs.Wrap(vfs.NewMem(), toggle)
	x, err := Open(Options{Dir: "index", FS: fs, MemoryBytes: 8 << 10, Now: func() time.Time { return c.now }})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	c.fill(t, x)
	if x.Stats().Mode != Disk {
		t.Fatalf("%+v", x.Stats())
	}
	if err := x.store.DB().Flush(); err != nil {
		t.Fatal(err)
	}
	x.show() // readers of the tables, not of memory
	req := c.request(3)
	if d := x.Verify(c.secret(3), &req); d.Verdict != token.VerdictAllow {
		t.Fatalf("before: %+v", d)
	}
	// A new generation must read again; so must a cache that was emptied.
	toggle.On()
	x.view.Load().gen.drain()
	refused := 0
	for i := range c.n {
		req := c.request(i)
		switch d := x.Verify(c.secret(i), &req); {
		case d.Reason == token.ReasonNotReady && d.Verdict == token.VerdictUnavailable:
			refused++
		case d.Verdict != token.VerdictAllow:
			t.Fatalf("token %d: %+v", i, d)
		}
	}
	if refused == 0 {
		t.Error("nothing was read from the broken disk")
	}
	toggle.Off()
	if d := x.Verify(c.secret(3), &req); d.Verdict != token.VerdictAllow {
		t.Errorf("after: %+v", d)
	}
}

// TestNoPooledReaderMissesARevocation fills the pool, applies, and asks by every
// way into the pool.
func TestNoPooledReaderMissesARevocation(t *testing.T) {
	c := newCrowd(100)
	x := open(t, Options{MemoryBytes: 1, Now: func() time.Time { return c.now }}, vfs.NewMem())
	defer x.Close()
	c.fill(t, x)
	for i := range c.n {
		old := x.view.Load().gen
		var taken []*reader
		for range 2 * len(old.idle) {
			r, err := old.take()
			if err != nil {
				t.Fatal(err)
			}
			taken = append(taken, r)
		}
		held := taken[0] // one that is in use while the generation ends
		for _, r := range taken[1:] {
			old.give(r)
		}
		about := events.Envelope{Subject: "token/" + idOf('t', i).String()}
		if err := x.Apply([]events.Commit{c.commit(events.Draft{Envelope: about, Data: &events.TokenRevoked{}})}); err != nil {
			t.Fatal(err)
		}
		old.give(held)
		for k := range old.idle {
			if old.idle[k].Load() != nil {
				t.Fatal("an iterator has survived its generation")
			}
		}
		for try := range 4 * len(old.idle) {
			req := c.request(i)
			if d := x.Verify(c.secret(i), &req); d.Reason != token.ReasonRevoked {
				t.Fatalf("token %d, try %d: %+v", i, try, d)
			}
		}
	}
}

// TestOldViewFindsWhatHasMoved: a reader that was held up between loading its
// view and looking into it still finds every token, although the entries have
// moved, the slots were replaced and the blocks are gone.
func TestOldViewFindsWhatHasMoved(t *testing.T) {
	c := newCrowd(600)
	x := open(t, Options{Now: func() time.Time { return c.now }, blockSize: 4 << 10, alloc: heapBlock}, vfs.NewMem())
	defer x.Close()
	early := c.n / 6 // few enough that the table must grow for the rest
	commits := []events.Commit{c.commit(events.Draft{Data: &events.LogOpened{Brand: projectiontest.Brand}}), c.commit(c.owners()...)}
	for i := range early {
		commits = append(commits, c.commit(c.created(i)))
	}
	if err := x.Apply(commits); err != nil {
		t.Fatal(err)
	}
	x.Observe(pulse(c.at, c.now), c.now)
	old := x.view.Load()
	for i := early; i < c.n; i++ {
		if err := x.Apply([]events.Commit{c.commit(c.created(i))}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range c.n {
		about := events.Envelope{Subject: "token/" + idOf('t', i).String()}
		if err := x.Apply([]events.Commit{c.commit(events.Draft{Envelope: about, Data: &events.TokenUpdated{Grant: c.grant(i)}})}); err != nil {
			t.Fatal(err)
		}
	}
	if x.view.Load().table.slots == old.table.slots {
		t.Fatal("the table has not grown")
	}
	moved := 0
	for i := range early {
		digest := token.Sum(c.secret(i))
		if _, _, m := old.table.find(&digest); m {
			moved++
		}
		req := c.request(i)
		var d token.Decision
		x.verify(&d, old, 0, &digest, &req, c.now)
		if d.Verdict != token.VerdictAllow {
			t.Errorf("token %d: %+v", i, d)
		}
	}
	if moved == 0 {
		t.Error("no block is gone")
	}
}
