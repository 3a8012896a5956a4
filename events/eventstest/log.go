package eventstest

import (
	"context"
	"fmt"
	"sync"

	"watchword.dev/events"
)

// Op is a kind of call on a Log.
type Op string

// The kinds of call.
const (
	OpAppend     Op = "append"
	OpRead       Op = "read" // the start of a Read, not each delivery
	OpHead       Op = "head"
	OpLastPulse  Op = "last pulse"
	OpStorePulse Op = "store pulse"
	OpWatch      Op = "watch pulses"
)

// Loss says which way of a call gets lost. The caller sees the same either way.
type Loss int

// The ways to lose a call. An append or a stored pulse answers
// events.ErrAmbiguous then, any other call Fault.Err or an error of its own.
const (
	Nothing Loss = iota // the call is done and answered
	Call                // not done
	Answer              // done, but unanswered
)

// Fault is what happens to one call. The zero Fault lets it pass.
type Fault struct {
	// Hold, when not nil, keeps the call from being done until it is closed.
	Hold <-chan struct{}
	// Late lets a held call be done when Hold is closed although its caller
	// has given up meanwhile: a message that was under way all the time.
	Late bool
	// Refuse answers an append or a stored pulse with events.ErrRefused; it
	// is not done.
	Refuse bool
	// Lose loses the call or its answer.
	Lose Loss
	// HoldAnswer, when not nil, keeps a call that was done from returning
	// until it is closed.
	HoldAnswer <-chan struct{}
	// Err, when not nil, is returned and the call is not done.
	Err error
}

// Log is one connection to a Ledger. It implements events.Log and
// events.Pulses and is safe for concurrent use.
type Log struct {
	ledger *Ledger

	mu     sync.Mutex
	queued map[Op][]Fault
	decide func(Op) Fault
	counts map[Op]int
	pause  chan struct{} // not nil while paused, closed by Resume
}

var (
	_ events.Log    = (*Log)(nil)
	_ events.Pulses = (*Log)(nil)
)

// Inject lets the faults happen to the next calls of op, one each.
func (l *Log) Inject(op Op, faults ...Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queued[op] = append(l.queued[op], faults...)
}

// InjectFunc asks decide about each call for which nothing is queued. Nil ends
// that.
func (l *Log) InjectFunc(decide func(Op) Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.decide = decide
}

// Pause stops the connection: no call is done and nothing is delivered until
// Resume, as when the process is stopped. Calls whose context ends return.
func (l *Log) Pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pause == nil {
		l.pause = make(chan struct{})
	}
}

// Resume ends a Pause.
func (l *Log) Resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pause != nil {
		close(l.pause)
		l.pause = nil
	}
}

// Calls returns how many calls of op have begun.
func (l *Log) Calls(op Op) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[op]
}

// begin counts the call and returns its fate.
func (l *Log) begin(op Op) Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[op]++
	if q := l.queued[op]; len(q) > 0 {
		l.queued[op] = q[1:]
		return q[0]
	}
	if l.decide != nil {
		return l.decide(op)
	}
	return Fault{}
}

