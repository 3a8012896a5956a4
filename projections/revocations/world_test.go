package revocations

import (
	"bytes"
	"crypto/ed25519"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
)

// world is a ledger with enforcers, and the projection under test.
type world struct {
	t     testing.TB
	p     *Revocations
	fs    *vfs.MemFS
	log   bytes.Buffer
	now   time.Time
	at    events.Position
	past  []events.Commit
	heads map[uint64]events.Position // where each commit ended
	seqs  [streams]uint64
	ids   int
	blind bool // nobody says whether all receipts were heard
}

// The enforcers of a world. Node is the installation itself.
var (
	node  = eventstest.ID(1)
	edge  = eventstest.ID(2)
	shop  = eventstest.ID(3)
	asker = eventstest.ID(4) // without a key
)

func keyOf(id token.ID) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat(id[15:], ed25519.SeedSize))
}

func publicOf(id token.ID) ed25519.PublicKey { return keyOf(id).Public().(ed25519.PublicKey) }

// newWorld opens a ledger in which edge and shop are enrolled.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, fs: vfs.NewCrashableMem(), now: eventstest.Epoch, heads: map[uint64]events.Position{}}
	w.open()
	t.Cleanup(func() { w.p.Close() })
	w.tell(node, &events.LogOpened{Installation: node, Brand: "ww", PulseKey: publicOf(node)})
	for _, id := range []token.ID{edge, shop} {
		w.tell(id, &events.EnforcerEnrolled{Name: "e", Secret: token.Sum(id.String()), Nkey: receipt.FormatPublic(publicOf(id))})
	}
	w.tell(asker, &events.EnforcerEnrolled{Name: "asks", Secret: token.Sum("asks")})
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	w.p, err = Open(Options{Dir: "revocations", FS: w.fs, Log: slog.New(slog.NewTextHandler(&w.log, nil))})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

// compose appends a commit to the ledger, and to nothing else.
func (w *world) compose(id token.ID, data events.Event) events.Commit {
	w.t.Helper()
	w.ids++
	_, c, err := events.Compose(w.at, []events.Draft{{
		Envelope: events.Envelope{
			ID: eventstest.ID(1000 + w.ids), Source: "watchword/test", Subject: aggregateOf(data.EventName()) + "/" + id.String(),
			Time: w.now, Actor: events.Actor{Kind: events.ActorSystem},
		},
		Data: data,
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.at = c.End
	w.past = append(w.past, c)
	w.heads[c.Seq] = c.End
	return c
}

// tell appends an event and applies it.
func (w *world) tell(id token.ID, data events.Event) Event {
	w.t.Helper()
	c := w.compose(id, data)
	if err := w.p.Apply([]events.Commit{c}); err != nil {
		w.t.Fatal(err)
	}
	r := &c.Records[0]
	return Event{Name: r.Name, Seq: c.Seq, Number: r.Number, Epoch: r.Epoch, Time: r.Time}
}

// revoke appends the revocation of a token.
func (w *world) revoke() Event {
	w.t.Helper()
	w.ids++
	return w.tell(eventstest.ID(100000+w.ids), &events.TokenRevoked{})
}

// at makes a receipt about the commit at seq, sent and applied now.
func (w *world) receipt(of token.ID, name string, kind receipt.Kind, seq uint64) receipt.Receipt {
	at := w.heads[seq]
	return receipt.Receipt{
		Enforcer: of, Instance: name, Kind: kind, Reader: 1, Bound: 10 * time.Second, Region: "eu",
		Epoch: at.Epoch, Sequence: at.Seq, Number: at.Number, Head: at.Hash, AppliedAt: w.now, SentAt: w.now,
	}
}

// message is a signed receipt as the stream has it, stored now.
func (w *world) message(r receipt.Receipt) Message {
	w.t.Helper()
	data, err := receipt.Sign(r, keyOf(r.Enforcer))
	if err != nil {
		w.t.Fatal(err)
	}
	s := Kept
	if r.Kind == receipt.Progress {
		s = Progress
	}
	return w.stored(s, r.Subject(), data)
}

func (w *world) stored(s Stream, subject string, data []byte) Message {
	w.seqs[s]++
	return Message{Stream: s, Seq: w.seqs[s], Subject: subject, Data: data, Stored: w.now}
}

// hear takes in messages for good, a millisecond after each other: no two
// receipts of one instance are of the same time.
func (w *world) hear(messages ...Message) {
	w.t.Helper()
	if n, err := w.p.Hear(messages, true); err != nil || n != len(messages) {
		w.t.Fatalf("heard %d of %d: %v", n, len(messages), err)
	}
}

// say lets an instance report where it is: at the commit at seq.
func (w *world) say(of token.ID, name string, kind receipt.Kind, seq uint64) {
	w.t.Helper()
	w.pass(time.Millisecond)
	w.hear(w.message(w.receipt(of, name, kind, seq)))
}

func (w *world) hello(of token.ID, name string) {
	w.t.Helper()
	w.say(of, name, receipt.Hello, w.at.Seq)
}

// report asks when all receipts that there are have been heard.
func (w *world) report(e Event) Report {
	w.t.Helper()
	if !w.blind {
		w.p.CaughtUp(w.p.Position().Seq)
	}
	r, err := w.p.Report(e, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// want checks completeness, why, and the states of instances as "name state".
func (w *world) want(e Event, complete bool, why Why, states ...string) Report {
	w.t.Helper()
	r := w.report(e)
	if r.Complete != complete || r.Why != why {
		w.t.Errorf("complete %v, %s; want %v, %s", r.Complete, r.Why, complete, why)
	}
	var got []string
	counted := map[State]int{}
	for _, h := range r.Instances {
		got = append(got, h.Name+" "+string(h.State))
		counted[h.State]++
	}
	if len(got) != len(states) {
		w.t.Errorf("states %q, want %q", got, states)
		return r
	}
	for i := range got {
		if got[i] != states[i] {
			w.t.Errorf("states %q, want %q", got, states)
			break
		}
	}
	for s, n := range counted {
		if r.Counts[s] != n {
			w.t.Errorf("counts %v of %q", r.Counts, got)
		}
	}
	return r
}

func (w *world) refusals() map[Reason]uint64 {
	sum := map[Reason]uint64{}
	for reason, by := range w.p.Refused() {
		for _, n := range by {
			sum[reason] += n
		}
	}
	return sum
}

func (w *world) dump() string {
	w.t.Helper()
	return projectiontest.Dump(w.t, w.p.Store().DB())
}
