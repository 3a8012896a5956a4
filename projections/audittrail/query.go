package audittrail

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/mod/sumdb/tlog"

	"watchword.dev/events/proof"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
)

// Size returns how many leaves the tree has.
func (t *Trail) Size() uint64 { return t.tip.Load().size }

// ask runs a question about the tree of size leaves.
func (t *Trail) ask(size uint64, question func() error) error {
	t.inUse.RLock()
	defer t.inUse.RUnlock()
	if t.closed {
		return ErrClosed
	}
	if has := t.Size(); size > has {
		return fmt.Errorf("%w: a tree of %d leaves, it has %d", ErrBeyond, size, has)
	}
	return question()
}

// Head returns the head of the tree of size leaves, under the origin of the epoch
// to which the last of them belongs. There is none of no leaves, and ErrBeyond
// says that there are not as many.
func (t *Trail) Head(size uint64) (proof.Head, error) {
	var h proof.Head
	err := t.ask(size, func() error {
		if size == 0 {
			return fmt.Errorf("%w: no event has opened the log", ErrBeyond)
		}
		epochs, err := t.epochs()
		if err != nil {
			return err
		}
		i := len(epochs) - 1
		for i > 0 && epochs[i].First > size {
			i--
		}
		h.Origin, h.Size = epochs[i].Origin(), size
		h.Root, err = t.root(size)
		return err
	})
	return h, err
}

// Epochs returns where the epochs began, the first one first.
func (t *Trail) Epochs() ([]Epoch, error) {
	var out []Epoch
	err := t.ask(0, func() (err error) {
		if t.Size() > 0 {
			out, err = t.epochs()
		}
		return err
	})
	return out, err
}

// epochs reads the rows of a tree that has leaves.
func (t *Trail) epochs() ([]Epoch, error) {
	raw, there, err := t.store.Get([]byte{rowInstallation})
	if err != nil {
		return nil, err
	}
	if !there || len(raw) != len(token.ID{}) {
		return nil, fmt.Errorf("%w: the installation is not known", projector.ErrDamaged)
	}
	installation := token.ID(raw)
	it, err := t.store.DB().NewIter(&pebble.IterOptions{LowerBound: []byte{rowEpoch}, UpperBound: []byte{rowEpoch + 1}})
	if err != nil {
		return nil, damaged(err)
	}
	var out []Epoch
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var v []byte
		if v, err = it.ValueAndErr(); err != nil {
			break
		}
		if len(it.Key()) != 5 || len(v) != 8+len(proof.Hash{}) {
			err = fmt.Errorf("%w: the row of an epoch", projector.ErrDamaged)
			break
		}
		out = append(out, Epoch{
			Epoch: binary.BigEndian.Uint32(it.Key()[1:]), First: binary.BigEndian.Uint64(v),
			Root: proof.Hash(v[8:]), Installation: installation,
		})
	}
	if err := damaged(errors.Join(err, it.Error(), it.Close())); err != nil {
		return nil, err
	}
	if len(out) == 0 || out[0].First != 1 {
		return nil, fmt.Errorf("%w: the first epoch is not known", projector.ErrDamaged)
	}
	return out, nil
}

// Leaf returns the hash of the event with this number as a leaf.
func (t *Trail) Leaf(number uint64) (proof.Hash, error) {
	var h proof.Hash
	err := t.ask(number, func() (err error) {
		if number == 0 {
			return fmt.Errorf("%w: events are counted from 1", ErrBeyond)
		}
		h, err = t.leaf(number)
		return err
	})
	return h, err
}

func (t *Trail) leaf(number uint64) (proof.Hash, error) {
	hashes, err := t.hashes([]int64{tlog.StoredHashIndex(0, int64(number-1))})
	if err != nil {
		return proof.Hash{}, err
	}
	return hashes[0], nil
}

// root returns the root of the tree of size leaves, which has leaves. The newest
// tree must extend it: a root from rows that are not those of one tree goes to
// nobody.
func (t *Trail) root(size uint64) (proof.Hash, error) {
	r, newest := tlog.HashReaderFunc(t.hashes), t.tip.Load()
	root, err := tlog.TreeHash(int64(size), r)
	if err != nil {
		return proof.Hash{}, err
	}
	hashes, err := tlog.ProveTree(int64(newest.size), int64(size), r)
	if err != nil {
		return proof.Hash{}, err
	}
	return root, proved(proof.CheckConsistency(hashes, newest.size, newest.root, size, root))
}

