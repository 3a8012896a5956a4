package token

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"
	"pgregory.net/rapid"

	"watchword.dev/events/catalogue"
)

// TestEvaluate tells the rules one by one. Every line is also put to the slow
// evaluator.
func TestEvaluate(t *testing.T) {
	policy := func(n byte, effect Effect, group, resources string) Policy {
		return Policy{ID: ID{n}, Effect: effect, Groups: []GroupRef{{ID: worldGroupID(group)}}, Resources: []byte(resources)}
	}
	grant := func(p ...Policy) Grant { return Grant{Policies: p} }
	from := func(g Grant, in, notIn []string) Grant {
		g.Condition = &Condition{RequestIP: RequestIP{In: in, NotIn: notIn}}
		return g
	}
	const z1 = "w.account.a1 w.account.zone.z1"
	all := grant(policy(1, EffectAllow, "4", `{"w.account.zone.z1":"*"}`))
	nested := grant(policy(1, EffectAllow, "4", `{"w.account.a1":{"w.account.zone.*":"*"}}`))
	timed := all
	timed.NotBefore, timed.ExpiresOn = epoch, epoch.Add(time.Hour)

	for _, c := range []struct {
		name       string
		grant      Grant
		permission string
		chain      string
		address    string
		at         time.Duration
		want       Reason
		policy     byte
	}{
		{"allowed", all, "zone.read", z1, "", 0, ReasonNone, 1},
		{"other zone", all, "zone.read", "w.account.a1 w.account.zone.z2", "", 0, ReasonNoPolicy, 0},
		{"no chain", all, "zone.read", "", "", 0, ReasonNoPolicy, 0},
		{"unknown permission", all, "zone.fly", z1, "", 0, ReasonUnknownPermission, 0},
		{"permission not in group", grant(policy(1, EffectAllow, "0", `{"w.account.zone.z1":"*"}`)), "zone.write", z1, "", 0, ReasonNoPolicy, 0},
		{"an id is not a prefix", all, "zone.read", "w.account.zone.z11", "", 0, ReasonNoPolicy, 0},
		{"too long a chain", all, "zone.read", z1 + strings.Repeat(" w.account.a1", 15), "", 0, ReasonMalformed, 0},

		{"every zone", grant(policy(1, EffectAllow, "0", `{"w.account.zone.*":"*"}`)), "zone.read", z1, "", 0, ReasonNone, 1},
		{"every zone is no account", grant(policy(1, EffectAllow, "4", `{"w.account.zone.*":"*"}`)), "zone.read", "w.account.a1", "", 0, ReasonNoPolicy, 0},
		{"every account is no zone", grant(policy(1, EffectAllow, "4", `{"w.account.*":"*"}`)), "zone.read", "w.account.zone.z1", "", 0, ReasonNoPolicy, 0},
		{"an asterisk is no id", grant(policy(1, EffectAllow, "0", `{"w.account.zone.*":"*"}`)), "zone.read", "w.account.zone.*", "", 0, ReasonNoPolicy, 0},
		{"group out of scope of one resource", grant(policy(1, EffectAllow, "0", `{"w.account.a1":"*","w.account.zone.z1":"*"}`)), "zone.read", "w.account.a1 w.account.zone.z2", "", 0, ReasonNoPolicy, 0},
		{"account group, zone in it", grant(policy(1, EffectAllow, "5", `{"w.account.a1":"*"}`)), "zone.read", z1, "", 0, ReasonNone, 1},

		{"nested", nested, "zone.read", z1, "", 0, ReasonNone, 1},
		{"nested, other account", nested, "zone.read", "w.account.a2 w.account.zone.z1", "", 0, ReasonNoPolicy, 0},
		{"nested, wrong order", nested, "zone.read", "w.account.zone.z1 w.account.a1", "", 0, ReasonNoPolicy, 0},
		{"nested, account alone", nested, "zone.read", "w.account.a1", "", 0, ReasonNoPolicy, 0},

		{"deny wins", grant(policy(1, EffectAllow, "4", `{"w.account.zone.z1":"*"}`), policy(2, EffectDeny, "4", `{"w.account.a1":"*"}`)), "zone.read", z1, "", 0, ReasonDeniedByPolicy, 2},
		{"deny elsewhere", grant(policy(1, EffectAllow, "4", `{"w.account.zone.z1":"*"}`), policy(2, EffectDeny, "4", `{"w.account.a2":"*"}`)), "zone.read", z1, "", 0, ReasonNone, 1},
		{"deny of something else", grant(policy(1, EffectAllow, "4", `{"w.account.zone.z1":"*"}`), policy(2, EffectDeny, "6", `{"w.account.a1":"*"}`)), "zone.read", z1, "", 0, ReasonNone, 1},

		{"in", from(all, []string{"192.0.2.0/24"}, nil), "zone.read", z1, "192.0.2.200", 0, ReasonNone, 1},
		{"in, mapped", from(all, []string{"192.0.2.0/24"}, nil), "zone.read", z1, "::ffff:192.0.2.200", 0, ReasonNone, 1},
		{"in, host bits and mapped prefix", from(all, []string{"::ffff:192.0.2.77/120"}, nil), "zone.read", z1, "192.0.2.200", 0, ReasonNone, 1},
		{"outside", from(all, []string{"192.0.2.0/24"}, nil), "zone.read", z1, "192.0.3.0", 0, ReasonAddress, 0},
		{"not in", from(all, []string{"192.0.2.0/24"}, []string{"192.0.2.7"}), "zone.read", z1, "192.0.2.7", 0, ReasonAddress, 0},
		{"beside not in", from(all, []string{"192.0.2.0/24"}, []string{"192.0.2.7"}), "zone.read", z1, "192.0.2.8", 0, ReasonNone, 1},
		{"only not in", from(all, nil, []string{"192.0.2.7"}), "zone.read", z1, "2001:db8::1", 0, ReasonNone, 1},
		{"other family", from(all, []string{"0.0.0.0/0"}, nil), "zone.read", z1, "2001:db8::1", 0, ReasonAddress, 0},
		{"IPv6", from(all, []string{"2001:db8::/48"}, []string{"2001:db8::/64"}), "zone.read", z1, "2001:db8:0:1::1", 0, ReasonNone, 1},
		{"with a zone", from(all, []string{"::/0"}, nil), "zone.read", z1, "fe80::1%eth0", 0, ReasonAddress, 0},
		{"unknown address", from(all, []string{"::/0", "0.0.0.0/0"}, nil), "zone.read", z1, "", 0, ReasonAddress, 0},
		{"nobody", from(all, []string{}, nil), "zone.read", z1, "192.0.2.1", 0, ReasonAddress, 0},
		{"empty condition", from(all, nil, []string{}), "zone.read", z1, "", 0, ReasonNone, 1},

		{"first moment", timed, "zone.read", z1, "", 0, ReasonNone, 1},
		{"too early", timed, "zone.read", z1, "", -1, ReasonNotYetValid, 0},
		{"last moment", timed, "zone.read", z1, "", time.Hour - 1, ReasonNone, 1},
		{"too late", timed, "zone.read", z1, "", time.Hour, ReasonExpired, 0},
		{"far too late", timed, "zone.read", z1, "", 290 * 365 * 24 * time.Hour, ReasonExpired, 0},
		{"time before address", from(timed, []string{}, nil), "zone.fly", z1, "", time.Hour, ReasonExpired, 0},
		{"address before permission", from(timed, []string{}, nil), "zone.fly", z1, "", 0, ReasonAddress, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Request{Permission: c.permission, Resource: strings.Fields(c.chain), Time: epoch.Add(c.at)}
			if c.address != "" {
				r.Address = netip.MustParseAddr(c.address)
			}
			reason, by := evaluate(t, c.grant, r)
			if reason != c.want || by != (ID{c.policy}) && c.policy != 0 || c.policy == 0 && !by.IsZero() {
				t.Errorf("got %q by %v, want %q by %d", reason, by, c.want, c.policy)
			}
		})
	}
}

