package snapshots

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"watchword.dev/projections/projector/snapshot"
)

// shelf holds the snapshots that somebody reads, or may want to go on with.
type shelf struct {
	cfg    *Config
	taking chan struct{} // has room for one: snapshots are taken one by one

	mu   sync.Mutex
	held []*held // the oldest first
	made uint64
	done bool
}

// held is a snapshot on the shelf.
type held struct {
	*snapshot.Snapshot
	of      *shelf
	taken   time.Time
	readers int
	idle    time.Time // since when nobody reads it
}

func newShelf(cfg *Config) (*shelf, error) {
	if err := os.RemoveAll(cfg.Dir); err != nil {
		return nil, fmt.Errorf("snapshots: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("snapshots: %w", err)
	}
	return &shelf{cfg: cfg, taking: make(chan struct{}, 1)}, nil
}

// take returns the snapshot that a client has begun to read, if it is still
// there, and else one that is fresh. The caller gives it back.
func (s *shelf) take(ctx context.Context, begun string) (*held, error) {
	if h := s.find(begun); h != nil {
		return h, nil
	}
	select {
	case s.taking <- struct{}{}:
		defer func() { <-s.taking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if h := s.find(""); h != nil { // somebody else has just asked
		return h, nil
	}
	s.mu.Lock()
	s.made++
	dir := filepath.Join(s.cfg.Dir, strconv.FormatUint(s.made, 10))
	s.mu.Unlock()
	began := s.cfg.Now()
	taken, err := snapshot.Take(s.cfg.Index(), dir)
	if err != nil {
		return nil, err
	}
	s.cfg.Log.Info("a snapshot was taken", "sequence", taken.Position.Sequence, "bytes", taken.Size(), "took", s.cfg.Now().Sub(began))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done || taken.Position.Sequence == 0 {
		return nil, errors.Join(errors.New("snapshots: nothing to take a snapshot of"), taken.Remove())
	}
	h := &held{Snapshot: taken, of: s, taken: began, readers: 1}
	s.held = append(s.held, h)
	return h, nil
}

// find returns the snapshot with this entity tag, or, without one, the newest
// if it is fresh.
func (s *shelf) find(tag string) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	var h *held
	for i := len(s.held) - 1; i >= 0 && h == nil; i-- {
		if etag(s.held[i].Snapshot) == tag {
			h = s.held[i]
		}
	}
	if n := len(s.held); h == nil && n > 0 && s.cfg.Now().Sub(s.held[n-1].taken) < s.cfg.Fresh {
		h = s.held[n-1]
	}
	if h != nil {
		h.readers++
	}
	return h
}

func (h *held) giveBack() {
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	h.readers--
	h.idle = h.of.cfg.Now()
}

// sweep removes what nobody has read for long.
func (s *shelf) sweep() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	s.held = slices.DeleteFunc(s.held, func(h *held) bool {
		old := h.readers == 0 && s.cfg.Now().Sub(h.idle) >= s.cfg.Keep
		if old {
			errs = append(errs, h.Remove())
		}
		return old
	})
	return errors.Join(errs...)
}

// clear removes everything, and lets nothing come any more.
func (s *shelf) clear() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.held = true, nil
	return os.RemoveAll(s.cfg.Dir)
}
