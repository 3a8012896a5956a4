package verifyindex

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"

	"watchword.dev/events/token"
)

// Offsets in an entry as it lies in memory, the digest included. A row is what
// follows the digest.
const (
	digestLen    = len(token.Digest{})
	offSize      = digestLen
	offVersion   = digestLen + 4
	offOwnerKind = digestLen + 5
	offHeld      = digestLen + 6
	offHolder    = digestLen + 7
	offState     = digestLen + 8
	offNumber    = digestLen + 16
	offToken     = digestLen + 24
	offOwner     = digestLen + 40
	offTemplate  = digestLen + 56

	rowHeader    = offTemplate - digestLen
	templateLen  = 4
	entryVersion = 4

	// templated stands beside the kind of the owner when the number of a
	// template stands before the grant.
	templated = 1 << 7
)

// Flags of a state.
const (
	flagDisabled  = 1 << iota // the token is suspended
	flagRevoked               // the token was ended for good
	flagOwnerGone             // its owner was removed
	flagReplaced              // this secret is not the token's newest
	flagPrevious              // an older secret of this token may still verify
	flagCopied                // in memory only: the table points to another copy
	flagsMask     = 1<<16 - 1
	flagsDead     = flagRevoked | flagOwnerGone
)

// state is an entry's changing word.
type state uint64

func (s state) has(flags state) bool { return s&flags != 0 }

// until is the Unix millisecond until which a replaced secret verifies; 0 when
// it never does again.
func (s state) until() int64 { return int64(s >> 16) }

// replaced returns the state of a secret that verifies until t and not at all
// when t is zero.
func (s state) replaced(t time.Time) state {
	s = s&flagsMask&^flagPrevious | flagReplaced
	if !t.IsZero() {
		s |= state(max(t.UnixMilli(), 0)) << 16
	}
	return s
}

// hopeless reports whether a secret in this state can never verify again.
func (s state) hopeless() bool {
	return s.has(flagsDead) || s.has(flagReplaced) && s.until() == 0
}

// entry is an entry in memory, digest first.
type entry []byte

// newEntry returns an entry in the room of b, which it grows when needed. Template
// is the number of the one that the token was made from; zero is none.
func newEntry(b []byte, d token.Digest, id, owner token.ID, kind token.OwnerKind, number uint64, template uint32) entry {
	e := entry(append(b[:0], make([]byte, offTemplate)...))
	copy(e, d[:])
	e[offVersion], e[offOwnerKind] = entryVersion, byte(kind)
	if template != 0 {
		e[offOwnerKind] |= templated
		e = binary.LittleEndian.AppendUint32(e, template)
	}
	binary.LittleEndian.PutUint64(e[offNumber:], number)
	copy(e[offToken:], id[:])
	copy(e[offOwner:], owner[:])
	return e.sized()
}

// sized writes the length into the entry.
func (e entry) sized() entry {
	binary.LittleEndian.PutUint32(e[offSize:], uint32(len(e)-digestLen))
	return e
}

// row is the entry as Pebble holds it.
func (e entry) row() []byte { return e[digestLen:] }

func (e entry) ownerKind() token.OwnerKind { return token.OwnerKind(e[offOwnerKind] &^ templated) }

// offGrant is where the grant begins.
func (e entry) offGrant() int { return offTemplate + templateLen*int(e[offOwnerKind]>>7) }

func (e entry) digest() token.Digest { return token.Digest(e[:digestLen]) }
func (e entry) token() token.ID      { return token.ID(e[offToken : offToken+16]) }
func (e entry) owner() token.ID      { return token.ID(e[offOwner : offOwner+16]) }

// state reads the state of an entry that nobody changes meanwhile.
func (e entry) state() state { return state(binary.LittleEndian.Uint64(e[offState:])) }

func (e entry) setState(s state) { binary.LittleEndian.PutUint64(e[offState:], uint64(s)) }

// load reads the state of an entry in the table, which the writer may be
// changing.
func (e entry) load() state { return state(little(atomic.LoadUint64(e.word()))) }

// store changes the state of an entry in the table.
func (e entry) store(s state) { atomic.StoreUint64(e.word(), little(uint64(s))) }

// word is the state as one machine word. Entries in the table are aligned.
func (e entry) word() *uint64 { return (*uint64)(unsafe.Pointer(&e[offState])) }

// little turns a native word into a little-endian one, and back.
func little(v uint64) uint64 {
	if nativeBig {
		return bits.ReverseBytes64(v)
	}
	return v
}

var nativeBig = binary.NativeEndian.Uint16([]byte{1, 0}) != 1

// copyWith returns a copy for another secret of the same token.
func (e entry) copyWith(d token.Digest) entry {
	c := append(make(entry, 0, len(e)), e...)
	copy(c, d[:])
	return c
}

// bareLen is the most that an entry takes which can never verify again.
const bareLen = offTemplate + templateLen + token.MaxBare

// bare returns what must be kept of an entry that can never verify again: all
// but its policies. It is the entry itself where nothing can be left out.
func (e entry) bare() entry {
	if len(e) <= bareLen {
		return e
	}
	at := e.offGrant()
	c := append(make(entry, 0, bareLen), e[:at]...)
	c = token.Compiled(e[at:e.offHoldings()]).AppendBare(c)
	c[offHeld], c[offHolder] = 0, 0
	return c.sized()
}

// whole reports whether e is an entry with everything in its place, but for
// its grant, which Evaluate looks at.
func (e entry) whole() bool {
	return len(e) >= offTemplate && e[offVersion] == entryVersion && e.offHoldings() >= e.offGrant() &&
		uint64(binary.LittleEndian.Uint32(e[offSize:])) == uint64(len(e)-digestLen)
}

func fromMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// rowView reads a row, out of the table or out of Pebble. The state was read
// once: of an entry in the table it may change at any time.
type rowView struct {
	row   []byte
	state state
}

// viewRow returns the view of a row that Pebble has returned, and whether the
// row is whole.
func viewRow(row []byte) (rowView, bool) {
	if len(row) < rowHeader || row[offVersion-digestLen] != entryVersion ||
		uint64(binary.LittleEndian.Uint32(row)) != uint64(len(row)) {
		return rowView{}, false
	}
	r := rowView{row: row}
	if len(row) < r.grantAt()+int(row[offHeld-digestLen])*heldLen {
		return rowView{}, false
	}
	return rowView{row, state(binary.LittleEndian.Uint64(row[offState-digestLen:]))}, true
}

func (r rowView) id(at int) token.ID { return token.ID(r.row[at-digestLen : at-digestLen+16]) }
func (r rowView) uint(at int) uint64 { return binary.LittleEndian.Uint64(r.row[at-digestLen:]) }
func (r rowView) token() token.ID    { return r.id(offToken) }
func (r rowView) owner() token.ID    { return r.id(offOwner) }
func (r rowView) ownerKind() token.OwnerKind {
	return token.OwnerKind(r.row[offOwnerKind-digestLen] &^ templated)
}
func (r rowView) number() uint64 { return r.uint(offNumber) }
func (r rowView) grant() token.Compiled {
	return token.Compiled(r.row[r.grantAt() : len(r.row)-len(r.holdings())])
}

func (r rowView) grantAt() int { return rowHeader + templateLen*int(r.row[offOwnerKind-digestLen]>>7) }

// template returns the number of the template that the token was made from; zero
// is none.
func (r rowView) template() uint32 {
	if r.row[offOwnerKind-digestLen]&templated == 0 {
		return 0
	}
	return binary.LittleEndian.Uint32(r.row[rowHeader:])
}
