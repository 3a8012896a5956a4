package embed

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events"
	"watchword.dev/events/feed"
	"watchword.dev/events/stream"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/verifyindex"
)

// TestIndexByFeed lets an index follow the feed of a server that is started
// anew in the middle, with the rights of a reader: it becomes the index that the
// ledger makes, and the pulses of the feed make it fresh.
func TestIndexByFeed(t *testing.T) {
	rng := projectiontest.Seed(t)
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	cfg := testConfig(t)
	cfg.Listen = "127.0.0.1:0"
	s := start(t, cfg)
	cfg.Listen = s.ClientURL()[len("nats://"):]
	nc, err := feed.Connect(s.ClientURL(), s.SeedFile(Reader), string(Reader), cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	open := func() *verifyindex.Index {
		x, err := verifyindex.Open(verifyindex.Options{Dir: t.TempDir(), MemoryBytes: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { x.Close() })
		return x
	}
	x := open()
	r := feed.New(nc, feed.Config{PulseKey: key.Public().(ed25519.PublicKey), Pulse: x.Observe, Log: cfg.Log})
	run := x.Follow(r, projector.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run.Run(ctx) }()

	story, told := projectiontest.Tell(rng, 200), uint64(0)
	tell := func() {
		t.Helper()
		write(t, s, story, told, key)
		told = story.At.Seq
		if err := x.Wait(ctx, told); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			story.Step()
		}
	}
	tell()
	tell()
	s.Shutdown()
	s = start(t, cfg)
	tell()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for { // until the pulse is heard
		if d := x.Verify(projectiontest.NewSecret(rng, token.KindUser), &token.Request{Permission: "dns.records.read"}); d.Reason != token.ReasonNotReady {
			break
		}
		select {
		case <-tick.C:
		case err := <-done:
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	clean := open()
	projectiontest.ApplyAll(t, rng, clean, story.Commits[:told])
	if got, want := rowsOf(t, x), rowsOf(t, clean); got != want {
		t.Errorf("rows differ\n got %s\nwant %s", got, want)
	}
	if err := x.Diverged(); err != nil {
		t.Error(err)
	}
}

// write appends what the story has behind told, and a pulse of its end.
func write(t *testing.T, s *Server, story *projectiontest.Story, told uint64, key ed25519.PrivateKey) {
	t.Helper()
	nc, _ := connect(t, s, Pen)
	pen, err := stream.Open(t.Context(), nc, stream.Config{AppendTimeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	story.Publish(t, pen, told)
	_, last, err := pen.LastPulse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := story.At
	b, err := events.Pulse{Term: 1, Epoch: at.Epoch, Sequence: at.Seq, Number: at.Number, Chain: hex.EncodeToString(at.Hash[:]), Time: time.Now()}.Sign(key)
	if err == nil {
		_, err = pen.StorePulse(t.Context(), last, b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// rowsOf returns all rows of an index.
func rowsOf(t *testing.T, x *verifyindex.Index) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "snapshot")
	if err := x.Snapshot(dir); err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open(dir, &pebble.Options{ReadOnly: true, FormatMajorVersion: pebble.FormatNewest})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	return projectiontest.Dump(t, db)
}
