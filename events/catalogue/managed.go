package catalogue

import (
	"slices"
	"strings"
)

// The resource types that are part of every catalogue: owners of tokens.
const (
	TypeUser    = "com.cloudflare.api.user"
	TypeAccount = "com.cloudflare.api.account"
)

// Managed reports whether the permission is one of the management API itself,
// which every catalogue has.
func Managed(permission string) bool {
	return strings.HasPrefix(permission, "user.") || strings.HasPrefix(permission, "account.")
}

// managedGroup reports whether a group of the built-in catalogue is part of
// every catalogue: all that it holds is about users and accounts themselves.
func managedGroup(g *Group) bool {
	return !slices.ContainsFunc(g.Permissions, func(p string) bool { return !Managed(p) }) &&
		!slices.ContainsFunc(g.Scopes, func(s string) bool { return s != TypeUser && s != TypeAccount })
}

// addManaged puts what every catalogue has behind what the document lists, and
// refuses a document that lists it in another way.
func (d *Document) addManaged() error {
	first := Cloudflare()
	if err := d.addManagedTypes(first); err != nil {
		return err
	}
	return d.addManagedGroups(first)
}

func (d *Document) addManagedTypes(first *Catalogue) error {
	for _, name := range []string{TypeAccount, TypeUser} {
		at := slices.IndexFunc(d.ResourceTypes, func(t ResourceType) bool { return t.Name == name })
		if at < 0 {
			d.ResourceTypes = append(d.ResourceTypes, first.types[first.typeByName[name]].ResourceType)
		} else if d.ResourceTypes[at].Parent != "" {
			return problem(place("resource_types", at, "parent"), "resource type %q is part of every catalogue and lies in nothing", name)
		}
	}
	return nil
}

func (d *Document) addManagedGroups(first *Catalogue) error {
	perms := make(map[string]int, len(d.Permissions))
	for i, p := range d.Permissions {
		perms[p.Name] = i
	}
	groups := make(map[string]int, len(d.Groups))
	for i, g := range d.Groups {
		groups[g.ID] = i
	}
	for _, g := range first.Groups() {
		if !managedGroup(&g) {
			continue
		}
		for _, name := range g.Permissions {
			p := first.perms[first.permByName[name]-1].Permission
			i, listed := perms[name]
			if !listed {
				perms[name] = len(d.Permissions)
				d.Permissions = append(d.Permissions, p)
			} else if d.Permissions[i] != p {
				return problem(place("permissions", i, "class"), "permission %q is part of every catalogue and has the class %v", name, p.Class)
			}
		}
		i, listed := groups[g.ID]
		if !listed {
			d.Groups = append(d.Groups, g)
		} else if same := d.Groups[i]; same.Name != g.Name || !slices.Equal(same.Scopes, g.Scopes) || !slices.Equal(same.Permissions, g.Permissions) {
			return problem(place("permission_groups", i, "id"), "group %s is %q, which is part of every catalogue and can only be described in other words", g.ID, g.Name)
		}
	}
	return nil
}
