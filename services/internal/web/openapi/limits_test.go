package openapi_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"watchword.dev/events/token"
	"watchword.dev/services/fanout/snapshots"
	"watchword.dev/services/internal/throttle"
)

const (
	codeRateLimited = 20014
	askVerify       = `{"secret":"x","permission":"dns.records.read"}`
)

// wrongBearer presents a well-formed secret that nobody has.
func wrongBearer(t testing.TB, k token.Kind) http.Header {
	t.Helper()
	return bearer(must[token.Secret](t)(token.Format{}.Generate(k)).Reveal())
}

func wrongKey(t testing.TB, email string) http.Header {
	t.Helper()
	return http.Header{"X-Auth-Email": {email}, "X-Auth-Key": {must[token.Secret](t)(token.Format{}.Generate(token.KindKey)).Reveal()}}
}

// TestLimitHeaders: every answer of the management API, good or bad, says how
// the request was counted; those to enforcers, of open routes and of imports do
// not.
func TestLimitHeaders(t *testing.T) {
	l := newLimitedLab(t, throttle.Limits{Requests: throttle.Limit{Quota: 1200, Window: 5 * time.Minute}})
	ids := l.tokens()
	form := regexp.MustCompile(`^"default";r=(\d|\d\d|\d{3}|1[01]\d\d);t=\d+$`)
	for _, r := range l.routes {
		path, body := l.fill(r, ids)
		if r.Pattern == "/v1/feed" {
			path += "?after=0&follow=false" // else it goes on for ever
		}
		for name, h := range map[string]http.Header{
			"good": l.admin.header(), "none": nil, "wrong": wrongBearer(t, token.KindUser), "malformed": bearer("x"), "an enforcer's": bearer(l.enforcer),
		} {
			for _, method := range []string{r.Method, http.MethodPatch} {
				if r.Pattern == "/v1/verify" {
					body = askVerify
				}
				a := l.send(l.request(method, path, h.Clone(), body))
				limit, policy := a.Header.Get("Ratelimit"), a.Header.Get("Ratelimit-Policy")
				open := r.Pattern == importPath || r.Pattern == "/v1/feed" || r.Pattern == snapshots.Path || r.Pattern == forwardAuth || !managed(r) && (a.StatusCode < 400 || r.Method == http.MethodPost)
				if open && limit+policy != "" || !open && (!form.MatchString(limit) || policy != `"default";q=1200;w=300`) {
					t.Errorf("%s %s with %s credential, %d: Ratelimit %q, Ratelimit-Policy %q", method, path, name, a.StatusCode, limit, policy)
				}
				if after := a.Header.Get("Retry-After"); after != "" && r.Pattern != forwardAuth {
					t.Errorf("%s %s, %d: Retry-After %q", method, path, a.StatusCode, after)
				}
			}
		}
	}
}

// TestRequestLimit: each token and each user's key has its own quota, whatever
// is asked, and gets it back in time. Enforcers have none.
func TestRequestLimit(t *testing.T) {
	l := newLimitedLab(t, throttle.Limits{Requests: throttle.Limit{Quota: 10, Window: 5 * time.Minute}})
	made := l.create(userTokens, l.admin.header(), grant("t", dnsWrite, zone))
	for range 9 {
		l.do("GET", "/client/v4/user", l.admin.header(), nil, 200, 0)
	}
	commands, head := l.asked.commands.Load(), l.ledger.Head()
	a := l.do("POST", userTokens, l.admin.header(), grant("one too many", dnsWrite, zone), 429, codeRateLimited)
	if string(a.body) != `{"success":false,"errors":[{"code":20014,"message":"Too many requests","documentation_url":"/errors#rate_limited"}],"messages":[],"result":null}` ||
		a.Header.Get("Retry-After") != "30" || a.Header.Get("Ratelimit") != `"default";r=0;t=300` || a.Header.Get("X-Should-Retry") != "" {
		t.Errorf("%s %v", a.body, a.Header)
	}
	if l.asked.commands.Load() != commands || l.ledger.Head() != head {
		t.Error("a request beyond the limit has reached the authority")
	}
	for range 10 {
		l.do("GET", userTokens+"/verify", bearer(made.Value), nil, 200, 0)
	}
	l.do("GET", userTokens+"/verify", bearer(made.Value), nil, 429, codeRateLimited)
	l.do("GET", "/client/v4/user", l.rival.header(), nil, 200, 0)
	for range 50 {
		l.do("POST", "/v1/verify", bearer(l.enforcer), askVerify, 200, 0)
		if a := l.introspect(bearer(l.enforcer), "token=x"); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
	}
	l.now.ahead.Add(int64(30 * time.Second))
	l.do("GET", "/client/v4/user", l.admin.header(), nil, 200, 0)
	l.do("GET", "/client/v4/user", l.admin.header(), nil, 429, codeRateLimited)
}

