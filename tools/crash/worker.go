package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/services/e2e/proc"
)

// dnsWrite is a permission group of the built-in catalogue.
const dnsWrite = "4755a26eedb94da69e1066d98aa820be"

// worker is one client. It works on its own tokens only, so that what it has
// seen of them is all that was done to them.
type worker struct {
	rng  *rand.Rand
	http http.Client

	live         []token.ID
	secrets      []known // every secret that it was ever told
	acknowledged []fact  // since the last check
	unanswered   int     // since the last check
}

// known is a secret and whose it is.
type known struct {
	id     token.ID
	secret string
}

type answer struct {
	Success bool           `json:"success"`
	Result  jsontext.Value `json:"result"`
}

// work sends changes, one after the other, until ctx ends.
func (w *worker) work(ctx context.Context, a proc.Admin) {
	for ctx.Err() == nil {
		switch n := w.rng.IntN(10); {
		case n < 5 || len(w.live) == 0:
			w.create(ctx, a)
		case n < 8:
			w.roll(ctx, a, w.live[w.rng.IntN(len(w.live))])
		default:
			i := w.rng.IntN(len(w.live))
			id := w.live[i]
			w.live = slices.Delete(w.live, i, i+1)
			w.revoke(ctx, a, id)
		}
	}
}

// send sends one change; ok tells whether the server acknowledged it.
func (w *worker) send(ctx context.Context, a proc.Admin, method, path string, body []byte) (result jsontext.Value, ok bool) {
	r, err := http.NewRequestWithContext(ctx, method, a.BaseURL+"/client/v4"+path, bytes.NewReader(body))
	if err != nil {
		return nil, false
	}
	r.Header.Set("X-Auth-Email", a.Email)
	r.Header.Set("X-Auth-Key", a.APIKey)
	r.Header.Set("Content-Type", "application/json")
	resp, err := w.http.Do(r)
	if err != nil {
		w.unanswered++
		return nil, false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	var ans answer
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(b, &ans) != nil || !ans.Success {
		w.unanswered++
		return nil, false
	}
	return ans.Result, true
}

func (w *worker) create(ctx context.Context, a proc.Admin) {
	body := fmt.Sprintf(`{"name":"crash","policies":[{"effect":"allow","resources":{"com.cloudflare.api.account.zone.%032x":"*"},"permission_groups":[{"id":%q}]}]}`,
		w.rng.Uint64(), dnsWrite)
	result, ok := w.send(ctx, a, http.MethodPost, "/user/tokens", []byte(body))
	var t struct {
		ID    token.ID `json:"id"`
		Value string   `json:"value"`
	}
	if !ok || json.Unmarshal(result, &t) != nil {
		return
	}
	w.live = append(w.live, t.ID)
	w.learn(fact{t.ID, "create", token.Sum(t.Value)}, t.Value)
}

func (w *worker) roll(ctx context.Context, a proc.Admin, id token.ID) {
	result, ok := w.send(ctx, a, http.MethodPut, "/user/tokens/"+id.String()+"/value", []byte("{}"))
	var secret string
	if !ok || json.Unmarshal(result, &secret) != nil {
		return
	}
	w.learn(fact{id, "roll", token.Sum(secret)}, secret)
}

func (w *worker) revoke(ctx context.Context, a proc.Admin, id token.ID) {
	if _, ok := w.send(ctx, a, http.MethodDelete, "/user/tokens/"+id.String(), []byte("{}")); ok {
		w.acknowledged = append(w.acknowledged, fact{id: id, verb: "revoke"})
	}
}

func (w *worker) learn(f fact, secret string) {
	w.acknowledged = append(w.acknowledged, f)
	w.secrets = append(w.secrets, known{f.id, secret})
}

// checkList asks the server for all tokens: each must be one of the ledger.
func (h *harness) checkList(ctx context.Context, s *proc.Server) error {
	listed := 0
	for page := 1; ; page++ {
		var some []struct {
			ID token.ID `json:"id"`
		}
		if err := get(ctx, s.Admin, fmt.Sprintf("/user/tokens?page=%d&per_page=50", page), &some); err != nil {
			return fmt.Errorf("list tokens: %w", err)
		}
		if len(some) == 0 {
			break
		}
		for _, t := range some {
			if known := h.ledger.tokens[t.ID]; known == nil || known.Status == aggregate.Revoked {
				h.report.Ghosts++
				h.find("token %v is listed, but the ledger does not have it alive", t.ID)
			}
		}
		listed += len(some)
	}
	alive := 0
	for _, t := range h.ledger.tokens {
		if t.Status != aggregate.Revoked {
			alive++
		}
	}
	if listed < alive {
		h.report.Lost += alive - listed
		h.find("%d tokens are listed, the ledger has %d alive", listed, alive)
	}
	return nil
}

func get(ctx context.Context, a proc.Admin, path string, out any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.BaseURL+"/client/v4"+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("X-Auth-Email", a.Email)
	r.Header.Set("X-Auth-Key", a.APIKey)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var ans answer
	if err := json.Unmarshal(b, &ans); err != nil || !ans.Success {
		return fmt.Errorf("%s: %.200s", resp.Status, b)
	}
	return json.Unmarshal(ans.Result, out)
}

// checkSecrets verifies the newest secrets of every worker and some older
// ones: a secret must be good exactly when the ledger says so.
func (h *harness) checkSecrets(ctx context.Context, s *proc.Server) error {
	const newest, older = 40, 10
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	for _, w := range h.workers {
		sample := slices.Clone(w.secrets[max(0, len(w.secrets)-newest):])
		for range min(older, len(w.secrets)) {
			sample = append(sample, w.secrets[w.rng.IntN(len(w.secrets))])
		}
		wg.Go(func() {
			for _, k := range sample {
				good, err := verify(ctx, s.Admin, k.secret)
				mu.Lock()
				switch want := h.ledger.vouches(k); {
				case err != nil:
					failed = err
				case good && !want:
					h.report.Ghosts++
					h.find("a secret of token %v verifies, but the ledger does not vouch for it", k.id)
				case !good && want:
					h.report.Lost++
					h.find("the secret of token %v does not verify, but the ledger vouches for it", k.id)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed
}

// vouches says whether the ledger has k as the live secret of a live token.
func (l *ledger) vouches(k known) bool {
	t := l.tokens[k.id]
	return t != nil && t.Status == aggregate.Active && t.Secret == token.Sum(k.secret)
}

// verify asks the server whether a secret is good.
func verify(ctx context.Context, a proc.Admin, secret string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.BaseURL+"/client/v4/user/tokens/verify", nil)
	if err != nil {
		return false, err
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusUnauthorized:
		return false, nil
	}
	return false, fmt.Errorf("verify: %s", resp.Status)
}
