package routes

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"watchword.dev/events/catalogue"
	"watchword.dev/services/internal/cataloguefile"
)

// lookEvery is how often a file is looked at. It is read each time: what its
// time of change says depends on the disk and on who replaces it.
const lookEvery = 2 * time.Second

// File is a file of routes that is read again when it changes, or when the
// catalogue does. It is safe for concurrent use.
type File struct {
	path string
	cat  func() *catalogue.Catalogue
	log  *slog.Logger

	current atomic.Pointer[Map]

	mu   sync.Mutex
	sum  [sha256.Size]byte    // of what was read last
	held *catalogue.Catalogue // against what it was held
	err  error                // what is wrong with it
}

// Open reads the file; it is an error when it cannot be used. A nil log is
// slog.Default().
func Open(path string, cat func() *catalogue.Catalogue, log *slog.Logger) (*File, error) {
	if log == nil {
		log = slog.Default()
	}
	f := &File{path: path, cat: cat, log: log}
	f.Look()
	return f, f.Err()
}

// Map returns the routes that hold: those of the last good file. It is nil when
// there was none.
func (f *File) Map() *Map { return f.current.Load() }

// Err says why the file as it is now is not what holds; nil when it is.
func (f *File) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Look reads the file again. A file that cannot be used changes nothing but
// what Err says.
func (f *File) Look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	cat := f.cat()
	raw, err := read(f.path)
	if err != nil {
		f.failed(err)
		f.held = nil // whatever comes next is new
		return
	}
	sum := sha256.Sum256(raw)
	if f.held == cat && f.sum == sum {
		return
	}
	f.held, f.sum = cat, sum
	m, err := Load(raw, cat)
	if err != nil {
		f.failed(fmt.Errorf("%s:%w", f.path, err))
		return
	}
	f.err = nil
	f.current.Store(m)
	f.log.Info("routes", "file", f.path, "routes", m.Len())
}

func (f *File) failed(err error) {
	if f.err == nil || f.err.Error() != err.Error() {
		f.log.Error("the file of routes cannot be used, the routes before it hold on", "error", err)
	}
	f.err = err
}

// read reads a file, as far as it may be long.
func read(path string) ([]byte, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(io.LimitReader(in, cataloguefile.MaxBytes+1))
	return b.Bytes(), err
}

// Run looks at the file again and again, and at once when something comes from
// now, until ctx ends.
func (f *File) Run(ctx context.Context, now <-chan os.Signal) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-now:
		}
		f.Look()
	}
}
