package audittrail

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/proof"
	"watchword.dev/projections/projectiontest"
	"watchword.dev/projections/projector"
)

func openMem(t testing.TB, fs vfs.FS) *Trail {
	t.Helper()
	p, err := Open(Options{Dir: "audittrail", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func dump(t testing.TB, p *Trail) string {
	t.Helper()
	return projectiontest.Dump(t, p.Store().DB())
}

// model is the tree by the functions of RFC 6962, section 2.1, as they are
// written there, over the lines of the ledger.
type model struct {
	lines [][]byte
	known map[[2]int]proof.Hash
}

func newModel(commits []events.Commit) *model {
	m := &model{known: map[[2]int]proof.Hash{}}
	for i := range commits {
		for j := range commits[i].Records {
			m.lines = append(m.lines, commits[i].Records[j].Line)
		}
	}
	return m
}

// hash is MTH(D[lo:hi]).
func (m *model) hash(lo, hi int) proof.Hash {
	at := [2]int{lo, hi}
	if h, ok := m.known[at]; ok {
		return h
	}
	var h proof.Hash
	switch n := hi - lo; n {
	case 0:
		h = sha256.Sum256(nil)
	case 1:
		h = sha256.Sum256(append([]byte{0}, m.lines[lo]...))
	default:
		k := 1
		for 2*k < n {
			k *= 2
		}
		l, r := m.hash(lo, lo+k), m.hash(lo+k, hi)
		h = sha256.Sum256(append(append([]byte{1}, l[:]...), r[:]...))
	}
	m.known[at] = h
	return h
}

// check holds what a trail answers against the model.
func (m *model) check(t testing.TB, rng *rand.Rand, p *Trail) {
	t.Helper()
	size := p.Size()
	if size != p.Position().Number {
		t.Fatalf("%d leaves at event %d", size, p.Position().Number)
	}
	for range 30 {
		if size == 0 {
			break
		}
		n := 1 + rng.Uint64N(size)
		h, err := p.Head(n)
		if err != nil || h.Size != n || h.Root != m.hash(0, int(n)) {
			t.Fatalf("head of %d leaves: %+v, %v", n, h, err)
		}
		number := 1 + rng.Uint64N(n)
		leaf, err := p.Leaf(number)
		if err != nil || leaf != proof.LeafHash(m.lines[number-1]) {
			t.Fatalf("leaf of event %d: %v, %v", number, leaf, err)
		}
		hashes, err := p.Inclusion(number, n)
		if err != nil {
			t.Fatal(err)
		}
		if err := proof.CheckInclusion(hashes, n, h.Root, number-1, leaf); err != nil {
			t.Fatal(err)
		}
		if hashes, err = p.Consistency(number, n); err != nil {
			t.Fatal(err)
		}
		if err := proof.CheckConsistency(hashes, n, h.Root, number, m.hash(0, int(number))); err != nil {
			t.Fatal(err)
		}
	}
}

// tiles holds all tiles against the model.
func (m *model) tiles(t *testing.T, p *Trail) {
	t.Helper()
	size, span, read := int(p.Size()), 1, 0
	for level := 0; size/span > 0; level, span = level+1, span*proof.TileWidth {
		for lo := 0; lo < size/span; lo += proof.TileWidth {
			tile := proof.Tile{Level: level, Index: uint64(lo / proof.TileWidth), Width: min(proof.TileWidth, size/span-lo)}
			var want []byte
			for i := range tile.Width {
				h := m.hash((lo+i)*span, (lo+i+1)*span)
				want = append(want, h[:]...)
			}
			got, err := p.Tile(tile)
			if err != nil || string(got) != string(want) {
				t.Fatalf("%s: %d bytes, %v", tile.Path(), len(got), err)
			}
			tile.Width++
			if _, err := p.Tile(tile); !errors.Is(err, ErrBeyond) {
				t.Errorf("%s of a tree of %d: %v", tile.Path(), size, err)
			}
			read++
		}
	}
	if read < 4 {
		t.Errorf("only %d tiles: the test is of no use", read)
	}
}

// TestTree checks that the tree is that of the standard, however the commits came
// in batches.
func TestTree(t *testing.T) {
	rng := projectiontest.Seed(t)
	story := projectiontest.Tell(rng, 600)
	m := newModel(story.Commits)
	one, many := openMem(t, vfs.NewMem()), openMem(t, vfs.NewMem())
	if err := one.Apply(story.Commits); err != nil {
		t.Fatal(err)
	}
	projectiontest.ApplyAll(t, rng, many, story.Commits)
	if got, want := dump(t, many), dump(t, one); got != want {
		t.Error("rows depend on the batches")
	}
	for n := range many.Size() {
		if h, err := many.Head(n + 1); err != nil || h.Root != m.hash(0, int(n+1)) {
			t.Fatalf("head of %d leaves: %+v, %v", n+1, h, err)
		}
	}
	m.check(t, rng, many)
	m.tiles(t, many)
	if err := many.Store().DB().Flush(); err != nil {
		t.Fatal(err)
	}
	m.check(t, rng, many)
}

// TestCrashAnywhere checks that a trail that lost its memory at any moment has
// the tree of a shorter ledger, and ends up as one of a clean run.
func TestCrashAnywhere(t *testing.T) {
	rng := projectiontest.Seed(t)
	story := projectiontest.Tell(rng, 300)
	m := newModel(story.Commits)
	projectiontest.CrashAnywhere(t, rng, story.Commits,
		func(fs vfs.FS) (*Trail, error) { return Open(Options{Dir: "audittrail", FS: fs}) },
		func(p *Trail) string { return dump(t, p) },
		func(p *Trail) { m.check(t, rng, p) })
}

// TestRebuild checks that a trail built beside the live one, by the runner from
// the ledger, has the same rows.
func TestRebuild(t *testing.T) {
	rng := projectiontest.Seed(t)
	story, fs := projectiontest.Tell(rng, 200), vfs.NewMem()
	home := projector.Home{FS: fs, Dir: "home"}
	dir, err := home.Current()
	if err != nil {
		t.Fatal(err)
	}
	openIn := func(dir string) (*Trail, error) { return Open(Options{Dir: dir, FS: fs}) }
	live, err := openIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	projectiontest.ApplyAll(t, rng, live, story.Commits)
	built, err := projector.Rebuild(t.Context(), story.Ledger(t).Connect(), home, openIn, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer built.Close()
	if got, want := dump(t, built), dump(t, live); got != want {
		t.Error("a rebuilt trail differs from the live one")
	}
	newModel(story.Commits).check(t, rng, built)
}

// TestChangedLedger checks that no tree is grown over a line that was changed.
func TestChangedLedger(t *testing.T) {
	rng := projectiontest.Seed(t)
	story := projectiontest.Tell(rng, 60)
	ledger := story.Ledger(t)
	at := uint64(30) // a commit of one event
	for len(story.Commits[at-1].Records) > 1 {
		at++
	}
	subject, payload := ledger.Payload(at)
	changed := bytes.Clone(payload)
	// Another id of the event: well formed, so that only the event behind it
	// tells that the line was changed.
	const open = `"id":"`
	i := bytes.Index(changed, []byte(open)) + len(open) + 25
	if changed[i]++; payload[i] != '0' {
		changed[i] = '0'
	}
	ledger.Replace(at, subject, changed)
	p := openMem(t, vfs.NewMem())
	run := projector.NewRunner(ledger.Connect(), p, projector.Options{MaxEvents: 1})
	if err := run.Run(t.Context()); !errors.Is(err, events.ErrChain) {
		t.Fatalf("stopped with %v", err)
	}
	if seq := p.Position().Seq; seq != at {
		t.Errorf("stopped at sequence %d", seq)
	}
	if run.Status().Stopped == nil {
		t.Error("it does not show that it has stopped")
	}
}

// TestApplyRefuses: what does not follow is refused, and leaves everything as it
// was.
func TestApplyRefuses(t *testing.T) {
	rng := projectiontest.Seed(t)
	story := projectiontest.Tell(rng, 40)
	p := openMem(t, vfs.NewMem())
	if err := p.Apply(story.Commits[:20]); err != nil {
		t.Fatal(err)
	}
	before := dump(t, p)
	change := func(f func(c *events.Commit)) []events.Commit {
		c := story.Commits[20]
		c.Records = slices.Clone(c.Records)
		f(&c)
		return []events.Commit{c}
	}
	for name, tt := range map[string]struct {
		commits []events.Commit
		want    error
	}{
		"again":          {story.Commits[19:20], events.ErrGap},
		"a gap":          {story.Commits[21:22], events.ErrGap},
		"a gap later":    {append(slices.Clone(story.Commits[20:25]), story.Commits[30]), events.ErrGap},
		"another number": {change(func(c *events.Commit) { c.Records[0].Number++ }), events.ErrGap},
		"another prev":   {change(func(c *events.Commit) { c.Records[0].Prev[3] ^= 1 }), events.ErrChain},
		"another hash":   {change(func(c *events.Commit) { c.Records[len(c.Records)-1].Hash[3] ^= 1 }), events.ErrChain},
		"another end":    {change(func(c *events.Commit) { c.End.Number++ }), events.ErrChain},
	} {
		if err := p.Apply(tt.commits); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if dump(t, p) != before {
		t.Error("what was refused has left something behind")
	}
	if err := p.Apply(story.Commits[20:]); err != nil {
		t.Error(err)
	}
	newModel(story.Commits).check(t, rng, p)
}

// ledger composes commits one by one.
type ledger struct {
	t    testing.TB
	at   events.Position
	past []events.Commit
}

func (l *ledger) tell(subject string, data ...events.Event) {
	l.t.Helper()
	var drafts []events.Draft
	for _, d := range data {
		drafts = append(drafts, events.Draft{Data: d, Envelope: events.Envelope{
			ID: eventstest.ID(100 + len(l.past)), Source: "watchword/test", Subject: subject,
			Time: eventstest.Epoch, Actor: events.Actor{Kind: events.ActorSystem},
		}})
	}
	_, c, err := events.Compose(l.at, drafts)
	if err != nil {
		l.t.Fatal(err)
	}
	l.past, l.at = append(l.past, c), c.End
}

// TestEpochs: each epoch is another log, which says where it began.
func TestEpochs(t *testing.T) {
	p := openMem(t, vfs.NewMem())
	if e, err := p.Epochs(); err != nil || e != nil {
		t.Errorf("of no ledger: %v, %v", e, err)
	}
	if h, err := p.Head(0); !errors.Is(err, ErrBeyond) {
		t.Errorf("of no ledger: %v, %v", h, err)
	}
	l := &ledger{t: t}
	account := "account/" + eventstest.ID(7).String()
	l.tell("log/"+eventstest.ID(1).String(), &events.LogOpened{Installation: eventstest.ID(1), Brand: "ww", PulseKey: make([]byte, 32)})
	l.tell(account, &events.AccountCreated{Name: "a"}, &events.AccountCreated{Name: "b"})
	l.tell("epoch/"+eventstest.ID(2).String(), &events.EpochOpened{Reason: "restored"})
	l.tell(account, &events.AccountUpdated{Name: "c"})
	l.tell("epoch/"+eventstest.ID(3).String(), &events.EpochOpened{Reason: "promoted"})
	projectiontest.ApplyAll(t, projectiontest.Seed(t), p, l.past)
	m := newModel(l.past)
	want := []Epoch{
		{Epoch: 1, First: 1, Root: m.hash(0, 0)}, {Epoch: 2, First: 4, Root: m.hash(0, 3)}, {Epoch: 3, First: 6, Root: m.hash(0, 5)},
	}
	for i := range want {
		want[i].Installation = eventstest.ID(1)
	}
	if got, err := p.Epochs(); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for size, epoch := range map[uint64]uint32{1: 1, 3: 1, 4: 2, 5: 2, 6: 3} {
		h, err := p.Head(size)
		if err != nil || h.Origin != proof.Origin(eventstest.ID(1), epoch) || h.Root != m.hash(0, int(size)) {
			t.Errorf("%d leaves: %+v, %v", size, h, err)
		}
	}
	// The first leaf of an epoch commits to the line before.
	opened := &l.past[2].Records[0]
	if opened.Prev != events.HashLine(m.lines[2]) {
		t.Error("an epoch that does not follow from what it took over")
	}
}

func TestBeyond(t *testing.T) {
	rng := projectiontest.Seed(t)
	story := projectiontest.Tell(rng, 20)
	p := openMem(t, vfs.NewMem())
	if err := p.Apply(story.Commits); err != nil {
		t.Fatal(err)
	}
	size := p.Size()
	for name, ask := range map[string]func() error{
		"head":              func() error { _, err := p.Head(size + 1); return err },
		"head of nothing":   func() error { _, err := p.Head(0); return err },
		"leaf":              func() error { _, err := p.Leaf(size + 1); return err },
		"leaf zero":         func() error { _, err := p.Leaf(0); return err },
		"inclusion in more": func() error { _, err := p.Inclusion(1, size+1); return err },
		"inclusion of more": func() error { _, err := p.Inclusion(size, size-1); return err },
		"inclusion of zero": func() error { _, err := p.Inclusion(0, size); return err },
		"consistency":       func() error { _, err := p.Consistency(1, size+1); return err },
		"shorter":           func() error { _, err := p.Consistency(size, size-1); return err },
		"tile":              func() error { _, err := p.Tile(proof.Tile{Level: 1, Width: 1}); return err },
	} {
		if err := ask(); !errors.Is(err, ErrBeyond) && (name != "tile" || size < 256) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if hashes, err := p.Consistency(0, size); err != nil || len(hashes) > 0 {
		t.Errorf("from nothing: %v, %v", hashes, err)
	}
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	if _, err := p.Leaf(1); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestDamagedRows changes and removes each hash of a tree, and asks everything:
// an answer is right, or the damage is told.
func TestDamagedRows(t *testing.T) {
	rng := projectiontest.Seed(t)
	story := projectiontest.Tell(rng, 25)
	fs := vfs.NewMem()
	p := openMem(t, fs)
	if err := p.Apply(story.Commits); err != nil {
		t.Fatal(err)
	}
	m, size := newModel(story.Commits), p.Size()
	db := p.Store().DB()
	var rows [][2][]byte
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{rowHash}, UpperBound: []byte{rowHash + 1}})
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		rows = append(rows, [2][]byte{slices.Clone(it.Key()), slices.Clone(it.Value())})
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		bad := slices.Clone(row[1])
		bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		for _, set := range []func() error{
			func() error { return db.Set(row[0], bad, nil) },
			func() error { return db.Set(row[0], bad[1:], nil) },
			func() error { return db.Delete(row[0], nil) },
		} {
			if err := set(); err != nil {
				t.Fatal(err)
			}
			if told := askAll(t, m, p, size); told == 0 {
				t.Errorf("the damage of hash %d was never told", binary.BigEndian.Uint64(row[0][1:]))
			}
		}
		if err := db.Set(row[0], row[1], nil); err != nil {
			t.Fatal(err)
		}
	}
	if told := askAll(t, m, p, size); told > 0 {
		t.Errorf("after the repair damage is told %d times", told)
	}
}

// askAll counts how often damage is told, and fails at a wrong answer.
func askAll(t *testing.T, m *model, p *Trail, size uint64) (told int) {
	t.Helper()
	count := func(err error) bool {
		if err != nil && !errors.Is(err, projector.ErrDamaged) {
			t.Fatal(err)
		}
		if err != nil {
			told++
		}
		return err == nil
	}
	for n := uint64(1); n <= size; n++ {
		root := m.hash(0, int(n))
		if h, err := p.Head(n); count(err) && h.Root != root {
			t.Errorf("a wrong root of %d leaves", n)
		}
		if hashes, err := p.Inclusion(n, size); count(err) {
			if err := proof.CheckInclusion(hashes, size, m.hash(0, int(size)), n-1, proof.LeafHash(m.lines[n-1])); err != nil {
				t.Error(err)
			}
		}
		if hashes, err := p.Consistency(n, size); count(err) {
			if err := proof.CheckConsistency(hashes, size, m.hash(0, int(size)), n, root); err != nil {
				t.Error(err)
			}
		}
	}
	return told
}

// TestDamagedAtStart: a trail whose edge is not that of its root does not open.
func TestDamagedAtStart(t *testing.T) {
	rng := projectiontest.Seed(t)
	story := projectiontest.Tell(rng, 25)
	for _, row := range []byte{rowRoot, rowHash} {
		t.Run(string(row), func(t *testing.T) {
			fs := vfs.NewMem()
			p, err := Open(Options{Dir: "audittrail", FS: fs})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Apply(story.Commits); err != nil {
				t.Fatal(err)
			}
			key, err := lastKey(p, row)
			if err == nil {
				err = p.Store().DB().Set(key, make([]byte, len(proof.Hash{})), nil)
			}
			if err := errors.Join(err, p.Close()); err != nil {
				t.Fatal(err)
			}
			if p, err := Open(Options{Dir: "audittrail", FS: fs}); !errors.Is(err, projector.ErrDamaged) {
				t.Errorf("%v, %v", p, err)
			}
		})
	}
}

// lastKey returns the last key that begins with row. The last hash of a tree is
// always part of its edge.
func lastKey(p *Trail, row byte) ([]byte, error) {
	it, err := p.Store().DB().NewIter(&pebble.IterOptions{LowerBound: []byte{row}, UpperBound: []byte{row + 1}})
	if err != nil {
		return nil, err
	}
	if !it.Last() {
		return nil, errors.Join(fmt.Errorf("no row %c", row), it.Close())
	}
	return slices.Clone(it.Key()), it.Close()
}
