package authoritytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/services/authority"
)

// Directory is an authority.Past in memory, made of nothing but the records
// that it applies. It shares no code with the pen's own overlay, so that the
// two can be compared.
type Directory struct {
	mu        sync.Mutex
	at        events.Position
	tokens    map[token.ID]aggregate.Token
	users     map[token.ID]aggregate.User
	accounts  map[token.ID]aggregate.Account
	members   map[token.ID]aggregate.Member
	enforcers map[token.ID]aggregate.Enforcer
	consumers map[token.ID]aggregate.Consumer
	nkeys     map[string]aggregate.Credential
	resources map[string]aggregate.Resource // by key; removed ones too
	published aggregate.Catalogue
	sweeps    map[aggregate.Selection]aggregate.Sweep
	requests  map[string]aggregate.Request
	digests   map[token.Digest]aggregate.Credential
	emails    map[string]token.ID
	changed   chan struct{} // closed and replaced when it moves or is let go
	held      bool
}

var _ authority.Past = (*Directory)(nil)

// NewDirectory returns an empty directory.
func NewDirectory() *Directory {
	return &Directory{
		tokens: map[token.ID]aggregate.Token{}, users: map[token.ID]aggregate.User{}, accounts: map[token.ID]aggregate.Account{},
		members: map[token.ID]aggregate.Member{}, enforcers: map[token.ID]aggregate.Enforcer{},
		consumers: map[token.ID]aggregate.Consumer{}, nkeys: map[string]aggregate.Credential{},
		resources: map[string]aggregate.Resource{}, requests: map[string]aggregate.Request{}, digests: map[token.Digest]aggregate.Credential{}, emails: map[string]token.ID{},
		sweeps:  map[aggregate.Selection]aggregate.Sweep{},
		changed: make(chan struct{}),
	}
}

// Follow applies the ledger until ctx ends, with delay before each commit. It
// returns what is wrong with the ledger, if anything.
func (d *Directory) Follow(ctx context.Context, log events.Reader, delay func() time.Duration) error {
	for {
		err := log.Read(ctx, d.Position(), func(c events.Commit) error {
			if delay != nil {
				if wait := delay(); wait > 0 {
					t := time.NewTimer(wait)
					select {
					case <-t.C:
					case <-ctx.Done():
						t.Stop()
						return ctx.Err()
					}
				}
			}
			if err := d.free(ctx); err != nil {
				return err
			}
			return d.Apply(&c)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, aggregate.ErrImpossible), errors.Is(err, events.ErrGap), errors.Is(err, events.ErrChain),
			errors.Is(err, events.ErrRewind), errors.Is(err, events.ErrEpoch), errors.Is(err, events.ErrMalformed):
			return err
		}
		t := time.NewTimer(10 * time.Millisecond)
		<-t.C
	}
}

// Hold keeps Follow from applying anything until Release.
func (d *Directory) Hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = true
}

// Release ends a Hold.
func (d *Directory) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = false
	d.wake()
}

