package web

import (
	"encoding/base64"
	"net/http"
	"strings"

	"watchword.dev/events/fault"
	"watchword.dev/events/token"
)

// The lengths between which a bearer's string may be a secret of ours or of
// the API that we stand in for. What is outside is refused by its form alone.
const (
	minBearer = 40
	maxBearer = 80
	maxEmail  = 254
)

// secretURI is the scheme of RFC 8959, which may stand before a secret so that
// scanners see that it is one.
const secretURI = "secret-token:"

// Credential is what a request presented. The zero value is none.
type Credential struct {
	// Kind is the kind of the presented secret, or 0 when the string has the
	// form of a bearer but is no well-formed secret of this installation: then
	// nobody knows it, and no look-up is needed.
	Kind token.Kind
	// Secret prints as its prefix only.
	Secret token.Secret
	// Email came with an API key.
	Email string
}

// None reports whether nothing was presented.
func (c Credential) None() bool { return c.Secret.IsZero() }

// Key reports whether a Global API Key was presented, with its e-mail address.
func (c Credential) Key() bool { return c.Email != "" }

// credential returns what the headers present: Authorization: Bearer, or
// X-Auth-Email with X-Auth-Key. The first wins when there are both. The query
// is never looked at. A malformed header is an error, no header is none.
//
// X-Auth-User-Service-Key, which clients send beside the others if they have it
// in their environment, is refused where nothing else is well formed.
func credential(f token.Format, h http.Header) (Credential, error) {
	c, err := accepted(f, h)
	if (err != nil || c.None()) && len(h["X-Auth-User-Service-Key"]) > 0 {
		return Credential{}, fault.New(fault.ServiceKeyRefused)
	}
	return c, err
}

func accepted(f token.Format, h http.Header) (Credential, error) {
	if lines, ok := h["Authorization"]; ok {
		if len(lines) != 1 {
			return Credential{}, fault.New(fault.MalformedAuthorization)
		}
		return bearer(f, lines[0])
	}
	emails, keys := h["X-Auth-Email"], h["X-Auth-Key"]
	switch {
	case len(emails) == 0 && len(keys) == 0:
		return Credential{}, nil
	case len(keys) == 0:
		return Credential{}, fault.New(fault.MissingCredentials)
	case len(emails) != 1 || !plausibleEmail(emails[0]):
		return Credential{}, fault.New(fault.MalformedAuthEmail)
	case len(keys) > 1:
		return Credential{}, fault.New(fault.MalformedAPIKey)
	}
	if k, err := f.Parse(keys[0]); err != nil || k != token.KindKey {
		return Credential{}, fault.New(fault.MalformedAPIKey)
	}
	return Credential{Kind: token.KindKey, Secret: token.NewSecret(keys[0]), Email: emails[0]}, nil
}

func bearer(f token.Format, line string) (Credential, error) {
	scheme, rest, ok := strings.Cut(line, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return Credential{}, fault.New(fault.MalformedAuthorization)
	}
	secret := strings.TrimPrefix(strings.Trim(rest, " "), secretURI)
	if !plausibleBearer(secret) {
		return Credential{}, fault.New(fault.MalformedAuthorization)
	}
	k, err := f.Parse(secret)
	if err != nil {
		k = 0
	}
	return Credential{Kind: k, Secret: token.NewSecret(secret)}, nil
}

// Basic returns the user name and password of Authorization: Basic, or empty
// strings. It is for introspection, whose clients know nothing else.
func Basic(h http.Header) (user, password string, ok bool) {
	lines := h["Authorization"]
	if len(lines) != 1 {
		return "", "", false
	}
	scheme, rest, cut := strings.Cut(lines[0], " ")
	if !cut || !strings.EqualFold(scheme, "Basic") || len(rest) > 1024 {
		return "", "", false
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Trim(rest, " "))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(raw), ":")
}

// BearerSecret returns the secret behind Authorization: Bearer, or "" when
// there is none or it has not the form of one. It does not allocate.
func BearerSecret(h http.Header) string {
	lines := h["Authorization"]
	if len(lines) != 1 || len(lines[0]) < 7 || !strings.EqualFold(lines[0][:7], "Bearer ") {
		return ""
	}
	secret := strings.TrimPrefix(strings.Trim(lines[0][7:], " "), secretURI)
	if !plausibleBearer(secret) {
		return ""
	}
	return secret
}

func plausibleBearer(s string) bool {
	if len(s) < minBearer || len(s) > maxBearer {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// ValidEmail reports whether s can be somebody's address: no validation, but
// nothing with a space, a control character or without a domain.
func ValidEmail(s string) bool { return plausibleEmail(s) && printable(s) }

// plausibleEmail is no validation of addresses: it refuses what cannot be one.
func plausibleEmail(s string) bool {
	if len(s) < 3 || len(s) > maxEmail {
		return false
	}
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at == len(s)-1 {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
