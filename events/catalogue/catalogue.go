// Package catalogue holds the permission catalogue: what kinds of resources
// exist, which permissions, and which permission groups bundle them.
//
// A Catalogue is immutable. Whoever serves decisions holds one snapshot and
// swaps it whole for the next version. Everything in it has a number, because
// compiled grants name groups and types by number and not by text; Extend
// makes a later version in which all the old numbers keep their meaning.
package catalogue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The most that one catalogue can hold. A group's scopes are one machine word,
// which is what makes MaxTypes the smallest.
const (
	MaxTypes       = 64
	MaxGroups      = 1 << 14
	MaxPermissions = 1 << 14
	maxName        = 128
	maxText        = 1000
)

// Class says how much harm a permission can do, and with it how old an answer
// about it may be. The zero value is no class at all and is never valid.
type Class uint8

// The classes, from the mildest to the strictest.
const (
	Read Class = iota + 1
	Write
	Admin
)

// String returns the class's name on the wire.
func (c Class) String() string {
	switch c {
	case Read:
		return "read"
	case Write:
		return "write"
	case Admin:
		return "admin"
	}
	return "invalid"
}

// MarshalText returns the class's name; an invalid class is an error.
func (c Class) MarshalText() ([]byte, error) {
	if c < Read || c > Admin {
		return nil, fmt.Errorf("catalogue: invalid class %d", uint8(c))
	}
	return []byte(c.String()), nil
}

// UnmarshalText accepts exactly the names that MarshalText returns.
func (c *Class) UnmarshalText(b []byte) error {
	for k := Read; k <= Admin; k++ {
		if string(b) == k.String() {
			*c = k
			return nil
		}
	}
	return errors.New("catalogue: class must be read, write or admin")
}

// Permission is one verb on one kind of thing, such as dns.records.write.
type Permission struct {
	Name  string `json:"name"`
	Class Class  `json:"class"`
}

// ResourceType is one kind of resource. Types form a forest: a zone lies in an
// account, an account in nothing, and then Parent is empty.
type ResourceType struct {
	Name   string `json:"name"`
	Parent string `json:"parent,omitzero"`
}

// Group is a named set of permissions, which is what a policy names. It
// applies only to resources whose type is among its Scopes.
type Group struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Description string   `json:"description,omitzero"`
	Category    string   `json:"category,omitzero"`
	Scopes      []string `json:"scopes"`
	Permissions []string `json:"permissions"`
}

// TypeNumber is the place of a resource type in a catalogue and in all the
// catalogues that extend it.
type TypeNumber uint8

// GroupNumber is the place of a group in a catalogue and in all the catalogues
// that extend it.
type GroupNumber uint16

// PermissionRef names one permission of one catalogue. The zero value names
// none, so that a failed look-up can be passed on and is still recognised.
type PermissionRef uint16

// Known reports whether the reference names a permission.
func (p PermissionRef) Known() bool { return p != 0 }

// Catalogue is an immutable set of resource types, permissions, groups, roles
// and templates.
// All methods are safe for concurrent use; those used at verification do not
// allocate.
type Catalogue struct {
	// By number. A group or type that a later version dropped keeps its place
	// with live == false.
	types  []typeEntry
	groups []groupEntry
	perms  []permEntry // perms[ref-1]
	roles  []roleEntry

	// By name, dropped entries included.
	typeByName map[string]TypeNumber
	groupByID  map[string]GroupNumber
	permByName map[string]PermissionRef
	roleByName map[string]RoleNumber

	// What this version lists, in order.
	listedTypes []TypeNumber
	listed      []GroupNumber // listing order
	listedRoles []RoleNumber
	templates   []Template
	name        string

	// chain[n] fingerprints the first n entries: see Lineage.
	typeChain  []uint64
	groupChain []uint64
}

type typeEntry struct {
	ResourceType
	live      bool
	ancestors uint64 // bit per type number
}

type groupEntry struct {
	Group
	live   bool
	scopes uint64   // bit per type number
	perms  []uint64 // bit per permission, ref-1
}

