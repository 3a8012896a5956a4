package authority_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/fault"
	"watchword.dev/services/authority"
	"watchword.dev/services/authority/authoritytest"
)

// second is another node on the world's ledger.
func (w *world) second(name string) (pen *authority.Pen, log *eventstest.Log, stop func()) {
	w.t.Helper()
	log = w.ledger.Connect()
	past := authoritytest.NewDirectory()
	pen, err := authority.New(w.Config(name, log, log, past))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		if err := pen.Run(ctx); err != nil {
			w.t.Errorf("%s: %v", name, err)
		}
	})
	group.Go(func() {
		if err := past.Follow(ctx, w.ledger.Connect(), nil); err != nil {
			w.t.Errorf("the directory of %s: %v", name, err)
		}
	})
	return pen, log, func() { cancel(); group.Wait() }
}

// lastPulse opens the newest pulse of the ledger.
func (w *world) lastPulse() events.Pulse {
	w.t.Helper()
	raw, _, err := w.ledger.Connect().LastPulse(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	pulse, err := events.OpenPulse(raw, w.Key.Public().(ed25519.PublicKey))
	if err != nil {
		w.t.Fatal(err)
	}
	return pulse
}

// TestPulses looks at what the pulses of an open pen say.
func TestPulses(t *testing.T) {
	in(t, nil, func(w *world) {
		sleep(1500 * time.Millisecond)
		pulse := w.lastPulse()
		end := w.commit(w.ledger.Head()).End
		if pulse.Claim || pulse.Resigned || pulse.Term != 1 || pulse.Sequence != end.Seq || pulse.Number != end.Number ||
			pulse.Chain != end.Hash.String() || pulse.Epoch != 1 || pulse.Node != w.pen.Stats().Node {
			t.Errorf("pulse %+v at %+v", pulse, end)
		}
		if age := w.pen.Stats().LeaseAge; age > time.Second {
			t.Errorf("the lease is %v old", age)
		}
	})
}

// TestStandbyTakesOver stops the first pen as SIGSTOP would: within five
// seconds the second one writes, the first one knows of no head any more as
// soon as the second may, and after it goes on it is fenced.
func TestStandbyTakesOver(t *testing.T) {
	in(t, nil, func(w *world) {
		other, _, stop := w.second("node-b")
		defer stop()
		sleep(10 * time.Second)
		if mode, _ := other.Mode(); mode != authority.Standby {
			t.Fatalf("beside a pen that beats the other is %s", mode)
		}
		if _, err := other.Head(w.ctx); !errors.Is(err, fault.NoPen) {
			t.Errorf("a standby's head: %v", err)
		}
		if _, err := other.Do(w.ctx, authoritytest.ByKey(w.Operator), w.Create()); !errors.Is(err, fault.NoPen) {
			t.Errorf("a standby's answer: %v", err)
		}
		w.log.Pause()
		began := time.Now()
		var believed time.Duration
		for mode, _ := other.Mode(); mode != authority.Active; mode, _ = other.Mode() {
			if _, err := w.pen.Head(w.ctx); err == nil {
				believed = time.Since(began)
			}
			if time.Since(began) > 5*time.Second {
				t.Fatal("no takeover within five seconds")
			}
			sleep(time.Millisecond)
		}
		if believed > 3*time.Second || believed == 0 {
			t.Errorf("the first pen told heads for %v, the second one opened after %v", believed, time.Since(began))
		}
		made, err := other.Do(w.ctx, authoritytest.ByKey(w.Operator), w.Create())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.pen.Head(w.ctx); !errors.Is(err, fault.NoPen) {
			t.Errorf("the stopped pen's head after %d was acknowledged: %v", made.Seq, err)
		}
		w.log.Resume()
		if _, err := w.pen.Do(w.ctx, authoritytest.ByKey(w.Operator), w.Create()); !errors.Is(err, fault.NoPen) {
			t.Errorf("the fenced pen's answer: %v", err)
		}
		sleep(10 * time.Second)
		if mode, _ := w.pen.Mode(); mode != authority.Standby {
			t.Errorf("the fenced pen is %s", mode)
		}
		if n := w.whole(); n["pen.opened.v1"] != 2 || n["token.created.v1"] != 1 {
			t.Errorf("the ledger holds %v", n)
		}
	})
}

// TestResignation ends the first pen: the second one needs not wait for the
// silence.
func TestResignation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		if err := authority.Bootstrap(w.ctx, w.pen, w.People()...); err != nil {
			t.Fatal(err)
		}
		other, _, stop := w.second("node-b")
		defer stop()
		sleep(10 * time.Second)
		began, head := time.Now(), w.ledger.Head() // the other pen moves it at once
		w.stop()
		// The other pen may have claimed already; its claim repeats the position.
		if pulse := w.lastPulse(); pulse.Term == 1 && !pulse.Resigned || pulse.Sequence < head {
			t.Errorf("the last pulse is %+v, the head was %d", pulse, head)
		}
		if err := other.Await(context.Background(), authority.Active); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("the handover took %v", took)
		}
	})
}

