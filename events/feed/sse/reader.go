package sse

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/fault"
	"watchword.dev/events/watermark"
)

// ErrRefused says that the node does not know the key, or not any more.
var ErrRefused = errors.New("sse: the key is refused")

// Config are the settings of a Reader. URL and Key are needed.
type Config struct {
	// URL is a node's base URL.
	URL string
	// Key is the enforcer's.
	Key string
	// Client sends the requests. Its Timeout must be zero: the answer does not
	// end. Nil is one of the package's own, which follows no redirect.
	Client *http.Client
	// PulseKey is the key under which the pen signs its pulses, as it stands
	// in log.opened. Nil takes it from there when that is read, else the
	// node's word for it.
	PulseKey ed25519.PublicKey
	// Pulse hears of each pulse that the pen has signed, and when it arrived,
	// on a goroutine of its own; it may be nil.
	Pulse func(p events.Pulse, arrived time.Time)
	// Silence is after how long without anything the node is asked anew; zero
	// means five seconds: the node says something each second.
	Silence time.Duration
	// Log gets the causes of all waiting; nil discards them.
	Log *slog.Logger
}

// Reader follows the ledger by requests to one node. It is safe for concurrent
// use.
type Reader struct {
	cfg    Config
	base   string
	newest atomic.Pointer[follower] // of the Read that began last
}

var _ events.Reader = (*Reader)(nil)

// New returns a reader, or an error when the URL is none.
func New(cfg Config) (*Reader, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		return nil, errors.New("sse: the URL of a node is needed, without a query")
	}
	if cfg.Silence <= 0 {
		cfg.Silence = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return &Reader{cfg: cfg, base: strings.TrimRight(cfg.URL, "/") + Path}, nil
}

// lostError says that an answer has ended, or did not come, for a cause that
// says nothing about the ledger.
type lostError struct {
	cause error
	after time.Duration // what the node asks to wait
}

func (e *lostError) Error() string { return "sse: " + e.cause.Error() }
func (e *lostError) Unwrap() error { return e.cause }

func lost(format string, args ...any) error { return &lostError{cause: fmt.Errorf(format, args...)} }

// Waits between two requests that get nowhere.
const (
	backoffMin = 50 * time.Millisecond
	backoffMax = 5 * time.Second
)

// Read implements events.Reader. fn is called on the caller's goroutine.
//
// When the node or the connection goes away, Read waits, never as long as
// another reader, and goes on behind the last commit that it has delivered. It
// ends only by fn, by ctx, by what is wrong with the ledger, or when the key is
// refused. Memory is bounded: what fn does not take waits in the network.
func (r *Reader) Read(ctx context.Context, at events.Position, fn func(events.Commit) error) error {
	f := &follower{r: r, at: at, fn: fn}
	f.water.Reset(at, recentEnds, nil)
	f.listener = watermark.NewListener(r.cfg.PulseKey, func(p events.Pulse, arrived time.Time) {
		f.water.Observe(p, arrived)
		if r.cfg.Pulse != nil {
			r.cfg.Pulse(p, arrived)
		}
	}, r.cfg.Log)
	r.newest.Store(f)
	failed := uint(0)
	for {
		from := f.at.Seq
		err := f.once(ctx)
		gone, isLost := errors.AsType[*lostError](err)
		switch {
		case ctx.Err() != nil && (isLost || errors.Is(err, ctx.Err())):
			return ctx.Err()
		case !isLost:
			return err
		}
		if failed++; f.at.Seq > from {
			failed = 1
		}
		if bits.OnesCount(failed) == 1 {
			r.cfg.Log.Warn("the feed has ended and is asked for anew", "error", gone.cause, "sequence", f.at.Seq, "count", failed)
		}
		wait := max(min(backoffMin<<min(failed-1, 10), backoffMax), gone.after)
		if err := sleep(ctx, wait/2+rand.N(wait)); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Head implements events.Reader: the node asks the ledger.
func (r *Reader) Head(ctx context.Context) (uint64, error) {
	resp, err := r.open(ctx, url.Values{After: {Newest}, Follow: {"false"}}, "")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	s := newScanner(resp.Body)
	e, err := s.next()
	if err != nil {
		return 0, fmt.Errorf("sse: head: %w", err)
	}
	p, err := e.place()
	return p.Sequence, err
}

// Age returns how old the knowledge is of whoever has been given the commits by
// the Read that began last, where a commit counts from when fn has returned; it
// is as feed.Reader.Age.
func (r *Reader) Age() (time.Duration, bool) {
	f := r.newest.Load()
	if f == nil {
		return 0, false
	}
	return f.water.Age(time.Now())
}

// Skew is as feed.Reader.Skew.
func (r *Reader) Skew() time.Duration {
	f := r.newest.Load()
	if f == nil {
		return 0
	}
	return f.listener.Skew()
}

// open sends the request and returns an answer that is a feed.
func (r *Reader) open(ctx context.Context, query url.Values, last string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("sse: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+r.cfg.Key)
	req.Header.Set("Accept", ContentType)
	if last != "" {
		req.Header.Set("Last-Event-Id", last)
	}
	resp, err := r.cfg.Client.Do(req)
	if err != nil {
		return nil, lost("%w", err)
	}
	if resp.StatusCode == http.StatusOK {
		if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != ContentType {
			resp.Body.Close()
			return nil, fmt.Errorf("sse: %s answers with %q: it is no feed", Path, resp.Header.Get("Content-Type"))
		}
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal is what an answer means that is no feed.
func refusal(resp *http.Response) error {
	var failure struct {
		Errors []struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	text := resp.Status
	code := 0
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && json.Unmarshal(body, &failure) == nil && len(failure.Errors) > 0 {
		code = failure.Errors[0].Code
		text += ": " + failure.Errors[0].Message
	}
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fmt.Errorf("%w: %s", ErrRefused, text)
	case code == fault.New(fault.FeedRewound).Entry().Number:
		return fmt.Errorf("%w: %s", events.ErrRewind, text)
	case code == fault.New(fault.FeedReplaced).Entry().Number:
		return fmt.Errorf("%w: %s", events.ErrEpoch, text)
	case status == http.StatusTooManyRequests, status >= 500:
		seconds, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
		return &lostError{errors.New(text), min(time.Duration(seconds)*time.Second, time.Minute)}
	}
	return fmt.Errorf("sse: %s", text)
}
