package localindex

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/enforcer"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/projector/snapshot"
	"watchword.dev/projections/verifyindex"
)

// TestSnapshotIsReplay: an index through a snapshot and the rest of the ledger has
// the same rows as one through all of the ledger.
func TestSnapshotIsReplay(t *testing.T) {
	w := newWorld(t, 150)
	want := func() string {
		r := w.run(t.TempDir())
		r.answers()
		return r.close()
	}()
	for _, seq := range []uint64{1, 40, 149, w.story.At.Seq} {
		s := &shelf{gives: []any{w.snapshot(seq)}}
		dir := t.TempDir()
		r := w.run(dir, s.config)
		r.answers()
		if r.loaded.Seq != seq || s.asked != 1 {
			t.Errorf("began at %d, asked %d times", r.loaded.Seq, s.asked)
		}
		if got := r.close(); got != want {
			t.Errorf("from %d the rows differ", seq)
		}
		// A restart needs nobody, and goes on where it was.
		r = w.run(dir, s.config)
		if got := r.Position(); got.Seq != w.story.At.Seq {
			t.Errorf("after a restart at %d", got.Seq)
		}
		r.answers()
		r.close()
		if s.asked != 1 {
			t.Error("a restart asks for a snapshot")
		}
		if left, err := os.ReadDir(dir); len(left) != 2 || err != nil { // CURRENT and a generation
			t.Errorf("left: %v %v", left, err)
		}
	}
}

// TestRefusedSnapshots: what is not whole, and what is of another ledger or
// version, is thrown away, and the ledger is read.
func TestRefusedSnapshots(t *testing.T) {
	w := newWorld(t, 120)
	good := w.snapshot(100)
	edited := bytes.Clone(good)
	edited[len(edited)/2] ^= 1
	older, err := projector.OpenStore(projector.StoreOptions{Dir: filepath.Join(t.TempDir(), "older"), Name: verifyindex.Name, Version: verifyindex.Version - 1})
	if err != nil {
		t.Fatal(err)
	}
	defer older.Close()
	if err := older.Commit(older.DB().NewBatch(), w.story.Commits[99].End); err != nil {
		t.Fatal(err)
	}
	other := newWorld(t, 130)
	replayed := w.run(t.TempDir())
	replayed.answers()
	want := replayed.close()
	for _, c := range []struct {
		name  string
		gives []any
		asked int
		from  uint64
	}{
		{"truncated", []any{good[:len(good)-1]}, snapshotTries, 0},
		{"edited", []any{edited}, snapshotTries, 0},
		{"nobody has one", []any{errors.New("503")}, snapshotTries, 0},
		{"another version", []any{w.taken(oldIndex{older})}, 1, 0},
		{"edited once", []any{edited, good}, 2, 100},
		{"the server dies in the middle", []any{io.MultiReader(bytes.NewReader(good[:len(good)/2]), iotest.ErrReader(io.ErrUnexpectedEOF)), good}, 2, 100},
		{"another ledger", []any{other.snapshot(90)}, 1, 90},
		{"another ledger, to its head", []any{other.snapshot(w.story.At.Seq)}, 1, w.story.At.Seq},
		{"beyond the head", []any{other.snapshot(other.story.At.Seq)}, 1, other.story.At.Seq},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &shelf{gives: c.gives}
			w := *w
			w.T, w.box = t, &box{T: t}
			dir := t.TempDir()
			r := w.run(dir, s.config)
			if s.asked != c.asked || r.loaded.Seq != c.from {
				t.Errorf("asked %d times, began at %d", s.asked, r.loaded.Seq)
			}
			r.answers()
			if d := r.Verify(w.secret, &w.ask); d.Sequence != w.story.At.Seq {
				t.Errorf("answers by %d", d.Sequence)
			}
			if r.close() != want {
				t.Error("the rows are not those of a replay")
			}
			if left, err := os.ReadDir(dir); len(left) != 2 || err != nil {
				t.Errorf("left: %v %v", left, err)
			}
		})
	}
}

// oldIndex is a store of an older version.
type oldIndex struct{ *projector.Store }

func (oldIndex) Name() string { return verifyindex.Name }
func (oldIndex) Version() int { return verifyindex.Version - 1 }

var _ snapshot.Source = oldIndex{}

