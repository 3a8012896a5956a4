package proof

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"watchword.dev/events/token"
)

// MaxName is how many bytes the name of a log or witness may have.
const MaxName = 255

// Head is a tree head: what a log signs.
type Head struct {
	Origin string // of the log, see Origin
	Size   uint64 // leaves
	Root   Hash
}

// Origin returns the name under which an installation signs the tree heads of an
// epoch of its ledger. It follows from the ledger alone: every region and every
// reader of a copy knows it.
func Origin(installation token.ID, epoch uint32) string {
	return "watchword/" + installation.String() + "/audit/" + strconv.FormatUint(uint64(epoch), 10)
}

// ParseOrigin reads what Origin writes.
func ParseOrigin(origin string) (installation token.ID, epoch uint32, err error) {
	rest, prefixed := strings.CutPrefix(origin, "watchword/")
	id, number, cut := strings.Cut(rest, "/audit/")
	installation, err = token.ParseID(id)
	n, err2 := strconv.ParseUint(number, 10, 32)
	if !prefixed || !cut || err != nil || err2 != nil || Origin(installation, uint32(n)) != origin {
		return token.ID{}, 0, fmt.Errorf("%w: not the origin of a ledger", ErrMalformed)
	}
	return installation, uint32(n), nil
}

// Text returns what is signed: three lines, each with its newline.
func (h Head) Text() string {
	return h.Origin + "\n" + strconv.FormatUint(h.Size, 10) + "\n" + h.Root.String() + "\n"
}

// ParseHead reads exactly what Text writes. Lines behind those three, which
// C2SP allows but advises against, are refused: nobody checks what they say.
func ParseHead(text string) (Head, error) {
	lines := strings.SplitN(text, "\n", 5)
	if len(lines) != 4 || lines[3] != "" {
		return Head{}, fmt.Errorf("%w: a tree head has three lines", ErrMalformed)
	}
	if err := checkName(lines[0]); err != nil {
		return Head{}, err
	}
	size, err := parseNumber(lines[1])
	if err != nil {
		return Head{}, err
	}
	root, err := parseHash(lines[2])
	if err != nil {
		return Head{}, err
	}
	if size == 0 && root != EmptyRoot() {
		return Head{}, fmt.Errorf("%w: a root of no leaves", ErrMalformed)
	}
	return Head{Origin: lines[0], Size: size, Root: root}, nil
}

// checkName is the rule of signed notes for the names of keys.
func checkName(name string) error {
	if name == "" || len(name) > MaxName || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, func(c rune) bool { return c == '+' || unicode.IsSpace(c) || unicode.IsControl(c) }) {
		return fmt.Errorf("%w: the name of a log or witness", ErrMalformed)
	}
	return nil
}

// parseNumber reads a size or index in its one spelling.
func parseNumber(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > MaxSize || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("%w: not a number of leaves", ErrMalformed)
	}
	return n, nil
}

// parseHash reads a hash in its one spelling.
func parseHash(s string) (Hash, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != len(Hash{}) || base64.StdEncoding.EncodeToString(raw) != s {
		return Hash{}, fmt.Errorf("%w: not a hash", ErrMalformed)
	}
	return Hash(raw), nil
}
