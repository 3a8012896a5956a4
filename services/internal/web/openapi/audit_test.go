package openapi_test

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/mod/sumdb/tlog"

	"watchword.dev/events/proof"
	"watchword.dev/projections/audittrail"
	"watchword.dev/projections/projector"
	"watchword.dev/services/auditor"
	"watchword.dev/services/internal/keyring"
	"watchword.dev/services/internal/web"
)

// serveAudit adds the tree of the ledger.
func (l *lab) serveAudit(rt *web.Router, ring *keyring.Keyring) {
	l.t.Helper()
	trail := must[*audittrail.Trail](l.t)(audittrail.Open(audittrail.Options{Dir: "audittrail", FS: vfs.NewMem()}))
	run := projector.NewRunner(l.ledger.Connect(), trail, projector.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := run.Run(ctx); ctx.Err() == nil {
			l.t.Errorf("the trail: %v", err)
		}
	})
	l.t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := trail.Close(); err != nil {
			l.t.Error(err)
		}
	})
	if err := run.Wait(ctx, l.ledger.Head()); err != nil {
		l.t.Fatal(err)
	}
	l.audit = ring.AuditKey().Public().(ed25519.PublicKey)
	must[*auditor.Service](l.t)(auditor.New(auditor.Config{
		Trail: func() *audittrail.Trail { return trail }, Key: ring.AuditKey(), File: filepath.Join(l.t.TempDir(), "head"),
	})).Routes(rt)
}

func (l *lab) tryAudit(try func(method, path, pattern string, as http.Header, body any) *answer) {
	l.t.Helper()
	try("GET", "/audit/checkpoint", auditor.CheckpointPath, nil, nil)
	try("GET", "/audit/tile/0/000.p/1", auditor.TilePath, nil, nil)
}

// TestAuditByTiles checks the ledger as somebody from outside: from a signed head
// and tiles, with a client of the tlog package, which knows nothing of ours.
func TestAuditByTiles(t *testing.T) {
	l := newLab(t)
	a := l.do("GET", auditor.CheckpointPath, nil, nil, 200, 0)
	head := must[proof.Head](t)(proof.Peek(a.body))
	policy := proof.Policy{Log: must[proof.Key](t)(proof.LogKey(head.Origin, l.audit))}
	s := must[proof.Signed](t)(policy.Open(a.body))
	commits, err := l.ledger.Commits()
	if err != nil {
		t.Fatal(err)
	}
	var lines [][]byte
	for i := range commits {
		for j := range commits[i].Records {
			lines = append(lines, commits[i].Records[j].Line)
		}
	}
	tiles := &tileClient{l: l}
	tree := tlog.Tree{N: int64(s.Size), Hash: s.Root}
	for i := range s.Size {
		hashes, err := tlog.ProveRecord(tree.N, int64(i), tlog.TileHashReader(tree, tiles))
		if err != nil {
			t.Fatal(err)
		}
		p := &proof.Inclusion{Index: i, Hashes: hashes, Signed: a.body}
		if _, err := p.Verify(policy, lines[i]); err != nil {
			t.Errorf("event %d: %v", i+1, err)
		}
	}
	if s.Size < 10 {
		t.Errorf("only %d events: the test is of no use", s.Size)
	}
	if again := l.do("GET", auditor.CheckpointPath, nil, nil, 200, 0); again.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("a head may be cached: %v", again.Header)
	}
}

// tileClient fetches tiles for the tlog package, whose paths have the height of
// tiles in them.
type tileClient struct{ l *lab }

func (tileClient) Height() int { return 8 }

func (c *tileClient) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range tiles {
		a := c.l.do("GET", "/audit/"+strings.Replace(tile.Path(), "tile/8/", "tile/", 1), nil, nil, 200, 0)
		if got := a.Header.Get("Content-Type"); got != "application/octet-stream" {
			c.l.t.Errorf("%s is %s", tile.Path(), got)
		}
		if got := a.Header.Get("Cache-Control"); !strings.Contains(got, "immutable") {
			c.l.t.Errorf("%s: %s", tile.Path(), got)
		}
		out = append(out, a.body)
	}
	return out, nil
}

func (*tileClient) SaveTiles([]tlog.Tile, [][]byte) {}

// TestNoSuchTile: what is no tile and what is no tile yet are the same answer.
func TestNoSuchTile(t *testing.T) {
	l := newLab(t)
	var first []byte
	for _, path := range []string{
		"0/000", "1/000", "0/001.p/1", "63/000.p/1", "0/x999/999", "64/000", "0/0", "entries/000", "data/000", "x", "0/000.p/0", "0/000.p/256", "-1/000",
		"0/" + strings.Repeat("x999/", 20) + "999",
	} {
		a := l.do("GET", "/audit/tile/"+path, nil, nil, 404, 1003)
		if first == nil {
			first = a.body
		}
		if string(a.body) != string(first) {
			t.Errorf("%s: %s", path, a.body)
		}
	}
}
