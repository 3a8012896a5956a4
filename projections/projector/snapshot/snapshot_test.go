package snapshot_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"watchword.dev/events"
	"watchword.dev/projections/projectiontest"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/projector/snapshot"
)

// rows is a projection that is nothing but a store.
type rows struct{ *projector.Store }

func (rows) Name() string { return "rows" }
func (rows) Version() int { return 2 }

func open(t *testing.T, dir string) rows {
	t.Helper()
	s, err := projector.OpenStore(projector.StoreOptions{Dir: dir, Name: "rows", Version: 2})
	if err != nil {
		t.Fatal(err)
	}
	return rows{s}
}

var end = events.Position{Seq: 41, Number: 57, Epoch: 2, Hash: events.Hash{1, 2, 3}}

// filled is a store of some rows, a part of them on disk in tables.
func filled(t *testing.T) rows {
	t.Helper()
	r := open(t, filepath.Join(t.TempDir(), "store"))
	t.Cleanup(func() { r.Close() })
	for i := range 4 {
		b := r.DB().NewBatch()
		for j := range 500 {
			if err := b.Set([]byte{'r', byte(i), byte(j), byte(j >> 8)}, bytes.Repeat([]byte{byte(i * j)}, j), nil); err != nil {
				t.Fatal(err)
			}
		}
		at := end
		at.Seq = end.Seq - 3 + uint64(i)
		if err := r.Commit(b, at); err != nil {
			t.Fatal(err)
		}
		if i < 3 {
			if err := r.DB().Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

// taken is a snapshot as bytes.
func taken(t *testing.T, r rows) (*snapshot.Snapshot, []byte) {
	t.Helper()
	s, err := snapshot.Take(r, filepath.Join(t.TempDir(), "taken"))
	if err != nil {
		t.Fatal(err)
	}
	in := s.Open()
	defer in.Close()
	all, err := io.ReadAll(in)
	if err != nil || int64(len(all)) != s.Size() {
		t.Fatalf("%d bytes, %v; it says %d", len(all), err, s.Size())
	}
	return s, all
}

func TestSameRows(t *testing.T) {
	r := filled(t)
	s, all := taken(t, r)
	want := projectiontest.Dump(t, r.DB())
	if err := r.Commit(r.DB().NewBatch(), events.Position{Seq: 42}); err != nil { // the snapshot does not move
		t.Fatal(err)
	}
	dir := t.TempDir()
	m, err := snapshot.Load(bytes.NewReader(all), dir, "rows", 2)
	if err != nil {
		t.Fatal(err)
	}
	if m.Position.Sequence != 41 || m.Position.Chain != end.Hash.String() || m.Digest != s.Digest {
		t.Errorf("manifest %+v", m)
	}
	loaded := open(t, dir)
	defer loaded.Close()
	if loaded.Position() != end {
		t.Errorf("at %+v", loaded.Position())
	}
	if got := projectiontest.Dump(t, loaded.DB()); got != want {
		t.Error("the rows differ")
	}
	if err := s.Remove(); err != nil {
		t.Error(err)
	}
}

// TestAnywhere reads the stream from everywhere, as one does who has lost the
// connection.
func TestAnywhere(t *testing.T) {
	s, all := taken(t, filled(t))
	rng := projectiontest.Seed(t)
	in := s.Open()
	defer in.Close()
	for range 200 {
		at := rng.Int64N(s.Size() + 2)
		if n, err := in.Seek(at, io.SeekStart); n != at || err != nil {
			t.Fatal(n, err)
		}
		b := make([]byte, 1+rng.IntN(4096))
		n, err := io.ReadFull(in, b)
		want := all[min(at, s.Size()):min(at+int64(len(b)), s.Size())]
		if !bytes.Equal(b[:n], want) || err != nil && n == len(b) {
			t.Fatalf("from %d: %d bytes, %v", at, n, err)
		}
	}
	if n, err := in.Seek(0, io.SeekEnd); n != s.Size() || err != nil {
		t.Error(n, err)
	}
	if _, err := in.Seek(-1, io.SeekStart); err == nil {
		t.Error("before the beginning")
	}
}

// TestDamage cuts the stream everywhere, changes each of its parts, and adds to
// it: nothing of that is taken.
func TestDamage(t *testing.T) {
	_, all := taken(t, filled(t))
	rng := projectiontest.Seed(t)
	line := bytes.IndexByte(all, '\n') + 1
	cases := map[string][]byte{
		"nothing": nil, "no manifest": []byte("hello\n"), "no line": all[:line-1], "the manifest alone": all[:line],
		"one byte less": all[:len(all)-1], "one byte more": append(bytes.Clone(all), 0),
		"another file name":  bytes.Replace(all, []byte(`"name":"`), []byte(`"name":"../`), 1),
		"another size":       bytes.Replace(all, []byte(`"size":`), []byte(`"size":1`), 1),
		"another sequence":   bytes.Replace(all, []byte(`"sequence":41`), []byte(`"sequence":40`), 1),
		"an unknown member":  bytes.Replace(all, []byte(`{"format":1,`), []byte(`{"format":1,"x":1,`), 1),
		"no digest":          append(append(bytes.Clone(all[:bytes.Index(all, []byte(`,"digest"`))]), "}\n"...), all[line:]...),
		"an endless line":    bytes.Repeat([]byte{' '}, 17<<20),
		"a negative version": bytes.Replace(all, []byte(`"version":2`), []byte(`"version":-2`), 1),
	}
	for range 40 {
		cut := rng.IntN(len(all))
		cases["cut"+string(rune('a'+len(cases)))] = all[:cut]
		changed := bytes.Clone(all)
		changed[rng.IntN(len(all))] ^= byte(1 + rng.IntN(255))
		cases["changed"+string(rune('a'+len(cases)))] = changed
	}
	for name, b := range cases {
		_, err := snapshot.Load(bytes.NewReader(b), t.TempDir(), "rows", 2)
		// The format's own digit may be what was changed.
		if !errors.Is(err, snapshot.ErrDamaged) && !errors.Is(err, snapshot.ErrVersion) {
			t.Errorf("%s: %v", name, err)
		}
		if errors.Is(err, snapshot.ErrVersion) && bytes.HasPrefix(b, []byte(`{"format":1,`)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNames: a manifest whose digest is right may still not name what lies
// elsewhere. Only a sender that is not honest makes one.
func TestNames(t *testing.T) {
	for _, name := range []string{"../x", "a/b", ".hidden", "", "x\x00y", "..", "two"} {
		if _, err := snapshot.Load(bytes.NewReader(snapshot.Forge(name, "two")), t.TempDir(), "rows", 2); !errors.Is(err, snapshot.ErrDamaged) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestOtherVersion(t *testing.T) {
	_, all := taken(t, filled(t))
	for _, c := range []struct {
		name    string
		version int
		stream  []byte
	}{
		{"rows", 3, all}, {"rows", 1, all}, {"others", 2, all},
		{"rows", 2, bytes.Replace(all, []byte(`{"format":1,`), []byte(`{"format":2,"new":[],`), 1)},
	} {
		dir := t.TempDir()
		if _, err := snapshot.Load(bytes.NewReader(c.stream), dir, c.name, c.version); !errors.Is(err, snapshot.ErrVersion) {
			t.Errorf("%s %d: %v", c.name, c.version, err)
		}
		if left, err := os.ReadDir(dir); len(left) != 0 || err != nil {
			t.Errorf("%v was written, %v", left, err)
		}
	}
}

// TestWrongRows: a manifest that is right about its files, which are at another
// position.
func TestWrongRows(t *testing.T) {
	s, all := taken(t, filled(t))
	line := bytes.IndexByte(all, '\n') + 1
	forged := append(snapshot.Moved(s, 40), all[line:]...)
	if _, err := snapshot.Load(bytes.NewReader(forged), t.TempDir(), "rows", 2); !errors.Is(err, snapshot.ErrDamaged) {
		t.Error(err)
	}
}
