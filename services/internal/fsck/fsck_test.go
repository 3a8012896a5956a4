package fsck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/projections/directory"
	"watchword.dev/projections/projectiontest"
	"watchword.dev/projections/projector"
)

// world is a ledger with a store of each projection.
type world struct {
	rng    *rand.Rand
	story  *projectiontest.Story
	ledger *eventstest.Ledger
	fs     vfs.FS
	kinds  []Kind
}

const indexMemory = 16 << 20

func newWorld(t *testing.T, commits int) *world {
	t.Helper()
	w := &world{rng: projectiontest.Seed(t), fs: vfs.NewMem(), kinds: []Kind{Directory(), Index(indexMemory)}}
	w.story = projectiontest.Tell(w.rng, commits)
	w.ledger = w.story.Ledger(t)
	return w
}

// fill brings the store of a kind to a sequence and closes it.
func (w *world) fill(t *testing.T, k Kind, seq uint64) {
	t.Helper()
	p, err := k.Open(k.Name, w.fs)
	if err != nil {
		t.Fatal(err)
	}
	projectiontest.ApplyAll(t, w.rng, p, w.story.Commits[p.Position().Seq:seq])
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

// damage changes a store with Pebble itself, past the projection.
func (w *world) damage(t *testing.T, k Kind, do func(*pebble.DB) error) {
	t.Helper()
	s, err := projector.OpenStore(projector.StoreOptions{Dir: k.Name, Name: k.Name, Version: k.Version, FS: w.fs})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(s.DB()), s.Close()); err != nil {
		t.Fatal(err)
	}
}

func (w *world) config() Config {
	c := Config{Ledger: w.ledger.Connect()}
	for _, k := range w.kinds {
		c.Stores = append(c.Stores, Store{Kind: k, Dir: k.Name, FS: w.fs})
	}
	return c
}

