package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"watchword.dev/events"
	"watchword.dev/events/feed"
	"watchword.dev/events/stream"
	"watchword.dev/events/token"
)

// fanoutShots is how many revocations one turn has, one after the other.
const fanoutShots = 200

// rawSubject is where the raw publish goes.
const rawSubject = "hammer.raw"

// fanout compares the time from the pen's publish of a revocation to the last of
// many thin enforcers refusing the token, each of which checks the chain for
// itself, with a raw core publish of as many bytes to as many subscriptions of
// the same connections. The pen's way is the longer one: its message is on disk
// before anybody hears of it.
type fanout struct {
	log     *stream.Log
	nc      *nats.Conn // of the publisher
	at      events.Position
	tokens  int // that were revoked
	payload []byte

	readers []*thin
	left    atomic.Int64 // subscribers that have not heard
	last    chan time.Time

	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	conns   []*nats.Conn
	failed  atomic.Pointer[error]
}

// thin is an enforcer with a cache of decisions that the feed empties.
type thin struct {
	b       *fanout
	allowed sync.Map // of token.ID
	applied atomic.Uint64
}

func benchFanout(ctx context.Context, r *run) error {
	for _, c := range []struct{ subscribers, connections int }{{100, 10}, {1000, 10}, {1000, 1000}} {
		if err := fanoutTo(ctx, r, c.subscribers, c.connections); err != nil {
			return err
		}
		debug.FreeOSMemory()
	}
	return nil
}

func fanoutTo(ctx context.Context, r *run, subscribers, connections int) error {
	name := fmt.Sprintf("fanout to %d on %d connections", subscribers, connections)
	dir, remove, err := r.sub(fmt.Sprintf("fanout-%d-%d", subscribers, connections))
	if err != nil {
		return err
	}
	defer remove()
	server, err := startLimit(filepath.Join(dir, "nats"), true, 1<<30)
	if err != nil {
		return err
	}
	defer server.stop()
	b := &fanout{last: make(chan time.Time, 1)}
	b.ctx, b.stop = context.WithCancel(ctx)
	defer b.close()
	if err := b.open(server, subscribers, connections); err != nil {
		return err
	}
	fed, raw, acked := newSeries("last applied, from the publish", "us (p99)"), newSeries("raw core publish", "us (p99)"), newSeries("last applied, from the acknowledgement", "us (p99)")
	fedHalf, rawHalf, ackHalf := newSeries("last applied, from the publish", "us (p50)"), newSeries("raw core publish", "us (p50)"), newSeries("last applied, from the acknowledgement", "us (p50)")
	for n := range r.o.rounds + 1 {
		for side := range 2 {
			if (n+side)%2 == 0 {
				err = b.turn(n > 0, b.revoke, [2]*series{fed, acked}, [2]*series{fedHalf, ackHalf})
			} else {
				err = b.turn(n > 0, b.raw, [2]*series{raw}, [2]*series{rawHalf})
			}
			if err != nil {
				return err
			}
		}
	}
	p := compared(name, atMost(1.5, "x a raw core publish to the same subscribers, p99"), fed, raw)
	p.add(quotients("ratio of p50", fedHalf, rawHalf).figure(), fedHalf.figure(), rawHalf.figure())
	if err := r.publish(p); err != nil {
		return err
	}
	q := compared(name+", acknowledged", atMost(1, "x the same, from the acknowledgement, p99"), acked, raw)
	q.add(quotients("ratio of p50", ackHalf, rawHalf).figure(), ackHalf.figure())
	return r.publish(q)
}

