package cli

import (
	"fmt"
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
		`people: []`:                                                                                  "line 1",
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
	} {
		if _, err := readDirectory("f.csv", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
