package floors

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWorkspace holds this checkout to floors.txt. The go command does not
// know that the result depends on other modules and may answer from its cache;
// go run ./tools/check always looks anew.
func TestWorkspace(t *testing.T) {
	t.Setenv("GOWORK", "") // with "off" there is no workspace to look at
	violations, err := Check(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
}

const house = `
prefix ex.org
module events requires nothing
module events/test requires events
module services requires events
module tools requires events, services

3  services/cmd/...
2  services/a/..., services/b/...,  # side by side
   services/embed
1  events/x
0  events/values < events
free events/test/..., tools/...

DB = example.org/db/..., example.org/olddb
! events, events/values reach only STD, example.org/ulid
! services/a/... reach no DB
! services/b/... reach no net/http but through DB
! only services/embed import example.org/server/...
`

// imports is a made-up graph: package → what it imports.
type imports map[string]string

func graph(in imports, requires map[string]string) *Graph {
	g := &Graph{Packages: map[string]*Package{}, Requires: map[string][]string{}}
	add := func(path string) *Package {
		if p := g.Packages[path]; p != nil {
			return p
		}
		p := &Package{Path: path, Ours: strings.HasPrefix(path, "ex.org/")}
		first, _, _ := strings.Cut(path, "/")
		p.Standard = !strings.Contains(first, ".")
		if p.Ours {
			p.Module = "ex.org/" + strings.Split(path, "/")[1]
			if strings.HasPrefix(path, "ex.org/events/test") {
				p.Module = "ex.org/events/test"
			}
		}
		g.Packages[path] = p
		return p
	}
	for path, list := range in {
		path, isTest := strings.CutSuffix(path, " test")
		p := add(path)
		for _, imported := range strings.Fields(list) {
			add(imported)
			if isTest {
				p.TestImports = append(p.TestImports, imported)
			} else {
				p.Imports = append(p.Imports, imported)
			}
		}
	}
	for module, list := range requires {
		g.Requires[module] = strings.Fields(list)
	}
	return g
}

// checkCases are graphs and what house says of them.
var checkCases = []struct {
	name     string
	imports  imports
	requires map[string]string
	want     []string // one part of each violation, in order
}{
	{name: "down", imports: imports{
		"ex.org/services/cmd/w": "ex.org/services/a ex.org/services/embed ex.org/events fmt",
		"ex.org/services/a":     "ex.org/events/x ex.org/events/values",
		"ex.org/events/x":       "ex.org/events", "ex.org/events": "ex.org/events/values",
	}},
	{name: "up", imports: imports{"ex.org/events/x": "ex.org/services/a"},
		want: []string{
			"ex.org/events/x: events/x (floor 1) imports services/a (floor 2): imports never go up",
			"module events may not use module services"}},
	{name: "sideways", imports: imports{"ex.org/services/a": "ex.org/services/b"},
		want: []string{"services/a (floor 2) imports services/b (floor 2): imports never go sideways"}},
	{name: "up within a floor", imports: imports{"ex.org/events/values": "ex.org/events"},
		want: []string{"events/values (floor 0) imports events (floor 0): imports never go sideways"}},
	{name: "within a room", imports: imports{
		"ex.org/services/a": "ex.org/services/a/inner", "ex.org/services/a/inner2": "ex.org/services/a"}},
	{name: "from one room into another's inside", imports: imports{"ex.org/services/a/x": "ex.org/services/b/y"},
		want: []string{"services/a/x (floor 2) imports services/b/y (floor 2)"}},
	{name: "no floor", imports: imports{"ex.org/events/new": ""},
		want: []string{"ex.org/events/new: stands on no floor"}},
	{name: "below an exact name is another package", imports: imports{"ex.org/services/embed/inner": ""},
		want: []string{"ex.org/services/embed/inner: stands on no floor"}},
	{name: "a like-named neighbour is another package", imports: imports{"ex.org/services/ab": ""},
		want: []string{"ex.org/services/ab: stands on no floor"}},
	{name: "product imports tools", imports: imports{"ex.org/services/a": "ex.org/tools/gen"},
		want: []string{"services/a (floor 2) imports tools/gen (free): product code imports no tests and tools",
			"module services may not use module tools"}},
	{name: "tools import everything", imports: imports{
		"ex.org/tools/x": "ex.org/services/a ex.org/tools/y example.org/server/v2 example.org/db"}},
	{name: "a test may look up", imports: imports{"ex.org/services/a test": "ex.org/services/b ex.org/events"}},
	{name: "a test may not use a module that its own does not require",
		imports: imports{"ex.org/events test": "ex.org/tools/y"},
		want:    []string{"module events may not use module tools"}},

	{name: "reach, directly", imports: imports{"ex.org/services/a": "example.org/olddb"},
		want: []string{"services/a → example.org/olddb, against: services/a/... reach no DB"}},
	{name: "reach, through ours and strangers", imports: imports{
		"ex.org/services/a/in": "fmt ex.org/events/x", "ex.org/events/x": "example.org/helper",
		"example.org/helper": "example.org/db/sst", "example.org/db/sst": "io"},
		want: []string{"services/a/in → events/x → example.org/helper → example.org/db/sst, against"}},
	{name: "reach, others may", imports: imports{"ex.org/services/b": "example.org/db"}},
	{name: "reach, through what is excepted", imports: imports{
		"ex.org/services/b": "example.org/db", "example.org/db": "net/http"}},
	{name: "reach, beside what is excepted", imports: imports{
		"ex.org/services/b": "example.org/db example.org/helper", "example.org/db": "net/http",
		"example.org/helper": "net/http"},
		want: []string{"services/b → example.org/helper → net/http, against: services/b/... reach no net/http"}},
	{name: "reach only", imports: imports{
		"ex.org/events": "example.org/ulid ex.org/events/values", "example.org/ulid": "io"}},
	{name: "reach only, by a stranger's stranger", imports: imports{
		"ex.org/events": "example.org/ulid", "example.org/ulid": "example.org/more"},
		want: []string{"events → example.org/ulid → example.org/more, against: events, events/values reach only"}},
	{name: "only importer", imports: imports{
		"ex.org/services/embed": "example.org/server/v2", "ex.org/services/cmd/w": "ex.org/services/embed",
		"ex.org/services/b": "example.org/server/v2/inner"},
		want: []string{"services/b imports example.org/server/v2/inner, against: only services/embed import"}},

	{name: "go.mod files", requires: map[string]string{
		"ex.org/events": "example.org/ulid", "ex.org/services": "ex.org/events",
		"ex.org/tools": "ex.org/services ex.org/events"}},
	{name: "go.mod requires a sibling", requires: map[string]string{"ex.org/events": "ex.org/services"},
		want: []string{"ex.org/events: its go.mod may not require services"}},
	{name: "unknown module", requires: map[string]string{"ex.org/deploy": ""},
		want: []string{"ex.org/deploy: stands in no module line"}},
}

func TestCheck(t *testing.T) {
	policy, err := Parse(house)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range checkCases {
		t.Run(tt.name, func(t *testing.T) {
			got := policy.Check(graph(tt.imports, tt.requires))
			if len(got) != len(tt.want) {
				t.Fatalf("got %d violations, want %d:\n%v", len(got), len(tt.want), got)
			}
			for i, v := range got {
				if !strings.Contains(v.String(), tt.want[i]) {
					t.Errorf("got  %s\nwant %s", v, tt.want[i])
				}
			}
		})
	}
}

func TestBrokenPackageIsReported(t *testing.T) {
	policy, err := Parse(house)
	if err != nil {
		t.Fatal(err)
	}
	g := graph(imports{"ex.org/events": ""}, nil)
	g.Packages["ex.org/events"].Broken = "no such import"
	if got := policy.Check(g); len(got) != 1 || !strings.Contains(got[0].What, "no such import") {
		t.Errorf("got %v", got)
	}
}

func TestParseRefuses(t *testing.T) {
	const head = "prefix ex.org\nmodule a requires nothing\n"
	tests := map[string]string{
		"":                                       "no prefix",
		"3 a":                                    "line 1: the prefix must come first",
		head + "3 a\n3 a/b":                      "line 4: floor 3 stands twice",
		head + "3 a\n4 a/...":                    "a stands twice",
		head + "3 a b":                           "no package",
		head + "3 a,b":                           "no package",
		head + "what is this":                    `"what" begins no line`,
		head + "module b requires c":             "stands in no line above",
		head + "module a requires nothing":       "stands twice",
		head + "module a":                        "a module line reads",
		head + "Set = a":                         "in capitals",
		head + "SET = a\nSET = a":                "stands twice",
		head + "! a reach no SET":                "no set SET above",
		head + "! a reaches b":                   "is no rule",
		head + "! only a":                        "reads: ! only a import b",
		head + "! a reach no b but through SETS": "no set SETS",
	}
	for text, want := range tests {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

// TestLoad builds a small workspace on disk and finds its one violation, with
// the file and line of the import, from a folder below.
func TestLoad(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.work":         "go 1.26.0\nuse (\n./low\n./high\n)\n",
		"low/go.mod":      "module ex.org/low\ngo 1.26.0\n",
		"low/low.go":      "package low\n",
		"low/bad/bad.go":  "package bad\n\nimport (\n\t\"fmt\"\n\t\"ex.org/high\"\n)\n\nvar _ = fmt.Sprint(high.X)\n",
		"high/go.mod":     "module ex.org/high\ngo 1.26.0\n",
		"high/high.go":    "package high\n\nimport _ \"ex.org/low\"\n\nconst X = 1\n",
		"high/in/none.md": "",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOWORK", "")
	g, err := Load(t.Context(), filepath.Join(root, "high", "in"))
	if err != nil {
		t.Fatal(err)
	}
	if fmtPkg := g.Packages["fmt"]; fmtPkg == nil || !fmtPkg.Standard || len(fmtPkg.Imports) == 0 {
		t.Errorf("the standard library is not in the graph: %+v", fmtPkg)
	}
	policy, err := Parse("prefix ex.org\nmodule low requires nothing\nmodule high requires low\n1 high\n0 low/...\n")
	if err != nil {
		t.Fatal(err)
	}
	got := policy.Check(g)
	if len(got) != 2 || got[0].Where != "low/bad/bad.go:5" || !strings.Contains(got[0].What, "never go up") {
		t.Errorf("got %v", got)
	}
}
