package token

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
)

// TestValidate breaks one rule at a time in a grant that is otherwise good.
func TestValidate(t *testing.T) {
	good := func() Grant {
		return Grant{
			Policies: []Policy{{
				Effect:    EffectAllow,
				Groups:    []GroupRef{{ID: worldGroupID("0")}, {ID: worldGroupID("5")}},
				Resources: []byte(`{"w.account.zone.z1":"*","w.account.a1":"*"}`),
			}},
			Condition: &Condition{RequestIP: RequestIP{In: []string{"192.0.2.77/24", "2001:db8::1", "::ffff:192.0.2.1"}, NotIn: []string{"192.0.2.1/32"}}},
			NotBefore: epoch, ExpiresOn: epoch.Add(time.Second),
		}
	}
	policies := func(n int) (out []Policy) {
		for range n {
			out = append(out, good().Policies...)
		}
		return out
	}
	addresses := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprintf("192.0.%d.%d", i/256, i%256))
		}
		return out
	}
	for _, c := range []struct {
		name    string
		change  func(*Grant)
		pointer string
		kind    ErrorKind
	}{
		{"good", func(*Grant) {}, "", 0},
		{"no bounds", func(g *Grant) { g.NotBefore, g.ExpiresOn = time.Time{}, time.Time{} }, "", 0},
		{"no condition", func(g *Grant) { g.Condition = nil }, "", 0},
		{"nobody", func(g *Grant) { g.Condition.RequestIP.In = []string{} }, "", 0},
		{"most policies", func(g *Grant) { g.Policies = policies(DefaultLimits.Policies) }, "", 0},
		{"most addresses", func(g *Grant) { g.Condition.RequestIP.NotIn = addresses(DefaultLimits.Addresses) }, "", 0},

		{"no policies", func(g *Grant) { g.Policies = nil }, "/policies", Invalid},
		{"many policies", func(g *Grant) { g.Policies = policies(DefaultLimits.Policies + 1) }, "/policies", TooMany},
		{"100,000 policies", func(g *Grant) { g.Policies = policies(100000) }, "/policies", TooMany},
		{"no effect", func(g *Grant) { g.Policies[0].Effect = "" }, "/policies/0/effect", Invalid},
		{"other effect", func(g *Grant) { g.Policies[0].Effect = "Allow" }, "/policies/0/effect", Invalid},
		{"no groups", func(g *Grant) { g.Policies[0].Groups = nil }, "/policies/0/permission_groups", Invalid},
		{"many groups", func(g *Grant) { g.Policies[0].Groups = make([]GroupRef, DefaultLimits.GroupsPerPolicy+1) }, "/policies/0/permission_groups", TooMany},
		{"unknown group", func(g *Grant) { g.Policies[0].Groups[1].ID = worldGroupID("e") }, "/policies/0/permission_groups/1/id", UnknownGroup},
		{"group of no form", func(g *Grant) { g.Policies[0].Groups[1].ID = "\x00" }, "/policies/0/permission_groups/1/id", UnknownGroup},
		{"group of another scope", func(g *Grant) { g.Policies[0].Groups[1].ID = worldGroupID("3") }, "/policies/0/permission_groups/1", WrongScope},
		{"resources", func(g *Grant) { g.Policies = append(g.Policies, Policy{Effect: EffectDeny}) }, "/policies/1/resources", Invalid},
		{"many resources", func(g *Grant) { g.Policies[0].Resources = zones(DefaultLimits.ResourcesPerPolicy + 1) }, "/policies/0/resources", TooMany},
		{"many resources in all", func(g *Grant) {
			g.Policies = policies(6)
			for i := range g.Policies {
				g.Policies[i].Groups, g.Policies[i].Resources = g.Policies[i].Groups[:1], zones(DefaultLimits.ResourcesPerPolicy)
			}
		}, "/policies", TooMany},
		{"ends as it begins", func(g *Grant) { g.ExpiresOn = g.NotBefore }, "/expires_on", Invalid},
		{"long ago", func(g *Grant) { g.NotBefore = earliest.Add(-1) }, "/not_before", Invalid},
		{"far away", func(g *Grant) { g.ExpiresOn = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }, "/expires_on", Invalid},
		{"no address", func(g *Grant) { g.Condition.RequestIP.In[1] = "example.com" }, "/condition/request_ip/in/1", Invalid},
		{"no prefix", func(g *Grant) { g.Condition.RequestIP.NotIn[0] = "192.0.2.0/33" }, "/condition/request_ip/not_in/0", Invalid},
		{"many addresses", func(g *Grant) { g.Condition.RequestIP.In = addresses(DefaultLimits.Addresses + 1) }, "/condition/request_ip/in", TooMany},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := good()
			c.change(&g)
			err := g.Validate(world, DefaultLimits)
			if c.kind == 0 {
				if err != nil {
					t.Fatal(err)
				}
				if _, err := Compile(g, world); err != nil {
					t.Fatalf("valid and does not compile: %v", err)
				}
				return
			}
			e, ok := errors.AsType[*GrantError](err)
			if !ok || e.Pointer != c.pointer || e.Kind != c.kind || e.Text == "" || len(e.Error()) > 200 {
				t.Fatalf("got %#v, want %v at %s", err, c.kind, c.pointer)
			}
			if (e.Group != "") != (e.Kind == WrongScope) {
				t.Errorf("group %q", e.Group)
			}
		})
	}
}

