package token

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go4.org/netipx"
	"pgregory.net/rapid"

	"watchword.dev/events/catalogue"
)

// TestCompiledLength holds the hot path to its size: what a verification costs
// is the lines of memory that it waits for.
func TestCompiledLength(t *testing.T) {
	h := newHotPath(t)
	if n := len(h.c); n > 300 {
		t.Errorf("five policies take %d bytes", n)
	}
}

// TestCompiledValidity: the bounds can be read, and outlive the policies.
func TestCompiledValidity(t *testing.T) {
	later := epoch.Add(time.Hour)
	for _, bounds := range [][2]time.Time{{}, {epoch}, {1: later}, {epoch, later}} {
		g := benchGrant()
		g.NotBefore, g.ExpiresOn = bounds[0], bounds[1]
		c, err := Compile(g, catalogue.Cloudflare())
		if err != nil {
			t.Fatal(err)
		}
		bare := Compiled(c.AppendBare([]byte{1, 2, 3})[3:])
		if err := bare.Check(catalogue.Cloudflare()); err != nil {
			t.Errorf("bare: %v", err)
		}
		if len(bare) > MaxBare {
			t.Errorf("bare is %d bytes long", len(bare))
		}
		reason, _, _ := bare.Evaluate(catalogue.Cloudflare(), 1, nil, netip.Addr{}, epoch.Add(time.Minute))
		if reason != ReasonNoPolicy {
			t.Errorf("bare: %q", reason)
		}
		for _, c := range []Compiled{c, bare} {
			if from, to := c.Validity(); from != bounds[0] || to != bounds[1] {
				t.Errorf("got %v and %v, want %v", from, to, bounds)
			}
		}
	}
	if from, to := (Compiled{1}).Validity(); !from.IsZero() || !to.IsZero() {
		t.Errorf("out of damage came %v and %v", from, to)
	}
	if b := (Compiled{1}).AppendBare(nil); len(b) != 0 {
		t.Errorf("out of damage came %x", b)
	}
}

// TestCompiledForms has a policy of each form: few and many groups, few and
// many resources.
func TestCompiledForms(t *testing.T) {
	var groups []catalogue.Group
	for i := range 600 {
		groups = append(groups, catalogue.Group{
			ID: fmt.Sprintf("%032x", i), Name: fmt.Sprint("Group ", i),
			Permissions: []string{"zone.read"}, Scopes: []string{"w.account.zone"},
		})
	}
	groups = append(groups, catalogue.Group{ID: worldGroupID("e"), Name: "Write", Permissions: []string{"zone.write"}, Scopes: []string{"w.account.zone"}})
	cat, err := catalogue.New(worldTypes, worldPermissions, groups)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name              string
		from, step, until int // groups
		resources         int
		form              byte
	}{
		{"a few groups", 0, 200, 600, 1, 0},
		{"neighbours", 64, 1, 128, 1, formSet},
		{"all", 0, 1, 600, 1, formSet},
		{"many scattered", 0, 11, 600, 1, formSet},
		{"a few groups, many resources", 599, 1, 600, 4000, formLarge},
		{"all groups, many resources", 0, 1, 600, 4000, formLarge | formSet},
	} {
		t.Run(c.name, func(t *testing.T) {
			var refs []GroupRef
			for i := c.from; i < c.until; i += c.step {
				refs = append(refs, GroupRef{groups[i].ID})
			}
			var keys []string
			for i := range c.resources {
				keys = append(keys, fmt.Sprintf(`"w.account.zone.%032x":"*"`, i))
			}
			g := Grant{Policies: []Policy{
				{ID: ID{1}, Effect: EffectAllow, Groups: refs, Resources: []byte("{" + strings.Join(keys, ",") + "}")},
				{ID: ID{2}, Effect: EffectAllow, Groups: []GroupRef{{worldGroupID("e")}}, Resources: []byte(`{"w.account.zone.*":"*"}`)},
			}}
			compiled, err := Compile(g, cat)
			if err != nil {
				t.Fatal(err)
			}
			if err := compiled.Check(cat); err != nil {
				t.Fatal(err)
			}
			if form := compiled[headerLen]; form != c.form {
				t.Errorf("form %d, want %d", form, c.form)
			}
			ask := func(permission, zone string) (Reason, ID) {
				r, id, _ := compiled.Evaluate(cat, cat.Permission(permission), []string{"w.account.zone." + zone}, netip.Addr{}, epoch)
				return r, id
			}
			last := fmt.Sprintf("%032x", c.resources-1)
			if r, id := ask("zone.read", last); r != ReasonNone || id != (ID{1}) {
				t.Errorf("the last resource: %q by %v", r, id)
			}
			if r, _ := ask("zone.read", fmt.Sprintf("%032x", c.resources)); r != ReasonNoPolicy {
				t.Errorf("another resource: %q", r)
			}
			if r, id := ask("zone.write", last); r != ReasonNone || id != (ID{2}) {
				t.Errorf("the policy behind: %q by %v", r, id)
			}
		})
	}
}

// TestRanges holds the quick way to the ranges of netipx.
func TestRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := func(name string) (ps []netip.Prefix) {
			for range rapid.IntRange(0, fewPrefixes).Draw(t, name) {
				a := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 127, 128, 255}), 4, 4).Draw(t, "v4")))
				if rapid.Bool().Draw(t, "v6") {
					a = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 128, 255}), 16, 16).Draw(t, "v6")))
				}
				if a.Is4In6() {
					continue
				}
				near := rapid.SampledFrom([]int{0, 1, 2, 8, a.BitLen() / 2, a.BitLen() - 8, a.BitLen() - 2, a.BitLen() - 1, a.BitLen()})
				ps = append(ps, netip.PrefixFrom(a, near.Draw(t, "bits")).Masked())
			}
			return ps
		}
		r := &resolved{restricted: true, in: list("in"), notIn: list("not in")}
		for range 2 { // the second time in used rooms
			if got, want := r.ranges(), r.addresses().Ranges(); !slices.EqualFunc(got, want, func(a, b netipx.IPRange) bool { return a == b }) {
				t.Fatalf("%v without %v\n got %v\nwant %v", r.in, r.notIn, got, want)
			}
		}
	})
}

// TestCompiledChanges: the next time at which the clock alone changes an answer.
func TestCompiledChanges(t *testing.T) {
	cat := catalogue.Cloudflare()
	from, to := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct{ from, to, now, want time.Time }{
		{time.Time{}, time.Time{}, from, time.Time{}},
		{from, to, from.Add(-1), from},
		{from, to, from, to},
		{from, to, to.Add(-1), to},
		{from, to, to, time.Time{}},
		{from, time.Time{}, from, time.Time{}},
		{time.Time{}, to, from, to},
		{to, from, from.Add(-1), to}, // one that never holds
	} {
		g, err := Compile(Grant{NotBefore: c.from, ExpiresOn: c.to}, cat)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.Changes(c.now); !got.Equal(c.want) || got.IsZero() != c.want.IsZero() {
			t.Errorf("from %v to %v, at %v: %v, want %v", c.from, c.to, c.now, got, c.want)
		}
	}
	if got := (Compiled{1}).Changes(from); !got.IsZero() {
		t.Error(got)
	}
}
