package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"watchword.dev/events/enforcer"
	"watchword.dev/events/stream"
	"watchword.dev/events/token"
	"watchword.dev/projections/localindex"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/projector/snapshot"
	"watchword.dev/projections/verifyindex"
)

// bootstrap compares the two ways to fill the index of an enforcing process: from
// a verifier's snapshot over HTTP, and by reading the ledger.
type bootstrap struct {
	replay
	taken *snapshot.Snapshot
	url   string
}

func benchSnapshot(ctx context.Context, r *run) error {
	dir, remove, err := r.sub("snapshot")
	if err != nil {
		return err
	}
	defer remove()
	b := bootstrap{replay: replay{w: newWorld(r.o.tokens, 0), dir: dir}}
	if b.server, err = startLimit(filepath.Join(dir, "nats"), false, int64(r.o.tokens)*4096+64<<20); err != nil {
		return err
	}
	defer b.server.stop()
	r.say("snapshot: writing a stream of %d events", r.o.tokens)
	if err := b.write(ctx, r.o.group); err != nil {
		return err
	}
	taking, err := b.take(ctx)
	if err != nil {
		return err
	}
	stop, err := b.serve()
	if err != nil {
		return err
	}
	defer stop()
	debug.FreeOSMemory()
	loads, replays := newSeries("from a snapshot", "s"), newSeries("by reading the ledger", "s")
	for n := range r.o.rounds {
		for side := range 2 {
			var took time.Duration
			if (n+side)%2 == 0 {
				took, err = b.load(ctx)
				loads.add(took.Seconds())
			} else {
				took, _, err = b.build(ctx)
				replays.add(took.Seconds())
			}
			if err != nil {
				return err
			}
			debug.FreeOSMemory()
		}
		r.say("snapshot: round %d: loaded in %.2f s, replayed in %.2f s", n+1, loads.values[n], replays.values[n])
	}
	p := compared("snapshot", atMost(0.5, "x the replay of the same tokens in bulk"), loads, replays)
	p.add(constant("taking it", "s", taking.Seconds()), constant("size", "MB", float64(b.taken.Size())/1e6), constant("tokens", "", float64(b.w.n)))
	return r.publish(p)
}

// take takes the snapshot of an index that has read all.
func (b *bootstrap) take(ctx context.Context) (time.Duration, error) {
	nc, err := b.server.connect(false)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	ledger, err := stream.Open(ctx, nc, stream.Config{})
	if err != nil {
		return 0, err
	}
	x, err := verifyindex.Open(verifyindex.Options{Dir: filepath.Join(b.dir, "verifier"), MemoryBytes: 16 << 30})
	if err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	runner, ended := x.Follow(ledger, projector.Options{}), make(chan error, 1)
	go func() { ended <- runner.Run(ctx) }()
	err = x.Wait(ctx, b.end.Seq)
	began := time.Now()
	if err == nil {
		b.taken, err = snapshot.Take(x, filepath.Join(b.dir, "taken"))
	}
	took := time.Since(began)
	stop()
	<-ended
	return took, errors.Join(err, x.Close())
}

// serve serves the snapshot as a node does, but for whom it lets in.
func (b *bootstrap) serve() (stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := b.taken.Open()
		defer in.Close()
		w.Header().Set("Etag", `"`+b.taken.Digest+`"`)
		w.Header().Set("Content-Type", snapshot.ContentType)
		http.ServeContent(w, r, "", time.Time{}, in)
	}), ReadHeaderTimeout: time.Minute}
	go s.Serve(l)
	b.url = "http://" + l.Addr().String()
	return func() { s.Close() }, nil
}

// load fills the index of an enforcing process. The clock stops when it could
// answer, but for the first pulse.
func (b *bootstrap) load(ctx context.Context) (time.Duration, error) {
	dir := filepath.Join(b.dir, "enforcer")
	key, err := token.Format{}.Generate(token.KindEnforcer)
	if err != nil {
		return 0, err
	}
	client, err := enforcer.NewClient(enforcer.ClientConfig{URLs: []string{b.url}, Key: key})
	if err != nil {
		return 0, err
	}
	defer client.Close()
	began := time.Now()
	x, err := localindex.Open(ctx, localindex.Config{
		Dir: dir, Enforcer: token.ID{1}, Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), Publisher: client,
		Snapshots: client, MemoryBytes: 16 << 30,
	})
	took := time.Since(began)
	if err != nil {
		return took, err
	}
	if at := x.Position(); at.Seq != b.end.Seq || at.Hash != b.end.Hash || x.Stats().Tokens != int64(b.w.n) {
		err = wrong("after the load the index is at %d with %d tokens, want %d with %d", at.Seq, x.Stats().Tokens, b.end.Seq, b.w.n)
	}
	return took, errors.Join(err, x.Close(), os.RemoveAll(dir))
}
