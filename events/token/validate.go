package token

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"watchword.dev/events/catalogue"
)

// Limits bound a grant. A zero field means none of that thing is allowed; take
// DefaultLimits and change what must differ.
type Limits struct {
	Policies           int // policies in a grant
	GroupsPerPolicy    int
	ResourcesPerPolicy int
	Resources          int // resources in a grant
	Addresses          int // entries of each list of the condition
}

// DefaultLimits are what an installation allows unless it says otherwise. They
// keep one verification below a millisecond for the worst grant.
var DefaultLimits = Limits{
	Policies:           100,
	GroupsPerPolicy:    500,
	ResourcesPerPolicy: 1000,
	Resources:          5000,
	Addresses:          500,
}

// within returns the smaller of each limit.
func (l Limits) within(m Limits) Limits {
	return Limits{
		Policies:           min(l.Policies, m.Policies),
		GroupsPerPolicy:    min(l.GroupsPerPolicy, m.GroupsPerPolicy),
		ResourcesPerPolicy: min(l.ResourcesPerPolicy, m.ResourcesPerPolicy),
		Resources:          min(l.Resources, m.Resources),
		Addresses:          min(l.Addresses, m.Addresses),
	}
}

// Times beyond these are not counted in the compiled form, in which a time is
// nanoseconds in 64 bits and zero is no time.
var (
	earliest = time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
)

// Validate reports whether a token can be given this grant. The error is a
// *GrantError. Limits beyond those of the compiled form do not widen it.
func (g Grant) Validate(cat *catalogue.Catalogue, limits Limits) error {
	if len(g.Policies) == 0 {
		return &GrantError{Kind: Invalid, Pointer: "/policies", Text: "at least one policy is needed"}
	}
	r := resolvedPool.Get().(*resolved)
	defer r.release()
	return r.resolve(g, cat, limits, false)
}

// resolved is a grant in which everything is checked and numbered. It points
// into that grant.
type resolved struct {
	policies   []resolvedPolicy
	restricted bool // to the addresses of in that are not in notIn
	in, notIn  []netip.Prefix
	notBefore  int64 // Unix nanoseconds; 0: open
	expiresOn  int64

	// Room that the policies take their parts of, and that of the ranges.
	matchers []Matcher
	groups   []catalogue.GroupNumber
	cut      rangeCutter
}

type resolvedPolicy struct {
	id       ID
	deny     bool
	groups   []catalogue.GroupNumber
	matchers []Matcher
}

// resolvedPool keeps rooms: a replay compiles every grant of the ledger.
var resolvedPool = sync.Pool{New: func() any { return new(resolved) }}

// mostPooled is how many matchers or groups may be in a room that is kept.
const mostPooled = 1024

// release gives the room back. Nothing may use it any more.
func (r *resolved) release() {
	if cap(r.matchers) > mostPooled || cap(r.groups) > mostPooled || cap(r.policies) > mostPooled {
		return
	}
	// Else the pool would keep what was resolved.
	clear(r.matchers)
	clear(r.policies)
	*r = resolved{
		policies: r.policies[:0], matchers: r.matchers[:0], groups: r.groups[:0],
		in: r.in[:0], notIn: r.notIn[:0], cut: r.cut,
	}
	resolvedPool.Put(r)
}

// resolve is what Validate, Compile and Covers all start with; r is empty. A
// stored grant was valid when it was stored, so it may name what the catalogue
// has dropped or narrowed since; that simply applies to nothing.
func (r *resolved) resolve(g Grant, cat *catalogue.Catalogue, limits Limits, stored bool) error {
	limits = limits.within(formatLimits)
	if len(g.Policies) > limits.Policies {
		return &GrantError{Kind: TooMany, Pointer: "/policies", Text: fmt.Sprintf("at most %d policies are allowed", limits.Policies)}
	}
	left := limits.Resources
	for i := range g.Policies {
		rp, err := r.resolvePolicy(&g.Policies[i], cat, limits, stored)
		if err != nil {
			err.Pointer = fmt.Sprintf("/policies/%d%s", i, err.Pointer)
			return err
		}
		if left -= len(rp.matchers); left < 0 {
			return &GrantError{Kind: TooMany, Pointer: "/policies", Text: fmt.Sprintf("at most %d resources are allowed in all policies together", limits.Resources)}
		}
		r.policies = append(r.policies, rp)
	}
	if err := r.resolveValidity(g, stored); err != nil {
		return err
	}
	return r.resolveCondition(g.Condition, limits)
}

