package proof

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
)

// MaxExtra is how many bytes of extra data a proof may carry.
const MaxExtra = 4 << 10

// maxFile bounds a proof: its own lines, and the signed head behind them.
const maxFile = 128 + (MaxExtra+2)/3*4 + MaxHashes*45 + MaxSigned

const inclusionMagic = "c2sp.org/tlog-proof@v1\n"

// Inclusion shows that an event is in the tree of a signed head.
type Inclusion struct {
	// Extra is passed on and never trusted: nothing signs it.
	Extra []byte
	Index uint64 // of the leaf: the number of the event, minus one
	// Hashes lead from the leaf to the root.
	Hashes []Hash
	Signed []byte // the signed head
}

// Encode returns the proof as a file, whose name should end in .tlog-proof.
func (p *Inclusion) Encode() ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	b := []byte(inclusionMagic)
	if len(p.Extra) > 0 {
		b = append(b, "extra "...)
		b = append(base64.StdEncoding.AppendEncode(b, p.Extra), '\n')
	}
	b = append(b, "index "...)
	b = strconv.AppendUint(b, p.Index, 10)
	return appendProof(b, p.Hashes, p.Signed), nil
}

func (p *Inclusion) check() error {
	if len(p.Extra) > MaxExtra || len(p.Hashes) > MaxHashes {
		return fmt.Errorf("%w: a proof that is too long", ErrMalformed)
	}
	h, err := Peek(p.Signed)
	if err == nil && p.Index >= h.Size {
		err = fmt.Errorf("%w: leaf %d of a tree of %d", ErrMalformed, p.Index, h.Size)
	}
	return err
}

// DecodeInclusion reads exactly what Encode writes. Nothing is proved by that:
// see Verify.
func DecodeInclusion(b []byte) (*Inclusion, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("%w: a proof that is too long", ErrMalformed)
	}
	rest, ok := bytes.CutPrefix(b, []byte(inclusionMagic))
	if !ok {
		return nil, fmt.Errorf("%w: not a proof of inclusion", ErrMalformed)
	}
	p := &Inclusion{}
	if text, after, ok := cutLine(rest, "extra "); ok {
		extra, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("%w: extra data", ErrMalformed)
		}
		p.Extra, rest = extra, after
	}
	var err error
	if p.Index, p.Hashes, p.Signed, err = decodeProof(rest, "index "); err != nil {
		return nil, err
	}
	// What has another form than that which is written is refused, however
	// it came to be: base64 with line breaks, empty extra data.
	if err := canonical(b, p.Encode); err != nil {
		return nil, err
	}
	return p, nil
}

// Verify returns the head that the proof rests on if it shows, by what the
// policy trusts, that line is in the ledger: as event number Index + 1.
func (p *Inclusion) Verify(policy Policy, line []byte) (Signed, error) {
	s, err := policy.Open(p.Signed)
	if err != nil {
		return Signed{}, err
	}
	if err := CheckInclusion(p.Hashes, s.Size, s.Root, p.Index, LeafHash(line)); err != nil {
		return Signed{}, err
	}
	return s, nil
}

// Consistency shows that the tree of a signed head extends an older one.
type Consistency struct {
	Old    uint64 // leaves of the older tree
	Hashes []Hash
	Signed []byte // the newer head
}

// Encode returns the proof as text: the request of c2sp.org/tlog-witness.
func (p *Consistency) Encode() ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	b := append([]byte("old "), strconv.FormatUint(p.Old, 10)...)
	return appendProof(b, p.Hashes, p.Signed), nil
}

func (p *Consistency) check() error {
	if len(p.Hashes) > MaxHashes {
		return fmt.Errorf("%w: a proof that is too long", ErrMalformed)
	}
	h, err := Peek(p.Signed)
	if err == nil && p.Old > h.Size {
		err = fmt.Errorf("%w: a tree of %d that extends one of %d", ErrMalformed, h.Size, p.Old)
	}
	return err
}

// DecodeConsistency reads exactly what Encode writes. Nothing is proved by that:
// see Verify.
func DecodeConsistency(b []byte) (*Consistency, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("%w: a proof that is too long", ErrMalformed)
	}
	p := &Consistency{}
	var err error
	if p.Old, p.Hashes, p.Signed, err = decodeProof(b, "old "); err != nil {
		return nil, err
	}
	if err := canonical(b, p.Encode); err != nil {
		return nil, err
	}
	return p, nil
}

// Verify returns the newer head if its log, and enough witnesses, have signed it
// and its tree begins with the whole of the older one. Whether the older head is
// to be trusted is for the caller to know.
func (p *Consistency) Verify(policy Policy, old Head) (Signed, error) {
	s, err := policy.Open(p.Signed)
	if err != nil {
		return Signed{}, err
	}
	if old.Origin != s.Origin || old.Size != p.Old {
		return Signed{}, fmt.Errorf("%w: a proof about another head", ErrUnproved)
	}
	if err := CheckConsistency(p.Hashes, s.Size, s.Root, old.Size, old.Root); err != nil {
		return Signed{}, err
	}
	return s, nil
}

// appendProof appends what both forms end with: a newline, the hashes, an empty
// line, and the signed head.
func appendProof(b []byte, hashes []Hash, signed []byte) []byte {
	b = append(b, '\n')
	for _, h := range hashes {
		b = append(base64.StdEncoding.AppendEncode(b, h[:]), '\n')
	}
	b = append(b, '\n')
	return append(b, signed...)
}

// decodeProof reads a line that is a word and a number, and what follows it.
func decodeProof(b []byte, word string) (n uint64, hashes []Hash, signed []byte, err error) {
	text, b, ok := cutLine(b, word)
	if !ok {
		return 0, nil, nil, fmt.Errorf("%w: no line %q", ErrMalformed, word)
	}
	if n, err = parseNumber(text); err != nil {
		return 0, nil, nil, err
	}
	for {
		text, after, ok := cutLine(b, "")
		if !ok || len(hashes) > MaxHashes {
			return 0, nil, nil, fmt.Errorf("%w: a proof without its end", ErrMalformed)
		}
		b = after
		if text == "" {
			return n, hashes, bytes.Clone(b), nil
		}
		h, err := parseHash(text)
		if err != nil {
			return 0, nil, nil, err
		}
		hashes = append(hashes, h)
	}
}

// cutLine returns the first line without prefix and newline, and what follows;
// false when the first line has not the prefix or no end.
func cutLine(b []byte, prefix string) (line string, rest []byte, ok bool) {
	first, rest, ended := bytes.Cut(b, []byte{'\n'})
	text, has := bytes.CutPrefix(first, []byte(prefix))
	return string(text), rest, ended && has
}

// canonical returns nil if encode writes b.
func canonical(b []byte, encode func() ([]byte, error)) error {
	again, err := encode()
	if err == nil && !bytes.Equal(again, b) {
		err = fmt.Errorf("%w: not in its one form", ErrMalformed)
	}
	return err
}
