package openapi_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
	"watchword.dev/events/usage"
	"watchword.dev/projections/directory"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/projector/snapshot"
	used "watchword.dev/projections/usage"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/authority"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/fanout"
	"watchword.dev/services/fanout/snapshots"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/keyring"
	"watchword.dev/services/internal/keyring/keyringtest"
	"watchword.dev/services/internal/throttle"
	"watchword.dev/services/internal/web"
	"watchword.dev/services/internal/web/openapi"
	"watchword.dev/services/introspection"
	"watchword.dev/services/management"
	"watchword.dev/services/upkeep"
)

// lab is a whole installation in one process: the real pen over a ledger in
// memory, the real projections, the real handlers behind a socket.
type lab struct {
	t       testing.TB
	url     string
	routes  []web.Route
	ledger  *eventstest.Ledger
	dir     *directory.Directory
	index   *verifyindex.Index
	usage   *used.Usage
	teller  *usage.Sender
	counted *usage.Recorder
	told    uint64    // reports
	office  *office   // where receipts are kept
	asked   *counting // the authority, as management sees it
	hold    *gate
	now     *offset
	gate    *throttle.Gate
	audit   ed25519.PublicKey
	log     *safeBuffer

	admin, rival person
	enforcer     string
	enforcerID   token.ID
	consumerID   token.ID
	zone         string        // registered in the admin's account
	ready        chan struct{} // closed when the index knows the enforcer
}

const typeZone = "com.cloudflare.api.account.zone"

// person is a user with an account of their own.
type person struct {
	id, account, member token.ID
	email, key          string
}

// header authenticates as the person.
func (p person) header() http.Header {
	return http.Header{"X-Auth-Email": {p.email}, "X-Auth-Key": {p.key}}
}

func bearer(secret string) http.Header { return http.Header{"Authorization": {"Bearer " + secret}} }

// offset is a clock that runs with the machine's and can be set forward.
type offset struct{ ahead atomic.Int64 }

func (o *offset) Now() time.Time { return time.Now().Add(time.Duration(o.ahead.Load())) }

// counting counts the commands that reach the authority, and can lose the
// answer of one.
type counting struct {
	command.Authority
	commands atomic.Int64
	lose     atomic.Bool
	gone     atomic.Bool // no pen can be reached
}

func (c *counting) Do(ctx context.Context, by command.Caller, cmd command.Command) (command.Result, error) {
	c.commands.Add(1)
	r, err := c.Authority.Do(ctx, by, cmd)
	if c.lose.Swap(false) {
		return command.Result{}, context.DeadlineExceeded
	}
	return r, err
}

func (c *counting) Head(ctx context.Context) (uint64, error) {
	if c.gone.Load() {
		return 0, context.DeadlineExceeded
	}
	return c.Authority.Head(ctx)
}

// gate holds the directory back while it is shut.
type gate struct {
	mu   sync.Mutex
	shut chan struct{}
}

func (g *gate) pass(ctx context.Context, _ events.Position) error {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut == nil {
		return nil
	}
	select {
	case <-shut:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) close() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shut := make(chan struct{})
	g.shut = shut
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.shut = nil
		close(shut)
	}
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newLab(t testing.TB) *lab {
	t.Helper()
	return newLimitedLab(t, throttle.Limits{})
}

