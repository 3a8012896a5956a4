package receipts_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/revocations"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/fanout/receipts"
	"watchword.dev/services/internal/web"
)

var (
	edge  = eventstest.ID(2)
	other = eventstest.ID(3)
	asker = eventstest.ID(4) // without a key
)

func keyOf(id token.ID) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat(id[15:], ed25519.SeedSize))
}

// memory is a stream of receipts.
type memory struct {
	of revocations.Stream

	mu      sync.Mutex
	all     []revocations.Message
	changed chan struct{}
	fails   int
	said    func() // called when Last has looked, before it returns; may be nil
	flooded bool   // whenever somebody looks, there is one more than was read
}

func newMemory(of revocations.Stream) *memory { return &memory{of: of, changed: make(chan struct{})} }

func (m *memory) add(subject string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, revocations.Message{Stream: m.of, Seq: uint64(len(m.all) + 1), Subject: subject, Data: data, Stored: time.Now().UTC()})
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *memory) Last(context.Context) (uint64, error) {
	m.mu.Lock()
	fails, last, said := m.fails > 0, uint64(len(m.all)), m.said
	if m.flooded {
		last++
	}
	m.fails = max(m.fails-1, 0)
	m.mu.Unlock()
	if fails {
		return 0, errors.New("no answer")
	}
	if said != nil {
		said()
	}
	return last, nil
}

