package receipt_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
)

// sent is a receipt as the stream got it.
type sent struct {
	receipt.Receipt
	after time.Duration // since the post office opened
}

// post is a publisher that opens each receipt and keeps it.
type post struct {
	t      *testing.T
	opened time.Time
	takes  time.Duration // how long one publish lasts

	mu    sync.Mutex
	fails int // the next publishes that fail
	got   []sent
	last  time.Time
}

func (p *post) Publish(ctx context.Context, subject string, data []byte) error {
	r, err := receipt.Open(data, publicOf(7))
	if err != nil || r.Subject() != subject {
		p.t.Errorf("on %s: %s: %v", subject, data, err)
	}
	if p.takes > 0 {
		select {
		case <-time.After(p.takes):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !r.SentAt.After(p.last) {
		p.t.Errorf("sent at %v after one at %v", r.SentAt, p.last)
	}
	p.last = r.SentAt
	if p.fails > 0 {
		p.fails--
		return errors.New("no answer")
	}
	p.got = append(p.got, sent{r, time.Since(p.opened)})
	return nil
}

// since returns what was stored after the first n.
func (p *post) since(n int) []sent {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got[n:len(p.got):len(p.got)]
}

func at(seq uint64) events.Position {
	return events.Position{Seq: seq, Number: 2 * seq, Epoch: 1, Hash: events.HashLine([]byte{byte(seq)})}
}

// reporting starts a reporter in a bubble; stop ends it and returns what Run did.
func reporting(t *testing.T, p *post) (r *receipt.Reporter, stop func() error) {
	t.Helper()
	p.t, p.opened = t, time.Now()
	r, err := receipt.NewReporter(receipt.Config{
		Enforcer: eventstest.ID(9), Key: keyOf(7), Publisher: p, Region: "eu", Bound: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	synctest.Wait()
	return r, func() error { cancel(); return <-ended }
}

func TestReporter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{}
		r, stop := reporting(t, p)
		got := p.since(0)
		if len(got) != 1 || got[0].Kind != receipt.Hello || got[0].Sequence != 0 || got[0].Instance != r.Instance() ||
			got[0].Bound != 10*time.Second || got[0].Region != "eu" || got[0].Reader != receipt.ReaderVersion {
			t.Fatalf("hello: %+v", got)
		}
		// A revocation at once, with its own time and place.
		time.Sleep(300 * time.Millisecond)
		r.Applied(at(1), true)
		synctest.Wait()
		got = p.since(1)
		if len(got) != 1 || got[0].Kind != receipt.Revocation || got[0].Sequence != 1 || got[0].Number != 2 || got[0].Head != at(1).Hash ||
			got[0].Epoch != 1 || got[0].after != 300*time.Millisecond || !got[0].AppliedAt.Equal(p.opened.Add(got[0].after)) {
			t.Fatalf("revocation: %+v", got)
		}
		// Anything else within a second, and then once.
		r.Applied(at(2), false)
		r.Applied(at(3), false)
		synctest.Wait()
		if got = p.since(2); len(got) != 0 {
			t.Errorf("too early: %+v", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got = p.since(2); len(got) != 1 || got[0].Kind != receipt.Progress || got[0].Sequence != 3 || !got[0].AppliedAt.Equal(p.opened.Add(300*time.Millisecond)) {
			t.Errorf("progress: %+v", got)
		}
		// Its lease every ten seconds, while nothing moves.
		time.Sleep(35 * time.Second)
		synctest.Wait()
		if got = p.since(3); len(got) != 3 || got[2].Sequence != 3 || got[2].after-got[1].after != 10*time.Second {
			t.Errorf("lease: %+v", got)
		}
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		if got = p.since(6); len(got) != 1 || got[0].Kind != receipt.Bye || got[0].Sequence != 3 {
			t.Errorf("bye: %+v", got)
		}
	})
}

// TestReporterGathers: what comes while a receipt is under way is in the next
// one, however much it is.
func TestReporterGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{takes: 50 * time.Millisecond}
		r, stop := reporting(t, p)
		defer stop()
		time.Sleep(60 * time.Millisecond) // hello is through
		synctest.Wait()
		for seq := range uint64(100) {
			r.Applied(at(seq+1), true)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		got := p.since(1)
		if len(got) < 3 || len(got) > 4 {
			t.Fatalf("%d receipts for 100 revocations in 100 ms: %+v", len(got), got)
		}
		for i, g := range got {
			if g.Kind != receipt.Revocation || i > 0 && g.Sequence <= got[i-1].Sequence {
				t.Errorf("receipt %d: %+v", i, g)
			}
		}
		if last := got[len(got)-1]; last.Sequence != 100 || last.AppliedAt.Sub(p.opened) != 159*time.Millisecond {
			t.Errorf("the last: %+v", last)
		}
	})
}

// TestReporterTriesAgain: what was not acknowledged is sent again, as of when it
// was applied, and the instance knows when nobody waits for it any more.
func TestReporterTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{}
		r, stop := reporting(t, p)
		hello := r.Acknowledged()
		p.mu.Lock()
		p.fails = 1 << 30
		p.mu.Unlock()
		r.Applied(at(1), true)
		applied := time.Now()
		r.Applied(at(2), false)
		time.Sleep(receipt.Lease + 10*time.Second)
		if r.Lapsed() || !r.Acknowledged().Equal(hello) {
			t.Errorf("after its lease and bound: lapsed %v, acknowledged %v", r.Lapsed(), r.Acknowledged())
		}
		time.Sleep(time.Second)
		if !r.Lapsed() {
			t.Error("not lapsed after lease and bound")
		}
		p.mu.Lock()
		tried := 1<<30 - p.fails
		p.fails = 0
		p.mu.Unlock()
		if tried < 8 || tried > 30 {
			t.Errorf("tried %d times in 41 s", tried)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		got := p.since(1)
		if len(got) == 0 || got[0].Kind != receipt.Revocation || got[0].Sequence != 1 || !got[0].AppliedAt.Equal(applied) {
			t.Fatalf("the revocation came as %+v", got)
		}
		if last := got[len(got)-1]; last.Sequence != 2 || r.Lapsed() {
			t.Errorf("then %+v, lapsed %v", last, r.Lapsed())
		}
		p.mu.Lock()
		p.fails = 1
		p.mu.Unlock()
		if err := stop(); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("no bye, but ended with %v", err)
		}
	})
}

