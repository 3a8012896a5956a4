package suggest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

const zoneType = accountType + ".zone"

func id(n byte) (id token.ID) {
	id[0], id[15] = n, n
	return id
}

// told writes policies as lines of group names and resources.
func told(cat *catalogue.Catalogue, policies []token.Policy) (lines []string) {
	for _, p := range policies {
		line := ""
		for _, ref := range p.Groups {
			g, _ := cat.Group(ref.ID)
			line += g.Name + "; "
		}
		lines = append(lines, line+string(p.Resources))
	}
	return lines
}

func TestPolicies(t *testing.T) {
	account := id(9).String()
	for name, c := range map[string]struct {
		uses []Use
		want []string
		left int
	}{
		"nothing": {},
		"reading": {uses: []Use{{"dns.records.read", zoneType, "z1", id(9)}},
			want: []string{`DNS Read; {"com.cloudflare.api.account.zone.z1":"*"}`}},
		"reading and writing is one group": {uses: []Use{{"dns.records.read", zoneType, "z1", id(9)}, {"dns.records.write", zoneType, "z1", id(9)}},
			want: []string{`DNS Write; {"com.cloudflare.api.account.zone.z1":"*"}`}},
		"zones that are used alike share a policy": {uses: []Use{
			{"dns.records.read", zoneType, "z2", id(9)}, {"dns.records.read", zoneType, "z1", id(8)}, {"dns.records.write", zoneType, "z3", id(9)},
		}, want: []string{`DNS Read; {"com.cloudflare.api.account.zone.z1":"*","com.cloudflare.api.account.zone.z2":"*"}`, `DNS Write; {"com.cloudflare.api.account.zone.z3":"*"}`}},
		"a zone that is not known": {uses: []Use{{"dns.records.read", zoneType, "", id(9)}, {"dns.records.read", zoneType, "z1", id(9)}},
			want: []string{`DNS Read; {"com.cloudflare.api.account.` + account + `":{"com.cloudflare.api.account.zone.*":"*"}}`}},
		"nor its account": {uses: []Use{{"dns.records.read", zoneType, "", token.ID{}}, {"dns.records.read", zoneType, "", id(9)}},
			want: []string{`DNS Read; {"com.cloudflare.api.account.zone.*":"*"}`}},
		"the account itself": {uses: []Use{{"account.settings.read", accountType, "", id(9)}},
			want: []string{`Account Settings Read; {"com.cloudflare.api.account.` + account + `":"*"}`}},
		"what nobody can give": {uses: []Use{{"dns.records.read", "made.up", "z1", id(9)}, {"made.up", zoneType, "z1", id(9)}, {"", zoneType, "z1", id(9)}}, left: 3},
	} {
		t.Run(name, func(t *testing.T) {
			cat := catalogue.Cloudflare()
			policies, left := Policies(cat, c.uses)
			if got := told(cat, policies); !slices.Equal(got, c.want) || len(left) != c.left {
				t.Errorf("%q and %v are left, want %q and %d", got, left, c.want, c.left)
			}
		})
	}
}

func TestManyResourcesBecomeAll(t *testing.T) {
	var uses []Use
	for n := range mostResources + 1 {
		uses = append(uses, Use{"dns.records.read", zoneType, fmt.Sprint(n), id(9)})
	}
	cat := catalogue.Cloudflare()
	policies, _ := Policies(cat, uses)
	if got, want := told(cat, policies), []string{`DNS Read; {"com.cloudflare.api.account.` + id(9).String() + `":{"com.cloudflare.api.account.zone.*":"*"}}`}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestNeedlessGroupGoes has a catalogue in which the first choice is made
// needless by the second.
func TestNeedlessGroupGoes(t *testing.T) {
	cat, err := catalogue.New([]catalogue.ResourceType{{Name: "things"}},
		[]catalogue.Permission{{Name: "a.read", Class: catalogue.Read}, {Name: "a.write", Class: catalogue.Write}, {Name: "a.other", Class: catalogue.Write}},
		[]catalogue.Group{
			{ID: fmt.Sprintf("%032d", 1), Name: "Read", Scopes: []string{"things"}, Permissions: []string{"a.read"}},
			{ID: fmt.Sprintf("%032d", 2), Name: "All", Scopes: []string{"things"}, Permissions: []string{"a.read", "a.write", "a.other"}},
		})
	if err != nil {
		t.Fatal(err)
	}
	policies, left := Policies(cat, []Use{{"a.read", "things", "1", token.ID{}}, {"a.write", "things", "1", token.ID{}}})
	if got, want := told(cat, policies), []string{`All; {"things.1":"*"}`}; !slices.Equal(got, want) || len(left) > 0 {
		t.Errorf("%q, %v are left", got, left)
	}
}

// TestSuggestionDoesWhatWasDone compiles suggestions for random uses and asks
// for each of them again.
func TestSuggestionDoesWhatWasDone(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng, cat := rand.New(rand.NewPCG(seed, 0)), catalogue.Cloudflare()
	permissions, types := cat.Permissions(), cat.Types()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	covered := 0
	for range 200 {
		var uses []Use
		for range rng.IntN(12) {
			u := Use{permissions[rng.IntN(len(permissions))].Name, types[rng.IntN(len(types))].Name, fmt.Sprintf("%032x", 1+rng.IntN(3)), id(byte(1 + rng.IntN(2)))}
			if rng.IntN(5) == 0 {
				u.ID = ""
			}
			uses = append(uses, u)
		}
		policies, left := Policies(cat, uses)
		if len(policies) == 0 {
			continue
		}
		for i := range policies {
			policies[i].ID = id(byte(i + 1))
		}
		g := token.Grant{Policies: policies}
		if err := g.Validate(cat, token.DefaultLimits); err != nil {
			t.Fatalf("%v for %v: %q", err, uses, told(cat, policies))
		}
		compiled, err := token.Compile(g, cat)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range uses {
			if slices.Contains(left, u) {
				continue
			}
			covered++
			if u.ID == "" {
				if u.ID = "any"; u.Type == accountType {
					u.ID = u.Account.String()
				}
			}
			chain := []string{accountType + "." + u.Account.String()}
			if u.Type != accountType {
				chain = append(chain, u.Type+"."+u.ID)
			} else {
				chain[0] = u.Type + "." + u.ID
			}
			if reason, _, ok := compiled.Evaluate(cat, cat.Permission(u.Permission), chain, netip.Addr{}, now); !ok {
				t.Errorf("%v is refused (%v) by %q", u, reason, told(cat, policies))
			}
		}
	}
	if covered == 0 {
		t.Error("nothing was covered")
	}
}
