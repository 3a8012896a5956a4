package enforcertest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/enforcer"
	"watchword.dev/events/token"
)

// Enforcer returns an enforcer that asks the authority itself and hears of its
// events.
func (a *Authority) Enforcer(cfg enforcer.Config) *enforcer.Enforcer {
	a.t.Helper()
	if cfg.Decider == nil {
		cfg.Decider = a
	}
	e, err := enforcer.New(cfg)
	if err != nil {
		a.t.Fatal(err)
	}
	a.Follow(e)
	return e
}

// Client returns a client that asks the authority over HTTP.
func (a *Authority) Client() *enforcer.Client {
	a.t.Helper()
	c, err := enforcer.NewClient(enforcer.ClientConfig{URLs: []string{a.URL()}, Key: a.Key()})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(c.Close)
	return c
}

// Cache returns a cache before a client, which hears of the events.
func (a *Authority) Cache() *enforcer.Cache {
	a.t.Helper()
	c, err := enforcer.NewCache(enforcer.CacheConfig{Source: a.Client()})
	if err != nil {
		a.t.Fatal(err)
	}
	a.Follow(c)
	return c
}

// Key returns the secret of the enforcer that may ask at URL.
func (a *Authority) Key() token.Secret { return a.key }

// URL returns where POST /v1/verify is answered.
func (a *Authority) URL() string { return a.server().URL }

func (a *Authority) serve() *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/verify", a.verify)
	s := httptest.NewServer(mux)
	a.t.Cleanup(s.Close)
	return s
}

func (a *Authority) verify(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+a.key.Reveal() {
		http.Error(w, "an enforcer's key is needed", http.StatusUnauthorized)
		return
	}
	var q struct {
		Secret     string   `json:"secret"`
		Permission string   `json:"permission"`
		Resource   []string `json:"resource"`
		ClientIP   string   `json:"client_ip"`
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &q)
	}
	if err != nil {
		http.Error(w, "no question", http.StatusBadRequest)
		return
	}
	address, _ := netip.ParseAddr(q.ClientIP) // what is none is not known
	d := a.VerifyContext(r.Context(), q.Secret, &token.Request{Permission: q.Permission, Resource: q.Resource, Address: address})
	if least, _ := strconv.ParseUint(r.Header.Get("Watchword-At-Least"), 10, 64); d.Sequence < least {
		d = token.Decision{Verdict: token.VerdictUnavailable, Reason: token.ReasonNotReady}
	}
	out, err := json.Marshal(answerOf(&d))
	if err != nil {
		http.Error(w, "no answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if d.Verdict == token.VerdictUnavailable {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(out) // the client may have gone
}

// answer is a decision as /v1/verify gives it.
type answer struct {
	Decision  token.Verdict   `json:"decision"`
	Reason    token.Reason    `json:"reason"`
	Token     token.ID        `json:"token_id,omitzero"`
	Owner     token.ID        `json:"owner,omitzero"`
	OwnerKind token.OwnerKind `json:"owner_kind,omitzero"`
	Sequence  uint64          `json:"sequence"`
	AgeMS     int64           `json:"age_ms"`
	Stale     bool            `json:"stale"`
	BoundMS   int64           `json:"bound_ms,omitzero"`
	Until     time.Time       `json:"until,omitzero"`
	ByAddress bool            `json:"by_address,omitzero"`
}

func answerOf(d *token.Decision) answer {
	return answer{
		Decision: d.Verdict, Reason: d.Reason, Token: d.Token, Owner: d.Owner, OwnerKind: d.OwnerKind, Sequence: d.Sequence,
		BoundMS: d.Bound.Milliseconds(), Until: d.Until, ByAddress: d.ByAddress,
	}
}

// observer is a follower that pulses are told to.
type observer interface {
	Observe(p events.Pulse, arrived time.Time)
}

// Follow tells followers of all that happens from now on, in this order and
// before the call that lets it happen returns.
func (a *Authority) Follow(followers ...enforcer.Follower) {
	a.tell()
	a.mu.Lock()
	defer a.mu.Unlock()
	// A cache must have heard of something before who asks it does.
	slices.SortStableFunc(followers, func(x, y enforcer.Follower) int { return rank(x) - rank(y) })
	for _, f := range followers {
		f.Begin(a.at)
		a.followers = append(a.followers, f)
	}
	slices.SortStableFunc(a.followers, func(x, y enforcer.Follower) int { return rank(x) - rank(y) })
	a.beat()
}

func rank(f enforcer.Follower) int {
	if _, ok := f.(observer); ok {
		return 0
	}
	return 1
}

// Silence cuts the feed: the followers hear of nothing, pulses included, until
// Speak.
func (a *Authority) Silence() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silent = true
}

// Speak ends a Silence: the followers hear of all that they have missed.
func (a *Authority) Speak() {
	a.mu.Lock()
	a.silent = false
	a.mu.Unlock()
	a.tell()
}

// Pulse vouches once more for what was told, as an installation does each
// second.
func (a *Authority) Pulse() { a.tell() }

// tell delivers what the followers have not heard yet. It must not hold the
// lock that deciding takes.
func (a *Authority) tell() {
	a.telling.Lock()
	defer a.telling.Unlock()
	a.mu.Lock()
	if a.silent {
		a.mu.Unlock()
		return
	}
	news, followers := a.commits[a.told:], slices.Clone(a.followers)
	a.told = len(a.commits)
	a.mu.Unlock()
	for i := range news {
		for _, f := range followers {
			f.Applied(&news[i])
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.beat()
}

// beat is a pulse of the pen. a.mu is held.
func (a *Authority) beat() {
	if a.silent {
		return
	}
	p := events.Pulse{Term: 1, Epoch: a.at.Epoch, Sequence: a.at.Seq, Number: a.at.Number, Chain: a.at.Hash.String(), Time: time.Now()}
	for _, f := range a.followers {
		if o, ok := f.(observer); ok {
			o.Observe(p, time.Now())
		}
	}
}
