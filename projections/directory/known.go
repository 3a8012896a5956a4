package directory

import (
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// known says of a key that it was never written, or that it may have been.
//
// Every creation asks for an id and a secret that nobody has, twice, and every
// registration for a key of a resource, three times; Pebble answers that only after a walk through all its levels: it looks into
// no filter of the lowest one. Here the same answer costs a line of the
// processor's cache for each layer.
//
// It holds the ids of all tokens and registrations, and all digests and keys of
// resources, also those that were taken back since Open: a key that it lacks is in no row and in no batch under way. It is
// filled behind Open, and says nothing until that is done.
//
// One goroutine adds what is applied, another one what was there before; any
// number ask.
type known struct {
	seed   maphash.Seed
	layers atomic.Pointer[[]*knownLayer]
	ready  atomic.Bool

	mu sync.Mutex // of those who add
}

// knownLayer is a split block Bloom filter: four words belong to a key, and in
// each of them two bits.
type knownLayer struct {
	words []atomic.Uint64
	room  int // keys that may still be added
}

const (
	knownWords = 4
	// knownFirst is how many keys the first layer takes; each further one
	// takes twice as many as the one before. At 16 bits a key, one look-up in
	// a thousand or less goes on to Pebble in vain.
	knownFirst = 1 << 18
	bitsOfKey  = 16
)

func newKnown() *known {
	k := &known{seed: maphash.MakeSeed()}
	k.layers.Store(&[]*knownLayer{newKnownLayer(knownFirst)})
	return k
}

func newKnownLayer(keys int) *knownLayer {
	return &knownLayer{words: make([]atomic.Uint64, keys*bitsOfKey/64), room: keys}
}

// block returns the words of a hash. Their number is a power of two.
func (l *knownLayer) block(hash uint64) []atomic.Uint64 {
	at := int(hash>>32) & (len(l.words) - 1) &^ (knownWords - 1)
	return l.words[at : at+knownWords : at+knownWords]
}

// bits are the two bits of a hash in the i-th word.
func bits(hash uint64, i int) uint64 {
	mixed := uint32(hash) * salts[i]
	return 1<<(mixed>>26) | 1<<(mixed>>20&63)
}

// salts make the bits in one word say nothing about those in another.
var salts = [knownWords]uint32{0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d}

// add makes key a known one.
func (k *known) add(key []byte) {
	hash := maphash.Bytes(k.seed, key)
	k.mu.Lock()
	defer k.mu.Unlock()
	layers := *k.layers.Load()
	last := layers[len(layers)-1]
	if last.room == 0 {
		last = newKnownLayer(knownFirst << len(layers))
		layers = append(layers[:len(layers):len(layers)], last)
		k.layers.Store(&layers)
	}
	last.room--
	for i, block := 0, last.block(hash); i < knownWords; i++ {
		block[i].Or(bits(hash, i))
	}
}

// lacks says that key was certainly never added. It is false for all keys
// until everything was.
func (k *known) lacks(key []byte) bool {
	if !k.ready.Load() {
		return false
	}
	hash := maphash.Bytes(k.seed, key)
	for _, l := range *k.layers.Load() {
		if l.may(hash) {
			return false
		}
	}
	return true
}

func (l *knownLayer) may(hash uint64) bool {
	for i, block := 0, l.block(hash); i < knownWords; i++ {
		if b := bits(hash, i); block[i].Load()&b != b {
			return false
		}
	}
	return true
}

// unlessNew is get of a row that cannot be there when k lacks its name.
func unlessNew[T any](k *known, name []byte, r pebble.Reader, key []byte, decode func([]byte) (T, error)) (v T, ok bool, err error) {
	if k.lacks(name) {
		return v, false, nil
	}
	return get(r, key, decode)
}

// Token returns the token with this id, also when it has ended.
func (d *Directory) Token(id token.ID) (aggregate.Token, bool, error) {
	if d.known.lacks(id[:]) {
		return aggregate.Token{}, false, d.usable()
	}
	return d.queries.Token(id)
}

// Credential returns what has the secret with this digest, as it does of a
// View.
func (d *Directory) Credential(secret token.Digest) (aggregate.Credential, bool, error) {
	if d.known.lacks(secret[:]) {
		return aggregate.Credential{}, false, d.usable()
	}
	return d.queries.Credential(secret)
}

// Resource returns the registration of the resource with this key, as it does of
// a View.
func (d *Directory) Resource(key string) (aggregate.Resource, bool, error) {
	if d.known.lacks(textKey(tableKey, key)[1:]) {
		return aggregate.Resource{}, false, d.usable()
	}
	return d.queries.Resource(key)
}

// loadedAtOnce is how many keys are added before it is asked whether anybody
// still wants them.
const loadedAtOnce = 1 << 12

// load adds what was in the store when it was opened, behind the back of
// whoever opened it. A store that cannot be read leaves things as they are:
// whoever asks then finds out.
func (d *Directory) load() error {
	var its []*pebble.Iterator
	for _, table := range []byte{tableAll, tableDigest, tableResource, tableKey} {
		it, err := scan(d.store.DB(), []byte{table})
		if err != nil {
			for _, it := range its {
				err = errors.Join(err, it.Close())
			}
			return err
		}
		its = append(its, it)
	}
	if err := d.begin(); err != nil {
		return err
	}
	go func() {
		defer d.end()
		defer close(d.loaded)
		whole := d.loadKeys(its[0], ownerPrefix)
		for _, it := range its[1:] {
			whole = d.loadKeys(it, 1) && whole
		}
		d.known.ready.Store(whole)
	}()
	return nil
}

// loadKeys adds the keys of a table without their first bytes, and says
// whether these were all.
func (d *Directory) loadKeys(it *pebble.Iterator, from int) bool {
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if n++; n%loadedAtOnce == 0 && d.usable() != nil {
			break
		}
		d.known.add(it.Key()[from:])
	}
	all := !it.Valid()
	return it.Error() == nil && it.Close() == nil && all
}