func (m *memory) Read(ctx context.Context, after uint64, fn func(revocations.Message) error) error {
	for {
		m.mu.Lock()
		rest, changed := m.all[min(after, uint64(len(m.all))):], m.changed
		m.mu.Unlock()
		for _, one := range rest {
			if err := fn(one); err != nil {
				return err
			}
			after = one.Seq
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// office is everything between a ledger and the answers.
type office struct {
	t              testing.TB
	ledger         *eventstest.Ledger
	at             events.Position
	heads          map[uint64]events.Position
	p              atomic.Pointer[generation]
	kept, progress *memory
	service        *receipts.Service
	troubles       troubles // that the collector has logged
	ids            int
	sent           time.Time
}

// troubles counts what is logged as an error.
type troubles struct{ n atomic.Int64 }

// Write implements io.Writer.
func (t *troubles) Write(p []byte) (int, error) {
	t.n.Add(1)
	return len(p), nil
}

type generation struct {
	*revocations.Revocations
	runner *projector.Runner
}

func (o *office) Wait(ctx context.Context, seq uint64) error { return o.p.Load().runner.Wait(ctx, seq) }

func (o *office) Head(context.Context) (uint64, error) { return o.ledger.Head(), nil }

// generation opens an empty projection that follows the ledger.
func (o *office) generation() *generation {
	o.t.Helper()
	p, err := revocations.Open(revocations.Options{Dir: "r", FS: vfs.NewMem()})
	if err != nil {
		o.t.Fatal(err)
	}
	g := &generation{p, projector.NewRunner(o.ledger.Connect(), p, projector.Options{})}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); g.runner.Run(ctx) }()
	o.t.Cleanup(func() { stop(); <-done; p.Close() })
	return g
}

func open(t testing.TB) *office {
	t.Helper()
	o := &office{
		t: t, ledger: eventstest.NewLedger(), heads: map[uint64]events.Position{},
		kept: newMemory(revocations.Kept), progress: newMemory(revocations.Progress),
	}
	o.p.Store(o.generation())
	projection := func() *revocations.Revocations { return o.p.Load().Revocations }
	o.service = receipts.New(receipts.Config{Projection: projection})
	c := receipts.NewCollector(receipts.CollectorConfig{
		Projection: projection, Reached: o, Ledger: o, Kept: o.kept, Progress: o.progress,
		Log: slog.New(slog.NewTextHandler(&o.troubles, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	o.tell(eventstest.ID(1), &events.LogOpened{Installation: eventstest.ID(1), Brand: "ww"})
	for _, id := range []token.ID{edge, other} {
		o.tell(id, &events.EnforcerEnrolled{Name: "e", Secret: token.Sum(id.String()), Nkey: receipt.FormatPublic(keyOf(id).Public().(ed25519.PublicKey))})
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the collector ended with %v", err)
		}
	})
	return o
}

func (o *office) tell(id token.ID, data events.Event) revocations.Event {
	o.t.Helper()
	o.ids++
	aggregate := data.EventName()[:bytes.IndexByte([]byte(data.EventName()), '.')]
	payload, c, err := events.Compose(o.at, []events.Draft{{
		Envelope: events.Envelope{
			ID: eventstest.ID(1000 + o.ids), Source: "watchword/test", Subject: aggregate + "/" + id.String(),
			Time: time.Now(), Actor: events.Actor{Kind: events.ActorSystem},
		},
		Data: data,
	}})
	if err != nil {
		o.t.Fatal(err)
	}
	if err := o.ledger.Connect().Append(o.t.Context(), o.at, c.Subject, payload); err != nil {
		o.t.Fatal(err)
	}
	o.at = c.End
	o.heads[c.Seq] = c.End
	r := &c.Records[0]
	return revocations.Event{Name: r.Name, Seq: c.Seq, Number: r.Number, Epoch: r.Epoch, Time: r.Time}
}

// sign makes the receipt of an instance that stands at the head of the ledger.
func (o *office) sign(of token.ID, name string, kind receipt.Kind) (receipt.Receipt, []byte) {
	o.t.Helper()
	if now := time.Now().Truncate(time.Millisecond); now.After(o.sent) {
		o.sent = now
	} else {
		o.sent = o.sent.Add(time.Millisecond)
	}
	r := receipt.Receipt{
		Enforcer: of, Instance: name, Kind: kind, Reader: 1, Bound: 10 * time.Second,
		Epoch: o.at.Epoch, Sequence: o.at.Seq, Number: o.at.Number, Head: o.at.Hash, AppliedAt: o.sent, SentAt: o.sent,
	}
	data, err := receipt.Sign(r, keyOf(of))
	if err != nil {
		o.t.Fatal(err)
	}
	return r, data
}

func (o *office) say(of token.ID, name string, kind receipt.Kind) {
	o.t.Helper()
	r, data := o.sign(of, name, kind)
	if err := o.Publish(o.t.Context(), r.Subject(), data); err != nil {
		o.t.Fatal(err)
	}
}

// Publish stores a receipt in its stream.
func (o *office) Publish(_ context.Context, subject string, data []byte) error {
	if len(subject) > 12 && subject[:12] == receipt.ProgressPrefix {
		o.progress.add(subject, data)
	} else {
		o.kept.add(subject, data)
	}
	return nil
}

// Enforcer is what the directory knows.
func (o *office) Enforcer(id token.ID) (aggregate.Enforcer, bool, error) {
	n := aggregate.Enforcer{ID: id, Nkey: receipt.FormatPublic(keyOf(id).Public().(ed25519.PublicKey))}
	if id == asker {
		n.Nkey = ""
	}
	return n, id == edge || id == other || id == asker, nil
}

// await waits until reports are as wanted.
func (o *office) await(e revocations.Event, ok func(revocations.Report) bool) revocations.Report {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), 20*time.Second)
	defer cancel()
	for {
		changed := o.p.Load().Changed()
		r, err := o.service.Report(e)
		if err != nil {
			o.t.Fatal(err)
		}
		if ok(r) {
			return r
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond): // the clock changes it too
		case <-ctx.Done():
			o.t.Fatalf("it stays %+v", r)
		}
	}
}

func TestCollects(t *testing.T) {
	o := open(t)
	o.say(edge, "a", receipt.Hello)
	o.say(other, "b", receipt.Hello)
	e := o.tell(eventstest.ID(50), &events.TokenRevoked{})
	o.await(e, func(r revocations.Report) bool {
		return r.Why == revocations.SomeWait && r.Counts[revocations.Waiting] == 2
	})
	o.say(edge, "a", receipt.Revocation)

	// Who waits is told as soon as it is complete.
	answers := make(chan revocations.Report, 1)
	go func() {
		r, err := o.service.Await(t.Context(), e)
		if err != nil {
			t.Error(err)
		}
		answers <- r
	}()
	o.say(other, "b", receipt.Progress)
	if r := <-answers; !r.Complete || r.Why != revocations.AllHeard || r.Counts[revocations.Applied] != 2 {
		t.Errorf("%+v", r)
	}
	// And no longer than they wish.
	next := o.tell(eventstest.ID(51), &events.TokenRevoked{})
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := o.service.Await(short, next); err != nil || r.Complete {
		t.Errorf("%+v, %v", r, err)
	}
	if n := len(o.service.Instances()); n != 2 || o.service.Applied() == 0 || o.service.Installation() != eventstest.ID(1) {
		t.Errorf("%d instances", n)
	}
}

