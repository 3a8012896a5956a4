package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"watchword.dev/services/introspection"
)

const shippedRoutes = "../../deploy/routes/dns.yaml"

// proxy is a real proxy with the configuration that is shipped for it, between
// the test and a service.
type proxy struct {
	t       *testing.T
	i       *installation
	url     string
	records string // the path of a request about the zone of the tests
	behind  *service
}

// service remembers what reached it.
type service struct {
	mu   sync.Mutex
	last *http.Request
	body string
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.last, s.body = r, string(b)
	s.mu.Unlock()
	if r.Header.Get("Break") != "" {
		w.WriteHeader(http.StatusInternalServerError)
	}
	fmt.Fprint(w, "the service")
}

// take returns the last request, nil if there was none since the last time.
func (s *service) take() (*http.Request, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, body := s.last, s.body
	s.last, s.body = nil, ""
	return r, body
}

// program returns the path of a Debian package's program.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/bin") {
		if at := filepath.Join(dir, name); dir != "" {
			if s, err := os.Stat(at); err == nil && s.Mode()&0o111 != 0 {
				return at
			}
		}
	}
	t.Fatalf("there is no %s: apt-get install --no-install-recommends %s", name, pkg)
	return ""
}

// freeAddress returns an address of loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// adapted returns a shipped file with other addresses. Each must stand in it.
func adapted(t *testing.T, name string, replace ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("%s does not hold %q", name, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	return text
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// newProxy starts a server, a service and what run says. run gets a directory,
// the addresses of the three and returns the command.
func newProxy(t *testing.T, run func(p *proxy, dir, listen, watchword, service string) *exec.Cmd) *proxy {
	t.Helper()
	p := &proxy{t: t, i: install(t, "--routes", shippedRoutes), behind: &service{}}
	p.records = "/accounts/" + p.i.admin.AccountID + "/zones/" + zoneID + "/records"
	behind := httptest.NewServer(p.behind)
	t.Cleanup(behind.Close)
	listen := freeAddress(t)
	p.url = "http://" + listen
	cmd := run(p, t.TempDir(), listen, strings.TrimPrefix(p.i.server.URL, "http://"), strings.TrimPrefix(behind.URL, "http://"))
	log := newOutput()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("the proxy's log:\n%s", log)
		}
	})
	for limit := time.After(deadline); ; {
		c, err := net.Dial("tcp", listen)
		if err == nil {
			c.Close()
			return p
		}
		select {
		case <-limit:
			t.Fatalf("the proxy does not listen: %v", err)
		case <-ended:
			t.Fatal("the proxy has ended")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// nginx is the real one.
func nginx(p *proxy, dir, listen, watchword, service string) *exec.Cmd {
	key := write(p.t, filepath.Join(dir, "watchword.key"), fmt.Sprintf("proxy_set_header Watchword-Enforcer-Key %q;\n", p.i.admin.EnforcerKey))
	write(p.t, filepath.Join(dir, "site.conf"), adapted(p.t, "nginx/watchword.conf",
		"listen 8080;", "listen "+listen+";", "127.0.0.1:8420", watchword, "127.0.0.1:9000", service, "/etc/nginx/watchword.key", key))
	var temp strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "%s_temp_path %s/%s;\n", kind, dir, kind)
	}
	main := write(p.t, filepath.Join(dir, "nginx.conf"), "daemon off;\nmaster_process off;\nerror_log stderr;\npid "+dir+"/pid;\nevents {}\nhttp {\naccess_log off;\n"+temp.String()+"include "+dir+"/site.conf;\n}\n")
	return exec.Command(program(p.t, "nginx", "nginx-light"), "-p", dir, "-e", "stderr", "-c", main)
}

