package web

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestClientAddress(t *testing.T) {
	trusted := TrustedProxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:ffff::/48")}
	for name, c := range map[string]struct {
		trusted TrustedProxies
		peer    string
		lines   []string
		want    string // "" is no address
	}{
		"nobody is trusted":           {nil, "192.0.2.1:9", []string{"198.51.100.1"}, "192.0.2.1"},
		"a stranger is not believed":  {trusted, "192.0.2.1:9", []string{"198.51.100.1"}, "192.0.2.1"},
		"no header":                   {trusted, "10.0.0.1:9", nil, "10.0.0.1"},
		"one hop":                     {trusted, "10.0.0.1:9", []string{"198.51.100.1"}, "198.51.100.1"},
		"the rightmost stranger":      {trusted, "10.0.0.1:9", []string{"203.0.113.9, 198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		"over several lines":          {trusted, "10.0.0.1:9", []string{"203.0.113.9", "198.51.100.1", "10.0.0.2,10.0.0.3"}, "198.51.100.1"},
		"only proxies":                {trusted, "10.0.0.1:9", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		"a hop that is no address":    {trusted, "10.0.0.1:9", []string{"198.51.100.1, unknown, 10.0.0.2"}, ""},
		"behind the one that counts":  {trusted, "10.0.0.1:9", []string{"nonsense, 198.51.100.1"}, "198.51.100.1"},
		"an empty hop":                {trusted, "10.0.0.1:9", []string{"198.51.100.1,"}, ""},
		"an empty line":               {trusted, "10.0.0.1:9", []string{""}, ""},
		"with a port":                 {trusted, "10.0.0.1:9", []string{"198.51.100.1:1234"}, "198.51.100.1"},
		"IPv6 in brackets with port":  {trusted, "[2001:db8:ffff::1]:9", []string{"[2001:db8::7]:443"}, "2001:db8::7"},
		"IPv6 in brackets":            {trusted, "10.0.0.1:9", []string{"[2001:db8::7]"}, "2001:db8::7"},
		"IPv4 within IPv6":            {trusted, "[::ffff:10.0.0.1]:9", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		"too many hops":               {trusted, "10.0.0.1:9", []string{strings.Repeat("10.0.0.2,", 100) + "10.0.0.2"}, ""},
		"no peer":                     {trusted, "pipe", []string{"198.51.100.1"}, ""},
		"header names the same proxy": {trusted, "10.0.0.1:9", []string{"198.51.100.1\r\nX: y"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: c.peer, Header: http.Header{}}
			if c.lines != nil {
				r.Header["X-Forwarded-For"] = c.lines
			}
			got := c.trusted.ClientAddress(r)
			if c.want == "" && got.IsValid() || c.want != "" && got.String() != c.want {
				t.Errorf("got %v, want %q", got, c.want)
			}
		})
	}
}