// TestFlooded: whoever sends receipts without end does not keep a revocation from
// being complete. What was stored before is read, whatever comes after it.
func TestFlooded(t *testing.T) {
	o := open(t)
	o.say(edge, "a", receipt.Hello)
	o.kept.mu.Lock()
	o.kept.flooded = true
	o.kept.mu.Unlock()
	e := o.tell(eventstest.ID(50), &events.TokenRevoked{})
	o.say(edge, "a", receipt.Revocation)
	o.await(e, func(r revocations.Report) bool {
		o.kept.add("ww.receipt.nonsense", nil)
		return r.Complete && r.Why == revocations.AllHeard
	})
}

// TestEnrolledJustNow: a receipt may come before the projection has heard that
// its enforcer was enrolled, or of what it has applied.
func TestEnrolledJustNow(t *testing.T) {
	o := open(t)
	for i := range 20 {
		id := eventstest.ID(100 + i)
		e := o.tell(id, &events.EnforcerEnrolled{Name: "e", Secret: token.Sum(id.String()), Nkey: receipt.FormatPublic(keyOf(id).Public().(ed25519.PublicKey))})
		o.say(id, "x", receipt.Progress)
		o.await(e, func(revocations.Report) bool { return len(o.service.Instances()) == i+1 })
	}
	if refused := o.p.Load().Refused(); len(refused) != 0 {
		t.Errorf("refused %v", refused)
	}
}

// TestReplaced: a new generation of the projection gets all receipts again, and
// calls nothing complete before.
func TestReplaced(t *testing.T) {
	o := open(t)
	o.say(edge, "a", receipt.Hello)
	o.say(edge, "a", receipt.Progress)
	e := o.tell(eventstest.ID(50), &events.TokenRevoked{})
	o.say(edge, "a", receipt.Revocation)
	before := o.await(e, func(r revocations.Report) bool { return r.Complete })
	next := o.generation()
	if err := next.runner.Wait(t.Context(), e.Seq); err != nil {
		t.Fatal(err)
	}
	if r, err := next.Report(e, time.Now()); err != nil || r.Complete || r.Why != revocations.NotRead {
		t.Errorf("before its receipts: %+v, %v", r, err)
	}
	o.p.Store(next)
	after := o.await(e, func(r revocations.Report) bool { return r.Complete })
	if len(after.Instances) != 1 || after.Instances[0] != before.Instances[0] {
		t.Errorf("from %+v to %+v; refused %v", before, after, o.p.Load().Refused())
	}
}

// TestHeardWhileLooking: a receipt that is stored and read while a stream is asked
// how far it goes is no sign that the stream was made anew.
func TestHeardWhileLooking(t *testing.T) {
	o := open(t)
	o.say(edge, "a", receipt.Hello)
	e := o.tell(eventstest.ID(50), &events.TokenRevoked{})
	o.await(e, func(r revocations.Report) bool { return r.Why == revocations.SomeWait })
	asked := make(chan struct{})
	looks := 0
	_, data := o.sign(edge, "a", receipt.Progress)
	o.progress.mu.Lock()
	o.progress.said = func() {
		if looks++; looks == 2 { // what the first one has led to is over
			close(asked)
		}
		if looks > 1 {
			return
		}
		p := o.p.Load()
		from := p.Read(revocations.Progress)
		o.progress.add(receipt.ProgressPrefix+edge.String()+".a", data)
		for {
			changed := p.Changed()
			if p.Read(revocations.Progress) > from {
				return
			}
			<-changed
		}
	}
	o.progress.mu.Unlock()
	next := o.tell(eventstest.ID(51), &events.TokenRevoked{})
	<-asked
	if n := o.troubles.n.Load(); n != 0 {
		t.Errorf("%d times the receipts were not read", n)
	}
	o.say(edge, "a", receipt.Revocation)
	o.await(next, func(r revocations.Report) bool { return r.Complete })
}

