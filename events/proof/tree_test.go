package proof_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"os"
	"strconv"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"watchword.dev/events/proof"
)

// The leaves and the roots of the reference implementation of RFC 6962.
var (
	ctLeaves = []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"}
	ctRoots  = []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRootsOfTheReference(t *testing.T) {
	var f proof.Frontier
	for i, want := range ctRoots {
		if got := f.Root(); hex.EncodeToString(got[:]) != want || f.Size() != uint64(i) {
			t.Errorf("root of %d leaves: %x, want %s", f.Size(), got, want)
		}
		if i < len(ctLeaves) {
			f.Append(nil, proof.LeafHash(unhex(t, ctLeaves[i])))
		}
	}
	if got := proof.EmptyRoot(); hex.EncodeToString(got[:]) != ctRoots[0] {
		t.Errorf("the empty root is %x", got)
	}
}

// The functions of RFC 6962, section 2.1, as they are written there.

func mth(d [][]byte) proof.Hash {
	switch n := len(d); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, d[0]...))
	default:
		k := below(n)
		l, r := mth(d[:k]), mth(d[k:])
		return sha256.Sum256(append(append([]byte{1}, l[:]...), r[:]...))
	}
}

// below is the largest power of two smaller than n.
func below(n int) int {
	k := 1
	for 2*k < n {
		k *= 2
	}
	return k
}

func path(m int, d [][]byte) []proof.Hash {
	n := len(d)
	if n == 1 {
		return nil
	}
	if k := below(n); m < k {
		return append(path(m, d[:k]), mth(d[k:]))
	} else {
		return append(path(m-k, d[k:]), mth(d[:k]))
	}
}

func subproof(m int, d [][]byte, whole bool) []proof.Hash {
	n := len(d)
	if m == n && whole {
		return nil
	}
	if m == n {
		return []proof.Hash{mth(d)}
	}
	if k := below(n); m <= k {
		return append(subproof(m, d[:k], whole), mth(d[k:]))
	} else {
		return append(subproof(m-k, d[k:], false), mth(d[:k]))
	}
}

func lines(n int) [][]byte {
	d := make([][]byte, n)
	for i := range d {
		d[i] = []byte("line " + strconv.Itoa(i))
	}
	return d
}

// TestProofsOfTheStandard: every proof of the standard's own functions is taken,
// and no other one.
func TestProofsOfTheStandard(t *testing.T) {
	const most = 33
	for n := 1; n <= most; n++ {
		d := lines(n)
		size, root := uint64(n), mth(d)
		for m := range n {
			leaf, hashes := proof.LeafHash(d[m]), path(m, d)
			check := func(hashes []proof.Hash, size uint64, root proof.Hash, index uint64, leaf proof.Hash) error {
				return proof.CheckInclusion(hashes, size, root, index, leaf)
			}
			taken(t, check, hashes, size, root, uint64(m), leaf)
			if err := proof.CheckInclusion(hashes, size, root, size, leaf); !errors.Is(err, proof.ErrUnproved) {
				t.Errorf("a leaf behind the tree: %v", err)
			}
		}
		for m := 1; m <= n; m++ {
			taken(t, proof.CheckConsistency, subproof(m, d, true), size, root, uint64(m), mth(d[:m]))
		}
		if err := proof.CheckConsistency(nil, size, root, 0, proof.EmptyRoot()); err != nil {
			t.Errorf("a tree of %d does not extend the empty one: %v", n, err)
		}
		if err := proof.CheckConsistency(nil, size, root, size+1, root); !errors.Is(err, proof.ErrUnproved) {
			t.Errorf("a tree of %d extends one of %d: %v", n, n+1, err)
		}
	}
}

