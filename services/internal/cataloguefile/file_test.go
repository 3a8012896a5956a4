package cataloguefile

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events/catalogue"
)

func acme(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../../deploy/catalogues/acme.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestAcme: the example is a good catalogue, and has nothing of zones.
func TestAcme(t *testing.T) {
	_, c, err := Load([]byte(acme(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	env, ok := c.TypeNumber("com.acme.project.environment")
	project, _ := c.TypeNumber("com.acme.project")
	if !ok || !c.Below(env, project) || len(c.Roles()) != 4 || c.Templates()[0].LifetimeDays != 90 {
		t.Errorf("%+v %+v", c.Types(), c.Roles())
	}
	if _, ok := c.TypeNumber("com.cloudflare.api.account.zone"); ok {
		t.Error("there are zones")
	}
}

// TestWrite: what is exported reads as what it was, comments aside.
func TestWrite(t *testing.T) {
	_, mine, err := Load([]byte(acme(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*catalogue.Catalogue{catalogue.Cloudflare(), mine} {
		text, err := Write(c.Document())
		if err != nil {
			t.Fatal(err)
		}
		_, back, err := Load(text, c)
		if err != nil {
			t.Fatalf("%s: %v", c.Name(), err)
		}
		want, err := json.Marshal(c.Document())
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(back.Document())
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: got %s, %v\nwant %s", c.Name(), got, err, want)
		}
		if c == mine && !strings.Contains(string(text), "- ac0e0000000000000000000000000004 # Logs Read") {
			t.Errorf("no names beside ids: %s", text)
		}
	}
}

// TestMistakes: each mistake is told with its place.
func TestMistakes(t *testing.T) {
	good := acme(t)
	for _, c := range []struct{ name, old, new, at, want string }{
		{"unknown key", "name: Acme", "nam: Acme", "nam: Acme", `unknown key "nam"`},
		{"unknown key within", "    category: projects", "    kategory: projects", "kategory", "unknown key"},
		{"key twice", "name: Acme", "name: Acme\nname: Acne", "name: Acne", "given twice"},
		{"number", "name: Acme", "name: 7", "7", "cannot be a JSON"},
		{"fraction", "lifetime_days: 90", "lifetime_days: 0.5", "0.5", "whole number"},
		{"list for a text", "name: Acme", "name: [Acme]", "name: [Acme]", "cannot be a JSON"},
		{"truth", "name: Acme", "name: true", "true", "cannot be a JSON"},
		{"cycle", "parent: com.cloudflare.api.account", "parent: com.acme.project.environment", "com.acme.project.environment", "lies in itself"},
		{"id twice", "id: ac0e0000000000000000000000000002", "id: ac0e0000000000000000000000000001", "ac0e0000000000000000000000000001\n    name: Projects Write", "given twice"},
		{"unknown scope", "[com.acme.project.environment]", "[com.acme.projekt]", "com.acme.projekt", "unknown scope"},
		{"unknown permission", "[secrets.rotate]", "[secrets.eat]", "secrets.eat", "unknown permission"},
		{"unknown class", "class: admin", "class: root", "root}", "class must be"},
		{"unknown group", "{name: Deploy}", "{name: Explode}", "{name: Explode", "unknown permission group"},
		{"syntax", "name: Acme", "name: Acme: too", ": too", "mapping values"},
		{"tab", "    category: projects", "\tcategory: projects", "\tcategory", ""},
		{"anchor", "name: Acme", "name: &a Acme", "&a Acme", "anchors"},
		{"alias", "    category: projects", "    category: *a", "*a", "unknown"},
		{"tag", "name: Acme", "name: !!str Acme", "!!str", "tags"},
		{"merge key", "name: Acme", "<<: {name: Acme}", "<<:", "plain text"},
		{"second document", "lifetime_days: 90", "lifetime_days: 90\n---\nname: b", "---\nname: b", "one document"},
		{"list", good, "- name: Acme", "- name", "is a mapping"},
		{"deep", "name: Acme", "name: " + strings.Repeat("[", 40) + strings.Repeat("]", 40), strings.Repeat("[", 40-maxDepth) + "]", "too deep"},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		if text == good {
			t.Fatalf("%s: nothing replaced", c.name)
		}
		_, _, err := Load([]byte(text), nil)
		e, ok := errors.AsType[*Error](err)
		if !ok || !strings.Contains(e.Text, c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
			continue
		}
		if line, column := find(t, text, c.at); line != e.Line || column != e.Column {
			t.Errorf("%s: %v, want it at %d:%d", c.name, err, line, column)
		}
	}
}

// find returns where part stands in text.
func find(t *testing.T, text, part string) (line, column int) {
	t.Helper()
	before, _, ok := strings.Cut(text, part)
	if !ok {
		t.Fatalf("%q is not in the file", part)
	}
	return 1 + strings.Count(before, "\n"), len(before) - strings.LastIndexByte(before, '\n')
}

// TestSize: what is too large, or would become it, is refused.
func TestSize(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := range 20 {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s*a%d]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 8), i)
	}
	for name, text := range map[string]string{
		"10 MB":          strings.Repeat("# catalogue\n", 10<<20/12),
		"a large text":   "name: " + strings.Repeat("x", MaxBytes-10),
		"an alias bomb":  bomb.String(),
		"nothing at all": "",
		"a null":         "~",
		"bytes":          "name: \xff\xfe",
	} {
		if _, _, err := Load([]byte(text), nil); err == nil {
			t.Errorf("%s is accepted", name)
		} else if e, ok := errors.AsType[*Error](err); !ok || len(e.Text) > 300 {
			t.Errorf("%s: %T %.300v", name, err, err)
		}
	}
}

// TestTooLarge: the place is where the limit is passed.
func TestTooLarge(t *testing.T) {
	const line = "# é\n" // five bytes
	text := strings.Repeat(line, MaxBytes/len(line)+1) + "name: x\n"
	_, err := Read([]byte(text))
	// 209,715 whole lines take 1,048,575 bytes; one byte more is allowed.
	if want := "209716:2: the file has more than 1048576 bytes"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
