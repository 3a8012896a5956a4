package web

import (
	"net/http"
	"net/netip"
	"strings"
)

// maxHops bounds how many hops of X-Forwarded-For are looked at.
const maxHops = 64

// TrustedProxies are the networks whose word about a client's address counts.
// The zero value trusts nobody.
type TrustedProxies []netip.Prefix

func (t TrustedProxies) contains(a netip.Addr) bool {
	for _, p := range t {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// ClientAddress returns the address of whoever sent r: the socket's peer,
// unless the peer is a trusted proxy. Then X-Forwarded-For is walked from the
// right over all its lines to the first hop that is not trusted.
//
// It returns the zero Addr when a hop cannot be parsed: an address that is not
// known is no address, and a condition on addresses refuses it.
func (t TrustedProxies) ClientAddress(r *http.Request) netip.Addr {
	peer := parsePeer(r.RemoteAddr)
	if len(t) == 0 || !peer.IsValid() || !t.contains(peer) {
		return peer
	}
	last, left := peer, maxHops
	lines := r.Header["X-Forwarded-For"]
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; left-- {
			if left == 0 {
				return netip.Addr{}
			}
			var hop string
			at := strings.LastIndexByte(rest, ',')
			hop, more = rest[at+1:], at >= 0
			if more {
				rest = rest[:at]
			}
			last = parseHop(hop)
			if !last.IsValid() || !t.contains(last) {
				return last
			}
		}
	}
	return last
}

// parsePeer reads net/http's RemoteAddr.
func parsePeer(s string) netip.Addr {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// parseHop reads one element of X-Forwarded-For: an address, bare or with a
// port behind it.
func parseHop(s string) netip.Addr {
	s = strings.Trim(s, " \t")
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().WithZone("")
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	if n := len(s); n > 2 && s[0] == '[' && s[n-1] == ']' {
		if a, err := netip.ParseAddr(s[1 : n-1]); err == nil && a.Is6() {
			return a.Unmap().WithZone("")
		}
	}
	return netip.Addr{}
}
