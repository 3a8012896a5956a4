package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"watchword.dev/events/fault"
)

func write(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func constant(s string) func() (string, error) { return func() (string, error) { return s, nil } }

// TestRun: -check fails and changes nothing, a run writes, and then -check is
// content. Two tables of one file both arrive; the text around them stays.
func TestRun(t *testing.T) {
	root := t.TempDir()
	const before = "# A\n<!-- gen:one -->\nold\n<!-- /gen:one -->\nmiddle\n<!-- gen:two --><!-- /gen:two -->\nend\n"
	const after = "# A\n<!-- gen:one -->\nnew 1\n<!-- /gen:one -->\nmiddle\n<!-- gen:two -->\nnew 2\n<!-- /gen:two -->\nend\n"
	write(t, root, "a/b.md", before)
	tables := []Table{
		{File: "a/b.md", Marker: "one", Render: constant("new 1\n")},
		{File: "a/b.md", Marker: "two", Render: constant("new 2")},
	}
	if err := run(root, tables, true); err == nil || !strings.Contains(err.Error(), "a/b.md differs") {
		t.Errorf("-check on an old table: %v", err)
	}
	if got := read(t, root, "a/b.md"); got != before {
		t.Errorf("-check changed the file:\n%s", got)
	}
	for range 2 {
		if err := run(root, tables, false); err != nil {
			t.Fatal(err)
		}
		if got := read(t, root, "a/b.md"); got != after {
			t.Errorf("got\n%s\nwant\n%s", got, after)
		}
		if err := run(root, tables, true); err != nil {
			t.Errorf("-check after writing: %v", err)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	one := Table{File: "a.md", Marker: "one", Render: constant("x")}
	tests := []struct {
		name, text, want string
		table            Table
	}{
		{"no marker", "# A\n", "stands 0 times", one},
		{"marker twice", "<!-- gen:one -->\n<!-- /gen:one -->\n<!-- gen:one -->\n<!-- /gen:one -->", "stands 2 times", one},
		{"no end", "<!-- gen:one -->\n", "must follow", one},
		{"end first", "<!-- /gen:one -->\n<!-- gen:one -->\n<!-- /gen:one -->", "must follow", one},
		{"one inside the other", "<!-- gen:one -->\n<!-- gen:two -->\n<!-- /gen:one -->", "another marker", one},
		{"a stranger", "<!-- gen:one -->\n<!-- /gen:one -->\n<!-- gen:two -->\n", "no table fills <!-- gen:two -->", one},
		{"render fails", "<!-- gen:one -->\n<!-- /gen:one -->\n", "table one: no",
			Table{File: "a.md", Marker: "one", Render: func() (string, error) { return "", errors.New("no") }}},
		{"no file", "", "no such file", Table{File: "b.md", Marker: "one", Render: constant("x")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, "a.md", tt.text)
			err := run(root, []Table{tt.table}, true)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestMarkdown(t *testing.T) {
	got := markdown([]string{"a", "b"}, [][]string{{"x|y", "1\n2"}})
	want := "| a | b |\n|---|---|\n| x\\|y | 1 2 |\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestErrors: every code has a row with its anchor, number and text.
func TestErrors(t *testing.T) {
	table, err := renderErrors()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range fault.All() {
		if !strings.Contains(table, `<a id="`+e.Anchor()+`"></a>`) || !strings.Contains(table, e.Text) {
			t.Errorf("%s is not in the table", e.Code)
		}
	}
	if rows := strings.Count(table, "\n") - 2; rows != len(fault.All()) {
		t.Errorf("%d rows for %d codes", rows, len(fault.All()))
	}
}
