package projector

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"watchword.dev/events"
)

// ErrStopped says that a projection applies nothing any more. It wraps the
// cause.
var ErrStopped = errors.New("projector: the projection has stopped")

// Options tune a Runner. The zero value is good.
type Options struct {
	// MaxEvents is how many events a batch holds at most; 1,000 when zero.
	// A commit is never split, so one batch may hold a commit's worth more.
	MaxEvents int
	// MaxBytes is how many bytes of lines a batch holds at most, in the
	// same way; 4 MiB when zero.
	MaxBytes int
	// BulkAt is how many commits must wait behind the first one for an
	// empty projection to be filled in bulk; 5,000 when zero.
	BulkAt uint64
	// Hold is called before each batch is applied and holds the projection
	// back until it returns: for drills and tests of lag. An error stops
	// the projection.
	Hold func(ctx context.Context, next events.Position) error
	// Applied is called after each batch, when every reader sees it: with
	// what was applied, or of a bulk load with the last of it. The commits
	// are valid until it returns, and the next batch waits for that.
	Applied func(commits []events.Commit)
	// Now tells the time of Status.Since; time.Now when nil.
	Now func() time.Time
}

// Status is how far a projection has come.
type Status struct {
	Name    string
	Version int
	Applied events.Position // what readers see
	// Loading is the sequence that a bulk load has reached; zero outside of one.
	Loading uint64
	// Head is the last sequence that the log was known to hold.
	Head uint64
	// Stopped is why nothing more is applied; nil while it runs and before.
	Stopped error
	// Since is when Applied last moved, or when the projection stopped.
	Since time.Time
}

// Lag is how many commits the projection is behind the known head.
func (s Status) Lag() uint64 {
	if s.Head <= s.Applied.Seq {
		return 0
	}
	return s.Head - s.Applied.Seq
}

// Runner feeds one projection. It is run once.
type Runner struct {
	reader events.Reader
	p      Projection
	bulk   Bulk // nil when p has no bulk mode
	o      Options
	wait   waiters

	mu     sync.Mutex // guards status
	status Status

	// Owned by the applying goroutine, and by Run after it.
	inBulk bool
}

