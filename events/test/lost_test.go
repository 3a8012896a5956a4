package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/stream"
	"watchword.dev/events/test/natstest"
)

// hasty is for tests in which an answer gets lost.
var hasty = stream.Config{AppendTimeout: 300 * time.Millisecond, RequestTimeout: 2 * time.Second, IdleCheck: 200 * time.Millisecond}

// TestFull fills the ledger: it refuses, stores nothing of what it refuses, and
// stays readable.
func TestFull(t *testing.T) {
	c := natstest.Start(t, 1)
	c.CreateStream(stream.EventsConfig(1, 64<<10))
	l := open(t, c, unhurried)
	at := events.Position{}
	for {
		drafts := eventstest.Drafts(int(at.Number)+1, 1)
		drafts[0].Data = &events.AccountCreated{Name: strings.Repeat("x", 5000)}
		payload, commit, err := events.Compose(at, drafts)
		if err != nil {
			t.Fatal(err)
		}
		err = l.Append(t.Context(), at, commit.Subject, payload)
		if errors.Is(err, events.ErrRefused) {
			break
		}
		if err != nil || at.Seq > 20 {
			t.Fatalf("append %d: %v", at.Seq, err)
		}
		at = commit.End
	}
	if at.Seq < 5 {
		t.Errorf("full after %d commits", at.Seq)
	}
	if head, err := l.Head(t.Context()); err != nil || head != at.Seq {
		t.Errorf("head %d, %v; want %d", head, err, at.Seq)
	}
	if got := readAll(t, l, at.Seq); got[len(got)-1] != at {
		t.Errorf("the ledger ends at %+v, want %+v", got[len(got)-1], at)
	}
	// What is small enough still fits.
	write(t, l, at, 1)
}

// readAll reads up to last and returns every end.
func readAll(t *testing.T, l events.Reader, last uint64) (ends []events.Position) {
	t.Helper()
	enough := errors.New("enough")
	err := l.Read(t.Context(), events.Position{}, func(c events.Commit) error {
		ends = append(ends, c.End)
		if c.Seq == last {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	return ends
}

// proxy stands between a client and a server and holds what goes one way.
type proxy struct {
	listener net.Listener
	target   string

	mu       sync.Mutex
	up, down chan struct{} // not nil while held, closed by release
	conns    []net.Conn
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: strings.TrimPrefix(target, "nats://")}
	go p.serve()
	t.Cleanup(func() {
		l.Close()
		p.release()
		p.cut()
	})
	return p
}

func (p *proxy) url() string { return "nats://" + p.listener.Addr().String() }

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		upstream, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, upstream)
		p.mu.Unlock()
		go p.copy(upstream, client, func() chan struct{} { return p.up })
		go p.copy(client, upstream, func() chan struct{} { return p.down })
	}
}

