package enforcer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
	"watchword.dev/events/watermark"
)

// The defaults of a CacheConfig, and what is not configured.
const (
	defaultEntries  = 1 << 16
	defaultNegative = 5 * time.Second
	recentEnds      = 1024 // commits whose ends pulses are compared with
	staleAfter      = 10 * time.Second
	tries           = 3 // answers that were outdated on arrival
)

// Source gives the decisions that a Cache keeps. [Client] is one.
type Source interface {
	// VerifyAtLeast decides by what is known at sequence seq or later. The age
	// of a decision is that when it returns.
	VerifyAtLeast(ctx context.Context, seq uint64, secret string, ask *token.Request) token.Decision
}

// CacheConfig is what a Cache needs.
type CacheConfig struct {
	Source Source
	// Entries is how many decisions are kept; 65,536 when zero. One takes
	// about 400 bytes. An eighth as many refusals are kept beside them, so that
	// nobody can push good decisions out with bad secrets.
	Entries int
	// Negative is how long a refusal is kept at most; 5 s when zero.
	Negative time.Duration
	// Timeout bounds the wait for the source; 3 s when zero.
	Timeout time.Duration
	// Reports tells the installation what this process has applied: see
	// FollowReporting. While it does not count this process, nothing is given
	// from the cache, and nothing ever beyond the reporter's bound. Nil: nobody
	// waits for this process when a token is revoked.
	Reports *receipt.Reporter
	Now     func() time.Time // time.Now when nil
	Log     *slog.Logger     // nothing is said when nil
}

// Cache is a Decider that keeps the decisions of a source and follows the
// events, which tell what to drop. It implements ContextDecider and Follower,
// and is safe for concurrent use.
//
// No decision is taken from the cache without a live feed: [Follow] must run,
// and pulses must come to Observe. A decision is given as long as nothing that
// was heard has changed it, the clock has not, and the feed vouches for it
// within the bound of the permission (5 minutes for reading, 30 seconds for
// writing and 10 for administration, unless the installation says otherwise).
// Without a feed every question goes to the source: slow, and right.
//
// What was heard counts for what comes from the source too: it is asked for no
// less, and an answer that was outdated while it was under way is asked for
// again.
type Cache struct {
	cfg    CacheConfig
	secret [32]byte // of this process, for keys
	good   *table
	bad    *table
	marks  *marks

	// water is that of the feed which is being followed; nil without one.
	water   atomic.Pointer[watermark.Watermark]
	applied atomic.Uint64
	hits    atomic.Uint64
	asked   atomic.Uint64

	mu      sync.Mutex
	flights map[key]*flight
}

// flight is one question on its way to the source, for all who ask it.
type flight struct {
	done chan struct{}
	kept *kept // set before done is closed
}

var (
	_ ContextDecider = (*Cache)(nil)
	_ Follower       = (*Cache)(nil)
)

