package enforcer

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"

	"watchword.dev/events/token"
)

// marks remember, for everything that a decision can rest on, the sequence of
// the last event that changed it. A decision is good as long as it rests on no
// lower sequence than any of its marks: so a decision that was on its way while
// a revocation was heard is never taken for a new one.
//
// The memory is fixed. Two ids may share a mark, which drops more than needed
// and never less. Marks only rise.
type marks struct {
	seed    maphash.Seed
	ids     []atomic.Uint64
	secrets []atomic.Uint64
	all     atomic.Uint64
	place   atomic.Uint64
	foreign atomic.Uint64
}

// secretMarks is how many marks there are for secrets that were not known. What
// shares one is asked about again, no more.
const secretMarks = 4096

func newMarks(entries int) *marks {
	n := 1 << bits.Len(uint(max(entries, 1024)-1))
	return &marks{seed: maphash.MakeSeed(), ids: make([]atomic.Uint64, n), secrets: make([]atomic.Uint64, secretMarks)}
}

func (m *marks) idAt(id token.ID) uint32 {
	return uint32(maphash.Comparable(m.seed, id)) & uint32(len(m.ids)-1)
}

func (m *marks) secretAt(d token.Digest) uint32 {
	return uint32(maphash.Comparable(m.seed, d)) & (secretMarks - 1)
}

// raise notes what an event at seq changes. Only one goroutine does that.
func (m *marks) raise(f *effect, seq uint64) {
	if f.all {
		m.all.Store(seq)
	}
	if f.place {
		m.place.Store(seq)
	}
	if f.foreign {
		m.foreign.Store(seq)
	}
	if !f.id.IsZero() {
		m.ids[m.idAt(f.id)].Store(seq)
	}
	if !f.secret.IsZero() {
		m.secrets[m.secretAt(f.secret)].Store(seq)
	}
}

// reset forgets all marks.
func (m *marks) reset() {
	for _, all := range [...][]atomic.Uint64{m.ids, m.secrets} {
		for i := range all {
			all[i].Store(0)
		}
	}
	m.all.Store(0)
	m.place.Store(0)
	m.foreign.Store(0)
}

// stands reports whether nothing that was heard has changed a decision.
func (m *marks) stands(k *kept) bool {
	seq := k.d.Sequence
	if seq < m.all.Load() || k.d.ByPlace && seq < m.place.Load() {
		return false
	}
	if k.stranger && (seq < m.foreign.Load() || seq < m.secrets[k.secret].Load()) {
		return false
	}
	for _, at := range k.ids {
		if seq < m.ids[at].Load() {
			return false
		}
	}
	return true
}