// TestEvaluateUnknownTime: without a time nothing is allowed, not even by a
// grant without bounds.
func TestEvaluateUnknownTime(t *testing.T) {
	c, err := Compile(Grant{Policies: []Policy{{Effect: EffectAllow, Groups: []GroupRef{{ID: worldGroupID("4")}}, Resources: []byte(`{"w.account.*":"*"}`)}}}, world)
	if err != nil {
		t.Fatal(err)
	}
	reason, _, allowed := c.Evaluate(world, world.Permission("zone.read"), []string{"w.account.a1"}, netip.Addr{}, time.Time{})
	if allowed || reason != ReasonNotReady {
		t.Errorf("got %q, allowed %v", reason, allowed)
	}
}

// TestEvaluateAgrees checks the promise of Compile: the compiled grant answers
// as the grant's JSON text does.
func TestEvaluateAgrees(t *testing.T) { rapid.Check(t, agree) }

func agree(t *rapid.T) {
	g := drawGrant(t)
	if err := g.Validate(world, DefaultLimits); err != nil {
		t.Fatalf("drew an invalid grant: %v", err)
	}
	for range 5 {
		evaluate(rapidTB{t: t}, g, drawRequest(t))
	}
}

// rapidTB lets helpers of testing.TB fail a rapid test.
type rapidTB struct {
	testing.TB
	t *rapid.T
}

func (r rapidTB) Helper()                      { r.t.Helper() }
func (r rapidTB) Fatal(args ...any)            { r.t.Fatal(args...) }
func (r rapidTB) Fatalf(f string, args ...any) { r.t.Fatalf(f, args...) }

// FuzzEvaluateDrawn searches grants and requests that were drawn.
func FuzzEvaluateDrawn(f *testing.F) { f.Fuzz(rapid.MakeFuzz(agree)) }

