package keyring_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"watchword.dev/events"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/embed"
	"watchword.dev/services/internal/embed/embedtest"
	"watchword.dev/services/internal/keyring"
)

// connector gives connections as a role.
type connector interface {
	Connect(embed.Role, ...nats.Option) (*nats.Conn, error)
}

// jetStream opens a keyring over a connection of its own.
func jetStream(t *testing.T, c connector, r embed.Role, m keyring.Master) *keyring.Keyring {
	t.Helper()
	nc, err := c.Connect(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	s, err := keyring.NewJetStreamStore(t.Context(), nc, embed.KeysBucket)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, s, m)
}

// agree seals for the same people from several nodes at once and checks that
// every node opens what any has sealed, and that the pen can erase.
func agree(t *testing.T, pen *keyring.Keyring, nodes []*keyring.Keyring, again func() *keyring.Keyring) {
	t.Helper()
	const people = 20
	sealed := make([][people]events.Sealed, len(nodes))
	var wg sync.WaitGroup
	for i, k := range nodes {
		wg.Go(func() {
			for p := range people {
				s, err := k.Seal(t.Context(), token.ID{1, byte(p)}, fmt.Sprint(i, p))
				if err != nil {
					t.Errorf("node %d: %v", i, err)
					return
				}
				sealed[i][p] = s
			}
		})
	}
	wg.Wait()
	for i := range nodes {
		for p := range people {
			for _, k := range append(nodes, pen) {
				if got, err := k.Unseal(t.Context(), sealed[i][p]); err != nil || got != fmt.Sprint(i, p) {
					t.Errorf("sealed by %d for %d: %q, %v", i, p, got, err)
				}
			}
		}
	}
	if err := pen.Erase(t.Context(), token.ID{1, 0}); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*keyring.Keyring{pen, again()} {
		if _, err := k.Unseal(t.Context(), sealed[0][0]); !errors.Is(err, keyring.ErrErased) {
			t.Errorf("erased: %v", err)
		}
		if got, err := k.Unseal(t.Context(), sealed[0][1]); err != nil || got != "0 1" {
			t.Errorf("another person: %q, %v", got, err)
		}
	}
	s := seal(t, again(), token.ID{1, 0}, "after")
	if got, err := again().Unseal(t.Context(), s); err != nil || got != "after" {
		t.Errorf("sealed after the erasure: %q, %v", got, err)
	}
}

// TestJetStream runs the promises of a store on an embedded server, with the
// credentials of an installation.
func TestJetStream(t *testing.T) {
	s, err := embed.Start(embed.Config{Dir: filepath.Join(t.TempDir(), "nats"), MaxStoreBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	m := keyring.NewMaster()
	again := func() *keyring.Keyring { return jetStream(t, s, embed.Node, m) }
	agree(t, jetStream(t, s, embed.Pen, m), []*keyring.Keyring{again(), again(), again()}, again)

	nc, err := s.Connect(embed.Node)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	store, err := keyring.NewJetStreamStore(t.Context(), nc, embed.KeysBucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.Open(t.Context(), store, keyring.NewMaster()); !errors.Is(err, keyring.ErrMaster) {
		t.Errorf("another master key: %v", err)
	}
	if _, err := store.Get(t.Context(), "nobody"); !errors.Is(err, keyring.ErrNotFound) {
		t.Errorf("absent: %v", err)
	}
	for range 2 {
		want := error(nil)
		if _, err := store.Get(t.Context(), "x"); err == nil {
			want = keyring.ErrExists
		}
		if err := store.Create(t.Context(), "x", []byte("1")); !errors.Is(err, want) {
			t.Errorf("create: %v, want %v", err, want)
		}
	}
}

// TestCluster runs the same with three members, each node on another.
func TestCluster(t *testing.T) {
	c := embedtest.Start(t, 3)
	m := keyring.NewMaster()
	var nodes []*keyring.Keyring
	for _, s := range c.Servers {
		nodes = append(nodes, jetStream(t, s, embed.Node, m))
	}
	again := func() *keyring.Keyring { return jetStream(t, c.Servers[0], embed.Node, m) }
	agree(t, jetStream(t, c.Servers[1], embed.Pen, m), nodes, again)
}
