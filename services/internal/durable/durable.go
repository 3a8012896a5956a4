// Package durable writes small files that must be whole after a crash: the
// secrets of an installation and the markers of its first start.
package durable

import (
	"fmt"
	"os"
	"path/filepath"
)

// WritePrivate writes a file that only the owner may read, whole or not at
// all. An existing file is replaced.
//
// Written beside its place, synced, renamed, and the directory synced: a crash
// before the rename leaves a file whose name starts with "." and which nothing
// reads; after it, the whole file.
func WritePrivate(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	defer os.Remove(f.Name()) // fails once renamed, as it should
	if err := writeSynced(f, data); err != nil {
		return fmt.Errorf("durable: write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	return SyncDir(dir)
}

// CreatePrivate is WritePrivate for a file that must not be there yet: with
// two processes one wins and the other gets fs.ErrExist.
func CreatePrivate(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	defer os.Remove(f.Name())
	if err := writeSynced(f, data); err != nil {
		return fmt.Errorf("durable: write %s: %w", path, err)
	}
	if err := os.Link(f.Name(), path); err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	return SyncDir(dir)
}

// writeSynced writes data, syncs and closes f.
func writeSynced(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// ReadPrivate reads a file that must be closed to the group and the world.
func ReadPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("durable: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("durable: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("durable: %s is not a regular file", path)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("durable: %s can be read by others (mode %04o): run chmod 600", path, st.Mode().Perm())
	}
	const most = 64 << 10
	if st.Size() > most {
		return nil, fmt.Errorf("durable: %s is larger than %d bytes", path, most)
	}
	b := make([]byte, st.Size())
	n, err := f.ReadAt(b, 0)
	if n != len(b) {
		return nil, fmt.Errorf("durable: read %s: %w", path, err)
	}
	return b, nil
}

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("durable: sync %s: %w", dir, err)
	}
	return nil
}
