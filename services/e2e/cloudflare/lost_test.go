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

	"watchword.dev/services/e2e/cloudflare"
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

// through is the operator behind l, which may repeat. The answers of l are not
// the server's, so nothing watches them.
func (o *one) through(l *lossy) cloudflare.As {
	as := o.operator()
	as.BaseURL, as.Repeats, as.HTTP = l.front(o.t), 3, &http.Client{Timeout: deadline}
	return as
}

// TestLostAnswer checks that a create or a roll whose answer was lost, and
// which the client repeats by itself, leaves one live token with one live
// secret: the one that the client was told. A client that does not say that it
// repeats makes two tokens; a roll has one living secret even then.
func TestLostAnswer(t *testing.T) {
	each(t, func(t *testing.T, o *one) {
		for _, cut := range []bool{false, true} {
			by := "a gateway"
			if cut {
				by = "a broken connection"
			}
			t.Run(by, func(t *testing.T) {
				t.Parallel()
				o := newOne(t, o.Client, o.Kind)
				if o.Can.Count {
					o.lostCreate(&lossy{cut: cut})
				}
				o.lostRoll(&lossy{cut: cut})
			})
		}
	})
}

func (o *one) lostCreate(l *lossy) {
	name := unique("lost")
	m, err := o.Create(o.ctx, o.through(l), cloudflare.Wish{Name: name, Policies: zonePolicy(dnsWrite)})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { o.clean(m.ID) })
	if got := strings.Join(l.repeats, ","); got != "0,1" {
		o.t.Fatalf("the client sent retry counts %s", got)
	}
	all, err := o.List(o.ctx, o.operator(), 50, false)
	if err != nil {
		o.t.Fatal(err)
	}
	if left := named(all, name); len(left) != 1 || left[0].ID != m.ID {
		o.t.Errorf("%d tokens are left, want the one that the client knows", len(left))
	}
	o.lives(m.ID, m.Secret)
	o.dead("the secret that was lost", o.secretIn(l.lost))
}

func (o *one) lostRoll(l *lossy) {
	m := o.make(cloudflare.Wish{Name: "lost roll", Policies: zonePolicy(dnsWrite)})
	secret, err := o.Rolls[0](o.ctx, o.through(l), m.ID)
	if err != nil {
		o.t.Fatal(err)
	}
	o.lives(m.ID, secret)
	o.dead("the rolled secret", m.Secret)
	o.dead("the secret that was lost", o.secretIn(l.lost))
}

// lives checks that the secret is the token's.
func (o *one) lives(id, secret string) {
	o.t.Helper()
	if s, err := o.Verify(o.ctx, o.bearer(secret)); err != nil || s.ID != id || s.Status != "active" {
		o.t.Errorf("verify: %+v, %v", s, err)
	}
}

// dead checks that nobody has the secret.
func (o *one) dead(what, secret string) {
	o.t.Helper()
	_, err := o.Verify(o.ctx, o.bearer(secret))
	o.refused(what, err, http.StatusUnauthorized, 1000)
}

// secretIn returns the secret that stands in an answer.
func (o *one) secretIn(answer string) string {
	o.t.Helper()
	at := strings.Index(answer, o.Prefix)
	if at < 0 || len(answer) < at+48 {
		o.t.Fatalf("no secret in %q", answer)
	}
	return answer[at : at+48]
}
