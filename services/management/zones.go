package management

import (
	"cmp"
	"errors"
	"net/url"
	"slices"
	"strings"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
	"watchword.dev/services/internal/web"
)

const (
	typeZone = "com.cloudflare.api.account.zone"
	zoneType = typeZone + "."
)

// zoneAnswer is a zone as Cloudflare's clients see it.
type zoneAnswer struct {
	ID         string      `json:"id"`
	Name       string      `json:"name"`
	Status     string      `json:"status"`
	Paused     bool        `json:"paused"`
	Type       string      `json:"type"`
	Account    accountName `json:"account"`
	CreatedOn  string      `json:"created_on"`
	ModifiedOn string      `json:"modified_on"`
}

// zoneAnswerOf returns a zone; its account is what it lies in.
func (s *Service) zoneAnswerOf(r *aggregate.Resource, known map[string]accountName) (zoneAnswer, error) {
	a := zoneAnswer{
		ID: r.Resource, Name: r.Name, Status: statusActive, Type: "full",
		CreatedOn: seconds(r.Created), ModifiedOn: seconds(r.Modified),
	}
	in, ok := known[r.Parent]
	if !ok {
		id, err := token.ParseID(strings.TrimPrefix(r.Parent, accountType))
		if err != nil {
			return a, fault.Wrap(fault.Internal, err)
		}
		account, _, err := s.Directory.Account(id)
		if err != nil {
			return a, err
		}
		in = accountName{id, account.Name}
		known[r.Parent] = in
	}
	a.Account = in
	return a, nil
}

// listZones answers with one page of the zones that the credential may see.
func (s *Service) listZones(x *web.Exchange) error {
	q := x.Request().URL.Query()
	ask, err := pageByName(q)
	if err != nil {
		return err
	}
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	want := directory.ResourceQuery{Listing: ask, Type: typeZone}
	found := directory.Page[aggregate.Resource]{}
	if status := q.Get("status"); status == "" || status == statusActive {
		if found, err = s.zones(c, q, want); err != nil {
			return err
		}
	}
	all, known := make([]zoneAnswer, 0, len(found.Items)), map[string]accountName{}
	for i := range found.Items {
		a, err := s.zoneAnswerOf(&found.Items[i], known)
		if err != nil {
			return err
		}
		all = append(all, a)
	}
	return x.List(all, pageInfo(ask.Page, ask.PerPage, len(all), int(found.Total)))
}

// zones finds a page of zones in the accounts where the caller's role lets them
// see zones. An account that they are nothing in holds none, as one that does
// not exist.
//
// A token for the zones of whole accounts, and an API key, cost a page. A token
// for single zones costs a look at each of those. Only one that denies some
// zones, or mixes the two, costs a look at every zone of the accounts.
func (s *Service) zones(c *caller, q url.Values, want directory.ResourceQuery) (directory.Page[aggregate.Resource], error) {
	var none directory.Page[aggregate.Resource]
	accounts, err := s.asked(c, q)
	if err != nil {
		return none, err
	}
	var open, other []string
	for _, st := range accounts {
		switch {
		case !s.has(st, readZone):
		case s.everyZone(c, st):
			open = append(open, st.key())
		default:
			other = append(other, st.key())
		}
	}
	if c.token == nil {
		return s.zonesIn(want, open, nil)
	}
	keys, err := named(&c.token.Grant, c.catalogue, typeZone)
	if err != nil {
		return none, fault.Wrap(fault.Internal, err)
	}
	switch {
	case len(keys) == 0 && !denies(&c.token.Grant):
		return s.zonesIn(want, open, nil)
	case len(open) == 0:
		return s.zonesNamed(c, want, other, keys)
	}
	return s.zonesIn(want, append(open, other...), func(r *aggregate.Resource) bool {
		return c.may(readZone, r.Parent, r.Key())
	})
}

// everyZone reports whether the caller may see the zones of an account but for
// those that a policy denies: a zone that no policy names stands for them.
func (s *Service) everyZone(c *caller, st *standing) bool {
	all := s.has(st, readZone) && c.allows(readZone, st.key(), zoneType+s.IDs.New().String())
	c.need(readZone, all, st.key(), zoneType+"*")
	return all
}

