// Package floors checks who imports whom against a policy written as text:
// floors.txt, in the manner of Go's go/build/deps_test.go.
//
// Each package of the workspace stands on a floor and imports only what is
// below it. A line of the policy is one of these; an indented line continues
// the one before, and # begins a comment.
//
//	prefix watchword.dev              what the names below are relative to
//	module m requires a, b            what of ours the module may require, or "nothing"
//	4  a, b < c, d                    floor 4; c and d may import a and b
//	free a, b                         may import anything, imported only by their like
//	NAME = a, b                       a set, in capitals; STD is the standard library
//	! a, b reach no c, d              by no path of imports …
//	! a reach no c but through d      … that avoids d
//	! a reach only c, d               nothing foreign but these
//	! only a import c                 among the packages on floors
//
// "x/..." is x and everything below it: one room, whose packages import each
// other freely.
package floors

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

//go:embed floors.txt
var policyText string

// Policy is a parsed policy.
type Policy struct {
	prefix  string
	modules map[string][]string // full path → full paths that it may require
	rooms   []room
	sets    map[string][]pattern
	rules   []rule
}

// room is one named place: a package, or a folder of them.
type room struct {
	pattern pattern
	floor   int
	step    int // place within the floor: a higher step may import a lower one
	free    bool
}

// rule is one line that begins with "!".
type rule struct {
	text    string // as written, for messages
	kind    ruleKind
	who     []pattern
	what    []pattern
	through []pattern
}

type ruleKind int

const (
	reachNo ruleKind = iota
	reachOnly
	onlyImport
)

// pattern is an import path, or with deep also everything below it.
type pattern struct {
	path string
	deep bool
}

// std is the pattern of the standard library's packages, which no path has in
// common.
const std = "STD"

func (p pattern) matches(pkg *Package) bool {
	if p.path == std {
		return pkg.Standard
	}
	return pkg.Path == p.path || p.deep && strings.HasPrefix(pkg.Path, p.path+"/")
}

func matchAny(all []pattern, pkg *Package) bool {
	return slices.ContainsFunc(all, func(p pattern) bool { return p.matches(pkg) })
}

// Parse reads a policy.
func Parse(text string) (*Policy, error) {
	p := &Policy{modules: map[string][]string{}, sets: map[string][]pattern{std: {{path: std}}}}
	for _, l := range logicalLines(text) {
		if err := p.parseLine(l.text); err != nil {
			return nil, fmt.Errorf("line %d: %w", l.number, err)
		}
	}
	if p.prefix == "" {
		return nil, errors.New("no prefix line")
	}
	return p, nil
}

type line struct {
	number int
	text   string
}

// logicalLines drops comments and joins an indented line to the one before.
func logicalLines(text string) []line {
	var all []line
	for i, raw := range strings.Split(text, "\n") {
		raw, _, _ = strings.Cut(raw, "#")
		words := strings.Join(strings.Fields(raw), " ")
		switch {
		case words == "":
		case (raw[0] == ' ' || raw[0] == '\t') && len(all) > 0:
			all[len(all)-1].text += " " + words
		default:
			all = append(all, line{i + 1, words})
		}
	}
	return all
}

func (p *Policy) parseLine(text string) error {
	word, rest, _ := strings.Cut(text, " ")
	switch {
	case word == "prefix":
		p.prefix = rest
		return nil
	case p.prefix == "":
		return errors.New("the prefix must come first")
	case word == "module":
		return p.parseModule(rest)
	case word == "free":
		return p.addRooms(rest, room{free: true})
	case word == "!":
		return p.parseRule(rest)
	case strings.HasPrefix(rest, "= "):
		return p.parseSet(word, rest[2:])
	}
	floor, err := strconv.Atoi(word)
	if err != nil {
		return fmt.Errorf("%q begins no line of a policy", word)
	}
	return p.parseFloor(floor, rest)
}

