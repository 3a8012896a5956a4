package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events"
	"watchword.dev/events/stream"
	"watchword.dev/events/token"
	"watchword.dev/services/e2e/penload"
)

// creation compares creating tokens through the authority with storing as many
// bytes by plain JetStream publishes, and with inserts into PostgreSQL, all
// durable, all on one disk, by turns.
type creation struct {
	pen      *penload.Authority
	limit    *limitServer
	nc       *nats.Conn
	js       jetstream.JetStream
	postgres *postgres // nil where there is none
	sample   sample    // a creation in the ledger
	payload  []byte    // of a plain publish: as long as an event

	made  atomic.Int64 // creations that were begun
	mu    sync.Mutex
	acked map[token.ID]uint64 // acknowledged creations and their sequences
	plain atomic.Int64        // acknowledged publishes
}

func benchCreate(ctx context.Context, r *run) error {
	dir, remove, err := r.sub("create")
	if err != nil {
		return err
	}
	defer remove()
	b := &creation{acked: map[token.ID]uint64{}}
	r.say("create: starting the authority, a plain nats-server and PostgreSQL")
	if b.pen, err = penload.Start(ctx, filepath.Join(dir, "authority")); err != nil {
		return err
	}
	err = b.open(ctx, dir)
	var without error
	if err == nil {
		b.postgres, without = startPostgres(ctx, filepath.Join(dir, "postgres"), r.o.clients, b.payload)
	}
	if err == nil {
		err = b.runUnder(ctx, r, dir, without)
	}
	if b.postgres != nil {
		err = errors.Join(err, b.postgres.close())
	}
	if b.nc != nil {
		b.nc.Close()
	}
	if b.limit != nil {
		b.limit.stop()
	}
	return errors.Join(err, b.pen.Close())
}

// open starts the limit and learns how long an event is.
func (b *creation) open(ctx context.Context, dir string) (err error) {
	if b.limit, err = startLimit(filepath.Join(dir, "limit"), true, 4<<30); err != nil {
		return err
	}
	// The pen has such a connection too: it is quicker for one publish at a
	// time than TCP.
	if b.nc, err = b.limit.connect(true); err != nil {
		return err
	}
	if b.js, err = jetstream.New(b.nc); err != nil {
		return err
	}
	if err := b.create(ctx); err != nil {
		return err
	}
	for _, seq := range b.acked {
		err = readAll(ctx, b.pen.Ledger(), seq, func(r *events.Record) error {
			b.sample, b.payload = sample{r.Envelope, r.Data}, append(b.payload[:0], r.Line...)
			return nil
		})
	}
	return err
}

// grantOfOne is what a script asks for: DNS Write in one zone.
func grantOfOne(i int) token.Grant {
	return token.Grant{Policies: []token.Policy{{
		Effect: token.EffectAllow, Groups: []token.GroupRef{{ID: groupDNSWrite}},
		Resources: jsontext.Value(`{"` + zoneKey + idOf('z', i).String() + `":"*"}`),
	}}}
}

// create creates one token through the authority.
func (b *creation) create(ctx context.Context) error {
	i := int(b.made.Add(1))
	id := tokenID(i)
	seq, err := b.pen.Create(ctx, id, fmt.Sprintf("deploy key %d", i), digestOf(i, 0), grantOfOne(i))
	if err != nil {
		return fmt.Errorf("create token %d: %w", i, err)
	}
	b.mu.Lock()
	b.acked[id] = seq
	b.mu.Unlock()
	return nil
}

// publish stores one event's worth of bytes.
func (b *creation) publish(ctx context.Context) error {
	if _, err := b.js.Publish(ctx, "ww.event.token.created", b.payload); err != nil {
		return fmt.Errorf("plain publish: %w", err)
	}
	b.plain.Add(1)
	return nil
}

// runUnder runs the bench together with its ceiling.
func (b *creation) runUnder(ctx context.Context, r *run, dir string, without error) error {
	c, err := b.ceiling(ctx, dir)
	if err != nil {
		return err
	}
	return errors.Join(b.run(ctx, r, c, without), c.close())
}

func (b *creation) run(ctx context.Context, r *run, top *ceiling, without error) error {
	pen, plain := newSeries("creations", "events/s"), newSeries("plain publishes", "events/s")
	inserts, grouped := newSeries("PostgreSQL inserts", "rows/s"), newSeries("events in a commit", "")
	cpu := newSeries("processor time of a creation, server and directory included", "us")
	turn := time.Duration(r.o.seconds * float64(time.Second))
	if err := b.together(ctx, r.o.clients, turn/4, b.create, nil); err != nil {
		return err
	}
	for n := range r.o.rounds {
		if err := b.together(ctx, r.o.clients, turn, b.publish, plain); err != nil {
			return err
		}
		commits, written := b.pen.Stats()
		used := processSeconds()
		if err := b.together(ctx, r.o.clients, turn, b.create, pen); err != nil {
			return err
		}
		c, w := b.pen.Stats()
		grouped.add(float64(w-written) / float64(c-commits))
		cpu.add((processSeconds() - used) * 1e6 / float64(w-written))
		if err := top.turn(ctx, max(int(grouped.values[n]), 1), turn); err != nil {
			return err
		}
		if b.postgres != nil {
			if err := b.together(ctx, r.o.clients, turn, b.postgres.insert, inserts); err != nil {
				return err
			}
		}
		r.say("create: round %d: %.0f creations/s, %.0f publishes/s, ceilings %.0f and %.0f, %s",
			n+1, pen.values[n], plain.values[n], top.bare.values[n], top.applied.values[n], inserts.last())
	}
	alone, err := b.alone(ctx, r)
	if err != nil {
		return err
	}
	r.say("create: reading the ledger back")
	if err := errors.Join(b.check(ctx), top.check()); err != nil {
		return err
	}
	p := compared("create.concurrent", atLeast(10, "x plain JetStream publishes, fsync-always"), pen, plain)
	p.add(grouped.figure(), cpu.figure())
	p.add(top.figures(plain)...)
	p.add(constant("clients", "", float64(r.o.clients)), constant("event", "bytes", float64(len(b.payload))),
		constant("acknowledged and found exactly once", "events", float64(len(b.acked))))
	q := compared("create.postgres", atLeast(1, "x PostgreSQL's durable inserts under a unique hash"), pen, inserts)
	if without != nil {
		q.note("PostgreSQL was not measured: %v", without)
	}
	return errors.Join(r.publish(p), r.publish(alone), r.publish(q))
}

