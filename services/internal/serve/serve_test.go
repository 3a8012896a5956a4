package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/pflag"

	"watchword.dev/events"
	"watchword.dev/projections/projector"
	"watchword.dev/services/config"
	"watchword.dev/services/internal/cli"
	"watchword.dev/services/internal/embed/embedtest"
	"watchword.dev/services/upkeep"
)

// deadline bounds everything that a test waits for.
const deadline = 60 * time.Second

const dnsWrite = "4755a26eedb94da69e1066d98aa820be"

// running is a node under test.
type running struct {
	t    *testing.T
	n    *node
	stop func() error // ends it and returns how it ended
	cli.Admin
}

// settings returns the configuration of a node in dir with free ports.
func settings(t *testing.T, dir string, args ...string) *config.Serve {
	t.Helper()
	cfg := new(config.Serve)
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	config.Bind(fs, cfg)
	// The tests ask as fast as they can.
	args = append([]string{"--data", dir, "--listen", "127.0.0.1:0", "--nats-listen", "", "--limit-requests", "0", "--limit-address", "0"}, args...)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(fs, nil, cfg); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// start runs a node until it is ready. The test's end stops it.
func start(t *testing.T, cfg *config.Serve, change func(*node)) *running {
	t.Helper()
	n := newNode(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if change != nil {
		change(n)
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.serve(ctx, io.Discard) }()
	r := &running{t: t, n: n}
	r.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			if errors.Is(err, context.Canceled) {
				err = nil
			}
			return err
		case <-time.After(deadline):
			return errors.New("the node did not stop")
		}
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	r.await(ended)
	return r
}

// await waits until the doors are open, and reads the credentials.
func (r *running) await(ended chan error) {
	r.t.Helper()
	select {
	case <-r.n.ready:
	case err := <-ended:
		r.t.Fatalf("the node ended: %v", err)
	case <-time.After(deadline):
		r.t.Fatal("the node was not ready in time")
	}
	b, err := os.ReadFile(r.n.cfg.Path(adminFile))
	if err != nil {
		r.t.Fatal(err)
	}
	if err := json.Unmarshal(b, &r.Admin); err != nil {
		r.t.Fatal(err)
	}
	r.BaseURL = r.n.baseURL()
}

// call sends a request as the operator and decodes the result.
func (r *running) call(method, path, body string, out any) int {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.BaseURL+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("X-Auth-Email", r.Email)
	req.Header.Set("X-Auth-Key", r.APIKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var e struct {
		Result jsontext.Value `json:"result"`
	}
	if err := json.Unmarshal(b, &e); err != nil {
		r.t.Fatalf("%s %s: %s: %s", method, path, resp.Status, b)
	}
	if out != nil && resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(e.Result, out); err != nil {
			r.t.Fatalf("%s %s: %v: %s", method, path, err, b)
		}
	}
	return resp.StatusCode
}

type created struct {
	ID    string `json:"id"`
	Value string `json:"value"`
}

// create makes a token for one zone.
func (r *running) create() created {
	r.t.Helper()
	var c created
	body := fmt.Sprintf(`{"name":"t","policies":[{"effect":"allow","resources":{"com.cloudflare.api.account.zone.%032x":"*"},"permission_groups":[{"id":%q}]}]}`, 7, dnsWrite)
	if code := r.call(http.MethodPost, "/client/v4/user/tokens", body, &c); code != http.StatusOK {
		r.t.Fatalf("create: HTTP %d", code)
	}
	return c
}

// allowed asks for a decision about the zone of create.
func (r *running) decide(secret string) (decision, reason string) {
	r.t.Helper()
	body := fmt.Sprintf(`{"secret":%q,"permission":"dns.records.write","resource":["com.cloudflare.api.account.zone.%032x"]}`, secret, 7)
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.BaseURL+"/v1/verify", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.EnforcerKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var d struct{ Decision, Reason string }
	if err := json.Unmarshal(b, &d, json.MatchCaseInsensitiveNames(true)); err != nil {
		r.t.Fatalf("%s: %s", resp.Status, b)
	}
	return d.Decision, d.Reason
}

// TestReadYourWrites holds every projection back by 300 ms: what was written
// is read at once all the same.
func TestReadYourWrites(t *testing.T) {
	var hold atomicDuration
	r := start(t, settings(t, t.TempDir()), func(n *node) { n.feeding.Hold = hold.wait })
	hold.set(300 * time.Millisecond)
	for range 3 {
		c := r.create()
		if code := r.call(http.MethodGet, "/client/v4/user/tokens/"+c.ID, "", nil); code != http.StatusOK {
			t.Errorf("get right after create: HTTP %d", code)
		}
		if code := r.call(http.MethodDelete, "/client/v4/user/tokens/"+c.ID, "", nil); code != http.StatusOK {
			t.Errorf("delete: HTTP %d", code)
		}
		if code := r.call(http.MethodGet, "/client/v4/user/tokens/"+c.ID, "", nil); code != http.StatusNotFound {
			t.Errorf("get right after delete: HTTP %d", code)
		}
	}
	hold.set(0)
}

// atomicDuration holds projections back for as long as it says.
type atomicDuration struct {
	mu sync.Mutex
	d  time.Duration
}

func (a *atomicDuration) set(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.d = d
}

func (a *atomicDuration) wait(ctx context.Context, _ events.Position) error {
	a.mu.Lock()
	d := a.d
	a.mu.Unlock()
	if d == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// TestRestart checks that a restart, also of a first start that was cut off,
// finds everything as it was.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	// A plan without anything else is what a crash right after it leaves.
	if _, err := plan(settings(t, dir)); err != nil {
		t.Fatal(err)
	}
	first := start(t, settings(t, dir), nil)
	c := first.create()
	if d, why := first.decide(c.Value); d != "allow" {
		t.Fatalf("%s %s", d, why)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, bootstrapFile)); err == nil {
		t.Error("the plan of the first start is still there")
	}
	second := start(t, settings(t, dir), nil)
	if second.APIKey != first.APIKey || second.UserID != first.UserID {
		t.Error("the second start made another operator")
	}
	if d, why := second.decide(c.Value); d != "allow" {
		t.Errorf("%s %s", d, why)
	}
}