// caddy is the real one.
func caddy(p *proxy, dir, listen, watchword, service string) *exec.Cmd {
	_, port, _ := net.SplitHostPort(listen)
	file := write(p.t, filepath.Join(dir, "Caddyfile"), "{\n\tadmin off\n\tauto_https off\n\tdefault_bind 127.0.0.1\n}\n"+
		adapted(p.t, "caddy/Caddyfile", "http://:8080", "http://:"+port, "127.0.0.1:8420", watchword, "127.0.0.1:9000", service))
	cmd := exec.Command(program(p.t, "caddy", "caddy"), "run", "--config", file, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "WATCHWORD_ENFORCER_KEY="+p.i.admin.EnforcerKey)
	return cmd
}

// reply is what came back through the proxy.
type reply struct {
	answered
	got  *http.Request // by the service; nil if nothing
	sent string        // its body
}

// ask sends a request whose target is not touched on its way to the proxy.
// more are further headers.
func (p *proxy) ask(method, target, secret, body string, more ...string) reply {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, p.url, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if body == "" {
		r.Body = http.NoBody
	}
	path, query, _ := strings.Cut(target, "?")
	r.URL.Opaque, r.URL.RawQuery = path, query
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	for i := 0; i < len(more); i += 2 {
		if more[i] == "Host" {
			r.Host = more[i+1]
			continue
		}
		r.Header[more[i]] = append(r.Header[more[i]], more[i+1])
	}
	p.behind.take()
	resp, err := p.i.http.Do(r)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	a := reply{answered: answered{resp.StatusCode, resp.Header, b}}
	a.got, a.sent = p.behind.take()
	return a
}

// TestNginx and TestCaddy: real proxies with the shipped configurations.
func TestNginx(t *testing.T) { testProxy(t, nginx) }

func TestCaddy(t *testing.T) { testProxy(t, caddy) }

func testProxy(t *testing.T, run func(p *proxy, dir, listen, watchword, service string) *exec.Cmd) {
	t.Parallel()
	p := newProxy(t, run)
	good := p.i.create("good")
	t.Run("allowed", func(t *testing.T) { p.in(t).allowed(good) })
	t.Run("refused", func(t *testing.T) { p.in(t).refused(good.Value) })
	t.Run("spoofed", func(t *testing.T) { p.in(t).spoofed(good) })
	t.Run("paths", func(t *testing.T) { p.in(t).paths(good.Value) })
	t.Run("addresses", func(t *testing.T) { p.in(t).addresses() })
	t.Run("revoked", func(t *testing.T) {
		p := p.in(t)
		p.i.must(asked{http.MethodDelete, userTokens + "/" + good.ID, p.i.operator(), ""}, new(any))
		p.refuses("revoked", http.StatusUnauthorized, "invalid_token", p.ask("GET", p.records, good.Value, ""))
	})
	t.Run("unavailable", func(t *testing.T) {
		p := p.in(t)
		p.i.server.Kill()
		a := p.ask("GET", p.records, good.Value, "")
		if a.status != http.StatusServiceUnavailable || a.got != nil || a.header.Get("Retry-After") != "1" || a.header.Get("Www-Authenticate") != "" {
			t.Errorf("with nobody to ask: %d %v", a.status, a.header)
		}
	})
}

// in is p for a part of the test.
func (p *proxy) in(t *testing.T) *proxy {
	i, q := *p.i, *p
	i.t, q.t, q.i = t, t, &i
	return &q
}