// TestTokenLimit: a token has one quota for reads, verifications and commands,
// and it is not its owner's.
func TestTokenLimit(t *testing.T) {
	l := newLimitedLab(t, throttle.Limits{Requests: throttle.Limit{Quota: 3, Window: time.Hour}})
	self := userType + l.admin.id.String()
	made := l.create(userTokens, l.admin.header(), grant("t", apiTokensRead, self))
	told := func(method, path string, body any, status, code int, want string) {
		t.Helper()
		if got := l.do(method, path, bearer(made.Value), body, status, code).Header.Get("Ratelimit"); got != want {
			t.Errorf("%s %s: Ratelimit is %s, want %s", method, path, got, want)
		}
	}
	told("GET", userTokens, nil, 200, 0, `"default";r=2;t=1200`)
	told("GET", userTokens+"/verify", nil, 200, 0, `"default";r=1;t=2400`)
	told("DELETE", userTokens+"/"+made.ID, nil, 403, 9109, `"default";r=0;t=3600`)
	told("GET", userTokens, nil, 429, codeRateLimited, `"default";r=0;t=3600`)
	l.do("GET", userTokens, l.admin.header(), nil, 200, 0)
}

// TestRollKeepsTheLimit: a new secret is no new quota.
func TestRollKeepsTheLimit(t *testing.T) {
	l := newLimitedLab(t, throttle.Limits{Requests: throttle.Limit{Quota: 3, Window: time.Hour}})
	made := l.create(userTokens, l.admin.header(), grant("t", dnsWrite, zone))
	for range 3 {
		l.do("GET", userTokens+"/verify", bearer(made.Value), nil, 200, 0)
	}
	var rolled string
	l.do("PUT", userTokens+"/"+made.ID+"/value", l.admin.header(), nil, 200, 0).into(t, &rolled)
	l.do("GET", userTokens+"/verify", bearer(rolled), nil, 429, codeRateLimited)
}

// TestAddressLimit bounds all that comes from here, but for enforcers.
func TestAddressLimit(t *testing.T) {
	l := newLimitedLab(t, throttle.Limits{Address: throttle.Limit{Quota: 3, Window: time.Second}})
	l.do("GET", "/client/v4/user", l.admin.header(), nil, 200, 0)
	l.do("GET", "/client/v4/user", l.rival.header(), nil, 200, 0)
	l.do("GET", "/openapi.json", nil, nil, 200, 0)
	for _, path := range []string{"/client/v4/user", "/openapi.json", "/errors", "/client/v4/nothing"} {
		if a := l.send(l.request("GET", path, l.admin.header(), nil)); a.StatusCode != 429 || a.Header.Get("Ratelimit") != `"address";r=0;t=1` ||
			a.Header.Get("Ratelimit-Policy") != `"address";q=3;w=1` || a.Header.Get("Retry-After") != "1" {
			t.Errorf("%s: %d %v", path, a.StatusCode, a.Header)
		}
	}
	l.do("POST", "/v1/verify", bearer(l.enforcer), askVerify, 200, 0)
	l.introspect(bearer(l.enforcer), "token=x")
	l.now.ahead.Add(int64(time.Second))
	l.do("GET", "/client/v4/user", l.admin.header(), nil, 200, 0)
}

