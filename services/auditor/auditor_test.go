package auditor

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/fault"
	"watchword.dev/events/proof"
	"watchword.dev/events/token"
	"watchword.dev/projections/audittrail"
)

var key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

// world is a ledger, its trail, and a service over it.
type world struct {
	t     *testing.T
	trail *audittrail.Trail
	s     *Service
	file  string
	now   time.Time
	log   bytes.Buffer
	at    events.Position
	past  []events.Commit
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, file: filepath.Join(t.TempDir(), "head"), now: eventstest.Epoch}
	w.anew()
	w.start()
	return w
}

// anew gives the world an empty trail.
func (w *world) anew() {
	w.t.Helper()
	trail, err := audittrail.Open(audittrail.Options{Dir: "audittrail", FS: vfs.NewMem()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { trail.Close() })
	w.trail = trail
}

// start is a start of the node.
func (w *world) start() {
	w.t.Helper()
	s, err := w.service()
	if err != nil {
		w.t.Fatal(err)
	}
	w.s = s
}

func (w *world) service() (*Service, error) {
	return New(Config{
		Trail: func() *audittrail.Trail { return w.trail }, Key: key, File: w.file,
		Now: func() time.Time { return w.now }, Log: slog.New(slog.NewTextHandler(&w.log, nil)),
	})
}

func (w *world) tell(data events.Event) {
	w.t.Helper()
	_, c, err := events.Compose(w.at, []events.Draft{{Data: data, Envelope: events.Envelope{
		ID: eventstest.ID(100 + len(w.past)), Source: "watchword/test", Subject: "thing/" + eventstest.ID(5).String(),
		Time: eventstest.Epoch, Actor: events.Actor{Kind: events.ActorSystem},
	}}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.at, w.past = c.End, append(w.past, c)
	if err := w.trail.Apply([]events.Commit{c}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) open(installation token.ID) {
	w.tell(&events.LogOpened{Installation: installation, Brand: "ww", PulseKey: make([]byte, 32)})
}

func (w *world) account(name string) { w.tell(&events.AccountCreated{Name: name}) }

// restore puts the ledger back to its first n commits.
func (w *world) restore(n int) {
	w.t.Helper()
	w.past = w.past[:n]
	w.at = events.Position{}
	w.anew()
	if n == 0 {
		return
	}
	w.at = w.past[n-1].End
	if err := w.trail.Apply(w.past); err != nil {
		w.t.Fatal(err)
	}
}

// head asks a second later, and checks the signature.
func (w *world) head() proof.Head {
	w.t.Helper()
	w.now = w.now.Add(Every)
	return w.headNow()
}

func (w *world) headNow() proof.Head {
	w.t.Helper()
	signed, err := w.s.Signed()
	if err != nil {
		w.t.Fatal(err)
	}
	h, err := proof.Peek(signed)
	if err != nil {
		w.t.Fatal(err)
	}
	log, err := proof.LogKey(h.Origin, key.Public().(ed25519.PublicKey))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := (proof.Policy{Log: log}).Open(signed); err != nil {
		w.t.Fatal(err)
	}
	return h
}

func (w *world) refused() {
	w.t.Helper()
	w.now = w.now.Add(Every)
	signed, err := w.s.Signed()
	if fault.From(err).Code != fault.NotReady || w.s.Err() == nil {
		w.t.Errorf("signed %q, %v; %v", signed, err, w.s.Err())
	}
	if !strings.Contains(w.log.String(), "contradicts a tree head") {
		w.t.Errorf("the log says nothing: %s", w.log.String())
	}
}

var home = eventstest.ID(1)

func TestSigned(t *testing.T) {
	w := newWorld(t)
	if _, err := w.s.Signed(); fault.From(err).Code != fault.NotReady || w.s.Err() != nil {
		t.Fatalf("before the ledger is opened: %v, %v", err, w.s.Err())
	}
	if k, err := w.s.VerifierKey(); k != "" || err != nil {
		t.Errorf("%q, %v", k, err)
	}
	w.open(home)
	first := w.head()
	if first.Size != 1 || first.Origin != proof.Origin(home, 1) {
		t.Fatalf("%+v", first)
	}
	vkey, err := w.s.VerifierKey()
	if k, err2 := proof.ParseKey(vkey); err != nil || err2 != nil || k.Name() != first.Origin {
		t.Errorf("%q, %v, %v", vkey, err, err2)
	}
	w.account("a")
	if h := w.headNow(); h != first {
		t.Errorf("signed twice within a second: %+v", h)
	}
	if h := w.head(); h.Size != 2 {
		t.Errorf("%+v", h)
	}
	// A clock that was set back holds nothing up.
	w.account("b")
	w.now = w.now.Add(-time.Hour)
	if h := w.headNow(); h.Size != 3 {
		t.Errorf("%+v", h)
	}
	w.start()
	if h := w.headNow(); h.Size != 3 {
		t.Errorf("after a start: %+v", h)
	}
}

// TestTrailBehind: while a trail is filled again, the last head holds.
func TestTrailBehind(t *testing.T) {
	w := newWorld(t)
	w.open(home)
	w.account("a")
	w.tell(&events.EpochOpened{Reason: "restored"})
	w.account("b")
	last, all := w.head(), w.past
	if last.Origin != proof.Origin(home, 2) {
		t.Fatalf("%+v", last)
	}
	w.start()
	for n := range all {
		w.past = all
		w.restore(n)
		if h := w.head(); h != last {
			t.Errorf("with %d commits: %+v", n, h)
		}
	}
}

// TestFork: a ledger that was put back and has gone on otherwise in the same epoch
// gets no heads, as soon as it could be told, and neither after a start.
func TestFork(t *testing.T) {
	w := newWorld(t)
	w.open(home)
	w.account("a")
	w.account("b")
	last := w.head()
	w.restore(2)
	if h := w.head(); h != last {
		t.Errorf("%+v", h)
	}
	w.account("c")
	w.refused()
	w.account("d")
	w.refused()
	w.start()
	w.refused()
}

// TestNewEpoch: an epoch is another log, whose heads may be shorter.
func TestNewEpoch(t *testing.T) {
	w := newWorld(t)
	w.open(home)
	w.account("a")
	w.account("b")
	w.account("c")
	w.head()
	w.restore(2)
	w.tell(&events.EpochOpened{Reason: "restored"})
	if h := w.head(); h.Size != 3 || h.Origin != proof.Origin(home, 2) {
		t.Errorf("%+v", h)
	}
	w.account("d")
	if h := w.head(); h.Size != 4 {
		t.Errorf("%+v", h)
	}
}

// TestForeignFile: a node goes on from nobody else's head.
func TestForeignFile(t *testing.T) {
	w := newWorld(t)
	w.open(home)
	w.account("a")
	w.head()
	w.restore(0)
	w.open(eventstest.ID(2))
	w.refused()

	good, err := os.ReadFile(w.file)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"empty": {}, "cut": good[:len(good)/2], "changed": bytes.Replace(good, []byte("\n2\n"), []byte("\n3\n"), 1),
	} {
		if err := os.WriteFile(w.file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		w.start()
		if signed, err := w.s.Signed(); fault.From(err).Code != fault.NotReady || w.s.Err() == nil {
			t.Errorf("%s: signed %q, %v; %v", name, signed, err, w.s.Err())
		}
		if now, err := os.ReadFile(w.file); err != nil || !bytes.Equal(now, bad) {
			t.Errorf("%s: the file was replaced: %v", name, err)
		}
	}
}

// TestUnkept: what could not be kept is not shown.
func TestUnkept(t *testing.T) {
	w := newWorld(t)
	w.s.File = filepath.Join(t.TempDir(), "absent", "head")
	w.open(home)
	if signed, err := w.s.Signed(); err == nil {
		t.Errorf("signed %q", signed)
	}
	if err := w.s.Err(); err != nil {
		t.Errorf("that is no fork: %v", err)
	}
	w.s.File = w.file
	if signed, err := w.s.Signed(); fault.From(err).Code != fault.NotReady {
		t.Errorf("asked again within a second: %q, %v", signed, err)
	}
	if h := w.head(); h.Size != 1 {
		t.Errorf("%+v", h)
	}
}

// TestReplacedTrail: a question that meets a trail that was just closed is asked
// again.
func TestReplacedTrail(t *testing.T) {
	w := newWorld(t)
	w.open(home)
	old, asked := w.trail, 0
	w.restore(1)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	w.s.Trail = func() *audittrail.Trail {
		if asked++; asked == 1 {
			return old
		}
		return w.trail
	}
	if h := w.head(); h.Size != 1 {
		t.Errorf("%+v", h)
	}
	w.s.Trail = func() *audittrail.Trail { return old }
	w.now = w.now.Add(Every)
	if _, err := w.s.Signed(); !errors.Is(err, audittrail.ErrClosed) {
		t.Errorf("the only one is closed: %v", err)
	}
}
