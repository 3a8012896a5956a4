package serve

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oklog/run"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/receipt"
	"watchword.dev/events/stream"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/authority"
	"watchword.dev/services/config"
	"watchword.dev/services/fanout"
	"watchword.dev/services/fanout/snapshots"
	"watchword.dev/services/internal/cli"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/embed"
	"watchword.dev/services/internal/embed/callout"
	"watchword.dev/services/internal/keyring"
	"watchword.dev/services/internal/throttle"
	"watchword.dev/services/upkeep"
)

// commandTimeout bounds a command that goes to another node over NATS.
const commandTimeout = 10 * time.Second

// node is a running process.
type node struct {
	cfg *config.Serve
	log *slog.Logger

	nats      *natsSide
	ledger    *stream.Log // for readers
	keys      *keyring.Keyring
	opened    events.LogOpened // what the ledger says of itself
	directory *live[*directory.Directory]
	// catalogues are those of the directory.
	catalogues aggregate.Catalogues
	index      *live[*verifyindex.Index]
	usage      *usageParts
	receipts   *receiptParts
	audit      *auditParts
	reporter   atomic.Pointer[receipt.Reporter] // nil before the ledger has told whose node this is
	pen        *authority.Pen                   // nil where another node has it
	authority  command.Authority
	fanout     *fanout.Service    // nil where nothing is verified
	snapshots  *snapshots.Service // likewise
	proxies    proxySide

	listener net.Listener
	front    *front
	upkeep   *upkeep.Service // nil before the doors are open
	ready    chan struct{}   // closed when they are
	feeding  projector.Options
	heard    atomic.Pointer[heard] // the newest pulse
	callout  *callout.Service      // nil where others answer logins
	metrics  *metrics
	gate     *throttle.Gate
	plan     *bootstrap // of a first start that is not complete
}

// heard is a pulse and when it arrived.
type heard struct {
	pulse events.Pulse
	at    time.Time
}

// Run serves until ctx ends or something that it cannot do without fails. What
// a first start has to say goes to announce.
func Run(ctx context.Context, cfg *config.Serve, log *slog.Logger, announce io.Writer) error {
	return RunHeld(ctx, cfg, log, announce, nil)
}

// RunHeld is Run with every projection held back: hold is called before a
// batch of events is applied, which waits for its return. It is for drills and
// tests of lag; nil holds nothing.
func RunHeld(ctx context.Context, cfg *config.Serve, log *slog.Logger, announce io.Writer, hold func(context.Context, events.Position) error) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(verifyindex.GCPercent)
	}
	n := newNode(cfg, log)
	n.feeding.Hold = hold
	return n.serve(ctx, announce)
}

func newNode(cfg *config.Serve, log *slog.Logger) *node {
	return &node{cfg: cfg, log: log, metrics: newMetrics(), gate: throttle.NewGate(cfg.Limits(), nil), ready: make(chan struct{})}
}

