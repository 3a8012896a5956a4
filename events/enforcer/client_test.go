package enforcer

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"watchword.dev/events/token"
)

const (
	wholeAnswer = `{"decision":"allow","reason":"","token_id":"00000000000000000000000000000001","owner":"00000000000000000000000000000002",` +
		`"owner_kind":"user","sequence":9,"age_ms":12,"stale":false,"bound_ms":30000,"until":"2027-01-02T03:04:05Z","by_address":true,"by_place":true,"more":1}`
	aKey = "wwe_01234567890123456789012345678901234567890123"
)

var aQuestion = &token.Request{Permission: "dns.records.write", Resource: []string{"a.1", "b.2"}, Address: netip.MustParseAddr("192.0.2.1")}

// verifierOf is a verifier that gives one answer.
func verifierOf(t *testing.T, status int, body string) (*httptest.Server, *http.Request) {
	last := new(http.Request)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		*last = http.Request{Method: r.Method, URL: r.URL, Header: r.Header.Clone(), Body: io.NopCloser(strings.NewReader(string(b)))}
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s, last
}

func newClient(t *testing.T, urls ...string) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{URLs: urls, Key: token.NewSecret(aKey)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestClientAsks(t *testing.T) {
	s, last := verifierOf(t, 200, wholeAnswer)
	c := newClient(t, s.URL+"/")
	got := c.VerifyAtLeast(t.Context(), 9, good, aQuestion)
	want := token.Decision{
		Verdict: token.VerdictAllow, Token: someToken, Owner: someOwner, OwnerKind: token.OwnerUser, Sequence: 9, Age: 12 * time.Millisecond,
		Bound: 30 * time.Second, Until: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC), ByAddress: true, ByPlace: true,
	}
	if got.Age < want.Age {
		t.Errorf("its age is %v, the way included", got.Age)
	}
	if got.Age = want.Age; got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	body, _ := io.ReadAll(last.Body)
	if last.Method != "POST" || last.URL.String() != "/v1/verify" || last.Header.Get("Authorization") != "Bearer "+aKey || last.Header.Get("Watchword-At-Least") != "9" ||
		string(body) != `{"secret":"`+good+`","permission":"dns.records.write","resource":["a.1","b.2"],"client_ip":"192.0.2.1"}` {
		t.Errorf("%s %s %v\n%s", last.Method, last.URL, last.Header, body)
	}
}

// TestClientNeverGuesses: whatever a verifier answers, only a whole decision is
// one.
func TestClientNeverGuesses(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   token.Reason
	}{
		"a no":                   {200, `{"decision":"deny","reason":"revoked","sequence":9,"age_ms":0,"stale":false}`, token.ReasonRevoked},
		"stale":                  {503, `{"decision":"unavailable","reason":"stale","sequence":9,"age_ms":90000,"stale":true}`, token.ReasonStale},
		"our key is refused":     {401, `{"success":false,"errors":[{"code":20001}]}`, token.ReasonNotReady},
		"forbidden":              {403, `{}`, token.ReasonNotReady},
		"not found":              {404, `not here`, token.ReasonNotReady},
		"a mistake of theirs":    {500, wholeAnswer, token.ReasonNotReady},
		"a redirect":             {302, wholeAnswer, token.ReasonNotReady},
		"no content":             {200, ``, token.ReasonNotReady},
		"an empty object":        {200, `{}`, token.ReasonNotReady},
		"cut":                    {200, wholeAnswer[:40], token.ReasonNotReady},
		"twice":                  {200, wholeAnswer + wholeAnswer, token.ReasonNotReady},
		"a word of another type": {200, `{"decision":"maybe","reason":""}`, token.ReasonNotReady},
		"an allow with a reason": {200, strings.Replace(wholeAnswer, `"reason":""`, `"reason":"revoked"`, 1), token.ReasonNotReady},
		"an allow of nobody":     {200, `{"decision":"allow","reason":"","sequence":9,"age_ms":0}`, token.ReasonNotReady},
		"an allow with 503":      {503, wholeAnswer, token.ReasonNotReady},
		"older than asked for":   {200, strings.Replace(wholeAnswer, `"sequence":9`, `"sequence":8`, 1), token.ReasonNotReady},
		"from the future":        {200, strings.Replace(wholeAnswer, `"age_ms":12`, `"age_ms":-12`, 1), token.ReasonNotReady},
		"too large a bound":      {200, strings.Replace(wholeAnswer, `30000`, `9223372036854775807`, 1), token.ReasonNotReady},
	} {
		s, _ := verifierOf(t, c.status, c.body)
		if got := newClient(t, s.URL).VerifyAtLeast(t.Context(), 9, good, aQuestion); got.Reason != c.want || got.Verdict != c.want.Verdict() {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestClientCountsTheWay: a decision that was under way for longer than it may be
// old is none, whoever has joined the question meanwhile.
func TestClientCountsTheWay(t *testing.T) {
	for _, c := range []struct {
		age, bound, took time.Duration
		want             token.Verdict
		stale            bool
	}{
		{0, 2 * time.Second, 2 * time.Second, token.VerdictAllow, false},
		{time.Millisecond, 2 * time.Second, 2 * time.Second, token.VerdictUnavailable, true},
		{8 * time.Second, 10 * time.Second, 3 * time.Second, token.VerdictUnavailable, true},
		{8 * time.Second, 30 * time.Second, 3 * time.Second, token.VerdictAllow, true},
		{time.Minute, 0, time.Minute, token.VerdictAllow, true}, // it was not told how old it may be
	} {
		got := arrived(token.Decision{Verdict: token.VerdictAllow, Sequence: 9, Age: c.age, Bound: c.bound}, c.took)
		if got.Verdict != c.want || got.Stale != c.stale || got.Age != c.age+c.took || got.Sequence != 9 {
			t.Errorf("%+v: %+v", c, got)
		}
	}
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, strings.Replace(wholeAnswer, `"age_ms":12`, `"age_ms":30000`, 1)) // on its way it is older than it may be
	}))
	t.Cleanup(slow.Close)
	if got := newClient(t, slow.URL).Verify(good, aQuestion); got.Reason != token.ReasonStale || got.Age <= 30*time.Second {
		t.Errorf("%+v", got)
	}
}

