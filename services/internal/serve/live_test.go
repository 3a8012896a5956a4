package serve

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/projections/directory"
	"watchword.dev/projections/projector"
	"watchword.dev/services/authority/authoritytest"
)

// TestRebuildOfLoss takes the end of the ledger away: a projection that has
// applied it is what shows the loss, and is not replaced by what is left,
// neither while it serves nor when nobody has it open.
func TestRebuildOfLoss(t *testing.T) {
	ledger, people := eventstest.NewLedger(), authoritytest.NewInstallation()
	at := events.Position{}
	for _, data := range []events.Event{people.Genesis(), &events.PenOpened{Term: 1, Node: "node-a"}} {
		payload, c, err := events.Compose(at, []events.Draft{{
			Envelope: events.Envelope{
				ID: people.NewID(), Source: "watchword/" + people.ID.String(), Subject: "log/" + people.ID.String(),
				Time: eventstest.Epoch, Actor: events.Actor{Kind: events.ActorSystem},
			},
			Data: data,
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := ledger.Connect().Append(t.Context(), at, c.Subject, payload); err != nil {
			t.Fatal(err)
		}
		at = c.End
	}
	l := &live[*directory.Directory]{
		home: projector.Home{Dir: filepath.Join(t.TempDir(), directory.Name)}, read: ledger.Connect(), log: slog.New(slog.DiscardHandler),
		open: func(dir string) (*directory.Directory, error) { return directory.Open(directory.Options{Dir: dir}) },
		follow: func(d *directory.Directory, r events.Reader, o projector.Options) *projector.Runner {
			return projector.NewRunner(r, d, o)
		},
	}
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.run(ctx) })
	if err := l.Wait(ctx, at.Seq); err != nil {
		t.Fatal(err)
	}
	ledger.Truncate(at.Seq - 1)
	if err := l.rebuild(ctx, nil); !errors.Is(err, events.ErrRewind) {
		t.Errorf("while it serves: %v", err)
	}
	stop()
	running.Wait()
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if err := rebuildOffline(t.Context(), l, nil); !errors.Is(err, events.ErrRewind) {
		t.Errorf("while nobody has it open: %v", err)
	}
	dir, err := l.home.Current()
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := d.Position(); got != at {
		t.Errorf("what is left stands at %+v, want %+v", got, at)
	}
}