// FuzzEvaluate searches from the text of a grant. What Validate lets through
// must compile and must be answered as by the slow evaluator.
func FuzzEvaluate(f *testing.F) {
	f.Fuzz(func(t *testing.T, grant, permission, chain, address string, seconds int64) {
		var g Grant
		if err := json.Unmarshal([]byte(grant), &g); err != nil {
			return
		}
		if err := g.Validate(world, DefaultLimits); err != nil {
			return
		}
		g, err := g.Normalize()
		if err != nil {
			t.Fatalf("valid grant does not normalize: %v", err)
		}
		r := Request{Permission: permission, Resource: strings.Fields(chain), Time: time.Unix(seconds, 0)}
		if a, err := netip.ParseAddr(address); err == nil {
			r.Address = a
		}
		if seconds < -1<<36 || seconds > 1<<37 || r.Time.IsZero() {
			return
		}
		evaluate(t, g, r)
	})
}

// FuzzCompiled feeds damaged compiled grants to Evaluate: it may refuse, it
// must not panic, and what Check passes it can always read.
func FuzzCompiled(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, permission uint16) {
		c := Compiled(b)
		perm := catalogue.PermissionRef(permission)
		now := epoch
		chain := []string{"w.account.a1", "w.account.zone.z1", "w.account.zone.record.r1"}
		addr := netip.MustParseAddr("192.0.2.7")
		_ = c.Check(world)
		c.Evaluate(world, perm, chain, addr, now)
		if len(b) < headerLen {
			return
		}
		// With the header put right the rest is reached.
		c = withHeader(b)
		reason, _, _ := c.Evaluate(world, perm, chain, addr, now)
		if reason == ReasonNotReady && c.Check(world) == nil {
			t.Errorf("Check passes what Evaluate cannot read: %x", []byte(c))
		}
	})
}

// withHeader returns b with version and lineage of the test world.
func withHeader(b []byte) Compiled {
	empty, err := Compile(Grant{}, world)
	if err != nil {
		panic(err)
	}
	c := append(Compiled(nil), b...)
	flags, policies := c[1], [2]byte(c[2:4])
	copy(c[:16], empty[:16])
	c[1] = flags
	copy(c[2:4], policies[:])
	return c
}

// TestCompiledDamage cuts a compiled grant everywhere and flips each of its
// bits. A cut is always refused, and no damage panics.
func TestCompiledDamage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, err := Compile(drawGrant(t), world)
		if err != nil {
			t.Fatal(err)
		}
		r := drawRequest(t)
		ask := func(c Compiled) (Reason, bool) {
			reason, _, allowed := c.Evaluate(world, world.Permission(r.Permission), r.Resource, r.Address, r.Time)
			return reason, allowed
		}
		for n := range len(c) {
			if c[:n].Check(world) == nil {
				t.Fatalf("cut at %d of %d passes Check", n, len(c))
			}
			ask(c[:n])
		}
		for bit := range len(c) * 8 {
			d := append(Compiled(nil), c...)
			d[bit/8] ^= 1 << (bit % 8)
			if reason, _ := ask(d); reason == ReasonNotReady && d.Check(world) == nil {
				t.Fatalf("Check passes bit %d, Evaluate does not", bit)
			}
		}
	})
}

// TestForeignCatalogue: numbers of another catalogue are never read.
func TestForeignCatalogue(t *testing.T) {
	g := Grant{Policies: []Policy{{ID: ID{1}, Effect: EffectAllow, Groups: []GroupRef{{ID: worldGroupID("0")}}, Resources: []byte(`{"w.account.zone.*":"*"}`)}}}
	c, err := Compile(g, world)
	if err != nil {
		t.Fatal(err)
	}
	swapped := append([]catalogue.Group{worldGroups[1], worldGroups[0]}, worldGroups[2:]...)
	foreign, err := catalogue.New(worldTypes, worldPermissions, swapped)
	if err != nil {
		t.Fatal(err)
	}
	grown, err := world.Extend(worldTypes, worldPermissions, append(swapped, worldGroup("7", "More", "dns.read", "w.account")))
	if err != nil {
		t.Fatal(err)
	}
	dropped, err := world.Extend(worldTypes, worldPermissions, worldGroups[1:])
	if err != nil {
		t.Fatal(err)
	}
	back, err := dropped.Extend(worldTypes, worldPermissions, worldGroups)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct {
		name string
		cat  *catalogue.Catalogue
		want Reason
	}{
		{"its own", world, ReasonNone}, {"a foreign one", foreign, ReasonNotReady}, {"an extended one", grown, ReasonNone},
		{"one that dropped the group", dropped, ReasonNoPolicy}, {"one that took it back", back, ReasonNone},
	} {
		reason, _, _ := c.Evaluate(v.cat, v.cat.Permission("zone.read"), []string{"w.account.zone.z1"}, netip.Addr{}, epoch)
		if reason != v.want {
			t.Errorf("%s: got %q, want %q", v.name, reason, v.want)
		}
	}
	// What was stored compiles under every later version, and means the same.
	late, err := Compile(g, dropped)
	if err != nil {
		t.Fatal(err)
	}
	if reason, _, _ := late.Evaluate(back, back.Permission("zone.read"), []string{"w.account.zone.z1"}, netip.Addr{}, epoch); reason != ReasonNone {
		t.Errorf("compiled while dropped: %q", reason)
	}
	if err := g.Validate(dropped, DefaultLimits); err == nil {
		t.Error("a new grant may name a dropped group")
	}
}
