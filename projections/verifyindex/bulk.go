package verifyindex

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
)

// bulk is a load of an empty index. Everything goes into the table first; at
// the end all rows are written as sorted tables, each once, and handed to
// Pebble, which takes in all of them or none.
//
// What a crash leaves behind: before the tables are taken in, an empty store
// and perhaps some files *.bulk, which the next Open removes; afterwards the
// whole index with its checkpoint.
type bulk struct {
	small map[string][]byte // rows other than entries, links and owners
	// owners is made from the table when the first owner is removed, and
	// kept up from then on: most ledgers never need it.
	owners map[token.ID][]token.ID
	// members are the users that each account had at any time.
	members map[token.ID][]token.ID
	index   *Index
}

func (b *bulk) own(owner, id token.ID) {
	if b.owners != nil {
		b.owners[owner] = append(b.owners[owner], id)
	}
}

func (b *bulk) tokensOf(owner token.ID) []token.ID {
	if b.owners == nil {
		b.owners = map[token.ID][]token.ID{}
		b.index.w.table.arena.each(func(e entry, _ ref) {
			if !e.load().has(flagReplaced) {
				b.owners[e.owner()] = append(b.owners[e.owner()], e.token())
			}
		})
	}
	return b.owners[owner]
}

// BeginBulk implements projector.Bulk.
func (x *Index) BeginBulk() error {
	if at := x.Position(); at.Seq != 0 || x.w.table == nil {
		return fmt.Errorf("verifyindex: a bulk load begins with an empty index, this one is at %d", at.Seq)
	}
	x.bulk = &bulk{small: map[string][]byte{}, members: map[token.ID][]token.ID{}, index: x}
	x.publish(func(v *view) { v.loading = true })
	return nil
}

// EndBulk implements projector.Bulk.
func (x *Index) EndBulk() error {
	if x.bulk == nil {
		return nil
	}
	at := x.Position()
	if at.Seq > 0 {
		if err := x.ingest(); err != nil {
			return err
		}
		if err := x.store.Reload(); err != nil {
			return err
		}
		if got := x.store.Position(); got.Seq != at.Seq || got.Hash != at.Hash {
			return fmt.Errorf("verifyindex: loaded up to %d, the store says %d", at.Seq, got.Seq)
		}
	}
	x.bulk = nil
	x.w.forget()
	clear(x.w.holders)
	x.showSweeps()
	x.publish(func(v *view) { v.loading, v.table = false, x.w.table })
	x.sequence.Store(at.Seq)
	x.water.Jump(at)
	return x.tidy()
}

// ingest writes all rows as sorted tables and hands them to Pebble.
func (x *Index) ingest() error {
	key, value, err := projector.Checkpoint(x.Position())
	if err != nil {
		return err
	}
	x.bulk.small[string([]byte{rowCount})] = x.w.count()

	// Each kind of row has tables of its own, so that none overlaps another
	// and, the store being empty, all go to the bottom level.
	s := &tableSet{x: x}
	small := slices.Sorted(maps.Keys(x.bulk.small))
	var parts sync.WaitGroup
	parts.Go(s.writeEntries)
	parts.Go(func() {
		s.write([]byte{'!'}, func(add func(k, v []byte) error) error { return add(key, value) })
		for i := 0; i < len(small); {
			end := i
			for end < len(small) && small[end][0] == small[i][0] {
				end++
			}
			s.write([]byte(small[i][:1]), func(add func(k, v []byte) error) error {
				for _, k := range small[i:end] {
					if err := add([]byte(k), x.bulk.small[k]); err != nil {
						return err
					}
				}
				return nil
			})
			i = end
		}
		s.writeTokens()
	})
	parts.Wait()
	if s.err != nil {
		return fmt.Errorf("verifyindex: write sorted tables: %w", s.err)
	}
	if err := x.store.DB().Ingest(context.Background(), s.paths); err != nil {
		return fmt.Errorf("verifyindex: ingest: %w", err)
	}
	return nil
}

// tableSet collects sorted tables, from two goroutines.
type tableSet struct {
	x *Index

	mu    sync.Mutex
	paths []string
	err   error
}

const bulkSuffix = ".bulk"

// bulkTable is about how large one of the tables gets, in bytes before
// compression.
const bulkTable = 64 << 20

// write makes tables of what fill adds, in the order of the keys.
func (s *tableSet) write(name []byte, fill func(add func(k, v []byte) error) error) {
	var w *sstable.Writer
	var size, count int
	err := fill(func(k, v []byte) error {
		if w == nil || size > bulkTable {
			if w != nil {
				if err := w.Close(); err != nil {
					return err
				}
			}
			var err error
			if w, err = s.create(fmt.Sprintf("%x-%04d", name, count)); err != nil {
				return err
			}
			size, count = 0, count+1
		}
		size += len(k) + len(v)
		return w.Set(k, v)
	})
	if w != nil {
		err = errors.Join(err, w.Close())
	}
	s.fail(err)
}

