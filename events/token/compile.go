package token

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go4.org/netipx"

	"watchword.dev/events/catalogue"
)

// Compiled is a grant in the form that Evaluate reads: bytes without pointers,
// equal wherever they lie, that need no decoding. All numbers are
// little-endian.
//
//	header   version u8 = 1 · flags u8 (1: addresses) · policies u16 ·
//	         groups u16 · types u8 · 0 u8 · lineage u64 ·
//	         not before i64 · expires on i64 (Unix nanoseconds, 0: open)
//	         addresses, if flagged: n4 u16 · n6 u16 ·
//	         n4 × (first, last u32) · n6 × (first, last 16 bytes, big-endian)
//	policy   size u32 · effect u8 (1 allow, 2 deny) · 0 u8 · words u16 ·
//	         matchers u32 · id 16 bytes · types of the inner selectors u64 ·
//	         words × (index u16, bits u64): the groups, as a sparse bit set ·
//	matcher  nested u8 · inner type u8 · length of inner id u8 ·
//	         outer type u8 · length of outer id u8 · inner id · outer id
//
// Denying policies come first, so that the first that matches decides. The
// address ranges are sorted and do not overlap. Groups, types and lineage are
// those of the catalogue that it was compiled for: how many numbers it had
// given, and their fingerprint. An id of length zero means every resource of
// its type.
type Compiled []byte

const (
	compiledVersion = 1
	flagAddresses   = 1

	headerLen  = 32
	policyLen  = 36
	wordLen    = 10
	matcherLen = 5
	range4Len  = 8
	range6Len  = 32

	effectAllow = 1
	effectDeny  = 2
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
	r, err := resolve(g, cat, formatLimits, true)
	if err != nil {
		return nil, fmt.Errorf("token: compile: %w", err)
	}
	le := binary.LittleEndian
	flags := byte(0)
	if r.addresses != nil {
		flags |= flagAddresses
	}
	b := append(dst, compiledVersion, flags)
	b = le.AppendUint16(b, uint16(len(r.policies)))
	b = le.AppendUint16(b, uint16(cat.GroupCount()))
	b = append(b, byte(cat.TypeCount()), 0)
	b = le.AppendUint64(b, cat.Lineage(cat.GroupCount(), cat.TypeCount()))
	b = le.AppendUint64(b, uint64(r.notBefore))
	b = le.AppendUint64(b, uint64(r.expiresOn))
	if r.addresses != nil {
		if b, err = appendAddresses(b, r.addresses); err != nil {
			return nil, err
		}
	}
	for _, deny := range []bool{true, false} {
		for i := range r.policies {
			if r.policies[i].deny == deny {
				b = appendPolicy(b, &r.policies[i])
			}
		}
	}
	return b, nil
}

func appendAddresses(b []byte, set *netipx.IPSet) ([]byte, error) {
	ranges := set.Ranges() // sorted, IPv4 first
	n4 := 0
	for n4 < len(ranges) && ranges[n4].From().Is4() {
		n4++
	}
	if len(ranges) > 1<<16-1 {
		return nil, errors.New("token: compile: too many address ranges")
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(n4))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(ranges)-n4))
	for _, r := range ranges[:n4] {
		from, to := r.From().As4(), r.To().As4()
		b = binary.LittleEndian.AppendUint32(b, binary.BigEndian.Uint32(from[:]))
		b = binary.LittleEndian.AppendUint32(b, binary.BigEndian.Uint32(to[:]))
	}
	for _, r := range ranges[n4:] {
		from, to := r.From().As16(), r.To().As16()
		b = append(append(b, from[:]...), to[:]...)
	}
	return b, nil
}