// TestStreamMadeAnew: a stream that has lost everything begins again at one.
func TestStreamMadeAnew(t *testing.T) {
	o := open(t)
	for range 5 {
		o.say(edge, "a", receipt.Progress)
	}
	e := o.tell(eventstest.ID(50), &events.TokenRevoked{})
	o.await(e, func(r revocations.Report) bool { return r.Counts[revocations.Waiting] == 1 })
	o.progress.mu.Lock()
	o.progress.all, o.progress.fails = nil, 2
	o.progress.mu.Unlock()
	o.say(edge, "a", receipt.Progress)
	o.await(e, func(r revocations.Report) bool { return r.Complete })
}

// TestPost takes receipts over HTTP, and refuses what is not the asker's own.
func TestPost(t *testing.T) {
	o := open(t)
	o.service = receipts.New(receipts.Config{
		Projection: func() *revocations.Revocations { return o.p.Load().Revocations },
		Enforcers:  secrets{}, Directory: o, Publisher: o,
	})
	rt := web.NewRouter(web.Config{Format: token.Format{Brand: "ww"}, Log: slog.New(slog.DiscardHandler)})
	o.service.Routes(rt)
	server := httptest.NewServer(rt)
	defer server.Close()
	post := func(secret string, body []byte) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/v1/receipts", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+secret)
		res, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	_, good := o.sign(edge, "a", receipt.Progress)
	if status, body := post(edgeSecret, good); status != 200 || body != "{\"stored\":true}\n" {
		t.Fatalf("%d %s", status, body)
	}
	e := o.tell(eventstest.ID(50), &events.TokenRevoked{})
	r, bye := o.sign(edge, "a", receipt.Revocation)
	if status, body := post(edgeSecret, bye); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	o.await(e, func(r revocations.Report) bool { return r.Complete && r.Counts[revocations.Applied] == 1 })
	r.SentAt = r.SentAt.Add(-revocations.MaxSkew - time.Second)
	old, err := receipt.Sign(r, keyOf(edge))
	if err != nil {
		t.Fatal(err)
	}
	_, foreign := o.sign(other, "a", receipt.Progress)
	for name, c := range map[string]struct {
		secret string
		body   []byte
		status int
	}{
		"no key":             {"wwe_nobody", good, 401},
		"another's receipt":  {edgeSecret, foreign, 400},
		"another's key":      {otherSecret, good, 400},
		"forged":             {edgeSecret, bytes.Replace(good, []byte(`"a"`), []byte(`"b"`), 1), 400},
		"nothing":            {edgeSecret, nil, 400},
		"too long":           {edgeSecret, bytes.Repeat([]byte(" "), web.MaxBody+1), 413},
		"of another time":    {edgeSecret, old, 400},
		"enrolled by HTTP":   {askerSecret, good, 400},
		"a token's, no less": {"wwu_" + edgeSecret[4:], good, 401},
	} {
		before, _ := o.progress.Last(t.Context())
		if status, body := post(c.secret, c.body); status != c.status {
			t.Errorf("%s: %d %s", name, status, body)
		}
		if now, _ := o.progress.Last(t.Context()); now != before {
			t.Errorf("%s: was published", name)
		}
	}
}

// The secrets of the enforcers.
const (
	edgeSecret  = "wwe_edge00000000000000000000000000000000000000000"
	otherSecret = "wwe_other0000000000000000000000000000000000000000"
	askerSecret = "wwe_asker0000000000000000000000000000000000000000"
)

type secrets struct{}

func (secrets) Enforcer(secret string) (verifyindex.EnforcerInfo, token.Reason) {
	id, ok := map[string]token.ID{edgeSecret: edge, otherSecret: other, askerSecret: asker}[secret]
	if !ok {
		return verifyindex.EnforcerInfo{}, token.ReasonUnknown
	}
	return verifyindex.EnforcerInfo{ID: id}, token.ReasonNone
}
