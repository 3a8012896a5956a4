package directory

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// change is one batch under way. Its reads see what it has written.
type change struct {
	b     *pebble.Batch
	known *known
	at    time.Time // of the last event reflected
	seq   uint64    // likewise

	// What the batch has looked up about owners. Most batches are about few
	// owners, and a look-up costs as much as all writes of an event.
	counts  map[Owner]Counts // as they will be; written by finish
	lengths map[list]length  // likewise
	gone    map[Owner]bool   // whether the owner was removed

	published uint32 // the last version of the catalogue in the batch; zero: none
}

func newChange(b *pebble.Batch, k *known, at time.Time) *change {
	return &change{b: b, known: k, at: at, counts: map[Owner]Counts{}, lengths: map[list]length{}, gone: map[Owner]bool{}}
}

// finish writes what is written once a batch.
func (c *change) finish() error {
	for o, n := range c.counts {
		key, err := ownerKey(tableCount, o)
		if err != nil {
			return err
		}
		if err := c.b.Set(key, encodeCounts(n), nil); err != nil {
			return err
		}
	}
	for l, n := range c.lengths {
		if err := c.b.Set(lengthKey(l), encodeLength(n), nil); err != nil {
			return err
		}
	}
	return nil
}

// reflect writes what one record changes. An event that this package does not
// know, and one that does not fit what came before, is an error: the ledger
// holds something that this program must not guess about.
func (c *change) reflect(r *events.Record) error {
	c.seq = r.Seq
	if err := c.forget(r.Time); err != nil {
		return err
	}
	switch d := r.Data.(type) {
	case *events.TokenCreated, *events.TokenUpdated, *events.TokenRolled, *events.TokenDisabled,
		*events.TokenEnabled, *events.TokenRevoked, *events.TokenExpiring, *events.TokenExpired:
		return c.token(r)
	case *events.UserRegistered, *events.UserUpdated, *events.UserRemoved,
		*events.APIKeyIssued, *events.APIKeyRolled, *events.APIKeyRevoked:
		return c.user(r)
	case *events.AccountCreated, *events.AccountUpdated, *events.AccountRemoved, *events.PolicyChanged:
		return c.account(r)
	case *events.MemberAdded, *events.MemberChanged, *events.MemberRemoved:
		return c.member(r)
	case *events.ResourceRegistered, *events.ResourceUpdated, *events.ResourceMoved, *events.ResourceRemoved:
		return c.resource(r)
	case *events.CataloguePublished:
		return c.catalogue(r)
	case *events.RevocationSwept:
		return c.swept(r)
	case *events.EnforcerEnrolled, *events.EnforcerRetired:
		return c.enforcer(r)
	case *events.ConsumerEnrolled, *events.ConsumerRetired:
		return c.consumer(r)
	case *events.LogOpened:
		return c.setJSON([]byte{tableOpened}, d)
	case *events.EpochOpened, *events.PenOpened, *events.FormatRaised:
		return nil // about the ledger, not about anything in the directory
	}
	return fmt.Errorf("%w: %q", events.ErrUnknown, r.Name)
}

// token moves one token over r.
func (c *change) token(r *events.Record) error {
	id := r.SubjectID()
	t, _, err := unlessNew(c.known, id[:], c.b, idKey(tableToken, id), decode[aggregate.Token])
	if err != nil {
		return err
	}
	before := t
	if err := t.Apply(r); err != nil {
		return err
	}
	if before.Seq == 0 {
		c.known.add(id[:])
		if err := c.ownerLives(&t, r); err != nil {
			return err
		}
	}
	if err := c.setToken(&before, &t); err != nil {
		return err
	}
	request := ""
	switch d := r.Data.(type) {
	case *events.TokenCreated:
		request = d.Request
	case *events.TokenRolled:
		request = d.Request
	}
	if request == "" {
		return nil
	}
	row := encodeRequest(aggregate.Request{Token: id, Number: r.Number, Time: r.Time, SecretVersion: t.SecretVersion})
	return c.b.Set(requestKey(stretchOf(r.Time), request), row, nil)
}

