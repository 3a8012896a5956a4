package verifyindex

import (
	"fmt"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// Apply reflects commits and moves the checkpoint, in one batch. In resident
// mode a reader may see an event a moment before Apply returns, never after:
// the events are facts already, and no answer claims a sequence that was not
// applied whole.
//
// A catalogue has a batch of its own, so that nobody ever judges by it what was
// written before it and is changed with it, or the other way about.
func (x *Index) Apply(commits []events.Commit) error {
	for len(commits) > 0 {
		n := 1
		for n < len(commits) && !publishes(&commits[0]) && !publishes(&commits[n]) {
			n++
		}
		if err := x.apply(commits[:n]); err != nil {
			return err
		}
		commits = commits[n:]
	}
	return nil
}

func publishes(c *events.Commit) bool {
	for i := range c.Records {
		if _, ok := c.Records[i].Data.(*events.CataloguePublished); ok {
			return true
		}
	}
	return false
}

// apply is Apply for commits that go into one batch.
func (x *Index) apply(commits []events.Commit) error {
	w := &x.w
	w.begin()
	defer w.end()
	for i := range commits {
		for j := range commits[i].Records {
			r := &commits[i].Records[j]
			if err := x.evolve(r); err != nil {
				return fmt.Errorf("verifyindex: event %d, %s: %w", r.Number, r.Name, err)
			}
		}
	}
	at := commits[len(commits)-1].End
	if x.bulk != nil {
		x.showCatalogue()
		x.position.Store(&at)
		if x.tooLarge(w.table) {
			return x.EndBulk()
		}
		return nil
	}
	x.showSweeps()
	if err := w.commit(at); err != nil {
		return err
	}
	x.showCatalogue()
	x.show()
	x.position.Store(&at)
	x.sequence.Store(at.Seq)
	x.water.Applied(commits...)
	return x.tidy()
}

// show lets readers see what was applied, all of it.
func (x *Index) show() {
	v := x.view.Load()
	if v.gen != nil {
		x.publish(func(n *view) { n.gen = newGeneration(x.store.DB()) })
		v.gen.end()
		return
	}
	if v.table != x.w.table || v.format.Brand == "" && x.info.Load() != nil || v.foreign != x.foreign.Load() {
		x.publish(func(n *view) { n.table = x.w.table })
	}
}

// tidy keeps the table within its bounds.
func (x *Index) tidy() error {
	if x.w.table == nil {
		return nil
	}
	if err := x.compact(); err != nil {
		return err
	}
	if x.tooLarge(x.w.table) {
		x.toDisk()
		return nil
	}
	x.measure()
	return nil
}

// evolve reflects one record. What does not concern the index is named, so that
// an event of a later version stops it.
func (x *Index) evolve(r *events.Record) error {
	switch d := r.Data.(type) {
	case *events.TokenCreated:
		return x.created(r, d)
	case *events.TokenUpdated:
		return x.updated(r, d)
	case *events.TokenRolled:
		return x.rolled(r, d)
	case *events.TokenDisabled:
		return x.changeState(r, func(s state) state { return s | flagDisabled })
	case *events.TokenEnabled:
		return x.changeState(r, func(s state) state { return s &^ flagDisabled })
	case *events.TokenRevoked:
		return x.changeState(r, func(s state) state { return s | flagRevoked })
	case *events.RevocationSwept:
		return x.swept(r)
	case *events.UserRegistered:
		return x.registered(r.SubjectID(), d)
	case *events.UserRemoved:
		return x.userRemoved(r.SubjectID())
	case *events.AccountCreated:
		return x.setAccount(r.SubjectID(), account{alive: true})
	case *events.AccountRemoved:
		return x.accountRemoved(r.SubjectID())
	case *events.PolicyChanged:
		return x.setAccount(r.SubjectID(), account{alive: true, keysEnd: d.KeysEnd})
	case *events.MemberAdded:
		return x.member(d.User, d.Account, d.Roles)
	case *events.MemberChanged:
		return x.member(d.User, d.Account, d.Roles)
	case *events.MemberRemoved:
		return x.memberRemoved(d.User, d.Account)
	case *events.ResourceRegistered:
		return x.w.set(resourceKey(aggregate.ResourceKey(d.Type, d.Resource)), []byte(d.Parent))
	case *events.ResourceMoved:
		return x.w.set(resourceKey(aggregate.ResourceKey(d.Type, d.Resource)), []byte(d.Parent))
	case *events.ResourceRemoved:
		return x.w.unset(resourceKey(aggregate.ResourceKey(d.Type, d.Resource)))
	case *events.APIKeyIssued:
		return x.setKey(r.SubjectID(), d.Secret)
	case *events.APIKeyRolled:
		return x.setKey(r.SubjectID(), d.Secret)
	case *events.APIKeyRevoked:
		return x.setKey(r.SubjectID(), token.Digest{})
	case *events.CataloguePublished:
		return x.published(d)
	case *events.EnforcerEnrolled, *events.EnforcerRetired:
		return x.applyEnforcer(r)
	case *events.LogOpened:
		raw, err := json.Marshal(d)
		if err != nil {
			return err
		}
		x.info.Store(d)
		return x.w.set([]byte{rowLog}, raw)
	case *events.TokenExpiring, *events.TokenExpired: // the clock decides
	case *events.UserUpdated, *events.AccountUpdated, *events.ResourceUpdated: // no names here
	case *events.ConsumerEnrolled, *events.ConsumerRetired: // they verify nothing
	case *events.EpochOpened, *events.PenOpened, *events.FormatRaised:
	default:
		return fmt.Errorf("%w: %s", events.ErrUnknown, r.Name)
	}
	return nil
}

var ownerKinds = map[events.OwnerKind]token.OwnerKind{
	events.OwnedByUser:    token.OwnerUser,
	events.OwnedByAccount: token.OwnerAccount,
}

func (x *Index) created(r *events.Record, d *events.TokenCreated) error {
	id, kind := r.SubjectID(), ownerKinds[d.OwnerKind]
	if id.IsZero() || d.Secret.IsZero() || kind == token.OwnerNone {
		return fmt.Errorf("%w: a token without id, secret or owner", ErrImpossible)
	}
	x.w.near(id, &d.Secret)
	template, err := x.templateNumber(d.Template)
	if err != nil {
		return err
	}
	e := newEntry(x.w.room, d.Secret, id, d.Owner, kind, r.Number, template)
	var s state
	if d.Disabled {
		s |= flagDisabled
	}
	if _, gone := x.removed[d.Owner]; gone {
		s |= flagOwnerGone
	}
	e.setState(s)
	if e, err = x.withGrant(e, &d.Grant); err != nil {
		return err
	}
	x.w.room = e
	if _, there, err := x.w.linksOf(id); err != nil || there {
		return impossible(err, "token %v exists", id)
	}
	if err := x.unusedSecret(d.Secret); err != nil {
		return err
	}
	x.w.tokens++
	x.w.secrets++
	if d.Foreign && !x.foreign.Swap(true) {
		if err := x.w.set([]byte{rowForeign}, nil); err != nil {
			return err
		}
	}
	if err := x.w.put(e); err != nil {
		return err
	}
	if err := x.w.link(id, links{current: d.Secret}); err != nil {
		return err
	}
	return x.w.own(d.Owner, id)
}

// unusedSecret refuses a digest that is known: another token's secret must not
// be overwritten, least of all a revoked one.
func (x *Index) unusedSecret(d token.Digest) error {
	e, err := x.w.entry(d)
	if err != nil || e != nil {
		return impossible(err, "a secret is used twice")
	}
	return nil
}

func impossible(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", ErrImpossible, fmt.Sprintf(format, args...))
}

// withGrant returns the entry with the grant compiled into it, in place of one
// that it may have, and with what its owner holds.
func (x *Index) withGrant(e entry, g *token.Grant) (entry, error) {
	b, err := token.AppendCompiled(e[:e.offGrant()], *g, x.view.Load().cat)
	if err != nil {
		return nil, err
	}
	return x.withHoldings(b)
}

// present returns the entries of a token that has not ended: the newest one,
// and the previous one, which is nil when there is none.
func (x *Index) present(id token.ID) (l links, current, previous entry, err error) {
	l, there, err := x.w.linksOf(id)
	if err != nil || !there {
		return l, nil, nil, impossible(err, "token %v does not exist", id)
	}
	if current, err = x.w.entry(l.current); err != nil || current == nil {
		return l, nil, nil, impossible(err, "the entry of token %v is missing", id)
	}
	if current.load().has(flagRevoked) || x.sweptEntry(current) {
		return l, nil, nil, impossible(nil, "token %v is revoked", id)
	}
	if !l.previous.IsZero() {
		if previous, err = x.w.entry(l.previous); err != nil || previous == nil {
			return l, nil, nil, impossible(err, "the previous entry of token %v is missing", id)
		}
	}
	return l, current, previous, nil
}

// changeState changes the state of a token's live secrets.
func (x *Index) changeState(r *events.Record, change func(state) state) error {
	_, current, previous, err := x.present(r.SubjectID())
	if err != nil {
		return err
	}
	if previous != nil {
		if err := x.w.setState(previous, change(previous.load())); err != nil {
			return err
		}
	}
	return x.w.setState(current, change(current.load()))
}

func (x *Index) updated(r *events.Record, d *events.TokenUpdated) error {
	_, current, previous, err := x.present(r.SubjectID())
	if err != nil {
		return err
	}
	for _, e := range []entry{current, previous} {
		if e == nil {
			continue
		}
		s := e.load()
		switch aggregate.Status(d.Status) {
		case aggregate.Active:
			s &^= flagDisabled
		case aggregate.Disabled:
			s |= flagDisabled
		}
		n := e[:e.offGrant():e.offGrant()].copyWith(e.digest())
		n.setState(s)
		if n, err = x.withGrant(n, &d.Grant); err != nil {
			return err
		}
		if err := x.w.put(n); err != nil {
			return err
		}
	}
	return nil
}

// rolled gives a token a new secret. What becomes of the others is told at
// events.TokenRolled.
func (x *Index) rolled(r *events.Record, d *events.TokenRolled) error {
	id := r.SubjectID()
	l, current, previous, err := x.present(id)
	if err != nil {
		return err
	}
	if err := x.unusedSecret(d.Secret); err != nil {
		return err
	}
	was := current.load()
	next := current.copyWith(d.Secret)
	now := links{current: d.Secret}
	grace := d.GraceUntil
	if d.Reason == events.RollRedelivery {
		now.previous, grace = l.previous, time.Time{}
	} else {
		if previous != nil {
			if err := x.w.setState(previous, previous.load().replaced(time.Time{})); err != nil {
				return err
			}
		}
		if !grace.IsZero() {
			now.previous = l.current
		}
	}
	s := was &^ flagPrevious
	if !now.previous.IsZero() {
		s |= flagPrevious
	}
	next.setState(s)
	if err := x.w.setState(current, was.replaced(grace)); err != nil {
		return err
	}
	x.w.secrets++
	if err := x.w.put(next); err != nil {
		return err
	}
	return x.w.link(id, now)
}

// ownerRemoved ends all tokens of an owner.
func (x *Index) ownerRemoved(owner token.ID) error {
	x.removed[owner] = struct{}{}
	if err := x.w.set(append([]byte{rowRemoved}, owner[:]...), nil); err != nil {
		return err
	}
	ids, err := x.w.tokensOf(owner)
	if err != nil {
		return err
	}
	for _, id := range ids {
		err := x.eachSecret(id, func(e entry) error { return x.w.setState(e, e.load()|flagOwnerGone) })
		if err != nil {
			return err
		}
	}
	return nil
}
