package receipt

import (
	"crypto/ed25519"
	"encoding/base32"
	"encoding/binary"
	"errors"
)

// The keys of NATS users, in the text form that NATS gives them: a prefix, the
// key, and a checksum of both (CRC-16/XMODEM, low byte first), in base32
// without padding. They are read here so that nobody needs NATS for a receipt.
const (
	prefixSeed = 18 << 3 // makes an S
	prefixUser = 20 << 3 // makes a U
)

var (
	base32Raw = base32.StdEncoding.WithPadding(base32.NoPadding)

	// errKey is one value for every refused key: what was sent may be a
	// secret.
	errKey = errors.New("receipt: not the key of a NATS user")
)

// ParsePublic reads the public key of a NATS user: "U" and 55 letters and
// digits more.
func ParsePublic(text string) (ed25519.PublicKey, error) {
	raw, err := decodeKey(text)
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != prefixUser {
		return nil, errKey
	}
	return ed25519.PublicKey(raw[1:]), nil
}

// FormatPublic is the inverse of ParsePublic.
func FormatPublic(key ed25519.PublicKey) string {
	return encodeKey(append([]byte{prefixUser}, key...))
}

// ParseSeed reads the seed of a NATS user ("SU" and 56 letters and digits more)
// and returns the private key that it makes.
func ParseSeed(text string) (ed25519.PrivateKey, error) {
	raw, err := decodeKey(text)
	// Two bytes of prefix: five bits say that it is a seed, the next eight
	// of what.
	if err != nil || len(raw) != 2+ed25519.SeedSize || raw[0] != prefixSeed|prefixUser>>5 || raw[1] != prefixUser<<3&0xff {
		return nil, errKey
	}
	return ed25519.NewKeyFromSeed(raw[2:]), nil
}

// FormatSeed is the inverse of ParseSeed.
func FormatSeed(key ed25519.PrivateKey) string {
	return encodeKey(append([]byte{prefixSeed | prefixUser>>5, prefixUser << 3 & 0xff}, key.Seed()...))
}

func encodeKey(raw []byte) string {
	return base32Raw.EncodeToString(binary.LittleEndian.AppendUint16(raw, crc16(raw)))
}

// decodeKey reads exactly what encodeKey writes.
func decodeKey(text string) ([]byte, error) {
	if len(text) > 64 {
		return nil, errKey
	}
	raw, err := base32Raw.DecodeString(text)
	if err != nil || len(raw) < 3 || base32Raw.EncodeToString(raw) != text {
		return nil, errKey
	}
	raw, sum := raw[:len(raw)-2], raw[len(raw)-2:]
	if binary.LittleEndian.Uint16(sum) != crc16(raw) {
		return nil, errKey
	}
	return raw, nil
}

// crc16 is the CRC of XMODEM: polynomial 0x1021, from zero.
func crc16(b []byte) (crc uint16) {
	for _, c := range b {
		crc ^= uint16(c) << 8
		for range 8 {
			carry := crc >> 15
			crc = crc<<1 ^ carry*0x1021
		}
	}
	return crc
}
