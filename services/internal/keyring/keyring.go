// Package keyring seals personal fields, so that a person can be erased from a
// ledger that forgets nothing.
//
// Every person has a data key. A personal field (an e-mail address, a display
// name, a client's address) stands in an event only as a ciphertext under that
// key. The data key lies in a key-value bucket, wrapped by the installation's
// master key. Erasing a person is deleting the data key: the ciphertexts stay
// in the ledger, the chain and every rebuild stay as they are, and readers show
// Erased.
//
// # Bytes
//
// A field is AES-256-GCM with a random nonce of 96 bits; equal texts give
// different ciphertexts, so nobody can test a guess without the key. The
// additional data is "watchword field v1|" and the field's key, which is
//
//	<person, 32 hex digits>.<mark, 8 hex digits>
//
// where the mark is random and tells one data key of a person from a later one.
// The bucket holds under the person's 32 hex digits:
//
//	1 byte   version, 1
//	4 bytes  mark
//	12 bytes nonce
//	48 bytes AES-256-GCM of the 32 bytes of the data key
//
// with the additional data "watchword key v1|<person>.<mark>", under a key that
// HKDF-SHA-256 derives from the master key. For the wrapped keys the limits of
// random nonces are far: 2^32 people under one master key, 2^32 fields a person.
package keyring

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

// Erased is what readers show in place of a field whose key is gone.
const Erased = "[erased]"

// MaxFieldBytes is the longest text that Seal takes.
const MaxFieldBytes = 4096

// CacheAge is how long a data key may be used without looking whether it is
// still there: on other nodes than the erasing one, an erased person's fields
// can be read for at most this long.
const CacheAge = 5 * time.Second

// cacheEntries bounds the memory of a keyring: about 1 KiB an entry.
const cacheEntries = 4096

var (
	// ErrErased says that the key of a field is gone, for ever.
	ErrErased = errors.New("keyring: the key of this person was erased")
	// ErrSealed says that a field is not one that this package sealed, or was
	// changed since.
	ErrSealed = errors.New("keyring: not a sealed field")
	// ErrMaster says that the bucket was filled under another master key.
	ErrMaster = errors.New("keyring: the master key is not the one of this installation")
	// ErrNotFound and ErrExists are the answers of a Store.
	ErrNotFound = errors.New("keyring: no such key")
	ErrExists   = errors.New("keyring: the key exists")
)

// Store keeps wrapped keys by name. It must never lose one that it has
// acknowledged; if it rolls back, people are erased. It is trusted with
// nothing: it sees wrapped keys only, and a changed one is refused.
type Store interface {
	// Get gives the value of a name, or ErrNotFound.
	Get(ctx context.Context, name string) ([]byte, error)
	// Create stores the value of a new name, durably, or gives ErrExists. A
	// name is never given a second value.
	Create(ctx context.Context, name string, value []byte) error
	// Erase removes a name and its bytes. An absent name is no error.
	Erase(ctx context.Context, name string) error
}

// checkName is the name under which the bucket tells its master key apart.
const checkName = "master"

// Keyring seals and unseals. It is safe for concurrent use.
type Keyring struct {
	store Store
	now   func() time.Time

	// Derived from the master key at Open, never changed.
	wrap    cipher.AEAD
	email   []byte
	request []byte
	pulse   ed25519.PrivateKey
	audit   ed25519.PrivateKey

	mu       sync.Mutex
	cache    map[token.ID]dataKey // under mu
	erasures uint64               // under mu; a look-up begun before one is not cached
}

// dataKey is the opened key of one person.
type dataKey struct {
	mark [4]byte
	aead cipher.AEAD
	seen time.Time // when the store last had it
}

// Open derives the keys of an installation from its master key and checks, in
// the store, that it is the master key of this installation. The first Open on
// an empty store decides which that is.
func Open(ctx context.Context, store Store, master Master) (*Keyring, error) {
	k := &Keyring{
		store: store, now: time.Now,
		email:   master.derive("email index v1", 32),
		request: master.derive("request v1", 32),
		pulse:   ed25519.NewKeyFromSeed(master.derive("pulse v1", ed25519.SeedSize)),
		audit:   ed25519.NewKeyFromSeed(master.derive("audit v1", ed25519.SeedSize)),
		cache:   map[token.ID]dataKey{},
	}
	var err error
	if k.wrap, err = newAEAD(master.derive("wrap v1", 32)); err != nil {
		return nil, err
	}
	check := master.derive("check v1", 16)
	err = store.Create(ctx, checkName, check)
	if errors.Is(err, ErrExists) {
		var got []byte
		if got, err = store.Get(ctx, checkName); err == nil && subtle.ConstantTimeCompare(got, check) != 1 {
			err = ErrMaster
		}
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: open: %w", err)
	}
	return k, nil
}

