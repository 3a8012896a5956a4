package feed

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"watchword.dev/events"
)

// One request asks for up to batchMessages, and for no further one once
// batchBytes were sent. That is more than a message has, so that every request
// brings something.
const (
	batchMessages = 256
	batchBytes    = 2 << 20
)

// Statuses of answers that carry no message.
const (
	endOfBatch = "204"
	notFound   = "404"
)

// fill delivers everything that the stream holds behind f.at. If f.verify is
// set it makes sure first that the stream still holds what was read last.
func (f *follower) fill(ctx context.Context) error {
	if f.at.Seq > 0 && !f.listener.Knows() {
		if err := f.askFirst(ctx); err != nil {
			return err
		}
	}
	for {
		b := batch{f: f, from: f.at.Seq + 1}
		if f.verify {
			b.from = f.at.Seq
		}
		body := fmt.Appendf(nil, `{"seq":%d,"batch":%d,"max_bytes":%d}`, b.from, batchMessages, batchBytes)
		pending, err := f.ask(ctx, body, func(m *nats.Msg) error { return b.take(ctx, m) })
		if err != nil {
			return err
		}
		if err := b.end(); err != nil {
			return err
		}
		if pending == 0 {
			return nil
		}
	}
}

// askFirst takes the server's word for the first event, which holds the key of
// the pulses.
func (f *follower) askFirst(ctx context.Context) error {
	_, err := f.ask(ctx, []byte(`{"seq":1,"batch":1}`), func(m *nats.Msg) error {
		c, err := events.DecodeCommit(events.Position{}, 1, m.Header.Get(nats.JSSubject), m.Data, nil)
		if err == nil {
			f.learn(&c.Records[0])
		}
		return err
	})
	return err
}

// ask sends a request for messages and calls take for each. It returns how many
// the stream holds behind them.
func (f *follower) ask(ctx context.Context, body []byte, take func(*nats.Msg) error) (pending uint64, err error) {
	f.asked++
	reply := f.inbox + "." + strconv.FormatUint(f.asked, 10)
	if err := f.r.nc.PublishRequest(directGet, reply, body); err != nil {
		return 0, lost("ask the stream: %w", err)
	}
	select {
	case <-f.broken: // before this
	default:
	}
	silence := time.NewTimer(f.r.cfg.RequestTimeout)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-f.broken:
			return 0, lost("the connection was lost")
		case <-silence.C:
			return 0, lost("the stream does not answer")
		case m := <-f.answers:
			if m.Subject != reply {
				continue // of a request that was given up
			}
			switch status := m.Header.Get("Status"); status {
			case "":
				if err := take(m); err != nil {
					return 0, err
				}
				silence.Reset(f.r.cfg.RequestTimeout)
			case notFound:
				return 0, nil
			case endOfBatch:
				return pendingOf(m), nil
			default:
				return 0, lost("the stream answers with status %s: %s", status, m.Header.Get("Description"))
			}
		}
	}
}

// pendingOf is how many messages the server holds behind m; 0 if it does not
// say.
func pendingOf(m *nats.Msg) uint64 {
	n, err := strconv.ParseUint(m.Header.Get("Nats-Num-Pending"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// batch is the answer to one request.
type batch struct {
	f    *follower
	from uint64 // what was asked for
	n    int    // messages
}

func (b *batch) take(ctx context.Context, m *nats.Msg) error {
	f := b.f
	seq, err := strconv.ParseUint(m.Header.Get(nats.JSSequence), 10, 64)
	if err != nil {
		return lost("a message without its sequence")
	}
	b.n++
	if b.n == 1 && f.verify {
		return f.check(seq, m.Data)
	}
	if b.n > 1 && seq > f.at.Seq+1 {
		// The server sends what follows: this was lost on the way. A hole in
		// the stream shows at the beginning of the next answer.
		return lost("after sequence %d came %d", f.at.Seq, seq)
	}
	c, err := events.DecodeCommit(f.at, seq, m.Header.Get(nats.JSSubject), m.Data, *f.slot(0))
	if err != nil {
		return err
	}
	f.spare[0], c.Pending = c.Records, pendingOf(m)
	return f.deliver(ctx, c)
}

// check compares the message where f.at stands with what was read there.
func (f *follower) check(seq uint64, payload []byte) error {
	switch {
	case seq != f.at.Seq:
		return fmt.Errorf("%w: sequence %d is not there any more", events.ErrGap, f.at.Seq)
	case !f.at.Ends(payload):
		return fmt.Errorf("%w: sequence %d does not end with the event that was read there", events.ErrChain, f.at.Seq)
	}
	f.verify, f.short = false, 0
	return nil
}

// end is called when all messages have come. When f.at was asked for and there
// is nothing, the stream is shorter than what was read; but another replica may
// have more.
func (b *batch) end() error {
	f := b.f
	if b.n > 0 || !f.verify {
		return nil
	}
	if f.short++; f.short == 1 {
		f.shortSince = time.Now()
	}
	if f.short >= 3 && time.Since(f.shortSince) >= f.r.cfg.RewindPatience {
		return fmt.Errorf("%w: it ends before %d", events.ErrRewind, f.at.Seq)
	}
	return lost("the stream ends before %d", f.at.Seq)
}
