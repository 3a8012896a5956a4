package receipt

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

// Publisher stores a receipt. It returns nil only when the receipt is stored,
// and an error also when it does not know.
type Publisher interface {
	Publish(ctx context.Context, subject string, data []byte) error
}

// Config is who reports, and where to. Enforcer, Key and Publisher must be set.
type Config struct {
	Enforcer  token.ID
	Key       crypto.Signer // Ed25519, of the enforcer's nkey
	Publisher Publisher
	Instance  string // NewInstance when empty
	Region    string
	// Bound is the largest staleness bound that the instance uses, never
	// zero. It must not promise less than it keeps.
	Bound  time.Duration
	Reader int              // ReaderVersion when zero
	Now    func() time.Time // time.Now when nil
	Log    *slog.Logger     // hears of receipts that could not be sent; nil discards
}

const (
	progressEvery = time.Second
	leaseEvery    = Lease / 3
	sendTimeout   = 2 * time.Second
	retryFirst    = 100 * time.Millisecond
	retryMax      = 5 * time.Second
)

// Reporter sends the receipts of one instance. Its methods are safe for
// concurrent use.
type Reporter struct {
	cfg  Config
	wake chan struct{} // has room for one

	sending sync.Mutex // held over a publish: receipts leave one by one

	mu      sync.Mutex // guards what follows
	now     standing   // the newest that was applied
	heard   standing   // the newest with a revocation in it
	told    uint64     // sequence that the newest stored receipt was about
	owes    bool       // heard is to be sent
	greeted bool
	sentAt  time.Time // of the newest receipt that was made
	stored  time.Time // when the newest stored receipt was made
	tries   int       // failed in a row
	retryAt time.Time

	// alive is when the newest stored receipt was made, or when the reporter
	// was; it has a monotonic reading.
	alive atomic.Pointer[time.Time]
	known atomic.Bool // there was a hello, and no bye
}

// standing is a position and since when it is applied.
type standing struct {
	at    events.Position
	since time.Time
}

// NewReporter returns a reporter that has sent nothing yet.
func NewReporter(cfg Config) (*Reporter, error) {
	if cfg.Instance == "" {
		cfg.Instance = NewInstance()
	}
	if cfg.Reader == 0 {
		cfg.Reader = ReaderVersion
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Publisher == nil || cfg.Key == nil {
		return nil, errors.New("receipt: a reporter needs a key and a publisher")
	}
	if cfg.Bound <= 0 {
		return nil, errors.New("receipt: a reporter needs the bound that its instance keeps")
	}
	r := &Reporter{cfg: cfg, wake: make(chan struct{}, 1)}
	started := cfg.Now()
	r.alive.Store(&started)
	r.now.since = started
	// What it will never be able to send is found when it is made.
	if _, err := Sign(r.make(Progress, r.now), cfg.Key); err != nil {
		return nil, err
	}
	return r, nil
}

// Instance is the name under which it reports.
func (r *Reporter) Instance() string { return r.cfg.Instance }

// Bound is the largest staleness bound that the instance uses, as it reports.
func (r *Reporter) Bound() time.Duration { return r.cfg.Bound }

// Applied says that everything up to at is applied: what it revokes is refused
// from now on. Revocation says that a revocation was in what came since the
// last call. It does not block; a caller that applies batches calls it once for
// each.
func (r *Reporter) Applied(at events.Position, revocation bool) {
	r.mu.Lock()
	if now := r.now.at; at.Epoch < now.Epoch || at.Epoch == now.Epoch && at.Seq < now.Seq {
		r.mu.Unlock()
		return // an older word that was under way
	}
	r.now = standing{at, r.cfg.Now()}
	if revocation {
		r.heard, r.owes = r.now, true
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Hello makes the instance known and waits until it is. A process must not
// verify before: nobody would wait for it to hear of a revocation.
func (r *Reporter) Hello(ctx context.Context) error {
	return r.send(ctx, Hello)
}

// Acknowledged is when the newest receipt was made that is known to be stored;
// zero when none is.
func (r *Reporter) Acknowledged() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stored
}

// Lapsed says whether nobody waits for this instance any more: none of its
// receipts was stored for Lease and its bound. It must then verify nothing
// until one is.
func (r *Reporter) Lapsed() bool {
	now, last := r.cfg.Now(), *r.alive.Load()
	// One clock stands still while the machine sleeps, the other can be set.
	return max(now.Sub(last), now.Round(0).Sub(last.Round(0))) > Lease+r.cfg.Bound
}

// Counted says whether the instance may verify as far as its receipts go: it
// has said hello and not bye, and has not lapsed. It takes no lock.
func (r *Reporter) Counted() bool { return r.known.Load() && !r.Lapsed() }

// Run sends receipts until ctx ends, and then says bye: the caller ends ctx when
// it has stopped verifying. It returns ctx.Err(), or why there was no bye.
func (r *Reporter) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return r.bye(ctx)
		case <-r.wake:
		case <-timer.C:
		}
		kind, wait := r.due()
		if wait > 0 {
			timer.Reset(wait)
			continue
		}
		if err := r.send(ctx, kind); err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("a receipt is not stored", "kind", string(kind), "error", err)
		}
		timer.Reset(0)
	}
}