// taken checks that a proof is taken, and not when anything in it is changed.
func taken(t *testing.T, check func([]proof.Hash, uint64, proof.Hash, uint64, proof.Hash) error,
	hashes []proof.Hash, size uint64, root proof.Hash, at uint64, of proof.Hash) {
	t.Helper()
	if err := check(hashes, size, root, at, of); err != nil {
		t.Errorf("%d in %d: %v", at, size, err)
	}
	refused := func(what string, hashes []proof.Hash, root, of proof.Hash) {
		if err := check(hashes, size, root, at, of); !errors.Is(err, proof.ErrUnproved) {
			t.Errorf("%d in %d, %s: %v", at, size, what, err)
		}
	}
	other := root
	other[7] ^= 1
	refused("another root", hashes, other, of)
	other = of
	other[31] ^= 0x80
	refused("another leaf or old root", hashes, root, other)
	refused("a hash more", append(hashes[:len(hashes):len(hashes)], root), root, of)
	for i := range hashes {
		changed := append([]proof.Hash(nil), hashes...)
		changed[i][0] ^= 1
		refused("a hash changed", changed, root, of)
		refused("a hash less", append(hashes[:i:i], hashes[i+1:]...), root, of)
	}
}

// TestFrontier: what it appends is what the tlog package would store, and it can
// be read again from there.
func TestFrontier(t *testing.T) {
	var f proof.Frontier
	var stored, want []proof.Hash
	read := tlog.HashReaderFunc(func(indexes []int64) ([]proof.Hash, error) {
		out := make([]proof.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	d := lines(300)
	for i, line := range d {
		if n := tlog.StoredHashIndex(0, int64(i)); n != int64(len(stored)) {
			t.Fatalf("leaf %d is hash %d, there are %d", i, n, len(stored))
		}
		more, err := tlog.StoredHashes(int64(i), line, read)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, more...)
		stored = f.Append(stored, proof.LeafHash(line))
		if len(stored) != len(want) || stored[len(stored)-1] != want[len(want)-1] {
			t.Fatalf("leaf %d: %d hashes, want %d", i, len(stored), len(want))
		}
		again, err := proof.FrontierAt(f.Size(), read)
		if err != nil || again.Root() != f.Root() || f.Root() != mth(d[:i+1]) {
			t.Fatalf("%d leaves: %v, read again %v, want %v, %v", i+1, f.Root(), again.Root(), mth(d[:i+1]), err)
		}
	}
	for i := range want {
		if stored[i] != want[i] {
			t.Fatalf("hash %d differs", i)
		}
	}
}

// TestGoogleArgon: a log of certificates that others run.
func TestGoogleArgon(t *testing.T) {
	raw, err := os.ReadFile("testdata/argon2020.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Size        uint64
		Root        proof.Hash
		Index       uint64
		Leaf        []byte
		AuditPath   []proof.Hash `json:"audit_path"`
		OldSize     uint64       `json:"old_size"`
		OldRoot     proof.Hash   `json:"old_root"`
		Consistency []proof.Hash
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	taken(t, proof.CheckInclusion, v.AuditPath, v.Size, v.Root, v.Index, proof.LeafHash(v.Leaf))
	taken(t, proof.CheckConsistency, v.Consistency, v.Size, v.Root, v.OldSize, v.OldRoot)
}

// TestHugeSizes: beyond MaxSize the tlog package does not return.
func TestHugeSizes(t *testing.T) {
	var h proof.Hash
	hashes := make([]proof.Hash, 62)
	for _, size := range []uint64{proof.MaxSize, proof.MaxSize + 1, proof.MaxSize + 2, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64} {
		if err := proof.CheckInclusion(hashes, size, h, size-1, h); !errors.Is(err, proof.ErrUnproved) {
			t.Errorf("a leaf in %d: %v", size, err)
		}
		if err := proof.CheckConsistency(hashes, size, h, size-1, h); !errors.Is(err, proof.ErrUnproved) {
			t.Errorf("a tree of %d: %v", size, err)
		}
		if _, err := proof.FrontierAt(size+1, nil); size != math.MaxUint64 && !errors.Is(err, proof.ErrMalformed) {
			t.Errorf("the edge of %d: %v", size, err)
		}
	}
}

func BenchmarkCheckInclusion(b *testing.B) {
	d := lines(1 << 12)
	root, leaf, hashes := mth(d), proof.LeafHash(d[1000]), path(1000, d)
	for b.Loop() {
		if err := proof.CheckInclusion(hashes, 1<<12, root, 1000, leaf); err != nil {
			b.Fatal(err)
		}
	}
}
