package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Table is one generated stretch of a Markdown file.
type Table struct {
	File   string // path from the root of the checkout, with slashes
	Marker string // lower-case name in the marker comments
	Render func() (string, error)
}

// tables are all that there are. A new one needs its line here and its pair
// of markers in the file.
var tables = []Table{
	{File: "events/fault/README.md", Marker: "errors", Render: renderErrors},
	{File: "events/README.md", Marker: "events", Render: renderEvents},
	{File: "services/README.md", Marker: "settings", Render: renderSettings},
}

// run renders every table into its file under root. With check it changes
// nothing and returns an error that names each file that would change.
func run(root string, tables []Table, check bool) error {
	texts := map[string]string{} // file → text with its tables anew
	var errs []error
	for _, t := range tables {
		text, err := textOf(root, t.File, texts)
		if err != nil {
			return err
		}
		body, err := t.Render()
		if err != nil {
			return fmt.Errorf("table %s: %w", t.Marker, err)
		}
		if texts[t.File], err = replace(text, t.Marker, body); err != nil {
			return fmt.Errorf("%s: %w", t.File, err)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(texts)) {
		errs = append(errs, settle(root, file, texts[file], check))
	}
	return errors.Join(append(errs, strangers(root, tables))...)
}

// textOf returns the file's text as it stands after the tables before.
func textOf(root, file string, texts map[string]string) (string, error) {
	if text, ok := texts[file]; ok {
		return text, nil
	}
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
	return string(text), err
}

// settle writes the file if it differs, or with check says that it does.
func settle(root, file, want string, check bool) error {
	path := filepath.Join(root, filepath.FromSlash(file))
	have, err := os.ReadFile(path)
	if err != nil || string(have) == want {
		return err
	}
	if check {
		return fmt.Errorf("%s differs from the code: run go run ./tools/gen", file)
	}
	fmt.Println("wrote", file)
	return os.WriteFile(path, []byte(want), 0o644)
}

func begin(marker string) string { return "<!-- gen:" + marker + " -->" }
func end(marker string) string   { return "<!-- /gen:" + marker + " -->" }

// replace returns text with body between marker's two comments.
func replace(text, marker, body string) (string, error) {
	if n := strings.Count(text, begin(marker)); n != 1 {
		return "", fmt.Errorf("%s stands %d times, want once", begin(marker), n)
	}
	head, rest, _ := strings.Cut(text, begin(marker))
	if strings.Count(rest, end(marker)) != 1 || strings.Contains(head, end(marker)) {
		return "", fmt.Errorf("%s must follow %s once", end(marker), begin(marker))
	}
	old, tail, _ := strings.Cut(rest, end(marker))
	if strings.Contains(old, "<!-- gen:") {
		return "", fmt.Errorf("another marker stands inside %s", begin(marker))
	}
	return head + begin(marker) + "\n" + strings.TrimSpace(body) + "\n" + end(marker) + tail, nil
}

var anyMarker = regexp.MustCompile(`(?m)^<!-- gen:(\S+) -->`)

// strangers finds markers that no table fills: a text that looks generated
// and is not would grow old unseen.
func strangers(root string, tables []Table) error {
	var errs []error
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "testdata") && path != root:
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		for _, m := range anyMarker.FindAllSubmatch(text, -1) {
			known := func(t Table) bool { return t.File == filepath.ToSlash(rel) && t.Marker == string(m[1]) }
			if !slices.ContainsFunc(tables, known) {
				errs = append(errs, fmt.Errorf("%s: no table fills %s", rel, m[0]))
			}
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// markdown writes a table. A cell's line breaks and bars are escaped.
func markdown(head []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) {
		for i, c := range cells {
			cells[i] = strings.NewReplacer("|", `\|`, "\n", " ").Replace(c)
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	line(slices.Clone(head))
	b.WriteString(strings.Repeat("|---", len(head)) + "|\n")
	for _, r := range rows {
		line(slices.Clone(r))
	}
	return b.String()
}
