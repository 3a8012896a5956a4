package enforcer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
)

// stored keeps receipts, unless it is told to fail.
type stored struct {
	mu   sync.Mutex
	all  []receipt.Receipt
	fail bool
}

var signer = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

func (s *stored) Publish(_ context.Context, subject string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := receipt.Open(data, signer.Public().(ed25519.PublicKey))
	if err != nil || r.Subject() != subject {
		return fmt.Errorf("on %s: %w", subject, err)
	}
	if s.fail {
		return errors.New("not now")
	}
	s.all = append(s.all, r)
	return nil
}

func (s *stored) set(fail bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

func (s *stored) last() receipt.Receipt {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return receipt.Receipt{}
	}
	return s.all[len(s.all)-1]
}

// generous is a source that allows everything, and counts.
type generous struct{ asked atomic.Int64 }

func (s *generous) VerifyAtLeast(_ context.Context, seq uint64, _ string, _ *token.Request) token.Decision {
	s.asked.Add(1)
	return token.Decision{Verdict: token.VerdictAllow, Token: someToken, Owner: someOwner, OwnerKind: token.OwnerUser, Sequence: seq, Bound: 5 * time.Minute}
}

// memoryFeed is a ledger in memory that knows where it ends.
type memoryFeed struct {
	*eventstest.Log
	ledger *eventstest.Ledger
}

func (f memoryFeed) Newest(context.Context) (events.Position, error) {
	all, err := f.ledger.Commits()
	if err != nil || len(all) == 0 {
		return events.Position{}, err
	}
	return all[len(all)-1].End, nil
}

func (f memoryFeed) append(t *testing.T, data events.Event) events.Position {
	t.Helper()
	at, err := f.Newest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	drafts := eventstest.Drafts(int(at.Number)+1, 1)
	drafts[0].Data = data
	drafts[0].Subject = "token/" + someToken.String()
	if at.Seq == 0 {
		drafts[0].Subject = "account/" + someToken.String()
	}
	payload, c, err := events.Compose(at, drafts)
	if err == nil {
		err = f.Append(t.Context(), at, c.Subject, payload)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c.End
}

// TestReporting: a cache gives nothing before its hello, nothing when it is not
// counted any more, and its receipts say what it has dropped.
func TestReporting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := eventstest.NewLedger()
		feed := memoryFeed{ledger.Connect(), ledger}
		at := feed.append(t, &events.AccountCreated{Name: "a"})
		box, source := &stored{fail: true}, &generous{}
		r, err := receipt.NewReporter(receipt.Config{Enforcer: eventstest.ID(3), Key: signer, Publisher: box, Bound: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		cache, err := NewCache(CacheConfig{Source: source, Reports: r})
		if err != nil {
			t.Fatal(err)
		}
		pulse := func() {
			cache.Observe(events.Pulse{Term: 1, Epoch: at.Epoch, Sequence: at.Seq, Number: at.Number, Chain: at.Hash.String(), Time: time.Now()}, time.Now())
		}
		asks := func(want int64) {
			t.Helper()
			before := source.asked.Load()
			for range 3 {
				if d := cache.Verify(good, aQuestion); d.Verdict != token.VerdictAllow {
					t.Errorf("%+v", d)
				}
			}
			if got := source.asked.Load() - before; got != want {
				t.Errorf("asked %d times, want %d", got, want)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- FollowReporting(ctx, feed, r, cache) }()
		time.Sleep(10 * time.Second)
		pulse()
		asks(3) // nobody knows of us
		box.set(false)
		time.Sleep(20 * time.Second)
		pulse()
		asks(1)
		if got := box.last(); got.Sequence != at.Seq || got.Head != at.Hash || got.Kind == receipt.Hello {
			t.Errorf("receipt %+v", got)
		}
		at = feed.append(t, &events.TokenRevoked{})
		synctest.Wait()
		if got := box.last(); got.Kind != receipt.Revocation || got.Sequence != at.Seq || got.Head != at.Hash {
			t.Errorf("receipt %+v", got)
		}
		pulse()
		asks(1) // it was dropped
		box.set(true)
		time.Sleep(receipt.Lease + time.Minute + time.Second)
		pulse()
		asks(3) // nobody waits for us any more
		box.set(false)
		time.Sleep(10 * time.Second)
		pulse()
		asks(0)
		time.Sleep(61 * time.Second)
		asks(3) // older than what the receipts promise, although not than the decision's own bound
		pulse()
		asks(0)
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if got := box.last(); got.Kind != receipt.Bye || got.Sequence != at.Seq {
			t.Errorf("receipt %+v", got)
		}
		asks(3)
	})
}

func TestPublishOverHTTP(t *testing.T) {
	bad, _ := verifierOf(t, 503, "")
	s, last := verifierOf(t, 200, `{"stored":true}`)
	c := newClient(t, bad.URL, s.URL)
	if err := c.Publish(t.Context(), "ww.receipt.x.y", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(last.Body)
	if err != nil || string(b) != "{}" || last.URL.Path != "/v1/receipts" || last.Method != "POST" || last.Header.Get("Authorization") != "Bearer "+aKey || last.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%+v %s %v", last, b, err)
	}
	for _, status := range []int{201, 302, 400, 401, 500} {
		s, _ := verifierOf(t, status, "")
		if err := newClient(t, s.URL).Publish(t.Context(), "x", nil); err == nil {
			t.Errorf("%d is taken for stored", status)
		}
	}
}

// library serves one snapshot and breaks off after some bytes each time.
type library struct {
	t       *testing.T
	content []byte

	mu     sync.Mutex
	tag    string
	breaks int // so many answers break off
	status int
}

func (l *library) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	status, tag, breaks := l.status, l.tag, l.breaks
	l.breaks = max(breaks-1, 0)
	l.mu.Unlock()
	if r.URL.Path != "/v1/snapshot" || r.Header.Get("Authorization") != "Bearer "+aKey {
		l.t.Errorf("%s %v", r.URL, r.Header)
	}
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Etag", tag)
	if breaks == 0 {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(l.content))
		return
	}
	http.ServeContent(&breaking{ResponseWriter: w, left: 1000}, r, "", time.Time{}, bytes.NewReader(l.content))
}

