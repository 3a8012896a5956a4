package localindex

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"watchword.dev/projections/projector/snapshot"
	"watchword.dev/projections/verifyindex"
)

// snapshotTries is how often a snapshot is asked for.
const snapshotTries = 3

// begin fills an empty index from a snapshot, and returns the one that holds it,
// or else p: then the ledger is read.
func (x *Index) begin(ctx context.Context, p *verifyindex.Index) (*verifyindex.Index, error) {
	if x.cfg.Snapshots == nil {
		return p, nil
	}
	pause := x.cfg.again
	for try := range snapshotTries {
		began := time.Now()
		loaded, err := x.load(ctx)
		if err == nil {
			x.loaded = loaded.Position()
			x.cfg.Log.Info("the index was filled from a snapshot", "sequence", x.loaded.Seq, "tokens", loaded.Stats().Tokens, "took", time.Since(began))
			return loaded, p.Close()
		}
		if ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), p.Close())
		}
		x.cfg.Log.Warn("a snapshot was refused", "error", err)
		if errors.Is(err, snapshot.ErrVersion) || try == snapshotTries-1 {
			break
		}
		if err := sleep(ctx, &pause); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	x.cfg.Log.Warn("no snapshot can be had: the ledger is read from its beginning")
	return p, nil
}

// load fetches a snapshot into a new generation, and makes it the current one when
// every byte of it is right.
func (x *Index) load(ctx context.Context) (*verifyindex.Index, error) {
	in, err := x.cfg.Snapshots.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	dir, err := x.home.Next()
	if err != nil {
		return nil, err
	}
	p, err := x.receive(ctx, in, dir)
	if err == nil {
		if err = x.home.Use(dir); err != nil {
			err = errors.Join(err, p.Close())
		}
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

func (x *Index) receive(ctx context.Context, in io.Reader, dir string) (*verifyindex.Index, error) {
	if _, err := snapshot.Load(in, dir, verifyindex.Name, verifyindex.Version); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := x.open(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", snapshot.ErrDamaged, err)
	}
	return p, nil
}

// empty makes an empty generation the current one.
func (x *Index) empty() (*verifyindex.Index, error) {
	dir, err := x.home.Next()
	if err != nil {
		return nil, err
	}
	p, err := x.open(dir)
	if err != nil {
		return nil, err
	}
	if err := x.home.Use(dir); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// throwAway replaces the index, which nobody asks, by an empty one.
func (x *Index) throwAway() error {
	p, err := x.empty()
	if err != nil {
		return err
	}
	old := x.index.Swap(p)
	return errors.Join(old.Close(), x.home.Prune())
}
