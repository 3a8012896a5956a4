package projectiontest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/projections/projector"
)

var addresses = []netip.Addr{
	netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.200"), netip.MustParseAddr("198.51.100.9"),
	netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:192.0.2.7"), {},
}

// Seed returns a random source and logs how to get it again.
func Seed(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Ledger returns a ledger in memory that tells the story.
func (s *Story) Ledger(t testing.TB) *eventstest.Ledger {
	t.Helper()
	l := eventstest.NewLedger()
	s.Publish(t, l.Connect(), 0)
	return l
}

// Publish appends the story's commits after sequence after to a log.
func (s *Story) Publish(t testing.TB, l events.Log, after uint64) {
	t.Helper()
	at := events.Position{}
	if after > 0 {
		at = s.Commits[after-1].End
	}
	for i := int(after); i < len(s.Commits); i++ {
		if err := l.Append(t.Context(), at, s.Commits[i].Subject, s.Payloads[i]); err != nil {
			t.Fatal(err)
		}
		at = s.Commits[i].End
	}
}

// Dump returns all rows of a store, one a line.
func Dump(t testing.TB, db pebble.Reader) string {
	t.Helper()
	it, err := db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	var b strings.Builder
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%q %x\n", it.Key(), v)
	}
	if err := it.Error(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// ApplyAll applies commits in random batches.
func ApplyAll(t testing.TB, rng *rand.Rand, p projector.Projection, commits []events.Commit) {
	t.Helper()
	for len(commits) > 0 {
		n := 1 + rng.IntN(min(8, len(commits)))
		if err := p.Apply(commits[:n]); err != nil {
			t.Fatalf("apply up to %d: %v", commits[n-1].Seq, err)
		}
		commits = commits[n:]
	}
}

// CrashAnywhere checks the promise of a projection: kill the machine at any
// moment, replay the ledger from the checkpoint, and the rows are the same as
// those of one clean run. Check is called after each start.
func CrashAnywhere[P projector.Owned](t testing.TB, rng *rand.Rand, history []events.Commit, open func(fs vfs.FS) (P, error), dump func(P) string, check func(P)) {
	t.Helper()
	start := func(fs vfs.FS) P {
		p, err := open(fs)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	clean := start(vfs.NewCrashableMem())
	ApplyAll(t, rng, clean, history)
	want := dump(clean)
	if err := clean.Close(); err != nil {
		t.Fatal(err)
	}

	fs := vfs.NewCrashableMem()
	for range 10 {
		p := start(fs)
		check(p)
		at := int(p.Position().Seq)
		ApplyAll(t, rng, p, history[at:min(at+rng.IntN(len(history)/6+2), len(history))])
		next := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		fs = next
	}
	p := start(fs)
	check(p)
	ApplyAll(t, rng, p, history[p.Position().Seq:])
	if got := dump(p); got != want {
		t.Errorf("rows after crashes differ\n got %s\nwant %s", got, want)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}
