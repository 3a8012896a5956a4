package receipt_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
)

var update = flag.Bool("update", false, "write the golden files that are missing")

// keyOf returns the key of a seed of one repeated byte.
func keyOf(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func publicOf(b byte) ed25519.PublicKey { return keyOf(b).Public().(ed25519.PublicKey) }

// examples are receipts that may have been sent by what runs somewhere.
func examples() map[string]receipt.Receipt {
	r := receipt.Receipt{
		Enforcer: eventstest.ID(9), Instance: "k3v9ax", Region: "eu <1> 東京", Kind: receipt.Revocation,
		Epoch: 2, Sequence: 41, Number: 77, Head: events.HashLine([]byte("the line")),
		Reader: 1, Bound: 5 * time.Minute,
		AppliedAt: eventstest.Epoch.Add(7 * time.Millisecond), SentAt: eventstest.Epoch.Add(9 * time.Millisecond),
	}
	bye := r
	bye.Kind, bye.Region, bye.Bound = receipt.Bye, "", 0
	hello := receipt.Receipt{
		Enforcer: eventstest.ID(9), Instance: strings.Repeat("z", receipt.MaxInstance), Kind: receipt.Progress,
		Reader: 3, Bound: 10 * time.Second, AppliedAt: eventstest.Epoch, SentAt: eventstest.Epoch,
	}
	first := r
	first.Kind = receipt.Hello
	return map[string]receipt.Receipt{"revocation": r, "bye": bye, "hello": hello, "first": first}
}

// TestGolden holds the form to its bytes: enforcers of other versions and in
// other languages write it. Files are added, never changed.
func TestGolden(t *testing.T) {
	for name, want := range examples() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name+".json")
			line, err := receipt.Sign(want, keyOf(7))
			if err != nil {
				t.Fatal(err)
			}
			file, err := os.ReadFile(path)
			if os.IsNotExist(err) && *update {
				file = append(bytes.Clone(line), '\n')
				err = os.WriteFile(path, file, 0o644)
			}
			if err != nil {
				t.Fatalf("%v (run with -update to add a file)", err)
			}
			if string(file) != string(line)+"\n" {
				t.Fatalf("Sign and the file differ:\n got %s\nwant %s", line, file)
			}
			got, err := receipt.Open(line, publicOf(7))
			if err != nil || got != want {
				t.Errorf("opened %+v, %v\nwant   %+v", got, err, want)
			}
			id, instance, err := receipt.ParseSubject(got.Subject())
			if err != nil || id != want.Enforcer || instance != want.Instance {
				t.Errorf("of the subject %s: %v, %s, %v", got.Subject(), id, instance, err)
			}
		})
	}
}

