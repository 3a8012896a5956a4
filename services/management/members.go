package management

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// maxRoles is how many roles one membership may have.
const maxRoles = 50

// memberAnswer is a membership as Cloudflare's clients see it.
type memberAnswer struct {
	ID     token.ID     `json:"id"`
	Status string       `json:"status"`
	Email  string       `json:"email"`
	Roles  []roleAnswer `json:"roles"`
	User   memberUser   `json:"user"`
}

type memberUser struct {
	ID        token.ID `json:"id"`
	Email     string   `json:"email"`
	FirstName *string  `json:"first_name"`
	LastName  *string  `json:"last_name"`
	TwoFactor bool     `json:"two_factor_authentication_enabled"`
}

// roleAnswer is a role as Cloudflare's clients see it. Its id follows from its
// name, by which memberships know it.
type roleAnswer struct {
	ID          string         `json:"id"`
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Permissions jsontext.Value `json:"permissions"`
}

// rolePermission says what a role may do with one kind of thing. Cloudflare's
// older clients read edit, the newer ones write.
type rolePermission struct {
	Read  bool `json:"read"`
	Edit  bool `json:"edit"`
	Write bool `json:"write"`
}

// roleID is the id of a role: clients want 32 hexadecimal digits.
func roleID(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:16])
}

// roleAnswerOf returns a role of the catalogue. A role that the catalogue has
// dropped has no permissions.
func roleAnswerOf(cat *catalogue.Catalogue, name string) (roleAnswer, error) {
	a := roleAnswer{ID: roleID(name), Name: name}
	all := map[string]rolePermission{}
	if n, ok := cat.RoleNumber(name); ok {
		role, _ := cat.RoleAt(n)
		a.Description = role.Description
		for _, p := range cat.Permissions() {
			dot := strings.LastIndexByte(p.Name, '.')
			if dot < 0 || !cat.RoleHolds(n, cat.Permission(p.Name)) {
				continue
			}
			thing := all[p.Name[:dot]]
			thing.Read = thing.Read || p.Class == catalogue.Read
			thing.Write = thing.Write || p.Class != catalogue.Read
			thing.Edit = thing.Write
			all[p.Name[:dot]] = thing
		}
	}
	var err error
	a.Permissions, err = json.Marshal(all, json.Deterministic(true))
	return a, err
}

// memberAnswer returns a membership as clients see it; known are the roles that
// were written before.
func (s *Service) memberAnswer(ctx context.Context, m *aggregate.Member, known map[string]roleAnswer) (memberAnswer, error) {
	a := memberAnswer{ID: m.ID, Status: "accepted", Roles: make([]roleAnswer, 0, len(m.Roles)), User: memberUser{ID: m.User}}
	u, ok, err := s.Directory.User(m.User)
	if err != nil {
		return a, err
	}
	if ok {
		if a.Email, err = s.show(ctx, &u.Email); err != nil {
			return a, err
		}
		a.User.Email = a.Email
		name, err := s.show(ctx, u.Name)
		if err != nil {
			return a, err
		}
		if name != "" {
			a.User.FirstName = &name
		}
	}
	for _, name := range m.Roles {
		r, ok := known[name]
		if !ok {
			if r, err = roleAnswerOf(s.Catalogue(), name); err != nil {
				return a, err
			}
			known[name] = r
		}
		a.Roles = append(a.Roles, r)
	}
	return a, nil
}

