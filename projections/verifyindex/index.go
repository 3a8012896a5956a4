package verifyindex

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/events/watermark"
	"watchword.dev/projections/projector"
)

// Name and Version name the rows: a store of another version is built anew.
const (
	Name    = "verifyindex"
	Version = 4
)

// The first byte of each kind of row.
const (
	rowAccount   = 'a'
	rowOfAccount = 'b'
	rowCatalogue = 'c'
	rowEnforcer  = 'e'
	rowForeign   = 'f'
	rowID        = 'i'
	rowKey       = 'k'
	rowLog       = 'l'
	rowMember    = 'm'
	rowCount     = 'n'
	rowOwner     = 'o'
	rowTemplate  = 'p'
	rowResource  = 'r'
	rowSweep     = 's'
	rowEntry     = 't'
	rowUser      = 'u'
	rowRemoved   = 'x'
)

var (
	// ErrDiverged says that the ledger that the index reads is not the one
	// that the pen writes.
	ErrDiverged = watermark.ErrDiverged
	// ErrImpossible says that an event does not fit what came before it: no
	// pen writes such a ledger.
	ErrImpossible = errors.New("verifyindex: event does not fit the index")
)

// Options configure an Index.
type Options struct {
	Dir string
	FS  vfs.FS // the machine's when nil
	// MemoryBytes bounds the memory that holds tokens: the table in resident
	// mode, the block cache in disk mode. 1 GiB when zero.
	MemoryBytes int64
	// Bounds are how old answers may be; DefaultBounds where zero.
	Bounds Bounds
	// Catalogue is the one that holds until the first is published; the
	// built-in one when nil.
	Catalogue *catalogue.Catalogue
	Now       func() time.Time // time.Now when nil
	Log       *slog.Logger     // nothing is said when nil

	// For tests: small blocks, and blocks that the race detector sees.
	blockSize int
	alloc     func(int) (*block, error)
}

