package verifyindex

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
	"watchword.dev/projections/projector"
)

// clock is a clock that the test moves.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

// heapBlock makes blocks that the race detector and the garbage collector see.
func heapBlock(n int) (*block, error) { return allocateHeap(n), nil }

// setups are the ways in which an index can hold the same rows.
var setups = []struct {
	name string
	o    Options
}{
	{"resident", Options{}},
	{"small blocks", Options{blockSize: 4 << 10, alloc: heapBlock}},
	{"disk", Options{MemoryBytes: 1}},
	{"grows out of memory", Options{MemoryBytes: 40 << 10, blockSize: 4 << 10, alloc: heapBlock}},
}

func open(t testing.TB, o Options, fs vfs.FS) *Index {
	t.Helper()
	o.Dir, o.FS = "index", fs
	x, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestVerifyIsWhatTheLedgerSays(t *testing.T) {
	for _, setup := range setups {
		t.Run(setup.name, func(t *testing.T) {
			rng := projectiontest.Seed(t)
			s := projectiontest.NewStory(rng)
			c := &clock{s.Now}
			setup.o.Now = c.Now
			fs := vfs.NewMem()
			x := open(t, setup.o, fs)
			defer func() { x.Close() }()
			if err := x.Apply(s.Commits); err != nil {
				t.Fatal(err)
			}
			for step := range 300 {
				commit := s.Step()
				if err := x.Apply([]events.Commit{commit}); err != nil {
					t.Fatal(err)
				}
				c.now = s.Now
				if step%60 == 59 {
					if err := x.Close(); err != nil {
						t.Fatal(err)
					}
					x = open(t, setup.o, fs)
				}
				x.Observe(pulse(s.At, c.now), c.now)
				compare(t, x, s, rng, c.now)
			}
		})
	}
}

// compare asks the index and the oracle about some secrets of the story.
func compare(t *testing.T, x *Index, s *projectiontest.Story, rng *rand.Rand, now time.Time) {
	t.Helper()
	o := oracleOf(s)
	for range min(40, len(s.Secrets)) {
		secret, req := s.Secrets[rng.IntN(len(s.Secrets))], s.Request()
		want, policy := o.verify(secret, req, now)
		tok := s.Tokens[secret.Token]
		got := x.Verify(secret.Text, &req)
		if got.Reason != want || got.Verdict != want.Verdict() || got.Policy != policy || got.Token != tok.ID ||
			got.Owner != tok.Owner || got.Account != tok.Account() || got.Sequence != s.At.Seq || got.Age != 0 || got.Stale {
			t.Fatalf("sequence %d, token %v %s: got %+v, want %v by policy %v\nrequest %+v\ngrant %+v",
				s.At.Seq, tok.ID, tok.Status, got, want, policy, req, tok.Grant)
		}
		identify(t, x, o, secret, req, now)
	}
	for _, k := range s.UserKeys[max(0, len(s.UserKeys)-10):] {
		req := s.Request()
		want := o.verifyKey(k, req, now)
		if got := x.Verify(k.Text, &req); got.Reason != want || got.Verdict != want.Verdict() || got.Owner != k.Token ||
			got.OwnerKind != token.OwnerUser || !got.Token.IsZero() || !got.Policy.IsZero() || got.Sequence != s.At.Seq {
			t.Fatalf("sequence %d, API key of %v: got %+v, want %v\nrequest %+v", s.At.Seq, k.Token, got, want, req)
		}
	}
	for _, k := range s.Keys {
		info, reason := x.Enforcer(k.Text)
		n := s.Enforcers[k.Token]
		if n.Status == "active" != (reason == token.ReasonNone) {
			t.Fatalf("enforcer %s: %v", n.Status, reason)
		}
		if reason == token.ReasonNone && (info.ID != n.ID || info.Ceiling != time.Duration(n.CeilingSeconds)*time.Second) {
			t.Fatalf("enforcer: got %+v, want %+v", info, n)
		}
	}
	stranger, req := projectiontest.NewSecret(rng, token.KindUser), s.Request()
	if d := x.Verify(stranger, &req); d.Reason != token.ReasonUnknown || d.Verdict != token.VerdictDeny {
		t.Fatalf("a stranger's secret: %+v", d)
	}
}

func identify(t *testing.T, x *Index, o oracle, secret projectiontest.Secret, req token.Request, now time.Time) {
	t.Helper()
	id, reason := x.Identify(secret.Text, req.Address)
	req.Permission = "no.such.permission"
	want, _ := o.verify(secret, req, now)
	if want == token.ReasonUnknownPermission {
		want = token.ReasonNone
	}
	tok := o.story.Tokens[secret.Token]
	if reason != want || id.Token != tok.ID || id.Number != tok.Number || id.Kind.String() != string(tok.OwnerKind) {
		t.Fatalf("identify: got %+v %v, want %v of %v", id, reason, want, tok.ID)
	}
	if reason == token.ReasonNone && (!id.ExpiresOn.Equal(tok.Grant.ExpiresOn) || !id.NotBefore.Equal(tok.Grant.NotBefore)) {
		t.Fatalf("identify: got %+v, want %+v", id, tok.Grant)
	}
}

func TestCrashAnywhere(t *testing.T) {
	for _, setup := range setups {
		t.Run(setup.name, func(t *testing.T) {
			rng := projectiontest.Seed(t)
			s := projectiontest.Tell(rng, 120)
			projectiontest.CrashAnywhere(t, rng, s.Commits,
				func(fs vfs.FS) (*Index, error) {
					o := setup.o
					o.Dir, o.FS = "index", fs
					return Open(o)
				},
				func(x *Index) string { return projectiontest.Dump(t, x.store.DB()) },
				func(x *Index) {
					if at := x.Position(); at.Seq > 0 && at != s.Commits[at.Seq-1].End {
						t.Errorf("after a crash the index is at %+v", at)
					}
				})
		})
	}
}

// follow runs the index over a ledger until it has applied seq.
func follow(t *testing.T, x *Index, r events.Reader, seq uint64, o projector.Options) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	run := x.Follow(r, o)
	ended := make(chan error, 1)
	go func() { ended <- run.Run(ctx) }()
	if err := x.Wait(t.Context(), seq); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestBulkIsLive loads a story in bulk and compares the rows with those of an
// index that has followed it live, then goes on with both.
func TestBulkIsLive(t *testing.T) {
	for _, setup := range setups {
		t.Run(setup.name, func(t *testing.T) {
			rng := projectiontest.Seed(t)
			s := projectiontest.Tell(rng, 200)
			live := open(t, setup.o, vfs.NewMem())
			defer live.Close()
			projectiontest.ApplyAll(t, rng, live, s.Commits)

			bulk := open(t, setup.o, vfs.NewMem())
			defer bulk.Close()
			follow(t, bulk, s.Ledger(t).Connect(), s.At.Seq, projector.Options{BulkAt: 1, MaxEvents: 7})
			same(t, bulk, live)
			if bulk.Stats().Tokens != int64(len(s.Tokens)) || bulk.Stats().Secrets != int64(len(s.Secrets)) {
				t.Errorf("stats %+v, want %d tokens and %d secrets", bulk.Stats(), len(s.Tokens), len(s.Secrets))
			}

			at := len(s.Commits)
			for range 100 {
				s.Step()
			}
			for _, x := range []*Index{live, bulk} {
				projectiontest.ApplyAll(t, rng, x, s.Commits[at:])
			}
			same(t, bulk, live)
			c := &clock{s.Now}
			bulk.o.Now = c.Now
			bulk.Observe(pulse(s.At, c.now), c.now)
			compare(t, bulk, s, rng, c.now)
		})
	}
}

func same(t *testing.T, got, want *Index) {
	t.Helper()
	if g, w := projectiontest.Dump(t, got.store.DB()), projectiontest.Dump(t, want.store.DB()); g != w {
		t.Fatalf("rows differ\n got %s\nwant %s", g, w)
	}
}

// TestCrashInBulk kills the machine within a load: the index is empty or whole.
func TestCrashInBulk(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 150)
	clean := open(t, Options{}, vfs.NewMem())
	defer clean.Close()
	projectiontest.ApplyAll(t, rng, clean, s.Commits)
	seen := map[bool]int{}
	for round := range 20 {
		fs := vfs.NewCrashableMem()
		x := open(t, Options{}, fs)
		if err := x.BeginBulk(); err != nil {
			t.Fatal(err)
		}
		if err := x.Apply(s.Commits); err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 {
			if err := x.EndBulk(); err != nil {
				t.Fatal(err)
			}
		} else if err := errors.Join(x.ingestFilesOnly()); err != nil {
			t.Fatal(err)
		}
		next := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		x.Close()
		again := open(t, Options{}, next)
		at := again.Position()
		if at.Seq != 0 && at != s.At {
			t.Fatalf("round %d: half a load: at %d", round, at.Seq)
		}
		seen[at.Seq == 0]++
		projectiontest.ApplyAll(t, rng, again, s.Commits[at.Seq:])
		same(t, again, clean)
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("crashes left an empty index %d times and a whole one %d times: both should happen", seen[true], seen[false])
	}
}

