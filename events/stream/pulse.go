package stream

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// pulseSilence is how long a watcher hears nothing before it asks for the
	// newest pulse: three beats. What is republished may get lost.
	pulseSilence = 3 * time.Second
	pulseQueue   = 64
)

// LastPulse implements events.Pulses. The stream's leader answers.
func (l *Log) LastPulse(ctx context.Context) ([]byte, uint64, error) {
	return l.message(ctx, PulseStream, `{"last_by_subj":"`+PulseSubject+`"}`)
}

// StorePulse implements events.Pulses: one publish, never repeated.
func (l *Log) StorePulse(ctx context.Context, after uint64, pulse []byte) (uint64, error) {
	return l.publish(ctx, PulseStream, PulseSubject, after, pulse)
}

// WatchPulses implements events.Pulses. It hears what the server republishes
// as it is stored, and asks for the newest pulse at the start, when the
// connection comes back and when nothing was heard for a while.
//
// Whoever can publish on the live subject can make fn hear something else: a
// pulse counts only when events.OpenPulse accepts it.
func (l *Log) WatchPulses(ctx context.Context, fn func(pulse []byte, seq uint64)) error {
	changes := l.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer l.nc.RemoveStatusListener(changes)
	live := make(chan *nats.Msg, pulseQueue)
	sub, err := l.nc.ChanSubscribe(LivePulseSubject, live)
	if err != nil {
		return fmt.Errorf("stream: watch pulses: %w", err)
	}
	defer sub.Unsubscribe()
	if err := l.nc.FlushWithContext(ctx); err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	w := watcher{fn: fn}
	silence := time.NewTimer(0) // asks at once
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-live:
			if seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64); err == nil {
				w.live(m.Data, seq)
			}
			silence.Reset(pulseSilence)
		case status := <-changes:
			if status == nats.CLOSED {
				return nats.ErrConnectionClosed
			}
			silence.Reset(0)
		case <-silence.C:
			pulse, seq, err := l.LastPulse(ctx)
			if err != nil {
				l.cfg.Log.Warn("no answer to who has the pen", "error", err)
			} else {
				w.stored(pulse, seq)
			}
			silence.Reset(pulseSilence)
		}
	}
}

// watcher keeps fn from hearing a pulse twice, or an older one after a newer.
type watcher struct {
	fn func(pulse []byte, seq uint64)
	// floor is the newest sequence that the stream itself has told. One from
	// the live subject does not move it: a forged one would silence the rest.
	floor uint64
	last  []byte
}

func (w *watcher) live(pulse []byte, seq uint64) {
	if seq > w.floor {
		w.hear(pulse, seq)
	}
}

func (w *watcher) stored(pulse []byte, seq uint64) {
	if seq > w.floor {
		w.floor = seq
		w.hear(pulse, seq)
	}
}

func (w *watcher) hear(pulse []byte, seq uint64) {
	if !bytes.Equal(pulse, w.last) {
		w.last = bytes.Clone(pulse)
		w.fn(pulse, seq)
	}
}
