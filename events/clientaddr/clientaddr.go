// Package clientaddr finds the address of the client that sent a request: that
// of the connection, or what trusted proxies say of it.
package clientaddr

import (
	"net/http"
	"net/netip"
	"strings"
)

// maxHops bounds how many hops of a header are looked at.
const maxHops = 64

// The headers that hold a chain of hops. Any other holds one address.
const (
	forwardedFor = "X-Forwarded-For"
	forwarded    = "Forwarded"
)

// Proxies are the networks whose word about a client's address counts.
// The zero value trusts nobody.
type Proxies []netip.Prefix

func (t Proxies) contains(a netip.Addr) bool {
	for _, p := range t {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Rule says how the address of a client is found. The zero value takes the
// socket's peer.
type Rule struct {
	Trusted Proxies
	// Header is the one header that counts, and that every trusted proxy sets
	// or adds to: X-Forwarded-For, Forwarded (RFC 7239), or one that holds a
	// single address, such as CF-Connecting-IP. "" is X-Forwarded-For. No
	// other is looked at: a proxy passes on those that it does not know.
	Header string
}

// Canonical returns c with the header as net/http spells it. Of needs it so.
func (c Rule) Canonical() Rule {
	if c.Header = http.CanonicalHeaderKey(c.Header); c.Header == "" {
		c.Header = forwardedFor
	}
	return c
}

// Of returns the address of whoever sent r: the socket's peer, unless the peer
// is a trusted proxy. Then a chain of hops is walked from its end, over all
// lines of the header, to the first hop that is not trusted: all before that
// one is what the client says. A single address is taken as it is.
//
// It returns the zero Addr when the address cannot be read or is withheld: an
// address that is not known is no address, and a condition on addresses
// refuses it.
func (c Rule) Of(r *http.Request) netip.Addr {
	peer := parsePeer(r.RemoteAddr)
	if len(c.Trusted) == 0 || !peer.IsValid() || !c.Trusted.contains(peer) {
		return peer
	}
	lines := r.Header[c.Header]
	switch {
	case len(lines) == 0:
		return peer // the proxy speaks for itself
	case c.Header == forwardedFor:
		return c.walk(peer, lines, listedHops)
	case c.Header == forwarded:
		return c.walk(peer, lines, forwardedHops)
	case len(lines) > 1:
		return netip.Addr{}
	}
	return parseHop(lines[0])
}

// walk returns the last hop that is not trusted, and the first of all when all
// are. Lines before the one where it is found are not read. hops gives those of
// a line, the last first.
func (c Rule) walk(peer netip.Addr, lines []string, hops func(string) ([]netip.Addr, bool)) netip.Addr {
	last, left := peer, maxHops
	for i := len(lines) - 1; i >= 0; i-- {
		found, ok := hops(lines[i])
		if !ok {
			return netip.Addr{}
		}
		for _, last = range found {
			if left--; left < 0 {
				return netip.Addr{}
			}
			if !last.IsValid() || !c.Trusted.contains(last) {
				return last
			}
		}
	}
	return last
}

// listedHops reads a line of X-Forwarded-For, as far as anybody looks. What is
// no address is the zero Addr.
func listedHops(line string) ([]netip.Addr, bool) {
	hops := make([]netip.Addr, 0, 4)
	for more := true; more && len(hops) <= maxHops; {
		at := strings.LastIndexByte(line, ',')
		hops = append(hops, parseHop(line[at+1:]))
		if more = at >= 0; more {
			line = line[:at]
		}
	}
	return hops, true
}

// parsePeer reads net/http's RemoteAddr.
func parsePeer(s string) netip.Addr {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.Addr{}
	}
	return plain(ap.Addr())
}

// parseHop reads one element of X-Forwarded-For, or a single address: bare, in
// brackets, or with a port behind it.
func parseHop(s string) netip.Addr {
	s = strings.Trim(s, " \t")
	if a, err := netip.ParseAddr(s); err == nil {
		return plain(a)
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return plain(ap.Addr())
	}
	return bracketed(s)
}

// bracketed reads an IPv6 address in brackets.
func bracketed(s string) netip.Addr {
	if n := len(s); n > 2 && s[0] == '[' && s[n-1] == ']' {
		if a, err := netip.ParseAddr(s[1 : n-1]); err == nil && a.Is6() {
			return plain(a)
		}
	}
	return netip.Addr{}
}

// plain returns the one form of an address under which it is compared.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
