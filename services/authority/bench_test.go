package authority_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/services/authority"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// instant is a log that answers at once and keeps nothing, so that what is
// measured is the pen. Pulses and the start go to a real one.
type instant struct {
	*eventstest.Log
	head *atomic.Uint64
}

func (i instant) Append(_ context.Context, at events.Position, _ string, _ []byte) error {
	i.head.Store(at.Seq + 1)
	return nil
}

func (i instant) Head(context.Context) (uint64, error) { return i.head.Load(), nil }

// following applies what the pen has acknowledged without reading a log.
type following struct {
	*authoritytest.Directory
	pen *authority.Pen
}

func (f *following) Position() events.Position {
	at := f.Directory.Position()
	if f.pen != nil {
		at.Seq = max(at.Seq, f.pen.Stats().Sequence)
	}
	return at
}

func benchPen(b *testing.B) (*authoritytest.Installation, *authority.Pen) {
	people := authoritytest.NewInstallation()
	past := &following{Directory: authoritytest.NewDirectory()}
	log := eventstest.NewLedger().Connect()
	head := new(atomic.Uint64)
	cfg := people.Config("node-a", instant{log, head}, log, past)
	cfg.Sole = true
	pen, err := authority.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	// The people are put into the directory by hand: this log keeps nothing.
	at, ids := events.Position{}, people.NewID
	for _, cmd := range people.People() {
		out, err := authority.Decide(past, command.Caller{System: true}, cmd, time.Now(), ids)
		if err != nil {
			b.Fatal(err)
		}
		_, c, err := events.Compose(at, []events.Draft{out.Draft})
		if err != nil {
			b.Fatal(err)
		}
		if err := past.Apply(&c); err != nil {
			b.Fatal(err)
		}
		at = c.End
	}
	head.Store(at.Seq)
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = pen.Run(ctx) })
	b.Cleanup(func() { cancel(); group.Wait() })
	if err := pen.Await(ctx, authority.Active); err != nil {
		b.Fatal(err)
	}
	past.pen = pen
	return people, pen
}

func BenchmarkCreateAlone(b *testing.B) {
	people, pen := benchPen(b)
	me := authoritytest.ByKey(people.Operator)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := pen.Do(context.Background(), me, people.Create()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreate64(b *testing.B) {
	people, pen := benchPen(b)
	me := authoritytest.ByKey(people.Operator)
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := pen.Do(context.Background(), me, people.Create()); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
