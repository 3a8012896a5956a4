package revocations

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
	"watchword.dev/projections/projector"
)

var _ projector.Owned = (*Revocations)(nil)

// dishonest are receipts that no honest instance sends, made of a good one.
var dishonest = []struct {
	name string
	of   token.ID // under whom it is counted
	want Reason
	make func(w *world, good receipt.Receipt) Message
}{
	{"forged", edge, Signature, func(w *world, r receipt.Receipt) Message {
		m := w.message(r)
		m.Data = bytes.Replace(m.Data, []byte(`"region":"eu"`), []byte(`"region":"us"`), 1)
		return m
	}},
	{"signed by another enforcer", edge, Signature, func(w *world, r receipt.Receipt) Message {
		data, err := receipt.Sign(r, keyOf(shop))
		if err != nil {
			w.t.Fatal(err)
		}
		return w.stored(Kept, r.Subject(), data)
	}},
	{"another enforcer's, on its own subject", shop, Signature, func(w *world, r receipt.Receipt) Message {
		m := w.message(r)
		m.Subject = strings.Replace(m.Subject, edge.String(), shop.String(), 1)
		return m
	}},
	{"no receipt", edge, Signature, func(w *world, r receipt.Receipt) Message {
		return w.stored(Kept, r.Subject(), []byte("secret-looking payload"))
	}},
	{"another instance's", edge, OtherName, func(w *world, r receipt.Receipt) Message {
		m := w.message(r)
		m.Subject = strings.Replace(m.Subject, ".a", ".b", 1)
		return m
	}},
	{"a sign of life among what is kept", edge, OtherName, func(w *world, r receipt.Receipt) Message {
		m := w.message(r)
		r.Kind = receipt.Progress
		p := w.message(r)
		m.Data = p.Data
		return m
	}},
	{"of nobody", token.ID{}, Unknown, func(w *world, r receipt.Receipt) Message {
		r.Enforcer = eventstest.ID(99)
		return w.message(r)
	}},
	{"of one without a key", token.ID{}, Unknown, func(w *world, r receipt.Receipt) Message {
		r.Enforcer = asker
		return w.message(r)
	}},
	{"on a strange subject", token.ID{}, Malformed, func(w *world, r receipt.Receipt) Message {
		m := w.message(r)
		m.Subject = "ww.receipt.secret-looking"
		return m
	}},
	{"from the future", edge, Clock, func(w *world, r receipt.Receipt) Message {
		r.SentAt = w.now.Add(MaxSkew + time.Second)
		return w.message(r)
	}},
	{"stored long after", edge, Clock, func(w *world, r receipt.Receipt) Message {
		r.SentAt = w.now.Add(-MaxSkew - time.Second)
		return w.message(r)
	}},
	{"beyond the head", edge, Ahead, func(w *world, r receipt.Receipt) Message {
		r.Sequence, r.Number = r.Sequence+1, r.Number+1
		return w.message(r)
	}},
	{"of an epoch to come", edge, Ahead, func(w *world, r receipt.Receipt) Message {
		r.Epoch++
		return w.message(r)
	}},
	{"of another ledger", edge, Chain, func(w *world, r receipt.Receipt) Message {
		r.Head[0]++
		return w.message(r)
	}},
	{"of another number", edge, Chain, func(w *world, r receipt.Receipt) Message {
		r.Number++
		return w.message(r)
	}},
	{"replayed", edge, Replayed, func(w *world, r receipt.Receipt) Message {
		r.SentAt = r.SentAt.Add(-time.Millisecond)
		r.Kind = receipt.Revocation
		before := w.message(r)
		w.hear(before)
		return w.stored(before.Stream, before.Subject, before.Data)
	}},
	{"an older one", edge, Replayed, func(w *world, r receipt.Receipt) Message {
		older := r
		older.SentAt = r.SentAt.Add(-20 * time.Millisecond)
		return w.message(older)
	}},
}

