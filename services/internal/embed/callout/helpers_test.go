package callout_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/embed"
	"watchword.dev/services/internal/embed/callout"
)

// deadline bounds everything that a test waits for.
const deadline = 60 * time.Second

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// ledger is a callout.Directory in memory.
type ledger struct {
	ids *token.Generator

	mu        sync.Mutex
	nkeys     map[string]aggregate.Credential
	enforcers map[token.ID]aggregate.Enforcer
	consumers map[token.ID]aggregate.Consumer
	broken    error
}

func newLedger() *ledger {
	return &ledger{
		ids: token.NewGenerator(nil), nkeys: map[string]aggregate.Credential{},
		enforcers: map[token.ID]aggregate.Enforcer{}, consumers: map[token.ID]aggregate.Consumer{},
	}
}

func (l *ledger) ByNkey(public string) (aggregate.Credential, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.nkeys[public]
	return c, ok, l.broken
}

func (l *ledger) Enforcer(id token.ID) (aggregate.Enforcer, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.enforcers[id]
	return n, ok, l.broken
}

func (l *ledger) Consumer(id token.ID) (aggregate.Consumer, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.consumers[id]
	return n, ok, l.broken
}

// fail makes every look-up fail until it is given nil.
func (l *ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = err
}

// member is somebody enrolled, with the private half of the nkey.
type member struct {
	id   token.ID
	role embed.Role
	key  nkeys.KeyPair
}

// enroll enrolls somebody new.
func (l *ledger) enroll(t *testing.T, r embed.Role) member {
	t.Helper()
	m := member{id: l.ids.New(), role: r, key: newKey(t)}
	l.set(t, m, aggregate.Active)
	return m
}

func (l *ledger) retire(t *testing.T, m member) { t.Helper(); l.set(t, m, aggregate.Revoked) }

func (l *ledger) set(t *testing.T, m member, s aggregate.Status) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	public := public(t, m.key)
	switch m.role {
	case embed.Enforcer:
		l.enforcers[m.id] = aggregate.Enforcer{ID: m.id, Nkey: public, Status: s, Seq: 1}
		l.nkeys[public] = aggregate.Credential{Kind: token.KindEnforcer, ID: m.id}
	case embed.Consumer:
		l.consumers[m.id] = aggregate.Consumer{ID: m.id, Nkey: public, Status: s, Seq: 1}
		l.nkeys[public] = aggregate.Credential{Kind: token.KindConsumer, ID: m.id}
	default:
		t.Fatalf("%s does not enroll", m.role)
	}
}

func newKey(t *testing.T) nkeys.KeyPair {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(t *testing.T, key nkeys.KeyPair) string {
	t.Helper()
	pub, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

// options are those of a client with this key and inbox. It does not come back
// when it is cut off.
func options(t *testing.T, key nkeys.KeyPair, inbox string, more ...nats.Option) []nats.Option {
	t.Helper()
	return append([]nats.Option{
		nats.Nkey(public(t, key), key.Sign), nats.CustomInboxPrefix(inbox), nats.NoReconnect(), nats.Timeout(deadline),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, more...)
}

// login connects as m, which must succeed.
func login(t *testing.T, url string, m member, more ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, options(t, m.key, m.role.InboxPrefixOf(m.id), more...)...)
	if err != nil {
		t.Fatalf("%s: %v", m.role, err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// refused checks that a key cannot log in, and that the client hears nothing
// but that.
func refused(t *testing.T, url, who string, key nkeys.KeyPair, more ...nats.Option) {
	t.Helper()
	nc, err := nats.Connect(url, options(t, key, "_INBOX_x", more...)...)
	if err == nil {
		nc.Close()
		t.Errorf("%s got in", who)
		return
	}
	if !errors.Is(err, nats.ErrAuthorization) || !strings.EqualFold(err.Error(), nats.ErrAuthorization.Error()) {
		t.Errorf("%s: %v", who, err)
	}
}

// standalone starts an embedded server.
func standalone(t *testing.T) *embed.Server {
	t.Helper()
	s, err := embed.Start(embed.Config{
		Dir: filepath.Join(t.TempDir(), "nats"), Listen: "127.0.0.1:0", MaxStoreBytes: 1 << 30, EventsMaxBytes: 64 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// seeds reads the two keys of a callout.
func seeds(t *testing.T, file func(embed.Role) string) (issuer, sealer nkeys.KeyPair) {
	t.Helper()
	read := func(r embed.Role) nkeys.KeyPair {
		key, err := embed.ReadSeed(r, file(r))
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	return read(embed.Issuer), read(embed.Sealer)
}

// serve answers logins over nc until the test ends.
func serve(t *testing.T, nc *nats.Conn, file func(embed.Role) string, l *ledger, change ...func(*callout.Config)) *callout.Service {
	t.Helper()
	cfg := callout.Config{
		Conn: nc, Directory: l, Fresh: func(context.Context) error { return nil },
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	cfg.Issuer, cfg.Sealer = seeds(t, file)
	for _, f := range change {
		f(&cfg)
	}
	s := callout.New(cfg)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// auth connects as the role that answers.
func auth(t *testing.T, s *embed.Server) *nats.Conn {
	t.Helper()
	nc, err := s.Connect(embed.Auth)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}