// listMembers answers with one page of an account's members, or with the one
// who has an address.
func (s *Service) listMembers(x *web.Exchange) error {
	id, err := x.ID("account_id")
	if err != nil {
		return err
	}
	ask, err := page(x.Request().URL.Query())
	if err != nil {
		return err
	}
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	if _, err := s.within(c, id, readAccount); err != nil {
		return err
	}
	var found directory.Page[aggregate.Member]
	if email := x.Request().URL.Query().Get("email"); email != "" {
		found, err = s.memberByEmail(id, email, ask)
	} else {
		found, err = s.Directory.MembersPage(id, ask)
	}
	if err != nil {
		return err
	}
	all, known := make([]memberAnswer, 0, len(found.Items)), map[string]roleAnswer{}
	for i := range found.Items {
		a, err := s.memberAnswer(x.Context(), &found.Items[i], known)
		if err != nil {
			return err
		}
		all = append(all, a)
	}
	return x.List(all, pageInfo(ask.Page, ask.PerPage, len(all), int(found.Total)))
}

// memberByEmail is a page of the one member who has an address, if there is
// one.
func (s *Service) memberByEmail(account token.ID, email string, ask directory.Listing) (found directory.Page[aggregate.Member], _ error) {
	u, ok, err := s.Directory.UserByEmail(s.Sealer.EmailIndex(email))
	if err != nil || !ok {
		return found, err
	}
	m, ok, err := s.Directory.MemberOf(account, u.ID)
	if err == nil && ok {
		found.Items, found.Total = slicePage([]aggregate.Member{m}, ask.Page, ask.PerPage), 1
	}
	return found, err
}

// memberOf returns the membership that the path names.
func (s *Service) memberOf(x *web.Exchange) (*caller, *standing, aggregate.Member, error) {
	var m aggregate.Member
	id, err := x.ID("member_id")
	if err != nil {
		return nil, nil, m, err
	}
	c, st, err := s.accountOf(x)
	if err != nil {
		return nil, nil, m, err
	}
	m, ok, err := s.Directory.Member(id)
	if err == nil && (!ok || m.Account != st.account.ID || m.Status != aggregate.Active) {
		err = fault.New(fault.MemberNotFound)
	}
	return c, st, m, err
}

// getMember answers with one membership.
func (s *Service) getMember(x *web.Exchange) error {
	c, st, m, err := s.memberOf(x)
	if st != nil && !s.holds(c, st, readAccount) {
		return fault.New(fault.NotPermitted) // whether there is one or not
	}
	if err != nil {
		return err
	}
	return s.showMember(x, &m)
}

func (s *Service) showMember(x *web.Exchange, m *aggregate.Member) error {
	a, err := s.memberAnswer(x.Context(), m, map[string]roleAnswer{})
	if err != nil {
		return err
	}
	return x.Result(a)
}

// memberBody is a membership as clients send it. A role is its id, its name, or
// an object with the id.
type memberBody struct {
	ID    string           `json:"id"`
	Email string           `json:"email"`
	Roles []jsontext.Value `json:"roles"`
}

// rolesOf returns the names of the roles that a body asks for.
func (s *Service) rolesOf(b *memberBody) ([]string, error) {
	refs := make([]string, len(b.Roles))
	for i, v := range b.Roles {
		var err error
		if v.Kind() == jsontext.KindBeginObject {
			var o struct {
				ID string `json:"id"`
			}
			err = json.Unmarshal(v, &o)
			refs[i] = o.ID
		} else {
			err = json.Unmarshal(v, &refs[i])
		}
		if err != nil {
			return nil, fault.New(fault.InvalidRoles).WithPointer(fault.Pointer("/roles").Index(i))
		}
	}
	return s.roleNames(refs)
}

// roleNames returns the names of roles that are given by name or id.
func (s *Service) roleNames(refs []string) ([]string, error) {
	refused := fault.New(fault.InvalidRoles)
	if len(refs) == 0 || len(refs) > maxRoles {
		return nil, refused.WithPointer("/roles")
	}
	known := map[string]string{}
	for _, r := range s.Catalogue().Roles() {
		known[r.Name], known[roleID(r.Name)] = r.Name, r.Name
	}
	names := make([]string, 0, len(refs))
	for i, ref := range refs {
		name, ok := known[ref]
		if !ok {
			return nil, refused.WithPointer(fault.Pointer("/roles").Index(i))
		}
		names = append(names, name)
	}
	return names, nil
}

