package eventstest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
)

func TestMemory(t *testing.T) {
	eventstest.TestLog(t, func(*testing.T) func() eventstest.Conn {
		ledger := eventstest.NewLedger()
		return func() eventstest.Conn { return ledger.Connect() }
	})
}

func compose(t *testing.T, at events.Position, n int) ([]byte, events.Commit) {
	t.Helper()
	payload, c, err := events.Compose(at, eventstest.Drafts(int(at.Number)+1, n))
	if err != nil {
		t.Fatal(err)
	}
	return payload, c
}

// TestFaults injects each fault into one append and looks at what the caller
// is told and what the ledger has.
func TestFaults(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name   string
		fault  eventstest.Fault
		want   error
		stored uint64
	}{
		{"none", eventstest.Fault{}, nil, 1},
		{"not done", eventstest.Fault{Lose: eventstest.Call}, events.ErrAmbiguous, 0},
		{"done, unanswered", eventstest.Fault{Lose: eventstest.Answer}, events.ErrAmbiguous, 1},
		{"refused", eventstest.Fault{Refuse: true}, events.ErrRefused, 0},
		{"own error", eventstest.Fault{Err: boom}, boom, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ledger := eventstest.NewLedger()
			log := ledger.Connect()
			payload, c := compose(t, events.Position{}, 1)
			log.Inject(eventstest.OpAppend, test.fault)
			if err := log.Append(t.Context(), events.Position{}, c.Subject, payload); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if got := ledger.Head(); got != test.stored {
				t.Errorf("%d commits are stored, want %d", got, test.stored)
			}
			if got := log.Calls(eventstest.OpAppend); got != 1 {
				t.Errorf("counted %d calls", got)
			}
		})
	}
}

// TestHeldAppend holds an append before and after it is done, in a bubble whose
// clock only moves when everybody waits.
func TestHeldAppend(t *testing.T) {
	tests := []struct {
		name    string
		fault   func(gate chan struct{}) eventstest.Fault
		stored  uint64 // when the caller has given up
		thereof uint64 // when the gate has been opened
	}{
		{"before", func(g chan struct{}) eventstest.Fault { return eventstest.Fault{Hold: g} }, 0, 0},
		{"before, under way", func(g chan struct{}) eventstest.Fault { return eventstest.Fault{Hold: g, Late: true} }, 0, 1},
		{"after", func(g chan struct{}) eventstest.Fault { return eventstest.Fault{HoldAnswer: g} }, 1, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ledger := eventstest.NewLedger()
				log := ledger.Connect()
				gate := make(chan struct{})
				log.Inject(eventstest.OpAppend, test.fault(gate))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				payload, c := compose(t, events.Position{}, 1)
				if err := log.Append(ctx, events.Position{}, c.Subject, payload); !errors.Is(err, events.ErrAmbiguous) {
					t.Errorf("error %v, want an ambiguous one", err)
				}
				if got := ledger.Head(); got != test.stored {
					t.Errorf("%d commits are stored, want %d", got, test.stored)
				}
				close(gate)
				synctest.Wait()
				if got := ledger.Head(); got != test.thereof {
					t.Errorf("%d commits are stored in the end, want %d", got, test.thereof)
				}
			})
		})
	}
}

// TestPause checks that a paused connection neither appends nor delivers, and
// that another connection goes on.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := eventstest.NewLedger()
		slow, quick := ledger.Connect(), ledger.Connect()
		payload, c := compose(t, events.Position{}, 1)

		slow.Pause()
		got := make(chan error, 1)
		go func() { got <- slow.Append(t.Context(), events.Position{}, c.Subject, payload) }()
		var read []uint64
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- slow.Read(ctx, events.Position{}, func(c events.Commit) error {
				read = append(read, c.Seq)
				return nil
			})
		}()
		if err := quick.Append(t.Context(), events.Position{}, c.Subject, payload); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(read) != 0 {
			t.Error("a paused connection has delivered")
		}
		slow.Resume()
		if err := <-got; !errors.Is(err, events.ErrConflict) {
			t.Errorf("the fenced append: %v", err)
		}
		synctest.Wait()
		if len(read) != 1 {
			t.Errorf("read %v after the pause", read)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("read: %v", err)
		}
	})
}

