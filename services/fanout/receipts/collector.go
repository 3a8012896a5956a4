package receipts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/oklog/run"

	"watchword.dev/projections/revocations"
)

// Source is a stream of receipts. stream.Told is one, but for the type of its
// messages.
type Source interface {
	// Read calls fn for every message after a sequence, in order, and waits
	// for more until ctx ends; a stream that ends before that sequence was
	// made anew, and is read from its beginning.
	Read(ctx context.Context, after uint64, fn func(revocations.Message) error) error
	// Last is the sequence of the last message that is stored.
	Last(ctx context.Context) (uint64, error)
}

// Ledger knows the head.
type Ledger interface {
	Head(ctx context.Context) (uint64, error)
}

// Waiter waits until the projection has applied a sequence of the ledger.
type Waiter interface {
	Wait(ctx context.Context, seq uint64) error
}

// CollectorConfig is what a Collector needs. All fields but Log must be set.
type CollectorConfig struct {
	// Projection returns the one that serves. It may be another one later:
	// what it lacks is then read anew.
	Projection func() *revocations.Revocations
	Reached    Waiter // for the projection
	Ledger     Ledger
	Kept       Source
	Progress   Source
	Now        func() time.Time // time.Now when nil
	Log        *slog.Logger     // nil: slog.Default()
}

// Collector feeds receipts to the projection.
type Collector struct{ cfg CollectorConfig }

// NewCollector returns a collector.
func NewCollector(cfg CollectorConfig) *Collector {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Collector{cfg}
}

const (
	// lookPause is how long the streams are not asked again whether everything
	// was read: so long a revocation may seem unheard that is not. lookEvery is
	// how often they are asked when nothing was revoked.
	lookPause = 5 * time.Millisecond
	lookEvery = time.Second
	retryWait = time.Second
)

// errReplaced says that another generation of the projection serves.
var errReplaced = errors.New("receipts: the projection was replaced")

// Run collects until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	for {
		err := c.collect(ctx, c.cfg.Projection())
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errReplaced) || errors.Is(err, revocations.ErrClosed) {
			continue
		}
		c.cfg.Log.Error("receipts are not read", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryWait):
		}
	}
}

// collect feeds one generation of the projection until something ends that.
func (c *Collector) collect(ctx context.Context, p *revocations.Revocations) error {
	// A receipt is judged by what the ledger says of its enforcer, so the
	// ledger comes first.
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	sources := map[revocations.Stream]Source{revocations.Kept: c.cfg.Kept, revocations.Progress: c.cfg.Progress}
	var g run.Group
	actor := func(f func(context.Context) error) {
		ctx, stop := context.WithCancel(ctx)
		g.Add(func() error { return f(ctx) }, func(error) { stop() })
	}
	for s, source := range sources {
		last, err := source.Last(ctx)
		if err != nil {
			return fmt.Errorf("the end of the stream: %w", err)
		}
		if last < p.Read(s) {
			c.cfg.Log.Warn("a stream of receipts was made anew", "read", p.Read(s), "last", last)
			if err := p.Rewind(s); err != nil {
				return err
			}
		}
		actor(func(ctx context.Context) error {
			return source.Read(ctx, p.Read(s), func(m revocations.Message) error { return c.hear(ctx, p, m) })
		})
	}
	actor(func(ctx context.Context) error { return c.look(ctx, p, sources) })
	return g.Run()
}

// catchUp waits until the projection has applied all of the ledger.
func (c *Collector) catchUp(ctx context.Context) error {
	head, err := c.cfg.Ledger.Head(ctx)
	if err != nil {
		return fmt.Errorf("the head of the ledger: %w", err)
	}
	return c.cfg.Reached.Wait(ctx, head)
}

// hear passes on one receipt. What speaks of something that is not applied here
// yet waits for the ledger, and with it all behind it.
func (c *Collector) hear(ctx context.Context, p *revocations.Revocations, m revocations.Message) error {
	one := []revocations.Message{m}
	n, err := p.Hear(one, false)
	if err != nil || n == 1 {
		return err
	}
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	_, err = p.Hear(one, true)
	return err
}

// look finds out, after each revocation, whether everything was read that was
// stored by then.
func (c *Collector) look(ctx context.Context, p *revocations.Revocations, sources map[revocations.Stream]Source) error {
	idle := time.NewTicker(lookEvery)
	defer idle.Stop()
	var open *goal
	for due := true; ; {
		changed := p.Changed() // before the look: nothing is missed
		if c.cfg.Projection() != p {
			return errReplaced
		}
		// What is stored meanwhile moves no goal: it is reached however much
		// somebody sends.
		if due || open == nil && p.Behind() {
			g, err := newGoal(ctx, p, sources)
			if err != nil {
				return err
			}
			if due = false; open == nil {
				open = g
			}
		}
		if open != nil && open.reached(p) {
			p.CaughtUp(open.applied)
			open = nil
		}
		var pause <-chan time.Time
		if open != nil || p.Behind() { // not more often than that, however much is revoked
			pause, changed = time.After(lookPause), nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-pause:
		case <-idle.C:
			due = true
		}
	}
}

// goal is what was stored when a sequence of the ledger was the last applied.
type goal struct {
	applied uint64
	last    map[revocations.Stream]uint64
}

// newGoal looks at what is stored now.
func newGoal(ctx context.Context, p *revocations.Revocations, sources map[revocations.Stream]Source) (*goal, error) {
	g := &goal{p.Position().Seq, map[revocations.Stream]uint64{}} // in this order: what is stored by then counts
	for s, source := range sources {
		seen := p.Read(s) // more may be stored, and read, once the stream has said how far it goes
		last, err := source.Last(ctx)
		if err != nil {
			return nil, fmt.Errorf("the end of the stream: %w", err)
		}
		if last < seen {
			return nil, errors.New("a stream of receipts ends before what was read")
		}
		g.last[s] = last
	}
	return g, nil
}

// reached reports whether everything up to the goal was read.
func (g *goal) reached(p *revocations.Revocations) bool {
	for s, last := range g.last {
		if p.Read(s) < last {
			return false
		}
	}
	return true
}