// ownerLives refuses a token that is born under an owner that was removed: it
// would outlive the removal. An owner of whom nothing is known is none of its
// business.
func (c *change) ownerLives(t *aggregate.Token, r *events.Record) error {
	o := t.OwnedBy()
	gone, known := c.gone[o]
	if !known {
		var status aggregate.Status
		switch o.Kind {
		case events.OwnedByUser:
			u, _, err := get(c.b, idKey(tableUser, o.ID), decode[aggregate.User])
			if err != nil {
				return err
			}
			status = u.Status
		case events.OwnedByAccount:
			a, _, err := get(c.b, idKey(tableAccount, o.ID), decode[aggregate.Account])
			if err != nil {
				return err
			}
			status = a.Status
		}
		gone = status == aggregate.Revoked
		c.gone[o] = gone
	}
	if gone {
		return fmt.Errorf("%w: event %d makes a token of %s %v, which was removed", aggregate.ErrImpossible, r.Number, o.Kind, o.ID)
	}
	return nil
}

// setToken writes a token and all that follows from how it has changed.
// before is the zero Token for one that is new.
func (c *change) setToken(before, t *aggregate.Token) error {
	if err := c.setJSON(idKey(tableToken, t.ID), t); err != nil {
		return err
	}
	if err := c.secrets(tokenSecrets(before), tokenSecrets(t)); err != nil {
		return err
	}
	if err := c.notice(before, t); err != nil {
		return err
	}
	if err := c.expiry(before, t); err != nil {
		return err
	}
	lived, lives := before.Seq != 0 && before.Status != aggregate.Revoked, t.Status != aggregate.Revoked
	if before.Seq != 0 && lived == lives && before.Name == t.Name {
		return nil
	}
	if err := c.move(t.ID, tokenPlace(before), tokenPlace(t)); err != nil {
		return err
	}
	if before.Seq != 0 && lived == lives {
		return nil
	}
	o := t.OwnedBy()
	live, err := ownerKey(tableLive, o)
	if err != nil {
		return fmt.Errorf("%w: %w", aggregate.ErrImpossible, err)
	}
	live = append(live, t.ID[:]...)
	if err := c.template(t, lives); err != nil {
		return err
	}
	n, known := c.counts[o]
	if !known {
		if n, err = countsOf(c.b, o); err != nil {
			return err
		}
	}
	if before.Seq == 0 {
		n.All++
		all := append([]byte{tableAll}, live[1:]...)
		if err := c.b.Set(all, nil, nil); err != nil {
			return err
		}
	}
	if lives {
		n.Live++
		err = c.b.Set(live, nil, nil)
	} else {
		n.Live--
		err = c.b.Delete(live, nil)
	}
	n.Seq = t.Seq
	c.counts[o] = n
	return err
}

// template keeps the entry of a token that was made from a template.
func (c *change) template(t *aggregate.Token, lives bool) error {
	if t.Template == "" {
		return nil
	}
	key := append(templatePrefix(t.Template), t.ID[:]...)
	if lives {
		return c.b.Set(key, nil, nil)
	}
	return c.b.Delete(key, nil)
}

// notice keeps the entry of the next notice of a token's end.
func (c *change) notice(before, t *aggregate.Token) error {
	was, had := before.NextNotice()
	due, has := t.NextNotice()
	if had && has && was.Equal(due) {
		return nil
	}
	if had {
		if err := c.b.Delete(noticeKey(was, t.ID), nil); err != nil {
			return err
		}
	}
	if !has {
		return nil
	}
	return c.b.Set(noticeKey(due, t.ID), nil, nil)
}

