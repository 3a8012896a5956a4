package management

import (
	"context"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// personAnswer is a user as operators see them.
type personAnswer struct {
	ID         token.ID `json:"id"`
	Email      string   `json:"email"`
	Name       string   `json:"name"`
	Operator   bool     `json:"operator"`
	APIKey     bool     `json:"has_api_key"`
	CreatedOn  string   `json:"created_on"`
	ModifiedOn string   `json:"modified_on"`
}

func (s *Service) personAnswer(ctx context.Context, u *aggregate.User) (personAnswer, error) {
	a := personAnswer{ID: u.ID, Operator: u.Operator, APIKey: !u.Key.IsZero(), CreatedOn: seconds(u.Created), ModifiedOn: seconds(u.Modified)}
	var err error
	if a.Email, err = s.show(ctx, &u.Email); err != nil {
		return a, err
	}
	a.Name, err = s.show(ctx, u.Name)
	return a, err
}

func (s *Service) showPerson(x *web.Exchange, u *aggregate.User) error {
	a, err := s.personAnswer(x.Context(), u)
	if err != nil {
		return err
	}
	return x.Result(a)
}

// listUsers answers with one page of all users, or with the one who has an
// address.
func (s *Service) listUsers(x *web.Exchange) error {
	q := x.Request().URL.Query()
	ask, err := page(q)
	if err != nil {
		return err
	}
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	if !c.operator() {
		return fault.New(fault.NotPermitted)
	}
	var found directory.Page[aggregate.User]
	if email := q.Get("email"); email != "" {
		u, ok, err := s.Directory.UserByEmail(s.Sealer.EmailIndex(email))
		if err != nil {
			return err
		}
		if ok {
			found.Items, found.Total = slicePage([]aggregate.User{u}, ask.Page, ask.PerPage), 1
		}
	} else if found, err = s.Directory.AllUsers(ask); err != nil {
		return err
	}
	all := make([]personAnswer, 0, len(found.Items))
	for i := range found.Items {
		a, err := s.personAnswer(x.Context(), &found.Items[i])
		if err != nil {
			return err
		}
		all = append(all, a)
	}
	return x.List(all, pageInfo(ask.Page, ask.PerPage, len(all), int(found.Total)))
}

// userAt returns the user in the path: anybody for operators, and for others
// themselves alone.
func (s *Service) userAt(x *web.Exchange) (*caller, aggregate.User, error) {
	id, err := x.ID("user_id")
	if err != nil {
		return nil, aggregate.User{}, err
	}
	c, err := s.reader(x)
	if err != nil {
		return nil, aggregate.User{}, err
	}
	if !c.operator() && (c.user.ID != id || c.user.ID.IsZero()) {
		return nil, aggregate.User{}, fault.New(fault.UserNotFound)
	}
	u, ok, err := s.Directory.User(id)
	if err == nil && (!ok || u.Status != aggregate.Active) {
		err = fault.New(fault.UserNotFound)
	}
	return c, u, err
}

// getPerson answers with one user.
func (s *Service) getPerson(x *web.Exchange) error {
	c, u, err := s.userAt(x)
	if err != nil {
		return err
	}
	if !c.may(readUserDetails, userType+u.ID.String()) {
		return fault.New(fault.NotPermitted)
	}
	return s.showPerson(x, &u)
}

// personBody is a user as clients send them. Absent members stay as they are;
// an empty name is none.
type personBody struct {
	ID       string  `json:"id"`
	Email    *string `json:"email"`
	Name     *string `json:"name"`
	Operator bool    `json:"operator"`
}

// checkPerson refuses what no user can have.
func (s *Service) checkPerson(b *personBody) error {
	if b.Email != nil && (!web.ValidEmail(*b.Email) || web.HoldsSecret(s.Format, *b.Email)) {
		return fault.New(fault.InvalidField).WithPointer("/email")
	}
	if b.Name != nil && *b.Name != "" {
		return s.checkName(*b.Name)
	}
	return nil
}

// registerUser makes a person known. They have no key yet.
func (s *Service) registerUser(x *web.Exchange) error {
	c, err := s.operatorNow(x)
	if err != nil {
		return err
	}
	raw, err := x.Body(web.MaxBody)
	if err != nil {
		return err
	}
	var b personBody
	if err := x.DecodeBytes(raw, &b); err != nil {
		return err
	}
	if b.Email == nil {
		return fault.New(fault.InvalidField).WithPointer("/email")
	}
	if err := s.checkPerson(&b); err != nil {
		return err
	}
	id, again, err := s.newThing(x, c, "user", token.ID{}, raw)
	if err != nil {
		return err
	}
	if again && b.ID == "" {
		u, ok, err := s.Directory.UserByEmail(s.Sealer.EmailIndex(*b.Email))
		if err != nil {
			return err
		}
		if ok && u.Operator == b.Operator && s.lately(u.Created) {
			return s.showPerson(x, &u)
		}
	}
	if id, err = chosen(b.ID, id); err != nil {
		return err
	}
	name := ""
	if b.Name != nil {
		name = *b.Name
	}
	cmd, err := s.registration(x.Context(), id, *b.Email, name)
	if err != nil {
		return err
	}
	cmd.Operator = b.Operator
	r, err := s.do(x, c, cmd)
	if err != nil {
		return err
	}
	return s.showPerson(x, r.User)
}

// registration seals what is known of a new user; "" is no name.
func (s *Service) registration(ctx context.Context, id token.ID, email, name string) (cmd command.RegisterUser, err error) {
	sealed, err := s.seal(ctx, id, email)
	if err != nil {
		return cmd, err
	}
	cmd = command.RegisterUser{ID: id, Email: *sealed, EmailIndex: s.Sealer.EmailIndex(email)}
	if name != "" {
		cmd.Name, err = s.seal(ctx, id, name)
	}
	return cmd, err
}

// updatePerson changes a user's address or name.
func (s *Service) updatePerson(x *web.Exchange) error {
	c, u, err := s.userAt(x)
	if err != nil {
		return err
	}
	var b personBody
	if err := x.Decode(&b); err != nil {
		return err
	}
	if err := s.checkPerson(&b); err != nil {
		return err
	}
	now, err := s.personAnswer(x.Context(), &u)
	if err != nil {
		return err
	}
	cmd := command.UpdateUser{ID: u.ID}
	// What is as it was is not sealed anew, so that a repeat changes nothing.
	if b.Email != nil && *b.Email != now.Email {
		cmd.EmailIndex = s.Sealer.EmailIndex(*b.Email)
		if cmd.Email, err = s.seal(x.Context(), u.ID, *b.Email); err != nil {
			return err
		}
	}
	if b.Name != nil && *b.Name != now.Name {
		if cmd.NoName = *b.Name == ""; !cmd.NoName {
			if cmd.Name, err = s.seal(x.Context(), u.ID, *b.Name); err != nil {
				return err
			}
		}
	}
	r, err := s.do(x, c, cmd)
	if err != nil {
		return err
	}
	return s.showPerson(x, r.User)
}

// removePerson ends a user, with their tokens, key and memberships.
func (s *Service) removePerson(x *web.Exchange) error {
	c, u, err := s.userAt(x)
	if err != nil {
		return err
	}
	reason, err := s.readReason(x)
	if err != nil {
		return err
	}
	if _, err := s.do(x, c, command.RemoveUser{ID: u.ID, Reason: reason}); err != nil {
		return err
	}
	return x.Result(idAnswer{u.ID})
}

// keyAnswer shows a Global API Key, this once.
type keyAnswer struct {
	ID     token.ID `json:"id"` // of the user
	APIKey string   `json:"api_key"`
}

// issueKey gives a user a Global API Key, or another one.
func (s *Service) issueKey(x *web.Exchange) error {
	c, u, err := s.userAt(x)
	if err != nil {
		return err
	}
	return s.giveKey(x, c, u.ID)
}

// rollOwnKey replaces the caller's own key.
func (s *Service) rollOwnKey(x *web.Exchange) error {
	c, err := s.byOwnKey(x)
	if err != nil {
		return err
	}
	return s.giveKey(x, c, c.user.ID)
}

// byOwnKey authenticates somebody by their key: no token reaches it.
func (s *Service) byOwnKey(x *web.Exchange) (*caller, error) {
	c, err := s.commander(x)
	if err == nil && c.token != nil {
		err = fault.New(fault.NotPermitted)
	}
	return c, err
}

func (s *Service) giveKey(x *web.Exchange, c *caller, user token.ID) error {
	if c.token != nil {
		return fault.New(fault.NotPermitted)
	}
	if err := x.DecodeOptional(&struct{}{}); err != nil {
		return err
	}
	secret, err := s.Format.Generate(token.KindKey)
	if err != nil {
		return err
	}
	if _, err := s.do(x, c, command.IssueAPIKey{User: user, Secret: secret.Digest()}); err != nil {
		return err
	}
	return x.Result(keyAnswer{user, secret.Reveal()})
}

// revokeOwnKey ends the caller's own key, for good: only an operator can give
// them another.
func (s *Service) revokeOwnKey(x *web.Exchange) error {
	c, err := s.byOwnKey(x)
	if err != nil {
		return err
	}
	return s.endKey(x, c, c.user.ID)
}

// revokeKey ends a user's key: one that has leaked must not wait for its user.
func (s *Service) revokeKey(x *web.Exchange) error {
	c, u, err := s.userAt(x)
	if err != nil {
		return err
	}
	return s.endKey(x, c, u.ID)
}

func (s *Service) endKey(x *web.Exchange, c *caller, user token.ID) error {
	reason, err := s.readReason(x)
	if err != nil {
		return err
	}
	if _, err := s.do(x, c, command.RevokeAPIKey{User: user, Reason: reason}); err != nil {
		return err
	}
	return x.Result(idAnswer{user})
}
