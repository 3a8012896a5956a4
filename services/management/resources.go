package management

import (
	"errors"
	"net/url"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// resourceAnswer is a registered resource of any type.
type resourceAnswer struct {
	ID         string `json:"id"`
	Type       string `json:"type"`
	Key        string `json:"key"` // under which policies name it
	Name       string `json:"name"`
	Parent     string `json:"parent"`
	CreatedOn  string `json:"created_on"`
	ModifiedOn string `json:"modified_on"`
}

func resourceAnswerOf(r *aggregate.Resource) resourceAnswer {
	return resourceAnswer{r.Resource, r.Type, r.Key(), r.Name, r.Parent, seconds(r.Created), seconds(r.Modified)}
}

// resourceBody is a resource as clients send it.
type resourceBody struct {
	Type   string `json:"type"`
	ID     string `json:"id"`
	Name   string `json:"name"`
	Parent string `json:"parent"`
}

// seen reports whether the caller may see what lies in an account. Zones have a
// permission of their own, so that a token for one zone sees that one.
func (s *Service) seen(c *caller, l *located) bool {
	if l.Type+"." == zoneType {
		return s.holds(c, l.in, readZone, l.chain...)
	}
	return s.holds(c, l.in, readAccount)
}

// listResources answers with one page of what lies in a parent, or in the
// accounts of the caller. Operators may list all of a type.
func (s *Service) listResources(x *web.Exchange) error {
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
	want := directory.ResourceQuery{Listing: ask, Type: q.Get("type")}
	if whole {
		if !c.operator() {
			return fault.New(fault.NotPermitted)
		}
		if want.Type == "" {
			return fault.New(fault.InvalidParameter).WithDetail("all needs a type")
		}
	} else {
		places, err := s.parents(c, q)
		if err != nil {
			return err
		}
		for _, p := range places {
			want.Parents = append(want.Parents, p.key)
		}
		if want.Type == "" || want.Type == typeZone {
			want.Keep = s.keepZones(c, places)
		}
	}
	found := directory.Page[aggregate.Resource]{}
	if whole || len(want.Parents) > 0 {
		if found, err = s.Directory.Resources(want); err != nil {
			return err
		}
	}
	all := make([]resourceAnswer, 0, len(found.Items))
	for i := range found.Items {
		all = append(all, resourceAnswerOf(&found.Items[i]))
	}
	return x.List(all, pageInfo(ask.Page, ask.PerPage, len(all), int(found.Total)))
}

// inside is something in which resources lie, and what the caller is in its
// account.
type inside struct {
	key string
	in  *standing
}

// parents returns in what the caller may look: in the parent that the query
// names, or directly in each of their accounts.
func (s *Service) parents(c *caller, q url.Values) ([]inside, error) {
	parent := q.Get("parent")
	if parent == "" {
		accounts, err := s.standings(c)
		var all []inside
		for _, st := range accounts {
			if s.holds(c, st, readAccount) {
				all = append(all, inside{st.key(), st})
			}
		}
		return all, err
	}
	st, err := s.containing(c, parent)
	switch {
	case err != nil:
		return nil, err
	case !s.holds(c, st, readAccount):
		return nil, fault.New(fault.NotPermitted)
	}
	return []inside{{parent, st}}, nil
}

// keepZones leaves out of a list the zones that the caller may not see, as the
// list of zones does. It is nil for who sees all of them, so that their lists
// cost a page.
func (s *Service) keepZones(c *caller, places []inside) func(*aggregate.Resource) bool {
	every, at := true, map[string]*standing{}
	for _, p := range places {
		every = s.everyZone(c, p.in) && every
		at[p.key] = p.in
	}
	if every && (c.token == nil || !denies(&c.token.Grant)) {
		return nil
	}
	return func(r *aggregate.Resource) bool {
		if r.Type != typeZone {
			return true
		}
		st := at[r.Parent]
		return s.has(st, readZone) && c.allows(readZone, st.key(), r.Key())
	}
}

// containing returns what the caller is in the account of a key, which may be
// the account's own.
func (s *Service) containing(c *caller, key string) (*standing, error) {
	kind, id, ok := catalogue.SplitKey(key)
	if ok && kind+"." == accountType {
		l := located{}
		err := s.place(c, &l, id)
		return l.in, err
	}
	l, err := s.locate(c, key)
	if err != nil {
		return nil, err
	}
	return l.in, nil
}

// resourceAt returns the resource that the path names.
func (s *Service) resourceAt(x *web.Exchange, c *caller, kind, id string) (*located, error) {
	if !catalogue.ValidID(id) {
		return nil, fault.New(fault.InvalidID)
	}
	return s.locate(c, aggregate.ResourceKey(kind, id))
}

// getResource answers with one resource.
func (s *Service) getResource(x *web.Exchange) error {
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	l, err := s.resourceAt(x, c, x.Param("type"), x.Param("id"))
	if err != nil {
		return err
	}
	if !s.seen(c, l) {
		return fault.New(fault.NotPermitted)
	}
	return x.Result(resourceAnswerOf(&l.Resource))
}

// registerResource makes a resource known, under an id of the client's choice
// or one of ours.
func (s *Service) registerResource(x *web.Exchange) error {
	c, err := s.commander(x)
	if err != nil {
		return err
	}
	raw, err := x.Body(web.MaxBody)
	if err != nil {
		return err
	}
	var b resourceBody
	if err := x.DecodeBytes(raw, &b); err != nil {
		return err
	}
	if err := s.checkName(b.Name); err != nil {
		return err
	}
	r, err := s.register(x, c, &b, raw)
	if err != nil {
		return err
	}
	return x.Result(resourceAnswerOf(r))
}

// register sends the command; raw is the request's body. A parent where the
// caller is nothing and one that does not exist are alike.
func (s *Service) register(x *web.Exchange, c *caller, b *resourceBody, raw []byte) (*aggregate.Resource, error) {
	if _, ok := s.Catalogue().TypeNumber(b.Type); !ok {
		return nil, fault.New(fault.InvalidResourceType).WithPointer("/type")
	}
	if b.ID != "" && !catalogue.ValidID(b.ID) {
		return nil, fault.New(fault.InvalidField).WithPointer("/id").WithDetail("up to %d letters, digits, _ and -", catalogue.MaxID)
	}
	if err := s.writable(c, b.Parent); err != nil {
		return nil, err
	}
	if b.ID == "" {
		id, again, err := s.newThing(x, c, "resource", token.ID{}, raw)
		if err != nil {
			return nil, err
		}
		if again {
			if r, err := s.madeLately(b); r != nil || err != nil {
				return r, err
			}
		}
		b.ID = id.String()
	}
	r, err := s.do(x, c, command.RegisterResource{Type: b.Type, Resource: b.ID, Name: b.Name, Parent: b.Parent})
	return r.Resource, err
}

// madeLately finds what a repeat of a registration may mean.
func (s *Service) madeLately(b *resourceBody) (*aggregate.Resource, error) {
	found, err := s.Directory.Resources(directory.ResourceQuery{
		Listing: directory.Listing{Name: b.Name, Page: 1, PerPage: directory.MaxPerPage}, Type: b.Type, Parents: []string{b.Parent},
	})
	for i := range found.Items {
		if s.lately(found.Items[i].Created) {
			return &found.Items[i], err
		}
	}
	return nil, err
}

// writable refuses a parent in which the caller may register nothing.
func (s *Service) writable(c *caller, parent string) error {
	st, err := s.containing(c, parent)
	switch {
	case errors.Is(err, fault.ResourceNotFound):
		return fault.New(fault.InvalidParent).WithPointer("/parent")
	case err == nil && !s.holds(c, st, writeAccount):
		return fault.New(fault.NotPermitted)
	}
	return err
}

// updateResource gives a resource the name and the parent of the body. What the
// body leaves out stays. They are two events: when the second is refused, the
// first has come to pass, and the same request again goes on from there.
func (s *Service) updateResource(x *web.Exchange) error {
	c, err := s.commander(x)
	if err != nil {
		return err
	}
	l, err := s.resourceAt(x, c, x.Param("type"), x.Param("id"))
	if err != nil {
		return err
	}
	var b resourceBody
	if err := x.Decode(&b); err != nil {
		return err
	}
	r, err := s.changeResource(x, c, l, b.Name, b.Parent)
	if err != nil {
		return err
	}
	return x.Result(resourceAnswerOf(r))
}

func (s *Service) changeResource(x *web.Exchange, c *caller, l *located, name, parent string) (*aggregate.Resource, error) {
	if name == "" && parent == "" {
		return nil, fault.New(fault.InvalidName).WithPointer("/name")
	}
	now := l.Resource
	if parent != "" && parent != now.Parent {
		if err := s.writable(c, parent); err != nil {
			return nil, err
		}
	}
	if name != "" {
		if err := s.checkName(name); err != nil {
			return nil, err
		}
		r, err := s.do(x, c, command.UpdateResource{Type: now.Type, Resource: now.Resource, Name: name})
		if err != nil {
			return nil, err
		}
		now = *r.Resource
	}
	if parent != "" {
		r, err := s.do(x, c, command.MoveResource{Type: now.Type, Resource: now.Resource, Parent: parent})
		if err != nil {
			return nil, err
		}
		now = *r.Resource
	}
	return &now, nil
}

type textID struct {
	ID string `json:"id"`
}

// removeResource ends a registration. What lies in the resource is out of
// reach from then on.
func (s *Service) removeResource(x *web.Exchange) error {
	return s.endResource(x, x.Param("type"), x.Param("id"))
}

func (s *Service) endResource(x *web.Exchange, kind, id string) error {
	c, err := s.commander(x)
	if err != nil {
		return err
	}
	l, err := s.resourceAt(x, c, kind, id)
	if err != nil {
		return err
	}
	reason, err := s.readReason(x)
	if err != nil {
		return err
	}
	if _, err := s.do(x, c, command.RemoveResource{Type: l.Type, Resource: l.Resource.Resource, Reason: reason}); err != nil {
		return err
	}
	return x.Result(textID{l.Resource.Resource})
}

// named returns the keys of the resources of a type that a grant names one by
// one, whether by themselves or in something.
func named(g *token.Grant, cat *catalogue.Catalogue, kind string) ([]string, error) {
	n, ok := cat.TypeNumber(kind)
	if !ok {
		return nil, nil
	}
	seen := map[string]bool{}
	var keys []string
	for _, p := range g.Policies {
		all, err := token.ParseResources(p.Resources, cat)
		if err != nil {
			return nil, err
		}
		for _, m := range all {
			if key := aggregate.ResourceKey(kind, m.Inner.ID); m.Inner.Type == n && m.Inner.ID != "" && !seen[key] {
				seen[key] = true
				keys = append(keys, key)
			}
		}
	}
	return keys, nil
}
