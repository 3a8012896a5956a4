package extauthz

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/introspection"
	"watchword.dev/services/introspection/routes"
)

const oneRoute = `routes:
  - hosts: [zones.example.com]
    methods: [GET]
    path: /zones/{zone}
    permission: zone.read
    resource:
      - com.cloudflare.api.account.zone.{zone}
`

var (
	good  = strings.Repeat("g", 48)
	stale = strings.Repeat("s", 48)
	wild  = strings.Repeat("w", 48)
	key   = strings.Repeat("e", 48)
)

// decider knows one enforcer and three tokens; good is for an address.
type decider struct{}

func (decider) Enforcer(secret string) (verifyindex.EnforcerInfo, token.Reason) {
	if secret != key {
		return verifyindex.EnforcerInfo{}, token.ReasonUnknown
	}
	return verifyindex.EnforcerInfo{ID: token.ID{9}}, token.ReasonNone
}

func (decider) VerifyWithin(_ time.Duration, secret string, ask *token.Request) token.Decision {
	switch {
	case secret == stale:
		return token.Decision{Verdict: token.VerdictUnavailable, Reason: token.ReasonStale}
	case secret == wild:
		panic("with a secret")
	case secret != good:
		return token.Decision{Reason: token.ReasonUnknown}
	case ask.Address != netip.MustParseAddr("192.0.2.1"):
		return token.Decision{Reason: token.ReasonAddress}
	case ask.Resource[0] != "com.cloudflare.api.account.zone.mine":
		return token.Decision{Reason: token.ReasonNoPolicy}
	}
	return token.Decision{Verdict: token.VerdictAllow, Token: token.ID{1}, Owner: token.ID{2}, OwnerKind: token.OwnerUser, Sequence: 7}
}

func (decider) Identify(string, netip.Addr) (verifyindex.Identity, token.Reason) {
	return verifyindex.Identity{}, token.ReasonUnknown
}
func (decider) Sequence() uint64                   { return 7 }
func (decider) Wait(context.Context, uint64) error { return errors.New("stopped") }

// serving runs a server and returns a client of Envoy's own stubs.
func serving(t *testing.T, s *Server) authv3.AuthorizationClient {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := s.GRPC()
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	c, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		g.GracefulStop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return authv3.NewAuthorizationClient(c)
}

func gate(t *testing.T) *introspection.Service {
	t.Helper()
	m, err := routes.Load([]byte(oneRoute), catalogue.Cloudflare())
	if err != nil {
		t.Fatal(err)
	}
	s, err := introspection.New(introspection.Config{Decider: decider{}, Map: func() *routes.Map { return m }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// request is what Envoy sends of a client's request.
func request(secret, target string) *authv3.CheckRequest {
	h := &authv3.AttributeContext_HttpRequest{
		Method: "GET", Path: target, Host: "zones.example.com:443",
		Headers: map[string]string{":path": target, "x-original-uri": "/zones/other", "watchword-token-id": "spoofed"},
	}
	if secret != "" {
		h.Headers["authorization"] = "Bearer " + secret
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "192.0.2.1"},
		}}},
		Request: &authv3.AttributeContext_Request{Http: h},
	}}
}

// headers are those of an answer. All of them must replace what is there.
func headers(t *testing.T, all []*corev3.HeaderValueOption) map[string]string {
	t.Helper()
	m := map[string]string{}
	for _, o := range all {
		if o.AppendAction != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || !o.KeepEmptyValue {
			t.Errorf("%v does not replace", o)
		}
		m[o.GetHeader().GetKey()] = o.GetHeader().GetValue()
	}
	return m
}