// ingestFilesOnly writes the sorted tables but does not hand them over, as if
// the machine died between the two.
func (x *Index) ingestFilesOnly() error {
	s := &tableSet{x: x}
	s.writeEntries()
	s.writeTokens()
	return s.err
}

func TestSnapshot(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 100)
	fs := vfs.NewMem()
	x := open(t, Options{}, fs)
	defer x.Close()
	projectiontest.ApplyAll(t, rng, x, s.Commits)
	if err := x.Snapshot("copy"); err != nil {
		t.Fatal(err)
	}
	copied, err := Open(Options{Dir: "copy", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	same(t, copied, x)
	if copied.Position() != s.At {
		t.Errorf("the copy is at %+v, want %+v", copied.Position(), s.At)
	}
}

// stranger is an event of a later version.
type stranger struct{}

func (stranger) EventName() string { return "token.teleported.v1" }

func TestUnknownEventStops(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 30)
	x := open(t, Options{}, vfs.NewMem())
	defer x.Close()
	projectiontest.ApplyAll(t, rng, x, s.Commits)
	before := x.Position()
	bad := events.Commit{Seq: s.At.Seq + 1, Records: []events.Record{{Data: stranger{}}}, End: s.At}
	if err := x.Apply([]events.Commit{bad}); !errors.Is(err, events.ErrUnknown) {
		t.Fatalf("got %v, want ErrUnknown", err)
	}
	if x.Position() != before {
		t.Errorf("the index moved to %d", x.Position().Seq)
	}
}

