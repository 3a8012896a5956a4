package feed

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"watchword.dev/events"
	"watchword.dev/events/stream"
	"watchword.dev/events/watermark"
)

const (
	// liveQueue is how many live messages wait for the reader. One more is
	// dropped by the client library, and shows as a gap. A commit has at most
	// events.MaxCommit bytes, most have less than a thousandth of that.
	liveQueue = 64
	// grace is how long what a pulse has named may still be under way.
	grace = 100 * time.Millisecond
	// spread is within which time after a connection has come back the stream
	// is asked, so that not all do at once.
	spread = 250 * time.Millisecond
	// Waits between looks at the stream that bring nothing.
	backoffMin = 20 * time.Millisecond
	backoffMax = 2 * time.Second
)

// follower is one Read. Everything but what observe touches is its goroutine's.
type follower struct {
	r    *Reader
	fn   func(events.Commit) error
	live chan *nats.Msg
	told atomic.Uint32   // what there is to do beside the live messages
	at   events.Position // behind what fn has taken

	subs    []*nats.Subscription
	answers chan *nats.Msg // to what the stream was asked
	inbox   string
	asked   uint64 // requests, to tell their answers apart
	changes chan nats.Status
	broken  chan struct{} // has an element when the connection has changed
	due     *time.Timer   // when to look at the stream
	dueAt   time.Time

	gap    bool // something is missing, or may be
	verify bool // the ledger may have been replaced since at was read from it
	empty  int  // looks at the stream in a row that brought nothing
	// since when, and how often in a row, the stream ended before at
	shortSince time.Time
	short      int

	water    watermark.Watermark
	listener *watermark.Listener
	vouched  atomic.Uint64 // sequence in the newest pulse
	before   uint64        // at.Seq when the pulse before that was looked at

	batch []events.Commit
	spare [][]events.Record // memory of the batch's records
}

// What a follower is told of.
const (
	isDue uint32 = 1 << iota // the timer
	isPulsed
	isBack   // the connection
	isClosed // for good
	isOver   // its context
)

// nudge wakes the follower up. It stands among the live messages, so that the
// follower waits for one channel only: a wait for five costs more than it takes
// to check a commit.
var nudge = new(nats.Msg)

// tell tells the follower of something. When its queue is full it looks anyway.
func (f *follower) tell(what uint32) {
	f.told.Or(what)
	select {
	case f.live <- nudge:
	default:
	}
}

// watch tells of changes of the connection until the listener is removed.
func (f *follower) watch() {
	for s := range f.changes {
		what := isBack
		if s == nats.CLOSED {
			what = isClosed
		}
		f.tell(what)
		select {
		case f.broken <- struct{}{}:
		default:
		}
	}
}

// lostError says that an answer did not come for a cause that says nothing
// about the ledger.
type lostError struct{ cause error }

func (e *lostError) Error() string { return "feed: " + e.cause.Error() }
func (e *lostError) Unwrap() error { return e.cause }

func lost(format string, args ...any) error { return &lostError{fmt.Errorf(format, args...)} }

func (f *follower) stop() {
	for _, s := range f.subs {
		_ = s.Unsubscribe() // fails on a closed connection only
	}
	f.r.nc.RemoveStatusListener(f.changes)
	if f.due != nil {
		f.due.Stop()
	}
}

// observe is called for each pulse, on the goroutine of its subscription.
func (f *follower) observe(p events.Pulse, arrived time.Time) {
	f.water.Observe(p, arrived)
	if f.r.cfg.Pulse != nil {
		f.r.cfg.Pulse(p, arrived)
	}
	f.vouched.Store(p.Sequence)
	f.tell(isPulsed)
}

func (f *follower) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { f.tell(isOver) })()
	for {
		if m := <-f.live; m != nudge {
			if err := f.hear(ctx, m); err != nil {
				return err
			}
		}
		if f.told.Load() != 0 {
			if err := f.attend(ctx, f.told.Swap(0)); err != nil {
				return err
			}
		}
	}
}

// attend does what the follower was told of.
func (f *follower) attend(ctx context.Context, what uint32) error {
	if what&isOver != 0 {
		return ctx.Err()
	}
	if what&isClosed != 0 {
		return errClosed
	}
	if what&isBack != 0 {
		f.back()
	}
	if what&isPulsed != 0 {
		if err := f.compare(); err != nil {
			return err
		}
	}
	if what&isDue != 0 {
		return f.look(ctx)
	}
	return nil
}

// plan looks at the stream after about d, or earlier if that is planned.
func (f *follower) plan(d time.Duration) {
	if d > 0 {
		d = d/2 + rand.N(d)
	}
	at := time.Now().Add(d)
	if f.dueAt.IsZero() || at.Before(f.dueAt) {
		f.dueAt = at
		f.due.Reset(d)
	}
}

