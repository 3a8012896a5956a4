package token

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"go4.org/netipx"

	"watchword.dev/events/catalogue"
)

// Compiled is a grant in the form that Evaluate reads: bytes without pointers,
// equal wherever they lie, that need no decoding. It is short, because what an
// evaluation costs is the lines of memory that it must wait for. All numbers
// are little-endian.
//
//	header   version u8 = 2 · flags u8 · policies u16 ·
//	         groups u16 · types u8 · 0 u8 · lineage u64 ·
//	         not before i64, if flagged 2 · expires on i64, if flagged 4
//	         (Unix nanoseconds; not flagged: open) ·
//	         addresses, if flagged 1: n4 u16 · n6 u16 ·
//	         n4 × (first, last u32) · n6 × (first, last), big-endian, 8 bytes
//	         each if flagged 8 (whole networks: the rest is zeros and ones),
//	         else 16
//	policy   form u8 (1: denies, 2: groups as a set, 4: large) · n-1 u8 ·
//	         size of the policy u16, or, if large, 0 u16 and the size u32 ·
//	         the groups: n × u16, or as a sparse bit set n × (index u16,
//	         bits u64) · matchers up to the end
//	matcher  inner type u8 · form u8 (1: nested, 2 bits each from 2 and from 8
//	         on: what the inner and the outer id are) · outer type u8, if
//	         nested · inner id · outer id, if nested
//	id       0: nothing, for every resource of the type; 1: length u8 · text;
//	         2: 16 bytes, for text of 32 lower-case hex digits
//	policies × (id 16 bytes), at the end: only one that matches is read
//
// Denying policies come first, so that the first that matches decides. The
// address ranges are sorted and do not overlap. Groups, types and lineage are
// those of the catalogue that it was compiled for: how many numbers it had
// given, and their fingerprint.
type Compiled []byte

const (
	compiledVersion = 2

	flagAddresses = 1
	flagNotBefore = 2
	flagExpiresOn = 4
	flagNetworks6 = 8
	flagsKnown    = 15

	headerLen   = 16
	policyLen   = 4
	largeLen    = 8
	groupLen    = 2
	wordLen     = 10
	range4Len   = 8
	network6Len = 16
	range6Len   = 32
	idLen       = len(ID{})

	formDeny  = 1
	formSet   = 2
	formLarge = 4

	matcherNested = 1
	idText        = 1
	idPacked      = 2
	idKinds       = 3 // the bits of one kind
	innerShift    = 1
	outerShift    = 3
)

// formatLimits are those of the compiled form. A stored grant was valid under
// whatever Limits held at the time.
var formatLimits = Limits{
	Policies:           1<<16 - 1,
	GroupsPerPolicy:    catalogue.MaxGroups,
	ResourcesPerPolicy: 1 << 20,
	Resources:          1 << 20,
	Addresses:          1 << 14,
}

// Compile turns a grant into its compiled form. It takes every grant that was
// ever valid: what the catalogue has dropped since applies to nothing, and a
// grant without policies allows nothing.
func Compile(g Grant, cat *catalogue.Catalogue) (Compiled, error) {
	return AppendCompiled(nil, g, cat)
}

