package catalogue

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "rewrite testdata/pack.txt")

// TestCloudflarePack holds the numbers, ids and derived permissions of the
// pack against a file that is reviewed. Lines may only be added to the file's
// end: enforcers name the permissions, stored grants the numbers.
func TestCloudflarePack(t *testing.T) {
	c := Cloudflare()
	var got bytes.Buffer
	for i, g := range c.Groups() {
		n, ok := c.GroupNumber(g.ID)
		if !ok || int(n) != i {
			t.Errorf("%s: number %d at place %d", g.ID, n, i)
		}
		fmt.Fprintf(&got, "%d %s %q %s:", n, g.ID, g.Name, strings.Join(g.Scopes, ","))
		for _, name := range g.Permissions {
			p, _ := c.PermissionAt(c.Permission(name))
			fmt.Fprintf(&got, " %s(%v)", name, p.Class)
		}
		got.WriteByte('\n')
	}
	const file = "testdata/pack.txt"
	if *rewrite {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("the pack differs from %s: %s", file, d)
	}
}

// TestCloudflareFacts are the things that clients rely on.
func TestCloudflareFacts(t *testing.T) {
	c := Cloudflare()
	scopes := map[string]int{}
	categories := map[string]bool{}
	for _, g := range c.Groups() {
		scopes[g.Scopes[0]]++
		categories[g.Category] = true
		if g.Description == "" {
			t.Errorf("%s has no description", g.ID)
		}
	}
	want := map[string]int{
		"com.cloudflare.api.account": 217, "com.cloudflare.api.account.zone": 86,
		"com.cloudflare.api.user": 6, "com.cloudflare.edge.r2.bucket": 2,
	}
	if d := cmp.Diff(want, scopes); d != "" {
		t.Error(d)
	}
	known := []string{
		"developer_platform", "ai_and_machine_learning", "dns_and_zones", "app_security", "rules_and_configuration",
		"cloudflare_one_and_zero_trust", "analytics_and_logs", "network_services", "media", "email_and_messaging",
		"cache_and_performance", "account_and_billing", "other",
	}
	for k := range categories {
		if !slices.Contains(known, k) {
			t.Errorf("no client knows the category %q", k)
		}
	}
	for id, name := range map[string]string{
		"4755a26eedb94da69e1066d98aa820be": "DNS Write", "82e64a83756745bbbb1c9c2701bf816b": "DNS Read",
		"0cc3a61731504c89b99ec1be78b77aa0": "API Tokens Read", "686d18d5ac6c441c867cbf6771e58a0a": "API Tokens Write",
	} {
		if g, ok := c.Group(id); !ok || g.Name != name {
			t.Errorf("%s: %+v", id, g)
		}
	}
	if p, _ := c.PermissionAt(c.Permission("user.tokens.write")); p.Class != Admin {
		t.Errorf("minting tokens is %v", p.Class)
	}
}

func TestFilter(t *testing.T) {
	c := Cloudflare()
	const zone = "com.cloudflare.api.account.zone"
	for _, q := range []struct {
		name, scope string
		want        int
	}{
		{"", "", 311}, {"Logs Read", "", 2}, {"Logs Read", zone, 1}, {"", zone, 86}, {"logs read", "", 0}, {"", "zone", 0},
	} {
		if got := len(c.Filter(q.name, q.scope)); got != q.want {
			t.Errorf("%q %q: %d groups, want %d", q.name, q.scope, got, q.want)
		}
	}
}

func TestTypeOf(t *testing.T) {
	c := Cloudflare()
	for key, want := range map[string]string{
		"com.cloudflare.api.account.7e11":                         "com.cloudflare.api.account 7e11",
		"com.cloudflare.api.account.zone":                         "com.cloudflare.api.account zone",
		"com.cloudflare.api.account.zone.1f":                      "com.cloudflare.api.account.zone 1f",
		"com.cloudflare.edge.r2.bucket.a_default_my-Bucket":       "com.cloudflare.edge.r2.bucket a_default_my-Bucket",
		"com.cloudflare.api.user." + strings.Repeat("x", MaxID):   "com.cloudflare.api.user " + strings.Repeat("x", MaxID),
		"com.cloudflare.api.user." + strings.Repeat("x", MaxID+1): "",
		"": "", ".": "", "com.cloudflare.api": "", "com.cloudflare.api.account.": "", "com.cloudflare.api.account.*": "",
		"com.cloudflare.api.account.a b": "", "com.cloudflare.api.account.a\x00": "", "Com.cloudflare.api.account.a": "", "account.a": "",
	} {
		n, id, ok := c.TypeOf(key)
		got := ""
		if ok {
			got = c.TypeName(n) + " " + id
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", key, got, want)
		}
	}
	account, _ := c.TypeNumber("com.cloudflare.api.account")
	zone, _ := c.TypeNumber("com.cloudflare.api.account.zone")
	if !c.Below(zone, account) || c.Below(account, zone) || c.Below(zone, zone) || c.Below(200, zone) {
		t.Error("Below")
	}
}

