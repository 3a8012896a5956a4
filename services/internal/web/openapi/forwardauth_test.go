package openapi_test

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/throttle"
	"watchword.dev/services/introspection"
	"watchword.dev/services/introspection/routes"
)

const forwardAuth = "/v1/forward-auth"

// routed are the shipped routes.
func (l *lab) routed() func() *routes.Map {
	l.t.Helper()
	raw := must[[]byte](l.t)(os.ReadFile("../../../../deploy/routes/dns.yaml"))
	m := must[*routes.Map](l.t)(routes.Load(raw, catalogue.Cloudflare()))
	return func() *routes.Map { return m }
}

// recordsPath is a request to the zone of the tests.
func (l *lab) recordsPath() string {
	return "/accounts/" + l.admin.account.String() + "/zones/" + strings.TrimPrefix(zone, zoneType) + "/records"
}

// proxied are the headers of a proxy whose client sends this request.
func (l *lab) proxied(secret, method, target string) http.Header {
	h := http.Header{
		introspection.EnforcerKeyHeader: {l.enforcer},
		"X-Original-Method":             {method}, "X-Original-Uri": {target}, "X-Forwarded-For": {"192.0.2.10"},
	}
	if secret != "" {
		h["Authorization"] = []string{"Bearer " + secret}
	}
	return h
}

// forwarded is a request to a proxy, what the proxy's headers are changed to, and
// the answer. The challenge "-" is the one without an error.
type forwarded struct {
	secret, method, target string
	change                 func(http.Header)
	status                 int
	challenge              string
}

// forwards are requests of every kind. good may write the zone, here only from an
// address, and gone was revoked.
func (l *lab) forwards(good, here, gone string) map[string]forwarded {
	records := l.recordsPath()
	other := strings.Replace(records, "/zones/1", "/zones/2", 1)
	return map[string]forwarded{
		"good":               {good, "GET", records, nil, 200, ""},
		"good, with a query": {good, "GET", records + "?access_token=x", nil, 200, ""},
		"good, another spelling": {good, "", "", func(h http.Header) {
			h["X-Forwarded-Method"], h["X-Forwarded-Uri"] = []string{"POST"}, []string{records}
		}, 200, ""},
		"good, both spellings": {good, "GET", records, func(h http.Header) {
			h["X-Forwarded-Method"], h["X-Forwarded-Uri"] = []string{"GET"}, []string{records}
		}, 200, ""},
		"RFC 8959":                   {"secret-token:" + good, "GET", records, nil, 200, ""},
		"from here":                  {here, "GET", records, nil, 200, ""},
		"from elsewhere":             {here, "GET", records, func(h http.Header) { h["X-Forwarded-For"] = []string{"198.51.100.1"} }, 401, "invalid_token"},
		"from here, says the client": {here, "GET", records, func(h http.Header) { h["X-Forwarded-For"] = []string{"192.0.2.10, 198.51.100.1"} }, 401, "invalid_token"},
		"from nowhere":               {here, "GET", records, func(h http.Header) { delete(h, "X-Forwarded-For") }, 401, "invalid_token"},
		"none":                       {"", "GET", records, nil, 401, "-"},
		"another scheme":             {"", "GET", records, func(h http.Header) { h["Authorization"] = []string{"Basic dTpw"} }, 401, "-"},
		"malformed":                  {"a b", "GET", records, nil, 401, "invalid_token"},
		"empty":                      {"", "GET", records, func(h http.Header) { h["Authorization"] = []string{"Bearer "} }, 401, "invalid_token"},
		"two":                        {good, "GET", records, func(h http.Header) { h["Authorization"] = []string{h["Authorization"][0], h["Authorization"][0]} }, 401, "invalid_token"},
		"unknown":                    {strings.Repeat("A", 48), "GET", records, nil, 401, "invalid_token"},
		"revoked":                    {gone, "GET", records, nil, 401, "invalid_token"},
		"an enforcer's":              {l.enforcer, "GET", records, nil, 401, "invalid_token"},
		"an API key":                 {l.admin.key, "GET", records, nil, 401, "invalid_token"},
		"another zone":               {good, "GET", other, nil, 403, `insufficient_scope", error_description="The access token does not allow this.", scope="dns.records.read`},
		"no route":                   {good, "GET", "/elsewhere", nil, 403, "insufficient_scope"},
		"no route for the method":    {good, "TRACE", records, nil, 403, "insufficient_scope"},
		"ambiguous":                  {good, "GET", other + "/..%2f" + records, nil, 403, "insufficient_scope"},
		"two targets":                {good, "GET", records, func(h http.Header) { h["X-Forwarded-Uri"] = []string{records + "/1"} }, 403, "insufficient_scope"},
		"two lines":                  {good, "GET", records, func(h http.Header) { h["X-Original-Uri"] = []string{records, records + "/1"} }, 403, "insufficient_scope"},
		"two methods":                {good, "GET", records, func(h http.Header) { h["X-Forwarded-Method"] = []string{"DELETE"} }, 403, "insufficient_scope"},
		"two hosts":                  {good, "GET", records, func(h http.Header) { h["X-Forwarded-Host"], h["X-Original-Host"] = []string{"a"}, []string{"b"} }, 403, "insufficient_scope"},
		"no target":                  {good, "GET", records, func(h http.Header) { delete(h, "X-Original-Uri") }, 503, ""},
		"no method":                  {good, "GET", records, func(h http.Header) { delete(h, "X-Original-Method") }, 503, ""},
		"no enforcer":                {good, "GET", records, func(h http.Header) { delete(h, introspection.EnforcerKeyHeader) }, 503, ""},
		"a token for an enforcer":    {good, "GET", records, func(h http.Header) { h[introspection.EnforcerKeyHeader] = []string{good} }, 503, ""},
		"two enforcers":              {good, "GET", records, func(h http.Header) { h[introspection.EnforcerKeyHeader] = []string{l.enforcer, l.enforcer} }, 503, ""},
		"the key as the token":       {l.enforcer, "GET", records, func(h http.Header) { delete(h, introspection.EnforcerKeyHeader) }, 503, ""},
	}
}