func (o *Options) setDefaults() {
	if o.MemoryBytes == 0 {
		o.MemoryBytes = 1 << 30
	}
	o.Bounds = o.Bounds.orDefault()
	if o.Catalogue == nil {
		o.Catalogue = catalogue.Cloudflare()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.blockSize == 0 {
		o.blockSize = blockMax
	}
	if o.alloc == nil {
		o.alloc = allocate
	}
}

// Index is the projection. One goroutine applies; any number may ask. It
// implements projector.Bulk.
type Index struct {
	o       Options
	store   *projector.Store
	runner  atomic.Pointer[projector.Runner]
	release func() // gives the block cache its memory back; nil once it has

	// Read by everybody.
	view      atomic.Pointer[view]
	enforcers atomic.Pointer[enforcers]
	water     watermark.Watermark
	sequence  atomic.Uint64
	info      atomic.Pointer[events.LogOpened] // nil before log.opened
	foreign   atomic.Bool                      // a token was taken over from another system
	counts    struct{ tokens, secrets, resident atomic.Int64 }

	swap sync.Mutex // guards the changes of view; readers need none

	// Owned by the goroutine that applies.
	position atomic.Pointer[events.Position]
	removed  map[token.ID]struct{} // owners
	version  uint32                // of the catalogue that was published last
	ids      *idTable              // nil in disk mode
	bulk     *bulk                 // nil but during a load
	w        writer
	// templates are the numbers of the templates that tokens were made from.
	templates map[string]uint32
}

// view is what a verification needs, read with one load. A view is not changed
// once it is stored.
type view struct {
	ready   bool // an answer can be given as far as the rows are concerned
	loading bool // a bulk load is under way
	table   *table
	gen     *generation // in disk mode, where table is nil
	cat     *catalogue.Catalogue
	format  token.Format
	foreign bool    // secrets of other systems are looked up
	sweeps  *sweeps // nil when there was none
}

var _ projector.Bulk = (*Index)(nil)

// Open opens the index in o.Dir, or makes an empty one.
func Open(o Options) (*Index, error) {
	o.setDefaults()
	cache := pebble.NewCache(o.MemoryBytes)
	defer cache.Unref() // the store holds its own reference
	store, err := projector.OpenStore(projector.StoreOptions{
		Dir: o.Dir, Name: Name, Version: Version, FS: o.FS, Log: o.Log,
		Tune: func(po *pebble.Options) { po.Cache, po.CacheSize = cache, 0 },
	})
	if err != nil {
		return nil, err
	}
	x := &Index{o: o, store: store, removed: map[token.ID]struct{}{}, templates: map[string]uint32{}}
	x.w = writer{
		x: x, links: map[token.ID]links{}, rows: map[token.Digest]entry{},
		small: map[string][]byte{}, holders: map[token.ID]*holder{},
	}
	// While the table is in memory the block cache needs next to nothing.
	x.release = cache.Reserve(int(max(o.MemoryBytes-residentCache, 0)))
	if err := x.load(); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return x, nil
}

// residentCache is what the block cache keeps in resident mode, in bytes.
const residentCache = 16 << 20

// load fills memory from the rows.
func (x *Index) load() error {
	at := x.store.Position()
	x.position.Store(&at)
	x.sequence.Store(at.Seq)
	x.water.Reset(at, recentEnds, x.o.Log)
	x.enforcers.Store(&enforcers{})
	x.view.Store(&view{cat: x.o.Catalogue})
	if err := removeLeftovers(x.fs(), x.o.Dir); err != nil {
		return err
	}
	if err := x.each(rowRemoved, func(k, _ []byte) error {
		x.removed[token.ID(k[1:])] = struct{}{}
		return nil
	}); err != nil {
		return err
	}
	if err := x.loadEnforcers(); err != nil {
		return err
	}
	if err := x.loadSmall(); err != nil {
		return err
	}
	if err := x.loadCatalogue(); err != nil {
		return err
	}
	if err := x.loadSweeps(); err != nil {
		return err
	}
	return x.loadTable()
}

// loadSmall reads the rows of which there is one.
func (x *Index) loadSmall() error {
	raw, ok, err := x.store.Get([]byte{rowLog})
	if err != nil {
		return err
	}
	if ok {
		info := new(events.LogOpened)
		if err := json.Unmarshal(raw, info); err != nil {
			return fmt.Errorf("%w: log row: %w", projector.ErrDamaged, err)
		}
		x.info.Store(info)
	}
	if _, ok, err = x.store.Get([]byte{rowForeign}); err != nil {
		return err
	}
	x.foreign.Store(ok)
	if raw, ok, err = x.store.Get([]byte{rowCount}); err != nil || !ok {
		return err
	}
	if len(raw) != 16 {
		return fmt.Errorf("%w: count row", projector.ErrDamaged)
	}
	x.counts.tokens.Store(int64(binary.LittleEndian.Uint64(raw)))
	x.counts.secrets.Store(int64(binary.LittleEndian.Uint64(raw[8:])))
	return nil
}

// loadTable takes all entries into memory, or goes over to disk mode when they
// do not fit.
func (x *Index) loadTable() error {
	t, err := x.emptyTable()
	if err != nil {
		return err
	}
	e := make(entry, 0, 1024)
	err = x.each(rowEntry, func(k, row []byte) error {
		e = append(append(e[:0], k[1:]...), row...)
		if len(k) != 1+digestLen || !e.whole() {
			return fmt.Errorf("%w: entry row", projector.ErrDamaged)
		}
		// What could happen to the table is that it does not fit.
		if t, err = x.insert(t, e); err != nil || x.tooLarge(t) {
			return errTooLarge
		}
		return nil
	})
	switch {
	case errors.Is(err, errTooLarge):
		x.toDisk()
		return nil
	case err != nil:
		return err
	}
	x.w.table = t
	x.publish(func(v *view) { v.table = t })
	x.measure()
	return nil
}

var errTooLarge = errors.New("verifyindex: more than fits into memory")

func (x *Index) emptyTable() (*table, error) {
	a := newArena(x.o.blockSize, x.o.alloc)
	t, err := newTable(a)
	if err != nil {
		return nil, err
	}
	s, err := newSlots(1 << 10)
	if err != nil {
		return nil, err
	}
	x.ids = &idTable{slots: s, arena: a}
	return t, nil
}

// insert puts an entry into t and the id table, and returns t, or its successor
// when it had to grow.
func (x *Index) insert(t *table, e entry) (*table, error) {
	if t.slots.crowded() {
		s, err := t.slots.grown()
		if err != nil {
			return t, err
		}
		t = &table{slots: s, arena: t.arena}
	}
	at, _, err := t.put(e)
	if err != nil || e.state().has(flagReplaced) {
		return t, err
	}
	if x.ids.slots.crowded() {
		s, err := x.ids.slots.grown()
		if err != nil {
			return t, err
		}
		x.ids.slots = s
	}
	x.ids.put(e.token(), at)
	return t, nil
}

// tooLarge reports whether the table has outgrown what it may take.
func (x *Index) tooLarge(t *table) bool { return x.memory(t) > min(x.o.MemoryBytes, arenaMax) }

// arenaMax leaves an arena room for what is dead.
const arenaMax = maxBlocks / 2 * blockMax

// memory is how many bytes the table takes.
func (x *Index) memory(t *table) int64 {
	n := 8*(len(t.slots.word)+len(x.ids.slots.word)) + t.arena.reserved
	// Of a block that is being filled, only what is filled is really there.
	if c := t.arena.current; c >= 0 {
		b := t.arena.blocks[c].Load()
		n -= len(b.mem) - b.used
	}
	return int64(n)
}

// publish stores a changed view.
func (x *Index) publish(change func(*view)) {
	x.swap.Lock()
	defer x.swap.Unlock()
	v := *x.view.Load()
	change(&v)
	if info := x.info.Load(); info != nil {
		v.format = token.Format{Brand: info.Brand}
	}
	v.foreign = x.foreign.Load()
	v.ready = !v.loading && (v.table != nil || v.gen != nil) && v.format.Brand != ""
	x.view.Store(&v)
}

// measure notes what the table takes, for Stats.
func (x *Index) measure() {
	x.counts.resident.Store(0)
	if x.w.table != nil {
		x.counts.resident.Store(x.memory(x.w.table))
	}
}

// toDisk ends resident mode: all rows are in Pebble anyway.
func (x *Index) toDisk() {
	x.ids, x.w.table = nil, nil
	if x.release != nil {
		x.release()
		x.release = nil
	}
	x.measure()
	x.publish(func(v *view) { v.table, v.gen = nil, newGeneration(x.store.DB()) })
	if x.o.Log != nil {
		x.o.Log.Info("the tokens need more memory than allowed: they are read from disk", "memory_bytes", x.o.MemoryBytes)
	}
}

// each calls fn for all rows of a kind. Key and value are valid within it.
func (x *Index) each(kind byte, fn func(key, value []byte) error) error {
	return x.within([]byte{kind}, []byte{kind + 1}, fn)
}

func (x *Index) within(lower, upper []byte, fn func(key, value []byte) error) error {
	it, err := x.store.DB().NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("verifyindex: %w", err)
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var v []byte
		if v, err = it.ValueAndErr(); err == nil {
			err = fn(it.Key(), v)
		}
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return fmt.Errorf("verifyindex: %w", err)
	}
	return nil
}

