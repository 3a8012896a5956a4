package test

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/feed"
	"watchword.dev/events/stream"
	"watchword.dev/events/test/natstest"
)

// stage is a ledger that republishes nothing by itself: the test says what is
// heard live.
type stage struct {
	*testing.T
	c    *natstest.Cluster
	log  *stream.Log
	live *nats.Conn
	ends []events.Position // ends[n] is where the ledger ends with n commits
}

func newStage(t *testing.T, n int) *stage {
	c := natstest.Start(t, 1)
	cfg := stream.EventsConfig(1, natstest.MaxBytes)
	cfg.RePublish, cfg.DenyDelete = nil, false
	c.CreateStream(cfg)
	s := &stage{T: t, c: c, log: open(t, c, unhurried), live: c.Connect(), ends: []events.Position{{}}}
	s.append(n)
	return s
}

func (s *stage) end() events.Position { return s.ends[len(s.ends)-1] }

func (s *stage) append(n int) { s.ends = append(s.ends, write(s.T, s.log, s.end(), n)...) }

// store appends a payload as it is.
func (s *stage) store(payload []byte) {
	s.Helper()
	if err := s.log.Append(s.Context(), s.end(), events.SubjectOf("account.created.v1"), payload); err != nil {
		s.Fatal(err)
	}
}

// say publishes what looks like the republished commit with this sequence.
func (s *stage) say(seq uint64, payload []byte) {
	s.Helper()
	m := nats.NewMsg(stream.LivePrefix + "account.created")
	m.Data = payload
	m.Header.Set(nats.JSSequence, strconv.FormatUint(seq, 10))
	if err := errors.Join(s.live.PublishMsg(m), s.live.Flush()); err != nil {
		s.Fatal(err)
	}
}

// republish says what the ledger holds at seq.
func (s *stage) republish(seqs ...uint64) {
	s.Helper()
	js := jetStream(s.T, s.c)
	st, err := js.Stream(s.Context(), stream.EventsStream)
	if err != nil {
		s.Fatal(err)
	}
	for _, seq := range seqs {
		m, err := st.GetMsg(s.Context(), seq)
		if err != nil {
			s.Fatal(err)
		}
		s.say(seq, m.Data)
	}
}

// pulse publishes a pulse of the position, signed with key.
func (s *stage) pulse(at events.Position, key ed25519.PrivateKey) {
	s.Helper()
	p := events.Pulse{Term: 1, Epoch: at.Epoch, Sequence: at.Seq, Number: at.Number, Chain: hex.EncodeToString(at.Hash[:]), Time: time.Now()}
	b, err := p.Sign(key)
	if err == nil {
		err = errors.Join(s.live.Publish(stream.LivePulseSubject, b), s.live.Flush())
	}
	if err != nil {
		s.Fatal(err)
	}
}

// following is a Read under way.
type following struct {
	*testing.T
	ends   chan events.Position
	done   chan error
	cancel context.CancelFunc
}

func follow(t *testing.T, r events.Reader, at events.Position) *following {
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	f := &following{T: t, ends: make(chan events.Position, 10_000), done: make(chan error, 1), cancel: cancel}
	go func() {
		f.done <- r.Read(ctx, at, func(c events.Commit) error {
			f.ends <- c.End
			return nil
		})
	}()
	t.Cleanup(cancel)
	return f
}

// want waits until the commits that end at ends, and no others, were read.
func (f *following) want(ends ...events.Position) {
	f.Helper()
	for _, want := range ends {
		select {
		case got := <-f.ends:
			if got != want {
				f.Fatalf("read %+v, want %+v", got, want)
			}
		case err := <-f.done:
			f.Fatalf("the reader stopped before %d: %v", want.Seq, err)
		}
	}
}

// stops waits until the reader has stopped with want, and has read nothing more.
func (f *following) stops(want error) {
	f.Helper()
	if err := <-f.done; !errors.Is(err, want) {
		f.Errorf("read: %v, want %v", err, want)
	}
	select {
	case got := <-f.ends:
		f.Errorf("read %+v", got)
	default:
	}
}

// accounts composes a commit after at that is none of write's.
func accounts(t *testing.T, at events.Position, n int) ([]byte, events.Position) {
	t.Helper()
	payload, c, err := events.Compose(at, eventstest.Drafts(100_000+n, 1))
	if err != nil {
		t.Fatal(err)
	}
	return payload, c.End
}

