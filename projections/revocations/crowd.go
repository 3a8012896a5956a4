package revocations

import (
	"cmp"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	json "github.com/go-json-experiment/json"

	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
)

// MaxInstances is how many instances of one enforcer are known by themselves.
// Whoever holds an enforcer's key can make up any number of them; what that costs
// must be bounded, and what is bounded must not make anything seem complete.
const MaxInstances = 8192

// Others is the name under which all instances of an enforcer stand together that
// are more than MaxInstances. It is no instance's name. They hold back what is
// revoked from then on until their leases or the bounds are over: what each of
// them has applied is not known.
const Others = "+"

const (
	// lookFull is how often room is looked for where there is none, lookRoom
	// how often those are forgotten that have long been silent.
	lookFull = time.Second
	lookRoom = time.Hour
	// keepDead is how long an instance is remembered at least that has stopped.
	// By then none of its receipts can be heard a second time.
	keepDead = 2 * MaxSkew
)

// crowd is how many instances of an enforcer are known, without Others.
type crowd struct {
	count  int
	looked time.Time // when it was last looked for those to forget
}

// room finds a place for another instance. It returns who is forgotten for that,
// and whether there is none. p.mu is held.
func (p *Revocations) room(enforcer token.ID, now time.Time) (gone []instanceID, full bool) {
	c := p.crowds[enforcer]
	full = c.count >= p.most
	wait := lookRoom
	if full {
		wait = lookFull
	}
	if now.Sub(c.looked).Abs() < wait {
		return nil, full
	}
	c.looked = now
	p.crowds[enforcer] = c
	type dead struct {
		id   instanceID
		seen time.Time
	}
	var all []dead
	for id, n := range p.instances {
		silent := now.Sub(n.LastSeen)
		switch {
		case id.enforcer != enforcer || id.name == Others:
		case silent > keepStopped:
			gone = append(gone, id)
		case full && silent > keepDead && (!n.Stopped.IsZero() || now.After(n.leaseEnds())):
			all = append(all, dead{id, n.LastSeen})
		}
	}
	if len(gone) > 0 || len(all) == 0 {
		return gone, full && len(gone) == 0
	}
	slices.SortFunc(all, func(a, b dead) int {
		return cmp.Or(a.seen.Compare(b.seen), cmp.Compare(a.id.name, b.id.name))
	})
	for _, d := range all[:min(len(all), p.most/8+1)] {
		gone = append(gone, d.id)
	}
	return gone, false
}

// settle counts who came and who is forgotten.
func (p *Revocations) settle(id instanceID, n *instance, gone []instanceID) {
	for _, old := range gone {
		if _, there := p.instances[old]; there {
			delete(p.instances, old)
			p.count(old, -1)
		}
	}
	if _, there := p.instances[id]; !there {
		p.count(id, 1)
	}
	p.instances[id] = n
}

func (p *Revocations) count(id instanceID, by int) {
	if id.name == Others {
		return
	}
	c := p.crowds[id.enforcer]
	c.count += by
	p.crowds[id.enforcer] = c
}

// acceptOther takes in a receipt of an instance for which there is no room: it is
// one of many of which nobody knows what they have applied.
func (p *Revocations) acceptOther(b *pebble.Batch, m *Message, r *receipt.Receipt) (func(), error) {
	if r.Kind == receipt.Bye {
		return func() {}, nil // it verifies nothing more
	}
	id := instanceID{r.Enforcer, Others}
	n := instance{}
	if before := p.instances[id]; before != nil && !m.Stored.After(before.leaseEnds()) {
		n = *before
	}
	n.Reader = r.Reader
	n.Bound, n.Skew = max(n.Bound, span(r.Bound)), max(n.Skew, span(skew(r, m).Abs()))
	if m.Stored.After(n.LastSeen) {
		n.LastSeen = m.Stored
	}
	n.Applied = n.LastSeen // nothing, until then
	raw, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	if err := b.Set(id.key(), raw, nil); err != nil {
		return nil, err
	}
	return func() { p.settle(id, &n, nil) }, nil
}
