package watermark

import (
	"bytes"
	"crypto/ed25519"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"watchword.dev/events"
)

// MaxSkew is how far the pen's clock and the reader's may be apart before that
// is reported. A pulse that is under way for long looks the same.
const MaxSkew = time.Second

// Listener believes the pulses that the pen has signed and passes them on, once
// each. It is safe for concurrent use.
type Listener struct {
	pulse func(p events.Pulse, arrived time.Time)
	log   *slog.Logger

	key  atomic.Pointer[ed25519.PublicKey] // nil before it is known
	skew atomic.Int64                      // of the newest pulse

	mu      sync.Mutex
	last    []byte
	strange uint // pulses that the pen has not signed
	skewed  bool
}

// NewListener returns a listener that calls pulse for each new pulse of the
// pen. A nil key is not known yet: see Learn.
func NewListener(key ed25519.PublicKey, pulse func(p events.Pulse, arrived time.Time), log *slog.Logger) *Listener {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Listener{pulse: pulse, log: log}
	l.Learn(key)
	return l
}

// Learn sets the key of the pulses, which stands in log.opened, unless one is
// set already.
func (l *Listener) Learn(key ed25519.PublicKey) {
	if len(key) == ed25519.PublicKeySize {
		key = bytes.Clone(key)
		l.key.CompareAndSwap(nil, &key)
	}
}

// Knows reports whether the key is known. Without it nothing is believed.
func (l *Listener) Knows() bool { return l.key.Load() != nil }

// Hear takes in what looks like a pulse and when it arrived.
func (l *Listener) Hear(b []byte, arrived time.Time) {
	key := l.key.Load()
	if key == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes.Equal(b, l.last) {
		return
	}
	p, err := events.OpenPulse(b, *key)
	if err != nil {
		// Whoever can make us hear it can make us hear many.
		if l.strange++; bits.OnesCount(l.strange) == 1 {
			l.log.Warn("pulses that the pen has not signed", "error", err, "count", l.strange)
		}
		return
	}
	l.last = append(l.last[:0], b...)
	l.compare(arrived.Sub(p.Time))
	l.pulse(p, arrived)
}

// compare notes how far the clocks are apart. l.mu is held.
func (l *Listener) compare(skew time.Duration) {
	l.skew.Store(int64(skew))
	if skewed := skew.Abs() > MaxSkew; skewed != l.skewed {
		l.skewed = skewed
		if skewed {
			l.log.Warn("the pen's clock and this one are apart, or its pulses take long", "skew", skew)
		} else {
			l.log.Info("the pen's clock and this one agree again", "skew", skew)
		}
	}
}

// Skew returns by how much this clock was ahead of the time in the newest pulse
// when that arrived: the difference of the clocks and the time under way.
// Beyond MaxSkew, either way, something is wrong.
func (l *Listener) Skew() time.Duration { return time.Duration(l.skew.Load()) }
