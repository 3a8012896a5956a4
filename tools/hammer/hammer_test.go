package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

// TestModel holds the model against the evaluator: the code that a load is
// measured on must not be needed to know what is right.
func TestModel(t *testing.T) {
	w := newWorld(3000, 3000)
	cat := catalogue.Cloudflare()
	fates, reasons := map[fate]int{}, map[token.Reason]int{}
	secrets, ids := map[string]bool{}, map[token.ID]bool{}
	for i := range w.n {
		secrets[w.secret(i)], ids[tokenID(i)] = true, true
		if kind, err := (token.Format{}).Parse(w.secret(i)); err != nil || (kind == token.KindAccount) != (owner(i) == token.OwnerAccount) {
			t.Fatalf("secret %d: kind %v, %v", i, kind, err)
		}
		if got := digestOf(i, 0); got != token.Sum(w.secret(i)) {
			t.Fatalf("digest %d is %v", i, got)
		}
		g := w.grant(i, fivePolicies)
		if err := g.Validate(cat, token.DefaultLimits); err != nil {
			t.Fatalf("grant %d: %v", i, err)
		}
		c, err := token.Compile(g, cat)
		if err != nil {
			t.Fatal(err)
		}
		fates[fateOf(i)]++
		for kind := range askKinds {
			q := w.question(i, kind)
			reasons[q.reason]++
			if q.reason == token.ReasonDisabled || q.reason == token.ReasonRevoked {
				continue // the token says that, not its grant
			}
			d := token.Decision{Token: tokenID(i)}
			d.Reason, d.Policy, _ = c.Evaluate(cat, cat.Permission(q.ask.Permission), q.ask.Resource, q.ask.Address, w.now)
			d.Verdict = d.Reason.Verdict()
			if !q.fits(&d) {
				t.Fatal(q.explain(&d))
			}
		}
	}
	if len(secrets) != w.n || len(ids) != w.n {
		t.Errorf("of %d tokens %d have a secret and %d an id of their own", w.n, len(secrets), len(ids))
	}
	if len(fates) != 5 || len(reasons) != 7 {
		t.Errorf("fates %v, reasons %v: not all of them occur", fates, reasons)
	}
}

// TestWrongAnswerIsFound asks an index about a world that is not its own.
func TestWrongAnswerIsFound(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := newWorld(6000, 0)
	source := newMadeUp(w, fivePolicies)
	var err error
	if source.churn, err = newChurn(w, source.end(), 1000, 1_000_000); err != nil {
		t.Fatal(err)
	}
	r := &run{dir: t.TempDir()}
	x, err := fill(ctx, r, filepath.Join(r.dir, "index"), source, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.ready(ctx); err != nil {
		t.Fatal(err)
	}
	b := resident{w: w, x: x, asked: w.questions(2000)}
	for k := range b.asked {
		b.secrets = appendSecret(b.secrets, int(b.asked[k].token), 0)
	}
	if _, err := b.ours(); err != nil {
		t.Error(err)
	}
	close(source.begin)
	if err := b.settled(ctx, r); err != nil {
		t.Error(err)
	}
	for i, s := range source.churn.model {
		s.rolls++ // of which the index has not heard
		if err := b.settled(ctx, r); err == nil || !strings.Contains(err.Error(), errWrong.Error()) {
			t.Errorf("a lost roll of token %d was not found: %v", i, err)
		}
		break
	}
	b.asked[0].policy, b.asked[0].reason = 3, token.ReasonNone
	if _, err := b.ours(); err == nil {
		t.Error("a wrong policy was not found")
	}
	if err := x.close(); err != nil {
		t.Error(err)
	}
}

// TestGuardedIsChecked: the middleware bench finds a handler that sees the
// wrong token, and one that is not reached.
func TestGuardedIsChecked(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := newWorld(6000, 6000)
	r := &run{dir: t.TempDir()}
	x, err := fill(ctx, r, filepath.Join(r.dir, "index"), newMadeUp(w, fivePolicies), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	b := &guarded{w: w, x: x, answer: quiet{http.Header{}}}
	if err := errors.Join(x.ready(ctx), b.prepare(), b.answers()); err != nil {
		t.Fatal(err)
	}
	handle := func(q *guardedRequest) http.Handler { return q.handle }
	if _, err := b.turn(handle, true); err != nil {
		t.Error(err)
	}
	b.allowed[0].policy = 3
	if _, err := b.turn(handle, true); !errors.Is(err, errWrong) {
		t.Errorf("a wrong policy was not found: %v", err)
	}
	b.allowed[0].reason = token.ReasonRevoked
	if err := b.answers(); !errors.Is(err, errWrong) {
		t.Errorf("a request that should have been refused was not found: %v", err)
	}
	if err := x.close(); err != nil {
		t.Error(err)
	}
}

// TestMadeUpFollows lets the strict decoder read what the replay bench writes.
func TestMadeUpFollows(t *testing.T) {
	w := newWorld(200, 0)
	var at events.Position
	for i := -1; i < w.n; i++ {
		d := w.opened()
		if i >= 0 {
			d = w.draft(i+1, i, plainCreated(w, i))
		}
		_, c, err := events.Compose(at, []events.Draft{d})
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
		at = c.End
	}
	if at.Number != uint64(w.n)+1 {
		t.Errorf("at %d", at.Number)
	}
}

func TestGoals(t *testing.T) {
	over, under := newSeries("over", "ns"), newSeries("under", "ns")
	for _, v := range []float64{300, 100, 500, 150} {
		over.add(v)
		under.add(100)
	}
	p := compared("x", atMost(2.2, "x it"), over, under)
	if *p.Ratio != 2.25 || p.Met || p.Goal != "<= 2.2 x it" {
		t.Errorf("%+v", p)
	}
	if p := compared("x", atLeast(2.2, "x it"), over, under); !p.Met {
		t.Errorf("%+v", p)
	}
	if p := compared("x", atLeast(1, "x a peer"), over, newSeries("peer", "ns")); p.Ratio != nil || p.Met || p.verdict() != "-" {
		t.Errorf("without a peer: %+v", p)
	}
}

func TestParse(t *testing.T) {
	for _, args := range []string{"verify -rounds 3 -o json", "-rounds 3 verify -o json", "verify -o=json -rounds=3"} {
		names, o, err := parse(strings.Fields(args))
		if err != nil || len(names) != 1 || names[0] != "verify" || o.rounds != 3 || o.output != "json" {
			t.Errorf("%s: %v %+v %v", args, names, o, err)
		}
	}
	for _, args := range []string{"verify -o xml", "verify -tokens 5", "verify -group 1000"} {
		if _, _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%s was accepted", args)
		}
	}
	if err := command(t.Context(), []string{"nonsense"}, nil); err == nil {
		t.Error("a bench without a name was run")
	}
}

// TestExchange reads answers of net/http with the load's own client.
func TestExchange(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(bare))
	defer s.Close()
	addr := s.Listener.Addr().String()
	good := httpRequest(addr, "/v1/verify", map[string]string{"Authorization": "Bearer x"},
		[]byte(`{"secret":"s","permission":"p","resource":["a","b"],"client_ip":"192.0.2.1"}`))
	c, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	for range 3 {
		status, body, err := c.exchange(good)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkBare(0, 0, status, body); err != nil {
			t.Error(err)
		}
	}
	status, body, err := c.exchange(httpRequest(addr, "/v1/verify", nil, []byte(`{"secret":"s","secret":"t"}`)))
	if err != nil || status != http.StatusBadRequest || checkBare(0, 0, status, body) == nil {
		t.Errorf("%d %s %v", status, body, err)
	}
}
