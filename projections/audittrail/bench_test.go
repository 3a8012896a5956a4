package audittrail

import (
	"encoding/binary"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/proof"
	"watchword.dev/projections/projectiontest"
)

// grow applies a ledger of n events and a few more, 1,000 in a batch. The events
// are one event with another number in its line: the reader is not measured.
func grow(t testing.TB, n int, p *Trail) {
	t.Helper()
	l := &ledger{t: t}
	l.tell("log/"+eventstest.ID(1).String(), &events.LogOpened{Installation: eventstest.ID(1), Brand: "ww", PulseKey: make([]byte, 32)})
	if err := p.Apply(l.past); err != nil {
		t.Fatal(err)
	}
	_, like, err := events.Compose(events.Position{}, eventstest.Drafts(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	c := events.Commit{Records: make([]events.Record, 1000)}
	for i := range c.Records {
		c.Records[i] = like.Records[0]
		c.Records[i].Line = slices.Clone(like.Records[0].Line)
	}
	for at := l.at; int(at.Number) < n; {
		at.Seq++
		for i := range c.Records {
			r := &c.Records[i]
			at.Number++
			r.Number, r.Prev = at.Number, at.Hash
			binary.BigEndian.PutUint64(r.Line, r.Number)
			at.Hash = r.Hash
		}
		c.Seq, c.End = at.Seq, at
		if err := p.Apply([]events.Commit{c}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAskWhileGrowing: questions and growth do not disturb each other.
func TestAskWhileGrowing(t *testing.T) {
	rng := projectiontest.Seed(t)
	story := projectiontest.Tell(rng, 400)
	p, m := openMem(t, vfs.NewMem()), newModel(story.Commits)
	if err := p.Apply(story.Commits[:10]); err != nil {
		t.Fatal(err)
	}
	root := m.hash(0, 10)
	var asking sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		asking.Go(func() {
			for {
				size := p.Size()
				h, err := p.Head(size)
				if err != nil {
					t.Error(err)
					return
				}
				hashes, err := p.Consistency(10, size)
				if err == nil {
					err = proof.CheckConsistency(hashes, size, h.Root, 10, root)
				}
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	projectiontest.ApplyAll(t, rng, p, story.Commits[10:])
	close(done)
	asking.Wait()
}

// BenchmarkApply is the tree alone: 1,000 events in a batch, hashed and stored on
// the machine's disk.
func BenchmarkApply(b *testing.B) {
	size := uint64(0)
	for b.Loop() {
		p, err := Open(Options{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		grow(b, 200_000, p)
		size = p.Size()
		if err := p.Store().DB().Flush(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(p.Store().DiskBytes())/float64(size), "disk-bytes/event")
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkAsk asks a tree of a million leaves.
func BenchmarkAsk(b *testing.B) {
	p, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	grow(b, 1_000_000, p)
	size, i := p.Size(), uint64(0)
	next := func() uint64 { i += 0x9e3779b97f4a7c15; return 1 + i%size }
	run := func(name string, ask func() error) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("inclusion", func() error { _, err := p.Inclusion(next(), size); return err })
	run("consistency", func() error { _, err := p.Consistency(next(), size); return err })
	run("head", func() error { _, err := p.Head(next()); return err })
	run("leaves", func() error {
		_, err := p.Tile(proof.Tile{Index: next() % (size / proof.TileWidth), Width: proof.TileWidth})
		return err
	})
	run("level1", func() error {
		_, err := p.Tile(proof.Tile{Level: 1, Index: next() % (size >> 16), Width: proof.TileWidth})
		return err
	})
}
