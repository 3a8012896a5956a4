package introspection

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/web"
	"watchword.dev/services/introspection/routes"
)

const oneRoute = `routes:
  - methods: [GET]
    path: /zones/{zone}
    permission: zone.read
    resource:
      - com.cloudflare.api.account.zone.{zone}
`

// forward asks as a proxy does and returns the answer and the log. Without a
// file there are no routes.
func forward(t *testing.T, d Decider, file string) (*httptest.ResponseRecorder, string) {
	t.Helper()
	var log bytes.Buffer
	cfg := Config{Decider: d, Log: slog.New(slog.NewTextHandler(&log, nil))}
	if file != "" {
		m, err := routes.Load([]byte(file), catalogue.Cloudflare())
		if err != nil {
			t.Fatal(err)
		}
		cfg.Map = func() *routes.Map { return m }
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	rt := web.NewRouter(web.Config{})
	s.Routes(rt)
	r := httptest.NewRequest("GET", forwardAuthPath, nil)
	for k, v := range map[string]string{
		EnforcerKeyHeader: strings.Repeat("e", 48), "Authorization": "Bearer " + strings.Repeat("s", 48),
		"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/zones/z", "X-Forwarded-For": "192.0.2.1",
	} {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	rt.ServeHTTP(w, r)
	return w, log.String()
}

// TestForwardAuthUnavailable: whatever keeps an answer away is 503, with empty
// identity headers, and says nothing about the token.
func TestForwardAuthUnavailable(t *testing.T) {
	says := func(d token.Decision) *scripted {
		return &scripted{ceiling: time.Minute, decide: func(ceiling time.Duration, secret string, ask *token.Request) token.Decision {
			if ceiling != time.Minute || secret != strings.Repeat("s", 48) || ask.Permission != "zone.read" || strings.Join(ask.Resource, " ") != "com.cloudflare.api.account.zone.z" || ask.Address.String() != "192.0.2.1" {
				t.Errorf("asked %v %q %+v", ceiling, secret, ask)
			}
			return d
		}}
	}
	yes := token.Decision{Verdict: token.VerdictAllow, Token: token.ID{1}}
	stale := says(yes)
	stale.enforcer = token.ReasonStale
	for name, c := range map[string]struct {
		d      *scripted
		file   string
		status int
	}{
		"allowed":          {says(yes), oneRoute, 200},
		"denied":           {says(token.Decision{Reason: token.ReasonNoPolicy}), oneRoute, 403},
		"stale":            {says(token.Decision{Verdict: token.VerdictUnavailable, Reason: token.ReasonStale}), oneRoute, 503},
		"not ready":        {says(token.Decision{Verdict: token.VerdictUnavailable, Reason: token.ReasonNotReady}), oneRoute, 503},
		"stale enforcers":  {stale, oneRoute, 503},
		"no routes":        {says(yes), "", 503},
		"a handler panics": {&scripted{decide: func(time.Duration, string, *token.Request) token.Decision { panic("with a secret") }}, oneRoute, 503},
	} {
		w, log := forward(t, c.d, c.file)
		h := w.Result().Header
		if w.Code != c.status || (c.status == 503) != (h.Get("Retry-After") == "1") || c.status == 503 && h.Get("Www-Authenticate") != "" {
			t.Errorf("%s: %d %v", name, w.Code, h)
		}
		for _, id := range IdentityHeaders {
			if got := h[id]; len(got) != 1 || c.status != 200 && got[0] != "" {
				t.Errorf("%s: %s is %q", name, id, got)
			}
		}
		if name == "no routes" && !strings.Contains(log, "there are no routes") {
			t.Errorf("%s: the log says %q", name, log)
		}
		if strings.Contains(log+w.Body.String(), "with a secret") {
			t.Errorf("%s: %s", name, log)
		}
	}
}
