package proof_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"watchword.dev/events/eventstest"
	"watchword.dev/events/proof"
)

var update = flag.Bool("update", false, "write the golden files that are missing")

// golden holds a form to its bytes. Files are added, never changed.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	want, err := os.ReadFile(path)
	if os.IsNotExist(err) && *update {
		want, err = got, os.WriteFile(path, got, 0o644)
	}
	if err != nil {
		t.Fatalf("%v (run with -update to add a file)", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", name, got, want)
	}
}

// private returns the key of a seed of one repeated byte.
func private(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

var origin = proof.Origin(eventstest.ID(9), 1)

func newLog(t testing.TB) *proof.Signer {
	return must[*proof.Signer](t)(proof.NewLog(origin, private(1)))
}

func newWitness(t testing.TB, name string, seed byte) *proof.Signer {
	now := func() time.Time { return eventstest.Epoch }
	return must[*proof.Signer](t)(proof.NewWitness(name, private(seed), now))
}

// cosigned is the head of the tree of n lines, by a log and two witnesses, and
// the policy that wants both.
func cosigned(t testing.TB, n int) ([]byte, proof.Policy) {
	t.Helper()
	log, w1, w2 := newLog(t), newWitness(t, "eu.example/witness", 2), newWitness(t, "us.example/witness", 3)
	signed := must[[]byte](t)(proof.Sign(proof.Head{Origin: origin, Size: uint64(n), Root: mth(lines(n))}, log))
	whole := bytes.Clone(signed)
	for _, w := range []*proof.Signer{w1, w2} {
		whole = append(whole, must[[]byte](t)(proof.Cosign(signed, log.Key(), w))...)
	}
	return whole, proof.Policy{Log: log.Key(), Witnesses: []proof.Key{w1.Key(), w2.Key()}, Quorum: 2}
}

// TestCheckpointOfOthers: a head of a log of certificates, with the cosignatures
// of four witnesses that others run with other programs.
func TestCheckpointOfOthers(t *testing.T) {
	signed := must[[]byte](t)(os.ReadFile("testdata/arche2025h1.txt"))
	p := proof.Policy{Quorum: 4}
	p.Log = must[proof.Key](t)(proof.ParseKey("arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"))
	for _, vkey := range []string{
		"transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
		"witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
		"remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
		"witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
	} {
		k := must[proof.Key](t)(proof.ParseKey(vkey))
		if !k.IsWitness() || k.String() != vkey {
			t.Errorf("%s: %v", vkey, k)
		}
		p.Witnesses = append(p.Witnesses, k)
	}
	s, err := p.Open(signed)
	if err != nil {
		t.Fatal(err)
	}
	if s.Size != 1432088532 || s.Root.String() != "U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=" || len(s.Cosigned) != 4 {
		t.Errorf("%+v", s)
	}
	for _, c := range s.Cosigned {
		if c.At.Unix() != 0x6a122120 {
			t.Errorf("%s at %v", c.Witness.Name(), c.At)
		}
	}
	other := bytes.Replace(signed, []byte("\n1432088532\n"), []byte("\n1432088533\n"), 1)
	if _, err := p.Open(other); !errors.Is(err, proof.ErrUnproved) {
		t.Errorf("of another size: %v", err)
	}
}

// TestNoteOfOthers: the example of signed notes.
func TestNoteOfOthers(t *testing.T) {
	const text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
	const vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
	signed := text + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
	k := must[proof.Key](t)(proof.ParseKey(vkey))
	if _, err := note.Open([]byte(signed), note.VerifierList(k)); err != nil {
		t.Error(err)
	}
	p := proof.Policy{Log: k}
	if _, err := p.Open([]byte(signed)); !errors.Is(err, proof.ErrMalformed) {
		t.Errorf("a note that is no head: %v", err)
	}
}

// TestParseKey: any change of a verifier key makes it another one or none.
func TestParseKey(t *testing.T) {
	for _, k := range []proof.Key{newLog(t).Key(), newWitness(t, "w", 2).Key()} {
		vkey := k.String()
		if again, err := proof.ParseKey(vkey); err != nil || again != k {
			t.Errorf("%s: %v, %v", vkey, again, err)
		}
		for i := range vkey {
			b := []byte(vkey)
			b[i]++
			for _, bad := range []string{string(b), vkey[:i], vkey[i+1:]} {
				if got, err := proof.ParseKey(bad); !errors.Is(err, proof.ErrMalformed) || got != (proof.Key{}) {
					t.Errorf("%q: %v, %v", bad, got, err)
				}
			}
		}
	}
	for _, bad := range []string{
		"PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==", // too long, with its own hash
		"PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",         // of no kind
		"PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
	} {
		if _, err := proof.ParseKey(bad); !errors.Is(err, proof.ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestParseOrigin(t *testing.T) {
	id, epoch, err := proof.ParseOrigin(proof.Origin(eventstest.ID(9), 4_000_000_000))
	if id != eventstest.ID(9) || epoch != 4_000_000_000 || err != nil {
		t.Errorf("%v, %d, %v", id, epoch, err)
	}
	for _, bad := range []string{"", "watchword/", "watchword//audit/1", origin + "1x", origin[1:], strings.ToUpper(origin),
		strings.Replace(origin, "/1", "/01", 1), "watchword/" + eventstest.ID(9).String() + "/audit/4294967296"} {
		if id, epoch, err := proof.ParseOrigin(bad); !errors.Is(err, proof.ErrMalformed) || !id.IsZero() || epoch != 0 {
			t.Errorf("%q: %v, %d, %v", bad, id, epoch, err)
		}
	}
}

func TestGoldenHead(t *testing.T) {
	signed, p := cosigned(t, 21)
	golden(t, "head.txt", signed)
	golden(t, "keys.txt", []byte(p.Log.String()+"\n"+p.Witnesses[0].String()+"\n"+p.Witnesses[1].String()+"\n"))
	s, err := p.Open(signed)
	if err != nil || s.Head != (proof.Head{Origin: origin, Size: 21, Root: mth(lines(21))}) || len(s.Cosigned) != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	for i, c := range s.Cosigned {
		if c.Witness != p.Witnesses[i] || !c.At.Equal(eventstest.Epoch.Truncate(time.Second)) {
			t.Errorf("%v at %v", c.Witness, c.At)
		}
	}
	// The key of a log, as the note package reads it.
	if v, err := note.NewVerifier(p.Log.String()); err != nil || v.KeyHash() != p.Log.KeyHash() {
		t.Errorf("%v", err)
	}
}

// TestOpen: what is no head that the policy trusts.
func TestOpen(t *testing.T) {
	signed, p := cosigned(t, 21)
	h := proof.Head{Origin: origin, Size: 21, Root: mth(lines(21))}
	text := h.Text()
	signatures := strings.SplitAfter(string(signed[len(text)+1:]), "\n")
	foreign := must[*proof.Signer](t)(proof.NewLog("elsewhere", private(1)))
	extended := must[[]byte](t)(note.Sign(&note.Note{Text: text + "more\n"}, newLog(t)))
	longer := must[[]byte](t)(note.Sign(&note.Note{Text: text + "\n" + signatures[0]}, newLog(t)))
	tests := []struct {
		name   string
		signed string
		want   error // nil: it is taken
	}{
		{"as it was", string(signed), nil},
		{"a signature by somebody else", string(signed) + "— grease.invalid Ym9ndXM=\n", nil},
		{"a witness twice", string(signed) + signatures[1], nil},
		{"one witness short", text + "\n" + signatures[0] + signatures[1], proof.ErrUnproved},
		{"the same witness twice", text + "\n" + signatures[0] + signatures[1] + signatures[1], proof.ErrUnproved},
		{"without the log", text + "\n" + signatures[1] + signatures[2], proof.ErrUnproved},
		{"unsigned", text + "\n", proof.ErrMalformed},
		{"no signatures at all", text, proof.ErrMalformed},
		{"empty", "", proof.ErrMalformed},
		{"another size", strings.Replace(string(signed), "\n21\n", "\n22\n", 1), proof.ErrUnproved},
		{"another spelling of the size", strings.Replace(string(signed), "\n21\n", "\n021\n", 1), proof.ErrMalformed},
		{"a size beyond all", strings.Replace(string(signed), "\n21\n", "\n4611686018427387904\n", 1), proof.ErrMalformed},
		{"another origin", strings.Replace(string(signed), origin+"\n", "x\n", 1), proof.ErrUnproved},
		{"more lines", string(extended), proof.ErrMalformed},
		{"two blocks of signatures", text + "\n" + signatures[0] + "\n" + signatures[1], proof.ErrUnproved},
		{"a head in a longer text", string(longer), proof.ErrMalformed},
		{"carriage returns", strings.ReplaceAll(string(signed), "\n", "\r\n"), proof.ErrMalformed},
		{"of another log", string(must[[]byte](t)(proof.Sign(proof.Head{Origin: "elsewhere", Root: proof.EmptyRoot()}, foreign))), proof.ErrUnproved},
		{"endless", string(signed) + strings.Repeat("— a.invalid Ym9ndXM=\n", 4000), proof.ErrMalformed},
		{"too many signatures", string(signed) + strings.Repeat("— a.invalid Ym9ndXM=\n", 100), proof.ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := p.Open([]byte(tt.signed)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestPolicy: a policy that would count one witness twice is none.
func TestPolicy(t *testing.T) {
	log, w := newLog(t).Key(), newWitness(t, "w", 2).Key()
	again, likeLog := newWitness(t, "v", 2).Key(), newWitness(t, "u", 1).Key()
	for name, p := range map[string]proof.Policy{
		"no log":             {},
		"a witness as log":   {Log: w},
		"a log as witness":   {Log: log, Witnesses: []proof.Key{must[proof.Key](t)(proof.LogKey("x", private(5).Public().(ed25519.PublicKey)))}},
		"too high a quorum":  {Log: log, Witnesses: []proof.Key{w}, Quorum: 2},
		"a negative quorum":  {Log: log, Quorum: -1},
		"one key, two names": {Log: log, Witnesses: []proof.Key{w, again}, Quorum: 2},
		"the log's own key":  {Log: log, Witnesses: []proof.Key{likeLog}, Quorum: 1},
	} {
		if err := p.Check(); !errors.Is(err, proof.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (proof.Policy{Log: log, Witnesses: []proof.Key{w}, Quorum: 1}).Check(); err != nil {
		t.Error(err)
	}
}

// TestSigners: nobody signs for another, nor what is no head.
func TestSigners(t *testing.T) {
	log, w := newLog(t), newWitness(t, "w", 2)
	h := proof.Head{Origin: origin, Size: 1}
	for name, err := range map[string]error{
		"of another log":     second(proof.Sign(proof.Head{Origin: "x", Root: proof.EmptyRoot()}, log)),
		"a witness signs":    second(proof.Sign(h, w)),
		"a size beyond all":  second(proof.Sign(proof.Head{Origin: origin, Size: proof.MaxSize + 1}, log)),
		"a log cosigns":      second(proof.Cosign(must[[]byte](t)(proof.Sign(h, log)), log.Key(), log)),
		"a name with spaces": second(proof.NewLog("a b", private(1))),
		"half a key":         second(proof.NewLog("a", private(1)[:32])),
	} {
		if !errors.Is(err, proof.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	forged := must[*proof.Signer](t)(proof.NewLog(origin, private(8)))
	signed := must[[]byte](t)(proof.Sign(h, forged))
	if _, err := proof.Cosign(signed, log.Key(), w); !errors.Is(err, proof.ErrUnproved) {
		t.Errorf("cosigned what the log has not signed: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }
