// Package natstest runs nats-servers inside a test: one, or a cluster of three
// on loopback, all with JetStream that waits for the disk at every write.
package natstest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events/stream"
)

// Patience bounds every wait for servers to become ready.
const Patience = 60 * time.Second

// MaxBytes is the size limit of the streams that CreateStreams makes.
const MaxBytes = 256 << 20

// The users of the two accounts: the ledger's, and the system's.
const (
	user       = "watchword"
	systemUser = "system"
	password   = "on loopback only"
)

// Cluster is some nats-servers that end with their test.
type Cluster struct {
	t       testing.TB
	servers []*server.Server
	options []*server.Options
}

// Start starts nodes servers, one or three, and waits until they serve. change
// may alter the options of each before it starts.
func Start(t testing.TB, nodes int, change ...func(*server.Options)) *Cluster {
	t.Helper()
	dir := t.TempDir()
	var err error
	// Ports must be known before the first server starts, so another program
	// can take one in between. Then all begin anew.
	for attempt := range 3 {
		c := &Cluster{t: t}
		if err = c.start(filepath.Join(dir, fmt.Sprint(attempt)), nodes, change); err == nil {
			t.Cleanup(c.stop)
			return c
		}
		c.stop()
	}
	t.Fatalf("natstest: %v", err)
	return nil
}

func (c *Cluster) start(dir string, nodes int, change []func(*server.Options)) error {
	var routes []*url.URL
	ports := make([]int, nodes)
	if nodes > 1 {
		for i := range ports {
			port, err := freePort()
			if err != nil {
				return err
			}
			ports[i] = port
			routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
		}
	}
	for i := range nodes {
		o := options(dir, i)
		if nodes > 1 {
			o.Cluster = server.ClusterOpts{Name: "home", Host: "127.0.0.1", Port: ports[i]}
			o.Routes = routes
		}
		for _, f := range change {
			f(o)
		}
		s, err := run(o)
		if err != nil {
			return err
		}
		c.servers, c.options = append(c.servers, s), append(c.options, o)
	}
	return c.ready()
}

func options(dir string, i int) *server.Options {
	system, ledger := server.NewAccount("SYS"), server.NewAccount("WATCHWORD")
	return &server.Options{
		ServerName:             fmt.Sprintf("n%d", i+1),
		Host:                   "127.0.0.1",
		Port:                   server.RANDOM_PORT,
		JetStream:              true,
		StoreDir:               filepath.Join(dir, fmt.Sprintf("n%d", i+1)),
		SyncAlways:             true,
		JetStreamMaxStore:      2 << 30,
		JetStreamMaxMemory:     256 << 20,
		NoSigs:                 true,
		NoLog:                  true,
		DisableJetStreamBanner: true,
		Accounts:               []*server.Account{system, ledger},
		SystemAccount:          "SYS",
		Users: []*server.User{
			{Username: user, Password: password, Account: ledger},
			{Username: systemUser, Password: password, Account: system},
		},
	}
}

