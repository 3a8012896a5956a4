package authority

import (
	"slices"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// permissionAccountSettings is what the management of an account, its members
// and its resources needs.
const permissionAccountSettings = "account.settings.write"

// mayAdminister says whether the principal may manage the account itself, its
// members and its resources.
func (r *rules) mayAdminister(v *view, p *principal, account token.ID, now time.Time) bool {
	return r.holds(v, p, permissionAccountSettings, account, now)
}

// checkRoles says whether a membership can have these roles.
func (r *rules) checkRoles(roles []string) error {
	if len(roles) == 0 || len(roles) > rolesMax {
		return fault.New(fault.InvalidRoles).WithPointer("/roles").WithDetail("1 to %d roles", rolesMax)
	}
	for i, s := range roles {
		if _, known := r.catalogue.RoleNumber(s); !known || slices.Contains(roles[:i], s) {
			return fault.New(fault.InvalidRoles).WithPointer(fault.Pointer("/roles").Index(i))
		}
	}
	return nil
}

// mayGiveRoles says whether the principal holds all that the roles give, so
// that they may give them to others or take them away: operators by their
// office, members by their own roles. Who comes by a token holds only what that
// token does, which no role is compared with.
func (r *rules) mayGiveRoles(v *view, p *principal, account token.ID, roles []string) error {
	if p.operates() {
		return nil
	}
	if p.user != nil && (p.token == nil || p.token.Widens) {
		m, ok := v.member(account, p.user.ID)
		if ok && !slices.ContainsFunc(roles, func(role string) bool { return !r.rolesHold(m.Roles, role) }) {
			return nil
		}
	}
	return fault.New(fault.RoleNotHeld).WithPointer("/roles")
}

// rolesHold says whether the roles of one member hold all that another role
// does, now and in catalogues to come. A role that this catalogue has dropped
// holds nothing.
func (r *rules) rolesHold(roles []string, role string) bool {
	if slices.Contains(roles, role) {
		return true
	}
	var mine []catalogue.RoleNumber
	most := ""
	for _, name := range roles {
		n, ok := r.catalogue.RoleNumber(name)
		if !ok {
			continue
		}
		mine = append(mine, n)
		if has, _ := r.catalogue.RoleAt(n); has.All == catalogue.AllEverything || most == "" {
			most = has.All
		}
	}
	n, ok := r.catalogue.RoleNumber(role)
	if !ok {
		return true
	}
	if wants, _ := r.catalogue.RoleAt(n); wants.All != "" && wants.All != most && most != catalogue.AllEverything {
		return false
	}
	return r.catalogue.RoleWithin(n, mine)
}

// lastAdministrator says whether nobody else is a Super Administrator of the
// member's account.
func (v *view) lastAdministrator(m *aggregate.Member) bool {
	if !slices.Contains(m.Roles, SuperAdministrator) {
		return false
	}
	return !slices.ContainsFunc(v.members(m.Account), func(other *aggregate.Member) bool {
		u, ok := v.user(other.User)
		return other.ID != m.ID && slices.Contains(other.Roles, SuperAdministrator) && ok && u.Status == aggregate.Active
	})
}

func (r *rules) addMember(v *view, p *principal, c *command.AddMember, now time.Time) (outcome, error) {
	if _, err := r.subjectAccount(v, p, c.Account, now); err != nil {
		return outcome{}, err
	}
	if c.ID.IsZero() {
		return outcome{}, fault.InvalidField
	}
	if err := r.checkRoles(c.Roles); err != nil {
		return outcome{}, err
	}
	if err := r.mayGiveRoles(v, p, c.Account, c.Roles); err != nil {
		return outcome{}, err
	}
	if u, ok := v.user(c.User); !ok || u.Status != aggregate.Active {
		return outcome{}, fault.UserNotFound
	}
	if m, ok := v.member(c.Account, c.User); ok {
		if m.ID == c.ID && slices.Equal(m.Roles, c.Roles) {
			return outcome{member: c.ID}, nil
		}
		return outcome{}, fault.Conflict
	}
	if _, used := v.memberByID(c.ID); used {
		return outcome{}, fault.Conflict
	}
	return outcome{member: c.ID, draft: r.draft(p, "member", c.ID, c.Account, now, &events.MemberAdded{
		Account: c.Account, User: c.User, Roles: c.Roles, Origin: p.caller.Origin,
	})}, nil
}

// subjectMember returns the present membership that a command is about.
func (r *rules) subjectMember(v *view, p *principal, id, account token.ID, now time.Time) (*aggregate.Member, error) {
	if _, err := r.subjectAccount(v, p, account, now); err != nil {
		return nil, err
	}
	m, ok := v.memberByID(id)
	if !ok || m.Account != account || m.Status != aggregate.Active {
		return nil, fault.MemberNotFound
	}
	if u, ok := v.user(m.User); !ok || u.Status != aggregate.Active {
		return nil, fault.MemberNotFound // it has ended with its user
	}
	return m, nil
}

// changeMember replaces a member's roles. Neither the roles that they get nor
// those that they had may hold more than the principal does.
func (r *rules) changeMember(v *view, p *principal, c *command.ChangeMember, now time.Time) (outcome, error) {
	m, err := r.subjectMember(v, p, c.ID, c.Account, now)
	if err != nil {
		return outcome{}, err
	}
	if err := r.checkRoles(c.Roles); err != nil {
		return outcome{}, err
	}
	if slices.Equal(m.Roles, c.Roles) {
		return outcome{member: c.ID}, nil
	}
	if err := r.mayGiveRoles(v, p, c.Account, slices.Concat(m.Roles, c.Roles)); err != nil {
		return outcome{}, err
	}
	if !p.operates() && !slices.Contains(c.Roles, SuperAdministrator) && v.lastAdministrator(m) {
		return outcome{}, fault.LastAdministrator
	}
	return outcome{member: c.ID, draft: r.draft(p, "member", c.ID, c.Account, now, &events.MemberChanged{
		Account: m.Account, User: m.User, Roles: c.Roles, Origin: p.caller.Origin,
	})}, nil
}

func (r *rules) removeMember(v *view, p *principal, c *command.RemoveMember, now time.Time) (outcome, error) {
	m, err := r.subjectMember(v, p, c.ID, c.Account, now)
	if err != nil {
		return outcome{}, err
	}
	if !p.is(m.User) {
		if err := r.mayGiveRoles(v, p, c.Account, m.Roles); err != nil {
			return outcome{}, err
		}
	}
	if !p.operates() && v.lastAdministrator(m) {
		return outcome{}, fault.LastAdministrator
	}
	return outcome{member: c.ID, draft: r.draft(p, "member", c.ID, c.Account, now, &events.MemberRemoved{
		Account: m.Account, User: m.User, Origin: p.caller.Origin,
	})}, nil
}
