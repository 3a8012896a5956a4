// Package embedtest starts a real cluster of NATS servers on loopback, with the
// users, permissions and streams of an installation, for tests.
package embedtest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"watchword.dev/services/internal/embed"
)

// Deadline bounds everything that a cluster is waited for.
const Deadline = 60 * time.Second

// Cluster is a running cluster. Its methods fail the test.
type Cluster struct {
	// Servers are the members; nil where one is stopped.
	Servers []*embed.Server
	// Seeds is the directory with <role>.seed.
	Seeds string

	t       testing.TB
	configs []embed.ClusterConfig
	keys    map[embed.Role]nkeys.KeyPair
	log     *slog.Logger
}

// Start starts n servers, waits until they agree, and creates the streams with
// n replicas. The test's end stops them.
func Start(t testing.TB, n int) *Cluster {
	t.Helper()
	dir := t.TempDir()
	keys, err := embed.EnsureSeeds(dir, append(embed.Seeds(), embed.Operator)...)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{
		Servers: make([]*embed.Server, n), Seeds: dir, t: t, keys: keys,
		log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
	}
	client, route := freeAddrs(t, n), freeAddrs(t, n)
	var routes []string
	for _, r := range route {
		routes = append(routes, "nats://"+r)
	}
	for i := range n {
		c.configs = append(c.configs, embed.ClusterConfig{
			ServerName: fmt.Sprintf("n%d", i+1), Listen: client[i],
			StoreDir: filepath.Join(dir, fmt.Sprintf("n%d", i+1)), MaxStoreBytes: 1 << 30,
			ClusterName: "watchword", ClusterListen: route[i], Routes: routes,
		})
		c.start(i)
	}
	t.Cleanup(func() {
		for _, s := range c.Servers {
			if s != nil {
				s.Shutdown()
			}
		}
	})
	c.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), Deadline)
	defer cancel()
	if err := embed.Create(ctx, c.Connect(embed.Operator), embed.Streams{Replicas: n, EventsMaxBytes: 256 << 20}); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	return c
}

// start starts member i.
func (c *Cluster) start(i int) {
	c.t.Helper()
	s, err := embed.StartMember(c.configs[i], c.keys, c.log)
	if err != nil {
		c.t.Fatal(err)
	}
	c.Servers[i] = s
}

// Stop stops member i.
func (c *Cluster) Stop(i int) {
	c.Servers[i].Shutdown()
	c.Servers[i] = nil
}

// Restart starts member i again, on its store.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	c.start(i)
}

// Wait waits until every running member says that it is healthy, which
// includes that its replicas have caught up.
func (c *Cluster) Wait() {
	c.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(Deadline)
	for {
		var sick error
		for _, s := range c.Servers {
			if s != nil && sick == nil {
				sick = s.Health()
			}
		}
		if sick == nil {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			c.t.Fatalf("the cluster did not become healthy: %v", sick)
		}
	}
}

// URL is the list of all members' client URLs.
func (c *Cluster) URL() string {
	var urls []string
	for _, cfg := range c.configs {
		urls = append(urls, "nats://"+cfg.Listen)
	}
	return strings.Join(urls, ",")
}

// SeedFile is the path of the seed of a role.
func (c *Cluster) SeedFile(r embed.Role) string { return embed.SeedFile(c.Seeds, r) }

// Connect gives a connection over TCP as a role, which the test's end closes.
func (c *Cluster) Connect(r embed.Role, opts ...nats.Option) *nats.Conn {
	c.t.Helper()
	o, err := embed.Options(r, c.SeedFile(r), c.log)
	if err != nil {
		c.t.Fatal(err)
	}
	nc, err := nats.Connect(c.URL(), append(o, opts...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(nc.Close)
	return nc
}

// freeAddrs gives n different free addresses of loopback.
func freeAddrs(t testing.TB, n int) []string {
	t.Helper()
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all together, so that none comes twice
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}
