package token

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"

	"watchword.dev/events/catalogue"
)

// MaxChain is the longest resource chain that is evaluated.
const MaxChain = 16

// Evaluate answers whether the grant allows perm on chain from addr at now. It
// does no I/O and allocates nothing; the work is bounded by the size of the
// grant. The catalogue must be the one that the grant was compiled for or one
// that extends it.
//
// The first of these that holds is the answer:
//
//	not_ready           the form is damaged, of another lineage, or now is zero
//	malformed           the chain is longer than MaxChain
//	not_yet_valid, expired
//	address             there is a condition, and addr is unknown or outside
//	unknown_permission  perm names no permission
//	denied_by_policy    a denying policy matches
//	allowed             an allowing policy matches
//	no_policy           nothing matches
//
// The id is that of the policy that matched, else zero.
func (c Compiled) Evaluate(cat *catalogue.Catalogue, perm catalogue.PermissionRef, chain []string, addr netip.Addr, now time.Time) (Reason, ID, bool) {
	var o opened
	if !c.open(&o) || now.IsZero() || o.lineage != cat.Lineage(o.groups, o.types) {
		return ReasonNotReady, ID{}, false
	}
	if len(chain) > MaxChain {
		return ReasonMalformed, ID{}, false
	}
	if r := withinValidity(o.notBefore, o.expiresOn, now); r != ReasonNone {
		return r, ID{}, false
	}
	b := o.rest
	if o.flags&flagAddresses != 0 {
		rest, r := withinAddresses(b, o.flags, addr)
		if r != ReasonNone {
			return r, ID{}, false
		}
		b = rest
	}
	groups := cat.PermissionGroups(perm)
	if groups == nil {
		return ReasonUnknownPermission, ID{}, false
	}
	if len(b) < o.policies*idLen {
		return ReasonNotReady, ID{}, false
	}
	ids := b[len(b)-o.policies*idLen:]
	b = b[:len(b)-len(ids)]
	for i := range o.policies {
		groupsAt, matchersAt, size := cutPolicy(b)
		if size == 0 {
			return ReasonNotReady, ID{}, false
		}
		form := b[0]
		scopes := scopesOf(b[groupsAt:matchersAt], form&formSet != 0, cat, groups)
		if scopes != 0 {
			switch matches(b[matchersAt:size], cat, scopes, chain) {
			case matchBroken:
				return ReasonNotReady, ID{}, false
			case matchYes:
				id := ID(ids[i*idLen:][:idLen])
				if form&formDeny != 0 {
					return ReasonDeniedByPolicy, id, false
				}
				return ReasonNone, id, true
			}
		}
		b = b[size:]
	}
	return ReasonNoPolicy, ID{}, false
}

// withinValidity compares now with bounds in Unix nanoseconds, zero being open.
func withinValidity(notBefore, expiresOn int64, now time.Time) Reason {
	if notBefore == 0 && expiresOn == 0 {
		return ReasonNone
	}
	// Outside of these years nanoseconds would wrap around.
	t := now.UnixNano()
	switch s := now.Unix(); {
	case s < 0:
		t = -1
	case s >= latest.Unix():
		t = latest.UnixNano()
	}
	if notBefore != 0 && t < notBefore {
		return ReasonNotYetValid
	}
	if expiresOn != 0 && t >= expiresOn {
		return ReasonExpired
	}
	return ReasonNone
}

// cutAddresses cuts the address ranges off b, and reports whether they are
// there.
func cutAddresses(b []byte, flags byte) (ranges4, ranges6, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, nil, false
	}
	le := binary.LittleEndian
	n4, n6 := int(le.Uint16(b))*range4Len, int(le.Uint16(b[2:]))*range6Len
	if flags&flagNetworks6 != 0 {
		n6 = n6 / range6Len * network6Len
	}
	if b = b[4:]; len(b) < n4+n6 {
		return nil, nil, nil, false
	}
	return b[:n4], b[n4 : n4+n6], b[n4+n6:], true
}