func TestImpossibleEventsStop(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.NewStory(rng)
	for len(s.Secrets) == 0 {
		s.Step()
	}
	var id token.ID
	for id = range s.Tokens {
	}
	known := s.Tokens[id].Secret
	envelope := func(id token.ID) events.Envelope { return events.Envelope{Subject: "token/" + id.String()} }
	nobody := token.ID{1}
	cases := []struct {
		name string
		r    events.Record
	}{
		{"update of nothing", events.Record{Envelope: envelope(nobody), Data: &events.TokenUpdated{Grant: s.Grant()}}},
		{"roll of nothing", events.Record{Envelope: envelope(nobody), Data: &events.TokenRolled{Secret: token.Digest{1}}}},
		{"revoke of nothing", events.Record{Envelope: envelope(nobody), Data: &events.TokenRevoked{}}},
		{"created twice", events.Record{Envelope: envelope(id), Data: &events.TokenCreated{OwnerKind: events.OwnedByUser, Secret: token.Digest{1}, Grant: s.Grant()}}},
		{"a known secret", events.Record{Envelope: envelope(nobody), Data: &events.TokenCreated{OwnerKind: events.OwnedByUser, Secret: known, Grant: s.Grant()}}},
		{"rolled to a known secret", events.Record{Envelope: envelope(id), Data: &events.TokenRolled{Secret: known}}},
		{"no owner", events.Record{Envelope: envelope(nobody), Data: &events.TokenCreated{Secret: token.Digest{1}, Grant: s.Grant()}}},
	}
	for _, setup := range setups {
		for _, c := range cases {
			t.Run(setup.name+"/"+c.name, func(t *testing.T) {
				x := open(t, setup.o, vfs.NewMem())
				defer x.Close()
				if err := x.Apply(s.Commits); err != nil {
					t.Fatal(err)
				}
				next := events.Commit{Seq: s.At.Seq + 1, Records: []events.Record{c.r}, End: s.At}
				if err := x.Apply([]events.Commit{next}); !errors.Is(err, ErrImpossible) {
					t.Errorf("got %v, want ErrImpossible", err)
				}
			})
		}
	}
}

