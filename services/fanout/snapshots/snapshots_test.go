package snapshots_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"watchword.dev/events/eventstest"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
	"watchword.dev/projections/projector/snapshot"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/fanout/snapshots"
	"watchword.dev/services/internal/web"
)

// people is who may load.
type people struct {
	mu    sync.Mutex
	key   string
	other string // of another enforcer
	why   token.Reason
	// lets is how often the key is good; 0 for always.
	lets, asked int
}

func (p *people) Enforcer(secret string) (verifyindex.EnforcerInfo, token.Reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.why != token.ReasonNone:
		return verifyindex.EnforcerInfo{}, p.why
	case p.other != "" && secret == p.other:
		return verifyindex.EnforcerInfo{ID: eventstest.ID(8)}, token.ReasonNone
	case secret != p.key:
		return verifyindex.EnforcerInfo{}, token.ReasonUnknown
	}
	if p.asked++; p.lets > 0 && p.asked > p.lets {
		return verifyindex.EnforcerInfo{}, token.ReasonRevoked
	}
	return verifyindex.EnforcerInfo{ID: eventstest.ID(7)}, token.ReasonNone
}

func (p *people) refuse(why token.Reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.why = why
}

// node serves snapshots of an index that has applied a story.
type node struct {
	*testing.T
	story   *projectiontest.Story
	index   *verifyindex.Index
	people  *people
	service *snapshots.Service
	server  *httptest.Server
	clock   eventstest.Clock
	dir     string
	stop    context.CancelFunc
	ended   chan error
}

