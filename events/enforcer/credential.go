package enforcer

import (
	"net/http"
	"strings"
)

// The bounds of what is taken for a secret.
const (
	maxSecret = 256
	maxEmail  = 254
)

// secretURI is the scheme of RFC 8959, which may stand before a secret so that
// scanners see that it is one.
const secretURI = "secret-token:"

// presented says what a request brought.
type presented uint8

const (
	nothing presented = iota
	bearer
	legacyKey
	unreadable // a header that should hold a secret and cannot be read
)

// credential returns the secret that the headers present. Authorization wins
// over a legacy key; another scheme than Bearer is none. The query is never
// looked at.
func credential(h http.Header, legacy bool) (string, presented) {
	if lines := h["Authorization"]; len(lines) > 0 {
		if len(lines) > 1 {
			return "", unreadable
		}
		return bearerSecret(lines[0])
	}
	if !legacy {
		return "", nothing
	}
	emails, keys := h["X-Auth-Email"], h["X-Auth-Key"]
	switch {
	case len(emails) == 0 && len(keys) == 0:
		return "", nothing
	case len(emails) != 1 || len(keys) != 1 || !plausibleEmail(emails[0]) || !isToken68(keys[0]):
		return "", unreadable
	}
	return keys[0], legacyKey
}

func bearerSecret(line string) (string, presented) {
	scheme, rest, _ := strings.Cut(line, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nothing
	}
	secret := strings.TrimPrefix(strings.Trim(rest, " "), secretURI)
	if !isToken68(secret) {
		return "", unreadable
	}
	return secret, bearer
}

// isToken68 reports whether s has the form that RFC 6750 calls b64token, and is
// no longer than any secret.
func isToken68(s string) bool {
	padding := strings.TrimRight(s, "=")
	if len(padding) == 0 || len(s) > maxSecret {
		return false
	}
	for i := range len(padding) {
		switch c := padding[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '.', c == '_', c == '~', c == '+', c == '/':
		default:
			return false
		}
	}
	return true
}

// plausibleEmail refuses what cannot be an address. Whose key it is, the key
// tells: the address is not compared with anything.
func plausibleEmail(s string) bool {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at == len(s)-1 || len(s) > maxEmail {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
