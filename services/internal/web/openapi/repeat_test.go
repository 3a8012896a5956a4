package openapi_test

import (
	"fmt"
	"maps"
	"net/http"
	"testing"
	"time"
)

// makers are the routes that make a thing of the directory, with a body for the
// n-th of them. Two with the same body are two things where twice says so, and
// a conflict elsewhere.
var makers = []struct {
	path  func(*lab) string
	body  func(l *lab, n int) string
	twice bool
}{
	{func(*lab) string { return accountsPath }, func(_ *lab, n int) string { return fmt.Sprintf(`{"name":"Made %d"}`, n) }, true},
	{func(*lab) string { return zonesPath }, func(l *lab, n int) string {
		return fmt.Sprintf(`{"name":"made-%d.example","account":{"id":%q}}`, n, l.admin.account)
	}, true},
	{func(*lab) string { return resourcesPath }, func(l *lab, n int) string {
		return fmt.Sprintf(`{"name":"made-%d.example","type":%q,"parent":%q}`, n, typeZone, accountKey+l.rival.account.String())
	}, true},
	{func(*lab) string { return usersPath }, func(_ *lab, n int) string {
		return fmt.Sprintf(`{"email":"made-%d@example.com","name":"Made"}`, n)
	}, false},
	{func(l *lab) string { return accountsPath + "/" + l.admin.account.String() + "/members" }, func(l *lab, n int) string {
		email := fmt.Sprintf("joins-%d@example.com", n)
		l.do("POST", usersPath, l.admin.header(), `{"email":"`+email+`"}`, 200, 0)
		return `{"email":"` + email + `","roles":["Administrator Read Only"]}`
	}, false},
}

// TestRepeatedCreations: a repeat whose first answer was lost gets that answer,
// and leaves one thing.
func TestRepeatedCreations(t *testing.T) {
	for i, m := range makers {
		l := newLab(t)
		path := m.path(l)
		post := func(body string, more http.Header) (*answer, string) {
			t.Helper()
			h := l.admin.header()
			maps.Copy(h, more)
			a := l.send(l.request("POST", path, h, body))
			var made thing
			if a.StatusCode == 200 {
				a.into(t, &made)
			}
			return a, made.ID
		}
		// again sends a repeat, and requires the first answer and no event.
		again := func(what, body, id string, more http.Header) {
			t.Helper()
			head := l.ledger.Head()
			if a, got := post(body, more); got != id || l.ledger.Head() != head {
				t.Errorf("%s, %s: %d, id %q, want %q; events: %d: %s", path, what, a.StatusCode, got, id, l.ledger.Head()-head, a.body)
			}
		}
		key := http.Header{"Idempotency-Key": {"one"}}
		body := m.body(l, 1)
		_, first := post(body, key)
		if first == "" {
			t.Fatalf("%s: nothing was made", path)
		}
		again("the same key", body, first, key)
		l.now.ahead.Store(int64(time.Hour))
		again("the same key, an hour later", body, first, key)
		l.now.ahead.Store(0)
		if a, id := post(body, http.Header{"Idempotency-Key": {"two"}}); m.twice != (id != "" && id != first) || !m.twice && a.code() != 20011 {
			t.Errorf("%s, another key: %d %q: %s", path, a.StatusCode, id, a.body)
		}
		if _, id := post(m.body(l, 2), key); id == "" || id == first {
			t.Errorf("%s, the same key with another body: %q", path, id)
		}
		if a, _ := post(m.body(l, 3), http.Header{"Idempotency-Key": {"a", "b"}}); a.StatusCode != 400 || a.code() != 1001 {
			t.Errorf("%s, two keys: %d %s", path, a.StatusCode, a.body)
		}

		// The answer is lost, and the client counts its repeat.
		body = m.body(l, 4+i)
		l.asked.lose.Store(true)
		if a, _ := post(body, http.Header{"X-Stainless-Retry-Count": {"0"}}); a.StatusCode != 503 {
			t.Errorf("%s, a lost answer: %d", path, a.StatusCode)
		}
		counted := http.Header{"X-Stainless-Retry-Count": {"1"}}
		_, id := post(body, counted)
		if id == "" {
			t.Errorf("%s: the repeat has no answer", path)
		}
		again("a counted repeat", body, id, counted)
		l.now.ahead.Store(int64(2 * time.Minute))
		if _, late := post(body, counted); m.twice != (late != "" && late != id) {
			t.Errorf("%s, a counted repeat too late: %q after %q", path, late, id)
		}
	}
}

// TestRepeatOfOthers: the key of one is none of another's.
func TestRepeatOfOthers(t *testing.T) {
	l := newLab(t)
	h := l.rival.header()
	h["Idempotency-Key"] = []string{"one"}
	body := `{"name":"z.example","account":{"id":"` + l.rival.account.String() + `"}}`
	var mine, theirs thing
	l.do("POST", zonesPath, h, body, 200, 0).into(t, &mine)
	h = l.admin.header()
	h["Idempotency-Key"] = []string{"one"}
	l.do("POST", zonesPath, h, body, 200, 0).into(t, &theirs)
	if mine.ID == theirs.ID {
		t.Errorf("both got %s", mine.ID)
	}
}