func (w *world) check(t *testing.T) Report {
	t.Helper()
	r, err := Check(t.Context(), w.config())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestClean checks that nothing is found where nothing is wrong, wherever the
// stores are, and that the report says what the ledger is.
func TestClean(t *testing.T) {
	w := newWorld(t, 400)
	at := []uint64{0, 0}
	for range 4 {
		r := w.check(t)
		end := w.story.At
		if r.Commits != end.Seq || r.Events != end.Number || r.Epoch != end.Epoch || r.Head != end.Hash.String() {
			t.Errorf("report %+v, want %+v", r, end)
		}
		// The stores do not exist at first.
		if at[0] > 0 && !r.Clean() {
			t.Errorf("findings: %v", r.Findings)
		}
		for i, k := range w.kinds {
			if s := r.Stores[i]; s.Name != k.Name || s.Sequence != at[i] || at[i] > 0 && s.Rows < 3 {
				t.Errorf("compared %+v, want %d", s, at[i])
			}
			at[i] += 1 + w.rng.Uint64N(100)
			w.fill(t, k, at[i])
		}
	}
}

// TestScratch checks that a check on the machine's own disk leaves nothing
// behind and changes no file of a store.
func TestScratch(t *testing.T) {
	w := newWorld(t, 200)
	w.fs = vfs.Default
	home := t.TempDir()
	c := Config{Ledger: w.ledger.Connect(), Scratch: filepath.Join(home, "scratch")}
	for _, k := range w.kinds {
		dir := filepath.Join(home, k.Name)
		p, err := k.Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		projectiontest.ApplyAll(t, w.rng, p, w.story.Commits)
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		c.Stores = append(c.Stores, Store{Kind: k, Dir: dir})
	}
	before := files(t, home)
	r, err := Check(t.Context(), c)
	if err != nil || !r.Clean() {
		t.Fatal(r.Findings, err)
	}
	if after := files(t, home); !slices.Equal(before, after) {
		t.Errorf("files before %q\nafter %q", before, after)
	}
}

// files returns the names and contents of all files below dir but for locks.
func files(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all = append(all, fmt.Sprintf("%s %x", path, b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestLive checks that a store in use is compared at the sequence where it is,
// while it moves on, and that the copy is removed.
func TestLive(t *testing.T) {
	w := newWorld(t, 600)
	c := Config{Ledger: w.ledger.Connect()}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for _, k := range w.kinds {
		p, err := k.Open(k.Name, w.fs)
		if err != nil {
			t.Fatal(err)
		}
		projectiontest.ApplyAll(t, w.rng, p, w.story.Commits[:100])
		live, ok := p.(Live)
		if !ok {
			t.Fatalf("%s makes no snapshots", k.Name)
		}
		c.Stores = append(c.Stores, Store{Kind: k, Dir: k.Name + ".copy", FS: w.fs, Live: live})
		run := projector.NewRunner(w.ledger.Connect(), p, projector.Options{MaxEvents: 10})
		ended := make(chan error, 1)
		go func() { ended <- run.Run(ctx) }()
		t.Cleanup(func() {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	r, err := Check(ctx, c)
	if err != nil || !r.Clean() {
		t.Fatal(r.Findings, err)
	}
	for i, s := range r.Stores {
		if s.Sequence < 100 {
			t.Errorf("%s was compared at %d", s.Name, s.Sequence)
		}
		if _, err := w.fs.Stat(c.Stores[i].Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the copy of %s is still there: %v", s.Name, err)
		}
	}
	stop()
}

// rows returns the keys of a store's rows, without its own keys.
func rows(t *testing.T, db *pebble.DB) (keys [][]byte) {
	t.Helper()
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{'!' + 1}})
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		keys = append(keys, bytes.Clone(it.Key()))
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestDamagedStore checks that each kind of damage to a store is found, in
// every table, and nothing else.
func TestDamagedStore(t *testing.T) {
	checkpoint := func(t *testing.T, at events.Position) (key, value []byte) {
		key, value, err := projector.Checkpoint(at)
		if err != nil {
			t.Fatal(err)
		}
		return key, value
	}
	tests := []struct {
		name string
		do   func(t *testing.T, w *world, key []byte, db *pebble.DB) error
		want string
		more bool // rows follow from it
	}{
		{"row changed", func(t *testing.T, w *world, key []byte, db *pebble.DB) error {
			v, closer, err := db.Get(key)
			if err != nil {
				return err
			}
			v = append(bytes.Clone(v), 0)
			return errors.Join(closer.Close(), db.Set(key, v, pebble.Sync))
		}, "row %s has another value", false},
		{"row missing", func(t *testing.T, w *world, key []byte, db *pebble.DB) error {
			return db.Delete(key, pebble.Sync)
		}, "row %s is missing", false},
		{"extra row", func(t *testing.T, w *world, key []byte, db *pebble.DB) error {
			return db.Set(append(key, 0), nil, pebble.Sync)
		}, "row %s00 should not be there", false},
		{"checkpoint moved back", func(t *testing.T, w *world, _ []byte, db *pebble.DB) error {
			k, v := checkpoint(t, w.story.Commits[99].End)
			return db.Set(k, v, pebble.Sync)
		}, "", true},
		{"checkpoint moved on", func(t *testing.T, w *world, _ []byte, db *pebble.DB) error {
			k, v := checkpoint(t, w.story.Commits[299].End)
			return db.Set(k, v, pebble.Sync)
		}, "", true},
		{"checkpoint of another ledger", func(t *testing.T, w *world, _ []byte, db *pebble.DB) error {
			at := w.story.Commits[199].End
			at.Hash[3]++
			k, v := checkpoint(t, at)
			return db.Set(k, v, pebble.Sync)
		}, "its checkpoint 200 is not the end of that commit in the ledger", false},
		{"checkpoint beyond the head", func(t *testing.T, w *world, _ []byte, db *pebble.DB) error {
			at := w.story.At
			at.Seq++
			k, v := checkpoint(t, at)
			return db.Set(k, v, pebble.Sync)
		}, "its checkpoint 301 lies beyond the head of the ledger, 300", false},
		{"another projection", func(t *testing.T, w *world, _ []byte, db *pebble.DB) error {
			return db.Set([]byte("!projection"), []byte("usage 1"), pebble.Sync)
		}, "projector: the store belongs to another projection or version", true},
		{"no header", func(t *testing.T, w *world, _ []byte, db *pebble.DB) error {
			return db.Delete([]byte("!projection"), pebble.Sync)
		}, "projector: the store belongs to another projection or version", true},
		{"checkpoint of no form", func(t *testing.T, w *world, _ []byte, db *pebble.DB) error {
			k, _ := checkpoint(t, w.story.At)
			return db.Set(k, []byte("200"), pebble.Sync)
		}, "projector: the store is damaged", true},
	}
	for _, tt := range tests {
		for at, k := range newWorld(t, 1).kinds {
			t.Run(tt.name+" of "+k.Name, func(t *testing.T) {
				w := newWorld(t, 300)
				for _, k := range w.kinds {
					w.fill(t, k, 200)
				}
				var key []byte
				w.damage(t, k, func(db *pebble.DB) error {
					all := rows(t, db)
					key = all[w.rng.IntN(len(all))]
					return tt.do(t, w, bytes.Clone(key), db)
				})
				r := w.check(t)
				want := tt.want
				if strings.Contains(want, "%s") {
					want = fmt.Sprintf(want, name(key))
				}
				if len(r.Findings) == 0 || !tt.more && len(r.Findings) != 1 {
					t.Fatalf("findings: %v", r.Findings)
				}
				for _, f := range r.Findings {
					if f.Where != k.Name || !tt.more && f.What != want || !strings.HasPrefix(f.What, want) {
						t.Errorf("found %q, want %s: %q", f, k.Name, want)
					}
				}
				if r.Commits != 300 || r.Stores[1-at].Sequence != 200 {
					t.Errorf("report %+v", r)
				}
			})
		}
	}
}

// TestDamagedFile checks that bytes that have changed on the disk under Pebble
// are found.
func TestDamagedFile(t *testing.T) {
	w := newWorld(t, 300)
	k := w.kinds[0]
	for _, k := range w.kinds {
		w.fill(t, k, 200)
	}
	w.damage(t, k, func(db *pebble.DB) error { return db.Flush() })
	names, err := w.fs.List(k.Name)
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for _, n := range names {
		if !strings.HasSuffix(n, ".sst") {
			continue
		}
		f, err := w.fs.OpenReadWrite(w.fs.PathJoin(k.Name, n), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		// Neither the store's own keys at the beginning nor what the file
		// says of itself at the end.
		if _, err := f.WriteAt([]byte("damage"), info.Size()/3); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		damaged++
	}
	r := w.check(t)
	if damaged == 0 || r.Clean() || r.Findings[0].Where != k.Name || !strings.HasPrefix(r.Findings[0].What, "rows cannot be read: ") {
		t.Errorf("%d files damaged, findings: %v", damaged, r.Findings)
	}
}

// TestDamagedLedger checks that damage to the ledger is found, and that the
// stores are compared as far as it is good.
func TestDamagedLedger(t *testing.T) {
	tests := []struct {
		name  string
		do    func(w *world)
		good  uint64
		where []string
		what  string // in the finding about the ledger
	}{
		{"byte flipped", func(w *world) {
			subject, payload := w.ledger.Payload(150)
			// In the data: the envelope's form is none of the chain's doing.
			payload[len(payload)-len(`e"}}`)] ^= 1
			w.ledger.Replace(150, subject, payload)
		}, 150, []string{"ledger", "verifyindex"}, "the chain is broken"},
		{"hole", func(w *world) { w.ledger.Replace(150, "", nil) }, 149, []string{"ledger", "verifyindex"}, "gap in the ledger"},
		{"not JSON", func(w *world) {
			subject, _ := w.ledger.Payload(150)
			w.ledger.Replace(150, subject, []byte("{}"))
		}, 149, []string{"ledger", "verifyindex"}, "malformed"},
		{"tail lost", func(w *world) { w.ledger.Truncate(149) }, 149, []string{"verifyindex"}, ""},
		{"all lost", func(w *world) { w.ledger.Truncate(0) }, 0, []string{"directory", "verifyindex"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 200)
			w.story = tellWithText(t, w)
			w.ledger = w.story.Ledger(t)
			w.fill(t, w.kinds[0], 100)
			w.fill(t, w.kinds[1], 180)
			tt.do(w)
			r := w.check(t)
			if r.Commits != tt.good {
				t.Errorf("good up to %d, want %d", r.Commits, tt.good)
			}
			var where []string
			for _, f := range r.Findings {
				where = append(where, f.Where)
				if f.Where == inLedger && !strings.Contains(f.What, tt.what) {
					t.Errorf("found %q, want %q", f, tt.what)
				}
			}
			if !slices.Equal(where, tt.where) {
				t.Errorf("findings: %v, want some in %v", r.Findings, tt.where)
			}
		})
	}
}

// tellWithText returns a story whose commit 150 ends with a text that can
// change without becoming malformed.
func tellWithText(t *testing.T, w *world) *projectiontest.Story {
	t.Helper()
	s := projectiontest.NewStory(w.rng)
	for len(s.Commits) < 149 {
		s.Step()
	}
	d := events.Draft{Data: &events.PenOpened{Term: 7, Node: "node"}}
	d.ID, d.Source, d.Subject, d.Time = s.Commits[0].Records[0].SubjectID(), "watchword/test", "pen/7", s.Now
	d.Actor.Kind = events.ActorSystem
	s.Append(d)
	for len(s.Commits) < 200 {
		s.Step()
	}
	return s
}

// TestQuietLedger checks that a ledger that does not deliver what it says that
// it has is found, and not waited for.
func TestQuietLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		story := projectiontest.Tell(projectiontest.Seed(t), 20)
		l := story.Ledger(t)
		for seq := uint64(18); seq <= 20; seq++ {
			l.Replace(seq, "", nil)
		}
		r, err := Check(t.Context(), Config{Ledger: l.Connect()})
		if err != nil {
			t.Fatal(err)
		}
		want := []Finding{{inLedger, "it says that it ends at sequence 20, but does not deliver 18"}}
		if !slices.Equal(r.Findings, want) || r.Commits != 17 {
			t.Errorf("findings: %v up to %d, want %v", r.Findings, r.Commits, want)
		}
	})
}

// TestForeignBeginning checks that a ledger must begin with log.opened, and
// holds it once.
func TestForeignBeginning(t *testing.T) {
	story := projectiontest.Tell(projectiontest.Seed(t), 4)
	again := events.Draft{Data: &events.LogOpened{Brand: "ww"}}
	again.ID, again.Source, again.Subject, again.Time = story.Commits[0].Records[0].SubjectID(), "watchword/test", "log/1", story.Now
	again.Actor.Kind = events.ActorSystem
	story.Append(again)
	r, err := Check(t.Context(), Config{Ledger: story.Ledger(t).Connect()})
	if err != nil {
		t.Fatal(err)
	}
	if want := []Finding{{inLedger, "sequence 5 holds a log.opened.v1"}}; !slices.Equal(r.Findings, want) {
		t.Errorf("findings: %v, want %v", r.Findings, want)
	}
}

// TestErrors checks that what keeps a check from being made is no finding.
func TestErrors(t *testing.T) {
	w := newWorld(t, 50)
	for _, k := range w.kinds {
		w.fill(t, k, 40)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := Check(ended, w.config()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	away := errors.New("away")
	for _, op := range []eventstest.Op{eventstest.OpHead, eventstest.OpRead} {
		c, log := w.config(), w.ledger.Connect()
		log.Inject(op, eventstest.Fault{Err: away})
		c.Ledger = log
		if r, err := Check(t.Context(), c); !errors.Is(err, away) || !r.Clean() {
			t.Errorf("%s away: %v, %v", op, err, r.Findings)
		}
	}
	held, err := directory.Open(directory.Options{Dir: directory.Name, FS: w.fs})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Check(t.Context(), w.config()); err == nil {
		t.Errorf("checked a store that is in use: %v", r)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if r := w.check(t); !r.Clean() {
		t.Errorf("findings: %v", r.Findings)
	}
}

// TestProgress checks that the progress ends at its total and never goes back.
func TestProgress(t *testing.T) {
	w := newWorld(t, 1500)
	w.fill(t, w.kinds[0], 900)
	w.fill(t, w.kinds[1], 1200)
	c := w.config()
	var last, total uint64
	c.Progress = func(done, all uint64) {
		if done < last {
			t.Errorf("progress fell from %d to %d", last, done)
		}
		last, total = done, all
	}
	if r, err := Check(t.Context(), c); err != nil || !r.Clean() {
		t.Fatal(r.Findings, err)
	}
	if last != 1500+900+1200 || total != last {
		t.Errorf("progress ended at %d of %d", last, total)
	}
}

// TestReportText checks the form in which programs read a report.
func TestReportText(t *testing.T) {
	r := Report{Commits: 2, Events: 3, Epoch: 1, Head: "ab", Stores: []StoreReport{{"directory", 2, 9}}, Findings: []Finding{{"directory", "row t: gone"}}}
	got, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"commits":2,"events":3,"epoch":1,"head_hash":"ab","stores":[{"name":"directory","sequence":2,"rows":9}],"findings":["directory: row t: gone"]}`
	if string(got) != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	var back Report
	if err := json.Unmarshal(got, &back); err != nil || !slices.Equal(back.Findings, r.Findings) {
		t.Errorf("read back %+v, %v", back, err)
	}
}