// NewRunner returns a runner that will feed p from r.
func NewRunner(r events.Reader, p Projection, o Options) *Runner {
	if o.MaxEvents <= 0 {
		o.MaxEvents = 1000
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 4 << 20
	}
	if o.BulkAt == 0 {
		o.BulkAt = 5000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	run := &Runner{reader: r, p: p, o: o}
	run.bulk, _ = p.(Bulk)
	at := p.Position()
	run.wait.applied = at.Seq
	run.status = Status{Name: p.Name(), Version: p.Version(), Applied: at, Head: at.Seq, Since: o.Now()}
	return run
}

// Run reads and applies until ctx ends or something cannot be applied, and
// returns why: ctx.Err() or the error that Status shows from then on.
func (r *Runner) Run(ctx context.Context) error {
	err := r.run(ctx)
	if ended := ctx.Err(); ended != nil && errors.Is(err, ended) {
		r.wait.stop(fmt.Errorf("%w: %w", ErrStopped, err))
		return ended
	}
	err = fmt.Errorf("projection %s: %w", r.p.Name(), err)
	r.mu.Lock()
	r.status.Stopped, r.status.Since = err, r.o.Now()
	r.mu.Unlock()
	r.wait.stop(fmt.Errorf("%w: %w", ErrStopped, err))
	return err
}

func (r *Runner) run(ctx context.Context) error {
	if r.bulk != nil {
		// An earlier runner of this projection may have ended within a load.
		if err := r.bulk.EndBulk(); err != nil {
			return err
		}
	}
	at := r.p.Position()
	r.publish(at)
	// Reading and applying overlap: one batch is gathered while another one
	// is applied. What is bounded is their number.
	full, free := make(chan *gathering), make(chan *gathering, 2)
	free <- new(gathering)
	free <- new(gathering)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var applying sync.WaitGroup
	applying.Go(func() {
		if err := r.applyAll(ctx, full, free); err != nil {
			stop(err)
		}
	})
	in := intake{r: r, full: full, free: free}
	err := r.reader.Read(ctx, at, func(c events.Commit) error { return in.take(ctx, c) })
	if ctx.Err() == nil && in.g != nil {
		// The ledger has ended with an error, but what came before it is good.
		err = errors.Join(in.hand(ctx), err)
	}
	close(full)
	applying.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err == nil {
		err = errors.New("the reader ended without a reason")
	}
	return errors.Join(err, r.endBulk())
}

// intake gathers what the reader delivers.
type intake struct {
	r    *Runner
	g    *gathering // nil between batches
	full chan<- *gathering
	free <-chan *gathering
}

func (in *intake) take(ctx context.Context, c events.Commit) error {
	if in.g == nil {
		select {
		case in.g = <-in.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	in.g.add(c)
	in.r.seen(c.Seq + c.Pending)
	if c.Pending > 0 && len(in.g.records) < in.r.o.MaxEvents && len(in.g.lines) < in.r.o.MaxBytes {
		return nil
	}
	return in.hand(ctx)
}

// hand passes the batch on to be applied.
func (in *intake) hand(ctx context.Context) error {
	select {
	case in.full <- in.g:
		in.g = nil
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *Runner) applyAll(ctx context.Context, full <-chan *gathering, free chan<- *gathering) error {
	for g := range full {
		if err := r.apply(ctx, g); err != nil {
			return err
		}
		g.reset()
		free <- g
	}
	return nil
}

func (r *Runner) apply(ctx context.Context, g *gathering) error {
	commits := g.cut()
	last := &commits[len(commits)-1]
	if r.o.Hold != nil {
		if err := r.o.Hold(ctx, last.End); err != nil {
			return err
		}
	}
	if r.bulk != nil && commits[0].Seq == 1 && last.Pending >= r.o.BulkAt {
		if err := r.bulk.BeginBulk(); err != nil {
			return err
		}
		r.inBulk = true
	}
	if err := r.p.Apply(commits); err != nil {
		return err
	}
	at := r.p.Position()
	if at != last.End {
		return fmt.Errorf("is at sequence %d after it was given %d", at.Seq, last.Seq)
	}
	// The head may run on while the rest is read: near it is near enough.
	if r.inBulk && last.Pending >= uint64(r.o.MaxEvents) {
		r.mu.Lock()
		r.status.Loading = at.Seq
		r.mu.Unlock()
		return nil
	}
	if err := r.endBulk(); err != nil {
		return err
	}
	r.publish(at)
	if r.o.Applied != nil {
		r.o.Applied(commits)
	}
	return nil
}

// endBulk ends a load, if there is one, and shows what it has brought.
func (r *Runner) endBulk() error {
	if !r.inBulk {
		return nil
	}
	r.inBulk = false
	if err := r.bulk.EndBulk(); err != nil {
		return err
	}
	r.publish(r.p.Position())
	return nil
}

func (r *Runner) publish(at events.Position) {
	r.mu.Lock()
	if at != r.status.Applied {
		r.status.Since = r.o.Now()
	}
	r.status.Applied, r.status.Loading = at, 0
	r.status.Head = max(r.status.Head, at.Seq)
	r.mu.Unlock()
	r.wait.advance(at.Seq)
}

func (r *Runner) seen(head uint64) {
	r.mu.Lock()
	r.status.Head = max(r.status.Head, head)
	r.mu.Unlock()
}

// Wait returns nil as soon as the projection has applied seq, ErrStopped at
// once when it never will, and ctx.Err() when ctx ends first.
func (r *Runner) Wait(ctx context.Context, seq uint64) error { return r.wait.wait(ctx, seq) }

// Status returns how far the projection has come.
func (r *Runner) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// gathering is a batch under way. It owns copies of everything that is valid
// only within the reader's callback: the records and the bytes of their lines.
// What a record points to was made for that record alone and is kept.
type gathering struct {
	commits []events.Commit
	counts  []int // records of each commit
	records []events.Record
	lines   []byte
}

func (g *gathering) add(c events.Commit) {
	g.counts = append(g.counts, len(c.Records))
	g.records = append(g.records, c.Records...)
	for i := range c.Records {
		g.lines = append(g.lines, c.Records[i].Line...)
	}
	c.Records = nil
	g.commits = append(g.commits, c)
}

// cut ties the commits to the copies, which do not move any more.
func (g *gathering) cut() []events.Commit {
	records, lines := g.records, g.lines
	for i := range records {
		n := len(records[i].Line)
		records[i].Line, lines = lines[:n:n], lines[n:]
	}
	for i, n := range g.counts {
		g.commits[i].Records, records = records[:n:n], records[n:]
	}
	return g.commits
}

// reset empties the batch and lets go of what its records pointed to.
func (g *gathering) reset() {
	clear(g.commits)
	clear(g.records)
	g.commits, g.counts, g.records, g.lines = g.commits[:0], g.counts[:0], g.records[:0], g.lines[:0]
}