// TestDamagedStore: a store that cannot be used is made anew.
func TestDamagedStore(t *testing.T) {
	w := newWorld(t, 60)
	dir := t.TempDir()
	r := w.run(dir)
	r.answers()
	r.close()
	current, err := projector.Home{Dir: dir}.Current()
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := filepath.Glob(filepath.Join(current, "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatal(manifests, err)
	}
	for _, m := range manifests {
		if err := os.WriteFile(m, bytes.Repeat([]byte{0xff}, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &shelf{gives: []any{w.snapshot(50)}}
	again := w.run(dir, s.config)
	again.answers()
	if again.loaded.Seq != 50 {
		t.Errorf("began at %d", again.loaded.Seq)
	}
}

// TestRevocation: what is revoked is refused, cut and told, and then reported.
func TestRevocation(t *testing.T) {
	w := newWorld(t, 60)
	r := w.run(t.TempDir())
	r.answers()
	id, refusal := r.guard.Check(t.Context(), w.secret, w.ask.Permission, w.ask.Resource, w.ask.Address)
	if refusal != nil || id.Token != w.token || id.Bound > 20*time.Second {
		t.Fatalf("%+v, %v", id, refusal)
	}
	ctx, stop := id.Bind(t.Context())
	defer stop()
	w.revoke()
	seq := w.story.At.Seq
	got := w.box.await(receipt.Revocation, seq)
	if got.Sequence != seq || got.Head != w.story.At.Hash || got.Region != "eu" || got.Bound != 5*time.Minute {
		t.Errorf("receipt %+v", got)
	}
	r.gives(token.ReasonRevoked)
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), enforcer.ErrEnded) {
		t.Error(context.Cause(ctx))
	}
	for v := range r.heard { // of those before it, too
		if v.ID == w.token {
			if v.Sequence != seq {
				t.Errorf("heard of %+v", v)
			}
			break
		}
	}
	r.close()
	if bye := w.box.await(receipt.Bye, seq); bye.Instance != got.Instance {
		t.Errorf("bye %+v", bye)
	}
	if d := r.Verify(w.secret, &w.ask); d.Verdict != token.VerdictUnavailable {
		t.Errorf("after its end %+v", d)
	}
}

// TestStale: without a pulse it answers until the bound, which the enrolment has
// set, and again after the next one.
func TestStale(t *testing.T) {
	w := newWorld(t, 60)
	r := w.run(t.TempDir(), func(c *Config) {
		c.Bounds = verifyindex.Bounds{Read: time.Hour, Write: time.Hour, Admin: time.Hour}
	})
	r.answers()
	w.clock.Advance(20 * time.Second)
	r.gives(token.ReasonNone)
	w.clock.Advance(time.Millisecond)
	r.gives(token.ReasonStale)
	r.pulse()
	r.gives(token.ReasonNone)
}

// TestCounted: nothing is answered before the hello is stored, and while nobody
// waits for this process.
func TestCounted(t *testing.T) {
	w := newWorld(t, 60)
	w.box.set(true)
	r := w.run(t.TempDir())
	r.reach()
	r.pulse()
	r.gives(token.ReasonNotReady)
	select {
	case <-r.Ready():
		t.Error("ready without a hello")
	default:
	}
	w.box.set(false)
	r.answers()
	hello := w.box.await(receipt.Hello, w.story.At.Seq)
	if hello.Sequence != w.story.At.Seq {
		t.Errorf("hello %+v", hello)
	}
	w.box.set(true)
	w.clock.Advance(receipt.Lease + 5*time.Minute)
	r.pulse()
	r.gives(token.ReasonNone)
	w.clock.Advance(time.Millisecond)
	r.pulse()
	r.gives(token.ReasonNotReady)
	w.box.set(false)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := 0; r.Verify(w.secret, &w.ask).Verdict != token.VerdictAllow; i++ {
		if i == 20_000 {
			t.Fatal("it is never counted again")
		}
		w.clock.Advance(10 * time.Second) // beyond the pause between two attempts
		w.happen("account", eventstest.ID(5000+i), &events.AccountCreated{Name: "x"})
		r.pulse()
		<-tick.C
	}
}

// TestRetired: an enforcer that hears of its own retirement refuses everything
// from then on, also after a restart, and what is bound ends.
func TestRetired(t *testing.T) {
	w := newWorld(t, 60)
	dir := t.TempDir()
	r := w.run(dir)
	r.answers()
	id, refusal := r.guard.Check(t.Context(), w.secret, w.ask.Permission, w.ask.Resource, w.ask.Address)
	if refusal != nil {
		t.Fatal(refusal)
	}
	ctx, stop := id.Bind(t.Context())
	defer stop()
	w.happen("enforcer", self, &events.EnforcerRetired{Reason: "test"})
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), enforcer.ErrUnavailable) {
		t.Error(context.Cause(ctx))
	}
	r.pulse()
	r.gives(token.ReasonNotReady)
	if err := <-r.ended; !errors.Is(err, ErrRetired) {
		t.Errorf("it ended with %v", err)
	}
	r.ended <- ErrRetired
	r.close()
	again := w.run(dir)
	again.pulse()
	if err := <-again.ended; !errors.Is(err, ErrRetired) || !again.Retired() {
		t.Errorf("it ended with %v", err)
	}
	again.ended <- ErrRetired
	again.gives(token.ReasonNotReady)
}