// running waits while the connection is paused.
func (l *Log) running(ctx context.Context) error {
	for {
		l.mu.Lock()
		pause := l.pause
		l.mu.Unlock()
		if err := ctx.Err(); err != nil || pause == nil {
			return err
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// wait waits for c or for the end of ctx. A nil c is no wait.
func wait(ctx context.Context, c <-chan struct{}) error {
	if c == nil {
		return nil
	}
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write runs one call that changes the ledger under its fault.
func (l *Log) write(ctx context.Context, op Op, do func() error) error {
	f := l.begin(op)
	if err := l.running(ctx); err != nil {
		return ambiguous(op, err)
	}
	if err := wait(ctx, f.Hold); err != nil {
		if f.Late {
			go func() {
				<-f.Hold
				do() // nobody is left to hear the answer
			}()
		}
		return ambiguous(op, err)
	}
	switch {
	case f.Err != nil:
		return f.Err
	case f.Refuse:
		return fmt.Errorf("%w: injected", events.ErrRefused)
	case f.Lose == Call:
		return ambiguous(op, nil)
	}
	err := do()
	if held := wait(ctx, f.HoldAnswer); held != nil {
		return ambiguous(op, held)
	}
	if f.Lose == Answer {
		return ambiguous(op, nil)
	}
	return err
}

// read runs the injected part of a call that changes nothing.
func (l *Log) read(ctx context.Context, op Op) error {
	f := l.begin(op)
	if err := l.running(ctx); err != nil {
		return err
	}
	if err := wait(ctx, f.Hold); err != nil {
		return err
	}
	switch {
	case f.Err != nil:
		return f.Err
	case f.Lose != Nothing:
		return fmt.Errorf("eventstest: no answer to %s", op)
	}
	return wait(ctx, f.HoldAnswer)
}

func ambiguous(op Op, cause error) error {
	if cause == nil {
		return fmt.Errorf("%w: %s: injected", events.ErrAmbiguous, op)
	}
	return fmt.Errorf("%w: %s: %w", events.ErrAmbiguous, op, cause)
}

// Append implements events.Log.
func (l *Log) Append(ctx context.Context, at events.Position, subject string, payload []byte) error {
	m := newMessage(0, subject, payload) // the caller may reuse payload after a late append
	return l.write(ctx, OpAppend, func() error { return l.ledger.append(at.Seq, m.subject, m.payload) })
}

// Head implements events.Reader.
func (l *Log) Head(ctx context.Context) (uint64, error) {
	if err := l.read(ctx, OpHead); err != nil {
		return 0, err
	}
	return l.ledger.Head(), nil
}

// Read implements events.Reader.
func (l *Log) Read(ctx context.Context, at events.Position, fn func(events.Commit) error) error {
	if err := l.read(ctx, OpRead); err != nil {
		return err
	}
	if err := l.ledger.start(at); err != nil {
		return err
	}
	var records []events.Record
	for {
		if err := l.running(ctx); err != nil {
			return err
		}
		m, pending, changed, err := l.ledger.next(at.Seq)
		if err != nil {
			return err
		}
		if changed != nil {
			if err := wait(ctx, changed); err != nil {
				return err
			}
			continue
		}
		c, err := events.DecodeCommit(at, m.seq, m.subject, m.payload, records)
		if err != nil {
			return err
		}
		c.Pending = pending
		records, at = c.Records, c.End
		err = fn(c)
		spoil(c.Records)
		if err != nil {
			return err
		}
	}
}

// spoil overwrites what a callback may not keep: the lines and the slice of
// records. The data of an event may be kept.
func spoil(records []events.Record) {
	for i := range records {
		for j := range records[i].Line {
			records[i].Line[j] = '#'
		}
	}
	clear(records)
}

// LastPulse implements events.Pulses.
func (l *Log) LastPulse(ctx context.Context) ([]byte, uint64, error) {
	if err := l.read(ctx, OpLastPulse); err != nil {
		return nil, 0, err
	}
	m, _ := l.ledger.pulseAfter(0, true)
	return m.payload, m.seq, nil
}

// StorePulse implements events.Pulses.
func (l *Log) StorePulse(ctx context.Context, after uint64, pulse []byte) (uint64, error) {
	m := newMessage(0, "", pulse)
	var seq uint64
	err := l.write(ctx, OpStorePulse, func() error {
		stored, err := l.ledger.storePulse(after, m.payload)
		seq = stored
		return err
	})
	if err != nil {
		return 0, err
	}
	return seq, nil
}

// WatchPulses implements events.Pulses.
func (l *Log) WatchPulses(ctx context.Context, fn func(pulse []byte, seq uint64)) error {
	if err := l.read(ctx, OpWatch); err != nil {
		return err
	}
	at, newest := uint64(0), true
	for {
		if err := l.running(ctx); err != nil {
			return err
		}
		m, changed := l.ledger.pulseAfter(at, newest)
		newest = false
		if m.seq == 0 {
			if err := wait(ctx, changed); err != nil {
				return err
			}
			continue
		}
		fn(m.payload, m.seq)
		at = m.seq
	}
}
