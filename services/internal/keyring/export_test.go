package keyring

// Cached is how many keys are cached.
func (k *Keyring) Cached() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.cache)
}
