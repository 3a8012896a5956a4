package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/token"
	"watchword.dev/services/e2e/proc"
)

// clients change tokens and know what the server has said of it.
type clients struct {
	admin proc.Admin
	http  http.Client
	file  *os.File // the secrets, for the enforcers
	seed  uint64

	watching sync.WaitGroup
	watches  chan struct{} // has a place for each who may wait for receipts
	ended    context.Context
	end      context.CancelFunc

	mu           sync.Mutex // guards what follows
	secrets      []secret
	acknowledged []fact
	settledAt    map[uint64]int64
	heardAt      map[fact]int64
	changes      Changes
	receipts     Receipts
	all, bound   []time.Duration // from the event to all heard, and to the bound
}

const (
	workers     = 8
	firstTokens = 10  // of each worker
	maxWatches  = 128 // who wait for receipts at a time
	answerMax   = 30 * time.Second
)

func newClients(a proc.Admin, file string, seed uint64) (*clients, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	c := &clients{
		admin: a, file: f, seed: seed, watches: make(chan struct{}, maxWatches),
		settledAt: map[uint64]int64{}, heardAt: map[fact]int64{},
	}
	c.http.Transport = &http.Transport{MaxIdleConnsPerHost: workers + maxWatches}
	c.ended, c.end = context.WithCancel(context.Background())
	return c, nil
}

// stop ends the changes, and those who wait for receipts.
func (c *clients) stop() {
	c.end()
	c.watching.Wait()
}

func (c *clients) close() {
	c.stop()
	c.http.CloseIdleConnections()
	c.file.Close()
}

// ask sends a request and returns the sequence on which the answer rests.
func (c *clients) ask(ctx context.Context, method, path string, body, out any) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	var b []byte
	if body == nil && method != http.MethodGet {
		body = struct{}{}
	}
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return 0, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, c.admin.BaseURL+path, bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	r.Header = http.Header{"X-Auth-Email": {c.admin.Email}, "X-Auth-Key": {c.admin.APIKey}, "Content-Type": {"application/json"}}
	resp, err := c.http.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if b, err = io.ReadAll(resp.Body); err != nil {
		return 0, err
	}
	var a struct {
		Success bool           `json:"success"`
		Result  jsontext.Value `json:"result"`
	}
	if err := json.Unmarshal(b, &a); err != nil || !a.Success {
		return 0, fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, b)
	}
	if out != nil {
		if err := json.Unmarshal(a.Result, out); err != nil {
			return 0, err
		}
	}
	seq, err := strconv.ParseUint(resp.Header.Get("Watchword-Sequence"), 10, 64)
	if err != nil && method != http.MethodGet {
		return 0, errors.New("a change without a sequence")
	}
	return seq, nil
}

const userTokens = "/client/v4/user/tokens"

// held is a token as its worker knows it.
type held struct {
	id     token.ID
	secret string
	write  bool
}

func policies(write bool) []any {
	group := groupRead
	if write {
		group = groupWrite
	}
	return []any{map[string]any{
		"effect": "allow", "resources": map[string]string{zoneType + zoneID: "*"}, "permission_groups": []any{map[string]string{"id": group}},
	}}
}

func (c *clients) create(ctx context.Context, write, anchor bool) (held, error) {
	var t struct {
		ID    token.ID `json:"id"`
		Value string   `json:"value"`
	}
	seq, err := c.ask(ctx, http.MethodPost, userTokens, map[string]any{"name": "history", "policies": policies(write)}, &t)
	if err != nil {
		return held{}, err
	}
	c.done(fact{seq, "create", t.ID}, &c.changes.Created)
	return held{t.ID, t.Value, write}, c.publish(secret{t.ID, t.Value, anchor})
}

// publish tells the enforcers a secret.
func (c *clients) publish(s secret) error {
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets = append(c.secrets, s)
	_, err = c.file.Write(append(line, '\n'))
	return err
}

// done notes a change that was acknowledged just now.
func (c *clients) done(f fact, count *int) {
	now := time.Now().UnixNano()
	c.mu.Lock()
	defer c.mu.Unlock()
	*count++
	c.acknowledged = append(c.acknowledged, f)
	if _, ok := c.settledAt[f.seq]; !ok {
		c.settledAt[f.seq] = now
	}
	if f.verb != "create" {
		c.watch(f)
	}
}

// settled notes that everything up to the head is in the ledger.
func (c *clients) settled(ctx context.Context) {
	seq, err := c.ask(ctx, http.MethodGet, userTokens+"?per_page=5", nil, nil)
	if err != nil || seq == 0 {
		return // a later change shows it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.settledAt[seq]; !ok {
		c.settledAt[seq] = time.Now().UnixNano()
	}
}

// begin makes the tokens that never change.
func (c *clients) begin(ctx context.Context) error {
	for n := range anchors {
		if _, err := c.create(ctx, n%2 == 0, true); err != nil {
			return err
		}
	}
	return nil
}

