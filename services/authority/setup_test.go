package authority_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"watchword.dev/events/eventstest"
	"watchword.dev/services/authority"
	"watchword.dev/services/authority/authoritytest"
)

// world is one node with a pen, on a ledger of its own. It lives in a synctest
// bubble.
type world struct {
	*authoritytest.Installation
	t      testing.TB
	ctx    context.Context
	ledger *eventstest.Ledger
	log    *eventstest.Log
	past   *authoritytest.Directory
	pen    *authority.Pen
	stop   func()
}

// in runs test in a bubble with an open pen and the installation's people.
func in(t *testing.T, change func(*authority.Config), test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, change)
		defer w.stop()
		if err := authority.Bootstrap(w.ctx, w.pen, w.People()...); err != nil {
			t.Fatal(err)
		}
		if err := authoritytest.Settle(w.ctx, w.pen, w.past); err != nil {
			t.Fatal(err)
		}
		test(w)
	})
}

func newWorld(t testing.TB, change func(*authority.Config)) *world {
	t.Helper()
	ledger := eventstest.NewLedger()
	w := &world{
		Installation: authoritytest.NewInstallation(), t: t,
		ledger: ledger, log: ledger.Connect(), past: authoritytest.NewDirectory(),
	}
	cfg := w.Config("node-a", w.log, w.log, w.past)
	if change != nil {
		change(&cfg)
	}
	pen, err := authority.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.pen = pen
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx = ctx
	var group sync.WaitGroup
	group.Go(func() {
		if err := pen.Run(ctx); err != nil {
			t.Errorf("the pen: %v", err)
		}
	})
	group.Go(func() {
		if err := w.past.Follow(ctx, ledger.Connect(), nil); err != nil {
			t.Errorf("the directory: %v", err)
		}
	})
	w.stop = func() {
		cancel()
		group.Wait()
	}
	return w
}

// whole checks the ledger as a reader from the beginning would, and that its
// events make sense, and returns how many there are of each type.
func (w *world) whole() map[string]int {
	w.t.Helper()
	return whole(w.t, w.ledger)
}

func whole(t testing.TB, ledger *eventstest.Ledger) map[string]int {
	t.Helper()
	commits, err := ledger.Commits()
	if err != nil {
		t.Fatalf("the ledger: %v", err)
	}
	fresh := authoritytest.NewDirectory()
	count := map[string]int{}
	for i := range commits {
		if err := fresh.Apply(&commits[i]); err != nil {
			t.Fatalf("the ledger: %v", err)
		}
		for _, r := range commits[i].Records {
			count[r.Name]++
		}
	}
	return count
}

func sleep(d time.Duration) { time.Sleep(d) } // fake time: every use is in a bubble
