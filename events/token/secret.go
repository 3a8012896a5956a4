package token

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"unsafe"
)

// Kind says what a secret is for. It is the letter in the secret's prefix.
type Kind byte

// The kinds of secrets.
const (
	KindUser     Kind = 'u' // a token that a user owns
	KindAccount  Kind = 'a' // a token that an account owns
	KindEnforcer Kind = 'e' // an enforcer's own credential
	KindConsumer Kind = 'c' // an event consumer's own credential
	KindKey      Kind = 'k' // a user's Global API Key
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case KindUser:
		return "user"
	case KindAccount:
		return "account"
	case KindEnforcer:
		return "enforcer"
	case KindConsumer:
		return "consumer"
	case KindKey:
		return "key"
	}
	return "invalid"
}

// DefaultBrand is the brand of a Format that names none.
const DefaultBrand = "ww"

const (
	bodyLen    = 38 // base62, more than 226 bits
	sumLen     = 6  // base62, 32 bits
	keyBodyLen = 40 // hex
	keySumLen  = 8  // hex, 32 bits
)

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// digit62 gives the value of a base62 character, or 0xff.
var digit62 = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	return t
}()

// ErrMalformed says that a string is no secret of ours: a typo, a truncation or
// a foreign credential. It never repeats the string.
var ErrMalformed = errors.New("token: malformed secret")

// Format is the form of an installation's secrets.
//
//	ww u _ 38 × base62                            6 × base62
//	│  │   random, at least 226 bits              CRC-32 (IEEE) of all before
//	│  kind
//	brand
//
// With the default brand that is 48 characters. A Global API Key (kind k) has
// 40 random and 8 checksum characters instead, in lower-case hex, because its
// clients look for a run of hex digits. The zero value has the DefaultBrand.
type Format struct {
	// Brand is 2 to 4 lower-case letters that tell this installation's
	// secrets from others'.
	Brand string
}

// Validate reports whether the brand is one that secrets can carry. Longer ones
// would make a secret fill more than one block of its digest's hash.
func (f Format) Validate() error {
	b := f.brand()
	if len(b) < 2 || len(b) > 4 {
		return errors.New("token: brand must be 2 to 4 lower-case letters")
	}
	for i := range len(b) {
		if b[i] < 'a' || b[i] > 'z' {
			return errors.New("token: brand must be 2 to 4 lower-case letters")
		}
	}
	return nil
}

func (f Format) brand() string {
	if f.Brand == "" {
		return DefaultBrand
	}
	return f.Brand
}

// Prefix returns what every secret of this kind starts with, such as "wwu_".
func (f Format) Prefix(k Kind) string { return f.brand() + string(rune(k)) + "_" }

// Generate makes a new secret out of crypto/rand.
func (f Format) Generate(k Kind) (Secret, error) { return f.generate(k, rand.Reader) }

func (f Format) generate(k Kind, random io.Reader) (Secret, error) {
	if err := f.Validate(); err != nil {
		return Secret{}, err
	}
	if k.String() == "invalid" {
		return Secret{}, fmt.Errorf("token: no such kind of secret: %#x", byte(k))
	}
	b := append(make([]byte, 0, 56), f.Prefix(k)...)
	if k == KindKey {
		var raw [keyBodyLen / 2]byte
		if _, err := io.ReadFull(random, raw[:]); err != nil {
			return Secret{}, fmt.Errorf("token: randomness: %w", err)
		}
		b = fmt.Appendf(b, "%x", raw)
		return NewSecret(string(fmt.Appendf(b, "%08x", crc32.ChecksumIEEE(b)))), nil
	}
	b, err := appendBase62(b, bodyLen, random)
	if err != nil {
		return Secret{}, err
	}
	return NewSecret(string(appendSum62(b, crc32.ChecksumIEEE(b)))), nil
}

// appendBase62 appends n random base62 characters. Of 64 values it throws two
// away: taking a remainder instead would make some characters likelier.
func appendBase62(b []byte, n int, random io.Reader) ([]byte, error) {
	var raw [64]byte
	for n > 0 {
		if _, err := io.ReadFull(random, raw[:]); err != nil {
			return nil, fmt.Errorf("token: randomness: %w", err)
		}
		for _, r := range raw {
			if v := int(r & 63); v < len(alphabet) && n > 0 {
				b = append(b, alphabet[v])
				n--
			}
		}
	}
	return b, nil
}

