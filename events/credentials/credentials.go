// Package credentials is the file that enrolment gives an enforcing service or
// an event consumer: who it is, where the installation is, and with what it
// logs in.
//
// The file and the seed that it names hold secrets. Read refuses a file that
// others than its owner can read, as ssh does.
package credentials

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/token"
)

// The kinds of those who enroll.
const (
	Enforcer = "enforcer"
	Consumer = "consumer"
)

// File is what the file says. It is JSON; later versions may say more.
type File struct {
	ID     token.ID `json:"id"`
	Kind   string   `json:"kind"` // Enforcer or Consumer
	Name   string   `json:"name"`
	Region string   `json:"region,omitzero"`

	// BaseURL is where the installation serves HTTP, and Key what an enforcer
	// asks with; a consumer has none.
	BaseURL string `json:"base_url"`
	Key     string `json:"key,omitzero"`

	// NATSURL is a list of servers with commas, empty where the installation
	// does not let NATS clients in. SeedFile holds the seed of the nkey that was
	// enrolled, and is named as seen from the credentials file.
	NATSURL  string `json:"nats_url,omitzero"`
	SeedFile string `json:"seed_file,omitzero"`
}

// ErrOpen says that others can read a file that holds a secret.
var ErrOpen = errors.New("credentials: others can read it")

// Read reads a credentials file. SeedFile comes back as a path that can be
// opened from here; the seed itself is not read. It returns ErrOpen for a file
// whose mode is not 0600 or less.
func Read(path string) (File, error) {
	var c File
	info, err := os.Stat(path)
	if err != nil {
		return c, fmt.Errorf("credentials: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return c, fmt.Errorf("%w: %s has mode %o, want 0600", ErrOpen, path, mode)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("credentials: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return File{}, fmt.Errorf("credentials: %s: %w", path, err)
	}
	if c.ID.IsZero() || c.Kind != Enforcer && c.Kind != Consumer {
		return File{}, fmt.Errorf("credentials: %s says of nobody that they are enrolled", path)
	}
	if c.SeedFile != "" && !filepath.IsAbs(c.SeedFile) {
		c.SeedFile = filepath.Join(filepath.Dir(path), c.SeedFile)
	}
	return c, nil
}

// Text is what a credentials file holds.
func (c File) Text() (string, error) {
	b, err := json.Marshal(c, jsontext.Multiline(true))
	return string(b), err
}
