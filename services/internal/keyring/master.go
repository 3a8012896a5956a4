package keyring

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"watchword.dev/services/internal/durable"
)

// Master is the master key of an installation: whoever has it and the bucket
// can read every personal field. It prints as a fixed text.
type Master struct{ key [32]byte }

// NewMaster makes a random master key.
func NewMaster() Master {
	var m Master
	rand.Read(m.key[:])
	return m
}

// ParseMaster reads a master key from 64 hex digits, with white space around
// them or not.
func ParseMaster(text []byte) (Master, error) {
	var m Master
	for len(text) > 0 && text[len(text)-1] <= ' ' {
		text = text[:len(text)-1]
	}
	if len(text) != 2*len(m.key) {
		return Master{}, errors.New("keyring: a master key is 64 hex digits")
	}
	if _, err := hex.Decode(m.key[:], text); err != nil {
		return Master{}, errors.New("keyring: a master key is 64 hex digits")
	}
	if m == (Master{}) {
		return Master{}, errors.New("keyring: a master key of zeros")
	}
	return m, nil
}

// LoadMaster reads the master key from a file that must be closed to the group
// and the world.
func LoadMaster(path string) (Master, error) {
	text, err := durable.ReadPrivate(path)
	if err != nil {
		return Master{}, err
	}
	defer clear(text)
	m, err := ParseMaster(text)
	if err != nil {
		return Master{}, fmt.Errorf("%w: %s", err, path)
	}
	return m, nil
}

// EnsureMaster is LoadMaster that makes the file when it is absent. Whether a
// new key may be right is for Open to say: it refuses any but the first one
// that a bucket has seen. A crash leaves the file whole or absent; of two
// processes that make it at once, both end with the same key.
func EnsureMaster(path string) (Master, error) {
	m, err := LoadMaster(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	m = NewMaster()
	text := append(hex.AppendEncode(nil, m.key[:]), '\n')
	defer clear(text)
	err = durable.CreatePrivate(path, text)
	if errors.Is(err, fs.ErrExist) {
		return LoadMaster(path)
	}
	if err != nil {
		return Master{}, err
	}
	return m, nil
}

// derive gives n bytes for one purpose.
func (m Master) derive(purpose string, n int) []byte {
	b, err := hkdf.Key(sha256.New, m.key[:], nil, "watchword "+purpose, n)
	if err != nil {
		// Only for more than 255 hashes' worth of bytes: n is a constant.
		panic(err)
	}
	return b
}

const redacted = "[master key]"

// String implements fmt.Stringer without the key.
func (Master) String() string { return redacted }

// GoString implements fmt.GoStringer without the key.
func (Master) GoString() string { return redacted }

// Format implements fmt.Formatter without the key, whatever the verb.
func (Master) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue implements slog.LogValuer without the key.
func (Master) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler without the key.
func (Master) MarshalText() ([]byte, error) { return []byte(redacted), nil }
