package introspection

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"watchword.dev/events/token"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/internal/web"
)

// scripted is a Decider that says what the test wants; it also holds callers
// to the contract that strings are not kept: it keeps none.
type scripted struct {
	enforcer token.Reason
	ceiling  time.Duration
	decide   func(ceiling time.Duration, secret string, ask *token.Request) token.Decision
}

func (s *scripted) Enforcer(string) (verifyindex.EnforcerInfo, token.Reason) {
	return verifyindex.EnforcerInfo{Ceiling: s.ceiling}, s.enforcer
}

func (s *scripted) VerifyWithin(ceiling time.Duration, secret string, ask *token.Request) token.Decision {
	return s.decide(ceiling, secret, ask)
}

func (s *scripted) Identify(string, netip.Addr) (verifyindex.Identity, token.Reason) {
	return verifyindex.Identity{}, s.enforcer
}
func (s *scripted) Sequence() uint64                   { return 7 }
func (s *scripted) Wait(context.Context, uint64) error { return errors.New("stopped") }

// ask sends a body and returns the answer and the log.
func ask(t *testing.T, d Decider, body string) (*http.Response, string, string) {
	t.Helper()
	var log bytes.Buffer
	s, err := New(Config{Decider: d, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	rt := web.NewRouter(web.Config{})
	s.Routes(rt)
	r := httptest.NewRequest("POST", "/v1/verify", strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+strings.Repeat("e", 48))
	w := httptest.NewRecorder()
	rt.ServeHTTP(w, r)
	return w.Result(), w.Body.String(), log.String()
}

const aQuestion = `{"secret":"s","permission":"p","resource":["a","b"],"client_ip":"192.0.2.1"}`

// TestUnavailable: no answer is 503 for one question and a word in a batch,
// and never a yes or a no.
func TestUnavailable(t *testing.T) {
	d := &scripted{ceiling: time.Minute, decide: func(ceiling time.Duration, secret string, ask *token.Request) token.Decision {
		if ceiling != time.Minute || secret != "s" || ask.Permission != "p" || strings.Join(ask.Resource, " ") != "a b" || ask.Address.String() != "192.0.2.1" || !ask.Time.IsZero() {
			t.Errorf("asked %v %q %+v", ceiling, secret, ask)
		}
		return token.Decision{Verdict: token.VerdictUnavailable, Reason: token.ReasonStale, Sequence: 5, Age: 90 * time.Second, Stale: true}
	}}
	const want = `{"decision":"unavailable","reason":"stale","sequence":5,"age_ms":90000,"stale":true}`
	resp, body, _ := ask(t, d, aQuestion)
	if resp.StatusCode != 503 || body != want || resp.Header.Get("Retry-After") != "1" || resp.Header.Get("Watchword-Sequence") != "5" {
		t.Errorf("%d %s %v", resp.StatusCode, body, resp.Header)
	}
	resp, body, _ = ask(t, d, "["+aQuestion+","+aQuestion+"]")
	if resp.StatusCode != 200 || body != "["+want+","+want+"]" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// TestDecisionBytes pins the form of a full answer.
func TestDecisionBytes(t *testing.T) {
	id := func(b byte) (id token.ID) { id[15] = b; return id }
	d := &scripted{decide: func(time.Duration, string, *token.Request) token.Decision {
		return token.Decision{
			Verdict: token.VerdictAllow, Token: id(1), Owner: id(2), OwnerKind: token.OwnerAccount, Account: id(2), Policy: id(3), Sequence: 9, Age: 1500 * time.Microsecond,
			Bound: 30 * time.Second, Until: time.Date(2027, 1, 2, 3, 4, 5, 6e6, time.UTC), ByAddress: true, ByPlace: true,
		}
	}}
	_, body, _ := ask(t, d, aQuestion)
	z := strings.Repeat("0", 31)
	if want := `{"decision":"allow","reason":"","token_id":"` + z + `1","owner":"` + z + `2","owner_kind":"account","account_id":"` + z + `2","policy_id":"` + z + `3","sequence":9,"age_ms":1,"stale":false,` +
		`"bound_ms":30000,"until":"2027-01-02T03:04:05.006Z","by_address":true,"by_place":true}`; body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
}

func TestEnforcerStates(t *testing.T) {
	for reason, want := range map[token.Reason]struct {
		status int
		says   string
	}{
		token.ReasonUnknown: {401, `"code":20001`}, token.ReasonRevoked: {401, `"code":20001`}, token.ReasonMalformed: {401, `"code":20001`},
		token.ReasonStale: {503, `"code":20018`}, token.ReasonNotReady: {503, `"code":20019`},
	} {
		resp, body, _ := ask(t, &scripted{enforcer: reason}, aQuestion)
		if resp.StatusCode != want.status || !strings.Contains(body, want.says) {
			t.Errorf("%v: %d %s", reason, resp.StatusCode, body)
		}
	}
}

// TestPanic: a mistake of ours is a 500 in the envelope, told without what was
// asked, and the next request has clean memory.
func TestPanic(t *testing.T) {
	d := &scripted{decide: func(_ time.Duration, secret string, _ *token.Request) token.Decision { panic("about " + secret) }}
	resp, body, log := ask(t, d, strings.Replace(aQuestion, `"s"`, `"hunter2"`, 1))
	if resp.StatusCode != 500 || !strings.Contains(body, `"code":20000`) || strings.Contains(body+log, "hunter2") || !strings.Contains(log, "panic") {
		t.Errorf("%d %s\n%s", resp.StatusCode, body, log)
	}
}