func serve(t *testing.T, change ...func(*snapshots.Config)) *node {
	t.Helper()
	n := &node{T: t, dir: filepath.Join(t.TempDir(), "snapshots"), people: &people{}, ended: make(chan error, 1)}
	secret, err := token.Format{}.Generate(token.KindEnforcer)
	if err != nil {
		t.Fatal(err)
	}
	n.people.key = secret.Reveal()
	if n.index, err = verifyindex.Open(verifyindex.Options{Dir: filepath.Join(t.TempDir(), "index"), MemoryBytes: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	rng := projectiontest.Seed(t)
	n.story = projectiontest.Tell(rng, 80)
	projectiontest.ApplyAll(t, rng, n.index, n.story.Commits)
	if err := os.MkdirAll(filepath.Join(n.dir, "rubbish"), 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := snapshots.Config{
		Index: func() snapshot.Source { return n.index }, Enforcers: n.people, Dir: n.dir,
		Keep: 20 * time.Millisecond, Now: n.clock.Now, Log: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	if n.service, err = snapshots.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	go func() { n.ended <- n.service.Run(ctx) }()
	rt := web.NewRouter(web.Config{Log: slog.New(slog.DiscardHandler)})
	n.service.Routes(rt)
	n.server = httptest.NewServer(rt)
	t.Cleanup(func() {
		stop()
		n.server.Close()
		if err := n.index.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *node) ask(method string, header ...string) *http.Response {
	n.Helper()
	req, err := http.NewRequestWithContext(n.Context(), method, n.server.URL+snapshots.Path, nil)
	if err != nil {
		n.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+n.people.key)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { resp.Body.Close() })
	return resp
}

func (n *node) get(status int, header ...string) ([]byte, *http.Response) {
	n.Helper()
	resp := n.ask(http.MethodGet, header...)
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		n.Fatalf("%d with %d bytes, %v; want %d", resp.StatusCode, len(b), err, status)
	}
	return b, resp
}

// TestLoads: what comes loads, and is the index.
func TestLoads(t *testing.T) {
	n := serve(t)
	b, resp := n.get(200)
	for name, want := range map[string]string{
		"Content-Type": snapshot.ContentType, "Cache-Control": "no-store", "Content-Length": strconv.Itoa(len(b)),
		"Watchword-Sequence": fmt.Sprint(n.story.At.Seq), "Accept-Ranges": "bytes",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	dir := t.TempDir()
	m, err := snapshot.Load(bytes.NewReader(b), dir, verifyindex.Name, verifyindex.Version)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Get("Etag") != `"`+m.Digest+`"` {
		t.Errorf("etag %s of %s", resp.Header.Get("Etag"), m.Digest)
	}
	x, err := verifyindex.Open(verifyindex.Options{Dir: dir, MemoryBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if x.Position() != n.index.Position() || x.Stats().Tokens != n.index.Stats().Tokens {
		t.Errorf("at %+v with %+v", x.Position(), x.Stats())
	}
	head := n.ask(http.MethodHead)
	if head.StatusCode != 200 || head.ContentLength != int64(len(b)) || head.Header.Get("Etag") != resp.Header.Get("Etag") {
		t.Errorf("HEAD: %d, %v", head.StatusCode, head.Header)
	}
}

// TestResumes: the rest of what was begun, as long as it is held, although the
// index has gone on and others get a newer one.
func TestResumes(t *testing.T) {
	n := serve(t, func(c *snapshots.Config) { c.Keep = time.Hour })
	all, resp := n.get(200)
	tag := resp.Header.Get("Etag")
	s := n.story.Step()
	if err := n.index.Apply(n.story.Commits[s.Seq-1:]); err != nil {
		t.Fatal(err)
	}
	if b, _ := n.get(200); !bytes.Equal(b, all) {
		t.Error("a fresh snapshot was not shared")
	}
	n.clock.Advance(time.Minute)
	newer, resp := n.get(200)
	if resp.Header.Get("Etag") == tag || resp.Header.Get("Watchword-Sequence") != fmt.Sprint(s.Seq) {
		t.Errorf("an old snapshot: %v", resp.Header)
	}
	for _, from := range []int{1, 100, len(all) / 2, len(all) - 1} {
		b, resp := n.get(206, "If-Range", tag, "Range", fmt.Sprintf("bytes=%d-", from))
		if !bytes.Equal(b, all[from:]) || resp.Header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", from, len(all)-1, len(all)) {
			t.Errorf("from %d: %d bytes, %v", from, len(b), resp.Header)
		}
	}
	for _, r := range []string{"", "bytes=0-", "bytes=-5", "bytes=5-9", "bytes=1-,3-", fmt.Sprintf("bytes=%d-", len(all)), "bytes=99999999999999999999-", "x"} {
		if b, _ := n.get(200, "If-Range", tag, "Range", r); !bytes.Equal(b, all) {
			t.Errorf("%q: %d bytes", r, len(b))
		}
	}
	for _, other := range []string{`"x"`, "W/" + tag, ""} {
		if b, _ := n.get(200, "If-Range", other, "Range", "bytes=5-"); !bytes.Equal(b, newer) {
			t.Errorf("%q: %d bytes", other, len(b))
		}
	}
}

// TestSwept: what nobody reads is removed, and everything at the end.
func TestSwept(t *testing.T) {
	n := serve(t)
	n.get(200)
	if left := n.left(); len(left) != 1 {
		t.Fatalf("%v", left)
	}
	n.clock.Advance(time.Hour)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(n.left()) > 0 {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("it is never removed")
		}
	}
	n.get(200)
	n.stop()
	if err := <-n.ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := os.Stat(n.dir); !os.IsNotExist(err) {
		t.Errorf("%v", n.left())
	}
	if resp := n.ask(http.MethodGet); resp.StatusCode != 503 {
		t.Errorf("after the end: %d", resp.StatusCode)
	}
}

func (n *node) left() []string {
	n.Helper()
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		n.Fatal(err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

func TestRefused(t *testing.T) {
	n := serve(t)
	for _, c := range []struct {
		why    token.Reason
		status int
	}{{token.ReasonRevoked, 401}, {token.ReasonUnknown, 401}, {token.ReasonMalformed, 401}, {token.ReasonStale, 503}, {token.ReasonNotReady, 503}} {
		n.people.refuse(c.why)
		n.get(c.status)
	}
	n.people.refuse(token.ReasonNone)
	n.get(401, "Authorization", "")
	n.get(401, "Authorization", "Bearer x")
	if left := n.left(); len(left) != 0 {
		t.Errorf("snapshots were taken: %v", left)
	}
	resp, err := http.Get(n.server.URL + snapshots.Path + "?x=1")
	if err != nil || resp.StatusCode != 401 {
		t.Error(resp, err)
	}
	resp.Body.Close()
}

// TestEmpty: there is no snapshot of an index that has applied nothing.
func TestEmpty(t *testing.T) {
	x, err := verifyindex.Open(verifyindex.Options{Dir: filepath.Join(t.TempDir(), "index"), MemoryBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	n := serve(t, func(c *snapshots.Config) { c.Index = func() snapshot.Source { return x } })
	n.get(503)
	if left := n.left(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestRetiredMeanwhile: whoever is retired gets no more of it.
func TestRetiredMeanwhile(t *testing.T) {
	n := serve(t)
	n.people.lets = 1
	resp := n.ask(http.MethodGet)
	if b, err := io.ReadAll(resp.Body); resp.StatusCode != 200 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d, %d bytes of %d, %v", resp.StatusCode, len(b), resp.ContentLength, err)
	}
}

// held is an index of which a snapshot takes as long as one likes.
type held struct {
	snapshot.Source
	taking, proceed chan struct{}
}

func (h held) Snapshot(dir string) error {
	h.taking <- struct{}{}
	<-h.proceed
	return h.Source.Snapshot(dir)
}

// TestFull: no more clients at a time than there may be, nor of one enforcer than
// leaves places to others; and for those who wait for the same snapshot one is
// taken.
func TestFull(t *testing.T) {
	h := held{taking: make(chan struct{}, 9), proceed: make(chan struct{})}
	n := serve(t, func(c *snapshots.Config) {
		of := c.Index
		c.MaxLoads, c.Index = 2, func() snapshot.Source { return held{of(), h.taking, h.proceed} }
	})
	secret, err := token.Format{}.Generate(token.KindEnforcer)
	if err != nil {
		t.Fatal(err)
	}
	n.people.other = secret.Reveal()
	var both sync.WaitGroup
	for _, key := range []string{n.people.key, n.people.other} {
		both.Go(func() {
			if resp := n.ask(http.MethodGet, "Authorization", "Bearer "+key); resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	<-h.taking
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n.service.Loads() < 2 { // one of each
		<-tick.C
	}
	if _, resp := n.get(503); resp.Header.Get("Retry-After") != "2" {
		t.Errorf("%v", resp.Header)
	}
	close(h.proceed)
	both.Wait()
	if len(h.taking) != 0 || len(n.left()) != 1 {
		t.Errorf("%d more were taken, %v", len(h.taking), n.left())
	}
}

// TestShare: whoever has the key of one enforcer cannot take the places of all.
func TestShare(t *testing.T) {
	h := held{taking: make(chan struct{}, 9), proceed: make(chan struct{})}
	n := serve(t, func(c *snapshots.Config) {
		of := c.Index
		c.MaxLoads, c.Index = 2, func() snapshot.Source { return held{of(), h.taking, h.proceed} }
	})
	var first sync.WaitGroup
	first.Go(func() {
		if resp := n.ask(http.MethodGet); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
	<-h.taking
	if resp := n.ask(http.MethodHead); resp.StatusCode != 503 {
		t.Errorf("a second one of the same: status %d", resp.StatusCode)
	}
	close(h.proceed)
	first.Wait()
}
