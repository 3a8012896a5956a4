package web

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"watchword.dev/events/fault"
	"watchword.dev/events/token"
)

func TestCredential(t *testing.T) {
	var f token.Format
	make := func(k token.Kind) string {
		s, err := f.Generate(k)
		if err != nil {
			t.Fatal(err)
		}
		return s.Reveal()
	}
	user, key := make(token.KindUser), make(token.KindKey)
	for name, c := range map[string]struct {
		h    http.Header
		kind token.Kind
		want string // the secret
		err  error
	}{
		"nothing":                 {h: http.Header{}},
		"bearer":                  {h: http.Header{"Authorization": {"Bearer " + user}}, kind: 'u', want: user},
		"the scheme in any case":  {h: http.Header{"Authorization": {"bEARER  " + user}}, kind: 'u', want: user},
		"RFC 8959":                {h: http.Header{"Authorization": {"Bearer secret-token:" + user}}, kind: 'u', want: user},
		"a wrong checksum":        {h: http.Header{"Authorization": {"Bearer " + flip(user)}}, want: flip(user)},
		"a foreign token":         {h: http.Header{"Authorization": {"Bearer " + strings.Repeat("x", 40)}}, want: strings.Repeat("x", 40)},
		"truncated":               {h: http.Header{"Authorization": {"Bearer " + user[:39]}}, err: fault.MalformedAuthorization},
		"doubled":                 {h: http.Header{"Authorization": {"Bearer " + user + user}}, err: fault.MalformedAuthorization},
		"a space inside":          {h: http.Header{"Authorization": {"Bearer " + user[:20] + " " + user[20:]}}, err: fault.MalformedAuthorization},
		"NUL":                     {h: http.Header{"Authorization": {"Bearer " + user + "\x00"}}, err: fault.MalformedAuthorization},
		"a homoglyph":             {h: http.Header{"Authorization": {"Bearer ѡ" + user[1:]}}, err: fault.MalformedAuthorization},
		"no secret":               {h: http.Header{"Authorization": {"Bearer"}}, err: fault.MalformedAuthorization},
		"another scheme":          {h: http.Header{"Authorization": {"Basic " + user}}, err: fault.MalformedAuthorization},
		"two lines":               {h: http.Header{"Authorization": {"Bearer " + user, "Bearer " + user}}, err: fault.MalformedAuthorization},
		"key":                     {h: http.Header{"X-Auth-Email": {"a@example.com"}, "X-Auth-Key": {key}}, kind: 'k', want: key},
		"a token as key":          {h: http.Header{"X-Auth-Email": {"a@example.com"}, "X-Auth-Key": {user}}, err: fault.MalformedAPIKey},
		"a key with a typo":       {h: http.Header{"X-Auth-Email": {"a@example.com"}, "X-Auth-Key": {flip(key)}}, err: fault.MalformedAPIKey},
		"no e-mail":               {h: http.Header{"X-Auth-Key": {key}}, err: fault.MalformedAuthEmail},
		"a malformed e-mail":      {h: http.Header{"X-Auth-Email": {"nobody"}, "X-Auth-Key": {key}}, err: fault.MalformedAuthEmail},
		"an e-mail alone":         {h: http.Header{"X-Auth-Email": {"a@example.com"}}, err: fault.MissingCredentials},
		"both, the bearer wins":   {h: http.Header{"Authorization": {"Bearer " + user}, "X-Auth-Email": {"a@example.com"}, "X-Auth-Key": {key}}, kind: 'u', want: user},
		"both, the bearer broken": {h: http.Header{"Authorization": {"Bearer x"}, "X-Auth-Email": {"a@example.com"}, "X-Auth-Key": {key}}, err: fault.MalformedAuthorization},
		"both, the key broken":    {h: http.Header{"Authorization": {"Bearer " + user}, "X-Auth-Email": {"a"}, "X-Auth-Key": {"x"}}, kind: 'u', want: user},
		"two keys":                {h: http.Header{"X-Auth-Email": {"a@example.com"}, "X-Auth-Key": {key, key}}, err: fault.MalformedAPIKey},
		"a user service key":      {h: http.Header{"X-Auth-User-Service-Key": {"v1.0-" + strings.Repeat("a", 60)}}, err: fault.ServiceKeyRefused},
		"any text in its place":   {h: http.Header{"X-Auth-User-Service-Key": {""}}, err: fault.ServiceKeyRefused},
		"it beside a bearer":      {h: http.Header{"X-Auth-User-Service-Key": {"v1.0-a"}, "Authorization": {"Bearer " + user}}, kind: 'u', want: user},
		"it beside a foreign one": {h: http.Header{"X-Auth-User-Service-Key": {"v1.0-a"}, "Authorization": {"Bearer " + flip(user)}}, want: flip(user)},
		"it beside a broken one":  {h: http.Header{"X-Auth-User-Service-Key": {"v1.0-a"}, "Authorization": {"Bearer x"}}, err: fault.ServiceKeyRefused},
		"it beside a key":         {h: http.Header{"X-Auth-User-Service-Key": {"v1.0-a"}, "X-Auth-Email": {"a@example.com"}, "X-Auth-Key": {key}}, kind: 'k', want: key},
		"it beside a broken key":  {h: http.Header{"X-Auth-User-Service-Key": {"v1.0-a"}, "X-Auth-Email": {"a@example.com"}, "X-Auth-Key": {"x"}}, err: fault.ServiceKeyRefused},
		"it beside an e-mail":     {h: http.Header{"X-Auth-User-Service-Key": {"v1.0-a"}, "X-Auth-Email": {"a@example.com"}}, err: fault.ServiceKeyRefused},
		"it as the secret":        {h: http.Header{"Authorization": {"Bearer v1.0-" + strings.Repeat("a", 60)}}, err: fault.MalformedAuthorization},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := credential(f, c.h)
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if got.Kind != c.kind || got.Secret.Reveal() != c.want {
				t.Errorf("got %q of kind %v, want %q of %v", got.Secret.Reveal(), got.Kind, c.want, c.kind)
			}
		})
	}
}

// flip changes one character behind the prefix into another of the alphabet.
func flip(s string) string {
	b := []byte(s)
	if b[10] == 'a' {
		b[10] = 'b'
	} else {
		b[10] = 'a'
	}
	return string(b)
}

func TestBasic(t *testing.T) {
	for line, want := range map[string][2]string{
		"Basic dXNlcjpwYXNz": {"user", "pass"},
		"basic dXNlcjpwYXNz": {"user", "pass"},
		"Basic dXNlcjpwOnM=": {"user", "p:s"},
		"Basic dXNlcg==":     {},
		"Basic !":            {},
		"Bearer dXNlcjpw":    {},
		"":                   {},
	} {
		user, password, ok := Basic(http.Header{"Authorization": {line}})
		if !ok {
			user, password = "", ""
		}
		if user != want[0] || password != want[1] {
			t.Errorf("%q: got %q %q", line, user, password)
		}
	}
}
