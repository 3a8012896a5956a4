package usage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events/token"
	"watchword.dev/events/usage"
	"watchword.dev/projections/projectiontest"
)

// tape is a stream in memory that ends.
type tape struct{ all []Message }

var errEnd = errors.New("end of the tape")

func (s *tape) Read(ctx context.Context, after uint64, fn func(Message) error) error {
	if s.last() < after {
		after = 0
	}
	for i, m := range s.all {
		m.Pending = uint64(len(s.all) - 1 - i)
		if m.Seq > after {
			if err := fn(m); err != nil {
				return err
			}
		}
	}
	return errEnd
}

func (s *tape) last() uint64 {
	if len(s.all) == 0 {
		return 0
	}
	return s.all[len(s.all)-1].Seq
}

func (s *tape) Last(context.Context) (uint64, error) { return s.last(), nil }

// put stores a report.
func (s *tape) put(t testing.TB, at time.Time, r usage.Report) {
	t.Helper()
	if r.Reporter == "" {
		r.Reporter = usage.Node
	}
	if r.Instance == "" {
		r.Instance = "a"
	}
	if r.From.IsZero() {
		r.From, r.To = at.Add(-4*time.Second), at
	}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.all = append(s.all, Message{Seq: s.last() + 1, Stored: at, Subject: r.Subject(), Data: b})
}