func appendSum62(b []byte, sum uint32) []byte {
	var d [sumLen]byte
	for i := sumLen - 1; i >= 0; i-- {
		d[i] = alphabet[sum%62]
		sum /= 62
	}
	return append(b, d[:]...)
}

// Parse reports the kind of a well-formed secret, or ErrMalformed. It looks at
// form and checksum only: whether anybody knows the secret is another
// question. It does not allocate.
func (f Format) Parse(s string) (Kind, error) {
	// The checksum wants bytes; they are only read, and only while s lives.
	return f.ParseBytes(unsafe.Slice(unsafe.StringData(s), len(s)))
}

// ParseBytes is Parse for callers that hold the secret as bytes.
func (f Format) ParseBytes(s []byte) (Kind, error) {
	brand := f.brand()
	n := len(brand)
	if len(s) < n+2 || string(s[:n]) != brand || s[n+1] != '_' {
		return 0, ErrMalformed
	}
	k, body := Kind(s[n]), s[n+2:]
	switch k {
	case KindKey:
		if len(body) != keyBodyLen+keySumLen || !validKey(s, body) {
			return 0, ErrMalformed
		}
	case KindUser, KindAccount, KindEnforcer, KindConsumer:
		if len(body) != bodyLen+sumLen || !validToken(s, body) {
			return 0, ErrMalformed
		}
	default:
		return 0, ErrMalformed
	}
	return k, nil
}

func validToken(s, body []byte) bool {
	bad := byte(0)
	for _, c := range body[:bodyLen] {
		bad |= digit62[c]
	}
	if bad&0x80 != 0 {
		return false
	}
	var sum uint64 // 62^6 is more than 32 bits hold
	for _, c := range body[bodyLen:] {
		d := digit62[c]
		if d == 0xff {
			return false
		}
		sum = sum*62 + uint64(d)
	}
	return sum == uint64(crc32.ChecksumIEEE(s[:len(s)-sumLen]))
}

func validKey(s, body []byte) bool {
	for _, c := range body[:keyBodyLen] {
		if unhex(c) > 15 {
			return false
		}
	}
	var sum uint32
	for _, c := range body[keyBodyLen:] {
		d := unhex(c)
		if d > 15 {
			return false
		}
		sum = sum<<4 | uint32(d)
	}
	return sum == crc32.ChecksumIEEE(s[:len(s)-keySumLen])
}

// Secret is the string that is shown once. However it is printed, logged or
// marshalled, only its prefix appears; Reveal gives it away on purpose. The
// zero value is the empty secret.
//
// Two secrets are not comparable with ==; compare their digests, which leaks
// nothing about the secret by the time that it takes.
type Secret struct {
	_ [0]func()
	// A pointer, because a printer that meets a Secret in an unexported field
	// cannot call its methods and then prints an address and not the text.
	text *string
}

// NewSecret wraps a string that was presented or generated. It checks nothing:
// see Format.Parse.
func NewSecret(s string) Secret { return Secret{text: &s} }

// Reveal returns the secret itself, for the one answer that shows it.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// Digest returns the digest by which the secret is stored and found.
func (s Secret) Digest() Digest { return Sum(s.Reveal()) }

// String returns the prefix, if there is one that gives nothing away, and an
// ellipsis.
func (s Secret) String() string {
	t := s.Reveal()
	for i := range min(len(t), 6) {
		switch c := t[i]; {
		case c >= 'a' && c <= 'z':
		case c == '_' && i >= 3 && Kind(t[i-1]).String() != "invalid":
			return t[:i+1] + "…"
		default:
			return "…"
		}
	}
	return "…"
}

// GoString returns what String returns.
func (s Secret) GoString() string { return s.String() }

// Format writes what String returns, whatever the verb.
func (s Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, s.String()) }

// LogValue returns what String returns.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what String returns: an answer that is to show the secret
// must ask for Reveal.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
