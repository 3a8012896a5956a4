package management

import (
	"net/url"
	"strconv"
	"strings"

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

// filterLimit is how many tokens of one owner are looked through for those
// that have expired. Whoever has more sees the expired ones in every list.
const filterLimit = 10 * directory.MaxPerPage

// listTokens answers with one page of tokens, oldest first unless asked
// otherwise. A page behind the last is empty: clients stop there.
func (s *Service) listTokens(x *web.Exchange, of ownership) error {
	account, err := of.account(x)
	if err != nil {
		return err
	}
	q := x.Request().URL.Query()
	ask, err := page(q)
	if err != nil {
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
	found, err := s.tokens(ask, withExpired)
	if err != nil {
		return err
	}
	all := make([]tokenAnswer, 0, len(found.Tokens))
	for i := range found.Tokens {
		all = append(all, s.answer(&found.Tokens[i]))
	}
	return x.List(all, pageInfo(ask.Page, ask.PerPage, len(all), int(found.Total)))
}

// tokens reads one page, without the expired tokens unless they are wanted.
func (s *Service) tokens(ask directory.TokenQuery, withExpired bool) (directory.TokenPage, error) {
	found, err := s.Directory.Tokens(ask)
	if err != nil || withExpired || found.Total > filterLimit {
		return found, err
	}
	now, skip, total := s.Now(), (ask.Page-1)*ask.PerPage, 0
	out := directory.TokenPage{Seq: found.Seq}
	whole := ask
	whole.PerPage = directory.MaxPerPage
	for whole.Page = 1; ; whole.Page++ {
		part, err := s.Directory.Tokens(whole)
		if err != nil {
			return out, err
		}
		for i := range part.Tokens {
			if expired(&part.Tokens[i], now) {
				continue
			}
			if total++; total > skip && len(out.Tokens) < ask.PerPage {
				out.Tokens = append(out.Tokens, part.Tokens[i])
			}
		}
		if len(part.Tokens) < whole.PerPage {
			out.Total = uint64(total)
			return out, nil
		}
	}
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
	return x.Result(s.answer(&t))
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
func page(q url.Values) (directory.TokenQuery, error) {
	ask := directory.TokenQuery{Page: 1, PerPage: defaultPerPage}
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