func (p *proxy) copy(to, from net.Conn, gate func() chan struct{}) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		held := gate()
		p.mu.Unlock()
		if held != nil {
			<-held
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// hold keeps back what goes up to the server or down from it.
func (p *proxy) hold(up, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if up {
		p.up = make(chan struct{})
	}
	if down {
		p.down = make(chan struct{})
	}
}

func (p *proxy) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, gate := range []*chan struct{}{&p.up, &p.down} {
		if *gate != nil {
			close(*gate)
			*gate = nil
		}
	}
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// through opens a connection to the ledger of c by way of a proxy.
func through(t *testing.T, c *natstest.Cluster, cfg stream.Config) (*stream.Log, *proxy) {
	t.Helper()
	p := newProxy(t, c.Servers()[0].ClientURL())
	l := open(t, c, cfg, func(o *nats.Options) error {
		o.Servers = []string{p.url()}
		o.IgnoreDiscoveredServers = true
		return nil
	})
	return l, p
}

// TestUnanswered lets an append land and its answer stay away.
func TestUnanswered(t *testing.T) {
	c := natstest.Start(t, 1)
	c.CreateStreams()
	l, p := through(t, c, hasty)
	at := write(t, l, events.Position{}, 1)[0]
	payload, commit, err := events.Compose(at, eventstest.Drafts(2, 1))
	if err != nil {
		t.Fatal(err)
	}
	p.hold(false, true)
	if err := l.Append(t.Context(), at, commit.Subject, payload); !errors.Is(err, events.ErrAmbiguous) {
		t.Fatalf("error %v, want an ambiguous one", err)
	}
	other := open(t, c, unhurried)
	if got := readAll(t, other, 2); got[1] != commit.End {
		t.Errorf("the ledger ends at %+v, want %+v", got[1], commit.End)
	}
	p.release()
	// To do it again is no harm: it is fenced by itself.
	if err := l.Append(t.Context(), at, commit.Subject, payload); !errors.Is(err, events.ErrConflict) {
		t.Errorf("again: %v, want a conflict", err)
	}
	write(t, l, commit.End, 1)
}

// TestLate lets an append be under way until long after its caller gave up. It
// lands when nothing was appended meanwhile, and not when something was.
func TestLate(t *testing.T) {
	for _, overtaken := range []bool{false, true} {
		t.Run(fmt.Sprintf("overtaken %v", overtaken), func(t *testing.T) {
			c := natstest.Start(t, 1)
			c.CreateStreams()
			l, p := through(t, c, hasty)
			other := open(t, c, unhurried)
			at := write(t, l, events.Position{}, 1)[0]
			payload, commit, err := events.Compose(at, eventstest.Drafts(1000, 1))
			if err != nil {
				t.Fatal(err)
			}
			p.hold(true, false)
			if err := l.Append(t.Context(), at, commit.Subject, payload); !errors.Is(err, events.ErrAmbiguous) {
				t.Fatalf("error %v, want an ambiguous one", err)
			}
			if head, err := other.Head(t.Context()); err != nil || head != 1 {
				t.Fatalf("head %d, %v while it is under way", head, err)
			}
			want := commit.End
			if overtaken {
				want = write(t, other, at, 1)[0]
			}
			p.release()
			// An append that comes behind it on the same connection is
			// answered behind it. (Head is not: the server answers it from
			// another queue.)
			nowhere := events.Position{Seq: 1000}
			if err := l.Append(t.Context(), nowhere, commit.Subject, payload); !errors.Is(err, events.ErrConflict) {
				t.Fatal(err)
			}
			if got := readAll(t, other, 2); got[1] != want {
				t.Errorf("the ledger ends at %+v, want %+v", got[1], want)
			}
		})
	}
}

// TestCut breaks the connection of a reader again and again while the ledger
// grows. It must read everything, once and in order.
func TestCut(t *testing.T) {
	c := natstest.Start(t, 1)
	c.CreateStreams()
	l, p := through(t, c, hasty)
	writer := open(t, c, unhurried)
	const rounds, each = 10, 20
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	got := make(chan events.Position, rounds*each)
	done := make(chan error, 1)
	go func() {
		done <- l.Read(ctx, events.Position{}, func(c events.Commit) error {
			got <- c.End
			return nil
		})
	}()
	at := events.Position{}
	for range rounds {
		ends := write(t, writer, at, each/2)
		p.cut()
		ends = append(ends, write(t, writer, ends[len(ends)-1], each/2)...)
		for _, want := range ends {
			select {
			case end := <-got:
				if end != want {
					t.Fatalf("read %+v, want %+v", end, want)
				}
			case err := <-done:
				t.Fatalf("the reader stopped: %v", err)
			}
		}
		at = ends[len(ends)-1]
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
}

// TestRestart restarts the server under a reader, with different things done to
// the store in between.
func TestRestart(t *testing.T) {
	refill := func(n int, drafts int) func(*testing.T, *natstest.Cluster) {
		return func(t *testing.T, c *natstest.Cluster) {
			c.CreateStreams()
			l := open(t, c, unhurried)
			at := events.Position{}
			for range n {
				payload, commit, err := events.Compose(at, eventstest.Drafts(drafts+int(at.Number), 1))
				if err != nil {
					t.Fatal(err)
				}
				if err := l.Append(t.Context(), at, commit.Subject, payload); err != nil {
					t.Fatal(err)
				}
				at = commit.End
			}
		}
	}
	tests := []struct {
		name    string
		between func(t *testing.T, dir string)
		after   func(*testing.T, *natstest.Cluster)
		want    error // nil means that the reader goes on
	}{
		{"nothing", func(*testing.T, string) {}, nil, nil},
		{"a shorter ledger", removeStore, refill(3, 1), events.ErrRewind},
		{"an empty ledger", removeStore, refill(0, 1), events.ErrRewind},
		{"another ledger as long", removeStore, refill(10, 500), events.ErrChain},
		{"another, longer ledger", removeStore, refill(12, 500), events.ErrChain},
		{"one flipped bit and a lost index", flip, nil, events.ErrRewind},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := natstest.Start(t, 1)
			c.CreateStreams()
			l := open(t, c, hasty)
			ends := write(t, l, events.Position{}, 10)
			ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
			defer cancel()
			reached, again := make(chan struct{}), make(chan struct{})
			done := make(chan error, 1)
			go func() {
				done <- l.Read(ctx, events.Position{}, func(c events.Commit) error {
					switch c.Seq {
					case 10:
						close(reached)
					case 11:
						close(again)
					}
					return nil
				})
			}()
			<-reached
			c.Restart(0, func(dir string) { test.between(t, dir) })
			if test.after != nil {
				test.after(t, c)
			}
			if test.want == nil {
				write(t, open(t, c, unhurried), ends[9], 1)
				<-again
				cancel()
				test.want = context.Canceled
			}
			// While a ledger is being made it is shorter, and the reader may
			// have come at that time.
			if err := <-done; !errors.Is(err, test.want) && !(test.want == events.ErrChain && errors.Is(err, events.ErrRewind)) {
				t.Errorf("read: %v, want %v", err, test.want)
			}
			if test.want == context.Canceled {
				return
			}
			nothing := func(events.Commit) error { return errors.New("called") }
			if err := l.Read(t.Context(), ends[9], nothing); !errors.Is(err, test.want) {
				t.Errorf("read again: %v, want %v", err, test.want)
			}
		})
	}
}