// TestRefused sends what no honest instance sends. Nothing of it moves the
// instance, each is counted under its reason, and no log line repeats any of it.
func TestRefused(t *testing.T) {
	for _, c := range dishonest {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.hello(edge, "a")
			w.pass(10 * time.Millisecond)
			e := w.revoke()
			m := c.make(w, w.receipt(edge, "a", receipt.Revocation, e.Seq))
			state := w.p.Instances(w.now)
			w.hear(m)
			if got := w.p.Refused()[c.want][c.of]; got != 1 || len(w.p.Refused()) != 1 {
				t.Errorf("refused: %v", w.p.Refused())
			}
			if got := w.p.Instances(w.now); len(got) != 1 || got[0] != state[0] {
				t.Errorf("from %+v to %+v", state, got)
			}
			line := w.log.String()
			if strings.Count(line, "\n") != 1 || !strings.Contains(line, "reason="+string(c.want)) || strings.Contains(line, "secret-looking") {
				t.Errorf("log: %s", line)
			}
			// The counts survive, and the message is not heard twice.
			w.hear(m)
			if err := w.p.Close(); err != nil {
				t.Fatal(err)
			}
			w.open()
			if got := w.p.Refused()[c.want][c.of]; got != 1 {
				t.Errorf("after a restart: %v", w.p.Refused())
			}
		})
	}
}

// TestAfterBye: an instance that has stopped says nothing more. A sign of life
// from before, read after it, is no offence.
func TestAfterBye(t *testing.T) {
	w := newWorld(t)
	w.hello(edge, "a")
	w.pass(time.Millisecond)
	before := w.message(w.receipt(edge, "a", receipt.Progress, w.at.Seq))
	w.say(edge, "a", receipt.Bye, w.at.Seq)
	w.hear(before)
	if n := len(w.p.Refused()); n != 0 {
		t.Errorf("refused %v", w.p.Refused())
	}
	if got := w.p.Instances(w.now); got[0].State != Gone {
		t.Errorf("%+v", got)
	}
	w.say(edge, "a", receipt.Progress, w.at.Seq)
	w.say(edge, "a", receipt.Revocation, w.at.Seq)
	if got := w.refusals(); got[Stopped] != 2 {
		t.Errorf("refused %v", got)
	}
}

// TestWaitsForTheLedger: what a later event may explain is not judged before
// the ledger was applied to its head.
func TestWaitsForTheLedger(t *testing.T) {
	w := newWorld(t)
	w.hello(edge, "a")
	w.pass(time.Millisecond)
	known := w.message(w.receipt(edge, "a", receipt.Progress, w.at.Seq))
	fresh := eventstest.ID(5)
	enrolled := w.compose(fresh, &events.EnforcerEnrolled{Name: "new", Secret: token.Sum("new"), Nkey: receipt.FormatPublic(publicOf(fresh))})
	unknown := w.message(w.receipt(fresh, "n", receipt.Progress, enrolled.Seq-1))
	revoked := w.compose(eventstest.ID(50), &events.TokenRevoked{})
	w.pass(time.Millisecond)
	ahead := w.message(w.receipt(edge, "a", receipt.Revocation, revoked.Seq))
	all := []Message{known, unknown, ahead}
	hear := func(want int) {
		t.Helper()
		n, err := w.p.Hear(all, false)
		if err != nil || n != want {
			t.Fatalf("heard %d, %v; want %d", n, err, want)
		}
		all = all[n:]
	}
	hear(1)
	hear(0)
	apply := func(c events.Commit) {
		t.Helper()
		changed := w.p.Changed()
		if err := w.p.Apply([]events.Commit{c}); err != nil {
			t.Fatal(err)
		}
		<-changed
	}
	apply(enrolled)
	hear(1)
	hear(0)
	apply(revoked)
	hear(1)
	if len(w.p.Refused()) != 0 || len(w.p.Instances(w.now)) != 2 {
		t.Errorf("refused %v, instances %+v", w.p.Refused(), w.p.Instances(w.now))
	}
}

// TestStreamsOutOfStep: the two streams of an instance are read one after the
// other, and the better time wins whichever comes first.
func TestStreamsOutOfStep(t *testing.T) {
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		w := newWorld(t)
		w.hello(edge, "a")
		e := w.revoke()
		w.tell(eventstest.ID(77), &events.AccountCreated{})
		w.pass(3 * time.Millisecond)
		quick := w.message(w.receipt(edge, "a", receipt.Revocation, e.Seq))
		w.pass(time.Second)
		slow := w.message(w.receipt(edge, "a", receipt.Progress, w.at.Seq))
		both := []Message{quick, slow}
		w.hear(both[order[0]], both[order[1]])
		r := w.want(e, true, AllHeard, "a applied")
		if r.Max != 3*time.Millisecond || r.Instances[0].Seq != w.at.Seq {
			t.Errorf("order %v: %+v", order, r.Instances)
		}
	}
}