// AppendCompiled appends what Compile returns to dst.
func AppendCompiled(dst []byte, g Grant, cat *catalogue.Catalogue) ([]byte, error) {
	r := resolvedPool.Get().(*resolved)
	defer r.release()
	if err := r.resolve(g, cat, formatLimits, true); err != nil {
		return nil, fmt.Errorf("token: compile: %w", err)
	}
	le := binary.LittleEndian
	start := len(dst)
	b := append(dst, compiledVersion, 0)
	b = le.AppendUint16(b, uint16(len(r.policies)))
	b = le.AppendUint16(b, uint16(cat.GroupCount()))
	b = append(b, byte(cat.TypeCount()), 0)
	b = le.AppendUint64(b, cat.Lineage(cat.GroupCount(), cat.TypeCount()))
	flags := byte(0)
	if r.notBefore != 0 {
		flags |= flagNotBefore
		b = le.AppendUint64(b, uint64(r.notBefore))
	}
	if r.expiresOn != 0 {
		flags |= flagExpiresOn
		b = le.AppendUint64(b, uint64(r.expiresOn))
	}
	if r.restricted {
		var some byte
		var err error
		if b, some, err = appendAddresses(b, r.ranges()); err != nil {
			return nil, err
		}
		flags |= flagAddresses | some
	}
	b[start+1] = flags
	for _, deny := range []bool{true, false} {
		for i := range r.policies {
			if r.policies[i].deny == deny {
				b = appendPolicy(b, &r.policies[i])
			}
		}
	}
	for _, deny := range []bool{true, false} {
		for i := range r.policies {
			if r.policies[i].deny == deny {
				b = append(b, r.policies[i].id[:]...)
			}
		}
	}
	return b, nil
}

// appendAddresses appends sorted ranges, IPv4 first, and returns flagNetworks6
// if all of IPv6 are whole networks of 64 bits.
func appendAddresses(b []byte, ranges []netipx.IPRange) ([]byte, byte, error) {
	if len(ranges) > 1<<16-1 {
		return nil, 0, errors.New("token: compile: too many address ranges")
	}
	n4 := 0
	for n4 < len(ranges) && ranges[n4].From().Is4() {
		n4++
	}
	le, be := binary.LittleEndian, binary.BigEndian
	b = le.AppendUint16(b, uint16(n4))
	b = le.AppendUint16(b, uint16(len(ranges)-n4))
	for _, r := range ranges[:n4] {
		from, to := r.From().As4(), r.To().As4()
		b = le.AppendUint32(b, be.Uint32(from[:]))
		b = le.AppendUint32(b, be.Uint32(to[:]))
	}
	flag, part := byte(flagNetworks6), network6Len/2
	for _, r := range ranges[n4:] {
		from, to := r.From().As16(), r.To().As16()
		if be.Uint64(from[8:]) != 0 || be.Uint64(to[8:]) != 1<<64-1 {
			flag, part = 0, range6Len/2
		}
	}
	for _, r := range ranges[n4:] {
		from, to := r.From().As16(), r.To().As16()
		b = append(append(b, from[:part]...), to[:part]...)
	}
	return b, flag, nil
}

func appendPolicy(b []byte, p *resolvedPolicy) []byte {
	le := binary.LittleEndian
	start := len(b)
	form := byte(0)
	if p.deny {
		form |= formDeny
	}
	slices.Sort(p.groups) // the resolved grant is ours and is not used again
	groups := slices.Compact(p.groups)
	words := 1
	for i := 1; i < len(groups); i++ {
		if groups[i]/64 != groups[i-1]/64 {
			words++
		}
	}
	n, room := len(groups), len(groups)*groupLen
	if n > 256 || words*wordLen < room {
		form |= formSet
		n, room = words, words*wordLen
	}
	size := policyLen + room
	for i := range p.matchers {
		size += matcherLen(&p.matchers[i])
	}
	if size > 1<<16-1 {
		size += largeLen - policyLen
		b = append(b, form|formLarge, byte(n-1), 0, 0)
		b = le.AppendUint32(b, uint32(size))
	} else {
		b = append(b, form, byte(n-1))
		b = le.AppendUint16(b, uint16(size))
	}
	if form&formSet == 0 {
		for _, g := range groups {
			b = le.AppendUint16(b, uint16(g))
		}
	}
	for i := 0; form&formSet != 0 && i < len(groups); {
		at, bits := groups[i]/64, uint64(0)
		for ; i < len(groups) && groups[i]/64 == at; i++ {
			bits |= 1 << (groups[i] % 64)
		}
		b = le.AppendUint16(b, uint16(at))
		b = le.AppendUint64(b, bits)
	}
	for i := range p.matchers {
		b = appendMatcher(b, &p.matchers[i])
	}
	if len(b)-start != size {
		panic("token: a policy is not as long as was counted")
	}
	return b
}

