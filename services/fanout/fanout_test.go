package fanout_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/feed/sse"
	"watchword.dev/events/token"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/fanout"
	"watchword.dev/services/internal/web"
)

var pulseKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// ledger is a ledger in memory that knows where its commits end.
type ledger struct {
	eventstest.Conn
	store *eventstest.Ledger
}

func (l ledger) PositionAt(_ context.Context, seq uint64) (events.Position, error) {
	if seq == 0 {
		return events.Position{}, nil
	}
	all, err := l.store.Commits()
	if err != nil || seq > uint64(len(all)) {
		return events.Position{}, errors.Join(events.ErrRewind, err)
	}
	return all[seq-1].End, nil
}

// people is who may follow.
type people struct {
	mu   sync.Mutex
	keys map[string]token.ID
	why  map[string]token.Reason
}

func (p *people) Enforcer(secret string) (verifyindex.EnforcerInfo, token.Reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if why := p.why[secret]; why != token.ReasonNone {
		return verifyindex.EnforcerInfo{}, why
	}
	id, ok := p.keys[secret]
	if !ok {
		return verifyindex.EnforcerInfo{}, token.ReasonUnknown
	}
	return verifyindex.EnforcerInfo{ID: id}, token.ReasonNone
}

func (p *people) Wait(context.Context, uint64) error { return nil }

func (p *people) refuse(secret string, why token.Reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.why[secret] = why
}

// node serves the feed of a ledger in memory.
type node struct {
	*testing.T
	store  *eventstest.Ledger
	log    *eventstest.Log
	at     events.Position
	people *people
	key    string
	owner  token.ID
	feed   *fanout.Service
	server *httptest.Server
}

func serve(t *testing.T, change ...func(*fanout.Config)) *node {
	t.Helper()
	n := &node{T: t, store: eventstest.NewLedger(), owner: eventstest.ID(7)}
	n.log = n.store.Connect()
	secret, err := token.Format{}.Generate(token.KindEnforcer)
	if err != nil {
		t.Fatal(err)
	}
	n.key = secret.Reveal()
	n.people = &people{keys: map[string]token.ID{n.key: n.owner}, why: map[string]token.Reason{}}
	cfg := fanout.Config{
		Ledger: ledger{n.store.Connect(), n.store}, Enforcers: n.people, PulseKey: pulseKey.Public().(ed25519.PublicKey),
		Log: slog.New(slog.DiscardHandler), Beat: 20 * time.Millisecond,
	}
	for _, f := range change {
		f(&cfg)
	}
	if n.feed, err = fanout.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := n.feed.Run(ctx); ctx.Err() == nil && !errors.Is(err, events.ErrRewind) {
			t.Errorf("run: %v", err)
		}
	})
	rt := web.NewRouter(web.Config{Log: slog.New(slog.DiscardHandler)})
	n.feed.Routes(rt)
	n.server = httptest.NewServer(rt)
	t.Cleanup(func() {
		cancel()
		running.Wait()
		n.server.Close()
	})
	return n
}

func (n *node) reader(change ...func(*sse.Config)) *sse.Reader {
	n.Helper()
	cfg := sse.Config{URL: n.server.URL, Key: n.key, Silence: 10 * time.Second}
	for _, f := range change {
		f(&cfg)
	}
	r, err := sse.New(cfg)
	if err != nil {
		n.Fatal(err)
	}
	return r
}

// append appends commits and returns where each ends.
func (n *node) append(data ...events.Event) []events.Position {
	n.Helper()
	var ends []events.Position
	for _, d := range data {
		drafts := eventstest.Drafts(int(n.at.Number)+1, 1)
		drafts[0].Data = d
		if _, of := d.(*events.EnforcerRetired); of {
			drafts[0].Subject = "enforcer/" + n.owner.String()
		}
		payload, c, err := events.Compose(n.at, drafts)
		if err != nil {
			n.Fatal(err)
		}
		if err := n.log.Append(n.Context(), n.at, c.Subject, payload); err != nil {
			n.Fatal(err)
		}
		n.at = c.End
		ends = append(ends, c.End)
	}
	return ends
}