func TestSubject(t *testing.T) {
	r := examples()["revocation"]
	for _, c := range []struct {
		kind receipt.Kind
		want string
	}{
		{receipt.Hello, "ww.receipt." + r.Enforcer.String() + ".k3v9ax"},
		{receipt.Revocation, "ww.receipt." + r.Enforcer.String() + ".k3v9ax"},
		{receipt.Bye, "ww.receipt." + r.Enforcer.String() + ".k3v9ax"},
		{receipt.Progress, "ww.progress." + r.Enforcer.String() + ".k3v9ax"},
	} {
		if r.Kind = c.kind; r.Subject() != c.want {
			t.Errorf("%s: %s", c.kind, r.Subject())
		}
	}
	id := r.Enforcer.String()
	for _, s := range []string{
		"", "ww.receipt.", "ww.receipt." + id, "ww.receipt." + id + ".", "ww.receipt." + id + ".a.b",
		"ww.receipt." + id + ".A", "ww.receipt." + id + ".*", "ww.receipt.>", "ww.receipt." + strings.Repeat("A", 32) + ".a",
		"ww.event." + id + ".a", "xww.receipt." + id + ".a", "ww.receipt." + id + "." + strings.Repeat("a", 33),
	} {
		if _, _, err := receipt.ParseSubject(s); !errors.Is(err, receipt.ErrReceipt) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestForged changes each byte of a receipt, and more.
func TestForged(t *testing.T) {
	good, err := receipt.Sign(examples()["revocation"], keyOf(7))
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(what string, b []byte, key ed25519.PublicKey) {
		t.Helper()
		if r, err := receipt.Open(b, key); !errors.Is(err, receipt.ErrReceipt) || r != (receipt.Receipt{}) {
			t.Errorf("%s: opened %+v, %v", what, r, err)
		}
	}
	for i := range good {
		for _, bit := range []byte{1, 0x20, 0x80} {
			b := bytes.Clone(good)
			b[i] ^= bit
			refuse("byte "+string(good[i]), b, publicOf(7))
		}
	}
	refuse("another enforcer's key", good, publicOf(8))
	refuse("no key", good, nil)
	refuse("nothing", nil, publicOf(7))
	refuse("half", good[:len(good)/2], publicOf(7))
	refuse("something behind", append(bytes.Clone(good), ' '), publicOf(7))
	refuse("something before", append([]byte(" "), good...), publicOf(7))
	refuse("too long", append(bytes.Repeat([]byte(" "), receipt.MaxSize), good...), publicOf(7))

	// The holder of the key signs what is no receipt in its one form.
	body := string(good[:bytes.LastIndex(good, []byte(`,"signature"`))])
	for _, c := range [][2]string{
		{`"sequence":41`, `"sequence":41.0`},
		{`"sequence":41`, `"sequence":041`},
		{`"sequence":41`, `"sequence":41,"sequence":42`},
		{`"sequence":41`, `"sequence":-1`},
		{`"sequence":41`, `"sequence":9223372036854775808`},
		{`"sequence":41`, `"sequence":78`},
		{`"sequence":41`, `"sequence":0`},
		{`"number":77`, `"number":"77"`},
		{`"number":77`, `"number":77,"more":1`},
		{`"epoch":2`, `"epoch":0`},
		{`"epoch":2`, `"epoch":2147483648`},
		{`"kind":"revocation"`, `"kind":"praise"`},
		{`"instance":"k3v9ax"`, `"instance":""`},
		{`"instance":"k3v9ax"`, `"instance":"k3.v9ax"`},
		{`"instance":"k3v9ax"`, `"instance":"k3v9\u0061x"`},
		{`"region":"eu`, `"region":"\u0000`},
		{`"region":"eu`, `"region":"` + strings.Repeat("e", receipt.MaxRegion)},
		{`"reader":1`, `"reader":0`},
		{`"bound_ms":300000`, `"bound_ms":86400001`},
		{`"bound_ms":300000`, `"bound_ms":-1`},
		{`"bound_ms":300000`, `"bound_ms":9223372036854775807`},
		{`.007Z"`, `.007+00:00"`},
		{`.007Z"`, `.0070Z"`},
		{`"head":"`, `"head":"00`},
		{`{"enforcer"`, `{ "enforcer"`},
		{`{"enforcer":"`, `{"enforcer":"00`},
		{`{"enforcer"`, `["enforcer"`},
	} {
		changed := strings.Replace(body, c[0], c[1], 1)
		if changed == body {
			t.Fatalf("%s does not stand in %s", c[0], body)
		}
		refuse(c[1], sign("\xffwatchword.receipt.v1\n", changed), publicOf(7))
	}
	refuse("signed as NATS signs", sign("", body), publicOf(7))
	if b := sign("\xffwatchword.receipt.v1\n", body); !bytes.Equal(b, good) {
		t.Errorf("signed by hand:\n%s\n%s", b, good)
	}
}

// sign makes what Sign would have made of a body, right or wrong.
func sign(domain, body string) []byte {
	signature := ed25519.Sign(keyOf(7), []byte(domain+body))
	return []byte(body + `,"signature":"` + base64.StdEncoding.EncodeToString(signature) + `"}`)
}

// TestSignRefuses: nothing leaves that nobody would open.
func TestSignRefuses(t *testing.T) {
	for name, change := range map[string]func(r *receipt.Receipt){
		"no enforcer":  func(r *receipt.Receipt) { r.Enforcer = token.ID{} },
		"no instance":  func(r *receipt.Receipt) { r.Instance = "" },
		"no kind":      func(r *receipt.Receipt) { r.Kind = "" },
		"no reader":    func(r *receipt.Receipt) { r.Reader = 0 },
		"half a place": func(r *receipt.Receipt) { r.Head = events.Hash{} },
		"no ledger":    func(r *receipt.Receipt) { r.Epoch, r.Sequence, r.Number, r.Head = 0, 0, 0, events.Hash{} },
		"no time":      func(r *receipt.Receipt) { r.SentAt = time.Time{} },
		"bad region":   func(r *receipt.Receipt) { r.Region = "\xff" },
		"long bound":   func(r *receipt.Receipt) { r.Bound = receipt.MaxBound + 1 },
	} {
		r := examples()["revocation"]
		change(&r)
		if b, err := receipt.Sign(r, keyOf(7)); !errors.Is(err, receipt.ErrReceipt) {
			t.Errorf("%s: %s, %v", name, b, err)
		}
	}
}

// TestKeys reads keys that nkeys has written.
func TestKeys(t *testing.T) {
	for _, v := range []struct {
		fill         byte
		seed, public string
	}{
		{0, "SUAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEQ", "UA5WUJ54Z23KILLCUOUNAKTPBVZWKMQVO4O6EQ5GHLAERIMLLHNCTYM5"},
		{7, "SUAAOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBZ5FE", "UDVEU3DD4KOFECV66VIHWEZOYX4ZKR3WV27L464SIIPOU2IUI3JCYSJF"},
		{255, "SUAP777777777777777777777777777777777777777777777777775UUA", "UB3KCWJAISTOJ5IREZN4U45GATMQWBJJ2HPWAK7DBIM2SJLWMDI7LRYD"},
	} {
		private, err := receipt.ParseSeed(v.seed)
		if err != nil || !private.Equal(keyOf(v.fill)) || receipt.FormatSeed(private) != v.seed {
			t.Errorf("seed %d: %v", v.fill, err)
		}
		public, err := receipt.ParsePublic(v.public)
		if err != nil || !public.Equal(publicOf(v.fill)) || receipt.FormatPublic(public) != v.public {
			t.Errorf("public key %d: %v", v.fill, err)
		}
	}
	for _, bad := range []string{
		"", "U", "UA", strings.Repeat("A", 56), strings.Repeat("U", 1000),
		"UDVEU3DD4KOFECV66VIHWEZOYX4ZKR3WV27L464SIIPOU2IUI3JCYSJG",   // checksum
		"UDVEU3DD4KOFECV66VIHWEZOYX4ZKR3WV27L464SIIPOU2IUI3JCYSJ",    // short
		"udveu3dd4kofecv66vihwezoyx4zkr3wv27l464siipou2iui3jcysjf",   // lower case
		"UDVEU3DD4KOFECV66VIHWEZOYX4ZKR3WV27L464SIIPOU2IUI3JCYSJF\n", // a newline
		"ADVEU3DD4KOFECV66VIHWEZOYX4ZKR3WV27L464SIIPOU2IUI3JCZW22",   // an account's
		"SAAAOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOBYHA4DQOB6O4U", // its seed
	} {
		if _, err := receipt.ParsePublic(bad); err == nil {
			t.Errorf("public key %q", bad)
		}
		if _, err := receipt.ParseSeed(bad); err == nil {
			t.Errorf("seed %q", bad)
		}
	}
}

func TestNewInstance(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		r := examples()["hello"]
		r.Instance = receipt.NewInstance()
		if _, err := receipt.Sign(r, keyOf(7)); err != nil || seen[r.Instance] {
			t.Errorf("instance %q: %v", r.Instance, err)
		}
		seen[r.Instance] = true
	}
}

// FuzzOpen signs whatever it is given, as a dishonest enforcer could: what is
// opened is a receipt that Sign writes in the same bytes.
func FuzzOpen(f *testing.F) {
	for _, r := range examples() {
		b, err := receipt.Sign(r, keyOf(7))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:bytes.LastIndex(b, []byte(`,"signature"`))])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := receipt.Open(body, publicOf(7)); err == nil {
			t.Fatalf("without a signature: %+v", r)
		}
		line := sign("\xffwatchword.receipt.v1\n", string(body))
		r, err := receipt.Open(line, publicOf(7))
		if err != nil {
			if !errors.Is(err, receipt.ErrReceipt) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		again, err := receipt.Sign(r, keyOf(7))
		if err != nil || !bytes.Equal(again, line) {
			t.Fatalf("another form was taken: %v\n %s\n %s", err, line, again)
		}
	})
}

// FuzzParseKey: a key has one spelling.
func FuzzParseKey(f *testing.F) {
	f.Add(receipt.FormatPublic(publicOf(7)))
	f.Add(receipt.FormatSeed(keyOf(7)))
	f.Fuzz(func(t *testing.T, text string) {
		if key, err := receipt.ParsePublic(text); err == nil && receipt.FormatPublic(key) != text {
			t.Fatalf("%q is a public key", text)
		}
		if key, err := receipt.ParseSeed(text); err == nil && receipt.FormatSeed(key) != text {
			t.Fatalf("%q is a seed", text)
		}
	})
}
