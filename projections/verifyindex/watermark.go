package verifyindex

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/catalogue"
)

// Bounds are how old an answer may be at most, by the class of the permission
// that was asked for.
type Bounds struct {
	Read, Write, Admin time.Duration
}

// DefaultBounds are what applies to a zero field of Options.Bounds.
var DefaultBounds = Bounds{Read: 5 * time.Minute, Write: 30 * time.Second, Admin: 10 * time.Second}

// StaleAfter is the age from which on an answer says that it is stale.
const StaleAfter = 10 * time.Second

func (b Bounds) orDefault() Bounds {
	if b.Read == 0 {
		b.Read = DefaultBounds.Read
	}
	if b.Write == 0 {
		b.Write = DefaultBounds.Write
	}
	if b.Admin == 0 {
		b.Admin = DefaultBounds.Admin
	}
	return b
}

// of returns the bound of a class; of an unknown one the strictest.
func (b Bounds) of(c catalogue.Class) time.Duration {
	switch c {
	case catalogue.Read:
		return b.Read
	case catalogue.Write:
		return b.Write
	}
	return b.Admin
}

// mark says that everything up to some applied sequence was all there was at a
// time.
type mark struct {
	arrived time.Time // when the pulse came, with its monotonic reading
	at      time.Time // the pulse's own time
	atMilli int64     // the same, Unix
}

// age is how old the knowledge is: by the clock that cannot be set since the
// pulse arrived, or by the pulse's own time if that is longer ago. The latter
// counts what the first does not, the time in which the machine slept.
func (m *mark) age(now time.Time) time.Duration {
	return max(now.Sub(m.arrived), time.Duration(now.UnixMilli()-m.atMilli)*time.Millisecond, 0)
}

// watermark turns pulses and applied commits into a mark. The newest one is
// read without a lock.
type watermark struct {
	mark     atomic.Pointer[mark] // nil before the first pulse
	diverged atomic.Pointer[error]
	log      *slog.Logger

	mu      sync.Mutex
	term    uint64          // the highest seen
	pending []pendingPulse  // of sequences that are not applied yet, in order
	at      events.Position // what is applied
	recent  []end           // of the newest commits, a ring by sequence
}

type pendingPulse struct {
	p       events.Pulse
	arrived time.Time
}

// end is where a commit ended.
type end struct {
	seq   uint64
	epoch uint32
	hash  events.Hash
}

const (
	maxPending = 64
	ringSize   = 4096
)

func (w *watermark) reset(at events.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = at
	w.recent = make([]end, ringSize)
	w.remember(at)
}

func (w *watermark) remember(at events.Position) {
	w.recent[at.Seq%ringSize] = end{at.Seq, at.Epoch, at.Hash}
}

// observe takes in a pulse. One of a sequence that is applied moves the mark;
// another one waits until it is.
func (w *watermark) observe(p events.Pulse, arrived time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.Claim || p.Term < w.term {
		return // it vouches for nothing, or its pen is deposed
	}
	w.term = p.Term
	if p.Sequence <= w.at.Seq {
		w.vouch(p, arrived)
		return
	}
	if len(w.pending) == maxPending {
		// Far behind: keep every other one.
		kept := w.pending[:0]
		for i := 1; i < len(w.pending); i += 2 {
			kept = append(kept, w.pending[i])
		}
		w.pending = kept
	}
	w.pending = append(w.pending, pendingPulse{p, arrived})
}

// applied takes in commits that readers see by now.
func (w *watermark) applied(commits []events.Commit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range commits {
		w.remember(commits[i].End)
	}
	w.at = commits[len(commits)-1].End
	n := 0
	for _, q := range w.pending {
		if q.p.Sequence > w.at.Seq {
			break
		}
		if q.p.Term == w.term {
			w.vouch(q.p, q.arrived)
		}
		n++
	}
	w.pending = slices.Delete(w.pending, 0, n)
}

// vouch moves the mark by a pulse of a sequence that is applied, if the pulse
// is of the same ledger. w.mu is held.
func (w *watermark) vouch(p events.Pulse, arrived time.Time) {
	known := w.recent[p.Sequence%ringSize]
	switch {
	case p.Epoch > w.at.Epoch && w.at.Seq > 0:
		// The pen has opened an epoch before this sequence, and we have
		// something else there.
		w.diverge(fmt.Errorf("the pen is in epoch %d at sequence %d, the index has applied %d in epoch %d", p.Epoch, p.Sequence, w.at.Seq, w.at.Epoch))
		return
	case p.Epoch < w.at.Epoch:
		return // from before a promotion
	case known.seq == p.Sequence && p.Sequence > 0 && hex.EncodeToString(known.hash[:]) != p.Chain:
		w.diverge(fmt.Errorf("the chain at sequence %d is %v, the pen says %s", p.Sequence, known.hash, p.Chain))
		return
	}
	if m := w.mark.Load(); m == nil || p.Time.After(m.at) {
		w.mark.Store(&mark{arrived: arrived, at: p.Time, atMilli: p.Time.UnixMilli()})
	}
}

// diverge ends all answers: this is not the ledger that the pen writes.
func (w *watermark) diverge(cause error) {
	err := fmt.Errorf("%w: %w", ErrDiverged, cause)
	if w.diverged.CompareAndSwap(nil, &err) && w.log != nil {
		w.log.Error("the index has diverged from the ledger", "error", err)
	}
}

// jump says that everything up to at was applied at once.
func (w *watermark) jump(at events.Position) {
	w.mu.Lock()
	w.remember(at)
	w.mu.Unlock()
	w.applied([]events.Commit{{Seq: at.Seq, End: at}})
}
