package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Usage is the stream of usage reports on one connection. It is safe for
// concurrent use.
type Usage struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	cfg Config
}

// OpenUsage opens the stream of usage reports. Whether it is there shows when it
// is used.
func OpenUsage(nc *nats.Conn, cfg Config) (*Usage, error) {
	cfg.setDefaults()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	return &Usage{nc: nc, js: js, cfg: cfg}, nil
}

// Publish stores a report under its subject. After an error it may be stored all
// the same: reports count once, so it is published again.
func (u *Usage) Publish(ctx context.Context, subject string, report []byte) error {
	if !strings.HasPrefix(subject, UsagePrefix) {
		return fmt.Errorf("stream: %s is no subject of a usage report", subject)
	}
	ack, err := u.js.Publish(ctx, subject, report, jetstream.WithRetryAttempts(0))
	if err != nil {
		return fmt.Errorf("stream: publish usage: %w", err)
	}
	if ack.Stream != UsageStream {
		return fmt.Errorf("stream: a usage report was stored in %s", ack.Stream)
	}
	return nil
}

// UsageMessage is a report as it is stored. Data is valid within the callback
// that gets it.
type UsageMessage struct {
	Seq     uint64
	Pending uint64 // messages behind it, as far as the server knew
	Stored  time.Time
	Subject string
	Data    []byte
}

// Bounds returns the sequences of the first and the last message that the stream
// holds; when it is empty, the first is one behind the last.
func (u *Usage) Bounds(ctx context.Context) (first, last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, u.cfg.RequestTimeout)
	defer cancel()
	s, err := u.js.Stream(ctx, UsageStream)
	if err != nil {
		return 0, 0, fmt.Errorf("stream: look at %s: %w", UsageStream, err)
	}
	state := s.CachedInfo().State
	return state.FirstSeq, state.LastSeq, nil
}

// Read calls fn for every message after sequence after, in order, and waits for
// new ones until ctx ends. Messages that the stream does not hold any more are
// left out; when it ends before after, as one that was made anew does, it is read
// from its beginning. Read returns ctx.Err() or the first error of fn; when the
// stream cannot be reached it waits.
func (u *Usage) Read(ctx context.Context, after uint64, fn func(UsageMessage) error) error {
	wait := backoffMin
	for {
		before := after
		err := u.readOnce(ctx, &after, fn)
		gone, isLost := errors.AsType[*lostError](err)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !isLost:
			return err
		case u.nc.IsClosed():
			return err
		}
		u.cfg.Log.Warn("the reader of usage subscribes anew", "error", gone.cause, "sequence", after)
		if after > before {
			wait = backoffMin
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, backoffMax)
	}
}

func (u *Usage) readOnce(ctx context.Context, after *uint64, fn func(UsageMessage) error) error {
	_, last, err := u.Bounds(ctx)
	if err != nil {
		return lost("%w", err)
	}
	if last < *after {
		*after = 0
	}
	setup, cancel := context.WithTimeout(ctx, u.cfg.RequestTimeout)
	defer cancel()
	c, err := u.js.OrderedConsumer(setup, UsageStream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: *after + 1,
	})
	if err != nil {
		return lost("create a consumer: %w", err)
	}
	it, err := c.Messages()
	if err != nil {
		return lost("subscribe: %w", err)
	}
	stop := context.AfterFunc(ctx, it.Stop)
	defer stop()
	defer it.Stop()
	for {
		m, err := it.Next()
		if err != nil {
			return lost("%w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return lost("%w", err)
		}
		if err := fn(UsageMessage{
			Seq: meta.Sequence.Stream, Pending: meta.NumPending, Stored: meta.Timestamp.UTC(), Subject: m.Subject(), Data: m.Data(),
		}); err != nil {
			return err
		}
		*after = meta.Sequence.Stream
	}
}
