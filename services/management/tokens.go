package management

import (
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/projections/directory"
	"watchword.dev/services/internal/web"
)

// The bounds of a page. Cloudflare's own is 50; a client that asks for more
// and takes a shorter page for the last one would miss the rest.
const (
	defaultPerPage = 20
	minPerPage     = 5
	maxPerPage     = directory.MaxPerPage
	maxPage        = 1 << 30
)

// listTokens answers with one page of tokens, oldest first unless asked
// otherwise; those with a name or a beginning of one, which is Watchword's
// addition, in the order of their names. A page behind the last is empty:
// clients stop there.
func (s *Service) listTokens(x *web.Exchange, of ownership) error {
	account, err := of.account(x)
	if err != nil {
		return err
	}
	q := x.Request().URL.Query()
	ask := directory.TokenQuery{}
	if ask.Listing, err = pageByName(q); err != nil {
		return err
	}
	if ask.Descending, err = oneOf(q, "direction", "asc", "desc"); err != nil {
		return err
	}
	withExpired, err := oneOf(q, "include_expired", "false", "true")
	if err != nil {
		return err
	}
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	if ask.Owner, err = s.owner(c, of, account); err != nil {
		return err
	}
	if !withExpired {
		ask.ValidAt = s.Now()
	}
	found, err := s.Directory.Tokens(ask)
	if err != nil {
		return err
	}
	all := make([]tokenAnswer, 0, len(found.Items))
	for i := range found.Items {
		all = append(all, s.read(&found.Items[i]))
	}
	return x.List(all, pageInfo(ask.Page, ask.PerPage, len(all), int(found.Total)))
}

// getToken answers with one token.
func (s *Service) getToken(x *web.Exchange, of ownership) error {
	at, err := of.target(x)
	if err != nil {
		return err
	}
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	owner, err := s.owner(c, of, at.Owner)
	if err != nil {
		return err
	}
	t, ok, err := s.Directory.Token(at.ID)
	if err != nil {
		return err
	}
	if !ok || t.Status == aggregate.Revoked || t.OwnerKind != owner.Kind || t.Owner != owner.ID {
		return fault.New(fault.TokenNotFound)
	}
	return x.Result(s.read(&t))
}

// read is answer for reads, which tell also when the token was last used.
func (s *Service) read(t *aggregate.Token) tokenAnswer {
	a := s.answer(t)
	a.LastUsedOn = seconds(s.lastUsed(t.ID))
	return a
}

// listGroups answers with the permission groups of the catalogue, all of them
// in one page: that is how clients read it.
func (s *Service) listGroups(x *web.Exchange, of ownership) error {
	account, err := of.account(x)
	if err != nil {
		return err
	}
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	if _, err := s.owner(c, of, account); err != nil {
		return err
	}
	q := x.Request().URL.Query()
	groups := s.Catalogue().Filter(twice(q.Get("name")), twice(q.Get("scope")))
	all := make([]catalogueGroup, 0, len(groups))
	for _, g := range groups {
		all = append(all, catalogueGroupOf(g))
	}
	return x.Result(all)
}

type catalogueGroup struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Scopes      []string `json:"scopes"`
	Category    string   `json:"category,omitempty"`
}

func catalogueGroupOf(g catalogue.Group) catalogueGroup {
	return catalogueGroup{g.ID, g.Name, g.Description, g.Scopes, g.Category}
}

// twice decodes a parameter that a client has encoded twice, as cloudflare-go
// v6 and its users do: "Account%20Settings Write".
func twice(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	if d, err := url.PathUnescape(s); err == nil {
		return d
	}
	return s
}

// page reads page and per_page. A size outside the bounds is moved to the
// nearest one; what is no number is a fault.
func page(q url.Values) (directory.Listing, error) {
	ask := directory.Listing{Page: 1, PerPage: defaultPerPage}
	var err error
	if v := q.Get("page"); v != "" {
		if ask.Page, err = strconv.Atoi(v); err != nil || ask.Page < 1 || ask.Page > maxPage {
			return ask, fault.New(fault.InvalidParameter).WithDetail("page is a number from 1")
		}
	}
	if v := q.Get("per_page"); v != "" {
		if ask.PerPage, err = strconv.Atoi(v); err != nil || ask.PerPage < 1 {
			return ask, fault.New(fault.InvalidParameter).WithDetail("per_page is a number from %d to %d", minPerPage, maxPerPage)
		}
		ask.PerPage = min(max(ask.PerPage, minPerPage), maxPerPage)
	}
	return ask, nil
}

// pageByName is page for lists that are in the order of names: it also reads
// name and name_prefix. Empty ones say nothing. Cloudflare's newer filters
// stand before a name, with a colon.
func pageByName(q url.Values) (directory.Listing, error) {
	ask, err := page(q)
	if err != nil {
		return ask, err
	}
	ask.Name, ask.Prefix = q.Get("name"), q.Get("name_prefix")
	if prefix, ok := strings.CutPrefix(ask.Name, "starts_with:"); ok {
		if ask.Prefix != "" {
			return ask, fault.New(fault.InvalidParameter).WithDetail("starts_with: and name_prefix say the same")
		}
		ask.Name, ask.Prefix = "", prefix
	}
	ask.Name = strings.TrimPrefix(ask.Name, "equal:")
	for _, text := range []string{ask.Name, ask.Prefix} {
		if utf8.RuneCountInString(text) > web.MaxName || !utf8.ValidString(text) { // nothing has such a name
			return ask, fault.New(fault.InvalidParameter).WithDetail("a name has at most %d characters", web.MaxName)
		}
	}
	return ask, nil
}

// oneOf reads a parameter of two values and reports whether it has the second.
func oneOf(q url.Values, name, no, yes string) (bool, error) {
	switch q.Get(name) {
	case yes:
		return true, nil
	case no, "":
		return false, nil
	}
	return false, fault.New(fault.InvalidParameter).WithDetail("%s is %s or %s", fault.Public(name), fault.Public(no), fault.Public(yes))
}

func pageInfo(page, perPage, count, total int) web.Page {
	return web.Page{Page: page, PerPage: perPage, Count: count, TotalCount: total, TotalPages: (total + perPage - 1) / perPage}
}
