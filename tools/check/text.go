package main

import (
	"bytes"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strings"
)

// word is a pattern that must not stand in some files.
type word struct {
	pattern *regexp.Regexp
	files   func(name string) bool
	advice  string
	warn    bool // only warn
}

// words are written in pieces where they would find themselves.
var words = []word{
	{re(`(?i)\bTO` + `DO\b|\bFIX` + `ME\b|\bXX` + `X\b|not implemen` + `ted\b|place` + `holder|hard-?co` + `ded`),
		source, "finish it, or say what the code does do", false},
	{re(`/wo` + `rk/|/ro` + `ot/|/fa` + `rm/|/home/[a-z]|\.\./sha` + `red`),
		everyText, "no path of somebody's machine: take a flag, t.TempDir or a path relative to the checkout", false},
	{re(`(?i)\bsub` + `agent|\bCE` + `O\b|developers.? ses` + `sion`),
		everyText, "a word of the workplace, not of the project", false},
	{re(`(proxy|sum)\.gol` + `ang\.org|registry\.np` + `mjs\.org|deb\.deb` + `ian\.org`),
		notLockfile, "name the package, not the registry's host: that is the user's setting", false},
	{re(`\b[tbf]\.Skip|testing\.Sh` + `ort\(\)`),
		test, "nothing skips silently: embed what the test needs", false},
	{re(`\btime\.Sl` + `eep\(`), test, "await a signal, inject the clock or use testing/synctest", true},
	{re(`^\s+(json )?"encoding/js` + `on"`), product, "use github.com/go-json-experiment/json", true},
}

func re(pattern string) *regexp.Regexp { return regexp.MustCompile(pattern) }

func everyText(string) bool        { return true }
func test(name string) bool        { return strings.HasSuffix(name, "_test.go") }
func notLockfile(name string) bool { return !strings.HasSuffix(name, "-lock.json") }

func source(name string) bool {
	for _, ext := range []string{".go", ".ts", ".tsx", ".sh", ".ci/run"} {
		if strings.HasSuffix(name, ext) {
			return true
		}
	}
	return false
}

func product(name string) bool {
	return strings.HasSuffix(name, ".go") && !test(name) &&
		!strings.HasPrefix(name, "tools/") && !strings.HasPrefix(name, "services/e2e/")
}

func checkWords(_ context.Context, t *tree) (r result) {
	for _, name := range t.files {
		text, err := t.read(name)
		if err != nil {
			r.problems = append(r.problems, err.Error())
			continue
		}
		if bytes.IndexByte(text[:min(len(text), 8000)], 0) >= 0 {
			continue // no text
		}
		for _, w := range words {
			if !w.files(name) {
				continue
			}
			for i, line := range bytes.Split(text, []byte("\n")) {
				found := w.pattern.Find(line)
				if found == nil {
					continue
				}
				message := fmt.Sprintf("%s:%d: %s: %s", name, i+1, bytes.TrimSpace(found), w.advice)
				if w.warn {
					r.warnings = append(r.warnings, message)
				} else {
					r.problems = append(r.problems, message)
				}
			}
		}
	}
	return r
}

// The sizes above which a function or a file deserves a second look.
const (
	maxFuncLines = 70
	maxFileLines = 500
)

func checkSizes(_ context.Context, t *tree) (r result) {
	for _, name := range t.files {
		if !strings.HasSuffix(name, ".go") || strings.Contains("/"+name, "/testdata/") {
			continue
		}
		text, err := t.read(name)
		if err != nil {
			r.problems = append(r.problems, err.Error())
			continue
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			r.problems = append(r.problems, err.Error())
			continue
		}
		if ast.IsGenerated(file) {
			continue
		}
		if n := bytes.Count(text, []byte("\n")); n > maxFileLines {
			r.warnings = append(r.warnings, fmt.Sprintf("%s: %d lines", name, n))
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			first, last := fset.Position(f.Pos()).Line, fset.Position(f.End()).Line
			if n := last - first + 1; n > maxFuncLines {
				r.warnings = append(r.warnings, fmt.Sprintf("%s:%d: func %s has %d lines", name, first, f.Name.Name, n))
			}
		}
	}
	return r
}
