package enforcer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events/token"
)

// The limits of a Client.
const (
	defaultTimeout = 3 * time.Second
	dialTimeout    = time.Second
	avoidFor       = 5 * time.Second // a verifier that has failed
	idleConns      = 64
	maxAnswer      = 64 << 10
)

// ClientConfig is what a Client needs.
type ClientConfig struct {
	// URLs are the verifiers' base URLs, the preferred one first: when one
	// fails the next is asked. Secrets are sent there, so they begin with
	// https://, or name this machine.
	URLs []string
	// Plain also allows http:// to other machines, for networks that encrypt by
	// themselves.
	Plain bool
	// Key is the enforcer's own.
	Key token.Secret
	// Timeout bounds one decision, all attempts together; 3 s when zero.
	Timeout time.Duration
	// Transport carries the requests; nil means one of the client's own, which
	// keeps connections open.
	Transport http.RoundTripper
	// Log hears when a verifier begins to fail and when it answers again; nil
	// discards it.
	Log *slog.Logger
}

// Client asks verifiers over HTTP: POST /v1/verify. Whatever goes wrong is an
// unavailable decision, never a no. It also brings them receipts and fetches
// snapshots. It is safe for concurrent use.
type Client struct {
	cfg       ClientConfig
	http      http.Client
	bearer    string
	verifiers []*verifier
}

type verifier struct {
	base   string
	url    string       // where it verifies
	failed atomic.Int64 // Unix nanoseconds; zero when it answers
}

// NewClient returns a client with the defaults of cfg filled in.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Transport == nil {
		cfg.Transport = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout: dialTimeout,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: idleConns,
			IdleConnTimeout:     90 * time.Second,
		}
	}
	if cfg.Key.IsZero() || !isToken68(cfg.Key.Reveal()) {
		return nil, errors.New("enforcer: the enforcer's key is missing or malformed")
	}
	c := &Client{cfg: cfg, bearer: "Bearer " + cfg.Key.Reveal(), http: http.Client{
		Transport: cfg.Transport,
		// What is redirected would carry a secret to somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, base := range cfg.URLs {
		base, err := checkURL(base, cfg.Plain)
		if err != nil {
			return nil, err
		}
		c.verifiers = append(c.verifiers, &verifier{base: base, url: base + "/v1/verify"})
	}
	if len(c.verifiers) == 0 {
		return nil, errors.New("enforcer: a verifier's URL is needed")
	}
	return c, nil
}

// checkURL does not repeat what is wrong: a URL may hold a password.
func checkURL(base string, plain bool) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("enforcer: a verifier's URL has a scheme and a host, and neither a user nor a query")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !plain && !loopback(u.Hostname())) {
		return "", fmt.Errorf("enforcer: %s is not encrypted: use https, or allow it", u.Host)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// Close closes the connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Verify implements Decider.
func (c *Client) Verify(secret string, ask *token.Request) token.Decision {
	return c.VerifyAtLeast(context.Background(), 0, secret, ask)
}

// VerifyContext implements ContextDecider.
func (c *Client) VerifyContext(ctx context.Context, secret string, ask *token.Request) token.Decision {
	return c.VerifyAtLeast(ctx, 0, secret, ask)
}

// unavailable is the decision when nobody could tell.
var unavailable = token.Decision{Verdict: token.VerdictUnavailable, Reason: token.ReasonNotReady}

// VerifyAtLeast asks for a decision that rests on sequence seq or later. The
// time in ask must be zero: verifiers decide about now.
func (c *Client) VerifyAtLeast(ctx context.Context, seq uint64, secret string, ask *token.Request) token.Decision {
	if !ask.Time.IsZero() {
		return unavailable
	}
	body, err := json.Marshal(wireQuestion{secret, ask.Permission, ask.Resource, ask.Address})
	if err != nil {
		// It is no text, so it is no secret and no resource either.
		return token.Decision{Verdict: token.VerdictDeny, Reason: token.ReasonMalformed}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	last := unavailable
	for i, v := range c.order() {
		d, err := c.attempt(ctx, v, len(c.verifiers)-1-i, seq, body)
		if err == nil && d.Verdict != token.VerdictUnavailable {
			if v.failed.Swap(0) != 0 {
				c.cfg.Log.Info("a verifier answers again", "url", v.url)
			}
			return d
		}
		if err == nil {
			last = d // it is there, but knows too little: another one may know more
			continue
		}
		if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
			break // the client of our caller has gone
		}
		if v.failed.Swap(time.Now().UnixNano()) == 0 {
			c.cfg.Log.Warn("a verifier fails", "url", v.url, "error", err)
		}
	}
	return last
}

type wireQuestion struct {
	Secret     string     `json:"secret"`
	Permission string     `json:"permission"`
	Resource   []string   `json:"resource"`
	ClientIP   netip.Addr `json:"client_ip,omitzero"`
}

// order returns the verifiers in the order in which they are asked: those that
// have just failed come last.
func (c *Client) order() []*verifier {
	if c.verifiers[0].failed.Load() == 0 {
		return c.verifiers
	}
	since := time.Now().Add(-avoidFor).UnixNano()
	good, bad := make([]*verifier, 0, len(c.verifiers)), []*verifier(nil)
	for _, v := range c.verifiers {
		if v.failed.Load() > since {
			bad = append(bad, v)
		} else {
			good = append(good, v)
		}
	}
	return append(good, bad...)
}

// attempt asks one verifier, and leaves time for the others.
func (c *Client) attempt(ctx context.Context, v *verifier, others int, seq uint64, body []byte) (token.Decision, error) {
	ctx, cancel := share(ctx, others)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, v.url, bytes.NewReader(body))
	if err != nil {
		return token.Decision{}, err
	}
	r.Header.Set("Authorization", c.bearer)
	r.Header.Set("Content-Type", "application/json")
	if seq > 0 {
		r.Header.Set("Watchword-At-Least", strconv.FormatUint(seq, 10))
	}
	asked := time.Now()
	resp, err := c.http.Do(r)
	if err != nil {
		return token.Decision{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return token.Decision{}, err
	}
	d, err := readAnswer(resp.StatusCode, raw)
	if err == nil && d.Verdict != token.VerdictUnavailable && d.Sequence < seq {
		err = fmt.Errorf("it rests on sequence %d and was asked for %d", d.Sequence, seq)
	}
	return arrived(d, time.Since(asked)), err
}

// arrived counts the way of a decision into its age: it may have been made at
// any time since it was asked for. One that has become too old is none.
func arrived(d token.Decision, took time.Duration) token.Decision {
	if d.Verdict == token.VerdictUnavailable {
		return d
	}
	d.Age += took
	d.Stale = d.Stale || d.Age > staleAfter
	if d.Bound > 0 && d.Age > d.Bound {
		return token.Decision{Verdict: token.VerdictUnavailable, Reason: token.ReasonStale, Sequence: d.Sequence, Age: d.Age, Stale: true}
	}
	return d
}

// share gives one of several attempts half of the time that is left.
func share(ctx context.Context, others int) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok && others > 0 {
		return context.WithTimeout(ctx, time.Until(deadline)/2)
	}
	return ctx, func() {}
}

