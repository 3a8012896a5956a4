package throttle

import (
	"hash/maphash"
	"sync"
	"time"
)

// A table has setCount sets of setSize places: 32,768 keys in half a MiB.
const (
	setCount = 4096 // a power of two
	setSize  = 8
)

// Table holds a bucket for each of the keys that asked last. It is safe for
// concurrent use and of constant size.
type Table struct {
	limit Limit
	cost  int64 // what one request takes of the window, in nanoseconds
	now   func() time.Time
	epoch time.Time
	seed  maphash.Seed
	sets  []set
}

// set is where the keys of one hash can stand. The lock is held for a look at
// eight places.
type set struct {
	mu     sync.Mutex
	places [setSize]place
}

// place is one bucket. Full is when it is full again, in nanoseconds from the
// table's epoch; a place that is full is free. Key 0 was never used.
type place struct {
	key  uint64
	full int64
}

// NewTable returns a table of empty knowledge: every bucket is full. It is nil,
// which lets everything pass, when there is no limit.
func NewTable(l Limit, now func() time.Time) *Table {
	if l.Off() {
		return nil
	}
	return &Table{
		limit: l, cost: int64(l.Window) / int64(l.Quota), now: now, epoch: now(),
		seed: maphash.MakeSeed(), sets: make([]set, setCount),
	}
}

// Take asks for one request of the bucket that this name stands for, and counts
// it if it passes. It does not allocate.
func (t *Table) Take(name []byte) State {
	if t == nil {
		return State{}
	}
	key := max(maphash.Bytes(t.seed, name), 1)
	now := int64(t.now().Sub(t.epoch))
	s := &t.sets[key%setCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.find(key)
	full := max(p.full, now) // the past is no credit
	full, refused := full+t.cost, full+t.cost > now+int64(t.limit.Window)
	if refused {
		full -= t.cost
	}
	*p = place{key, full}
	return t.state(full-now, refused)
}

// state describes a bucket that will be full after d.
func (t *Table) state(d int64, refused bool) State {
	window := int64(t.limit.Window)
	s := State{Limit: t.limit, Refused: refused, Remaining: int(max(window-d, 0) / t.cost), Full: time.Duration(d)}
	if over := d + t.cost - window; over > 0 {
		s.Retry = time.Duration(over)
	}
	return s
}

// find returns the place of key. If it has none, it gets the one that is full
// soonest, with a full bucket.
func (s *set) find(key uint64) *place {
	oldest := &s.places[0]
	for i := range s.places {
		p := &s.places[i]
		if p.key == key {
			return p
		}
		if p.full < oldest.full {
			oldest = p
		}
	}
	*oldest = place{}
	return oldest
}
