package proof_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"watchword.dev/events/proof"
)

// inclusion proves line m of n.
func inclusion(t testing.TB, m, n int) (*proof.Inclusion, proof.Policy) {
	t.Helper()
	signed, p := cosigned(t, n)
	return &proof.Inclusion{Index: uint64(m), Hashes: path(m, lines(n)), Signed: signed}, p
}

// consistency proves that the tree of n lines extends that of m.
func consistency(t testing.TB, m, n int) (*proof.Consistency, proof.Policy, proof.Head) {
	t.Helper()
	signed, p := cosigned(t, n)
	old := proof.Head{Origin: origin, Size: uint64(m), Root: mth(lines(m))}
	c := &proof.Consistency{Old: uint64(m), Signed: signed}
	if m > 0 {
		c.Hashes = subproof(m, lines(n), true)
	}
	return c, p, old
}

func TestGoldenProofs(t *testing.T) {
	p, policy := inclusion(t, 13, 21)
	file := must[[]byte](t)(p.Encode())
	golden(t, "inclusion.tlog-proof", file)
	got := must[*proof.Inclusion](t)(proof.DecodeInclusion(file))
	s, err := got.Verify(policy, lines(21)[13])
	if err != nil || s.Size != 21 || len(s.Cosigned) != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	p.Extra = []byte("extra information")
	golden(t, "extra.tlog-proof", must[[]byte](t)(p.Encode()))

	c, policy, old := consistency(t, 13, 21)
	text := must[[]byte](t)(c.Encode())
	golden(t, "consistency.txt", text)
	if s, err := must[*proof.Consistency](t)(proof.DecodeConsistency(text)).Verify(policy, old); err != nil || s.Size != 21 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestVerifyNothingElse: a proof is of one line at one place.
func TestVerifyNothingElse(t *testing.T) {
	const n = 21
	for m := range n {
		p, policy := inclusion(t, m, n)
		for i, line := range lines(n) {
			if _, err := p.Verify(policy, line); (err == nil) != (i == m) || i != m && !errors.Is(err, proof.ErrUnproved) {
				t.Errorf("line %d by the proof of %d: %v", i, m, err)
			}
		}
		if _, err := p.Verify(policy, append(lines(n)[m], '\n')); !errors.Is(err, proof.ErrUnproved) {
			t.Errorf("with a newline: %v", err)
		}
		c, policy, old := consistency(t, m, n)
		if _, err := c.Verify(policy, old); err != nil {
			t.Errorf("from %d to %d: %v", m, n, err)
		}
		for name, other := range map[string]proof.Head{
			"another size":   {Origin: old.Origin, Size: old.Size + 1, Root: old.Root},
			"another origin": {Origin: "x", Size: old.Size, Root: old.Root},
			"another root":   {Origin: old.Origin, Size: old.Size, Root: proof.LeafHash(nil)},
		} {
			if _, err := c.Verify(policy, other); !errors.Is(err, proof.ErrUnproved) {
				t.Errorf("from %d, %s: %v", m, name, err)
			}
		}
	}
}

// TestEveryBit flips each bit of two proofs: it must be refused as soon as it is
// in what the log or a witness of the policy has signed, or in the proof.
func TestEveryBit(t *testing.T) {
	p, policy := inclusion(t, 13, 21)
	file := must[[]byte](t)(p.Encode())
	c, _, old := consistency(t, 13, 21)
	text := must[[]byte](t)(c.Encode())
	line := lines(21)[13]
	for i := range 8 * len(file) {
		b := bytes.Clone(file)
		b[i/8] ^= 1 << (i % 8)
		got, err := proof.DecodeInclusion(b)
		if err == nil {
			_, err = got.Verify(policy, line)
		}
		if !errors.Is(err, proof.ErrMalformed) && !errors.Is(err, proof.ErrUnproved) {
			// A bit that base64 does not use changes nothing that is signed.
			if !sameSignatures(p.Signed, got.Signed) {
				t.Errorf("bit %d of byte %d (%q): %v", i%8, i/8, file[i/8], err)
			}
		}
	}
	for i := range 8 * len(text) {
		b := bytes.Clone(text)
		b[i/8] ^= 1 << (i % 8)
		got, err := proof.DecodeConsistency(b)
		if err == nil {
			_, err = got.Verify(policy, old)
		}
		if !errors.Is(err, proof.ErrMalformed) && !errors.Is(err, proof.ErrUnproved) && !sameSignatures(c.Signed, got.Signed) {
			t.Errorf("bit %d of byte %d (%q): %v", i%8, i/8, text[i/8], err)
		}
	}
}

// sameSignatures says whether two notes differ at most in how their signatures
// are spelled.
func sameSignatures(a, b []byte) bool {
	x, y := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		if x[i] == y[i] {
			continue
		}
		p, q := x[i][strings.LastIndex(x[i], " ")+1:], y[i][strings.LastIndex(y[i], " ")+1:]
		m, err1 := base64.StdEncoding.DecodeString(p)
		n, err2 := base64.StdEncoding.DecodeString(q)
		if i < 4 || err1 != nil || err2 != nil || !bytes.Equal(m, n) {
			return false
		}
	}
	return true
}