// TestRebuild rebuilds each projection while the service is in use.
func TestRebuild(t *testing.T) {
	r := start(t, settings(t, t.TempDir()), nil)
	c, gone := r.create(), r.create()
	if code := r.call(http.MethodDelete, "/client/v4/user/tokens/"+gone.ID, "", nil); code != http.StatusOK {
		t.Fatalf("delete: HTTP %d", code)
	}
	for _, name := range []string{"directory", "verifyindex"} {
		before := r.n.index.get()
		var j upkeep.Job
		if code := r.call(http.MethodPost, "/v1/upkeep/rebuild/"+name, "", &j); code != http.StatusOK {
			t.Fatalf("rebuild %s: HTTP %d", name, code)
		}
		for j.Finished.IsZero() {
			if d, why := r.decide(c.Value); d != "allow" {
				t.Fatalf("during the rebuild of %s: %s %s", name, d, why)
			}
			r.call(http.MethodGet, "/v1/upkeep", "", &j)
		}
		if j.Failed != "" || j.Done != j.Head || j.Head == 0 {
			t.Errorf("rebuild %s: %+v", name, j)
		}
		if name == "verifyindex" && before == r.n.index.get() {
			t.Error("the old index still serves")
		}
	}
	if d, why := r.decide(c.Value); d != "allow" {
		t.Errorf("after the rebuilds: %s %s", d, why)
	}
	if d, why := r.decide(gone.Value); d != "deny" || why != "revoked" {
		t.Errorf("a revoked token after the rebuilds: %s %s", d, why)
	}
	if code := r.call(http.MethodPost, "/v1/upkeep/rebuild/nothing", "", nil); code != http.StatusNotFound {
		t.Errorf("rebuild of an unknown projection: HTTP %d", code)
	}
}