// resolvePolicy returns an error whose pointer is into p.
func (r *resolved) resolvePolicy(p *Policy, cat *catalogue.Catalogue, limits Limits, stored bool) (resolvedPolicy, *GrantError) {
	rp := resolvedPolicy{id: p.ID, deny: p.Effect == EffectDeny}
	if p.Effect != EffectAllow && p.Effect != EffectDeny {
		return rp, &GrantError{Kind: Invalid, Pointer: "/effect", Text: "effect must be allow or deny"}
	}
	room := r.matchers[len(r.matchers):]
	matchers, err := parseResources(room, p.Resources, cat, limits.ResourcesPerPolicy, stored)
	if err != nil {
		kind := Invalid
		if errors.Is(err, errResourcesMany) {
			kind = TooMany
		}
		return rp, &GrantError{Kind: kind, Pointer: "/resources", Text: err.Error()}
	}
	rp.matchers = matchers
	if len(matchers) <= cap(room) {
		r.matchers = r.matchers[:len(r.matchers)+len(matchers)]
	} else {
		r.matchers = append(r.matchers, matchers...) // so that it has room the next time
	}
	var types uint64
	for _, m := range matchers {
		types |= 1 << m.Inner.Type
	}
	switch {
	case len(p.Groups) == 0:
		return rp, &GrantError{Kind: Invalid, Pointer: "/permission_groups", Text: "at least one permission group is needed"}
	case len(p.Groups) > limits.GroupsPerPolicy:
		return rp, &GrantError{Kind: TooMany, Pointer: "/permission_groups", Text: fmt.Sprintf("at most %d permission groups are allowed in a policy", limits.GroupsPerPolicy)}
	}
	from := len(r.groups)
	for i, ref := range p.Groups {
		n, ok := cat.GroupNumber(ref.ID)
		if !ok && stored {
			n, ok = cat.FormerGroupNumber(ref.ID)
		}
		if !ok {
			return rp, &GrantError{Kind: UnknownGroup, Pointer: fmt.Sprintf("/permission_groups/%d/id", i), Text: "there is no such permission group"}
		}
		if !stored && cat.Scopes(n)&types == 0 {
			return rp, &GrantError{
				Kind: WrongScope, Pointer: fmt.Sprintf("/permission_groups/%d", i), Group: ref.ID,
				Text: "the permission group applies to none of the policy's resources",
			}
		}
		r.groups = append(r.groups, n)
	}
	rp.groups = r.groups[from:len(r.groups):len(r.groups)]
	return rp, nil
}

// resolveValidity refuses nothing in a stored grant: cut to milliseconds, its
// times may have become equal, and then it is never valid.
func (r *resolved) resolveValidity(g Grant, stored bool) error {
	for _, b := range []struct {
		at  string
		t   time.Time
		out *int64
	}{{"/not_before", g.NotBefore, &r.notBefore}, {"/expires_on", g.ExpiresOn, &r.expiresOn}} {
		switch {
		case b.t.IsZero():
		case !b.t.Before(earliest) && b.t.Before(latest):
			*b.out = b.t.UnixNano()
		case !stored:
			return &GrantError{Kind: Invalid, Pointer: b.at, Text: "time is out of range"}
		case b.t.Before(latest):
			*b.out = 1
		default:
			*b.out = latest.UnixNano()
		}
	}
	if !stored && r.notBefore != 0 && r.expiresOn != 0 && r.expiresOn <= r.notBefore {
		return &GrantError{Kind: Invalid, Pointer: "/expires_on", Text: "expires_on must be after not_before"}
	}
	return nil
}

// everywhere stands for a list of addresses that there is not.
var everywhere = []string{"0.0.0.0/0", "::/0"}

// resolveCondition reads which addresses may use the grant.
func (r *resolved) resolveCondition(c *Condition, limits Limits) error {
	if c.unrestricted() {
		return nil
	}
	r.restricted = true
	in := c.RequestIP.In
	if in == nil {
		in = everywhere
	}
	var err *GrantError
	if r.in, err = resolvePrefixes(r.in, "/condition/request_ip/in", in, limits); err != nil {
		return err
	}
	if r.notIn, err = resolvePrefixes(r.notIn, "/condition/request_ip/not_in", c.RequestIP.NotIn, limits); err != nil {
		return err
	}
	return nil
}

func resolvePrefixes(dst []netip.Prefix, at string, entries []string, limits Limits) ([]netip.Prefix, *GrantError) {
	if len(entries) > limits.Addresses {
		return dst, &GrantError{Kind: TooMany, Pointer: at, Text: fmt.Sprintf("at most %d addresses are allowed", limits.Addresses)}
	}
	for i, s := range entries {
		p, err := ParsePrefix(s)
		if err != nil {
			return dst, &GrantError{Kind: Invalid, Pointer: fmt.Sprintf("%s/%d", at, i), Text: "not an IP address or prefix"}
		}
		dst = append(dst, p)
	}
	return dst, nil
}

// ParsePrefix reads an entry of a condition: a prefix such as 192.0.2.0/24,
// whose host bits may be set, or a single address. IPv4 addresses that are
// written inside IPv6 are taken as IPv4. A zone (fe80::1%eth0) is refused.
func ParsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, errPrefix
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s) // refuses zones
	if err != nil {
		return netip.Prefix{}, errPrefix
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			// It reaches beyond the mapped addresses: neither IPv4 nor IPv6.
			return netip.Prefix{}, errPrefix
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

var errPrefix = errors.New("token: not an IP address or prefix")

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
