package revocations

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
)

// Event is an event that revokes, or might: see receipt.Revokes.
type Event struct {
	Name   string    `json:"name"`
	Seq    uint64    `json:"seq"`
	Number uint64    `json:"number"`
	Epoch  uint32    `json:"epoch"`
	Time   time.Time `json:"time"`
	// Through is told by a sweep: it is about what was created up to there.
	Through uint64 `json:"through,omitzero"`
}

func (e *Event) place() place { return place{e.Epoch, e.Seq} }

// Subject is what an event is about.
type Subject struct {
	Kind string
	ID   string
}

// The subjects that are asked for. Of an account's tokens the owner is the
// account.
func TokenSubject(id token.ID) Subject   { return Subject{"token", id.String()} }
func UserSubject(id token.ID) Subject    { return Subject{"user", id.String()} }
func AccountSubject(id token.ID) Subject { return Subject{"account", id.String()} }

// EnforcerSubject is that of an enforcer's retirement.
func EnforcerSubject(id token.ID) Subject { return Subject{"enforcer", id.String()} }

// SweepSubject is that of the sweeps with this selection.
func SweepSubject(by, selected string) Subject { return Subject{"sweep", by + " " + selected} }

// Newest returns the newest event about a subject that is among names, or of
// any name when none is given.
func (p *Revocations) Newest(s Subject, names ...string) (Event, bool, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return Event{}, false, ErrClosed
	}
	prefix := subjectPrefix(s)
	it, err := p.store.DB().NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return Event{}, false, err
	}
	defer it.Close()
	for ok := it.Last(); ok; ok = it.Prev() {
		v, err := it.ValueAndErr()
		if err != nil {
			return Event{}, false, err
		}
		var e Event
		if err := decode(v, &e); err != nil {
			return Event{}, false, err
		}
		if len(names) == 0 || slices.Contains(names, e.Name) {
			return e, true, nil
		}
	}
	return Event{}, false, it.Error()
}

// About returns the event about a subject at a sequence, if there is one.
func (p *Revocations) About(s Subject, seq uint64) (Event, bool, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return Event{}, false, ErrClosed
	}
	raw, there, err := p.store.Get(subjectKey(s, seq))
	if err != nil || !there {
		return Event{}, false, err
	}
	var e Event
	return e, true, decode(raw, &e)
}

// State says what an instance has to do with a revocation.
type State string

// The states. Only who waits holds a revocation back.
const (
	Applied  State = "applied"    // it refuses what was revoked
	Waiting  State = "waiting"    // it has not said that it has heard
	Gone     State = "stopped"    // it said bye before it heard
	Ended    State = "retired"    // its enforcer was retired, and it refuses everything
	Silent   State = "lease_over" // it was silent for longer than its lease
	unwanted State = ""           // it came later, or had gone before
)

// Instance is one process of an enforcing service.
type Instance struct {
	Enforcer token.ID
	Name     string // of the instance
	Region   string
	Reader   int
	Bound    time.Duration
	// Seq and Epoch are how far it has come, Applied since when, by its clock.
	Seq     uint64
	Epoch   uint32
	Applied time.Time
	// FirstSeen and LastSeen are when its hello and its last receipt were
	// stored; the first is zero when that is not known any more. Skew is what may
	// lie between its clock and that one.
	FirstSeen, LastSeen time.Time
	Skew                time.Duration
	// LeaseEnds is when it is no longer waited for if it stays silent.
	LeaseEnds time.Time
	// State is Waiting for who follows the ledger, and else why not.
	State State
}

// Instances are all that are known, by enforcer and the time of their hello.
func (p *Revocations) Instances(now time.Time) []Instance {
	p.mu.RLock()
	defer p.mu.RUnlock()
	all := make([]Instance, 0, len(p.instances))
	for id, n := range p.instances {
		i := n.show(id)
		switch {
		case n.Retired:
			i.State = Ended
		case !n.Stopped.IsZero():
			i.State = Gone
		case now.After(n.leaseEnds()):
			i.State = Silent
		default:
			i.State = Waiting
		}
		all = append(all, i)
	}
	slices.SortFunc(all, byInstance)
	return all
}

func byInstance(a, b Instance) int {
	return cmp.Or(a.Enforcer.Compare(b.Enforcer), a.FirstSeen.Compare(b.FirstSeen), cmp.Compare(a.Name, b.Name))
}

func (n *instance) show(id instanceID) Instance {
	return Instance{
		Enforcer: id.enforcer, Name: id.name, Region: n.Region, Reader: n.Reader, Bound: n.bound(),
		Seq: n.Place.Seq, Epoch: n.Place.Epoch, Applied: n.Applied,
		FirstSeen: n.FirstSeen, LastSeen: n.LastSeen, Skew: n.skew(), LeaseEnds: n.leaseEnds(),
	}
}

// Refused are the counts of receipts that were refused, by reason and enforcer;
// the zero ID counts those of nobody that is known.
func (p *Revocations) Refused() map[Reason]map[token.ID]uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	all := map[Reason]map[token.ID]uint64{}
	for k, n := range p.refused {
		if all[k.reason] == nil {
			all[k.reason] = map[token.ID]uint64{}
		}
		all[k.reason][k.enforcer] = n
	}
	return all
}

// Opened returns what the ledger said of itself when it was opened; nil before
// that was applied.
func (p *Revocations) Opened() *events.LogOpened {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.info
}

// heardAt returns the mark by which an instance has heard of a place: the first
// at or behind it. The time of the mark is zero when it was thrown away.
func heardAt(marks *pebble.Iterator, id instanceID, n *instance, at place) (m mark, ok bool, err error) {
	if !n.Place.reached(at) {
		return mark{}, false, nil
	}
	if n.Forgotten.reached(at) {
		return mark{at: at}, true, nil
	}
	prefix := markPrefix(id)
	if !marks.SeekGE(at.append(prefix[:len(prefix):len(prefix)])) || !bytes.HasPrefix(marks.Key(), prefix) {
		if err := marks.Error(); err != nil {
			return mark{}, false, err
		}
		return mark{}, false, fmt.Errorf("%w: instance %s of %v has no mark behind sequence %d", projector.ErrDamaged, id.name, id.enforcer, at.Seq)
	}
	v, err := marks.ValueAndErr()
	if err != nil {
		return mark{}, false, err
	}
	m, err = readMark(prefix, marks.Key(), v)
	return m, err == nil, err
}
