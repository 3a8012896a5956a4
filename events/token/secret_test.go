package token

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"
)

var kinds = []Kind{KindUser, KindAccount, KindEnforcer, KindConsumer, KindKey}

// Fixed secrets, whose checksums were computed with zlib's CRC-32: a change of
// the format is a break with every secret that is out there.
var knownSecrets = map[string]Kind{
	"wwu_0000000000000000000000000000000000000001Oexk":     KindUser,
	"wwa_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZab1rhz2c":     KindAccount,
	"wwk_0123456789abcdef0123456789abcdef0123456711beac58": KindKey,
}

func TestSecretForms(t *testing.T) {
	// What each client asks of a credential.
	token := regexp.MustCompile(`^[0-9A-Za-z_-]{40,50}$`)
	key := regexp.MustCompile(`^[0-9A-Za-z_-]{37,60}$`)
	keyRun := regexp.MustCompile(`[0-9a-f]{37}`)
	for _, brand := range []string{"", "ww", "abc", "abcd"} {
		f := Format{Brand: brand}
		for _, k := range kinds {
			s, err := f.Generate(k)
			if err != nil {
				t.Fatal(err)
			}
			text := s.Reveal()
			if k == KindKey {
				if !key.MatchString(text) || !keyRun.MatchString(text) {
					t.Errorf("%v: %d characters are no key", k, len(text))
				}
			} else if !token.MatchString(text) || brand == "" && len(text) != 48 {
				t.Errorf("%v: %d characters are no token", k, len(text))
			}
			if !strings.HasPrefix(text, f.Prefix(k)) {
				t.Errorf("%v: prefix", k)
			}
			if got, err := f.Parse(text); err != nil || got != k {
				t.Errorf("%v: parsed as %v, %v", k, got, err)
			}
			if got, err := f.ParseBytes([]byte(text)); err != nil || got != k {
				t.Errorf("%v: parsed bytes as %v, %v", k, got, err)
			}
			if _, err := (Format{Brand: "zz"}).Parse(text); err == nil {
				t.Errorf("%v: another brand takes it", k)
			}
		}
	}
}

// TestSecretTypos: every changed character, every cut and every addition is
// noticed without a look-up.
func TestSecretTypos(t *testing.T) {
	var f Format
	for _, k := range kinds {
		s, err := f.Generate(k)
		if err != nil {
			t.Fatal(err)
		}
		good := s.Reveal()
		for i := range len(good) {
			for c := range 256 {
				bad := []byte(good)
				if bad[i] = byte(c); string(bad) == good {
					continue
				}
				// Another kind has another checksum: the prefix is under it.
				if _, err := f.ParseBytes(bad); err == nil {
					t.Fatalf("%v: byte %d changed to %#x passes", k, i, c)
				}
			}
			if _, err := f.Parse(good[:i]); err == nil {
				t.Errorf("%v: cut at %d passes", k, i)
			}
		}
		for _, bad := range []string{good + "0", " " + good, good + "\n", good + "\x00", "Bearer " + good, strings.ToUpper(good), good + good} {
			if _, err := f.Parse(bad); err == nil {
				t.Errorf("%v: a form that was not made passes", k)
			}
		}
	}
	if _, err := f.Parse("wwx_" + strings.Repeat("0", 44)); err == nil {
		t.Error("unknown kind passes")
	}
}

// TestSecretChecksumOverflow: six base62 digits hold more than 32 bits; only
// one of the numbers that are equal in 32 bits is the checksum.
func TestSecretChecksumOverflow(t *testing.T) {
	body := "wwu_" + strings.Repeat("A", bodyLen)
	n := uint64(crc32.ChecksumIEEE([]byte(body))) + 1<<32
	var d [sumLen]byte
	for i := sumLen - 1; i >= 0; i-- {
		d[i] = alphabet[n%62]
		n /= 62
	}
	if _, err := (Format{}).Parse(body + string(d[:])); err == nil {
		t.Error("a checksum beyond 32 bits passes")
	}
}

func TestGenerateRefuses(t *testing.T) {
	for _, brand := range []string{"w", "abcde", "WW", "w1", "w_", "wé"} {
		if _, err := (Format{Brand: brand}).Generate(KindUser); err == nil {
			t.Errorf("brand %q passes", brand)
		}
	}
	for _, k := range []Kind{0, 'x', '_'} {
		if _, err := (Format{}).Generate(k); err == nil {
			t.Errorf("kind %q passes", k)
		}
	}
	for _, k := range kinds {
		if _, err := (Format{}).generate(k, noRandomness{}); err == nil {
			t.Errorf("%v: made of nothing", k)
		}
	}
}

// counter gives every byte value equally often.
type counter byte

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(*c)
		*c++
	}
	return len(p), nil
}

// TestBase62Unbiased: equally likely bytes make equally likely characters.
func TestBase62Unbiased(t *testing.T) {
	var c counter
	b, err := appendBase62(nil, 62*4*10, &c)
	if err != nil {
		t.Fatal(err)
	}
	count := map[byte]int{}
	for _, x := range b {
		count[x]++
	}
	for i := range len(alphabet) {
		if count[alphabet[i]] != 40 {
			t.Errorf("%c comes %d times, want 40", alphabet[i], count[alphabet[i]])
		}
	}
}

