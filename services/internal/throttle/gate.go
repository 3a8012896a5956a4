package throttle

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// Limits are the bounds of a gate. The zero value bounds nothing.
type Limits struct {
	// Requests bounds one principal, and for those who are nobody one address.
	Requests Limit
	// Address bounds what comes from one address, whoever sends it.
	Address Limit
	// Wrong bounds the wrong credentials from one address, and those under one
	// identifier from everywhere.
	Wrong Limit
}

// Bound is one of the things that a gate bounds.
type Bound int

// The bounds.
const (
	Requests Bound = iota
	Addresses
	WrongAddress
	WrongIdentifier
	Bounds // how many there are
)

// String returns the bound's name, as a metric's label has it.
func (b Bound) String() string {
	return [...]string{"requests", "address", "wrong_address", "wrong_identifier"}[b]
}

// Gate counts requests and wrong credentials. A nil Gate lets everything pass.
type Gate struct {
	tables  [Bounds]*Table
	refused [Bounds]atomic.Uint64
	wrong   atomic.Uint64
}

// NewGate returns a gate that has seen nothing yet. A nil now is time.Now.
func NewGate(l Limits, now func() time.Time) *Gate {
	if now == nil {
		now = time.Now
	}
	g := new(Gate)
	for b, l := range map[Bound]Limit{Requests: l.Requests, Addresses: l.Address, WrongAddress: l.Wrong, WrongIdentifier: l.Wrong} {
		g.tables[b] = NewTable(l, now)
	}
	return g
}

// Refused returns how often a bound has refused.
func (g *Gate) Refused(b Bound) uint64 { return g.refused[b].Load() }

// WrongCredentials returns how many were reported, refused or not.
func (g *Gate) WrongCredentials() uint64 { return g.wrong.Load() }

// Principal asks for one request of somebody who is known by this id.
func (g *Gate) Principal(id [16]byte) State {
	if g == nil {
		return State{}
	}
	name := name{'p'}
	copy(name[1:], id[:])
	return g.take(Requests, name[:])
}

// Stranger asks for one request of somebody at an address who is not known.
// The strangers of one address share what one principal has.
func (g *Gate) Stranger(a netip.Addr) State {
	if g == nil {
		return State{}
	}
	name := network(a)
	return g.take(Requests, name[:])
}

// Address asks for one request from an address.
func (g *Gate) Address(a netip.Addr) State {
	if g == nil {
		return State{}
	}
	name := network(a)
	return g.take(Addresses, name[:])
}

// Wrong reports a credential that was looked up and is wrong, from an address
// and under an identifier, such as an e-mail address; "" is none. Refused says
// that there were too many.
func (g *Gate) Wrong(a netip.Addr, identifier string) State {
	if g == nil {
		return State{}
	}
	g.wrong.Add(1)
	name := network(a)
	s := g.take(WrongAddress, name[:])
	if identifier == "" {
		return s
	}
	// Case must not make a bucket of its own.
	if of := g.take(WrongIdentifier, []byte(strings.ToLower(identifier))); of.Refused && (!s.Refused || of.Retry > s.Retry) {
		return of
	}
	return s
}

func (g *Gate) take(b Bound, name []byte) State {
	s := g.tables[b].Take(name)
	if s.Refused {
		g.refused[b].Add(1)
	}
	return s
}

// name is what a principal or an address is counted by. The letter before it
// keeps the two apart.
type name [17]byte

// network names an address: an IPv4 address, or the /64 of an IPv6 address,
// because whoever has one of its addresses has them all. Those whose address is
// not known are counted as one.
func network(a netip.Addr) (n name) {
	switch a = a.Unmap(); {
	case a.Is4():
		b := a.As4()
		n[0] = '4'
		copy(n[1:], b[:])
	case a.Is6():
		b := a.As16()
		n[0] = '6'
		copy(n[1:], b[:8])
	}
	return n
}
