package token

import (
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// addresses returns the set of addresses that may use the grant, nil when every
// address may.
func (r *resolved) addresses() *netipx.IPSet {
	if !r.restricted {
		return nil
	}
	var b netipx.IPSetBuilder
	for _, p := range r.in {
		b.AddPrefix(p)
	}
	for _, p := range r.notIn {
		b.RemovePrefix(p)
	}
	set, err := b.IPSet()
	if err != nil {
		panic("token: a prefix that was read is none: " + err.Error())
	}
	return set
}

// fewPrefixes is how many prefixes are cut one by one.
const fewPrefixes = 8

// ranges returns the ranges of the set: sorted, IPv4 first, neither overlapping
// nor touching. They are valid until r is released.
func (r *resolved) ranges() []netipx.IPRange {
	if len(r.in) > fewPrefixes || len(r.notIn) > fewPrefixes {
		return r.addresses().Ranges()
	}
	return r.cut.ranges(r.in, r.notIn)
}

// rangeCutter makes ranges of few prefixes, where an IPSet would cost more than
// all the rest of a grant.
type rangeCutter struct{ room, spare []netipx.IPRange }

func (c *rangeCutter) ranges(in, notIn []netip.Prefix) []netipx.IPRange {
	left := c.room[:0]
	for _, p := range in {
		left = append(left, netipx.RangeOfPrefix(p))
	}
	for _, p := range notIn {
		hole := netipx.RangeOfPrefix(p)
		cut := c.spare[:0]
		for _, r := range left {
			if r.From().BitLen() != hole.From().BitLen() || hole.To().Less(r.From()) || r.To().Less(hole.From()) {
				cut = append(cut, r)
				continue
			}
			if r.From().Less(hole.From()) {
				cut = append(cut, netipx.IPRangeFrom(r.From(), hole.From().Prev()))
			}
			if hole.To().Less(r.To()) {
				cut = append(cut, netipx.IPRangeFrom(hole.To().Next(), r.To()))
			}
		}
		c.spare, left = left, cut
	}
	c.room = left
	slices.SortFunc(left, func(a, b netipx.IPRange) int { return a.From().Compare(b.From()) })
	n := 0
	for _, r := range left {
		if n > 0 {
			// The next of the last address of all is no address, and less than any.
			last := left[n-1]
			if next := last.To().Next(); last.From().BitLen() == r.From().BitLen() && (!next.IsValid() || r.From().Compare(next) <= 0) {
				if last.To().Less(r.To()) {
					left[n-1] = netipx.IPRangeFrom(last.From(), r.To())
				}
				continue
			}
		}
		left[n] = r
		n++
	}
	return left[:n]
}
