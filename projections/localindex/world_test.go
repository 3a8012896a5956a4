package localindex

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/enforcer"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/projector/snapshot"
	"watchword.dev/projections/verifyindex"
)

var (
	self = eventstest.ID(11)
	key  = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
)

const accountType = "com.cloudflare.api.account."

// world is a ledger that tells a story, and at its end of an enforcer and of a
// token that may do one thing.
type world struct {
	*testing.T
	rng    *rand.Rand
	story  *projectiontest.Story
	ledger *eventstest.Ledger
	clock  *eventstest.Clock
	box    *box

	token   token.ID
	secret  string
	ask     token.Request
	drafted int
}

func newWorld(t *testing.T, commits int) *world {
	t.Helper()
	rng := projectiontest.Seed(t)
	w := &world{T: t, rng: rng, story: projectiontest.Tell(rng, commits), ledger: eventstest.NewLedger(), clock: new(eventstest.Clock), box: &box{T: t}, token: eventstest.ID(13)}
	w.clock.Advance(w.story.Now.Sub(eventstest.Epoch) + time.Minute)
	account := eventstest.ID(12)
	w.draft("account", account, &events.AccountCreated{Name: "mine"})
	w.draft("enforcer", self, &events.EnforcerEnrolled{Name: "edge", Secret: token.Sum(w.newSecret(token.KindEnforcer)), Nkey: receipt.FormatPublic(key.Public().(ed25519.PublicKey)), CeilingSeconds: 20})
	group := w.story.Catalogue.Filter("", "com.cloudflare.api.account")[0]
	resources, err := json.Marshal(map[string]string{accountType + account.String(): "*"})
	if err != nil {
		t.Fatal(err)
	}
	grant, err := token.Grant{Policies: []token.Policy{{
		ID: eventstest.ID(14), Effect: token.EffectAllow, Resources: jsontext.Value(resources), Groups: []token.GroupRef{{ID: group.ID}},
	}}}.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	w.secret = w.newSecret(token.KindAccount)
	w.ask = token.Request{Permission: group.Permissions[0], Resource: []string{accountType + account.String()}, Address: netip.MustParseAddr("192.0.2.1")}
	w.draft("token", w.token, &events.TokenCreated{Name: "t", OwnerKind: events.OwnedByAccount, Owner: account, Secret: token.Sum(w.secret), Grant: grant}, account)
	w.story.Publish(t, w.ledger.Connect(), 0)
	return w
}

func (w *world) newSecret(k token.Kind) string { return projectiontest.NewSecret(w.rng, k) }

// draft adds a commit of one event to the story.
func (w *world) draft(aggregate string, id token.ID, data events.Event, account ...token.ID) {
	w.drafted++
	d := events.Draft{Data: data}
	d.ID, d.Source, d.Subject, d.Time = eventstest.ID(1000+w.drafted), "watchword/test", aggregate+"/"+id.String(), w.clock.Now()
	d.Actor = events.Actor{Kind: events.ActorSystem}
	if len(account) > 0 {
		d.Account = account[0]
	}
	w.story.Append(d)
}

// happen adds a commit to the ledger too.
func (w *world) happen(aggregate string, id token.ID, data events.Event, account ...token.ID) {
	w.Helper()
	before := w.story.At.Seq
	w.draft(aggregate, id, data, account...)
	w.story.Publish(w.T, w.ledger.Connect(), before)
}

func (w *world) revoke() {
	w.happen("token", w.token, &events.TokenRevoked{Reason: "test"}, eventstest.ID(12))
}

// box takes receipts.
type box struct {
	*testing.T
	mu   sync.Mutex
	all  []receipt.Receipt
	fail bool
	came chan struct{} // closed at the next one, unless nil
}

