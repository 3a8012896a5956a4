package verifyindex

import (
	"runtime"
	"sync/atomic"
	"unsafe"
)

// block is a piece of memory that holds no pointers. Its bytes are valid as
// long as somebody holds the block: whoever reads them keeps it alive
// (runtime.KeepAlive) until after the last byte is read.
type block struct {
	mem  []byte
	used int // by the writer
	live int // bytes of used that the table still points to
}

// allocateHeap returns n bytes of Go memory, aligned to a word.
func allocateHeap(n int) *block {
	words := make([]uint64, (n+7)/8)
	return &block{mem: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), n)}
}

// A ref is a place in an arena: the number of a block in the high bits and an
// offset in units within it. Zero is no place.
type ref uint32

const (
	unit      = 64 // bytes: a line of the cache; entries begin at multiples of it
	unitBits  = 20 // of a ref
	refBits   = 30
	blockMax  = unit << unitBits
	maxBlocks = 1 << (refBits - unitBits)
)

func (r ref) block() int  { return int(r >> unitBits) }
func (r ref) offset() int { return int(r&(1<<unitBits-1)) * unit }

// A slot of a hash table is one word, so that it is read and written whole: 30
// bits of hash, 4 bits that say how many lines the entry has (15 for more), and
// a ref. Zero is free. With the hash in the slot the table grows, and most
// collisions are told, without a look at the entries.
type slot uint64

const (
	lineBits  = 4
	hashShift = refBits + lineBits
	hashBits  = 64 - hashShift
	mostSlots = 1 << hashBits
)

func newSlot(hash uint32, size int, r ref) slot {
	lines := min((size+unit-1)/unit, 1<<lineBits-1)
	return slot(hash)<<hashShift | slot(lines)<<refBits | slot(r)
}

func (s *slot) store(v slot) { atomic.StoreUint64((*uint64)(s), uint64(v)) }

func (s slot) hash() uint32 { return uint32(s >> hashShift) }
func (s slot) lines() int   { return int(s >> refBits & (1<<lineBits - 1)) }
func (s slot) ref() ref     { return ref(s & (1<<refBits - 1)) }

// arena holds the entries. Entries are only ever added; what is replaced stays
// until its block is retired. A block's number is never used twice within an
// arena, so that a reader with an old ref finds the old block, if it was quick,
// or none, and never another one's bytes.
type arena struct {
	blocks [maxBlocks]atomic.Pointer[block]

	// Owned by the writer.
	size     int // of a new block
	next     int // number of the next block
	current  int // the block that is being filled
	reserved int // bytes of all blocks that are not retired
	used     int // bytes of entries in them, dead ones included
	live     int // bytes of entries that the table points to
	alloc    func(int) (*block, error)
}

func newArena(blockSize int, alloc func(int) (*block, error)) *arena {
	return &arena{size: blockSize, current: -1, alloc: alloc}
}

func roundUp(n int) int { return (n + unit - 1) &^ (unit - 1) }

// full reports whether no block can be added.
func (a *arena) full() bool { return a.next == maxBlocks }

// add copies e into the arena. It fails when there is no memory or when the
// arena is full.
func (a *arena) add(e entry) (ref, error) {
	n := roundUp(len(e))
	if a.current < 0 || a.blocks[a.current].Load().used+n > len(a.blocks[a.current].Load().mem) {
		if err := a.grow(n); err != nil {
			return 0, err
		}
	}
	b := a.blocks[a.current].Load()
	at := b.used
	copy(b.mem[at:], e)
	b.used += n
	b.live += n
	a.used += n
	a.live += n
	return ref(a.current)<<unitBits | ref(at/unit), nil
}

func (a *arena) grow(n int) error {
	n += unit // the first unit stays free, so that no ref is zero
	if a.full() || n > blockMax {
		return errArenaFull
	}
	b, err := a.alloc(max(n, a.size))
	if err != nil {
		return err
	}
	b.used = unit
	a.reserved += len(b.mem)
	a.blocks[a.next].Store(b)
	a.current = a.next
	a.next++
	return nil
}

// at returns the entry at r, and the block to keep alive while it is read. It
// returns nil when the block was retired after the reader had read r.
func (a *arena) at(r ref) (entry, *block) {
	b := a.blocks[r.block()].Load()
	if b == nil {
		return nil, nil
	}
	return entryAt(b, r.offset()), b
}

// near asks for the entry at w, which is likely to be read whole and to be in
// no cache, and does not wait for it: all its lines come together.
func (a *arena) near(w slot) {
	if b := a.blocks[w.ref().block()].Load(); b != nil {
		prefetch(unsafe.Pointer(&b.mem[w.ref().offset()]), w.lines())
		runtime.KeepAlive(b)
	}
}

// entryAt returns the entry that begins at an offset.
func entryAt(b *block, at int) entry {
	size := *(*uint32)(unsafe.Pointer(&b.mem[at+offSize]))
	if nativeBig {
		size = uint32(little(uint64(size)) >> 32)
	}
	end := at + digestLen + int(size)
	return entry(b.mem[at:end:end])
}

// weight is how many bytes of an entry count as live: of one that can never
// verify again all but its policies, because the next compaction leaves out the
// rest.
func weight(e entry) int {
	if e.load().hopeless() {
		return roundUp(min(len(e), bareLen))
	}
	return roundUp(len(e))
}

// each calls fn for every entry that the table points to, in the order in which
// they were added: that is the order of the memory, too.
func (a *arena) each(fn func(entry, ref)) {
	for number := range a.next {
		b := a.blocks[number].Load()
		if b == nil {
			continue
		}
		for at := unit; at < b.used; {
			e := entryAt(b, at)
			if !e.load().has(flagCopied) {
				fn(e, ref(number)<<unitBits|ref(at/unit))
			}
			at += roundUp(len(e))
		}
	}
}

// drop says that n bytes of the entry at r are of no use any more.
func (a *arena) drop(r ref, n int) {
	a.blocks[r.block()].Load().live -= n
	a.live -= n
}

// retire takes a block out. Readers that hold it go on reading it.
func (a *arena) retire(number int) {
	b := a.blocks[number].Load()
	a.reserved -= len(b.mem)
	a.used -= b.used - unit
	a.live -= b.live
	a.blocks[number].Store(nil)
	if a.current == number {
		a.current = -1
	}
}

// worst returns the number of the block that holds most dead bytes, leaving
// out the one being filled, or -1 when none has a dead half.
func (a *arena) worst() int {
	number, most := -1, 0
	for i := range a.next {
		b := a.blocks[i].Load()
		if b == nil || i == a.current {
			continue
		}
		if dead := b.used - unit - b.live; dead > most && 2*dead > b.used {
			number, most = i, dead
		}
	}
	return number
}