func open(t testing.TB, fs vfs.FS) *Usage {
	t.Helper()
	u, err := Open(Options{Dir: "usage", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// filled returns what the tape says.
func filled(t testing.TB, s *tape) *Usage {
	t.Helper()
	u := open(t, vfs.NewMem())
	if err := u.Fill(t.Context(), s, nil); err != nil {
		t.Fatal(err)
	}
	return u
}

var noon = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)

func id(n byte) (id token.ID) {
	id[0], id[15] = n, n
	return id
}

func row(n byte, permission string, result usage.Result, count uint64) usage.Row {
	return usage.Row{What: usage.What{Credential: id(n), Kind: usage.UserToken, Permission: permission, Result: result}, Count: count}
}

func spanOf(t testing.TB, u *Usage, n byte) Span {
	t.Helper()
	s, _, err := u.Span(id(n))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSpan(t *testing.T) {
	var s tape
	later := noon.Add(3 * 24 * time.Hour)
	s.put(t, noon, usage.Report{Number: 1, Rows: []usage.Row{row(1, "zone.read", usage.Allowed, 2), row(2, "", usage.Rejected, 1)}})
	s.put(t, later, usage.Report{Number: 2, Rows: []usage.Row{row(1, "zone.read", usage.Refused, 1)}})
	s.put(t, later.Add(time.Hour), usage.Report{Number: 3, Rows: []usage.Row{row(1, "zone.read", usage.Rejected, 1)}})
	u := filled(t, &s)
	if got, want := spanOf(t, u, 1), (Span{usage.UserToken, noon.Add(-4 * time.Second), later}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := spanOf(t, u, 2), (Span{Kind: usage.UserToken}); got != want {
		t.Errorf("one that was never good: %v, want %v", got, want)
	}
	if _, ok, err := u.Span(id(3)); ok || err != nil {
		t.Errorf("one that was never seen: %v %v", ok, err)
	}
}

// TestRepeatsCountOnce repeats reports, lets one go missing, and lets two
// instances speak at once.
func TestRepeatsCountOnce(t *testing.T) {
	var s tape
	for i, n := range []uint64{1, 1, 2, 4, 4, 2, 5} {
		at := noon.Add(time.Duration(i) * time.Second)
		s.put(t, at, usage.Report{Number: n, Lost: 1, Rows: []usage.Row{row(1, "zone.read", usage.Allowed, 10)}})
		s.put(t, at, usage.Report{Instance: "b", Number: 9, Rows: []usage.Row{row(1, "zone.read", usage.Allowed, 1)}})
	}
	u := filled(t, &s)
	h, err := u.History(id(1), noon, noon)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Uses) != 1 || h.Uses[0].Count != 41 || len(h.Days) != 1 || h.Days[0].Allowed != 41 {
		t.Errorf("%+v", h)
	}
	if lost, err := u.Lost(noon); err != nil || lost != 4 {
		t.Errorf("%d are lost (%v)", lost, err)
	}
}

// TestBadReportsStopNothing stores what is no report, what comes under another's
// subject, and what is from before all that is kept.
func TestBadReportsStopNothing(t *testing.T) {
	var s tape
	rows := []usage.Row{row(1, "zone.read", usage.Allowed, 1)}
	s.all = []Message{{Seq: 1, Stored: noon, Subject: "ww.usage.node.a", Data: []byte("{}")}}
	s.put(t, noon, usage.Report{Number: 1, Rows: rows})
	s.put(t, noon, usage.Report{Number: 2, Rows: rows})
	s.all[2].Subject = "ww.usage." + id(7).String() + ".a"
	s.put(t, noon, usage.Report{Number: 3, From: noon.AddDate(-1, 0, 0), To: noon.AddDate(-1, 0, 0), Rows: rows})
	s.put(t, noon, usage.Report{Number: 4, From: noon.AddDate(1, 0, 0), To: noon.AddDate(1, 0, 0), Rows: rows})
	u := filled(t, &s)
	h, err := u.History(id(1), noon, noon)
	if err != nil || len(h.Uses) != 1 || h.Uses[0].Count != 2 || u.Refused() != 3 || u.Sequence() != 5 {
		t.Errorf("%+v, %d are refused, at %d (%v)", h, u.Refused(), u.Sequence(), err)
	}
	if got := spanOf(t, u, 1).Last; !got.Equal(noon) {
		t.Errorf("a report from the future moves the last use to %v", got)
	}
	if st := u.Status(); st.Stopped != nil || st.Applied.Seq != 5 || st.Lag() != 0 {
		t.Errorf("%+v", st)
	}
}

func TestOldDaysGo(t *testing.T) {
	var s tape
	s.put(t, noon, usage.Report{Number: 1, Lost: 3, Rows: []usage.Row{row(1, "zone.read", usage.Allowed, 1)}})
	s.put(t, noon.AddDate(0, 0, KeptDays-1), usage.Report{Instance: "b", Number: 1, Rows: []usage.Row{row(2, "zone.read", usage.Allowed, 1)}})
	u := filled(t, &s)
	dump := projectiontest.Dump(t, u.Store().DB())
	if lost, err := u.Lost(noon); err != nil || lost != 3 {
		t.Fatalf("lost %d (%v) of\n%s", lost, err, dump)
	}
	now := noon.AddDate(0, 0, KeptDays)
	s.put(t, now, usage.Report{Instance: "b", Number: 2, Rows: []usage.Row{row(2, "zone.read", usage.Allowed, 1)}})
	if err := u.Fill(t.Context(), &s, nil); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[byte]int{1: 0, 2: 2} {
		h, err := u.History(id(n), noon, now)
		if err != nil || len(h.Days) != want {
			t.Errorf("%d: %+v (%v), want %d days", n, h, err, want)
		}
	}
	if lost, err := u.Lost(noon); err != nil || lost != 0 {
		t.Errorf("%d are lost (%v)", lost, err)
	}
	if got := spanOf(t, u, 1); !got.Last.Equal(noon) {
		t.Errorf("the last use is forgotten: %v", got)
	}
	// The instance that told nothing since is forgotten, too.
	if raw, err := get(u.Store().DB(), []byte("inode.a"), 16); raw != nil || err != nil {
		t.Errorf("an instance is kept: %x (%v)", raw, err)
	}
}

func TestUsesOfADayAreBounded(t *testing.T) {
	var s tape
	n := uint64(0)
	for range 6 {
		r := usage.Report{Number: n/usage.MaxRows + 1}
		for range usage.MaxRows {
			n++
			what := usage.What{
				Credential: id(1), Kind: usage.APIKey, Permission: fmt.Sprintf("p%d.x", n), Type: "t", ID: fmt.Sprint(n), Result: usage.Allowed,
			}
			r.Rows = append(r.Rows, usage.Row{What: what, Count: 1})
		}
		s.put(t, noon, r)
	}
	u := filled(t, &s)
	h, err := u.History(id(1), noon, noon)
	if err != nil {
		t.Fatal(err)
	}
	named, bare, total := 0, 0, uint64(0)
	for _, use := range h.Uses {
		total += use.Count
		switch {
		case use.ID != "":
			named++
		case use.Permission == "":
			bare++
		}
	}
	if len(h.Uses) != 2*MaxUses+1 || named != MaxUses || bare != 1 || total != n || h.Days[0].Allowed != n {
		t.Errorf("%d uses, %d named, %d bare, %d in all, want %d", len(h.Uses), named, bare, total, n)
	}
}

// story is a random tape, with a model of what it says.
func story(t testing.TB, rng *rand.Rand, reports int) (*tape, map[usage.What]uint64, time.Time) {
	s, at, model := &tape{}, noon, map[usage.What]uint64{}
	permissions := []string{"zone.read", "dns.records.read", "dns.records.write", ""}
	numbers := map[string]uint64{}
	for range reports {
		at = at.Add(time.Duration(rng.IntN(7200)) * time.Second)
		r := usage.Report{Instance: string(rune('a' + rng.IntN(3)))}
		fresh := rng.IntN(4) > 0
		if fresh || numbers[r.Instance] == 0 {
			numbers[r.Instance] += 1 + uint64(rng.IntN(2))
			fresh = true
		}
		r.Number = numbers[r.Instance]
		for range rng.IntN(20) {
			x := row(byte(1+rng.IntN(5)), permissions[rng.IntN(4)], usage.Result(1+rng.IntN(3)), uint64(1+rng.IntN(9)))
			if rng.IntN(3) == 0 {
				x.Kind, x.Type, x.ID = usage.APIKey, "t", fmt.Sprint(rng.IntN(4))
			}
			if r.Rows = append(r.Rows, x); fresh {
				model[x.What] += x.Count
			}
		}
		s.put(t, at, r)
	}
	return s, model, at
}

func TestRebuiltIsLive(t *testing.T) {
	rng := projectiontest.Seed(t)
	s, model, end := story(t, rng, 400)
	fs := vfs.NewMem()
	live := open(t, fs)
	for live.Sequence() < s.last() {
		// It follows in pieces, with restarts between them.
		part := &tape{s.all[:min(len(s.all), int(live.Sequence())+1+rng.IntN(60))]}
		if err := live.Follow(t.Context(), part); !errors.Is(err, errEnd) {
			t.Fatal(err)
		}
		if rng.IntN(3) == 0 {
			if err := live.Close(); err != nil {
				t.Fatal(err)
			}
			live = open(t, fs)
		}
	}
	rebuilt := filled(t, s)
	if a, b := projectiontest.Dump(t, live.Store().DB()), projectiontest.Dump(t, rebuilt.Store().DB()); a != b {
		t.Errorf("live\n%s\nrebuilt\n%s", a, b)
	}
	got := map[usage.What]uint64{}
	for n := range byte(6) {
		h, err := rebuilt.History(id(n), noon.AddDate(0, 0, -1), end)
		if err != nil {
			t.Fatal(err)
		}
		sum := uint64(0)
		for _, use := range h.Uses {
			got[use.What] += use.Count
			sum += use.Count
		}
		for _, d := range h.Days {
			sum -= d.Allowed + d.Refused + d.Rejected
		}
		if sum != 0 {
			t.Errorf("%d: days and uses do not add up: %+v", n, h)
		}
	}
	if !maps.Equal(got, model) {
		t.Errorf("counted\n%v, want\n%v", got, model)
	}

	// A stream that begins anew tells some of it again: that counts once.
	again := &tape{}
	for _, m := range s.all[len(s.all)/2:] {
		m.Seq = again.last() + 1
		again.all = append(again.all, m)
	}
	before, _, _ := live.Span(id(1))
	if err := live.Follow(t.Context(), again); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	h, err := live.History(id(1), noon.AddDate(0, 0, -1), end)
	if err != nil {
		t.Fatal(err)
	}
	for _, use := range h.Uses {
		if use.Count != model[use.What] {
			t.Errorf("%+v was counted again, want %d", use, model[use.What])
		}
	}
	if after := spanOf(t, live, 1); after != before {
		t.Errorf("%v, before %v", after, before)
	}
}

func TestClosed(t *testing.T) {
	u := open(t, vfs.NewMem())
	if err := errors.Join(u.Close(), u.Close()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.Span(id(1)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := u.History(id(1), noon, noon); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := u.Lost(noon); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
