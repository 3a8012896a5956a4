package keyring_test

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/keyring"
	"watchword.dev/services/internal/keyring/keyringtest"
)

var (
	alice = token.ID{1, 2, 3}
	bob   = token.ID{4, 5, 6}
)

func open(t *testing.T, s keyring.Store, m keyring.Master) *keyring.Keyring {
	t.Helper()
	k, err := keyring.Open(t.Context(), s, m)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seal(t *testing.T, k *keyring.Keyring, person token.ID, text string) events.Sealed {
	t.Helper()
	s, err := k.Seal(t.Context(), person, text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSealed checks that a field comes back as it was on any node, also after
// it went through JSON, and that equal texts never look equal.
func TestSealed(t *testing.T) {
	store, master := &keyringtest.Memory{}, keyring.NewMaster()
	k, other := open(t, store, master), open(t, store, master)
	seen := map[string]bool{}
	for _, text := range []string{"", "a@example.com", "a@example.com", "näme\x00\r\n", strings.Repeat("x", keyring.MaxFieldBytes)} {
		s := seal(t, k, alice, text)
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if text != "" && strings.Contains(string(b), text) {
			t.Errorf("%s holds the text", b)
		}
		if seen[string(s.Ciphertext)] || seen[string(s.Nonce)] {
			t.Errorf("%q: a ciphertext or nonce came twice", text)
		}
		seen[string(s.Ciphertext)], seen[string(s.Nonce)] = true, true
		var back events.Sealed
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		got, err := other.Unseal(t.Context(), back)
		if err != nil || got != text {
			t.Errorf("got %q, %v; want %q", got, err, text)
		}
	}
	if _, err := k.Seal(t.Context(), alice, strings.Repeat("x", keyring.MaxFieldBytes+1)); err == nil {
		t.Error("a field of any length was taken")
	}
}

// TestChanged checks that no bit of a sealed field can be changed, nor a field
// be moved to another person.
func TestChanged(t *testing.T) {
	k := open(t, &keyringtest.Memory{}, keyring.NewMaster())
	s, b := seal(t, k, alice, "a@example.com"), seal(t, k, bob, "b@example.com")
	for name, bad := range map[string]events.Sealed{
		"other person":   {Key: b.Key, Nonce: s.Nonce, Ciphertext: s.Ciphertext},
		"other nonce":    {Key: s.Key, Nonce: b.Nonce, Ciphertext: s.Ciphertext},
		"short nonce":    {Key: s.Key, Nonce: s.Nonce[:8], Ciphertext: s.Ciphertext},
		"no nonce":       {Key: s.Key, Ciphertext: s.Ciphertext},
		"cut":            {Key: s.Key, Nonce: s.Nonce, Ciphertext: s.Ciphertext[:10]},
		"no ciphertext":  {Key: s.Key, Nonce: s.Nonce},
		"no key":         {Nonce: s.Nonce, Ciphertext: s.Ciphertext},
		"key upper case": {Key: strings.ToUpper(b.Key), Nonce: s.Nonce, Ciphertext: s.Ciphertext},
		"key with more":  {Key: s.Key + "0", Nonce: s.Nonce, Ciphertext: s.Ciphertext},
		"key wild":       {Key: ">." + s.Key[33:], Nonce: s.Nonce, Ciphertext: s.Ciphertext},
		"check record":   {Key: "master", Nonce: s.Nonce, Ciphertext: s.Ciphertext},
	} {
		if text, err := k.Unseal(t.Context(), bad); !errors.Is(err, keyring.ErrSealed) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	for bit := range 8 * len(s.Ciphertext) {
		bad := s
		bad.Ciphertext = append([]byte(nil), s.Ciphertext...)
		bad.Ciphertext[bit/8] ^= 1 << (bit % 8)
		if text, err := k.Unseal(t.Context(), bad); !errors.Is(err, keyring.ErrSealed) {
			t.Fatalf("bit %d: %q, %v", bit, text, err)
		}
	}
}

// TestErased checks that an erased person's fields are lost on every node, at
// once here and within CacheAge there, that others keep theirs, and that a
// later key of the same person does not bring them back.
func TestErased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, master := &keyringtest.Memory{}, keyring.NewMaster()
		here, there := open(t, store, master), open(t, store, master)
		s, b := seal(t, here, alice, "a@example.com"), seal(t, here, bob, "b@example.com")
		if _, err := there.Unseal(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if err := here.Erase(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		if err := here.Erase(t.Context(), alice); err != nil {
			t.Errorf("erased twice: %v", err)
		}
		if _, err := here.Unseal(t.Context(), s); !errors.Is(err, keyring.ErrErased) {
			t.Errorf("here: %v", err)
		}
		time.Sleep(keyring.CacheAge)
		if _, err := there.Unseal(t.Context(), s); !errors.Is(err, keyring.ErrErased) {
			t.Errorf("there: %v", err)
		}
		if text, err := there.Show(t.Context(), s); err != nil || text != keyring.Erased {
			t.Errorf("shown: %q, %v", text, err)
		}
		if text, err := there.Show(t.Context(), b); err != nil || text != "b@example.com" {
			t.Errorf("another person: %q, %v", text, err)
		}
		again := seal(t, there, alice, "new@example.com")
		if text, err := here.Unseal(t.Context(), again); err != nil || text != "new@example.com" {
			t.Errorf("sealed after the erasure: %q, %v", text, err)
		}
		if _, err := here.Unseal(t.Context(), s); !errors.Is(err, keyring.ErrErased) {
			t.Errorf("a new key opened an old field: %v", err)
		}
	})
}

// TestCache checks that a key is looked up once in CacheAge, and that the
// cache is bounded.
func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &keyringtest.Memory{}
		k := open(t, store, keyring.NewMaster())
		s := seal(t, k, alice, "a")
		before := store.Gets()
		for range 100 {
			if _, err := k.Unseal(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		if n := store.Gets() - before; n != 0 {
			t.Errorf("%d look-ups within the age", n)
		}
		time.Sleep(keyring.CacheAge)
		for range 100 {
			if _, err := k.Unseal(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		if n := store.Gets() - before; n != 1 {
			t.Errorf("%d look-ups after the age", n)
		}
		for i := range 5000 {
			seal(t, k, token.ID{9, byte(i), byte(i >> 8)}, "x")
		}
		if n := k.Cached(); n > 4096 {
			t.Errorf("%d keys cached", n)
		}
	})
}

// TestRace checks that nodes that seal for a new person at once end with one
// key: each can open what any has sealed.
func TestRace(t *testing.T) {
	store, master := &keyringtest.Memory{}, keyring.NewMaster()
	var rings []*keyring.Keyring
	for range 8 {
		rings = append(rings, open(t, store, master))
	}
	sealed := make([]events.Sealed, len(rings))
	var wg sync.WaitGroup
	for i, k := range rings {
		wg.Go(func() {
			var err error
			if sealed[i], err = k.Seal(t.Context(), alice, fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, s := range sealed {
		for _, k := range rings {
			if got, err := k.Unseal(t.Context(), s); err != nil || got != fmt.Sprint(i) {
				t.Errorf("field %d: %q, %v", i, got, err)
			}
		}
	}
}

// unanswered is a store whose Create is done and not answered.
type unanswered struct{ *keyringtest.Memory }

func (u unanswered) Create(ctx context.Context, name string, value []byte) error {
	if err := u.Memory.Create(ctx, name, value); err != nil {
		return err
	}
	return context.DeadlineExceeded
}

// refused is a store whose Create is not done.
type refused struct{ *keyringtest.Memory }

func (refused) Create(context.Context, string, []byte) error { return context.DeadlineExceeded }

// TestStoreFails checks both ways in which a Create can fail: no field is
// sealed under a key that may not be there, and the next try works.
func TestStoreFails(t *testing.T) {
	for _, tt := range []struct {
		name string
		fail func(*keyringtest.Memory) keyring.Store
	}{
		{"not done", func(m *keyringtest.Memory) keyring.Store { return refused{m} }},
		{"done, not answered", func(m *keyringtest.Memory) keyring.Store { return unanswered{m} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store, master := &keyringtest.Memory{}, keyring.NewMaster()
			good := open(t, store, master)
			bad := open(t, broken{tt.fail(store), store}, master)
			if s, err := bad.Seal(t.Context(), alice, "a"); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("sealed %v, %v", s, err)
			}
			s := seal(t, good, alice, "a")
			if got, err := bad.Unseal(t.Context(), s); err != nil || got != "a" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// broken lets the check record through to the good store.
type broken struct {
	keyring.Store
	good *keyringtest.Memory
}

func (b broken) Create(ctx context.Context, name string, value []byte) error {
	if name == "master" {
		return b.good.Create(ctx, name, value)
	}
	return b.Store.Create(ctx, name, value)
}

// TestWrongMaster checks that a bucket opens under its own master key only,
// and that a changed key of the bucket is refused.
func TestWrongMaster(t *testing.T) {
	store, master := &keyringtest.Memory{}, keyring.NewMaster()
	s := seal(t, open(t, store, master), alice, "a")
	if _, err := keyring.Open(t.Context(), store, keyring.NewMaster()); !errors.Is(err, keyring.ErrMaster) {
		t.Errorf("another master key: %v", err)
	}
	store.Corrupt(alice.String(), 8*20)
	if text, err := open(t, store, master).Unseal(t.Context(), s); !errors.Is(err, keyring.ErrMaster) {
		t.Errorf("a changed key: %q, %v", text, err)
	}
}

// TestDerived checks derived keys against fixed values: they must never
// change, because look-ups and signatures in the ledger rest on them.
func TestDerived(t *testing.T) {
	m, err := keyring.ParseMaster([]byte(strings.Repeat("01", 32) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	k := open(t, &keyringtest.Memory{}, m)
	got := fmt.Sprintf("email  %s\npulse  %x\nrequest %x\naudit  %x\n",
		k.EmailIndex("a@example.com"), k.PulseKey().Public(), k.RequestKey(), k.AuditKey().Public())
	want, err := os.ReadFile("testdata/derived.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("derived keys changed\n got %s\nwant %s", got, want)
	}
	for _, same := range []string{"A@Example.COM", " a@example.com\n", "a@example.com"} {
		if k.EmailIndex(same) != k.EmailIndex("a@example.com") {
			t.Errorf("%q has another index", same)
		}
	}
	if k.EmailIndex("b@example.com") == k.EmailIndex("a@example.com") {
		t.Error("two addresses have one index")
	}
	other := open(t, &keyringtest.Memory{}, keyring.NewMaster())
	if other.EmailIndex("a@example.com") == k.EmailIndex("a@example.com") {
		t.Error("the index does not depend on the master key")
	}
	msg := []byte("pulse")
	if !ed25519.Verify(k.PulseKey().Public().(ed25519.PublicKey), msg, ed25519.Sign(k.PulseKey(), msg)) {
		t.Error("the pulse key does not sign")
	}
}

// TestMasterFile checks that the file is made once, private, and that no other
// is taken.
func TestMasterFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	if _, err := keyring.LoadMaster(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	masters := make([]keyring.Master, 8)
	var wg sync.WaitGroup
	for i := range masters {
		wg.Go(func() {
			var err error
			if masters[i], err = keyring.EnsureMaster(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, m := range masters {
		if m != masters[0] {
			t.Error("two processes made two keys")
		}
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{
		fmt.Sprint(masters[0]), fmt.Sprintf("%v %+v %#v %x %s %d", masters[0], masters[0], masters[0], masters[0], masters[0], masters[0]),
	} {
		if strings.Contains(printed, string(text[:16])) || !strings.Contains(printed, "[master key]") {
			t.Errorf("a master key prints as %q", printed)
		}
	}
	for name, bad := range map[string]string{
		"empty": "", "short": "00ff", "not hex": strings.Repeat("zz", 32), "zeros": strings.Repeat("00", 32),
		"long": strings.Repeat("01", 33), "binary": string(make([]byte, 32)),
	} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := keyring.EnsureMaster(path); err == nil {
			t.Errorf("%s: taken", name)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != bad {
			t.Errorf("%s: the file was replaced", name)
		}
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o660} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := keyring.LoadMaster(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if _, err := hex.DecodeString(strings.TrimSpace(string(text))); err != nil {
		t.Error(err)
	}
}

// FuzzUnseal checks that no field makes Unseal do anything but refuse.
func FuzzUnseal(f *testing.F) {
	store, master := &keyringtest.Memory{}, keyring.NewMaster()
	k, err := keyring.Open(f.Context(), store, master)
	if err != nil {
		f.Fatal(err)
	}
	s, err := k.Seal(f.Context(), alice, "a@example.com")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Key, s.Nonce, s.Ciphertext)
	f.Add("", []byte{}, []byte{})
	f.Add(strings.Repeat("0", 32)+".00000000", make([]byte, 12), make([]byte, 16))
	f.Add(alice.String()+".ffffffff", s.Nonce, s.Ciphertext)
	f.Add("$KV.>", s.Nonce, s.Ciphertext)
	f.Fuzz(func(t *testing.T, key string, nonce, ct []byte) {
		got, err := k.Unseal(t.Context(), events.Sealed{Key: key, Nonce: nonce, Ciphertext: ct})
		switch {
		case err == nil:
			if got != "a@example.com" || key != s.Key || string(nonce) != string(s.Nonce) || string(ct) != string(s.Ciphertext) {
				t.Errorf("opened %q", got)
			}
		case !errors.Is(err, keyring.ErrSealed) && !errors.Is(err, keyring.ErrErased):
			t.Errorf("%v", err)
		}
	})
}