// Seal encrypts a personal field of a person, making the person's key at its
// first use.
func (k *Keyring) Seal(ctx context.Context, person token.ID, plaintext string) (events.Sealed, error) {
	if len(plaintext) > MaxFieldBytes {
		return events.Sealed{}, fmt.Errorf("keyring: a field has at most %d bytes", MaxFieldBytes)
	}
	d, err := k.ensure(ctx, person)
	if err != nil {
		return events.Sealed{}, err
	}
	name := fieldKey(person, d.mark)
	nonce := make([]byte, d.aead.NonceSize())
	rand.Read(nonce)
	return events.Sealed{
		Key: name, Nonce: nonce,
		Ciphertext: d.aead.Seal(nil, nonce, []byte(plaintext), fieldData(name)),
	}, nil
}

// Unseal decrypts a field. It gives ErrErased when the person was erased since
// it was sealed, and ErrSealed when the field was not sealed here.
func (k *Keyring) Unseal(ctx context.Context, s events.Sealed) (string, error) {
	person, mark, err := parseFieldKey(s.Key)
	if err != nil {
		return "", err
	}
	d, err := k.lookup(ctx, person)
	switch {
	case errors.Is(err, ErrNotFound):
		return "", ErrErased
	case err != nil:
		return "", err
	case d.mark != mark:
		return "", ErrErased // a later key of the same person
	case len(s.Nonce) != d.aead.NonceSize():
		return "", ErrSealed
	}
	text, err := d.aead.Open(nil, s.Nonce, s.Ciphertext, fieldData(s.Key))
	if err != nil {
		return "", ErrSealed
	}
	return string(text), nil
}

// Show is Unseal for readers: the text, or Erased.
func (k *Keyring) Show(ctx context.Context, s events.Sealed) (string, error) {
	text, err := k.Unseal(ctx, s)
	if errors.Is(err, ErrErased) {
		return Erased, nil
	}
	return text, err
}

// Erase removes the key of a person. Every field sealed so far is lost for
// ever, here at once and elsewhere within CacheAge.
func (k *Keyring) Erase(ctx context.Context, person token.ID) error {
	err := k.store.Erase(ctx, person.String())
	k.mu.Lock()
	k.erasures++
	delete(k.cache, person)
	k.mu.Unlock()
	if err != nil {
		return fmt.Errorf("keyring: erase: %w", err)
	}
	return nil
}

// EmailIndex is the look-up form of an address: a keyed hash of it in lower
// case and without space around it.
func (k *Keyring) EmailIndex(email string) string {
	m := hmac.New(sha256.New, k.email)
	m.Write([]byte(strings.ToLower(strings.TrimSpace(email))))
	return hex.EncodeToString(m.Sum(nil))
}

// PulseKey signs the pulses of the pen.
func (k *Keyring) PulseKey() ed25519.PrivateKey { return k.pulse }

// AuditKey signs the tree heads of the ledger, and nothing else: what it signs has
// no prefix that would tell it apart.
func (k *Keyring) AuditKey() ed25519.PrivateKey { return k.audit }

// RequestKey keys the digests by which repeated requests are known: 32 bytes,
// the same on all nodes, not to be changed.
func (k *Keyring) RequestKey() []byte { return k.request }

// attempts bounds how often ensure looks again after a lost race: the winner's
// key may still be on its way to the replicas, or have been erased meanwhile.
const (
	attempts = 8
	pause    = 10 * time.Millisecond // before the second look, then doubled
)