func (r *Reporter) bye(ctx context.Context) error {
	r.known.Store(false)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer cancel()
	if err := r.send(last, Bye); err != nil {
		return fmt.Errorf("receipt: no bye: %w", err)
	}
	return ctx.Err()
}

// due says what is to be sent next, and how long that has time.
func (r *Reporter) due() (kind Kind, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.cfg.Now()
	kind, at := Progress, r.stored.Add(leaseEvery)
	switch {
	case !r.greeted:
		kind, at = Hello, now
	case r.owes:
		kind, at = Revocation, now
	case r.now.at.Seq != r.told:
		at = r.stored.Add(progressEvery)
	}
	if r.retryAt.After(at) {
		at = r.retryAt
	}
	return kind, at.Sub(now)
}

// send makes a receipt of what holds now, stores it, and remembers how that
// went. One that is sent again is made anew: no two are equal.
func (r *Reporter) send(ctx context.Context, kind Kind) error {
	r.sending.Lock()
	defer r.sending.Unlock()
	r.mu.Lock()
	about := r.now
	if kind == Revocation {
		about = r.heard
	}
	made := r.cfg.Now()
	receipt := r.make(kind, about)
	r.mu.Unlock()

	data, err := Sign(receipt, r.cfg.Key)
	if err == nil {
		bounded, cancel := context.WithTimeout(ctx, sendTimeout)
		err = r.cfg.Publisher.Publish(bounded, receipt.Subject(), data)
		cancel()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		// Not all at once, when what failed them all comes back.
		pause := min(retryFirst<<min(r.tries, 10), retryMax)
		r.retryAt = r.cfg.Now().Add(pause/2 + rand.N(pause/2))
		r.tries++
		return err
	}
	r.tries, r.retryAt = 0, time.Time{}
	r.alive.Store(&made)
	if kind == Hello {
		r.greeted = true
		r.known.Store(true)
	}
	r.stored, r.told = receipt.SentAt, max(r.told, receipt.Sequence)
	// What came while it was under way is still owed.
	if kind == Revocation && r.heard.at.Seq == receipt.Sequence {
		r.owes = false
	}
	return nil
}

// make returns a receipt. r.mu is held, or nobody else has r yet.
func (r *Reporter) make(kind Kind, about standing) Receipt {
	now := r.cfg.Now().UTC().Truncate(time.Millisecond)
	if !now.After(r.sentAt) {
		now = r.sentAt.Add(time.Millisecond)
	}
	r.sentAt = now
	return Receipt{
		Enforcer: r.cfg.Enforcer, Instance: r.cfg.Instance, Region: r.cfg.Region, Kind: kind,
		Epoch: about.at.Epoch, Sequence: about.at.Seq, Number: about.at.Number, Head: about.at.Hash,
		Reader: r.cfg.Reader, Bound: r.cfg.Bound,
		AppliedAt: about.since.UTC().Truncate(time.Millisecond), SentAt: now,
	}
}