// TestLimit checks that a full ledger refuses and then takes again.
func TestLimit(t *testing.T) {
	ledger := eventstest.NewLedger()
	log := ledger.Connect()
	payload, c := compose(t, events.Position{}, 1)
	ledger.SetLimit(len(payload) - 1)
	if err := log.Append(t.Context(), events.Position{}, c.Subject, payload); !errors.Is(err, events.ErrRefused) {
		t.Errorf("error %v, want it refused", err)
	}
	ledger.SetLimit(len(payload))
	if err := log.Append(t.Context(), events.Position{}, c.Subject, payload); err != nil {
		t.Error(err)
	}
}

// TestDamage checks that each damage reaches a reader as its error.
func TestDamage(t *testing.T) {
	tests := []struct {
		name   string
		damage func(*eventstest.Ledger)
		want   error
	}{
		{"tail lost", func(s *eventstest.Ledger) { s.Truncate(1) }, events.ErrRewind},
		{"hole", func(s *eventstest.Ledger) { s.Replace(3, "", nil) }, events.ErrGap},
		{"flip", func(s *eventstest.Ledger) {
			subject, payload := s.Payload(3)
			payload[len(payload)-4] ^= 1
			s.Replace(3, subject, payload)
		}, events.ErrChain},
		{"another predecessor", func(s *eventstest.Ledger) {
			subject, payload := s.Payload(1)
			s.Replace(2, subject, payload)
		}, events.ErrChain},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ledger := eventstest.NewLedger()
			log := ledger.Connect()
			at := events.Position{}
			var second events.Position
			for i := range 4 {
				payload, c := compose(t, at, 1)
				if err := log.Append(t.Context(), at, c.Subject, payload); err != nil {
					t.Fatal(err)
				}
				if at = c.End; i == 1 {
					second = at
				}
			}
			if all, err := ledger.Commits(); err != nil || len(all) != 4 {
				t.Fatalf("before the damage: %d commits, %v", len(all), err)
			}
			test.damage(ledger)
			err := log.Read(t.Context(), second, func(events.Commit) error { return nil })
			if !errors.Is(err, test.want) {
				t.Errorf("read: %v, want %v", err, test.want)
			}
		})
	}
}

// TestLiveRewind checks that a waiting reader hears of a lost tail.
func TestLiveRewind(t *testing.T) {
	ledger := eventstest.NewLedger()
	log := ledger.Connect()
	payload, c := compose(t, events.Position{}, 1)
	if err := log.Append(t.Context(), events.Position{}, c.Subject, payload); err != nil {
		t.Fatal(err)
	}
	err := log.Read(t.Context(), events.Position{}, func(events.Commit) error {
		ledger.Truncate(0)
		return nil
	})
	if !errors.Is(err, events.ErrRewind) {
		t.Errorf("read: %v, want a rewind", err)
	}
}

// TestSpoil checks that what a callback may not keep does not survive it, and
// that what it may keep does.
func TestSpoil(t *testing.T) {
	ledger := eventstest.NewLedger()
	log := ledger.Connect()
	payload, c := compose(t, events.Position{}, 1)
	if err := log.Append(t.Context(), events.Position{}, c.Subject, payload); err != nil {
		t.Fatal(err)
	}
	var line []byte
	var data events.Event
	enough := errors.New("enough")
	log.Read(t.Context(), events.Position{}, func(c events.Commit) error {
		line, data = c.Records[0].Line, c.Records[0].Data
		return enough
	})
	if line[0] == '{' {
		t.Error("a line that was kept still looks whole")
	}
	if got := data.(*events.AccountCreated).Name; got != "account 1" {
		t.Errorf("the data that was kept reads %q", got)
	}
	if _, stored := ledger.Payload(1); string(stored) != string(payload) {
		t.Error("the ledger's own bytes have changed")
	}
}

func TestClock(t *testing.T) {
	var c eventstest.Clock
	if got := c.Now(); !got.Equal(eventstest.Epoch) {
		t.Errorf("a new clock stands at %v", got)
	}
	want := eventstest.Epoch.Add(90 * time.Second)
	if got := c.Advance(90 * time.Second); !got.Equal(want) || !c.Now().Equal(want) {
		t.Errorf("advanced to %v, want %v", got, want)
	}
}
