package enforcer

import (
	"context"
	"errors"
	"sync"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

// ErrEnded says that a token no longer allows what it allowed when a request
// began. It is what the cause of a bound context's end wraps; errors.As tells
// more as an *Ended.
var ErrEnded = errors.New("enforcer: the token no longer allows this")

// errNotBound says that Bind was called where no identity is.
var errNotBound = errors.New("enforcer: nothing to bind: the context carries no identity of an Enforcer")

// Ended is the cause with which a bound context ends.
type Ended struct {
	// Decision is the newest one. One that is unavailable means that nobody
	// could vouch for the token any more.
	Decision token.Decision
}

// Error describes the end.
func (e *Ended) Error() string { return ErrEnded.Error() + ": " + e.Decision.Reason.String() }

// Is makes an end ErrEnded, and ErrUnavailable when that was the reason.
func (e *Ended) Is(target error) bool {
	return target == ErrEnded || target == ErrUnavailable && e.Decision.Verdict == token.VerdictUnavailable
}

const (
	// defaultBound is for a decider that does not tell how old its answers
	// may be.
	defaultBound = 30 * time.Second
	// recheckAfter is when a check that got no answer is repeated.
	recheckAfter = time.Second
	// recheckers is how many checks one event starts side by side.
	recheckers = 16
)

// registry holds what is bound.
type registry struct {
	mu      sync.Mutex
	all     map[*binding]struct{}
	byID    map[token.ID]map[*binding]struct{}
	applied uint64 // the sequence that Applied has heard of
}

func (g *registry) init() {
	g.all, g.byID = map[*binding]struct{}{}, map[token.ID]map[*binding]struct{}{}
}

func (g *registry) add(b *binding) (applied uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all[b] = struct{}{}
	for _, id := range b.restsOn {
		if g.byID[id] == nil {
			g.byID[id] = map[*binding]struct{}{}
		}
		g.byID[id][b] = struct{}{}
	}
	return g.applied
}

func (g *registry) remove(b *binding) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.all, b)
	for _, id := range b.restsOn {
		if delete(g.byID[id], b); len(g.byID[id]) == 0 {
			delete(g.byID, id)
		}
	}
}

// affected adds those that an effect may change to found.
func (g *registry) affected(f *effect, found map[*binding]struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for b := range g.byID[f.id] {
		found[b] = struct{}{}
	}
	if !f.all && !f.place {
		return
	}
	for b := range g.all {
		if f.all || b.byPlace {
			found[b] = struct{}{}
		}
	}
}

// binding is one request that lives as long as its token allows it.
type binding struct {
	e       *Enforcer
	asked   *question
	restsOn []token.ID
	byPlace bool
	ctx     context.Context
	cancel  context.CancelCauseFunc

	mu    sync.Mutex // one check at a time
	good  time.Time  // when the last allow was known to be right
	bound time.Duration
	timer *time.Timer
}

// Bind returns a context that ends when the token of the request no longer
// allows it, with an *Ended as context.Cause: it was revoked, disabled or
// narrowed, its owner lost what it needs, it expired, or nobody could vouch for
// it within the bound of the permission. It also ends with ctx, and when the
// function that is returned is called.
//
// ctx must come from Require, and the request must still have its credential.
// Otherwise the context has ended when it is returned: who was let in is not
// known.
//
//	ctx, stop := enforcer.Bind(r.Context())
//	defer stop()
//	context.AfterFunc(ctx, func() { conn.Close() })
//
// What is heard by Enforcer.Applied is acted on at once. Without it a bound
// context is only looked at from time to time: at the latest when the answer
// that it rests on has reached its bound.
func Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	id, _ := FromContext(ctx)
	return id.Bind(ctx)
}

// Bind is the package function for who was given the identity.
func (id Identity) Bind(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	stop := func() { cancel(context.Canceled) }
	asked := id.question()
	if asked == nil || id.e == nil {
		cancel(errNotBound)
		return ctx, stop
	}
	b := &binding{
		e: id.e, asked: asked, restsOn: restsOn(&id.Decision, asked.resource), byPlace: id.ByPlace,
		ctx: ctx, cancel: cancel,
	}
	applied := id.e.live.add(b)
	context.AfterFunc(ctx, b.stop)
	if applied > id.Sequence {
		b.check(true, applied) // what was applied since the request was let in has not found b
	} else {
		b.mu.Lock()
		b.allowed(id.Decision)
		b.mu.Unlock()
	}
	return ctx, stop
}

// restsOn returns the ids of which an event may change a decision: those of the
// token, of its owner, and of all that the chain names.
func restsOn(d *token.Decision, chain []string) []token.ID {
	ids := make([]token.ID, 0, 2+len(chain))
	add := func(id token.ID) {
		if !id.IsZero() {
			ids = append(ids, id)
		}
	}
	add(d.Token)
	add(d.Owner)
	for _, key := range chain {
		if len(key) >= 32 {
			id, _ := token.ParseID(key[len(key)-32:])
			add(id)
		}
	}
	return ids
}