func run(o *server.Options) (*server.Server, error) {
	s, err := server.NewServer(o)
	if err != nil {
		return nil, err
	}
	s.Start()
	// JetStream of a cluster is ready later; this is the listener alone.
	if !s.ReadyForConnections(Patience / 3) {
		s.Shutdown()
		return nil, fmt.Errorf("%s does not listen", o.ServerName)
	}
	// The options name the account that JetStream is for only in a file.
	account, err := s.LookupAccount("WATCHWORD")
	if err != nil {
		return nil, err
	}
	if !account.JetStreamEnabled() {
		if err := account.EnableJetStream(nil, nil); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// ready waits until every server has JetStream, and a cluster its leader and
// all its members.
func (c *Cluster) ready() error {
	return until(func() error {
		leaders := 0
		for _, s := range c.servers {
			if !s.JetStreamEnabled() {
				return fmt.Errorf("%s has no JetStream", s.Name())
			}
			if h := s.Healthz(&server.HealthzOptions{}); h.Status != "ok" {
				return fmt.Errorf("%s: %s: %s", s.Name(), h.Status, h.Error)
			}
			if len(c.servers) > 1 {
				if n := len(s.JetStreamClusterPeers()); s.JetStreamIsLeader() && n != len(c.servers) {
					return fmt.Errorf("%s knows %d members", s.Name(), n)
				}
				if s.JetStreamIsLeader() {
					leaders++
				}
			}
		}
		if len(c.servers) > 1 && leaders != 1 {
			return fmt.Errorf("%d leaders", leaders)
		}
		return nil
	})
}

func (c *Cluster) stop() {
	for _, s := range c.servers {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// Servers returns the servers.
func (c *Cluster) Servers() []*server.Server { return c.servers }

// Restart stops server i, calls between if it is not nil, and starts the
// server again on the same ports and store.
func (c *Cluster) Restart(i int, between func(storeDir string)) {
	c.t.Helper()
	if addr, ok := c.servers[i].Addr().(*net.TCPAddr); ok {
		c.options[i].Port = addr.Port // clients find it where it was
	}
	c.servers[i].Shutdown()
	c.servers[i].WaitForShutdown()
	if between != nil {
		between(c.options[i].StoreDir)
	}
	s, err := run(c.options[i])
	if err != nil {
		c.t.Fatalf("natstest: restart: %v", err)
	}
	c.servers[i] = s
	if err := c.ready(); err != nil {
		c.t.Fatalf("natstest: restart: %v", err)
	}
}

// Connect returns a connection to the ledger's account that ends with the
// test. It knows every server, and it buffers nothing while it is cut off.
func (c *Cluster) Connect(opts ...nats.Option) *nats.Conn {
	c.t.Helper()
	return c.connect(user, opts...)
}

// System returns a connection to the system's account that ends with the test.
func (c *Cluster) System(opts ...nats.Option) *nats.Conn {
	c.t.Helper()
	return c.connect(systemUser, opts...)
}

func (c *Cluster) connect(name string, opts ...nats.Option) *nats.Conn {
	c.t.Helper()
	urls := ""
	for _, s := range c.servers {
		urls += "," + s.ClientURL()
	}
	opts = append([]nats.Option{
		nats.UserInfo(name, password),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(20 * time.Millisecond),
		nats.ReconnectBufSize(-1),
	}, opts...)
	nc, err := nats.Connect(urls[1:], opts...)
	if err != nil {
		c.t.Fatalf("natstest: connect: %v", err)
	}
	c.t.Cleanup(nc.Close)
	return nc
}

// CreateStreams makes the streams of an installation with as many replicas as
// there are servers, and waits until each has a leader and whole replicas.
func (c *Cluster) CreateStreams() {
	c.t.Helper()
	n := len(c.servers)
	for _, cfg := range []jetstream.StreamConfig{
		stream.KeysConfig(n, MaxBytes), stream.PulseConfig(n),
		stream.ReceiptsConfig(n, MaxBytes), stream.ProgressConfig(n, MaxBytes), stream.UsageConfig(n, MaxBytes),
		stream.EventsConfig(n, MaxBytes),
	} {
		c.CreateStream(cfg)
	}
}

// CreateStream makes one stream and waits until it has a leader and whole
// replicas.
func (c *Cluster) CreateStream(cfg jetstream.StreamConfig) {
	c.t.Helper()
	nc := c.Connect()
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		c.t.Fatal(err)
	}
	err = until(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), Patience/4)
		defer cancel()
		s, err := js.CreateStream(ctx, cfg)
		if err != nil {
			return err
		}
		info, err := s.Info(ctx)
		if err != nil || cfg.Replicas == 1 {
			return err
		}
		if info.Cluster == nil || info.Cluster.Leader == "" {
			return fmt.Errorf("%s has no leader", cfg.Name)
		}
		for _, r := range info.Cluster.Replicas {
			if !r.Current {
				return fmt.Errorf("%s on %s is not current", cfg.Name, r.Name)
			}
		}
		return nil
	})
	if err != nil {
		c.t.Fatalf("natstest: create %s: %v", cfg.Name, err)
	}
	c.heard(cfg)
}

// heard waits until a publish to the stream through any of the servers reaches
// its leader. A leader says that it leads before the other servers have learnt
// of its subscription, and until then they answer that nobody is there.
func (c *Cluster) heard(cfg jetstream.StreamConfig) {
	c.t.Helper()
	for _, s := range c.servers {
		nc, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, password))
		if err != nil {
			c.t.Fatalf("natstest: connect to %s: %v", s.Name(), err)
		}
		err = until(func() error {
			// Meant for another stream, so it is refused and nothing is stored.
			m := nats.NewMsg(strings.ReplaceAll(cfg.Subjects[0], ">", "probe"))
			m.Header.Set(jetstream.ExpectedStreamHeader, "of another name")
			_, err := nc.RequestMsg(m, Patience/4)
			return err
		})
		nc.Close()
		if err != nil {
			c.t.Fatalf("natstest: publish to %s through %s: %v", cfg.Name, s.Name(), err)
		}
	}
}

// until calls f until it returns nil, and returns its last error when that
// takes too long.
func until(f func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// DeleteStreams deletes all streams, as an operator can who has every right.
func (c *Cluster) DeleteStreams() {
	c.t.Helper()
	nc := c.Connect()
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	for _, name := range []string{stream.EventsStream, stream.PulseStream, stream.KeysStream} {
		if err := js.DeleteStream(ctx, name); err != nil {
			c.t.Fatalf("natstest: delete %s: %v", name, err)
		}
	}
}
