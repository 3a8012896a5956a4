package catalogue

import (
	"fmt"
	"slices"
)

// MaxRoles is how many roles a catalogue can number.
const MaxRoles = 1 << 10

// SuperAdministrator is the built-in role whose members hold everything in
// their account.
const SuperAdministrator = "Super Administrator"

// AdministratorReadOnly is the built-in role whose members hold every
// permission of class read in their account.
const AdministratorReadOnly = "Administrator Read Only"

// Role is what a membership gives a user in an account: the permissions of
// some groups, or all of a kind.
type Role struct {
	Name        string   `json:"name"`
	Description string   `json:"description,omitzero"`
	Groups      []string `json:"permission_groups,omitzero"`
	// All is empty, or "read" for every permission of class read, or
	// "everything". Permissions that a later catalogue adds are among them.
	All string `json:"all,omitzero"`
}

// The values of Role.All.
const (
	AllRead       = "read"
	AllEverything = "everything"
)

// RoleNumber is the place of a role in a catalogue and in all the catalogues
// that extend it.
type RoleNumber uint16

type roleEntry struct {
	Role
	live  bool
	perms []uint64 // bit per permission, ref-1
}

// builtinRoles are part of every catalogue, whatever it lists.
var builtinRoles = []Role{
	{Name: SuperAdministrator, Description: "Everything in the account.", All: AllEverything},
	{Name: AdministratorReadOnly, Description: "May see everything in the account.", All: AllRead},
}

// Roles returns the roles in listing order. The caller must not change the
// slices inside.
func (c *Catalogue) Roles() []Role {
	out := make([]Role, 0, len(c.listedRoles))
	for _, n := range c.listedRoles {
		out = append(out, c.roles[n].Role)
	}
	return out
}

// RoleNumber returns the number of the role with this name.
func (c *Catalogue) RoleNumber(name string) (RoleNumber, bool) {
	n, ok := c.roleByName[name]
	return n, ok && c.roles[n].live
}

// FormerRoleNumber is RoleNumber that also knows the roles which this version
// has dropped. They hold nothing.
func (c *Catalogue) FormerRoleNumber(name string) (RoleNumber, bool) {
	n, ok := c.roleByName[name]
	return n, ok
}

// RoleAt returns the role with this number, unless there is none or this
// version has dropped it.
func (c *Catalogue) RoleAt(n RoleNumber) (Role, bool) {
	if int(n) >= len(c.roles) || !c.roles[n].live {
		return Role{}, false
	}
	return c.roles[n].Role, true
}

// RoleHolds reports whether the role has the permission. It does not allocate.
func (c *Catalogue) RoleHolds(n RoleNumber, p PermissionRef) bool {
	if int(n) >= len(c.roles) || p == 0 {
		return false
	}
	w := int(p-1) / 64
	perms := c.roles[n].perms
	return w < len(perms) && perms[w]&(1<<((p-1)%64)) != 0
}

// RoleHoldsGroup reports whether the role has all permissions of the group,
// which must be one of this version. It does not allocate.
func (c *Catalogue) RoleHoldsGroup(n RoleNumber, g GroupNumber) bool {
	if int(n) >= len(c.roles) || !c.roles[n].live || int(g) >= len(c.groups) || !c.groups[g].live {
		return false
	}
	return covers(c.roles[n].perms, c.groups[g].perms)
}

// RoleWithin reports whether all that the role has is among what the others
// have together. It does not allocate.
func (c *Catalogue) RoleWithin(n RoleNumber, others []RoleNumber) bool {
	if int(n) >= len(c.roles) {
		return false
	}
	for w, need := range c.roles[n].perms {
		for _, o := range others {
			if int(o) < len(c.roles) && w < len(c.roles[o].perms) {
				need &^= c.roles[o].perms[w]
			}
		}
		if need != 0 {
			return false
		}
	}
	return true
}

// covers reports whether every bit of want is in have.
func covers(have, want []uint64) bool {
	for w, need := range want {
		if w < len(have) {
			need &^= have[w]
		}
		if need != 0 {
			return false
		}
	}
	return true
}

func (c *Catalogue) addRoles(old *Catalogue, roles []Role) error {
	c.roles = slices.Clone(old.roles)
	for i := range c.roles {
		c.roleByName[c.roles[i].Name] = RoleNumber(i)
		c.roles[i].live, c.roles[i].perms = false, nil
	}
	for i, r := range roles {
		if err := c.addRole(i, r); err != nil {
			return err
		}
	}
	for _, r := range builtinRoles {
		if _, listed := c.RoleNumber(r.Name); listed {
			continue
		}
		if err := c.addRole(len(roles), r); err != nil {
			return err
		}
	}
	return nil
}

func (c *Catalogue) addRole(i int, r Role) error {
	e, err := c.roleEntry(i, r)
	if err != nil {
		return err
	}
	n, known := c.roleByName[r.Name]
	if !known {
		if len(c.roles) == MaxRoles {
			return problem(place("roles", i, ""), "more than %d roles, dropped ones included", MaxRoles)
		}
		n = RoleNumber(len(c.roles))
		c.roles = append(c.roles, roleEntry{})
	}
	c.roles[n] = e
	c.roleByName[r.Name] = n
	c.listedRoles = append(c.listedRoles, n)
	return nil
}

// roleEntry checks one role and resolves what it has.
func (c *Catalogue) roleEntry(i int, r Role) (roleEntry, error) {
	if err := c.checkRole(i, r); err != nil {
		return roleEntry{}, err
	}
	r.Groups = slices.Clone(r.Groups)
	e := roleEntry{Role: r, live: true, perms: make([]uint64, (len(c.perms)+63)/64)}
	for k := range c.perms {
		if p := &c.perms[k]; p.live && (r.All == AllEverything || r.All == AllRead && p.Class == Read) {
			e.perms[k/64] |= 1 << (k % 64)
		}
	}
	for k, id := range r.Groups {
		g, ok := c.GroupNumber(id)
		if !ok {
			return roleEntry{}, problem(place("roles", i, fmt.Sprintf("permission_groups/%d", k)), "role %q: unknown permission group %q", r.Name, clip(id))
		}
		for w, bits := range c.groups[g].perms {
			e.perms[w] |= bits
		}
	}
	return e, nil
}

func (c *Catalogue) checkRole(i int, r Role) error {
	if !validRoleName(r.Name) {
		return problem(place("roles", i, "name"), "role name %q must be 1 to %d bytes of printable text", clip(r.Name), maxName)
	}
	if _, dup := c.RoleNumber(r.Name); dup {
		return problem(place("roles", i, "name"), "role %q is given twice", r.Name)
	}
	if !validText(r.Description, maxText) {
		return problem(place("roles", i, "description"), "role %q: description must be short printable text", r.Name)
	}
	if r.All != "" && r.All != AllRead && r.All != AllEverything {
		return problem(place("roles", i, "all"), "role %q: all must be read or everything", r.Name)
	}
	if r.All == "" && len(r.Groups) == 0 {
		return problem(place("roles", i, ""), "role %q holds nothing", r.Name)
	}
	for _, b := range builtinRoles {
		if r.Name == b.Name && (r.All != b.All || len(r.Groups) != 0) {
			return problem(place("roles", i, "all"), "role %q is part of every catalogue and holds all: %s", b.Name, b.All)
		}
	}
	return nil
}

func validRoleName(s string) bool { return s != "" && validText(s, maxName) }
