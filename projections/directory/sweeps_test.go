package directory

import (
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

func init() { sweepPiece = 3 } // every story has sweeps of more than that

// checkSweeps compares what is said of sweeps and selections with the model.
func (m *model) checkSweeps(t testing.TB, d asker) {
	t.Helper()
	asked := map[Selection]bool{{By: events.SweepAll}: true, {By: events.SweepTemplate, Template: "nobody's"}: true}
	for s := range m.sweeps {
		asked[s] = true
	}
	for _, tok := range m.tokens {
		asked[Selection{By: events.SweepOwner, Owner: tok.Owner}] = true
	}
	for of := range asked {
		want, wantOK := m.sweeps[of]
		got, ok, err := d.Sweep(of)
		expect(t, "sweep", got, ok, err, want, wantOK)
		var living []token.ID
		for id, tok := range m.tokens {
			if of.Selects(tok) && tok.Status != aggregate.Revoked {
				living = append(living, id)
			}
		}
		slices.SortFunc(living, token.ID.Compare)
		n, err := d.LivingCount(of)
		expect(t, "living", n, true, err, uint64(len(living)), true)
		var all []token.ID
		for next, pages := (token.ID{}), 0; pages == 0 || !next.IsZero(); pages++ {
			next, err = d.LivingAfter(of, next, 7, func(tok *aggregate.Token) error {
				all = append(all, tok.ID)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(all, living) {
			t.Fatalf("%+v: walked over %v, want %v", of, all, living)
		}
	}
}

// TestSweepBorder checks that a sweep ends what was created by the event that it
// names and before, and nothing behind that: no token that stands in the ledger
// before the sweep, and none that its owner makes later.
func TestSweepBorder(t *testing.T) {
	s, commits := newLedger(t)
	d, err := Open(Options{Dir: "directory", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	apply := func(more ...events.Commit) {
		t.Helper()
		if err := d.Apply(more); err != nil {
			t.Fatal(err)
		}
	}
	apply(commits...)
	var made []token.ID
	for range 8 {
		id := s.id()
		made = append(made, id)
		apply(s.create(id, s.digest(), ""))
	}
	border, _, _ := d.Token(made[4])
	apply(s.commit("revocation", s.id(), &events.RevocationSwept{By: events.SweepOwner, Selected: s.user.String(), Through: border.Number, Reason: "leak"}))
	later := s.id()
	apply(s.create(later, s.digest(), ""))
	for i, id := range append(made, later) {
		got, _, err := d.Token(id)
		if err != nil || (got.Status == aggregate.Revoked) != (i <= 4) || i <= 4 && got.Reason != "leak" {
			t.Errorf("token %d of number %d, swept through %d: %s %q, %v", i, got.Number, border.Number, got.Status, got.Reason, err)
		}
	}
	if n, _, _ := d.TokenCounts(Owner{Kind: events.OwnedByUser, ID: s.user}); n.Live != 4 || n.All != 9 {
		t.Errorf("counts: %+v", n)
	}
	s.m.check(t, d)
}
