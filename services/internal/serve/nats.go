package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"watchword.dev/events/stream"
	"watchword.dev/services/config"
	"watchword.dev/services/internal/embed"
)

// natsSide is the process's way to NATS: a server of its own or a cluster.
type natsSide struct {
	cfg    *config.Serve
	log    *slog.Logger
	server *embed.Server // nil with --nats-url

	mu    sync.Mutex // guards conns: actors connect side by side
	conns []*nats.Conn
}

// openNATS starts the embedded server on the store in dir, where no other one
// is to be used.
func openNATS(cfg *config.Serve, dir string, log *slog.Logger) (*natsSide, error) {
	n := &natsSide{cfg: cfg, log: log}
	if cfg.NATSURL != "" {
		return n, nil
	}
	server, err := embed.Start(embed.Config{
		Dir: dir, Listen: cfg.NATSListen, Log: log,
		MaxStoreBytes: int64(cfg.StoreMax), EventsMaxBytes: int64(cfg.EventsMax),
	})
	if err != nil {
		return nil, err
	}
	n.server = server
	return n, nil
}

// connect opens a connection as a role. With bulk set it goes over the
// network also to the own server where that listens: a pipe within the process
// is quicker for one message, and slower for many.
func (n *natsSide) connect(r embed.Role, bulk bool) (*nats.Conn, error) {
	var nc *nats.Conn
	var err error
	switch {
	case n.server != nil && (!bulk || n.server.ClientURL() == ""):
		nc, err = n.server.Connect(r)
	case n.server != nil:
		nc, err = n.dial(n.server.ClientURL(), r, n.server.SeedFile(r))
	default:
		nc, err = n.dial(n.cfg.NATSURL, r, n.seedFile(r))
	}
	if err != nil {
		return nil, fmt.Errorf("connect to NATS as %s: %w", r, err)
	}
	n.mu.Lock()
	n.conns = append(n.conns, nc)
	n.mu.Unlock()
	return nc, nil
}

func (n *natsSide) dial(url string, r embed.Role, seedFile string) (*nats.Conn, error) {
	opts, err := embed.Options(r, seedFile, n.log)
	if err != nil {
		return nil, err
	}
	return nats.Connect(url, opts...)
}

// key reads the key of a role that logs in nowhere.
func (n *natsSide) key(r embed.Role) (nkeys.KeyPair, error) {
	if n.server != nil {
		return embed.ReadSeed(r, n.server.SeedFile(r))
	}
	return embed.ReadSeed(r, n.seedFile(r))
}

// seedFile is where the seed of a role lies when NATS is elsewhere.
func (n *natsSide) seedFile(r embed.Role) string {
	dir := n.cfg.NATSSeedDir
	if dir == "" {
		dir = n.cfg.Path(natsDir)
	}
	return filepath.Join(dir, string(r)+".seed")
}

// forReaders tells where readers of events connect, for admin.json.
func (n *natsSide) forReaders() (url, seedFile string) {
	seedFile, url = n.seedFile(embed.Reader), n.cfg.NATSURL
	if n.server != nil {
		seedFile, url = n.server.SeedFile(embed.Reader), n.server.ClientURL()
	}
	if abs, err := filepath.Abs(seedFile); err == nil {
		seedFile = abs
	}
	if url == "" {
		return "", ""
	}
	return url, seedFile
}

// check refuses to run on streams or servers that could lose what they have
// acknowledged.
func (n *natsSide) check(ctx context.Context, nc *nats.Conn) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	info, err := js.Stream(ctx, stream.EventsStream)
	if err != nil {
		return fmt.Errorf("look at the ledger's stream: %w", err)
	}
	if err := stream.Assert(ctx, js, info.CachedInfo().Config.Replicas); err != nil {
		return err
	}
	monitor, err := n.connect(embed.Monitor, false)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return stream.AssertReplicas(ctx, monitor)
}

// close ends the connections, and then the server.
func (n *natsSide) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, nc := range n.conns {
		nc.Close()
	}
	if n.server != nil {
		n.server.Shutdown()
	}
}

// health says what is wrong with the way to NATS, or nil.
func (n *natsSide) health() error {
	var errs []error
	if n.server != nil {
		errs = append(errs, n.server.Health())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, nc := range n.conns {
		if !nc.IsConnected() {
			errs = append(errs, fmt.Errorf("not connected: %s", strings.ToLower(nc.Status().String())))
		}
	}
	return errors.Join(errs...)
}

// watchDisk ends the process when the embedded server has given up writing and
// could write again. JetStream keeps a write error, such as that of a full disk,
// until it is started anew; whoever supervises the process does that. While
// the disk is still full a restart would help nobody: verification goes on until
// its staleness bound, and /readyz says why.
func (n *node) watchDisk(ctx context.Context) error {
	const every, room = 5 * time.Second, 64 << 20
	failing := 0
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if n.nats.server == nil {
			continue
		}
		err := n.nats.server.Health()
		if err == nil {
			failing = 0
			continue
		}
		if failing++; failing == 1 {
			n.log.Error("the embedded NATS server is not healthy", "error", err)
		}
		if free, ferr := freeBytes(n.cfg.Data); ferr == nil && free > room && failing >= 3 {
			return fmt.Errorf("the embedded NATS server does not recover by itself, the process must be started anew: %w", err)
		}
	}
}

// freeBytes is how much the file system of dir has left for us.
func freeBytes(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}
