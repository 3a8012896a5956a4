package token

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"
)

func placeInWorld(key string) (string, bool) {
	outer, ok := worldParents[key]
	return outer, ok
}

// TestCovers tells the rules one by one. held and asked are lists of policies
// as effect, group digit, resources.
func TestCovers(t *testing.T) {
	type p = [3]string
	grant := func(policies []p) (g Grant) {
		for _, x := range policies {
			g.Policies = append(g.Policies, Policy{
				Effect: Effect(x[0]), Groups: []GroupRef{{ID: worldGroupID(x[1])}}, Resources: []byte(x[2]),
			})
		}
		return g
	}
	const (
		z1       = `{"w.account.zone.z1":"*"}`
		zones    = `{"w.account.zone.*":"*"}`
		a1       = `{"w.account.a1":"*"}`
		accounts = `{"w.account.*":"*"}`
		a1zones  = `{"w.account.a1":{"w.account.zone.*":"*"}}`
		a1z1     = `{"w.account.a1":{"w.account.zone.z1":"*"}}`
		anyzones = `{"w.account.*":{"w.account.zone.*":"*"}}`
		r1       = `{"w.account.zone.record.r1":"*"}`
	)
	for _, c := range []struct {
		name        string
		held, asked []p
		plain       bool // covered without knowing where things lie
		placed      bool // covered when that is known
	}{
		{"the same", []p{{"allow", "1", z1}}, []p{{"allow", "1", z1}}, true, true},
		{"less of the group", []p{{"allow", "1", z1}}, []p{{"allow", "0", z1}}, true, true},
		{"more of the group", []p{{"allow", "0", z1}}, []p{{"allow", "1", z1}}, false, false},
		{"nothing held", nil, []p{{"allow", "0", z1}}, false, false},
		{"one of all", []p{{"allow", "1", zones}}, []p{{"allow", "1", z1}}, true, true},
		{"all of one", []p{{"allow", "1", z1}}, []p{{"allow", "1", zones}}, false, false},
		{"narrower nesting", []p{{"allow", "1", a1zones}}, []p{{"allow", "1", a1z1}}, true, true},
		{"wider nesting", []p{{"allow", "1", a1z1}}, []p{{"allow", "1", a1zones}}, false, false},
		{"nesting under every account", []p{{"allow", "1", anyzones}}, []p{{"allow", "1", a1zones}}, true, true},
		{"flat covers nested", []p{{"allow", "1", zones}}, []p{{"allow", "1", a1zones}}, true, true},
		{"nested covers flat only by place", []p{{"allow", "1", a1zones}}, []p{{"allow", "1", z1}}, false, true},
		{"zone elsewhere", []p{{"allow", "1", a1zones}}, []p{{"allow", "1", `{"w.account.zone.z3":"*"}`}}, false, false},
		{"account group covers its zone by the nesting", []p{{"allow", "5", a1}}, []p{{"allow", "1", a1z1}}, true, true},
		{"account group covers its zone by place", []p{{"allow", "5", a1}}, []p{{"allow", "1", z1}}, false, true},
		{"account group covers no other zone", []p{{"allow", "5", a1}}, []p{{"allow", "1", `{"w.account.zone.z3":"*"}`}}, false, false},
		{"two levels down by place", []p{{"allow", "4", accounts}}, []p{{"allow", "3", r1}}, false, true},
		{"record within zone of account", []p{{"allow", "4", `{"w.account.a1":{"w.account.zone.z1":"*"}}`}}, []p{{"allow", "3", r1}}, false, true},
		{"zone group does not reach an account", []p{{"allow", "1", zones}}, []p{{"allow", "5", a1}}, false, false},
		{"deny is dropped", []p{{"allow", "1", zones}, {"deny", "1", z1}}, []p{{"allow", "1", zones}}, false, false},
		{"deny is carried", []p{{"allow", "1", zones}, {"deny", "1", z1}}, []p{{"allow", "1", zones}, {"deny", "1", z1}}, true, true},
		{"deny is widened", []p{{"allow", "1", zones}, {"deny", "0", z1}}, []p{{"allow", "1", zones}, {"deny", "4", zones}}, true, true},
		{"deny is narrowed", []p{{"allow", "1", zones}, {"deny", "1", zones}}, []p{{"allow", "1", zones}, {"deny", "1", z1}}, false, false},
		{"deny of other permissions", []p{{"allow", "4", zones}, {"deny", "2", zones}}, []p{{"allow", "1", zones}}, true, true},
		{"deny of one of the permissions", []p{{"allow", "4", zones}, {"deny", "0", z1}}, []p{{"allow", "1", `{"w.account.zone.z2":"*"}`}}, false, false},
		{"only a denial is asked", nil, []p{{"deny", "1", z1}}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, v := range []struct {
				how  string
				err  error
				want bool
			}{
				{"plain", Covers(grant(c.held), grant(c.asked), world), c.plain},
				{"placed", CoversPlaced(grant(c.held), grant(c.asked), world, placeInWorld), c.placed},
			} {
				if (v.err == nil) != v.want {
					t.Errorf("%s: got %v, want covered = %v", v.how, v.err, v.want)
				}
				if e, ok := errors.AsType[*GrantError](v.err); v.err != nil && (!ok || e.Kind != NotHeld) {
					t.Errorf("%s: not a refusal: %#v", v.how, v.err)
				}
			}
		})
	}
}

