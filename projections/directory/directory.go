package directory

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/projections/projector"
)

// Name and Version are the name of the projection and the version of the shape
// of its rows. Whoever changes a row or a key raises Version.
const (
	Name    = "directory"
	Version = 9
)

// ErrClosed says that the directory was closed before it was asked.
var ErrClosed = errors.New("directory: closed")

// Options say which directory to open.
type Options struct {
	Dir string
	// FS is the file system; the machine's when nil.
	FS vfs.FS
	// CacheBytes bounds the cache of blocks; 64 MiB when zero.
	CacheBytes int64
	// Log receives what Pebble says; nothing is said when nil.
	Log *slog.Logger
}

// Directory is an open directory. One goroutine applies; any number ask at the
// same time.
type Directory struct {
	queries // about the newest rows
	store   *projector.Store
	known   *known        // ids of tokens, and digests
	loaded  chan struct{} // closed when nothing more is loaded into known
	// published is the version of the catalogue that the rows have or are just
	// about to have.
	published atomic.Uint32

	mu     sync.Mutex // guards what follows
	asking int        // how many views are open
	closed bool
	idle   chan struct{} // closed when asking falls to zero after closed was set
}

const defaultCacheBytes = 64 << 20

// Open opens the directory in o.Dir, or makes an empty one where there is
// nothing.
func Open(o Options) (*Directory, error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	store, err := projector.OpenStore(projector.StoreOptions{
		Dir: o.Dir, Name: Name, Version: Version, FS: o.FS, CacheBytes: o.CacheBytes, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	d := &Directory{store: store, known: newKnown(), loaded: make(chan struct{}), idle: make(chan struct{})}
	d.queries.open = d.reader
	version, err := lastVersion(store.DB())
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	d.published.Store(version)
	if err := d.load(); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return d, nil
}

// Name implements projector.Projection.
func (d *Directory) Name() string { return Name }

// Version implements projector.Projection.
func (d *Directory) Version() int { return Version }

// Position returns the position whose state every later query sees, or a
// later one.
func (d *Directory) Position() events.Position { return d.store.Position() }

// Applied returns the sequence of Position.
func (d *Directory) Applied() uint64 { return d.store.Position().Seq }

// Apply implements projector.Projection. Rows and checkpoint are one batch: a
// crash leaves the directory between two of them. Only a sweep takes more than one
// batch.
func (d *Directory) Apply(commits []events.Commit) error {
	for len(commits) > 0 {
		n := 0
		for n < len(commits) && !sweeps(&commits[n]) {
			n++
		}
		if err := d.apply(commits[:n]); err != nil {
			return err
		}
		if n < len(commits) {
			if at := d.store.Position(); commits[n].Seq != at.Seq+1 {
				return fmt.Errorf("directory: %w: at %d, given %d", events.ErrGap, at.Seq, commits[n].Seq)
			}
			if err := d.sweep(&commits[n]); err != nil {
				return err
			}
			n++
		}
		commits = commits[n:]
	}
	return nil
}

// apply is Apply for commits that are one batch.
func (d *Directory) apply(commits []events.Commit) error {
	if len(commits) == 0 {
		return nil
	}
	at := d.store.Position()
	b := d.store.DB().NewIndexedBatchWithSize(batchSize(commits))
	defer b.Close()
	c := newChange(b, d.known, at.Time)
	for i := range commits {
		if commits[i].Seq != at.Seq+1 {
			return fmt.Errorf("directory: %w: at %d, given %d", events.ErrGap, at.Seq, commits[i].Seq)
		}
		for j := range commits[i].Records {
			if err := c.reflect(&commits[i].Records[j]); err != nil {
				return fmt.Errorf("directory: sequence %d: %w", commits[i].Seq, err)
			}
		}
		at = commits[i].End
	}
	if err := c.finish(); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	if c.published > 0 {
		// Before the rows: who has waited for them is not given an older one.
		d.published.Store(c.published)
	}
	return d.store.Commit(b, at)
}

// Catalogue returns the catalogue that was published last, as it does of a View,
// without asking for the version each time.
func (d *Directory) Catalogue() (c aggregate.Catalogue, ok bool, err error) {
	version := d.published.Load()
	if version == 0 {
		return c, false, d.usable()
	}
	if kept := d.queries.catalogue.Load(); kept != nil && kept.Version == version {
		return *kept, true, d.usable()
	}
	return d.queries.Catalogue()
}

// batchSize guesses how many bytes a batch will have: a row is about as long
// as its event, and its index entries have some hundred bytes.
func batchSize(commits []events.Commit) (n int) {
	for i := range commits {
		for j := range commits[i].Records {
			n += len(commits[i].Records[j].Line) + 512
		}
	}
	return n
}

// Store returns the store, for snapshots, dumps and its size on disk.
func (d *Directory) Store() *projector.Store { return d.store }

// Snapshot writes a copy of the directory into dir, which must not exist; Open
// opens it.
func (d *Directory) Snapshot(dir string) error {
	if err := d.begin(); err != nil {
		return err
	}
	defer d.end()
	return d.store.Snapshot(dir)
}

// Close waits until nobody asks any more and closes the store. Who asks later
// gets ErrClosed.
func (d *Directory) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	if d.asking == 0 {
		close(d.idle)
	}
	d.mu.Unlock()
	<-d.idle
	return d.store.Close()
}

func (d *Directory) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	d.asking++
	return nil
}

func (d *Directory) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asking--; d.asking == 0 && d.closed {
		close(d.idle)
	}
}

// usable returns ErrClosed once Close was called.
func (d *Directory) usable() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	return nil
}

// reader returns where a query reads: the rows as they are, or as they stay
// when it looks at more than one.
func (d *Directory) reader(more bool) (pebble.Reader, func() error, error) {
	if err := d.begin(); err != nil {
		return nil, nil, err
	}
	if !more {
		return d.store.DB(), func() error { d.end(); return nil }, nil
	}
	snap := d.store.DB().NewSnapshot()
	return snap, func() error {
		defer d.end()
		return snap.Close()
	}, nil
}

// View is the directory at one sequence: all its answers fit together. It must
// be closed, and it is not for keeping: it holds back what Pebble wants to
// throw away.
type View struct {
	queries
	at    events.Position
	close func() error
}

// View returns the directory as it is now.
func (d *Directory) View() (*View, error) {
	r, done, err := d.reader(true)
	if err != nil {
		return nil, err
	}
	at, err := positionOf(r)
	if err != nil {
		return nil, errors.Join(err, done())
	}
	v := &View{at: at, close: done}
	v.queries.open = func(bool) (pebble.Reader, func() error, error) { return r, func() error { return nil }, nil }
	return v, nil
}

// Position returns the position at which the view stands.
func (v *View) Position() events.Position { return v.at }

// Close ends the view. Nobody may ask it any more.
func (v *View) Close() error { return v.close() }

var checkpointKey, _, _ = projector.Checkpoint(events.Position{})

// positionOf reads the position from the rows themselves: the one that the
// store knows may be that of an older or newer batch than r shows.
func positionOf(r pebble.Reader) (events.Position, error) {
	at, _, err := get(r, checkpointKey, func(row []byte) (at events.Position, err error) {
		err = at.UnmarshalBinary(row)
		return at, err
	})
	return at, err
}
