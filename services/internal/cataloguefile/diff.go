package cataloguefile

import (
	"fmt"
	"slices"
	"strings"

	"watchword.dev/events/catalogue"
)

// Kinds of things that a change is about.
const (
	KindType       = "resource type"
	KindPermission = "permission"
	KindGroup      = "permission group"
	KindRole       = "role"
	KindTemplate   = "template"
)

// Change is one difference between two catalogues, in words.
type Change struct {
	Kind string `json:"kind"`
	ID   string `json:"id"` // a name for what has no other id
	Name string `json:"name,omitzero"`
	What string `json:"change"`
	// Narrows says that whoever uses it may do less afterwards.
	Narrows bool `json:"narrows,omitzero"`
}

// String returns the change as one line.
func (c Change) String() string {
	name := c.ID
	if c.Name != "" && c.Name != c.ID {
		name = fmt.Sprintf("%s (%s)", c.Name, c.ID)
	}
	return fmt.Sprintf("%s %s %s", c.Kind, name, c.What)
}

// Diff says what changes when next replaces old.
func Diff(old, next catalogue.Document) []Change {
	d := &differ{}
	compare(d, KindType, old.ResourceTypes, next.ResourceTypes, func(t catalogue.ResourceType) (string, string) { return t.Name, "" }, nil)
	compare(d, KindPermission, old.Permissions, next.Permissions, func(p catalogue.Permission) (string, string) { return p.Name, "" }, d.permission)
	compare(d, KindGroup, old.Groups, next.Groups, func(g catalogue.Group) (string, string) { return g.ID, g.Name }, d.group)
	compare(d, KindRole, old.Roles, next.Roles, func(r catalogue.Role) (string, string) { return r.Name, "" }, d.role)
	compare(d, KindTemplate, old.Templates, next.Templates, func(t catalogue.Template) (string, string) { return t.ID, t.Name }, d.template)
	return d.changes
}

type differ struct{ changes []Change }

// compare adds the changes of one list: what is dropped and what is new, and,
// by the function changed, what is in both.
func compare[T any](d *differ, kind string, old, next []T, of func(T) (id, name string), changed func(c Change, a, b T)) {
	before := make(map[string]T, len(old))
	for _, e := range old {
		id, _ := of(e)
		before[id] = e
	}
	for _, e := range next {
		id, name := of(e)
		c := Change{Kind: kind, ID: id, Name: name}
		was, ok := before[id]
		delete(before, id)
		switch {
		case !ok:
			d.add(c, false, "is new")
		case changed != nil:
			changed(c, was, e)
		}
	}
	for _, e := range old {
		id, name := of(e)
		if _, gone := before[id]; gone {
			d.add(Change{Kind: kind, ID: id, Name: name}, kind != KindTemplate, "is dropped")
		}
	}
}

func (d *differ) add(c Change, narrows bool, format string, args ...any) {
	c.What, c.Narrows = fmt.Sprintf(format, args...), narrows
	d.changes = append(d.changes, c)
}

func (d *differ) permission(c Change, a, b catalogue.Permission) {
	if a.Class != b.Class {
		d.add(c, false, "has the class %v instead of %v", b.Class, a.Class)
	}
}

func (d *differ) group(c Change, a, b catalogue.Group) {
	if a.Name != b.Name {
		d.add(c, false, "was named %q", a.Name)
	}
	d.lists(c, a.Permissions, b.Permissions, "the permission")
	d.lists(c, a.Scopes, b.Scopes, "the scope")
	if a.Description != b.Description || a.Category != b.Category {
		d.add(c, false, "is described in other words")
	}
}

func (d *differ) role(c Change, a, b catalogue.Role) {
	if a.All != b.All {
		d.add(c, b.All != catalogue.AllEverything, "holds %s instead of %s", allWords(b.All), allWords(a.All))
	}
	d.lists(c, a.Groups, b.Groups, "the permission group")
	if a.Description != b.Description {
		d.add(c, false, "is described in other words")
	}
}

func allWords(all string) string {
	switch all {
	case catalogue.AllEverything:
		return "everything"
	case catalogue.AllRead:
		return "all that is read"
	}
	return "only what it lists"
}

// lists adds what an entry loses and gains.
func (d *differ) lists(c Change, a, b []string, what string) {
	without := func(from, those []string) string {
		left := slices.DeleteFunc(slices.Clone(from), func(s string) bool { return slices.Contains(those, s) })
		return strings.Join(left, ", ")
	}
	if lost := without(a, b); lost != "" {
		d.add(c, true, "loses %s %s", what, lost)
	}
	if won := without(b, a); won != "" {
		d.add(c, false, "gains %s %s", what, won)
	}
}

func (d *differ) template(c Change, a, b catalogue.Template) {
	if fmt.Sprintf("%+v", a) != fmt.Sprintf("%+v", b) {
		d.add(c, false, "changes; tokens made of it stay as they are")
	}
}

// Narrowed are the ids of what a catalogue takes something away from, by kind.
type Narrowed map[string]map[string]bool

// NarrowedBy returns what the changes narrow.
func NarrowedBy(changes []Change) Narrowed {
	n := Narrowed{}
	for _, c := range changes {
		if !c.Narrows {
			continue
		}
		if n[c.Kind] == nil {
			n[c.Kind] = map[string]bool{}
		}
		n[c.Kind][c.ID] = true
	}
	return n
}
