package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/projections/projector"
)

// Source is a projection of which a snapshot can be taken. verifyindex.Index is
// one.
type Source interface {
	Name() string
	Version() int
	// Snapshot writes a copy of the store into dir, which must not exist.
	Snapshot(dir string) error
}

// Snapshot is one that was taken: a directory of files that do not change. It is
// safe for concurrent use.
type Snapshot struct {
	Manifest
	dir  string
	head []byte // the manifest as it is sent
	size int64
}

// Take takes a snapshot of src into dir, which must not exist and should be on
// src's file system: then files are linked, not copied.
func Take(src Source, dir string) (*Snapshot, error) {
	s := &Snapshot{dir: dir, Manifest: Manifest{Format: Format, Projection: src.Name(), Version: src.Version()}}
	err := src.Snapshot(dir)
	if err == nil {
		err = s.settle()
	}
	if err == nil {
		err = s.list()
	}
	if err == nil {
		s.Digest, err = s.sum()
	}
	if err == nil {
		s.head, err = s.line()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s.size += int64(len(s.head))
	return s, nil
}

// settle opens the copy once, as whoever loads it will: that brings what was only
// logged into tables, and tells at which position the copy is.
func (s *Snapshot) settle() error {
	store, err := openStore(s.dir, s.Projection, s.Version)
	if err != nil {
		return err
	}
	s.Position = placeOf(store.Position())
	return store.Close()
}

func openStore(dir, name string, version int) (*projector.Store, error) {
	return projector.OpenStore(projector.StoreOptions{Dir: dir, Name: name, Version: version, CacheBytes: 1 << 20,
		Tune: func(o *pebble.Options) { o.DisableAutomaticCompactions = true }})
}

// lockName is the file by which Pebble holds a directory.
const lockName = "LOCK"

// list notes the files and what they hold.
func (s *Snapshot) list() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	for _, e := range entries {
		if e.Name() == lockName {
			continue
		}
		if !e.Type().IsRegular() || !plainName(e.Name()) {
			return fmt.Errorf("snapshot: %s is no file of a store", e.Name())
		}
		f, err := describe(filepath.Join(s.dir, e.Name()))
		if err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
		s.Files = append(s.Files, f)
		s.size += f.Size
	}
	return nil
}

func describe(path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return File{Name: filepath.Base(path), Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}, err
}

// Size is how many bytes the stream has.
func (s *Snapshot) Size() int64 { return s.size }

// Remove removes the files. Nobody may be reading them any more.
func (s *Snapshot) Remove() error { return os.RemoveAll(s.dir) }

// Open returns the stream, for one reader.
func (s *Snapshot) Open() *Stream { return &Stream{s: s} }

// Stream reads a snapshot. It holds one file open at a time.
type Stream struct {
	s    *Snapshot
	at   int64
	open *os.File // nil before the first
	part int      // which of the files that is
}

// Seek implements io.Seeker.
func (r *Stream) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.s.size
	}
	if offset < 0 {
		return 0, errors.New("snapshot: before the beginning")
	}
	r.at = offset
	return offset, nil
}

// Read implements io.Reader.
func (r *Stream) Read(b []byte) (int, error) {
	if head := int64(len(r.s.head)); r.at < head {
		n, err := bytes.NewReader(r.s.head[r.at:]).Read(b)
		r.at += int64(n)
		return n, err
	}
	at := r.at - int64(len(r.s.head))
	for i, f := range r.s.Files {
		if at >= f.Size {
			at -= f.Size
			continue
		}
		if err := r.turnTo(i); err != nil {
			return 0, err
		}
		n, err := r.open.ReadAt(b[:min(int64(len(b)), f.Size-at)], at)
		r.at += int64(n)
		if errors.Is(err, io.EOF) && n > 0 {
			err = nil
		}
		return n, err
	}
	return 0, io.EOF
}

func (r *Stream) turnTo(part int) error {
	if r.open != nil && r.part == part {
		return nil
	}
	if err := r.Close(); err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(r.s.dir, r.s.Files[part].Name))
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	r.open, r.part = f, part
	return nil
}

// Close ends the reading.
func (r *Stream) Close() error {
	if r.open == nil {
		return nil
	}
	f := r.open
	r.open = nil
	return f.Close()
}