// TestWrongCredentials: on every kind of endpoint wrong credentials get 429
// beyond the limit, and good ones of all kinds, from the same address and under
// the same e-mail address, never do.
func TestWrongCredentials(t *testing.T) {
	const quota = 5
	limits := throttle.Limits{Wrong: throttle.Limit{Quota: quota, Window: time.Minute}}
	for name, c := range map[string]struct {
		wrong        func(*lab) *answer
		status, code int
	}{
		"a token":        {func(l *lab) *answer { return l.get("/client/v4/user", wrongBearer(t, token.KindUser)) }, 403, 9109},
		"a foreign one":  {func(l *lab) *answer { return l.get("/client/v4/user", bearer(strings.Repeat("A", 40))) }, 403, 9109},
		"no token":       {func(l *lab) *answer { return l.get("/client/v4/user", bearer("A")) }, 400, 6003},
		"verification":   {func(l *lab) *answer { return l.get(userTokens+"/verify", wrongBearer(t, token.KindUser)) }, 401, 1000},
		"the other kind": {func(l *lab) *answer { return l.get(userTokens+"/verify", wrongBearer(t, token.KindAccount)) }, 401, 1000},
		"a key":          {func(l *lab) *answer { return l.get("/client/v4/user", wrongKey(t, l.admin.email)) }, 403, 9103},
		"a key of none":  {func(l *lab) *answer { return l.get("/client/v4/user", wrongKey(t, "nobody@example.com")) }, 403, 9103},
		"a write": {func(l *lab) *answer {
			return l.send(l.request("POST", userTokens, wrongKey(t, l.admin.email), grant("n", dnsWrite, zone)))
		}, 403, 9103},
		"an enforcer's key": {func(l *lab) *answer {
			return l.send(l.request("POST", "/v1/verify", wrongBearer(t, token.KindEnforcer), askVerify))
		}, 401, 20001},
		"OAuth":                {func(l *lab) *answer { return l.introspect(wrongBearer(t, token.KindEnforcer), "token=x") }, 401, 20001},
		"OAuth by Basic":       {func(l *lab) *answer { return l.introspect(basic("id", "wrong"), "token=x") }, 401, 20001},
		"a token at verify":    {func(l *lab) *answer { return l.send(l.request("POST", "/v1/verify", l.admin.header(), askVerify)) }, 401, 20001},
		"what is no key there": {func(l *lab) *answer { return l.send(l.request("POST", "/v1/verify", bearer("x"), askVerify)) }, 401, 20001},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLimitedLab(t, limits)
			made := l.create(l.admin.accountTokens(), l.admin.header(), grant("t", dnsWrite, zone))
			for range quota {
				if a := c.wrong(l); a.StatusCode != c.status || a.code() != c.code {
					t.Fatalf("within the limit: %d %s", a.StatusCode, a.body)
				}
			}
			a := c.wrong(l)
			if a.StatusCode != 429 || a.code() != codeRateLimited || a.Header.Get("Retry-After") != "12" || a.Header.Get("Www-Authenticate") != "" ||
				a.Header.Get("Ratelimit") != `"credentials";r=0;t=60` || a.Header.Get("Ratelimit-Policy") != `"credentials";q=5;w=60` {
				t.Errorf("beyond the limit: %d %s %v", a.StatusCode, a.body, a.Header)
			}
			if l.gate.WrongCredentials() != quota+1 || l.gate.Refused(throttle.WrongAddress) != 1 {
				t.Errorf("counted %d, refused %d", l.gate.WrongCredentials(), l.gate.Refused(throttle.WrongAddress))
			}
			for range 2 * quota {
				l.do("GET", "/client/v4/user", l.admin.header(), nil, 200, 0)
				l.do("GET", l.admin.accountTokens()+"/verify", bearer(made.Value), nil, 200, 0)
				l.do("POST", "/v1/verify", bearer(l.enforcer), askVerify, 200, 0)
				if a := l.introspect(basic(l.enforcerID.String(), l.enforcer), "token=x"); a.StatusCode != 200 {
					t.Fatalf("%d %s", a.StatusCode, a.body)
				}
			}
			l.create(userTokens, l.admin.header(), grant("still works", dnsWrite, zone))
			l.do("GET", "/client/v4/user", nil, nil, 400, 9106) // no credential is no wrong one
		})
	}
}