func (n *node) accounts(count int) []events.Position {
	n.Helper()
	data := make([]events.Event, count)
	for i := range data {
		data[i] = &events.AccountCreated{Name: strings.Repeat("x", 100)}
	}
	return n.append(data...)
}

func (n *node) pulse(at events.Position) {
	n.Helper()
	b, err := events.Pulse{Term: 1, Epoch: at.Epoch, Sequence: at.Seq, Number: at.Number, Chain: hex.EncodeToString(at.Hash[:]), Time: time.Now()}.Sign(pulseKey)
	if err != nil {
		n.Fatal(err)
	}
	n.feed.Pulse(b)
}

// get sends a request and returns the answer, whose body ends with the test.
func (n *node) get(query string, header http.Header) *http.Response {
	n.Helper()
	req, err := http.NewRequestWithContext(n.Context(), "GET", n.server.URL+sse.Path+query, nil)
	if err != nil {
		n.Fatal(err)
	}
	if header == nil {
		header = http.Header{"Authorization": {"Bearer " + n.key}}
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { resp.Body.Close() })
	return resp
}

// want reads from r until it has ends, and no others.
func want(t *testing.T, r events.Reader, at events.Position, ends ...events.Position) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	enough, n := errors.New("enough"), 0
	err := r.Read(ctx, at, func(c events.Commit) error {
		if c.End != ends[n] {
			return fmt.Errorf("read %+v, want %+v", c.End, ends[n])
		}
		if n++; n == len(ends) {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("read: %v", err)
	}
}

// TestConformance holds client and server together against the promises of a
// reader, once with a ring that is too small for anything.
func TestConformance(t *testing.T) {
	for _, ring := range []int{0, 1} {
		t.Run(fmt.Sprint("ring ", ring), func(t *testing.T) {
			eventstest.TestReader(t, func(t *testing.T) (eventstest.Conn, func() events.Reader) {
				n := serve(t, func(c *fanout.Config) { c.RingCommits = ring })
				return n.log, func() events.Reader { return n.reader() }
			})
		})
	}
}

// TestBytes: what is sent are the stored bytes, with what a reader needs to go
// on by itself.
func TestBytes(t *testing.T) {
	n := serve(t, func(c *fanout.Config) { c.Beat = time.Hour })
	ends := n.accounts(3)
	for _, c := range []struct {
		query, last string
		from        uint64
	}{
		{"?follow=false", "", 3}, {"?after=head&follow=false", "", 3}, {"?after=0&follow=false", "", 0},
		{"?after=1-2&follow=false", "", 2}, {"?after=2&follow=false", "", 2}, {"?after=0&follow=false", "1-1", 1},
	} {
		h := http.Header{"Authorization": {"Bearer " + n.key}}
		if c.last != "" {
			h["Last-Event-Id"] = []string{c.last}
		}
		resp := n.get(c.query, h)
		for name, want := range map[string]string{"Content-Type": sse.ContentType, "Cache-Control": "no-store", "X-Accel-Buffering": "no"} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		at := events.Position{}
		if c.from > 0 {
			at = ends[c.from-1]
		}
		want, err := sse.AppendPlace(nil, sse.PlaceOf(at, 3, pulseKey.Public().(ed25519.PublicKey)))
		if err != nil {
			t.Fatal(err)
		}
		for seq := c.from + 1; seq <= 3; seq++ {
			_, payload := n.store.Payload(seq)
			want = fmt.Appendf(want, "id: 1-%d\ndata: %s\n\n", seq, strings.ReplaceAll(string(payload), "\n", "\ndata: "))
		}
		if string(body) != string(want) {
			t.Errorf("%s %s:\n%s\nwant\n%s", c.query, c.last, body, want)
		}
	}
}

func TestRefused(t *testing.T) {
	n := serve(t)
	n.accounts(2)
	bearer := func(s string) http.Header { return http.Header{"Authorization": {"Bearer " + s}} }
	with := func(name, value string) http.Header {
		h := bearer(n.key)
		h[name] = []string{value}
		return h
	}
	generate := func(k token.Kind) string {
		s, err := token.Format{}.Generate(k)
		if err != nil {
			t.Fatal(err)
		}
		return s.Reveal()
	}
	for _, c := range []struct {
		name, query string
		header      http.Header
		status      int
	}{
		{"nobody", "", http.Header{}, 401},
		{"a key in the query", "?key=" + n.key, http.Header{}, 401},
		{"an unknown enforcer", "", bearer(generate(token.KindEnforcer)), 401},
		{"a user's token", "", bearer(generate(token.KindUser)), 401},
		{"an account's token", "", bearer(generate(token.KindAccount)), 401},
		{"an API key", "", http.Header{"X-Auth-Email": {"a@example.com"}, "X-Auth-Key": {generate(token.KindKey)}}, 401},
		{"another parameter", "?x=1", nil, 400},
		{"twice", "?after=1&after=2", nil, 400},
		{"no id", "?after=x", nil, 400},
		{"a negative one", "?after=-1", nil, 400},
		{"no epoch", "?after=0-1", nil, 400},
		{"no bool", "?follow=maybe", nil, 400},
		{"no last id", "", with("Last-Event-Id", "x"), 400},
		{"ahead", "?after=3", nil, 410},
		{"ahead by the header", "?after=0", with("Last-Event-Id", "1-9"), 410},
		{"another epoch", "?after=2-2", nil, 410},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp := n.get(c.query, c.header)
			body, err := io.ReadAll(resp.Body)
			if resp.StatusCode != c.status || err != nil {
				t.Errorf("status %d, want %d: %s", resp.StatusCode, c.status, body)
			}
		})
	}
	for _, why := range []token.Reason{token.ReasonStale, token.ReasonNotReady} {
		n.people.refuse(n.key, why)
		if resp := n.get("", nil); resp.StatusCode != 503 {
			t.Errorf("%v: status %d", why, resp.StatusCode)
		}
	}
	n.people.refuse(n.key, token.ReasonRevoked)
	err := n.reader().Read(t.Context(), events.Position{}, func(events.Commit) error { return nil })
	if !errors.Is(err, sse.ErrRefused) {
		t.Errorf("read: %v", err)
	}
	if n.feed.Streams() != 0 {
		t.Errorf("%d streams", n.feed.Streams())
	}
}

