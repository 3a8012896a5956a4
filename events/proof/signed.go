package proof

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// MaxSigned is how many bytes a signed head may have, with all its signatures.
const MaxSigned = 64 << 10

// Sign returns a head signed by its log, whose name must be the head's origin.
func Sign(h Head, log *Signer) ([]byte, error) {
	if log.key.kind != kindLog || log.Name() != h.Origin {
		return nil, fmt.Errorf("%w: %s does not sign for %s", ErrMalformed, log.Name(), h.Origin)
	}
	text := h.Text()
	if _, err := ParseHead(text); err != nil {
		return nil, err
	}
	return note.Sign(&note.Note{Text: text}, log)
}

// Cosign returns the signature line of a witness under a head that log has
// signed. Put behind the signed head it makes it a cosigned one. The witness
// must know by itself that the head extends all that it has cosigned before.
func Cosign(signed []byte, log Key, witness *Signer) ([]byte, error) {
	if !witness.key.IsWitness() {
		return nil, fmt.Errorf("%w: %s is no witness", ErrMalformed, witness.Name())
	}
	s, err := Policy{Log: log}.Open(signed)
	if err != nil {
		return nil, err
	}
	text := s.Text()
	whole, err := note.Sign(&note.Note{Text: text}, witness)
	if err != nil {
		return nil, err
	}
	return whole[len(text)+1:], nil
}

// Policy is whom a reader of proofs trusts.
type Policy struct {
	Log       Key
	Witnesses []Key
	// Quorum is how many of the witnesses must have cosigned; none when zero.
	Quorum int
}

// Check returns nil if the policy makes sense. What witnesses sign does not
// hold their name: one key under two names would count as two.
func (p Policy) Check() error {
	if p.Log.kind != kindLog {
		return fmt.Errorf("%w: a policy without the key of a log", ErrMalformed)
	}
	if p.Quorum < 0 || p.Quorum > len(p.Witnesses) {
		return fmt.Errorf("%w: a quorum of %d of %d witnesses", ErrMalformed, p.Quorum, len(p.Witnesses))
	}
	seen := map[[len(Key{}.public)]byte]bool{p.Log.public: true}
	for _, w := range p.Witnesses {
		switch {
		case !w.IsWitness():
			return fmt.Errorf("%w: %s is not the key of a witness", ErrMalformed, w.name)
		case seen[w.public]:
			return fmt.Errorf("%w: the key of %s is there twice", ErrMalformed, w.name)
		}
		seen[w.public] = true
	}
	return nil
}

// Signed is a head whose signatures were checked.
type Signed struct {
	Head
	Cosigned []Cosignature // by witnesses of the policy
}

// Cosignature says that a witness has seen a head, and all before it.
type Cosignature struct {
	Witness Key
	At      time.Time // by the witness's clock, in seconds
}

// Open returns the head of a signed note if the policy's log and enough of its
// witnesses have signed it: ErrMalformed for what is no signed head, ErrUnproved
// when a signature is wrong or missing. Signatures by others are ignored.
func (p Policy) Open(signed []byte) (Signed, error) {
	if err := p.Check(); err != nil {
		return Signed{}, err
	}
	h, err := Peek(signed)
	if err != nil {
		return Signed{}, err
	}
	if h.Origin != p.Log.name {
		return Signed{}, fmt.Errorf("%w: a head of %q, not of %q", ErrUnproved, h.Origin, p.Log.name)
	}
	known := []note.Verifier{p.Log}
	for _, w := range p.Witnesses {
		known = append(known, w)
	}
	n, err := note.Open(signed, note.VerifierList(known...))
	if err != nil {
		kind := ErrMalformed
		_, wrong := errors.AsType[*note.InvalidSignatureError](err)
		if _, none := errors.AsType[*note.UnverifiedNoteError](err); none || wrong {
			kind = ErrUnproved
		}
		return Signed{}, fmt.Errorf("%w: %w", kind, err)
	}
	if n.Text != h.Text() {
		return Signed{}, fmt.Errorf("%w: a head with something behind it", ErrMalformed)
	}
	s := Signed{Head: h}
	byLog := false
	for i := range n.Sigs {
		if p.Log.made(&n.Sigs[i]) {
			byLog = true
		}
		for _, w := range p.Witnesses {
			if w.made(&n.Sigs[i]) {
				s.Cosigned = append(s.Cosigned, Cosignature{Witness: w, At: cosignedAt(&n.Sigs[i])})
			}
		}
	}
	if !byLog {
		return Signed{}, fmt.Errorf("%w: the log %s has not signed", ErrUnproved, p.Log.name)
	}
	if len(s.Cosigned) < p.Quorum {
		return Signed{}, fmt.Errorf("%w: %d witnesses have cosigned, %d must", ErrUnproved, len(s.Cosigned), p.Quorum)
	}
	return s, nil
}

// made says whether a signature that was found good is this key's.
func (k Key) made(s *note.Signature) bool { return k.name == s.Name && k.KeyHash() == s.Hash }

// cosignedAt returns the time in a cosignature that was found good.
func cosignedAt(s *note.Signature) time.Time {
	raw, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil || len(raw) < 12 {
		return time.Time{}
	}
	return time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC()
}

// Peek returns the head in a signed note, whoever has signed it: to see whose it
// says it is, before [Policy.Open] tells whether it is.
func Peek(signed []byte) (Head, error) {
	if len(signed) > MaxSigned {
		return Head{}, fmt.Errorf("%w: a signed head of more than %d bytes", ErrMalformed, MaxSigned)
	}
	text, _, signatures := bytes.Cut(signed, []byte("\n\n"))
	if !signatures {
		return Head{}, fmt.Errorf("%w: a head without signatures", ErrMalformed)
	}
	return ParseHead(string(text) + "\n")
}
