// Package watermark says how old a reader's knowledge of the ledger is. The pen
// signs a pulse each second that names the end of the ledger; a reader that has
// applied that far knew everything at the time of the pulse.
//
// [Watermark] brings pulses and applied commits together. [Listener] takes in
// the bytes of pulses as they come over a wire and believes those of the pen
// only.
package watermark

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"watchword.dev/events"
)

// ErrDiverged says that what was applied is not the ledger that the pen writes.
var ErrDiverged = errors.New("watermark: diverged from the ledger")

// Watermark turns pulses and applied commits into an age. Reset makes it ready;
// it is safe for concurrent use.
type Watermark struct {
	mark     atomic.Pointer[mark] // nil before the first pulse
	diverged atomic.Pointer[error]
	log      *slog.Logger

	mu      sync.Mutex
	term    uint64          // the highest seen
	pending []pendingPulse  // of sequences that are not applied yet, in order
	at      events.Position // what is applied
	recent  []end           // of the newest commits, a ring by sequence
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

const maxPending = 64

// Reset makes the watermark ready for a reader that has applied the ledger up
// to at. It remembers where the recent newest commits end, to compare them
// with what the pulses say; 48 bytes each. A divergence goes to log too, which
// may be nil.
func (w *Watermark) Reset(at events.Position, recent int, log *slog.Logger) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at, w.log = at, log
	w.recent = make([]end, recent)
	w.remember(at)
}

func (w *Watermark) remember(at events.Position) {
	w.recent[at.Seq%uint64(len(w.recent))] = end{at.Seq, at.Epoch, at.Hash}
}

// Age returns how old the knowledge is, and false when it is not known: no
// pulse has vouched for anything yet, or the reader has diverged. It takes no
// lock. now needs its monotonic reading.
func (w *Watermark) Age(now time.Time) (time.Duration, bool) {
	m := w.mark.Load()
	if m == nil || w.diverged.Load() != nil {
		return 0, false
	}
	return m.age(now), true
}

// Diverged returns why what was applied is not the ledger that the pen writes,
// or nil.
func (w *Watermark) Diverged() error {
	if err := w.diverged.Load(); err != nil {
		return *err
	}
	return nil
}

// Observe takes in a pulse whose signature was checked, and when it arrived.
// One of a sequence that is applied moves the mark; another one waits until it
// is.
func (w *Watermark) Observe(p events.Pulse, arrived time.Time) {
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

// Applied takes in commits that are applied by now. It looks only at where they
// end.
func (w *Watermark) Applied(commits ...events.Commit) {
	if len(commits) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range commits {
		w.remember(commits[i].End)
	}
	w.advance(commits[len(commits)-1].End)
}

// Jump says that everything up to at was applied at once.
func (w *Watermark) Jump(at events.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remember(at)
	w.advance(at)
}

// advance lets the pulses vouch that have waited for at. w.mu is held.
func (w *Watermark) advance(at events.Position) {
	w.at = at
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
func (w *Watermark) vouch(p events.Pulse, arrived time.Time) {
	known := w.recent[p.Sequence%uint64(len(w.recent))]
	switch {
	case p.Epoch > w.at.Epoch && w.at.Seq > 0:
		// The pen has opened an epoch before this sequence, and we have
		// something else there.
		w.diverge(fmt.Errorf("the pen is in epoch %d at sequence %d, applied is %d in epoch %d", p.Epoch, p.Sequence, w.at.Seq, w.at.Epoch))
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
func (w *Watermark) diverge(cause error) {
	err := fmt.Errorf("%w: %w", ErrDiverged, cause)
	if w.diverged.CompareAndSwap(nil, &err) && w.log != nil {
		w.log.Error("what was read has diverged from the ledger", "error", err)
	}
}