func zones(n int) []byte {
	entries := map[string]string{}
	for i := range n {
		entries[fmt.Sprintf("w.account.zone.z%d", i)] = `"*"`
	}
	return []byte(object(entries))
}

func TestParsePrefix(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "192.0.2.77/24": "192.0.2.0/24", "0.0.0.0/0": "0.0.0.0/0", "2001:db8::1": "2001:db8::1/128",
		"2001:DB8::F/32": "2001:db8::/32", "::ffff:192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.77/120": "192.0.2.0/24", "::ffff:0:0/96": "0.0.0.0/0",
	} {
		if p, err := ParsePrefix(in); err != nil || p.String() != want {
			t.Errorf("%s: got %v, %v, want %s", in, p, err, want)
		}
	}
	for _, bad := range []string{
		"", "/", "/24", "192.0.2.0/", "192.0.2.0/33", "192.0.2.0/-1", "192.0.2.0/024", "192.0.2.0/24/24", "192.0.2", "192.0.2.256", "192.0.02.1",
		"fe80::1%eth0", "fe80::1%eth0/64", "fe80::/64%eth0", "::ffff:192.0.2.0/90", "2001:db8::/129", " 192.0.2.1", "192.0.2.1\n", "192.0.2.1-192.0.2.9", "*", "3221225985",
		strings.Repeat("1", 100000),
	} {
		if p, err := ParsePrefix(bad); err == nil || p != (netip.Prefix{}) {
			t.Errorf("%.50q is taken for %v", bad, p)
		}
	}
}

