package verifyindex

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"
	"unsafe"

	"watchword.dev/events/token"
)

var errArenaFull = errors.New("verifyindex: the arena is full")

// slots is an open-addressing hash table. Nothing is ever taken out of it.
type slots struct {
	mem  *block
	word []slot
	mask uint32
	used int // by the writer
}

func newSlots(n int) (*slots, error) {
	if n > mostSlots {
		return nil, errArenaFull
	}
	mem, err := allocate(8 * n)
	if err != nil {
		return nil, err
	}
	return &slots{
		mem: mem, mask: uint32(n - 1),
		word: unsafe.Slice((*slot)(unsafe.Pointer(unsafe.SliceData(mem.mem))), n),
	}, nil
}

// load reads a slot that the writer may be changing.
func (s *slots) load(i uint32) slot { return slot(atomic.LoadUint64((*uint64)(&s.word[i]))) }

// crowded reports whether another word would fill more than half.
func (s *slots) crowded() bool { return 2*(s.used+1) > len(s.word) }

// grown returns slots of twice the size with the same words.
func (s *slots) grown() (*slots, error) {
	g, err := newSlots(2 * len(s.word))
	if err != nil {
		return nil, err
	}
	for _, w := range s.word {
		if w == 0 {
			continue
		}
		i := w.hash() & g.mask
		for g.word[i] != 0 {
			i = (i + 1) & g.mask
		}
		g.word[i] = w
	}
	g.used = s.used
	return g, nil
}

// table maps digests to entries. There is one writer; readers take no lock and
// may go on with a table that was replaced meanwhile: they see it as it was.
type table struct {
	slots *slots
	arena *arena
}

func newTable(a *arena) (*table, error) {
	s, err := newSlots(1 << 10)
	if err != nil {
		return nil, err
	}
	return &table{slots: s, arena: a}, nil
}

func hashDigest(d *token.Digest) uint32 {
	return binary.LittleEndian.Uint32(d[:]) & (mostSlots - 1)
}

// find returns the entry of a digest and the block to keep alive while it is
// read; nil when the digest is not known. The whole digest is compared.
//
// Moved says that the entry was moved out of a block that is gone by now: the
// reader must ask again, with the newest table, because an older one's slots
// are not told of the move.
func (t *table) find(d *token.Digest) (e entry, b *block, moved bool) {
	s := t.slots
	h := hashDigest(d)
	for i := h & s.mask; ; i = (i + 1) & s.mask {
		w := s.load(i)
		if w == 0 {
			e, b = nil, nil
			break
		}
		if w.hash() != h {
			continue
		}
		if e, b = t.arena.at(w.ref()); b == nil {
			moved = true
			break
		}
		if token.Digest(e[:digestLen]) == *d {
			break
		}
		runtime.KeepAlive(b)
	}
	runtime.KeepAlive(s)
	return e, b, moved
}

// nearSlot asks for the first slot in which a digest may be, to have it near.
func (t *table) nearSlot(d *token.Digest) {
	prefetch(unsafe.Pointer(&t.slots.word[hashDigest(d)&t.slots.mask]), 1)
	runtime.KeepAlive(t.slots)
}

// nearEntry asks for the entry of a digest, if it is in its first slot.
func (t *table) nearEntry(d *token.Digest) {
	s, h := t.slots, hashDigest(d)
	if w := s.load(h & s.mask); w != 0 && w.hash() == h {
		t.arena.near(w)
	}
	runtime.KeepAlive(s)
}

// slot returns the place of a digest: its slot, or the free one where it
// belongs. Only for the writer.
func (t *table) slot(d *token.Digest) *slot {
	h := hashDigest(d)
	for i := h & t.slots.mask; ; i = (i + 1) & t.slots.mask {
		w := t.slots.word[i]
		if w == 0 {
			return &t.slots.word[i]
		}
		if w.hash() == h {
			if e, _ := t.arena.at(w.ref()); token.Digest(e[:digestLen]) == *d {
				return &t.slots.word[i]
			}
		}
	}
}

// put adds an entry, or replaces the one of the same digest, and returns where
// it is and where the old one was. There must be a free slot.
func (t *table) put(e entry) (now, before ref, err error) {
	d := e.digest()
	at := t.slot(&d)
	if before = at.ref(); *at != 0 {
		old, _ := t.arena.at(before)
		t.arena.drop(before, weight(old))
		old.store(old.load() | flagCopied) // which no reader asks for
	} else {
		t.slots.used++
	}
	if now, err = t.arena.add(e); err != nil {
		return 0, 0, err
	}
	at.store(newSlot(hashDigest(&d), len(e), now))
	return now, before, nil
}

// idTable finds the newest entry of a token by the token's id. Only the writer
// uses it.
type idTable struct {
	slots *slots
	arena *arena
}

func hashID(id token.ID) uint32 {
	// The low bits of a ULID are random, but neighbours of one millisecond
	// are not far from each other: mix them.
	h := binary.LittleEndian.Uint64(id[8:]) ^ binary.LittleEndian.Uint64(id[:])*0x9e3779b97f4a7c15
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return uint32(h >> hashShift)
}

// slot returns the place of a token, or the free one where it belongs.
func (t *idTable) slot(id token.ID) *slot {
	h := hashID(id)
	for i := h & t.slots.mask; ; i = (i + 1) & t.slots.mask {
		w := t.slots.word[i]
		if w == 0 {
			return &t.slots.word[i]
		}
		if w.hash() == h {
			if e, _ := t.arena.at(w.ref()); e.token() == id {
				return &t.slots.word[i]
			}
		}
	}
}

// near asks for the slot of a token.
func (t *idTable) near(id token.ID) {
	prefetch(unsafe.Pointer(&t.slots.word[hashID(id)&t.slots.mask]), 1)
}

func (t *idTable) find(id token.ID) (entry, bool) {
	w := *t.slot(id)
	if w == 0 {
		return nil, false
	}
	e, _ := t.arena.at(w.ref())
	return e, true
}

func (t *idTable) put(id token.ID, r ref) {
	at := t.slot(id)
	if *at == 0 {
		t.slots.used++
	}
	*at = newSlot(hashID(id), 0, r)
}