func (s *series) last() string {
	if len(s.values) == 0 {
		return "no " + s.name
	}
	return fmt.Sprintf("%.0f %s", s.values[len(s.values)-1], s.name)
}

// together lets clients act one after the other, all at once, for some time.
func (b *creation) together(ctx context.Context, clients int, long time.Duration, act func(context.Context) error, rate *series) error {
	var wg sync.WaitGroup
	var acts atomic.Int64
	failed := make(chan error, clients)
	began := time.Now()
	for range clients {
		wg.Go(func() {
			for time.Since(began) < long {
				if err := act(ctx); err != nil {
					failed <- err
					return
				}
				acts.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	select {
	case err := <-failed:
		return err
	default:
	}
	if rate != nil {
		rate.add(float64(acts.Load()) / took.Seconds())
	}
	return nil
}

// alone compares the latency of one creation at a time with that of one plain
// publish, a pair at a time: a disk's mood lasts longer than a pair.
func (b *creation) alone(ctx context.Context, r *run) (report, error) {
	const pairs = 100
	pen, plain := newSeries("one creation", "us"), newSeries("one plain publish", "us")
	timed := func(s *series, act func(context.Context) error) error {
		began := time.Now()
		err := act(ctx)
		s.add(float64(time.Since(began).Nanoseconds()) / 1000)
		return err
	}
	for range r.o.rounds {
		one, other := newSeries("", ""), newSeries("", "")
		for n := range pairs {
			first, second := b.create, b.publish
			s, t := one, other
			if n%2 == 1 {
				first, second, s, t = second, first, t, s
			}
			if err := errors.Join(timed(s, first), timed(t, second)); err != nil {
				return report{}, err
			}
		}
		pen.add(one.figure().Median)
		plain.add(other.figure().Median)
	}
	p := compared("create.alone", atMost(1.3, "x the latency of one plain publish"), pen, plain)
	p.add(constant("pairs in a round", "", pairs))
	return p, nil
}

// check reads the ledger back: its chain is whole, every acknowledged creation
// is there exactly once where the answer said, and nothing else was made. The
// limits must have stored what they acknowledged, too.
func (b *creation) check(ctx context.Context) error {
	head, err := b.pen.Ledger().Head(ctx)
	if err != nil {
		return err
	}
	found := make(map[token.ID]bool, len(b.acked))
	err = readAll(ctx, b.pen.Ledger(), head, func(r *events.Record) error {
		d, ok := r.Data.(*events.TokenCreated)
		if !ok {
			return nil
		}
		id := r.SubjectID()
		seq, acknowledged := b.acked[id]
		switch {
		case !acknowledged:
			return wrong("token %v is in the ledger, but nobody was told", id)
		case found[id]:
			return wrong("token %v was created twice", id)
		case seq != r.Seq:
			return wrong("token %v was acknowledged at sequence %d and is at %d", id, seq, r.Seq)
		case len(d.Grant.Policies) != 1 || d.Grant.Policies[0].Groups[0].ID != groupDNSWrite:
			return wrong("token %v has another grant: %+v", id, d.Grant)
		}
		found[id] = true
		return nil
	})
	if err != nil {
		return err
	}
	if len(found) != len(b.acked) {
		return wrong("%d creations were acknowledged, %d are in the ledger", len(b.acked), len(found))
	}
	s, err := b.js.Stream(ctx, stream.EventsStream)
	if err != nil {
		return err
	}
	if n := s.CachedInfo().State.Msgs; n != uint64(b.plain.Load()) {
		return fmt.Errorf("the plain stream holds %d messages, %d were acknowledged", n, b.plain.Load())
	}
	if b.postgres != nil {
		return b.postgres.check(ctx)
	}
	return nil
}

// readAll calls fn for every record up to a sequence.
func readAll(ctx context.Context, reader events.Reader, last uint64, fn func(*events.Record) error) error {
	done := errors.New("read to the end")
	err := reader.Read(ctx, events.Position{}, func(c events.Commit) error {
		for i := range c.Records {
			if err := fn(&c.Records[i]); err != nil {
				return err
			}
		}
		if c.Seq >= last {
			return done
		}
		return nil
	})
	if errors.Is(err, done) {
		return nil
	}
	return err
}
