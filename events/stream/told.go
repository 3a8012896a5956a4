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

// Told is a stream of what nodes and enforcers tell, on one connection: receipts,
// or reports of usage. It is safe for concurrent use.
type Told struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	cfg    Config
	stream string
	prefix string // of its subjects
}

// OpenUsage opens the stream of usage reports. Whether it is there shows when it
// is used.
func OpenUsage(nc *nats.Conn, cfg Config) (*Told, error) {
	return openTold(nc, cfg, UsageStream, UsagePrefix)
}

// OpenReceipts opens the stream of receipts of which all are kept. Whether it is
// there shows when it is used.
func OpenReceipts(nc *nats.Conn, cfg Config) (*Told, error) {
	return openTold(nc, cfg, ReceiptsStream, ReceiptPrefix)
}

// OpenProgress opens the stream that has the last receipt of each instance.
// Whether it is there shows when it is used.
func OpenProgress(nc *nats.Conn, cfg Config) (*Told, error) {
	return openTold(nc, cfg, ProgressStream, ProgressPrefix)
}

func openTold(nc *nats.Conn, cfg Config, name, prefix string) (*Told, error) {
	cfg.setDefaults()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	return &Told{nc: nc, js: js, cfg: cfg, stream: name, prefix: prefix}, nil
}

// Publish stores a message under its subject. After an error it may be stored all
// the same: whoever reads it takes it once, so it is published again.
func (u *Told) Publish(ctx context.Context, subject string, data []byte) error {
	if !strings.HasPrefix(subject, u.prefix) {
		return fmt.Errorf("stream: %s is no subject of %s", subject, u.stream)
	}
	ack, err := u.js.Publish(ctx, subject, data, jetstream.WithRetryAttempts(0))
	if err != nil {
		return fmt.Errorf("stream: publish to %s: %w", u.stream, err)
	}
	if ack.Stream != u.stream {
		return fmt.Errorf("stream: what belongs into %s was stored in %s", u.stream, ack.Stream)
	}
	return nil
}

// ToldMessage is what was told, as it is stored. Data is valid within the callback
// that gets it.
type ToldMessage struct {
	Seq     uint64
	Pending uint64 // messages behind it, as far as the server knew
	Stored  time.Time
	Subject string
	Data    []byte
}

// Bounds returns the sequences of the first and the last message that the stream
// holds; when it is empty, the first is one behind the last.
func (u *Told) Bounds(ctx context.Context) (first, last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, u.cfg.RequestTimeout)
	defer cancel()
	s, err := u.js.Stream(ctx, u.stream)
	if err != nil {
		return 0, 0, fmt.Errorf("stream: look at %s: %w", u.stream, err)
	}
	state := s.CachedInfo().State
	return state.FirstSeq, state.LastSeq, nil
}

// Read calls fn for every message after sequence after, in order, and waits for
// new ones until ctx ends. Messages that the stream does not hold any more are
// left out; when it ends before after, as one that was made anew does, it is read
// from its beginning. Read returns ctx.Err() or the first error of fn; when the
// stream cannot be reached it waits.
func (u *Told) Read(ctx context.Context, after uint64, fn func(ToldMessage) error) error {
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
		u.cfg.Log.Warn("a reader subscribes anew", "stream", u.stream, "error", gone.cause, "sequence", after)
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

func (u *Told) readOnce(ctx context.Context, after *uint64, fn func(ToldMessage) error) error {
	_, last, err := u.Bounds(ctx)
	if err != nil {
		return lost("%w", err)
	}
	if last < *after {
		*after = 0
	}
	setup, cancel := context.WithTimeout(ctx, u.cfg.RequestTimeout)
	defer cancel()
	c, err := u.js.OrderedConsumer(setup, u.stream, jetstream.OrderedConsumerConfig{
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
		if err := fn(ToldMessage{
			Seq: meta.Sequence.Stream, Pending: meta.NumPending, Stored: meta.Timestamp.UTC(), Subject: m.Subject(), Data: m.Data(),
		}); err != nil {
			return err
		}
		*after = meta.Sequence.Stream
	}
}
