package revocations

import (
	"cmp"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/receipt"
)

// Why says why a revocation is complete, or why it is not.
type Why string

// The reasons of completeness, and of its lack.
const (
	AllHeard  Why = "all_heard"     // every live instance has applied it
	BoundOver Why = "bound_over"    // who has not heard answers nothing any more: its knowledge is too old
	SomeWait  Why = "waiting"       // a live instance has not applied it
	NewEpoch  Why = "new_epoch"     // an instance may follow the ledger's life before this one
	NotRead   Why = "not_caught_up" // receipts may be stored that are not read yet: see CaughtUp
)

// Heard is what an instance has to do with a revocation.
type Heard struct {
	Instance
	// AppliedAt is since when it refuses what was revoked, by its clock; zero
	// when it does not, or when that is too long ago to be known.
	AppliedAt time.Time
	// Took is the time from the event until then; never below zero, however
	// the clocks differ.
	Took time.Duration
}

// Report says who has heard of an event. Counts are of Instances by State.
type Report struct {
	Event     Event
	Instances []Heard // who waits first, then the slowest
	Counts    map[State]int

	Complete bool
	Why      Why
	// By is when it is complete at the latest; zero in a new epoch, in which
	// that cannot be said.
	By time.Time
	// The quantiles of Took, and the slowest.
	P50, P90, P99, Max time.Duration
	// At is as of when this is so.
	At time.Time
}

// Report says who has heard of an event as of now.
func (p *Revocations) Report(e Event, now time.Time) (Report, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	r := Report{Event: e, Counts: map[State]int{}, At: now}
	if p.closed {
		return r, ErrClosed
	}
	marks, err := p.store.DB().NewIter(&pebble.IterOptions{LowerBound: []byte{rowMark}, UpperBound: []byte{rowMark + 1}})
	if err != nil {
		return r, err
	}
	defer marks.Close()
	bound, skew := time.Duration(0), MinSkew
	for id, n := range p.instances {
		h := Heard{Instance: n.show(id)}
		m, heard, err := heardAt(marks, id, n, e.place())
		if err != nil {
			return r, err
		}
		if h.State = p.stateOf(id, n, &e, heard, now); h.State == unwanted {
			continue
		}
		if h.State == Applied && !m.applied.IsZero() {
			h.AppliedAt, h.Took = m.applied, max(m.applied.Sub(e.Time), 0)
		}
		if h.State == Applied || h.State == Waiting {
			bound, skew = max(bound, n.bound()), max(skew, n.skew())
		}
		r.Counts[h.State]++
		r.Instances = append(r.Instances, h)
	}
	r.By = e.Time.Add(bound + skew)
	r.conclude(p.waitsForEpoch(), p.caught >= e.Seq)
	slices.SortFunc(r.Instances, func(a, b Heard) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(b.Took, a.Took), byInstance(a.Instance, b.Instance))
	})
	r.quantiles()
	return r, nil
}

// rank is the order in which a person wants to see the instances.
func (h *Heard) rank() int {
	switch h.State {
	case Waiting:
		return 0
	case Applied:
		return 1
	}
	return 2
}

// stateOf says what an instance has to do with an event.
func (p *Revocations) stateOf(id instanceID, n *instance, e *Event, heard bool, now time.Time) State {
	of := p.enforcers[id.enforcer]
	switch {
	case !n.Stopped.IsZero() && n.Stopped.Before(e.Time):
		return unwanted // it had gone
	case n.FirstSeen.After(e.Time) && n.First.reached(e.place()):
		return unwanted // it has never known anything else
	case heard:
		return Applied
	case n.FirstSeen.After(e.Time.Add(MinSkew)):
		// It reads to the head before it verifies, and the event was there.
		return unwanted
	case n.Retired:
		return Ended
	case !n.Stopped.IsZero():
		return Gone
	case of.Status == aggregate.Revoked && now.After(of.Retired.Add(n.bound()+n.skew())):
		// Nothing vouched for what it knew after its retirement, unless it
		// has applied that.
		return Ended
	case n.leaseEnds().Before(e.Time):
		return unwanted
	case now.After(n.leaseEnds()):
		return Silent
	}
	return Waiting
}

// leaseEnds is when an instance that stays silent is no longer waited for. By
// then it verifies nothing: it knows itself that nobody waits for it.
func (n *instance) leaseEnds() time.Time {
	return n.LastSeen.Add(receipt.Lease + n.bound() + n.skew())
}

// waitsForEpoch reports whether some instance may still follow what was the
// ledger before the present epoch. There the pulses of the pen that was may
// vouch for it as long as that pen runs: no bound ends that, and no silence
// towards us. p.mu is held.
func (p *Revocations) waitsForEpoch() bool {
	if p.epoch.Since.IsZero() || p.epoch.Confirmed {
		return false
	}
	for _, n := range p.instances {
		if n.Place.Epoch < p.epoch.Epoch && n.Stopped.IsZero() && !n.leaseEnds().Before(p.epoch.Since) {
			return true
		}
	}
	return false
}

// conclude says whether the event is complete. Read says that the receipts are
// known as they are.
func (r *Report) conclude(newEpoch, read bool) {
	switch {
	case newEpoch:
		r.Why, r.By = NewEpoch, time.Time{}
	case !read:
		r.Why = NotRead
	case r.Counts[Waiting] == 0:
		r.Complete, r.Why = true, AllHeard
	case r.At.After(r.By):
		r.Complete, r.Why = true, BoundOver
	default:
		r.Why = SomeWait
	}
}

// quantiles are those of the instances that have applied the event at a known
// time.
func (r *Report) quantiles() {
	var took []time.Duration
	for i := range r.Instances {
		if !r.Instances[i].AppliedAt.IsZero() {
			took = append(took, r.Instances[i].Took)
		}
	}
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	at := func(percent int) time.Duration { return took[(len(took)*percent+99)/100-1] }
	r.P50, r.P90, r.P99, r.Max = at(50), at(90), at(99), took[len(took)-1]
}
