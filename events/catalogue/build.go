package catalogue

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"
)

// build makes a catalogue that keeps every number of prev, which may be nil.
// What is wrong is a *Problem.
func build(prev *Catalogue, d *Document) (*Catalogue, error) {
	if !validText(d.Name, maxName) {
		return nil, problem("/name", "name must be at most %d bytes of printable text", maxName)
	}
	c := &Catalogue{
		name:       d.Name,
		typeByName: make(map[string]TypeNumber, len(d.ResourceTypes)),
		groupByID:  make(map[string]GroupNumber, len(d.Groups)),
		permByName: make(map[string]PermissionRef, len(d.Permissions)),
		roleByName: make(map[string]RoleNumber, len(d.Roles)+len(builtinRoles)),
	}
	old := prev
	if old == nil {
		old = &Catalogue{}
	}
	if err := c.addTypes(old, d.ResourceTypes); err != nil {
		return nil, err
	}
	if err := c.addPermissions(old, d.Permissions); err != nil {
		return nil, err
	}
	if err := c.addGroups(old, d.Groups); err != nil {
		return nil, err
	}
	if err := c.addRoles(old, d.Roles); err != nil {
		return nil, err
	}
	if err := c.addTemplates(d.Templates); err != nil {
		return nil, err
	}
	c.index()
	return c, nil
}

func (c *Catalogue) addTypes(old *Catalogue, types []ResourceType) error {
	c.types = slices.Clone(old.types)
	for i := range c.types {
		c.typeByName[c.types[i].Name] = TypeNumber(i)
		c.types[i].live, c.types[i].ancestors = false, 0
	}
	c.listedTypes = make([]TypeNumber, 0, len(types))
	for i, t := range types {
		if !validTypeName(t.Name) {
			return problem(place("resource_types", i, "name"), "resource type %q: name must be dotted words of lower-case letters, digits, _ and -", clip(t.Name))
		}
		n, known := c.typeByName[t.Name]
		if known && c.types[n].live {
			return problem(place("resource_types", i, "name"), "resource type %q is given twice", t.Name)
		}
		if known && c.types[n].Parent != t.Parent {
			// Grants and registered resources rest on the tree of types.
			return problem(place("resource_types", i, "parent"), "resource type %q: its parent was %q and cannot change", t.Name, c.types[n].Parent)
		}
		if !known {
			if len(c.types) == MaxTypes {
				return problem(place("resource_types", i, ""), "more than %d resource types, dropped ones included", MaxTypes)
			}
			n = TypeNumber(len(c.types))
			c.types = append(c.types, typeEntry{})
		}
		c.types[n] = typeEntry{ResourceType: t, live: true}
		c.typeByName[t.Name] = n
		c.listedTypes = append(c.listedTypes, n)
	}
	return c.climb()
}

// climb finds the ancestors of every type, and with them a missing parent and
// a type that lies in itself.
func (c *Catalogue) climb() error {
	for i, n := range c.listedTypes {
		for at := c.types[n].Parent; at != ""; {
			p, ok := c.TypeNumber(at)
			switch {
			case !ok:
				return problem(place("resource_types", i, "parent"), "resource type %q: unknown parent %q", c.types[n].Name, clip(at))
			case p == n || c.types[n].ancestors&(1<<p) != 0:
				return problem(place("resource_types", i, "parent"), "resource type %q lies in itself", c.types[n].Name)
			}
			c.types[n].ancestors |= 1 << p
			at = c.types[p].Parent
		}
	}
	return nil
}

func (c *Catalogue) addPermissions(old *Catalogue, permissions []Permission) error {
	c.perms = slices.Clone(old.perms)
	for i := range c.perms {
		c.permByName[c.perms[i].Name] = PermissionRef(i + 1)
		c.perms[i].live, c.perms[i].groups = false, nil
	}
	for i, p := range permissions {
		if !validPermissionName(p.Name) {
			return problem(place("permissions", i, "name"), "permission %q: name must be at least two dotted words of lower-case letters, digits and _", clip(p.Name))
		}
		if p.Class < Read || p.Class > Admin {
			return problem(place("permissions", i, "class"), "permission %q has no valid class", p.Name)
		}
		ref, known := c.permByName[p.Name]
		if known && c.perms[ref-1].live {
			return problem(place("permissions", i, "name"), "permission %q is given twice", p.Name)
		}
		if !known {
			if len(c.perms) == MaxPermissions {
				return problem(place("permissions", i, ""), "more than %d permissions, dropped ones included", MaxPermissions)
			}
			c.perms = append(c.perms, permEntry{})
			ref = PermissionRef(len(c.perms))
		}
		c.perms[ref-1] = permEntry{Permission: p, live: true}
		c.permByName[p.Name] = ref
	}
	return nil
}

func (c *Catalogue) addGroups(old *Catalogue, groups []Group) error {
	c.groups = slices.Clone(old.groups)
	for i := range c.groups {
		c.groupByID[c.groups[i].ID] = GroupNumber(i)
		c.groups[i].live, c.groups[i].scopes, c.groups[i].perms = false, 0, nil
	}
	for i, g := range groups {
		e, err := c.groupEntry(i, g)
		if err != nil {
			return err
		}
		n, known := c.groupByID[g.ID]
		if !known {
			if len(c.groups) == MaxGroups {
				return problem(place("permission_groups", i, ""), "more than %d groups, dropped ones included", MaxGroups)
			}
			n = GroupNumber(len(c.groups))
			c.groups = append(c.groups, groupEntry{})
		}
		c.groups[n] = e
		c.groupByID[g.ID] = n
		c.listed = append(c.listed, n)
	}
	return nil
}