// TestSecretNeverPrints: no verb, no marshaller and no logger shows more than
// the prefix, not even of a secret in an unexported field.
func TestSecretNeverPrints(t *testing.T) {
	for _, k := range kinds {
		s, err := (Format{}).Generate(k)
		if err != nil {
			t.Fatal(err)
		}
		body := s.Reveal()[4:]
		type hidden struct{ secret Secret }
		type shown struct{ Secret Secret }
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%t"} {
			fmt.Fprintf(&out, verb+"\n", s)
			fmt.Fprintf(&out, verb+"\n", &s)
			fmt.Fprintf(&out, verb+"\n", hidden{s})
			fmt.Fprintf(&out, verb+"\n", shown{s})
			fmt.Fprintf(&out, verb+"\n", []Secret{s})
			fmt.Fprintf(&out, verb+"\n", map[string]Secret{"s": s})
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "s", s, "h", hidden{s}, "w", shown{s})
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "s", s, "w", shown{s})
		for _, v := range []any{s, &s, shown{s}, map[string]any{"s": s}} {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			out.Write(b)
		}
		printed := out.String()
		// Fewer characters would stand in a pointer by chance now and then.
		if n := len(body); strings.Contains(printed, body[:8]) || strings.Contains(printed, body[n-8:]) ||
			strings.Contains(strings.ToLower(printed), hex.EncodeToString([]byte(body[:8]))) {
			t.Errorf("%v: printed:\n%s", k, printed)
		}
		if want := (Format{}).Prefix(k) + "…"; s.String() != want || !strings.Contains(printed, want) {
			t.Errorf("%v: the prefix helps to tell secrets apart and is missing", k)
		}
	}
	for _, foreign := range []string{"", "hunter2", "hunter2_with_more", "ABC_def", "aaaaaaaaaaaaaaaa_", "x_y"} {
		if got := NewSecret(foreign).String(); got != "…" {
			t.Errorf("foreign secret prints %q", got)
		}
	}
	if s := (Secret{}); s.String() != "…" || s.Reveal() != "" || !s.IsZero() {
		t.Error("zero secret")
	}
}

func TestDigest(t *testing.T) {
	const secret = "wwu_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh"
	want := sha256.Sum256([]byte("wwd1\x00" + secret))
	for _, d := range []Digest{Sum(secret), Sum([]byte(secret)), NewSecret(secret).Digest()} {
		if d != Digest(want) {
			t.Errorf("got %v", d)
		}
	}
	d := Sum(secret)
	if d.String() != "d1:"+hex.EncodeToString(want[:]) || d.IsZero() {
		t.Errorf("got %v", d)
	}
	var back Digest
	if err := back.UnmarshalText([]byte(d.String())); err != nil || back != d {
		t.Errorf("got %v, %v", back, err)
	}
	for _, bad := range []string{"", "d1:", d.String()[1:], d.String() + "0", "d0" + d.String()[2:], "D1" + d.String()[2:], "d1:" + strings.ToUpper(d.String()[3:]), d.String()[:66] + "g"} {
		if err := new(Digest).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
	// Longer than any secret of ours: still the same function.
	for n := range 300 {
		long := strings.Repeat("x", n)
		if Sum(long) != Digest(sha256.Sum256([]byte("wwd1\x00"+long))) {
			t.Fatalf("length %d differs", n)
		}
	}
}

// TestDigestOneBlock: prefix and the longest token leave room for the padding
// of one block, nine bytes.
func TestDigestOneBlock(t *testing.T) {
	longest := 4 + len("u_") + bodyLen + sumLen
	if len(digestPrefix) > 7 || len(digestPrefix)+longest+9 > sha256.BlockSize {
		t.Errorf("prefix %d and secret %d do not fit one block", len(digestPrefix), longest)
	}
}

func FuzzParseSecret(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		var format Format
		k, err := format.Parse(s)
		k2, err2 := format.ParseBytes([]byte(s))
		if k != k2 || err != err2 {
			t.Fatalf("string says %v, %v, bytes say %v, %v", k, err, k2, err2)
		}
		if got, want := err == nil, slowWellFormed(s); got != want {
			t.Fatalf("%q: well-formed %v, want %v", s, got, want)
		}
		if err == nil && !strings.HasPrefix(s, format.Prefix(k)) {
			t.Fatalf("%q is no %v", s, k)
		}
	})
}

// slowWellFormed is the format as its description tells it.
func slowWellFormed(s string) bool {
	if regexp.MustCompile(`\Awwk_[0-9a-f]{48}\z`).MatchString(s) {
		return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(s[:44]))) == s[44:]
	}
	if !regexp.MustCompile(`\Aww[uaec]_[0-9A-Za-z]{44}\z`).MatchString(s) {
		return false
	}
	sum, digits := crc32.ChecksumIEEE([]byte(s[:42])), ""
	for range 6 {
		digits = string(alphabet[sum%62]) + digits
		sum /= 62
	}
	return s[42:] == digits
}

func TestKnownSecrets(t *testing.T) {
	for s, want := range knownSecrets {
		if k, err := (Format{}).Parse(s); err != nil || k != want {
			t.Errorf("%s: got %v, %v", s, k, err)
		}
	}
}