// TestBurst revokes 100,000 tokens at once. What is written follows the number
// of receipts, not that of revocations times instances.
func TestBurst(t *testing.T) {
	const revoked, instances, receipts = 100_000, 20, 5
	w := newWorld(t)
	for i := range instances {
		w.hello(edge, fmt.Sprint("i", i))
	}
	var first, last Event
	for range revoked / 1000 {
		var batch []events.Commit
		for range 1000 {
			w.ids++
			batch = append(batch, w.compose(eventstest.ID(100000+w.ids), &events.TokenRevoked{}))
		}
		if err := w.p.Apply(batch); err != nil {
			t.Fatal(err)
		}
		r := &batch[len(batch)-1].Records[0]
		last = Event{Name: r.Name, Seq: r.Seq, Number: r.Number, Epoch: 1, Time: r.Time}
		if first.Seq == 0 {
			first = Event{Name: r.Name, Seq: batch[0].Seq, Number: batch[0].Records[0].Number, Epoch: 1, Time: r.Time}
		}
	}
	for n := range receipts {
		w.pass(time.Second)
		for i := range instances {
			w.say(edge, fmt.Sprint("i", i), receipt.Revocation, first.Seq+(last.Seq-first.Seq)*uint64(n+1)/receipts)
		}
	}
	w.pass(time.Second)
	for i := range instances { // nothing new in these
		w.say(edge, fmt.Sprint("i", i), receipt.Revocation, last.Seq)
		w.say(edge, fmt.Sprint("i", i), receipt.Progress, last.Seq)
	}
	if marks := strings.Count(w.dump(), "\n\"a"); marks != instances*(receipts+1) {
		t.Errorf("%d marks, want %d", marks, instances*(receipts+1))
	}
	r := w.report(first)
	if !r.Complete || r.Counts[Applied] != instances || r.Max > 2*time.Second {
		t.Errorf("the first: %+v", r.Counts)
	}
	r = w.report(last)
	if !r.Complete || r.Counts[Applied] != instances || r.Max < 5*time.Second || r.Max > 6*time.Second {
		t.Errorf("the last: complete %v, slowest %v", r.Complete, r.Max)
	}
}

// TestForgets: marks and instances of long ago go away, and what they told is
// then known without its time.
func TestForgets(t *testing.T) {
	w := newWorld(t)
	w.hello(edge, "a")
	w.hello(edge, "short")
	e := w.revoke()
	w.say(edge, "a", receipt.Revocation, e.Seq)
	w.pass(KeepMarks + time.Hour)
	later := w.revoke()
	w.say(edge, "a", receipt.Revocation, later.Seq)
	if marks := strings.Count(w.dump(), "\n\"a"); marks != 2 { // of "short" and the newest of "a"
		t.Errorf("%d marks", marks)
	}
	r := w.want(e, true, AllHeard, "a applied", "short lease_over")
	if !r.Instances[0].AppliedAt.IsZero() || r.Max != 0 {
		t.Errorf("%+v", r)
	}
	if r = w.want(later, true, AllHeard, "a applied"); r.Max != time.Millisecond {
		t.Errorf("%+v", r)
	}
	w.pass(keepStopped)
	w.say(edge, "a", receipt.Progress, later.Seq)
	w.hello(edge, "new")
	if got := w.p.Instances(w.now); len(got) != 2 || strings.Contains(w.dump(), "short") {
		t.Errorf("%+v", got)
	}
}

// TestNewest finds what a token's owner asks for.
func TestNewest(t *testing.T) {
	w := newWorld(t)
	one, user, account := eventstest.ID(60), eventstest.ID(61), eventstest.ID(62)
	w.tell(one, &events.TokenUpdated{Name: "n"})
	rolled := w.tell(one, &events.TokenRolled{})
	w.tell(eventstest.ID(63), &events.TokenRevoked{}) // another's
	w.tell(one, &events.TokenEnabled{})               // takes nothing away
	left := w.tell(eventstest.ID(64), &events.MemberRemoved{User: user, Account: account})
	gone := w.tell(user, &events.UserRemoved{})
	closed := w.tell(account, &events.AccountRemoved{})
	swept := w.tell(eventstest.ID(65), &events.RevocationSwept{By: events.SweepOwner, Selected: user.String(), Through: 7})
	swept.Through = 7
	for _, c := range []struct {
		of    Subject
		names []string
		want  Event
	}{
		{TokenSubject(one), nil, rolled},
		{UserSubject(user), nil, gone},
		{UserSubject(user), []string{"member.removed.v1"}, left},
		{AccountSubject(account), nil, closed},
		{SweepSubject(events.SweepOwner, user.String()), nil, swept},
		{SweepSubject(events.SweepAll, ""), nil, Event{}},
		{TokenSubject(one), []string{"token.revoked.v1"}, Event{}},
	} {
		got, ok, err := w.p.Newest(c.of, c.names...)
		if err != nil || ok != (c.want != Event{}) || got != c.want {
			t.Errorf("%v %v: %+v, %v, %v; want %+v", c.of, c.names, got, ok, err, c.want)
		}
	}
	if got, ok, err := w.p.About(TokenSubject(one), rolled.Seq); err != nil || !ok || got != rolled {
		t.Errorf("at its sequence: %+v, %v, %v", got, ok, err)
	}
	if _, ok, err := w.p.About(TokenSubject(one), left.Seq); err != nil || ok {
		t.Errorf("another's sequence: %v, %v", ok, err)
	}
}

