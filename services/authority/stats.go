package authority

import (
	"errors"
	"maps"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"watchword.dev/events/fault"
	"watchword.dev/services/internal/command"
)

// Outcomes counts how the commands of one verb ended.
type Outcomes struct {
	Accepted  uint64
	Unchanged uint64
	Refused   uint64 // by a rule
	Failed    uint64 // by an outage: the service could not decide or append
	// Seconds is the time that all of them took together.
	Seconds float64
}

// Stats is what a pen tells about itself.
type Stats struct {
	Mode     Mode
	Node     string
	Term     uint64 // of this pen, or zero when it was never opened
	Sequence uint64 // of the last commit that it knows to be acknowledged
	// LeaseAge is how long ago the last stored pulse was sent off; zero when
	// this pen has stored none.
	LeaseAge time.Duration
	// Waiting is how many commands wait: urgent, normal and bulk ones.
	Waiting [3]int
	// Backlog is how many events the directory has not applied yet.
	Backlog int
	Commits uint64
	Events  uint64
	// Sizes counts commits by the power of two that is at least their number
	// of events: 1, 2, 4 … 1024 and more.
	Sizes      [11]uint64
	Recoveries uint64 // appends without a clear answer
	Commands   map[string]Outcomes
}

// counters are written on the path of every command.
type counters struct {
	commits, events, recoveries atomic.Uint64
	sizes                       [11]atomic.Uint64

	mu    sync.Mutex
	verbs map[string]*Outcomes
}

func (c *counters) command(verb string, res command.Result, err error, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.verbs == nil {
		c.verbs = map[string]*Outcomes{}
	}
	o := c.verbs[verb]
	if o == nil {
		o = &Outcomes{}
		c.verbs[verb] = o
	}
	o.Seconds += took.Seconds()
	f, failed := errors.AsType[*fault.Error](err)
	switch {
	case failed && f.Entry().Status >= 500:
		o.Failed++
	case failed:
		o.Refused++
	case res.Unchanged:
		o.Unchanged++
	default:
		o.Accepted++
	}
}

func (c *counters) commit(size int) {
	if size == 0 {
		return
	}
	c.commits.Add(1)
	c.events.Add(uint64(size))
	c.sizes[min(bits.Len(uint(size-1)), len(c.sizes)-1)].Add(1)
}

// Stats returns what the pen tells about itself now.
func (p *Pen) Stats() Stats {
	s := Stats{
		Node: p.node, Term: p.ownTerm.Load(), Sequence: p.head.Load().Seq, LeaseAge: p.lease.age(),
		Backlog: int(p.backlog.Load()), Commits: p.stats.commits.Load(), Events: p.stats.events.Load(),
		Recoveries: p.stats.recoveries.Load(), Commands: map[string]Outcomes{},
	}
	for i := range s.Sizes {
		s.Sizes[i] = p.stats.sizes[i].Load()
	}
	p.mu.Lock()
	s.Mode = p.mode
	for c := range p.queues {
		for _, l := range p.queues[c].lines {
			s.Waiting[c] += len(l.items) - l.first
		}
	}
	p.mu.Unlock()
	p.stats.mu.Lock()
	defer p.stats.mu.Unlock()
	for _, verb := range slices.Sorted(maps.Keys(p.stats.verbs)) {
		s.Commands[verb] = *p.stats.verbs[verb]
	}
	return s
}
