package catalogue

import (
	"errors"
	"fmt"
	"slices"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxDocument is how many bytes a document may have. It is published as one
// event and has to fit into one commit.
const MaxDocument = 768 << 10

// Document is a catalogue as people write it and as an event holds it: its
// JSON is the one form of both. The zero value stands for what every catalogue
// has: the resource types, permission groups and roles on which the management
// API itself rests.
type Document struct {
	// Name is for people: whose catalogue this is.
	Name          string         `json:"name,omitzero"`
	ResourceTypes []ResourceType `json:"resource_types,omitzero"`
	Permissions   []Permission   `json:"permissions,omitzero"`
	Groups        []Group        `json:"permission_groups,omitzero"`
	Roles         []Role         `json:"roles,omitzero"`
	Templates     []Template     `json:"templates,omitzero"`
	// Numbers is written by Catalogue.Document and not by people.
	Numbers Numbers `json:"numbers,omitzero"`
}

// Numbers lists, in the order of their numbers, all that the catalogue and
// those before it had behind the built-in one. With it a document alone is
// enough to number everything as the whole history does.
type Numbers struct {
	ResourceTypes []ResourceType `json:"resource_types,omitzero"`
	Permissions   []string       `json:"permissions,omitzero"`
	Groups        []string       `json:"permission_groups,omitzero"`
	Roles         []string       `json:"roles,omitzero"`
}

// IsZero reports whether there is nothing behind the built-in catalogue.
func (n Numbers) IsZero() bool {
	return len(n.ResourceTypes)+len(n.Permissions)+len(n.Groups)+len(n.Roles) == 0
}

// Problem is what is wrong with a document.
type Problem struct {
	// Pointer is the place in the document's JSON.
	Pointer jsontext.Pointer
	Text    string
}

// Error returns the text; the place is for whoever knows the lines.
func (p *Problem) Error() string { return "catalogue: " + p.Text }

func problem(pointer, format string, args ...any) error {
	return &Problem{Pointer: jsontext.Pointer(pointer), Text: fmt.Sprintf(format, args...)}
}

// ParseDocument reads the JSON of a document. It refuses unknown members,
// members twice, wrong types and what is too large, each with a *Problem, but
// does not look at what the members say: FromDocument does.
func ParseDocument(raw []byte) (Document, error) {
	if len(raw) > MaxDocument {
		return Document{}, problem("", "the document has more than %d bytes", MaxDocument)
	}
	var d Document
	err := json.Unmarshal(raw, &d, json.RejectUnknownMembers(true))
	if err == nil {
		return d, nil
	}
	if p, ok := errors.AsType[*Problem](err); ok {
		return Document{}, p
	}
	if s, ok := errors.AsType[*json.SemanticError](err); ok {
		return Document{}, &Problem{Pointer: s.JSONPointer, Text: semanticText(s)}
	}
	if s, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return Document{}, &Problem{Pointer: s.JSONPointer, Text: s.Err.Error()}
	}
	return Document{}, &Problem{Text: err.Error()}
}

// semanticText says in a document's words what does not fit.
func semanticText(s *json.SemanticError) string {
	name := s.JSONPointer.LastToken()
	switch {
	case errors.Is(s.Err, json.ErrUnknownName):
		return fmt.Sprintf("unknown key %q", clip(name))
	case s.Err != nil && s.GoType != nil && s.GoType.Name() == "Class":
		return "class must be read, write or admin"
	case s.Err != nil:
		return s.Err.Error()
	}
	return fmt.Sprintf("%q cannot be a JSON %v", clip(name), s.JSONKind)
}

// FromDocument builds the catalogue of a document, which replaces prev and
// keeps its numbers. Where prev is nil the document follows the built-in
// catalogue, and its own Numbers, if any, say what came between the two. What
// is wrong with it is a *Problem.
//
// The resource types of users and accounts, the permission groups of the
// management API and the built-in roles are part of every catalogue. A
// document may list them, but only as they are.
func FromDocument(prev *Catalogue, raw []byte) (*Catalogue, error) {
	d, err := ParseDocument(raw)
	if err != nil {
		return nil, err
	}
	if prev == nil {
		if prev, err = Cloudflare().reserve(&d.Numbers); err != nil {
			return nil, err
		}
	}
	if err := d.addManaged(); err != nil {
		return nil, err
	}
	return build(prev, &d)
}

// Document returns the catalogue's own document, the built-in parts and the
// numbers included.
func (c *Catalogue) Document() Document {
	d := Document{
		Name: c.name, ResourceTypes: c.Types(), Permissions: c.Permissions(), Groups: c.Groups(),
		Roles: c.Roles(), Templates: c.Templates(),
	}
	first := Cloudflare()
	if c.Lineage(len(first.groups), len(first.types)) != first.Lineage(len(first.groups), len(first.types)) {
		return d // a catalogue of its own, which no document can follow
	}
	for _, t := range c.types[len(first.types):] {
		d.Numbers.ResourceTypes = append(d.Numbers.ResourceTypes, t.ResourceType)
	}
	for _, p := range c.perms[len(first.perms):] {
		d.Numbers.Permissions = append(d.Numbers.Permissions, p.Name)
	}
	for _, g := range c.groups[len(first.groups):] {
		d.Numbers.Groups = append(d.Numbers.Groups, g.ID)
	}
	for _, r := range c.roles[len(first.roles):] {
		d.Numbers.Roles = append(d.Numbers.Roles, r.Name)
	}
	return d
}

// reserve returns c with what the numbers list behind it, all of it dropped.
// The result is good for nothing but to be extended.
func (c *Catalogue) reserve(n *Numbers) (*Catalogue, error) {
	r := &Catalogue{
		types: slices.Clone(c.types), perms: slices.Clone(c.perms), groups: slices.Clone(c.groups), roles: slices.Clone(c.roles),
	}
	if len(r.types)+len(n.ResourceTypes) > MaxTypes || len(r.perms)+len(n.Permissions) > MaxPermissions ||
		len(r.groups)+len(n.Groups) > MaxGroups || len(r.roles)+len(n.Roles) > MaxRoles {
		return nil, problem("/numbers", "more numbers than a catalogue has")
	}
	seen := map[string]bool{}
	fresh := func(kind, name string, valid, known bool) bool {
		key := kind + " " + name
		ok := valid && !known && !seen[key]
		seen[key] = true
		return ok
	}
	for _, t := range n.ResourceTypes {
		_, known := c.typeByName[t.Name]
		if !fresh("type", t.Name, validTypeName(t.Name), known) {
			return nil, problem("/numbers/resource_types", "%q cannot have a number", clip(t.Name))
		}
		r.types = append(r.types, typeEntry{ResourceType: t})
	}
	for _, name := range n.Permissions {
		_, known := c.permByName[name]
		if !fresh("permission", name, validPermissionName(name), known) {
			return nil, problem("/numbers/permissions", "%q cannot have a number", clip(name))
		}
		r.perms = append(r.perms, permEntry{Permission: Permission{Name: name}})
	}
	for _, id := range n.Groups {
		_, known := c.groupByID[id]
		if !fresh("group", id, validGroupID(id), known) {
			return nil, problem("/numbers/permission_groups", "%q cannot have a number", clip(id))
		}
		r.groups = append(r.groups, groupEntry{Group: Group{ID: id}})
	}
	for _, name := range n.Roles {
		_, known := c.roleByName[name]
		if !fresh("role", name, validRoleName(name), known) {
			return nil, problem("/numbers/roles", "%q cannot have a number", clip(name))
		}
		r.roles = append(r.roles, roleEntry{Role: Role{Name: name}})
	}
	return r, nil
}
