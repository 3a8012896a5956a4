package eventstest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"

	"watchword.dev/events"
)

// keptPulses is how many pulses a ledger keeps: the last few, as the real
// stream does.
const keptPulses = 16

// Ledger is an events.Log's store in memory. Connect opens it. It is safe for
// concurrent use.
type Ledger struct {
	mu      sync.Mutex
	commits []message     // commit n is at n-1
	changed chan struct{} // closed and replaced at every change
	bytes   int
	limit   int // zero means none

	pulses    []message // the last few
	lastPulse uint64
}

type message struct {
	seq     uint64
	subject string
	payload []byte
	sum     [sha256.Size]byte // of subject and payload, as stored
}

func newMessage(seq uint64, subject string, payload []byte) message {
	m := message{seq: seq, subject: subject, payload: bytes.Clone(payload)}
	m.sum = m.digest()
	return m
}

func (m *message) digest() [sha256.Size]byte {
	return sha256.Sum256(append([]byte(m.subject+"\n"), m.payload...))
}

// intact panics when the stored bytes are no longer those that were stored.
func (m *message) intact() {
	if m.sum != m.digest() {
		panic(fmt.Sprintf("eventstest: someone has changed the stored bytes of sequence %d", m.seq))
	}
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{changed: make(chan struct{})}
}

// Connect returns a new connection to the ledger.
func (s *Ledger) Connect() *Log {
	return &Log{ledger: s, queued: map[Op][]Fault{}, counts: map[Op]int{}}
}

// SetLimit makes the ledger refuse what would make its payloads longer than
// limit bytes in all. Zero lifts the limit.
func (s *Ledger) SetLimit(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
}

// Head returns the sequence of the last commit.
func (s *Ledger) Head() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint64(len(s.commits))
}

// Payload returns a copy of the commit at seq, or nil when there is none.
func (s *Ledger) Payload(seq uint64) (subject string, payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq == 0 || seq > uint64(len(s.commits)) {
		return "", nil
	}
	m := &s.commits[seq-1]
	m.intact()
	return m.subject, bytes.Clone(m.payload)
}

// Commits decodes the whole ledger with the Standard catalogue, as a reader
// from the beginning would.
func (s *Ledger) Commits() ([]events.Commit, error) {
	var all []events.Commit
	at := events.Position{}
	for seq := uint64(1); ; seq++ {
		subject, payload := s.Payload(seq)
		if payload == nil {
			return all, nil
		}
		c, err := events.DecodeCommit(at, seq, subject, payload, nil)
		if err != nil {
			return all, err
		}
		all, at = append(all, c), c.End
	}
}

// Truncate damages the ledger: it loses everything behind seq, as a store that
// was rolled back has. Readers that were further on get events.ErrRewind.
func (s *Ledger) Truncate(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.commits[seq:] {
		s.bytes -= len(m.payload)
	}
	s.commits = slices.Clone(s.commits[:seq])
	s.wake()
}

// Replace damages the ledger: the commit at seq has other bytes from now on. A
// nil payload makes it a hole, which readers meet as events.ErrGap.
func (s *Ledger) Replace(seq uint64, subject string, payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits[seq-1] = newMessage(seq, subject, payload)
	s.wake()
}

// wake tells everybody who waits that something has changed. The caller holds
// the lock.
func (s *Ledger) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// append stores the commit after sequence after.
func (s *Ledger) append(after uint64, subject string, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(payload) > events.MaxCommit:
		return fmt.Errorf("%w: %d bytes are more than a commit may have", events.ErrRefused, len(payload))
	case after != uint64(len(s.commits)):
		return fmt.Errorf("%w: expected %d to be the last, it is %d", events.ErrConflict, after, len(s.commits))
	case s.limit > 0 && s.bytes+len(payload) > s.limit:
		return fmt.Errorf("%w: the ledger is full", events.ErrRefused)
	}
	s.commits = append(s.commits, newMessage(after+1, subject, payload))
	s.bytes += len(payload)
	s.wake()
	return nil
}

// start says whether a reader may begin behind at.
func (s *Ledger) start(at events.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch head := uint64(len(s.commits)); {
	case at.Seq > head:
		return fmt.Errorf("%w: it ends at %d, %d was read", events.ErrRewind, head, at.Seq)
	case at.Seq > 0 && !at.Ends(s.commits[at.Seq-1].payload):
		return fmt.Errorf("%w: sequence %d does not end with the event that was read there", events.ErrChain, at.Seq)
	}
	return nil
}

// next returns a copy of the commit after seq and how many there are behind
// it; or, when there is none yet, a channel that is closed at the next change.
func (s *Ledger) next(seq uint64) (m message, pending uint64, wait <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	head := uint64(len(s.commits))
	if seq > head {
		return m, 0, nil, fmt.Errorf("%w: it ends at %d, %d was read", events.ErrRewind, head, seq)
	}
	for i := seq; i < head; i++ {
		m = s.commits[i]
		if m.payload != nil { // a hole is not delivered; DecodeCommit sees it in the next one
			m.intact()
			m.payload = bytes.Clone(m.payload)
			return m, head - m.seq, nil, nil
		}
	}
	return m, 0, s.changed, nil
}

func (s *Ledger) storePulse(after uint64, pulse []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after != s.lastPulse {
		return 0, fmt.Errorf("%w: expected pulse %d to be the last, it is %d", events.ErrConflict, after, s.lastPulse)
	}
	s.lastPulse++
	s.pulses = append(s.pulses, newMessage(s.lastPulse, "", pulse))
	if len(s.pulses) > keptPulses {
		s.pulses = slices.Clone(s.pulses[1:])
	}
	s.wake()
	return s.lastPulse, nil
}

// pulseAfter returns a copy of the first kept pulse after seq, or of the newest
// when newest is set, and a channel that is closed at the next change.
func (s *Ledger) pulseAfter(seq uint64, newest bool) (m message, wait <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.pulses {
		p := &s.pulses[i]
		if p.seq > seq && (!newest || i == len(s.pulses)-1) {
			p.intact()
			m = *p
			m.payload = bytes.Clone(m.payload)
			break
		}
	}
	return m, s.changed
}
