package credentials

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"watchword.dev/events/token"
)

// TestRead checks that a file comes back as it was written, with the seed where
// it lies, and that nothing is taken from one that others can read.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "edge.json")
	want := File{
		ID: token.NewGenerator(nil).New(), Kind: Enforcer, Name: "edge", Region: "eu-1", BaseURL: "http://127.0.0.1:8420",
		Key: "wwe_x", NATSURL: "nats://127.0.0.1:4222", SeedFile: "edge.nkey",
	}
	text, err := want.Text()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want.SeedFile = filepath.Join(dir, "edge.nkey")
	if got, err := Read(path); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path); !errors.Is(err, ErrOpen) || got != (File{}) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// TestReadRefuses checks that what names nobody is an error.
func TestReadRefuses(t *testing.T) {
	for _, text := range []string{
		"", "{", "{}", "null", `{"id":"x","kind":"enforcer"}`, `{"kind":"enforcer"}`,
		`{"id":"0123456789abcdef0123456789abcdef"}`, `{"id":"0123456789abcdef0123456789abcdef","kind":"pen"}`,
	} {
		path := filepath.Join(t.TempDir(), "c.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := Read(path); err == nil || c != (File{}) {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