// open connects everybody and waits until all follow.
func (b *fanout) open(server *limitServer, subscribers, connections int) error {
	var err error
	if b.nc, err = server.connect(false); err != nil {
		return err
	}
	b.conns = append(b.conns, b.nc)
	if b.log, err = stream.Open(b.ctx, b.nc, stream.Config{}); err != nil {
		return err
	}
	if err := b.append(&events.LogOpened{Installation: tokenID(0), Brand: token.DefaultBrand, PulseKey: make([]byte, 32)}, "log/"+tokenID(0).String()); err != nil {
		return err
	}
	for range connections {
		nc, err := server.connect(false)
		if err != nil {
			return err
		}
		b.conns = append(b.conns, nc)
	}
	var began sync.WaitGroup
	began.Add(subscribers)
	for i := range subscribers {
		nc := b.conns[1+i%connections]
		if _, err := nc.Subscribe(rawSubject, func(*nats.Msg) { b.heard() }); err != nil {
			return err
		}
		e := &thin{b: b}
		b.readers = append(b.readers, e)
		b.running.Go(func() { b.follow(feed.New(nc, feed.Config{IdleCheck: time.Hour}), e, sync.OnceFunc(began.Done)) })
	}
	following := make(chan struct{})
	go func() { began.Wait(); close(following) }()
	select {
	case <-following:
	case <-b.ctx.Done():
		return b.why()
	case <-time.After(time.Minute):
		return errors.New("not all follow")
	}
	for _, nc := range b.conns {
		if err := nc.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (b *fanout) close() {
	b.stop()
	b.running.Wait()
	for _, nc := range b.conns {
		nc.Close()
	}
}

// follow runs one enforcer.
func (b *fanout) follow(r *feed.Reader, e *thin, began func()) {
	err := r.Read(b.ctx, events.Position{}, func(c events.Commit) error {
		if c.Seq == 1 {
			began()
			return nil
		}
		return e.apply(c)
	})
	if b.ctx.Err() == nil {
		b.failed.CompareAndSwap(nil, &err)
		b.stop()
	}
}

// why is what has ended a reader.
func (b *fanout) why() error {
	if err := b.failed.Load(); err != nil {
		return *err
	}
	return b.ctx.Err()
}

// apply drops what a revocation concerns. It refuses from then on.
func (e *thin) apply(c events.Commit) error {
	for i := range c.Records {
		if _, ok := c.Records[i].Data.(*events.TokenRevoked); !ok {
			return wrong("a %s came over the feed", c.Records[i].Name)
		}
		e.allowed.Delete(c.Records[i].SubjectID())
	}
	e.applied.Store(c.Seq)
	e.b.heard()
	return nil
}

// heard is called by each subscriber, and the last one says when.
func (b *fanout) heard() {
	if b.left.Add(-1) == 0 {
		b.last <- time.Now()
	}
}

func (b *fanout) append(data events.Event, subject string) error {
	payload, c, err := events.Compose(b.at, []events.Draft{{
		Envelope: events.Envelope{ID: tokenID(int(b.at.Number)), Source: "watchword/hammer", Subject: subject, Time: time.Now(), Actor: events.Actor{Kind: events.ActorSystem}},
		Data:     data,
	}})
	if err != nil {
		return err
	}
	at := b.at
	b.at, b.payload = c.End, payload
	return b.log.Append(b.ctx, at, c.Subject, payload)
}

// turn is some shots by one side, whose p99 and p50 go into the series: from
// the publish, and from the acknowledgement where there is one.
func (b *fanout) turn(counts bool, shot func() (published, acknowledged, last time.Time, err error), p99, p50 [2]*series) error {
	var took [2][]float64
	for range fanoutShots {
		published, acknowledged, last, err := shot()
		if err != nil {
			return err
		}
		took[0] = append(took[0], float64(last.Sub(published).Nanoseconds())/1e3)
		took[1] = append(took[1], float64(max(last.Sub(acknowledged), 0).Nanoseconds())/1e3)
	}
	for i := range took {
		if slices.Sort(took[i]); counts && p99[i] != nil {
			p99[i].add(took[i][len(took[i])*99/100])
			p50[i].add(middle(took[i]))
		}
	}
	return nil
}

// revoke has the pen revoke a token that everybody allows, and waits until
// nobody does.
func (b *fanout) revoke() (published, acknowledged, last time.Time, err error) {
	b.tokens++
	id := tokenID(b.tokens)
	for _, e := range b.readers {
		e.allowed.Store(id, true)
	}
	b.left.Store(int64(len(b.readers)))
	published = time.Now()
	if err = b.append(&events.TokenRevoked{}, "token/"+id.String()); err != nil {
		return
	}
	acknowledged = time.Now()
	if last, err = b.wait(); err != nil {
		return
	}
	for i, e := range b.readers {
		if _, allowed := e.allowed.Load(id); allowed || e.applied.Load() != b.at.Seq {
			err = wrong("enforcer %d allows a token that was revoked at %d; it has applied %d", i, b.at.Seq, e.applied.Load())
		}
	}
	return
}

// raw publishes as many bytes to as many subscriptions.
func (b *fanout) raw() (published, acknowledged, last time.Time, err error) {
	b.left.Store(int64(len(b.readers)))
	published = time.Now()
	if err = b.nc.Publish(rawSubject, b.payload); err != nil {
		return
	}
	last, err = b.wait()
	return published, published, last, err
}

func (b *fanout) wait() (time.Time, error) {
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	select {
	case last := <-b.last:
		return last, nil
	case <-b.ctx.Done():
		return time.Time{}, b.why()
	case <-late.C:
		return time.Time{}, wrong("%d of %d have not heard of sequence %d", b.left.Load(), len(b.readers), b.at.Seq)
	}
}
