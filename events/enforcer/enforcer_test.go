package enforcer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"watchword.dev/events/clientaddr"
	"watchword.dev/events/token"
)

// scripted decides as the test says.
type scripted func(secret string, ask *token.Request) token.Decision

func (s scripted) Verify(secret string, ask *token.Request) token.Decision { return s(secret, ask) }

var (
	someToken = token.ID{15: 1}
	someOwner = token.ID{15: 2}
	allow     = token.Decision{
		Token: someToken, Owner: someOwner, OwnerKind: token.OwnerUser, Verdict: token.VerdictAllow, Sequence: 7, Bound: 30 * time.Second,
	}
)

func deny(r token.Reason) token.Decision {
	return token.Decision{Verdict: r.Verdict(), Reason: r, Token: someToken}
}

func newEnforcer(t testing.TB, cfg Config) *Enforcer {
	t.Helper()
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var (
	good = "wwu_" + strings.Repeat("a", 44)
	zone = Path("com.cloudflare.api.account.{account}", "com.cloudflare.api.account.zone.{zone}")
)

// serve sends one request through a mux with a guarded route.
func serve(e *Enforcer, path string, header http.Header) (*httptest.ResponseRecorder, *Identity) {
	var seen *Identity
	mux := http.NewServeMux()
	mux.Handle("/accounts/{account}/zones/{zone}", e.Require("dns.records.write", zone)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if id, ok := FromContext(r.Context()); ok {
			seen = &id
		}
	})))
	r := httptest.NewRequest("PUT", path, nil)
	r.RemoteAddr = "192.0.2.1:4711"
	r.Header = header
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w, seen
}

func TestAnswers(t *testing.T) {
	const challenge = `Bearer realm="watchword"`
	denied := challenge + `, error="invalid_token", error_description="The access token is not valid here."`
	malformed := challenge + `, error="invalid_request", error_description="The request has a malformed credential or resource."`
	missing := challenge + `, error="insufficient_scope", error_description="The access token does not allow this.", scope="dns.records.write"`
	bearer := http.Header{"Authorization": {"Bearer " + good}}
	for name, c := range map[string]struct {
		header http.Header
		path   string
		d      token.Decision
		status int
		says   string
	}{
		"allowed":            {bearer, "", allow, 200, ""},
		"a small scheme":     {http.Header{"Authorization": {"bearer   " + good + " "}}, "", allow, 200, ""},
		"as a secret URI":    {http.Header{"Authorization": {"Bearer secret-token:" + good}}, "", allow, 200, ""},
		"no credential":      {nil, "", allow, 401, challenge},
		"another scheme":     {http.Header{"Authorization": {"Basic dTpw"}}, "", allow, 401, challenge},
		"in the query":       {nil, "?access_token=" + good, allow, 401, challenge},
		"a legacy key":       {http.Header{"X-Auth-Key": {good}, "X-Auth-Email": {"a@b.c"}}, "", allow, 401, challenge},
		"two headers":        {http.Header{"Authorization": {"Bearer " + good, "Bearer " + good}}, "", allow, 400, malformed},
		"nothing behind":     {http.Header{"Authorization": {"Bearer"}}, "", allow, 400, malformed},
		"two words":          {http.Header{"Authorization": {"Bearer a b"}}, "", allow, 400, malformed},
		"a quote in it":      {http.Header{"Authorization": {`Bearer a"b`}}, "", allow, 400, malformed},
		"too long":           {http.Header{"Authorization": {"Bearer " + strings.Repeat("a", 257)}}, "", allow, 400, malformed},
		"malformed":          {bearer, "", deny(token.ReasonMalformed), 401, denied},
		"unknown":            {bearer, "", deny(token.ReasonUnknown), 401, denied},
		"revoked":            {bearer, "", deny(token.ReasonRevoked), 401, denied},
		"disabled":           {bearer, "", deny(token.ReasonDisabled), 401, denied},
		"expired":            {bearer, "", deny(token.ReasonExpired), 401, denied},
		"not yet valid":      {bearer, "", deny(token.ReasonNotYetValid), 401, denied},
		"from there":         {bearer, "", deny(token.ReasonAddress), 401, denied},
		"the zero decision":  {bearer, "", token.Decision{}, 401, denied},
		"no policy":          {bearer, "", deny(token.ReasonNoPolicy), 403, missing},
		"denied by policy":   {bearer, "", deny(token.ReasonDeniedByPolicy), 403, missing},
		"unknown permission": {bearer, "", deny(token.ReasonUnknownPermission), 403, missing},
		"stale":              {bearer, "", deny(token.ReasonStale), 503, ""},
		"not ready":          {bearer, "", deny(token.ReasonNotReady), 503, ""},
		"no answer at all":   {bearer, "", token.Decision{Verdict: token.VerdictUnavailable}, 503, ""},
		"a zone with a dot":  {bearer, "x/zones/zone.0123", allow, 400, malformed},
		"an account with it": {bearer, "zone.1/zones/2", allow, 400, malformed},
	} {
		t.Run(name, func(t *testing.T) {
			asked := false
			e := newEnforcer(t, Config{Decider: scripted(func(secret string, ask *token.Request) token.Decision {
				asked = true
				if secret != good || ask.Permission != "dns.records.write" || ask.Address.String() != "192.0.2.1" ||
					strings.Join(ask.Resource, " ") != "com.cloudflare.api.account.a1 com.cloudflare.api.account.zone.z1" {
					t.Errorf("asked about %q, %+v", secret, ask)
				}
				return c.d
			})})
			path := "/accounts/a1/zones/z1" + c.path
			if strings.Contains(c.path, "/") {
				path = "/accounts/" + c.path
			}
			w, id := serve(e, path, c.header)
			h := w.Header()
			if w.Code != c.status || h.Get("Www-Authenticate") != c.says || (h.Get("Retry-After") == "1") != (c.status == 503) {
				t.Errorf("%d %v", w.Code, h)
			}
			if (id != nil) != (c.status == 200) || asked != (c.d != allow || c.status == 200) {
				t.Errorf("the handler saw %v, asked: %v", id, asked)
			}
			if id != nil && (id.Token != someToken || id.Permission != "dns.records.write" || id.Address.String() != "192.0.2.1") {
				t.Errorf("%+v", id)
			}
			if body := w.Body.String(); c.status != 200 && (!strings.Contains(body, fmt.Sprintf(`"status":%d`, c.status)) || strings.Contains(body+h.Get("Www-Authenticate"), good) ||
				h.Get("Content-Type") != "application/problem+json" || h.Get("Cache-Control") != "no-store") {
				t.Errorf("%q %v", body, h)
			}
		})
	}
}