// proved marks a proof from our own rows that does not hold.
func proved(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", projector.ErrDamaged, err)
	}
	return nil
}

// Inclusion returns the hashes that lead from the event with this number to the
// root of the tree of size leaves. It has checked that they do.
func (t *Trail) Inclusion(number, size uint64) ([]proof.Hash, error) {
	var out []proof.Hash
	err := t.ask(size, func() error {
		if number == 0 || number > size {
			return fmt.Errorf("%w: event %d in a tree of %d leaves", ErrBeyond, number, size)
		}
		root, err := t.root(size)
		if err != nil {
			return err
		}
		leaf, err := t.leaf(number)
		if err != nil {
			return err
		}
		hashes, err := tlog.ProveRecord(int64(size), int64(number-1), tlog.HashReaderFunc(t.hashes))
		if err != nil {
			return err
		}
		out = hashes
		return proved(proof.CheckInclusion(hashes, size, root, number-1, leaf))
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Consistency returns the hashes which show that the tree of size leaves extends
// that of old leaves. It has checked that they do.
func (t *Trail) Consistency(old, size uint64) ([]proof.Hash, error) {
	var out []proof.Hash
	err := t.ask(size, func() error {
		switch {
		case old > size:
			return fmt.Errorf("%w: %d leaves of a tree of %d", ErrBeyond, old, size)
		case old == 0:
			return nil
		}
		oldRoot, err := t.root(old)
		if err != nil {
			return err
		}
		root, err := t.root(size)
		if err != nil {
			return err
		}
		hashes, err := tlog.ProveTree(int64(size), int64(old), tlog.HashReaderFunc(t.hashes))
		if err != nil {
			return err
		}
		out = hashes
		return proved(proof.CheckConsistency(hashes, size, root, old, oldRoot))
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Tile returns the hashes of a tile, one behind the other. They are as stored:
// who reads tiles holds them against a signed head.
func (t *Trail) Tile(tile proof.Tile) ([]byte, error) {
	var out []byte
	err := t.ask(0, func() (err error) {
		if !tile.In(t.Size()) {
			return fmt.Errorf("%w: a tile", ErrBeyond)
		}
		out, err = tile.Read(tlog.HashReaderFunc(t.hashes))
		return err
	})
	return out, err
}

// hashes implements tlog.HashReader. All hashes of a tree that was applied are
// there.
func (t *Trail) hashes(indexes []int64) ([]proof.Hash, error) {
	out := make([]proof.Hash, len(indexes))
	order := make([]int, len(indexes))
	for i := range order {
		order[i] = i
	}
	// One iterator that only goes forward finds its place more cheaply than
	// as many searches from the root of every table.
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(indexes[a], indexes[b]) })
	it, err := t.store.DB().NewIter(&pebble.IterOptions{LowerBound: []byte{rowHash}, UpperBound: []byte{rowHash + 1}})
	if err != nil {
		return nil, damaged(err)
	}
	var key [9]byte
	for _, i := range order {
		if err = readHash(it, hashKey(&key, indexes[i]), &out[i]); err != nil {
			break
		}
	}
	if err := damaged(errors.Join(err, it.Error(), it.Close())); err != nil {
		return nil, err
	}
	return out, nil
}

func readHash(it *pebble.Iterator, key []byte, h *proof.Hash) error {
	if !it.SeekGE(key) || string(it.Key()) != string(key) {
		return errors.Join(fmt.Errorf("%w: a hash of the tree is not there", projector.ErrDamaged), it.Error())
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return err
	}
	if len(v) != len(h) {
		return fmt.Errorf("%w: a hash of the tree is %d bytes long", projector.ErrDamaged, len(v))
	}
	copy(h[:], v)
	return nil
}

// damaged marks the errors that say that bytes on disk are wrong.
func damaged(err error) error {
	if err != nil && pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", projector.ErrDamaged, err)
	}
	return err
}
