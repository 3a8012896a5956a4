package snapshots

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector/snapshot"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/internal/web"
)

// Path is where a node serves snapshots.
const Path = "/v1/snapshot"

// Enforcers recognises enforcing services by their keys. verifyindex.Index is
// one.
type Enforcers interface {
	Enforcer(secret string) (verifyindex.EnforcerInfo, token.Reason)
}

// Config is what a Service needs. Index, Enforcers and Dir must be set.
type Config struct {
	// Index returns the index that answers now.
	Index     func() snapshot.Source
	Enforcers Enforcers
	// Dir is where snapshots lie, on the index's file system. Whatever is in
	// it is removed.
	Dir string
	// MaxLoads bounds how many clients are served at a time; 4 when zero. One
	// enforcer has at most half of the places: whoever has its key must not keep
	// all others from beginning.
	MaxLoads int
	// Fresh is up to which age a snapshot is given to a new client, and Keep
	// how long one is kept that nobody reads; a minute and two.
	Fresh, Keep time.Duration
	// WriteTimeout is how long a client may take for one write; 10 s.
	WriteTimeout time.Duration
	Now          func() time.Time // time.Now when nil
	Log          *slog.Logger     // slog.Default() when nil
}

func (c *Config) setDefaults() {
	wait := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	wait(&c.Fresh, time.Minute)
	wait(&c.Keep, 2*time.Minute)
	wait(&c.WriteTimeout, 10*time.Second)
	if c.MaxLoads <= 0 {
		c.MaxLoads = 4
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
}

// Service serves snapshots.
type Service struct {
	Config
	shelf  *shelf
	ended  context.Context
	finish context.CancelFunc

	mu    sync.Mutex
	loads map[token.ID]int // clients that are served, by enforcer
	count int              // of all of them
}

// New returns a service with the defaults of cfg filled in.
func New(cfg Config) (*Service, error) {
	if cfg.Index == nil || cfg.Enforcers == nil || cfg.Dir == "" {
		return nil, errors.New("snapshots: an index, its enforcers and a directory are needed")
	}
	cfg.setDefaults()
	shelf, err := newShelf(&cfg)
	if err != nil {
		return nil, err
	}
	s := &Service{Config: cfg, shelf: shelf, loads: map[token.ID]int{}}
	s.ended, s.finish = context.WithCancel(context.Background())
	return s, nil
}

// Run removes what nobody reads any more, until ctx ends, and then everything.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(s.Keep / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.Close()
			return errors.Join(ctx.Err(), s.shelf.clear())
		case <-tick.C:
			if err := s.shelf.sweep(); err != nil {
				s.Log.Warn("a snapshot cannot be removed", "error", err)
			}
		}
	}
}

// Loads is how many clients are served now.
func (s *Service) Loads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// enter takes a place for a client of an enforcer, if there is one.
func (s *Service) enter(owner token.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count >= s.MaxLoads || s.loads[owner] >= max(s.MaxLoads/2, 1) {
		return false
	}
	s.loads[owner]++
	s.count++
	return true
}

// leave gives the place back.
func (s *Service) leave(owner token.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count--
	if s.loads[owner]--; s.loads[owner] == 0 {
		delete(s.loads, owner)
	}
}

// Close ends all answers, for a server that drains. Clients begin elsewhere.
func (s *Service) Close() { s.finish() }

// Routes adds the service's route to rt. Enforcers may come back as often as
// they must; wrong keys are bounded.
func (s *Service) Routes(rt *web.Router) {
	rt.Handle(http.MethodGet, Path, s.serve)
	rt.Exempt(Path)
}

// enforcer returns who asks, or the fault that refuses it.
func (s *Service) enforcer(secret string) (token.ID, error) {
	if secret == "" {
		return token.ID{}, fault.New(fault.EnforcerKeyNeeded)
	}
	info, reason := s.Enforcers.Enforcer(secret)
	switch reason {
	case token.ReasonNone:
		return info.ID, nil
	case token.ReasonStale:
		return token.ID{}, fault.New(fault.StaleIndex)
	case token.ReasonNotReady:
		return token.ID{}, fault.New(fault.NotReady)
	}
	return token.ID{}, fault.New(fault.EnforcerKeyNeeded)
}

// busy is when a client comes back that found all places taken.
const busy = 2 * time.Second

// serve answers GET /v1/snapshot.
func (s *Service) serve(x *web.Exchange) error {
	secret := web.BearerSecret(x.Request().Header)
	owner, err := s.enforcer(secret)
	if err != nil {
		return err
	}
	if err := x.Admit(owner); err != nil {
		return err
	}
	if x.Request().URL.RawQuery != "" {
		return fault.New(fault.InvalidParameter).WithDetail("it has none")
	}
	if !s.enter(owner) {
		return web.RetryIn(fault.Overloaded, busy, errors.New("snapshots: as many clients as may be"))
	}
	defer s.leave(owner)
	ctx, cancel := context.WithCancel(x.Context())
	defer cancel()
	defer context.AfterFunc(s.ended, cancel)()
	h, err := s.shelf.take(ctx, x.Request().Header.Get("If-Range"))
	if err != nil {
		return fault.Wrap(fault.NotReady, err)
	}
	defer h.giveBack()
	out, from, err := begin(x, h.Snapshot)
	if err != nil || x.Request().Method == http.MethodHead {
		return err
	}
	in := h.Open()
	defer in.Close()
	if _, err := in.Seek(from, io.SeekStart); err != nil {
		return err
	}
	// How an answer ends that has begun is no fault of the exchange: the client
	// sees that something is missing.
	if err := s.send(ctx, x, out, in, secret); err != nil {
		s.Log.Debug("a snapshot was not sent whole", "enforcer", owner, "cause", err)
	}
	return nil
}

// begin writes the header of the whole snapshot, or of the rest that a client
// asks for which has read the same one.
func begin(x *web.Exchange, s *snapshot.Snapshot) (out io.Writer, from int64, err error) {
	h, size, status := x.Header(), s.Size(), http.StatusOK
	h.Set("Etag", etag(s))
	h.Set("Accept-Ranges", "bytes")
	h.Set(web.SequenceHeader, strconv.FormatUint(s.Position.Sequence, 10))
	if x.Request().Header.Get("If-Range") == etag(s) {
		if from = rest(x.Request().Header.Get("Range")); from > 0 && from < size {
			status = http.StatusPartialContent
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, size-1, size))
		} else {
			from = 0
		}
	}
	h.Set("Content-Length", strconv.FormatInt(size-from, 10))
	out, err = x.Stream(status, snapshot.ContentType)
	return out, from, err
}

func etag(s *snapshot.Snapshot) string { return `"` + s.Digest + `"` }

// rest reads the one form of range that there is, "bytes=N-". Any other is as
// good as none.
func rest(header string) int64 {
	digits, ok := strings.CutPrefix(header, "bytes=")
	digits, open := strings.CutSuffix(digits, "-")
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || !open || err != nil {
		return 0
	}
	return n
}

// part is how much is sent at a time.
const part = 256 << 10

// send sends what in holds for as long as the client is let in and takes it.
func (s *Service) send(ctx context.Context, x *web.Exchange, out io.Writer, in io.Reader, secret string) error {
	rc, buf := x.Controller(), make([]byte, part)
	for {
		n, err := in.Read(buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			_, err = s.enforcer(secret) // it may be retired meanwhile
		}
		if err == nil {
			err = rc.SetWriteDeadline(time.Now().Add(s.WriteTimeout))
		}
		if err == nil {
			_, err = out.Write(buf[:n])
		}
		if err != nil {
			return err
		}
	}
}
