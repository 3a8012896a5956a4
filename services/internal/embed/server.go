package embed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"golang.org/x/sys/unix"
)

// startTimeout bounds how long the server may take to accept connections. The
// recovery of a large stream after an unclean stop is part of it.
const startTimeout = 5 * time.Minute

// ErrLocked says that another process holds the store directory.
var ErrLocked = errors.New("embed: the store directory is in use by another process")

// Config is what an embedded server needs.
type Config struct {
	// Dir holds the store, the seeds and the lock. It is made when absent.
	Dir string
	// Name is the server's stable name; empty means "watchword".
	Name string
	// Listen is the address host:port for clients; port 0 takes a free one.
	// Empty means that only this process can connect.
	Listen string
	// MaxStoreBytes caps what all streams may keep; zero means 80 % of the
	// file system of Dir.
	MaxStoreBytes int64
	// EventsMaxBytes caps the ledger when the first start creates it; zero
	// means half of what the file system has free then, and at most half of
	// MaxStoreBytes. Later starts do not look at it.
	EventsMaxBytes int64
	// Log gets the log of the server; nil discards it.
	Log *slog.Logger
}

// Server is a running embedded server. It is safe for concurrent use.
type Server struct {
	ns   *server.Server
	log  *logger
	keys map[Role]nkeys.KeyPair
	dir  string
	lock io.Closer
}

// Start starts the server on the store in cfg.Dir. The first start, on an
// empty directory, creates the streams; a later one refuses to run when one is
// missing, because an empty ledger in place of a lost one would forget every
// revocation.
func Start(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Name == "" {
		cfg.Name = "watchword"
	}
	if cfg.Dir == "" {
		return nil, errors.New("embed: no directory")
	}
	if err := mkdirPrivate(cfg.Dir); err != nil {
		return nil, err
	}
	lock, err := Lock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s, err := startLocked(cfg)
	if err != nil {
		lock.Close()
		return nil, err
	}
	s.lock = lock
	return s, nil
}