func (s *tableSet) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errors.Join(s.err, err)
}

func (s *tableSet) create(name string) (*sstable.Writer, error) {
	fs, db := s.x.fs(), s.x.store.DB()
	path := fs.PathJoin(s.x.o.Dir, name+bulkSuffix)
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.paths = append(s.paths, path)
	s.mu.Unlock()
	o := s.x.store.Options()
	return sstable.NewWriter(objstorageprovider.NewFileWritable(f), o.MakeWriterOptions(bottomLevel, db.TableFormat())), nil
}

const bottomLevel = 6

// sortKey is 16 bytes to sort by and the entry that they are of. Sorting must
// not look at the entries: at each one a line would be missing.
type sortKey struct {
	high, low uint64
	at        ref
}

func keyOf(b []byte, at ref) sortKey {
	return sortKey{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), at}
}

func (k sortKey) compare(o sortKey) int {
	if k.high != o.high {
		return cmp.Compare(k.high, o.high)
	}
	if k.low != o.low {
		return cmp.Compare(k.low, o.low)
	}
	return cmp.Compare(k.at, o.at)
}

// ahead is how many entries before its turn one is asked for: they lie in
// another order than that in which they are written.
const ahead = 8

// nearAt asks for the first lines of the i-th entry, if there is one. The
// processor sees by itself that the rest is wanted.
func (a *arena) nearAt(sorted []sortKey, i int) {
	if i < len(sorted) {
		r := sorted[i].at
		prefetch(unsafe.Pointer(&a.blocks[r.block()].Load().mem[r.offset()]), 2)
	}
}

// writeEntries writes the rows of all entries. That two digests begin with the
// same 16 bytes does not happen; Pebble would refuse the table.
func (s *tableSet) writeEntries() {
	a := s.x.w.table.arena
	sorted := make([]sortKey, 0, s.x.w.table.slots.used)
	a.each(func(e entry, r ref) { sorted = append(sorted, keyOf(e, r)) })
	slices.SortFunc(sorted, sortKey.compare)
	key := append(make([]byte, 0, 1+digestLen), rowEntry)
	s.write([]byte{rowEntry}, func(add func(k, v []byte) error) error {
		for i, k := range sorted {
			a.nearAt(sorted, i+ahead)
			e, _ := a.at(k.at)
			if err := add(append(key, e[:digestLen]...), rowOf(e)); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeTokens writes the rows by which tokens and the tokens of an owner are
// found.
func (s *tableSet) writeTokens() {
	a := s.x.w.table.arena
	ids := make([]sortKey, 0, s.x.ids.slots.used)
	a.each(func(e entry, r ref) {
		if !e.load().has(flagReplaced) {
			ids = append(ids, keyOf(e[offToken:], r))
		}
	})
	slices.SortFunc(ids, sortKey.compare)
	key, value := make([]byte, 0, 1+2*16), make([]byte, 0, 2*digestLen)
	owners := make([]sortKey, 0, len(ids))
	s.write([]byte{rowID}, func(add func(k, v []byte) error) error {
		for i, k := range ids {
			a.nearAt(ids, i+ahead)
			e, _ := a.at(k.at)
			// Within an owner they stay in this order.
			owners = append(owners, keyOf(e[offOwner:], ref(i)))
			value = append(value[:0], e[:digestLen]...)
			if e.load().has(flagPrevious) {
				l := s.x.w.links[e.token()]
				value = append(value, l.previous[:]...)
			}
			if err := add(append(append(key, rowID), e[offToken:offToken+16]...), value); err != nil {
				return err
			}
		}
		return nil
	})
	slices.SortFunc(owners, sortKey.compare)
	s.write([]byte{rowOwner}, func(add func(k, v []byte) error) error {
		for _, o := range owners {
			id := ids[o.at]
			k := append(key, rowOwner)
			k = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(k, o.high), o.low)
			k = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(k, id.high), id.low)
			if err := add(k, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// removeLeftovers removes the files of a load that did not end.
func removeLeftovers(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("verifyindex: %w", err)
	}
	for _, n := range names {
		if strings.HasSuffix(n, bulkSuffix) {
			if err := fs.Remove(fs.PathJoin(dir, n)); err != nil {
				return fmt.Errorf("verifyindex: %w", err)
			}
		}
	}
	return nil
}
