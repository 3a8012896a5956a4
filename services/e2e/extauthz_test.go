package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"watchword.dev/services/introspection"
	"watchword.dev/services/introspection/extauthz"
)

// envoy speaks to a server as Envoy does, by the client stubs of its API.
type envoy struct {
	t      *testing.T
	i      *installation
	client authv3.AuthorizationClient
}

var extAuthzLine = regexp.MustCompile(`msg=ext_authz grpc=(\S+)`)

func newEnvoy(t *testing.T, i *installation) *envoy {
	t.Helper()
	m := extAuthzLine.FindStringSubmatch(i.log.String())
	if m == nil {
		t.Fatal("the server does not say where it answers Envoy")
	}
	c, err := grpc.NewClient(m[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &envoy{t, i, authv3.NewAuthorizationClient(c)}
}

// ask sends what Envoy sends of a request and returns the status that the client
// would get, 200 if it passes.
func (e *envoy) ask(key, secret, method, path string) (int, *authv3.CheckResponse) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), deadline)
	defer cancel()
	if key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, extauthz.KeyMetadata, key)
	}
	a, err := e.client.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "192.0.2.1"},
		}}},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: method, Path: path, Host: "dns.example.com", Headers: map[string]string{"authorization": "Bearer " + secret},
		}},
	}})
	if err != nil {
		e.t.Fatal(err)
	}
	if a.GetOkResponse() != nil {
		return http.StatusOK, a
	}
	return int(a.GetDeniedResponse().GetStatus().GetCode()), a
}

// TestExtAuthz: the real server answers Envoy.
func TestExtAuthz(t *testing.T) {
	t.Parallel()
	i := install(t, "--routes", shippedRoutes, "--ext-authz-listen", "127.0.0.1:0")
	e, tok, key := newEnvoy(t, i), i.create("envoy"), i.admin.EnforcerKey
	records := "/accounts/" + i.admin.AccountID + "/zones/" + zoneID + "/records"
	hold := func(name string, want int, key, secret, method, path string) *authv3.CheckResponse {
		t.Helper()
		got, a := e.ask(key, secret, method, path)
		if got != want {
			t.Errorf("%s: %d, want %d: %v", name, got, want, a)
		}
		return a
	}
	a := hold("good", 200, key, tok.Value, "GET", records)
	got := map[string]string{}
	for _, h := range a.GetOkResponse().GetHeaders() {
		got[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	if got["Watchword-Token-Id"] != tok.ID || got["Watchword-Permission"] != "dns.records.read" {
		t.Errorf("who asks: %v", got)
	}
	hold("another zone", 403, key, tok.Value, "GET", strings.Replace(records, zoneID, otherZone, 1))
	hold("unknown", 401, key, strings.Repeat("A", 48), "GET", records)
	hold("no enforcer", 503, "", tok.Value, "GET", records)
	i.must(asked{http.MethodDelete, userTokens + "/" + tok.ID, i.operator(), ""}, new(any))
	hold("revoked", 401, key, tok.Value, "GET", records)
	if err := i.server.Stop(deadline); err != nil {
		t.Error(err)
	}
}

// TestRoutesReload: a changed file holds from the signal on, without a start; a
// broken one changes nothing and is told.
func TestRoutesReload(t *testing.T) {
	t.Parallel()
	file := write(t, filepath.Join(t.TempDir(), "routes.yaml"), adapted(t, "routes/dns.yaml"))
	metrics := freeAddress(t)
	i := install(t, "--routes", file, "--ext-authz-listen", "127.0.0.1:0", "--metrics-listen", metrics)
	e, tok := newEnvoy(t, i), i.create("reload")
	records := "/accounts/" + i.admin.AccountID + "/zones/" + zoneID + "/records"
	ask := func(path string, want int) {
		t.Helper()
		if got, a := e.ask(i.admin.EnforcerKey, tok.Value, "GET", path); got != want {
			t.Errorf("%s: %d, want %d: %v", path, got, want, a)
		}
	}
	// change writes the file and waits for what the server says to it.
	change := func(text, says string) {
		t.Helper()
		write(t, file, text)
		if err := i.server.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if err := i.log.await(says, i.server.Done()); err != nil {
			t.Fatal(err)
		}
	}
	figure := func(name string) string {
		t.Helper()
		resp, err := http.Get("http://" + metrics + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
				return value
			}
		}
		return ""
	}
	ask(records, 200)
	one := strings.ReplaceAll(adapted(t, "routes/dns.yaml"), "/records", "/entries")
	change(one, `(?s)msg=routes .*msg=routes .*routes=5`)
	ask(records, 403)
	ask(strings.Replace(records, "/records", "/entries", 1), 200)
	change(strings.Replace(one, "dns.records.read", "dns.records.reed", 1), `no permission \\"dns.records.reed\\"`)
	ask(strings.Replace(records, "/records", "/entries", 1), 200)
	ready := i.call(asked{http.MethodGet, "/readyz", nil, ""})
	if ready.status != http.StatusOK || !strings.Contains(string(ready.body), fmt.Sprintf("routes: %s:", file)) {
		t.Errorf("readyz: %d %s", ready.status, ready.body)
	}
	if figure("watchword_routes_broken") != "1" || figure("watchword_routes") != "5" || figure(`watchword_proxied_total{status="403"}`) != "1" {
		t.Error("the figures do not tell")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	change("", "a mapping with the key routes")
	ask(strings.Replace(records, "/records", "/entries", 1), 200)
	change(one, `(?s)a mapping with the key routes.*msg=routes `)
	if got := figure("watchword_routes_broken"); got != "0" {
		t.Errorf("watchword_routes_broken %s", got)
	}
}

// TestShippedProxies: each configuration passes on every identity header, and
// takes the enforcer's key.
func TestShippedProxies(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"nginx/watchword.conf", "caddy/Caddyfile", "traefik/watchword.yaml"} {
		text := adapted(t, name)
		for _, header := range append([]string{introspection.EnforcerKeyHeader, "/v1/forward-auth"}, introspection.IdentityHeaders...) {
			if !strings.Contains(text, header) {
				t.Errorf("%s does not know %s", name, header)
			}
		}
	}
	readme := adapted(t, "README.md")
	for _, header := range introspection.IdentityHeaders {
		if !strings.Contains(readme, "`"+header+"`") {
			t.Errorf("the page does not tell of %s", header)
		}
	}
}
