package management

import (
	"context"
	"strings"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
	"watchword.dev/services/internal/web"
)

// userAnswer has the members of Cloudflare's answer. Those that are null or
// fixed are things that an installation of Watchword does not have.
type userAnswer struct {
	ID            token.ID   `json:"id"`
	Email         string     `json:"email"`
	Username      string     `json:"username"`
	FirstName     *string    `json:"first_name"`
	LastName      *string    `json:"last_name"`
	Telephone     *string    `json:"telephone"`
	Country       *string    `json:"country"`
	Zipcode       *string    `json:"zipcode"`
	TwoFactor     bool       `json:"two_factor_authentication_enabled"`
	TwoLocked     bool       `json:"two_factor_authentication_locked"`
	Suspended     bool       `json:"suspended"`
	Betas         []struct{} `json:"betas"`
	Organizations []struct{} `json:"organizations"`
	CreatedOn     string     `json:"created_on"`
	ModifiedOn    string     `json:"modified_on"`
}

// getUser answers with the user whose credential was presented.
func (s *Service) getUser(x *web.Exchange) error {
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	if _, ok := c.byAccount(); ok || !c.may(readUserDetails, userType+c.user.ID.String()) {
		return fault.New(fault.NotPermitted)
	}
	a := userAnswer{ID: c.user.ID, CreatedOn: seconds(c.user.Created), ModifiedOn: seconds(c.user.Modified)}
	if a.Email, err = s.show(x.Context(), &c.user.Email); err != nil {
		return err
	}
	if a.Username, err = s.show(x.Context(), c.user.Name); err != nil {
		return err
	}
	if a.Username == "" {
		a.Username, _, _ = strings.Cut(a.Email, "@")
	}
	return x.Result(a)
}

// show opens a personal field; no field is no text.
func (s *Service) show(ctx context.Context, f *events.Sealed) (string, error) {
	if f == nil {
		return "", nil
	}
	text, err := s.Sealer.Show(ctx, *f)
	if err != nil {
		return "", fault.Wrap(fault.NotReady, err)
	}
	return text, nil
}

type accountAnswer struct {
	ID        token.ID        `json:"id"`
	Name      string          `json:"name"`
	Type      string          `json:"type"`
	Settings  accountSettings `json:"settings"`
	CreatedOn string          `json:"created_on"`
}

type accountSettings struct {
	EnforceTwoFactor bool `json:"enforce_twofactor"`
}

func accountAnswerOf(a *aggregate.Account) accountAnswer {
	return accountAnswer{ID: a.ID, Name: a.Name, Type: "standard", CreatedOn: seconds(a.Created)}
}

// listAccounts answers with the accounts that the credential can see. For an
// account's own token that is exactly its account: wrangler needs the name.
// Operators may ask for all there are.
func (s *Service) listAccounts(x *web.Exchange) error {
	q := x.Request().URL.Query()
	ask, err := pageByName(q)
	if err != nil {
		return err
	}
	whole, err := oneOf(q, "all", "false", "true")
	if err != nil {
		return err
	}
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	if whole {
		return s.listAllAccounts(x, c, ask)
	}
	accounts, _, err := s.visible(c)
	if err != nil {
		return err
	}
	_, own := c.byAccount()
	all := make([]accountAnswer, 0, len(accounts))
	for i := range accounts {
		a := &accounts[i]
		if ask.Fits(a.Name) && (own || c.may(readAccount, accountType+a.ID.String())) {
			all = append(all, accountAnswerOf(a))
		}
	}
	part := slicePage(all, ask.Page, ask.PerPage)
	return x.List(part, pageInfo(ask.Page, ask.PerPage, len(part), len(all)))
}

func (s *Service) listAllAccounts(x *web.Exchange, c *caller, ask directory.Listing) error {
	if !c.operator() {
		return fault.New(fault.NotPermitted)
	}
	found, err := s.Directory.AllAccounts(ask)
	if err != nil {
		return err
	}
	all := make([]accountAnswer, 0, len(found.Items))
	for i := range found.Items {
		all = append(all, accountAnswerOf(&found.Items[i]))
	}
	return x.List(all, pageInfo(ask.Page, ask.PerPage, len(all), int(found.Total)))
}

// getAccount answers with one account. Whoever belongs to it may see its name;
// a token must be for that.
func (s *Service) getAccount(x *web.Exchange) error {
	id, err := x.ID("account_id")
	if err != nil {
		return err
	}
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	st, err := s.standing(c, id)
	if err != nil {
		return err
	}
	if _, own := c.byAccount(); !own && !c.may(readAccount, st.key()) {
		return fault.New(fault.NotPermitted)
	}
	return x.Result(accountAnswerOf(&st.account))
}

type membershipAnswer struct {
	ID      token.ID    `json:"id"`
	Status  string      `json:"status"`
	Roles   []string    `json:"roles"`
	Account accountName `json:"account"`
}

type accountName struct {
	ID   token.ID `json:"id"`
	Name string   `json:"name"`
}

// listMemberships answers with the accounts that the user is a member of, and
// as what.
func (s *Service) listMemberships(x *web.Exchange) error {
	ask, err := page(x.Request().URL.Query())
	if err != nil {
		return err
	}
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	if _, ok := c.byAccount(); ok {
		return fault.New(fault.AccountTokenRefused)
	}
	if !c.may(readMemberships, userType+c.user.ID.String()) {
		return fault.New(fault.PermissionMissing)
	}
	accounts, members, err := s.visible(c)
	if err != nil {
		return err
	}
	all := make([]membershipAnswer, 0, len(members))
	for i, m := range members {
		all = append(all, membershipAnswer{m.ID, "accepted", m.Roles, accountName{accounts[i].ID, accounts[i].Name}})
	}
	part := slicePage(all, ask.Page, ask.PerPage)
	return x.List(part, pageInfo(ask.Page, ask.PerPage, len(part), len(all)))
}

// slicePage returns one page of a short list; never nil.
func slicePage[T any](all []T, page, perPage int) []T {
	first := min((page-1)*perPage, len(all))
	return all[first:min(first+perPage, len(all))]
}
