package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"
)

// TestShutdown checks that SIGTERM ends a server in order: it takes no new
// connection, the request that has begun is answered and durable, and the exit
// code is 0.
func TestShutdown(t *testing.T) {
	t.Parallel()
	i := install(t)
	host := strings.TrimPrefix(i.admin.BaseURL, "http://")
	conn, err := net.DialTimeout("tcp", host, deadline)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	body := grant("in flight", zoneID)
	// The server asks for the body when its handler reads it: from then on the
	// request is in flight.
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nX-Auth-Email: %s\r\nX-Auth-Key: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
		userTokens, host, i.admin.Email, i.admin.APIKey, len(body))
	answers := bufio.NewReader(conn)
	line, err := answers.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("no invitation to send the body: %q, %v", line, err)
	}
	if line, err = answers.ReadString('\n'); line != "\r\n" {
		t.Fatalf("%q, %v", line, err)
	}

	if err := i.server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitRefusal(t, host)
	if _, err := io.WriteString(conn, body); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatalf("the request in flight was not answered: %v", err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("the request in flight: %s %s, %v", resp.Status, b, err)
	}
	made, err := decoded(b)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-i.server.Done():
	case <-time.After(deadline):
		t.Fatal("the server did not end")
	}
	if err := i.server.ExitError(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}

	i.start()
	if got := i.call(asked{http.MethodGet, userTokens + "/verify", bearer(made.Value), ""}); got.status != http.StatusOK {
		t.Errorf("what was made during the shutdown: %d %s", got.status, got.body)
	}
	if err := i.server.Stop(deadline); err != nil {
		t.Errorf("a quiet server: %v", err)
	}
}

// awaitRefusal waits until nothing listens at host any more.
func awaitRefusal(t *testing.T, host string) {
	t.Helper()
	for limit := time.Now().Add(deadline); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		c, err := net.DialTimeout("tcp", host, deadline)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if err == nil {
			c.Close()
		}
	}
	t.Fatal("the server goes on taking connections after SIGTERM")
}

func decoded(b []byte) (tokenResult, error) {
	var e envelope
	var r tokenResult
	if err := json.Unmarshal(b, &e); err != nil {
		return r, err
	}
	return r, json.Unmarshal(e.Result, &r)
}

// life is what is known of one token: each field is what was acknowledged
// last. A change whose answer never came may or may not have happened.
type life struct {
	secret  string
	revoked bool
	old     []string // secrets that an acknowledged roll ended
	open    bool     // the last change was not answered
}

// TestKill kills the server with -9 while eight clients create, roll and
// revoke, and checks what they were told against what is there afterwards.
// tools/crash does the same for as long as one wants.
func TestKill(t *testing.T) {
	t.Parallel()
	i := install(t)
	lives := map[string]*life{}
	for round := range 3 {
		seed := rand.Uint64()
		t.Logf("round %d, seed %d", round, seed)
		maps.Copy(lives, i.load(seed, 60))
		i.start()
		i.check(lives)
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if out, err := exec.CommandContext(ctx, binary, "--admin-file", i.data+"/admin.json", "fsck", "--data", i.data).CombinedOutput(); err != nil {
		t.Errorf("fsck: %v\n%s", err, out)
	}
}

// load lets eight clients work until they have been told of enough changes,
// and kills the server while they go on.
func (i *installation) load(seed uint64, enough int64) map[string]*life {
	var wg sync.WaitGroup
	var told atomic.Int64
	reached := make(chan struct{})
	all := make([]map[string]*life, 8)
	for w := range all {
		all[w] = map[string]*life{}
		rng := rand.New(rand.NewPCG(seed, uint64(w)))
		wg.Go(func() {
			for i.change(rng, all[w]) {
				if told.Add(1) == enough {
					close(reached)
				}
			}
		})
	}
	select {
	case <-reached:
	case <-time.After(deadline):
		i.t.Error("the clients got nowhere")
	}
	i.server.Kill()
	wg.Wait()
	out := map[string]*life{}
	for _, part := range all {
		maps.Copy(out, part)
	}
	return out
}

// change makes one change and notes what was answered; false when there was no
// answer.
func (i *installation) change(rng *rand.Rand, mine map[string]*life) bool {
	ctx := i.t.Context()
	live := []string{}
	for id, l := range mine {
		if !l.revoked {
			live = append(live, id)
		}
	}
	slices.Sort(live)
	if len(live) == 0 || rng.IntN(3) == 0 {
		got, err := i.do(ctx, asked{http.MethodPost, userTokens, i.operator(), grant("k", zoneID)})
		if err != nil || got.status != http.StatusOK {
			return false
		}
		r, err := decoded(got.body)
		if err != nil {
			return false
		}
		mine[r.ID] = &life{secret: r.Value}
		return true
	}
	id := live[rng.IntN(len(live))]
	l := mine[id]
	l.open = true
	a := asked{http.MethodPut, userTokens + "/" + id + "/value", i.operator(), "{}"}
	revoke := rng.IntN(4) == 0
	if revoke {
		a = asked{http.MethodDelete, userTokens + "/" + id, i.operator(), ""}
	}
	got, err := i.do(ctx, a)
	if err != nil || got.status != http.StatusOK {
		return false
	}
	l.open = false
	if revoke {
		l.revoked = true
		return true
	}
	var e struct {
		Result string `json:"result"`
	}
	if json.Unmarshal(got.body, &e) != nil {
		l.open = true
		return false
	}
	l.old, l.secret = append(l.old, l.secret), e.Result
	return true
}

// check asks about every secret that was ever handed out.
func (i *installation) check(lives map[string]*life) {
	i.t.Helper()
	if len(lives) == 0 {
		i.t.Fatal("nothing was made")
	}
	works := func(secret string) bool {
		got := i.call(asked{http.MethodGet, userTokens + "/verify", bearer(secret), ""})
		switch got.status {
		case http.StatusOK:
			return true
		case http.StatusUnauthorized:
			return false
		}
		i.t.Fatalf("verify: %d %s", got.status, got.body)
		return false
	}
	for id, l := range lives {
		for _, s := range l.old {
			if works(s) {
				i.t.Errorf("token %s: a secret works that an acknowledged roll ended", id)
			}
		}
		switch works(l.secret) {
		case true:
			if l.revoked {
				i.t.Errorf("token %s works after its acknowledged revocation", id)
			}
		case false:
			if !l.revoked && !l.open {
				i.t.Errorf("token %s: an acknowledged secret is lost", id)
			}
			if l.open {
				l.revoked = true // the unanswered change happened; its secret is nobody's
			}
		}
		l.open = false
	}
}
