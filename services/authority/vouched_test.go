package authority_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"watchword.dev/events"
	"watchword.dev/services/authority"
	"watchword.dev/services/authority/authoritytest"
)

// TestVouched damages the ledger while no pen is open. The next pen has a
// directory that was built from what is left, so that only the pulse of the pen
// before tells how much there was: the pen is broken instead of writing on.
func TestVouched(t *testing.T) {
	for name, tc := range map[string]struct {
		damage func(w *world)
		want   error // nil: the pen opens
	}{
		"whole":                  {func(*world) {}, nil},
		"lost tail":              {func(w *world) { w.ledger.Truncate(w.ledger.Head() - 1) }, events.ErrRewind},
		"lost all but the first": {func(w *world) { w.ledger.Truncate(1) }, events.ErrRewind},
		"another last event": {func(w *world) {
			head := w.ledger.Head()
			w.ledger.Truncate(head - 1)
			at := w.commit(head - 1).End
			payload, c, err := events.Compose(at, []events.Draft{{
				Envelope: events.Envelope{
					ID: w.NewID(), Source: "watchword/" + w.ID.String(), Subject: "pen/" + w.ID.String(), Time: at.Time,
					Actor: events.Actor{Kind: events.ActorSystem},
				},
				Data: &events.PenOpened{Term: 1, Node: "node-x"},
			}})
			if err != nil {
				w.t.Fatal(err)
			}
			if err := w.ledger.Connect().Append(w.ctx, at, c.Subject, payload); err != nil {
				w.t.Fatal(err)
			}
		}, events.ErrChain},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				if err := authority.Bootstrap(w.ctx, w.pen, w.People()...); err != nil {
					t.Fatal(err)
				}
				w.stop()
				w.ctx = context.Background()
				tc.damage(w)
				// The first successor leaves a claim behind, which must say as
				// much as what it found.
				for _, node := range []string{"node-b", "node-c"} {
					if err := w.reopen(node); !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
						t.Errorf("%s: %v, want %v", node, err, tc.want)
					}
				}
			})
		})
	}
}

// reopen lets another node, which has nothing of its own, take the pen, and
// ends it. It returns why the pen is broken.
func (w *world) reopen(name string) error {
	w.t.Helper()
	log, past := w.ledger.Connect(), authoritytest.NewDirectory()
	pen, err := authority.New(w.Config(name, log, log, past))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	var group sync.WaitGroup
	group.Go(func() {
		if err := pen.Run(ctx); !errors.Is(err, pen.Cause()) {
			w.t.Errorf("%s ended with %v", name, err)
		}
	})
	group.Go(func() {
		if err := past.Follow(ctx, w.ledger.Connect(), nil); err != nil {
			w.t.Errorf("the directory of %s: %v", name, err)
		}
	})
	defer group.Wait()
	defer cancel()
	if err := pen.Await(ctx, authority.Active); err != nil && pen.Cause() == nil {
		w.t.Errorf("%s: %v", name, err)
	}
	return pen.Cause()
}
