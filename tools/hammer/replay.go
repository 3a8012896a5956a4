package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events"
	"watchword.dev/events/stream"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/verifyindex"
)

// replay compares filling an empty index from a stream with reading the stream
// and doing nothing.
type replay struct {
	w      *world
	server *limitServer
	dir    string
	bytes  uint64          // of all payloads
	end    events.Position // of the stream
}

// plainCreated is the i-th event of the replayed ledger. Its tokens are like
// most: one or two policies, every other one with an end, one in four with an
// address condition.
func plainCreated(w *world, i int) *events.TokenCreated {
	e := w.created(i, 1+i%2)
	e.Grant.NotBefore = time.Time{}
	if i/2%2 == 0 && fateOf(i) != expired {
		e.Grant.ExpiresOn = time.Time{}
	}
	if i/4%4 != 0 {
		e.Grant.Condition = nil
	}
	return e
}

func benchReplay(ctx context.Context, r *run) error {
	dir, remove, err := r.sub("replay")
	if err != nil {
		return err
	}
	defer remove()
	b := replay{w: newWorld(r.o.tokens, 0), dir: dir}
	if b.server, err = startLimit(filepath.Join(dir, "nats"), false, int64(r.o.tokens)*4096+64<<20); err != nil {
		return err
	}
	defer b.server.stop()
	r.say("replay: writing a stream of %d events", r.o.tokens)
	if err := b.write(ctx, r.o.group); err != nil {
		return err
	}
	debug.FreeOSMemory()
	raw, full := newSeries("raw drain", "events/s"), newSeries("replay into an empty index", "events/s")
	rawCPU, fullCPU := newSeries("processor time of the drain, server included", "us/event"), newSeries("processor time of the replay, server included", "us/event")
	for n := range r.o.rounds {
		// A turn earlier or later than the other side must not matter.
		for side := range 2 {
			if (n+side)%2 == 0 {
				err = b.timed(ctx, raw, rawCPU, b.drain)
			} else {
				err = b.timed(ctx, full, fullCPU, b.build)
			}
			if err != nil {
				return err
			}
			debug.FreeOSMemory()
		}
		r.say("replay: round %d: drain %.0f, replay %.0f events/s", n+1, raw.values[n], full.values[n])
	}
	p := compared("replay", atLeast(0.45, "x the raw drain by an ordered pull consumer over TCP loopback"), full, raw)
	p.add(fullCPU.figure(), rawCPU.figure(), constant("events", "", float64(b.end.Number)), constant("messages", "", float64(b.end.Seq)),
		constant("payload", "bytes/event", float64(b.bytes)/float64(b.end.Number)))
	return r.publish(p)
}

func (b *replay) timed(ctx context.Context, rate, cpu *series, run func(context.Context) (time.Duration, float64, error)) error {
	took, used, err := run(ctx)
	if err == nil {
		rate.add(float64(b.end.Number) / took.Seconds())
		cpu.add(used * 1e6 / float64(b.end.Number))
	}
	return err
}

// write fills the stream. How long a write takes is not measured, so nobody
// waits for the disk.
func (b *replay) write(ctx context.Context, group int) error {
	nc, err := b.server.connect(false)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4000), jetstream.WithPublishAsyncTimeout(time.Minute))
	if err != nil {
		return err
	}
	publish := func(drafts []events.Draft) error {
		payload, c, err := events.Compose(b.end, drafts)
		if err != nil {
			return err
		}
		b.end, b.bytes = c.End, b.bytes+uint64(len(payload))
		for {
			_, err = js.PublishAsync(c.Subject, payload)
			if !errors.Is(err, jetstream.ErrTooManyStalledMsgs) {
				return err
			}
		}
	}
	if err := publish([]events.Draft{b.w.opened()}); err != nil {
		return err
	}
	for part := range slices.Chunk(b.w.members(), 500) {
		if err := publish(part); err != nil {
			return err
		}
	}
	drafts := make([]events.Draft, 0, group)
	for i := range b.w.n {
		drafts = append(drafts, b.w.draft(i+1, i, plainCreated(b.w, i)))
		if len(drafts) == group || i == b.w.n-1 {
			if err := publish(drafts); err != nil {
				return err
			}
			drafts = drafts[:0]
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		return ctx.Err()
	}
	s, err := js.Stream(ctx, stream.EventsStream)
	if err != nil {
		return err
	}
	if last := s.CachedInfo().State.LastSeq; last != b.end.Seq {
		return fmt.Errorf("the stream ends at %d, %d messages were written", last, b.end.Seq)
	}
	return nil
}

