package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events/feed"
	"watchword.dev/events/receipt"
	"watchword.dev/events/stream"
	"watchword.dev/events/token"
	"watchword.dev/projections/verifyindex"
)

// reporting compares verifications by a process that publishes receipts, with a
// revocation each second, with the same verifications by one that does not.
type reporting struct {
	w         *world
	x         *indexed
	asked     []question
	secrets   []string
	publisher *feed.Publisher
	stored    jetstream.Stream
}

func benchReceipts(ctx context.Context, r *run) error {
	dir, remove, err := r.sub("receipts")
	if err != nil {
		return err
	}
	defer remove()
	server, err := startLimit(filepath.Join(dir, "nats"), false, 64<<20)
	if err != nil {
		return err
	}
	defer server.stop()
	nc, err := server.connect(false)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	b := &reporting{w: newWorld(r.o.tokens, r.o.tokens)}
	if b.stored, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "RECEIPTS", Subjects: []string{stream.ReceiptPrefix + ">", stream.ProgressPrefix + ">"}}); err != nil {
		return err
	}
	if b.publisher, err = feed.NewPublisher(nc); err != nil {
		return err
	}
	r.say("receipts: an index of %d tokens", b.w.n)
	if b.x, err = fill(ctx, r, filepath.Join(dir, "index"), newMadeUp(b.w, fivePolicies), 16<<30); err != nil {
		return err
	}
	return errors.Join(b.run(ctx, r), b.x.close())
}

func (b *reporting) run(ctx context.Context, r *run) error {
	if err := b.x.ready(ctx); err != nil {
		return err
	}
	b.asked = b.w.questions(100_000)
	for i := range b.asked {
		b.secrets = append(b.secrets, b.w.secret(int(b.asked[i].token)))
	}
	span := time.Duration(max(r.o.seconds, 2) * float64(time.Second)) // in which two revocations fall at least
	with, without := newSeries("with receipts", "verify/cpu-s"), newSeries("without", "verify/cpu-s")
	for n := range r.o.rounds {
		for side := range 2 {
			var err error
			if (n+side)%2 == 0 {
				err = b.turn(ctx, with, span, true)
			} else {
				err = b.turn(ctx, without, span, false)
			}
			if err != nil {
				return err
			}
		}
	}
	info, err := b.stored.Info(ctx)
	if err != nil {
		return err
	}
	if least := uint64(r.o.rounds) * 3; info.State.LastSeq < least { // hello, revocations, bye
		return wrong("%d receipts are stored, want %d at least", info.State.LastSeq, least)
	}
	p := compared("receipts", atLeast(0.9, "x the verifications of a process without, for the same processor time"), with, without)
	p.add(constant("receipts", "", float64(info.State.LastSeq)), constant("tokens", "", float64(b.w.n)))
	return r.publish(p)
}

// turn verifies for a while and adds how many were verified in a second of
// processor time, the publishing and the server that stores included.
func (b *reporting) turn(ctx context.Context, s *series, span time.Duration, report bool) error {
	var reports *receipt.Reporter
	if report {
		var err error
		if reports, err = receipt.NewReporter(receipt.Config{
			Enforcer: token.ID{1}, Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), Publisher: b.publisher,
			Bound: verifyindex.Bounds{}.Longest(),
		}); err != nil {
			return err
		}
		reports.Applied(b.x.Position(), false)
		if err := reports.Hello(ctx); err != nil {
			return err
		}
		ctx, stop := context.WithCancel(ctx)
		var both sync.WaitGroup
		both.Go(func() { _ = reports.Run(ctx) }) // what was stored is counted
		both.Go(func() { revokeEachSecond(ctx, reports, b.x) })
		defer both.Wait()
		defer stop()
	}
	n, began, used := 0, time.Now(), processSeconds()
	for took := time.Duration(0); took < span; took = time.Since(began) {
		for range 1000 {
			q := &b.asked[n%len(b.asked)]
			if reports != nil && !reports.Counted() {
				return wrong("a process whose receipts are stored is not counted")
			}
			if d := b.x.Verify(b.secrets[n%len(b.asked)], &q.ask); !q.fits(&d) {
				return q.explain(&d)
			}
			n++
		}
	}
	s.add(float64(n) / (processSeconds() - used))
	return ctx.Err()
}

// revokeEachSecond says that a revocation was applied.
func revokeEachSecond(ctx context.Context, reports *receipt.Reporter, x *indexed) {
	at := x.Position()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		at.Seq, at.Number = at.Seq+1, at.Number+1
		reports.Applied(at, true)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
