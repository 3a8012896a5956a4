package projector

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
)

// Home is where one projection lives on disk:
//
//	<dir>/CURRENT      the name of the generation that serves, and a newline
//	<dir>/g0000000001  a generation: one store
//	<dir>/g0000000002  the next one, being built beside it
//
// A rebuild fills a new generation while the current one serves and then
// replaces CURRENT, which is the only step that counts. An open store is never
// renamed. What a crash leaves behind:
//
//	before CURRENT.new is renamed: CURRENT names the old generation, the new
//	one is rubbish that Prune removes;
//	after that, before the directory is synced: CURRENT names the old or the
//	new generation, and both are whole;
//	later: CURRENT names the new generation, and the old one is the rubbish.
type Home struct {
	FS  vfs.FS // the machine's when nil
	Dir string
}

const (
	currentName      = "CURRENT"
	generationPrefix = "g"
)

func (h Home) fs() vfs.FS {
	if h.FS == nil {
		return vfs.Default
	}
	return h.FS
}

// Current returns the directory of the generation that serves. In an empty
// home it is the first generation.
func (h Home) Current() (string, error) {
	fs := h.fs()
	f, err := fs.Open(fs.PathJoin(h.Dir, currentName))
	if err == nil {
		raw, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return "", fmt.Errorf("projector: %w", err)
		}
		name, whole := strings.CutSuffix(string(raw), "\n")
		if !whole || !isGeneration(name) {
			return "", fmt.Errorf("%w: %s holds %q", ErrDamaged, currentName, raw)
		}
		return fs.PathJoin(h.Dir, name), nil
	}
	if !errors.Is(err, iofs.ErrNotExist) {
		return "", fmt.Errorf("projector: %w", err)
	}
	dir, err := h.Next()
	if err != nil {
		return "", err
	}
	return dir, h.Use(dir)
}

// Next makes the directory of a new generation.
func (h Home) Next() (string, error) {
	fs := h.fs()
	if err := fs.MkdirAll(h.Dir, 0o700); err != nil {
		return "", fmt.Errorf("projector: %w", err)
	}
	all, err := h.generations()
	if err != nil {
		return "", err
	}
	next := 1
	if len(all) > 0 {
		// The names have a fixed width, so the last one is the highest.
		if _, err := fmt.Sscanf(all[len(all)-1], generationPrefix+"%d", &next); err != nil {
			return "", fmt.Errorf("projector: %w", err)
		}
		next++
	}
	dir := fs.PathJoin(h.Dir, fmt.Sprintf("%s%010d", generationPrefix, next))
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("projector: %w", err)
	}
	return dir, h.syncDir()
}

// Use makes the generation in dir the one that serves.
func (h Home) Use(dir string) error {
	fs := h.fs()
	staged := fs.PathJoin(h.Dir, currentName+".new")
	f, err := fs.Create(staged, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("projector: %w", err)
	}
	_, err = f.Write([]byte(fs.PathBase(dir) + "\n"))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("projector: %w", err)
	}
	if err := fs.Rename(staged, fs.PathJoin(h.Dir, currentName)); err != nil {
		return fmt.Errorf("projector: %w", err)
	}
	return h.syncDir()
}

// Prune removes the generations that do not serve and are not open anywhere:
// what a rebuild has replaced, or has left half done.
func (h Home) Prune() error {
	current, err := h.Current()
	if err != nil {
		return err
	}
	fs := h.fs()
	all, err := h.generations()
	if err != nil {
		return err
	}
	for _, name := range all {
		dir := fs.PathJoin(h.Dir, name)
		if dir == current {
			continue
		}
		lock, err := pebble.LockDirectory(dir, fs)
		if err != nil {
			continue // open here or in another process
		}
		if err := errors.Join(fs.RemoveAll(dir), lock.Close()); err != nil {
			return fmt.Errorf("projector: %w", err)
		}
	}
	return nil
}

// generations returns the names of all generations, the oldest first.
func (h Home) generations() ([]string, error) {
	names, err := h.fs().List(h.Dir)
	if err != nil {
		return nil, fmt.Errorf("projector: %w", err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !isGeneration(n) })
	slices.Sort(names)
	return names, nil
}

func isGeneration(name string) bool {
	digits, ok := strings.CutPrefix(name, generationPrefix)
	return ok && len(digits) == 10 && strings.Trim(digits, "0123456789") == ""
}

func (h Home) syncDir() error {
	d, err := h.fs().OpenDir(h.Dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("projector: %w", err)
	}
	return nil
}

// Owned is a projection with a store that somebody must close.
type Owned interface {
	Projection
	io.Closer
}

// Rebuild fills a new generation of a projection from sequence 1 to the head,
// while the current one goes on serving, makes it the current one, and returns
// it open. The caller lets it serve, closes the old one and calls Prune.
// Progress, if not nil, hears now and then how far it is. When ctx ends or
// something fails, the current generation stays what it was.
func Rebuild[P Owned](ctx context.Context, r events.Reader, h Home, open func(dir string) (P, error), progress func(done, head uint64)) (P, error) {
	var none P
	dir, err := h.Next()
	if err != nil {
		return none, err
	}
	p, err := open(dir)
	if err != nil {
		return none, err
	}
	if err := fill(ctx, r, p, progress); err != nil {
		return none, errors.Join(err, p.Close(), h.Prune())
	}
	if err := h.Use(dir); err != nil {
		return none, errors.Join(err, p.Close())
	}
	return p, nil
}

// fill brings p to the head.
func fill(ctx context.Context, r events.Reader, p Projection, progress func(done, head uint64)) error {
	head, err := r.Head(ctx)
	if err != nil {
		return fmt.Errorf("projector: read the head: %w", err)
	}
	run := NewRunner(r, p, Options{})
	runCtx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- run.Run(runCtx) }()

	reached := make(chan error, 1)
	go func() { reached <- run.Wait(runCtx, head) }()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err = <-reached:
			stop()
			ran := <-ended
			if err != nil && ran != nil {
				err = ran
			}
			if progress != nil && err == nil {
				progress(p.Position().Seq, max(head, p.Position().Seq))
			}
			return err
		case <-tick.C:
			if s := run.Status(); progress != nil {
				progress(max(s.Applied.Seq, s.Loading), max(s.Head, head))
			}
		}
	}
}