// expiry keeps the entry of when a token's validity ends.
func (c *change) expiry(before, t *aggregate.Token) error {
	was, had := validUntil(before)
	end, has := validUntil(t)
	if had == has && was.Equal(end) {
		return nil
	}
	o := t.OwnedBy()
	if had {
		key, err := expiryKey(o, was, t.ID)
		if err == nil {
			err = c.b.Delete(key, nil)
		}
		if err != nil {
			return err
		}
	}
	if !has {
		return nil
	}
	key, err := expiryKey(o, end, t.ID)
	if err != nil {
		return fmt.Errorf("%w: %w", aggregate.ErrImpossible, err)
	}
	return c.b.Set(key, nil, nil)
}

// validUntil returns when the validity of a token that lives ends; false when
// it does not.
func validUntil(t *aggregate.Token) (time.Time, bool) {
	end := t.Grant.ExpiresOn
	return end, t.Seq != 0 && t.Status != aggregate.Revoked && !end.IsZero()
}

// held is a secret that something alive holds.
type held struct {
	digest token.Digest
	aggregate.Credential
}

func tokenSecrets(t *aggregate.Token) []held {
	if t.Seq == 0 || t.Status == aggregate.Revoked {
		return nil
	}
	kind := token.KindUser
	if t.OwnerKind == events.OwnedByAccount {
		kind = token.KindAccount
	}
	s := []held{{t.Secret, aggregate.Credential{Kind: kind, ID: t.ID}}}
	if !t.Previous.IsZero() && t.Previous != t.Secret {
		s = append(s, held{t.Previous, aggregate.Credential{Kind: kind, ID: t.ID, Until: t.PreviousUntil}})
	}
	return s
}

func userSecrets(u *aggregate.User) []held {
	if u.Key.IsZero() {
		return nil
	}
	return []held{{u.Key, aggregate.Credential{Kind: token.KindKey, ID: u.ID}}}
}

func enforcerSecrets(n *aggregate.Enforcer) []held {
	if n.Seq == 0 || n.Status == aggregate.Revoked {
		return nil
	}
	return []held{{n.Secret, aggregate.Credential{Kind: token.KindEnforcer, ID: n.ID}}}
}

// secrets makes the digests lead to what holds them after a change. A digest
// that leads to something else already is refused: one of the two would be
// lost.
func (c *change) secrets(before, after []held) error {
	for _, h := range before {
		if !holds(after, h.digest) {
			if err := c.b.Delete(digestKey(h.digest), nil); err != nil {
				return err
			}
		}
	}
	for _, h := range after {
		key := digestKey(h.digest)
		if !holds(before, h.digest) {
			switch other, taken, err := unlessNew(c.known, h.digest[:], c.b, key, decodeCredential); {
			case err != nil:
				return err
			case taken:
				return fmt.Errorf("%w: the secret of %v %v is already that of %v %v",
					aggregate.ErrImpossible, h.Kind, h.ID, other.Kind, other.ID)
			}
		}
		c.known.add(h.digest[:])
		if err := c.b.Set(key, encodeCredential(h.Credential), nil); err != nil {
			return err
		}
	}
	return nil
}

func holds(all []held, d token.Digest) bool {
	for i := range all {
		if all[i].digest == d {
			return true
		}
	}
	return false
}

// user moves one user over r, which may be about their API key.
func (c *change) user(r *events.Record) error {
	key := idKey(tableUser, r.SubjectID())
	u, _, err := get(c.b, key, decode[aggregate.User])
	if err != nil {
		return err
	}
	before := u
	if err := u.Apply(r); err != nil {
		return err
	}
	if err := c.setJSON(key, &u); err != nil {
		return err
	}
	if err := c.secrets(userSecrets(&before), userSecrets(&u)); err != nil {
		return err
	}
	if err := c.move(u.ID, userPlace(&before), userPlace(&u)); err != nil {
		return err
	}
	gone := u.Status == aggregate.Revoked
	if before.Seq == 0 || before.EmailIndex != u.EmailIndex || gone {
		if err := c.email(&before, &u); err != nil {
			return err
		}
	}
	if !gone {
		return nil
	}
	if err := c.endOwner(Owner{Kind: events.OwnedByUser, ID: u.ID}, r); err != nil {
		return err
	}
	return c.endMembers(tableOfUser, u.ID, r)
}

