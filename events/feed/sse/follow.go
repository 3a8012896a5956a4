package sse

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/watermark"
)

const (
	// queued is how many commits wait for the reader while the next ones are
	// received.
	queued = 64
	// recentEnds is of how many commits a Read knows where they end, to
	// compare that with the pulses.
	recentEnds = 256
)

// follower is one Read.
type follower struct {
	r        *Reader
	fn       func(events.Commit) error
	at       events.Position // behind what fn has taken
	head     uint64          // when the answer began
	water    watermark.Watermark
	listener *watermark.Listener

	batch []events.Commit
	spare [queued][]events.Record // memory of the batch's records
}

// once follows one answer until it ends.
func (f *follower) once(ctx context.Context) error {
	answer, cancel := context.WithCancel(ctx)
	last := ""
	if f.at.Seq > 0 {
		last = FormatID(f.at)
	}
	// Also before the answer begins, silence ends it.
	quiet := time.AfterFunc(f.r.cfg.Silence, cancel)
	defer quiet.Stop()
	defer cancel()
	resp, err := f.r.open(answer, url.Values{After: {"0"}}, last)
	if err != nil {
		return err
	}
	in := intake{
		f: f, events: make(chan event, queued), ctx: answer,
		body: &timed{r: resp.Body, heard: func() { quiet.Reset(f.r.cfg.Silence) }},
	}
	var receiving sync.WaitGroup
	receiving.Go(in.receive)
	defer func() {
		cancel()
		resp.Body.Close()
		receiving.Wait()
	}()
	for e := range in.events {
		if err := f.take(ctx, e, in.events); err != nil {
			return err
		}
	}
	if err := f.diverged(); err != nil {
		return err
	}
	return in.err
}

// take delivers an event, and those that wait behind it.
func (f *follower) take(ctx context.Context, e event, more <-chan event) error {
	if e.name == EventPosition {
		return f.begin(e)
	}
	f.batch = f.batch[:0]
	at := f.at
	var err error
	for ok := true; ok; {
		var c events.Commit
		if c, err = f.decode(at, e); err != nil {
			break
		}
		f.batch, at = append(f.batch, c), c.End
		if len(f.batch) == queued {
			break
		}
		select {
		case e, ok = <-more:
		default:
			ok = false
		}
	}
	for i := range f.batch {
		c := f.batch[i]
		c.Pending = uint64(len(f.batch) - 1 - i)
		if f.head > c.Seq {
			c.Pending = max(c.Pending, f.head-c.Seq)
		}
		if err := f.deliver(ctx, c); err != nil {
			return err
		}
	}
	return err
}

// decode returns the commit of an event. What does not follow by its sequence
// was lost or repeated on the way; anything else is wrong with the ledger.
func (f *follower) decode(at events.Position, e event) (events.Commit, error) {
	_, seq, err := ParseID(e.id)
	if err != nil || e.name != "" {
		return events.Commit{}, lost("an event %q with the id %q", e.name, e.id)
	}
	if seq != at.Seq+1 {
		return events.Commit{}, lost("after sequence %d came %d", at.Seq, seq)
	}
	slot := &f.spare[len(f.batch)]
	c, err := events.DecodePayload(at, seq, e.data, *slot)
	if err == nil {
		*slot = c.Records
	}
	return c, err
}

// begin compares where an answer begins with what was read there.
func (f *follower) begin(e event) error {
	p, err := e.place()
	switch {
	case err != nil:
		return err
	case p.Sequence != f.at.Seq:
		return lost("the answer begins behind %d, asked for was %d", p.Sequence, f.at.Seq)
	case f.at.Seq > 0 && p.Epoch != f.at.Epoch:
		return fmt.Errorf("%w: sequence %d is of epoch %d, it was read in %d", events.ErrEpoch, f.at.Seq, p.Epoch, f.at.Epoch)
	case f.at.Seq > 0 && p.Chain != f.at.Hash.String():
		return fmt.Errorf("%w: sequence %d does not end with the event that was read there", events.ErrChain, f.at.Seq)
	}
	f.head = p.Head
	if f.at.Seq > 0 { // else it is in the first event
		f.listener.Learn(p.PulseKey)
	}
	return nil
}

func (f *follower) deliver(ctx context.Context, c events.Commit) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.Seq == 1 {
		if opened, ok := c.Records[0].Data.(*events.LogOpened); ok {
			f.listener.Learn(opened.PulseKey)
		}
	}
	if err := f.fn(c); err != nil {
		return err
	}
	f.at = c.End
	f.water.Applied(c)
	return f.diverged()
}

func (f *follower) diverged() error {
	if err := f.water.Diverged(); err != nil {
		return fmt.Errorf("%w: %w", events.ErrChain, err)
	}
	return nil
}
