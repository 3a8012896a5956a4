package fanout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/fault"
	"watchword.dev/events/feed/sse"
	"watchword.dev/events/token"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/internal/web"
)

// Ledger is what is served. stream.Log is one.
type Ledger interface {
	events.Reader
	// PositionAt returns where the commit with this sequence ends, or
	// events.ErrRewind when the ledger has none.
	PositionAt(ctx context.Context, seq uint64) (events.Position, error)
}

// Enforcers knows who may follow. verifyindex.Index is one.
type Enforcers interface {
	// Enforcer recognises an enforcing service by its secret.
	Enforcer(secret string) (verifyindex.EnforcerInfo, token.Reason)
	// Wait returns nil as soon as answers rest on seq.
	Wait(ctx context.Context, seq uint64) error
}

// Config is what a Service needs. Ledger and Enforcers are needed.
type Config struct {
	Ledger Ledger
	// Live follows the ledger from its end; Ledger when nil.
	Live      events.Reader
	Enforcers Enforcers
	// PulseKey is the key of the pulses, to tell clients.
	PulseKey []byte
	// MaxStreams bounds how many clients follow; 4096 when zero. MaxCatchUps
	// bounds how many of them read what is not in the ring any more; 8. One
	// enforcer has at most half of either.
	MaxStreams, MaxCatchUps int
	// RingCommits and RingBytes bound what is kept for those who are a little
	// behind; 4096 and 16 MiB.
	RingCommits, RingBytes int
	// WriteTimeout is how long a client may take for one write; 10 s.
	WriteTimeout time.Duration
	// Beat is after how long without anything a comment is sent; 1 s.
	Beat time.Duration
	// Settle bounds how long a request waits until the index has heard of
	// whatever the feed has; 5 s.
	Settle time.Duration
	Now    func() time.Time // time.Now when nil
	Log    *slog.Logger     // slog.Default() when nil
}

func (c *Config) setDefaults() {
	set := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	set(&c.MaxStreams, 4096)
	set(&c.MaxCatchUps, 8)
	set(&c.RingCommits, 4096)
	set(&c.RingBytes, 16<<20)
	wait := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	wait(&c.WriteTimeout, 10*time.Second)
	wait(&c.Beat, time.Second)
	wait(&c.Settle, 5*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Live == nil {
		c.Live = c.Ledger
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
}

// Service serves the feed.
type Service struct {
	Config
	hub    *hub
	behind chan struct{} // has an element for each stream that catches up
	broken atomic.Pointer[error]
}

// New returns a service with the defaults of cfg filled in.
func New(cfg Config) (*Service, error) {
	if cfg.Ledger == nil || cfg.Enforcers == nil {
		return nil, errors.New("fanout: a ledger and its enforcers are needed")
	}
	cfg.setDefaults()
	return &Service{
		Config: cfg, hub: newHub(cfg.RingCommits, cfg.RingBytes, cfg.Now), behind: make(chan struct{}, cfg.MaxCatchUps),
	}, nil
}

// Why streams end, or do not begin.
var (
	errClosed  = errors.New("fanout: closing")
	errFull    = errors.New("fanout: as many streams as may be")
	errRetired = errors.New("fanout: retired")
)

// Run follows the ledger until ctx ends, or until something is wrong with the
// ledger, which it returns and Err tells from then on. Either ends all streams.
func (s *Service) Run(ctx context.Context) error {
	defer s.hub.close()
	err := s.follow(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err = fmt.Errorf("fanout: %w", err)
	s.broken.Store(&err) // before a stream ends
	return err
}

func (s *Service) follow(ctx context.Context) error {
	at, err := s.end(ctx)
	if err != nil {
		return err
	}
	s.hub.open(at)
	return s.Live.Read(ctx, at, func(c events.Commit) error {
		s.hub.add(&c)
		return nil
	})
}

// end returns where the ledger ends now.
func (s *Service) end(ctx context.Context) (events.Position, error) {
	head, err := s.Ledger.Head(ctx)
	if err != nil {
		return events.Position{}, err
	}
	return s.Ledger.PositionAt(ctx, head)
}

// Err returns why the feed has stopped, or nil.
func (s *Service) Err() error {
	if err := s.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// Pulse passes a pulse on that the pen has signed, as stored.
func (s *Service) Pulse(pulse []byte) { s.hub.beat(pulse) }

// Streams is how many clients follow now.
func (s *Service) Streams() int {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.hub.count
}

// Close ends all streams, for a server that drains. Clients resume elsewhere.
func (s *Service) Close() { s.hub.close() }

// Routes adds the service's route to rt. Enforcers may come back as often as
// they must; wrong keys are bounded.
func (s *Service) Routes(rt *web.Router) {
	rt.Handle(http.MethodGet, sse.Path, s.serve)
	rt.Exempt(sse.Path)
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