type permEntry struct {
	Permission
	live   bool
	groups []uint64 // bit per group number
}

// New builds a catalogue, numbering everything in the order given, and says
// what is wrong with it if it cannot.
func New(types []ResourceType, permissions []Permission, groups []Group) (*Catalogue, error) {
	return build(nil, &Document{ResourceTypes: types, Permissions: permissions, Groups: groups})
}

// Extend builds the catalogue that replaces c. What both have keeps its
// number; what is new is numbered behind all that c ever had; what is gone
// applies to nothing, but its number is never given to anything else. So a
// grant that was compiled for c means the same for the result.
func (c *Catalogue) Extend(types []ResourceType, permissions []Permission, groups []Group) (*Catalogue, error) {
	return build(c, &Document{ResourceTypes: types, Permissions: permissions, Groups: groups})
}

// Name says whose catalogue it is; it may be empty.
func (c *Catalogue) Name() string { return c.name }

// Types returns the resource types in the order given.
func (c *Catalogue) Types() []ResourceType {
	out := make([]ResourceType, 0, len(c.listedTypes))
	for _, n := range c.listedTypes {
		out = append(out, c.types[n].ResourceType)
	}
	return out
}

// Permissions returns the permissions in the order of their numbers.
func (c *Catalogue) Permissions() []Permission {
	out := make([]Permission, 0, len(c.perms))
	for i := range c.perms {
		if c.perms[i].live {
			out = append(out, c.perms[i].Permission)
		}
	}
	return out
}

// Groups returns the groups in listing order. The caller must not change the
// slices inside.
func (c *Catalogue) Groups() []Group { return c.Filter("", "") }

// Filter returns, in listing order, the groups that have exactly this name and
// this scope; an empty string leaves that test out. Names are not unique: the
// same name may stand for an account group and for a zone group.
func (c *Catalogue) Filter(name, scope string) []Group {
	out := make([]Group, 0, len(c.listed))
	for _, n := range c.listed {
		g := &c.groups[n]
		if name != "" && g.Name != name {
			continue
		}
		if scope != "" && !slices.Contains(g.Scopes, scope) {
			continue
		}
		out = append(out, g.Group)
	}
	return out
}

// Group returns the group with this id. The caller must not change the slices
// inside.
func (c *Catalogue) Group(id string) (Group, bool) {
	n, ok := c.GroupNumber(id)
	if !ok {
		return Group{}, false
	}
	return c.groups[n].Group, true
}

// GroupNumber returns the number of the group with this id.
func (c *Catalogue) GroupNumber(id string) (GroupNumber, bool) {
	n, ok := c.groupByID[id]
	return n, ok && c.groups[n].live
}

// FormerGroupNumber is GroupNumber that also knows the groups which this
// version has dropped: what a stored grant names was right when it was stored.
func (c *Catalogue) FormerGroupNumber(id string) (GroupNumber, bool) {
	n, ok := c.groupByID[id]
	return n, ok
}

// GroupAt returns the group with this number, unless there is none or this
// version has dropped it.
func (c *Catalogue) GroupAt(n GroupNumber) (Group, bool) {
	if int(n) >= len(c.groups) || !c.groups[n].live {
		return Group{}, false
	}
	return c.groups[n].Group, true
}

// GroupCount returns how many group numbers are in use, dropped groups
// included.
func (c *Catalogue) GroupCount() int { return len(c.groups) }

// Scopes returns the scopes of a group as one bit per type number; zero for a
// group that does not exist.
func (c *Catalogue) Scopes(n GroupNumber) uint64 {
	if int(n) >= len(c.groups) {
		return 0
	}
	return c.groups[n].scopes
}

// GroupPermissions returns the permissions of a group as a bit set, bit i for
// the PermissionRef i+1. The caller must not change it.
func (c *Catalogue) GroupPermissions(n GroupNumber) []uint64 {
	if int(n) >= len(c.groups) {
		return nil
	}
	return c.groups[n].perms
}