func (b *binding) stop() {
	b.e.live.remove(b)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil {
		b.timer.Stop()
	}
}

// end ends the context because of d.
func (b *binding) end(d token.Decision) { b.cancel(&Ended{d}) }

// check asks again, about what is known at seq, and ends b or sets the timer
// for the next check. When an event touches b, no answer is as good as a no.
func (b *binding) check(touched bool, seq uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil {
		return
	}
	d := b.ask(seq)
	switch end := b.good.Add(b.bound); {
	case b.ctx.Err() != nil:
	case d.Verdict == token.VerdictAllow:
		b.allowed(d)
	case d.Verdict == token.VerdictUnavailable && !touched && now().Before(end):
		b.checkIn(min(recheckAfter, end.Sub(now())))
	default:
		b.end(d)
	}
}

// allowed takes in an allow: it is good until its bound, or until the clock
// changes it. b.mu is held.
func (b *binding) allowed(d token.Decision) {
	if b.bound = d.Bound; b.bound <= 0 {
		b.bound = defaultBound
	}
	at := now()
	b.good = at.Add(-d.Age)
	next := b.good.Add(b.bound).Sub(at) + time.Millisecond
	if !d.Until.IsZero() {
		next = min(next, d.Until.Sub(at))
	}
	if next <= 0 {
		next = recheckAfter // whoever decides has a clock that is behind this one
	}
	b.checkIn(next)
}

func (b *binding) checkIn(d time.Duration) {
	if b.timer != nil {
		b.timer.Stop()
	}
	b.timer = time.AfterFunc(d, func() { b.check(false, 0) })
}

func (b *binding) ask(seq uint64) token.Decision {
	if !b.e.reach(b.ctx, seq) {
		return token.Decision{Verdict: token.VerdictUnavailable, Reason: token.ReasonNotReady}
	}
	q := b.asked
	return b.e.decide(b.ctx, q.secret.Reveal(), &token.Request{Permission: q.permission, Resource: q.resource, Address: q.address}, q.how)
}

// reachWithin bounds how long a check waits for the decider to catch up.
const reachWithin = 10 * time.Second

// reach waits until the decider rests on seq, if it can be waited for.
func (e *Enforcer) reach(ctx context.Context, seq uint64) bool {
	if e.wait == nil || seq == 0 || e.wait.Sequence() >= seq {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	return e.wait.Wait(ctx, seq) == nil
}

// Begin implements Follower. What is bound knows its own sequence.
func (e *Enforcer) Begin(events.Position) {}

// Applied takes in a commit that the feed has delivered, in order: it tells
// Config.OnRevoked of what was revoked, and ends what is bound to it. It does
// not wait for anything but OnRevoked, and keeps nothing of c.
//
// When the decider is an index of this process, c should be applied there
// first; it is waited for otherwise.
func (e *Enforcer) Applied(c *events.Commit) {
	found := map[*binding]struct{}{}
	e.live.mu.Lock()
	e.live.applied = max(e.live.applied, c.Seq)
	e.live.mu.Unlock()
	for i := range c.Records {
		r := &c.Records[i]
		f := effectOf(r)
		e.live.affected(&f, found)
		if f.ended {
			reason := token.ReasonRevoked
			if _, disabled := r.Data.(*events.TokenDisabled); disabled {
				reason = token.ReasonDisabled
			}
			e.endToken(f.id, reason, c.Seq, found)
		}
		if v, ok := revocationOf(r); ok && e.cfg.OnRevoked != nil {
			e.cfg.OnRevoked(v)
		}
	}
	e.recheck(found, c.Seq)
}

// endToken ends what is bound to a token without asking anybody, and takes it
// out of found.
func (e *Enforcer) endToken(id token.ID, reason token.Reason, seq uint64, found map[*binding]struct{}) {
	for b := range found {
		if len(b.restsOn) > 0 && b.restsOn[0] == id {
			delete(found, b)
			b.end(token.Decision{Verdict: token.VerdictDeny, Reason: reason, Token: id, Sequence: seq})
		}
	}
}

// Lost says that the feed will deliver no more. Everything that is bound is
// looked at: the decider may have an answer without the feed, or not.
func (e *Enforcer) Lost(error) {
	found := map[*binding]struct{}{}
	e.live.affected(&effect{all: true}, found)
	e.recheck(found, 0)
}

// recheck looks at bindings, in the background.
func (e *Enforcer) recheck(found map[*binding]struct{}, seq uint64) {
	if len(found) == 0 {
		return
	}
	queue := make(chan *binding, len(found))
	for b := range found {
		queue <- b
	}
	close(queue)
	for range min(recheckers, len(found)) {
		go func() {
			for b := range queue {
				b.check(seq > 0, seq)
			}
		}()
	}
}
