package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWritePrivate checks that a file is private, replaced whole, and leaves
// nothing beside it, also when it cannot be written.
func TestWritePrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	for _, text := range []string{"first", "second, and longer", ""} {
		if err := WritePrivate(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		got, err := ReadPrivate(path)
		if err != nil || string(got) != text {
			t.Errorf("got %q, %v; want %q", got, err, text)
		}
	}
	if err := CreatePrivate(path, []byte("third")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing file: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || len(got) != 0 {
		t.Errorf("replaced by %q, %v", got, err)
	}
	if err := CreatePrivate(filepath.Join(dir, "other"), []byte("x")); err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WritePrivate(filepath.Join(dir, "full"), []byte("x")); err == nil {
		t.Error("a directory was replaced")
	}
	if err := WritePrivate(filepath.Join(dir, "absent", "x"), []byte("x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent directory: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

// TestReadPrivate checks that a file which others can read, which is no file,
// or which is too large is refused, without a word of what it holds.
func TestReadPrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	if err := os.WriteFile(path, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		mode fs.FileMode
		ok   bool
	}{{0o600, true}, {0o400, true}, {0o640, false}, {0o604, false}, {0o660, false}, {0o644, false}, {0o610, false}} {
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		got, err := ReadPrivate(path)
		if (err == nil) != tt.ok || tt.ok && string(got) != "hunter2" {
			t.Errorf("mode %v: %q, %v", tt.mode, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells: %v", err)
		}
	}
	if _, err := ReadPrivate(dir); err == nil {
		t.Error("a directory was read")
	}
	if _, err := ReadPrivate(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 64<<10+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPrivate(filepath.Join(dir, "large")); err == nil {
		t.Error("a large file was read")
	}
}