func appendPolicy(b []byte, p *resolvedPolicy) []byte {
	le := binary.LittleEndian
	start := len(b)
	effect := byte(effectAllow)
	if p.deny {
		effect = effectDeny
	}
	slices.Sort(p.groups) // the resolved grant is ours and is not used again
	groups := slices.Compact(p.groups)
	words := 0
	for i, g := range groups {
		if i == 0 || g/64 != groups[i-1]/64 {
			words++
		}
	}
	var types uint64
	for _, m := range p.matchers {
		types |= 1 << m.Inner.Type
	}
	b = append(b, 0, 0, 0, 0, effect, 0)
	b = le.AppendUint16(b, uint16(words))
	b = le.AppendUint32(b, uint32(len(p.matchers)))
	b = append(b, p.id[:]...)
	b = le.AppendUint64(b, types)
	for i := 0; i < len(groups); {
		at, bits := groups[i]/64, uint64(0)
		for ; i < len(groups) && groups[i]/64 == at; i++ {
			bits |= 1 << (groups[i] % 64)
		}
		b = le.AppendUint16(b, uint16(at))
		b = le.AppendUint64(b, bits)
	}
	for _, m := range p.matchers {
		nested := byte(0)
		if m.Nested {
			nested = 1
		}
		b = append(b, nested, byte(m.Inner.Type), byte(len(m.Inner.ID)), byte(m.Outer.Type), byte(len(m.Outer.ID)))
		b = append(append(b, m.Inner.ID...), m.Outer.ID...)
	}
	le.PutUint32(b[start:], uint32(len(b)-start))
	return b
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
	b := []byte(c)
	if len(b) < headerLen || b[0] != compiledVersion || b[1]&^flagAddresses != 0 || b[7] != 0 {
		return errCompiled
	}
	le := binary.LittleEndian
	policies, groups, types := int(le.Uint16(b[2:])), int(le.Uint16(b[4:])), b[6]
	addressed := b[1]&flagAddresses != 0
	if le.Uint64(b[8:]) != cat.Lineage(groups, int(types)) {
		return errForeign
	}
	b = b[headerLen:]
	if addressed {
		var ok bool
		if b, ok = checkAddresses(b); !ok {
			return errCompiled
		}
	}
	allowing := false
	for range policies {
		if len(b) < policyLen || uint64(le.Uint32(b)) > uint64(len(b)) || le.Uint32(b) < policyLen {
			return errCompiled
		}
		p := b[:le.Uint32(b)]
		b = b[len(p):]
		if p[4] == effectDeny && allowing || !checkPolicy(p, groups, types) {
			return errCompiled
		}
		allowing = p[4] == effectAllow
	}
	if len(b) != 0 {
		return errCompiled
	}
	return nil
}

// checkAddresses returns what follows the address ranges.
func checkAddresses(b []byte) ([]byte, bool) {
	if len(b) < 4 {
		return nil, false
	}
	le := binary.LittleEndian
	n4, n6 := int(le.Uint16(b)), int(le.Uint16(b[2:]))
	b = b[4:]
	if len(b) < n4*range4Len+n6*range6Len {
		return nil, false
	}
	for i := range n4 {
		from, to := le.Uint32(b[i*range4Len:]), le.Uint32(b[i*range4Len+4:])
		if from > to || i > 0 && from <= le.Uint32(b[i*range4Len-4:]) {
			return nil, false
		}
	}
	b = b[n4*range4Len:]
	for i := range n6 {
		r := b[i*range6Len:][:range6Len]
		from, to := string(r[:16]), string(r[16:])
		if from > to || i > 0 && from <= string(b[i*range6Len-16:][:16]) {
			return nil, false
		}
	}
	return b[n6*range6Len:], true
}

// checkPolicy checks one policy, whose size is right.
func checkPolicy(p []byte, groups int, types byte) bool {
	le := binary.LittleEndian
	if p[4] != effectAllow && p[4] != effectDeny || p[5] != 0 {
		return false
	}
	words, matchers := int(le.Uint16(p[6:])), le.Uint32(p[8:])
	want := le.Uint64(p[28:])
	p = p[policyLen:]
	if len(p) < words*wordLen {
		return false
	}
	for i := range words {
		at, set := int(le.Uint16(p[i*wordLen:])), le.Uint64(p[i*wordLen+2:])
		if set == 0 || i > 0 && at <= int(le.Uint16(p[(i-1)*wordLen:])) {
			return false
		}
		if top := at*64 + 63; top >= groups && set>>max(groups-at*64, 0) != 0 {
			return false
		}
	}
	p = p[words*wordLen:]
	var seen uint64
	for range matchers {
		m, rest, ok := nextMatcher(p)
		if !ok || m.innerType >= types || m.outerType >= types && m.nested || m.oddNested {
			return false
		}
		if len(m.inner) > 0 && !catalogue.ValidID(string(m.inner)) || len(m.outer) > 0 && (!m.nested || !catalogue.ValidID(string(m.outer))) {
			return false
		}
		seen |= 1 << m.innerType
		p = rest
	}
	return len(p) == 0 && seen == want
}
