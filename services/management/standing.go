package management

import (
	"errors"
	"slices"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
)

// standing is what the caller is in an account.
type standing struct {
	account aggregate.Account
	// all is set for those whom no role bounds: operators, and the account's
	// own tokens, which are bounded by their grant.
	all   bool
	roles []catalogue.RoleNumber
}

func (st *standing) key() string { return accountType + st.account.ID.String() }

// standing returns what the caller is in an account. An account in which they
// are nothing and one that does not exist are alike.
func (s *Service) standing(c *caller, id token.ID) (*standing, error) {
	a, ok, err := s.Directory.Account(id)
	if err != nil {
		return nil, err
	}
	if !ok || a.Status != aggregate.Active {
		return nil, fault.New(fault.AccountNotFound)
	}
	c.about(id)
	if own, ok := c.byAccount(); ok || c.operator() {
		if ok && own != id {
			return nil, fault.New(fault.AccountNotFound)
		}
		c.announce(&a)
		return &standing{account: a, all: true}, nil
	}
	m, ok, err := s.Directory.MemberOf(id, c.user.ID)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fault.New(fault.AccountNotFound)
	}
	if err := c.inAccount(&a); err != nil {
		return nil, err
	}
	return &standing{account: a, roles: s.roles(&m)}, nil
}

// standings returns what the caller is in all accounts that they belong to.
func (s *Service) standings(c *caller) ([]*standing, error) {
	accounts, members, err := s.visible(c)
	if err != nil {
		return nil, err
	}
	all := make([]*standing, 0, len(accounts))
	for i := range accounts {
		st := &standing{account: accounts[i], all: members == nil || c.operator()}
		if members != nil {
			st.roles = s.roles(&members[i])
		}
		all = append(all, st)
	}
	return all, nil
}

func (s *Service) roles(m *aggregate.Member) []catalogue.RoleNumber {
	cat := s.Catalogue()
	var all []catalogue.RoleNumber
	for _, name := range m.Roles {
		if n, ok := cat.RoleNumber(name); ok {
			all = append(all, n)
		}
	}
	return all
}

// has reports whether the caller's place in the account gives a permission,
// whatever their credential allows of it.
func (s *Service) has(st *standing, permission string) bool {
	cat := s.Catalogue()
	p := cat.Permission(permission)
	return st.all || slices.ContainsFunc(st.roles, func(n catalogue.RoleNumber) bool { return cat.RoleHolds(n, p) })
}

// holds reports whether the caller may do something with an account, or with
// what lies in it along chain.
func (s *Service) holds(c *caller, st *standing, permission string, chain ...string) bool {
	return s.has(st, permission) && c.may(permission, append([]string{st.key()}, chain...)...)
}

// within returns what the caller is in an account in which they hold a
// permission.
func (s *Service) within(c *caller, id token.ID, permission string) (*standing, error) {
	st, err := s.standing(c, id)
	if err == nil && !s.holds(c, st, permission) {
		err = fault.New(fault.NotPermitted)
	}
	return st, err
}

// located is a registered resource and what it lies in.
type located struct {
	aggregate.Resource
	chain []string // keys, from below the account to the resource itself
	in    *standing
}

// locate finds a registered resource. One in an account where the caller is
// nothing, one that lies in something that has ended, and one that does not
// exist are alike. Operators find what lies nowhere any more, to move it.
func (s *Service) locate(c *caller, key string) (*located, error) {
	r, ok, err := s.Directory.Resource(key)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fault.New(fault.ResourceNotFound)
	}
	l := &located{Resource: r, chain: []string{key}}
	for at := r.Parent; len(l.chain) < token.MaxChain; {
		kind, id, ok := catalogue.SplitKey(at)
		if ok && kind+"." == accountType {
			if err := s.place(c, l, id); err != nil {
				return nil, err
			}
			return l, nil
		}
		up, ok, err := s.Directory.Resource(at)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		l.chain = slices.Insert(l.chain, 0, at)
		at = up.Parent
	}
	if c.operator() {
		l.in = &standing{all: true}
		return l, nil
	}
	return nil, fault.New(fault.ResourceNotFound)
}

// place says what the caller is in the account where a resource lies.
func (s *Service) place(c *caller, l *located, account string) error {
	id, err := token.ParseID(account)
	if err != nil {
		return fault.New(fault.ResourceNotFound)
	}
	l.in, err = s.standing(c, id)
	if !errors.Is(err, fault.AccountNotFound) {
		return err
	}
	if c.operator() && len(l.chain) > 0 {
		l.in = &standing{all: true}
		return nil
	}
	return fault.New(fault.ResourceNotFound)
}
