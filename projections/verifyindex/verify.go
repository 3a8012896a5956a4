package verifyindex

import (
	"crypto/sha256"
	"net/netip"
	"runtime"
	"time"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

// Verify answers whether the bearer of a secret may do what req asks for. It
// does no I/O but in disk mode, and allocates nothing.
//
// A request without a time is asked for now. Everything else about time, the
// grace of a replaced secret included, goes by the index's own clock.
func (x *Index) Verify(secret string, req *token.Request) token.Decision {
	return x.VerifyWithin(0, secret, req)
}

// VerifyWithin is Verify for an enforcer whose staleness bound has a ceiling;
// zero means none.
func (x *Index) VerifyWithin(ceiling time.Duration, secret string, req *token.Request) (d token.Decision) {
	// A verification is mostly waiting for memory: for the slot of the digest
	// and then for the entry. So the digest comes first, and everything else is
	// done while they are on their way.
	d.Sequence = x.sequence.Load()
	v := x.view.Load()
	if v.format.Brand == "" {
		d.Verdict, d.Reason = token.VerdictUnavailable, token.ReasonNotReady
		return d
	}
	if len(secret) > longestSecret {
		d.Reason, d.Bound = token.ReasonMalformed, x.boundOf(v, req, ceiling)
		return d
	}
	digest := token.Sum(secret)
	if v.table != nil {
		v.table.nearSlot(&digest)
	}
	now := x.o.Now()
	if v.table != nil {
		v.table.nearEntry(&digest)
	}
	kind, err := v.format.Parse(secret)
	switch {
	case err == nil && (kind == token.KindUser || kind == token.KindAccount):
	case err == nil && kind == token.KindKey:
		x.verifyKey(&d, v, ceiling, &digest, req, now)
		return d
	case err == nil:
		// It is a secret, but not one that does anything at an enforcer.
		d.Reason, d.Bound = token.ReasonUnknown, x.boundOf(v, req, ceiling)
		return d
	case !v.takes(secret):
		d.Reason, d.Bound = token.ReasonMalformed, x.boundOf(v, req, ceiling)
		return d
	default:
		digest, d.Foreign = foreignDigest(secret), true
	}
	x.verify(&d, v, ceiling, &digest, req, now)
	return d
}

// longestSecret is longer than any secret: more is not worth a digest.
const longestSecret = token.ForeignMax

// takes reports whether a secret that is not of our form may be one that was
// taken over from another system.
func (v *view) takes(secret string) bool {
	return v.foreign && len(secret) >= token.ForeignMin && len(secret) <= token.ForeignMax
}

func foreignDigest(secret string) token.Digest {
	var room [longestSecret]byte // takes has seen that it fits
	return token.SumForeign(sha256.Sum256(room[:copy(room[:], secret)]))
}

// VerifyDigest is VerifyWithin for callers that hold the digest only.
func (x *Index) VerifyDigest(ceiling time.Duration, digest token.Digest, req *token.Request) (d token.Decision) {
	d.Sequence = x.sequence.Load()
	v := x.view.Load()
	if v.table != nil {
		v.table.nearSlot(&digest)
	}
	now := x.o.Now()
	if v.table != nil {
		v.table.nearEntry(&digest)
	}
	x.verify(&d, v, ceiling, &digest, req, now)
	return d
}

// verify fills d, whose sequence was read before anything else.
func (x *Index) verify(d *token.Decision, v *view, ceiling time.Duration, digest *token.Digest, req *token.Request, now time.Time) {
	perm := v.cat.Permission(req.Permission)
	d.Bound = x.bound(v.cat, perm, ceiling)
	if d.Age, d.Stale, d.Reason = x.fresh(v, now, d.Bound); d.Reason != token.ReasonNone {
		d.Verdict = token.VerdictUnavailable
		return
	}
	q := query{d: d, cat: v.cat, perm: perm, chain: req.Resource, addr: req.Address, now: now, at: req.Time}
	if q.at.IsZero() {
		q.at = now
	}
	q.lookAhead()
	for {
		q.cat, q.perm = v.cat, perm
		x.lookup(v, digest, &q)
		if q.afar {
			x.lookAfar(digest, &q)
		}
		// A catalogue that holds from now on and an entry from after that do
		// not go with the one before it.
		now := x.view.Load()
		if d.Reason != token.ReasonNone || now.cat == v.cat {
			break
		}
		v, perm = now, now.cat.Permission(req.Permission)
		d.Until, d.ByAddress, d.ByPlace = time.Time{}, false, false
	}
	d.Verdict = d.Reason.Verdict()
}

// bound is how old an answer about a permission may be. An unknown permission
// has the strictest bound.
func (x *Index) bound(cat *catalogue.Catalogue, perm catalogue.PermissionRef, ceiling time.Duration) time.Duration {
	p, _ := cat.PermissionAt(perm)
	bound := x.o.Bounds.of(p.Class)
	if ceiling > 0 {
		bound = min(bound, ceiling)
	}
	return bound
}

func (x *Index) boundOf(v *view, req *token.Request, ceiling time.Duration) time.Duration {
	return x.bound(v.cat, v.cat.Permission(req.Permission), ceiling)
}

// fresh says how old the index's knowledge is and whether that is too old.
func (x *Index) fresh(v *view, now time.Time, bound time.Duration) (age time.Duration, stale bool, reason token.Reason) {
	age, known := x.water.Age(now)
	if !v.ready || !known {
		return 0, false, token.ReasonNotReady
	}
	if age > bound {
		return age, true, token.ReasonStale
	}
	return age, age > StaleAfter, token.ReasonNone
}

// query is one question, and where its answer goes.
type query struct {
	cat   *catalogue.Catalogue
	perm  catalogue.PermissionRef
	chain []string
	addr  netip.Addr
	now   time.Time // for the grace of a secret
	at    time.Time // for the grant
	d     *token.Decision

	account   token.ID // in which the chain begins
	inAccount bool     // whether it does

	identity *Identity // when not nil, it is filled too

	// afar says that the entry alone does not tell; sight is then the rows
	// that do.
	afar  bool
	sight *sight
	// broken says that a row could not be read.
	broken bool
	sweeps *sweeps
}

// lookup finds the entry of a digest and answers q from it.
func (x *Index) lookup(v *view, digest *token.Digest, q *query) {
	q.sweeps = v.sweeps
	for v.table != nil {
		e, block, moved := v.table.find(digest)
		if !moved {
			q.answer(e)
			runtime.KeepAlive(block)
			return
		}
		v = x.view.Load()
		q.sweeps = v.sweeps
	}
	if v.gen == nil {
		q.d.Reason = token.ReasonNotReady // closed meanwhile
		return
	}
	r, err := v.gen.take()
	if err != nil {
		q.d.Reason = token.ReasonNotReady
		return
	}
	defer v.gen.give(r)
	row, err := r.find(digest)
	if err != nil {
		// What cannot be read may be there: it is not unknown.
		q.d.Reason = token.ReasonNotReady
		return
	}
	q.answerRow(row)
}

// answer answers from an entry in the table; nil is a digest that is not known.
func (q *query) answer(e entry) {
	if e == nil {
		q.d.Reason = token.ReasonUnknown
		return
	}
	q.decide(rowView{row: e.row(), state: e.load()})
}

// answerRow answers from a row of the store.
func (q *query) answerRow(row []byte) {
	if row == nil {
		q.d.Reason = token.ReasonUnknown
		return
	}
	r, ok := viewRow(row)
	if !ok {
		q.d.Reason = token.ReasonNotReady
		return
	}
	q.decide(r)
}

func (q *query) decide(r rowView) {
	d := q.d
	d.Token, d.Owner, d.OwnerKind = r.token(), r.owner(), r.ownerKind()
	if d.OwnerKind == token.OwnerAccount {
		d.Account = d.Owner
	}
	if q.identity != nil {
		q.identity.fill(r)
	}
	switch s := r.state; {
	case s.has(flagsDead), s.has(flagReplaced) && q.now.UnixMilli() >= s.until(), q.sweeps != nil && q.sweeps.take(r):
		d.Reason = token.ReasonRevoked
		return
	case s.has(flagDisabled):
		d.Reason = token.ReasonDisabled
	default:
		allowed := false
		d.Reason, d.Policy, allowed = r.grant().Evaluate(q.cat, q.perm, q.chain, q.addr, q.at)
		if allowed && !q.held(r) {
			d.Reason, d.Policy = token.ReasonNoPolicy, token.ID{}
		}
	}
	d.ByAddress, d.Until = r.grant().ByAddress(), r.grant().Changes(q.now)
	if r.state.has(flagReplaced) {
		if end := fromMilli(r.state.until()); d.Until.IsZero() || end.Before(d.Until) {
			d.Until = end // it is not over yet, else it would have been revoked
		}
	}
}

// Identity is what a secret is, whatever it may do.
type Identity struct {
	Kind      token.Kind // of the secret; of one of another system by its owner
	Token     token.ID
	Owner     token.ID
	OwnerKind token.OwnerKind
	NotBefore time.Time // zero when open
	ExpiresOn time.Time // zero when open
	// Number is that of the event that created the token.
	Number uint64
	// Until is when this secret ends because another has replaced it; zero
	// for the newest one.
	Until    time.Time
	Sequence uint64
	Age      time.Duration
	Stale    bool
}

func (id *Identity) fill(r rowView) {
	id.Token, id.Owner, id.OwnerKind, id.Number = r.token(), r.owner(), r.ownerKind(), r.number()
	if id.Kind = token.KindUser; id.OwnerKind == token.OwnerAccount {
		id.Kind = token.KindAccount
	}
	id.NotBefore, id.ExpiresOn = r.grant().Validity()
	if r.state.has(flagReplaced) {
		id.Until = fromMilli(r.state.until())
	}
}

// Identify answers whose a secret is and whether its token is good at all from
// this address: token.ReasonNone when it is, and else the first reason against
// it: malformed, unknown, revoked, disabled, not_yet_valid, expired, address,
// or not_ready and stale when that cannot be told. The identity is filled as
// far as the secret was recognised.
func (x *Index) Identify(secret string, addr netip.Addr) (Identity, token.Reason) {
	id := Identity{Sequence: x.sequence.Load()}
	v := x.view.Load()
	if v.format.Brand == "" {
		return id, token.ReasonNotReady
	}
	kind, err := v.format.Parse(secret)
	digest := token.Sum(secret)
	switch {
	case err == nil:
		if id.Kind = kind; kind != token.KindUser && kind != token.KindAccount {
			return id, token.ReasonUnknown
		}
	case v.takes(secret):
		digest = foreignDigest(secret)
	default:
		return id, token.ReasonMalformed
	}
	now := x.o.Now()
	var reason token.Reason
	if id.Age, id.Stale, reason = x.fresh(v, now, x.o.Bounds.Read); reason != token.ReasonNone {
		return id, reason
	}
	var d token.Decision
	x.lookup(v, &digest, &query{cat: v.cat, addr: addr, now: now, at: now, d: &d, identity: &id})
	if d.Reason == token.ReasonUnknownPermission {
		// No permission was asked for; everything that is checked before
		// the permission holds.
		d.Reason = token.ReasonNone
	}
	return id, d.Reason
}
