package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events"
)

// Waits between two subscriptions of a reader that gets nowhere.
const (
	backoffMin = 20 * time.Millisecond
	backoffMax = 2 * time.Second
)

// lostError says that a subscription ended for a cause that says nothing about
// the ledger. The reader subscribes anew.
type lostError struct{ cause error }

func (e *lostError) Error() string { return "stream: lost the consumer: " + e.cause.Error() }
func (e *lostError) Unwrap() error { return e.cause }

func lost(format string, args ...any) error {
	return &lostError{fmt.Errorf(format, args...)}
}

// Read implements events.Reader. fn is called on the caller's goroutine;
// commits are decoded on another, some of them ahead.
//
// When the server, the connection or the consumer goes away, Read waits and
// goes on behind the last commit that it has delivered, after it has made sure
// that the ledger still has it. It ends only by fn, by ctx, by what is wrong
// with the ledger, or when the connection is closed for good.
func (l *Log) Read(ctx context.Context, at events.Position, fn func(events.Commit) error) error {
	// One listener from the beginning, so that no change is missed.
	changes := l.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer l.nc.RemoveStatusListener(changes)
	wait := backoffMin
	for {
		before := at.Seq
		err := l.readOnce(ctx, changes, &at, fn)
		gone, isLost := errors.AsType[*lostError](err)
		switch {
		case !isLost:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case l.nc.IsClosed():
			return err
		}
		l.cfg.Log.Warn("the reader subscribes anew", "error", gone.cause, "sequence", at.Seq)
		if at.Seq > before {
			wait = backoffMin
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changes:
			timer.Stop()
		case <-timer.C:
		}
		wait = min(2*wait, backoffMax)
	}
}

func (l *Log) readOnce(ctx context.Context, changes <-chan nats.Status, at *events.Position, fn func(events.Commit) error) error {
	if err := l.check(ctx, *at); err != nil {
		return err
	}
	f, err := l.subscribe(ctx, *at)
	if err != nil {
		return err
	}
	defer f.stop()
	r := reader{log: l, feed: f, at: at, fn: fn}
	return r.run(ctx, changes)
}

// check asks the leader whether the ledger still has what at names.
func (l *Log) check(ctx context.Context, at events.Position) error {
	head, err := l.Head(ctx)
	if err != nil {
		return lost("head: %w", err)
	}
	if head < at.Seq {
		return fmt.Errorf("%w: it ends at %d, %d was read", events.ErrRewind, head, at.Seq)
	}
	if at.Seq == 0 {
		return nil
	}
	payload, _, err := l.message(ctx, EventsStream, fmt.Sprintf(`{"seq":%d}`, at.Seq))
	switch {
	case err != nil:
		return lost("message %d: %w", at.Seq, err)
	case payload == nil:
		return fmt.Errorf("%w: sequence %d is not there any more", events.ErrGap, at.Seq)
	case !at.Ends(payload):
		return fmt.Errorf("%w: sequence %d does not end with the event that was read there", events.ErrChain, at.Seq)
	}
	return nil
}

// subscribe makes a consumer behind at. It lives in the memory of one server
// and acknowledges nothing: what it loses is found by its sequences, and then
// another is made.
func (l *Log) subscribe(ctx context.Context, at events.Position) (*feed, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.RequestTimeout)
	defer cancel()
	c, err := l.js.CreateConsumer(ctx, EventsStream, jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       at.Seq + 1,
		AckPolicy:         jetstream.AckNonePolicy,
		ReplayPolicy:      jetstream.ReplayInstantPolicy,
		InactiveThreshold: consumerIdle,
		MaxDeliver:        1,
		Replicas:          1,
		MemoryStorage:     true,
	})
	if err != nil {
		return nil, lost("create a consumer: %w", err)
	}
	f, err := newFeed(l.nc, c.CachedInfo().Name, at)
	if err != nil {
		return nil, lost("subscribe: %w", err)
	}
	return f, nil
}

// reader hands what a feed has decoded to fn.
type reader struct {
	log  *Log
	feed *feed
	at   *events.Position
	fn   func(events.Commit) error
}

func (r *reader) run(ctx context.Context, changes <-chan nats.Status) error {
	idle := time.NewTimer(r.log.cfg.IdleCheck)
	defer idle.Stop()
	var batch []events.Commit
	var missing uint64 // a sequence that was there at the last check and has not come
	for {
		var err error
		if batch, err = r.feed.take(batch); len(batch) > 0 {
			idle.Reset(r.log.cfg.IdleCheck)
			if err := r.deliver(ctx, batch); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.feed.ready:
		case <-changes:
			// What was under way when the connection broke is lost.
			return lost("the connection was lost")
		case <-idle.C:
			head, err := r.log.Head(ctx)
			switch {
			case err != nil:
				return lost("head: %w", err)
			case head < r.at.Seq:
				return fmt.Errorf("%w: it ends at %d, %d was read", events.ErrRewind, head, r.at.Seq)
			case missing > r.at.Seq:
				return lost("sequence %d does not come", missing)
			}
			missing = head
			idle.Reset(r.log.cfg.IdleCheck)
		}
	}
}

func (r *reader) deliver(ctx context.Context, batch []events.Commit) error {
	for i := range batch {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.fn(batch[i]); err != nil {
			return err
		}
		*r.at = batch[i].End
	}
	return nil
}
