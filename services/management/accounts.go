package management

import (
	"time"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// accountBody is an account as clients send it.
type accountBody struct {
	// ID is for imports, which must know an account again; only operators make
	// accounts.
	ID   string `json:"id"`
	Name string `json:"name"`
}

// chosen returns the id that a client has chosen for something new, or else the
// one that it gets.
func chosen(id string, otherwise token.ID) (token.ID, error) {
	if id == "" {
		return otherwise, nil
	}
	out, err := token.ParseID(id)
	if err != nil || out.IsZero() {
		return out, fault.New(fault.InvalidField).WithPointer("/id").WithDetail("32 lower-case hexadecimal digits")
	}
	return out, nil
}

// commander authenticates the sender of a change of the directory, at the head:
// what it is about is looked up before the command is sent.
func (s *Service) commander(x *web.Exchange) (*caller, error) { return s.reader(x) }

// operatorNow is commander for what is an operator's to do.
func (s *Service) operatorNow(x *web.Exchange) (*caller, error) {
	c, err := s.commander(x)
	if err == nil && !c.operator() {
		err = fault.New(fault.NotPermitted)
	}
	return c, err
}

// createAccount makes an account, which has no members yet.
func (s *Service) createAccount(x *web.Exchange) error {
	c, err := s.operatorNow(x)
	if err != nil {
		return err
	}
	raw, err := x.Body(web.MaxBody)
	if err != nil {
		return err
	}
	var b accountBody
	if err := x.DecodeBytes(raw, &b); err != nil {
		return err
	}
	if err := s.checkName(b.Name); err != nil {
		return err
	}
	id, again, err := s.newThing(x, c, "account", token.ID{}, raw)
	if err != nil {
		return err
	}
	if again && b.ID == "" {
		found, err := s.Directory.AllAccounts(directory.Listing{Name: b.Name, Page: 1, PerPage: directory.MaxPerPage})
		if err != nil {
			return err
		}
		for i := range found.Items {
			if s.lately(found.Items[i].Created) {
				return x.Result(accountAnswerOf(&found.Items[i]))
			}
		}
	}
	if id, err = chosen(b.ID, id); err != nil {
		return err
	}
	r, err := s.do(x, c, command.CreateAccount{ID: id, Name: b.Name})
	if err != nil {
		return err
	}
	return x.Result(accountAnswerOf(r.Account))
}

// accountOf returns the sender of a command about the account in the path.
func (s *Service) accountOf(x *web.Exchange) (*caller, *standing, error) {
	id, err := x.ID("account_id")
	if err != nil {
		return nil, nil, err
	}
	c, err := s.commander(x)
	if err != nil {
		return nil, nil, err
	}
	st, err := s.standing(c, id)
	return c, st, err
}

// updateAccount renames an account.
func (s *Service) updateAccount(x *web.Exchange) error {
	c, st, err := s.accountOf(x)
	if err != nil {
		return err
	}
	var b accountBody
	if err := x.Decode(&b); err != nil {
		return err
	}
	if err := s.checkName(b.Name); err != nil {
		return err
	}
	r, err := s.do(x, c, command.UpdateAccount{ID: st.account.ID, Name: b.Name})
	if err != nil {
		return err
	}
	return x.Result(accountAnswerOf(r.Account))
}

// removeAccount ends an account, with its tokens, memberships and resources.
func (s *Service) removeAccount(x *web.Exchange) error {
	c, st, err := s.accountOf(x)
	if err != nil {
		return err
	}
	reason, err := s.readReason(x)
	if err != nil {
		return err
	}
	if _, err := s.do(x, c, command.RemoveAccount{ID: st.account.ID, Reason: reason}); err != nil {
		return err
	}
	return x.Result(idAnswer{st.account.ID})
}

// policyForm is what holds for all tokens of an account, in both directions.
type policyForm struct {
	LifetimeSecondsMax int64  `json:"lifetime_seconds_max"`
	ExpiryRequired     bool   `json:"expiry_required"`
	AddressRequired    bool   `json:"address_required"`
	TokensMax          int32  `json:"tokens_max"`
	KeysEnd            string `json:"keys_end,omitempty"`
}

func policyFormOf(p aggregate.Policy) policyForm {
	return policyForm{p.LifetimeSecondsMax, p.ExpiryRequired, p.AddressRequired, p.TokensMax, seconds(p.KeysEnd)}
}

// getTokenPolicy answers with what holds for the tokens of an account.
func (s *Service) getTokenPolicy(x *web.Exchange) error {
	c, st, err := s.accountOf(x)
	if err != nil {
		return err
	}
	if !s.holds(c, st, readAccount) {
		return fault.New(fault.NotPermitted)
	}
	return x.Result(policyFormOf(st.account.Policy))
}

// putTokenPolicy replaces it. What the body leaves out is lifted.
func (s *Service) putTokenPolicy(x *web.Exchange) error {
	c, st, err := s.accountOf(x)
	if err != nil {
		return err
	}
	var b policyForm
	if err := x.Decode(&b); err != nil {
		return err
	}
	p, err := b.policy("")
	if err != nil {
		return err
	}
	r, err := s.do(x, c, command.ChangePolicy{Account: st.account.ID, Policy: p})
	if err != nil {
		return err
	}
	return x.Result(policyFormOf(r.Account.Policy))
}

// policy reads the form, which stands in the body at the pointer.
func (b *policyForm) policy(at fault.Pointer) (aggregate.Policy, error) {
	end, err := parseTime(b.KeysEnd, at+"/keys_end")
	switch {
	case err != nil:
		return aggregate.Policy{}, err
	case b.LifetimeSecondsMax < 0:
		return aggregate.Policy{}, fault.New(fault.InvalidField).WithPointer(at + "/lifetime_seconds_max")
	case b.TokensMax < 0:
		return aggregate.Policy{}, fault.New(fault.InvalidField).WithPointer(at + "/tokens_max")
	}
	return aggregate.Policy{
		LifetimeSecondsMax: b.LifetimeSecondsMax, ExpiryRequired: b.ExpiryRequired, AddressRequired: b.AddressRequired,
		TokensMax: b.TokensMax, KeysEnd: end.Truncate(time.Second),
	}, nil
}
