package authority

import (
	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

func (v *view) applyToken(r *events.Record) error {
	top := v.layers[0]
	before, _, fresh := find(v, r.SubjectID(), func(l *layer) *table[token.ID, *aggregate.Token] { return &l.tokens }, ptr(v.past.Token))
	counts, counted := v.countsBefore(r, before)
	if err := evolve(v, &top.tokens, before, fresh, (*aggregate.Token).Apply, func(t *aggregate.Token) uint64 { return t.Seq }, r); err != nil {
		return err
	}
	t, ok := top.tokens.get(r.SubjectID())
	if !ok {
		return nil // the past reflects it already, with all that follows from it
	}
	kind := token.KindUser
	if t.OwnerKind == events.OwnedByAccount {
		kind = token.KindAccount
	}
	if before != nil && before.Seq != 0 {
		top.drop(before.Secret, r.Seq)
		top.drop(before.Previous, r.Seq)
	}
	v.count(before, t, counts, counted, r.Seq)
	if t.Status != aggregate.Revoked {
		top.hold(t.Secret, credential{Kind: kind, ID: t.ID}, r.Seq)
		top.hold(t.Previous, credential{Kind: kind, ID: t.ID, Until: t.PreviousUntil}, r.Seq)
	}
	request := ""
	switch d := r.Data.(type) {
	case *events.TokenCreated:
		request = d.Request
	case *events.TokenRolled:
		request = d.Request
	}
	if request != "" {
		top.requests.set(request, aggregate.Request{Token: t.ID, Number: r.Number, Time: r.Time, SecretVersion: t.SecretVersion}, r.Seq)
	}
	return nil
}

// countsBefore returns how many tokens the owner had before a record that makes
// or ends one; of other records nothing. Fresh is as of find.
func (v *view) countsBefore(r *events.Record, before *aggregate.Token) (n aggregate.Counts, fresh bool) {
	switch d := r.Data.(type) {
	case *events.TokenCreated:
		return v.counts(aggregate.Owner{Kind: d.OwnerKind, ID: d.Owner})
	case *events.TokenRevoked:
		if before != nil {
			return v.counts(before.OwnedBy())
		}
	}
	return n, false
}

// count moves the number of an owner's tokens, which was n, when one came into
// being or ended, unless the past has counted that already.
func (v *view) count(before, t *aggregate.Token, n aggregate.Counts, fresh bool, seq uint64) {
	lived := before != nil && before.Seq != 0 && before.Status != aggregate.Revoked
	lives := t.Status != aggregate.Revoked
	if lived == lives || !fresh && n.Seq >= seq {
		return
	}
	if lives {
		n.All++
		n.Live++
	} else if n.Live > 0 {
		n.Live--
	}
	n.Seq = seq
	v.layers[0].counts.set(t.OwnedBy(), n, seq)
}

// drop and hold say that nobody, or somebody, has this secret. A digest that is
// not there is no secret.
func (l *layer) drop(d token.Digest, seq uint64) {
	if !d.IsZero() {
		l.digests.set(d, credential{}, seq)
	}
}

func (l *layer) hold(d token.Digest, c credential, seq uint64) {
	if !d.IsZero() {
		l.digests.set(d, c, seq)
	}
}

// applyUser leaves the tokens and memberships of a removed user alone: whoever
// decides asks whether the owner is still there.
func (v *view) applyUser(r *events.Record) error {
	top := v.layers[0]
	before, _, fresh := find(v, r.SubjectID(), func(l *layer) *table[token.ID, *aggregate.User] { return &l.users }, ptr(v.past.User))
	if err := evolve(v, &top.users, before, fresh, (*aggregate.User).Apply, func(u *aggregate.User) uint64 { return u.Seq }, r); err != nil {
		return err
	}
	u, ok := top.users.get(r.SubjectID())
	if !ok {
		return nil
	}
	if before != nil && before.Seq != 0 {
		top.drop(before.Key, r.Seq)
		top.emails.set(before.EmailIndex, token.ID{}, r.Seq)
	}
	if u.Status != aggregate.Revoked {
		top.hold(u.Key, credential{Kind: token.KindKey, ID: u.ID}, r.Seq)
		top.emails.set(u.EmailIndex, u.ID, r.Seq)
	}
	return nil
}

// applyMember finds the membership by its account and user, which its events
// carry and which never change, because only the pair tells whether the past
// knows of another membership in its place.
func (v *view) applyMember(r *events.Record) error {
	top := v.layers[0]
	var account, user token.ID
	switch d := r.Data.(type) {
	case *events.MemberAdded:
		account, user = d.Account, d.User
	case *events.MemberChanged:
		account, user = d.Account, d.User
	case *events.MemberRemoved:
		account, user = d.Account, d.User
	}
	var before *aggregate.Member
	fresh := false
	for _, l := range v.layers {
		if before, fresh = l.members.get(r.SubjectID()); fresh {
			break
		}
	}
	if !fresh && !v.pairKnown(account, user) {
		m, ok, err := v.past.MemberOf(account, user)
		if err != nil {
			v.fail(err)
			return err
		}
		_, adds := r.Data.(*events.MemberAdded)
		switch {
		case ok && m.ID == r.SubjectID():
			before = &m
		case ok, !adds:
			// The past is further on: this membership has ended there,
			// perhaps with another one in its place.
			return nil
		}
	}
	if err := evolve(v, &top.members, before, fresh, (*aggregate.Member).Apply, func(m *aggregate.Member) uint64 { return m.Seq }, r); err != nil {
		return err
	}
	m, ok := top.members.get(r.SubjectID())
	if !ok {
		return nil
	}
	id := m.ID
	if m.Status == aggregate.Revoked {
		id = token.ID{}
	}
	top.pairs.set([2]token.ID{account, user}, id, r.Seq)
	return nil
}

// pairKnown says whether a layer knows of a membership of user in account, or
// of its end.
func (v *view) pairKnown(account, user token.ID) bool {
	for _, l := range v.layers {
		if _, ok := l.pairs.get([2]token.ID{account, user}); ok {
			return true
		}
	}
	return false
}

// applyResource finds the registration by its key, which its events carry and
// which never changes: the past has no look-up by its id.
func (v *view) applyResource(r *events.Record) error {
	top := v.layers[0]
	kind, id, _ := aggregate.ResourceOf(r)
	key := aggregate.ResourceKey(kind, id)
	s, ok, fresh := find(v, key, func(l *layer) *table[string, *aggregate.Resource] { return &l.resources }, ptr(v.past.Resource))
	if v.err != nil {
		return v.err
	}
	_, registers := r.Data.(*events.ResourceRegistered)
	next := new(aggregate.Resource)
	switch {
	case ok && s.ID == r.SubjectID():
		*next = *s
	case fresh && registers && s.Status == aggregate.Revoked, !ok && registers:
	default:
		if fresh {
			return aggregate.ErrImpossible
		}
		return nil // the past is further on: this registration has ended there
	}
	if !fresh && next.Seq >= r.Seq {
		return nil
	}
	if err := next.Apply(r); err != nil {
		return err
	}
	top.resources.set(key, next, r.Seq)
	return nil
}

func (v *view) applyCatalogue(r *events.Record) error {
	c, ok, fresh := v.findPublished()
	if v.err != nil {
		return v.err
	}
	next := new(aggregate.Catalogue)
	if ok {
		*next = *c
	}
	if !fresh && next.Seq >= r.Seq {
		return nil
	}
	if err := next.Apply(r); err != nil {
		return err
	}
	v.layers[0].published.set(struct{}{}, next, r.Seq)
	return nil
}

func (v *view) applyEnforcer(r *events.Record) error {
	top := v.layers[0]
	before, _, fresh := find(v, r.SubjectID(), func(l *layer) *table[token.ID, *aggregate.Enforcer] { return &l.enforcers }, ptr(v.past.Enforcer))
	if err := evolve(v, &top.enforcers, before, fresh, (*aggregate.Enforcer).Apply, func(n *aggregate.Enforcer) uint64 { return n.Seq }, r); err != nil {
		return err
	}
	n, ok := top.enforcers.get(r.SubjectID())
	if !ok {
		return nil
	}
	if n.Nkey != "" {
		top.nkeys.set(n.Nkey, credential{Kind: token.KindEnforcer, ID: n.ID}, r.Seq)
	}
	if n.Status == aggregate.Active {
		top.hold(n.Secret, credential{Kind: token.KindEnforcer, ID: n.ID}, r.Seq)
	} else {
		top.drop(n.Secret, r.Seq)
	}
	return nil
}

func (v *view) applyConsumer(r *events.Record) error {
	top := v.layers[0]
	before, _, fresh := find(v, r.SubjectID(), func(l *layer) *table[token.ID, *aggregate.Consumer] { return &l.consumers }, ptr(v.past.Consumer))
	if err := evolve(v, &top.consumers, before, fresh, (*aggregate.Consumer).Apply, func(n *aggregate.Consumer) uint64 { return n.Seq }, r); err != nil {
		return err
	}
	if n, ok := top.consumers.get(r.SubjectID()); ok {
		top.nkeys.set(n.Nkey, credential{Kind: token.KindConsumer, ID: n.ID}, r.Seq)
	}
	return nil
}
