package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestAddressAndLimits runs the binary behind a proxy that names its clients in
// Forwarded: conditions on addresses and limits go by what it says, wrong
// credentials are throttled, and good ones from the same place are not.
func TestAddressAndLimits(t *testing.T) {
	i := install(t, "--trusted-proxies", "127.0.0.0/8", "--client-address-header", "forwarded",
		"--limit-wrong", "3/24h", "--limit-requests", "20/24h")
	bound := strings.TrimSuffix(grant("bound", zoneID), "}") + `,"condition":{"request_ip":{"in":["192.0.2.0/24","2001:db8::/32"]}}}`
	var made tokenResult
	i.must(asked{http.MethodPost, userTokens, i.operator(), bound}, &made)

	from := func(h http.Header, forwarded string) http.Header {
		h.Set("Forwarded", forwarded)
		return h
	}
	for forwarded, want := range map[string]int{
		"for=192.0.2.7":                            200,
		`for="[2001:db8::7]:4711";proto=https`:     200,
		"for=198.51.100.1, for=192.0.2.7":          200,
		"for=192.0.2.7, for=127.0.0.9":             200,
		"for=192.0.2.7, for=198.51.100.1":          403,
		`for=192.0.2.7;x=", for=198.51.100.1;y=""`: 403,
		"for=_hidden":                              403,
		"192.0.2.7":                                403,
	} {
		h := from(bearer(made.Value), forwarded)
		h.Set("X-Forwarded-For", "192.0.2.7") // nobody looks at it
		h.Set("Cf-Connecting-Ip", "192.0.2.7")
		if got := i.call(asked{http.MethodGet, userTokens + "/verify", h, ""}); got.status != want {
			t.Errorf("%s: %d, want %d: %s", forwarded, got.status, want, got.body)
		}
	}

	const there = "for=203.0.113.5"
	wrong := strings.Repeat("A", 48)
	tell := func(h http.Header) string {
		got := i.call(asked{http.MethodGet, "/client/v4/user", h, ""})
		return fmt.Sprintf("%d %s", got.status, got.header.Get("Ratelimit-Policy"))
	}
	for n, want := range []string{`403 "default";q=20;w=86400`, `403 "default";q=20;w=86400`, `403 "default";q=20;w=86400`, `429 "credentials";q=3;w=86400`} {
		if got := tell(from(bearer(fmt.Sprintf("%d%s", n, wrong[1:])), there)); got != want {
			t.Errorf("wrong credential %d: %s, want %s", n, got, want)
		}
	}
	if got := tell(from(i.operator(), there)); got != `200 "default";q=20;w=86400` {
		t.Errorf("a good one from there: %s", got)
	}
	if got := tell(from(bearer("9"+wrong[1:]), "for=203.0.113.6")); got != `403 "default";q=20;w=86400` {
		t.Errorf("a wrong one from elsewhere: %s", got)
	}
	verify := func(key string) int {
		return i.call(asked{http.MethodPost, "/v1/verify", from(bearer(key), there), `{"secret":"x","permission":"dns.records.read"}`}).status
	}
	if got := verify("wwe_" + wrong[4:]); got != http.StatusTooManyRequests {
		t.Errorf("a wrong enforcer key from there: %d", got)
	}
	for range 30 {
		if got := verify(i.admin.EnforcerKey); got != http.StatusOK {
			t.Fatalf("the enforcer from there: %d", got)
		}
	}
	last := ""
	for range 20 {
		last = tell(i.operator())
	}
	if last != `429 "default";q=20;w=86400` {
		t.Errorf("beyond the operator's own limit: %s", last)
	}
	if text := i.log.String(); strings.Contains(text, "203.0.113.5") || strings.Contains(text, wrong[1:]) {
		t.Error("the log names an address or a credential")
	}
}
