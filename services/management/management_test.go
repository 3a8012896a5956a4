package management

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
)

// TestRounding: the API shows seconds, and rounding never makes a token valid
// when it was not asked to be.
func TestRounding(t *testing.T) {
	s := &Service{Config: Config{IDs: token.NewGenerator(nil), Catalogue: catalogue.Cloudflare, Limits: token.DefaultLimits}}
	for _, c := range []struct{ notBefore, expiresOn, wantBefore, wantExpires string }{
		{"2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z", "2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z"},
		{"2030-01-01T00:00:00.001Z", "2031-01-01T00:00:00.999Z", "2030-01-01T00:00:01Z", "2031-01-01T00:00:00Z"},
		{"2030-01-01T01:00:00+01:00", "2030-12-31T19:00:00.5-05:00", "2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z"},
		{"", "", "", ""},
	} {
		g, err := s.grant(&tokenBody{Name: "n", NotBefore: c.notBefore, ExpiresOn: c.expiresOn, Policies: []policyBody{{
			Effect: "allow", Resources: jsontext.Value(`{"com.cloudflare.api.account.zone.x":"*"}`), Groups: []groupBody{{ID: "4755a26eedb94da69e1066d98aa820be"}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if seconds(g.NotBefore) != c.wantBefore || seconds(g.ExpiresOn) != c.wantExpires || g.Policies[0].ID.IsZero() {
			t.Errorf("%+v: got %v, %v", c, g.NotBefore, g.ExpiresOn)
		}
	}
}

func TestParseGrace(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"": 0, "null": 0, "0": 0, `"0s"`: 0, `"24h"`: 24 * time.Hour, `"1h30m"`: 90 * time.Minute, "90": 90 * time.Second, "0.5": time.Second / 2,
		`"-1s"`: -1, "-1": -1, `"24"`: -1, `""`: -1, "1e18": -1, "{}": -1, "true": -1, `"9999999h"`: -1,
	} {
		got, err := parseGrace(jsontext.Value(in))
		if want < 0 != errors.Is(err, fault.InvalidGrace) || want >= 0 && got != want {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
}

func TestCanonical(t *testing.T) {
	same := string(canonical([]byte(`{"a":1,"b":[1,2]}`)))
	for in, want := range map[string]bool{
		` { "b" : [1, 2], "a" : 1.0 } `: true, `{"a":1,"b":[2,1]}`: false, `{"a":1}`: false, ``: false, `{`: false,
	} {
		if got := string(canonical([]byte(in))) == same; got != want {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	for _, c := range []struct {
		lines    []string
		declared bool
		err      error
	}{
		{nil, false, nil}, {[]string{"job 7"}, true, nil}, {[]string{""}, false, fault.InvalidHeader},
		{[]string{"a", "b"}, false, fault.InvalidHeader}, {[]string{"a\x00"}, false, fault.InvalidHeader}, {[]string{"é"}, false, fault.InvalidHeader},
	} {
		h := http.Header{}
		if c.lines != nil {
			h["Idempotency-Key"] = c.lines
		}
		if _, declared, err := idempotencyKey(h); declared != c.declared || !errors.Is(err, c.err) {
			t.Errorf("%q: %v %v", c.lines, declared, err)
		}
	}
}

func TestTwice(t *testing.T) {
	for in, want := range map[string]string{
		"DNS Read": "DNS Read", "Account%20Settings Write": "Account Settings Write", "100%": "100%", "a%2": "a%2", "a+b": "a+b", "a%2Bb": "a+b",
	} {
		if got := twice(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