// NewCache returns a cache with the defaults of cfg filled in.
func NewCache(cfg CacheConfig) (*Cache, error) {
	if cfg.Source == nil {
		return nil, errors.New("enforcer: a cache needs a source")
	}
	if cfg.Entries <= 0 {
		cfg.Entries = defaultEntries
	}
	if cfg.Negative <= 0 {
		cfg.Negative = defaultNegative
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{
		cfg: cfg, good: newTable(cfg.Entries), bad: newTable(cfg.Entries / 8), marks: newMarks(cfg.Entries),
		flights: map[key]*flight{},
	}
	_, err := rand.Read(c.secret[:])
	return c, err
}

// Begin says that the events after at will be told. It implements Follower.
func (c *Cache) Begin(at events.Position) {
	c.water.Store(nil) // before the marks: what is kept stands by both, see stands
	if at.Seq < c.applied.Load() {
		c.marks.reset() // another ledger, or one that was restored: its sequences say nothing of this one's
	}
	c.applied.Store(at.Seq)
	// What the source knew before is not known to be right at this place.
	c.marks.all.Store(max(c.marks.all.Load(), at.Seq))
	water := new(watermark.Watermark)
	water.Reset(at, recentEnds, c.cfg.Log)
	c.water.Store(water)
}

// stands reports whether nothing that was heard has changed a decision, and whether
// it was asked for while the feed was followed that is followed now. Of what was
// heard on another one nothing need be known any more.
func (c *Cache) stands(v *kept) bool { return c.marks.stands(v) && v.feed == c.water.Load() }

// Applied drops what a commit has changed. It implements Follower.
func (c *Cache) Applied(commit *events.Commit) {
	for i := range commit.Records {
		f := effectOf(&commit.Records[i])
		c.marks.raise(&f, commit.Seq)
	}
	c.applied.Store(commit.Seq)
	if water := c.water.Load(); water != nil {
		water.Applied(*commit)
	}
}

// Observe takes in a pulse whose signature the caller has checked, and when it
// arrived. It is what the Pulse of a feed's settings calls.
func (c *Cache) Observe(p events.Pulse, arrived time.Time) {
	if water := c.water.Load(); water != nil {
		water.Observe(p, arrived)
	}
}

// Lost drops everything, until another feed begins. It implements Follower.
func (c *Cache) Lost(err error) {
	c.water.Store(nil)
	c.good.clear()
	c.bad.clear()
	c.cfg.Log.Error("no feed: every question goes to a verifier", "error", err)
}

// Sequence returns the last sequence that was heard of.
func (c *Cache) Sequence() uint64 { return c.applied.Load() }

// Age returns for how long nothing has vouched for what is kept, and false when
// nothing ever has: then nothing is given from the cache.
func (c *Cache) Age() (time.Duration, bool) {
	water := c.water.Load()
	if water == nil {
		return 0, false
	}
	return water.Age(c.cfg.Now())
}

// CacheStats are figures of a Cache, all since it was made but for Entries.
type CacheStats struct {
	Entries int    // kept now, whether still good or not
	Hits    uint64 // decisions that were given from the cache
	Asked   uint64 // questions that went to the source
}

// Stats returns figures for metrics.
func (c *Cache) Stats() CacheStats {
	return CacheStats{Entries: c.good.len() + c.bad.len(), Hits: c.hits.Load(), Asked: c.asked.Load()}
}

// Verify implements Decider.
func (c *Cache) Verify(secret string, ask *token.Request) token.Decision {
	return c.VerifyContext(context.Background(), secret, ask)
}

// VerifyContext implements ContextDecider.
func (c *Cache) VerifyContext(ctx context.Context, secret string, ask *token.Request) token.Decision {
	if !ask.Time.IsZero() || len(secret) > maxSecret || len(ask.Resource) > token.MaxChain {
		// It is not asked for now, or nobody's answer: not worth a place.
		c.asked.Add(1)
		return c.cfg.Source.VerifyAtLeast(ctx, c.applied.Load(), secret, ask)
	}
	digest := token.Sum(secret)
	k := c.key(&digest, ask)
	at := k.at(ask.Address)
	for range tries {
		if d, ok := c.lookup(k, at); ok {
			c.hits.Add(1)
			return d
		}
		v := c.fetch(ctx, k, at, &digest, secret, ask)
		switch {
		case v == nil:
			return unavailable
		case v.d.Verdict == token.VerdictUnavailable:
			return v.d
		case c.stands(v) && !v.outlived(c.cfg.Now()):
			return v.d
		}
	}
	return unavailable
}

// key names a question without the client's address.
func (c *Cache) key(digest *token.Digest, ask *token.Request) key {
	var room [1024]byte
	b := append(append(room[:0], c.secret[:]...), digest[:]...)
	b = appendSized(b, ask.Permission)
	for _, k := range ask.Resource {
		b = appendSized(b, k)
	}
	sum := sha256.Sum256(b)
	return key(sum[:len(key{})])
}

func appendSized(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

// at names the question with an address. What is not known of k cannot be made
// from it.
func (k key) at(a netip.Addr) key {
	raw := a.Unmap().As16()
	sum := sha256.Sum256(append(append(k[:], raw[:]...), byte(a.BitLen()/32)))
	return key(sum[:len(key{})])
}

// lookup returns a decision that is kept and still good.
func (c *Cache) lookup(k, at key) (token.Decision, bool) {
	applied := c.applied.Load() // before the marks: the answer rests on it
	now := c.cfg.Now()
	age, ok := c.Age()
	if r := c.cfg.Reports; !ok || r != nil && (age > r.Bound() || !r.Counted()) {
		return token.Decision{}, false
	}
	v := c.find(k, now, age)
	if v != nil && v.elsewhere {
		v = c.find(at, now, age)
	}
	if v == nil || v.elsewhere {
		return token.Decision{}, false
	}
	d := v.d
	d.Sequence = max(d.Sequence, applied)
	d.Age = max(min(age, now.Sub(v.asOf)), 0)
	d.Stale = d.Age > staleAfter
	return d, true
}

// find returns what is kept under k, from whichever table has it, if it is good.
func (c *Cache) find(k key, now time.Time, age time.Duration) *kept {
	for _, t := range [...]*table{c.good, c.bad} {
		v := t.get(k)
		if v != nil && age <= v.d.Bound && (v.until.IsZero() || now.Before(v.until)) && c.stands(v) {
			return v
		}
	}
	return nil
}

// fetch asks the source, once for all who ask the same. It returns nil when ctx
// ends first.
func (c *Cache) fetch(ctx context.Context, k, at key, digest *token.Digest, secret string, ask *token.Request) *kept {
	c.mu.Lock()
	f := c.flights[at]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		c.flights[at] = f
		// The strings are our caller's, who may be gone before the answer.
		own := &token.Request{Permission: strings.Clone(ask.Permission), Resource: cloned(ask.Resource), Address: ask.Address}
		go c.fly(f, k, at, *digest, strings.Clone(secret), own)
	}
	c.mu.Unlock()
	select {
	case <-f.done:
		return f.kept
	case <-ctx.Done():
		return nil
	}
}

func (c *Cache) fly(f *flight, k, at key, digest token.Digest, secret string, ask *token.Request) {
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.Timeout)
	defer cancel()
	c.asked.Add(1)
	feed := c.water.Load()
	d := c.cfg.Source.VerifyAtLeast(ctx, c.applied.Load(), secret, ask)
	f.kept = c.keep(k, at, d, feed, &digest, ask.Resource)
	c.mu.Lock()
	delete(c.flights, at)
	c.mu.Unlock()
	close(f.done)
}

// keep puts a decision into the table, unless nobody could ever be given it.
func (c *Cache) keep(k, at key, d token.Decision, feed *watermark.Watermark, digest *token.Digest, chain []string) *kept {
	now := c.cfg.Now()
	v := &kept{d: d, asOf: now.Add(-d.Age), feed: feed, until: d.Until}
	for _, id := range restsOn(&d, chain) {
		v.ids = append(v.ids, c.marks.idAt(id))
	}
	if v.stranger = d.Token.IsZero() && d.Owner.IsZero(); v.stranger {
		v.secret = c.marks.secretAt(*digest)
	}
	if d.Verdict == token.VerdictUnavailable || d.Bound <= 0 || feed == nil || !c.stands(v) {
		return v
	}
	table := c.good
	if d.Verdict == token.VerdictDeny {
		table = c.bad
		if end := now.Add(c.cfg.Negative); v.until.IsZero() || end.Before(v.until) {
			v.until = end
		}
	}
	if !d.ByAddress {
		table.put(k, v)
		return v
	}
	there := *v
	there.elsewhere = true
	table.put(k, &there)
	table.put(at, v)
	return v
}
