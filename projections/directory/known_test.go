package directory

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
)

func numbered(n int) []byte { return binary.BigEndian.AppendUint64(make([]byte, 0, 16), uint64(n)) }

// TestKnownLacksNothing adds keys over several layers: none of them is ever
// said to be new, and of others nearly all are.
func TestKnownLacksNothing(t *testing.T) {
	k := newKnown()
	k.ready.Store(true)
	const n = 5 * knownFirst
	for i := range n {
		k.add(numbered(i))
	}
	if got := len(*k.layers.Load()); got != 3 {
		t.Errorf("%d layers", got)
	}
	wrong := 0
	for i := range n {
		if k.lacks(numbered(i)) {
			t.Fatalf("key %d was added", i)
		}
		if !k.lacks(numbered(n + i)) {
			wrong++
		}
	}
	if wrong > n/200 {
		t.Errorf("of %d new keys %d are taken for known ones", n, wrong)
	}
}

// TestKnownAnswersAsTheRows tells stories to directories that are opened anew
// again and again, and asks for what the rows hold and for what they do not.
func TestKnownAnswersAsTheRows(t *testing.T) {
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 300)
	fs := vfs.NewMem()
	var ids []token.ID
	var digests []token.Digest
	var keys []string
	for rest := s.Commits; len(rest) > 0; {
		n := min(1+rng.IntN(40), len(rest))
		d := openMem(t, fs)
		sameAsView(t, d, nil) // what is kept of it must not outlive the next
		apply(t, d, rest[:n]...)
		for _, c := range rest[:n] {
			for i := range c.Records {
				ids = append(ids, c.Records[i].SubjectID(), token.ID{byte(rng.IntN(256)), 1})
				switch e := c.Records[i].Data.(type) {
				case *events.TokenCreated:
					digests = append(digests, e.Secret)
				case *events.TokenRolled:
					digests = append(digests, e.Secret)
				case *events.ResourceRegistered:
					keys = append(keys, aggregate.ResourceKey(e.Type, e.Resource), aggregate.ResourceKey(e.Type, e.Resource+"x"))
				}
				digests = append(digests, token.Digest{byte(rng.IntN(256)), 1})
			}
		}
		rest = rest[n:]
		sameAsRows(t, d, ids, digests)
		sameAsView(t, d, keys)
		<-d.loaded
		if !d.known.ready.Load() {
			t.Fatal("the keys of a whole store could not be read")
		}
		sameAsRows(t, d, ids, digests)
		sameAsView(t, d, keys)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := d.Token(token.ID{0xff}); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed directory answers %v about a new id", err)
		}
		if _, _, err := d.Credential(token.Digest{0xff}); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed directory answers %v about a new secret", err)
		}
		if _, _, err := d.Resource("none.none"); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed directory answers %v about a new resource", err)
		}
		if _, _, err := d.Catalogue(); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed directory answers %v about the catalogue", err)
		}
	}
}

// sameAsView compares the answers of a directory with those of a view, which
// asks the rows.
func sameAsView(t *testing.T, d *Directory, keys []string) {
	t.Helper()
	v, err := d.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, key := range keys {
		want, there, err := v.Resource(key)
		if err != nil {
			t.Fatal(err)
		}
		got, ok, err := d.Resource(key)
		expect(t, key, got, ok, err, want, there)
	}
	want, there, err := v.Catalogue()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second is from memory
		got, ok, err := d.Catalogue()
		expect(t, "catalogue", got, ok, err, want, there)
	}
}

// sameAsRows compares the answers of a directory with its rows.
func sameAsRows(t *testing.T, d *Directory, ids []token.ID, digests []token.Digest) {
	t.Helper()
	db := d.Store().DB()
	for _, id := range ids {
		_, want, err := get(db, idKey(tableToken, id), decode[aggregate.Token])
		if err != nil {
			t.Fatal(err)
		}
		if got, ok, err := d.Token(id); err != nil || ok != want || ok && got.ID != id {
			t.Fatalf("token %v: %v, %v, want %v", id, ok, err, want)
		}
	}
	for _, digest := range digests {
		want, there, err := get(db, digestKey(digest), decodeCredential)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok, err := d.Credential(digest); err != nil || ok != there || got != want {
			t.Fatalf("digest %x: %+v, %v, %v, want %+v", digest[:4], got, ok, err, want)
		}
	}
}