func (p *Policy) parseModule(text string) error {
	name, list, ok := strings.Cut(text, " requires ")
	if !ok {
		return errors.New("a module line reads: module m requires a, b")
	}
	path := p.prefix + "/" + name
	if _, double := p.modules[path]; double {
		return fmt.Errorf("module %s stands twice", name)
	}
	p.modules[path] = nil
	if list == "nothing" {
		return nil
	}
	for _, other := range strings.Split(list, ", ") {
		full := p.prefix + "/" + other
		if _, known := p.modules[full]; !known {
			return fmt.Errorf("module %s requires %s, which stands in no line above", name, other)
		}
		p.modules[path] = append(p.modules[path], full)
	}
	return nil
}

func (p *Policy) parseFloor(floor int, text string) error {
	if slices.ContainsFunc(p.rooms, func(r room) bool { return !r.free && r.floor == floor }) {
		return fmt.Errorf("floor %d stands twice", floor)
	}
	for step, part := range strings.Split(text, " < ") {
		if err := p.addRooms(part, room{floor: floor, step: step}); err != nil {
			return err
		}
	}
	return nil
}

func (p *Policy) addRooms(list string, like room) error {
	patterns, err := p.patterns(list)
	if err != nil {
		return err
	}
	for _, pat := range patterns {
		if slices.ContainsFunc(p.rooms, func(r room) bool { return r.pattern.path == pat.path }) {
			return fmt.Errorf("%s stands twice", pat.path)
		}
		like.pattern = pat
		p.rooms = append(p.rooms, like)
	}
	return nil
}

func (p *Policy) parseSet(name, list string) error {
	if name != strings.ToUpper(name) {
		return fmt.Errorf("a set's name is in capitals, not %q", name)
	}
	if _, double := p.sets[name]; double {
		return fmt.Errorf("set %s stands twice", name)
	}
	patterns, err := p.patterns(list)
	p.sets[name] = patterns
	return err
}

func (p *Policy) parseRule(text string) error {
	r := rule{text: text}
	var who, what, through string
	if rest, ok := strings.CutPrefix(text, "only "); ok {
		r.kind = onlyImport
		who, what, ok = strings.Cut(rest, " import ")
		if !ok {
			return errors.New("reads: ! only a import b")
		}
	} else if w, rest, ok := strings.Cut(text, " reach no "); ok {
		r.kind, who = reachNo, w
		what, through, _ = strings.Cut(rest, " but through ")
	} else if w, rest, ok := strings.Cut(text, " reach only "); ok {
		r.kind, who, what = reachOnly, w, rest
	} else {
		return fmt.Errorf("%q is no rule", text)
	}
	var errs [3]error
	r.who, errs[0] = p.patterns(who)
	r.what, errs[1] = p.patterns(what)
	if through != "" {
		r.through, errs[2] = p.patterns(through)
	}
	p.rules = append(p.rules, r)
	return errors.Join(errs[:]...)
}

// patterns reads a comma-separated list of paths and set names.
func (p *Policy) patterns(list string) ([]pattern, error) {
	var all []pattern
	for _, name := range strings.Split(list, ", ") {
		if name == "" || strings.ContainsAny(name, " ,<!=") {
			return nil, fmt.Errorf("%q is no package in %q", name, list)
		}
		if name == strings.ToUpper(name) {
			set, ok := p.sets[name]
			if !ok {
				return nil, fmt.Errorf("no set %s above", name)
			}
			all = append(all, set...)
			continue
		}
		path, deep := strings.CutSuffix(name, "/...")
		all = append(all, pattern{p.full(path), deep})
	}
	return all, nil
}

// full returns the import path of a name: ours when it stands in the folder
// of a module of ours, else as it is.
func (p *Policy) full(name string) string {
	for module := range p.modules {
		ours := p.prefix + "/" + name
		if ours == module || strings.HasPrefix(ours, module+"/") {
			return ours
		}
	}
	return name
}

// roomOf returns the room of a package: the longest name that matches.
func (p *Policy) roomOf(pkg *Package) (room, bool) {
	var best room
	found := false
	for _, r := range p.rooms {
		if r.pattern.matches(pkg) && (!found || len(r.pattern.path) > len(best.pattern.path)) {
			best, found = r, true
		}
	}
	return best, found
}
