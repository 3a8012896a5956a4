package web

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
)

// maxRequestID is the longest request id that is taken from a client.
const maxRequestID = 128

// validRequestID reports whether a client's request id may stand in events and
// logs as it is.
func validRequestID(s string) bool {
	if len(s) == 0 || len(s) > maxRequestID {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '_', c == '.', c == ':':
		default:
			return false
		}
	}
	return true
}

// newRay returns a fresh id of 16 hex digits, as CF-Ray shows it.
func newRay() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}

// traceparent returns the request's W3C trace context, or one of its own when
// there is none that can be read.
func traceparent(h http.Header) string {
	if v := h["Traceparent"]; len(v) == 1 && validTraceparent(v[0]) {
		return v[0]
	}
	var b [24]byte
	_, _ = rand.Read(b[:])
	out := make([]byte, 0, 55)
	out = append(out, "00-"...)
	out = hex.AppendEncode(out, b[:16])
	out = append(out, '-')
	out = hex.AppendEncode(out, b[16:])
	return string(append(out, "-00"...))
}

// validTraceparent accepts version 00: "00-<32 hex>-<16 hex>-<2 hex>", where
// neither id is all zeros.
func validTraceparent(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	return lowerHex(s[3:35]) && lowerHex(s[36:52]) && lowerHex(s[53:]) &&
		!zeros(s[3:35]) && !zeros(s[36:52])
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func zeros(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}
