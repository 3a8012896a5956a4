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
		`users: [{email: a@b.c}, {email: a@b.c}]`:                                                     "stands twice",
		`resources: [{type: t, id: a, name: a, parent: t.b}, {type: t, id: b, name: b, parent: t.a}]`: "lie in each other",
		`resources: [{type: t, id: a, name: a}]`:                                                      "either a parent or an account",
		`users: [{name: nobody}]`:                                                                     "a user needs an email",
		`accounts: [{id: x}]`:                                                                         "an account needs a name",
		`people: []`:                                                                                  "line 1",
		"users: [":                                                                                    "line 1",
	} {
		if _, err := readDirectory("f.yaml", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"kind,email\nuser,a@b.c\nthing,x\n": "line 3", "kind,colour\nuser,red\n": `unknown column "colour"`, "": "EOF",
		"kind,email\nuser\n": "wrong number of fields",
	} {
		if _, err := readDirectory("f.csv", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
