package audittrail

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/mod/sumdb/tlog"

	"watchword.dev/events"
	"watchword.dev/events/proof"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
)

// Name and Version are the name of the projection and the version of the shape
// of its rows. Whoever changes a row or a key raises Version.
const (
	Name    = "audittrail"
	Version = 1
)

var (
	// ErrClosed says that the trail was closed before it was asked.
	ErrClosed = errors.New("audittrail: closed")
	// ErrBeyond says that the tree has not, or not yet, what was asked for.
	ErrBeyond = errors.New("audittrail: beyond the tree")
)

// The first bytes of the keys.
const (
	rowHash         = 'h'
	rowEpoch        = 'e'
	rowInstallation = 'i'
	rowRoot         = 'r'
)

// Options say which trail to open.
type Options struct {
	Dir string
	// FS is the file system; the machine's when nil.
	FS vfs.FS
	// CacheBytes bounds the cache of blocks; 16 MiB when zero.
	CacheBytes int64
	// Log hears what Pebble says; nothing is said when nil.
	Log *slog.Logger
}

// Trail is an open projection. One goroutine applies; any number ask at the same
// time.
type Trail struct {
	store *projector.Store
	// inUse is read-locked by queries, so that Close waits for them.
	inUse  sync.RWMutex
	closed bool
	// tip is the newest tree that readers see. Its root comes from the edge in
	// memory: all that is read from the store is held against it.
	tip atomic.Pointer[tip]

	// Owned by the goroutine that applies.
	edge  proof.Frontier
	epoch uint32 // of the last leaf; 0 before the first
}

type tip struct {
	size uint64
	root proof.Hash
}

// Open opens the trail in o.Dir, or makes an empty one where there is nothing.
// It returns projector.ErrDamaged for rows that are not those of one tree.
func Open(o Options) (*Trail, error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	store, err := projector.OpenStore(projector.StoreOptions{
		Dir: o.Dir, Name: Name, Version: Version, FS: o.FS, CacheBytes: o.CacheBytes, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	t := &Trail{store: store}
	if err := t.load(); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return t, nil
}

// load reads the edge of the tree and checks that it has the root that was
// written with it.
func (t *Trail) load() error {
	at := t.store.Position()
	t.epoch = at.Epoch
	var err error
	if t.edge, err = proof.FrontierAt(at.Number, tlog.HashReaderFunc(t.hashes)); err != nil {
		return err
	}
	root := t.edge.Root()
	t.tip.Store(&tip{at.Number, root})
	if at.Number == 0 {
		return nil
	}
	kept, there, err := t.store.Get([]byte{rowRoot})
	if err != nil {
		return err
	}
	if !there || string(kept) != string(root[:]) {
		return fmt.Errorf("%w: the edge of the tree has not its root", projector.ErrDamaged)
	}
	return nil
}

// Close ends the use of the trail.
func (t *Trail) Close() error {
	t.inUse.Lock()
	defer t.inUse.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	return t.store.Close()
}

// Store returns the store, for dumps and its size on disk.
func (t *Trail) Store() *projector.Store { return t.store }

// Name implements projector.Projection.
func (t *Trail) Name() string { return Name }

// Version implements projector.Projection.
func (t *Trail) Version() int { return Version }

// Position implements projector.Projection.
func (t *Trail) Position() events.Position { return t.store.Position() }

// Apply implements projector.Projection.
func (t *Trail) Apply(commits []events.Commit) error {
	b := t.store.DB().NewBatch()
	defer b.Close()
	g := growth{b: b, at: t.store.Position(), edge: t.edge, epoch: t.epoch}
	for i := range commits {
		if err := g.commit(&commits[i]); err != nil {
			return fmt.Errorf("audittrail: sequence %d: %w", commits[i].Seq, err)
		}
	}
	root := g.edge.Root()
	if err := b.Set([]byte{rowRoot}, root[:], nil); err != nil {
		return fmt.Errorf("audittrail: %w", err)
	}
	if err := t.store.Commit(b, g.at); err != nil {
		return fmt.Errorf("audittrail: %w", err)
	}
	t.edge, t.epoch = g.edge, g.epoch
	t.tip.Store(&tip{g.edge.Size(), root})
	return nil
}

// growth is a batch of leaves under way.
type growth struct {
	b     *pebble.Batch
	at    events.Position
	edge  proof.Frontier
	epoch uint32
	fresh []proof.Hash
}

func (g *growth) commit(c *events.Commit) error {
	if c.Seq != g.at.Seq+1 {
		return fmt.Errorf("%w: after sequence %d", events.ErrGap, g.at.Seq)
	}
	// The reader has checked the chain. A tree over another one would be worse
	// than none, so it is looked at again: it costs nothing beside the hashing.
	prev := g.at.Hash
	for i := range c.Records {
		r := &c.Records[i]
		switch {
		case r.Number != g.edge.Size()+1:
			return fmt.Errorf("%w: event %d as leaf %d", events.ErrGap, r.Number, g.edge.Size())
		case r.Prev != prev:
			return fmt.Errorf("%w: at event %d", events.ErrChain, r.Number)
		}
		if err := g.record(r); err != nil {
			return err
		}
		prev = r.Hash
	}
	if c.End.Number != g.edge.Size() || c.End.Hash != prev {
		return fmt.Errorf("%w: a commit that ends elsewhere than its last event", events.ErrChain)
	}
	g.at = c.End
	return nil
}

func (g *growth) record(r *events.Record) error {
	if opened, ok := r.Data.(*events.LogOpened); ok {
		if err := g.b.Set([]byte{rowInstallation}, opened.Installation[:], nil); err != nil {
			return err
		}
	}
	if r.Epoch != g.epoch {
		root := g.edge.Root()
		v := append(binary.BigEndian.AppendUint64(nil, r.Number), root[:]...)
		if err := g.b.Set(epochKey(r.Epoch), v, nil); err != nil {
			return err
		}
		g.epoch = r.Epoch
	}
	index := tlog.StoredHashIndex(0, int64(g.edge.Size()))
	g.fresh = g.edge.Append(g.fresh[:0], proof.LeafHash(r.Line))
	var key [9]byte
	for i := range g.fresh {
		if err := g.b.Set(hashKey(&key, index+int64(i)), g.fresh[i][:], nil); err != nil {
			return err
		}
	}
	return nil
}

// hashKey makes the key of a hash in buf.
func hashKey(buf *[9]byte, index int64) []byte {
	buf[0] = rowHash
	binary.BigEndian.PutUint64(buf[1:], uint64(index))
	return buf[:]
}

func epochKey(epoch uint32) []byte { return binary.BigEndian.AppendUint32([]byte{rowEpoch}, epoch) }

// Epoch is where an epoch of the ledger began.
type Epoch struct {
	Epoch uint32
	First uint64     // number of its first event
	Root  proof.Hash // of the tree of what was before it: First - 1 leaves
	// Installation is whose ledger it is; Origin names the tree's heads.
	Installation token.ID
}

// Origin returns the name under which heads of this epoch are signed.
func (e Epoch) Origin() string { return proof.Origin(e.Installation, e.Epoch) }
