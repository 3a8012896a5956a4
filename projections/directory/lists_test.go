package directory

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// listed is a row as lists know it.
type listed struct {
	list  int // which of several
	name  string
	id    token.ID
	alive bool
}

// checkLists reads every list whole, by name and by prefix, in pages.
func (m *model) checkLists(t testing.TB, d asker) {
	t.Helper()
	checkList(t, d, "accounts", m.accounts, func(a *aggregate.Account) listed {
		return listed{0, a.Name, a.ID, a.Status == aggregate.Active}
	}, d.AllAccounts)
	checkList(t, d, "users", m.users, func(u *aggregate.User) listed {
		return listed{0, "", u.ID, u.Status == aggregate.Active}
	}, d.AllUsers)
	for account := range m.accounts {
		checkList(t, d, "members", m.members, func(b *aggregate.Member) listed {
			return listed{0, "", b.ID, b.Status == aggregate.Active && b.Account == account}
		}, func(ask Listing) (Page[aggregate.Member], error) { return d.MembersPage(account, ask) })
	}
	for _, o := range m.owners() {
		for _, at := range append(m.ends(o), time.Time{}) {
			checkList(t, d, "tokens", m.tokens, func(k *aggregate.Token) listed {
				return listed{0, k.Name, k.ID, k.Status != aggregate.Revoked && k.OwnerKind == o.Kind && k.Owner == o.ID && !past(k, at)}
			}, func(ask Listing) (Page[aggregate.Token], error) {
				return d.Tokens(TokenQuery{Owner: o, Listing: ask, ValidAt: at})
			})
		}
	}
	for _, q := range m.resourceQueries() {
		checkList(t, d, fmt.Sprintf("resources %q in %q", q.Type, q.Parents), m.resources, func(s *aggregate.Resource) listed {
			at := slices.Index(q.Parents, s.Parent)
			if len(q.Parents) == 0 {
				at = 0
			}
			return listed{at, s.Name, s.ID, s.Status == aggregate.Active && (q.Keep == nil || q.Keep(s)) &&
				(q.Type == "" || q.Type == s.Type) && (len(q.Parents) == 0 || at >= 0)}
		}, func(ask Listing) (Page[aggregate.Resource], error) {
			q.Listing = ask
			return d.Resources(q)
		})
	}
}

// resourceQueries asks for each type and parent that there ever was, alone and
// together, and for two parents, with and without a filter.
func (m *model) resourceQueries() (all []ResourceQuery) {
	seen, parents := map[string]bool{}, []string(nil)
	for _, s := range m.resources {
		if !slices.Contains(parents, s.Parent) {
			parents = append(parents, s.Parent)
		}
		for _, q := range []ResourceQuery{{Type: s.Type}, {Parents: []string{s.Parent}}, {Type: s.Type, Parents: []string{s.Parent}}} {
			if key := fmt.Sprint(q.Type, q.Parents); !seen[key] {
				seen[key] = true
				all = append(all, q)
			}
		}
	}
	slices.Sort(parents)
	if len(parents) > 1 {
		all = append(all, ResourceQuery{Parents: parents})
	}
	for _, q := range all {
		q.Keep = func(s *aggregate.Resource) bool { return s.ID[len(s.ID)-1]%2 == 0 }
		all = append(all, q)
	}
	return all
}

func checkList[T any](t testing.TB, d asker, what string, rows map[token.ID]*T, as func(*T) listed, ask func(Listing) (Page[T], error)) {
	t.Helper()
	type row struct {
		listed
		v T
	}
	var all []row
	for _, v := range rows {
		if l := as(v); l.alive {
			all = append(all, row{l, *v})
		}
	}
	slices.SortFunc(all, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.list, b.list), strings.Compare(a.name+"\x00", b.name+"\x00"), a.id.Compare(b.id))
	})
	listings := []Listing{{}, {Name: "no such name"}, {Prefix: "no such"}}
	if len(all) > 0 {
		name := all[len(all)/2].name
		listings = append(listings, Listing{Name: name}, Listing{Prefix: name[:min(1, len(name))]}, Listing{Prefix: name[:(len(name)+1)/2]}, Listing{Name: name, Prefix: name[:len(name)/2]})
	}
	if what == "tokens" {
		listings = listings[1:] // the whole list is in another order
	}
	for _, l := range listings {
		want := []T{}
		for _, r := range all {
			if (l.Name == "" || r.name == l.Name) && strings.HasPrefix(r.name, l.Prefix) {
				want = append(want, r.v)
			}
		}
		for _, l.Descending = range []bool{false, true} {
			checkListing(t, d, what, l, slices.Clone(want), ask)
			slices.Reverse(want)
		}
	}
}

func checkListing[T any](t testing.TB, d asker, what string, l Listing, want []T, ask func(Listing) (Page[T], error)) {
	t.Helper()
	total := uint64(len(want))
	l.PerPage = 1 + len(want)/3
	for l.Page = 1; ; l.Page++ {
		got, err := ask(l)
		n := min(l.PerPage, len(want))
		expect(t, fmt.Sprintf("%s %+v", what, l), got, true, err, Page[T]{append([]T{}, want[:n]...), total, d.Position().Seq}, true)
		if want = want[n:]; n == 0 {
			return
		}
	}
}

// TestListBounds checks pages that cannot be, and names that look like the
// parts of a key.
func TestListBounds(t *testing.T) {
	s, commits := newLedger(t)
	d := closing(t, openMem(t, vfs.NewMem()))
	apply(t, d, commits...)
	names := []string{"a", "a\x00b", "ab", "aé", strings.Repeat("n", 4096)}
	for i, name := range names {
		apply(t, d, s.commit("resource", s.id(), &events.ResourceRegistered{
			Type: "org.example.project", Resource: fmt.Sprint(i), Name: name, Parent: "com.cloudflare.api.account." + s.account.String(),
		}))
	}
	s.m.check(t, d)
	for _, l := range []Listing{{Page: 0, PerPage: 5}, {Page: 1}, {Page: 1, PerPage: MaxPerPage + 1}, {Page: -1, PerPage: -1}} {
		if _, err := d.AllAccounts(l); !errors.Is(err, ErrPage) {
			t.Errorf("%+v: %v", l, err)
		}
	}
	if _, err := d.Resources(ResourceQuery{Listing: Listing{Page: 1, PerPage: 5}}); !errors.Is(err, ErrNoList) {
		t.Errorf("all resources: %v", err)
	}
	ended := TokenQuery{Owner: Owner{Kind: events.OwnedByUser, ID: s.user}, Listing: Listing{Page: 1, PerPage: 1, Prefix: "a"}, Ended: true}
	if _, err := d.Tokens(ended); !errors.Is(err, ErrPage) {
		t.Errorf("ended tokens by name: %v", err)
	}
	for _, l := range []Listing{{Page: math.MaxInt, PerPage: MaxPerPage}, {Page: math.MaxInt, PerPage: MaxPerPage, Prefix: "a"}} {
		p, err := d.Resources(ResourceQuery{Listing: l, Type: "org.example.project"})
		if err != nil || len(p.Items) != 0 || p.Total == 0 {
			t.Errorf("%+v: %d of %d, %v", l, len(p.Items), p.Total, err)
		}
	}
}
