package token

import (
	"fmt"
	"slices"

	"watchword.dev/events/catalogue"
)

// Place says in which resource another one lies: the key of a zone's account.
// It returns false when it does not know or when nothing is around it.
type Place func(key string) (outer string, ok bool)

// Covers reports whether everything that child allows is allowed by parent
// too: nobody grants what they do not hold. The error is a *GrantError whose
// pointer is into child.
//
// It is careful and not clever: where it is not certain it refuses.
//   - Each permission group that child allows on some resource must be allowed
//     there by parent, by the same group or by one group with at least its
//     permissions.
//   - Each denial of parent must be in child as well, unless it is about
//     permissions that child does not allow. Resources do not help here: a
//     request may name two of one type in its chain.
//   - Child's validity and addresses must lie within parent's. A caller may
//     clear a NotBefore of parent that has passed.
//
// It knows nothing of where resources lie, so a zone is not covered by a
// policy about an account's zones: see CoversPlaced.
func Covers(parent, child Grant, cat *catalogue.Catalogue) error {
	return CoversPlaced(parent, child, cat, nil)
}

// CoversPlaced is Covers for a caller that knows where resources lie: a policy
// about the zones of an account then covers each zone in it. The result holds
// for requests whose chain names, in order, what the resource lies in.
func CoversPlaced(parent, child Grant, cat *catalogue.Catalogue, place Place) error {
	c, p := new(resolved), new(resolved)
	if err := c.resolve(child, cat, formatLimits, false); err != nil {
		return err
	}
	if err := p.resolve(parent, cat, formatLimits, true); err != nil {
		return &GrantError{Kind: NotHeld, Pointer: "/policies", Text: "the grantor's own grant cannot be read"}
	}
	if err := coversConditions(p, c); err != nil {
		return err
	}
	if err := coversAllows(p, c, cat, place); err != nil {
		return err
	}
	return coversDenials(p, c, cat, place)
}

// coversConditions compares validity and addresses.
func coversConditions(p, c *resolved) error {
	if p.notBefore != 0 && c.notBefore < p.notBefore {
		return &GrantError{Kind: NotHeld, Pointer: "/not_before", Text: "must not begin before the grantor's own validity"}
	}
	if p.expiresOn != 0 && (c.expiresOn == 0 || c.expiresOn > p.expiresOn) {
		return &GrantError{Kind: NotHeld, Pointer: "/expires_on", Text: "must not end after the grantor's own validity"}
	}
	if !p.restricted {
		return nil
	}
	refusal := &GrantError{Kind: NotHeld, Pointer: "/condition", Text: "must not allow addresses that the grantor may not use"}
	if !c.restricted {
		return refusal
	}
	held := p.addresses()
	for _, r := range c.addresses().Ranges() {
		if !held.ContainsRange(r) {
			return refusal
		}
	}
	return nil
}

func coversAllows(p, c *resolved, cat *catalogue.Catalogue, place Place) error {
	held := newHoldings(p, false, cat, place)
	for i := range c.policies {
		if c.policies[i].deny {
			continue
		}
		if j, ok := held.holdPolicy(&c.policies[i], nil); !ok {
			g, _ := cat.GroupAt(c.policies[i].groups[j])
			return &GrantError{
				Kind: NotHeld, Pointer: fmt.Sprintf("/policies/%d/permission_groups/%d", i, j), Group: g.ID,
				Text: "the grantor does not hold this permission group on all of these resources",
			}
		}
	}
	return nil
}

// coversDenials is coversAllows the other way round: what parent denies, child
// must deny.
func coversDenials(p, c *resolved, cat *catalogue.Catalogue, place Place) error {
	var allowed []uint64 // the permissions that child allows somewhere
	for i := range c.policies {
		if !c.policies[i].deny {
			for _, g := range c.policies[i].groups {
				allowed = union(allowed, cat.GroupPermissions(g))
			}
		}
	}
	denied := newHoldings(c, true, cat, place)
	for i := range p.policies {
		if !p.policies[i].deny {
			continue
		}
		if j, ok := denied.holdPolicy(&p.policies[i], allowed); !ok {
			g, _ := cat.GroupAt(p.policies[i].groups[j])
			return &GrantError{
				Kind: NotHeld, Pointer: "/policies", Group: g.ID,
				Text: "a policy that denies something to the grantor must be carried over",
			}
		}
	}
	return nil
}

// holdings are the (matcher, group) pairs of a grant's policies of one effect.
type holdings struct {
	cat    *catalogue.Catalogue
	place  Place
	groups map[Matcher][]uint64 // bit per group number
	larger map[scoped][]uint64
}

