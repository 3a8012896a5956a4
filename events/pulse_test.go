package events_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
)

// keyPair returns the key pair of a seed of one repeated letter.
func keyPair(letter string) (ed25519.PublicKey, ed25519.PrivateKey) {
	private := ed25519.NewKeyFromSeed([]byte(strings.Repeat(letter, ed25519.SeedSize)))
	return private.Public().(ed25519.PublicKey), private
}

func TestPulse(t *testing.T) {
	public, private := keyPair("a")
	for _, want := range []events.Pulse{
		{Term: 3, Epoch: 1, Sequence: 9, Number: 20, Chain: events.HashLine(nil).String(), Time: eventstest.Epoch, Node: "n1"},
		{Term: 4, Node: `with ,"signature":"AAAA" inside`, Claim: true, Time: eventstest.Epoch},
		{},
	} {
		b, err := want.Sign(private)
		if err != nil {
			t.Fatal(err)
		}
		got, err := events.OpenPulse(b, public)
		if err != nil || got != want {
			t.Errorf("%s: opened %+v, %v; want %+v", b, got, err, want)
		}
	}
}

// TestPulseRefused changes each byte of a pulse, and more.
func TestPulseRefused(t *testing.T) {
	public, private := keyPair("a")
	other, otherPrivate := keyPair("b")
	good, err := events.Pulse{Term: 3, Epoch: 1, Sequence: 9, Number: 20, Time: eventstest.Epoch, Node: "n1"}.Sign(private)
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(what string, b []byte, key ed25519.PublicKey) {
		t.Helper()
		if p, err := events.OpenPulse(b, key); !errors.Is(err, events.ErrPulse) || p != (events.Pulse{}) {
			t.Errorf("%s: opened %+v, %v", what, p, err)
		}
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1
		refuse("bit "+string(good[i]), b, public)
	}
	foreign, err := events.Pulse{Term: 3}.Sign(otherPrivate)
	if err != nil {
		t.Fatal(err)
	}
	refuse("another key", good, other)
	refuse("signed by another", foreign, public)
	refuse("no key", good, nil)
	refuse("nothing", nil, public)
	refuse("half", good[:len(good)/2], public)
	refuse("something behind", append(bytes.Clone(good), ' '), public)
	refuse("something before", append([]byte(" "), good...), public)
	refuse("no signature", []byte(`{"term":3}`), public)
	refuse("too long", append(bytes.Repeat([]byte(" "), 4096), good...), public)

	// Signed, but no pulse: only the pen itself could do that.
	for _, body := range []string{`[1`, `{"term":-1`, `{"term":1,"term":1`, `{"term":"1"`} {
		signature := ed25519.Sign(private, []byte(body))
		b := append([]byte(body), `,"signature":"`...)
		b = append(b, encode64(signature)...)
		refuse(body, append(b, `"}`...), public)
	}
}