// TestRetired: a retirement is the last that its owner's streams hear, wherever
// they are; the others go on.
func TestRetired(t *testing.T) {
	n := serve(t, func(c *fanout.Config) { c.MaxCatchUps = 1 })
	other, err := token.Format{}.Generate(token.KindEnforcer)
	if err != nil {
		t.Fatal(err)
	}
	n.people.keys[other.Reveal()] = eventstest.ID(8)
	ends := n.accounts(2)
	heard := make(chan events.Position, 10)
	follow := func(r *sse.Reader) chan error {
		done := make(chan error, 1)
		go func() {
			done <- r.Read(t.Context(), events.Position{}, func(c events.Commit) error {
				heard <- c.End
				return nil
			})
		}()
		for _, want := range ends {
			if got := <-heard; got != want {
				t.Fatalf("heard %+v", got)
			}
		}
		return done
	}
	done := follow(n.reader())
	n.people.refuse(n.key, token.ReasonRevoked)
	ends = append(ends, n.append(&events.EnforcerRetired{})...)
	if got := <-heard; got != ends[2] {
		t.Errorf("heard %+v", got)
	}
	ends = append(ends, n.accounts(1)...)
	if err := <-done; !errors.Is(err, sse.ErrRefused) {
		t.Errorf("read: %v", err)
	}
	select {
	case got := <-heard:
		t.Errorf("heard %+v after the retirement", got)
	default:
	}
	want(t, n.reader(func(c *sse.Config) { c.Key = other.Reveal() }), events.Position{}, ends...)
}

