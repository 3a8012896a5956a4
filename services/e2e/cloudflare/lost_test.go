package cloudflare_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/cloudflare/cloudflare-go/v6/option"
	"github.com/cloudflare/cloudflare-go/v6/shared"
)

// lossy passes requests to the server and swallows the answer of the first
// change: the server has made it, and the client does not know.
type lossy struct {
	behind http.Handler
	cut    bool // break the connection off; else answer as a gateway does that lost its server

	mu      sync.Mutex
	lost    string   // the answer that was swallowed
	repeats []string // X-Stainless-Retry-Count of each change
}

func (l *lossy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		l.behind.ServeHTTP(w, r)
		return
	}
	l.mu.Lock()
	l.repeats = append(l.repeats, r.Header.Get("X-Stainless-Retry-Count"))
	first := len(l.repeats) == 1
	l.mu.Unlock()
	if !first {
		l.behind.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	l.behind.ServeHTTP(answer, r)
	l.mu.Lock()
	l.lost = answer.Body.String()
	l.mu.Unlock()
	if l.cut {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Retry-After-Ms", "1")
	w.WriteHeader(http.StatusBadGateway)
	io.WriteString(w, "<html>502</html>")
}

// front serves l before the server.
func (l *lossy) front(t *testing.T) string {
	t.Helper()
	to, err := url.Parse(server.Admin.BaseURL)
	if err != nil {
		t.Fatal(err)
	}
	l.behind = httputil.NewSingleHostReverseProxy(to)
	s := httptest.NewServer(l)
	t.Cleanup(s.Close)
	return s.URL + "/client/v4"
}

// TestLostAnswer checks that a create or a roll whose answer was lost, and
// which the client repeats by itself, leaves one live token with one live
// secret: the one that the client was told.
func TestLostAnswer(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		for _, cut := range []bool{false, true} {
			by := "a gateway"
			if cut {
				by = "a broken connection"
			}
			t.Run(by, func(t *testing.T) {
				t.Parallel()
				lostCreate(t, k, &lossy{cut: cut})
				lostRoll(t, k, &lossy{cut: cut})
			})
		}
	})
}

func lostCreate(t *testing.T, k kind, l *lossy) {
	ctx := bounded(t)
	name := unique("lost")
	through := operator(option.WithBaseURL(l.front(t)), option.WithMaxRetries(3))
	m, err := k.create(ctx, wish{name: name, policies: []shared.TokenPolicyParam{zonePolicy(dnsWrite)}}, through...)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(l.repeats, ","); got != "0,1" {
		t.Fatalf("the client sent retry counts %s", got)
	}
	all, err := k.list(ctx, 50, false, operator()...)
	if err != nil {
		t.Fatal(err)
	}
	if left := named(all, name); len(left) != 1 || left[0].ID != m.id {
		t.Errorf("%d tokens are left, want the one that the client knows", len(left))
	}
	if s, err := k.verify(ctx, bearer(m.secret)...); err != nil || s.id != m.id {
		t.Errorf("the secret that the client was told: %+v, %v", s, err)
	}
	_, err = k.verify(ctx, bearer(secretIn(t, k, l.lost))...)
	refused(t, "the secret that was lost", err, "401", "1000")
}

func lostRoll(t *testing.T, k kind, l *lossy) {
	ctx := bounded(t)
	m, err := k.create(ctx, wish{name: "lost roll", policies: []shared.TokenPolicyParam{zonePolicy(dnsWrite)}}, operator()...)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := k.roll(ctx, m.id, map[string]any{}, operator(option.WithBaseURL(l.front(t)), option.WithMaxRetries(3))...)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := k.verify(ctx, bearer(secret)...); err != nil || s.id != m.id {
		t.Errorf("the secret that the client was told: %+v, %v", s, err)
	}
	for what, dead := range map[string]string{"the rolled secret": m.secret, "the secret that was lost": secretIn(t, k, l.lost)} {
		_, err := k.verify(ctx, bearer(dead)...)
		refused(t, what, err, "401", "1000")
	}
}

// secretIn returns the secret that stands in an answer.
func secretIn(t *testing.T, k kind, answer string) string {
	t.Helper()
	at := strings.Index(answer, k.prefix)
	if at < 0 || len(answer) < at+48 {
		t.Fatalf("no secret in %q", answer)
	}
	return answer[at : at+48]
}