func (x *Index) fs() vfs.FS {
	if x.o.FS != nil {
		return x.o.FS
	}
	return vfs.Default
}

// Name returns "verifyindex".
func (x *Index) Name() string { return Name }

// Version returns the version of the rows.
func (x *Index) Version() int { return Version }

// Position returns how far the index has applied the ledger. During a bulk load
// readers do not see that yet.
func (x *Index) Position() events.Position { return *x.position.Load() }

// Sequence returns the last sequence that answers rest on.
func (x *Index) Sequence() uint64 { return x.sequence.Load() }

// Info returns what the ledger said of itself when it was opened: the brand of
// its secrets and the key of its pulses. It is nil before that is applied.
func (x *Index) Info() *events.LogOpened { return x.info.Load() }

// Catalogue returns the catalogue that decisions are made by: the one that was
// published last.
func (x *Index) Catalogue() *catalogue.Catalogue { return x.view.Load().cat }

// Observe takes in a pulse whose signature the caller has checked, and when it
// arrived (by Options.Now). Without pulses the index has no answer.
func (x *Index) Observe(p events.Pulse, arrived time.Time) { x.water.Observe(p, arrived) }

// Age returns how old what the index knows is: how long ago the pen vouched for
// the newest commit that is applied. It is false while nothing is known of that,
// and when the index has diverged.
func (x *Index) Age() (time.Duration, bool) { return x.water.Age(x.o.Now()) }

// Diverged returns why the index gives no answers any more, or nil: the ledger
// that it has applied is not the one that the pen writes.
func (x *Index) Diverged() error { return x.water.Diverged() }

// Follow returns a runner that feeds the index from r and by which Wait waits.
func (x *Index) Follow(r events.Reader, o projector.Options) *projector.Runner {
	run := projector.NewRunner(r, x, o)
	x.runner.Store(run)
	return run
}

// Wait returns nil as soon as answers rest on seq. It must follow Follow.
func (x *Index) Wait(ctx context.Context, seq uint64) error {
	run := x.runner.Load()
	if run == nil {
		return projector.ErrStopped
	}
	return run.Wait(ctx, seq)
}

// Snapshot writes a copy of the index into dir, which must not exist; Open
// opens it. A new region or enforcer starts from it instead of from sequence 1.
func (x *Index) Snapshot(dir string) error { return x.store.Snapshot(dir) }

// GCPercent is what a process should give to debug.SetGCPercent when most of its
// memory is an Index's, unless its environment says otherwise. The tables lie
// outside of the Go heap; the heap beside them is so small that the collector
// would run all the time.
const GCPercent = 400

// Mode says where the index looks secrets up.
type Mode string

// The modes.
const (
	Resident Mode = "resident"
	Disk     Mode = "disk"
)

// Stats are figures about the index.
type Stats struct {
	Mode        Mode
	Tokens      int64 // tokens, revoked ones included
	Secrets     int64 // secrets that are known, replaced ones included
	MemoryBytes int64 // of the table; in disk mode what the block cache holds
	DiskBytes   int64
}

// Stats returns the figures of this moment.
func (x *Index) Stats() Stats {
	s := Stats{
		Mode: Resident, Tokens: x.counts.tokens.Load(), Secrets: x.counts.secrets.Load(),
		MemoryBytes: x.counts.resident.Load(), DiskBytes: int64(x.store.DiskBytes()),
	}
	if v := x.view.Load(); v.table == nil {
		s.Mode, s.MemoryBytes = Disk, x.store.DB().Metrics().BlockCache.Size
	}
	return s
}

// Close ends the use of the index. Nobody may be asking it any more; whoever
// asks later finds it not ready.
func (x *Index) Close() error {
	x.swap.Lock()
	old := x.view.Load()
	if old == nil {
		old = &view{}
	}
	x.view.Store(&view{cat: old.cat, format: old.format})
	x.swap.Unlock()
	if old.gen != nil {
		old.gen.end()
	}
	if x.release != nil {
		x.release()
		x.release = nil
	}
	return x.store.Close()
}
