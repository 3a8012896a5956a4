package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestReadDirectory: what rests on something comes in a later wave, and a file
// that could not be known again by the next run is refused.
func TestReadDirectory(t *testing.T) {
	waves, err := readDirectory("org.yaml", strings.NewReader(`
resources:
  - {type: env, id: e, name: E, parent: project.p}
  - {type: project, id: p, name: P, account: A}
  - {type: project, id: q, name: Q, parent: elsewhere.x}
accounts: [{name: A}]
users: [{email: u@example.com}]
`))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, w := range waves {
		got += fmt.Sprint(w, ";")
	}
	if want := "[user u@example.com];[account A];[];[resource project.p resource project.q];[resource env.e];"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for text, want := range map[string]string{
		`users: [{email: a@b.c}, {email: a@b.c}]`:                                                     "line 1: user a@b.c stands twice, first in line 1",
		`resources: [{type: t, id: a, name: a, parent: t.b}, {type: t, id: b, name: b, parent: t.a}]`: "line 1: resource t.a and others lie in each other",
		`resources: [{type: t, id: a, name: a}]`:                                                      "line 1: a resource needs a type, an id, a name and either a parent or an account",
		`users: [{name: nobody}]`:                                                                     "line 1: a user needs an email",
		`accounts: [{id: x}]`:                                                                         "line 1: an account needs a name",
		`people: []`:                                                                                  "line 1: field people is not known here",
		"users:\n- {nam: x}":                                                                          "line 2: field nam is not known here",
		"users: x":                                                                                    "line 1: cannot unmarshal !!str `x` into a list of things",
		"users: [":                                                                                    "line 1",
	} {
		if _, err := readDirectory("f.yaml", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"kind,email\nuser,a@b.c\nthing,x\n": "line 3", "kind,colour\nuser,red\n": `line 1: unknown column "colour"`, "": "line 1: there is no header",
		"kind,email\nuser\n": "line 2: wrong number of fields", "kind,email\n\nuser,a@b.c\nuser,\n": "line 4: a user needs an email",
		"kind,email\nuser,a@b.c\n\nuser,a@b.c\n": "line 4: user a@b.c stands twice, first in line 2", "kind,email\nuser,\"a\n": "line 2",
		"kind,email,operator\nuser,a@b.c,false\nuser,b@b.c,TRUE\n": "line 3: operator is true or false",
	} {
		if _, err := readDirectory("f.csv", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestDirectoryHelp: the file that the help shows can be imported.
func TestDirectoryHelp(t *testing.T) {
	cmd, _, err := (&App{}).importCommand().Find([]string{"directory"})
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(cmd.Long, "up to four lists:\n")
	text, _, ok := strings.Cut(text, "\nA table")
	waves, err := readDirectory("f.yaml", strings.NewReader(text))
	if err != nil || !ok || len(waves) != 4 {
		t.Fatalf("%d waves, %v, of\n%s", len(waves), err, text)
	}
	for i, w := range waves {
		if len(w) != 1 {
			t.Errorf("%d things in wave %d", len(w), i)
		}
	}
}

// TestAssume: a dry run takes for made what the same file makes, and nothing
// else.
func TestAssume(t *testing.T) {
	waves, err := readDirectory("f.yaml", strings.NewReader(`
users: [{email: Ada@example.com}]
accounts: [{name: New}, {name: Known, id: 0000000000000000000000000000000b}]
members:
- {email: ada@example.com, account: New, roles: [r]}
- {email: ada@example.com, account: Old, roles: [r]}
- {email: bob@example.com, account: 0000000000000000000000000000000b, roles: [r]}
resources:
- {type: t, id: a, name: a, account: New}
- {type: t, id: b, name: b, parent: t.a}
- {type: t, id: c, name: c, parent: t.x}
- {type: t, id: d, name: d, parent: com.cloudflare.api.account.0000000000000000000000000000000b}
`))
	if err != nil {
		t.Fatal(err)
	}
	assume(waves)
	got := map[string]string{}
	for _, e := range slices.Concat(waves...) {
		if len(e.Assumed) > 0 {
			got[e.String()] = strings.Join(e.Assumed, " ")
		}
	}
	want := map[string]string{
		"member ada@example.com of New": "account user", "member ada@example.com of Old": "user",
		"member bob@example.com of 0000000000000000000000000000000b": "account",
		"resource t.a": "account", "resource t.b": "parent", "resource t.d": "parent",
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
