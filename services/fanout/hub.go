package fanout

import (
	"sync"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/feed/sse"
	"watchword.dev/events/token"
)

// hub is the newest part of the ledger, and who follows it.
type hub struct {
	maxCommits, maxBytes int
	now                  func() time.Time

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	at      events.Position
	before  events.Position // the end of what stands before the ring
	ring    []frame         // contiguous, up to at
	bytes   int
	pulse   []byte // the newest, as an event
	beats   uint64 // how many pulses there were
	beatAt  time.Time
	opened  bool
	closed  bool
	streams map[token.ID]map[*stream]struct{}
	count   int
	turns   map[token.ID]chan struct{} // see turnsOf
}

// frame is a commit as it is sent.
type frame struct {
	end  events.Position
	data []byte
}

func newHub(maxCommits, maxBytes int, now func() time.Time) *hub {
	return &hub{maxCommits: maxCommits, maxBytes: maxBytes, now: now, changed: make(chan struct{}), streams: map[token.ID]map[*stream]struct{}{}, turns: map[token.ID]chan struct{}{}}
}

// wake tells everybody that something has changed. h.mu is held.
func (h *hub) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// open says where the hub begins.
func (h *hub) open(at events.Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at, h.before, h.opened = at, at, true
	h.wake()
}

// add takes in the next commit. Whoever it retires gets it as the last thing.
func (h *hub) add(c *events.Commit) {
	data := sse.AppendCommit(nil, c)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring = append(h.ring, frame{c.End, data})
	h.bytes += len(data)
	h.at = c.End
	for len(h.ring) > 1 && (len(h.ring) > h.maxCommits || h.bytes > h.maxBytes) {
		h.before = h.ring[0].end
		h.bytes -= len(h.ring[0].data)
		h.ring[0] = frame{}
		h.ring = h.ring[1:]
	}
	for i := range c.Records {
		switch c.Records[i].Data.(type) {
		case *events.EnforcerRetired, *events.ConsumerRetired:
			for s := range h.streams[c.Records[i].SubjectID()] {
				s.retire(c.Seq)
			}
		}
	}
	h.wake()
}

// beat takes in a pulse as stored.
func (h *hub) beat(pulse []byte) {
	data := sse.AppendPulse(nil, pulse)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pulse, h.beatAt = data, h.now()
	h.beats++
	h.wake()
}

// close ends all streams and lets no new one in.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, of := range h.streams {
		for s := range of {
			s.cut(errClosed)
		}
	}
	h.wake()
}

// share is how many of n places one enforcer may take: whoever has its key must not
// keep all others from hearing of revocations.
func share(n int) int { return max(n/2, 1) }

// join lets a stream in, unless there are as many as may be, and returns what
// it must have heard of. From then on it is cut when its owner is retired.
func (h *hub) join(s *stream, most int) (seq uint64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed || !h.opened:
		return 0, errClosed
	case h.count >= most, len(h.streams[s.owner]) >= share(most):
		return 0, errFull
	}
	of := h.streams[s.owner]
	if of == nil {
		of = map[*stream]struct{}{}
		h.streams[s.owner] = of
	}
	of[s] = struct{}{}
	h.count++
	return h.at.Seq, nil
}

func (h *hub) leave(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	of := h.streams[s.owner]
	delete(of, s)
	if len(of) == 0 {
		delete(h.streams, s.owner)
	}
	h.count--
}

// turnsOf has an element for each stream of an enforcer that catches up, and room
// for its share of most. There are no more of them than enforcers.
func (h *hub) turnsOf(owner token.ID, most int) chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.turns[owner] == nil {
		h.turns[owner] = make(chan struct{}, share(most))
	}
	return h.turns[owner]
}

// freshPulse is how old a pulse may be to be sent on. A client counts from when
// it arrives, so it must not get an old one because it has just come.
const freshPulse = time.Second

// glance is what a stream sees of the hub at a moment.
type glance struct {
	frames  []frame // behind what it has sent; shared, not to be changed
	behind  bool    // the next commit is not in the ring any more
	pulse   []byte  // nil when the newest is not fresh
	beats   uint64
	changed <-chan struct{}
}

func (h *hub) look(sent uint64) glance {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := glance{beats: h.beats, changed: h.changed}
	if h.now().Sub(h.beatAt) < freshPulse {
		g.pulse = h.pulse
	}
	switch {
	case sent < h.before.Seq:
		g.behind = true
	case sent < h.at.Seq:
		g.frames = h.ring[sent-h.before.Seq:]
		// The hub sets what it drops to nothing.
		g.frames = append(make([]frame, 0, len(g.frames)), g.frames...)
	}
	return g
}

// reaches reports whether the ring holds what comes behind seq.
func (h *hub) reaches(seq uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return seq >= h.before.Seq
}

// position returns the end of the commit at seq if the hub knows it.
func (h *hub) position(seq uint64) (events.Position, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case seq == h.before.Seq:
		return h.before, true
	case seq > h.before.Seq && seq <= h.at.Seq:
		return h.ring[seq-h.before.Seq-1].end, true
	}
	return events.Position{}, false
}