// TestCoversConditions compares addresses and validity of grants that are the
// same otherwise.
func TestCoversConditions(t *testing.T) {
	base := Grant{Policies: []Policy{{Effect: EffectAllow, Groups: []GroupRef{{ID: worldGroupID("1")}}, Resources: []byte(`{"w.account.zone.z1":"*"}`)}}}
	with := func(in []string, from, to int) Grant {
		g := base
		if in != nil {
			g.Condition = &Condition{RequestIP: RequestIP{In: in}}
		}
		if from != 0 {
			g.NotBefore = epoch.Add(time.Duration(from) * time.Hour)
		}
		if to != 0 {
			g.ExpiresOn = epoch.Add(time.Duration(to) * time.Hour)
		}
		return g
	}
	all := []string{"0.0.0.0/0", "::/0"}
	for _, c := range []struct {
		name          string
		parent, child Grant
		pointer       string
	}{
		{"open", with(nil, 0, 0), with(nil, 0, 0), ""},
		{"narrower", with(nil, 0, 0), with([]string{"192.0.2.0/24"}, 1, 2), ""},
		{"same", with([]string{"192.0.2.0/24"}, 1, 2), with([]string{"192.0.2.0/25", "192.0.2.128/25"}, 1, 2), ""},
		{"no end", with(nil, 0, 2), with(nil, 0, 0), "/expires_on"},
		{"later end", with(nil, 0, 2), with(nil, 0, 3), "/expires_on"},
		{"no beginning", with(nil, 1, 0), with(nil, 0, 0), "/not_before"},
		{"earlier beginning", with(nil, 2, 0), with(nil, 1, 0), "/not_before"},
		{"more addresses", with([]string{"192.0.2.0/24"}, 0, 0), with([]string{"192.0.2.0/23"}, 0, 0), "/condition"},
		{"other family", with([]string{"192.0.2.0/24"}, 0, 0), with([]string{"192.0.2.0/24", "2001:db8::1"}, 0, 0), "/condition"},
		{"unknown addresses", with(all, 0, 0), with(nil, 0, 0), "/condition"},
		{"nobody", with([]string{"192.0.2.0/24"}, 0, 0), with([]string{}, 0, 0), ""},
	} {
		err := Covers(c.parent, c.child, world)
		got := ""
		if e, ok := errors.AsType[*GrantError](err); ok {
			got = e.Pointer
		}
		if got != c.pointer || (err == nil) != (c.pointer == "") {
			t.Errorf("%s: got %v, want %q", c.name, err, c.pointer)
		}
	}
}

