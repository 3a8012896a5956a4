package authority

import (
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// place is where a resource is in the world that the directory knows.
type place int

const (
	unregistered place = iota // the directory has never heard of it, or not any more
	orphaned                  // it is registered, and what it lies in has ended
	inAccount                 // it is an account, or lies in one
	inUser                    // it is a user, or lies in one
)

// where finds the account or the user in which a resource lies, along the
// registrations of what it lies in.
func (r *rules) where(v *view, key string) (root token.ID, at place) {
	for depth := 0; depth <= token.MaxChain; depth++ {
		t, id, ok := r.catalogue.TypeOf(key)
		if !ok {
			break
		}
		switch r.catalogue.TypeName(t) {
		case typeAccount:
			return v.rootAccount(id, depth)
		case typeUser:
			return v.rootUser(id, depth)
		}
		s, ok := v.resource(key)
		if !ok {
			return token.ID{}, lost(depth)
		}
		key = s.Parent
	}
	return token.ID{}, orphaned
}

// lost is the place of a resource when what lies depth levels above it is not
// there.
func lost(depth int) place {
	if depth == 0 {
		return unregistered
	}
	return orphaned
}

func (v *view) rootAccount(id string, depth int) (token.ID, place) {
	root, err := token.ParseID(id)
	if err != nil {
		return token.ID{}, lost(depth)
	}
	switch a, ok := v.account(root); {
	case !ok:
		return token.ID{}, lost(depth)
	case a.Status != aggregate.Active:
		return token.ID{}, orphaned
	}
	return root, inAccount
}

func (v *view) rootUser(id string, depth int) (token.ID, place) {
	root, err := token.ParseID(id)
	if err != nil {
		return token.ID{}, lost(depth)
	}
	switch u, ok := v.user(root); {
	case !ok:
		return token.ID{}, lost(depth)
	case u.Status != aggregate.Active:
		return token.ID{}, orphaned
	}
	return root, inUser
}

// mayAdministerRoot says whether the principal may manage the resources of a
// root: operators everywhere, others in the accounts that they administer.
func (r *rules) mayAdministerRoot(v *view, p *principal, root token.ID, at place, now time.Time) bool {
	return p.operates() || at == inAccount && r.mayAdminister(v, p, root, now)
}

// parent says whether a resource of the type can lie in the parent, and returns
// the account in which it would be; zero when that is none.
func (r *rules) parent(v *view, p *principal, kind, parent string, now time.Time) (token.ID, error) {
	refused := fault.New(fault.InvalidParent).WithPointer("/parent")
	t, _, ok := r.catalogue.TypeOf(parent)
	if !ok || r.catalogue.TypeName(t) != r.parentType(kind) {
		return token.ID{}, refused
	}
	root, at := r.where(v, parent)
	if !r.mayAdministerRoot(v, p, root, at, now) {
		return token.ID{}, fault.NotPermitted
	}
	switch at {
	case inAccount:
		return root, nil
	case inUser:
		return token.ID{}, nil
	}
	return token.ID{}, refused
}

// parentType returns the type in which resources of a type lie; "" for none.
func (r *rules) parentType(kind string) string {
	for _, t := range r.catalogue.Types() {
		if t.Name == kind {
			return t.Parent
		}
	}
	return ""
}

// registerResource gives each registration an id of its own, so that a command
// that is heard again after the removal makes a new one.
func (r *rules) registerResource(v *view, p *principal, c *command.RegisterResource, now time.Time) (outcome, error) {
	if r.parentType(c.Type) == "" {
		return outcome{}, fault.New(fault.InvalidResourceType).WithPointer("/type")
	}
	account, err := r.parent(v, p, c.Type, c.Parent, now)
	if err != nil {
		return outcome{}, err
	}
	if err := checkName(c.Name); err != nil {
		return outcome{}, err
	}
	if !catalogue.ValidID(c.Resource) {
		return outcome{}, fault.New(fault.InvalidField).WithPointer("/id")
	}
	key := aggregate.ResourceKey(c.Type, c.Resource)
	if s, ok := v.resource(key); ok {
		if s.Name == c.Name && s.Parent == c.Parent {
			return outcome{resource: key}, nil
		}
		return outcome{}, fault.Conflict
	}
	return outcome{resource: key, draft: r.draft(p, "resource", r.newID(), account, now, &events.ResourceRegistered{
		Type: c.Type, Resource: c.Resource, Name: c.Name, Parent: c.Parent, Origin: p.caller.Origin,
	})}, nil
}

// subjectResource returns the registered resource that a command is about, and
// the account in which it lies. One that lies elsewhere is, to all but
// operators, as unknown as one that nobody registered.
func (r *rules) subjectResource(v *view, p *principal, kind, id string, now time.Time) (*aggregate.Resource, token.ID, error) {
	s, ok := v.resource(aggregate.ResourceKey(kind, id))
	if !ok {
		return nil, token.ID{}, fault.ResourceNotFound
	}
	root, at := r.where(v, s.Key())
	if !r.mayAdministerRoot(v, p, root, at, now) {
		return nil, token.ID{}, fault.ResourceNotFound
	}
	if at != inAccount {
		root = token.ID{}
	}
	return s, root, nil
}

func (r *rules) updateResource(v *view, p *principal, c *command.UpdateResource, now time.Time) (outcome, error) {
	s, account, err := r.subjectResource(v, p, c.Type, c.Resource, now)
	if err != nil {
		return outcome{}, err
	}
	if err := checkName(c.Name); err != nil {
		return outcome{}, err
	}
	if s.Name == c.Name {
		return outcome{resource: s.Key()}, nil
	}
	return outcome{resource: s.Key(), draft: r.draft(p, "resource", s.ID, account, now, &events.ResourceUpdated{
		Type: c.Type, Resource: c.Resource, Name: c.Name, Origin: p.caller.Origin,
	})}, nil
}

// moveResource lays a resource into another one. Whoever moves it must be able
// to manage both places; one that lies nowhere any more is moved by operators.
func (r *rules) moveResource(v *view, p *principal, c *command.MoveResource, now time.Time) (outcome, error) {
	s, _, err := r.subjectResource(v, p, c.Type, c.Resource, now)
	if err != nil {
		return outcome{}, err
	}
	account, err := r.parent(v, p, c.Type, c.Parent, now)
	if err != nil {
		return outcome{}, err
	}
	if s.Parent == c.Parent {
		return outcome{resource: s.Key()}, nil
	}
	if v.liesIn(c.Parent, s.Key()) {
		return outcome{}, fault.New(fault.InvalidParent).WithPointer("/parent")
	}
	return outcome{resource: s.Key(), draft: r.draft(p, "resource", s.ID, account, now, &events.ResourceMoved{
		Type: c.Type, Resource: c.Resource, Parent: c.Parent, Origin: p.caller.Origin,
	})}, nil
}

// liesIn says whether a resource is the other one or lies in it.
func (v *view) liesIn(key, outer string) bool {
	for range token.MaxChain {
		if key == outer {
			return true
		}
		s, ok := v.resource(key)
		if !ok {
			return false
		}
		key = s.Parent
	}
	return true // no tree of types is so deep
}

func (r *rules) removeResource(v *view, p *principal, c *command.RemoveResource, now time.Time) (outcome, error) {
	s, account, err := r.subjectResource(v, p, c.Type, c.Resource, now)
	if err != nil {
		return outcome{}, err
	}
	if err := checkReason(c.Reason); err != nil {
		return outcome{}, err
	}
	return outcome{resource: s.Key(), draft: r.draft(p, "resource", s.ID, account, now, &events.ResourceRemoved{
		Type: c.Type, Resource: c.Resource, Reason: c.Reason, Origin: p.caller.Origin,
	})}, nil
}
