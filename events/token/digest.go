package token

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
)

// Digest is what is stored of a secret: SHA-256 over a prefix of our own and
// the secret. With the prefix a digest is no key to anything that hashes the
// same string for another purpose. Since a secret has 226 random bits or more,
// a fast hash is as good as a slow one.
type Digest [sha256.Size]byte

// digestPrefix separates the domain. With a secret of at most 50 characters it
// fills one block of SHA-256, whose room is 55 bytes.
const digestPrefix = "wwd1\x00"

// digestScheme is the name of this way of making digests, so that another can
// follow.
const digestScheme = "d1:"

// Sum returns the digest of a secret. It does not allocate for a secret of our
// own form.
func Sum[T string | []byte](secret T) Digest {
	var room [128]byte
	n := copy(room[:], digestPrefix)
	if len(secret) > len(room)-n {
		return sha256.Sum256(append([]byte(digestPrefix), secret...))
	}
	n += copy(room[n:], secret)
	return sha256.Sum256(room[:n])
}

// ForeignMin and ForeignMax bound a secret of another system, in bytes: a
// shorter one can be guessed, and a longer one is not looked up.
const (
	ForeignMin = 8
	ForeignMax = 256
)

// SumForeign returns the digest of a secret that another system made, from the
// plain SHA-256 of it, which that system may have kept. It is a digest over the
// digest: what the ledger holds is of no use against the other system, and a
// leak of the other's digests is none of ours.
func SumForeign(plain [sha256.Size]byte) Digest {
	var room [3 + len(plain)]byte
	copy(room[copy(room[:], "d0:"):], plain[:])
	return Sum(room[:])
}

// String returns the digest with its scheme: "d1:" and 64 lower-case hex digits.
func (d Digest) String() string { return digestScheme + hex.EncodeToString(d[:]) }

// IsZero reports whether there is no digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// AppendText appends what String returns.
func (d Digest) AppendText(dst []byte) ([]byte, error) {
	return hex.AppendEncode(append(dst, digestScheme...), d[:]), nil
}

// MarshalText returns what String returns.
func (d Digest) MarshalText() ([]byte, error) { return d.AppendText(nil) }

// UnmarshalText accepts exactly what MarshalText returns.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) != len(digestScheme)+2*len(d) || string(b[:len(digestScheme)]) != digestScheme {
		return errors.New("token: malformed digest")
	}
	var out Digest
	b = b[len(digestScheme):]
	for i := range out {
		hi, lo := unhex(b[2*i]), unhex(b[2*i+1])
		if hi|lo > 15 {
			return errors.New("token: malformed digest")
		}
		out[i] = hi<<4 | lo
	}
	*d = out
	return nil
}