// TestHello: an instance that cannot make itself known hears so.
func TestHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{t: t, opened: time.Now(), fails: 1}
		r, err := receipt.NewReporter(receipt.Config{Enforcer: eventstest.ID(9), Key: keyOf(7), Publisher: p, Instance: "one", Bound: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		r.Applied(at(5), false)
		if err := r.Hello(t.Context()); err == nil || !r.Acknowledged().IsZero() || r.Counted() {
			t.Errorf("hello was not stored: %v", err)
		}
		if err := r.Hello(t.Context()); err != nil || r.Acknowledged().IsZero() {
			t.Errorf("hello: %v", err)
		}
		if got := p.since(0); len(got) != 1 || got[0].Sequence != 5 || got[0].Kind != receipt.Hello || got[0].Instance != "one" {
			t.Errorf("hello: %+v", got)
		}
		p.takes = time.Hour
		before := time.Now()
		if err := r.Hello(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(before) != 2*time.Second {
			t.Errorf("nobody answers: %v after %v", err, time.Since(before))
		}
	})
}

func TestReporterConfig(t *testing.T) {
	good := receipt.Config{Enforcer: eventstest.ID(9), Key: keyOf(7), Publisher: &post{t: t}, Bound: time.Second}
	for name, change := range map[string]func(c *receipt.Config){
		"no enforcer":  func(c *receipt.Config) { c.Enforcer = token.ID{} },
		"no key":       func(c *receipt.Config) { c.Key = nil },
		"no publisher": func(c *receipt.Config) { c.Publisher = nil },
		"bad instance": func(c *receipt.Config) { c.Instance = "A.b" },
		"no bound":     func(c *receipt.Config) { c.Bound = 0 },
		"bad bound":    func(c *receipt.Config) { c.Bound = -1 },
	} {
		c := good
		change(&c)
		if r, err := receipt.NewReporter(c); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
