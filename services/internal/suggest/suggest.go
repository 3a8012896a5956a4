// Package suggest finds the narrowest grant that covers what a credential was
// used for.
package suggest

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

// accountType is the type of accounts, which every catalogue has.
const accountType = "com.cloudflare.api.account"

// mostResources is how many resources are named before all of their type take
// their place: nobody reads a longer list.
const mostResources = 200

// Use is something that a credential was used for.
type Use struct {
	Permission string
	Type       string // of the resource
	ID         string // of the resource; empty for one that is not known
	// Account is where the resource lies; zero where that is not known.
	Account token.ID
}

// Policies returns policies that allow all uses, and the uses for which the
// catalogue has no group or that name no resource. For each resource the groups
// are those with the fewest permissions that were not used; resources that were
// used alike share a policy. The policies have no ids, and an order that depends
// on nothing but what was used.
func Policies(cat *catalogue.Catalogue, uses []Use) (policies []token.Policy, left []Use) {
	wanted := map[place]map[string]bool{}
	for _, u := range uses {
		at, ok := placeOf(cat, u)
		if !ok || !coverable(cat, at.kind, u.Permission) {
			left = append(left, u)
			continue
		}
		if wanted[at] == nil {
			wanted[at] = map[string]bool{}
		}
		wanted[at][u.Permission] = true
	}
	shared := map[share][]place{}
	for at, permissions := range wanted {
		if within(wanted, at) {
			continue
		}
		key := share{at.kind, at.account, at.id == "", strings.Join(slices.Sorted(maps.Keys(permissions)), " ")}
		if at.id != "" {
			key.account = token.ID{}
		}
		shared[key] = append(shared[key], at)
	}
	for _, key := range slices.SortedFunc(maps.Keys(shared), share.compare) {
		p := token.Policy{Effect: token.EffectAllow}
		for _, g := range cover(cat, key.kind, strings.Fields(key.permissions)) {
			p.Groups = append(p.Groups, token.GroupRef{ID: g})
		}
		for _, resources := range selectors(cat, shared[key]) {
			q := p
			q.Resources, _ = json.Marshal(resources, json.Deterministic(true)) // maps of strings always can
			policies = append(policies, q)
		}
	}
	return policies, left
}

// place is a resource, or all of a type, in an account where that is known.
type place struct {
	kind    catalogue.TypeNumber
	id      string
	account token.ID
}

// share is what resources have in common that share a policy.
type share struct {
	kind        catalogue.TypeNumber
	account     token.ID // of places without an id
	all         bool
	permissions string
}

func (a share) compare(b share) int {
	all := func(s share) int {
		if s.all {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(all(a), all(b)), a.account.Compare(b.account), cmp.Compare(a.permissions, b.permissions))
}

func placeOf(cat *catalogue.Catalogue, u Use) (place, bool) {
	kind, ok := cat.TypeNumber(u.Type)
	if !ok {
		return place{}, false
	}
	at := place{kind, u.ID, u.Account}
	if u.Type == accountType && at.id == "" && !at.account.IsZero() {
		at.id = at.account.String()
	}
	return at, true
}

// within reports whether all of the type, there or everywhere, are wanted for
// the same permissions and more.
func within(wanted map[place]map[string]bool, at place) bool {
	if at.id == "" && at.account.IsZero() {
		return false
	}
	for _, wider := range []place{{kind: at.kind, account: at.account}, {kind: at.kind}} {
		if permissions, ok := wanted[wider]; ok && wider != at && includes(permissions, wanted[at]) {
			return true
		}
	}
	return false
}

func includes(all, some map[string]bool) bool {
	for p := range some {
		if !all[p] {
			return false
		}
	}
	return true
}

// selectors returns the resources of policies that select the places: all that
// have an id in one, and one for each account of which all are meant.
func selectors(cat *catalogue.Catalogue, places []place) (all []map[string]any) {
	named, accounts := map[string]any{}, map[token.ID]bool{}
	for _, at := range places {
		if accounts[at.account] = true; at.id != "" {
			named[cat.TypeName(at.kind)+"."+at.id] = "*"
		}
	}
	if len(named) > 0 && len(named) <= mostResources {
		return append(all, named)
	}
	every := cat.TypeName(places[0].kind) + ".*"
	outer, _ := cat.TypeNumber(accountType)
	if accounts[token.ID{}] || !cat.Below(places[0].kind, outer) {
		return append(all, map[string]any{every: "*"})
	}
	for _, id := range slices.SortedFunc(maps.Keys(accounts), token.ID.Compare) {
		all = append(all, map[string]any{accountType + "." + id.String(): map[string]string{every: "*"}})
	}
	return all
}

func coverable(cat *catalogue.Catalogue, kind catalogue.TypeNumber, permission string) bool {
	return slices.ContainsFunc(cat.Groups(), func(g catalogue.Group) bool {
		return applies(cat, g, kind) && slices.Contains(g.Permissions, permission)
	})
}

func applies(cat *catalogue.Catalogue, g catalogue.Group, kind catalogue.TypeNumber) bool {
	return slices.Contains(g.Scopes, cat.TypeName(kind))
}

// cover returns the ids of groups that apply to a type and together have all
// permissions: at each step the one with the fewest that are not wanted, and of
// those the one with the most that are.
func cover(cat *catalogue.Catalogue, kind catalogue.TypeNumber, permissions []string) []string {
	open := map[string]bool{}
	for _, p := range permissions {
		open[p] = true
	}
	var chosen []catalogue.Group
	for len(open) > 0 {
		var best catalogue.Group
		bestExtra, bestNew := 0, 0
		for _, g := range cat.Groups() {
			if !applies(cat, g, kind) {
				continue
			}
			extra, fresh := 0, 0
			for _, p := range g.Permissions {
				switch {
				case open[p]:
					fresh++
				case !slices.Contains(permissions, p):
					extra++
				}
			}
			if fresh > 0 && (bestNew == 0 || extra < bestExtra || extra == bestExtra && fresh > bestNew) {
				best, bestExtra, bestNew = g, extra, fresh
			}
		}
		if bestNew == 0 {
			break // the caller has seen to it that this does not happen
		}
		for _, p := range best.Permissions {
			delete(open, p)
		}
		chosen = append(chosen, best)
	}
	return needed(chosen, permissions)
}

// needed leaves out the groups without which the others have all permissions:
// a later one may have made an earlier one needless.
func needed(groups []catalogue.Group, permissions []string) (ids []string) {
	for i := 0; i < len(groups); {
		others := slices.Delete(slices.Clone(groups), i, i+1)
		if slices.ContainsFunc(permissions, func(p string) bool {
			return !slices.ContainsFunc(others, func(g catalogue.Group) bool { return slices.Contains(g.Permissions, p) })
		}) {
			i++
			continue
		}
		groups = others
	}
	for _, g := range groups {
		ids = append(ids, g.ID)
	}
	slices.Sort(ids)
	return ids
}