// TestFeedLive: what is lost, repeated or out of order on the way is read once
// and in order.
func TestFeedLive(t *testing.T) {
	s := newStage(t, 1)
	f := follow(t, feed.New(s.c.Connect(), calm), events.Position{})
	f.want(s.ends[1])
	for _, said := range [][]uint64{
		{2},             // nothing is wrong
		{3, 3, 2, 3, 1}, // repeated
		{6},             // a gap
		{9, 8, 7},       // backwards
		{10, 12, 11, 13, 13, 20, 19},
	} {
		from := len(s.ends)
		for _, seq := range said {
			if n := int(seq) - len(s.ends) + 1; n > 0 {
				s.append(n)
			}
		}
		s.republish(said...)
		f.want(s.ends[from:]...)
	}
	f.cancel()
	f.stops(context.Canceled)
}

// TestFeedForged: what does not follow is not believed, whoever says it.
func TestFeedForged(t *testing.T) {
	s := newStage(t, 2)
	f := follow(t, feed.New(s.c.Connect(), calm), s.ends[1])
	f.want(s.ends[2])
	other, _ := accounts(t, events.Position{Seq: 2, Number: 2, Epoch: 1, Hash: events.Hash{1}}, 1)
	number, _ := accounts(t, events.Position{Seq: 2, Number: 7, Epoch: 1, Hash: s.end().Hash}, 1)
	epoch, _ := accounts(t, events.Position{Seq: 2, Number: 2, Epoch: 2, Hash: s.end().Hash}, 1)
	for _, payload := range [][]byte{nil, []byte("x"), other, number, epoch, []byte("{}\n")} {
		s.say(3, payload)
		s.say(1<<63, payload)
	}
	m := nats.NewMsg(stream.LivePrefix + "account.created") // without a sequence
	m.Data = other
	if err := s.live.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
	s.append(1)
	s.republish(3)
	f.want(s.ends[3])
	f.cancel()
	f.stops(context.Canceled)
}

// TestFeedExposed: a forger who knows the newest commit is exposed by the next
// true one, and by a pulse.
func TestFeedExposed(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	for _, by := range []string{"commit", "pulse"} {
		t.Run(by, func(t *testing.T) {
			s := newStage(t, 2)
			cfg := calm
			cfg.PulseKey = key.Public().(ed25519.PublicKey)
			r := feed.New(s.c.Connect(), cfg)
			f := follow(t, r, events.Position{})
			f.want(s.ends[1:]...)
			payload, end := accounts(t, s.end(), 1)
			s.say(3, payload)
			f.want(end)
			s.append(1)
			if by == "pulse" {
				s.pulse(s.end(), key)
			} else {
				s.append(1)
				s.republish(4)
			}
			f.stops(events.ErrChain)
			if _, known := r.Age(); by == "pulse" && known {
				t.Error("it still knows how old it is")
			}
		})
	}
}

// TestFeedWrongLedger: what does not follow in the stream ends the Read,
// whether it is heard live or read at the start.
func TestFeedWrongLedger(t *testing.T) {
	tests := []struct {
		name  string
		wrong func(at events.Position) events.Position // what the next commit is composed for
		want  error
	}{
		{"another chain", func(at events.Position) events.Position { at.Hash[0] ^= 1; return at }, events.ErrChain},
		{"an epoch that was never opened", func(at events.Position) events.Position { at.Epoch++; return at }, events.ErrEpoch},
		{"a missing event", func(at events.Position) events.Position { at.Number++; return at }, events.ErrGap},
		{"an event of before", func(at events.Position) events.Position { at.Number--; return at }, events.ErrGap},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newStage(t, 3)
			f := follow(t, feed.New(s.c.Connect(), calm), s.ends[2])
			f.want(s.ends[3])
			payload, _ := accounts(t, test.wrong(s.end()), 1)
			s.store(payload)
			s.republish(4)
			f.stops(test.want)
			again := follow(t, feed.New(s.c.Connect(), calm), s.ends[2])
			again.want(s.ends[3])
			again.stops(test.want)
		})
	}
	t.Run("a hole", func(t *testing.T) {
		s := newStage(t, 5)
		st, err := jetStream(t, s.c).Stream(t.Context(), stream.EventsStream)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(st.DeleteMsg(t.Context(), 2), st.DeleteMsg(t.Context(), 4)); err != nil {
			t.Fatal(err)
		}
		f := follow(t, feed.New(s.c.Connect(), calm), s.ends[2])
		f.stops(events.ErrGap) // where it begins is not there
		f = follow(t, feed.New(s.c.Connect(), eager), s.ends[1])
		f.stops(events.ErrGap)
		f = follow(t, feed.New(s.c.Connect(), eager), s.ends[3])
		f.stops(events.ErrGap)
	})
}

