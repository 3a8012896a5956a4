package catalogue

import (
	"errors"
	"slices"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
)

// ships is a document that has nothing to do with the built-in catalogue.
const ships = `{
"name": "ships",
"resource_types": [{"name":"fleet","parent":"com.cloudflare.api.account"},{"name":"fleet.ship","parent":"fleet"}],
"permissions": [{"name":"ships.read","class":"read"},{"name":"ships.sail","class":"write"}],
"permission_groups": [
 {"id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","name":"Ships Read","scopes":["fleet","fleet.ship"],"permissions":["ships.read"]},
 {"id":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","name":"Ships Sail","scopes":["fleet.ship"],"permissions":["ships.read","ships.sail"]}],
"roles": [{"name":"Captain","permission_groups":["bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]}],
"templates": [{"id":"sail","name":"Sail one ship","parameters":[{"name":"ship","type":"fleet.ship","many":true}],
 "policies":[{"effect":"allow","permission_groups":[{"name":"Ships Sail"},"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],"resources":{"fleet.ship.{ship}":"*"}},
  {"effect":"allow","permission_groups":[{"name":"API Tokens Read","scope":"com.cloudflare.api.user"}],"resources":{"com.cloudflare.api.user.0123":"*"}}],
 "condition":{"request_ip":{"in":["192.0.2.0/24"],"not_in":["192.0.2.7"]}},"lifetime_days":30}]
}`