// parts is a small catalogue that the tests change.
type parts struct {
	types  []ResourceType
	perms  []Permission
	groups []Group
}

func small() parts {
	return parts{
		types:  []ResourceType{{Name: "a"}, {Name: "a.b", Parent: "a"}, {Name: "a.b.c", Parent: "a.b"}},
		perms:  []Permission{{"x.read", Read}, {"x.write", Write}},
		groups: []Group{{ID: id("1"), Name: "One", Scopes: []string{"a"}, Permissions: []string{"x.read"}}, {ID: id("2"), Name: "Two", Scopes: []string{"a", "a.b"}, Permissions: []string{"x.read", "x.write"}}},
	}
}

func id(digit string) string { return strings.Repeat(digit, 32) }

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*parts)
		want   string // part of the error; empty: no error
	}{
		{"good", func(*parts) {}, ""},
		{"empty", func(p *parts) { *p = parts{} }, ""},
		{"type without a name", func(p *parts) { p.types[0].Name = "" }, "dotted words"},
		{"type with a wildcard", func(p *parts) { p.types[0].Name = "a.*" }, "dotted words"},
		{"type with two dots", func(p *parts) { p.types[0].Name = "a..b" }, "dotted words"},
		{"type in upper case", func(p *parts) { p.types[0].Name = "A" }, "dotted words"},
		{"long type", func(p *parts) { p.types[0].Name = strings.Repeat("a", maxName+1) }, "dotted words"},
		{"type twice", func(p *parts) { p.types[2] = p.types[1] }, "given twice"},
		{"unknown parent", func(p *parts) { p.types[1].Parent = "z" }, "unknown parent"},
		{"parent of itself", func(p *parts) { p.types[0].Parent = "a" }, "lies in itself"},
		{"ring", func(p *parts) { p.types[0].Parent = "a.b.c" }, "lies in itself"},
		{"ring beside", func(p *parts) { p.types[1].Parent = "a.b.c" }, "lies in itself"},
		{"many types", func(p *parts) {
			for i := range MaxTypes {
				p.types = append(p.types, ResourceType{Name: fmt.Sprintf("t%d", i)})
			}
		}, "more than 64"},
		{"permission of one word", func(p *parts) { p.perms[0].Name = "read" }, "two dotted words"},
		{"permission with a dash", func(p *parts) { p.perms[0].Name = "a.b-c" }, "two dotted words"},
		{"permission without a class", func(p *parts) { p.perms[0].Class = 0 }, "no valid class"},
		{"permission twice", func(p *parts) { p.perms[1].Name = p.perms[0].Name }, "given twice"},
		{"group id", func(p *parts) { p.groups[0].ID = "1" }, "32 lower-case hex"},
		{"group id in upper case", func(p *parts) { p.groups[0].ID = id("A") }, "32 lower-case hex"},
		{"group twice", func(p *parts) { p.groups[1].ID = p.groups[0].ID }, "given twice"},
		{"group without a name", func(p *parts) { p.groups[0].Name = "" }, "name must be"},
		{"group name with a line end", func(p *parts) { p.groups[0].Name = "a\nb" }, "name must be"},
		{"group without a scope", func(p *parts) { p.groups[0].Scopes = nil }, "no scope"},
		{"group with an unknown scope", func(p *parts) { p.groups[0].Scopes[0] = "z" }, "unknown scope"},
		{"group with a scope twice", func(p *parts) { p.groups[0].Scopes = []string{"a", "a"} }, "given twice"},
		{"group without a permission", func(p *parts) { p.groups[0].Permissions = nil }, "no permission"},
		{"group with an unknown permission", func(p *parts) { p.groups[0].Permissions[0] = "x.fly" }, "unknown permission"},
		{"group with a permission twice", func(p *parts) { p.groups[0].Permissions = []string{"x.read", "x.read"} }, "given twice"},
		{"long text", func(p *parts) { p.groups[0].Description = strings.Repeat("x", maxText+1) }, "short printable"},
	} {
		p := small()
		c.change(&p)
		_, err := New(p.types, p.perms, p.groups)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// TestExtend: whatever happens to the lists, a number never changes hands.
func TestExtend(t *testing.T) {
	p := small()
	first, err := New(p.types, p.perms, p.groups)
	if err != nil {
		t.Fatal(err)
	}
	// Drop the first of everything that can go, add in front.
	p.groups = []Group{{ID: id("3"), Name: "Three", Scopes: []string{"d"}, Permissions: []string{"y.read"}}, p.groups[1]}
	p.types = append([]ResourceType{{Name: "d"}}, p.types[:2]...)
	p.perms = append([]Permission{{"y.read", Read}}, p.perms...)
	second, err := first.Extend(p.types, p.perms, p.groups)
	if err != nil {
		t.Fatal(err)
	}
	number := func(c *Catalogue, digit string) int {
		n, ok := c.GroupNumber(id(digit))
		if !ok {
			return -1
		}
		return int(n)
	}
	if got := [...]int{number(second, "1"), number(second, "2"), number(second, "3")}; got != [...]int{-1, 1, 2} {
		t.Errorf("numbers %v", got)
	}
	if n, ok := second.FormerGroupNumber(id("1")); !ok || n != 0 || second.Scopes(0) != 0 {
		t.Errorf("dropped group: %d, %v, scopes %b", n, ok, second.Scopes(0))
	}
	if _, ok := second.GroupAt(0); ok {
		t.Error("a dropped group is found")
	}
	if second.PermissionGroups(second.Permission("x.read"))[0] != 0b10 {
		t.Error("a dropped group still has a permission")
	}
	if names := groupNames(second); names != "Three Two" {
		t.Errorf("listed as %s", names)
	}
	if _, _, ok := second.TypeOf("a.b.c.x"); ok {
		t.Error("a dropped type is found")
	}
	if n, _ := second.TypeNumber("d"); n != 3 {
		t.Errorf("new type has number %d", n)
	}
	if first.Permission("x.write") != second.Permission("x.write") {
		t.Error("a permission changed its reference")
	}
	if first.Lineage(2, 3) != second.Lineage(2, 3) || second.Lineage(3, 4) == 0 || second.Lineage(4, 4) != 0 || second.Lineage(-1, 0) != 0 {
		t.Error("lineage")
	}
	// The first is not touched.
	if number(first, "1") != 0 || groupNames(first) != "One Two" {
		t.Error("extending changed the old catalogue")
	}
	// What comes back has its old number.
	third, err := second.Extend(small().types, small().perms, small().groups)
	if err != nil {
		t.Fatal(err)
	}
	if number(third, "1") != 0 || number(third, "3") != -1 || third.Permission("y.read").Known() || third.PermissionGroups(1) == nil {
		t.Error("what came back has another number, or what went is still there")
	}
	swapped := small()
	slices.Reverse(swapped.groups)
	other, err := New(swapped.types, swapped.perms, swapped.groups)
	if err != nil {
		t.Fatal(err)
	}
	if other.Lineage(2, 3) == first.Lineage(2, 3) {
		t.Error("another order has the same lineage")
	}
}

func groupNames(c *Catalogue) string {
	var names []string
	for _, g := range c.Groups() {
		names = append(names, g.Name)
	}
	return strings.Join(names, " ")
}

func TestClassText(t *testing.T) {
	b, err := json.Marshal([]Permission{{"a.read", Read}, {"a.write", Write}, {"a.admin", Admin}})
	if err != nil || string(b) != `[{"name":"a.read","class":"read"},{"name":"a.write","class":"write"},{"name":"a.admin","class":"admin"}]` {
		t.Errorf("got %s, %v", b, err)
	}
	var back []Permission
	if err := json.Unmarshal(b, &back); err != nil || back[2].Class != Admin {
		t.Errorf("got %v, %v", back, err)
	}
	if _, err := json.Marshal(Permission{}); err == nil {
		t.Error("no class marshals")
	}
	if json.Unmarshal([]byte(`{"class":"root"}`), new(Permission)) == nil {
		t.Error("an unknown class unmarshals")
	}
}

func TestLookupsAllocateNothing(t *testing.T) {
	c := Cloudflare()
	for name, f := range map[string]func(){
		"Permission":       func() { c.Permission("dns.records.write") },
		"PermissionGroups": func() { c.PermissionGroups(7) },
		"GroupNumber":      func() { c.GroupNumber("4755a26eedb94da69e1066d98aa820be") },
		"Group":            func() { c.Group("4755a26eedb94da69e1066d98aa820be") },
		"TypeOf":           func() { c.TypeOf("com.cloudflare.api.account.zone.1f0c6b0f0a2b4c6d8e9f00112233aabb") },
		"Lineage":          func() { c.Lineage(311, 4) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