// TestFeedSilent: a pulse names what was not heard, and it is read; so it is
// without pulses, later.
func TestFeedSilent(t *testing.T) {
	s := newStage(t, 1)
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	stranger := ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", ed25519.SeedSize)))
	heard := make(chan events.Pulse, 10)
	cfg := calm
	cfg.PulseKey = key.Public().(ed25519.PublicKey)
	cfg.Pulse = func(p events.Pulse, _ time.Time) { heard <- p }
	r := feed.New(s.c.Connect(), cfg)
	f := follow(t, r, events.Position{})
	f.want(s.ends[1])
	if _, known := r.Age(); known {
		t.Error("it knows how old it is without a pulse")
	}
	s.append(3)
	s.pulse(s.end(), stranger)
	s.pulse(s.end(), key)
	f.want(s.ends[2:]...)
	if p := <-heard; p.Sequence != 4 {
		t.Errorf("heard %+v", p)
	}
	s.pulse(s.end(), key)
	<-heard
	if age, known := r.Age(); !known || age < 0 || age > natstest.Patience {
		t.Errorf("age %v, %v", age, known)
	}
	f.cancel()
	f.stops(context.Canceled)

	f = follow(t, feed.New(s.c.Connect(), eager), s.ends[3])
	f.want(s.ends[4])
	s.append(2)
	f.want(s.ends[5:]...)
}

// TestFeedLearnsKey: without a key of the pulses it is read from the first
// event, wherever the reader begins.
func TestFeedLearnsKey(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	s := newStage(t, 0)
	drafts := eventstest.Drafts(1, 1)
	drafts[0].Data = &events.LogOpened{Installation: eventstest.ID(1), Brand: "ww", PulseKey: key.Public().(ed25519.PublicKey)}
	payload, first, err := events.Compose(events.Position{}, drafts)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.log.Append(t.Context(), events.Position{}, first.Subject, payload); err != nil {
		t.Fatal(err)
	}
	s.ends = append(s.ends, first.End)
	s.append(2)
	for _, from := range []int{0, 2} {
		t.Run(fmt.Sprint(from), func(t *testing.T) {
			heard := make(chan events.Pulse, 10)
			cfg := calm
			cfg.Pulse = func(p events.Pulse, _ time.Time) { heard <- p }
			f := follow(t, feed.New(s.c.Connect(), cfg), s.ends[from])
			f.want(s.ends[from+1:]...)
			s.pulse(s.end(), key)
			if p := <-heard; p.Sequence != 3 {
				t.Errorf("heard %+v", p)
			}
		})
	}
}

// TestFeedSlow: what comes faster than it is taken is dropped on the way, and
// read all the same. Nothing is kept for the reader on the server.
func TestFeedSlow(t *testing.T) {
	c := natstest.Start(t, 1)
	c.CreateStreams()
	writer := open(t, c, unhurried)
	ends := write(t, writer, events.Position{}, 1)
	var dropped atomic.Int64
	nc := c.Connect(nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrSlowConsumer) {
			dropped.Add(1)
		}
	}))
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	release, got := make(chan struct{}), make(chan events.Position, 1000)
	done := make(chan error, 1)
	go func() {
		done <- feed.New(nc, calm).Read(ctx, events.Position{}, func(c events.Commit) error {
			got <- c.End
			<-release
			return nil
		})
	}()
	if end := <-got; end != ends[0] {
		t.Fatalf("read %+v", end)
	}
	ends = write(t, writer, ends[0], 300)
	// The client has been sent all of them when it has its answer to a ping.
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	close(release)
	ends = append(ends, write(t, writer, ends[299], 1)...)
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
	st, err := jetStream(t, c).Stream(t.Context(), stream.EventsStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := st.CachedInfo().State.Consumers; n != 0 {
		t.Errorf("the server keeps %d consumers", n)
	}
	cancel()
	<-done
	if dropped.Load() == 0 {
		t.Error("nothing was dropped: the test has tested nothing")
	}
}