// groupEntry checks one group and resolves its scopes and permissions.
func (c *Catalogue) groupEntry(i int, g Group) (groupEntry, error) {
	if err := checkGroupText(i, g); err != nil {
		return groupEntry{}, err
	}
	if _, dup := c.GroupNumber(g.ID); dup {
		return groupEntry{}, problem(place("permission_groups", i, "id"), "group %s is given twice", g.ID)
	}
	g.Scopes, g.Permissions = slices.Clone(g.Scopes), slices.Clone(g.Permissions)
	e := groupEntry{Group: g, live: true, perms: make([]uint64, (len(c.perms)+63)/64)}
	for k, s := range g.Scopes {
		t, ok := c.TypeNumber(s)
		if !ok {
			return groupEntry{}, problem(place("permission_groups", i, fmt.Sprintf("scopes/%d", k)), "group %s: unknown scope %q", g.ID, clip(s))
		}
		if e.scopes&(1<<t) != 0 {
			return groupEntry{}, problem(place("permission_groups", i, fmt.Sprintf("scopes/%d", k)), "group %s: scope %q is given twice", g.ID, s)
		}
		e.scopes |= 1 << t
	}
	for k, p := range g.Permissions {
		ref := c.Permission(p)
		if !ref.Known() {
			return groupEntry{}, problem(place("permission_groups", i, fmt.Sprintf("permissions/%d", k)), "group %s: unknown permission %q", g.ID, clip(p))
		}
		w, bit := int(ref-1)/64, uint64(1)<<((ref-1)%64)
		if e.perms[w]&bit != 0 {
			return groupEntry{}, problem(place("permission_groups", i, fmt.Sprintf("permissions/%d", k)), "group %s: permission %q is given twice", g.ID, p)
		}
		e.perms[w] |= bit
	}
	if e.scopes == 0 {
		return groupEntry{}, problem(place("permission_groups", i, "scopes"), "group %s has no scope", g.ID)
	}
	if len(g.Permissions) == 0 {
		return groupEntry{}, problem(place("permission_groups", i, "permissions"), "group %s has no permission", g.ID)
	}
	return e, nil
}

// index fills what is derived: the groups of each permission and the
// fingerprints.
func (c *Catalogue) index() {
	words := (len(c.groups) + 63) / 64
	for i := range c.perms {
		if c.perms[i].live {
			c.perms[i].groups = make([]uint64, words)
		}
	}
	for _, n := range c.listed {
		for _, p := range c.groups[n].Permissions {
			c.perms[c.permByName[p]-1].groups[n/64] |= 1 << (n % 64)
		}
	}
	c.groupChain = append(c.groupChain, 0)
	for i := range c.groups {
		c.groupChain = append(c.groupChain, link(c.groupChain[i], "group", c.groups[i].ID))
	}
	c.typeChain = append(c.typeChain, 0)
	for i := range c.types {
		c.typeChain = append(c.typeChain, link(c.typeChain[i], "type", c.types[i].Name))
	}
}

// link is one step of a fingerprint chain.
func link(before uint64, kind, name string) uint64 {
	b := binary.LittleEndian.AppendUint64(nil, before)
	b = append(append(append(b, kind...), 0), name...)
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:])
}

// place is the pointer to a member of an entry of a list; of the entry itself
// where member is empty.
func place(list string, i int, member string) string {
	if member == "" {
		return fmt.Sprintf("/%s/%d", list, i)
	}
	return fmt.Sprintf("/%s/%d/%s", list, i, member)
}

func checkGroupText(i int, g Group) error {
	if !validGroupID(g.ID) {
		return problem(place("permission_groups", i, "id"), "group id %q must be 32 lower-case hex digits", clip(g.ID))
	}
	if g.Name == "" || !validText(g.Name, maxName) {
		return problem(place("permission_groups", i, "name"), "group %s: name must be 1 to %d bytes of printable text", g.ID, maxName)
	}
	if !validText(g.Description, maxText) || !validText(g.Category, maxName) {
		return problem(place("permission_groups", i, "description"), "group %s: description and category must be short printable text", g.ID)
	}
	return nil
}

func validGroupID(s string) bool {
	if len(s) != 32 {
		return false
	}
	for i := range len(s) {
		if b := s[i]; (b < '0' || b > '9') && (b < 'a' || b > 'f') {
			return false
		}
	}
	return true
}

func validText(s string, most int) bool {
	if len(s) > most || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func validTypeName(s string) bool { return validDotted(s, true) && s != "" }

func validPermissionName(s string) bool {
	return validDotted(s, false) && slices.Contains([]byte(s), '.')
}

// validDotted reports whether s is words of [a-z0-9_] (and - where dash is
// set) joined by single dots.
func validDotted(s string, dash bool) bool {
	if len(s) > maxName {
		return false
	}
	last := byte('.')
	for i := range len(s) {
		b := s[i]
		switch {
		case b >= 'a' && b <= 'z', b >= '0' && b <= '9', b == '_', dash && b == '-':
		case b == '.' && last != '.':
		default:
			return false
		}
		last = b
	}
	return last != '.'
}

// clip keeps an error text short whatever was sent.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
