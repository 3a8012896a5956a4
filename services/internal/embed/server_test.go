package embed

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// testConfig is a small embedded server in a directory of the test.
func testConfig(t *testing.T) Config {
	t.Helper()
	return Config{
		Dir:            filepath.Join(t.TempDir(), "nats"),
		MaxStoreBytes:  1 << 30,
		EventsMaxBytes: 64 << 20,
		Log:            slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
}

// start starts a server that the test stops.
func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// connect gives a connection that the test closes.
func connect(t *testing.T, s *Server, r Role, opts ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := s.Connect(r, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// bounded is a context for calls that answer at once or never.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestFirstStart checks that the first start makes the streams as wanted, that
// a pen can append and a reader can read, and that both hold after a restart.
func TestFirstStart(t *testing.T) {
	cfg := testConfig(t)
	s := start(t, cfg)
	_, pen := connect(t, s, Pen)
	_, node := connect(t, s, Node)
	for _, want := range (Streams{Replicas: 1, EventsMaxBytes: cfg.EventsMaxBytes}).Configs() {
		st, err := node.Stream(bounded(t), want.Name)
		if err != nil {
			t.Fatal(want.Name, err)
		}
		if err := same(want, st.CachedInfo().Config); err != nil {
			t.Error(err)
		}
	}
	if _, err := pen.Publish(bounded(t), "ww.event.log.opened", []byte("one"), jetstream.WithExpectLastSequence(0)); err != nil {
		t.Fatal(err)
	}
	s.Shutdown()

	s = start(t, cfg)
	_, reader := connect(t, s, Reader)
	if got := readAll(t, reader, EventsStream); len(got) != 1 || string(got[0].Data) != "one" {
		t.Errorf("after a restart: %v", got)
	}
	if err := s.Health(); err != nil {
		t.Error(err)
	}
}

// readAll reads a stream with an ordered consumer up to its last message.
func readAll(t *testing.T, js jetstream.JetStream, stream string) []*jetstream.RawStreamMsg {
	t.Helper()
	st, err := js.Stream(bounded(t), stream)
	if err != nil {
		t.Fatal(err)
	}
	last := st.CachedInfo().State.LastSeq
	if st.CachedInfo().State.Msgs == 0 {
		return nil
	}
	c, err := st.OrderedConsumer(bounded(t), jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		t.Fatal(err)
	}
	it, err := c.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer it.Stop()
	var all []*jetstream.RawStreamMsg
	for {
		m, err := it.Next(jetstream.NextMaxWait(10 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		md, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, &jetstream.RawStreamMsg{
			Subject: m.Subject(), Sequence: md.Sequence.Stream, Header: m.Headers(), Data: m.Data(), Time: md.Timestamp,
		})
		if md.Sequence.Stream == last {
			return all
		}
	}
}

// TestInterrupted checks each state that a crash of the first start leaves
// behind, and that a lost stream is never replaced by an empty one.
func TestInterrupted(t *testing.T) {
	mark := func(t *testing.T, cfg Config, from, to string) {
		t.Helper()
		if err := os.Rename(filepath.Join(cfg.Dir, from), filepath.Join(cfg.Dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	stream := func(cfg Config, account, name string) string {
		return filepath.Join(cfg.Dir, "jetstream", account, "streams", name)
	}
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, cfg Config)
		write  bool // an event is written first
		want   error
	}{
		{name: "no change", damage: func(*testing.T, Config) {}, write: true},
		{name: "before any stream", damage: func(t *testing.T, cfg Config) {
			mark(t, cfg, markDone, markStarted)
			if err := os.RemoveAll(filepath.Join(cfg.Dir, "jetstream")); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "before the events stream", damage: func(t *testing.T, cfg Config) {
			mark(t, cfg, markDone, markStarted)
			if err := os.RemoveAll(stream(cfg, accountEvents, EventsStream)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "before the rename", damage: func(t *testing.T, cfg Config) { mark(t, cfg, markDone, markStarted) }},
		{name: "ledger in use called new", write: true, want: ErrNotEmpty,
			damage: func(t *testing.T, cfg Config) { mark(t, cfg, markDone, markStarted) }},
		{name: "marker lost", write: true, want: ErrNotEmpty, damage: func(t *testing.T, cfg Config) {
			if err := os.Remove(filepath.Join(cfg.Dir, markDone)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "events lost", write: true, want: ErrStreamMissing, damage: func(t *testing.T, cfg Config) {
			if err := os.RemoveAll(stream(cfg, accountEvents, EventsStream)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "keys lost", want: ErrStreamMissing, damage: func(t *testing.T, cfg Config) {
			if err := os.RemoveAll(stream(cfg, accountKeys, KeysStream)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "receipts lost", want: ErrStreamMissing, damage: func(t *testing.T, cfg Config) {
			if err := os.RemoveAll(stream(cfg, accountReceipts, ReceiptsStream)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "store of an earlier version", write: true, damage: func(t *testing.T, cfg Config) {
			for account, name := range map[string]string{accountReceipts: ReceiptsStream, accountProgress: ProgressStream, accountUsage: UsageStream} {
				if err := os.RemoveAll(stream(cfg, account, name)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(cfg.Dir, markDone), []byte("the first start has begun\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "store lost", want: ErrStreamMissing, damage: func(t *testing.T, cfg Config) {
			if err := os.RemoveAll(filepath.Join(cfg.Dir, "jetstream")); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig(t)
			s := start(t, cfg)
			if tt.write {
				_, pen := connect(t, s, Pen)
				if _, err := pen.Publish(bounded(t), "ww.event.log.opened", []byte("one")); err != nil {
					t.Fatal(err)
				}
			}
			s.Shutdown()
			tt.damage(t, cfg)
			s, err := Start(cfg)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			defer s.Shutdown()
			if _, err := os.Stat(filepath.Join(cfg.Dir, markDone)); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(cfg.Dir, markStarted)); !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		})
	}
}

// TestLocked checks that two servers never share a store, and that the lock
// ends with the server.
func TestLocked(t *testing.T) {
	cfg := testConfig(t)
	s := start(t, cfg)
	if _, err := Start(cfg); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second server: %v", err)
	}
	s.Shutdown()
	start(t, cfg)
}

// TestListen checks that an address with a free port is told truthfully, that
// the seed files log in over TCP, and that nothing listens without an address.
func TestListen(t *testing.T) {
	cfg := testConfig(t)
	s := start(t, cfg)
	if u := s.ClientURL(); u != "" {
		t.Errorf("a server without a listener says %q", u)
	}
	s.Shutdown()

	cfg.Listen = "127.0.0.1:0"
	s = start(t, cfg)
	for _, r := range Roles() {
		opts, err := Options(r, s.SeedFile(r), cfg.Log)
		if err != nil {
			t.Fatal(err)
		}
		nc, err := nats.Connect(s.ClientURL(), opts...)
		if err != nil {
			t.Fatalf("%s: %v", r, err)
		}
		nc.Close()
	}
	// Nobody answers for strangers here: the server waits, and then refuses.
	if nc, err := nats.Connect(s.ClientURL(), nats.Timeout(time.Minute)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("without a credential: %v, %v", nc, err)
	}
	for _, bad := range []string{"127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "127.0.0.1:-2"} {
		c := testConfig(t)
		c.Listen = bad
		if s, err := Start(c); err == nil {
			s.Shutdown()
			t.Errorf("listen address %q was taken", bad)
		}
	}
}

// TestPlainClient checks that a client that knows nothing of ours but the URL
// and a seed file can read and follow the events.
func TestPlainClient(t *testing.T) {
	cfg := testConfig(t)
	cfg.Listen = "127.0.0.1:0"
	s := start(t, cfg)
	seed, err := nats.NkeyOptionFromSeed(s.SeedFile(Reader))
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(s.ClientURL(), seed)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	live, err := nc.SubscribeSync("ww.live.core.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushWithContext(bounded(t)); err != nil {
		t.Fatal(err)
	}
	_, pen := connect(t, s, Pen)
	if _, err := pen.Publish(bounded(t), "ww.event.token.created", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if _, err := pen.Publish(bounded(t), "ww.pulse", []byte("beat")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ww.live.core.token.created", "ww.live.core.pulse"} {
		m, err := live.NextMsg(10 * time.Second)
		if err != nil || m.Subject != want || m.Header.Get("Nats-Sequence") != "1" {
			t.Fatalf("%s: %+v, %v", want, m, err)
		}
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, js, EventsStream); len(got) != 1 || got[0].Subject != "ww.event.token.created" {
		t.Errorf("read %v", got)
	}
	st, err := js.Stream(bounded(t), EventsStream)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := st.GetMsg(bounded(t), 1); err != nil || string(m.Data) != "one" {
		t.Errorf("by sequence: %v, %v", m, err)
	}
	if m, err := st.GetLastMsgForSubject(bounded(t), "ww.event.token.created"); err != nil || m.Sequence != 1 {
		t.Errorf("by subject: %v, %v", m, err)
	}
	c, err := st.CreateConsumer(bounded(t), jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := c.Next(jetstream.FetchMaxWait(10 * time.Second)); err != nil || string(m.Data()) != "one" {
		t.Errorf("by a consumer of its own: %v, %v", m, err)
	}
}

// TestSeeds checks that seeds are private and survive, and that a seed that
// others can read is refused.
func TestSeeds(t *testing.T) {
	cfg := testConfig(t)
	s := start(t, cfg)
	for _, r := range Seeds() {
		st, err := os.Stat(s.SeedFile(r))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", r, st.Mode())
		}
	}
	if _, err := os.Stat(s.SeedFile(Operator)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the operator left a seed: %v", err)
	}
	if _, err := s.Connect(Operator); err == nil {
		t.Error("the operator can still log in")
	}
	st, err := os.Stat(cfg.Dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", st.Mode(), err)
	}
	before, err := os.ReadFile(s.SeedFile(Pen))
	if err != nil {
		t.Fatal(err)
	}
	s.Shutdown()
	s = start(t, cfg)
	after, err := os.ReadFile(s.SeedFile(Pen))
	if err != nil || string(before) != string(after) {
		t.Errorf("a restart changed a seed: %v", err)
	}
	s.Shutdown()
	if err := os.Chmod(s.SeedFile(Reader), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := Start(cfg); err == nil {
		s.Shutdown()
		t.Error("a seed that all can read was taken")
	}
}