// TestForwardAuth: one request of every kind.
func TestForwardAuth(t *testing.T) {
	l := newLab(t)
	as, records := l.admin.header(), l.recordsPath()
	good := l.create(userTokens, as, grant("good", dnsWrite, zone))
	here := l.create(userTokens, as, grant("here", dnsWrite, zone, `"condition":{"request_ip":{"in":["192.0.2.0/24"]}}`))
	gone := l.create(userTokens, as, grant("gone", dnsWrite, zone))
	l.do("DELETE", userTokens+"/"+gone.ID, as, nil, 200, 0)
	for name, c := range l.forwards(good.Value, here.Value, gone.Value) {
		h := l.proxied(c.secret, c.method, c.target)
		if c.method == "" {
			delete(h, "X-Original-Method")
			delete(h, "X-Original-Uri")
		}
		if c.change != nil {
			c.change(h)
		}
		for _, method := range []string{"GET", "HEAD"} {
			a := l.send(l.request(method, forwardAuth+"?token="+good.Value+"&uri="+records, h.Clone(), nil))
			challenge := a.Header.Get("Www-Authenticate")
			fits := strings.Contains(challenge, c.challenge) && (challenge == "") == (c.challenge == "")
			if c.challenge == "-" {
				fits = challenge == `Bearer realm="watchword"`
			}
			if a.StatusCode != c.status || !fits || a.Header.Get("Cache-Control") != "no-store" || (a.Header.Get("Retry-After") != "") != (c.status == 503) {
				t.Errorf("%s: %d, %v", name, a.StatusCode, a.Header)
			}
			for _, id := range introspection.IdentityHeaders {
				if got, ok := a.Header[id]; !ok || len(got) != 1 || c.status != 200 && got[0] != "" {
					t.Errorf("%s: %s is %q", name, id, got)
				}
			}
			if strings.Contains(string(a.body), good.Value) || strings.Contains(string(a.body), "zones") {
				t.Errorf("%s: %s", name, a.body)
			}
		}
	}
	a := l.do("GET", forwardAuth, l.proxied(good.Value, "GET", records), nil, 200, 0)
	for id, want := range map[string]string{
		"Watchword-Token-Id": good.ID, "Watchword-Owner-Id": l.admin.id.String(), "Watchword-Owner-Kind": "user", "Watchword-Account-Id": "",
		"Watchword-Permission": "dns.records.read", "Watchword-Resource": accountType + l.admin.account.String() + " " + zone,
	} {
		if got := a.Header.Get(id); got != want {
			t.Errorf("%s is %q, want %q", id, got, want)
		}
	}
	if len(a.body) != 0 || a.Header.Get("Watchword-Policy-Id") == "" || a.Header.Get(introspection.IdentityHeaders[7]) == "" {
		t.Errorf("%v %s", a.Header, a.body)
	}
	if log := l.log.String(); strings.Contains(log, good.Value) || strings.Contains(log, l.enforcer) {
		t.Error("a secret stands in the log")
	}
}

// TestForwardAuthGuessed: who guesses keys of enforcers is counted, and still
// hears nothing but that nobody could tell.
func TestForwardAuthGuessed(t *testing.T) {
	l := newLimitedLab(t, throttle.Limits{Wrong: throttle.Limit{Quota: 3, Window: time.Minute}})
	good := l.create(userTokens, l.admin.header(), grant("good", dnsWrite, zone))
	for range 5 {
		h := l.proxied(good.Value, "GET", l.recordsPath())
		h[introspection.EnforcerKeyHeader] = []string{must[token.Secret](t)(token.Format{}.Generate(token.KindEnforcer)).Reveal()}
		if a := l.send(l.request("GET", forwardAuth, h, nil)); a.StatusCode != 503 {
			t.Errorf("%d", a.StatusCode)
		}
	}
	if n := l.gate.Refused(throttle.WrongAddress); n == 0 {
		t.Error("nothing was counted")
	}
	// Nobody with a good key is locked out for that.
	l.do("GET", forwardAuth, l.proxied(good.Value, "GET", l.recordsPath()), nil, 200, 0)
}