// newLimitedLab is a lab with limits. Their clock stands still unless the test
// sets it forward.
func newLimitedLab(t testing.TB, limits throttle.Limits) *lab {
	t.Helper()
	l := &lab{t: t, ledger: eventstest.NewLedger(), hold: &gate{}, now: &offset{}, log: &safeBuffer{}, ready: make(chan struct{})}
	began := time.Now()
	l.gate = throttle.NewGate(limits, func() time.Time { return began.Add(time.Duration(l.now.ahead.Load())) })
	ids := token.NewGenerator(nil)
	enforcer := must[token.Secret](t)(token.Format{}.Generate(token.KindEnforcer))
	l.enforcer, l.enforcerID, l.consumerID = enforcer.Reveal(), ids.New(), ids.New()
	var once sync.Once
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	start := func(name string, run func(context.Context) error) {
		running.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	ring := must[*keyring.Keyring](t)(keyring.Open(ctx, &keyringtest.Memory{}, keyring.NewMaster()))
	l.dir = must[*directory.Directory](t)(directory.Open(directory.Options{Dir: "directory", FS: vfs.NewMem()}))
	l.index = must[*verifyindex.Index](t)(verifyindex.Open(verifyindex.Options{Dir: filepath.Join(t.TempDir(), "index"), MemoryBytes: 64 << 20}))
	l.usage = must[*used.Usage](t)(used.Open(used.Options{Dir: "usage", FS: vfs.NewMem()}))
	l.counted = usage.NewRecorder(usage.Options{Catalogue: catalogue.Cloudflare})
	l.teller = usage.NewSender(usage.SenderConfig{Recorder: l.counted, Publisher: l, Reporter: usage.Node})
	log := l.ledger.Connect()
	follow := projector.NewRunner(log, l.dir, projector.Options{Hold: l.hold.pass})
	start("directory", follow.Run)
	start("index", l.index.Follow(log, projector.Options{}).Run)

	installation := ids.New()
	key := ring.PulseKey().Public().(ed25519.PublicKey)
	pen := must[*authority.Pen](t)(authority.New(authority.Config{
		Log: log, Pulses: log, Past: l.dir, Key: ring.PulseKey(), Installation: installation, Node: "lab", Sole: true, Beat: 20 * time.Millisecond,
		Lease:   time.Minute, // a busy machine is not what is tested
		Genesis: &events.LogOpened{Installation: installation, Brand: token.DefaultBrand, PulseKey: key},
	}))
	start("pen", pen.Run)
	start("pulses", func(ctx context.Context) error {
		return log.WatchPulses(ctx, func(b []byte, _ uint64) {
			if p, err := events.OpenPulse(b, key); err == nil {
				l.index.Observe(p, time.Now())
			}
			if _, reason := l.index.Enforcer(l.enforcer); reason == token.ReasonNone {
				once.Do(func() { close(l.ready) })
			}
		})
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := l.dir.Close(); err != nil {
			t.Error(err)
		}
		if err := l.index.Close(); err != nil {
			t.Error(err)
		}
		if err := l.usage.Close(); err != nil {
			t.Error(err)
		}
	})
	l.people(ctx, pen, ring)
	l.asked = &counting{Authority: pen}
	l.serve(ring, follow)
	return l
}

// Publish applies a report of usage at once.
func (l *lab) Publish(_ context.Context, subject string, report []byte) error {
	l.told++
	return l.usage.Apply(used.Message{Seq: l.told, Stored: time.Now(), Subject: subject, Data: report})
}

// people makes two users who know nothing of each other, and an enforcer.
func (l *lab) people(ctx context.Context, pen *authority.Pen, ring *keyring.Keyring) {
	l.t.Helper()
	ids := token.NewGenerator(nil)
	var cmds []command.Command
	for _, p := range []*person{&l.admin, &l.rival} {
		secret := must[token.Secret](l.t)(token.Format{}.Generate(token.KindKey))
		p.id, p.account, p.member, p.key = ids.New(), ids.New(), ids.New(), secret.Reveal()
		p.email = "ops-" + p.id.String()[26:] + "@example.com"
		email := must[events.Sealed](l.t)(ring.Seal(ctx, p.id, p.email))
		cmds = append(cmds,
			command.RegisterUser{ID: p.id, Email: email, EmailIndex: ring.EmailIndex(p.email), Operator: p == &l.admin},
			command.IssueAPIKey{User: p.id, Secret: secret.Digest()},
			command.CreateAccount{ID: p.account, Name: "Example " + p.account.String()[26:]},
			command.AddMember{ID: p.member, Account: p.account, User: p.id, Roles: []string{authority.SuperAdministrator}},
		)
	}
	l.zone = ids.New().String()
	cmds = append(cmds, command.RegisterResource{Type: typeZone, Resource: l.zone, Name: "example.com", Parent: "com.cloudflare.api.account." + l.admin.account.String()})
	cmds = append(cmds, command.EnrollEnforcer{ID: l.enforcerID, Name: "edge", Secret: token.Sum(l.enforcer), Nkey: receipt.FormatPublic(enforcerSeed.Public().(ed25519.PublicKey))},
		command.EnrollConsumer{ID: l.consumerID, Name: "siem", Nkey: authoritytest.NewNkey()})
	if err := authority.Bootstrap(ctx, pen, cmds...); err != nil {
		l.t.Fatal(err)
	}
}

// checkDirectory is a short piece of upkeep: it reads the directory once.
func (l *lab) checkDirectory(_ context.Context, progress func(done, head uint64)) (any, error) {
	if _, _, err := l.dir.Installation(); err != nil {
		return nil, err
	}
	progress(1, 1)
	return map[string]uint64{"sequence": l.dir.Applied()}, nil
}

func (l *lab) serve(ring *keyring.Keyring, reached management.Waiter) {
	l.t.Helper()
	logger := slog.New(slog.NewTextHandler(l.log, nil))
	listener := must[net.Listener](l.t)(net.Listen("tcp", "127.0.0.1:0"))
	l.url = "http://" + listener.Addr().String()
	rt := web.NewRouter(web.Config{Log: logger, Gate: l.gate})
	heard := l.serveReceipts(rt)
	m := must[*management.Service](l.t)(management.New(management.Config{
		Receipts:  heard,
		Authority: l.asked, Directory: l.dir, Reached: reached, Verifier: l.index, Settle: []management.Waiter{l.index}, SettleTime: time.Second,
		Sealer: ring, RequestKey: ring.RequestKey(), Catalogue: catalogue.Cloudflare, Now: l.now.Now,
		ReadWait: time.Minute, CommandWait: time.Minute, Count: l.counted, Usage: l.usage, Log: logger,
	}))
	m.Routes(rt)
	in := must[*introspection.Service](l.t)(introspection.New(introspection.Config{
		Decider: l.index, Tokens: l.dir, Catalogue: catalogue.Cloudflare, Reached: reached, Log: logger,
		Issuer: func() string { return l.url }, AtLeastWait: time.Second, Count: l.counted, Map: l.routed(),
	}))
	in.Routes(rt)
	l.serveFeed(rt, logger)
	up := upkeep.New(upkeep.Config{
		Operator: m.Operator, Log: logger,
		Rebuild: map[string]upkeep.Work{"directory": l.checkDirectory},
		Fsck:    l.checkDirectory,
	})
	l.t.Cleanup(up.Close)
	up.Routes(rt)
	l.serveAudit(rt, ring)
	openapi.Routes(rt)
	l.routes = rt.Routes()
	srv := web.NewServer(rt, logger)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(listener) }()
	l.t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			l.t.Error(err)
		}
		<-done
	})
	select { // the index answers from a pulse on that it has reached
	case <-l.ready:
	case <-time.After(10 * time.Second):
		l.t.Fatal("the index does not get ready")
	}
}