// idForm returns what an id is compiled to, and how long.
func idForm(id string) (kind byte, size int) {
	if id == "" {
		return 0, 0
	}
	if _, err := ParseID(id); err == nil {
		return idPacked, idLen
	}
	return idText, 1 + len(id)
}

func matcherLen(m *Matcher) int {
	_, n := idForm(m.Inner.ID)
	if !m.Nested {
		return 2 + n
	}
	_, o := idForm(m.Outer.ID)
	return 3 + n + o
}

func appendMatcher(b []byte, m *Matcher) []byte {
	inner, _ := idForm(m.Inner.ID)
	if !m.Nested {
		return appendID(append(b, byte(m.Inner.Type), inner<<innerShift), m.Inner.ID, inner)
	}
	outer, _ := idForm(m.Outer.ID)
	b = append(b, byte(m.Inner.Type), matcherNested|inner<<innerShift|outer<<outerShift, byte(m.Outer.Type))
	return appendID(appendID(b, m.Inner.ID, inner), m.Outer.ID, outer)
}

func appendID(b []byte, id string, kind byte) []byte {
	switch kind {
	case idText:
		return append(append(b, byte(len(id))), id...)
	case idPacked:
		packed, _ := ParseID(id) // idForm has tried it
		return append(b, packed[:]...)
	}
	return b
}

// opened is what stands at the start of a compiled grant.
type opened struct {
	flags                byte
	policies, groups     int
	types                int
	lineage              uint64
	notBefore, expiresOn int64
	rest                 []byte // from the addresses on
}

// open reads the start, and reports whether it can be read.
func (c Compiled) open(o *opened) bool {
	if len(c) < headerLen || c[0] != compiledVersion || c[1]&^flagsKnown != 0 {
		return false
	}
	le := binary.LittleEndian
	o.flags, o.types = c[1], int(c[6])
	o.policies, o.groups = int(le.Uint16(c[2:])), int(le.Uint16(c[4:]))
	o.lineage = le.Uint64(c[8:])
	b := []byte(c[headerLen:])
	if o.flags&flagNotBefore != 0 {
		if len(b) < 8 {
			return false
		}
		o.notBefore, b = int64(le.Uint64(b)), b[8:]
	}
	if o.flags&flagExpiresOn != 0 {
		if len(b) < 8 {
			return false
		}
		o.expiresOn, b = int64(le.Uint64(b)), b[8:]
	}
	o.rest = b
	return true
}

// Validity returns the bounds of the grant's validity, each zero when it is
// open or cannot be read.
func (c Compiled) Validity() (notBefore, expiresOn time.Time) {
	var o opened
	if c.open(&o) {
		if o.notBefore != 0 {
			notBefore = time.Unix(0, o.notBefore).UTC()
		}
		if o.expiresOn != 0 {
			expiresOn = time.Unix(0, o.expiresOn).UTC()
		}
	}
	return notBefore, expiresOn
}

// ByAddress reports whether the grant is for some client addresses only. It is
// false for one that cannot be read.
func (c Compiled) ByAddress() bool {
	return len(c) >= headerLen && c[1]&flagAddresses != 0
}

// Changes returns when, after now, the grant begins or ends; zero when it does
// neither, or cannot be read.
func (c Compiled) Changes(now time.Time) time.Time {
	if len(c) < headerLen || c[1]&(flagNotBefore|flagExpiresOn) == 0 {
		return time.Time{}
	}
	var o opened
	if !c.open(&o) {
		return time.Time{}
	}
	for _, bound := range [...]int64{o.notBefore, o.expiresOn} {
		if bound != 0 && withinValidity(0, bound, now) == ReasonNone {
			return time.Unix(0, bound).UTC()
		}
	}
	return time.Time{}
}

// MaxBare is the greatest length of what AppendBare appends.
const MaxBare = headerLen + 2*8

