package serve

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/oklog/run"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/clientaddr"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/audittrail"
	"watchword.dev/projections/directory"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/revocations"
	used "watchword.dev/projections/usage"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/authority"
	"watchword.dev/services/config"
	"watchword.dev/services/internal/web"
	"watchword.dev/services/internal/web/openapi"
	"watchword.dev/services/introspection"
	"watchword.dev/services/management"
	"watchword.dev/services/upkeep"
)

// front is the HTTP side of a node. It answers /livez and /readyz from the
// first moment, and everything else as soon as the node is ready.
type front struct {
	n        *node
	routes   atomic.Pointer[web.Router] // nil until ready
	draining atomic.Bool
	server   *http.Server
}

func newFront(n *node) *front {
	f := &front{n: n}
	f.server = web.NewServer(f, n.log)
	return f
}

// add adds the servers' actors. The interrupt drains: new connections are
// refused, running requests end.
func (f *front) add(g *run.Group) {
	g.Add(func() error {
		if f.n.cfg.TLSCert != "" {
			return f.server.ServeTLS(f.n.listener, f.n.cfg.TLSCert, f.n.cfg.TLSKey)
		}
		return f.server.Serve(f.n.listener)
	}, func(error) {
		f.draining.Store(true)
		if f.n.fanout != nil {
			f.n.fanout.Close() // its answers would not end by themselves
			f.n.snapshots.Close()
		}
		f.shutdown(f.server)
	})
	if f.n.cfg.Metrics == "" {
		return
	}
	s := web.NewServer(f.n.metrics.handler(f.n), f.n.log)
	g.Add(func() error {
		l, err := net.Listen("tcp", f.n.cfg.Metrics)
		if err != nil {
			return err
		}
		f.n.log.Info("metrics", "http", "http://"+l.Addr().String()+"/metrics")
		return s.Serve(l)
	}, func(error) { f.shutdown(s) })
}

func (f *front) shutdown(s *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), f.n.cfg.ShutdownTimeout)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		f.n.log.Warn("requests were cut off at shutdown", "error", err)
		s.Close()
	}
}

// ServeHTTP answers a request.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if rt := f.routes.Load(); rt != nil && r.URL.Path != "/livez" && r.URL.Path != "/readyz" {
		rt.ServeHTTP(w, r)
		return
	}
	switch r.URL.Path {
	case "/livez":
		web.SecurityHeaders(w.Header())
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("ok\n"))
	case "/readyz":
		f.ready(w)
	default:
		status, body := web.FailureBody(w.Header(), fault.From(web.RetryIn(fault.NotReady, time.Second, errors.New("starting"))))
		w.Header().Set("Content-Type", "application/json") // clients read nothing else
		w.WriteHeader(status)
		w.Write(body)
	}
}

// serveAll opens the routes of the roles that run here.
func (f *front) serveAll() error {
	n := f.n
	networks, err := n.cfg.ClientNetworks()
	if err != nil {
		return err
	}
	from := clientaddr.Rule{Trusted: networks, Header: n.cfg.AddressHeader}
	rt := web.NewRouter(web.Config{
		Format: n.format(), Log: n.log, Observe: n.metrics.observeHTTP, Address: from, Gate: n.gate,
	})
	cat := func() *catalogue.Catalogue { return n.index.get().Catalogue() }
	if n.cfg.Runs(config.RoleManagement) {
		m, err := management.New(management.Config{
			Authority: n.authority, Directory: liveDirectory{n.directory}, Reached: n.directory,
			Verifier: liveIndex{n.index}, Count: n.usage.count, Usage: n.usage, Log: n.log,
			Receipts: answering{n.receipts.service, n.receipts.projection},
			Settle:   []management.Waiter{n.index}, SettleTime: 250 * time.Millisecond,
			Sealer: n.keys, RequestKey: n.keys.RequestKey(), Catalogue: n.catalogue, Format: n.format(), ReadWait: n.cfg.WaitMax,
			Quota: n.quota(),
		})
		if err != nil {
			return err
		}
		m.Routes(rt)
		n.upkeep = upkeep.New(upkeep.Config{
			Operator: m.Operator, Log: n.log, Fsck: n.fsck,
			Rebuild: map[string]upkeep.Work{
				directory.Name: rebuilding(n.directory.rebuild), verifyindex.Name: rebuilding(n.index.rebuild), used.Name: rebuilding(n.usage.rebuild),
				revocations.Name: rebuilding(n.receipts.projection.rebuild), audittrail.Name: rebuilding(n.audit.trail.rebuild),
			},
		})
		n.upkeep.Routes(rt)
		n.audit.service.Routes(rt)
	}
	if n.cfg.Runs(config.RoleIntrospection) {
		if err := n.openRoutes(cat); err != nil {
			return err
		}
		s, err := introspection.New(introspection.Config{
			Decider: liveIndex{n.index}, Tokens: liveDirectory{n.directory}, Catalogue: cat, Reached: n.directory,
			Issuer: n.baseURL, AtLeastWait: n.cfg.WaitMax, Log: n.log, Observe: n.metrics.observeDecision, Count: n.usage.count,
			Map: n.routeMap, Address: from, Passed: n.metrics.observeProxy,
		})
		if err != nil {
			return err
		}
		s.Routes(rt)
		n.serveEnvoy(s)
		n.fanout.Routes(rt)
		n.snapshots.Routes(rt)
		n.receipts.service.Routes(rt)
	}
	openapi.Routes(rt)
	f.routes.Store(rt)
	return nil
}