// givesRoles reports whether the caller may give anybody a role: no token holds
// one, but for one that may give more than it holds.
func (c *caller) givesRoles() bool {
	_, own := c.byAccount()
	return c.token == nil || !own && c.token.Widens
}

// addMember makes a user, whom their address names, a member of an account.
func (s *Service) addMember(x *web.Exchange) error {
	c, st, err := s.accountOf(x)
	if err != nil {
		return err
	}
	raw, err := x.Body(web.MaxBody)
	if err != nil {
		return err
	}
	var b memberBody
	if err := x.DecodeBytes(raw, &b); err != nil {
		return err
	}
	roles, err := s.rolesOf(&b)
	if err != nil {
		return err
	}
	if !web.ValidEmail(b.Email) {
		return fault.New(fault.InvalidField).WithPointer("/email")
	}
	// Who may not add members learns nothing of who has an address.
	if !s.holds(c, st, writeAccount) {
		return fault.New(fault.NotPermitted)
	}
	u, known, err := s.Directory.UserByEmail(s.Sealer.EmailIndex(b.Email))
	if err != nil {
		return err
	}
	if !known {
		u.ID = s.IDs.New() // nobody: the authority refuses first who may not give these roles
	}
	id, again, err := s.newThing(x, c, "member", st.account.ID, raw)
	if err != nil {
		return err
	}
	if again && b.ID == "" {
		m, ok, err := s.Directory.MemberOf(st.account.ID, u.ID)
		if err != nil {
			return err
		}
		if ok && slices.Equal(m.Roles, roles) && s.lately(m.Created) {
			return s.showMember(x, &m)
		}
	}
	if id, err = chosen(b.ID, id); err != nil {
		return err
	}
	r, err := s.do(x, c, command.AddMember{ID: id, Account: st.account.ID, User: u.ID, Roles: roles})
	if errors.Is(err, fault.UserNotFound) {
		return fault.New(fault.UserNotFound).WithPointer("/email")
	}
	if err != nil {
		return err
	}
	return s.showMember(x, r.Member)
}

// changeMember replaces a member's roles.
func (s *Service) changeMember(x *web.Exchange) error {
	c, st, m, err := s.memberOf(x)
	if err != nil {
		return err
	}
	var b memberBody
	if err := x.Decode(&b); err != nil {
		return err
	}
	roles, err := s.rolesOf(&b)
	if err != nil {
		return err
	}
	r, err := s.do(x, c, command.ChangeMember{ID: m.ID, Account: st.account.ID, Roles: roles})
	if err != nil {
		return err
	}
	return s.showMember(x, r.Member)
}

// removeMember ends a membership.
func (s *Service) removeMember(x *web.Exchange) error {
	c, st, m, err := s.memberOf(x)
	if err != nil {
		return err
	}
	if err := x.DecodeOptional(&struct{}{}); err != nil {
		return err
	}
	if _, err := s.do(x, c, command.RemoveMember{ID: m.ID, Account: st.account.ID}); err != nil {
		return err
	}
	return x.Result(idAnswer{m.ID})
}

// listRoles answers with the roles that a member can have, all in one page.
func (s *Service) listRoles(x *web.Exchange) error {
	ask, err := page(x.Request().URL.Query())
	if err != nil {
		return err
	}
	c, st, err := s.accountOf(x)
	if err != nil {
		return err
	}
	if !s.holds(c, st, readAccount) {
		return fault.New(fault.NotPermitted)
	}
	cat := s.Catalogue()
	roles := cat.Roles()
	some := slicePage(roles, ask.Page, ask.PerPage)
	all := make([]roleAnswer, 0, len(some))
	for _, r := range some {
		a, err := roleAnswerOf(cat, r.Name)
		if err != nil {
			return err
		}
		all = append(all, a)
	}
	return x.List(all, pageInfo(ask.Page, ask.PerPage, len(all), len(roles)))
}
