package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"time"
	"unsafe"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/verifyindex"
)

// diskPerToken is what a token takes on disk at most while this runs, in bytes:
// the index and what of it is written anew.
const diskPerToken = 900

// onDisk compares an index in disk mode with SHA-256 and Get on a Pebble store
// of the same rows, options and size of cache.
type onDisk struct {
	x         *indexed
	raw       *projector.Store
	w         *world
	rng       *rand.Rand
	asked     []question
	secrets   []byte // of asked, in one piece
	strangers []byte // as many that nobody has
}

func verifyDisk(ctx context.Context, r *run) error {
	n := r.o.tokens
	if r.o.full {
		n *= 10
	}
	dir, remove, err := r.sub("disk")
	if err != nil {
		return err
	}
	defer remove()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return err
	}
	if free, need := int64(fs.Bavail)*fs.Bsize, int64(n)*diskPerToken; free < need {
		return fmt.Errorf("disk mode with %d tokens needs %s in %s, there are %s", n, humanBytes(need), dir, humanBytes(free))
	}
	b := onDisk{w: newWorld(n, 0)}
	source := newMadeUp(b.w, fivePolicies)
	index, copied := filepath.Join(dir, "index"), filepath.Join(dir, "copy")
	r.say("verify: filling %d tokens for disk mode", n)
	began := time.Now()
	filled, err := fill(ctx, r, index, source, 16<<30)
	if err != nil {
		return err
	}
	rate := float64(source.end().Seq) / time.Since(began).Seconds()
	size := filled.Stats().DiskBytes
	if err := errors.Join(filled.Snapshot(copied), filled.close()); err != nil {
		return err
	}
	cache := size / 10
	r.say("verify: from disk, %s of rows, %s of cache", humanBytes(size), humanBytes(cache))
	if err := b.open(ctx, r, index, copied, source, cache); err != nil {
		return err
	}
	err = b.run(ctx, r, constant("tokens", "", float64(n)), constant("disk", "bytes/token", float64(size)/float64(n)),
		constant("cache", "bytes/token", float64(cache)/float64(n)), constant("fill", "events/s", rate))
	return errors.Join(err, b.raw.Close(), b.x.close())
}

// open opens both sides and prepares the questions.
func (b *onDisk) open(ctx context.Context, r *run, index, copied string, source *madeUp, cache int64) (err error) {
	if b.x, err = fill(ctx, r, index, source, cache); err != nil {
		return err
	}
	b.raw, err = projector.OpenStore(projector.StoreOptions{
		Dir: copied, Name: verifyindex.Name, Version: verifyindex.Version, CacheBytes: cache,
	})
	if err == nil {
		err = b.x.ready(ctx)
	}
	if s := b.x.Stats(); err == nil && (s.Mode != verifyindex.Disk || s.Tokens != int64(b.w.n)) {
		err = wrong("the index is in %s mode with %d tokens, want %d on disk", s.Mode, s.Tokens, b.w.n)
	}
	if err != nil {
		return errors.Join(err, b.x.close())
	}
	b.rng = rand.New(rand.NewPCG(7, 13))
	return nil
}

// turnSize is how many questions a turn asks.
const turnSize = 20_000

// prepare makes the questions of a turn: other ones for each, so that the
// keys are uniform over all tokens, and what a cache holds is as good as
// chance.
func (b *onDisk) prepare() {
	b.asked, b.secrets, b.strangers = b.asked[:0], b.secrets[:0], b.strangers[:0]
	for len(b.asked) < turnSize {
		i := b.rng.IntN(b.w.n)
		b.asked = append(b.asked, b.w.question(i, b.rng.IntN(askKinds)))
		b.secrets = appendSecret(b.secrets, i, 0)
		b.strangers = appendSecret(b.strangers, i, 1<<14)
	}
}

// nth returns a secret out of many in one piece.
func nth(secrets []byte, k int) string {
	s := secrets[k*secretLen : (k+1)*secretLen]
	return unsafe.String(unsafe.SliceData(s), len(s))
}

// turnsPerRound makes a round long enough for a steady figure.
const turnsPerRound = 6

func (b *onDisk) run(ctx context.Context, r *run, about ...figure) error {
	hit, miss := newSeries("Verify", "ns"), newSeries("Verify of an unknown secret", "ns")
	get := newSeries("SHA-256 + Get", "ns")
	sides := []func() (float64, error){b.get, b.verify, b.miss}
	round := func(turns int) (sums [3]float64, err error) {
		for n := range turns {
			b.prepare()
			for k := range sides { // who comes first finds colder pages
				side := (n + k) % len(sides)
				ns, err := sides[side]()
				if err != nil {
					return sums, err
				}
				sums[side] += ns / float64(turns)
			}
			if err := ctx.Err(); err != nil {
				return sums, err
			}
		}
		return sums, nil
	}
	// Both caches fill before the clock counts.
	if _, err := round(3 + b.w.n/500_000); err != nil {
		return err
	}
	for range r.o.rounds {
		ns, err := round(turnsPerRound)
		if err != nil {
			return err
		}
		get.add(ns[0])
		hit.add(ns[1])
		miss.add(ns[2])
	}
	p := compared("verify.disk", atMost(1.3, "x SHA-256 + Pebble Get"), hit, get)
	p.add(about...)
	q := compared("verify.disk.unknown", atMost(0.5, "x SHA-256 + Pebble Get of a known one"), miss, get)
	q.add(about[0])
	if !r.o.full {
		p.note("measured with %d tokens; -full measures ten times as many", b.w.n)
	}
	return errors.Join(r.publish(p), r.publish(q))
}

func (b *onDisk) verify() (float64, error) {
	began := time.Now()
	for k := range turnSize {
		q := &b.asked[k]
		d := b.x.Verify(nth(b.secrets, k), &q.ask)
		if fateOf(int(q.token)) != churned && !q.fits(&d) {
			return 0, q.explain(&d)
		}
	}
	return float64(time.Since(began).Nanoseconds()) / turnSize, nil
}

func (b *onDisk) miss() (float64, error) {
	began := time.Now()
	for k := range turnSize {
		if d := b.x.Verify(nth(b.strangers, k), &b.asked[k].ask); d.Reason != token.ReasonUnknown || !d.Token.IsZero() {
			return 0, wrong("a secret that nobody has: %q, token %v", d.Reason, d.Token)
		}
	}
	return float64(time.Since(began).Nanoseconds()) / turnSize, nil
}

func (b *onDisk) get() (float64, error) {
	began := time.Now()
	key := make([]byte, 0, 40)
	for k := range turnSize {
		digest := token.Sum(nth(b.secrets, k))
		row, closer, err := b.raw.DB().Get(append(append(key[:0], 't'), digest[:]...))
		if errors.Is(err, pebble.ErrNotFound) {
			return 0, errors.New("the copied store lacks a row")
		}
		if err != nil {
			return 0, err
		}
		if len(row) == 0 {
			return 0, errors.New("the copied store has an empty row")
		}
		if err := closer.Close(); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(began).Nanoseconds()) / turnSize, nil
}
