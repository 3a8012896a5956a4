package token

import (
	stdjson "encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
)

func TestParseResources(t *testing.T) {
	const maxChars = 128
	many := map[string]string{}
	for i := range DefaultLimits.ResourcesPerPolicy + 1 {
		many[fmt.Sprintf("w.account.a%d", i)] = `"*"`
	}
	for _, c := range []struct {
		name, raw string
		want      string // what was understood, or else the error
		err       error
	}{
		{"flat", `{"w.account.a1":"*"}`, "account a1", nil},
		{"order is kept", `{"w.user.z":"*","w.account.*":"*","w.account.zone.a":"*"}`, "user z, account *, zone a", nil},
		{"white space", " {\n\"w.account.a1\" : \"*\"}\t", "account a1", nil},
		{"escapes", `{"w.acc\u006funt.a1":"\u002a"}`, "account a1", nil},
		{"nested", `{"w.account.a1":{"w.account.zone.*":"*","w.account.zone.record.r":"*"},"w.account.a2":{"w.account.zone.z":"*"}}`,
			"account a1 > zone *, account a1 > record r, account a2 > zone z", nil},
		{"nested under all", `{"w.account.*":{"w.account.zone.*":"*"}}`, "account * > zone *", nil},
		{"longest id", `{"w.account.` + strings.Repeat("x", maxChars) + `":"*"}`, "account " + strings.Repeat("x", maxChars), nil},
		{"an id that looks like a type", `{"w.account.zone":"*"}`, "account zone", nil},

		{"nothing", ``, "", errResourcesForm},
		{"null", `null`, "", errResourcesForm},
		{"list", `["w.account.a1"]`, "", errResourcesForm},
		{"text", `"*"`, "", errResourcesForm},
		{"cut", `{"w.account.a1":"*"`, "", errResourcesForm},
		{"cut in a key", `{"w.account.a1`, "", errResourcesForm},
		{"cut before a value", `{"w.account.a1":`, "", errResourcesForm},
		{"two", `{"w.account.a1":"*"}{}`, "", errResourcesForm},
		{"rubbish behind", `{"w.account.a1":"*"} x`, "", errResourcesForm},
		{"bad UTF-8", "{\"w.account.\xff\":\"*\"}", "", errResourcesForm},
		{"empty", `{}`, "", errResourcesEmpty},
		{"empty nesting", `{"w.account.a1":{}}`, "", errResourcesEmpty},
		{"twice", `{"w.account.a1":"*","w.account.a1":"*"}`, "", errResourcesDup},
		{"twice by escape", `{"w.account.a1":"*","w.account.a\u0031":"*"}`, "", errResourcesDup},
		{"outer twice", `{"w.account.a1":{"w.account.zone.z":"*"},"w.account.a2":{"w.account.zone.z":"*"},"w.account.a1":{"w.account.zone.y":"*"}}`, "", errResourcesDup},
		{"outer twice in a row", `{"w.account.a1":{"w.account.zone.z":"*"},"w.account.a1":{"w.account.zone.y":"*"}}`, "", errResourcesDup},
		{"twice nested", `{"w.account.a1":{"w.account.zone.z":"*","w.account.zone.z":"*"}}`, "", errResourcesDup},
		{"flat then nested", `{"w.account.a1":"*","w.account.a2":{"w.account.zone.z":"*"}}`, "", errResourcesMixed},
		{"nested then flat", `{"w.account.a2":{"w.account.zone.z":"*"},"w.account.a1":"*"}`, "", errResourcesMixed},
		{"too deep", `{"w.account.a":{"w.account.zone.z":{"w.account.zone.record.r":"*"}}}`, "", errResourcesDepth},
		{"value read", `{"w.account.a1":"read"}`, "", errResourcesValue},
		{"value empty", `{"w.account.a1":""}`, "", errResourcesValue},
		{"value true", `{"w.account.a1":true}`, "", errResourcesValue},
		{"value null", `{"w.account.a1":null}`, "", errResourcesValue},
		{"value list", `{"w.account.a1":["*"]}`, "", errResourcesValue},
		{"unknown type", `{"w.shop.s1":"*"}`, "", errResourcesKey},
		{"unknown wildcard type", `{"w.shop.*":"*"}`, "", errResourcesKey},
		{"everything", `{"*":"*"}`, "", errResourcesKey},
		{"no id", `{"w.account.":"*"}`, "", errResourcesKey},
		{"no type", `{".a1":"*"}`, "", errResourcesKey},
		{"half a wildcard", `{"w.account.a*":"*"}`, "", errResourcesKey},
		{"slash", `{"w.account.a/b":"*"}`, "", errResourcesKey},
		{"NUL", `{"w.account.a\u0000":"*"}`, "", errResourcesKey},
		{"line end", `{"w.account.a1\r\n":"*"}`, "", errResourcesKey},
		{"other case", `{"W.account.a1":"*"}`, "", errResourcesKey},
		{"long id", `{"w.account.` + strings.Repeat("x", maxChars+1) + `":"*"}`, "", errResourcesKey},
		{"long key", `{"w.account.` + strings.Repeat("x", maxKey) + `":"*"}`, "", errResourcesLength},
		{"inside out", `{"w.account.zone.z":{"w.account.a1":"*"}}`, "", errResourcesBelow},
		{"in itself", `{"w.account.a1":{"w.account.a2":"*"}}`, "", errResourcesBelow},
		{"in a stranger", `{"w.user.u1":{"w.account.zone.*":"*"}}`, "", errResourcesBelow},
		{"many", object(many), "", errResourcesMany},
		{"deep nesting", strings.Repeat(`{"w.account.a1":`, 100000), "", errResourcesDepth},
	} {
		t.Run(c.name, func(t *testing.T) {
			ms, err := ParseResources(jsontext.Value(c.raw), world)
			if err != c.err {
				t.Fatalf("got %v, %v, want %v", ms, err, c.err)
			}
			if got := describe(ms); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func describe(ms []Matcher) string {
	one := func(s Selector) string {
		id := s.ID
		if id == "" {
			id = "*"
		}
		name := world.TypeName(s.Type)
		return name[strings.LastIndexByte(name, '.')+1:] + " " + id
	}
	var out []string
	for _, m := range ms {
		if m.Nested {
			out = append(out, one(m.Outer)+" > "+one(m.Inner))
			continue
		}
		out = append(out, one(m.Inner))
	}
	return strings.Join(out, ", ")
}

// TestNormalizeResources: white space goes, everything else stays: order,
// escapes, keys.
func TestNormalizeResources(t *testing.T) {
	for _, c := range [][2]string{
		{" { \"z\" : \"*\" ,\n\t\"a\":{\"c\" : \"*\",\"b\":\"*\"} } ", `{"z":"*","a":{"c":"*","b":"*"}}`},
		{`{"\u0061\/\u003c":"\u002A"}`, `{"\u0061\/\u003c":"\u002A"}`},
		{`{"é":"*","<&>":1e00}`, `{"é":"*","<&>":1e00}`},
	} {
		g, err := Grant{Policies: []Policy{{Resources: jsontext.Value(c[0])}}}.Normalize()
		if err != nil || string(g.Policies[0].Resources) != c[1] {
			t.Errorf("%s: got %s, %v, want %s", c[0], g.Policies[0].Resources, err, c[1])
		}
	}
	for _, bad := range []string{"", "{", `{"a":}`, "{} {}", "{\"\xff\":1}"} {
		if _, err := (Grant{Policies: []Policy{{Resources: jsontext.Value(bad)}}}).Normalize(); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

// FuzzResources holds what ParseResources takes against what encoding/json and
// a plain walk make of the same text.
func FuzzResources(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw string) {
		ms, err := ParseResources(jsontext.Value(raw), world)
		// Both ways of reading say the same.
		other := resourceParser{cat: world, most: DefaultLimits.ResourcesPerPolicy}
		if slow, slowErr := other.any(jsontext.Value(raw)); slowErr != err || cmp.Diff(ms, slow) != "" {
			t.Fatalf("%q: the plain way gives %v, %v, the other one %v, %v", raw, ms, err, slow, slowErr)
		}
		if err != nil {
			if ms != nil || len(err.Error()) > 100 {
				t.Fatalf("refused with %v and %v", ms, err)
			}
			return
		}
		var doc map[string]any
		if err := stdjson.Unmarshal([]byte(raw), &doc); err != nil {
			t.Fatalf("%q is taken and is no JSON: %v", raw, err)
		}
		want := map[string]bool{}
		for k, v := range doc {
			inner, nested := v.(map[string]any)
			if !nested && v != "*" {
				t.Fatalf("%q: value %v is taken", raw, v)
			}
			if !nested {
				want[k] = true
			}
			for k2, v2 := range inner {
				if v2 != "*" {
					t.Fatalf("%q: value %v is taken", raw, v2)
				}
				want[k+" > "+k2] = true
			}
		}
		got := map[string]bool{}
		for _, m := range ms {
			if m.Nested {
				got[m.Outer.Key(world)+" > "+m.Inner.Key(world)] = true
				continue
			}
			got[m.Inner.Key(world)] = true
		}
		if d := cmp.Diff(want, got); d != "" || len(got) != len(ms) {
			t.Fatalf("%q: %s", raw, d)
		}
		v := jsontext.Value(raw)
		if err := compactResources(&v); err != nil {
			t.Fatalf("%q is taken and does not compact: %v", raw, err)
		}
		again, err := ParseResources(v, world)
		if err != nil || cmp.Diff(ms, again) != "" || len(v) > len(raw) {
			t.Fatalf("%q compacts to %q, which is not the same: %v", raw, v, err)
		}
	})
}