// ensure gives the key of a person, made if there is none. Of several nodes
// that make one at once, the store lets one win, and the others take its key.
func (k *Keyring) ensure(ctx context.Context, person token.ID) (dataKey, error) {
	wait := time.Duration(0)
	for range attempts {
		d, err := k.lookup(ctx, person)
		if !errors.Is(err, ErrNotFound) {
			return d, err
		}
		select {
		case <-ctx.Done():
			return dataKey{}, ctx.Err()
		case <-time.After(wait):
		}
		wait = max(pause, 2*wait)
		var secret [32]byte
		var mark [4]byte
		rand.Read(secret[:])
		rand.Read(mark[:])
		err = k.store.Create(ctx, person.String(), k.wrapKey(person, mark, secret[:]))
		if errors.Is(err, ErrExists) {
			continue
		}
		if err != nil {
			return dataKey{}, fmt.Errorf("keyring: create a key: %w", err)
		}
		// Read back what the store has: a Create whose answer was lost and
		// which was repeated below us must not leave us with another key.
	}
	d, err := k.lookup(ctx, person)
	if err != nil {
		return d, fmt.Errorf("keyring: lost %d races: %w", attempts, err)
	}
	return d, nil
}

// lookup gives the key of a person from the cache or the store, or ErrNotFound.
func (k *Keyring) lookup(ctx context.Context, person token.ID) (dataKey, error) {
	now := k.now()
	k.mu.Lock()
	d, ok := k.cache[person]
	erasures := k.erasures
	k.mu.Unlock()
	if ok && now.Sub(d.seen) < CacheAge {
		return d, nil
	}
	value, err := k.store.Get(ctx, person.String())
	if errors.Is(err, ErrNotFound) {
		k.forget(person)
		return dataKey{}, ErrNotFound
	}
	if err != nil {
		return dataKey{}, fmt.Errorf("keyring: look up a key: %w", err)
	}
	if d, err = k.unwrapKey(person, value); err != nil {
		return dataKey{}, err
	}
	d.seen = now // from before the look: never younger than what it saw
	k.mu.Lock()
	defer k.mu.Unlock()
	if erasures != k.erasures {
		return d, nil // may be the key that is being erased
	}
	if len(k.cache) >= cacheEntries {
		for p := range k.cache { // some entry; the order of a map is random
			delete(k.cache, p)
			break
		}
	}
	k.cache[person] = d
	return d, nil
}

// forget drops a key from the cache.
func (k *Keyring) forget(person token.ID) {
	k.mu.Lock()
	delete(k.cache, person)
	k.mu.Unlock()
}

const wrapVersion = 1

// wrapKey is the value of the store for a data key.
func (k *Keyring) wrapKey(person token.ID, mark [4]byte, secret []byte) []byte {
	b := append([]byte{wrapVersion}, mark[:]...)
	nonce := make([]byte, k.wrap.NonceSize())
	rand.Read(nonce)
	b = append(b, nonce...)
	return k.wrap.Seal(b, nonce, secret, wrapData(person, mark))
}

// unwrapKey opens a value of the store.
func (k *Keyring) unwrapKey(person token.ID, b []byte) (dataKey, error) {
	n := k.wrap.NonceSize()
	if len(b) < 5+n || b[0] != wrapVersion {
		return dataKey{}, errors.New("keyring: the store holds something that is no key")
	}
	d := dataKey{mark: [4]byte(b[1:5])}
	secret, err := k.wrap.Open(nil, b[5:5+n], b[5+n:], wrapData(person, d.mark))
	if err != nil {
		return dataKey{}, ErrMaster
	}
	defer clear(secret)
	d.aead, err = newAEAD(secret)
	return d, err
}

func wrapData(person token.ID, mark [4]byte) []byte {
	return []byte("watchword key v1|" + fieldKey(person, mark))
}

func fieldData(key string) []byte { return []byte("watchword field v1|" + key) }

// fieldKey is the name of a data key in a sealed field.
func fieldKey(person token.ID, mark [4]byte) string {
	return person.String() + "." + hex.EncodeToString(mark[:])
}

// parseFieldKey reads the name of a data key, strictly.
func parseFieldKey(s string) (person token.ID, mark [4]byte, err error) {
	id, m, ok := strings.Cut(s, ".")
	if !ok || len(m) != 8 {
		return person, mark, ErrSealed
	}
	if person, err = token.ParseID(id); err != nil {
		return person, mark, ErrSealed
	}
	if _, err := hex.Decode(mark[:], []byte(m)); err != nil || fieldKey(person, mark) != s {
		return person, mark, ErrSealed
	}
	return person, mark, nil
}

// newAEAD is AES-256-GCM with 96-bit nonces.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return aead, nil
}