// startLocked is Start with the lock held.
func startLocked(cfg Config) (*Server, error) {
	size, free, err := fileSystemBytes(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if cfg.MaxStoreBytes == 0 {
		cfg.MaxStoreBytes = size / 10 * 8
	}
	wanted := cfg.EventsMaxBytes
	if cfg.EventsMaxBytes == 0 {
		cfg.EventsMaxBytes = min(cfg.MaxStoreBytes, free) / 2
	}
	keys, err := EnsureSeeds(cfg.Dir, Seeds()...)
	if err != nil {
		return nil, err
	}
	if err := firstStart(cfg, keys); err != nil {
		return nil, err
	}
	if wanted > 0 {
		if err := enlarge(cfg, keys); err != nil {
			return nil, err
		}
	}
	s, err := run(cfg, keys)
	if err != nil {
		return nil, err
	}
	if err := s.checkStreams(); err != nil {
		s.Shutdown()
		return nil, err
	}
	return s, nil
}

// run starts a server that stands alone, with the given users.
func run(cfg Config, keys map[Role]nkeys.KeyPair) (*Server, error) {
	c := ClusterConfig{ServerName: cfg.Name, StoreDir: cfg.Dir, MaxStoreBytes: cfg.MaxStoreBytes}
	if cfg.Listen != "" {
		host, port, err := splitListen(cfg.Listen)
		if err != nil {
			return nil, err
		}
		c.Listen = net.JoinHostPort(host, strconv.Itoa(port))
	}
	return StartMember(c, keys, cfg.Log)
}

// StartMember starts a server in this process from the configuration that it
// would have outside, with the public halves of keys as its users. Without
// Listen only this process can connect. It neither locks the store nor creates
// the streams: Start does, for a server that stands alone.
func StartMember(c ClusterConfig, keys map[Role]nkeys.KeyPair, log *slog.Logger) (*Server, error) {
	var err error
	if c.Keys, err = PublicKeys(keys); err != nil {
		return nil, err
	}
	text, err := c.Text()
	if err != nil {
		return nil, err
	}
	o := &server.Options{}
	if err := o.ProcessConfigString(text); err != nil {
		return nil, fmt.Errorf("embed: configuration: %w", err)
	}
	o.NoSigs = true
	o.DisableJetStreamBanner = true
	o.DontListen = c.Listen == ""
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{log: &logger{to: log.With("component", "nats", "server", c.ServerName)}, keys: keys, dir: c.StoreDir}
	if s.ns, err = server.NewServer(o); err != nil {
		return nil, fmt.Errorf("embed: %w", err)
	}
	s.ns.SetLoggerV2(s.log, false, false, false)
	s.ns.Start()
	ready := s.ns.ReadyForConnections(startTimeout)
	switch err = s.log.err(); {
	case err != nil:
	case !ready:
		err = errors.New("embed: the server did not become ready")
	case !s.ns.JetStreamEnabled():
		err = errors.New("embed: JetStream did not start")
	}
	if err != nil {
		s.Shutdown()
		return nil, err
	}
	return s, nil
}

// ClientURL is the URL for clients on this machine or network, with the port
// that was really taken; empty when only this process can connect.
func (s *Server) ClientURL() string {
	addr, ok := s.ns.Addr().(*net.TCPAddr)
	if !ok || addr == nil {
		return ""
	}
	return "nats://" + addr.String()
}

// SeedFile is the path of the seed of a role.
func (s *Server) SeedFile(r Role) string { return SeedFile(s.dir, r) }

// Connect gives a connection inside the process, logged in as r. Further
// options may be given; the caller closes the connection.
func (s *Server) Connect(r Role, opts ...nats.Option) (*nats.Conn, error) {
	kp, ok := s.keys[r]
	if !ok {
		return nil, fmt.Errorf("embed: no credential for role %q", r)
	}
	o, err := clientOptions(r, kp, s.log.to)
	if err != nil {
		return nil, err
	}
	o = append(o, nats.InProcessServer(s.ns))
	nc, err := nats.Connect("", append(o, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("embed: connect as %s: %w", r, err)
	}
	return nc, nil
}

// Health says what is wrong with the server, or nil.
func (s *Server) Health() error {
	if err := s.log.err(); err != nil {
		return err
	}
	if !s.ns.Running() {
		return errors.New("embed: the server is not running")
	}
	if !s.ns.JetStreamEnabled() {
		return errors.New("embed: JetStream is not running")
	}
	if h := s.ns.Healthz(&server.HealthzOptions{}); h != nil && h.Status != "ok" {
		return fmt.Errorf("embed: %s: %s", h.Status, h.Error)
	}
	return nil
}

// Shutdown stops the server, waits until it has stopped, and gives the lock
// back. A second call does nothing.
func (s *Server) Shutdown() {
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
	if s.lock != nil {
		s.lock.Close()
	}
}

// checkStreams refuses a server on which one of the streams is missing.
func (s *Server) checkStreams() error {
	if err := s.Health(); err != nil {
		return err
	}
	nc, err := s.Connect(Node)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("embed: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, c := range (Streams{}).Configs() {
		switch _, err := js.Stream(ctx, c.Name); {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return fmt.Errorf("%w: %s in %s", ErrStreamMissing, c.Name, s.dir)
		case err != nil:
			return fmt.Errorf("embed: look at %s: %w", c.Name, err)
		}
	}
	return nil
}

// splitListen gives host and port of a listen address as nats-server wants
// them: -1 for a free port.
func splitListen(listen string) (string, int, error) {
	host, p, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("embed: listen address %q: %w", listen, err)
	}
	port, err := strconv.Atoi(p)
	if err != nil || port < -1 || port > math.MaxUint16 {
		return "", 0, fmt.Errorf("embed: listen address %q: no such port", listen)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// Lock takes the lock of a server's directory until it is closed, or returns
// ErrLocked. JetStream itself lets two servers open one store.
func Lock(dir string) (io.Closer, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("embed: %w", err)
	}
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		f.Close()
		return nil, fmt.Errorf("%w: %s", ErrLocked, dir)
	case err != nil:
		f.Close()
		return nil, fmt.Errorf("embed: lock %s: %w", dir, err)
	}
	return f, nil
}

// fileSystemBytes is the size of the file system that holds dir, and what it
// has free for us.
func fileSystemBytes(dir string) (size, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("embed: size of the file system of %s: %w", dir, err)
	}
	bytes := func(blocks uint64) int64 { return int64(min(blocks*uint64(st.Bsize), math.MaxInt64)) }
	return bytes(st.Blocks), bytes(st.Bavail), nil
}