func TestMalformedIsToldWithoutALookUp(t *testing.T) {
	rng := projectiontest.Seed(t)
	foreign := func(s projectiontest.Secret) bool { return s.Foreign }
	s := projectiontest.Tell(rng, 40)
	for len(s.Secrets) == 0 || slices.ContainsFunc(s.Secrets, foreign) {
		s = projectiontest.Tell(rng, 40)
	}
	c := &clock{s.Now}
	x := open(t, Options{Now: c.Now}, vfs.NewMem())
	defer x.Close()
	req := s.Request()
	good := s.Secrets[0].Text
	if d := x.Verify("nonsense", &req); d.Reason != token.ReasonNotReady {
		t.Errorf("before the brand is known: %+v", d)
	}
	projectiontest.ApplyAll(t, rng, x, s.Commits)
	for _, bad := range []string{"", "ww", good[:len(good)-1], good + "0", "xx" + good[2:], good[:10] + "!" + good[11:], good[:47] + "~"} {
		// Before any pulse: nothing else could be answered.
		if d := x.Verify(bad, &req); d.Reason != token.ReasonMalformed || d.Verdict != token.VerdictDeny {
			t.Errorf("%q: %+v", bad, d)
		}
		if _, reason := x.Identify(bad, netip.Addr{}); reason != token.ReasonMalformed {
			t.Errorf("%q: %v", bad, reason)
		}
		if _, reason := x.Enforcer(bad); reason != token.ReasonMalformed {
			t.Errorf("%q: %v", bad, reason)
		}
	}
	if d := x.Verify(projectiontest.NewSecret(rng, token.KindEnforcer), &req); d.Reason != token.ReasonUnknown {
		t.Errorf("an enforcer's secret: %+v", d)
	}
	if d := x.Verify(good, &req); d.Reason != token.ReasonNotReady || d.Verdict != token.VerdictUnavailable {
		t.Errorf("before the first pulse: %+v", d)
	}
}

func TestRebuildBesideTheLiveIndex(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 150)
	fs := vfs.NewMem()
	home := projector.Home{FS: fs, Dir: "home"}
	dir, err := home.Current()
	if err != nil {
		t.Fatal(err)
	}
	openIn := func(dir string) (*Index, error) { return Open(Options{Dir: dir, FS: fs}) }
	live, err := openIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	projectiontest.ApplyAll(t, rng, live, s.Commits)
	var last string
	log := s.Ledger(t).Connect()
	log.Inject(eventstest.OpRead, eventstest.Fault{Err: errors.New("the log is away")})
	if _, err := projector.Rebuild(t.Context(), log, home, openIn, nil); err == nil {
		t.Fatal("a rebuild that could not read has succeeded")
	}
	if again, err := home.Current(); err != nil || again != dir {
		t.Fatalf("after a failed rebuild %s serves: %v", again, err)
	}
	built, err := projector.Rebuild(t.Context(), log, home, openIn, func(done, head uint64) { last = fmt.Sprint(done, "/", head) })
	if err != nil {
		t.Fatal(err)
	}
	defer built.Close()
	same(t, built, live)
	if want := fmt.Sprint(s.At.Seq, "/", s.At.Seq); last != want {
		t.Errorf("the last progress was %s, want %s", last, want)
	}
	if err := home.Prune(); err != nil { // live is still open: it stays
		t.Fatal(err)
	}
	if _, err := fs.Stat(dir); err != nil {
		t.Errorf("the open generation is gone: %v", err)
	}
	if err := errors.Join(live.Close(), home.Prune()); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Stat(dir); err == nil {
		t.Error("the replaced generation is still there")
	}
	if now, err := home.Current(); err != nil || now == dir {
		t.Errorf("%s serves: %v", now, err)
	}
}
