package authoritytest

import "github.com/nats-io/nkeys"

// NewNkey returns the public nkey of a key pair that nobody keeps.
func NewNkey() string {
	kp, err := nkeys.CreateUser()
	if err != nil {
		panic(err) // no randomness
	}
	public, err := kp.PublicKey()
	if err != nil {
		panic(err) // it was made just now
	}
	return public
}