// TestRetiredBetween: an index that hears of the retirement only while the
// stream is let in makes no difference.
func TestRetiredBetween(t *testing.T) {
	n := serve(t)
	n.accounts(1)
	late := &latePeople{people: n.people, key: n.key}
	n.feed.Enforcers = late
	if resp := n.get("", nil); resp.StatusCode != 401 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if n.feed.Streams() != 0 {
		t.Errorf("%d streams", n.feed.Streams())
	}
}

type latePeople struct {
	*people
	key string
}

func (p *latePeople) Wait(context.Context, uint64) error {
	p.refuse(p.key, token.ReasonRevoked)
	return nil
}

// TestSlow: a client that takes nothing is cut, the ring stays small, and the
// client resumes where it was.
func TestSlow(t *testing.T) {
	n := serve(t, func(c *fanout.Config) { c.WriteTimeout, c.RingCommits = 300*time.Millisecond, 8 })
	ends := n.accounts(1)
	hold, began := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, done := make(chan events.Position, 4000), make(chan error, 1)
	small := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if tcp, ok := c.(*net.TCPConn); ok && err == nil {
			err = tcp.SetReadBuffer(128 << 10)
		}
		return c, err
	}}}
	var once sync.Once
	r := n.reader(func(c *sse.Config) { c.Client = small })
	go func() {
		done <- r.Read(ctx, events.Position{}, func(c events.Commit) error {
			once.Do(func() { close(began) })
			<-hold
			got <- c.End
			return nil
		})
	}()
	<-began
	long := make([]events.Event, 150)
	for i := range long {
		long[i] = &events.AccountCreated{Name: strings.Repeat("y", 200<<10)}
	}
	ends = append(ends, n.append(long...)...)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n.feed.Streams() > 0 { // until it is cut
		<-tick.C
	}
	close(hold)
	ends = append(ends, n.accounts(1)...)
	for _, want := range ends {
		select {
		case end := <-got:
			if end != want {
				t.Fatalf("read %+v, want %+v", end, want)
			}
		case err := <-done:
			t.Fatal(err)
		}
	}
}

// TestPulses: pulses come through as they are, and make an age; without any
// there are comments.
func TestPulses(t *testing.T) {
	n := serve(t)
	ends := n.accounts(2)
	lines := bufio.NewScanner(n.get("", nil).Body)
	for lines.Scan() && lines.Text() != ":" {
	}
	heard := make(chan events.Pulse, 10)
	r := n.reader(func(c *sse.Config) {
		c.Pulse = func(p events.Pulse, _ time.Time) { heard <- p }
	})
	got := make(chan events.Position, 10)
	go r.Read(t.Context(), ends[0], func(c events.Commit) error {
		got <- c.End
		return nil
	})
	<-got
	if _, known := r.Age(); known {
		t.Error("an age without a pulse")
	}
	n.pulse(ends[1])
	if p := <-heard; p.Sequence != 2 {
		t.Errorf("heard %+v", p)
	}
	n.pulse(ends[1]) // by now the commit was delivered
	<-heard
	if _, known := r.Age(); !known {
		t.Error("no age after a pulse")
	}
}

