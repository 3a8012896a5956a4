package embed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"watchword.dev/services/internal/durable"
)

// ErrStreamMissing says that an initialised store lacks a stream: it was
// moved, damaged, or opened with a wrong key. Restore it; it is never made
// anew on a store that has been in use.
var ErrStreamMissing = errors.New("embed: an initialised store lacks a stream")

// ErrNotEmpty says that the store holds something and that no marker tells
// where it comes from.
var ErrNotEmpty = errors.New("embed: the store is not empty and was not initialised here")

// The markers of the first start. One file changes its name, so there is
// always at most one.
const (
	markStarted = "initialising"
	markDone    = "initialised"
)

// firstStart creates the streams of a new installation, once.
//
// What a crash leaves behind, step by step:
//  1. before the marker "initialising": an empty store; the next start is a
//     first start again.
//  2. after it: some of the streams, without a message, because nobody but the
//     operator of this function can log in. The next start comes here again
//     and creates what is missing.
//  3. after the rename to "initialised": a complete store. Whatever is missing
//     later has been lost, and is an error.
//
// A store without a marker that is not empty is refused.
//
// The marker "initialised" names the streams that were made. A store of an
// earlier version lacks some that are wanted now: those are made, and the
// marker is written anew. A crash in between leaves empty streams, with which
// the next start goes on.
func firstStart(cfg Config, keys map[Role]nkeys.KeyPair) error {
	done, started := filepath.Join(cfg.Dir, markDone), filepath.Join(cfg.Dir, markStarted)
	wanted := Streams{Replicas: 1, EventsMaxBytes: cfg.EventsMaxBytes}.Configs()
	made, err := durable.ReadPrivate(done)
	switch {
	case err == nil:
		wanted = slices.DeleteFunc(wanted, func(c jetstream.StreamConfig) bool { return madeBefore(c.Name, made) })
		if len(wanted) == 0 {
			return nil
		}
		if err := createOnce(cfg, keys, wanted); err != nil {
			return err
		}
		return durable.WritePrivate(done, marker())
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	ok, err := exists(started)
	if err != nil {
		return err
	}
	if !ok {
		store := filepath.Join(cfg.Dir, "jetstream")
		switch entries, err := os.ReadDir(store); {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("embed: %w", err)
		case len(entries) > 0:
			return fmt.Errorf("%w: %s", ErrNotEmpty, store)
		}
		if err := durable.WritePrivate(started, marker()); err != nil {
			return err
		}
	}
	if err := createOnce(cfg, keys, wanted); err != nil {
		return err
	}
	if err := os.Rename(started, done); err != nil {
		return fmt.Errorf("embed: %w", err)
	}
	return durable.SyncDir(cfg.Dir)
}

// marker is what a marker says: the streams that are made, one a line.
func marker() []byte {
	var b []byte
	for _, c := range (Streams{}).Configs() {
		b = append(append(b, c.Name...), '\n')
	}
	return b
}

// madeBefore says whether a stream was made in a store with this marker. The
// first three streams were there before markers named any.
func madeBefore(name string, marker []byte) bool {
	switch name {
	case EventsStream, PulseStream, KeysStream:
		return true
	}
	return slices.Contains(strings.Fields(string(marker)), name)
}

// createOnce starts the server for this process alone, with an operator whose
// key is never written down, and creates streams.
func createOnce(cfg Config, keys map[Role]nkeys.KeyPair, streams []jetstream.StreamConfig) error {
	operator, err := nkeys.CreatePairWithRand(nkeys.PrefixByteUser, rand.Reader)
	if err != nil {
		return fmt.Errorf("embed: make the operator's nkey: %w", err)
	}
	defer operator.Wipe()
	keys = maps.Clone(keys)
	keys[Operator] = operator
	cfg.Listen = ""
	s, err := run(cfg, keys)
	if err != nil {
		return err
	}
	defer s.Shutdown()
	nc, err := s.Connect(Operator)
	if err != nil {
		return err
	}
	defer nc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return create(ctx, nc, streams)
}

// Create creates the streams of an installation over a connection of the
// operator and checks what the server made of them. Streams that are there
// already must be empty and as wanted, so that an interrupted first start can
// be completed and a ledger in use cannot be taken for a new one.
func Create(ctx context.Context, nc *nats.Conn, want Streams) error {
	if want.EventsMaxBytes <= 0 || want.Replicas <= 0 {
		return errors.New("embed: the ledger needs a number of replicas, and a cap (--events-max-bytes) below the size of the disks")
	}
	return create(ctx, nc, want.Configs())
}

func create(ctx context.Context, nc *nats.Conn, want []jetstream.StreamConfig) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("embed: %w", err)
	}
	for _, cfg := range want {
		s, err := js.Stream(ctx, cfg.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			s, err = js.CreateStream(ctx, cfg)
		}
		if err != nil {
			return fmt.Errorf("embed: create %s: %w", cfg.Name, err)
		}
		info := s.CachedInfo()
		if info.State.LastSeq != 0 {
			return fmt.Errorf("%w: %s holds messages up to %d", ErrNotEmpty, cfg.Name, info.State.LastSeq)
		}
		if err := same(cfg, info.Config); err != nil {
			return err
		}
	}
	return nil
}

// exists says whether a file is there.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("embed: %w", err)
	}
	return true, nil
}