func mustDocument(t *testing.T, prev *Catalogue, raw string) *Catalogue {
	t.Helper()
	c, err := FromDocument(prev, []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func encode(t *testing.T, c *Catalogue) string {
	t.Helper()
	b, err := json.Marshal(c.Document())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFromDocument(t *testing.T) {
	c := mustDocument(t, nil, ships)
	if _, ok := c.Group("4755a26eedb94da69e1066d98aa820be"); ok {
		t.Error("DNS Write is in a catalogue that does not list it")
	}
	before, _ := Cloudflare().GroupNumber("686d18d5ac6c441c867cbf6771e58a0a")
	if n, ok := c.GroupNumber("686d18d5ac6c441c867cbf6771e58a0a"); !ok || n != before {
		t.Errorf("API Tokens Write has number %d, %v", n, ok)
	}
	if p, _ := c.PermissionAt(c.Permission("account.tokens.write")); p.Class != Admin {
		t.Errorf("account.tokens.write is %v", p.Class)
	}
	if n, _ := c.GroupNumber(id("a")); int(n) != Cloudflare().GroupCount() {
		t.Errorf("the first new group has number %d", n)
	}
	tmpl, ok := c.Template("sail")
	if want := []GroupRef{{ID: id("b"), Name: "Ships Sail"}, {ID: id("a"), Name: "Ships Read"}}; !ok || !slices.Equal(tmpl.Policies[0].Groups, want) {
		t.Errorf("template %+v", tmpl)
	}
	if c.Name() != "ships" || c.Templates()[0].LifetimeDays != 30 {
		t.Errorf("%q, %+v", c.Name(), c.Templates())
	}
}

// TestDocumentOfItself: the document of a catalogue makes that catalogue again,
// the numbers included, whatever the history was.
func TestDocumentOfItself(t *testing.T) {
	first := encode(t, Cloudflare())
	if d := cmp.Diff(first, encode(t, mustDocument(t, nil, first))); d != "" {
		t.Error(d)
	}
	other := strings.NewReplacer("fleet", "tribe", "ships.", "tents.", strings.Repeat("a", 32), id("c"), "Captain", "Scout").Replace(ships)
	history := mustDocument(t, mustDocument(t, mustDocument(t, nil, ships), other), `{}`)
	last := mustDocument(t, history, ships)
	alone := mustDocument(t, nil, encode(t, last))
	if d := cmp.Diff(encode(t, last), encode(t, alone)); d != "" {
		t.Error(d)
	}
	if a, b := last.Lineage(last.GroupCount(), last.TypeCount()), alone.Lineage(last.GroupCount(), last.TypeCount()); a != b || a == 0 {
		t.Errorf("lineage %x, %x", a, b)
	}
	for _, name := range []string{"Scout", "Captain", SuperAdministrator} {
		a, _ := last.FormerRoleNumber(name)
		b, ok := alone.FormerRoleNumber(name)
		if a != b || !ok {
			t.Errorf("role %s: %d, %d, %v", name, a, b, ok)
		}
	}
	if alone.Permission("ships.sail") != last.Permission("ships.sail") || alone.Permission("tents.sail").Known() {
		t.Error("permissions have other references")
	}
	// Numbers that somebody else's installation wrote do not count here.
	if got := mustDocument(t, mustDocument(t, nil, `{}`), encode(t, last)); got.TypeCount() != Cloudflare().TypeCount()+2 {
		t.Errorf("%d types", got.TypeCount())
	}
}

func TestRoles(t *testing.T) {
	c := mustDocument(t, nil, ships)
	number := func(name string) RoleNumber {
		n, ok := c.RoleNumber(name)
		if !ok {
			t.Fatalf("no role %s", name)
		}
		return n
	}
	super, reader, captain := number(SuperAdministrator), number(AdministratorReadOnly), number("Captain")
	if super != 0 || reader != 1 || captain != 2 {
		t.Errorf("numbers %d %d %d", super, reader, captain)
	}
	for _, q := range []struct {
		role       RoleNumber
		permission string
		want       bool
	}{
		{super, "ships.sail", true}, {super, "account.settings.write", true}, {super, "dns.records.read", false},
		{reader, "ships.read", true}, {reader, "ships.sail", false}, {reader, "account.tokens.write", false},
		{captain, "ships.sail", true}, {captain, "ships.read", true}, {captain, "account.settings.read", false}, {99, "ships.read", false},
	} {
		if got := c.RoleHolds(q.role, c.Permission(q.permission)); got != q.want {
			t.Errorf("role %d, %s: %v", q.role, q.permission, got)
		}
	}
	read, _ := c.GroupNumber(id("a"))
	sail, _ := c.GroupNumber(id("b"))
	dns, _ := c.FormerGroupNumber("4755a26eedb94da69e1066d98aa820be")
	if !c.RoleHoldsGroup(reader, read) || c.RoleHoldsGroup(reader, sail) || !c.RoleHoldsGroup(captain, sail) || c.RoleHoldsGroup(super, dns) || c.RoleHoldsGroup(99, read) {
		t.Error("RoleHoldsGroup")
	}
	if !c.RoleWithin(captain, []RoleNumber{super}) || c.RoleWithin(super, []RoleNumber{captain, reader}) || !c.RoleWithin(captain, []RoleNumber{reader, captain}) || c.RoleWithin(captain, nil) {
		t.Error("RoleWithin")
	}
	later := mustDocument(t, c, `{}`)
	if _, ok := later.RoleNumber("Captain"); ok {
		t.Error("a dropped role is found")
	}
	if n, ok := later.FormerRoleNumber("Captain"); !ok || n != captain || later.RoleHolds(n, later.Permission("account.settings.read")) || later.RoleHoldsGroup(n, read) {
		t.Error("a dropped role has another number or holds something")
	}
	if n := testing.AllocsPerRun(100, func() { c.RoleHolds(captain, 5); c.RoleHoldsGroup(captain, sail); c.RoleNumber("Captain") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	made, err := New(small().types, small().perms, small().groups)
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := made.RoleNumber(SuperAdministrator); !ok || !made.RoleHolds(n, made.Permission("x.write")) {
		t.Error("a catalogue without the built-in roles")
	}
}

func TestFromDocumentRefuses(t *testing.T) {
	prev := mustDocument(t, nil, ships)
	for _, c := range []struct{ name, old, new, pointer, want string }{
		{"not JSON", ships, "{", "", "unexpected EOF"},
		{"unknown key", `"name": "ships"`, `"nam": "ships"`, "/nam", `unknown key "nam"`},
		{"key twice", `"name": "ships"`, `"name": "ships","name":"x"`, "/name", "duplicate"},
		{"wrong type", `"name": "ships"`, `"name": 7`, "/name", "cannot be a JSON"},
		{"wrong class", `"class":"write"`, `"class":"root"`, "/permissions/1/class", "class must be"},
		{"large", ships, `{"name":"` + strings.Repeat("x", MaxDocument) + `"}`, "", "more than"},
		{"name", `"name": "ships"`, `"name": "a\u202eb"`, "/name", "printable"},
		{"other parent", `"fleet.ship","parent":"fleet"`, `"fleet.ship"`, "/resource_types/1/parent", "cannot change"},
		{"ring", `"fleet","parent":"com.cloudflare.api.account"`, `"fleet","parent":"fleet.ship"`, "/resource_types/0/parent", "cannot change"},
		{"account in something", `{"name":"fleet",`, `{"name":"com.cloudflare.api.account","parent":"fleet"},{"name":"fleet",`, "/resource_types/0/parent", "part of every"},
		{"class of a managed permission", `[{"name":"ships.read"`, `[{"name":"account.tokens.write","class":"read"},{"name":"ships.read"`, "/permissions/0/class", "part of every"},
		{"managed group", id("a") + `","name"`, `686d18d5ac6c441c867cbf6771e58a0a","name"`, "/permission_groups/0/id", "part of every"},
		{"group twice", id("b") + `","name"`, id("a") + `","name"`, "/permission_groups/1/id", "given twice"},
		{"unknown scope", `"scopes":["fleet.ship"]`, `"scopes":["fleet.raft"]`, "/permission_groups/1/scopes/0", "unknown scope"},
		{"unknown permission", `["ships.read","ships.sail"]`, `["ships.read","ships.sink"]`, "/permission_groups/1/permissions/1", "unknown permission"},
		{"role twice", `"roles": [`, `"roles": [{"name":"Captain","all":"read"},`, "/roles/1/name", "given twice"},
		{"role of nothing", `"name":"Captain","permission_groups":["` + id("b") + `"]`, `"name":"Captain"`, "/roles/0", "holds nothing"},
		{"role of all", `"name":"Captain",`, `"name":"Captain","all":"write",`, "/roles/0/all", "read or everything"},
		{"role without a group", `["` + id("b") + `"]`, `["` + id("d") + `"]`, "/roles/0/permission_groups/0", "unknown permission group"},
		{"lesser administrator", `"name":"Captain"`, `"name":"Super Administrator"`, "/roles/0/all", "part of every"},
		{"template id", `"id":"sail"`, `"id":"Sail"`, "/templates/0/id", "a-z"},
		{"template group", `{"name":"Ships Sail"}`, `{"name":"Ships Sink"}`, "/templates/0/policies/0/permission_groups/0", "unknown permission group"},
		{"template group of another scope", `{"fleet.ship.{ship}"`, `{"com.cloudflare.api.account.*":"*"},"x":{"fleet.ship.{ship}"`, "/templates/0/policies/0/x", "unknown key"},
		{"template scope", `"fleet.ship.{ship}":"*"`, `"fleet.x":"*"`, "/templates/0/policies/0/permission_groups/0", "applies to none"},
		{"template without its hole", `"fleet.ship.{ship}":"*"`, `"fleet.ship.x":"*"`, "/templates/0/parameters/0", "no resource names"},
		{"template with another hole", `{ship}`, `{boat}`, "/templates/0/policies/0/resources/fleet.ship.{boat}", "must be a known type"},
		{"template value", `{ship}":"*"`, `{ship}":"x"`, "/templates/0/policies/0/resources/fleet.ship.{ship}", "must be \"*\""},
		{"template address", `192.0.2.7`, `192.0.2.700`, "/templates/0/condition/request_ip/not_in/0", "neither an address"},
		{"template days", `"lifetime_days":30`, `"lifetime_days":-1`, "/templates/0/lifetime_days", "0 to"},
		{"template effect", `"effect":"allow"`, `"effect":"maybe"`, "/templates/0/policies/0/effect", "allow or deny"},
	} {
		raw := strings.Replace(ships, c.old, c.new, 1)
		if raw == ships {
			t.Fatalf("%s: nothing replaced", c.name)
		}
		_, err := FromDocument(prev, []byte(raw))
		p, ok := errors.AsType[*Problem](err)
		if !ok || string(p.Pointer) != c.pointer || !strings.Contains(p.Text, c.want) {
			t.Errorf("%s: %+v, want %q at %q", c.name, err, c.want, c.pointer)
		}
	}
	ring := strings.Replace(ships, `"fleet","parent":"com.cloudflare.api.account"`, `"fleet","parent":"fleet.ship"`, 1)
	if _, err := FromDocument(nil, []byte(ring)); err == nil || !strings.Contains(err.Error(), "lies in itself") {
		t.Errorf("ring: %v", err)
	}
	for _, numbers := range []string{`{"roles":["Super Administrator"]}`, `{"roles":["a","a"]}`, `{"permission_groups":["x"]}`, `{"resource_types":[{"name":"com.cloudflare.api.user"}]}`, `{"permissions":["one"]}`} {
		if _, err := FromDocument(nil, []byte(`{"numbers":`+numbers+`}`)); err == nil || !strings.Contains(err.Error(), "cannot have a number") {
			t.Errorf("%s: %v", numbers, err)
		}
	}
}
