package usage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/usage"
	"watchword.dev/projections/projector"
)

// Name and Version name the shape of the rows.
const (
	Name    = "usage"
	Version = 1
)

// KeptDays is for how many days, today included, uses are known by day.
const KeptDays = 90

// MaxUses is how many different uses a credential may have in a day. Those
// beyond are counted without resource, and then without saying what they were.
const MaxUses = 2000

// Message is a report as the stream holds it.
type Message struct {
	Seq     uint64
	Pending uint64 // behind it
	Stored  time.Time
	Subject string
	Data    []byte // valid within the callback
}

// Source is the stream of reports.
type Source interface {
	// Read calls fn for every message after a sequence, in order, and waits
	// for new ones until ctx ends. A stream that ends before after is read from
	// its beginning.
	Read(ctx context.Context, after uint64, fn func(Message) error) error
	// Last returns the sequence of the last message; 0 when there is none.
	Last(ctx context.Context) (uint64, error)
}

// Options say which usage to open.
type Options struct {
	Dir        string
	FS         vfs.FS // nil: the machine's
	CacheBytes int64
	Log        *slog.Logger // nil discards
}

// Usage is the projection. It is safe for concurrent use, but for Apply.
type Usage struct {
	store *projector.Store
	log   *slog.Logger
	// inUse is read-locked by queries, so that Close waits for them.
	inUse  sync.RWMutex
	closed bool

	mu     sync.Mutex // guards status and refused
	status projector.Status
	// refused is how many messages could not be taken, since the start.
	refused uint64
}

// ErrClosed is what queries answer after Close.
var ErrClosed = errors.New("usage: closed")

// Open opens the rows in o.Dir, or makes empty ones.
func Open(o Options) (*Usage, error) {
	store, err := projector.OpenStore(projector.StoreOptions{
		Dir: o.Dir, Name: Name, Version: Version, FS: o.FS, CacheBytes: o.CacheBytes, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	at := store.Position()
	return &Usage{store: store, log: o.Log, status: projector.Status{
		Name: Name, Version: Version, Applied: at, Head: at.Seq, Since: time.Now(),
	}}, nil
}

// Close ends the use of the rows.
func (u *Usage) Close() error {
	u.inUse.Lock()
	defer u.inUse.Unlock()
	if u.closed {
		return nil
	}
	u.closed = true
	return u.store.Close()
}

// Store returns the store, for dumps and its size on disk.
func (u *Usage) Store() *projector.Store { return u.store }

// Sequence returns the last message of the stream that queries see.
func (u *Usage) Sequence() uint64 { return u.store.Position().Seq }

// Status says how far the projection is, in sequences of its own stream.
func (u *Usage) Status() projector.Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

// Refused returns how many messages were no good reports, since the start.
func (u *Usage) Refused() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.refused
}

// Follow applies what the source holds and gets until ctx ends, and returns its
// error then. What it returns before is an error of the store, which Status shows
// from then on: a report that is no good stops nothing.
func (u *Usage) Follow(ctx context.Context, s Source) error {
	err := s.Read(ctx, u.Sequence(), u.Apply)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.status.Stopped, u.status.Since = err, time.Now()
	return err
}

// Fill applies all that the source holds now. Progress, if not nil, hears of
// each message.
func (u *Usage) Fill(ctx context.Context, s Source, progress func(done, last uint64)) error {
	last, err := s.Last(ctx)
	if err != nil {
		return err
	}
	if last <= u.Sequence() {
		return nil
	}
	full := errors.New("full")
	err = s.Read(ctx, u.Sequence(), func(m Message) error {
		if err := u.Apply(m); err != nil {
			return err
		}
		if progress != nil {
			progress(m.Seq, max(last, m.Seq))
		}
		if m.Seq >= last || m.Pending == 0 {
			return full
		}
		return nil
	})
	if errors.Is(err, full) {
		return nil
	}
	return err
}

// Apply reflects one message, which is that after the last one or a later one;
// after a lower one the stream has begun anew. One goroutine calls it.
func (u *Usage) Apply(m Message) error {
	b := u.store.DB().NewIndexedBatch()
	defer b.Close()
	refused := false
	r, err := usage.Decode(m.Data)
	switch {
	case err != nil:
	case r.Subject() != m.Subject:
		// Who may publish there is told by the subject alone.
		err = fmt.Errorf("%w: under another's subject", usage.ErrMalformed)
	default:
		err = (&change{batch: b}).report(&r, m.Stored)
	}
	if errors.Is(err, usage.ErrMalformed) {
		refused = true
		u.log.Warn("a report of usage is left out", "error", err, "sequence", m.Seq)
		b.Reset()
		err = nil
	}
	if err != nil {
		return fmt.Errorf("usage: sequence %d: %w", m.Seq, err)
	}
	at := events.Position{Seq: m.Seq}
	if err := u.store.Commit(b, at); err != nil {
		return fmt.Errorf("usage: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.status.Applied, u.status.Since = at, time.Now()
	u.status.Head = m.Seq + m.Pending
	if refused {
		u.refused++
	}
	return nil
}

// within calls fn for the rows between two keys. Key and value are valid within
// it.
func within(r pebble.Reader, lower, upper []byte, fn func(key, value []byte) error) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var v []byte
		if v, err = it.ValueAndErr(); err == nil {
			err = fn(it.Key(), v)
		}
	}
	return errors.Join(err, it.Error(), it.Close())
}
