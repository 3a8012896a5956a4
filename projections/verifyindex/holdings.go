package verifyindex

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
)

// What a user holds lies in the entries of their tokens, behind the compiled
// grant: for each role in each account the account's id and the role's number,
// sorted. Whoever holds more than mostHeld has none of it there, and a flag
// that says to look into the rows.
const (
	heldLen  = 16 + 2
	mostHeld = 32

	holderOperator = 1 // the owner runs this installation
	holderMore     = 2 // the owner holds more than the entry says
)

// mostHolders bounds what is remembered of users between batches.
const mostHolders = 1 << 14

// offHoldings is where the holdings of an entry begin.
func (e entry) offHoldings() int { return len(e) - int(e[offHeld])*heldLen }

func (r rowView) holder() byte { return r.row[offHolder-digestLen] }

// holdings returns the holdings in the row; viewRow has seen that they fit.
func (r rowView) holdings() []byte {
	return r.row[len(r.row)-int(r.row[offHeld-digestLen])*heldLen:]
}

// holder is what the index knows of a user.
type holder struct {
	operator bool
	key      token.Digest // of the API key; zero when there is none
	members  []membership // by account
	owns     bool         // in a load: has a token

	compiled bool // whether these two are made
	flags    byte
	holdings []byte
}

// membership is what roles a user has in an account.
type membership struct {
	account token.ID
	roles   []string
}

func (m membership) compare(account token.ID) int { return m.account.Compare(account) }

// holder returns what is known of a user. It reads the rows once: from then on
// whoever changes one changes the other.
func (w *writer) holder(user token.ID) (*holder, error) {
	if h, ok := w.holders[user]; ok {
		return h, nil
	}
	h := new(holder)
	if w.batch != nil {
		if err := w.readHolder(h, user); err != nil {
			return nil, err
		}
	}
	w.holders[user] = h
	return h, nil
}

func (w *writer) readHolder(h *holder, user token.ID) error {
	raw, ok, err := w.x.store.Get(userKey(user))
	if err != nil {
		return err
	}
	if ok {
		if h.operator, h.key, err = decodeUser(raw); err != nil {
			return err
		}
	}
	lower := append([]byte{rowMember}, user[:]...)
	return w.x.within(lower, successor(lower), func(k, v []byte) error {
		m := membership{}
		if err := json.Unmarshal(v, &m.roles); err != nil || len(k) != 1+2*16 {
			return fmt.Errorf("%w: member row", projector.ErrDamaged)
		}
		m.account = token.ID(k[1+16:])
		h.members = append(h.members, m)
		return nil
	})
}

func userKey(user token.ID) []byte { return append([]byte{rowUser}, user[:]...) }

func memberKey(user, account token.ID) []byte {
	return append(append([]byte{rowMember}, user[:]...), account[:]...)
}

func ofAccountKey(account, user token.ID) []byte {
	return append(append([]byte{rowOfAccount}, account[:]...), user[:]...)
}

func resourceKey(key string) []byte { return append([]byte{rowResource}, key...) }

// A user's row is one byte of flags and the digest of their API key.
func (h *holder) row() []byte {
	b := []byte{0}
	if h.operator {
		b[0] = holderOperator
	}
	return append(b, h.key[:]...)
}

func decodeUser(raw []byte) (operator bool, key token.Digest, err error) {
	if len(raw) != 1+len(key) {
		return false, key, fmt.Errorf("%w: user row", projector.ErrDamaged)
	}
	return raw[0]&holderOperator != 0, token.Digest(raw[1:]), nil
}

// compile returns what the entries of a user's tokens say of their holdings. A
// role that no catalogue ever had allows nothing.
func (x *Index) compile(h *holder) (holdings []byte, flags byte) {
	if h.compiled {
		return h.holdings, h.flags
	}
	h.compiled, h.flags, h.holdings = true, 0, h.holdings[:0]
	if h.operator {
		h.flags |= holderOperator
	}
	cat := x.view.Load().cat
	var numbers []uint16
	for _, m := range h.members {
		numbers = numbers[:0]
		for _, name := range m.roles {
			if n, ok := cat.FormerRoleNumber(name); ok {
				numbers = append(numbers, uint16(n))
			}
		}
		slices.Sort(numbers)
		for _, n := range slices.Compact(numbers) {
			h.holdings = binary.LittleEndian.AppendUint16(append(h.holdings, m.account[:]...), n)
		}
	}
	if len(h.holdings) > mostHeld*heldLen {
		h.flags, h.holdings = h.flags|holderMore, h.holdings[:0]
	}
	return h.holdings, h.flags
}

// withHoldings returns the entry, which ends with its grant, with what its
// owner holds.
func (x *Index) withHoldings(e entry) (entry, error) {
	e[offHeld], e[offHolder] = 0, 0
	if e.ownerKind() != token.OwnerUser {
		return e.sized(), nil
	}
	h, err := x.w.holder(e.owner())
	if err != nil {
		return nil, err
	}
	h.owns = true
	holdings, flags := x.compile(h)
	e[offHeld], e[offHolder] = byte(len(holdings)/heldLen), flags
	return append(e, holdings...).sized(), nil
}

