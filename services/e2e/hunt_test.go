package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// hunt looks for secrets in every byte of files: as they are, in hexadecimal
// and in base64. It looks for the random part alone: a compressor may have
// written the prefix, which all secrets share, as a reference to another one.
// It cannot compress random characters away.
type hunt struct{ forms map[string][]byte }

func newHunt(secrets []string) *hunt {
	h := &hunt{map[string][]byte{}}
	for n, s := range secrets {
		core := []byte(s[strings.IndexByte(s, '_')+1:])
		core = core[:len(core)-8] // without the checksum
		add := func(name string, b []byte) { h.forms[fmt.Sprintf("secret %d %s", n, name)] = b }
		add("raw", core)
		add("hex", []byte(hex.EncodeToString(core)))
		add("HEX", bytes.ToUpper([]byte(hex.EncodeToString(core))))
		// Where it begins within a group of three bytes decides its base64.
		for shift := range 3 {
			whole := core[shift : shift+(len(core)-shift)/3*3]
			add(fmt.Sprintf("base64+%d", shift), []byte(base64.StdEncoding.EncodeToString(whole)))
			add(fmt.Sprintf("base64url+%d", shift), []byte(base64.URLEncoding.EncodeToString(whole)))
		}
	}
	return h
}

// find returns the name of a form that stands in b, or "".
func (h *hunt) find(b []byte) string {
	for name, form := range h.forms {
		if bytes.Contains(b, form) {
			return name
		}
	}
	return ""
}

// dir looks into every file below root, and into every row of the Pebble
// stores there: their blocks may be compressed.
func (h *hunt) dir(root string) (found []string, err error) {
	files := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if form := h.find([]byte(d.Name())); form != "" {
			found = append(found, rel+": "+form)
		}
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if form := h.find(b); form != "" {
			found = append(found, rel+": "+form)
		}
		if strings.HasPrefix(d.Name(), "OPTIONS-") {
			form, err := h.store(filepath.Dir(path))
			if err != nil {
				return err
			}
			if form != "" {
				found = append(found, filepath.Dir(rel)+": row: "+form)
			}
		}
		return nil
	})
	if err == nil && files == 0 {
		err = fmt.Errorf("%s holds no file", root)
	}
	return found, err
}

// store looks into the rows of a Pebble store.
func (h *hunt) store(dir string) (string, error) {
	db, err := pebble.Open(dir, &pebble.Options{ReadOnly: true, Logger: quiet{}})
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	defer db.Close()
	it, err := db.NewIter(nil)
	if err != nil {
		return "", err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		row := append(bytes.Clone(it.Key()), it.Value()...)
		if form := h.find(row); form != "" {
			return form, nil
		}
	}
	return "", it.Error()
}

// quiet is a logger of Pebble that says nothing.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

// TestHunt checks that the hunt finds each form, at every place in a line.
func TestHunt(t *testing.T) {
	t.Parallel()
	const secret = "wwu_0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX2yZ3a4B5"
	h := newHunt([]string{secret})
	encoded := func(s string) []byte { return []byte(base64.StdEncoding.EncodeToString([]byte(s))) }
	for name, b := range map[string][]byte{
		"raw":  []byte(`{"a":"` + secret + `"}`),
		"hex":  []byte(hex.EncodeToString([]byte("x" + secret))),
		"HEX":  bytes.ToUpper([]byte(hex.EncodeToString([]byte(secret)))),
		"b64":  encoded(secret),
		"b64a": encoded("a" + secret),
		"b64b": encoded("ab" + secret),
	} {
		if h.find(b) == "" {
			t.Errorf("%s: not found in %s", name, b)
		}
	}
	if form := h.find([]byte("wwu_ and nothing else")); form != "" {
		t.Errorf("found %s where there is none", form)
	}
	dir := t.TempDir()
	db, err := pebble.Open(filepath.Join(dir, "store"), &pebble.Options{Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Set([]byte("k"), []byte(secret), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	found, err := h.dir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(found, "\n"); !strings.Contains(text, "row: ") {
		t.Errorf("a secret in a row was not found: %q", found)
	}
}