func (l *lab) get(path string, h http.Header) *answer {
	l.t.Helper()
	return l.send(l.request("GET", path, h, nil))
}

// TestNotWrong: what we have given out is no wrong credential, however it is
// refused, and uses up nothing of what its owner may send.
func TestNotWrong(t *testing.T) {
	l := newLimitedLab(t, throttle.Limits{
		Wrong: throttle.Limit{Quota: 1, Window: time.Hour}, Requests: throttle.Limit{Quota: 100, Window: time.Hour},
	})
	away := l.create(userTokens, l.admin.header(), grant("away", dnsWrite, zone, `"condition":{"request_ip":{"in":["192.0.2.0/24"]}}`))
	disabled := l.create(userTokens, l.admin.header(), grant("off", dnsWrite, zone, `"status":"disabled"`))
	account := l.create(l.admin.accountTokens(), l.admin.header(), grant("account", dnsWrite, zone))
	for range 10 {
		l.do("GET", "/client/v4/user", bearer(away.Value), nil, 403, 9109)
		l.do("GET", userTokens+"/verify", bearer(away.Value), nil, 403, 9109)
		l.do("GET", "/client/v4/user", bearer(disabled.Value), nil, 403, 9109)
		l.do("GET", userTokens+"/verify", bearer(account.Value), nil, 401, 1000) // wrangler asks this way
	}
	if n := l.gate.WrongCredentials(); n != 0 {
		t.Errorf("%d were counted as wrong", n)
	}
	l.do("PUT", userTokens+"/"+away.ID, l.admin.header(), grant("here", dnsWrite, zone), 200, 0)
	if a := l.do("GET", userTokens+"/verify", bearer(away.Value), nil, 200, 0); a.Header.Get("Ratelimit") != `"default";r=99;t=36` {
		t.Errorf("after strangers have asked with it: %s", a.Header.Get("Ratelimit"))
	}
	// Without a pen verification counts alike.
	l.asked.gone.Store(true)
	l.do("GET", userTokens+"/verify", bearer(account.Value), nil, 401, 1000)
	a := l.do("GET", userTokens+"/verify", bearer(away.Value), nil, 200, 0)
	if n := l.gate.WrongCredentials(); n != 0 || a.Header.Get("Ratelimit") != `"default";r=98;t=72` {
		t.Errorf("without a pen: %d wrong, %s", n, a.Header.Get("Ratelimit"))
	}
}

// TestNoFormNoCost: a secret that has no valid form is refused by that alone:
// no pen is asked for the head.
func TestNoFormNoCost(t *testing.T) {
	l := newLab(t)
	ids := l.tokens()
	l.asked.gone.Store(true)
	for _, r := range l.routes {
		if !managed(r) {
			continue
		}
		path, body := l.fill(r, ids)
		code, status := 9109, 403
		if strings.HasSuffix(path, "/verify") {
			code, status = 1000, 401
		}
		for _, h := range []http.Header{bearer(strings.Repeat("A", 40)), bearer(l.enforcer)} {
			l.do(r.Method, path, h, body, status, code)
		}
	}
}
