package serve

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"watchword.dev/services/internal/embed"
	"watchword.dev/services/internal/embed/embedtest"
)

// enrolled is somebody enrolled, with what goes with it.
type enrolled struct {
	ID, Kind string
	key      nkeys.KeyPair
	closed   chan struct{} // when a connection of it has ended for good
}

// enroll enrolls an enforcer or a consumer over HTTP.
func (r *running) enroll(kind string) *enrolled {
	r.t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		r.t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		r.t.Fatal(err)
	}
	var answer struct {
		ID string `json:"id"`
	}
	if code := r.call(http.MethodPost, "/v1/"+kind+"s", fmt.Sprintf(`{"name":"edge","nkey":%q}`, public), &answer); code != http.StatusOK {
		r.t.Fatalf("enroll: HTTP %d", code)
	}
	return &enrolled{ID: answer.ID, Kind: kind, key: key, closed: make(chan struct{}, 8)}
}

// dial logs in to a NATS server.
func (e *enrolled) dial(t *testing.T, url string) (*nats.Conn, error) {
	t.Helper()
	public, err := e.key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(url, nats.Nkey(public, e.key.Sign), nats.CustomInboxPrefix("_INBOX_"+e.ID), nats.NoReconnect(), nats.Timeout(deadline),
		nats.ClosedHandler(func(*nats.Conn) { e.closed <- struct{}{} }))
	if err == nil {
		t.Cleanup(nc.Close)
	}
	return nc, err
}

// join logs in until that works: a node may not have heard of it yet, and a
// server of a cluster not of a node that answers.
func (e *enrolled) join(t *testing.T, url string) *nats.Conn {
	t.Helper()
	for end := time.Now().Add(deadline); ; {
		nc, err := e.dial(t, url)
		if err == nil {
			return nc
		}
		if !errors.Is(err, nats.ErrAuthorization) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// retire retires e, and waits until its n connections have ended.
func (r *running) retire(e *enrolled, n int) {
	r.t.Helper()
	if code := r.call(http.MethodDelete, "/v1/"+e.Kind+"s/"+e.ID, "", nil); code != http.StatusOK {
		r.t.Fatalf("retire: HTTP %d", code)
	}
	for range n {
		select {
		case <-e.closed:
		case <-time.After(deadline):
			r.t.Fatalf("a connection of the retired %s did not end", e.Kind)
		}
	}
}

// TestRetired follows an enforcer and a consumer from enrolment to retirement:
// the live connection ends, and no login succeeds after it, also after a
// restart. Others stay.
func TestRetired(t *testing.T) {
	dir := t.TempDir()
	r := start(t, settings(t, dir, "--nats-listen", "127.0.0.1:0"), nil)
	stays := r.enroll("enforcer")
	staying := stays.join(t, r.NATSURL)
	var gone []*enrolled
	for _, kind := range []string{"enforcer", "consumer"} {
		e := r.enroll(kind)
		live, err := e.join(t, r.NATSURL).SubscribeSync("ww.live.core.pulse")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := live.NextMsg(deadline); err != nil {
			t.Fatalf("%s hears no pulse: %v", kind, err)
		}
		r.retire(e, 1)
		gone = append(gone, e)
	}
	check := func() {
		t.Helper()
		for _, e := range gone {
			if _, err := e.dial(t, r.NATSURL); !errors.Is(err, nats.ErrAuthorization) {
				t.Errorf("a retired %s: %v", e.Kind, err)
			}
		}
	}
	check()
	if err := staying.Flush(); err != nil {
		t.Errorf("who is not retired: %v", err)
	}
	w := httptest.NewRecorder()
	r.n.metrics.handler(r.n).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	metrics := w.Body.String()
	for _, want := range []string{"watchword_connections_ended_total 2\n", "watchword_logins_total{result=\"refused\"} 2\n", "watchword_logins_total{result=\"admitted\"} "} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, settings(t, dir, "--nats-listen", "127.0.0.1:0"), nil)
	check()
	stays.join(t, r.NATSURL)
}

// TestRetiredOnCluster retires somebody who is connected to two servers of a
// cluster. One node answers logins; the other has not been given the seeds for
// it, and takes the command.
func TestRetiredOnCluster(t *testing.T) {
	c := embedtest.Start(t, 3)
	first := t.TempDir()
	cfg := settings(t, first, "--nats-url", c.URL(), "--nats-seed-dir", c.Seeds, "--node", "a")
	if _, err := newPlan(cfg); err != nil { // what `watchword init` writes
		t.Fatal(err)
	}
	start(t, cfg, nil)
	second, seeds := t.TempDir(), t.TempDir()
	copyTo(t, second, filepath.Join(first, masterFile), filepath.Join(first, adminFile))
	copyTo(t, seeds, c.SeedFile(embed.Node), c.SeedFile(embed.Monitor))
	front := start(t, settings(t, second, "--nats-url", c.URL(), "--nats-seed-dir", seeds, "--node", "front", "--roles", "management"), nil)

	leaver, stays := front.enroll("enforcer"), front.enroll("consumer")
	for _, i := range []int{0, 2} {
		leaver.join(t, c.Servers[i].ClientURL())
	}
	staying := stays.join(t, c.Servers[1].ClientURL())
	front.retire(leaver, 2)
	for _, server := range c.Servers {
		if _, err := leaver.dial(t, server.ClientURL()); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("a retired enforcer: %v", err)
		}
	}
	if err := staying.Flush(); err != nil {
		t.Errorf("who is not retired: %v", err)
	}
}

// TestNoSeeds checks that a node that may hold the pen does not start without
// what it lets others in with.
func TestNoSeeds(t *testing.T) {
	c := embedtest.Start(t, 3)
	dir, seeds := t.TempDir(), t.TempDir()
	copyTo(t, seeds, c.SeedFile(embed.Node), c.SeedFile(embed.Monitor), c.SeedFile(embed.Pen))
	cfg := settings(t, dir, "--nats-url", c.URL(), "--nats-seed-dir", seeds)
	if _, err := newPlan(cfg); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), cfg, slog.New(slog.DiscardHandler), io.Discard)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "issuer.seed") {
		t.Errorf("ended with %v", err)
	}
}

// copyTo copies private files into a directory.
func copyTo(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDirectoryFresh checks that a node knows whether it may let anybody in.
func TestDirectoryFresh(t *testing.T) {
	r := start(t, settings(t, t.TempDir()), nil)
	if err := r.n.directoryFresh(t.Context()); err != nil {
		t.Errorf("a node that is ready: %v", err)
	}
	r.n.cfg.StaleWrite = 0
	if err := r.n.directoryFresh(t.Context()); err == nil {
		t.Error("older than the bound, and still let in")
	}
}