// AppendBare appends a compiled grant of the same validity that allows nothing.
// Of one that cannot be read it appends nothing.
func (c Compiled) AppendBare(dst []byte) []byte {
	var o opened
	if !c.open(&o) {
		return dst
	}
	start := len(dst)
	dst = append(dst, c[:len(c)-len(o.rest)]...)
	dst[start+1] &= flagNotBefore | flagExpiresOn
	dst[start+2], dst[start+3] = 0, 0
	return dst
}

var (
	errCompiled = errors.New("token: compiled grant is damaged")
	errForeign  = errors.New("token: compiled grant belongs to another catalogue")
)

// Check reports whether c is a compiled grant of a version that this program
// reads, was compiled for cat or a catalogue that cat extends, and has
// everything in its place. Evaluate is safe without it and refuses what it
// stumbles over; Check also finds damage that one evaluation does not look at.
func (c Compiled) Check(cat *catalogue.Catalogue) error {
	var o opened
	if !c.open(&o) || c[7] != 0 || o.flags&flagNetworks6 != 0 && o.flags&flagAddresses == 0 ||
		o.flags&flagNotBefore != 0 && o.notBefore == 0 || o.flags&flagExpiresOn != 0 && o.expiresOn == 0 {
		return errCompiled
	}
	if o.lineage != cat.Lineage(o.groups, o.types) {
		return errForeign
	}
	b := o.rest
	if o.flags&flagAddresses != 0 {
		var ok bool
		if b, ok = checkAddresses(b, o.flags); !ok {
			return errCompiled
		}
	}
	if len(b) < o.policies*idLen {
		return errCompiled
	}
	b = b[:len(b)-o.policies*idLen]
	allowing := false
	for range o.policies {
		groups, matchers, size := cutPolicy(b)
		if size == 0 || b[0]&formDeny != 0 && allowing ||
			!checkGroups(b[groups:matchers], b[0]&formSet != 0, o.groups) || !checkMatchers(b[matchers:size], byte(o.types)) {
			return errCompiled
		}
		allowing, b = b[0]&formDeny == 0, b[size:]
	}
	if len(b) != 0 {
		return errCompiled
	}
	return nil
}

// checkAddresses returns what follows the address ranges.
func checkAddresses(b []byte, flags byte) ([]byte, bool) {
	ranges4, ranges6, rest, ok := cutAddresses(b, flags)
	if !ok {
		return nil, false
	}
	le := binary.LittleEndian
	for i := 0; i < len(ranges4); i += range4Len {
		from, to := le.Uint32(ranges4[i:]), le.Uint32(ranges4[i+4:])
		if from > to || i > 0 && from <= le.Uint32(ranges4[i-4:]) {
			return nil, false
		}
	}
	part := range6Len / 2
	if flags&flagNetworks6 != 0 {
		part = network6Len / 2
	}
	var last []byte
	for i := 0; i < len(ranges6); i += 2 * part {
		from, to := ranges6[i:][:part], ranges6[i+part:][:part]
		if bytes.Compare(from, to) > 0 || i > 0 && bytes.Compare(from, last) <= 0 {
			return nil, false
		}
		last = to
	}
	return rest, true
}

func checkGroups(b []byte, set bool, count int) bool {
	le := binary.LittleEndian
	for last := -1; len(b) > 0; {
		at, bit := int(le.Uint16(b)), uint64(1)
		if set {
			at, bit, b = at*64, le.Uint64(b[2:]), b[wordLen:]
		} else {
			b = b[groupLen:]
		}
		if bit == 0 || at <= last || at+63-bits.LeadingZeros64(bit) >= count {
			return false
		}
		last = at
	}
	return true
}

func checkMatchers(b []byte, types byte) bool {
	for len(b) > 0 {
		m, rest, ok := nextMatcher(b)
		if !ok || m.innerType >= types || m.outerType >= types || !checkID(m.inner, m.innerKind) || !checkID(m.outer, m.outerKind) {
			return false
		}
		b = rest
	}
	return true
}

func checkID(id []byte, kind byte) bool { return kind != idText || catalogue.ValidID(string(id)) }