func (d *Directory) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *Directory) free(ctx context.Context) error {
	for {
		d.mu.Lock()
		held, changed := d.held, d.changed
		d.mu.Unlock()
		if !held {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Wait waits until the directory has applied seq.
func (d *Directory) Wait(ctx context.Context, seq uint64) error {
	for {
		d.mu.Lock()
		at, changed := d.at.Seq, d.changed
		d.mu.Unlock()
		if at >= seq {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("authoritytest: the directory is at %d, waited for %d: %w", at, seq, ctx.Err())
		}
	}
}

// Apply applies one commit.
func (d *Directory) Apply(c *events.Commit) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range c.Records {
		if err := d.apply(&c.Records[i]); err != nil {
			return fmt.Errorf("sequence %d: %w", c.Seq, err)
		}
	}
	d.at = c.End
	d.wake()
	return nil
}

func (d *Directory) apply(r *events.Record) error {
	id := r.SubjectID()
	switch r.Data.(type) {
	case *events.TokenCreated, *events.TokenUpdated, *events.TokenRolled, *events.TokenDisabled,
		*events.TokenEnabled, *events.TokenRevoked, *events.TokenExpiring, *events.TokenExpired:
		return d.applyToken(id, r)
	case *events.UserRegistered, *events.UserUpdated, *events.UserRemoved,
		*events.APIKeyIssued, *events.APIKeyRolled, *events.APIKeyRevoked:
		u := d.users[id]
		old := u
		if err := u.Apply(r); err != nil {
			return err
		}
		delete(d.emails, old.EmailIndex)
		delete(d.digests, old.Key)
		if u.Status == aggregate.Active {
			d.emails[u.EmailIndex] = id
			if !u.Key.IsZero() {
				return d.take(u.Key, aggregate.Credential{Kind: token.KindKey, ID: id}, set(d.users, id, u))
			}
		}
		d.users[id] = u
	case *events.AccountCreated, *events.AccountUpdated, *events.AccountRemoved, *events.PolicyChanged:
		a := d.accounts[id]
		if err := a.Apply(r); err != nil {
			return err
		}
		d.accounts[id] = a
	case *events.MemberAdded, *events.MemberChanged, *events.MemberRemoved:
		m := d.members[id]
		if err := m.Apply(r); err != nil {
			return err
		}
		d.members[id] = m
	case *events.ResourceRegistered, *events.ResourceUpdated, *events.ResourceMoved, *events.ResourceRemoved:
		kind, name, _ := aggregate.ResourceOf(r)
		key := aggregate.ResourceKey(kind, name)
		s := d.resources[key]
		if s.ID != id && s.Status != aggregate.Active {
			s = aggregate.Resource{}
		}
		if err := s.Apply(r); err != nil {
			return err
		}
		d.resources[key] = s
	case *events.CataloguePublished:
		return d.published.Apply(r)
	case *events.RevocationSwept:
		return d.sweep(r)
	case *events.EnforcerEnrolled, *events.EnforcerRetired:
		n := d.enforcers[id]
		if err := n.Apply(r); err != nil {
			return err
		}
		if n.Nkey != "" {
			d.nkeys[n.Nkey] = aggregate.Credential{Kind: token.KindEnforcer, ID: id}
		}
		delete(d.digests, n.Secret)
		if n.Status == aggregate.Active {
			return d.take(n.Secret, aggregate.Credential{Kind: token.KindEnforcer, ID: id}, set(d.enforcers, id, n))
		}
		d.enforcers[id] = n
	case *events.ConsumerEnrolled, *events.ConsumerRetired:
		n := d.consumers[id]
		if err := n.Apply(r); err != nil {
			return err
		}
		d.consumers[id], d.nkeys[n.Nkey] = n, aggregate.Credential{Kind: token.KindConsumer, ID: id}
	}
	return nil
}

func (d *Directory) sweep(r *events.Record) error {
	s, err := aggregate.SweepOf(r)
	if err != nil {
		return err
	}
	for id, t := range d.tokens {
		if t.Status != aggregate.Revoked && s.Takes(&t) {
			delete(d.digests, t.Secret)
			delete(d.digests, t.Previous)
			t.EndSwept(&s)
			d.tokens[id] = t
		}
	}
	if was, there := d.sweeps[s.Selection]; !there || was.Through <= s.Through {
		d.sweeps[s.Selection] = s
	}
	return nil
}

func set[K comparable, V any](m map[K]V, key K, value V) func() { return func() { m[key] = value } }

// take makes a digest lead to c, unless it leads to something else.
func (d *Directory) take(digest token.Digest, c aggregate.Credential, then func()) error {
	if other, taken := d.digests[digest]; taken && other.ID != c.ID {
		return fmt.Errorf("%w: %v and %v have one secret", aggregate.ErrImpossible, other.ID, c.ID)
	}
	d.digests[digest] = c
	then()
	return nil
}

func (d *Directory) applyToken(id token.ID, r *events.Record) error {
	t := d.tokens[id]
	old := t
	if err := t.Apply(r); err != nil {
		return err
	}
	delete(d.digests, old.Secret)
	delete(d.digests, old.Previous)
	d.tokens[id] = t
	request := ""
	switch e := r.Data.(type) {
	case *events.TokenCreated:
		request = e.Request
	case *events.TokenRolled:
		request = e.Request
	}
	if request != "" {
		d.requests[request] = aggregate.Request{Token: id, Number: r.Number, Time: r.Time, SecretVersion: t.SecretVersion}
	}
	if t.Status == aggregate.Revoked {
		return nil
	}
	kind := token.KindUser
	if t.OwnerKind == events.OwnedByAccount {
		kind = token.KindAccount
	}
	if !t.Previous.IsZero() {
		if err := d.take(t.Previous, aggregate.Credential{Kind: kind, ID: id, Until: t.PreviousUntil}, func() {}); err != nil {
			return err
		}
	}
	return d.take(t.Secret, aggregate.Credential{Kind: kind, ID: id}, func() {})
}

// Position implements authority.Past.
func (d *Directory) Position() events.Position {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at
}

func get[K comparable, V any](d *Directory, m map[K]V, key K) (V, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := m[key]
	return v, ok, nil
}

// Token implements authority.Past.
func (d *Directory) Token(id token.ID) (aggregate.Token, bool, error) { return get(d, d.tokens, id) }

// NoticesDue implements authority.Due.
func (d *Directory) NoticesDue(now time.Time, most int) (all []aggregate.Token, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tokens {
		if _, due := t.DueNotice(now); due && len(all) < most {
			all = append(all, t)
		}
	}
	return all, nil
}

// User implements authority.Past.
func (d *Directory) User(id token.ID) (aggregate.User, bool, error) { return get(d, d.users, id) }

// Account implements authority.Past.
func (d *Directory) Account(id token.ID) (aggregate.Account, bool, error) {
	return get(d, d.accounts, id)
}

// Enforcer implements authority.Past.
func (d *Directory) Enforcer(id token.ID) (aggregate.Enforcer, bool, error) {
	return get(d, d.enforcers, id)
}

// Consumer implements authority.Past.
func (d *Directory) Consumer(id token.ID) (aggregate.Consumer, bool, error) {
	return get(d, d.consumers, id)
}

// ByNkey implements authority.Past.
func (d *Directory) ByNkey(public string) (aggregate.Credential, bool, error) {
	return get(d, d.nkeys, public)
}

// UserByEmail implements authority.Past.
func (d *Directory) UserByEmail(index string) (aggregate.User, bool, error) {
	id, ok, _ := get(d, d.emails, index)
	if !ok {
		return aggregate.User{}, false, nil
	}
	return d.User(id)
}

// MemberOf implements authority.Past.
func (d *Directory) MemberOf(account, user token.ID) (aggregate.Member, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.members {
		if m.Account == account && m.User == user && m.Status == aggregate.Active {
			return m, true, nil
		}
	}
	return aggregate.Member{}, false, nil
}

// Member implements authority.Past.
func (d *Directory) Member(id token.ID) (aggregate.Member, bool, error) { return get(d, d.members, id) }

// Memberships implements authority.Past.
func (d *Directory) Memberships(user token.ID) ([]aggregate.Member, error) {
	return d.membersWhere(func(m *aggregate.Member) bool { return m.User == user }), nil
}

// Members implements authority.Past.
func (d *Directory) Members(account token.ID) ([]aggregate.Member, error) {
	return d.membersWhere(func(m *aggregate.Member) bool { return m.Account == account }), nil
}

func (d *Directory) membersWhere(meant func(*aggregate.Member) bool) (all []aggregate.Member) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.members {
		if m.Status == aggregate.Active && meant(&m) {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b aggregate.Member) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return all
}

// Resource implements authority.Past.
func (d *Directory) Resource(key string) (aggregate.Resource, bool, error) {
	s, ok, err := get(d, d.resources, key)
	return s, ok && s.Status == aggregate.Active, err
}

// Catalogue implements authority.Past.
func (d *Directory) Catalogue() (aggregate.Catalogue, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.published, d.published.Version > 0, nil
}

// Credential implements authority.Past.
func (d *Directory) Credential(digest token.Digest) (aggregate.Credential, bool, error) {
	return get(d, d.digests, digest)
}

// TokenCounts implements authority.Past. It looks at all tokens there are.
func (d *Directory) TokenCounts(o aggregate.Owner) (n aggregate.Counts, _ bool, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tokens {
		if t.OwnedBy() != o {
			continue
		}
		n.All++
		if t.Status != aggregate.Revoked && !d.ownerGone(o) {
			n.Live++
		}
		// At or behind the last change of the count: who applies a commit
		// again must find it counted.
		n.Seq = max(n.Seq, d.at.Seq)
	}
	return n, n.All > 0, nil
}

func (d *Directory) ownerGone(o aggregate.Owner) bool {
	if o.Kind == events.OwnedByAccount {
		return d.accounts[o.ID].Status == aggregate.Revoked
	}
	return d.users[o.ID].Status == aggregate.Revoked
}

// TokensAfter implements authority.Past.
func (d *Directory) TokensAfter(o aggregate.Owner, after token.ID, most int) (all []aggregate.Token, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.tokens {
		if t.OwnedBy() == o && t.Status != aggregate.Revoked && !d.ownerGone(o) && t.ID.Compare(after) > 0 {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b aggregate.Token) int { return a.ID.Compare(b.ID) })
	return all[:min(most, len(all))], nil
}

// Sweep implements authority.Past.
func (d *Directory) Sweep(of aggregate.Selection) (aggregate.Sweep, bool, error) {
	return get(d, d.sweeps, of)
}

// Request implements authority.Past.
func (d *Directory) Request(digest string) (aggregate.Request, bool, error) {
	return get(d, d.requests, digest)
}
