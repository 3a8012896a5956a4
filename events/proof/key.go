package proof

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// The kinds of key that C2SP knows and that are read here.
const (
	kindLog     = 0x01 // signs notes
	kindWitness = 0x04 // cosigns tree heads, with a time
)

// Key is the public key of a log or of a witness, under its name. The zero Key
// is none.
type Key struct {
	name   string
	kind   byte
	public [ed25519.PublicKeySize]byte
}

// LogKey returns the key under which a log signs its heads.
func LogKey(name string, public ed25519.PublicKey) (Key, error) { return newKey(name, kindLog, public) }

// WitnessKey returns the key under which a witness cosigns heads.
func WitnessKey(name string, public ed25519.PublicKey) (Key, error) {
	return newKey(name, kindWitness, public)
}

func newKey(name string, kind byte, public []byte) (Key, error) {
	if err := checkName(name); err != nil {
		return Key{}, err
	}
	if len(public) != ed25519.PublicKeySize {
		return Key{}, fmt.Errorf("%w: not an Ed25519 key", ErrMalformed)
	}
	return Key{name: name, kind: kind, public: [ed25519.PublicKeySize]byte(public)}, nil
}

// ParseKey reads a key as String writes it: the verifier key of signed notes.
func ParseKey(text string) (Key, error) {
	name, rest, _ := strings.Cut(text, "+")
	_, b64, _ := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.Strict().DecodeString(b64)
	if err != nil || len(raw) == 0 || raw[0] != kindLog && raw[0] != kindWitness {
		return Key{}, fmt.Errorf("%w: not the verifier key of a log or witness", ErrMalformed)
	}
	k, err := newKey(name, raw[0], raw[1:])
	if err == nil && k.String() != text {
		err = fmt.Errorf("%w: a verifier key that does not fit its checksum", ErrMalformed)
	}
	if err != nil {
		return Key{}, err
	}
	return k, nil
}

// String returns the verifier key: name, hash and key, with plus signs between.
func (k Key) String() string {
	return fmt.Sprintf("%s+%08x+%s", k.name, k.KeyHash(), base64.StdEncoding.EncodeToString(k.bytes()))
}

func (k Key) bytes() []byte { return append([]byte{k.kind}, k.public[:]...) }

// IsWitness says whether the key cosigns.
func (k Key) IsWitness() bool { return k.kind == kindWitness }

// Name implements note.Verifier.
func (k Key) Name() string { return k.name }

// KeyHash implements note.Verifier.
func (k Key) KeyHash() uint32 {
	sum := sha256.Sum256(append([]byte(k.name+"\n"), k.bytes()...))
	return binary.BigEndian.Uint32(sum[:])
}

// Verify implements note.Verifier.
func (k Key) Verify(text, signature []byte) bool {
	switch k.kind {
	case kindLog:
		return len(signature) == ed25519.SignatureSize && ed25519.Verify(k.public[:], text, signature)
	case kindWitness:
		if len(signature) != 8+ed25519.SignatureSize {
			return false
		}
		seconds := binary.BigEndian.Uint64(signature)
		return seconds <= 1<<63-1 && ed25519.Verify(k.public[:], cosigned(seconds, text), signature[8:])
	}
	return false
}

// cosigned is what a witness signs at a moment.
func cosigned(seconds uint64, text []byte) []byte {
	b := append([]byte("cosignature/v1\ntime "), strconv.FormatUint(seconds, 10)...)
	return append(append(b, '\n'), text...)
}

// Signer signs tree heads, as a log or as a witness. Its private key must sign
// nothing else: what a log signs has no prefix that would tell it apart.
type Signer struct {
	key     Key
	private ed25519.PrivateKey
	now     func() time.Time // of a witness
}

// NewLog returns the signer of a log.
func NewLog(name string, private ed25519.PrivateKey) (*Signer, error) {
	return newSigner(name, kindLog, private, nil)
}

// NewWitness returns the signer of a witness, which says when it signed.
func NewWitness(name string, private ed25519.PrivateKey, now func() time.Time) (*Signer, error) {
	return newSigner(name, kindWitness, private, now)
}

func newSigner(name string, kind byte, private ed25519.PrivateKey, now func() time.Time) (*Signer, error) {
	if len(private) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("%w: not an Ed25519 key", ErrMalformed)
	}
	k, err := newKey(name, kind, private[ed25519.SeedSize:])
	if err != nil {
		return nil, err
	}
	return &Signer{key: k, private: private, now: now}, nil
}

// Key returns the public key.
func (s *Signer) Key() Key { return s.key }

// Name implements note.Signer.
func (s *Signer) Name() string { return s.key.Name() }

// KeyHash implements note.Signer.
func (s *Signer) KeyHash() uint32 { return s.key.KeyHash() }

// Sign implements note.Signer.
func (s *Signer) Sign(text []byte) ([]byte, error) {
	if s.key.kind == kindLog {
		return ed25519.Sign(s.private, text), nil
	}
	seconds := s.now().Unix()
	if seconds < 0 {
		return nil, fmt.Errorf("%w: a cosignature before 1970", ErrMalformed)
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(seconds))
	return append(b, ed25519.Sign(s.private, cosigned(uint64(seconds), text))...), nil
}

var (
	_ note.Verifier = Key{}
	_ note.Signer   = (*Signer)(nil)
)
