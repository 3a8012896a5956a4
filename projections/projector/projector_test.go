package projector_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/projections/projectiontest"
	"watchword.dev/projections/projector"
)

// diary is a projection that writes down every event: its number and its line.
type diary struct {
	store *projector.Store
	fail  uint64 // the sequence that cannot be applied
	sizes []int  // commits of each batch
	cause error
}

func openDiary(t testing.TB, fs vfs.FS, dir string) *diary {
	t.Helper()
	d, err := newDiary(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newDiary(fs vfs.FS, dir string) (*diary, error) {
	s, err := projector.OpenStore(projector.StoreOptions{Dir: dir, Name: "diary", Version: 3, FS: fs})
	return &diary{store: s}, err
}

func (d *diary) Name() string              { return "diary" }
func (d *diary) Version() int              { return 3 }
func (d *diary) Position() events.Position { return d.store.Position() }
func (d *diary) Close() error              { return d.store.Close() }

func (d *diary) Apply(commits []events.Commit) error {
	d.sizes = append(d.sizes, len(commits))
	b := d.store.DB().NewBatch()
	defer b.Close()
	for _, c := range commits {
		if c.Seq == d.fail {
			return d.cause
		}
		for _, r := range c.Records {
			if events.HashLine(r.Line) != r.Hash {
				return fmt.Errorf("event %d: the line is not what was hashed", r.Number)
			}
			if err := b.Set(fmt.Appendf(nil, "event %08d", r.Number), r.Line, nil); err != nil {
				return err
			}
		}
	}
	return d.store.Commit(b, commits[len(commits)-1].End)
}

// start runs a runner; the channel gets what Run returns.
func start(t testing.TB, run *projector.Runner) (stop func(), ended chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	ended = make(chan error, 1)
	go func() { ended <- run.Run(ctx) }()
	return cancel, ended
}

func TestRunnerAppliesAll(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 120)
	ledger := s.Ledger(t)
	d := openDiary(t, vfs.NewMem(), "d")
	defer d.Close()
	run := projector.NewRunner(ledger.Connect(), d, projector.Options{MaxEvents: 10})
	stop, ended := start(t, run)
	if err := run.Wait(t.Context(), s.At.Seq); err != nil {
		t.Fatal(err)
	}
	if d.Position() != s.At {
		t.Errorf("at %+v, want %+v", d.Position(), s.At)
	}
	if slices.Max(d.sizes) < 2 || slices.Max(d.sizes) > 10 {
		t.Errorf("batches of %v commits", d.sizes)
	}
	// It follows what comes later.
	before := s.At.Seq
	for range 20 {
		s.Step()
	}
	s.Publish(t, ledger.Connect(), before)
	if err := run.Wait(t.Context(), s.At.Seq); err != nil {
		t.Fatal(err)
	}
	st := run.Status()
	if st.Applied != s.At || st.Head != s.At.Seq || st.Lag() != 0 || st.Stopped != nil || st.Name != "diary" || st.Version != 3 {
		t.Errorf("status %+v", st)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if run.Status().Stopped != nil {
		t.Errorf("an ordered end shows as %v", run.Status().Stopped)
	}
	if err := run.Wait(t.Context(), s.At.Seq+1); !errors.Is(err, projector.ErrStopped) {
		t.Errorf("waiting at the end: %v", err)
	}
	want := 0
	for _, c := range s.Commits {
		want += len(c.Records)
	}
	if got := strings.Count(projectiontest.Dump(t, d.store.DB()), "event "); got != want {
		t.Errorf("%d events in the diary, want %d", got, want)
	}
}

func TestCrashAnywhere(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 60)
	projectiontest.CrashAnywhere(t, rng, s.Commits,
		func(fs vfs.FS) (*diary, error) { return newDiary(fs, "d") },
		func(d *diary) string { return projectiontest.Dump(t, d.store.DB()) },
		func(d *diary) {
			if at := d.Position(); at.Seq > 0 && at != s.Commits[at.Seq-1].End {
				t.Errorf("after a crash at %+v", at)
			}
		})
}

func TestStopsAtWhatCannotBeApplied(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 50)
	cause := errors.New("a rule is broken")
	d := openDiary(t, vfs.NewMem(), "d")
	defer d.Close()
	d.fail, d.cause = 30, cause
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	run := projector.NewRunner(s.Ledger(t).Connect(), d, projector.Options{MaxEvents: 1, Now: func() time.Time { return now }})
	_, ended := start(t, run)
	if err := run.Wait(t.Context(), 40); !errors.Is(err, projector.ErrStopped) || !errors.Is(err, cause) {
		t.Errorf("waiting for what never comes: %v", err)
	}
	if err := <-ended; !errors.Is(err, cause) {
		t.Errorf("ended with %v", err)
	}
	if err := run.Wait(t.Context(), 29); err != nil {
		t.Errorf("waiting for what is applied: %v", err)
	}
	st := run.Status()
	if !errors.Is(st.Stopped, cause) || st.Applied.Seq != 29 || st.Since != now || st.Lag() == 0 {
		t.Errorf("status %+v", st)
	}
}

