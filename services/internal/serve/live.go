package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events"
	"watchword.dev/events/receipt"
	"watchword.dev/projections/projector"
)

// retireAfter is how long a replaced generation stays open for those who still
// hold it: longer than any request may take.
const retireAfter = time.Minute

// live is a projection that serves while a new generation of it may be built
// beside it. Whoever asks it calls get for each question.
type live[P projector.Owned] struct {
	home   projector.Home
	open   func(dir string) (P, error)
	follow func(P, events.Reader, projector.Options) *projector.Runner
	read   events.Reader
	o      projector.Options
	log    *slog.Logger
	// applied, if not nil, hears how far the generation that serves has come,
	// when it is there, and whether a revocation was in what came since.
	applied func(at events.Position, revoked bool)
	// adopt, if not nil, tells a new generation what it cannot read from the
	// ledger, right before it serves.
	adopt func(P)

	current atomic.Pointer[generation[P]]

	mu      sync.Mutex      // one rebuild at a time, and none before run
	running context.Context // nil before run
	wg      sync.WaitGroup  // runners and generations that retire
}

// generation is one store with what feeds it.
type generation[P projector.Owned] struct {
	p      P
	runner *projector.Runner
	stop   context.CancelFunc
	done   chan struct{}
}

// start opens the generation that serves. One that was written by another
// version of the projection, or that is damaged, is left aside, and a new one is
// built in its place: everything in it follows from the ledger.
func (l *live[P]) start() error {
	dir, err := l.home.Current()
	if err != nil {
		return err
	}
	p, err := l.open(dir)
	if errors.Is(err, projector.ErrForeignStore) || errors.Is(err, projector.ErrDamaged) || pebble.IsCorruptionError(err) {
		l.log.Error("a projection cannot be used as it is and is built anew from the ledger", "directory", dir, "error", err)
		p, err = l.startAnew()
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	l.current.Store(l.generation(p))
	return l.home.Prune()
}

// generation follows p, which does not run yet.
func (l *live[P]) generation(p P) *generation[P] {
	g := &generation[P]{p: p}
	o := l.o
	if l.applied != nil {
		o.Applied = func(commits []events.Commit) {
			// Before a generation serves, what it has applied is nobody's answer.
			if l.current.Load() == g {
				l.applied(commits[len(commits)-1].End, revoked(commits))
			}
		}
	}
	g.runner = l.follow(p, l.read, o)
	return g
}

// revoked reports whether a revocation is among commits.
func revoked(commits []events.Commit) bool {
	for i := range commits {
		if receipt.RevokesAny(&commits[i]) {
			return true
		}
	}
	return false
}

// startAnew makes an empty generation the one that serves. Until it has caught
// up the node is not ready.
func (l *live[P]) startAnew() (P, error) {
	var none P
	dir, err := l.home.Next()
	if err != nil {
		return none, err
	}
	p, err := l.open(dir)
	if err != nil {
		return none, err
	}
	if err := l.home.Use(dir); err != nil {
		return none, errors.Join(err, p.Close())
	}
	return p, nil
}

func (l *live[P]) get() P { return l.current.Load().p }

// Wait returns nil when what get gives has reached seq.
func (l *live[P]) Wait(ctx context.Context, seq uint64) error {
	return l.current.Load().runner.Wait(ctx, seq)
}

func (l *live[P]) status() projector.Status { return l.current.Load().runner.Status() }

// run feeds the projection until ctx ends, and then closes it. A projection
// that cannot apply something goes on answering at the sequence where it
// stopped, and /readyz shows it: ending the process would help nobody.
func (l *live[P]) run(ctx context.Context) error {
	l.mu.Lock()
	l.running = ctx
	l.feed(l.current.Load())
	l.mu.Unlock()
	<-ctx.Done()
	return nil
}

// feed runs the runner of g in the background. The caller holds mu.
func (l *live[P]) feed(g *generation[P]) {
	ctx, stop := context.WithCancel(l.running)
	g.stop, g.done = stop, make(chan struct{})
	l.wg.Go(func() {
		defer close(g.done)
		if err := g.runner.Run(ctx); ctx.Err() == nil {
			l.log.Error("a projection has stopped", "projection", g.p.Name(), "error", err)
		}
	})
}

// close waits for the runners and closes what is open. run must have ended.
func (l *live[P]) close() error {
	l.wg.Wait()
	return l.current.Load().p.Close()
}

// reaches returns events.ErrRewind when a projection has applied more than the
// ledger holds. Then it is the ledger that has lost something, and what shows it
// must not be replaced by what is left.
func reaches(ctx context.Context, ledger events.Reader, p projector.Projection) error {
	at := p.Position().Seq // before the head, which only grows
	head, err := ledger.Head(ctx)
	if err != nil {
		return fmt.Errorf("read the head of the ledger: %w", err)
	}
	if at > head {
		return fmt.Errorf("%w: it ends at %d, %s is at %d; keep a copy of the whole data directory and restore the ledger",
			events.ErrRewind, head, p.Name(), at)
	}
	return nil
}

// rebuild builds the projection anew from sequence 1 and lets it take over.
// The old one serves until the new one has caught up with it, so that no
// answer rests on less than one before.
func (l *live[P]) rebuild(ctx context.Context, progress func(done, head uint64)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running == nil || l.running.Err() != nil {
		return context.Canceled
	}
	if err := reaches(ctx, l.read, l.current.Load().p); err != nil {
		return err
	}
	p, err := projector.Rebuild(ctx, l.read, l.home, l.open, progress)
	if err != nil {
		return err
	}
	next := l.generation(p)
	l.feed(next)
	old := l.current.Load()
	old.stop()
	<-old.done
	if err := next.runner.Wait(ctx, old.p.Position().Seq); err != nil {
		// CURRENT names the new generation already: it is whole, only
		// not caught up. It takes over at the next start at the latest.
		l.log.Error("a rebuilt projection did not catch up", "projection", p.Name(), "error", err)
	}
	if l.adopt != nil {
		l.adopt(p)
	}
	l.current.Store(next)
	if l.applied != nil {
		l.applied(p.Position(), true) // whatever it was that only the new one had
	}
	l.wg.Go(func() {
		select {
		case <-l.running.Done():
		case <-time.After(retireAfter):
		}
		if err := old.p.Close(); err != nil {
			l.log.Warn("close a replaced projection", "projection", p.Name(), "error", err)
		}
		if err := l.home.Prune(); err != nil {
			l.log.Warn("remove a replaced projection", "projection", p.Name(), "error", err)
		}
	})
	return nil
}
