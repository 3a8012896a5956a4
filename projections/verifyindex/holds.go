package verifyindex

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	json "github.com/go-json-experiment/json"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

// The types at which every tree of resources begins; every catalogue has them.
const (
	accountPrefix = "com.cloudflare.api.account."
	userPrefix    = "com.cloudflare.api.user."
)

// held reports whether the owner of an entry, whose own policies allow what is
// asked, holds it now: a token never does more than its owner may. When the
// entry alone does not tell, afar is set and the answer is no.
func (q *query) held(r rowView) bool {
	if q.inAccount {
		if r.ownerKind() == token.OwnerAccount {
			if r.owner() == q.account {
				return true
			}
		} else {
			for in := r.holdings(); len(in) >= heldLen; in = in[heldLen:] {
				if token.ID(in[:16]) == q.account && q.cat.RoleHolds(catalogue.RoleNumber(binary.LittleEndian.Uint16(in[16:])), q.perm) {
					return true
				}
			}
		}
	}
	return q.heldElsewhere(r, q.chain[0]) // a policy has matched a key
}

// lookAhead reads the account in which the chain begins, if it does in one: to
// do so before the entry has come costs nothing.
func (q *query) lookAhead() {
	if len(q.chain) == 0 {
		return
	}
	if id, ok := strings.CutPrefix(q.chain[0], accountPrefix); ok {
		var err error
		q.account, err = token.ParseID(id)
		q.inAccount = err == nil
	}
}

// heldElsewhere is held for what is not plainly in an account of the owner.
func (q *query) heldElsewhere(r rowView, key string) bool {
	at := rootOf(key)
	if at.kind == rootUser {
		return r.ownerKind() == token.OwnerUser && at.id == r.owner()
	}
	if at.kind == rootAccount && (r.ownerKind() == token.OwnerAccount || r.holder() == 0) {
		return false // all that the owner holds is in the entry
	}
	q.d.ByPlace = at.kind == rootNone
	if q.sight == nil {
		q.afar = true
		return false
	}
	at, err := q.sight.find(q.chain)
	if err != nil {
		q.broken = true
		return false
	}
	if r.ownerKind() == token.OwnerAccount {
		return at.kind == rootNone || at.kind == rootAccount && at.id == r.owner()
	}
	held, err := q.sight.holds(q, r.owner(), r.holder()&holderOperator != 0, at)
	q.broken = err != nil
	return held
}

type rootKind uint8

const (
	rootNone    rootKind = iota // nobody is registered for it
	rootAccount                 // an account
	rootUser                    // a user
	rootGone                    // what it lies in is gone: it is nobody's
)

// root is where a tree of resources begins.
type root struct {
	kind rootKind
	id   token.ID // zero for one that is no id of ours, which nobody has
}

// rootOf returns the root that a key names, or rootNone when it names
// something that lies in one.
func rootOf(key string) root {
	for _, p := range []struct {
		prefix string
		kind   rootKind
	}{{accountPrefix, rootAccount}, {userPrefix, rootUser}} {
		if id, ok := strings.CutPrefix(key, p.prefix); ok && strings.IndexByte(id, '.') < 0 {
			parsed, _ := token.ParseID(id)
			return root{p.kind, parsed}
		}
	}
	return root{}
}

// sight is all rows as they are after one batch.
type sight struct{ rows *pebble.Snapshot }

// get returns a copy of a row.
func (s *sight) get(key []byte) ([]byte, bool, error) {
	v, closer, err := s.rows.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return append([]byte(nil), v...), true, closer.Close()
}

func (s *sight) account(id token.ID) (account, bool, error) {
	raw, there, err := s.get(accountKey(id))
	if err != nil || !there {
		return account{}, false, err
	}
	a, err := decodeAccount(raw)
	return a, true, err
}

// maxDepth is how deep resources may lie in each other: as many types as a
// catalogue can have.
const maxDepth = catalogue.MaxTypes

// find returns the root of a chain. The first of its keys that is a root, or
// registered, decides.
func (s *sight) find(chain []string) (root, error) {
	for _, key := range chain {
		if at := rootOf(key); at.kind != rootNone {
			return at, nil
		}
		parent, there, err := s.get(resourceKey(key))
		if err != nil {
			return root{}, err
		}
		if there {
			return s.climb(string(parent))
		}
	}
	return root{}, nil
}

// climb returns the root above a registered resource, from its parent on.
func (s *sight) climb(key string) (root, error) {
	for range maxDepth {
		switch at := rootOf(key); at.kind {
		case rootAccount:
			a, _, err := s.account(at.id)
			if err == nil && !a.alive {
				at = root{kind: rootGone}
			}
			return at, err
		case rootUser:
			return at, nil // a user that was removed asks for nothing
		}
		parent, there, err := s.get(resourceKey(key))
		if err != nil || !there {
			return root{kind: rootGone}, err
		}
		key = string(parent)
	}
	return root{kind: rootGone}, nil
}

// holds reports whether a user holds what q asks for below a root.
func (s *sight) holds(q *query, user token.ID, operator bool, at root) (bool, error) {
	switch at.kind {
	case rootNone:
		return operator, nil
	case rootUser:
		return at.id == user, nil
	case rootAccount:
		roles, err := s.roles(user, at.id)
		for _, name := range roles {
			if n, ok := q.cat.RoleNumber(name); ok && q.cat.RoleHolds(n, q.perm) {
				return true, nil
			}
		}
		if err != nil || !operator {
			return false, err
		}
		_, known, err := s.account(at.id)
		return !known, err
	}
	return false, nil
}