func TestLegacyKeys(t *testing.T) {
	key := allow
	key.Token = token.ID{}
	d := key
	e := newEnforcer(t, Config{LegacyKeys: true, Decider: scripted(func(string, *token.Request) token.Decision { return d })})
	for name, c := range map[string]struct {
		header http.Header
		d      token.Decision
		status int
	}{
		"both":               {http.Header{"X-Auth-Key": {good}, "X-Auth-Email": {"a@b.c"}}, key, 200},
		"a key as bearer":    {http.Header{"Authorization": {"Bearer " + good}}, key, 200},
		"a token as key":     {http.Header{"X-Auth-Key": {good}, "X-Auth-Email": {"a@b.c"}}, allow, 401},
		"no address":         {http.Header{"X-Auth-Key": {good}}, key, 400},
		"no key":             {http.Header{"X-Auth-Email": {"a@b.c"}}, key, 400},
		"no address at all":  {http.Header{"X-Auth-Key": {good}, "X-Auth-Email": {"@"}}, key, 400},
		"bearer wins":        {http.Header{"Authorization": {"Bearer"}, "X-Auth-Key": {good}, "X-Auth-Email": {"a@b.c"}}, key, 400},
		"a key twice":        {http.Header{"X-Auth-Key": {good, good}, "X-Auth-Email": {"a@b.c"}}, key, 400},
		"nothing whatsoever": {nil, key, 401},
	} {
		d = c.d
		if w, _ := serve(e, "/accounts/a1/zones/z1", c.header); w.Code != c.status {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	plain := newEnforcer(t, Config{Decider: scripted(func(string, *token.Request) token.Decision { return key })})
	if w, _ := serve(plain, "/accounts/a1/zones/z1", http.Header{"Authorization": {"Bearer " + good}}); w.Code != 401 {
		t.Errorf("an API key where none is taken: %d", w.Code)
	}
}

func TestAddressComesFromTrustedProxies(t *testing.T) {
	var from netip.Addr
	e := newEnforcer(t, Config{
		Address: clientaddr.Rule{Trusted: clientaddr.Proxies{netip.MustParsePrefix("192.0.2.0/24")}},
		Decider: scripted(func(_ string, ask *token.Request) token.Decision { from = ask.Address; return allow }),
	})
	serve(e, "/accounts/a1/zones/z1", http.Header{"Authorization": {"Bearer " + good}, "X-Forwarded-For": {"203.0.113.9, 198.51.100.7"}})
	if from.String() != "198.51.100.7" {
		t.Errorf("asked about %v", from)
	}
}

func TestResourceErrors(t *testing.T) {
	e := newEnforcer(t, Config{Decider: scripted(func(string, *token.Request) token.Decision {
		t.Error("asked")
		return allow
	})})
	for err, want := range map[error]int{errors.New("no such zone"): 400, fmt.Errorf("database: %w", ErrUnavailable): 503, context.DeadlineExceeded: 503} {
		h := e.Handle("p", func(*http.Request, *Chain) error { return err }, func(http.ResponseWriter, *http.Request, Identity) { t.Error("served") })
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+good)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != want || strings.Contains(w.Body.String(), err.Error()) {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
	}
}

func TestChain(t *testing.T) {
	for name, c := range map[string]struct {
		fill func(*Chain)
		want string // "" is refused
	}{
		"two":                 {func(c *Chain) { c.Add("a.b", "1"); c.AddKey("a.b.c.2") }, "a.b.1 a.b.c.2"},
		"an id with a dot":    {func(c *Chain) { c.Add("a", "b.1") }, ""},
		"an empty id":         {func(c *Chain) { c.Add("a", "") }, ""},
		"a star":              {func(c *Chain) { c.Add("a", "*") }, ""},
		"no type":             {func(c *Chain) { c.Add("", "1") }, ""},
		"a key without a dot": {func(c *Chain) { c.AddKey("a") }, ""},
		"spoiled before":      {func(c *Chain) { c.Add("a", "."); c.Add("a", "1") }, ""},
		"too many": {func(c *Chain) {
			for range token.MaxChain + 1 {
				c.Add("a", "1")
			}
		}, ""},
	} {
		var chain Chain
		c.fill(&chain)
		keys, err := chain.done()
		if strings.Join(keys, " ") != c.want || (err == nil) != (c.want != "") || err != nil && !errors.Is(err, ErrResource) {
			t.Errorf("%s: %q, %v", name, keys, err)
		}
	}
}

func TestMistakesAreFoundAtTheStart(t *testing.T) {
	e := newEnforcer(t, Config{Decider: scripted(nil)})
	for name, do := range map[string]func(){
		"no patterns":        func() { Path() },
		"a hole in the type": func() { Path("a.{b}.c") },
		"half a hole":        func() { Path("a.{b") },
		"an empty hole":      func() { Path("a.{}") },
		"no type":            func() { Path(".{b}") },
		"no permission":      func() { e.Require("", zone) },
		"a quote":            func() { e.Require(`a"b`, zone) },
		"no resource":        func() { e.Handle("p", nil, nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			do()
		}()
	}
	for _, cfg := range []Config{{}, {Decider: scripted(nil), Realm: `a"b`}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}

func TestCheck(t *testing.T) {
	e := newEnforcer(t, Config{Decider: scripted(func(string, *token.Request) token.Decision { return allow })})
	chain := []string{"com.cloudflare.api.account.a1"}
	for _, c := range []struct {
		secret string
		chain  []string
		status int
	}{{good, chain, 0}, {"", chain, 401}, {"a b", chain, 400}, {good, []string{"a.*"}, 400}} {
		id, f := e.Check(t.Context(), c.secret, "p", c.chain, netip.Addr{})
		if (f == nil) != (c.status == 0) || f != nil && f.Status != c.status || f == nil && id.Token != someToken {
			t.Errorf("%q on %q: %+v, %v", c.secret, c.chain, id, f)
		}
	}
}