// backoff is how long to wait after looks that brought nothing.
func (f *follower) backoff() time.Duration {
	if f.empty == 0 {
		return 0
	}
	return min(backoffMin<<min(f.empty-1, 10), backoffMax)
}

// missing says that something live did not follow.
func (f *follower) missing() {
	f.gap = true
	f.plan(f.backoff())
}

// hear takes in a live message, and those that wait behind it.
func (f *follower) hear(ctx context.Context, m *nats.Msg) error {
	f.batch = f.batch[:0]
	at := f.at
	for {
		if c, ok := f.next(at, m); ok {
			f.batch, at = append(f.batch, c), c.End
		}
		if len(f.batch) == liveQueue || len(f.live) == 0 {
			break
		}
		if m = <-f.live; m == nudge {
			break
		}
	}
	for i := range f.batch {
		f.batch[i].Pending = uint64(len(f.batch) - 1 - i)
		if err := f.deliver(ctx, f.batch[i]); err != nil {
			return err
		}
	}
	return nil
}

// next returns the commit in m if it follows at. A live message that does not
// is no error: whoever could forge one could stop us otherwise.
func (f *follower) next(at events.Position, m *nats.Msg) (events.Commit, bool) {
	seq, err := strconv.ParseUint(m.Header.Get(nats.JSSequence), 10, 64)
	switch {
	case err != nil, seq <= at.Seq:
		return events.Commit{}, false // nothing of ours, or known
	case seq > at.Seq+1:
		f.missing()
		return events.Commit{}, false
	}
	slot := f.slot(len(f.batch))
	subject := events.SubjectPrefix + strings.TrimPrefix(m.Subject, stream.LivePrefix)
	c, err := events.DecodeCommit(at, seq, subject, m.Data, *slot)
	if err != nil {
		f.missing()
		return events.Commit{}, false
	}
	*slot = c.Records
	return c, true
}

// slot is the memory of records that the n-th commit of a batch uses again.
func (f *follower) slot(n int) *[]events.Record {
	for len(f.spare) <= n {
		f.spare = append(f.spare, nil)
	}
	return &f.spare[n]
}

func (f *follower) deliver(ctx context.Context, c events.Commit) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.Seq == 1 {
		f.learn(&c.Records[0])
	}
	if err := f.fn(c); err != nil {
		return err
	}
	f.at = c.End
	f.water.Applied(c)
	return f.diverged()
}

// learn takes the key of the pulses from the first event.
func (f *follower) learn(first *events.Record) {
	if opened, ok := first.Data.(*events.LogOpened); ok {
		f.listener.Learn(opened.PulseKey)
	}
}

// diverged returns an error if a pulse says that this is not the pen's ledger.
func (f *follower) diverged() error {
	if err := f.water.Diverged(); err != nil {
		return fmt.Errorf("%w: %w", events.ErrChain, err)
	}
	return nil
}

// compare looks at where the newest pulse says that the ledger ends.
func (f *follower) compare() error {
	switch end := f.vouched.Load(); {
	case end > f.at.Seq:
		f.plan(grace)
	case end < f.before:
		// It was further already when the pulse before this one came.
		f.gap, f.verify = true, true
		f.plan(grace)
	}
	f.before = f.at.Seq
	return f.diverged()
}

// back is called when the connection is there again.
func (f *follower) back() {
	f.gap, f.verify = true, f.at.Seq > 0
	f.plan(spread)
}

var errClosed = fmt.Errorf("feed: %w", nats.ErrConnectionClosed)

// look reads what is missing from the stream, if something is.
func (f *follower) look(ctx context.Context) error {
	f.dueAt = time.Time{}
	if f.r.nc.IsClosed() { // also when its end came before the listener
		return errClosed
	}
	if !f.r.nc.IsConnected() {
		f.plan(f.r.cfg.IdleCheck) // when it is again, that is planned at once
		return nil
	}
	if !f.gap && f.vouched.Load() <= f.at.Seq {
		if age, ok := f.water.Age(time.Now()); ok && age < f.r.cfg.IdleCheck {
			f.plan(f.r.cfg.IdleCheck)
			return nil
		}
		f.verify = f.at.Seq > 0
	}
	from := f.at.Seq
	f.gap = false // whatever is heard while it is read is looked at anew
	err := f.fill(ctx)
	gone, isLost := errors.AsType[*lostError](err)
	if err != nil && !isLost {
		return err
	}
	if f.empty++; f.at.Seq > from {
		f.empty = 0
	}
	switch {
	case isLost:
		f.gap, f.empty = true, max(f.empty, 1)
		if bits.OnesCount(uint(f.empty)) == 1 {
			f.r.cfg.Log.Warn("the ledger cannot be read now", "error", gone.cause, "sequence", f.at.Seq, "count", f.empty)
		}
		f.plan(f.backoff())
	case f.vouched.Load() > f.at.Seq:
		f.plan(f.backoff()) // the replica that was asked may be behind
	default:
		f.plan(f.r.cfg.IdleCheck)
	}
	return nil
}
