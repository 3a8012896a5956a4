package main

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"watchword.dev/events/enforcer"
	"watchword.dev/events/token"
	"watchword.dev/projections/verifyindex"
)

// guarded compares handlers behind package enforcer, with an index of all tokens
// in the process, with the same handlers bare.
type guarded struct {
	w        *world
	x        *indexed
	requests []guardedRequest
	allowed  []*guardedRequest
	answer   quiet

	// What the handler behind the middleware has seen.
	token, policy token.ID
	served        int
}

// guardedRequest is a question about a token as a request for a path.
type guardedRequest struct {
	question
	r       *http.Request
	handle  http.Handler // guarded by Enforcer.Handle
	require http.Handler // guarded by Enforcer.Require
}

// guardedRequests is how many different requests are sent in turn.
const guardedRequests = 100_000

// beyondGoal is how many nanoseconds a request may take longer than the bare
// handler.
const beyondGoal = 3000

func benchMiddleware(ctx context.Context, r *run) error {
	w := newWorld(r.o.tokens, r.o.tokens)
	dir, remove, err := r.sub("middleware")
	if err != nil {
		return err
	}
	defer remove()
	r.say("middleware: an index of %d tokens", w.n)
	b := &guarded{w: w, answer: quiet{http.Header{}}}
	if b.x, err = fill(ctx, r, dir, newMadeUp(w, fivePolicies), 16<<30); err != nil {
		return err
	}
	return errors.Join(b.run(ctx, r), b.x.close())
}

func (b *guarded) run(ctx context.Context, r *run) error {
	if err := b.x.ready(ctx); err != nil {
		return err
	}
	if s := b.x.Stats(); s.Mode != verifyindex.Resident || s.Tokens != int64(b.w.n) {
		return wrong("the index is in %s mode with %d tokens, want %d in memory", s.Mode, s.Tokens, b.w.n)
	}
	if err := b.prepare(); err != nil {
		return err
	}
	if err := b.answers(); err != nil {
		return err
	}
	if err := b.compare(ctx, r, "middleware.handle", 0, func(q *guardedRequest) http.Handler { return q.handle }); err != nil {
		return err
	}
	return b.compare(ctx, r, "middleware.require", 2, func(q *guardedRequest) http.Handler { return q.require })
}

