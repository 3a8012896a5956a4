package cataloguefile

import (
	"slices"
	"strings"
	"testing"

	"watchword.dev/events/catalogue"
)

// TestDiff: what changes is said in words, and what takes something away from
// somebody is marked.
func TestDiff(t *testing.T) {
	before := acme(t)
	after := strings.NewReplacer(
		"  - {name: secrets.rotate, class: admin}\n", "  - {name: secrets.rotate, class: write}\n  - {name: logs.purge, class: admin}\n",
		"[projects.read, projects.write]", "[projects.write]",
		"name: Logs Read\n    description: Reads what an environment logs.", "name: Logs\n    description: Reads what an environment logs.",
		"      - ac0e0000000000000000000000000003 # Deploy\n", "",
		"{name: Logs Read}", "ac0e0000000000000000000000000004",
		"lifetime_days: 90", "lifetime_days: 30",
	).Replace(before)
	at := strings.Index(after, "  - id: ac0e0000000000000000000000000005")
	end := strings.Index(after, "\nroles:")
	after = after[:at] + after[end:]
	var docs [2]catalogue.Document
	for i, text := range []string{before, after} {
		_, c, err := Load([]byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		docs[i] = c.Document()
	}
	changes := Diff(docs[0], docs[1])
	var got []string
	for _, c := range changes {
		line := c.String()
		if c.Narrows {
			line = "! " + line
		}
		got = append(got, line)
	}
	want := []string{
		"permission secrets.rotate has the class write instead of admin",
		"permission logs.purge is new",
		"! permission group Projects Write (ac0e0000000000000000000000000002) loses the permission projects.read",
		`permission group Logs (ac0e0000000000000000000000000004) was named "Logs Read"`,
		"! permission group Secrets Rotate (ac0e0000000000000000000000000005) is dropped",
		"! role Developer loses the permission group ac0e0000000000000000000000000003",
		"template Deploy to one environment (deploy) changes; tokens made of it stay as they are",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := NarrowedBy(changes); len(n[KindGroup]) != 2 || !n[KindRole]["Developer"] || len(n) != 2 {
		t.Errorf("%v", n)
	}
	if again := Diff(docs[0], docs[0]); len(again) != 0 {
		t.Errorf("a catalogue differs from itself: %v", again)
	}
	back := Diff(docs[1], docs[0])
	if !slices.ContainsFunc(back, func(c Change) bool { return c.Kind == KindPermission && c.ID == "logs.purge" && c.Narrows }) {
		t.Error("a dropped permission narrows nothing")
	}
}
