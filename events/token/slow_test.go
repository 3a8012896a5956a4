package token

import (
	stdjson "encoding/json"
	"flag"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"
	"pgregory.net/rapid"

	"watchword.dev/events/catalogue"
)

// TestMain draws more than rapid's default of a hundred cases: what the
// properties look for is rarer than that.
func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "rapid.checks" })
	if !chosen {
		_ = flag.Set("rapid.checks", "1000")
	}
	os.Exit(m.Run())
}

// The evaluator that is slow and obviously right. It starts from the grant's
// JSON text and the catalogue's lists, knows nothing of numbers and bits, and
// shares no code with the product.
type slow struct {
	types  []string
	groups map[string]catalogue.Group
	perms  map[string]bool
}

func newSlow(cat *catalogue.Catalogue) *slow {
	s := &slow{groups: map[string]catalogue.Group{}, perms: map[string]bool{}}
	for _, t := range cat.Types() {
		s.types = append(s.types, t.Name)
	}
	for _, g := range cat.Groups() {
		s.groups[g.ID] = g
	}
	for _, p := range cat.Permissions() {
		s.perms[p.Name] = true
	}
	return s
}

var slowID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// typeOf is the rule as it is told: the longest known type name that the key
// starts with, a dot, and an id.
func (s *slow) typeOf(key string) string {
	best := ""
	for _, t := range s.types {
		if rest, ok := strings.CutPrefix(key, t+"."); ok && len(t) > len(best) && slowID.MatchString(rest) {
			best = t
		}
	}
	return best
}

// selects reports whether a key in a policy means an element of a chain.
func (s *slow) selects(policyKey, element string) bool {
	if t, ok := strings.CutSuffix(policyKey, ".*"); ok {
		return s.typeOf(element) == t && t != ""
	}
	return s.typeOf(element) != "" && policyKey == element
}

// innerType is the type that a group's scope is compared with.
func (s *slow) innerType(policyKey string) string {
	if t, ok := strings.CutSuffix(policyKey, ".*"); ok {
		return t
	}
	return s.typeOf(policyKey)
}

// slowGrant is a grant as its JSON text has it.
type slowGrant struct {
	Policies []struct {
		ID        string
		Effect    string
		Groups    []struct{ ID string } `json:"permission_groups"`
		Resources map[string]any
	}
	Condition *struct {
		RequestIP struct {
			In    []string
			NotIn []string `json:"not_in"`
		} `json:"request_ip"`
	}
	NotBefore *time.Time `json:"not_before"`
	ExpiresOn *time.Time `json:"expires_on"`
}