// scoped is a group on resources of one type.
type scoped struct {
	group catalogue.GroupNumber
	typ   catalogue.TypeNumber
}

func newHoldings(r *resolved, deny bool, cat *catalogue.Catalogue, place Place) *holdings {
	h := &holdings{cat: cat, place: place, groups: map[Matcher][]uint64{}, larger: map[scoped][]uint64{}}
	for i := range r.policies {
		if r.policies[i].deny != deny {
			continue
		}
		set := make([]uint64, (cat.GroupCount()+63)/64)
		for _, g := range r.policies[i].groups {
			set[g/64] |= 1 << (g % 64)
		}
		for _, m := range r.policies[i].matchers {
			h.groups[m] = union(h.groups[m], set)
		}
	}
	return h
}

// holdPolicy reports whether every group of p is held on every matcher of p
// that it applies to; else it returns the place of a group that is not. With
// only, groups that share no permission with it are left out.
func (h *holdings) holdPolicy(p *resolvedPolicy, only []uint64) (int, bool) {
	for _, m := range p.matchers {
		held := h.over(m)
		for j, g := range p.groups {
			if h.cat.Scopes(g)&(1<<m.Inner.Type) == 0 {
				continue // it applies to nothing here
			}
			if only != nil && !intersect(h.cat.GroupPermissions(g), only) {
				continue
			}
			if !slices.ContainsFunc(held, func(x heldOn) bool {
				return intersect(x.groups, h.largerGroups(scoped{g, x.typ}))
			}) {
				return j, false
			}
		}
	}
	return 0, true
}

// heldOn is a set of groups held on resources of one type.
type heldOn struct {
	typ    catalogue.TypeNumber
	groups []uint64
}

// over returns what is held on everything that m matches: the groups of each
// matcher that matches whenever m does.
func (h *holdings) over(m Matcher) []heldOn {
	var out []heldOn
	add := func(c Matcher) {
		if set, ok := h.groups[c]; ok {
			out = append(out, heldOn{c.Inner.Type, set})
		}
	}
	for _, path := range h.paths(m) {
		for i, inner := range path {
			for _, in := range widen(inner) {
				add(Matcher{Inner: in})
				for _, outer := range path[:i] {
					for _, o := range widen(outer) {
						add(Matcher{Nested: true, Outer: o, Inner: in})
					}
				}
			}
		}
	}
	return out
}

// widen returns the selectors that match whenever s does.
func widen(s Selector) []Selector {
	if s.ID == "" {
		return []Selector{s}
	}
	return []Selector{s, {Type: s.Type}}
}

// paths returns lists of selectors that, whenever m matches a chain, match
// elements of it in this order.
func (h *holdings) paths(m Matcher) [][]Selector {
	out := [][]Selector{append(h.around(m.Inner), m.Inner)}
	if m.Nested {
		out = append(out, append(h.around(m.Outer), m.Outer, m.Inner))
	}
	return out
}

// around returns what a resource lies in, outermost first.
func (h *holdings) around(s Selector) []Selector {
	var out []Selector
	for h.place != nil && s.ID != "" && len(out) < MaxChain {
		key, ok := h.place(s.Key(h.cat))
		if !ok {
			break
		}
		t, id, ok := h.cat.TypeOf(key)
		if !ok {
			break
		}
		s = Selector{Type: t, ID: id}
		out = append(out, s)
	}
	slices.Reverse(out)
	return out
}

// largerGroups returns the groups that apply to the type and have at least the
// permissions of the group.
func (h *holdings) largerGroups(s scoped) []uint64 {
	if set, ok := h.larger[s]; ok {
		return set
	}
	set := make([]uint64, (h.cat.GroupCount()+63)/64)
	need := h.cat.GroupPermissions(s.group)
	for n := range catalogue.GroupNumber(h.cat.GroupCount()) {
		if h.cat.Scopes(n)&(1<<s.typ) != 0 && contains(h.cat.GroupPermissions(n), need) {
			set[n/64] |= 1 << (n % 64)
		}
	}
	h.larger[s] = set
	return set
}

// union adds the bits of b to those of a, in a's memory if it is long enough.
func union(a, b []uint64) []uint64 {
	for len(a) < len(b) {
		a = append(a, 0)
	}
	for i := range b {
		a[i] |= b[i]
	}
	return a
}

func intersect(a, b []uint64) bool {
	for i := range min(len(a), len(b)) {
		if a[i]&b[i] != 0 {
			return true
		}
	}
	return false
}

// contains reports whether all bits of b are in a.
func contains(a, b []uint64) bool {
	for i := range b {
		var have uint64
		if i < len(a) {
			have = a[i]
		}
		if b[i]&^have != 0 {
			return false
		}
	}
	return true
}
