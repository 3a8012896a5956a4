package clientaddr

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

var trusted = Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:ffff::/48")}

// addressCase is a request and the address that must come out; "" is none.
type addressCase struct {
	peer  string
	lines []string
	want  string
}

// hold checks the cases against a header; only that header is set, beside
// those in others.
func hold(t *testing.T, a Rule, header string, others http.Header, cases map[string]addressCase) {
	t.Helper()
	a = a.Canonical()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: c.peer, Header: others.Clone()}
			if r.Header == nil {
				r.Header = http.Header{}
			}
			if c.lines != nil {
				r.Header[header] = c.lines
			}
			got := a.Of(r)
			if c.want == "" && got.IsValid() || c.want != "" && got.String() != c.want {
				t.Errorf("got %v, want %q", got, c.want)
			}
		})
	}
}

func TestForwardedFor(t *testing.T) {
	// What another header says does not matter, whoever sends it.
	others := http.Header{"Forwarded": {"for=203.0.113.66"}, "Cf-Connecting-Ip": {"203.0.113.66"}, "X-Real-Ip": {"203.0.113.66"}}
	const spoofed = "203.0.113.9"
	hold(t, Rule{Trusted: trusted}, "X-Forwarded-For", others, map[string]addressCase{
		"a stranger is not believed":           {"192.0.2.1:9", []string{spoofed}, "192.0.2.1"},
		"a stranger in the guise of a proxy":   {"192.0.2.1:9", []string{spoofed + ", 10.0.0.1"}, "192.0.2.1"},
		"a stranger beside the network":        {"11.0.0.1:9", []string{spoofed}, "11.0.0.1"},
		"no header":                            {"10.0.0.1:9", nil, "10.0.0.1"},
		"one hop":                              {"10.0.0.1:9", []string{"198.51.100.1"}, "198.51.100.1"},
		"the rightmost stranger":               {"10.0.0.1:9", []string{spoofed + ", 198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		"proxies before the client":            {"10.0.0.1:9", []string{"10.0.0.9, 10.0.0.8, 198.51.100.1"}, "198.51.100.1"},
		"a client that sends the proxy's name": {"10.0.0.1:9", []string{"10.0.0.1", "10.0.0.1, 198.51.100.1"}, "198.51.100.1"},
		"over several lines":                   {"10.0.0.1:9", []string{spoofed, "198.51.100.1", "10.0.0.2,10.0.0.3"}, "198.51.100.1"},
		"only proxies":                         {"10.0.0.1:9", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		"a hop that is no address":             {"10.0.0.1:9", []string{"198.51.100.1, unknown, 10.0.0.2"}, ""},
		"behind the one that counts":           {"10.0.0.1:9", []string{"nonsense, 198.51.100.1"}, "198.51.100.1"},
		"nonsense in a line before":            {"10.0.0.1:9", []string{"\"\\,;", "198.51.100.1"}, "198.51.100.1"},
		"an empty hop":                         {"10.0.0.1:9", []string{"198.51.100.1,"}, ""},
		"an empty line":                        {"10.0.0.1:9", []string{""}, ""},
		"an empty line at the end":             {"10.0.0.1:9", []string{"198.51.100.1", ""}, ""},
		"with a port":                          {"10.0.0.1:9", []string{"198.51.100.1:1234"}, "198.51.100.1"},
		"IPv6 in brackets with port":           {"[2001:db8:ffff::1]:9", []string{"[2001:db8::7]:443"}, "2001:db8::7"},
		"IPv6 in brackets":                     {"10.0.0.1:9", []string{"[2001:db8::7]"}, "2001:db8::7"},
		"IPv6 with a zone":                     {"10.0.0.1:9", []string{"fe80::1%eth0"}, "fe80::1"},
		"IPv4 within IPv6":                     {"[::ffff:10.0.0.1]:9", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		"a proxy within IPv6":                  {"10.0.0.1:9", []string{"198.51.100.1, ::ffff:10.0.0.2"}, "198.51.100.1"},
		"octal":                                {"10.0.0.1:9", []string{"010.0.0.1"}, ""},
		"a number":                             {"10.0.0.1:9", []string{"3325256705"}, ""},
		"a network":                            {"10.0.0.1:9", []string{"198.51.100.0/24"}, ""},
		"Forwarded's form":                     {"10.0.0.1:9", []string{"for=198.51.100.1"}, ""},
		"as many hops as are looked at":        {"10.0.0.1:9", []string{"198.51.100.1" + strings.Repeat(",10.0.0.2", maxHops-1)}, "198.51.100.1"},
		"one more":                             {"10.0.0.1:9", []string{"198.51.100.1" + strings.Repeat(",10.0.0.2", maxHops)}, ""},
		"one more, over lines":                 {"10.0.0.1:9", append([]string{"198.51.100.1"}, strings.Split(strings.Repeat("10.0.0.2,", maxHops-1)+"10.0.0.2", ",")...), ""},
		"many of the client's own":             {"10.0.0.1:9", []string{strings.Repeat(spoofed+",", 1000) + "198.51.100.1"}, "198.51.100.1"},
		"no peer":                              {"pipe", []string{"198.51.100.1"}, ""},
		"a line break":                         {"10.0.0.1:9", []string{"198.51.100.1\r\nX: y"}, ""},
	})
	hold(t, Rule{}, "X-Forwarded-For", others, map[string]addressCase{
		"nobody is trusted": {"192.0.2.1:9", []string{spoofed}, "192.0.2.1"},
		"nor loopback":      {"127.0.0.1:9", []string{spoofed}, "127.0.0.1"},
	})
}

func TestForwarded(t *testing.T) {
	others := http.Header{"X-Forwarded-For": {"203.0.113.66"}, "X-Real-Ip": {"203.0.113.66"}}
	const spoofed = "for=203.0.113.9"
	hold(t, Rule{Trusted: trusted, Header: "forwarded"}, "Forwarded", others, map[string]addressCase{
		"a stranger is not believed": {"192.0.2.1:9", []string{spoofed}, "192.0.2.1"},
		"a stranger names a proxy":   {"192.0.2.1:9", []string{spoofed + ";by=10.0.0.1, for=10.0.0.1"}, "192.0.2.1"},
		"no header":                  {"10.0.0.1:9", nil, "10.0.0.1"},
		"one hop":                    {"10.0.0.1:9", []string{"for=198.51.100.1"}, "198.51.100.1"},
		"in any case, among others":  {"10.0.0.1:9", []string{"proto=https;FOR=198.51.100.1;by=10.0.0.1;host=example.com"}, "198.51.100.1"},
		"quoted":                     {"10.0.0.1:9", []string{`for="198.51.100.1"`}, "198.51.100.1"},
		"quoted with a port":         {"10.0.0.1:9", []string{`for="198.51.100.1:4711"`}, "198.51.100.1"},
		"with a made-up port":        {"10.0.0.1:9", []string{`for="198.51.100.1:_p-1"`}, "198.51.100.1"},
		"IPv6":                       {"[2001:db8:ffff::1]:9", []string{`for="[2001:db8::7]"`}, "2001:db8::7"},
		"IPv6 with a port":           {"10.0.0.1:9", []string{`for="[2001:db8::7]:4711"`}, "2001:db8::7"},
		"IPv6 with a made-up port":   {"10.0.0.1:9", []string{`for="[2001:db8::7]:_x"`}, "2001:db8::7"},
		"IPv4 within IPv6":           {"10.0.0.1:9", []string{`for="[::ffff:198.51.100.1]"`}, "198.51.100.1"},
		"escapes":                    {"10.0.0.1:9", []string{`for="198\.51.100.1"`}, "198.51.100.1"},
		"the rightmost stranger":     {"10.0.0.1:9", []string{spoofed + ", for=198.51.100.1;by=10.0.0.3 ,\tfor=10.0.0.2"}, "198.51.100.1"},
		"over several lines":         {"10.0.0.1:9", []string{spoofed, "for=198.51.100.1", "for=10.0.0.2, for=10.0.0.3"}, "198.51.100.1"},
		"only proxies":               {"10.0.0.1:9", []string{"for=10.0.0.3, for=10.0.0.2"}, "10.0.0.3"},
		"blanks around semicolons":   {"10.0.0.1:9", []string{"for=198.51.100.1; proto=https ;by=10.0.0.1"}, "198.51.100.1"},

		"unknown":                      {"10.0.0.1:9", []string{"for=unknown"}, ""},
		"hidden":                       {"10.0.0.1:9", []string{"for=_SEVKISEK"}, ""},
		"hidden with a port":           {"10.0.0.1:9", []string{`for="_gazonk:80"`}, ""},
		"hidden behind a proxy":        {"10.0.0.1:9", []string{spoofed + ", for=_x, for=10.0.0.2"}, ""},
		"hidden before what counts":    {"10.0.0.1:9", []string{"for=_x, for=198.51.100.1"}, "198.51.100.1"},
		"an element without for":       {"10.0.0.1:9", []string{spoofed + ", by=10.0.0.1"}, ""},
		"twice for":                    {"10.0.0.1:9", []string{"for=198.51.100.1;for=203.0.113.9"}, ""},
		"X-Forwarded-For's form":       {"10.0.0.1:9", []string{"198.51.100.1"}, ""},
		"IPv6 without quotes":          {"10.0.0.1:9", []string{"for=[2001:db8::7]"}, ""},
		"IPv6 without brackets":        {"10.0.0.1:9", []string{`for="2001:db8::7"`}, ""},
		"IPv4 in brackets":             {"10.0.0.1:9", []string{`for="[198.51.100.1]"`}, ""},
		"a port without quotes":        {"10.0.0.1:9", []string{"for=198.51.100.1:80"}, ""},
		"a port of six digits":         {"10.0.0.1:9", []string{`for="198.51.100.1:123456"`}, ""},
		"an empty port":                {"10.0.0.1:9", []string{`for="198.51.100.1:"`}, ""},
		"a made-up port without name":  {"10.0.0.1:9", []string{`for="198.51.100.1:_"`}, ""},
		"a name":                       {"10.0.0.1:9", []string{"for=example.com"}, ""},
		"an empty line":                {"10.0.0.1:9", []string{""}, ""},
		"an empty element":             {"10.0.0.1:9", []string{"for=198.51.100.1,"}, ""},
		"an empty value":               {"10.0.0.1:9", []string{"for="}, ""},
		"an empty quoted value":        {"10.0.0.1:9", []string{`for=""`}, ""},
		"blanks around the equals":     {"10.0.0.1:9", []string{"for = 198.51.100.1"}, ""},
		"two values":                   {"10.0.0.1:9", []string{"for=198.51.100.1 for=203.0.113.9"}, ""},
		"a NUL":                        {"10.0.0.1:9", []string{"for=\"198.51.100.1\x00\""}, ""},
		"not ASCII":                    {"10.0.0.1:9", []string{"för=198.51.100.1"}, ""},
		"garbage in a line before":     {"10.0.0.1:9", []string{`;;,"`, "for=198.51.100.1"}, "198.51.100.1"},
		"as many hops as are read":     {"10.0.0.1:9", []string{"for=198.51.100.1" + strings.Repeat(",for=10.0.0.2", maxHops-1)}, "198.51.100.1"},
		"one more":                     {"10.0.0.1:9", []string{"for=198.51.100.1" + strings.Repeat(",for=10.0.0.2", maxHops)}, ""},
		"one more, over lines":         {"10.0.0.1:9", append([]string{"for=198.51.100.1"}, strings.Split(strings.Repeat("for=10.0.0.2 ", maxHops-1)+"for=10.0.0.2", " ")...), ""},
		"a comma within quotes":        {"10.0.0.1:9", []string{`for=198.51.100.1;host="a, for=203.0.113.9"`}, "198.51.100.1"},
		"a semicolon within quotes":    {"10.0.0.1:9", []string{`host="a;for=203.0.113.9";for=198.51.100.1`}, "198.51.100.1"},
		"an escaped quote":             {"10.0.0.1:9", []string{`host="a\", for=203.0.113.9";for=198.51.100.1`}, "198.51.100.1"},
		"a quote that the client left": {"10.0.0.1:9", []string{spoofed + `;x=", for=198.51.100.1`}, ""},
		"one that the proxy's closes":  {"10.0.0.1:9", []string{spoofed + `;x=", for="[2001:db8::7]"`}, ""},
		"one that an empty one closes": {"10.0.0.1:9", []string{spoofed + `;x=", for=198.51.100.1;host=""`}, ""},
		"an escape at the end":         {"10.0.0.1:9", []string{`for="198.51.100.1\`}, ""},
	})
}

func TestSingleAddress(t *testing.T) {
	others := http.Header{"X-Forwarded-For": {"203.0.113.66"}, "Forwarded": {"for=203.0.113.66"}, "X-Real-Ip": {"203.0.113.66"}}
	hold(t, Rule{Trusted: trusted, Header: "CF-Connecting-IP"}, "Cf-Connecting-Ip", others, map[string]addressCase{
		"a stranger is not believed": {"192.0.2.1:9", []string{"203.0.113.9"}, "192.0.2.1"},
		"no header":                  {"10.0.0.1:9", nil, "10.0.0.1"},
		"one address":                {"10.0.0.1:9", []string{"198.51.100.1"}, "198.51.100.1"},
		"IPv6":                       {"10.0.0.1:9", []string{"2001:db8::7"}, "2001:db8::7"},
		"with a port":                {"10.0.0.1:9", []string{"198.51.100.1:80"}, "198.51.100.1"},
		"a trusted one is no hop":    {"10.0.0.1:9", []string{"10.0.0.7"}, "10.0.0.7"},
		"a list":                     {"10.0.0.1:9", []string{"203.0.113.9, 198.51.100.1"}, ""},
		"two lines":                  {"10.0.0.1:9", []string{"203.0.113.9", "198.51.100.1"}, ""},
		"nonsense":                   {"10.0.0.1:9", []string{"unknown"}, ""},
		"empty":                      {"10.0.0.1:9", []string{""}, ""},
	})
}

// FuzzForwarded: nothing that a client can write into its own lines makes the
// address of another one of what the proxy writes into a line of its own.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{"", "for=1.2.3.4", `for="[::1]:_x";by=a, for=b`, `x="`, `x="\`, ",;=", strings.Repeat("a=b,", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		hops, ok := forwardedHops(line)
		if ok && (len(hops) == 0 || len(hops) > maxHops) {
			t.Errorf("%q: %d hops", line, len(hops))
		}
		a := Rule{Trusted: trusted, Header: forwarded}
		r := &http.Request{RemoteAddr: "10.0.0.1:9", Header: http.Header{forwarded: {line, "for=198.51.100.1"}}}
		if got := a.Of(r); got.String() != "198.51.100.1" {
			t.Errorf("%q: %v", line, got)
		}
		// In the same line it can only hide the client.
		r.Header[forwarded] = []string{line + ", for=198.51.100.1"}
		if got := a.Of(r); got.IsValid() && got.String() != "198.51.100.1" {
			t.Errorf("%q: %v", line, got)
		}
	})
}
