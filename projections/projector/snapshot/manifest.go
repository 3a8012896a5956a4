package snapshot

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
)

// Format is the version of the stream.
const Format = 1

// ContentType is that of the stream.
const ContentType = "application/vnd.watchword.snapshot"

// The limits of a manifest.
const (
	maxManifest = 16 << 20 // bytes of the line
	maxName     = 100      // bytes of a file's name
	maxTotal    = 1 << 50  // bytes of all files
)

var (
	// ErrDamaged says that what came is not, byte for byte, what was taken:
	// something is missing or was changed on the way.
	ErrDamaged = errors.New("snapshot: damaged")
	// ErrVersion says that a snapshot is of another projection or version, or
	// in another format: the ledger must be read instead.
	ErrVersion = errors.New("snapshot: of another version")
)

// Manifest says what a snapshot is and what it is made of.
type Manifest struct {
	Format     int    `json:"format"`
	Projection string `json:"projection"`
	Version    int    `json:"version"`
	Position   Place  `json:"position"`
	Files      []File `json:"files"`
	// Digest is the SHA-256 of the manifest without it, in hex.
	Digest string `json:"digest,omitzero"`
}

// Place is a position in the ledger.
type Place struct {
	Epoch    uint32    `json:"epoch"`
	Sequence uint64    `json:"sequence"`
	Number   uint64    `json:"number"`
	Chain    string    `json:"chain"` // hash of event Number's line, hex
	Time     time.Time `json:"time,omitzero"`
}

// File is one file of the store.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hex
}

func placeOf(at events.Position) Place {
	return Place{Epoch: at.Epoch, Sequence: at.Seq, Number: at.Number, Chain: at.Hash.String(), Time: at.Time.UTC()}
}

// line is the manifest as it is sent, with its digest.
func (m Manifest) line() ([]byte, error) {
	sum, err := m.sum()
	if err != nil {
		return nil, err
	}
	m.Digest = sum
	b, err := json.Marshal(m, json.Deterministic(true))
	return append(b, '\n'), err
}

func (m Manifest) sum() (string, error) {
	m.Digest = ""
	b, err := json.Marshal(m, json.Deterministic(true))
	if err != nil {
		return "", fmt.Errorf("snapshot: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// readManifest reads the line and checks all that it says of itself.
func readManifest(r *bufio.Reader) (Manifest, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxManifest:
			return Manifest{}, fmt.Errorf("%w: its manifest is longer than %d bytes", ErrDamaged, maxManifest)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return Manifest{}, fmt.Errorf("%w: its manifest is cut off: %w", ErrDamaged, err)
		}
		break
	}
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return Manifest{}, fmt.Errorf("%w: it has no manifest", ErrDamaged)
	}
	if head.Format != Format {
		return Manifest{}, fmt.Errorf("%w: it has format %d, this program reads %d", ErrVersion, head.Format, Format)
	}
	var m Manifest
	if err := json.Unmarshal(line, &m, json.RejectUnknownMembers(true)); err != nil {
		return Manifest{}, fmt.Errorf("%w: its manifest cannot be read", ErrDamaged)
	}
	sum, err := m.sum()
	if err != nil {
		return Manifest{}, err
	}
	if sum != m.Digest {
		return Manifest{}, fmt.Errorf("%w: the digest of its manifest is %s, it says %q", ErrDamaged, sum, m.Digest)
	}
	return m, m.check()
}

// check refuses names that would leave the directory, and sizes that are none.
func (m *Manifest) check() error {
	seen, total := map[string]bool{}, int64(0)
	for _, f := range m.Files {
		if !plainName(f.Name) || seen[f.Name] {
			return fmt.Errorf("%w: a file cannot be named %q", ErrDamaged, f.Name)
		}
		if seen[f.Name] = true; f.Size < 0 || f.Size > maxTotal-total {
			return fmt.Errorf("%w: file %s cannot have %d bytes", ErrDamaged, f.Name, f.Size)
		}
		total += f.Size
	}
	return nil
}

func plainName(s string) bool {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	return s != "" && len(s) <= maxName && s[0] != '.' && strings.Trim(s, plain) == ""
}
