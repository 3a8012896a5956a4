package revocations

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
)

// Name and Version are the name of the projection and the version of the shape
// of its rows. Whoever changes a row or a key raises Version.
const (
	Name    = "revocations"
	Version = 1
)

// ErrClosed says that the projection was closed before it was asked.
var ErrClosed = errors.New("revocations: closed")

// KeepMarks is for how long it is known when an instance heard of a revocation.
// The receipts themselves stay longer, in their stream.
const KeepMarks = 35 * 24 * time.Hour

// Options say which projection to open.
type Options struct {
	Dir string
	// FS is the file system; the machine's when nil.
	FS vfs.FS
	// CacheBytes bounds the cache of blocks; 16 MiB when zero.
	CacheBytes int64
	// Log hears of receipts that were refused, and what Pebble says; nothing
	// is said when nil.
	Log *slog.Logger
}

// Revocations is an open projection. One goroutine applies the ledger, another
// one receipts; any number ask at the same time.
type Revocations struct {
	store *projector.Store
	log   *slog.Logger

	mu        sync.RWMutex // guards what follows, and orders changes of rows
	closed    bool
	info      *events.LogOpened // nil before the first event
	epoch     epoch
	enforcers map[token.ID]aggregate.Enforcer
	instances map[instanceID]*instance
	crowds    map[token.ID]crowd // of the instances of each enforcer
	most      int                // MaxInstances, but in tests
	read      [streams]uint64    // of each stream of receipts
	refused   map[refusal]uint64
	revoked   uint64        // sequence of the newest revocation
	caught    uint64        // see CaughtUp
	changed   chan struct{} // closed and replaced at every change
}

// epoch is the present life of the ledger. Sequence and Since are where it
// began; both are zero in the first one.
type epoch struct {
	Epoch    uint32    `json:"epoch"`
	Sequence uint64    `json:"sequence,omitzero"`
	Since    time.Time `json:"since,omitzero"`
	// Confirmed says that nothing vouches for the epoch before any more.
	Confirmed bool `json:"confirmed,omitzero"`
}

// Open opens the projection in o.Dir, or makes an empty one where there is
// nothing.
func Open(o Options) (*Revocations, error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	store, err := projector.OpenStore(projector.StoreOptions{
		Dir: o.Dir, Name: Name, Version: Version, FS: o.FS, CacheBytes: o.CacheBytes, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Revocations{
		store: store, log: o.Log, changed: make(chan struct{}),
		enforcers: map[token.ID]aggregate.Enforcer{}, instances: map[instanceID]*instance{}, refused: map[refusal]uint64{},
		crowds: map[token.ID]crowd{}, most: MaxInstances,
	}
	if err := p.load(); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return p, nil
}

// Name implements projector.Projection.
func (p *Revocations) Name() string { return Name }

// Version implements projector.Projection.
func (p *Revocations) Version() int { return Version }

// Position implements projector.Projection.
func (p *Revocations) Position() events.Position { return p.store.Position() }

// Store returns the store, for dumps and its size on disk.
func (p *Revocations) Store() *projector.Store { return p.store }

// Close closes the store. Who asks later gets ErrClosed.
func (p *Revocations) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	close(p.changed)
	return p.store.Close()
}

// Changed returns a channel that is closed at the next change: a commit that
// was applied, or a receipt.
func (p *Revocations) Changed() <-chan struct{} {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.changed
}

// wake tells of a change. p.mu is held.
func (p *Revocations) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Apply implements projector.Projection. Rows and checkpoint are one batch.
func (p *Revocations) Apply(commits []events.Commit) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	b := p.store.DB().NewBatch()
	defer b.Close()
	c := change{p: p, b: b, epoch: p.epoch, info: p.info, enforcers: map[token.ID]aggregate.Enforcer{}}
	at := p.store.Position()
	for i := range commits {
		if commits[i].Seq != at.Seq+1 {
			return fmt.Errorf("revocations: %w: at %d, given %d", events.ErrGap, at.Seq, commits[i].Seq)
		}
		if err := c.commit(&commits[i]); err != nil {
			return fmt.Errorf("revocations: sequence %d: %w", commits[i].Seq, err)
		}
		at = commits[i].End
	}
	if err := p.store.Commit(b, at); err != nil {
		return err
	}
	p.info, p.epoch, p.revoked = c.info, c.epoch, max(p.revoked, c.revoked)
	for id, n := range c.enforcers {
		p.enforcers[id] = n
	}
	p.wake()
	return nil
}

// change is one batch of commits under way, with what it changes in memory.
type change struct {
	p         *Revocations
	b         *pebble.Batch
	epoch     epoch
	info      *events.LogOpened
	enforcers map[token.ID]aggregate.Enforcer
	revoked   uint64
}

func (c *change) commit(commit *events.Commit) error {
	revokes := false
	for i := range commit.Records {
		r := &commit.Records[i]
		if err := c.reflect(r); err != nil {
			return err
		}
		if receipt.Revokes(r.Data) {
			revokes = true
			if err := c.subjects(r); err != nil {
				return err
			}
		}
	}
	raw, err := commit.End.AppendBinary(nil)
	if err != nil {
		return err
	}
	if err := c.b.Set(ringKey(commit.Seq), raw, nil); err != nil || !revokes {
		return err
	}
	c.revoked = commit.Seq
	v := binary.BigEndian.AppendUint32(nil, commit.End.Epoch)
	v = binary.BigEndian.AppendUint64(v, uint64(commit.End.Time.UnixMilli()))
	return c.b.Set(revocationKey(commit.Seq), v, nil)
}

// reflect takes in what says who may send receipts, and of which ledger.
func (c *change) reflect(r *events.Record) error {
	switch d := r.Data.(type) {
	case *events.LogOpened:
		opened := *d
		c.info, c.epoch = &opened, epoch{Epoch: r.Epoch}
		return errors.Join(c.set([]byte{rowLog}, d), c.set([]byte{rowEpoch}, c.epoch))
	case *events.EpochOpened:
		c.epoch = epoch{Epoch: r.Epoch, Sequence: r.Seq, Since: r.Time, Confirmed: d.PreviousStopped}
		return c.set([]byte{rowEpoch}, c.epoch)
	case *events.EnforcerEnrolled, *events.EnforcerRetired:
		id := r.SubjectID()
		n, there := c.enforcers[id]
		if !there {
			n = c.p.enforcers[id]
		}
		if err := n.Apply(r); err != nil {
			return err
		}
		c.enforcers[id] = n
		return c.set(append([]byte{rowEnforcer}, id[:]...), n)
	}
	return nil
}

// subjects writes down what a revoking event is about.
func (c *change) subjects(r *events.Record) error {
	e := Event{Name: r.Name, Seq: r.Seq, Number: r.Number, Epoch: r.Epoch, Time: r.Time}
	of := []Subject{{Kind: aggregateOf(r.Name), ID: r.SubjectID().String()}}
	switch d := r.Data.(type) {
	case *events.MemberChanged:
		of = append(of, UserSubject(d.User))
	case *events.MemberRemoved:
		of = append(of, UserSubject(d.User))
	case *events.RevocationSwept:
		e.Through = d.Through
		of = append(of, SweepSubject(d.By, d.Selected))
	}
	for _, s := range of {
		if err := c.set(subjectKey(s, r.Seq), e); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) set(key []byte, row any) error {
	raw, err := json.Marshal(row)
	if err != nil {
		return err
	}
	return c.b.Set(key, raw, nil)
}