// withinAddresses looks addr up in the ranges that b starts with and returns
// what follows them.
func withinAddresses(b []byte, flags byte, addr netip.Addr) ([]byte, Reason) {
	ranges4, ranges6, rest, ok := cutAddresses(b, flags)
	if !ok {
		return nil, ReasonNotReady
	}
	addr = addr.Unmap()
	switch {
	case addr.Is4():
		a := addr.As4()
		if !in4(ranges4, binary.BigEndian.Uint32(a[:])) {
			return nil, ReasonAddress
		}
	case addr.Is6() && addr.Zone() == "":
		a := addr.As16()
		part := range6Len / 2
		if flags&flagNetworks6 != 0 {
			part = network6Len / 2
		}
		if !in6(ranges6, a[:part]) {
			return nil, ReasonAddress
		}
	default:
		return nil, ReasonAddress
	}
	return rest, ReasonNone
}

// in4 finds by halving the only range that could hold a: the last one that
// begins at or before it.
func in4(ranges []byte, a uint32) bool {
	lo, hi := 0, len(ranges)/range4Len
	for lo < hi {
		mid := (lo + hi) / 2
		if binary.LittleEndian.Uint32(ranges[mid*range4Len:]) <= a {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo > 0 && a <= binary.LittleEndian.Uint32(ranges[lo*range4Len-4:])
}

// in6 does the same with as much of an address as the ranges have.
func in6(ranges, a []byte) bool {
	n := len(a)
	lo, hi := 0, len(ranges)/(2*n)
	for lo < hi {
		mid := (lo + hi) / 2
		if bytes.Compare(ranges[mid*2*n:][:n], a) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo > 0 && bytes.Compare(a, ranges[lo*2*n-n:][:n]) <= 0
}

// cutPolicy returns where the groups and the matchers of the policy begin that
// b starts with, and where it ends; zero when it cannot be read.
func cutPolicy(b []byte) (groups, matchers, size int) {
	if len(b) < policyLen {
		return 0, 0, 0
	}
	form, each := b[0], groupLen
	groups, size = policyLen, int(binary.LittleEndian.Uint16(b[2:]))
	if form > formDeny {
		if form&^(formDeny|formSet|formLarge) != 0 {
			return 0, 0, 0
		}
		if form&formSet != 0 {
			each = wordLen
		}
		if form&formLarge != 0 {
			if len(b) < largeLen || size != 0 {
				return 0, 0, 0
			}
			groups = largeLen
			size = int(min(uint64(binary.LittleEndian.Uint32(b[4:])), uint64(len(b))+1))
		}
	}
	matchers = groups + (int(b[1])+1)*each
	if size > len(b) || matchers > size {
		return 0, 0, 0
	}
	return groups, matchers, size
}

// scopesOf returns the scopes of those groups in b that are in groups.
func scopesOf(b []byte, set bool, cat *catalogue.Catalogue, groups []uint64) (scopes uint64) {
	le := binary.LittleEndian
	if !set {
		for ; len(b) >= groupLen; b = b[groupLen:] {
			g := le.Uint16(b)
			if at := int(g / 64); at < len(groups) && groups[at]>>(g%64)&1 != 0 {
				scopes |= cat.Scopes(catalogue.GroupNumber(g))
			}
		}
		return scopes
	}
	for ; len(b) >= wordLen; b = b[wordLen:] {
		at := int(le.Uint16(b))
		if at >= len(groups) {
			continue
		}
		for set := le.Uint64(b[2:]) & groups[at]; set != 0; set &= set - 1 {
			scopes |= cat.Scopes(catalogue.GroupNumber(at*64 + bits.TrailingZeros64(set)))
		}
	}
	return scopes
}

type match uint8

const (
	matchNo match = iota
	matchYes
	matchBroken
)

// matches tells whether one of the matchers in b is about a resource in the
// chain and of a type that is in scopes.
func matches(b []byte, cat *catalogue.Catalogue, scopes uint64, chain []string) match {
	for len(b) >= 2+idLen && b[1] == idPacked<<innerShift {
		// Nearly all are of this form.
		if scopes&(1<<b[0]) != 0 {
			name := cat.TypeName(catalogue.TypeNumber(b[0]))
			for _, key := range chain {
				if len(key) == len(name)+1+2*idLen && spells(key[len(name)+1:], (*ID)(b[2:])) && named(key, name) {
					return matchYes
				}
			}
		}
		b = b[2+idLen:]
	}
	for len(b) > 0 {
		m, rest, ok := nextMatcher(b)
		if !ok {
			return matchBroken
		}
		b = rest
		if scopes&(1<<m.innerType) == 0 {
			continue
		}
		left, ok := chain, true
		if m.nested {
			// The first element that fits leaves most behind it.
			left, ok = behind(cat, m.outerType, m.outerKind, m.outer, chain)
		}
		if ok {
			if _, ok = behind(cat, m.innerType, m.innerKind, m.inner, left); ok {
				return matchYes
			}
		}
	}
	return matchNo
}

// named reports whether name is the whole name of the type of a key. An id
// holds no dot, so what stands before it is.
func named(key, name string) bool {
	n := len(name)
	return n > 0 && len(key) > n+1 && key[n] == '.' && key[:n] == name
}

// compiledMatcher is a Matcher that lies in a compiled grant.
type compiledMatcher struct {
	nested               bool
	innerType, outerType byte
	innerKind, outerKind byte
	inner, outer         []byte
}

// nextMatcher takes one matcher off b.
func nextMatcher(b []byte) (m compiledMatcher, rest []byte, ok bool) {
	if len(b) < 2 {
		return m, nil, false
	}
	form := b[1]
	m.innerType, m.innerKind = b[0], form>>innerShift&idKinds
	if form&matcherNested == 0 {
		if form>>outerShift != 0 {
			return m, nil, false
		}
		m.inner, rest, ok = cutID(b[2:], m.innerKind)
		return m, rest, ok
	}
	if len(b) < 3 || form>>outerShift > idKinds {
		return m, nil, false
	}
	m.nested, m.outerType, m.outerKind = true, b[2], form>>outerShift
	if m.inner, rest, ok = cutID(b[3:], m.innerKind); !ok {
		return m, nil, false
	}
	m.outer, rest, ok = cutID(rest, m.outerKind)
	return m, rest, ok
}

// cutID takes an id of this kind off b.
func cutID(b []byte, kind byte) (id, rest []byte, ok bool) {
	switch kind {
	case 0:
		return nil, b, true
	case idText:
		if len(b) == 0 || b[0] == 0 || len(b) <= int(b[0]) {
			return nil, nil, false
		}
		return b[1:][:b[0]], b[1+int(b[0]):], true
	case idPacked:
		if len(b) < idLen {
			return nil, nil, false
		}
		return b[:idLen], b[idLen:], true
	}
	return nil, nil, false
}

// behind returns the part of the chain behind the first key that is of this
// type and has this id, or any id if there is none, and whether there is one.
// It compares text and does not look types up.
func behind(cat *catalogue.Catalogue, typ, kind byte, id []byte, chain []string) ([]string, bool) {
	name := cat.TypeName(catalogue.TypeNumber(typ))
	for i, key := range chain {
		if !named(key, name) {
			continue
		}
		fits := false
		switch has := key[len(name)+1:]; kind {
		case idPacked:
			fits = len(has) == 2*idLen && spells(has, (*ID)(id))
		case idText:
			fits = has == string(id)
		default:
			fits = catalogue.ValidID(has)
		}
		if fits {
			return chain[i+1:], true
		}
	}
	return nil, false
}

// spells reports whether s, which is of the right length, is id in lower-case
// hex digits.
func spells(s string, id *ID) bool {
	for i := 0; i < idLen; i += 4 {
		// Each byte becomes two, which hold its halves, the higher one first.
		x := uint64(binary.LittleEndian.Uint32(id[i:]))
		x = (x | x<<16) & 0x0000ffff0000ffff
		x = (x | x<<8) & 0x00ff00ff00ff00ff
		x = x>>4&0x000f000f000f000f | x&0x000f000f000f000f<<8
		// A half from ten on is a letter, and not what comes after the nine.
		x += '0'*ones + (x+6*ones)>>4&ones*('a'-'9'-1)
		t := s[2*i:][:8]
		has := uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 |
			uint64(t[4])<<32 | uint64(t[5])<<40 | uint64(t[6])<<48 | uint64(t[7])<<56
		if x != has {
			return false
		}
	}
	return true
}

const ones = 0x0101010101010101
