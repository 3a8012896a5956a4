package web

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/throttle"
)

// guarded is a router with limits, a clock that the test sets, and handlers
// that know one token and one API key.
type guarded struct {
	*Router
	t        *testing.T
	at       time.Time
	gate     *throttle.Gate
	token    string // what the one good token is
	key      string
	address  string
	handled  int
	internal bool // the next handler fails on this side
}

var (
	principal = token.ID{1}
	keyOwner  = token.ID{2}
)

func guard(t *testing.T, l throttle.Limits) *guarded {
	t.Helper()
	g := &guarded{t: t, at: time.Date(2026, 1, 5, 9, 30, 0, 0, time.UTC), address: "192.0.2.1"}
	g.gate = throttle.NewGate(l, func() time.Time { return g.at })
	g.Router = NewRouter(Config{Gate: g.gate})
	for secret, kind := range map[*string]token.Kind{&g.token: token.KindUser, &g.key: token.KindKey} {
		s, err := token.Format{}.Generate(kind)
		if err != nil {
			t.Fatal(err)
		}
		*secret = s.Reveal()
	}
	g.Handle("GET", "/open", func(x *Exchange) error { return x.Result(nil) })
	g.Handle("GET", "/a", g.authenticated)
	g.Handle("GET", "/bulk", g.authenticated)
	g.Exempt("/bulk")
	g.Handle("POST", "/oauth", func(x *Exchange) error { return x.Fail(x.Throttle(fault.New(fault.EnforcerKeyNeeded)), "") })
	g.Exempt("/oauth")
	g.Mount("POST", "/lean", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, body := FailureBody(w.Header(), g.Throttle(w, r, fault.New(fault.EnforcerKeyNeeded)))
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}))
	return g
}

// authenticated does what management does.
func (g *guarded) authenticated(x *Exchange) error {
	g.handled++
	c, err := x.Credential()
	switch {
	case err != nil:
		return err
	case c.None():
		return fault.New(fault.MissingCredentials)
	case g.internal:
		return fault.New(fault.NoPen)
	case x.r.Header.Get("X-Elsewhere") != "":
		x.Recognised()
		return fault.New(fault.AddressRefused)
	case c.Key() && c.Secret.Reveal() == g.key:
		err = x.Admit(keyOwner)
	case c.Key():
		return fault.New(fault.InvalidAPIKey)
	case c.Secret.Reveal() == g.token:
		err = x.Admit(principal)
	default:
		return fault.New(fault.InvalidAccessToken)
	}
	if err != nil {
		return err
	}
	return x.Result(nil)
}