// TestNotEnrolled: nobody verifies in a name that the ledger does not know.
func TestNotEnrolled(t *testing.T) {
	w := newWorld(t, 30)
	x := w.open(t.TempDir(), func(c *Config) { c.Enforcer, c.Publisher = eventstest.ID(99), takesAll{} })
	defer x.Close()
	r := &running{Index: x, w: w}
	ended := make(chan error, 1)
	go func() { ended <- x.Run(t.Context(), w.ledger.Connect()) }()
	if err := x.wait(t.Context(), w.story.At.Seq); err != nil {
		t.Fatal(err)
	}
	r.pulse()
	if err := <-ended; !errors.Is(err, ErrNotEnrolled) {
		t.Errorf("it ended with %v", err)
	}
	r.gives(token.ReasonNotReady)
}

type takesAll struct{}

func (takesAll) Publish(context.Context, string, []byte) error { return nil }

// wait polls: before Run there is nobody to wait by.
func (x *Index) wait(ctx context.Context, seq uint64) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for x.Position().Seq < seq {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// TestUnknownEvent: an event that this program does not know stops everything.
func TestUnknownEvent(t *testing.T) {
	w := newWorld(t, 30)
	r := w.run(t.TempDir())
	r.answers()
	at := w.story.At
	w.draft("account", eventstest.ID(66), &events.AccountCreated{Name: "y"})
	payload := bytes.ReplaceAll(w.story.Payloads[len(w.story.Payloads)-1], []byte("account.created.v1"), []byte("account.teleported.v1"))
	if err := w.ledger.Connect().Append(t.Context(), at, events.SubjectPrefix+"account.teleported", payload); err != nil {
		t.Fatal(err)
	}
	err := <-r.ended
	if !errors.Is(err, events.ErrUnknown) {
		t.Errorf("it ended with %v", err)
	}
	r.ended <- err
	r.gives(token.ReasonNotReady)
}

// TestFeedFails: a feed that fails for a reason of its own is read on.
func TestFeedFails(t *testing.T) {
	w := newWorld(t, 30)
	log := w.ledger.Connect()
	log.Inject(eventstest.OpRead, eventstest.Fault{Err: errors.New("the network")})
	log.Inject(eventstest.OpHead, eventstest.Fault{Err: errors.New("the network")})
	x := w.open(t.TempDir())
	r := &running{Index: x, w: w, ended: make(chan error, 1)}
	ctx, stop := context.WithCancel(t.Context())
	go func() { r.ended <- x.Run(ctx, log) }()
	r.answers()
	stop()
	if err := <-r.ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

// TestConfig: what is missing is found at once.
func TestConfig(t *testing.T) {
	w := newWorld(t, 10)
	for name, change := range map[string]func(*Config){
		"no directory": func(c *Config) { c.Dir = "" }, "no enforcer": func(c *Config) { c.Enforcer = token.ID{} },
		"no key": func(c *Config) { c.Key = nil }, "no publisher": func(c *Config) { c.Publisher = nil },
		"a bound of days": func(c *Config) { c.Bounds.Read = 48 * time.Hour },
	} {
		if x, err := Open(t.Context(), w.config(t.TempDir(), change)); err == nil {
			t.Errorf("%s: %v", name, x.Close())
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	s := &shelf{gives: []any{errors.New("no")}}
	if _, err := Open(ctx, w.config(t.TempDir(), s.config)); !errors.Is(err, context.Canceled) {
		t.Errorf("opened without time: %v", err)
	}
}

// TestAllocations: an answer costs none.
func TestAllocations(t *testing.T) {
	w := newWorld(t, 30)
	r := w.run(t.TempDir())
	r.answers()
	if n := testing.AllocsPerRun(1000, func() { r.Verify(w.secret, &w.ask) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
