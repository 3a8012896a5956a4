package authoritytest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"watchword.dev/events"
)

// errKilled is what the calls of a killed process would return to nobody.
var errKilled = errors.New("authoritytest: the process was killed")

// gate stands between a process and the world: nothing goes out and no answer
// comes in while the process is stopped, and never again once it is killed.
type gate struct {
	log    events.Log
	pulses events.Pulses
	end    <-chan struct{} // of the test: then the calls of killed processes return

	mu     sync.Mutex
	rng    *rand.Rand
	paused chan struct{} // not nil while stopped, closed when it goes on
	dead   bool
	lossy  int // one append in so many loses its call or its answer; 0: none
	delay  time.Duration
}

var (
	_ events.Log    = (*gate)(nil)
	_ events.Pulses = (*gate)(nil)
)

// pause stops the process.
func (g *gate) pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused == nil {
		g.paused = make(chan struct{})
	}
}

// resume lets a stopped process go on.
func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.paused != nil {
		close(g.paused)
		g.paused = nil
	}
}

// kill ends the process where it is.
func (g *gate) kill() {
	g.mu.Lock()
	g.dead = true
	g.mu.Unlock()
	g.resume()
}

func (g *gate) draw(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rng.IntN(n)
}

// pass waits while the process is stopped. A stopped process does not notice
// that its time is up before it goes on.
func (g *gate) pass() error {
	for {
		g.mu.Lock()
		paused, dead := g.paused, g.dead
		g.mu.Unlock()
		if dead {
			<-g.end
			return errKilled
		}
		if paused == nil {
			return nil
		}
		select {
		case <-paused:
		case <-g.end:
			return errKilled
		}
	}
}

// travel is the way of a message, on which the process may be stopped or killed.
func (g *gate) travel() {
	if g.delay > 0 {
		time.Sleep(time.Duration(g.draw(int(g.delay))))
	}
}

// write is a call that changes the world: it may be stopped before it leaves
// and before its answer is read, and it may get lost either way.
func (g *gate) write(ctx context.Context, do func() error) error {
	if err := g.pass(); err != nil {
		return fmt.Errorf("%w: %w", events.ErrAmbiguous, err)
	}
	g.travel()
	lost := 0
	if g.lossy > 0 && g.draw(g.lossy) == 0 {
		lost = 1 + g.draw(2)
	}
	if lost == 1 {
		return fmt.Errorf("%w: the call was lost", events.ErrAmbiguous)
	}
	err := do()
	g.travel()
	if stopped := g.pass(); stopped != nil {
		return fmt.Errorf("%w: %w", events.ErrAmbiguous, stopped)
	}
	if lost == 2 || ctx.Err() != nil && g.draw(2) == 0 {
		return fmt.Errorf("%w: the answer was lost", events.ErrAmbiguous)
	}
	return err
}

// Append implements events.Log.
func (g *gate) Append(ctx context.Context, at events.Position, subject string, payload []byte) error {
	return g.write(ctx, func() error { return g.log.Append(ctx, at, subject, payload) })
}

// Head implements events.Reader.
func (g *gate) Head(ctx context.Context) (uint64, error) {
	if err := g.pass(); err != nil {
		return 0, err
	}
	head, err := g.log.Head(ctx)
	if stopped := g.pass(); stopped != nil {
		return 0, stopped
	}
	return head, err
}

// Read implements events.Reader.
func (g *gate) Read(ctx context.Context, at events.Position, fn func(events.Commit) error) error {
	if err := g.pass(); err != nil {
		return err
	}
	return g.log.Read(ctx, at, func(c events.Commit) error {
		if err := g.pass(); err != nil {
			return err
		}
		return fn(c)
	})
}

// LastPulse implements events.Pulses.
func (g *gate) LastPulse(ctx context.Context) ([]byte, uint64, error) {
	if err := g.pass(); err != nil {
		return nil, 0, err
	}
	pulse, seq, err := g.pulses.LastPulse(ctx)
	if stopped := g.pass(); stopped != nil {
		return nil, 0, stopped
	}
	return pulse, seq, err
}

// StorePulse implements events.Pulses.
func (g *gate) StorePulse(ctx context.Context, after uint64, pulse []byte) (seq uint64, err error) {
	err = g.write(ctx, func() error {
		seq, err = g.pulses.StorePulse(ctx, after, pulse)
		return err
	})
	return seq, err
}

// WatchPulses implements events.Pulses.
func (g *gate) WatchPulses(ctx context.Context, fn func(pulse []byte, seq uint64)) error {
	if err := g.pass(); err != nil {
		return err
	}
	return g.pulses.WatchPulses(ctx, func(pulse []byte, seq uint64) {
		if g.pass() == nil {
			fn(pulse, seq)
		}
	})
}
