package embed

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nkeys"

	"watchword.dev/services/internal/durable"
)

// SeedFile is the path of the seed of a role below the directory of an
// embedded server.
func SeedFile(dir string, r Role) string { return filepath.Join(dir, string(r)+".seed") }

// prefix says what kind of key r has.
func (r Role) prefix() nkeys.PrefixByte {
	switch r {
	case Issuer:
		return nkeys.PrefixByteAccount
	case Sealer:
		return nkeys.PrefixByteCurve
	}
	return nkeys.PrefixByteUser
}

// newKey makes the key of r.
func (r Role) newKey() (nkeys.KeyPair, error) {
	if r.prefix() == nkeys.PrefixByteCurve {
		return nkeys.CreateCurveKeysWithRand(rand.Reader)
	}
	return nkeys.CreatePairWithRand(r.prefix(), rand.Reader)
}

// ReadSeed reads the seed of r from a file, which must be closed to the group
// and the world.
func ReadSeed(r Role, path string) (nkeys.KeyPair, error) {
	seed, err := durable.ReadPrivate(path)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	kp, err := nkeys.FromSeed(trim(seed))
	if err != nil {
		return nil, fmt.Errorf("embed: %s is no nkey seed: %w", path, err)
	}
	if pub, err := kp.PublicKey(); err != nil || nkeys.Prefix(pub) != r.prefix() {
		return nil, fmt.Errorf("embed: %s is not a seed of the kind of %s", path, r)
	}
	return kp, nil
}

// EnsureSeeds gives the keys of the roles from their files in dir and makes
// those that are missing. A crash leaves each seed whole or absent.
func EnsureSeeds(dir string, roles ...Role) (map[Role]nkeys.KeyPair, error) {
	keys := make(map[Role]nkeys.KeyPair, len(roles))
	for _, r := range roles {
		path := SeedFile(dir, r)
		kp, err := ReadSeed(r, path)
		if errors.Is(err, fs.ErrNotExist) {
			if kp, err = r.newKey(); err != nil {
				return nil, fmt.Errorf("embed: make the nkey of %s: %w", r, err)
			}
			seed, serr := kp.Seed()
			if serr != nil {
				return nil, fmt.Errorf("embed: make the nkey of %s: %w", r, serr)
			}
			err = durable.WritePrivate(path, append(seed, '\n'))
		}
		if err != nil {
			return nil, err
		}
		keys[r] = kp
	}
	return keys, nil
}

// PublicKeys are the public halves of keys, as ClusterConfig wants them.
func PublicKeys(keys map[Role]nkeys.KeyPair) (map[Role]string, error) {
	pubs := make(map[Role]string, len(keys))
	for r, kp := range keys {
		pub, err := kp.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("embed: nkey of %s: %w", r, err)
		}
		pubs[r] = pub
	}
	return pubs, nil
}

// trim drops the white space around a seed without copying it to a string.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r' || b[len(b)-1] == ' ') {
		b = b[:len(b)-1]
	}
	return b
}

// mkdirPrivate makes dir for the owner alone.
func mkdirPrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("embed: %w", err)
	}
	return nil
}
