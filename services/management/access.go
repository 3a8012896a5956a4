package management

import (
	"slices"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
)

// SuperAdministrator is the role of those who may do everything in an account.
const SuperAdministrator = "Super Administrator"

// owner returns whose tokens the caller may read on a route, or the fault that
// refuses it. A stranger's account and one that does not exist are alike.
func (s *Service) owner(c *caller, of ownership, account token.ID) (directory.Owner, error) {
	if of.kind == events.OwnedByUser {
		if _, ok := c.byAccount(); ok || !c.may(readUserTokens, userType+c.user.ID.String()) {
			return directory.Owner{}, fault.New(fault.NotPermitted)
		}
		return directory.Owner{Kind: events.OwnedByUser, ID: c.user.ID}, nil
	}
	_, administers, err := s.account(c, account)
	if err != nil {
		return directory.Owner{}, err
	}
	if !administers || !c.may(readAccountTokens, accountType+account.String()) {
		return directory.Owner{}, fault.New(fault.NotPermitted)
	}
	return directory.Owner{Kind: events.OwnedByAccount, ID: account}, nil
}

// account returns an account that the caller belongs to, and whether they may
// administer it as far as their role goes. An account's own token is bounded
// by its grant alone.
func (s *Service) account(c *caller, id token.ID) (aggregate.Account, bool, error) {
	a, ok, err := s.Directory.Account(id)
	if err != nil {
		return a, false, err
	}
	if !ok || a.Status != aggregate.Active {
		return a, false, fault.New(fault.AccountNotFound)
	}
	if own, ok := c.byAccount(); ok {
		if own != id {
			return a, false, fault.New(fault.AccountNotFound)
		}
		return a, true, nil
	}
	m, ok, err := s.Directory.MemberOf(id, c.user.ID)
	if err != nil {
		return a, false, err
	}
	if !ok {
		return a, false, fault.New(fault.AccountNotFound)
	}
	if err := c.inAccount(&a); err != nil {
		return a, false, err
	}
	return a, slices.Contains(m.Roles, SuperAdministrator), nil
}

// visible returns the accounts that the caller may list, with the caller's
// memberships; an account's token has none. Accounts in which API keys have
// ended are not among those of who comes by one.
func (s *Service) visible(c *caller) ([]aggregate.Account, []aggregate.Member, error) {
	if own, ok := c.byAccount(); ok {
		a, _, err := s.account(c, own)
		return []aggregate.Account{a}, nil, err
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