// wireAnswer is what /v1/verify answers.
type wireAnswer struct {
	Decision  *token.Verdict  `json:"decision"`
	Reason    token.Reason    `json:"reason"`
	Token     token.ID        `json:"token_id"`
	Owner     token.ID        `json:"owner"`
	OwnerKind token.OwnerKind `json:"owner_kind"`
	Account   token.ID        `json:"account_id"`
	Policy    token.ID        `json:"policy_id"`
	Sequence  uint64          `json:"sequence"`
	AgeMS     int64           `json:"age_ms"`
	Stale     bool            `json:"stale"`
	BoundMS   int64           `json:"bound_ms"`
	Until     time.Time       `json:"until"`
	ByAddress bool            `json:"by_address"`
	ByPlace   bool            `json:"by_place"`
}

// maxMilliseconds keeps what a verifier says within a time.Duration, and what is
// added to it.
const maxMilliseconds = int64(1<<62) / int64(time.Millisecond)

// readAnswer reads an answer. Only one that is whole and agrees with itself is
// a decision. An error holds nothing of the body.
func readAnswer(status int, raw []byte) (token.Decision, error) {
	if status != http.StatusOK && status != http.StatusServiceUnavailable {
		return token.Decision{}, fmt.Errorf("it answered %d", status)
	}
	var a wireAnswer
	if err := json.Unmarshal(raw, &a); err != nil || a.Decision == nil {
		return token.Decision{}, fmt.Errorf("it answered %d without a decision", status)
	}
	unsure := *a.Decision == token.VerdictUnavailable
	if a.Reason.Verdict() != *a.Decision || unsure != (status == http.StatusServiceUnavailable) ||
		a.AgeMS < 0 || a.AgeMS > maxMilliseconds || a.BoundMS < 0 || a.BoundMS > maxMilliseconds ||
		*a.Decision == token.VerdictAllow && a.Owner.IsZero() {
		return token.Decision{}, errors.New("its answer contradicts itself")
	}
	return token.Decision{
		Verdict: *a.Decision, Reason: a.Reason,
		Token: a.Token, Owner: a.Owner, OwnerKind: a.OwnerKind, Account: a.Account, Policy: a.Policy,
		Sequence: a.Sequence, Age: time.Duration(a.AgeMS) * time.Millisecond, Stale: a.Stale,
		Bound: time.Duration(a.BoundMS) * time.Millisecond, Until: a.Until, ByAddress: a.ByAddress, ByPlace: a.ByPlace,
	}, nil
}
