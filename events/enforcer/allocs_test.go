//go:build !race

package enforcer

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"watchword.dev/events/token"
)

// TestAllocations: Handle costs none, Require the context and the request that
// net/http copies for it. With the race detector a pool forgets at random.
func TestAllocations(t *testing.T) {
	e := newEnforcer(t, Config{Decider: scripted(func(string, *token.Request) token.Decision { return allow })})
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "192.0.2.1:4711"
	r.Header.Set("Authorization", "Bearer "+good)
	r.SetPathValue("account", strings.Repeat("0", 32))
	r.SetPathValue("zone", strings.Repeat("1", 32))
	w := httptest.NewRecorder()
	for name, c := range map[string]struct {
		h    http.Handler
		most float64
	}{
		"Handle":  {e.Handle("dns.records.write", zone, func(http.ResponseWriter, *http.Request, Identity) {}), 0},
		"Require": {e.Require("dns.records.write", zone)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), 2},
	} {
		if n := testing.AllocsPerRun(1000, func() { c.h.ServeHTTP(w, r) }); n > c.most {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