// TestStopsAtTheFirstBadCommit damages the ledger in each way that a reader
// finds: what came before is applied, nothing behind it.
func TestStopsAtTheFirstBadCommit(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 50)
	for _, c := range []struct {
		name   string
		damage func(l *eventstest.Ledger)
		want   error
	}{
		{"a hole", func(l *eventstest.Ledger) { l.Replace(30, "", nil) }, events.ErrGap},
		{"a changed byte", func(l *eventstest.Ledger) {
			subject, payload := l.Payload(29)
			last := payload[bytes.LastIndexByte(payload, '\n')+1:]   // of an earlier event it shows within the commit
			i := bytes.Index(last, []byte(`"id":"`)) + len(`"id":"`) // a 0, and 1 is as good a digit
			if last[i] == '0' {                                      // any other digit will do, but not one that no id has
				last[i] = '1'
			} else {
				last[i] = '0'
			}
			l.Replace(29, subject, payload)
		}, events.ErrChain},
		{"a stranger", func(l *eventstest.Ledger) {
			_, payload := l.Payload(30)
			name := strings.TrimPrefix(s.Commits[29].Subject, events.SubjectPrefix)
			payload = bytes.ReplaceAll(payload, []byte(name+".v1"), []byte("token.teleported.v1"))
			l.Replace(30, events.SubjectPrefix+"token.teleported", payload)
		}, events.ErrUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			ledger := s.Ledger(t)
			c.damage(ledger)
			d := openDiary(t, vfs.NewMem(), "d")
			defer d.Close()
			run := projector.NewRunner(ledger.Connect(), d, projector.Options{})
			_, ended := start(t, run)
			if err := <-ended; !errors.Is(err, c.want) {
				t.Errorf("ended with %v, want %v", err, c.want)
			}
			if st := run.Status(); st.Applied.Seq != 29 || !errors.Is(st.Stopped, c.want) {
				t.Errorf("status %+v", st)
			}
		})
	}
}

func TestRewindStops(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 30)
	ledger := s.Ledger(t)
	d := openDiary(t, vfs.NewMem(), "d")
	defer d.Close()
	projectiontest.ApplyAll(t, rng, d, s.Commits)
	ledger.Truncate(20)
	_, ended := start(t, projector.NewRunner(ledger.Connect(), d, projector.Options{}))
	if err := <-ended; !errors.Is(err, events.ErrRewind) {
		t.Errorf("ended with %v", err)
	}
}

