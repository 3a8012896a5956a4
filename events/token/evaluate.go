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
	b := []byte(c)
	if len(b) < headerLen || b[0] != compiledVersion || now.IsZero() {
		return ReasonNotReady, ID{}, false
	}
	le := binary.LittleEndian
	if le.Uint64(b[8:]) != cat.Lineage(int(le.Uint16(b[4:])), int(b[6])) {
		return ReasonNotReady, ID{}, false
	}
	if len(chain) > MaxChain {
		return ReasonMalformed, ID{}, false
	}
	if r := withinValidity(int64(le.Uint64(b[16:])), int64(le.Uint64(b[24:])), now); r != ReasonNone {
		return r, ID{}, false
	}
	policies, flags := int(le.Uint16(b[2:])), b[1]
	b = b[headerLen:]
	if flags&flagAddresses != 0 {
		rest, r := withinAddresses(b, addr)
		if r != ReasonNone {
			return r, ID{}, false
		}
		b = rest
	}
	groups := cat.PermissionGroups(perm)
	if groups == nil {
		return ReasonUnknownPermission, ID{}, false
	}
	for range policies {
		if len(b) < policyLen {
			return ReasonNotReady, ID{}, false
		}
		size := uint64(le.Uint32(b))
		if size < policyLen || size > uint64(len(b)) {
			return ReasonNotReady, ID{}, false
		}
		p := b[:size]
		b = b[size:]
		switch matches(p, cat, groups, chain) {
		case matchBroken:
			return ReasonNotReady, ID{}, false
		case matchYes:
			id := ID(p[12:28])
			if p[4] == effectAllow {
				return ReasonNone, id, true
			}
			return ReasonDeniedByPolicy, id, false
		}
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

// withinAddresses looks addr up in the ranges that b starts with and returns
// what follows them.
func withinAddresses(b []byte, addr netip.Addr) ([]byte, Reason) {
	if len(b) < 4 {
		return nil, ReasonNotReady
	}
	le := binary.LittleEndian
	n4, n6 := int(le.Uint16(b)), int(le.Uint16(b[2:]))
	b = b[4:]
	if len(b) < n4*range4Len+n6*range6Len {
		return nil, ReasonNotReady
	}
	ranges4, ranges6, rest := b[:n4*range4Len], b[n4*range4Len:][:n6*range6Len], b[n4*range4Len+n6*range6Len:]
	addr = addr.Unmap()
	switch {
	case addr.Is4():
		a := addr.As4()
		if !in4(ranges4, binary.BigEndian.Uint32(a[:])) {
			return nil, ReasonAddress
		}
	case addr.Is6() && addr.Zone() == "":
		a := addr.As16()
		if !in6(ranges6, &a) {
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

func in6(ranges []byte, a *[16]byte) bool {
	lo, hi := 0, len(ranges)/range6Len
	for lo < hi {
		mid := (lo + hi) / 2
		if bytes.Compare(ranges[mid*range6Len:][:16], a[:]) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo > 0 && bytes.Compare(a[:], ranges[lo*range6Len-16:][:16]) <= 0
}

type match uint8

const (
	matchNo match = iota
	matchYes
	matchBroken
)

// matches tells whether one policy has a group with the permission, groups
// being those that have it, and a resource in that group's scope that is in
// the chain. The policy is at least policyLen long.
func matches(p []byte, cat *catalogue.Catalogue, groups []uint64, chain []string) match {
	le := binary.LittleEndian
	h := (*[policyLen]byte)(p)
	words, matchers := int(le.Uint16(h[6:])), le.Uint32(h[8:])
	if h[4] != effectAllow && h[4] != effectDeny || len(p)-policyLen < words*wordLen {
		return matchBroken
	}
	p = p[policyLen:]
	var scopes uint64
	for range words {
		at, set := int(le.Uint16(p)), le.Uint64(p[2:])
		p = p[wordLen:]
		if at >= len(groups) {
			continue
		}
		for set &= groups[at]; set != 0; set &= set - 1 {
			scopes |= cat.Scopes(catalogue.GroupNumber(at*64 + bits.TrailingZeros64(set)))
		}
	}
	if scopes &= le.Uint64(h[28:]); scopes == 0 {
		return matchNo
	}
	for range matchers {
		if len(p) < matcherLen {
			return matchBroken
		}
		m := (*[matcherLen]byte)(p)
		inner := matcherLen + int(m[2])
		end := inner + int(m[4])
		if len(p) < end {
			return matchBroken
		}
		if scopes&(1<<m[1]) != 0 {
			rest, ok := chain, true
			if m[0] != 0 {
				// The first element that fits leaves most behind it.
				rest, ok = behind(cat, m[3], p[inner:end], chain)
			}
			if ok {
				if _, ok = behind(cat, m[1], p[matcherLen:inner], rest); ok {
					return matchYes
				}
			}
		}
		p = p[end:]
	}
	return matchNo
}

// compiledMatcher is a Matcher that lies in a compiled grant.
type compiledMatcher struct {
	nested, oddNested    bool
	innerType, outerType byte
	inner, outer         []byte // empty: every resource of the type
}

// nextMatcher takes one matcher off p.
func nextMatcher(p []byte) (m compiledMatcher, rest []byte, ok bool) {
	if len(p) < matcherLen {
		return m, nil, false
	}
	m.nested, m.oddNested = p[0] != 0, p[0] > 1
	m.innerType, m.outerType = p[1], p[3]
	inner, outer := int(p[2]), int(p[4])
	p = p[matcherLen:]
	if len(p) < inner+outer {
		return m, nil, false
	}
	m.inner, m.outer = p[:inner], p[inner:][:outer]
	return m, p[inner+outer:], true
}

// behind returns the part of the chain behind the first key that is of this
// type and has this id, or any id if it is empty, and whether there is one. It
// compares text and does not look types up: an id holds no dot, so what stands
// before it is the whole name of the type.
func behind(cat *catalogue.Catalogue, typ byte, id []byte, chain []string) ([]string, bool) {
	name := cat.TypeName(catalogue.TypeNumber(typ))
	n := len(name)
	if n == 0 {
		return nil, false
	}
	for i, key := range chain {
		if len(key) <= n+1 || key[n] != '.' {
			continue
		}
		if len(id) > 0 {
			if key[n+1:] == string(id) && key[:n] == name {
				return chain[i+1:], true
			}
		} else if key[:n] == name && catalogue.ValidID(key[n+1:]) {
			return chain[i+1:], true
		}
	}
	return nil, false
}