// recompile writes what a user holds into the entries of their tokens.
func (x *Index) recompile(user token.ID, h *holder) error {
	h.compiled = false
	if x.w.batch == nil && !h.owns {
		return nil
	}
	ids, err := x.w.tokensOf(user)
	if err != nil {
		return err
	}
	for _, id := range ids {
		err := x.eachSecret(id, func(e entry) error {
			if e.load().hopeless() {
				return nil
			}
			n := e[:e.offHoldings()].copyWith(e.digest())
			n.setState(e.load())
			n, err := x.withHoldings(n)
			if err != nil || bytes.Equal(n, e) {
				return err
			}
			return x.w.put(n)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachSecret calls fn for the entries of a token's secrets that may verify.
func (x *Index) eachSecret(id token.ID, fn func(entry) error) error {
	l, _, err := x.w.linksOf(id)
	if err != nil {
		return err
	}
	for _, d := range []token.Digest{l.current, l.previous} {
		if d.IsZero() {
			continue
		}
		e, err := x.w.entry(d)
		if err != nil || e == nil {
			return impossible(err, "the entry of token %v is missing", id)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

func (x *Index) registered(user token.ID, d *events.UserRegistered) error {
	h, err := x.w.holder(user)
	if err != nil {
		return err
	}
	h.operator = d.Operator
	if err := x.w.set(userKey(user), h.row()); err != nil {
		return err
	}
	return x.recompile(user, h)
}

// member gives a user these roles in an account. One that was removed has no
// members.
func (x *Index) member(user, account token.ID, roles []string) error {
	for _, id := range []token.ID{user, account} {
		if _, gone := x.removed[id]; gone {
			return impossible(nil, "user %v becomes a member of account %v, and one of them was removed", user, account)
		}
	}
	h, err := x.w.holder(user)
	if err != nil {
		return err
	}
	at, there := slices.BinarySearchFunc(h.members, account, membership.compare)
	if !there {
		h.members = slices.Insert(h.members, at, membership{account: account})
		if x.w.batch == nil {
			x.bulk.members[account] = append(x.bulk.members[account], user)
		}
		if err := x.w.set(ofAccountKey(account, user), nil); err != nil {
			return err
		}
	}
	h.members[at].roles = slices.Clone(roles)
	raw, err := json.Marshal(roles)
	if err != nil {
		return err
	}
	if err := x.w.set(memberKey(user, account), raw); err != nil {
		return err
	}
	return x.recompile(user, h)
}

func (x *Index) memberRemoved(user, account token.ID) error {
	h, err := x.w.holder(user)
	if err != nil {
		return err
	}
	at, there := slices.BinarySearchFunc(h.members, account, membership.compare)
	if !there {
		return nil
	}
	h.members = slices.Delete(h.members, at, at+1)
	for _, key := range [][]byte{memberKey(user, account), ofAccountKey(account, user)} {
		if err := x.w.unset(key); err != nil {
			return err
		}
	}
	return x.recompile(user, h)
}

// membersOf returns users, among them all members of an account.
func (w *writer) membersOf(account token.ID) ([]token.ID, error) {
	if w.batch == nil {
		return w.x.bulk.members[account], nil
	}
	var users []token.ID
	lower := append([]byte{rowOfAccount}, account[:]...)
	err := w.x.within(lower, successor(lower), func(k, _ []byte) error {
		if len(k) != 1+2*16 {
			return fmt.Errorf("%w: member row", projector.ErrDamaged)
		}
		users = append(users, token.ID(k[1+16:]))
		return nil
	})
	for k := range w.small {
		if len(k) == 1+2*16 && k[:len(lower)] == string(lower) {
			users = append(users, token.ID([]byte(k[1+16:])))
		}
	}
	return users, err
}

// userRemoved ends a user with all that hangs on them.
func (x *Index) userRemoved(user token.ID) error {
	if err := x.ownerRemoved(user); err != nil {
		return err
	}
	if err := x.setKey(user, token.Digest{}); err != nil {
		return err
	}
	h, err := x.w.holder(user)
	if err != nil {
		return err
	}
	for len(h.members) > 0 {
		if err := x.memberRemoved(user, h.members[len(h.members)-1].account); err != nil {
			return err
		}
	}
	return nil
}

// accountRemoved ends an account: its tokens, and what others held in it.
func (x *Index) accountRemoved(id token.ID) error {
	if err := x.ownerRemoved(id); err != nil {
		return err
	}
	if err := x.setAccount(id, account{}); err != nil {
		return err
	}
	users, err := x.w.membersOf(id)
	if err != nil {
		return err
	}
	for _, user := range users {
		if err := x.memberRemoved(user, id); err != nil {
			return err
		}
	}
	return nil
}