// serveFeed adds the feed, and waits until it has begun.
func (l *lab) serveFeed(rt *web.Router, logger *slog.Logger) {
	live := must[*fanout.Service](l.t)(fanout.New(fanout.Config{Ledger: placed{l.ledger.Connect(), l.ledger}, Enforcers: l.index, Log: logger}))
	live.Routes(rt)
	must[*snapshots.Service](l.t)(snapshots.New(snapshots.Config{
		Index: func() snapshot.Source { return l.index }, Enforcers: l.index, Dir: filepath.Join(l.t.TempDir(), "snapshots"), Log: logger,
	})).Routes(rt)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := live.Run(ctx); ctx.Err() == nil {
			l.t.Errorf("the feed: %v", err)
		}
	})
	l.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// placed is a ledger that knows where its commits end.
type placed struct {
	*eventstest.Log
	ledger *eventstest.Ledger
}

func (p placed) PositionAt(_ context.Context, seq uint64) (events.Position, error) {
	if seq == 0 {
		return events.Position{}, nil
	}
	all, err := p.ledger.Commits()
	if err != nil || seq > uint64(len(all)) {
		return events.Position{}, errors.Join(events.ErrRewind, err)
	}
	return all[seq-1].End, nil
}

// answer is what came back.
type answer struct {
	*http.Response
	body []byte
	envelope
}

type envelope struct {
	Success  bool           `json:"success"`
	Result   jsontext.Value `json:"result"`
	Info     page           `json:"result_info"`
	Errors   []apiError     `json:"errors"`
	Messages []struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"messages"`
}

type page struct {
	Page       int `json:"page"`
	PerPage    int `json:"per_page"`
	Count      int `json:"count"`
	TotalCount int `json:"total_count"`
	TotalPages int `json:"total_pages"`
}

type apiError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Chain   []struct {
		Code int `json:"code"`
	} `json:"error_chain"`
	Source struct {
		Pointer string `json:"pointer"`
	} `json:"source"`
}

// code returns the first error's code, or 0.
func (a *answer) code() int {
	if len(a.Errors) == 0 {
		return 0
	}
	return a.Errors[0].Code
}

// request builds a request; a body gets JSON's content type unless the headers
// have one.
func (l *lab) request(method, path string, as http.Header, body any) *http.Request {
	l.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = bytes.NewReader([]byte(b))
	case []byte:
		reader = bytes.NewReader(b)
	default:
		reader = bytes.NewReader(must[[]byte](l.t)(json.Marshal(b)))
	}
	r := must[*http.Request](l.t)(http.NewRequest(method, l.url+path, reader))
	for k, v := range as {
		r.Header[k] = v
	}
	if _, ok := as["Content-Type"]; !ok && reader != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func (l *lab) send(r *http.Request) *answer {
	l.t.Helper()
	var sent []byte
	if r.GetBody != nil {
		sent = must[[]byte](l.t)(io.ReadAll(must[io.ReadCloser](l.t)(r.GetBody())))
	}
	resp := must[*http.Response](l.t)(http.DefaultClient.Do(r))
	defer resp.Body.Close()
	a := &answer{Response: resp, body: must[[]byte](l.t)(io.ReadAll(resp.Body))}
	if resp.Header.Get("Content-Type") == "application/json" && r.Method != http.MethodHead {
		// Bodies that are not in the envelope leave it empty.
		_ = json.Unmarshal(a.body, &a.envelope)
	}
	l.holdAgainst(r, sent, a)
	return a
}

// do sends a request and requires the status and the first error's code.
func (l *lab) do(method, path string, as http.Header, body any, status, code int) *answer {
	l.t.Helper()
	a := l.send(l.request(method, path, as, body))
	if a.StatusCode != status || a.code() != code {
		l.t.Fatalf("%s %s: status %d, want %d with code %d: %s", method, path, a.StatusCode, status, code, a.body)
	}
	return a
}

func (a *answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.Result, v); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
}

func jsonInto(b []byte, v any) error { return json.Unmarshal(b, v) }
