package localindex

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/enforcer"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/verifyindex"
)

var (
	// ErrRetired says that the enforcer is retired: this process verifies
	// nothing any more.
	ErrRetired = errors.New("localindex: this enforcer is retired")
	// ErrNotEnrolled says that the ledger does not know the enforcer.
	ErrNotEnrolled = errors.New("localindex: the ledger does not know this enforcer")
)

// Snapshots gives copies of a verifier's index. enforcer.Client is one.
type Snapshots interface {
	Snapshot(ctx context.Context) (io.ReadCloser, error)
}

// Config is what an Index needs. Dir, Enforcer, Key and Publisher must be set.
type Config struct {
	// Dir is where the index lies. It is this process's alone.
	Dir string
	// Enforcer is who enforces, and Key signs its receipts: the key of the
	// nkey that was enrolled.
	Enforcer token.ID
	Key      crypto.Signer
	// Publisher takes the receipts: feed.Publisher or enforcer.Client.
	Publisher receipt.Publisher
	Region    string
	// Snapshots fills an empty index; nil reads the ledger from its beginning.
	Snapshots Snapshots
	// MemoryBytes bounds the memory that holds tokens, 1 GiB when zero: about
	// 450 bytes a token. An index that needs more is read from disk.
	MemoryBytes int64
	// Bounds are how old answers may be at most; the enrolment may say less.
	// verifyindex.DefaultBounds where zero.
	Bounds verifyindex.Bounds
	Now    func() time.Time // time.Now when nil
	Log    *slog.Logger     // slog.Default() when nil

	again time.Duration // the first pause after a snapshot that failed; for tests
}

// Index is a decider, for enforcer.Config. It is safe for concurrent use; Run is
// called once, and Close after it.
type Index struct {
	cfg     Config
	home    projector.Home
	index   atomic.Pointer[verifyindex.Index]
	serving atomic.Pointer[serving] // nil while nothing is answered
	ready   chan struct{}
	vouched chan struct{} // has room for one: the age may be known now
	// loaded is where the snapshot ended that this process has begun with.
	loaded events.Position
}

// serving is what an answer needs.
type serving struct {
	index   *verifyindex.Index
	reports *receipt.Reporter
	ceiling time.Duration
}

var _ enforcer.Decider = (*Index)(nil)

// Open opens the index in cfg.Dir. An empty one is filled from a snapshot first,
// which may take a while; it gives up when ctx ends.
func Open(ctx context.Context, cfg Config) (*Index, error) {
	if cfg.Dir == "" || cfg.Enforcer.IsZero() || cfg.Key == nil || cfg.Publisher == nil {
		return nil, errors.New("localindex: a directory, an enforcer, its key and a publisher are needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.again <= 0 {
		cfg.again = time.Second
	}
	x := &Index{cfg: cfg, home: projector.Home{Dir: cfg.Dir}, ready: make(chan struct{}), vouched: make(chan struct{}, 1)}
	if _, err := x.reporter(); err != nil { // a wrong key is found now
		return nil, err
	}
	dir, err := x.home.Current()
	if err != nil {
		return nil, err
	}
	p, err := x.open(dir)
	if errors.Is(err, projector.ErrForeignStore) || errors.Is(err, projector.ErrDamaged) || pebble.IsCorruptionError(err) {
		cfg.Log.Error("the index cannot be used as it is and is made anew", "directory", dir, "error", err)
		if p, err = x.empty(); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, fmt.Errorf("localindex: open %s: %w", dir, err)
	}
	if p.Position().Seq == 0 {
		if p, err = x.begin(ctx, p); err != nil {
			return nil, err
		}
	}
	x.index.Store(p)
	return x, x.home.Prune()
}

func (x *Index) open(dir string) (*verifyindex.Index, error) {
	return verifyindex.Open(verifyindex.Options{
		Dir: dir, MemoryBytes: x.cfg.MemoryBytes, Bounds: x.cfg.Bounds, Now: x.cfg.Now, Log: x.cfg.Log,
	})
}

func (x *Index) reporter() (*receipt.Reporter, error) {
	return receipt.NewReporter(receipt.Config{
		Enforcer: x.cfg.Enforcer, Key: x.cfg.Key, Publisher: x.cfg.Publisher, Region: x.cfg.Region,
		Bound: x.cfg.Bounds.Longest(), Now: x.cfg.Now, Log: x.cfg.Log,
	})
}

// Ready is closed when the index answers for the first time.
func (x *Index) Ready() <-chan struct{} { return x.ready }

// Observe takes in a pulse whose signature the caller has checked, and when it
// arrived. It is what the Pulse of a feed's settings calls.
func (x *Index) Observe(p events.Pulse, arrived time.Time) {
	x.index.Load().Observe(p, arrived)
	x.vouch()
}

// vouch wakes whoever waits until the age is known.
func (x *Index) vouch() {
	select {
	case x.vouched <- struct{}{}:
	default:
	}
}

var unavailable = token.Decision{Verdict: token.VerdictUnavailable, Reason: token.ReasonNotReady}

// Verify implements enforcer.Decider. It allocates nothing.
func (x *Index) Verify(secret string, ask *token.Request) token.Decision {
	s := x.serving.Load()
	if s == nil || !s.reports.Counted() {
		return unavailable
	}
	return s.index.VerifyWithin(s.ceiling, secret, ask)
}

// Sequence returns the last sequence that answers rest on.
func (x *Index) Sequence() uint64 { return x.index.Load().Sequence() }

// Wait returns nil as soon as answers rest on seq, and an error at once when they
// never will.
func (x *Index) Wait(ctx context.Context, seq uint64) error { return x.index.Load().Wait(ctx, seq) }

// Age returns how old what the index knows is, and false while that is not known.
func (x *Index) Age() (time.Duration, bool) { return x.index.Load().Age() }

// Position returns how far the ledger is applied.
func (x *Index) Position() events.Position { return x.index.Load().Position() }

// Stats returns the figures of this moment.
func (x *Index) Stats() verifyindex.Stats { return x.index.Load().Stats() }

// PulseKey returns the key of the pulses, for a feed, or nil when the index does
// not know it yet.
func (x *Index) PulseKey() ed25519.PublicKey {
	if info := x.index.Load().Info(); info != nil {
		return info.PulseKey
	}
	return nil
}

// Retired reports whether the enforcer is retired by what is applied.
func (x *Index) Retired() bool {
	n, ok := x.index.Load().Enrolled(x.cfg.Enforcer)
	return ok && n.Status != aggregate.Active
}

// Close closes the index. Run must have ended, and nobody may be in Verify.
func (x *Index) Close() error {
	x.serving.Store(nil)
	return x.index.Load().Close()
}
