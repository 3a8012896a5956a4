package routes

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// The bounds of a request's target.
const (
	maxURI      = 8 << 10
	maxSegments = 64
)

// Why a target is refused. The target is not repeated: a client may have put
// anything there.
var (
	errNoPath     = errors.New("the target does not begin with a slash")
	errLong       = errors.New("the target is too long")
	errSegments   = errors.New("the path has too many segments")
	errEmpty      = errors.New("the path has two slashes in a row")
	errDots       = errors.New("the path has a segment of dots")
	errEscape     = errors.New("the path has a broken percent-encoding")
	errCharacters = errors.New("the path has a slash, backslash, percent sign, semicolon or control character in a segment, or is no UTF-8")
	errID         = errors.New("the path has something else where the id of a resource should be")
)

// Split returns the decoded segments of the path of a request's target, as it
// stands in the request line; those of "/a/" are "a" and "". What comes after a
// question mark is not looked at.
//
// A proxy, this package and the service must see the same path. So Split
// refuses what some programs change and others do not: empty segments, "." and
// "..", encoded slashes, backslashes, what is encoded twice, parameters behind
// a semicolon, fragments, characters that should have been encoded and are not.
func Split(target string) ([]string, error) {
	if len(target) > maxURI {
		return nil, errLong
	}
	path, _, _ := strings.Cut(target, "?")
	path, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil, errNoPath
	}
	segments := strings.Split(path, "/")
	if len(segments) > maxSegments {
		return nil, errSegments
	}
	for i, s := range segments {
		if s == "" && i < len(segments)-1 {
			return nil, errEmpty
		}
		plain, err := decode(s)
		if err != nil {
			return nil, err
		}
		segments[i] = plain
	}
	return segments, nil
}

// decode returns a segment without its percent-encoding.
func decode(s string) (string, error) {
	var b []byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '%':
			hi, lo := -1, -1
			if i+2 < len(s) {
				hi, lo = digit(s[i+1]), digit(s[i+2])
			}
			if hi < 0 || lo < 0 {
				return "", errEscape
			}
			c = byte(hi<<4 | lo)
			i += 2
			if c == '%' {
				return "", errCharacters
			}
		case c >= 0x80 || c == '#' || c == ' ':
			return "", errCharacters
		}
		if c == '/' || c == '\\' || c == ';' || c < ' ' || c == 0x7f {
			return "", errCharacters
		}
		b = append(b, c)
	}
	switch plain := string(b); {
	case plain == "." || plain == "..":
		return "", errDots
	case !utf8.ValidString(plain):
		return "", errCharacters
	default:
		return plain, nil
	}
}

// digit returns the value of a hexadecimal digit, or -1.
func digit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// hostname returns a host as it is compared: without its port and the dot of
// the root, in lower case.
func hostname(host string) string {
	if at := strings.LastIndexByte(host, ':'); at >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:at]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}
