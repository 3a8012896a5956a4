package clientaddr

import (
	"net/netip"
	"slices"
	"strings"
)

// forwardedHops reads a line of Forwarded (RFC 7239): elements with commas
// between, each a list of name=value with semicolons between, of which "for"
// names a hop. It returns the last hop first.
//
//	for=192.0.2.60;proto=http, for="[2001:db8::7]:4711";by=_edge
//
// A hop that is withheld ("unknown", "_hidden") or not told is the zero Addr.
// A line that breaks the grammar anywhere, or holds more than maxHops, is not ok. It must not be read in
// part: a client can open a quote in the header that it sends, so that what the
// proxy adds to the same line stands within it.
func forwardedHops(line string) ([]netip.Addr, bool) {
	var hops []netip.Addr
	p := &forwardedLine{rest: line}
	for len(hops) < maxHops {
		hop, ok := p.element()
		if !ok {
			return nil, false
		}
		hops = append(hops, hop)
		if p.rest == "" {
			slices.Reverse(hops)
			return hops, true
		}
		if !p.take(',') {
			return nil, false
		}
	}
	return nil, false
}

// forwardedLine is what is left to read of a line.
type forwardedLine struct{ rest string }

func (p *forwardedLine) blank() { p.rest = strings.TrimLeft(p.rest, " \t") }

// take goes over c if it is next.
func (p *forwardedLine) take(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// element reads up to the next comma, or to the end, and returns its hop.
// Blanks around a semicolon are no part of the grammar, and many write them.
func (p *forwardedLine) element() (hop netip.Addr, ok bool) {
	for told := false; ; {
		p.blank()
		name := p.token()
		if name == "" || !p.take('=') {
			return hop, false
		}
		value, ok := p.value()
		switch isFor := strings.EqualFold(name, "for"); {
		case !ok, isFor && told:
			return hop, false
		case isFor:
			hop, told = forwardedNode(value), true
		}
		p.blank()
		if !p.take(';') {
			return hop, true
		}
	}
}

// token reads one or more of RFC 9110's tchar, or nothing.
func (p *forwardedLine) token() string {
	n := 0
	for n < len(p.rest) && tokenByte(p.rest[n]) {
		n++
	}
	t := p.rest[:n]
	p.rest = p.rest[n:]
	return t
}

// value reads a token or a quoted string, and returns it without its quotes.
func (p *forwardedLine) value() (string, bool) {
	if !p.take('"') {
		t := p.token()
		return t, t != ""
	}
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), true
		case c == '\\':
			if i++; i == len(p.rest) || control(p.rest[i]) {
				return "", false
			}
			b.WriteByte(p.rest[i])
		case control(c):
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// control reports whether c cannot stand in a quoted string.
func control(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }

func tokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// forwardedNode reads a node: an IPv4 address, or an IPv6 address in brackets,
// perhaps with a port, which may be a made-up one ("_p1").
func forwardedNode(s string) netip.Addr {
	host, port := s, ""
	if at := strings.LastIndexByte(s, ':'); at >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:at], s[at+1:]
		if !nodePort(port) {
			return netip.Addr{}
		}
	}
	if strings.HasPrefix(host, "[") {
		return bracketed(host)
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
		return a
	}
	return netip.Addr{}
}

// nodePort reports whether s is a port: up to five digits, or "_" and a name.
func nodePort(s string) bool {
	made, ok := strings.CutPrefix(s, "_")
	if made == "" || !ok && len(s) > 5 {
		return false
	}
	for i := range len(made) {
		switch c := made[i]; {
		case '0' <= c && c <= '9':
		case ok && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}
