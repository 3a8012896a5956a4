package projector

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
)

var (
	// ErrForeignStore says that a directory holds the rows of another
	// projection, or of another version of it.
	ErrForeignStore = errors.New("projector: the store belongs to another projection or version")
	// ErrDamaged says that a store has lost or changed bytes. It is of no
	// use any more and is built anew.
	ErrDamaged = errors.New("projector: the store is damaged")
)

// The store's own keys. Rows must not begin with '!', which sorts before all
// letters and digits.
var (
	keyHeader     = []byte("!projection")
	keyCheckpoint = []byte("!sequence")
)

// StoreOptions say which store to open.
type StoreOptions struct {
	Dir     string
	Name    string // of the projection
	Version int    // of the shape of its rows
	// FS is the file system; the machine's when nil.
	FS vfs.FS
	// CacheBytes bounds the block cache; 32 MiB when zero. Up to twice
	// memTableBytes come on top for what is not on disk yet.
	CacheBytes int64
	// Tune changes Pebble's options after the defaults of this package.
	Tune func(*pebble.Options)
	// Log receives what Pebble says; nothing is said when nil.
	Log *slog.Logger
}

// Store is the Pebble database of one projection: its rows, its name and
// version, and its checkpoint.
type Store struct {
	db       *pebble.DB
	o        *pebble.Options
	dir      string
	position atomic.Pointer[events.Position]
}

// OpenStore opens the store in o.Dir, or makes an empty one where there is
// nothing. It returns ErrForeignStore for the rows of something else.
func OpenStore(o StoreOptions) (*Store, error) {
	po := pebbleOptions(o)
	db, err := pebble.Open(o.Dir, po)
	if err != nil {
		return nil, fmt.Errorf("projector: open store %s: %w", o.Name, damaged(err))
	}
	s := &Store{db: db, o: po, dir: o.Dir}
	if err := s.identify(o.Name, o.Version); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

const memTableBytes = 32 << 20

func pebbleOptions(o StoreOptions) *pebble.Options {
	if o.CacheBytes == 0 {
		o.CacheBytes = 32 << 20
	}
	log := logger{o.Log}
	po := &pebble.Options{
		FS:                 o.FS,
		FormatMajorVersion: pebble.FormatNewest,
		// Pebble takes what its memory tables use out of the cache's size,
		// that of the one being written to disk included: a cache of no
		// more than that would hold nothing.
		CacheSize:                   o.CacheBytes + 2*memTableBytes,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       20,
		LBaseMaxBytes:               256 << 20,
		BytesPerSync:                512 << 10,
		WALBytesPerSync:             512 << 10,
		MaxOpenFiles:                4096,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		Logger:                      log,
		// Without a listener Pebble ends the process at the first block
		// whose checksum is wrong. Whoever reads it gets ErrDamaged, and a
		// process that is alive can be told to rebuild.
		EventListener: &pebble.EventListener{
			DataCorruption: func(info pebble.DataCorruptionInfo) { log.Errorf("%s", info) },
		},
	}
	po.TargetFileSizes[0] = 8 << 20
	po.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	for i := range po.Levels {
		po.Levels[i].BlockSize = 4 << 10
		po.Levels[i].IndexBlockSize = 64 << 10
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	if o.Tune != nil {
		o.Tune(po)
	}
	return po
}

// identify checks whose rows these are. A store without any key is new: the
// header is the first thing that is written, and it is synced.
func (s *Store) identify(name string, version int) error {
	want := name + " " + strconv.Itoa(version)
	header, ok, err := s.Get(keyHeader)
	if err != nil {
		return err
	}
	s.position.Store(new(events.Position))
	if !ok {
		empty, err := s.empty()
		if err != nil {
			return err
		}
		if !empty {
			return fmt.Errorf("%w: %s holds rows but no name", ErrForeignStore, s.dir)
		}
		return s.db.Set(keyHeader, []byte(want), pebble.Sync)
	}
	if string(header) != want {
		return fmt.Errorf("%w: %s is %q, want %q", ErrForeignStore, s.dir, header, want)
	}
	return s.Reload()
}

func (s *Store) empty() (bool, error) {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return false, damaged(err)
	}
	found := it.First()
	return !found, damaged(errors.Join(it.Error(), it.Close()))
}

// Reload reads the checkpoint again, after rows and checkpoint came into the
// store in another way than by Commit.
func (s *Store) Reload() error {
	raw, ok, err := s.Get(keyCheckpoint)
	if err != nil || !ok {
		return err
	}
	at := new(events.Position)
	if err := at.UnmarshalBinary(raw); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	s.position.Store(at)
	return nil
}

// DB returns the database, to read rows and to make batches.
func (s *Store) DB() *pebble.DB { return s.db }

// Options returns what the database was opened with, for those who write
// sorted tables themselves. They must not be changed.
func (s *Store) Options() *pebble.Options { return s.o }

// Position returns the checkpoint.
func (s *Store) Position() events.Position { return *s.position.Load() }

// Get returns a copy of a row, and whether there is one.
func (s *Store) Get(key []byte) ([]byte, bool, error) {
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, damaged(err)
	}
	v = append([]byte(nil), v...)
	return v, true, damaged(closer.Close())
}

// Checkpoint returns the row by which the store says that it is at a
// position, for those who write sorted tables themselves.
func Checkpoint(at events.Position) (key, value []byte, err error) {
	value, err = at.AppendBinary(nil)
	return keyCheckpoint, value, err
}

// Commit writes the batch together with the checkpoint. The batch is not
// synced: a crash may lose the newest commits, but only whole ones and only
// from the end, and the runner reads them again.
func (s *Store) Commit(b *pebble.Batch, at events.Position) error {
	key, value, err := Checkpoint(at)
	if err != nil {
		return err
	}
	if err := b.Set(key, value, nil); err != nil {
		return err
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return damaged(err)
	}
	s.position.Store(&at)
	return nil
}

// Snapshot writes a copy of the store into dir, which must not exist. The copy
// can be opened as a store and is at a position that the store was at during
// the call.
func (s *Store) Snapshot(dir string) error {
	if err := s.db.Checkpoint(dir, pebble.WithFlushedWAL()); err != nil {
		return fmt.Errorf("projector: snapshot: %w", err)
	}
	return nil
}

// DiskBytes returns how much the store takes on disk.
func (s *Store) DiskBytes() uint64 { return s.db.Metrics().DiskSpaceUsage() }

// Close ends the use of the store. Nobody may read it any more.
func (s *Store) Close() error { return s.db.Close() }

// damaged marks the errors that say that bytes on disk are wrong.
func damaged(err error) error {
	if err != nil && pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// logger passes Pebble's words on. Fatalf must not return: after an error of
// its write-ahead log Pebble does not know its own state.
type logger struct{ l *slog.Logger }

func (l logger) Infof(format string, args ...any) {
	if l.l != nil {
		l.l.Debug("pebble: " + fmt.Sprintf(format, args...))
	}
}

func (l logger) Errorf(format string, args ...any) {
	if l.l != nil {
		l.l.Error("pebble: " + fmt.Sprintf(format, args...))
	}
}

func (l logger) Fatalf(format string, args ...any) {
	message := "pebble: " + fmt.Sprintf(format, args...)
	if l.l != nil {
		l.l.Error(message)
	} else {
		fmt.Fprintln(os.Stderr, message)
	}
	os.Exit(1)
}