// throughFeed makes a feed that goes through a proxy.
func throughFeed(t *testing.T, c *natstest.Cluster, cfg feed.Config) (*feed.Reader, *proxy) {
	t.Helper()
	p := newProxy(t, c.Servers()[0].ClientURL())
	return feed.New(c.Connect(func(o *nats.Options) error {
		o.Servers, o.IgnoreDiscoveredServers = []string{p.url()}, true
		return nil
	}), cfg), p
}

// TestFeedCut breaks the connection again and again, live and in the middle of
// what is read from the stream.
func TestFeedCut(t *testing.T) {
	c := natstest.Start(t, 1)
	c.CreateStreams()
	writer := open(t, c, unhurried)
	ends := write(t, writer, events.Position{}, 1000)
	r, p := throughFeed(t, c, calm)
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	got, done := make(chan events.Position, 2000), make(chan error, 1)
	go func() {
		done <- r.Read(ctx, events.Position{}, func(c events.Commit) error {
			if c.Seq%150 == 0 {
				p.cut()
			}
			got <- c.End
			return nil
		})
	}()
	for range 10 {
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
		last := ends[len(ends)-1]
		ends = write(t, writer, last, 10)
		p.cut()
		ends = append(ends, write(t, writer, ends[9], 10)...)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
}

// TestFeedHeld lets an answer of the stream stay away in the middle.
func TestFeedHeld(t *testing.T) {
	c := natstest.Start(t, 1)
	c.CreateStreams()
	ends := write(t, open(t, c, unhurried), events.Position{}, 600)
	cfg := calm
	cfg.RequestTimeout = 100 * time.Millisecond
	r, p := throughFeed(t, c, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	n := 0
	enough := errors.New("enough")
	err := r.Read(ctx, events.Position{}, func(c events.Commit) error {
		if c.End != ends[n] {
			return fmt.Errorf("read %+v, want %+v", c.End, ends[n])
		}
		if n++; n == len(ends) {
			return enough
		}
		if n == 300 {
			p.hold(false, true)
			time.AfterFunc(300*time.Millisecond, p.release)
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}

// TestFeedRestart restarts the server under a feed, with different things done
// to the store in between.
func TestFeedRestart(t *testing.T) {
	tests := []struct {
		name    string
		between func(t *testing.T, dir string)
		commits int // of another ledger that is made after it; -1: none is made
		want    error
	}{
		{"nothing", func(*testing.T, string) {}, -1, nil},
		{"a shorter ledger", removeStore, 3, events.ErrRewind},
		{"an empty ledger", removeStore, 0, events.ErrRewind},
		{"another ledger as long", removeStore, 10, events.ErrChain},
		{"another, longer ledger", removeStore, 12, events.ErrChain},
		{"one flipped bit and a lost index", flip, -1, events.ErrRewind},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := natstest.Start(t, 1)
			c.CreateStreams()
			ends := write(t, open(t, c, unhurried), events.Position{}, 10)
			r := feed.New(c.Connect(), eager)
			f := follow(t, r, events.Position{})
			f.want(ends...)
			c.Restart(0, func(dir string) { test.between(t, dir) })
			if test.commits >= 0 {
				c.CreateStreams()
				l := open(t, c, unhurried)
				at := events.Position{}
				for i := range test.commits {
					payload, end := accounts(t, at, i)
					if err := l.Append(t.Context(), at, events.SubjectOf("account.created.v1"), payload); err != nil {
						t.Fatal(err)
					}
					at = end
				}
			}
			if test.want == nil {
				f.want(write(t, open(t, c, unhurried), ends[9], 1)...)
				f.cancel()
				f.stops(context.Canceled)
				return
			}
			// While a ledger is being made it is shorter, and the reader may
			// have come at that time.
			if err := <-f.done; !errors.Is(err, test.want) && !(test.want == events.ErrChain && errors.Is(err, events.ErrRewind)) {
				t.Errorf("read: %v, want %v", err, test.want)
			}
			follow(t, r, ends[9]).stops(test.want)
		})
	}
}

// TestFeedClosed: a connection that is closed for good ends the Read.
func TestFeedClosed(t *testing.T) {
	s := newStage(t, 1)
	nc := s.c.Connect()
	f := follow(t, feed.New(nc, calm), events.Position{})
	f.want(s.ends[1])
	nc.Close()
	f.stops(nats.ErrConnectionClosed)
	f = follow(t, feed.New(nc, calm), events.Position{})
	f.stops(nats.ErrConnectionClosed)
}