type breaking struct {
	http.ResponseWriter
	left int
}

func (b *breaking) Write(p []byte) (int, error) {
	if len(p) > b.left {
		b.ResponseWriter.Write(p[:b.left])
		http.NewResponseController(b.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	b.left -= len(p)
	return b.ResponseWriter.Write(p)
}

func TestSnapshotResumes(t *testing.T) {
	content := make([]byte, 5000)
	rand.Read(content)
	for _, c := range []struct {
		name string
		l    *library
		then func(*library)
		want string
	}{
		{"whole", &library{}, nil, ""},
		{"broken off", &library{breaks: 2}, nil, ""},
		{"another one meanwhile", &library{breaks: 1}, func(l *library) { l.tag = `"b"` }, "it has another snapshot"},
		{"gone", &library{breaks: 1}, func(l *library) { l.status = 404 }, "answered 404"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.l.t, c.l.tag, c.l.content = t, `"a"`, content
			s := httptest.NewServer(c.l)
			defer s.Close()
			refuses, _ := verifierOf(t, 503, "")
			in, err := newClient(t, refuses.URL, s.URL).Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			var got []byte
			first := make([]byte, 500)
			n, err := io.ReadFull(in, first)
			if got = first[:n]; err == nil {
				if c.then != nil {
					c.l.mu.Lock()
					c.then(c.l)
					c.l.mu.Unlock()
				}
				var rest []byte
				rest, err = io.ReadAll(in)
				got = append(got, rest...)
			}
			if c.want == "" && (err != nil || !bytes.Equal(got, content)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if c.want != "" && (err == nil || !bytes.Contains([]byte(err.Error()), []byte(c.want))) {
				t.Errorf("%d bytes, %v; want %s", len(got), err, c.want)
			}
		})
	}
	if _, err := newClient(t, func() string { s, _ := verifierOf(t, 401, ""); return s.URL }()).Snapshot(t.Context()); err == nil {
		t.Error("a refusal is taken for a snapshot")
	}
}