// TestOldPulse: whoever comes after the pulses have ended is told none.
func TestOldPulse(t *testing.T) {
	var ahead atomic.Int64
	n := serve(t, func(c *fanout.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	ends := n.accounts(1)
	n.pulse(ends[0])
	ahead.Store(int64(time.Second))
	lines := bufio.NewScanner(n.get("", nil).Body)
	for lines.Scan() && lines.Text() != ":" {
		if lines.Text() == "event: pulse" {
			t.Fatal("an old pulse came")
		}
	}
}

// TestDiverged: a ledger that is not the pen's ends the read.
func TestDiverged(t *testing.T) {
	n := serve(t)
	ends := n.accounts(2)
	got, done := make(chan events.Position, 10), make(chan error, 1)
	go func() {
		done <- n.reader().Read(t.Context(), ends[0], func(c events.Commit) error {
			got <- c.End
			return nil
		})
	}()
	<-got
	wrong := ends[1]
	wrong.Hash[0] ^= 1
	n.pulse(wrong)
	if err := <-done; !errors.Is(err, events.ErrChain) {
		t.Errorf("read: %v", err)
	}
}

// TestFull: more clients than may be are told to come back.
func TestFull(t *testing.T) {
	n := serve(t, func(c *fanout.Config) { c.MaxStreams = 1 })
	n.accounts(1)
	first := n.get("?after=0", nil)
	if _, err := first.Body.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	second := n.get("", nil)
	if second.StatusCode != 503 || second.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q", second.StatusCode, second.Header.Get("Retry-After"))
	}
}

// another enrolls another enforcer and returns its key.
func (n *node) another() string {
	n.Helper()
	secret, err := token.Format{}.Generate(token.KindEnforcer)
	if err != nil {
		n.Fatal(err)
	}
	n.people.mu.Lock()
	defer n.people.mu.Unlock()
	n.people.keys[secret.Reveal()] = eventstest.ID(8)
	return secret.Reveal()
}

// TestShare: who has the key of one enforcer cannot take the places of all others,
// neither by many streams nor by some that are behind and take nothing.
func TestShare(t *testing.T) {
	t.Run("streams", func(t *testing.T) {
		n := serve(t, func(c *fanout.Config) { c.MaxStreams = 4 })
		n.accounts(1)
		other := n.another()
		for i, want := range []int{200, 200, 503} {
			resp := n.get("?after=0", nil)
			if resp.StatusCode != want {
				t.Errorf("stream %d: status %d, want %d", i, resp.StatusCode, want)
			}
		}
		if resp := n.get("?after=0", http.Header{"Authorization": {"Bearer " + other}}); resp.StatusCode != 200 {
			t.Errorf("another one: status %d", resp.StatusCode)
		}
	})
	t.Run("behind", func(t *testing.T) {
		n := serve(t, func(c *fanout.Config) { c.MaxCatchUps, c.RingCommits, c.WriteTimeout = 2, 1, time.Minute })
		other := n.another()
		long := make([]events.Event, 150)
		for i := range long {
			long[i] = &events.AccountCreated{Name: strings.Repeat("y", 200<<10)}
		}
		ends := n.append(long...)
		for range 4 {
			if _, err := n.get("?after=0", nil).Body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		want(t, n.reader(func(c *sse.Config) { c.Key = other }), events.Position{}, ends...)
	})
}

// TestClose ends the streams, so that a server can drain; and a ledger that was
// rewound under the service ends them, too.
func TestClose(t *testing.T) {
	for _, how := range []string{"close", "rewind"} {
		t.Run(how, func(t *testing.T) {
			n := serve(t)
			n.accounts(3)
			body := n.get("?after=0", nil).Body
			if _, err := body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if how == "close" {
				n.feed.Close()
			} else {
				n.store.Truncate(1)
			}
			if _, err := io.Copy(io.Discard, body); err != nil {
				t.Errorf("it was not ended but broken: %v", err)
			}
			if resp := n.get("", nil); resp.StatusCode != 503 {
				t.Errorf("then: status %d", resp.StatusCode)
			}
			if err := n.feed.Err(); (err != nil) != (how == "rewind") {
				t.Errorf("err: %v", err)
			}
		})
	}
}

// TestCut breaks the client's connections again and again.
func TestCut(t *testing.T) {
	n := serve(t, func(c *fanout.Config) { c.RingCommits = 16 })
	ends := n.accounts(200)
	r := n.reader()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	enough, i := errors.New("enough"), 0
	err := r.Read(ctx, events.Position{}, func(c events.Commit) error {
		if c.End != ends[i] {
			return fmt.Errorf("read %+v, want %+v", c.End, ends[i])
		}
		if i++; i%60 == 0 {
			n.server.CloseClientConnections()
		}
		if i == len(ends) {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}