// drain reads the stream and adds up what it holds.
func (b *replay) drain(ctx context.Context) (took time.Duration, cpu float64, err error) {
	nc, err := b.server.connect(false)
	if err != nil {
		return 0, 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, 0, err
	}
	began, used := time.Now(), processSeconds()
	consumer, err := js.OrderedConsumer(ctx, stream.EventsStream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return 0, 0, err
	}
	var messages, size uint64
	all := make(chan struct{})
	reading, err := consumer.Consume(func(m jetstream.Msg) {
		size += uint64(len(m.Data()))
		if messages++; messages == b.end.Seq {
			close(all)
		}
	}, jetstream.PullMaxMessages(10_000))
	if err != nil {
		return 0, 0, err
	}
	defer reading.Stop()
	select {
	case <-all:
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	took, cpu = time.Since(began), processSeconds()-used
	if size != b.bytes {
		return 0, 0, fmt.Errorf("the drain has read %d bytes, %d were written", size, b.bytes)
	}
	return took, cpu, nil
}

// build fills an empty index through the ledger's own reader, which decodes
// strictly and checks sequence, number, chain and epoch. The clock stops when
// the index has written everything and answers from it.
func (b *replay) build(ctx context.Context) (took time.Duration, cpu float64, err error) {
	dir := filepath.Join(b.dir, "index")
	nc, err := b.server.connect(false)
	if err != nil {
		return 0, 0, err
	}
	defer nc.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	began, used := time.Now(), processSeconds()
	ledger, err := stream.Open(ctx, nc, stream.Config{})
	if err != nil {
		return 0, 0, err
	}
	x, err := verifyindex.Open(verifyindex.Options{Dir: dir, MemoryBytes: 16 << 30})
	if err != nil {
		return 0, 0, err
	}
	runner := x.Follow(ledger, projector.Options{})
	ended := make(chan error, 1)
	go func() { ended <- runner.Run(ctx) }()
	err = x.Wait(ctx, b.end.Seq)
	took, cpu = time.Since(began), processSeconds()-used
	if err == nil {
		err = b.check(x)
	}
	stop()
	if ran := <-ended; !errors.Is(ran, context.Canceled) {
		err = errors.Join(err, ran)
	}
	return took, cpu, errors.Join(err, x.Close(), os.RemoveAll(dir))
}

// check holds the new index against the model: its place, its size, and a
// sample of what it answers.
func (b *replay) check(x *verifyindex.Index) error {
	if at := x.Position(); at.Seq != b.end.Seq || at.Number != b.end.Number || at.Hash != b.end.Hash {
		return wrong("after the replay the index is at %d/%d, want %d/%d and its hash", at.Seq, at.Number, b.end.Seq, b.end.Number)
	}
	if n := x.Stats().Tokens; n != int64(b.w.n) {
		return wrong("after the replay there are %d tokens, want %d", n, b.w.n)
	}
	now := time.Now()
	x.Observe(events.Pulse{Term: 1, Epoch: 1, Sequence: b.end.Seq, Number: b.end.Number, Chain: b.end.Hash.String(), Time: now}, now)
	rng := rand.New(rand.NewPCG(17, 19))
	for range 50_000 {
		i := rng.IntN(b.w.n)
		q := b.w.question(i, 0)
		if f := fateOf(i); f == churned || f == revoked {
			// In this ledger nothing happens to anybody.
			q.reason, q.policy = token.ReasonNone, 0
		}
		d := x.Verify(string(appendSecret(nil, i, 0)), &q.ask)
		if !q.fits(&d) {
			return q.explain(&d)
		}
	}
	return nil
}