func (b *box) Publish(_ context.Context, subject string, data []byte) error {
	r, err := receipt.Open(data, key.Public().(ed25519.PublicKey))
	if err != nil || r.Subject() != subject || r.Enforcer != self {
		b.Errorf("a receipt on %s: %+v, %v", subject, r, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail {
		return errors.New("not now")
	}
	b.all = append(b.all, r)
	if b.came != nil {
		close(b.came)
		b.came = nil
	}
	return nil
}

func (b *box) set(fail bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = fail
}

// await waits for a receipt of a kind at or behind a sequence.
func (b *box) await(kind receipt.Kind, seq uint64) receipt.Receipt {
	b.Helper()
	for {
		b.mu.Lock()
		for _, r := range b.all {
			if r.Kind == kind && r.Sequence >= seq {
				b.mu.Unlock()
				return r
			}
		}
		came := b.came
		if came == nil {
			came = make(chan struct{})
			b.came = came
		}
		b.mu.Unlock()
		select {
		case <-came:
		case <-b.Context().Done():
			b.Fatalf("no receipt of kind %s", kind)
		}
	}
}

// config is that of an index in dir.
func (w *world) config(dir string, change ...func(*Config)) Config {
	cfg := Config{
		Dir: dir, Enforcer: self, Key: key, Publisher: w.box, Region: "eu", MemoryBytes: 64 << 20,
		Now: w.clock.Now, Log: slog.New(slog.DiscardHandler), again: time.Millisecond,
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// running is an index that runs.
type running struct {
	*Index
	w     *world
	guard *enforcer.Enforcer
	heard chan enforcer.Revocation
	stop  context.CancelFunc
	ended chan error
}

func (w *world) open(dir string, change ...func(*Config)) *Index {
	w.Helper()
	x, err := Open(w.Context(), w.config(dir, change...))
	if err != nil {
		w.Fatal(err)
	}
	return x
}

// run opens and runs an index; it is closed with the test.
func (w *world) run(dir string, change ...func(*Config)) *running {
	w.Helper()
	r := &running{Index: w.open(dir, change...), w: w, heard: make(chan enforcer.Revocation, 999), ended: make(chan error, 1)}
	var err error
	if r.guard, err = enforcer.New(enforcer.Config{Decider: r.Index, OnRevoked: func(v enforcer.Revocation) { r.heard <- v }}); err != nil {
		w.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.ended <- r.Run(ctx, w.ledger.Connect(), r.guard) }()
	w.Cleanup(func() {
		if r.stop != nil {
			r.close()
		}
	})
	return r
}

// close ends it and returns the rows.
func (r *running) close() string {
	r.w.Helper()
	r.stop()
	r.stop = nil
	if err := <-r.ended; !errors.Is(err, context.Canceled) && !errors.Is(err, ErrRetired) && !errors.Is(err, events.ErrUnknown) {
		r.w.Errorf("it ended with %v", err)
	}
	if err := r.Close(); err != nil {
		r.w.Error(err)
	}
	return r.w.rows(r.cfg.Dir)
}

// rows are those of the index in dir.
func (w *world) rows(dir string) string {
	w.Helper()
	current, err := projector.Home{Dir: dir}.Current()
	if err != nil {
		w.Fatal(err)
	}
	s, err := projector.OpenStore(projector.StoreOptions{Dir: current, Name: verifyindex.Name, Version: verifyindex.Version})
	if err != nil {
		w.Fatal(err)
	}
	defer s.Close()
	return projectiontest.Dump(w.T, s.DB())
}

// pulse lets the pen vouch for the end of the ledger.
func (r *running) pulse() {
	at, now := r.w.story.At, r.w.clock.Now()
	r.Observe(events.Pulse{Term: 1, Epoch: at.Epoch, Sequence: at.Seq, Number: at.Number, Chain: at.Hash.String(), Time: now}, now)
}

// answers pulses until the index answers for the first time.
func (r *running) answers() {
	r.w.Helper()
	r.reach()
	r.pulse()
	select {
	case <-r.Ready():
	case err := <-r.ended:
		r.w.Fatalf("it ended with %v", err)
	case <-r.w.Context().Done():
		r.w.Fatal("it does not get ready")
	}
	r.gives(token.ReasonNone)
}

// reach waits until the index has applied the ledger, in whichever generation.
func (r *running) reach() {
	r.w.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for r.Position().Seq != r.w.story.At.Seq || r.Position().Hash != r.w.story.At.Hash {
		select {
		case <-tick.C:
		case err := <-r.ended:
			r.w.Fatalf("it ended with %v", err)
		}
	}
}

// gives asks for what the token may do.
func (r *running) gives(reason token.Reason) {
	r.w.Helper()
	if d := r.Verify(r.w.secret, &r.w.ask); d.Reason != reason || d.Verdict != reason.Verdict() {
		r.w.Errorf("it answers %v %v, want %v", d.Verdict, d.Reason, reason)
	}
}

// shelf gives snapshots as bytes, one after the other; the last one again.
type shelf struct {
	mu    sync.Mutex
	gives []any // []byte or error
	asked int
}

func (s *shelf) Snapshot(context.Context) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gives[min(s.asked, len(s.gives)-1)]
	s.asked++
	switch g := g.(type) {
	case []byte:
		return io.NopCloser(bytes.NewReader(g)), nil
	case io.Reader:
		return io.NopCloser(g), nil
	}
	return nil, g.(error)
}

func (s *shelf) config(c *Config) { c.Snapshots = s }

// snapshot is that of a verifier which has applied so much of the story.
func (w *world) snapshot(seq uint64) []byte {
	w.Helper()
	x, err := verifyindex.Open(verifyindex.Options{Dir: filepath.Join(w.TempDir(), "verifier"), MemoryBytes: 64 << 20})
	if err != nil {
		w.Fatal(err)
	}
	defer x.Close()
	projectiontest.ApplyAll(w.T, w.rng, x, w.story.Commits[:seq])
	return w.taken(x)
}

func (w *world) taken(x snapshot.Source) []byte {
	w.Helper()
	s, err := snapshot.Take(x, filepath.Join(w.TempDir(), fmt.Sprint("taken-", w.rng.Uint64())))
	if err != nil {
		w.Fatal(err)
	}
	b, err := io.ReadAll(s.Open())
	if err != nil {
		w.Fatal(err)
	}
	return b
}
