package sse_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/feed/sse"
)

// commit composes the n-th commit after at, and returns its event and its end.
func commit(t *testing.T, at events.Position) (string, events.Position) {
	t.Helper()
	_, c, err := events.Compose(at, eventstest.Drafts(int(at.Number)+1, 2))
	if err != nil {
		t.Fatal(err)
	}
	return string(sse.AppendCommit(nil, &c)), c.End
}

func begin(t *testing.T, at events.Position) string {
	t.Helper()
	b, err := sse.AppendPlace(nil, sse.PlaceOf(at, 10, nil))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// lying is a node that gives the answers, one for each request, and then 401.
func lying(t *testing.T, answers ...string) *sse.Reader {
	t.Helper()
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n == len(answers) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", sse.ContentType)
		fmt.Fprint(w, answers[n])
		n++
	}))
	t.Cleanup(s.Close)
	r, err := sse.New(sse.Config{URL: s.URL, Key: "key"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestLyingNode: what is lost or repeated on the way is asked for anew, and what
// does not follow ends the read; neither is ever delivered.
func TestLyingNode(t *testing.T) {
	var zero events.Position
	one, at1 := commit(t, zero)
	two, at2 := commit(t, at1)
	start := begin(t, zero)
	other := at1
	other.Hash[0] ^= 1
	wrong, _ := commit(t, other)
	number := at1
	number.Number += 3
	hole, _ := commit(t, number)
	epoch := at1
	epoch.Epoch = 2
	unopened, _ := commit(t, epoch)
	for _, c := range []struct {
		name    string
		answers []string
		seqs    string // that are delivered
		want    error
	}{
		{"nothing wrong", []string{start + one + two}, "1 2", sse.ErrRefused},
		{"a gap", []string{start + two, start + one + two}, "1 2", sse.ErrRefused},
		{"repeated", []string{start + one + one, begin(t, at1) + two}, "1 2", sse.ErrRefused},
		{"cut within an event", []string{start + one + two[:len(two)/2], begin(t, at1) + two}, "1 2", sse.ErrRefused},
		{"cut before the last line end", []string{start + one[:len(one)-1], start + one}, "1", sse.ErrRefused},
		{"no position", []string{one + two, start + one}, "1", sse.ErrRefused},
		{"two positions", []string{start + start + one, start + one}, "1", sse.ErrRefused},
		{"another position", []string{begin(t, at1) + two, start + one}, "1", sse.ErrRefused},
		{"another name", []string{start + "event: x\n" + one, start + one}, "1", sse.ErrRefused},
		{"comments and unknown fields", []string{":\n\n:x\n\nretry: 5\n\n" + start + ":\n\n" + one}, "1", sse.ErrRefused},
		{"no pulse", []string{start + "event: pulse\ndata: {}\n\n" + one}, "1", sse.ErrRefused},
		{"garbage", []string{start + "id: 1-1\ndata: {}\n\n"}, "", events.ErrMalformed},
		{"another chain", []string{start + one + wrong}, "1", events.ErrChain},
		{"a hole", []string{start + one + hole}, "1", events.ErrGap},
		{"an epoch that was never opened", []string{start + one + unopened}, "1", events.ErrEpoch},
		{"replaced", []string{start + one, begin(t, other) + two}, "1", events.ErrChain},
		{"replaced by another epoch", []string{start + one, begin(t, epoch) + two}, "1", events.ErrEpoch},
		{"endless", []string{start + "data: " + strings.Repeat("x", events.MaxCommit+100), start + one}, "1", sse.ErrRefused},
		{"many lines", []string{start + "id: 1-1\n" + strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 1000) + "\n", start + one}, "1", sse.ErrRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var got []string
			err := lying(t, c.answers...).Read(ctx, zero, func(c events.Commit) error {
				if c.End != at1 && c.End != at2 || c.Subject != "ww.event.account.created" {
					t.Errorf("delivered %+v on %s", c.End, c.Subject)
				}
				got = append(got, fmt.Sprint(c.Seq))
				return nil
			})
			if !errors.Is(err, c.want) {
				t.Errorf("read: %v, want %v", err, c.want)
			}
			if strings.Join(got, " ") != c.seqs {
				t.Errorf("delivered %v, want %s", got, c.seqs)
			}
		})
	}
}

// TestNoFeed: what is no feed is an error at once, and nothing is sent to where
// a redirect points.
func TestNoFeed(t *testing.T) {
	asked := 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer elsewhere.Close()
	for name, answer := range map[string]http.HandlerFunc{
		"HTML":        func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") },
		"not found":   func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
		"a redirect":  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"a bad query": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadRequest) },
	} {
		s := httptest.NewServer(answer)
		r, err := sse.New(sse.Config{URL: s.URL, Key: "key"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err = r.Read(ctx, events.Position{}, func(events.Commit) error { return nil })
		if err == nil || ctx.Err() != nil || strings.Contains(err.Error(), "key") {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		s.Close()
	}
	if asked > 0 {
		t.Error("the redirect was followed")
	}
	for _, url := range []string{"", "x", "ftp://x", "http://", "http://u:p@x", "http://x?y=z"} {
		if _, err := sse.New(sse.Config{URL: url, Key: "key"}); err == nil {
			t.Errorf("%q passes for the URL of a node", url)
		}
	}
}

// TestSilence: an answer that says nothing any more is left, and one that does
// not begin is, too.
func TestSilence(t *testing.T) {
	one, at1 := commit(t, events.Position{})
	two, _ := commit(t, at1)
	requests := make(chan string, 10)
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r.Header.Get("Last-Event-Id")
		n++
		if n > 1 {
			w.Header().Set("Content-Type", sse.ContentType)
		}
		switch n {
		case 1: // nothing at all
			<-r.Context().Done()
			return
		case 2:
			fmt.Fprint(w, begin(t, events.Position{})+one)
		case 3:
			fmt.Fprint(w, begin(t, at1)+two)
			return
		case 4:
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer s.Close()
	r, err := sse.New(sse.Config{URL: s.URL, Key: "key", Silence: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	seqs := 0
	err = r.Read(t.Context(), events.Position{}, func(events.Commit) error { seqs++; return nil })
	if !errors.Is(err, sse.ErrRefused) || seqs != 2 {
		t.Errorf("read %d commits: %v", seqs, err)
	}
	for i, want := range []string{"", "", "1-1", "1-2"} {
		select {
		case got := <-requests:
			if got != want {
				t.Errorf("request %d resumes at %q, want %q", i+1, got, want)
			}
		default:
			t.Fatalf("there was no request %d", i+1)
		}
	}
}

func TestID(t *testing.T) {
	for text, want := range map[string]struct {
		epoch uint32
		seq   uint64
	}{"0": {0, 0}, "17": {0, 17}, "3-17": {3, 17}, "0-0": {0, 0}, "1-0": {1, 0}} {
		epoch, seq, err := sse.ParseID(text)
		if err != nil || epoch != want.epoch || seq != want.seq {
			t.Errorf("%q: %d, %d, %v", text, epoch, seq, err)
		}
	}
	for _, text := range []string{"", "-", "x", "-1", "1-", "0-1", "1-x", "1-2-3", "+1", " 1", "99999999999999999999", "4294967296-1"} {
		if _, _, err := sse.ParseID(text); !errors.Is(err, sse.ErrID) {
			t.Errorf("%q passes for an id: %v", text, err)
		}
	}
}