// TestForeignStore starts on the store of another version, and on a damaged
// one: both are built anew, and nothing is accepted that the ledger has revoked.
func TestForeignStore(t *testing.T) {
	dir := t.TempDir()
	r := start(t, settings(t, dir), nil)
	c, gone := r.create(), r.create()
	if code := r.call(http.MethodDelete, "/client/v4/user/tokens/"+gone.ID, "", nil); code != http.StatusOK {
		t.Fatalf("delete: HTTP %d", code)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	index := projector.Home{Dir: filepath.Join(dir, "verifyindex")}
	for name, harm := range map[string]func(generation string){
		"another projection's": func(generation string) {
			other, err := projector.Home{Dir: filepath.Join(dir, "directory")}.Current()
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.RemoveAll(generation), os.CopyFS(generation, os.DirFS(other))); err != nil {
				t.Fatal(err)
			}
		},
		"damaged": func(generation string) {
			manifests, err := filepath.Glob(filepath.Join(generation, "MANIFEST-*"))
			if err != nil || len(manifests) == 0 {
				t.Fatalf("no manifest in %s: %v", generation, err)
			}
			for _, m := range manifests {
				b, err := os.ReadFile(m)
				if err != nil {
					t.Fatal(err)
				}
				for i := range b {
					b[i] ^= 0x55
				}
				if err := os.WriteFile(m, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		generation, err := index.Current()
		if err != nil {
			t.Fatal(err)
		}
		harm(generation)
		r := start(t, settings(t, dir), nil)
		if now, err := index.Current(); err != nil || now == generation {
			t.Errorf("%s: still in use: %v", name, err)
		}
		if d, why := r.decide(c.Value); d != "allow" {
			t.Errorf("%s: %s %s", name, d, why)
		}
		if d, why := r.decide(gone.Value); d != "deny" || why != "revoked" {
			t.Errorf("%s: a revoked token: %s %s", name, d, why)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStoppedProjection checks that a projection that cannot go on is shown
// and makes the node not ready, while it still answers.
func TestStoppedProjection(t *testing.T) {
	bad := errors.New("cannot be applied")
	var armed atomicDuration
	r := start(t, settings(t, t.TempDir()), func(n *node) {
		n.feeding.Hold = func(context.Context, events.Position) error {
			armed.mu.Lock()
			defer armed.mu.Unlock()
			if armed.d > 0 {
				return bad
			}
			return nil
		}
	})
	c := r.create()
	armed.set(1)
	r.n.authority.Do(t.Context(), callerOf(r), revokeOf(t, r, c.ID))
	waitFor(t, func() bool { return !r.n.front.readiness().Ready })
	state := r.n.front.readiness()
	text, err := json.Marshal(state)
	if err != nil || !bytes.Contains(text, []byte(bad.Error())) {
		t.Errorf("readiness does not say why: %s", text)
	}
	if code := r.call(http.MethodGet, "/client/v4/user/tokens/"+c.ID, "", nil); code != http.StatusServiceUnavailable {
		t.Errorf("a read that cannot reach the head: HTTP %d", code)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(deadline); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it did not happen in time")
		}
	}
}

// TestNodes runs the roles on several nodes over a real cluster of three NATS
// servers: a write on one is read at once on another, and a second authority
// takes over when the first one ends.
func TestNodes(t *testing.T) {
	cluster := embedtest.Start(t, 3)
	first := filepath.Join(t.TempDir(), "a")
	remote := func(dir string, args ...string) *config.Serve {
		return settings(t, dir, append([]string{"--nats-url", cluster.URL(), "--nats-seed-dir", cluster.Seeds}, args...)...)
	}
	cfg := remote(first, "--node", "a")
	if err := os.MkdirAll(first, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := newPlan(cfg); err != nil { // what `watchword init` writes
		t.Fatal(err)
	}
	a := start(t, cfg, nil)

	other := func(name string, args ...string) *running {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{masterFile, adminFile} {
			b, err := os.ReadFile(filepath.Join(first, f))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, f), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return start(t, remote(dir, append([]string{"--node", name}, args...)...), nil)
	}
	front := other("front", "--roles", "management,introspection")
	standby := other("standby")

	c := front.create()
	for _, r := range []*running{a, standby, front} {
		if code := r.call(http.MethodGet, "/client/v4/user/tokens/"+c.ID, "", nil); code != http.StatusOK {
			t.Errorf("%s: get right after create elsewhere: HTTP %d", r.n.cfg.Node, code)
		}
	}
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	var d created
	waitFor(t, func() bool {
		return front.call(http.MethodPost, "/client/v4/user/tokens", `{"name":"after","policies":[{"effect":"allow","resources":{"com.cloudflare.api.account.zone.*":"*"},"permission_groups":[{"id":"`+dnsWrite+`"}]}]}`, &d) == http.StatusOK
	})
	if code := standby.call(http.MethodGet, "/client/v4/user/tokens/"+d.ID, "", nil); code != http.StatusOK {
		t.Errorf("get after the takeover: HTTP %d", code)
	}
	if err := standby.stop(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.BaseURL+"/client/v4/user/tokens/"+d.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Header.Set("X-Auth-Email", front.Email)
	resp.Header.Set("X-Auth-Key", front.APIKey)
	waitFor(t, func() bool {
		answer, err := http.DefaultClient.Do(resp)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusServiceUnavailable && answer.Header.Get("Retry-After") != ""
	})
}

// TestOfflineKeepsTheLedger checks a ledger whose store was not closed cleanly
// and has a wrong byte: the check says so and leaves every byte as it was.
func TestOfflineKeepsTheLedger(t *testing.T) {
	dir := t.TempDir()
	r := start(t, settings(t, dir), nil)
	for range 5 {
		r.create()
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// A store that was not closed cleanly has no state of its own.
	blocks, err := filepath.Glob(filepath.Join(dir, "nats", "jetstream", "*", "streams", "WATCHWORD_EVENTS", "msgs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var block string
	for _, f := range blocks {
		if filepath.Ext(f) == ".blk" {
			block = f
		} else if err := os.RemoveAll(f); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(block)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(block, b, 0o600); err != nil {
		t.Fatal(err)
	}
	app := &cli.App{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, Getenv: func(string) string { return "" }}
	report, err := check(t.Context(), app, dir, newProgress(app, "fsck"))
	if err == nil && report.Clean() {
		t.Errorf("nothing is said to be wrong: %+v", report)
	}
	after, err := os.ReadFile(block)
	if err != nil || !bytes.Equal(after, b) {
		t.Errorf("the check has changed the ledger: %d bytes, were %d, %v", len(after), len(b), err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, scratchPrefix+"*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