// TestManyWaiters: thousands wait for different sequences, some give up; all
// the others are woken, none before its time.
func TestManyWaiters(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 200)
	d := openDiary(t, vfs.NewMem(), "d")
	defer d.Close()
	release := make(chan struct{})
	run := projector.NewRunner(s.Ledger(t).Connect(), d, projector.Options{
		MaxEvents: 5,
		Hold: func(ctx context.Context, _ events.Position) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	})
	stop, ended := start(t, run)
	gaveUp, giveUp := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for i := range 5000 {
		seq, ctx := 1+rand.Uint64N(s.At.Seq), t.Context()
		if i%5 == 0 {
			ctx = gaveUp
		}
		waiting.Go(func() {
			err := run.Wait(ctx, seq)
			switch {
			case err == nil && d.Position().Seq < seq:
				t.Errorf("woken for %d at %d", seq, d.Position().Seq)
			case err != nil && (i%5 != 0 || !errors.Is(err, context.Canceled)):
				t.Errorf("waiting for %d: %v", seq, err)
			}
		})
	}
	giveUp()
	if st := run.Status(); st.Applied.Seq != 0 {
		t.Errorf("held back, but at %d", st.Applied.Seq)
	}
	close(release)
	waiting.Wait()
	stop()
	<-ended
}

func TestForeignStore(t *testing.T) {
	fs := vfs.NewMem()
	if err := openDiary(t, fs, "d").Close(); err != nil {
		t.Fatal(err)
	}
	for _, o := range []projector.StoreOptions{{Name: "diary", Version: 4}, {Name: "calendar", Version: 3}} {
		o.Dir, o.FS = "d", fs
		if _, err := projector.OpenStore(o); !errors.Is(err, projector.ErrForeignStore) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if err := openDiary(t, fs, "d").Close(); err != nil {
		t.Errorf("its own store: %v", err)
	}
}

// TestHomeSurvivesACrash kills the machine around the swap of generations: the
// old or the new one serves, and it is whole.
func TestHomeSurvivesACrash(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 40)
	seen := map[string]int{}
	for range 40 {
		fs := vfs.NewCrashableMem()
		home := projector.Home{FS: fs, Dir: "home"}
		first, err := home.Current()
		if err != nil {
			t.Fatal(err)
		}
		next, err := home.Next()
		if err != nil {
			t.Fatal(err)
		}
		d := openDiary(t, fs, next)
		projectiontest.ApplyAll(t, rng, d, s.Commits)
		if rng.IntN(2) == 0 {
			if err := home.Use(next); err != nil {
				t.Fatal(err)
			}
		}
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
		d.Close()
		home.FS = crashed
		now, err := home.Current()
		if err != nil || now != first && now != next {
			t.Fatalf("%q serves: %v", now, err)
		}
		seen[now]++
		if err := home.Prune(); err != nil {
			t.Fatal(err)
		}
		again := openDiary(t, crashed, now)
		projectiontest.ApplyAll(t, rng, again, s.Commits[again.Position().Seq:])
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
		names, err := crashed.List("home")
		if err != nil || len(names) != 2 {
			t.Errorf("the home holds %v: %v", names, err)
		}
	}
	if len(seen) != 2 {
		t.Errorf("always the same one serves: %v", seen)
	}
}

func TestHomeRefusesRubbish(t *testing.T) {
	fs := vfs.NewMem()
	home := projector.Home{FS: fs, Dir: "home"}
	if _, err := home.Current(); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create("home/CURRENT", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "../elsewhere\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := home.Current(); !errors.Is(err, projector.ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

func TestRebuildStopsWithItsContext(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 20)
	fs := vfs.NewMem()
	home := projector.Home{FS: fs, Dir: "home"}
	before, err := home.Current()
	if err != nil {
		t.Fatal(err)
	}
	log := s.Ledger(t).Connect()
	reading := make(chan struct{})
	log.InjectFunc(func(op eventstest.Op) eventstest.Fault {
		if op == eventstest.OpRead {
			close(reading)
			return eventstest.Fault{Hold: make(chan struct{})}
		}
		return eventstest.Fault{}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-reading; cancel() }()
	if _, err := projector.Rebuild(ctx, log, home, func(dir string) (*diary, error) { return newDiary(fs, dir) }, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if now, err := home.Current(); err != nil || now != before {
		t.Errorf("%q serves: %v", now, err)
	}
}
