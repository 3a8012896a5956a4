package floors

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Violation is one breach of the policy.
type Violation struct {
	Where string // file:line of the import, or the package or module
	What  string
}

// String returns "where: what".
func (v Violation) String() string { return v.Where + ": " + v.What }

// Check holds the workspace around dir to floors.txt.
func Check(ctx context.Context, dir string) ([]Violation, error) {
	p, err := Parse(policyText)
	if err != nil {
		return nil, fmt.Errorf("floors.txt: %w", err)
	}
	g, err := Load(ctx, dir)
	if err != nil {
		return nil, err
	}
	return p.Check(g), nil
}

// Check returns every violation in g, in a stable order.
func (p *Policy) Check(g *Graph) []Violation {
	var all []Violation
	for _, path := range slices.Sorted(maps.Keys(g.Packages)) {
		pkg := g.Packages[path]
		if !pkg.Ours {
			continue
		}
		if pkg.Broken != "" {
			all = append(all, Violation{path, "cannot be loaded, so not checked: " + pkg.Broken})
		}
		all = append(all, p.checkFloors(g, pkg)...)
		all = append(all, p.checkModule(g, pkg)...)
		for _, r := range p.rules {
			all = append(all, p.checkRule(g, pkg, r)...)
		}
	}
	return append(all, p.checkRequires(g)...)
}

// checkFloors looks at what pkg imports of ours.
func (p *Policy) checkFloors(g *Graph, pkg *Package) []Violation {
	from, ok := p.roomOf(pkg)
	if !ok {
		return []Violation{{pkg.Path, "stands on no floor of floors.txt"}}
	}
	var all []Violation
	for _, path := range pkg.Imports {
		imported := g.Packages[path]
		if imported == nil || !imported.Ours {
			continue
		}
		to, ok := p.roomOf(imported)
		if !ok || from.mayImport(to) {
			continue // without a room it is reported on its own account
		}
		all = append(all, Violation{g.where(pkg, path), fmt.Sprintf("%s (%s) imports %s (%s): %s",
			p.short(pkg.Path), from.name(), p.short(path), to.name(), from.direction(to))})
	}
	return all
}

func (r room) mayImport(to room) bool {
	switch {
	case r.pattern == to.pattern || r.free:
		return true
	case to.free:
		return false
	case r.floor == to.floor:
		return r.step > to.step
	default:
		return r.floor > to.floor
	}
}

func (r room) name() string {
	if r.free {
		return "free"
	}
	return fmt.Sprintf("floor %d", r.floor)
}

// direction says in which forbidden direction an import goes.
func (r room) direction(to room) string {
	switch {
	case to.free:
		return "product code imports no tests and tools"
	case r.floor == to.floor:
		return "imports never go sideways"
	default:
		return "imports never go up"
	}
}

// checkModule looks at what pkg and its tests import of other modules: in a
// workspace an import resolves even when no go.mod requires its module.
func (p *Policy) checkModule(g *Graph, pkg *Package) []Violation {
	var all []Violation
	for _, path := range slices.Concat(pkg.Imports, pkg.TestImports) {
		imported := g.Packages[path]
		if imported == nil || !imported.Ours || imported.Module == pkg.Module ||
			slices.Contains(p.modules[pkg.Module], imported.Module) {
			continue
		}
		all = append(all, Violation{g.where(pkg, path), fmt.Sprintf("module %s may not use module %s",
			p.short(pkg.Module), p.short(imported.Module))})
	}
	return all
}

// checkRequires looks at the go.mod files.
func (p *Policy) checkRequires(g *Graph) []Violation {
	var all []Violation
	for _, module := range slices.Sorted(maps.Keys(g.Requires)) {
		allowed, known := p.modules[module]
		if !known {
			all = append(all, Violation{module, "stands in no module line of floors.txt"})
			continue
		}
		for _, other := range g.Requires[module] {
			if strings.HasPrefix(other, p.prefix+"/") && !slices.Contains(allowed, other) {
				all = append(all, Violation{module, "its go.mod may not require " + p.short(other)})
			}
		}
	}
	return all
}

func (p *Policy) checkRule(g *Graph, pkg *Package, r rule) []Violation {
	applies := matchAny(r.who, pkg)
	switch r.kind {
	case onlyImport:
		if here, ok := p.roomOf(pkg); applies || ok && here.free {
			return nil
		}
		return p.directly(g, pkg, r)
	case reachNo:
		if !applies {
			return nil
		}
		return p.reached(g, pkg, r, func(q *Package) bool { return matchAny(r.what, q) })
	default:
		if !applies {
			return nil
		}
		return p.reached(g, pkg, r, func(q *Package) bool { return !q.Ours && !matchAny(r.what, q) })
	}
}

func (p *Policy) directly(g *Graph, pkg *Package, r rule) []Violation {
	var all []Violation
	for _, path := range pkg.Imports {
		if q := g.Packages[path]; q != nil && matchAny(r.what, q) {
			all = append(all, Violation{g.where(pkg, path), fmt.Sprintf("%s imports %s, against: %s",
				p.short(pkg.Path), path, r.text)})
		}
	}
	return all
}

// reached returns at most one violation: the shortest way from pkg to a
// forbidden package.
func (p *Policy) reached(g *Graph, pkg *Package, r rule, forbidden func(*Package) bool) []Violation {
	cameFrom := map[string]string{pkg.Path: ""}
	for queue := []string{pkg.Path}; len(queue) > 0; queue = queue[1:] {
		q := g.Packages[queue[0]]
		if q == nil || matchAny(r.through, q) {
			continue
		}
		if q != pkg && forbidden(q) {
			way := wayTo(cameFrom, q.Path)
			for i := range way {
				way[i] = p.short(way[i])
			}
			return []Violation{{g.where(pkg, wayTo(cameFrom, q.Path)[1]),
				fmt.Sprintf("%s, against: %s", strings.Join(way, " → "), r.text)}}
		}
		for _, next := range q.Imports {
			if _, seen := cameFrom[next]; !seen {
				cameFrom[next] = q.Path
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// wayTo returns the path of imports from the start of a search to path.
func wayTo(cameFrom map[string]string, path string) []string {
	var way []string
	for ; path != ""; path = cameFrom[path] {
		way = append(way, path)
	}
	slices.Reverse(way)
	return way
}

// short drops the prefix from a path of ours.
func (p *Policy) short(path string) string { return strings.TrimPrefix(path, p.prefix+"/") }