func slowParse(t interface{ Fatal(...any) }, g Grant) *slowGrant {
	text, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	var out slowGrant
	if err := stdjson.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

func (s *slow) evaluate(g *slowGrant, r Request) (Reason, string) {
	switch {
	case len(r.Resource) > 16:
		return ReasonMalformed, ""
	case g.NotBefore != nil && r.Time.Before(*g.NotBefore):
		return ReasonNotYetValid, ""
	case g.ExpiresOn != nil && !r.Time.Before(*g.ExpiresOn):
		return ReasonExpired, ""
	case g.Condition != nil && !slowAddress(g.Condition.RequestIP.In, g.Condition.RequestIP.NotIn, r.Address):
		return ReasonAddress, ""
	case !s.perms[r.Permission]:
		return ReasonUnknownPermission, ""
	}
	for _, effect := range []string{"deny", "allow"} {
		for _, p := range g.Policies {
			if p.Effect != effect {
				continue
			}
			for _, ref := range p.Groups {
				if !s.applies(ref.ID, p.Resources, r) {
					continue
				}
				if effect == "deny" {
					return ReasonDeniedByPolicy, p.ID
				}
				return ReasonNone, p.ID
			}
		}
	}
	return ReasonNoPolicy, ""
}

func (s *slow) applies(group string, resources map[string]any, r Request) bool {
	g := s.groups[group]
	has := func(list []string, x string) bool {
		for _, e := range list {
			if e == x {
				return true
			}
		}
		return false
	}
	if !has(g.Permissions, r.Permission) {
		return false
	}
	for key, value := range resources {
		inner, nested := value.(map[string]any)
		if !nested {
			for _, e := range r.Resource {
				if s.selects(key, e) && has(g.Scopes, s.innerType(key)) {
					return true
				}
			}
			continue
		}
		for innerKey := range inner {
			for i := range r.Resource {
				for j := i + 1; j < len(r.Resource); j++ {
					if s.selects(key, r.Resource[i]) && s.selects(innerKey, r.Resource[j]) && has(g.Scopes, s.innerType(innerKey)) {
						return true
					}
				}
			}
		}
	}
	return false
}

// slowAddress compares bit by bit.
func slowAddress(in, notIn []string, a netip.Addr) bool {
	if in == nil && len(notIn) == 0 {
		return true
	}
	if !a.IsValid() || a.Zone() != "" {
		return false
	}
	bits := func(a netip.Addr) (out []byte) {
		for _, b := range a.Unmap().AsSlice() {
			for i := 7; i >= 0; i-- {
				out = append(out, '0'+b>>i&1)
			}
		}
		return out
	}
	within := func(list []string) bool {
		for _, s := range list {
			text, length, isPrefix := strings.Cut(s, "/")
			pa := netip.MustParseAddr(text)
			n := len(bits(pa))
			if isPrefix {
				n = netip.MustParsePrefix("::/" + length).Bits()
				if pa.Is4In6() {
					n -= 96
				}
			}
			if pb, ab := bits(pa), bits(a); len(pb) == len(ab) && string(pb[:n]) == string(ab[:n]) {
				return true
			}
		}
		return false
	}
	return (in == nil || within(in)) && !within(notIn)
}

// A small world in which matches are frequent.
var (
	worldTypes = []catalogue.ResourceType{
		{Name: "w.account"},
		{Name: "w.account.zone", Parent: "w.account"},
		{Name: "w.account.zone.record", Parent: "w.account.zone"},
		{Name: "w.user"},
	}
	worldPermissions = []catalogue.Permission{
		{Name: "zone.read", Class: catalogue.Read}, {Name: "zone.write", Class: catalogue.Write},
		{Name: "dns.read", Class: catalogue.Read}, {Name: "dns.write", Class: catalogue.Write},
		{Name: "users.admin", Class: catalogue.Admin},
	}
	worldGroups = []catalogue.Group{
		worldGroup("0", "Zone Read", "zone.read", "w.account.zone"),
		worldGroup("1", "Zone Write", "zone.read zone.write", "w.account.zone"),
		worldGroup("2", "DNS Read", "dns.read", "w.account.zone w.account.zone.record"),
		worldGroup("3", "DNS Write", "dns.read dns.write", "w.account.zone.record"),
		worldGroup("4", "Everything", "zone.read zone.write dns.read dns.write users.admin", "w.account w.account.zone w.account.zone.record w.user"),
		worldGroup("5", "Account Zones", "zone.read zone.write", "w.account"),
		worldGroup("6", "Users", "users.admin", "w.user w.account"),
	}
	world = func() *catalogue.Catalogue {
		c, err := catalogue.New(worldTypes, worldPermissions, worldGroups)
		if err != nil {
			panic(err)
		}
		return c
	}()
	worldSlow = newSlow(world)
)

func worldGroupID(digit string) string { return strings.Repeat(digit, 32) }

func worldGroup(digit, name, permissions, scopes string) catalogue.Group {
	return catalogue.Group{
		ID: worldGroupID(digit), Name: name,
		Permissions: strings.Fields(permissions), Scopes: strings.Fields(scopes),
	}
}

// worldParents says where things lie, for the tests that need to know.
var worldParents = map[string]string{
	"w.account.zone.z1":        "w.account.a1",
	"w.account.zone.z2":        "w.account.a1",
	"w.account.zone.z3":        "w.account.a2",
	"w.account.zone.record.r1": "w.account.zone.z1",
	"w.account.zone.record.r2": "w.account.zone.z3",
	zoneHex1:                   "w.account.a1",
	zoneHex2:                   accountHex,
}

// Ids of 32 hex digits, which are compiled in another way; and some that only
// look like it.
const (
	accountHex = "w.account.0123456789abcdef0123456789abcdef"
	zoneHex1   = "w.account.zone.0123456789abcdef0123456789abcdef"
	zoneHex2   = "w.account.zone.0123456789abcdef0123456789abcde0"
	zoneUpper  = "w.account.zone.0123456789ABCDEF0123456789abcdef"
	zoneLong   = "w.account.zone.0123456789abcdef0123456789abcdef0"
)

var (
	keysByType = map[string][]string{
		"w.account":             {"w.account.a1", "w.account.a2", "w.account.*", accountHex},
		"w.account.zone":        {"w.account.zone.z1", "w.account.zone.z2", "w.account.zone.z3", "w.account.zone.*", zoneHex1, zoneHex2, zoneUpper, zoneLong},
		"w.account.zone.record": {"w.account.zone.record.r1", "w.account.zone.record.r2", "w.account.zone.record.*"},
		"w.user":                {"w.user.u1", "w.user.*"},
	}
	typesBelow = map[string][]string{
		"w.account":      {"w.account.zone", "w.account.zone.record"},
		"w.account.zone": {"w.account.zone.record"},
	}
	worldChains = [][]string{
		nil,
		{"w.account.a1"},
		{"w.account.a1", "w.account.zone.z1"},
		{"w.account.a1", "w.account.zone.z1", "w.account.zone.record.r1"},
		{"w.account.a1", "w.account.zone.z2"},
		{"w.account.a2", "w.account.zone.z3", "w.account.zone.record.r2"},
		{"w.user.u1"},
		{"w.account.a1", zoneHex1},
		{accountHex, zoneHex2},
		{accountHex, zoneUpper},
		{accountHex, zoneLong},
	}
	worldAddresses = []string{"", "192.0.2.1", "192.0.2.7", "198.51.100.9", "::ffff:192.0.2.7", "2001:db8::1", "2001:db8:1::1", "fe80::1%eth0"}
	worldPrefixes  = []string{"192.0.2.0/24", "192.0.2.7", "192.0.2.7/31", "0.0.0.0/0", "::/0", "2001:db8::/48", "2001:db8::1", "::ffff:192.0.2.0/121", "198.51.100.9/8"}
	epoch          = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

// drawResources draws a policy's resources as JSON text.
func drawResources(t *rapid.T) string {
	pick := func(typ string) string { return rapid.SampledFrom(keysByType[typ]).Draw(t, "key") }
	entries := map[string]string{}
	nested := rapid.Bool().Draw(t, "nested")
	for range rapid.IntRange(1, 3).Draw(t, "resources") {
		if !nested {
			typ := rapid.SampledFrom([]string{"w.account", "w.account.zone", "w.account.zone.record", "w.user"}).Draw(t, "type")
			entries[pick(typ)] = `"*"`
			continue
		}
		outer := rapid.SampledFrom([]string{"w.account", "w.account.zone"}).Draw(t, "outer")
		inner := map[string]string{}
		for range rapid.IntRange(1, 2).Draw(t, "inner resources") {
			inner[pick(rapid.SampledFrom(typesBelow[outer]).Draw(t, "inner"))] = `"*"`
		}
		entries[pick(outer)] = object(inner)
	}
	return object(entries)
}

func object(entries map[string]string) string {
	var parts []string
	for k, v := range entries {
		parts = append(parts, `"`+k+`":`+v)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// drawGrant draws a grant that is valid in the world.
func drawGrant(t *rapid.T) Grant {
	var g Grant
	for range rapid.IntRange(1, 4).Draw(t, "policies") {
		p := Policy{ID: ID{byte(len(g.Policies) + 1)}, Effect: EffectAllow, Resources: []byte(drawResources(t))}
		if rapid.IntRange(0, 3).Draw(t, "deny") == 0 {
			p.Effect = EffectDeny
		}
		for range rapid.IntRange(1, 3).Draw(t, "groups") {
			p.Groups = append(p.Groups, GroupRef{ID: rapid.SampledFrom(worldGroups).Draw(t, "group").ID})
		}
		g.Policies = append(g.Policies, applicable(p))
	}
	if rapid.Bool().Draw(t, "condition") {
		g.Condition = &Condition{RequestIP: RequestIP{
			In:    drawPrefixes(t),
			NotIn: drawPrefixes(t),
		}}
	}
	if from := rapid.IntRange(0, 4).Draw(t, "not before"); from > 0 {
		g.NotBefore = epoch.Add(time.Duration(from) * time.Hour)
	}
	if to := rapid.IntRange(4, 8).Draw(t, "expires on"); to < 8 {
		g.ExpiresOn = epoch.Add(time.Duration(to)*time.Hour + time.Minute)
	}
	return g
}

// applicable drops the groups that apply to none of the policy's resources and
// puts the one that applies to everything in the place of none.
func applicable(p Policy) Policy {
	matchers, err := ParseResources(p.Resources, world)
	if err != nil {
		panic(err)
	}
	var groups []GroupRef
	for _, ref := range p.Groups {
		n, _ := world.GroupNumber(ref.ID)
		for _, m := range matchers {
			if world.Scopes(n)&(1<<m.Inner.Type) != 0 {
				groups = append(groups, ref)
				break
			}
		}
	}
	if groups == nil {
		groups = []GroupRef{{ID: worldGroupID("4")}}
	}
	p.Groups = groups
	return p
}

func drawPrefixes(t *rapid.T) []string {
	switch rapid.IntRange(0, 3).Draw(t, "prefixes") {
	case 0:
		return nil
	case 1:
		return []string{}
	}
	return rapid.SliceOfN(rapid.SampledFrom(worldPrefixes), 1, 3).Draw(t, "prefix")
}

func drawRequest(t *rapid.T) Request {
	r := Request{
		Permission: rapid.SampledFrom([]string{"zone.read", "zone.write", "dns.read", "dns.write", "users.admin", "dns.fly", ""}).Draw(t, "permission"),
		Time:       epoch.Add(time.Duration(rapid.IntRange(0, 9*60).Draw(t, "minute")) * time.Minute),
	}
	if a := rapid.SampledFrom(worldAddresses).Draw(t, "address"); a != "" {
		r.Address = netip.MustParseAddr(a)
	}
	if rapid.Bool().Draw(t, "sensible chain") {
		r.Resource = rapid.SampledFrom(worldChains).Draw(t, "chain")
		return r
	}
	r.Resource = rapid.SliceOfN(rapid.SampledFrom([]string{
		"w.account.a1", "w.account.a2", "w.account.zone.z1", "w.account.zone.z2", "w.account.zone.z3",
		"w.account.zone.record.r1", "w.user.u1", "w.account.*", "w.account.zone.", "w.account.", "w.account",
		"w.other.o1", "w.account.zone.record.r1.x", "w.account.zone", "W.account.a1", "", "w.account.a b",
	}), 0, 5).Draw(t, "odd chain")
	return r
}

// evaluate asks both evaluators and fails when they disagree.
func evaluate(t testing.TB, g Grant, r Request) (Reason, ID) {
	t.Helper()
	c, err := Compile(g, world)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	if err := c.Check(world); err != nil {
		t.Fatalf("check: %v", err)
	}
	return compare(t, c, g, r)
}

func compare(t testing.TB, c Compiled, g Grant, r Request) (Reason, ID) {
	t.Helper()
	wantReason, wantPolicy := worldSlow.evaluate(slowParse(t, g), r)
	reason, policy, allowed := c.Evaluate(world, world.Permission(r.Permission), r.Resource, r.Address, r.Time)
	got := ""
	if !policy.IsZero() {
		got = policy.String()
	}
	if reason != wantReason || got != wantPolicy || allowed != (wantReason == ReasonNone) {
		text, _ := json.Marshal(g)
		t.Fatalf("grant %s\nrequest %+v\n got %q by policy %q, allowed %v\nwant %q by policy %q", text, r, reason, got, allowed, wantReason, wantPolicy)
	}
	return reason, policy
}
