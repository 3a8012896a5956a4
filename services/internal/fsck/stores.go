package fsck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/projections/projector"
)

// maxRows is how many rows of one store are named in the report.
const maxRows = 20

// opened is a store that is checked.
type opened struct {
	Store
	rows *projector.Store // nil when it could not be opened
	at   events.Position
}

func (s *Store) fs() vfs.FS {
	if s.FS == nil {
		return vfs.Default
	}
	return s.FS
}

// open opens a store, or its copy, for reading only.
func (k *checker) open(s Store) error {
	o := &opened{Store: s}
	k.stores = append(k.stores, o)
	if s.Live != nil {
		if err := s.Live.Snapshot(s.Dir); err != nil {
			return fmt.Errorf("fsck: copy %s: %w", s.Name, err)
		}
	}
	if _, err := s.fs().Stat(s.Dir); errors.Is(err, iofs.ErrNotExist) {
		k.find(s.Name, "there is no store")
		return nil
	}
	rows, err := openRows(s.Kind, s.Dir, s.fs())
	switch {
	case err == nil:
		o.rows, o.at = rows, rows.Position()
	case errors.Is(err, pebble.ErrReadOnly):
		// Nothing was ever written, not even whose store it is.
	case errors.Is(err, pebble.ErrDBDoesNotExist):
		k.find(s.Name, "there is no store")
	case errors.Is(err, projector.ErrForeignStore), errors.Is(err, projector.ErrDamaged):
		k.find(s.Name, "%s", firstLine(err))
	default:
		return fmt.Errorf("fsck: %w", err)
	}
	return nil
}

func openRows(k Kind, dir string, fs vfs.FS) (*projector.Store, error) {
	return projector.OpenStore(projector.StoreOptions{
		Dir: dir, Name: k.Name, Version: k.Version, FS: fs,
		Tune: func(o *pebble.Options) { o.ReadOnly = true },
	})
}

// cleanUp closes the stores and removes the copies.
func (k *checker) cleanUp() error {
	var errs []error
	for _, s := range k.stores {
		if s.rows != nil {
			errs = append(errs, s.rows.Close())
		}
		if s.Live != nil {
			errs = append(errs, s.fs().RemoveAll(s.Dir))
		}
	}
	if k.Scratch != "" {
		errs = append(errs, vfs.Default.RemoveAll(k.Scratch))
	}
	return errors.Join(errs...)
}

// checkStore compares a store with one that is built anew.
func (k *checker) checkStore(ctx context.Context, s *opened) error {
	k.report.Stores = append(k.report.Stores, StoreReport{Name: s.Name, Sequence: s.at.Seq})
	report := &k.report.Stores[len(k.report.Stores)-1]
	if s.rows == nil {
		return nil
	}
	if s.at.Seq > k.last.Seq {
		k.total -= s.at.Seq
		what := "the head of the ledger"
		if k.last.Seq < k.head {
			what = "the last good commit of the ledger"
		}
		k.find(s.Name, "its checkpoint %d lies beyond %s, %d", s.at.Seq, what, k.last.Seq)
		return nil
	}
	var skip []byte
	if s.at != k.passed[s.at.Seq] {
		k.find(s.Name, "its checkpoint %d is not the end of that commit in the ledger", s.at.Seq)
		key, _, err := projector.Checkpoint(s.at)
		if err != nil {
			return err
		}
		skip = key // said already
	}
	fs, dir := vfs.FS(vfs.NewMem()), s.Name
	if k.Scratch != "" {
		fs = vfs.Default
		dir = fs.PathJoin(k.Scratch, s.Name)
		if err := fs.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("fsck: %w", err)
		}
	}
	if err := k.build(ctx, s, dir, fs); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		k.find(s.Name, "it cannot be built anew: %s", firstLine(err))
		return nil
	}
	anew, err := openRows(s.Kind, dir, fs)
	if err != nil {
		return fmt.Errorf("fsck: %s, built anew: %w", s.Name, err)
	}
	err = k.compare(ctx, s, anew, skip, report)
	return errors.Join(err, anew.Close())
}

