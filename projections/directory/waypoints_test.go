package directory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/projections/projectiontest"
)

// TestWaypoints asks for pages of a list in any order, while it grows now and
// then and views of before still ask: the waypoints of one are never another's.
func TestWaypoints(t *testing.T) {
	rng := projectiontest.Seed(t)
	s, commits := newLedger(t)
	d := closing(t, openMem(t, vfs.NewMem()))
	apply(t, d, commits...)
	var names []string
	const kind = "org.example.project"
	register := func() {
		name := fmt.Sprintf("n%06d", rng.IntN(1_000_000))
		apply(t, d, s.commit("resource", s.id(), &events.ResourceRegistered{
			Type: kind, Resource: fmt.Sprint("r", len(names)), Name: name, Parent: "com.cloudflare.api.account." + s.account.String(),
		}))
		names = append(names, name)
		slices.Sort(names)
	}
	for range 50 {
		register()
	}
	view, err := d.View()
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	then := slices.Clone(names)
	for range 400 {
		if rng.IntN(20) == 0 {
			register()
		}
		samePage(t, rng, &d.queries, kind, names)
		samePage(t, rng, &view.queries, kind, then)
	}
	if len(d.waypoints.all) == 0 {
		t.Error("no waypoint was ever kept")
	}
}

func samePage(t *testing.T, rng *rand.Rand, q *queries, kind string, names []string) {
	t.Helper()
	ask := Listing{Page: 1 + rng.IntN(12), PerPage: 1 + rng.IntN(9), Descending: rng.IntN(2) == 0}
	got, err := q.Resources(ResourceQuery{Listing: ask, Type: kind})
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(names)
	if ask.Descending {
		slices.Reverse(want)
	}
	want = want[min((ask.Page-1)*ask.PerPage, len(want)):]
	want = want[:min(ask.PerPage, len(want))]
	for i, r := range got.Items {
		if len(got.Items) != len(want) || r.Name != want[i] {
			t.Fatalf("%+v: %d of %d entries, the %dth is %q", ask, len(got.Items), len(want), i, r.Name)
		}
	}
	if len(got.Items) != len(want) || got.Total != uint64(len(names)) {
		t.Fatalf("%+v: %d of %d entries, want %d of %d", ask, len(got.Items), got.Total, len(want), len(names))
	}
}
