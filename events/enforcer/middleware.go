package enforcer

import (
	"net/http"
	"strings"

	"watchword.dev/events/token"
)

// guard is one use of a permission.
type guard struct {
	e          *Enforcer
	permission string
	on         Resource
}

// newGuard panics when a permission could not stand in an answer: that is a
// mistake in the program, found when it starts.
func (e *Enforcer) newGuard(permission string, on Resource) *guard {
	bad := func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' }
	if permission == "" || strings.ContainsFunc(permission, bad) {
		panic("enforcer: malformed permission " + permission)
	}
	if on == nil {
		panic("enforcer: " + permission + " needs a resource")
	}
	return &guard{e, permission, on}
}

// Require lets only those requests through to a handler whose token allows the
// permission on the resource. The handler finds who it is with FromContext.
//
//	mux.Handle("GET /zones/{zone}/records", e.Require("dns.records.read", zone)(list))
//
// A new context and the copy of the request that net/http wants for it cost two
// allocations. Handle does without.
func (e *Enforcer) Require(permission string, on Resource) func(http.Handler) http.Handler {
	g := e.newGuard(permission, on)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, f := g.check(r)
			if f != nil {
				e.refuse(w, r, f)
				return
			}
			next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), id)))
		})
	}
}

// Handle is Require for a handler that is given the identity. It costs no
// allocation.
func (e *Enforcer) Handle(permission string, on Resource, next func(http.ResponseWriter, *http.Request, Identity)) http.Handler {
	g := e.newGuard(permission, on)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, f := g.check(r)
		if f != nil {
			e.refuse(w, r, f)
			return
		}
		next(w, r, id)
	})
}

func (e *Enforcer) refuse(w http.ResponseWriter, r *http.Request, f *Refusal) {
	if e.cfg.Refuse != nil {
		e.cfg.Refuse(w, r, f)
		return
	}
	f.Answer(w, r, e.cfg.Realm)
}

// check decides about r.
func (g *guard) check(r *http.Request) (id Identity, f *Refusal) {
	e := g.e
	id = Identity{Permission: g.permission, Address: e.cfg.Address.Of(r), e: e, guard: g, r: r}
	secret, how := credential(r.Header, e.cfg.LegacyKeys)
	switch how {
	case nothing:
		return id, &Refusal{Status: http.StatusUnauthorized, Permission: g.permission}
	case unreadable:
		return id, &Refusal{Status: http.StatusBadRequest, Code: CodeInvalidRequest, Permission: g.permission}
	}
	m := e.take()
	defer e.give(m)
	if f = g.resource(r, m); f != nil {
		return id, f
	}
	m.ask.Address = id.Address
	id.Decision = e.decide(r.Context(), secret, &m.ask, how)
	if id.Verdict != token.VerdictAllow {
		return id, refused(g.permission, id.Decision)
	}
	return id, nil
}

// resource fills in what the request is about.
func (g *guard) resource(r *http.Request, m *room) *Refusal {
	err := g.on(r, &m.chain)
	if err == nil {
		m.ask.Resource, err = m.chain.done()
	}
	if err != nil {
		return ResourceRefusal(g.permission, err)
	}
	m.ask.Permission = g.permission
	return nil
}

// question returns what was asked about the identity's request, once more and
// with memory of its own.
func (id *Identity) question() *question {
	if id.asked != nil || id.guard == nil {
		return id.asked
	}
	e := id.guard.e
	m := e.take()
	defer e.give(m)
	if id.guard.resource(id.r, m) != nil {
		return nil
	}
	secret, how := credential(id.r.Header, e.cfg.LegacyKeys)
	if secret == "" {
		return nil // the handler has taken it out
	}
	return &question{token.NewSecret(secret), id.Permission, cloned(m.ask.Resource), id.Address, how}
}
