// Package keyringtest has a keyring.Store in memory, for tests.
package keyringtest

import (
	"bytes"
	"context"
	"sync"

	"watchword.dev/services/internal/keyring"
)

// Memory is a keyring.Store in memory. It holds a store to its contract: what
// it was given is never changed, and a name is set once. The zero value is
// empty and ready; it is safe for concurrent use.
type Memory struct {
	mu   sync.Mutex
	keys map[string][]byte // under mu
	gets int               // under mu
}

var _ keyring.Store = (*Memory)(nil)

// Get implements keyring.Store.
func (m *Memory) Get(ctx context.Context, name string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gets++
	v, ok := m.keys[name]
	if !ok {
		return nil, keyring.ErrNotFound
	}
	return bytes.Clone(v), nil
}

// Create implements keyring.Store.
func (m *Memory) Create(ctx context.Context, name string, value []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.keys[name]; ok {
		return keyring.ErrExists
	}
	if m.keys == nil {
		m.keys = map[string][]byte{}
	}
	m.keys[name] = bytes.Clone(value)
	return nil
}

// Erase implements keyring.Store.
func (m *Memory) Erase(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.keys, name)
	return nil
}

// Gets is how often Get was called.
func (m *Memory) Gets() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gets
}

// Corrupt flips a bit of a stored value.
func (m *Memory) Corrupt(name string, bit int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys[name][bit/8] ^= 1 << (bit % 8)
}