// change makes n changes in about the given time, or fewer when stop is called.
func (c *clients) change(ctx context.Context, n int, length time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(c.ended, cancel)
	defer stop()
	due := make(chan struct{})
	var wg sync.WaitGroup
	for w := range workers {
		rng := rand.New(rand.NewPCG(c.seed, uint64(w)+100))
		wg.Go(func() { c.work(ctx, rng, due) })
	}
	began := time.Now()
	for i := range n {
		select {
		case due <- struct{}{}:
		case <-ctx.Done():
		}
		if pause(ctx, time.Until(began.Add(length*time.Duration(i+1)/time.Duration(n)))) != nil {
			break
		}
	}
	close(due)
	wg.Wait()
}

// work makes one change for each that is due, on tokens of its own.
func (c *clients) work(ctx context.Context, rng *rand.Rand, due <-chan struct{}) {
	var live []held
	for range due {
		for len(live) < firstTokens {
			t, err := c.create(ctx, rng.IntN(2) == 0, false)
			if err != nil { // whether it is there or not, nobody has its secret
				if pause(ctx, 50*time.Millisecond) != nil {
					return
				}
				continue
			}
			live = append(live, t)
		}
		i := rng.IntN(len(live))
		t, gone, err := c.step(ctx, rng, live[i])
		if err != nil {
			c.unanswered() // what it did is not known: nothing more is done to it
		}
		if live[i] = t; err != nil || gone {
			live = slices.Delete(live, i, i+1)
		}
	}
}

func (c *clients) unanswered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes.Unanswered++
}

// step changes a token.
func (c *clients) step(ctx context.Context, rng *rand.Rand, t held) (held, bool, error) {
	path := userTokens + "/" + t.id.String()
	switch dice := rng.IntN(10); {
	case dice < 4:
		seq, err := c.ask(ctx, http.MethodDelete, path, nil, nil)
		if err == nil {
			c.done(fact{seq, "revoke", t.id}, &c.changes.Revoked)
		}
		return t, true, err
	case dice < 7:
		seq, err := c.ask(ctx, http.MethodPut, path+"/value", nil, &t.secret)
		if err == nil {
			c.done(fact{seq, "roll", t.id}, &c.changes.Rolled)
			err = c.publish(secret{ID: t.id, Secret: t.secret})
		}
		return t, false, err
	default:
		t.write = !t.write
		seq, err := c.ask(ctx, http.MethodPut, path, map[string]any{"name": "history", "policies": policies(t.write)}, nil)
		if err == nil {
			c.done(fact{seq, "scope", t.id}, &c.changes.Scoped)
		}
		return t, false, err
	}
}

// last revokes one more token and returns the sequence of that.
func (c *clients) last(ctx context.Context) uint64 {
	for {
		t, err := c.create(ctx, true, false)
		if err == nil {
			var seq uint64
			if seq, err = c.ask(ctx, http.MethodDelete, userTokens+"/"+t.id.String(), nil, nil); err == nil {
				c.done(fact{seq, "revoke", t.id}, &c.changes.Revoked)
				return seq
			}
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			return 0
		}
	}
}

// watch waits beside for who has heard of a change, if not too many do already.
// c.mu is held.
func (c *clients) watch(f fact) {
	select {
	case c.watches <- struct{}{}:
	default:
		return
	}
	c.receipts.Watched++
	c.watching.Go(func() {
		defer func() { <-c.watches }()
		c.await(f)
	})
}

func (c *clients) await(f fact) {
	path := fmt.Sprintf("%s/%v/receipts?sequence=%d&wait=receipts&timeout=10s", userTokens, f.id, f.seq)
	for c.ended.Err() == nil {
		var a struct {
			Complete bool   `json:"complete"`
			Why      string `json:"why"`
			Event    struct {
				Time time.Time `json:"time"`
			} `json:"event"`
		}
		if _, err := c.ask(c.ended, http.MethodGet, path, nil, &a); err != nil {
			_ = pause(c.ended, 200*time.Millisecond) // asked again, unless it is the end
			continue
		}
		if !a.Complete {
			continue
		}
		now := time.Now()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.heardAt[f] = now.UnixNano()
		c.receipts.Complete++
		if took := now.Sub(a.Event.Time); a.Why == "all_heard" {
			c.all = append(c.all, took)
		} else {
			c.bound = append(c.bound, took)
		}
		return
	}
}

// count fills in what the clients know.
func (c *clients) count(r *Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Changes, r.Receipts = c.changes, c.receipts
	r.Receipts.AllHeard, r.Receipts.AllHeardMS = len(c.all), quantile(c.all)
	r.Receipts.BoundOver, r.Receipts.BoundOverMS = len(c.bound), quantile(c.bound)
}
