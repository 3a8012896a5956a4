package management

import (
	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
)

// owner returns whose tokens the caller may read on a route, or the fault that
// refuses it. A stranger's account and one that does not exist are alike.
func (s *Service) owner(c *caller, of ownership, account token.ID) (directory.Owner, error) {
	if of.kind == events.OwnedByUser {
		if _, ok := c.byAccount(); ok || !c.may(readUserTokens, userType+c.user.ID.String()) {
			return directory.Owner{}, fault.New(fault.NotPermitted)
		}
		return directory.Owner{Kind: events.OwnedByUser, ID: c.user.ID}, nil
	}
	st, err := s.belonging(c, account)
	if err != nil {
		return directory.Owner{}, err
	}
	if !s.holds(c, st, readAccountTokens) {
		return directory.Owner{}, fault.New(fault.NotPermitted)
	}
	return directory.Owner{Kind: events.OwnedByAccount, ID: account}, nil
}

// belonging returns what the caller is in an account that they belong to:
// operators, too, see the tokens of no other. An account's own token is bounded
// by its grant alone.
func (s *Service) belonging(c *caller, id token.ID) (*standing, error) {
	a, ok, err := s.Directory.Account(id)
	if err != nil {
		return nil, err
	}
	if !ok || a.Status != aggregate.Active {
		return nil, fault.New(fault.AccountNotFound)
	}
	if own, ok := c.byAccount(); ok {
		if own != id {
			return nil, fault.New(fault.AccountNotFound)
		}
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

// visible returns the accounts that the caller may list, with the caller's
// memberships; an account's token has none. Accounts in which API keys have
// ended are not among those of who comes by one.
func (s *Service) visible(c *caller) ([]aggregate.Account, []aggregate.Member, error) {
	if own, ok := c.byAccount(); ok {
		st, err := s.belonging(c, own)
		if err != nil {
			return nil, nil, err
		}
		return []aggregate.Account{st.account}, nil, nil
	}
	members, err := s.Directory.Memberships(c.user.ID)
	if err != nil {
		return nil, nil, err
	}
	accounts := make([]aggregate.Account, 0, len(members))
	kept := make([]aggregate.Member, 0, len(members))
	for _, m := range members {
		a, ok, err := s.Directory.Account(m.Account)
		if err != nil {
			return nil, nil, err
		}
		if ok && a.Status == aggregate.Active && !c.keyOver(&a) {
			accounts, kept = append(accounts, a), append(kept, m)
		}
	}
	return accounts, kept, nil
}