// serve opens, runs and closes the node.
func (n *node) serve(ctx context.Context, announce io.Writer) error {
	if err := n.open(ctx); err != nil {
		return errors.Join(err, n.close())
	}
	err := n.run(ctx, announce)
	if cerr := n.close(); cerr != nil {
		err = errors.Join(err, cerr)
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	n.log.Info("stopped")
	return err
}

// open opens everything, the lowest first, and starts nothing that writes.
func (n *node) open(ctx context.Context) error {
	var err error
	if n.listener, err = net.Listen("tcp", n.cfg.Listen); err != nil {
		return fmt.Errorf("listen for HTTP: %w", err)
	}
	if n.cfg.TLSCert != "" {
		// Found now, not when the first client comes.
		if _, err := tls.LoadX509KeyPair(n.cfg.TLSCert, n.cfg.TLSKey); err != nil {
			return fmt.Errorf("the certificate: %w", err)
		}
	}
	if err := n.openProxies(); err != nil {
		return err
	}
	n.front = newFront(n)
	if n.plan, err = n.firstStart(); err != nil {
		return err
	}
	if n.plan == nil && n.cfg.Catalogue != "" {
		n.log.Info("the file is not read: the first start has published a catalogue, watchword catalogue publish replaces it", "catalogue", n.cfg.Catalogue)
	}
	if n.nats, err = openNATS(n.cfg, n.cfg.Path(natsDir), n.log); err != nil {
		return err
	}
	reads, err := n.nats.connect(embed.Node, true)
	if err != nil {
		return err
	}
	if err := n.nats.check(ctx, reads); err != nil {
		return err
	}
	if n.ledger, err = stream.Open(ctx, reads, stream.Config{Log: n.log}); err != nil {
		return err
	}
	if n.keys, err = n.openKeys(ctx); err != nil {
		return err
	}
	if err := n.openProjections(); err != nil {
		return err
	}
	if n.callout, err = n.openCallout(); err != nil {
		return err
	}
	if err := errors.Join(n.openUsage(), n.openReceipts(), n.openAudit()); err != nil {
		return err
	}
	if n.cfg.Runs(config.RoleIntrospection) {
		if err := n.openFeed(); err != nil {
			return err
		}
	}
	return n.openAuthority(ctx)
}

// firstStart returns the plan of a first start, nil when there is none. With
// a NATS cluster only `watchword init` makes one.
func (n *node) firstStart() (*bootstrap, error) {
	if n.cfg.NATSURL != "" {
		return planned(n.cfg)
	}
	return plan(n.cfg)
}

func (n *node) openKeys(ctx context.Context) (*keyring.Keyring, error) {
	role := embed.Node
	if n.cfg.Runs(config.RoleAuthority) {
		role = embed.Pen // erasing a person is the pen's
	}
	nc, err := n.nats.connect(role, false)
	if err != nil {
		return nil, err
	}
	store, err := keyring.NewJetStreamStore(ctx, nc, embed.KeysBucket)
	if err != nil {
		return nil, err
	}
	var master keyring.Master
	switch {
	case n.cfg.Master != "":
		master, err = keyring.ParseMaster([]byte(string(n.cfg.Master)))
	case n.plan != nil:
		master, err = keyring.EnsureMaster(n.cfg.Path(masterFile))
	default:
		master, err = keyring.LoadMaster(n.cfg.Path(masterFile))
	}
	if err != nil {
		return nil, fmt.Errorf("the master key: %w", err)
	}
	return keyring.Open(ctx, store, master)
}

func (n *node) openProjections() error {
	n.directory, n.index = n.directoryParts(), n.indexParts()
	n.sweepScratch()
	return errors.Join(n.directory.start(), n.index.start())
}

// directoryParts is the directory, not opened yet.
func (n *node) directoryParts() *live[*directory.Directory] {
	return &live[*directory.Directory]{
		home: projector.Home{Dir: n.cfg.Path(directory.Name)}, read: n.ledger, log: n.log, o: n.feeding,
		open: func(dir string) (*directory.Directory, error) {
			return directory.Open(directory.Options{Dir: dir, CacheBytes: int64(n.cfg.DirectoryMemory), Log: n.log})
		},
		follow: func(d *directory.Directory, r events.Reader, o projector.Options) *projector.Runner {
			return projector.NewRunner(r, d, o)
		},
	}
}

// indexParts is the verification index, not opened yet.
func (n *node) indexParts() *live[*verifyindex.Index] {
	return &live[*verifyindex.Index]{
		home: projector.Home{Dir: n.cfg.Path(verifyindex.Name)}, read: n.ledger, log: n.log, o: n.feeding,
		open: func(dir string) (*verifyindex.Index, error) {
			return verifyindex.Open(verifyindex.Options{
				Dir: dir, MemoryBytes: int64(n.cfg.IndexMemory), Log: n.log,
				Bounds: verifyindex.Bounds{Read: n.cfg.StaleRead, Write: n.cfg.StaleWrite, Admin: n.cfg.StaleAdmin},
			})
		},
		follow: (*verifyindex.Index).Follow, applied: n.reports,
		adopt: func(x *verifyindex.Index) {
			if h := n.heard.Load(); h != nil {
				x.Observe(h.pulse, h.at)
			}
		},
	}
}

// openAuthority opens the pen, or the way to it.
func (n *node) openAuthority(ctx context.Context) error {
	if !n.cfg.Runs(config.RoleAuthority) {
		nc, err := n.nats.connect(embed.Node, false)
		if err != nil {
			return err
		}
		n.authority = authority.NewRemote(nc, commandTimeout)
		return nil
	}
	nc, err := n.nats.connect(embed.Pen, false)
	if err != nil {
		return err
	}
	ledger, err := stream.Open(ctx, nc, stream.Config{Log: n.log})
	if err != nil {
		return err
	}
	cfg := authority.Config{
		Log: ledger, Pulses: ledger, Past: liveDirectory{n.directory}, Key: n.keys.PulseKey(),
		Node: n.name(), Sole: n.cfg.NATSURL == "", Logger: n.log, Quota: n.quota(),
	}
	if n.plan != nil {
		cfg.Installation = n.plan.Installation
		cfg.Genesis = &events.LogOpened{
			Installation: n.plan.Installation, Brand: n.plan.Brand,
			PulseKey: n.keys.PulseKey().Public().(ed25519.PublicKey),
		}
	} else {
		first, err := n.genesis(ctx)
		if err != nil {
			return err
		}
		cfg.Installation = first.Installation
	}
	if n.pen, err = authority.New(cfg); err != nil {
		return err
	}
	if n.cfg.NATSURL == "" {
		n.authority = n.pen
	} else {
		// Another node may have the pen: the way over NATS finds it
		// wherever it is, and the own pen is asked first.
		asks, err := n.nats.connect(embed.Node, false)
		if err != nil {
			return err
		}
		n.authority = authority.Nearest{Pen: n.pen, Away: authority.NewRemote(asks, commandTimeout)}
	}
	return nil
}

// quota is how many tokens an owner may have.
func (n *node) quota() command.Quota {
	return command.Quota{User: int32(n.cfg.UserTokens), Account: int32(n.cfg.AccountTokens)}
}

// genesis reads the first event of the ledger.
func (n *node) genesis(ctx context.Context) (events.LogOpened, error) {
	var first events.LogOpened
	read := errors.New("read")
	head, err := n.ledger.Head(ctx)
	if err != nil {
		return first, err
	}
	if head == 0 {
		return first, errors.New("the ledger is empty, but this is not a first start: see `watchword init --help`")
	}
	err = n.ledger.Read(ctx, events.Position{}, func(c events.Commit) error {
		opened, ok := c.Records[0].Data.(*events.LogOpened)
		if !ok {
			return fmt.Errorf("the first event of the ledger is a %s", c.Records[0].Name)
		}
		first = *opened
		return read
	})
	if errors.Is(err, read) {
		err = nil
	}
	return first, err
}

func (n *node) name() string {
	if n.cfg.Node != "" {
		return n.cfg.Node
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		return "watchword"
	}
	return host
}

// run starts the actors and ends when one of them does.
func (n *node) run(ctx context.Context, announce io.Writer) error {
	var g run.Group
	actor := func(f func(context.Context) error) {
		ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		g.Add(func() error { return f(ctx) }, func(error) { stop() })
	}
	// Interrupts come in this order: first HTTP drains while all below it
	// still works, then the pen is handed over, then the readers end.
	asked, forget := context.WithCancel(ctx) // to end, by whoever runs us or by an actor that failed
	g.Add(func() error {
		<-asked.Done()
		return ctx.Err()
	}, func(error) { forget() })
	n.front.add(&g)
	n.addProxies(&g, actor)
	actor(func(ctx context.Context) error { return n.prepare(ctx, announce) })
	actor(n.report)
	if n.pen != nil {
		actor(n.pen.Run)
		actor(n.giveNotices)
		if n.cfg.NATSURL != "" {
			actor(n.servePen)
		}
	}
	actor(n.watchDisk)
	actor(n.watchPulses)
	actor(n.admitEnrolled)
	if n.fanout != nil {
		actor(n.passOn)
		actor(n.snapshots.Run)
	}
	actor(n.directory.run)
	actor(n.index.run)
	actor(n.usage.run)
	actor(n.receipts.projection.run)
	actor(n.receipts.collector.Run)
	actor(n.audit.trail.run)
	actor(n.tellAuditKey)
	return g.Run()
}

// noticeEvery is how often the pen's node looks for tokens of whose end notice
// is due.
const noticeEvery = time.Minute

func (n *node) giveNotices(ctx context.Context) error {
	tick := time.NewTicker(noticeEvery)
	defer tick.Stop()
	n.pen.GiveNotices(ctx, liveDirectory{n.directory}, tick.C)
	return nil
}

// servePen answers the commands of other nodes.
func (n *node) servePen(ctx context.Context) error {
	nc, err := n.nats.connect(embed.Pen, false)
	if err != nil {
		return err
	}
	return authority.Serve(ctx, nc, n.pen)
}

// watchPulses tells the index how fresh it is. The key of the pulses stands in
// the first event, so an index that has applied nothing has no use for them.
func (n *node) watchPulses(ctx context.Context) error {
	nc, err := n.nats.connect(embed.Node, false)
	if err != nil {
		return err
	}
	pulses, err := stream.Open(ctx, nc, stream.Config{Log: n.log})
	if err != nil {
		return err
	}
	key := n.keys.PulseKey().Public().(ed25519.PublicKey)
	return pulses.WatchPulses(ctx, func(b []byte, _ uint64) {
		p, err := events.OpenPulse(b, key)
		if err != nil {
			n.log.Warn("a pulse that the pen has not signed", "error", err)
			return
		}
		h := &heard{p, time.Now()}
		n.heard.Store(h)
		n.index.get().Observe(h.pulse, h.at)
		if n.fanout != nil {
			n.fanout.Pulse(b)
		}
	})
}

// prepare completes a first start, waits until this node can answer, and opens
// the doors.
func (n *node) prepare(ctx context.Context, announce io.Writer) error {
	if n.plan != nil && n.pen != nil {
		if err := n.plan.carryOut(ctx, n.pen, n.keys); err != nil {
			return err
		}
	}
	if err := n.caughtUp(ctx); err != nil {
		return err
	}
	info := n.index.get().Info()
	if info == nil {
		return errors.New("the ledger does not begin with log.opened")
	}
	if !n.keys.PulseKey().Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(info.PulseKey)) {
		return errors.New("the master key is not the one with which this ledger was opened")
	}
	n.opened = *info
	if err := n.introduce(ctx); err != nil {
		return err
	}
	if err := n.front.serveAll(); err != nil {
		return err
	}
	url, seed := n.nats.forReaders()
	if err := writeAdmin(n.cfg, n.plan, cli.Admin{BaseURL: n.baseURL(), NATSURL: url, NATSSeedFile: seed}, announce, n.log); err != nil {
		return err
	}
	close(n.ready)
	n.log.Info("ready", "http", n.baseURL(), "nats", url, "sequence", n.index.get().Sequence(), "roles", strings.Join(n.cfg.Roles, ","))
	<-ctx.Done()
	return nil
}