// email makes the index of a user's address lead to them.
func (c *change) email(before, u *aggregate.User) error {
	if before.Seq != 0 {
		if err := c.b.Delete(textKey(tableEmail, before.EmailIndex), nil); err != nil {
			return err
		}
	}
	if u.Status == aggregate.Revoked {
		return nil
	}
	key := textKey(tableEmail, u.EmailIndex)
	switch other, taken, err := get(c.b, key, decodeID); {
	case err != nil:
		return err
	case taken:
		return fmt.Errorf("%w: users %v and %v have one address", aggregate.ErrImpossible, other, u.ID)
	}
	return c.b.Set(key, encodeID(u.ID), nil)
}

// account moves one account over r.
func (c *change) account(r *events.Record) error {
	key := idKey(tableAccount, r.SubjectID())
	a, _, err := get(c.b, key, decode[aggregate.Account])
	if err != nil {
		return err
	}
	before := a
	if err := a.Apply(r); err != nil {
		return err
	}
	if err := c.setJSON(key, &a); err != nil {
		return err
	}
	if err := c.move(a.ID, accountPlace(&before), accountPlace(&a)); err != nil {
		return err
	}
	if a.Status != aggregate.Revoked {
		return nil
	}
	if err := c.endOwner(Owner{Kind: events.OwnedByAccount, ID: a.ID}, r); err != nil {
		return err
	}
	return c.endMembers(tableOfAccount, a.ID, r)
}

// member moves one membership over r.
func (c *change) member(r *events.Record) error {
	m, _, err := get(c.b, idKey(tableMember, r.SubjectID()), decode[aggregate.Member])
	if err != nil {
		return err
	}
	before := m
	if err := m.Apply(r); err != nil {
		return err
	}
	if before.Seq == 0 {
		if _, double, err := get(c.b, pairKey(tableOfAccount, m.Account, m.User), decodeID); err != nil || double {
			return orImpossible(err, "event %d makes user %v a member of account %v a second time", r.Number, m.User, m.Account)
		}
	}
	return c.setMember(&before, &m)
}

func orImpossible(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: "+format, append([]any{aggregate.ErrImpossible}, args...)...)
}