// send sends a request with the given headers, name and value in turn.
func (g *guarded) send(method, path string, headers ...string) *httptest.ResponseRecorder {
	g.t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr = g.address + ":9"
	if strings.Contains(g.address, ":") {
		r.RemoteAddr = "[" + g.address + "]:9"
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w
}

// wrong returns a well-formed token that nobody has, another one each time.
func (g *guarded) wrong() string {
	g.t.Helper()
	s, err := token.Format{}.Generate(token.KindUser)
	if err != nil {
		g.t.Fatal(err)
	}
	return "Bearer " + s.Reveal()
}

// told is what an answer says of limits: status, Ratelimit, Ratelimit-Policy
// and Retry-After.
func told(w *httptest.ResponseRecorder) string {
	h := w.Header()
	return strings.Join([]string{strconv.Itoa(w.Code), h.Get("Ratelimit"), h.Get("Ratelimit-Policy"), h.Get("Retry-After")}, "|")
}

const tooMany = `{"success":false,"errors":[{"code":20014,"message":"Too many requests","documentation_url":"/errors#rate_limited"}],"messages":[],"result":null}`

func per(n int, d time.Duration) throttle.Limit { return throttle.Limit{Quota: n, Window: d} }

// TestRequestLimit tells the story of a principal and its neighbours.
func TestRequestLimit(t *testing.T) {
	g := guard(t, throttle.Limits{Requests: per(3, 300*time.Second)})
	good := []string{"Authorization", "Bearer " + g.token}
	policy := `"default";q=3;w=300`
	for i, step := range []struct {
		after  time.Duration
		method string
		path   string
		with   []string
		want   string
	}{
		{0, "GET", "/a", good, `200|"default";r=2;t=100|` + policy + `|`},
		{50 * time.Second, "GET", "/a", good, `200|"default";r=1;t=150|` + policy + `|`},
		{0, "HEAD", "/a", good, `200|"default";r=0;t=250|` + policy + `|`},
		{0, "GET", "/a", good, `429|"default";r=0;t=250|` + policy + `|50`},
		{49500 * time.Millisecond, "GET", "/a", good, `429|"default";r=0;t=201|` + policy + `|1`},
		// Their key has a quota of its own; so have strangers, by address.
		{0, "GET", "/a", []string{"X-Auth-Email", "a@example.com", "X-Auth-Key", g.key}, `200|"default";r=2;t=100|` + policy + `|`},
		{0, "GET", "/a", nil, `400|"default";r=2;t=100|` + policy + `|`},
		{0, "OPTIONS", "/a", good, `204|"default";r=1;t=200|` + policy + `|`},
		{0, "GET", "/nowhere", good, `404|"default";r=0;t=300|` + policy + `|`},
		{0, "POST", "/a", good, `429|"default";r=0;t=300|` + policy + `|100`},
		{0, "GET", "/a", []string{"Authorization", "Bearer " + g.token, "X-Elsewhere", "1"}, `429|"default";r=0;t=300|` + policy + `|100`},
		{0, "OPTIONS", "/a", nil, `429|"default";r=0;t=300|` + policy + `|100`},
		{500 * time.Millisecond, "GET", "/a", good, `200|"default";r=0;t=300|` + policy + `|`},
		// Where nobody is asked for, and on exempt routes, nothing is counted.
		{0, "GET", "/open", nil, `200|||`},
		{0, "GET", "/bulk", good, `200|||`},
		{0, "GET", "/bulk", nil, `400|||`},
	} {
		g.at = g.at.Add(step.after)
		w := g.send(step.method, step.path, step.with...)
		if got := told(w); got != step.want {
			t.Errorf("step %d: got %s, want %s", i, got, step.want)
		}
		if w.Code == 429 && (w.Body.String() != tooMany || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("X-Should-Retry") != "") {
			t.Errorf("step %d: %s %v", i, w.Body, w.Header())
		}
	}
}

// TestOwnFailures: what fails on this side is not the sender's fault, and is
// never called so, however many strangers have come from the address.
func TestOwnFailures(t *testing.T) {
	g := guard(t, throttle.Limits{Requests: per(1, time.Hour), Wrong: per(1, time.Hour)})
	g.send("GET", "/a")
	g.internal = true
	if got := told(g.send("GET", "/a", "Authorization", g.wrong())); got != `503|"default";r=0;t=3600|"default";q=1;w=3600|2` {
		t.Errorf("got %s", got)
	}
	if n := g.gate.WrongCredentials(); n != 0 {
		t.Errorf("%d wrong credentials, and nobody has looked", n)
	}
}

// TestAddressLimit: everything from an address counts, before anything is
// looked at.
func TestAddressLimit(t *testing.T) {
	g := guard(t, throttle.Limits{Requests: per(1000, time.Hour), Address: per(2, time.Second)})
	g.address = "2001:db8::1"
	good := []string{"Authorization", "Bearer " + g.token}
	g.send("GET", "/a", good...)
	g.send("GET", "/open")
	g.address = "2001:db8::2" // the same /64
	handled := g.handled
	w := g.send("GET", "/a", good...)
	if got := told(w); got != `429|"address";r=0;t=1|"address";q=2;w=1|1` || w.Body.String() != tooMany || g.handled != handled {
		t.Errorf("%s %s", got, w.Body)
	}
	if got := g.send("GET", "/bulk", good...).Code; got != 200 {
		t.Errorf("an exempt route: %d", got)
	}
	g.address = "2001:db8:0:1::1"
	if got := told(g.send("GET", "/a", good...)); got != `200|"default";r=998;t=8|"default";q=1000;w=3600|` {
		t.Errorf("another address: %s", got)
	}
	g.address, g.at = "2001:db8::1", g.at.Add(500*time.Millisecond)
	if got := g.send("GET", "/a", good...).Code; got != 200 {
		t.Errorf("half a second later: %d", got)
	}
}

// TestWrongCredentials: too many wrong ones are answered with 429, from one
// address or for one e-mail address, and not one good one is.
func TestWrongCredentials(t *testing.T) {
	g := guard(t, throttle.Limits{Wrong: per(5, time.Minute)})
	bearer := func() []string { return []string{"Authorization", g.wrong()} }
	good := func(what string) {
		t.Helper()
		if w := g.send("GET", "/a", "Authorization", "Bearer "+g.token); w.Code != 200 {
			t.Errorf("%s: a good token gets %d %s", what, w.Code, w.Body)
		}
		if w := g.send("GET", "/a", "X-Auth-Email", "victim@example.com", "X-Auth-Key", g.key); w.Code != 200 {
			t.Errorf("%s: a good key gets %d %s", what, w.Code, w.Body)
		}
	}
	for range 5 {
		if got := told(g.send("GET", "/a", bearer()...)); got != "403|||" {
			t.Errorf("within the limit: %s", got)
		}
	}
	handled := g.handled
	w := g.send("GET", "/a", bearer()...)
	if got := told(w); got != `429|"credentials";r=0;t=60|"credentials";q=5;w=60|12` || w.Body.String() != tooMany || g.handled != handled+1 {
		t.Errorf("beyond the limit: %s %s", got, w.Body)
	}
	good("the same address")
	if got := g.send("GET", "/a").Code; got != 400 {
		t.Errorf("no credential at all: %d", got)
	}
	if got := g.send("GET", "/a", "Authorization", "Bearer "+g.token, "X-Elsewhere", "1").Code; got != 403 {
		t.Errorf("a token of ours from elsewhere: %d", got)
	}
	if got := g.send("GET", "/open", bearer()...).Code; got != 200 {
		t.Errorf("where nobody asks: %d", got)
	}
	g.internal = true
	if got := g.send("GET", "/a", bearer()...).Code; got != 503 {
		t.Errorf("a failure of this side: %d", got)
	}
	g.internal = false

	// One e-mail address, in whatever case, from everywhere.
	var wrongKey string
	for i := range 6 {
		s, err := token.Format{}.Generate(token.KindKey)
		if err != nil {
			t.Fatal(err)
		}
		wrongKey, g.address = s.Reveal(), "198.51.100."+strconv.Itoa(i)
		want := "403|||"
		if i == 5 {
			want = `429|"credentials";r=0;t=60|"credentials";q=5;w=60|12`
		}
		email := []string{"victim@example.com", "Victim@Example.COM"}[i%2]
		if got := told(g.send("GET", "/a", "X-Auth-Email", email, "X-Auth-Key", wrongKey)); got != want {
			t.Errorf("key %d: %s, want %s", i, got, want)
		}
	}
	good("the same e-mail address")
	g.address = "198.51.100.99"
	if got := g.send("GET", "/a", "X-Auth-Email", "other@example.com", "X-Auth-Key", wrongKey).Code; got != 403 {
		t.Errorf("another e-mail address: %d", got)
	}

	// One dead secret from everywhere, as a fleet sends it.
	dead := g.wrong()
	for i := range 6 {
		g.address = "203.0.113." + strconv.Itoa(i)
		if got, want := g.send("GET", "/a", "Authorization", dead).Code, []int{403, 403, 403, 403, 403, 429}[i]; got != want {
			t.Errorf("the dead secret, %d: %d, want %d", i, got, want)
		}
	}
	if g.gate.WrongCredentials() != 5+1+6+1+6 || g.gate.Refused(throttle.WrongAddress) != 1 || g.gate.Refused(throttle.WrongIdentifier) != 2 {
		t.Errorf("counted %d, refused %d and %d", g.gate.WrongCredentials(), g.gate.Refused(throttle.WrongAddress), g.gate.Refused(throttle.WrongIdentifier))
	}
}

// TestWrongForms: which refusals count as wrong credentials.
func TestWrongForms(t *testing.T) {
	g := guard(t, throttle.Limits{})
	for name, c := range map[string]struct {
		method, path string
		with         []string
		counts       bool
	}{
		"a well-formed token":     {"GET", "/a", []string{"Authorization", g.wrong()}, true},
		"a foreign one":           {"GET", "/a", []string{"Authorization", "Bearer " + strings.Repeat("x", 40)}, true},
		"no token":                {"GET", "/a", []string{"Authorization", "Bearer x"}, true},
		"another scheme":          {"GET", "/a", []string{"Authorization", "Digest x"}, true},
		"a malformed key":         {"GET", "/a", []string{"X-Auth-Email", "a@example.com", "X-Auth-Key", "x"}, true},
		"a key without e-mail":    {"GET", "/a", []string{"X-Auth-Key", "x"}, true},
		"an e-mail without key":   {"GET", "/a", []string{"X-Auth-Email", "a@example.com"}, false},
		"an Origin CA key":        {"GET", "/a", []string{"X-Auth-User-Service-Key", "v1.0-x"}, false},
		"nothing":                 {"GET", "/a", nil, false},
		"a good one":              {"GET", "/a", []string{"Authorization", "Bearer " + g.token}, false},
		"on an exempt route":      {"GET", "/bulk", []string{"Authorization", g.wrong()}, true},
		"an enforcer's bearer":    {"POST", "/lean", []string{"Authorization", g.wrong()}, true},
		"an enforcer's nonsense":  {"POST", "/lean", []string{"Authorization", "x"}, true},
		"an enforcer without key": {"POST", "/lean", nil, false},
		"OAuth by bearer":         {"POST", "/oauth", []string{"Authorization", g.wrong()}, true},
		"OAuth by Basic":          {"POST", "/oauth", []string{"Authorization", "Basic dXNlcjpwYXNz"}, true},
		"OAuth without anything":  {"POST", "/oauth", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			before := guard(t, throttle.Limits{Wrong: per(1, time.Hour)})
			before.token, before.key = g.token, g.key
			first, second := before.send(c.method, c.path, c.with...), before.send(c.method, c.path, c.with...)
			if got := before.gate.WrongCredentials() > 0; got != c.counts || (second.Code == 429) != c.counts || first.Code == 429 {
				t.Errorf("counted: %v, answered %d and %d; want %v", got, first.Code, second.Code, c.counts)
			}
			if c.counts && !strings.HasSuffix(told(second), `|"credentials";q=1;w=3600|3600`) {
				t.Error(told(second))
			}
		})
	}
}

// TestIdentifier: what a wrong credential is counted by holds no more of a
// secret than its beginning.
func TestIdentifier(t *testing.T) {
	secret := "wwe_" + strings.Repeat("0123456789", 4) + "abcd"
	for line, want := range map[string]string{
		"Bearer " + secret:               "wwe_01234567",
		"bearer secret-token:" + secret:  "wwe_01234567",
		"Bearer x":                       "",
		"Basic aWQ6d3dlXzAxMjM0NTY3ODk=": "wwe_01234567", // id:wwe_0123456789
		"Basic d3dlXzAxMjM0NTY3ODk6":     "wwe_01234567", // wwe_0123456789:
		"Basic OnNob3J0":                 "short",
		"Digest username=\"somebody\"":   "",
	} {
		x := &Exchange{r: &http.Request{Header: http.Header{"Authorization": {line}}}}
		if got := x.identifier(); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	x := &Exchange{r: &http.Request{}, credential: Credential{Kind: token.KindKey, Email: "a@example.com"}}
	if got := x.identifier(); got != "a@example.com" {
		t.Errorf("a key: %q", got)
	}
}
