package authority

import (
	"fmt"
	"slices"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// mayWiden says whether the principal may make a token that gives more than it
// holds itself: users by their key, or by a token that is such a one. An
// account's token holds nothing beside its grant and never is.
func (p *principal) mayWiden(kind events.OwnerKind) bool {
	return kind == events.OwnedByUser && p.user != nil && (p.token == nil || p.token.Widens)
}

// mayGrant says whether the principal holds all that the grant gives, so that
// it may go to a token of this owner. Nobody grants what they do not hold:
//
//   - of an account, and of what is registered in it, members hold what their
//     roles there do;
//   - of all accounts, or all zones, users hold what their roles in every one
//     of their accounts do;
//   - of users, everybody holds everything about themselves;
//   - a resource that nobody has registered is the operators', but for accounts
//     and users: those are made here;
//   - an account's token is for that account alone, with all that lies in it;
//   - whoever comes by a token grants at most that token's own grant, unless
//     it was made to give more.
//
// What others hold and what is not there is refused alike.
func (r *rules) mayGrant(v *view, p *principal, kind events.OwnerKind, owner token.ID, g token.Grant, now time.Time) error {
	roles := map[token.ID][]catalogue.RoleNumber{}
	for i := range g.Policies {
		if g.Policies[i].Effect != token.EffectAllow {
			continue
		}
		matchers, err := token.ParseResources(g.Policies[i].Resources, r.catalogue)
		if err != nil {
			return command.GrantFault(err, r.catalogue)
		}
		for _, m := range matchers {
			accounts, ok := r.reach(v, p, kind, owner, m)
			if j, held := r.holdsGroups(v, p, g.Policies[i].Groups, m, accounts, roles, now); !ok || !held {
				return command.GrantFault(&token.GrantError{
					Kind: token.NotHeld, Pointer: fmt.Sprintf("/policies/%d/permission_groups/%d", i, j), Group: g.Policies[i].Groups[j].ID,
					Text: "the caller does not hold this permission group on all of these resources",
				}, r.catalogue)
			}
		}
	}
	return r.within(p, g, now)
}

// within says whether the grant is within that of the token by which the
// principal comes, if by one that must not give more.
func (r *rules) within(p *principal, g token.Grant, now time.Time) error {
	if p.token == nil || p.token.Widens && p.user != nil {
		return nil
	}
	parent := p.token.Grant
	if !now.Before(parent.NotBefore) {
		parent.NotBefore = time.Time{} // it has passed
	}
	if err := token.Covers(parent, g, r.catalogue); err != nil {
		return command.GrantFault(err, r.catalogue)
	}
	return nil
}

// holdsGroups says whether the principal is somebody in each of the accounts
// and holds there each of the groups that applies to what m matches; else it
// returns the place of one that they do not hold. An account's token is in its
// own account only, and what it holds there is for within to say.
func (r *rules) holdsGroups(v *view, p *principal, groups []token.GroupRef, m token.Matcher, accounts []token.ID, known map[token.ID][]catalogue.RoleNumber, now time.Time) (int, bool) {
	applies := func(ref token.GroupRef) bool {
		n, ok := r.catalogue.GroupNumber(ref.ID)
		return ok && r.catalogue.Scopes(n)&(1<<m.Inner.Type) != 0
	}
	first := max(slices.IndexFunc(groups, applies), 0)
	for _, account := range accounts {
		if p.user == nil {
			if p.home() != account {
				return first, false
			}
			continue
		}
		roles, ok := known[account]
		if !ok {
			roles = r.rolesFor(v, p, account, now)
			known[account] = roles
		}
		if len(roles) == 0 {
			return first, false
		}
		for j, ref := range groups {
			if applies(ref) && !r.rolesHoldGroup(roles, ref.ID) {
				return j, false
			}
		}
	}
	return first, true
}

// home is the account that the principal is, or by whose token it comes.
func (p *principal) home() token.ID {
	if p.token != nil {
		return p.token.Owner
	}
	return p.account
}

// rolesHoldGroup says whether some roles together hold all that a group does.
func (r *rules) rolesHoldGroup(roles []catalogue.RoleNumber, id string) bool {
	g, ok := r.catalogue.Group(id)
	return ok && !slices.ContainsFunc(g.Permissions, func(name string) bool { return !r.anyHolds(roles, name) })
}

func (r *rules) anyHolds(roles []catalogue.RoleNumber, permission string) bool {
	p := r.catalogue.Permission(permission)
	return slices.ContainsFunc(roles, func(n catalogue.RoleNumber) bool { return r.catalogue.RoleHolds(n, p) })
}

// rolesFor is rolesOf for what a principal may do there by the credential that
// they came by: by an API key nothing, once keys have ended in the account. An
// operator's is not bound by that, so that somebody can undo it.
func (r *rules) rolesFor(v *view, p *principal, account token.ID, now time.Time) []catalogue.RoleNumber {
	roles := r.rolesOf(v, p.user, account)
	if len(roles) == 0 || p.token != nil || p.user.Operator {
		return roles
	}
	if a, ok := v.account(account); ok && a.Policy.KeysOver(now) {
		p.keyEnded = true
		return nil
	}
	return roles
}

// rolesOf returns the roles of the user's present membership in the account
// that the catalogue knows. Who or what has ended has none.
func (r *rules) rolesOf(v *view, user *aggregate.User, account token.ID) (roles []catalogue.RoleNumber) {
	m, ok := v.member(account, user.ID)
	if !ok || user.Status != aggregate.Active || !v.accountActive(account) {
		return nil
	}
	for _, name := range m.Roles {
		if n, ok := r.catalogue.RoleNumber(name); ok {
			roles = append(roles, n)
		}
	}
	return roles
}

// reach returns the accounts into which a matcher of a grant for this owner
// reaches, so that whoever gives it must hold it in each of them. It is false
// when they may not give it whatever they hold there.
func (r *rules) reach(v *view, p *principal, kind events.OwnerKind, owner token.ID, m token.Matcher) ([]token.ID, bool) {
	if !m.Nested {
		return r.reachOne(v, p, kind, owner, m.Inner)
	}
	accounts, ok := r.reachOne(v, p, kind, owner, m.Outer)
	if !ok || m.Inner.ID == "" {
		return accounts, ok
	}
	root, at := r.where(v, m.Inner.Key(r.catalogue))
	if at == unregistered && m.Outer.ID != "" {
		return accounts, true // it is there that it must lie, or nothing matches
	}
	inner, ok := r.reachPlace(p, kind, owner, m.Inner, root, at)
	return append(accounts, inner...), ok
}

// reachOne is about a selector that applies wherever its resources lie.
func (r *rules) reachOne(v *view, p *principal, kind events.OwnerKind, owner token.ID, s token.Selector) ([]token.ID, bool) {
	if s.ID != "" {
		root, at := r.where(v, s.Key(r.catalogue))
		return r.reachPlace(p, kind, owner, s, root, at)
	}
	if kind != events.OwnedByUser || p.user == nil || r.catalogue.TypeName(s.Type) == typeUser {
		return nil, false
	}
	if user, ok := r.catalogue.TypeNumber(typeUser); ok && r.catalogue.Below(s.Type, user) {
		return nil, true // they lie in the user themselves, or match nothing
	}
	var accounts []token.ID
	for _, m := range v.memberships(p.user.ID) {
		if v.accountActive(m.Account) {
			accounts = append(accounts, m.Account)
		}
	}
	return accounts, len(accounts) > 0
}

// reachPlace is about one resource, of which it is known where it lies.
func (r *rules) reachPlace(p *principal, kind events.OwnerKind, owner token.ID, s token.Selector, root token.ID, at place) ([]token.ID, bool) {
	switch at {
	case inAccount:
		return []token.ID{root}, kind == events.OwnedByUser || root == owner
	case inUser:
		return nil, kind == events.OwnedByUser && root == owner
	case unregistered:
		// Accounts and users are made here, so that one which is not known
		// is nobody's. An account's token gives what its own grant names.
		name := r.catalogue.TypeName(s.Type)
		return nil, name != typeAccount && name != typeUser && (p.user == nil || p.user.Operator)
	}
	return nil, false
}