// roles returns the roles of a user in an account.
func (s *sight) roles(user, account token.ID) (names []string, err error) {
	raw, there, err := s.get(memberKey(user, account))
	if err != nil || !there {
		return nil, err
	}
	return names, json.Unmarshal(raw, &names)
}

// lookAfar answers q again, from the rows: what it asks for is not plainly in
// an account of the owner. All of them are read as they are after one batch,
// the entry too, so that the answer is one that was right at some sequence.
func (x *Index) lookAfar(digest *token.Digest, q *query) {
	s := &sight{x.store.DB().NewSnapshot()}
	defer s.rows.Close()
	q.sweeps = x.view.Load().sweeps // after the snapshot: they are shown before their rows are there
	row, _, err := s.get(append([]byte{rowEntry}, digest[:]...))
	if err != nil {
		q.d.Reason = token.ReasonNotReady
		return
	}
	q.sight = s
	q.d.Until, q.d.ByAddress, q.d.ByPlace = time.Time{}, false, false
	q.answerRow(row)
	q.sight, q.afar = nil, false
	if q.broken {
		q.d.Reason, q.d.Policy = token.ReasonNotReady, token.ID{}
	}
}

// verifyKey is verify for a user's Global API Key. It has no policies: it may
// do what its user holds, until keys end in the account that is asked about.
func (x *Index) verifyKey(d *token.Decision, v *view, ceiling time.Duration, digest *token.Digest, req *token.Request, now time.Time) {
	for {
		perm := v.cat.Permission(req.Permission)
		d.Bound = x.bound(v.cat, perm, ceiling)
		if d.Age, d.Stale, d.Reason = x.fresh(v, now, d.Bound); d.Reason != token.ReasonNone {
			d.Verdict = token.VerdictUnavailable
			return
		}
		s := &sight{x.store.DB().NewSnapshot()}
		err := s.decideKey(digest, &query{d: d, cat: v.cat, perm: perm, chain: req.Resource, now: now})
		if err = errors.Join(err, s.rows.Close()); err != nil {
			d.Reason = token.ReasonNotReady
		}
		last := x.view.Load()
		if d.Reason != token.ReasonNone || last.cat == v.cat {
			break
		}
		v = last
	}
	d.Verdict = d.Reason.Verdict()
}

func (s *sight) decideKey(digest *token.Digest, q *query) error {
	d := q.d
	raw, there, err := s.get(keyKey(*digest))
	if err != nil {
		return err
	}
	if d.Reason = token.ReasonUnknown; !there {
		return nil
	}
	if len(raw) != keyRowLen {
		return errBrokenRow
	}
	user := token.ID(raw[:16])
	d.Owner, d.OwnerKind = user, token.OwnerUser
	switch {
	case raw[16] != 1:
		d.Reason = token.ReasonRevoked
		return nil
	case len(q.chain) > token.MaxChain:
		d.Reason = token.ReasonMalformed
		return nil
	case !q.perm.Known():
		d.Reason = token.ReasonUnknownPermission
		return nil
	}
	d.Reason = token.ReasonNoPolicy
	if len(q.chain) == 0 {
		return nil
	}
	for _, key := range q.chain {
		// No policy has matched it: it may be anything.
		if _, _, ok := q.cat.TypeOf(key); !ok {
			return nil
		}
	}
	d.ByPlace = rootOf(q.chain[0]).kind == rootNone
	at, err := s.find(q.chain)
	if err != nil {
		return err
	}
	return s.decideKeyAt(q, user, at)
}

var errBrokenRow = errors.New("verifyindex: a row is damaged")

// decideKeyAt decides about a key that is good, below a root.
func (s *sight) decideKeyAt(q *query, user token.ID, at root) error {
	raw, there, err := s.get(userKey(user))
	if err != nil || !there {
		return errors.Join(err, errBrokenRow)
	}
	operator, _, err := decodeUser(raw)
	if err != nil {
		return err
	}
	held, err := s.holds(q, user, operator, at)
	if err != nil || !held || at.kind == rootUser && !userScoped(q.cat, q.perm) {
		return err
	}
	q.d.Reason = token.ReasonNone
	if at.kind != rootAccount {
		return nil
	}
	a, _, err := s.account(at.id)
	if q.d.Until = a.keysEnd; !a.keysEnd.IsZero() && !q.now.Before(a.keysEnd) {
		q.d.Reason, q.d.Until = token.ReasonExpired, time.Time{}
	}
	return err
}

// userScoped reports whether a permission can be given on users.
func userScoped(cat *catalogue.Catalogue, p catalogue.PermissionRef) bool {
	t, _ := cat.TypeNumber(strings.TrimSuffix(userPrefix, "."))
	for i, word := range cat.PermissionGroups(p) {
		for n := range 64 {
			if word>>n&1 != 0 && cat.Scopes(catalogue.GroupNumber(i*64+n))&(1<<t) != 0 {
				return true
			}
		}
	}
	return false
}