// build builds a projection anew up to the checkpoint of s.
func (k *checker) build(ctx context.Context, s *opened, dir string, fs vfs.FS) error {
	p, err := s.Open(dir, fs)
	if err != nil {
		return err
	}
	run := projector.NewRunner(&prefix{k.Ledger, s.at.Seq, k.advance}, p, projector.Options{})
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- run.Run(running) }()
	err = run.Wait(ctx, s.at.Seq)
	stop()
	<-ended
	return errors.Join(err, p.Close())
}

// prefix is the ledger as it was when it had no more than last commits.
type prefix struct {
	events.Reader
	last uint64
	read func() // is called for each commit
}

// Head implements events.Reader.
func (p *prefix) Head(ctx context.Context) (uint64, error) {
	head, err := p.Reader.Head(ctx)
	return min(head, p.last), err
}

// Read implements events.Reader.
func (p *prefix) Read(ctx context.Context, at events.Position, fn func(events.Commit) error) error {
	return p.Reader.Read(ctx, at, func(c events.Commit) error {
		if c.Seq > p.last {
			<-ctx.Done()
			return ctx.Err()
		}
		c.Pending = min(c.Pending, p.last-c.Seq)
		p.read()
		return fn(c)
	})
}

// compare walks over the rows of both stores, in the order of their keys.
func (k *checker) compare(ctx context.Context, s *opened, anew *projector.Store, skip []byte, report *StoreReport) (err error) {
	got, err := s.rows.DB().NewIter(nil)
	if err != nil {
		return fmt.Errorf("fsck: %w", err)
	}
	defer got.Close() // what it says was asked before
	want, err := anew.DB().NewIter(nil)
	if err != nil {
		return fmt.Errorf("fsck: %w", err)
	}
	defer want.Close()

	wrong := 0
	say := func(key []byte, what string) {
		if bytes.Equal(key, skip) {
			return
		}
		if wrong++; wrong <= maxRows {
			k.find(s.Name, "row %s %s", name(key), what)
		}
	}
	g, w := got.First(), want.First()
	// Where an iterator has failed the comparison ends: what seems to be
	// missing behind that may only be unreadable.
	var unreadable error
	for (g || w) && got.Error() == nil && want.Error() == nil && unreadable == nil {
		if report.Rows++; report.Rows%1000 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		switch order(got, want, g, w) {
		case -1:
			say(got.Key(), "should not be there")
			g = got.Next()
		case +1:
			say(want.Key(), "is missing")
			w = want.Next()
		case 0:
			var value []byte
			if value, unreadable = got.ValueAndErr(); unreadable == nil && !bytes.Equal(value, want.Value()) {
				say(want.Key(), "has another value")
			}
			g, w = got.Next(), want.Next()
		}
	}
	if wrong > maxRows {
		k.find(s.Name, "%d more rows are wrong", wrong-maxRows)
	}
	if err := want.Error(); err != nil {
		return fmt.Errorf("fsck: %s, built anew: %w", s.Name, err)
	}
	if err := errors.Join(unreadable, got.Error()); err != nil {
		if !pebble.IsCorruptionError(err) {
			return fmt.Errorf("fsck: %s: %w", s.Name, err)
		}
		k.find(s.Name, "rows cannot be read: %s", firstLine(err))
	}
	return nil
}

// order compares the keys at which two iterators stand. One that has ended is
// behind every key.
func order(a, b *pebble.Iterator, validA, validB bool) int {
	switch {
	case !validA:
		return +1
	case !validB:
		return -1
	}
	return bytes.Compare(a.Key(), b.Key())
}

// firstLine is the text of an error without what Pebble adds below it.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// name returns a key in the form in which it is reported: the letter of its
// table and the rest in hex. The store's own keys are words.
func name(key []byte) string {
	if len(key) == 0 || key[0] == '!' {
		return string(key)
	}
	return fmt.Sprintf("%c %x", key[0], key[1:])
}
