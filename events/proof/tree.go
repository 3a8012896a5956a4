package proof

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Hash is a hash of the tree. Its String is standard base64.
type Hash = tlog.Hash

// MaxSize is how many leaves a tree may have. Beyond it the arithmetic of the
// tlog package does not end.
const MaxSize = 1<<62 - 1

// MaxHashes is how many hashes a proof may have.
const MaxHashes = 63

var (
	// ErrMalformed says that bytes have not the form that they should have.
	ErrMalformed = errors.New("proof: malformed")
	// ErrUnproved says that a proof or a signature, whatever its form, does
	// not show what it should.
	ErrUnproved = errors.New("proof: not proved")
)

// LeafHash returns the hash of an event's line as a leaf.
func LeafHash(line []byte) Hash { return tlog.RecordHash(line) }

// EmptyRoot returns the root of the tree without leaves.
func EmptyRoot() Hash {
	h, _ := tlog.TreeHash(0, nil)
	return h
}

// CheckInclusion returns nil if hashes show that leaf is at index in the tree
// with this size and root.
func CheckInclusion(hashes []Hash, size uint64, root Hash, index uint64, leaf Hash) error {
	if size > MaxSize || index >= size || len(hashes) > MaxHashes {
		return fmt.Errorf("%w: no leaf %d in a tree of %d", ErrUnproved, index, size)
	}
	if tlog.CheckRecord(hashes, int64(size), root, int64(index), leaf) != nil {
		return fmt.Errorf("%w: the event is not leaf %d of the tree of %d", ErrUnproved, index, size)
	}
	return nil
}

// CheckConsistency returns nil if hashes show that the tree with this size and
// root begins with the whole of the old one.
func CheckConsistency(hashes []Hash, size uint64, root Hash, oldSize uint64, oldRoot Hash) error {
	if size > MaxSize || oldSize > size || len(hashes) > MaxHashes {
		return fmt.Errorf("%w: a tree of %d does not extend one of %d", ErrUnproved, size, oldSize)
	}
	var shown bool
	switch {
	case oldSize == 0:
		shown = len(hashes) == 0 && oldRoot == EmptyRoot() && (size > 0 || root == oldRoot)
	case oldSize == size:
		shown = len(hashes) == 0 && root == oldRoot
	default:
		shown = tlog.CheckTree(hashes, int64(size), root, int64(oldSize), oldRoot) == nil
	}
	if !shown {
		return fmt.Errorf("%w: the tree of %d does not extend that of %d", ErrUnproved, size, oldSize)
	}
	return nil
}

// Frontier is the right edge of a growing tree: all that is needed to add
// leaves and to know the root. The zero Frontier is that of the empty tree.
type Frontier struct {
	size uint64
	// nodes has at level l the root of the whole subtree of 2^l leaves at
	// the edge, where bit l of size is set, and something old elsewhere.
	nodes [MaxHashes]Hash
}

// FrontierAt reads the edge of a tree of this size from its hashes.
func FrontierAt(size uint64, r tlog.HashReader) (Frontier, error) {
	if size > MaxSize {
		return Frontier{}, fmt.Errorf("%w: a tree of %d leaves", ErrMalformed, size)
	}
	f := Frontier{size: size}
	var levels []int
	var indexes []int64
	for l := bits.Len64(size) - 1; l >= 0; l-- {
		if size>>l&1 == 1 {
			levels = append(levels, l)
			indexes = append(indexes, tlog.StoredHashIndex(l, int64(size>>l-1)))
		}
	}
	if size == 0 {
		return f, nil
	}
	hashes, err := r.ReadHashes(indexes)
	if err != nil {
		return Frontier{}, err
	}
	for i, l := range levels {
		f.nodes[l] = hashes[i]
	}
	return f, nil
}

// Size returns how many leaves the tree has.
func (f *Frontier) Size() uint64 { return f.size }

// Append adds a leaf and appends to dst the hashes that it completes: its own
// and those of the subtrees that end with it, in the order in which the tlog
// package stores hashes. The first one is number tlog.StoredHashIndex(0, size
// before). It panics when the tree is full.
func (f *Frontier) Append(dst []Hash, leaf Hash) []Hash {
	if f.size >= MaxSize {
		panic("proof: the tree is full")
	}
	dst = append(dst, leaf)
	l := 0
	for ; f.size>>l&1 == 1; l++ {
		leaf = tlog.NodeHash(f.nodes[l], leaf)
		dst = append(dst, leaf)
	}
	f.nodes[l] = leaf
	f.size++
	return dst
}

// Root returns the root of the tree.
func (f *Frontier) Root() Hash {
	if f.size == 0 {
		return EmptyRoot()
	}
	l := bits.TrailingZeros64(f.size)
	root := f.nodes[l]
	for l++; f.size>>l != 0; l++ {
		if f.size>>l&1 == 1 {
			root = tlog.NodeHash(f.nodes[l], root)
		}
	}
	return root
}