// Permission returns the reference of the permission with this name, or the
// zero reference.
func (c *Catalogue) Permission(name string) PermissionRef {
	p := c.permByName[name]
	if p == 0 || !c.perms[p-1].live {
		return 0
	}
	return p
}

// PermissionAt returns the permission that a reference names.
func (c *Catalogue) PermissionAt(p PermissionRef) (Permission, bool) {
	if p == 0 || int(p) > len(c.perms) || !c.perms[p-1].live {
		return Permission{}, false
	}
	return c.perms[p-1].Permission, true
}

// PermissionGroups returns the groups that contain a permission as a bit set
// by group number. The caller must not change it.
func (c *Catalogue) PermissionGroups(p PermissionRef) []uint64 {
	if p == 0 || int(p) > len(c.perms) {
		return nil
	}
	return c.perms[p-1].groups
}

// TypeNumber returns the number of the resource type with this name.
func (c *Catalogue) TypeNumber(name string) (TypeNumber, bool) {
	n, ok := c.typeByName[name]
	return n, ok && c.types[n].live
}

// FormerTypeNumber is TypeNumber that also knows the types which this version
// has dropped.
func (c *Catalogue) FormerTypeNumber(name string) (TypeNumber, bool) {
	n, ok := c.typeByName[name]
	return n, ok
}

// TypeCount returns how many type numbers are in use, dropped types included.
func (c *Catalogue) TypeCount() int { return len(c.types) }

// TypeName returns the name of the resource type with this number, or nothing
// if there is none or this version has dropped it.
func (c *Catalogue) TypeName(n TypeNumber) string {
	if int(n) >= len(c.types) || !c.types[n].live {
		return ""
	}
	return c.types[n].Name
}

// Below reports whether the type inner lies, at any depth, in the type outer.
func (c *Catalogue) Below(inner, outer TypeNumber) bool {
	if int(inner) >= len(c.types) || int(outer) >= len(c.types) {
		return false
	}
	return c.types[inner].ancestors&(1<<outer) != 0
}

// TypeOf splits a resource key such as com.cloudflare.api.account.zone.<id>
// into its type and its id.
//
// The rule is the longest known type name that the key starts with, then a
// dot, then an id. An id holds no dot, so the last dot decides.
func (c *Catalogue) TypeOf(key string) (t TypeNumber, id string, ok bool) {
	name, id, ok := SplitKey(key)
	if !ok {
		return 0, "", false
	}
	t, ok = c.TypeNumber(name)
	return t, id, ok
}

// SplitKey splits a resource key into a type's name, known or not, and an id.
func SplitKey(key string) (name, id string, ok bool) {
	dot := strings.LastIndexByte(key, '.')
	if dot < 0 || !ValidID(key[dot+1:]) {
		return "", "", false
	}
	return key[:dot], key[dot+1:], true
}

// MaxID is the longest id that a resource may have, in bytes.
const MaxID = 128

// ValidID reports whether s can be the id part of a resource key: 1 to MaxID
// characters of [A-Za-z0-9_-].
func ValidID(s string) bool {
	if len(s) == 0 || len(s) > MaxID {
		return false
	}
	var bad byte
	for i := range len(s) {
		bad |= notID[s[i]] // without a branch a character, which is faster
	}
	return bad == 0
}

// notID is 1 for every byte that an id may not have.
var notID = func() (t [256]byte) {
	for i := range t {
		t[i] = 1
	}
	for _, b := range []byte("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-") {
		t[b] = 0
	}
	return t
}()

// Lineage fingerprints the first groups and types of the catalogue, in the
// order of their numbers. A compiled grant carries the fingerprint of the
// catalogue that it was compiled for. A catalogue that gives another one for
// the same counts does not descend from it and must not read that grant's
// numbers. It returns zero, which no catalogue has, for counts out of range.
func (c *Catalogue) Lineage(groups, types int) uint64 {
	if groups < 0 || types < 0 || groups >= len(c.groupChain) || types >= len(c.typeChain) {
		return 0
	}
	return (c.groupChain[groups] ^ c.typeChain[types]) | 1
}