// passes holds that a request reaches the service as it was sent, with the
// token's identity and nothing else of ours.
func (p *proxy) passes(a reply, target string, tok tokenResult, permission string) {
	p.t.Helper()
	if a.status != http.StatusOK || a.got == nil {
		p.t.Errorf("%s: %d %s", target, a.status, a.body)
		return
	}
	if a.got.RequestURI != target {
		p.t.Errorf("%s reached the service as %s", target, a.got.RequestURI)
	}
	zone := "com.cloudflare.api.account." + p.i.admin.AccountID + " " + zoneType + zoneID
	want := map[string]string{
		"Watchword-Token-Id": tok.ID, "Watchword-Owner-Id": p.i.admin.UserID, "Watchword-Owner-Kind": "user", "Watchword-Account-Id": "",
		"Watchword-Permission": permission, "Watchword-Resource": zone,
	}
	for name, lines := range a.got.Header {
		plain := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
		if !strings.HasPrefix(plain, "Watchword") {
			continue
		}
		if !slices.Contains(introspection.IdentityHeaders, name) || len(lines) != 1 || strings.ContainsAny(lines[0], "{}") || strings.Contains(lines[0], "spoofed") {
			p.t.Errorf("%s: the service got %s: %q", target, name, lines)
		}
	}
	for name, value := range want {
		if got := a.got.Header.Get(name); got != value {
			p.t.Errorf("%s: the service got %s: %q, want %q", target, name, got, value)
		}
	}
	if a.got.Header.Get("Watchword-Policy-Id") == "" || a.got.Header.Get("Watchword-Sequence") == "" {
		p.t.Errorf("%s: the service got %v", target, a.got.Header)
	}
	if got := a.got.Header["Authorization"]; got != nil {
		p.t.Errorf("%s: the service got the secret", target)
	}
}

// refuses holds that a request does not reach the service.
func (p *proxy) refuses(name string, status int, challenge string, a reply) {
	p.t.Helper()
	got := a.header.Values("Www-Authenticate")
	if a.status != status || a.got != nil || len(got) != 1 || !strings.HasPrefix(got[0], "Bearer ") || !strings.Contains(got[0], challenge) {
		p.t.Errorf("%s: %d, challenge %q, reached the service: %v", name, a.status, got, a.got != nil)
	}
}

func (p *proxy) allowed(tok tokenResult) {
	p.passes(p.ask("GET", p.records, tok.Value, ""), p.records, tok, "dns.records.read")
	p.passes(p.ask("GET", p.records+"?a=%2F&b=..", tok.Value, ""), p.records+"?a=%2F&b=..", tok, "dns.records.read")
	p.passes(p.ask("DELETE", p.records+"/a%20b", tok.Value, ""), p.records+"/a%20b", tok, "dns.records.write")
	a := p.ask("POST", p.records, tok.Value, "a body")
	p.passes(a, p.records, tok, "dns.records.write")
	if a.sent != "a body" {
		p.t.Errorf("the service got the body %q", a.sent)
	}
	p.passes(p.ask("GET", p.records, tok.Value, "", "Cookie", strings.Repeat("c=d; ", 1400)), p.records, tok, "dns.records.read")
	// What the service says of itself stays.
	if a := p.ask("GET", p.records, tok.Value, "", "Break", "1"); a.status != http.StatusInternalServerError || string(a.body) != "the service" {
		p.t.Errorf("a service that fails: %d %s", a.status, a.body)
	}
}

func (p *proxy) refused(secret string) {
	other := strings.Replace(p.records, zoneID, otherZone, 1)
	p.refuses("no token", 401, `realm="watchword"`, p.ask("GET", p.records, "", ""))
	p.refuses("in the query", 401, `realm="watchword"`, p.ask("GET", p.records+"?access_token="+secret+"&token="+secret+"&authorization=Bearer%20"+secret, "", ""))
	p.refuses("unknown", 401, "invalid_token", p.ask("GET", p.records, strings.Repeat("A", 48), ""))
	p.refuses("malformed", 401, "invalid_token", p.ask("GET", p.records, "a b", ""))
	p.refuses("another zone", 403, `scope="dns.records.read"`, p.ask("GET", other, secret, ""))
	p.refuses("another zone, the own one in the query", 403, "insufficient_scope", p.ask("GET", other+"?uri="+p.records+"&X-Original-URI="+p.records, secret, ""))
	p.refuses("no route", 403, "insufficient_scope", p.ask("GET", "/", secret, ""))
	p.refuses("no route for the method", 403, "insufficient_scope", p.ask("PUT", p.records, secret, ""))
	p.refuses("the verifier itself", 403, "insufficient_scope", p.ask("GET", "/v1/forward-auth", secret, ""))
}

