package web

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"watchword.dev/events/token"
)

// MaxName is the longest name of a thing, in characters.
const MaxName = 120

// MaxReason is the longest reason that a command may carry, in bytes.
const MaxReason = 256

// ValidName reports whether s can name a thing: 1 to MaxName characters of
// valid UTF-8, none of them a control character, and not only spaces.
func ValidName(s string) bool {
	return s != "" && utf8.RuneCountInString(s) <= MaxName && printable(s) && !blank(s)
}

// ValidReason reports whether s can be the reason of a command. It may be
// empty.
func ValidReason(s string) bool { return len(s) <= MaxReason && printable(s) }

// printable refuses control characters, CR, LF and NUL among them, the two
// characters that Unicode has for the end of a line, and those that turn the
// direction of the text around them, so that it reads as another.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r) && r != '\u200e' && r != '\u200f' {
			return false
		}
	}
	return true
}

func blank(s string) bool {
	for _, r := range s {
		if !unicode.IsSpace(r) {
			return false
		}
	}
	return true
}

// HoldsSecret reports whether a well-formed secret of this installation stands
// in s. Such a text must not reach the ledger, which is for ever.
func HoldsSecret(f token.Format, s string) bool {
	for word := range strings.FieldsFuncSeq(s, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		if _, err := f.Parse(word); err == nil {
			return true
		}
	}
	return false
}
