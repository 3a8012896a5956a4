package events

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	json "github.com/go-json-experiment/json"
)

// ErrPulse says that a pulse is malformed or not signed by the pen's key.
var ErrPulse = errors.New("events: not a pulse of the pen")

// Pulse is the pen's heartbeat: who holds the pen and how far the ledger has
// come. A reader that has applied Sequence knows that it had heard everything
// at Time.
type Pulse struct {
	Term     uint64    `json:"term"`
	Epoch    uint32    `json:"epoch"`
	Sequence uint64    `json:"sequence"`
	Number   uint64    `json:"number"`
	Chain    string    `json:"chain"` // hash of event Number's line, hex
	Time     time.Time `json:"time"`
	Node     string    `json:"node"`
	// Claim marks the pulse by which a standby takes the pen. It vouches
	// for nothing but the term: its position is that of the pulse before it,
	// kept so that whoever opens the ledger knows how far it must reach.
	Claim bool `json:"claim,omitzero"`
	// Resigned marks the last pulse of a pen that has stopped: nothing
	// follows under this term, and a standby may claim at once.
	Resigned bool `json:"resigned,omitzero"`
}

const signatureMark = `,"signature":"`

// Sign returns the pulse as stored: a JSON object whose last member is the
// Ed25519 signature (RFC 8032, base64) of all bytes before that member.
func (p Pulse) Sign(key ed25519.PrivateKey) ([]byte, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("events: encode pulse: %w", err)
	}
	b = b[:len(b)-1]
	signature := ed25519.Sign(key, b)
	b = append(b, signatureMark...)
	b = base64.StdEncoding.AppendEncode(b, signature)
	return append(b, `"}`...), nil
}

// OpenPulse returns the pulse in b if it was signed under key.
func OpenPulse(b []byte, key ed25519.PublicKey) (Pulse, error) {
	i := bytes.LastIndex(b, []byte(signatureMark))
	if i < 0 || !bytes.HasSuffix(b, []byte(`"}`)) || len(b) > 4096 || len(key) != ed25519.PublicKeySize {
		return Pulse{}, ErrPulse
	}
	signature, err := base64.StdEncoding.DecodeString(string(b[i+len(signatureMark) : len(b)-2]))
	if err != nil || !ed25519.Verify(key, b[:i], signature) {
		return Pulse{}, ErrPulse
	}
	var p Pulse
	if err := json.Unmarshal(append(bytes.Clone(b[:i]), '}'), &p); err != nil {
		return Pulse{}, fmt.Errorf("%w: %w", ErrPulse, err)
	}
	return p, nil
}