// catalogue returns the catalogue of the directory's newest rows, which is what
// they are read with.
func (n *node) catalogue() *catalogue.Catalogue {
	published, _, err := n.directory.get().Catalogue()
	if err == nil {
		var cat *catalogue.Catalogue
		if cat, err = n.catalogues.Of(&published); err == nil {
			return cat
		}
	}
	n.log.Error("the published catalogue cannot be read", "error", err)
	return n.index.get().Catalogue()
}

// rebuilding is a rebuild as a job: it has no result but that it is done.
func rebuilding(rebuild func(context.Context, func(done, head uint64)) error) upkeep.Work {
	return func(ctx context.Context, progress func(done, head uint64)) (any, error) {
		return nil, rebuild(ctx, progress)
	}
}

// liveIndex passes each question to the index that serves now.
type liveIndex struct{ *live[*verifyindex.Index] }

func (l liveIndex) Enforcer(secret string) (verifyindex.EnforcerInfo, token.Reason) {
	return l.get().Enforcer(secret)
}

func (l liveIndex) VerifyWithin(ceiling time.Duration, secret string, ask *token.Request) token.Decision {
	return l.get().VerifyWithin(ceiling, secret, ask)
}

func (l liveIndex) Identify(secret string, from netip.Addr) (verifyindex.Identity, token.Reason) {
	return l.get().Identify(secret, from)
}

func (l liveIndex) Sequence() uint64 { return l.get().Sequence() }

// readiness is what /readyz says.
type readiness struct {
	Ready       bool               `json:"ready"`
	Reasons     []string           `json:"reasons,omitzero"` // why not, or what is wrong although it serves
	Pen         string             `json:"pen,omitzero"`     // where this node may write: active, standby, opening or broken
	Projections []projectionStatus `json:"projections"`
	Index       *indexStatus       `json:"index,omitzero"`
}

type projectionStatus struct {
	Name     string    `json:"name"`
	Version  int       `json:"version"`
	Sequence uint64    `json:"sequence"`
	Head     uint64    `json:"head"`
	Lag      uint64    `json:"lag"`
	Since    time.Time `json:"since"`
	Stopped  string    `json:"stopped,omitzero"`
}

type indexStatus struct {
	Mode        string `json:"mode"`
	Tokens      int64  `json:"tokens"`
	MemoryBytes int64  `json:"memory_bytes"`
	DiskBytes   int64  `json:"disk_bytes"`
	Diverged    string `json:"diverged,omitzero"`
}

// projections are the states of all of them.
func (n *node) projections() []projector.Status {
	return []projector.Status{n.directory.status(), n.index.status(), n.usage.status(), n.receipts.projection.status(), n.audit.trail.status()}
}

func (f *front) ready(w http.ResponseWriter) {
	r := f.readiness()
	b, err := json.Marshal(r)
	if err != nil {
		http.Error(w, "cannot encode", http.StatusInternalServerError)
		return
	}
	web.SecurityHeaders(w.Header())
	w.Header().Set("Content-Type", "application/json")
	if !r.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	w.Write(append(b, '\n'))
}

// readiness looks at every part. A node is ready once it has caught up; later
// lag is shown and does not take it out, but a part that has stopped does.
func (f *front) readiness() readiness {
	n := f.n
	r := readiness{Ready: f.routes.Load() != nil && !f.draining.Load(), Projections: []projectionStatus{}}
	bad := func(reason string) {
		r.Ready = false
		r.Reasons = append(r.Reasons, reason)
	}
	switch {
	case f.draining.Load():
		r.Reasons = append(r.Reasons, "shutting down")
	case f.routes.Load() == nil:
		r.Reasons = append(r.Reasons, "starting")
	}
	if err := n.nats.health(); err != nil {
		bad("nats: " + err.Error())
	}
	if r := n.reporter.Load(); r != nil && r.Lapsed() {
		bad("receipts: none was stored for so long that nobody waits for this node")
	}
	if n.pen != nil {
		mode, _ := n.pen.Mode()
		r.Pen = string(mode)
		if mode == authority.Broken {
			bad("pen: " + n.pen.Cause().Error())
		}
	}
	for _, s := range n.projections() {
		p := projectionStatus{Name: s.Name, Version: s.Version, Sequence: s.Applied.Seq, Head: s.Head, Lag: s.Lag(), Since: s.Since.UTC()}
		if s.Stopped != nil {
			p.Stopped = s.Stopped.Error()
			if s.Name == used.Name || s.Name == revocations.Name || s.Name == audittrail.Name {
				r.Reasons = append(r.Reasons, s.Name+" has stopped") // no decision rests on it
			} else {
				bad(s.Name + " has stopped")
			}
		}
		r.Projections = append(r.Projections, p)
	}
	if n.fanout != nil {
		if err := n.fanout.Err(); err != nil {
			bad("feed: " + err.Error())
		}
	}
	if err := n.audit.service.Err(); err != nil {
		r.Reasons = append(r.Reasons, "audit: "+err.Error()) // whoever asks for a head is refused
	}
	if f := n.proxies.file.Load(); f != nil {
		if err := f.Err(); err != nil {
			r.Reasons = append(r.Reasons, "routes: "+err.Error()) // those before hold on
		}
	}
	x := n.index.get()
	s := x.Stats()
	r.Index = &indexStatus{Mode: string(s.Mode), Tokens: s.Tokens, MemoryBytes: s.MemoryBytes, DiskBytes: s.DiskBytes}
	if err := x.Diverged(); err != nil {
		r.Index.Diverged = err.Error()
		bad("verifyindex: " + err.Error())
	}
	return r
}