func TestClientFailsOver(t *testing.T) {
	dead, _ := verifierOf(t, 200, wholeAnswer)
	dead.Close()
	broken, _ := verifierOf(t, 500, "")
	stale, asked := verifierOf(t, 503, `{"decision":"unavailable","reason":"stale","sequence":9,"age_ms":90000,"stale":true}`)
	whole, _ := verifierOf(t, 200, wholeAnswer)
	if got := newClient(t, dead.URL, broken.URL, stale.URL, whole.URL).Verify(good, aQuestion); got.Verdict != token.VerdictAllow {
		t.Errorf("the last one was not asked: %+v", got)
	}
	if got := newClient(t, dead.URL, stale.URL).Verify(good, aQuestion); got.Reason != token.ReasonStale || asked.Method == "" {
		t.Errorf("%+v", got)
	}
	c := newClient(t, broken.URL, whole.URL)
	c.Verify(good, aQuestion)
	if first := c.order()[0]; !strings.HasPrefix(first.url, whole.URL) {
		t.Errorf("one that has just failed is asked first: %s", first.url)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c = newClient(t, whole.URL)
	if got := c.VerifyContext(ctx, good, aQuestion); got.Verdict != token.VerdictUnavailable || c.verifiers[0].failed.Load() != 0 {
		t.Errorf("a caller that has gone is no failure of the verifier: %+v", got)
	}
}

func TestClientRefusesToStart(t *testing.T) {
	for name, cfg := range map[string]ClientConfig{
		"no key":         {URLs: []string{"https://v.example"}},
		"no URL":         {Key: token.NewSecret(aKey)},
		"not encrypted":  {Key: token.NewSecret(aKey), URLs: []string{"http://v.example"}},
		"another scheme": {Key: token.NewSecret(aKey), URLs: []string{"ftp://v.example"}},
		"a password":     {Key: token.NewSecret(aKey), URLs: []string{"https://a:b@v.example"}},
		"a query":        {Key: token.NewSecret(aKey), URLs: []string{"https://v.example?a=b"}},
		"no host":        {Key: token.NewSecret(aKey), URLs: []string{"verifier"}},
	} {
		if _, err := NewClient(cfg); err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), "a:b") || strings.Contains(err.Error(), aKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, url := range []string{"https://v.example/base", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"} {
		newClient(t, url)
	}
	if _, err := NewClient(ClientConfig{Key: token.NewSecret(aKey), URLs: []string{"http://v.example"}, Plain: true}); err != nil {
		t.Error(err)
	}
}