// TestDecodeInclusion: a proof has one form.
func TestDecodeInclusion(t *testing.T) {
	p, _ := inclusion(t, 13, 21)
	file := string(must[[]byte](t)(p.Encode()))
	hash := p.Hashes[0].String() + "\n"
	replace := func(old, new string) string { return strings.Replace(file, old, new, 1) }
	for name, bad := range map[string]string{
		"empty":                  "",
		"another format":         replace("@v1", "@v2"),
		"no index":               replace("index 13\n", ""),
		"another spelling":       replace("index 13", "index 013"),
		"a sign":                 replace("index 13", "index +13"),
		"no number":              replace("index 13", "index x"),
		"behind the tree":        replace("index 13", "index 21"),
		"beyond all":             replace("index 13", "index 18446744073709551616"),
		"empty extra":            replace("index", "extra \nindex"),
		"extra without base64":   replace("index", "extra !!\nindex"),
		"extra with a line":      replace("index", "extra YQ\n==\nindex"),
		"extra, carriage return": replace("index", "extra YQ\r==\nindex"),
		"extra, loose bits":      replace("index", "extra YR==\nindex"),
		"extra after the index":  replace("index 13\n", "index 13\nextra YQ==\n"),
		"too much extra":         replace("index", "extra "+strings.Repeat("YWFh", proof.MaxExtra/3+1)+"\nindex"),
		"a short hash":           replace(hash, hash[4:]),
		"a hash without base64":  replace(hash, "!"+hash[1:]),
		"a hash, loose bits":     replace(hash, hash[:42]+string(hash[42]+1)+"=\n"),
		"too many hashes":        replace(hash, strings.Repeat(hash, proof.MaxHashes+1)),
		"endless hashes":         replace(hash, strings.Repeat(hash, 10000)),
		"no head":                file[:strings.Index(file, "\n\n")+2],
		"no end":                 file[:strings.Index(file, "\n\n")+1],
		"carriage returns":       strings.ReplaceAll(file, "\n", "\r\n"),
		"a space":                replace("index 13", "index  13"),
		"something before":       " " + file,
	} {
		if got, err := proof.DecodeInclusion([]byte(bad)); !errors.Is(err, proof.ErrMalformed) || got != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// As the format's own library writes it, around a head.
	for _, good := range []string{replace("index", "extra ZXh0cmEgaW5mb3JtYXRpb24=\nindex"), replace("index 13", "index 0")} {
		if _, err := proof.DecodeInclusion([]byte(good)); err != nil {
			t.Errorf("%v\n%s", err, good)
		}
	}
	if _, err := (&proof.Inclusion{Index: 21, Signed: p.Signed}).Encode(); !errors.Is(err, proof.ErrMalformed) {
		t.Errorf("encoded a leaf behind the tree: %v", err)
	}
}

func TestDecodeConsistency(t *testing.T) {
	c, _, _ := consistency(t, 13, 21)
	text := string(must[[]byte](t)(c.Encode()))
	hash := c.Hashes[0].String() + "\n"
	replace := func(old, new string) string { return strings.Replace(text, old, new, 1) }
	for name, bad := range map[string]string{
		"empty":            "",
		"no old size":      replace("old 13\n", ""),
		"another spelling": replace("old 13", "old 013"),
		"not older":        replace("old 13", "old 22"),
		"too many hashes":  replace(hash, strings.Repeat(hash, proof.MaxHashes+1)),
		"no head":          text[:strings.Index(text, "\n\n")+2],
		"more in the head": replace("\n21\n", "\n21\n21\n"),
	} {
		if got, err := proof.DecodeConsistency([]byte(bad)); !errors.Is(err, proof.ErrMalformed) || got != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// TestProofSize: a proof in a tree of a million fits in 2 KiB.
func TestProofSize(t *testing.T) {
	p, _ := inclusion(t, 13, 21)
	p.Hashes = make([]proof.Hash, 20)
	if file := must[[]byte](t)(p.Encode()); len(file) > 2048 {
		t.Errorf("%d bytes", len(file))
	}
}

func FuzzDecodeInclusion(f *testing.F) {
	for _, m := range []int{0, 13, 20} {
		p, _ := inclusion(f, m, 21)
		f.Add(must[[]byte](f)(p.Encode()))
		p.Extra = []byte("x")
		f.Add(must[[]byte](f)(p.Encode()))
	}
	one, policy := inclusion(f, 0, 1)
	f.Add(must[[]byte](f)(one.Encode()))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := proof.DecodeInclusion(b)
		if err != nil {
			if !errors.Is(err, proof.ErrMalformed) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if again, err := p.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("another form was taken: %v\n%s\n%s", err, b, again)
		}
		if _, err := p.Verify(policy, []byte("not a line")); err == nil {
			t.Fatal("what is not there was proved")
		}
	})
}

func FuzzDecodeConsistency(f *testing.F) {
	for _, m := range []int{0, 1, 13, 21} {
		c, _, _ := consistency(f, m, 21)
		f.Add(must[[]byte](f)(c.Encode()))
	}
	_, policy := cosigned(f, 21)
	other := proof.Head{Origin: origin, Size: 13, Root: proof.LeafHash(nil)}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := proof.DecodeConsistency(b)
		if err != nil {
			if !errors.Is(err, proof.ErrMalformed) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if again, err := c.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("another form was taken: %v\n%s\n%s", err, b, again)
		}
		if _, err := c.Verify(policy, other); err == nil {
			t.Fatal("the head of another tree was extended")
		}
	})
}

func FuzzOpen(f *testing.F) {
	signed, policy := cosigned(f, 21)
	f.Add(signed)
	f.Add([]byte("a\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— a AAAAAAAA\n"))
	want, err := policy.Open(signed)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := policy.Open(b)
		switch {
		case err == nil && s.Head != want.Head:
			t.Fatalf("a head that nobody signed: %+v", s)
		case err != nil && !errors.Is(err, proof.ErrMalformed) && !errors.Is(err, proof.ErrUnproved):
			t.Fatalf("an error of no kind: %v", err)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	_, policy := cosigned(f, 21)
	f.Add(policy.Log.String())
	f.Add(policy.Witnesses[0].String())
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := proof.ParseKey(text); err == nil && k.String() != text {
			t.Fatalf("another form was taken: %q, %q", text, k)
		}
	})
}