// asked returns the accounts in which zones are asked for.
func (s *Service) asked(c *caller, q url.Values) ([]*standing, error) {
	account := q.Get("account.id")
	if account == "" {
		return s.standings(c)
	}
	id, err := token.ParseID(account)
	if err != nil {
		return nil, fault.New(fault.InvalidParameter).WithDetail("account.id is an id")
	}
	st, err := s.standing(c, id)
	switch {
	case errors.Is(err, fault.AccountNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return []*standing{st}, nil
}

func denies(g *token.Grant) bool {
	return slices.ContainsFunc(g.Policies, func(p token.Policy) bool { return p.Effect == token.EffectDeny })
}

func (s *Service) zonesIn(want directory.ResourceQuery, accounts []string, keep func(*aggregate.Resource) bool) (directory.Page[aggregate.Resource], error) {
	if len(accounts) == 0 {
		return directory.Page[aggregate.Resource]{}, nil
	}
	want.Parents, want.Keep = accounts, keep
	return s.Directory.Resources(want)
}

// zonesNamed is zonesIn for a token that names its zones one by one.
func (s *Service) zonesNamed(c *caller, want directory.ResourceQuery, accounts, keys []string) (directory.Page[aggregate.Resource], error) {
	var out directory.Page[aggregate.Resource]
	var all []aggregate.Resource
	for _, key := range keys {
		r, ok, err := s.Directory.Resource(key)
		if err != nil {
			return out, err
		}
		if ok && slices.Contains(accounts, r.Parent) && c.may(readZone, r.Parent, key) &&
			want.Fits(r.Name) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b aggregate.Resource) int {
		return cmp.Or(cmp.Compare(slices.Index(accounts, a.Parent), slices.Index(accounts, b.Parent)), cmp.Compare(a.Name, b.Name), a.ID.Compare(b.ID))
	})
	out.Items, out.Total = slicePage(all, want.Page, want.PerPage), uint64(len(all))
	return out, nil
}

// getZone answers with one zone.
func (s *Service) getZone(x *web.Exchange) error {
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	l, err := s.resourceAt(x, c, typeZone, x.Param("zone"))
	if err != nil {
		return err
	}
	if !s.seen(c, l) {
		return fault.New(fault.NotPermitted)
	}
	return s.showZone(x, &l.Resource)
}

func (s *Service) showZone(x *web.Exchange, r *aggregate.Resource) error {
	a, err := s.zoneAnswerOf(r, map[string]accountName{})
	if err != nil {
		return err
	}
	return x.Result(a)
}

// zoneBody is a zone as Cloudflare's clients send it; the rest of what they
// send says nothing here.
type zoneBody struct {
	Name    string `json:"name"`
	Account struct {
		ID string `json:"id"`
	} `json:"account"`
}

// createZone registers a zone in an account.
func (s *Service) createZone(x *web.Exchange) error {
	c, err := s.commander(x)
	if err != nil {
		return err
	}
	raw, err := x.Body(web.MaxBody)
	if err != nil {
		return err
	}
	var b zoneBody
	if err := x.DecodeBytes(raw, &b); err != nil {
		return err
	}
	if err := s.checkName(b.Name); err != nil {
		return err
	}
	parent := ""
	if b.Account.ID != "" {
		parent = accountType + b.Account.ID
	}
	r, err := s.register(x, c, &resourceBody{Type: typeZone, Name: b.Name, Parent: parent}, raw)
	if err != nil {
		return accountPointer(err)
	}
	return s.showZone(x, r)
}

// updateZone renames a zone or moves it to another account.
func (s *Service) updateZone(x *web.Exchange) error {
	c, err := s.commander(x)
	if err != nil {
		return err
	}
	l, err := s.resourceAt(x, c, typeZone, x.Param("zone"))
	if err != nil {
		return err
	}
	var b zoneBody
	if err := x.Decode(&b); err != nil {
		return err
	}
	parent := ""
	if b.Account.ID != "" {
		parent = accountType + b.Account.ID
	}
	r, err := s.changeResource(x, c, l, b.Name, parent)
	if err != nil {
		return accountPointer(err)
	}
	return s.showZone(x, r)
}

// accountPointer points a fault about the parent to where a zone's body has it.
func accountPointer(err error) error {
	if f := fault.From(err); f.Code == fault.InvalidParent {
		return f.WithPointer("/account/id")
	}
	return err
}

// removeZone ends a zone.
func (s *Service) removeZone(x *web.Exchange) error {
	return s.endResource(x, typeZone, x.Param("zone"))
}