// caughtUp waits until both projections have reached the head of the ledger
// and the index knows how fresh it is.
func (n *node) caughtUp(ctx context.Context) error {
	report := time.NewTicker(5 * time.Second)
	defer report.Stop()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-report.C:
				n.log.Info("catching up", "directory", n.directory.status().Applied.Seq, "verifyindex", n.index.status().Applied.Seq, "head", n.index.status().Head)
			}
		}
	}()
	for {
		head, err := n.ledger.Head(ctx)
		if err == nil && head > 0 {
			if err := n.directory.Wait(ctx, head); err != nil {
				return fmt.Errorf("the directory: %w", err)
			}
			if err := n.index.Wait(ctx, head); err != nil {
				return fmt.Errorf("the verification index: %w", err)
			}
			return n.awaitPulse(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// awaitPulse waits until the pen, wherever it is, says where the head is. A
// node that is cut off from the pen opens all the same after a while: its
// verifications say how old they are.
func (n *node) awaitPulse(ctx context.Context) error {
	const patience = 10 * time.Second
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if _, err := n.authority.Head(limit); err == nil && n.heard.Load() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.Done():
			n.log.Warn("no pen answers; management is unavailable until one does")
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// baseURL is under which clients reach this node.
func (n *node) baseURL() string {
	if n.cfg.BaseURL != "" {
		return strings.TrimRight(n.cfg.BaseURL, "/")
	}
	scheme := "http://"
	if n.cfg.TLSCert != "" {
		scheme = "https://"
	}
	return scheme + n.listener.Addr().String()
}

// format is the form of this installation's secrets.
func (n *node) format() token.Format { return token.Format{Brand: n.opened.Brand} }

// close closes what open has opened, the highest first.
func (n *node) close() error {
	var errs []error
	if n.upkeep != nil {
		n.upkeep.Close()
	}
	if n.listener != nil {
		n.listener.Close() // also closed by the HTTP server
	}
	if n.proxies.listener != nil {
		n.proxies.listener.Close() // also closed by the gRPC server
	}
	if n.directory != nil && n.directory.current.Load() != nil {
		errs = append(errs, n.directory.close())
	}
	if n.index != nil && n.index.current.Load() != nil {
		errs = append(errs, n.index.close())
	}
	if n.usage != nil {
		errs = append(errs, n.usage.close())
	}
	if n.receipts != nil {
		errs = append(errs, n.receipts.projection.close())
	}
	if n.audit != nil {
		errs = append(errs, n.audit.trail.close())
	}
	if n.nats != nil {
		n.nats.close()
	}
	return errors.Join(errs...)
}