// setMember writes a membership, its two indexes and its place in the list.
func (c *change) setMember(before, m *aggregate.Member) error {
	if err := c.setJSON(idKey(tableMember, m.ID), m); err != nil {
		return err
	}
	if err := c.move(m.ID, memberPlace(before), memberPlace(m)); err != nil {
		return err
	}
	for _, key := range [][]byte{pairKey(tableOfAccount, m.Account, m.User), pairKey(tableOfUser, m.User, m.Account)} {
		var err error
		if m.Status == aggregate.Revoked {
			err = c.b.Delete(key, nil)
		} else {
			err = c.b.Set(key, encodeID(m.ID), nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// resource moves one registration of a resource over r.
func (c *change) resource(r *events.Record) error {
	id := r.SubjectID()
	s, _, err := unlessNew(c.known, id[:], c.b, idKey(tableResource, id), decode[aggregate.Resource])
	if err != nil {
		return err
	}
	before := s
	if err := s.Apply(r); err != nil {
		return err
	}
	c.known.add(id[:])
	if err := c.setJSON(idKey(tableResource, s.ID), &s); err != nil {
		return err
	}
	if err := c.move(s.ID, resourcePlace(&before), resourcePlace(&s)); err != nil {
		return err
	}
	key := textKey(tableKey, s.Key())
	switch {
	case s.Status == aggregate.Revoked:
		return c.b.Delete(key, nil)
	case before.Seq == 0:
		if _, double, err := unlessNew(c.known, key[1:], c.b, key, decodeID); err != nil || double {
			return orImpossible(err, "event %d registers %s a second time", r.Number, s.Key())
		}
		c.known.add(key[1:])
		return c.b.Set(key, encodeID(s.ID), nil)
	}
	return nil
}

// catalogue adds the row of a version.
func (c *change) catalogue(r *events.Record) error {
	last, _, err := lastCatalogue(c.b)
	if err != nil {
		return err
	}
	if err := last.Apply(r); err != nil {
		return err
	}
	c.published = last.Version
	return c.setJSON(catalogueKey(last.Version), &last)
}

// enforcer moves one enforcer over r.
func (c *change) enforcer(r *events.Record) error {
	key := idKey(tableEnforcer, r.SubjectID())
	n, _, err := get(c.b, key, decode[aggregate.Enforcer])
	if err != nil {
		return err
	}
	before := n
	if err := n.Apply(r); err != nil {
		return err
	}
	if err := c.setJSON(key, &n); err != nil {
		return err
	}
	if before.Seq == 0 {
		if err := c.nkey(n.Nkey, token.KindEnforcer, r); err != nil {
			return err
		}
	}
	return c.secrets(enforcerSecrets(&before), enforcerSecrets(&n))
}

// consumer moves one consumer over r.
func (c *change) consumer(r *events.Record) error {
	key := idKey(tableConsumer, r.SubjectID())
	n, _, err := get(c.b, key, decode[aggregate.Consumer])
	if err != nil {
		return err
	}
	before := n.Seq
	if err := n.Apply(r); err != nil {
		return err
	}
	if before == 0 {
		if err := c.nkey(n.Nkey, token.KindConsumer, r); err != nil {
			return err
		}
	}
	return c.setJSON(key, &n)
}

// nkey makes a public nkey lead to whom r enrolls; empty is none. It is
// nobody else's for good, so that what was signed stays with who signed it.
func (c *change) nkey(public string, kind token.Kind, r *events.Record) error {
	if public == "" {
		return nil
	}
	key := textKey(tableNkey, public)
	if _, double, err := get(c.b, key, decodeCredential); err != nil || double {
		return orImpossible(err, "event %d enrolls an nkey a second time", r.Number)
	}
	return c.b.Set(key, encodeCredential(aggregate.Credential{Kind: kind, ID: r.SubjectID()}), nil)
}

// endOwner ends all tokens of an owner that r has removed.
func (c *change) endOwner(o Owner, r *events.Record) error {
	c.gone[o] = true
	prefix, err := ownerKey(tableLive, o)
	if err != nil {
		return err
	}
	ids, err := suffixes(c.b, prefix)
	if err != nil {
		return err
	}
	for _, id := range ids {
		t, err := must(c.b, idKey(tableToken, id), decode[aggregate.Token])
		if err != nil {
			return err
		}
		before := t
		t.EndWithOwner(r)
		if err := c.setToken(&before, &t); err != nil {
			return err
		}
	}
	return nil
}

// endMembers ends all memberships of a user or an account that r has removed.
func (c *change) endMembers(table byte, id token.ID, r *events.Record) error {
	ids, err := values(c.b, idKey(table, id), decodeID)
	if err != nil {
		return err
	}
	for _, id := range ids {
		m, err := must(c.b, idKey(tableMember, id), decode[aggregate.Member])
		if err != nil {
			return err
		}
		before := m
		m.EndWith(r)
		if err := c.setMember(&before, &m); err != nil {
			return err
		}
	}
	return nil
}

// forget drops the stretches of requests that lie behind the window at the
// time of an event. It depends on the order of events alone and not on how they
// were batched, so that a rebuild forgets the same.
func (c *change) forget(now time.Time) error {
	past, last := stretchOf(c.at), stretchOf(now)
	known := !c.at.IsZero()
	c.at = now
	if !known || past == last || last < stretchesInSight {
		return nil
	}
	return c.b.DeleteRange(stretchKey(0), stretchKey(last-stretchesInSight+1), nil)
}

func (c *change) setJSON(key []byte, v any) error {
	row, err := encode(v)
	if err != nil {
		return err
	}
	return c.b.Set(key, row, nil)
}