// TestLostPulses loses the answers of pulses, and pulses: the pen goes on, for
// it finds out, as long as its lease lasts.
func TestLostPulses(t *testing.T) {
	for name, lose := range map[string]eventstest.Loss{"call": eventstest.Call, "answer": eventstest.Answer} {
		t.Run(name, func(t *testing.T) {
			in(t, nil, func(w *world) {
				for range 20 {
					w.log.Inject(eventstest.OpStorePulse, eventstest.Fault{Lose: lose}, eventstest.Fault{Lose: lose}, eventstest.Fault{})
					sleep(time.Second)
					if _, err := w.pen.Head(w.ctx); err != nil {
						t.Fatal(err)
					}
				}
				if term := w.pen.Stats().Term; term != 1 {
					t.Errorf("the term is %d", term)
				}
			})
		})
	}
}

// TestNoPulses lets no pulse through any more: the pen puts itself down when
// its lease has run out, and takes itself up again.
func TestNoPulses(t *testing.T) {
	in(t, nil, func(w *world) {
		w.log.InjectFunc(func(op eventstest.Op) eventstest.Fault {
			if op == eventstest.OpStorePulse {
				return eventstest.Fault{Lose: eventstest.Call}
			}
			return eventstest.Fault{}
		})
		sleep(4 * time.Second)
		if mode, _ := w.pen.Mode(); mode != authority.Standby {
			t.Fatalf("the pen is %s", mode)
		}
		w.log.InjectFunc(nil)
		if err := w.pen.Await(w.ctx, authority.Active); err != nil {
			t.Fatal(err)
		}
		if _, err := w.pen.Do(w.ctx, authoritytest.ByKey(w.Operator), w.Create()); err != nil {
			t.Error(err)
		}
		w.whole()
	})
}

// TestForgedPulse puts a pulse of nobody into the stream: no standby claims
// over it, because nobody knows the term.
func TestForgedPulse(t *testing.T) {
	in(t, nil, func(w *world) {
		other, _, stop := w.second("node-b")
		defer stop()
		sleep(5 * time.Second)
		w.log.Pause()
		forger := w.ledger.Connect()
		_, seq, err := forger.LastPulse(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, strange, _ := ed25519.GenerateKey(nil)
		raw, err := events.Pulse{Term: 99, Node: "forger", Time: time.Now()}.Sign(strange)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := forger.StorePulse(w.ctx, seq, raw); err != nil {
			t.Fatal(err)
		}
		sleep(20 * time.Second)
		if mode, _ := other.Mode(); mode != authority.Standby {
			t.Errorf("over a forged pulse the standby is %s", mode)
		}
		w.log.Resume()
	})
}

// TestEmptyLedger starts a pen without the mark of a first start on nothing.
func TestEmptyLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		people, ledger := authoritytest.NewInstallation(), eventstest.NewLedger()
		log := ledger.Connect()
		cfg := people.Config("node-a", log, log, authoritytest.NewDirectory())
		cfg.Genesis, cfg.Sole = nil, true
		pen, err := authority.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := pen.Run(context.Background()); err == nil {
			t.Error("the pen ended without an error")
		}
		if ledger.Head() != 0 {
			t.Error("something was written")
		}
	})
}

// TestStandbyFarBehind lets a standby whose directory is far behind see the
// pen die: it must not claim what it could not use.
func TestStandbyFarBehind(t *testing.T) {
	in(t, nil, func(w *world) {
		past := authoritytest.NewDirectory()
		past.Hold()
		log := w.ledger.Connect()
		cfg := w.Config("node-b", log, log, past)
		cfg.BacklogMax = 256
		pen, err := authority.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var group sync.WaitGroup
		defer group.Wait()
		defer cancel()
		group.Go(func() { _ = pen.Run(ctx) })
		group.Go(func() { _ = past.Follow(ctx, w.ledger.Connect(), nil) })
		w.log.Pause()
		sleep(20 * time.Second)
		if mode, _ := pen.Mode(); mode != authority.Standby {
			t.Errorf("far behind, the standby is %s", mode)
		}
		past.Release()
		sleep(time.Second)
		if mode, _ := pen.Mode(); mode != authority.Active {
			t.Errorf("caught up, the standby is %s", mode)
		}
		w.log.Resume()
		sleep(time.Second)
	})
}
