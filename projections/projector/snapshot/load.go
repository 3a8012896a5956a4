package snapshot

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Load reads a snapshot into dir, which must be empty, and returns what it says
// of itself. It returns ErrVersion for one of another projection, version or
// format, ErrDamaged for one that is not whole, and what r returns when that
// fails. After an error dir holds rubbish: the caller throws it away. After nil
// the files are on disk, and dir opens as a store at the manifest's position.
func Load(r io.Reader, dir, name string, version int) (Manifest, error) {
	buffered := bufio.NewReaderSize(r, 256<<10)
	m, err := readManifest(buffered)
	if err != nil {
		return m, err
	}
	if m.Projection != name || m.Version != version {
		return m, fmt.Errorf("%w: it is %s %d, this program reads %s %d", ErrVersion, m.Projection, m.Version, name, version)
	}
	for _, f := range m.Files {
		if err := receive(buffered, dir, f); err != nil {
			return m, err
		}
	}
	if _, err := buffered.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = fmt.Errorf("%w: something follows its last file", ErrDamaged)
		}
		return m, err
	}
	if err := syncDir(dir); err != nil {
		return m, err
	}
	store, err := openStore(dir, name, version)
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	at := placeOf(store.Position())
	if err := store.Close(); err != nil {
		return m, fmt.Errorf("snapshot: %w", err)
	}
	if at != m.Position {
		return m, fmt.Errorf("%w: its rows are at sequence %d, its manifest says %d", ErrDamaged, at.Sequence, m.Position.Sequence)
	}
	return m, nil
}

// receive writes one file and makes sure of every byte.
func receive(r io.Reader, dir string, f File) error {
	out, err := os.OpenFile(filepath.Join(dir, f.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer out.Close()
	h := sha256.New()
	n, err := io.CopyN(io.MultiWriter(out, h), r, f.Size)
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: it ends within file %s, after %d of %d bytes", ErrDamaged, f.Name, n, f.Size)
	case err != nil:
		return fmt.Errorf("snapshot: file %s: %w", f.Name, err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != f.SHA256 {
		return fmt.Errorf("%w: file %s has the digest %s, its manifest says %q", ErrDamaged, f.Name, sum, f.SHA256)
	}
	if err := errors.Join(out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}