// narrow draws a grant that is likely, but not certain, to be covered by g.
func narrow(t *rapid.T, g Grant) Grant {
	g = g.Clone()
	for i := range g.Policies {
		p := &g.Policies[i]
		switch rapid.IntRange(0, 5).Draw(t, "narrowing") {
		case 0:
			p.Resources = []byte(drawResources(t))
			*p = applicable(*p)
		case 1:
			p.Groups = p.Groups[:1]
		case 2:
			p.Groups = []GroupRef{{ID: rapid.SampledFrom(worldGroups).Draw(t, "group").ID}}
			*p = applicable(*p)
		case 3: // wider, which must not be covered
			id := rapid.SampledFrom([]string{"z1", "z2", "a1", "r1"}).Draw(t, "widened")
			wide := jsontext.Value(strings.Replace(string(p.Resources), "."+id, ".*", 1))
			if _, err := ParseResources(wide, world); err == nil {
				p.Resources = wide
			}
		}
	}
	if len(g.Policies) > 1 && rapid.IntRange(0, 3).Draw(t, "drop") == 0 {
		g.Policies = g.Policies[1:]
	}
	if g.ExpiresOn.IsZero() || rapid.IntRange(0, 3).Draw(t, "sooner") == 0 {
		g.ExpiresOn = epoch.Add(5*time.Hour + 30*time.Minute)
	}
	if rapid.IntRange(0, 3).Draw(t, "addresses") == 0 {
		g.Condition = &Condition{RequestIP: RequestIP{In: drawPrefixes(t), NotIn: drawPrefixes(t)}}
	}
	return g
}

// TestCoversHolds checks the promise of Covers: when it says yes, whatever
// child allows, parent allows. The slow evaluator is the judge.
func TestCoversHolds(t *testing.T) {
	yes := 0
	rapid.Check(t, func(t *rapid.T) {
		parent := drawGrant(t)
		child := drawGrant(t)
		if rapid.IntRange(0, 4).Draw(t, "derived") > 0 {
			child = narrow(t, parent)
		}
		if child.Validate(world, DefaultLimits) != nil {
			return
		}
		plain := Covers(parent, child, world) == nil
		placed := CoversPlaced(parent, child, world, placeInWorld) == nil
		if plain && !placed {
			t.Fatalf("knowing more covers less")
		}
		if !placed {
			return
		}
		yes++
		slowParent, slowChild := slowParse(t, parent), slowParse(t, child)
		judge := func(r Request) {
			if reason, _ := worldSlow.evaluate(slowChild, r); reason != ReasonNone {
				return
			}
			if reason, _ := worldSlow.evaluate(slowParent, r); reason != ReasonNone {
				parentText, _ := json.Marshal(parent)
				childText, _ := json.Marshal(child)
				t.Fatalf("parent %s\nchild %s\nrequest %+v: parent says %q", parentText, childText, r, reason)
			}
		}
		for _, chain := range worldChains {
			for _, p := range worldPermissions {
				for _, a := range worldAddresses {
					addr, _ := netip.ParseAddr(a)
					for h := range 9 {
						judge(Request{Permission: p.Name, Resource: chain, Address: addr, Time: epoch.Add(time.Duration(h) * time.Hour)})
					}
				}
			}
		}
		if plain {
			for range 20 {
				judge(drawRequest(t))
			}
		}
	})
	t.Logf("covered: %d", yes)
	if yes == 0 && !t.Failed() {
		t.Error("Covers never said yes: nothing was tested")
	}
}

// TestCoversBounded compares the largest grants that the default limits allow.
// They have 25 million pairs of resources and 2.5 million of a resource and a
// group: comparing all with all does not end before the test's deadline.
func TestCoversBounded(t *testing.T) {
	big := largeGrant(t)
	if err := Covers(big, big, world); err != nil {
		t.Fatal(err)
	}
}

// largeGrant fills DefaultLimits.
func largeGrant(t testing.TB) Grant {
	var g Grant
	perPolicy := DefaultLimits.Resources / DefaultLimits.Policies
	for i := range DefaultLimits.Policies {
		entries := map[string]string{}
		for j := range perPolicy {
			id := ID{byte(i), byte(j)}
			entries["w.account.zone."+id.String()] = `"*"`
		}
		p := Policy{Effect: EffectAllow, Resources: []byte(object(entries))}
		for j := range DefaultLimits.GroupsPerPolicy {
			p.Groups = append(p.Groups, GroupRef{ID: worldGroupID(string(rune('0' + j%5)))})
		}
		p = applicable(p)
		g.Policies = append(g.Policies, p)
	}
	if err := g.Validate(world, DefaultLimits); err != nil {
		t.Fatal(err)
	}
	return g
}
