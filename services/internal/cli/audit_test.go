package cli

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/proof"
)

// evidence is what an auditor has: files in a directory, and keys.
type evidence struct {
	t                   *testing.T
	dir                 string
	line, proof         []byte
	key, witness, other string
}

func check[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newEvidence proves the second of two events.
func newEvidence(t *testing.T) *evidence {
	t.Helper()
	private := func(b byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)) }
	_, c, err := events.Compose(events.Position{}, eventstest.Drafts(1, 2))
	if err != nil {
		t.Fatal(err)
	}
	var tree proof.Frontier
	for i := range c.Records {
		tree.Append(nil, proof.LeafHash(c.Records[i].Line))
	}
	origin := proof.Origin(eventstest.ID(1), 1)
	log := check[*proof.Signer](t)(proof.NewLog(origin, private(1)))
	w := check[*proof.Signer](t)(proof.NewWitness("eu.example/w", private(2), func() time.Time { return eventstest.Epoch }))
	o := check[*proof.Signer](t)(proof.NewWitness("us.example/w", private(3), nil))
	signed := check[[]byte](t)(proof.Sign(proof.Head{Origin: origin, Size: 2, Root: tree.Root()}, log))
	signed = append(signed, check[[]byte](t)(proof.Cosign(signed, log.Key(), w))...)
	p := &proof.Inclusion{Index: 1, Hashes: []proof.Hash{proof.LeafHash(c.Records[0].Line)}, Signed: signed}
	e := &evidence{t: t, dir: t.TempDir(), line: c.Records[1].Line, proof: check[[]byte](t)(p.Encode()),
		key: log.Key().String(), witness: w.Key().String(), other: o.Key().String()}
	e.write(e.proof, append(bytes.Clone(e.line), '\n'))
	return e
}

func (e *evidence) write(proof, line []byte) {
	e.t.Helper()
	err := errors.Join(os.WriteFile(filepath.Join(e.dir, "p"), proof, 0o600), os.WriteFile(filepath.Join(e.dir, "e"), line, 0o600))
	if err != nil {
		e.t.Fatal(err)
	}
}

// verify runs the verb and returns its output and exit code.
func (e *evidence) verify(args ...string) (string, int) {
	var out, errs bytes.Buffer
	a := &App{Out: &out, Err: &errs, In: strings.NewReader(""), Getenv: func(string) string { return "" }}
	root := &cobra.Command{Use: "watchword", SilenceUsage: true, SilenceErrors: true}
	a.Flags(root)
	root.AddCommand(a.auditCommand())
	root.SetArgs(append([]string{"audit", "verify", filepath.Join(e.dir, "p"), "--event", filepath.Join(e.dir, "e")}, args...))
	code := Report(&errs, root.Execute())
	return out.String() + errs.String(), code
}

func TestAuditVerify(t *testing.T) {
	e := newEvidence(t)
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"proved", []string{"--key", e.key}, ExitOK, "proved: event 2 stands in the ledger watchword/"},
		{"what it says", []string{"--key", e.key}, ExitOK, "it says: account.created.v1 at 20"},
		{"no witness", []string{"--key", e.key}, ExitOK, "is not proved"},
		{"cosigned", []string{"--key", e.key, "--witness", e.witness, "--quorum", "1"}, ExitOK, "cosigned by eu.example/w at 20"},
		{"json", []string{"--key", e.key, "-o", "json"}, ExitOK, `"number":2,"event":"account.created.v1"`},
		{"too few", []string{"--key", e.key, "--witness", e.witness, "--witness", e.other, "--quorum", "2"}, ExitProof, "1 witnesses have cosigned, 2 must"},
		{"a witness as the log", []string{"--key", e.witness}, ExitLocal, "without the key of a log"},
		{"no key", []string{"--key", "x"}, ExitLocal, "--key: "},
		{"a quorum of nobody", []string{"--key", e.key, "--quorum", "1"}, ExitLocal, "a quorum of 1 of 0"},
		{"without a key", nil, ExitLocal, `"key" not set`},
	} {
		if got, code := e.verify(c.args...); code != c.code || !strings.Contains(got, c.want) {
			t.Errorf("%s: exit code %d, want %d: %s", c.name, code, c.code, got)
		}
	}
}

// TestAuditVerifyChanged: one changed byte of the event or of the proof is told.
func TestAuditVerifyChanged(t *testing.T) {
	e := newEvidence(t)
	for i := range e.line {
		changed := bytes.Clone(e.line)
		changed[i] ^= 1
		e.write(e.proof, changed)
		if got, code := e.verify("--key", e.key); code != ExitProof || !strings.Contains(got, "not proved") {
			t.Fatalf("byte %d of the event: exit code %d: %s", i, code, got)
		}
	}
	for name, p := range map[string][]byte{
		"nothing": {}, "half": e.proof[:len(e.proof)/2], "no proof": []byte("hello\n"), "endless": bytes.Repeat([]byte("x"), maxAuditFile+1),
	} {
		e.write(p, e.line)
		if got, code := e.verify("--key", e.key); code != ExitLocal {
			t.Errorf("%s: exit code %d: %s", name, code, got)
		}
	}
	e.write(bytes.Replace(e.proof, []byte("index 1"), []byte("index 0"), 1), e.line)
	if got, code := e.verify("--key", e.key); code != ExitProof {
		t.Errorf("another place: exit code %d: %s", code, got)
	}
}
