package introspection

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/clientaddr"
	"watchword.dev/events/enforcer"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/events/usage"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/internal/web"
	"watchword.dev/services/introspection/routes"
)

// Decider knows every secret and decides without I/O. verifyindex.Index is
// one. It must not keep the strings that it is given: their memory is used
// again.
type Decider interface {
	// Enforcer recognises an enforcing service by its secret.
	Enforcer(secret string) (verifyindex.EnforcerInfo, token.Reason)
	// VerifyWithin decides one request for an enforcer whose staleness bound
	// has this ceiling; zero is none.
	VerifyWithin(ceiling time.Duration, secret string, ask *token.Request) token.Decision
	// Identify says whose a secret is, and whether its token is good at all
	// from this address.
	Identify(secret string, from netip.Addr) (verifyindex.Identity, token.Reason)
	// Sequence returns the last sequence that answers rest on.
	Sequence() uint64
	// Wait returns nil as soon as answers rest on seq.
	Wait(ctx context.Context, seq uint64) error
}

// Tokens knows what a token may do. directory.Directory is one.
type Tokens interface {
	Token(token.ID) (aggregate.Token, bool, error)
}

// Waiter waits until a projection has reached a sequence.
type Waiter interface {
	Wait(ctx context.Context, seq uint64) error
}

// Config is what a Service needs.
type Config struct {
	Decider Decider
	// Tokens and Catalogue give RFC 7662 its scope. Where Tokens is nil that
	// route does not exist.
	Tokens    Tokens
	Catalogue func() *catalogue.Catalogue
	// Reached waits until Tokens rests on a sequence.
	Reached Waiter
	// Issuer returns the installation's own URL, as iss names it.
	Issuer func() string
	// AtLeastWait bounds how long a request waits for the sequence that it
	// names, or for Tokens to follow the decider; 2 s when zero.
	AtLeastWait time.Duration
	Log         *slog.Logger // nil: slog.Default()
	// Observe hears of every decision, for metrics; it may be nil. It must not
	// keep d.
	Observe func(enforcer token.ID, d *token.Decision)
	// Count counts what tokens are used for; nil counts nothing.
	Count *usage.Recorder
	// Map says what the requests that proxies hold back need; while it is nil,
	// or returns nil, they are told that nobody knows.
	Map func() *routes.Map
	// Address says in which header proxies name their clients, and which of
	// those are proxies, too.
	Address clientaddr.Rule
	// Passed hears of the status of each answer to a proxy; it may be nil.
	Passed func(status int)
}

// Service answers verifications over HTTP.
type Service struct {
	Config
	works    sync.Pool // of *work
	gate     *enforcer.Enforcer
	told     atomic.Int64 // when the log was told of a proxy, in Unix nanoseconds
	throttle func(http.ResponseWriter, *http.Request, *fault.Error) *fault.Error
}

// New returns a service with the defaults of cfg filled in.
func New(cfg Config) (*Service, error) {
	if cfg.Decider == nil {
		return nil, errors.New("introspection: a decider is needed")
	}
	if cfg.AtLeastWait == 0 {
		cfg.AtLeastWait = 2 * time.Second
	}
	if cfg.Tokens != nil && (cfg.Catalogue == nil || cfg.Issuer == nil || cfg.Reached == nil) {
		return nil, errors.New("introspection: RFC 7662 needs a catalogue, an issuer and who waits for tokens")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.Address = cfg.Address.Canonical()
	s := &Service{Config: cfg, works: sync.Pool{New: func() any { return newWork(cfg.Count) }}}
	var err error
	s.gate, err = enforcer.New(enforcer.Config{Decider: within{s}})
	return s, err
}

// Routes adds the service's routes to rt. Enforcers may ask as often as they
// like; wrong keys are bounded.
func (s *Service) Routes(rt *web.Router) {
	s.throttle = rt.Throttle
	rt.Mount(http.MethodPost, "/v1/verify", http.HandlerFunc(s.verify))
	rt.Mount(http.MethodGet, forwardAuthPath, http.HandlerFunc(s.forwardAuth))
	if s.Tokens == nil {
		return
	}
	rt.Handle(http.MethodPost, "/oauth2/introspect", s.introspect)
	rt.Exempt("/oauth2/introspect")
	rt.Handle(http.MethodGet, "/.well-known/oauth-authorization-server", s.metadata)
}

// enforcer returns who asks, or the fault that refuses it.
func (s *Service) enforcer(secret string) (verifyindex.EnforcerInfo, *fault.Error) {
	if secret == "" {
		return verifyindex.EnforcerInfo{}, fault.New(fault.EnforcerKeyNeeded)
	}
	info, reason := s.Decider.Enforcer(secret)
	switch reason {
	case token.ReasonNone:
		return info, nil
	case token.ReasonStale:
		return info, fault.New(fault.StaleIndex)
	case token.ReasonNotReady:
		return info, fault.New(fault.NotReady)
	}
	return info, fault.New(fault.EnforcerKeyNeeded)
}

// reach waits for the sequence that the request names, if it names one.
func (s *Service) reach(r *http.Request) *fault.Error {
	if len(r.Header[web.AtLeastHeader]) == 0 {
		return nil
	}
	seq, err := web.AtLeast(r.Header)
	if err != nil {
		return fault.From(err)
	}
	if seq <= s.Decider.Sequence() {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.AtLeastWait)
	defer cancel()
	if err := s.Decider.Wait(ctx, seq); err != nil {
		return fault.Wrap(fault.WaitTimedOut, err)
	}
	return nil
}
