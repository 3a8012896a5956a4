package terraform_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"watchword.dev/events"
	"watchword.dev/services/config"
	"watchword.dev/services/e2e/proc"
	"watchword.dev/services/internal/embed"
	"watchword.dev/services/internal/embed/embedtest"
	"watchword.dev/services/internal/serve"
)

const (
	// deadline bounds everything that a test waits for; it promises no speed.
	deadline = 90 * time.Second
	// trail is how late the projections of held nodes hear of a commit.
	trail = 300 * time.Millisecond
	// heldBy makes this program the binary, held back by as long as it says.
	heldBy = "PROJECTIONS_HELD_BY"
)

func TestMain(m *testing.M) {
	if by := os.Getenv(heldBy); by != "" {
		if err := held(by); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// held is `watchword serve` with projections that are late.
func held(by string) error {
	late, err := time.ParseDuration(by)
	if err != nil {
		return err
	}
	cfg, fs := new(config.Serve), pflag.NewFlagSet("serve", pflag.ContinueOnError)
	config.Bind(fs, cfg)
	if err := fs.Parse(os.Args[2:]); err != nil {
		return err
	}
	if _, err := config.Load(fs, nil, cfg); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	return serve.RunHeld(ctx, cfg, log, io.Discard, func(ctx context.Context, _ events.Position) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(late):
			return nil
		}
	})
}

// start runs a node until it is ready. The end of the test ends it.
func start(t *testing.T, o proc.Options) *proc.Server {
	t.Helper()
	s, err := proc.Launch(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			log := s.Log()
			t.Logf("the end of the log:\n%s", log[max(0, len(log)-3000):])
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

// heldPair runs two nodes over the ledger of a NATS cluster: one has the
// pen, the other sends it its changes. The projections of both are late.
func heldPair(t *testing.T, binary string) []*proc.Server {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cluster := embedtest.Start(t, 3)
	ledger := []string{"--nats-listen", "", "--nats-url", cluster.URL(), "--nats-seed-dir", cluster.Seeds}
	late := append(os.Environ(), heldBy+"="+trail.String())
	a, b := t.TempDir(), t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	init := append([]string{"init", "--data", a, "--operator-seed", cluster.SeedFile(embed.Operator), "--replicas", "3", "--events-max-bytes", "256MiB"}, ledger...)
	if out, err := exec.CommandContext(ctx, binary, init...).CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	first := start(t, proc.Options{Binary: self, Data: a, Env: late, Args: append(ledger, "--node", "first")})
	for _, name := range []string{"master.key", "admin.json"} {
		text, err := os.ReadFile(filepath.Join(a, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(b, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	second := start(t, proc.Options{Binary: self, Data: b, Env: late, Args: append(ledger, "--node", "second", "--roles", "management,introspection")})
	return []*proc.Server{first, second}
}

// single runs the binary itself.
func single(t *testing.T, binary string) []*proc.Server {
	return []*proc.Server{start(t, proc.Options{Binary: binary, Data: t.TempDir()})}
}

// TestReplay replays every recorded session against one node, and against two
// whose directories trail: there each request goes to another node than the
// one before, so that what one node was told, the other must know at once.
func TestReplay(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) != 3 {
		t.Fatalf("%q, %v", files, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	binary, err := proc.Build(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, setUp := range map[string]func(*testing.T, string) []*proc.Server{"one node": single, "two trailing nodes": heldPair} {
		t.Run(name, func(t *testing.T) {
			nodes := setUp(t, binary)
			for _, f := range files {
				t.Run(filepath.Base(f), func(t *testing.T) { replay(t, load(t, f), nodes) })
			}
		})
	}
}

// replay runs a script. Whatever it makes, it deletes in the end.
func replay(t *testing.T, s script, nodes []*proc.Server) {
	a := nodes[0].Admin
	n := names{"$account": a.AccountID, "$user": a.UserID, "$email": a.Email, "$key": a.APIKey}
	turn := 0
	for _, st := range s.steps {
		for _, x := range st.exchanges {
			base := nodes[turn%len(nodes)].URL
			turn++
			if err := x.run(t.Context(), base, n, s.headers[x.as]); err != nil {
				t.Fatalf("%s: %s %s: %v", st.name, x.method, x.path, err)
			}
		}
	}
}

// run sends one request and holds the answer against the script's.
func (x exchange) run(ctx context.Context, base string, n names, headers http.Header) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, x.method, base+n.fill(x.path), strings.NewReader(n.fill(x.body)))
	if err != nil {
		return err
	}
	if x.body == "" {
		r.Body = http.NoBody
	} else {
		r.Header.Set("Content-Type", "application/json")
	}
	for k, v := range headers {
		r.Header.Set(k, n.fill(v[0]))
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != x.status || resp.Header.Get("Content-Type") != "application/json" {
		return fmt.Errorf("HTTP %d, want %d: %s", resp.StatusCode, x.status, b)
	}
	return n.match(x.answer, string(b))
}