// TestCheck: a request of every kind, as Envoy asks about it.
func TestCheck(t *testing.T) {
	s := New("", nil)
	s.Open(gate(t))
	c := serving(t, s)
	with := func(change func(*authv3.AttributeContext)) *authv3.CheckRequest {
		r := request(good, "/zones/mine")
		change(r.Attributes)
		return r
	}
	for name, x := range map[string]struct {
		r         *authv3.CheckRequest
		key       []string
		status    int
		code      codes.Code
		challenge string
	}{
		"good":              {request(good, "/zones/mine?x=y"), []string{key}, 200, codes.OK, ""},
		"raw headers":       {with(func(a *authv3.AttributeContext) { rawHeaders(a, "Bearer "+good) }), []string{key}, 200, codes.OK, ""},
		"two raw headers":   {with(func(a *authv3.AttributeContext) { rawHeaders(a, "Bearer "+good, "Bearer "+good) }), []string{key}, 401, codes.Unauthenticated, "invalid_token"},
		"none":              {request("", "/zones/mine"), []string{key}, 401, codes.Unauthenticated, `realm="watchword"`},
		"joined":            {request(good+",Bearer "+good, "/zones/mine"), []string{key}, 401, codes.Unauthenticated, "invalid_token"},
		"unknown":           {request(strings.Repeat("u", 48), "/zones/mine"), []string{key}, 401, codes.Unauthenticated, "invalid_token"},
		"another address":   {with(func(a *authv3.AttributeContext) { a.Source.Address.GetSocketAddress().Address = "198.51.100.1" }), []string{key}, 401, codes.Unauthenticated, "invalid_token"},
		"no address":        {with(func(a *authv3.AttributeContext) { a.Source = nil }), []string{key}, 401, codes.Unauthenticated, "invalid_token"},
		"another zone":      {request(good, "/zones/theirs"), []string{key}, 403, codes.PermissionDenied, `scope="zone.read"`},
		"no route":          {request(good, "/"), []string{key}, 403, codes.PermissionDenied, "insufficient_scope"},
		"ambiguous":         {request(good, "/zones/x/../mine"), []string{key}, 403, codes.PermissionDenied, "insufficient_scope"},
		"another host":      {with(func(a *authv3.AttributeContext) { a.Request.Http.Host = "a.example.com" }), []string{key}, 403, codes.PermissionDenied, "insufficient_scope"},
		"stale":             {request(stale, "/zones/mine"), []string{key}, 503, codes.Unavailable, ""},
		"a panic":           {request(wild, "/zones/mine"), []string{key}, 503, codes.Unavailable, ""},
		"no enforcer":       {request(good, "/zones/mine"), nil, 503, codes.Unavailable, ""},
		"a wrong enforcer":  {request(good, "/zones/mine"), []string{good}, 503, codes.Unavailable, ""},
		"two enforcers":     {request(good, "/zones/mine"), []string{key, key}, 503, codes.Unavailable, ""},
		"nothing described": {&authv3.CheckRequest{}, []string{key}, 401, codes.Unauthenticated, `realm="watchword"`},
	} {
		ctx := t.Context()
		for _, k := range x.key {
			ctx = metadata.AppendToOutgoingContext(ctx, KeyMetadata, k)
		}
		a, err := c.Check(ctx, x.r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if codes.Code(a.GetStatus().GetCode()) != x.code {
			t.Errorf("%s: %v", name, a.GetStatus())
		}
		if x.status == 200 {
			allows(t, a)
			continue
		}
		d := a.GetDeniedResponse()
		h := headers(t, d.GetHeaders())
		if int(d.GetStatus().GetCode()) != x.status || !strings.Contains(h["Www-Authenticate"], x.challenge) || (x.status == 503) != (h["Www-Authenticate"] == "") || (x.status == 503) != (h["Retry-After"] == "1") || h["Cache-Control"] != "no-store" {
			t.Errorf("%s: %v", name, a)
		}
		if !strings.Contains(d.GetBody(), `"status":`) || strings.Contains(a.String(), good) || strings.Contains(a.String(), "with a secret") {
			t.Errorf("%s: %v", name, a)
		}
	}
}

// rawHeaders are headers as Envoy sends them with encode_raw_headers.
func rawHeaders(a *authv3.AttributeContext, authorization ...string) {
	h := a.Request.Http
	h.Headers, h.HeaderMap = nil, &corev3.HeaderMap{}
	for _, line := range authorization {
		h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: "authorization", RawValue: []byte(line)})
	}
}

// allows holds a yes: each identity header replaces the client's, the secret
// goes no further.
func allows(t *testing.T, a *authv3.CheckResponse) {
	t.Helper()
	ok := a.GetOkResponse()
	h := headers(t, ok.GetHeaders())
	for _, name := range introspection.IdentityHeaders {
		if _, there := h[name]; !there {
			t.Errorf("%s would stay as the client sent it", name)
		}
	}
	if h["Watchword-Token-Id"] != (token.ID{1}).String() || h["Watchword-Account-Id"] != "" || h["Watchword-Resource"] != "com.cloudflare.api.account.zone.mine" {
		t.Errorf("%v", h)
	}
	if strings.Join(ok.GetHeadersToRemove(), " ") != "authorization" {
		t.Errorf("removes %q", ok.GetHeadersToRemove())
	}
}

// TestConfiguredKey: callers without a key have the configured one, and only
// those.
func TestConfiguredKey(t *testing.T) {
	s := New(key, nil)
	c := serving(t, s)
	ask := func(ctx context.Context) int {
		t.Helper()
		a, err := c.Check(ctx, request(good, "/zones/mine"))
		if err != nil {
			t.Fatal(err)
		}
		if a.GetOkResponse() != nil {
			return 200
		}
		return int(a.GetDeniedResponse().GetStatus().GetCode())
	}
	if got := ask(t.Context()); got != 503 {
		t.Errorf("before the node is ready: %d", got)
	}
	s.Open(gate(t))
	if got := ask(t.Context()); got != 200 {
		t.Errorf("without a key: %d", got)
	}
	if got := ask(metadata.AppendToOutgoingContext(t.Context(), KeyMetadata, good)); got != 503 {
		t.Errorf("with a wrong key: %d", got)
	}
}