// TestGrantJSON: the wire form is Cloudflare's; an absent list and an empty
// one stay different, because the first is everybody and the second nobody.
func TestGrantJSON(t *testing.T) {
	full := `{"policies":[{"id":"01000000000000000000000000000000","effect":"deny","permission_groups":[{"id":"b"},{"id":"a"}],"resources":{"z":"*","a":{"y":"*","b":"*"}}}],` +
		`"condition":{"request_ip":{"in":[],"not_in":["192.0.2.1"]}},"not_before":"2026-01-01T00:00:00Z","expires_on":"2026-01-01T00:00:00.5Z"}`
	for _, text := range []string{
		full,
		`{"policies":[]}`,
		`{"policies":[],"condition":{"request_ip":{"in":["::/0"]}}}`,
		`{"policies":[],"condition":{"request_ip":{"not_in":[]}}}`,
	} {
		var g Grant
		if err := json.Unmarshal([]byte(text), &g); err != nil {
			t.Fatal(err)
		}
		back, err := json.Marshal(g)
		if err != nil || string(back) != text {
			t.Errorf("got  %s, %v\nwant %s", back, err, text)
		}
	}
	var g Grant
	if err := json.Unmarshal([]byte(`{"policies":[],"condition":{"request_ip":{"in":null}},"x":1}`), &g); err != nil || g.Condition.RequestIP.In != nil {
		t.Errorf("null is not absent: %+v, %v", g, err)
	}
	for _, bad := range []string{`{"policies":[],"policies":[]}`, `{"policies":[{"id":"x"}]}`, `{"expires_on":"tomorrow"}`, `{"condition":{"request_ip":{"in":"::/0"}}}`} {
		if err := json.Unmarshal([]byte(bad), new(Grant)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestNormalizeTimes(t *testing.T) {
	in := Grant{
		Condition: &Condition{RequestIP: RequestIP{In: []string{}}},
		NotBefore: time.Date(2026, 1, 1, 2, 0, 0, 1999999, time.FixedZone("", 2*3600)),
	}
	got, err := in.Normalize()
	want := Grant{Condition: in.Condition, NotBefore: epoch.Add(time.Millisecond)}
	if err != nil || cmp.Diff(want, got) != "" || got.NotBefore.Location() != time.UTC {
		t.Errorf("got %+v, %v", got, err)
	}
	if got.Condition.RequestIP.In == nil {
		t.Error("nobody became everybody")
	}
	if got.Condition == in.Condition {
		t.Error("the result shares memory")
	}
}

// TestCompileTakesWhatWasStored: a grant that was valid when it was asked for
// must compile in the form in which it was stored, or a projection would stop.
func TestCompileTakesWhatWasStored(t *testing.T) {
	policies := []Policy{{Effect: EffectAllow, Groups: []GroupRef{{ID: worldGroupID("4")}}, Resources: []byte(`{"w.account.*":"*"}`)}}
	for name, g := range map[string]Grant{
		"a moment":   {Policies: policies, NotBefore: epoch.Add(1), ExpiresOn: epoch.Add(2)},
		"the oldest": {Policies: policies, NotBefore: earliest.Add(1), ExpiresOn: earliest.Add(2)},
	} {
		if err := g.Validate(world, DefaultLimits); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		stored, err := g.Normalize()
		if err != nil {
			t.Fatal(err)
		}
		c, err := Compile(stored, world)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		reason, _, _ := c.Evaluate(world, world.Permission("zone.read"), []string{"w.account.a1"}, netip.Addr{}, epoch)
		if reason != ReasonExpired {
			t.Errorf("%s: %q", name, reason)
		}
	}
}

// TestNames: the words of the wire, both ways.
func TestNames(t *testing.T) {
	for r, name := range reasonNames {
		var back Reason
		if b, err := Reason(r).MarshalText(); err != nil || string(b) != name {
			t.Errorf("%d: %s, %v", r, b, err)
		}
		if err := back.UnmarshalText([]byte(name)); err != nil || back != Reason(r) {
			t.Errorf("%s: %v, %v", name, back, err)
		}
	}
	if _, err := Reason(200).MarshalText(); err == nil || Reason(200).String() != "invalid" || new(Reason).UnmarshalText([]byte("nope")) == nil {
		t.Error("invalid reason passes")
	}
	for _, k := range []OwnerKind{OwnerNone, OwnerUser, OwnerAccount, OwnerEnforcer, OwnerConsumer} {
		b, err := k.MarshalText()
		var back OwnerKind
		if err != nil || back.UnmarshalText(b) != nil || back != k {
			t.Errorf("%d: %s, %v", k, b, err)
		}
	}
	if (Decision{}).Verdict != VerdictDeny || ReasonNone.Verdict() != VerdictAllow || ReasonStale.Verdict() != VerdictUnavailable ||
		ReasonNotReady.Verdict() != VerdictUnavailable || ReasonExpired.Verdict() != VerdictDeny {
		t.Error("verdict of reason")
	}
	for _, v := range []Verdict{VerdictDeny, VerdictAllow, VerdictUnavailable} {
		b, err := v.MarshalText()
		var back Verdict
		if err != nil || back.UnmarshalText(b) != nil || back != v {
			t.Errorf("%d: %s, %v", v, b, err)
		}
	}
}