func removeStore(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// flip changes one bit in the middle of the ledger's only block and removes the
// index, as an unclean stop leaves it.
func flip(t *testing.T, dir string) {
	t.Helper()
	block := flipBit(t, dir)
	if err := os.Remove(filepath.Join(filepath.Dir(block), "index.db")); err != nil {
		t.Fatal(err)
	}
}

func flipBit(t *testing.T, dir string) string {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", stream.EventsStream, "msgs", "*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatalf("blocks %v, %v", blocks, err)
	}
	b, err := os.ReadFile(blocks[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(blocks[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	return blocks[0]
}

// TestFlippedBit flips one bit after a clean stop: the server drops the rest of
// the block, says that all is well, and gives the sequences out again. Who has
// read further knows better, before and after.
func TestFlippedBit(t *testing.T) {
	c := natstest.Start(t, 1)
	c.CreateStreams()
	ends := write(t, open(t, c, hasty), events.Position{}, 10)
	c.Restart(0, func(dir string) { flipBit(t, dir) })
	l := open(t, c, hasty)
	head, err := l.Head(t.Context())
	if err != nil || head == 0 || head >= 10 {
		t.Fatalf("head %d, %v: the bit has done nothing", head, err)
	}
	if err := stream.Assert(t.Context(), jetStream(t, c), 1); err != nil {
		t.Errorf("the server has noticed: %v", err)
	}
	nothing := func(events.Commit) error { return errors.New("called") }
	if err := l.Read(t.Context(), ends[9], nothing); !errors.Is(err, events.ErrRewind) {
		t.Errorf("read: %v, want a rewind", err)
	}
	// Until the next restart the server believes two things at once: it takes
	// an append behind 10 and stores it behind the flipped bit. That must not
	// pass for an acknowledgement.
	payload, commit, err := events.Compose(ends[9], eventstest.Drafts(11, 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), ends[9], commit.Subject, payload); !errors.Is(err, events.ErrAmbiguous) {
		t.Errorf("append: %v, want it ambiguous", err)
	}
	if err := l.Read(t.Context(), ends[9], nothing); !errors.Is(err, events.ErrRewind) {
		t.Errorf("read after the append: %v, want a rewind", err)
	}
	if err := l.Read(t.Context(), ends[head-1], nothing); !errors.Is(err, events.ErrGap) {
		t.Errorf("read over the flipped bit: %v, want a gap", err)
	}
}

// TestConsumerGone deletes the consumer under a reader.
func TestConsumerGone(t *testing.T) {
	c := natstest.Start(t, 1)
	c.CreateStreams()
	l := open(t, c, hasty)
	ends := write(t, l, events.Position{}, 3)
	js := jetStream(t, c)
	seen := make(chan uint64)
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- l.Read(ctx, events.Position{}, func(c events.Commit) error {
			seen <- c.Seq
			return nil
		})
	}()
	for want := uint64(1); want <= 3; want++ {
		if got := <-seen; got != want {
			t.Fatalf("read %d, want %d", got, want)
		}
	}
	s, err := js.Stream(t.Context(), stream.EventsStream)
	if err != nil {
		t.Fatal(err)
	}
	names := s.ConsumerNames(t.Context())
	deleted := 0
	for name := range names.Name() {
		if err := s.DeleteConsumer(t.Context(), name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			t.Fatal(err)
		}
		deleted++
	}
	if deleted == 0 {
		t.Fatal("no consumer to delete")
	}
	write(t, l, ends[2], 1)
	if got := <-seen; got != 4 {
		t.Errorf("read %d, want 4", got)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	// The reader has told the server to forget its consumer, without waiting.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Consumers == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server still has %d consumers", info.State.Consumers)
		}
	}
}