// TestCrashAnywhere kills the machine at any moment of a story, and of the
// receipts behind it.
func TestCrashAnywhere(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 120)
	open := func(fs vfs.FS) (*Revocations, error) { return Open(Options{Dir: "r", FS: fs}) }
	projectiontest.CrashAnywhere(t, rng, s.Commits, open,
		func(p *Revocations) string { return projectiontest.Dump(t, p.Store().DB()) },
		func(p *Revocations) {
			if at := p.Position(); at.Seq > 0 && at != s.Commits[at.Seq-1].End {
				t.Errorf("after a crash at %+v", at)
			}
		})
}

// TestCrashWithReceipts: after a crash the receipts that were lost are read
// again, and the rows are those of a run without one.
func TestCrashWithReceipts(t *testing.T) {
	rng := projectiontest.Seed(t)
	w := newWorld(t)
	var all []Message
	for range 60 {
		w.pass(time.Duration(rng.IntN(3000)) * time.Millisecond)
		switch rng.IntN(3) {
		case 0:
			w.revoke()
		default:
			name := string(rune('a' + rng.IntN(4)))
			kind := []receipt.Kind{receipt.Revocation, receipt.Progress}[rng.IntN(2)]
			w.pass(time.Millisecond)
			all = append(all, w.message(w.receipt(edge, name, kind, w.at.Seq)))
		}
	}
	clean := w.replay(vfs.NewMem(), all)
	want := projectiontest.Dump(t, clean.Store().DB())
	clean.Close()
	if strings.Count(want, "\n\"i") != 4 {
		t.Fatalf("no instances in\n%s", want)
	}
	fs := vfs.NewCrashableMem()
	for range 8 {
		p, err := Open(Options{Dir: "r", FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		w.catchUp(p, all, rng)
		next := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		p.Close()
		fs = next
	}
	p := w.replay(fs, all)
	defer p.Close()
	if got := projectiontest.Dump(t, p.Store().DB()); got != want {
		t.Errorf("after crashes\n%s\nwant\n%s", got, want)
	}
}

// replay opens a projection and brings it to the end of ledger and receipts.
func (w *world) replay(fs vfs.FS, all []Message) *Revocations {
	w.t.Helper()
	p, err := Open(Options{Dir: "r", FS: fs})
	if err != nil {
		w.t.Fatal(err)
	}
	if at := p.Position().Seq; at < w.at.Seq {
		if err := p.Apply(w.past[at:]); err != nil {
			w.t.Fatal(err)
		}
	}
	if n, err := p.Hear(all, true); err != nil || n != len(all) {
		w.t.Fatalf("heard %d: %v", n, err)
	}
	return p
}

// catchUp does some of what replay does: the ledger whole, then some receipts.
func (w *world) catchUp(p *Revocations, all []Message, rng *rand.Rand) {
	w.t.Helper()
	if at := p.Position().Seq; at < w.at.Seq {
		if err := p.Apply(w.past[at:]); err != nil {
			w.t.Fatal(err)
		}
	}
	if _, err := p.Hear(all[:rng.IntN(len(all))], true); err != nil {
		w.t.Fatal(err)
	}
}

// TestClosed: nobody asks a closed store.
func TestClosed(t *testing.T) {
	w := newWorld(t)
	e := w.revoke()
	if err := w.p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.p.Report(e, w.now); err != ErrClosed {
		t.Errorf("report: %v", err)
	}
	if _, _, err := w.p.Newest(TokenSubject(edge)); err != ErrClosed {
		t.Errorf("newest: %v", err)
	}
	if _, err := w.p.Hear(nil, true); err != ErrClosed {
		t.Errorf("hear: %v", err)
	}
	if err := w.p.Apply(nil); err != ErrClosed {
		t.Errorf("apply: %v", err)
	}
	<-w.p.Changed()
}
