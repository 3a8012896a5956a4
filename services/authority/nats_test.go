package authority_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"watchword.dev/events"
	"watchword.dev/events/fault"
	"watchword.dev/events/stream"
	"watchword.dev/services/authority"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/embed"
	"watchword.dev/services/internal/embed/embedtest"
)

// real is a pen on a real server, with the connections of the roles.
type real struct {
	*authoritytest.Installation
	t       *testing.T
	servers servers
	pen     *authority.Pen
	past    *authoritytest.Directory
	conn    *nats.Conn // the pen's
	ctx     context.Context
	stop    func()
}

// servers are where one connects: an embedded server, or a cluster.
type servers interface {
	connect(t testing.TB, r embed.Role) *nats.Conn
}

type single struct{ *embed.Server }

// startSingle starts one embedded server, as on one machine.
func startSingle(t *testing.T) servers {
	t.Helper()
	s, err := embed.Start(embed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", MaxStoreBytes: 1 << 30, EventsMaxBytes: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return single{s}
}

func (s single) connect(t testing.TB, r embed.Role) *nats.Conn {
	t.Helper()
	nc, err := s.Connect(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

type several struct{ *embedtest.Cluster }

func (s several) connect(_ testing.TB, r embed.Role) *nats.Conn { return s.Connect(r) }

// openLedger is the ledger on a connection of the pen's role.
func openLedger(t testing.TB, s servers) (*stream.Log, *nats.Conn) {
	t.Helper()
	nc := s.connect(t, embed.Pen)
	ctx, cancel := context.WithTimeout(context.Background(), embedtest.Deadline)
	defer cancel()
	log, err := stream.Open(ctx, nc, stream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return log, nc
}

func newReal(t *testing.T) *real {
	t.Helper()
	r := &real{Installation: authoritytest.NewInstallation(), t: t, servers: startSingle(t), past: authoritytest.NewDirectory()}
	log, nc := openLedger(t, r.servers)
	r.conn = nc
	pen, err := authority.New(r.Config("node-a", log, log, r.past))
	if err != nil {
		t.Fatal(err)
	}
	r.pen = pen
	ctx, cancel := context.WithCancel(t.Context())
	r.ctx = ctx
	var group sync.WaitGroup
	group.Go(func() {
		if err := pen.Run(ctx); err != nil {
			t.Errorf("the pen: %v", err)
		}
	})
	group.Go(func() {
		if err := r.past.Follow(ctx, log, nil); err != nil {
			t.Errorf("the directory: %v", err)
		}
	})
	group.Go(func() {
		if err := authority.Serve(ctx, nc, pen); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	r.stop = func() { cancel(); group.Wait() }
	t.Cleanup(r.stop)
	if err := authority.Bootstrap(ctx, pen, r.People()...); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRemote gives commands and asks for heads from a node without the pen.
func TestRemote(t *testing.T) {
	r := newReal(t)
	remote := authority.NewRemote(r.servers.connect(t, embed.Node), 10*time.Second)
	me := authoritytest.ByKey(r.Operator)

	c := r.Create()
	// An escape that a codec might change: clients compare the text.
	c.Grant.Policies[0].Resources = []byte(`{"com.cloudflare.api.account.zone.\u007a1":"*"}`)
	made, err := remote.Do(r.ctx, me, c)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(made.Token.Grant.Policies[0].Resources); got != string(c.Grant.Policies[0].Resources) {
		t.Errorf("resources came back as %s", got)
	}
	if err := r.past.Wait(r.ctx, made.Seq); err != nil {
		t.Fatal(err)
	}
	if row, ok, _ := r.past.Token(c.ID); !ok || !reflect.DeepEqual(row, *made.Token) {
		t.Errorf("told   %+v\nstored %+v", made.Token, row)
	}
	if head, err := remote.Head(r.ctx); err != nil || head != made.Seq {
		t.Errorf("head %d, %v; want %d", head, err, made.Seq)
	}
	again, err := remote.Do(r.ctx, me, c)
	if err != nil || !again.Unchanged {
		t.Errorf("the same command twice: %+v, %v", again, err)
	}

	bad := r.Create()
	bad.Name = ""
	_, local := r.pen.Do(r.ctx, me, bad)
	_, far := remote.Do(r.ctx, me, bad)
	want, got := fault.From(local), fault.From(far)
	if want.Code != fault.InvalidName || got.Code != want.Code || got.Pointer != want.Pointer || got.Message() != want.Message() {
		t.Errorf("a fault came as %v, it was %v", got, want)
	}
	if _, err := remote.Do(r.ctx, command.Caller{System: true}, bad); !errors.Is(err, fault.Internal) {
		t.Errorf("the system from afar: %v", err)
	}
	if reply, err := r.servers.connect(t, embed.Node).RequestWithContext(r.ctx, authority.SubjectDo+".1", []byte(`{"verb":"token.create","verb":"x"}`)); err != nil {
		t.Error(err)
	} else if len(reply.Data) == 0 {
		t.Error("no answer to a broken command")
	}
}

// TestRemoteWithoutPen asks when there is none, and while one comes.
func TestRemoteWithoutPen(t *testing.T) {
	r := newReal(t)
	node := r.servers.connect(t, embed.Node)
	r.stop()
	remote := authority.NewRemote(node, 0)
	me := authoritytest.ByKey(r.Operator)
	if _, err := remote.Do(t.Context(), me, r.Create()); !errors.Is(err, fault.NoPen) || fault.From(err).RetryAfter == 0 {
		t.Errorf("without a pen: %v", err)
	}
	if _, err := remote.Head(t.Context()); !errors.Is(err, fault.NoPen) {
		t.Errorf("head without a pen: %v", err)
	}
	patient := authority.NewRemote(node, embedtest.Deadline)
	done := make(chan error, 1)
	go func() {
		_, err := patient.Head(t.Context())
		for errors.Is(err, fault.Unavailable) || errors.Is(err, fault.NoPen) {
			_, err = patient.Head(t.Context())
		}
		done <- err
	}()
	next := &real{Installation: r.Installation, t: t, servers: r.servers, past: authoritytest.NewDirectory()}
	log, nc := openLedger(t, r.servers)
	pen, err := authority.New(next.Config("node-b", log, log, next.past))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() { _ = pen.Run(ctx) })
	group.Go(func() { _ = next.past.Follow(ctx, log, nil) })
	group.Go(func() { _ = authority.Serve(ctx, nc, pen) })
	if err := <-done; err != nil {
		t.Errorf("while a pen came: %v", err)
	}
}

// TestRemoteLostAnswer asks a pen that hears and never answers.
func TestRemoteLostAnswer(t *testing.T) {
	servers := startSingle(t)
	pen := servers.connect(t, embed.Pen)
	heard := make(chan struct{}, 1)
	if _, err := pen.Subscribe("ww.cmd.>", func(m *nats.Msg) {
		if m.Subject == authority.SubjectHead {
			_ = m.Respond([]byte(`{"head":1,"term":1}`))
			return
		}
		heard <- struct{}{}
	}); err != nil {
		t.Fatal(err)
	}
	if err := pen.Flush(); err != nil {
		t.Fatal(err)
	}
	people := authoritytest.NewInstallation()
	remote := authority.NewRemote(servers.connect(t, embed.Node), embedtest.Deadline)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-heard; cancel() }()
	if _, err := remote.Do(ctx, authoritytest.ByKey(people.Operator), people.Create()); !errors.Is(err, fault.OutcomeUnknown) {
		t.Errorf("a lost answer: %v", err)
	}
}

// TestHeadsTogether asks for many heads while the first request is under way:
// they share one more.
func TestHeadsTogether(t *testing.T) {
	servers := startSingle(t)
	pen := servers.connect(t, embed.Pen)
	var asked atomic.Int64
	first, release := make(chan struct{}), make(chan struct{})
	if _, err := pen.Subscribe(authority.SubjectHead, func(m *nats.Msg) {
		n := asked.Add(1)
		if n == 1 {
			close(first)
			<-release
		}
		_ = m.Respond(fmt.Appendf(nil, `{"head":%d}`, n))
	}); err != nil {
		t.Fatal(err)
	}
	if err := pen.Flush(); err != nil {
		t.Fatal(err)
	}
	remote := authority.NewRemote(servers.connect(t, embed.Node), embedtest.Deadline)
	heads := make(chan uint64, 100)
	ask := func() {
		head, err := remote.Head(t.Context())
		if err != nil {
			t.Error(err)
		}
		heads <- head
	}
	go ask()
	<-first
	var entered sync.WaitGroup
	for range 50 {
		entered.Add(1)
		go func() {
			entered.Done()
			ask()
		}()
	}
	entered.Wait()
	close(release)
	if got := <-heads; got != 1 {
		t.Errorf("the first was told %d", got)
	}
	for range 50 {
		if got := <-heads; got < 2 {
			t.Errorf("one who asked later was told %d, an answer to a question of before", got)
		}
	}
	if n := asked.Load(); n >= 50 {
		t.Errorf("51 heads took %d requests", n)
	}
}

// TestPensFightJetStream is the fight of pens on real servers: one, and three
// that replicate. The lease is shorter than in production, so that more
// happens.
func TestPensFightJetStream(t *testing.T) {
	for name, start := range map[string]func(*testing.T) servers{
		"R1": startSingle,
		"R3": func(t *testing.T) servers { return several{embedtest.Start(t, 3)} },
	} {
		t.Run(name, func(t *testing.T) {
			servers := start(t)
			open := func(t testing.TB) (events.Log, events.Pulses) {
				log, _ := openLedger(t, servers)
				return log, log
			}
			authoritytest.Pens(t, open, authoritytest.Fight{
				Seed: rand.Uint64(), Steps: 8, Step: time.Second, Lossy: 50, Takeover: 10 * time.Second,
				Tune: func(c *authority.Config) { c.Lease, c.Beat = 900*time.Millisecond, 300*time.Millisecond },
			})
		})
	}
}
