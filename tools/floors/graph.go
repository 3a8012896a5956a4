package floors

import (
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"

	"watchword.dev/tools/internal/workspace"
)

// Package is one node of the import graph.
type Package struct {
	Path        string
	Module      string // module path, empty in the standard library
	Ours        bool   // of a module of the workspace
	Standard    bool
	Imports     []string // by files other than tests
	TestImports []string // by test files, ours only
	Files       []string // absolute; ours only
	Broken      string   // why go list could not load it
}

// Graph is what a policy is checked against.
type Graph struct {
	Root     string // folder that the messages' file names are relative to
	Packages map[string]*Package
	// Requires holds, by module path, the modules that each module of the
	// workspace requires.
	Requires map[string][]string
}

// listed is the part of go list's answer that is used.
type listed struct {
	ImportPath   string
	Dir          string
	Standard     bool
	Module       *struct{ Path string }
	GoFiles      []string
	CgoFiles     []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	ImportMap    map[string]string
	Error        *struct{ Err string }
}

// Load reads the graph of the workspace around dir, with all that it imports,
// for this system and without build tags.
func Load(ctx context.Context, dir string) (*Graph, error) {
	root, err := workspace.Root(ctx, dir)
	if err != nil {
		return nil, err
	}
	modules, err := workspace.Modules(ctx, root)
	if err != nil {
		return nil, err
	}
	g := &Graph{Root: root, Packages: map[string]*Package{}, Requires: map[string][]string{}}
	ours := map[string]bool{}
	for _, m := range modules {
		ours[m.Path] = true
		if g.Requires[m.Path], err = requires(ctx, m.Dir); err != nil {
			return nil, err
		}
	}
	out, err := workspace.Go(ctx, root, "list", "-e", "-deps", "-json=ImportPath,Dir,Standard,Module,"+
		"GoFiles,CgoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports,ImportMap,Error", "work")
	if err != nil {
		return nil, err
	}
	all, err := workspace.Decode[listed](out)
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		g.Packages[l.ImportPath] = l.node(ours)
	}
	return g, nil
}

// requires reads the module paths in the require lines of dir's go.mod.
func requires(ctx context.Context, dir string) ([]string, error) {
	out, err := workspace.Go(ctx, dir, "mod", "edit", "-json")
	if err != nil {
		return nil, err
	}
	mods, err := workspace.Decode[struct{ Require []struct{ Path string } }](out)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, r := range mods[0].Require {
		all = append(all, r.Path)
	}
	return all, nil
}

func (l listed) node(ours map[string]bool) *Package {
	p := &Package{Path: l.ImportPath, Standard: l.Standard}
	if l.Module != nil {
		p.Module, p.Ours = l.Module.Path, ours[l.Module.Path]
	}
	if l.Error != nil {
		p.Broken = l.Error.Err
	}
	for _, path := range l.Imports {
		if mapped, ok := l.ImportMap[path]; ok {
			path = mapped
		}
		p.Imports = append(p.Imports, path)
	}
	if !p.Ours {
		return p
	}
	p.TestImports = append(l.TestImports, l.XTestImports...)
	for _, names := range [][]string{l.GoFiles, l.CgoFiles, l.TestGoFiles, l.XTestGoFiles} {
		for _, name := range names {
			p.Files = append(p.Files, filepath.Join(l.Dir, name))
		}
	}
	return p
}

// where returns file:line of the first import of path in pkg, or pkg's path
// when the files cannot say.
func (g *Graph) where(pkg *Package, path string) string {
	for _, file := range pkg.Files {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, file, nil, parser.ImportsOnly)
		if err != nil {
			continue
		}
		for _, spec := range f.Imports {
			if got, _ := strconv.Unquote(spec.Path.Value); got != path {
				continue
			}
			name := file
			if rel, err := filepath.Rel(g.Root, file); err == nil {
				name = filepath.ToSlash(rel)
			}
			return fmt.Sprintf("%s:%d", name, fset.Position(spec.Pos()).Line)
		}
	}
	return pkg.Path
}
