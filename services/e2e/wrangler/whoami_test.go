package wrangler_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/services/e2e/proc"
)

// deadline bounds everything that the test waits for: the installation, too.
const deadline = 5 * time.Minute

// TestWhoami checks what wrangler says of itself with a user's token and with
// an account's: which kind it is, whose, and of which account. It goes by the
// codes of four answers.
func TestWhoami(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	w := install(ctx, t)
	s := serve(ctx, t)
	account := s.account(ctx)
	// One more of which nothing may be said: no token is for it.
	var other struct {
		ID string `json:"id"`
	}
	s.call(ctx, http.MethodPost, "/accounts", map[string]string{"name": "Another"}, &other)
	s.call(ctx, http.MethodPost, "/accounts/"+other.ID+"/members", map[string]any{"email": s.Admin.Email, "roles": []string{"Super Administrator"}}, &struct{}{})
	var seen []struct{}
	if s.call(ctx, http.MethodGet, "/accounts", nil, &seen); len(seen) != 2 {
		t.Fatalf("the operator sees %d accounts", len(seen))
	}
	asks := func(verify, user, memberships int) string {
		return fmt.Sprintf("GET /client/v4/accounts: 200\nGET /client/v4/memberships: %d\nGET /client/v4/user/tokens/verify: %d\nGET /client/v4/user: %d", memberships, verify, user)
	}

	for name, c := range map[string]struct{ token, says, asks string }{
		"user": {
			s.token(ctx, "/user/tokens", s.details(), s.memberships(), s.settings()),
			"You are logged in with an User API Token, associated with the email " + s.Admin.Email + ".",
			asks(200, 200, 200),
		},
		"user without details": {
			s.token(ctx, "/user/tokens", s.memberships(), s.settings()),
			"You are logged in with an User API Token. Unable to retrieve email for this user.",
			asks(200, 403, 200),
		},
		"account": {
			s.token(ctx, "/accounts/"+s.Admin.AccountID+"/tokens", s.settings()),
			"You are logged in with an Account API Token, associated with the account " + account + ".",
			asks(401, 403, 400),
		},
	} {
		t.Run(name, func(t *testing.T) {
			asked := s.watch(t)
			said := w.run(ctx, t, asked.url, c.token, "whoami")
			if !strings.Contains(said, c.says) {
				t.Errorf("wrangler says\n%s\nwithout %q", said, c.says)
			}
			if rows := rows(said); !slices.Equal(rows, []string{account + " " + s.Admin.AccountID}) {
				t.Errorf("wrangler says\n%s\nwith the accounts %q", said, rows)
			}
			if got := asked.all(); got != c.asks {
				t.Errorf("wrangler asked\n%s\nwant\n%s", got, c.asks)
			}
		})
	}
}

// rows returns the rows of the table of accounts.
func rows(said string) []string {
	var out []string
	for line := range strings.Lines(said) {
		if cells := strings.Split(line, "│"); len(cells) == 4 && !strings.Contains(line, "Account Name") {
			out = append(out, strings.TrimSpace(cells[1])+" "+strings.TrimSpace(cells[2]))
		}
	}
	return out
}

// tool is wrangler as npm has installed it.
type tool struct{ dir string }

// install lets npm put wrangler and its Node into a directory of the test. No
// script of a package runs.
func install(ctx context.Context, t *testing.T) tool {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return tool{dir}
}

// run runs wrangler with nothing in its environment but what it is told.
func (w tool) run(ctx context.Context, t *testing.T, base, token string, args ...string) string {
	t.Helper()
	cpu := map[string]string{"amd64": "x64"}[runtime.GOARCH]
	if cpu == "" {
		cpu = runtime.GOARCH
	}
	node := filepath.Join(w.dir, "node_modules", "node-linux-"+cpu, "bin", "node")
	script := filepath.Join(w.dir, "node_modules", "wrangler", "bin", "wrangler.js")
	cmd := exec.CommandContext(ctx, node, append([]string{script}, args...)...)
	home := t.TempDir()
	cmd.Dir = home
	cmd.Env = []string{
		"HOME=" + home, "PATH=" + os.Getenv("PATH"), "CI=1", "NO_COLOR=1", "WRANGLER_SEND_METRICS=false",
		"CLOUDFLARE_API_BASE_URL=" + base, "CLOUDFLARE_API_TOKEN=" + token,
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("wrangler: %v\n%s", err, out)
	}
	return string(out)
}

// server is the watchword binary.
type server struct {
	*proc.Server
	t *testing.T
}

func serve(ctx context.Context, t *testing.T) *server {
	t.Helper()
	dir := t.TempDir()
	binary, err := proc.Build(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := proc.Start(binary, dir+"/data")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return &server{s, t}
}

// call sends a request as the operator and decodes the result.
func (s *server) call(ctx context.Context, method, path string, body, out any) {
	s.t.Helper()
	sent, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(ctx, method, s.Admin.BaseURL+"/client/v4"+path, bytes.NewReader(sent))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header = http.Header{"X-Auth-Email": {s.Admin.Email}, "X-Auth-Key": {s.Admin.APIKey}, "Content-Type": {"application/json"}}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	e := struct {
		Result any `json:"result"`
	}{out}
	if err := json.Unmarshal(b, &e); err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s %s: %s %s: %v", method, path, resp.Status, b, err)
	}
}

// account returns the name of the account.
func (s *server) account(ctx context.Context) string {
	var a struct {
		Name string `json:"name"`
	}
	s.call(ctx, http.MethodGet, "/accounts/"+s.Admin.AccountID, nil, &a)
	return a.Name
}

// right is a permission group on the user or the account.
type right struct{ group, on string }

func (s *server) details() right { return right{"User Details Read", s.user()} }

func (s *server) memberships() right { return right{"Memberships Read", s.user()} }

func (s *server) settings() right {
	return right{"Account Settings Read", "com.cloudflare.api.account." + s.Admin.AccountID}
}

func (s *server) user() string { return "com.cloudflare.api.user." + s.Admin.UserID }

// token makes a token with rights and returns its secret.
func (s *server) token(ctx context.Context, path string, rights ...right) string {
	var policies []map[string]any
	for _, r := range rights {
		var groups []struct {
			ID string `json:"id"`
		}
		s.call(ctx, http.MethodGet, path+"/permission_groups?name="+url.QueryEscape(r.group), nil, &groups)
		if len(groups) != 1 {
			s.t.Fatalf("%d groups are called %q", len(groups), r.group)
		}
		policies = append(policies, map[string]any{
			"effect": "allow", "resources": map[string]string{r.on: "*"}, "permission_groups": groups,
		})
	}
	var made struct {
		Value string `json:"value"`
	}
	s.call(ctx, http.MethodPost, path, map[string]any{"name": "wrangler", "policies": policies}, &made)
	return made.Value
}

// watched is what went through to the server.
type watched struct {
	url string

	mu   sync.Mutex
	seen []string
}

// watch puts a proxy before the server that notes what is asked.
func (s *server) watch(t *testing.T) *watched {
	t.Helper()
	to, err := url.Parse(s.Admin.BaseURL)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ModifyResponse = func(r *http.Response) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.seen = append(w.seen, fmt.Sprintf("%s %s: %d", r.Request.Method, r.Request.URL.Path, r.StatusCode))
		return nil
	}
	front := httptest.NewServer(proxy)
	t.Cleanup(front.Close)
	w.url = front.URL + "/client/v4"
	return w
}

// all returns what was asked, sorted: some of it is asked at the same time.
func (w *watched) all() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.seen)
	return strings.Join(w.seen, "\n")
}
