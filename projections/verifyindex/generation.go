package verifyindex

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events/token"
)

// generation is what disk mode reads between one applied batch and the next. A
// Pebble iterator is a frozen snapshot: made before a revocation it will never
// see it. Iterators are therefore shared only by those who came within one
// generation, and the writer opens the next one after each batch.
type generation struct {
	db     *pebble.DB
	closed atomic.Bool
	idle   []atomic.Pointer[reader] // power of two
}

// reader is an iterator with room for its key. One goroutine uses it at a time.
type reader struct {
	it  *pebble.Iterator
	key [1 + digestLen]byte
}

func newGeneration(db *pebble.DB) *generation {
	n := 4
	for n < 2*runtime.GOMAXPROCS(0) {
		n *= 2
	}
	return &generation{db: db, idle: make([]atomic.Pointer[reader], n)}
}

// tries is how many places are looked at before an iterator is made or closed.
const tries = 4

// take returns a reader that sees everything that was applied before the
// generation began.
func (g *generation) take() (*reader, error) {
	start, mask := int(rand.Uint32()), len(g.idle)-1
	for i := range tries {
		at := &g.idle[(start+i)&mask]
		if at.Load() == nil {
			continue
		}
		if r := at.Swap(nil); r != nil {
			return r, nil
		}
	}
	it, err := g.db.NewIter(&pebble.IterOptions{
		KeyTypes:   pebble.IterKeyTypePointsOnly,
		LowerBound: []byte{rowEntry}, UpperBound: []byte{rowEntry + 1},
		// Nearly all rows lie in the bottom level, and what is asked for
		// may well not exist.
		UseL6Filters: true,
	})
	if err != nil {
		return nil, err
	}
	r := &reader{it: it}
	r.key[0] = rowEntry
	return r, nil
}

// give returns a reader. An iterator that is left over holds tables and
// memory that the store wants to be rid of, so none survives its generation.
func (g *generation) give(r *reader) {
	start, mask := int(rand.Uint32()), len(g.idle)-1
	for i := range tries {
		if g.idle[(start+i)&mask].CompareAndSwap(nil, r) {
			if g.closed.Load() {
				g.drain() // end may have passed this place already
			}
			return
		}
	}
	r.it.Close()
}

// end closes the generation: those who still hold a reader finish with it.
func (g *generation) end() {
	g.closed.Store(true)
	g.drain()
}

func (g *generation) drain() {
	for i := range g.idle {
		if r := g.idle[i].Swap(nil); r != nil {
			r.it.Close() // its errors were seen by those who used it
		}
	}
}

// find returns the row of a digest, valid until the reader is used again, or
// nil when there is none.
func (r *reader) find(d *token.Digest) ([]byte, error) {
	copy(r.key[1:], d[:])
	if !r.it.SeekPrefixGE(r.key[:]) {
		return nil, r.it.Error()
	}
	return r.it.ValueAndErr()
}