// compare runs one way to guard and the bare handler by turns.
func (b *guarded) compare(ctx context.Context, r *run, name string, most float64, pick func(*guardedRequest) http.Handler) error {
	bare := http.HandlerFunc(b.bare)
	ours, limit, beyond := newSeries("guarded", "cpu-ns/req"), newSeries("bare handler", "cpu-ns/req"), newSeries("beyond the bare handler", "cpu-ns/req")
	for n := range r.o.rounds + 1 {
		o, err := b.turn(pick, true)
		if err != nil {
			return err
		}
		l, err := b.turn(func(*guardedRequest) http.Handler { return bare }, false)
		if err != nil {
			return err
		}
		if n > 0 {
			ours.add(o)
			limit.add(l)
			beyond.add(o - l)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	allocs, cost := b.allocations(pick), beyond.figure()
	ratio := cost.Median / beyondGoal
	p := report{Bench: name, Ratio: &ratio, Goal: atMost(1, "x 3 us beyond the bare handler").String(), Met: ratio <= 1 && allocs <= most}
	p.add(cost, ours.figure(), limit.figure(), constant("allocations", "per req", allocs), constant("tokens", "", float64(b.w.n)))
	if allocs > most {
		p.note("%v allocations a request, of which there may be %v", allocs, most)
	}
	return r.publish(p)
}

// prepare makes the requests, and the handlers for each permission.
func (b *guarded) prepare() error {
	e, err := enforcer.New(enforcer.Config{Decider: b.x})
	if err != nil {
		return err
	}
	on := enforcer.Path(accountKey+"{account}", zoneKey+"{zone}")
	handle, require := map[string]http.Handler{}, map[string]http.Handler{}
	for _, permission := range []string{permDNSWrite, permDNSRead, permZoneRead, permWorkersWrite} {
		handle[permission] = e.Handle(permission, on, b.handle)
		require[permission] = e.Require(permission, on)(http.HandlerFunc(b.required))
	}
	for _, q := range b.w.questions(guardedRequests) {
		r, err := http.NewRequest(http.MethodGet, "/", nil)
		if err != nil {
			return err
		}
		r.RemoteAddr = q.ask.Address.String() + ":4711"
		if q.ask.Address.Is6() {
			r.RemoteAddr = "[" + q.ask.Address.String() + "]:4711"
		}
		r.Header.Set("Authorization", "Bearer "+b.w.secret(int(q.token)))
		r.SetPathValue("account", strings.TrimPrefix(q.ask.Resource[0], accountKey))
		r.SetPathValue("zone", strings.TrimPrefix(q.ask.Resource[1], zoneKey))
		b.requests = append(b.requests, guardedRequest{q, r, handle[q.ask.Permission], require[q.ask.Permission]})
	}
	for i := range b.requests {
		if b.requests[i].reason == token.ReasonNone {
			b.allowed = append(b.allowed, &b.requests[i])
		}
	}
	return nil
}

func (b *guarded) bare(http.ResponseWriter, *http.Request) { b.served++ }

func (b *guarded) handle(_ http.ResponseWriter, _ *http.Request, id enforcer.Identity) {
	b.token, b.policy = id.Token, id.Policy
	b.served++
}

func (b *guarded) required(w http.ResponseWriter, r *http.Request) {
	id, _ := enforcer.FromContext(r.Context())
	b.handle(w, r, id)
}

// quiet is a ResponseWriter that forgets.
type quiet struct{ header http.Header }

func (w quiet) Header() http.Header         { return w.header }
func (w quiet) Write(p []byte) (int, error) { return len(p), nil }
func (w quiet) WriteHeader(status int)      { w.header.Set("Status", http.StatusText(status)) }

// answers sends every request once and compares what came of it with the model.
func (b *guarded) answers() error {
	for i := range b.requests {
		q := &b.requests[i]
		for _, h := range []http.Handler{q.handle, q.require} {
			b.answer.header = http.Header{}
			before := b.served
			h.ServeHTTP(b.answer, q.r)
			want := ""
			switch q.reason {
			case token.ReasonNone:
			case token.ReasonNoPolicy, token.ReasonDeniedByPolicy:
				want = http.StatusText(http.StatusForbidden)
			default:
				want = http.StatusText(http.StatusUnauthorized)
			}
			if got := b.answer.header.Get("Status"); got != want || (b.served > before) != (want == "") {
				return wrong("token %d asked for %s on %v: %q, want %q because %q", q.token, q.ask.Permission, q.ask.Resource, got, want, q.reason)
			}
		}
	}
	return nil
}

// turn sends every request that is let through and returns the nanoseconds that
// one has taken.
func (b *guarded) turn(pick func(*guardedRequest) http.Handler, check bool) (float64, error) {
	c := startClock()
	before := b.served
	for _, q := range b.allowed {
		pick(q).ServeHTTP(b.answer, q.r)
		if check && (b.token != tokenID(int(q.token)) || b.policy != policyID(int(q.token), int(q.policy))) {
			c.stop()
			return 0, wrong("the handler saw token %v and policy %v, want token %d and policy %d", b.token, b.policy, q.token, q.policy)
		}
	}
	took := c.stop() / float64(len(b.allowed))
	if b.served-before != len(b.allowed) {
		return 0, wrong("%d of %d requests reached the handler", b.served-before, len(b.allowed))
	}
	return took, nil
}

func (b *guarded) allocations(pick func(*guardedRequest) http.Handler) float64 {
	k := 0
	return testing.AllocsPerRun(len(b.allowed), func() {
		q := b.allowed[k%len(b.allowed)]
		pick(q).ServeHTTP(b.answer, q.r)
		k++
	})
}