// spoofed: what a client says under the names of ours counts for nothing.
func (p *proxy) spoofed(tok tokenResult) {
	var names []string
	for _, name := range introspection.IdentityHeaders {
		names = append(names, name, "spoofed", strings.ReplaceAll(name, "-", "_"), "spoofed")
	}
	names = append(names, introspection.EnforcerKeyHeader, "spoofed")
	p.passes(p.ask("GET", p.records, tok.Value, "", names...), p.records, tok, "dns.records.read")
	p.refuses("spoofed, without a token", 401, `realm="watchword"`, p.ask("GET", p.records, "", "", names...))
	own := []string{
		"X-Original-Uri", p.records, "X-Original-URI", p.records, "X-Forwarded-Uri", p.records, "X-Rewrite-Url", p.records, "X-Original-Url", p.records,
		"X-Original-Method", "GET", "X-Forwarded-Method", "GET", "X-Http-Method-Override", "GET",
		"X-Original-Host", "zones.example.com", "X-Forwarded-Host", "zones.example.com", "Host", "zones.example.com",
	}
	other := strings.Replace(p.records, zoneID, otherZone, 1)
	p.refuses("another zone, as the own one", 403, "insufficient_scope", p.ask("GET", other, tok.Value, "", own...))
	p.refuses("another method", 403, "insufficient_scope", p.ask("PUT", p.records, tok.Value, "", own...))
	zone := strings.TrimSuffix(p.records, "/records") // has a route, for another service
	p.refuses("another service", 403, "insufficient_scope", p.ask("GET", zone, tok.Value, "", own...))
	p.passes(p.ask("GET", p.records, tok.Value, "", "X-Original-Uri", other, "X-Forwarded-Uri", other, "X-Original-Method", "PUT", "X-Forwarded-Method", "PUT"), p.records, tok, "dns.records.read")
}

// paths: what the proxy, Watchword and the service could understand in
// different ways reaches nobody.
func (p *proxy) paths(secret string) {
	account := "/accounts/" + p.i.admin.AccountID
	mine, other := "/zones/"+zoneID, "/zones/"+otherZone
	for _, target := range []string{
		account + mine + "/records/../../.." + other + "/records", account + mine + "/records/..%2f..%2f.." + other + "/records",
		account + mine + "/records/%2e%2e/x", account + mine + "/records/.", account + mine + "//records", account + mine + "/records;x=y",
		account + mine + "/records%2fx", account + mine + "/records/a%5cb", account + mine + "/records/%252e%252e/x", account + mine + "/records/a%00b",
		account + mine + "/records/%ff", account + mine + "/records#x", account + "/zones/" + zoneID + "%2f.." + "/records", account + "/zones/a.b/records",
	} {
		for _, method := range []string{"GET", "DELETE"} {
			if a := p.ask(method, target, secret, ""); a.got != nil || a.status != http.StatusForbidden && a.status != http.StatusBadRequest {
				p.t.Errorf("%s %s: %d, reached the service: %v", method, target, a.status, a.got != nil)
			}
		}
	}
}

// addresses: a token's addresses are compared with the client's own, whatever it
// says.
func (p *proxy) addresses() {
	bound := func(in string) tokenResult {
		p.t.Helper()
		var tok tokenResult
		body := strings.TrimSuffix(grant("bound", zoneID), "}") + `,"condition":{"request_ip":{"in":["` + in + `"]}}}`
		p.i.must(asked{http.MethodPost, userTokens, p.i.operator(), body}, &tok)
		return tok
	}
	here, there := bound("127.0.0.1/32"), bound("192.0.2.0/24")
	says := []string{"X-Forwarded-For", "192.0.2.1", "X-Real-Ip", "192.0.2.1", "Forwarded", "for=192.0.2.1"}
	p.passes(p.ask("GET", p.records, here.Value, "", says...), p.records, here, "dns.records.read")
	p.refuses("from elsewhere", 401, "invalid_token", p.ask("GET", p.records, there.Value, ""))
	p.refuses("from elsewhere, as it says", 401, "invalid_token", p.ask("GET", p.records, there.Value, "", says...))
}
