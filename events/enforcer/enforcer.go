package enforcer

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"watchword.dev/events/clientaddr"
	"watchword.dev/events/token"
)

// ErrUnavailable says that nobody could tell whether something is allowed. It
// is neither a yes nor a no.
var ErrUnavailable = errors.New("enforcer: no decision can be had now")

// Decider decides whether the bearer of a secret may do what is asked. It must
// not keep the strings that it is given: their memory is used again.
// verifyindex.Index, [Client] and [Cache] are deciders.
type Decider interface {
	Verify(secret string, ask *token.Request) token.Decision
}

// ContextDecider is a Decider that may have to wait for somebody else. It is
// preferred where there is a context; when that ends first, the decision is
// unavailable.
type ContextDecider interface {
	VerifyContext(ctx context.Context, secret string, ask *token.Request) token.Decision
}

// waiter is a Decider that can be waited for until it rests on a sequence, as
// verifyindex.Index.
type waiter interface {
	Sequence() uint64
	Wait(ctx context.Context, seq uint64) error
}

// DefaultRealm is the realm of a Config that names none.
const DefaultRealm = "watchword"

// Config is what an Enforcer needs.
type Config struct {
	Decider Decider
	// Realm is what the challenges name; DefaultRealm when empty.
	Realm string
	// Address says how a client's address is found. The zero value takes that
	// of the connection: behind a proxy, name the proxy.
	Address clientaddr.Rule
	// LegacyKeys also takes a user's Global API Key from X-Auth-Key, beside
	// X-Auth-Email. Where it is false such a key is refused, in Authorization
	// too.
	LegacyKeys bool
	// Refuse answers what is not let through; nil means Refusal.Answer.
	Refuse func(http.ResponseWriter, *http.Request, *Refusal)
	// OnRevoked hears of each revocation that Applied brings, in order and
	// before Applied returns. It may be nil.
	OnRevoked func(Revocation)
	// Observe hears of every decision, for metrics; it may be nil.
	Observe func(token.Decision)
}

// Enforcer lets requests through, or not. It is safe for concurrent use.
type Enforcer struct {
	cfg     Config
	context ContextDecider // cfg.Decider, if it is one
	wait    waiter         // cfg.Decider, if it is one
	rooms   sync.Pool      // of *room
	live    registry
}

// New returns an enforcer with the defaults of cfg filled in.
func New(cfg Config) (*Enforcer, error) {
	if cfg.Decider == nil {
		return nil, errors.New("enforcer: a decider is needed")
	}
	if cfg.Realm == "" {
		cfg.Realm = DefaultRealm
	}
	if strings.ContainsFunc(cfg.Realm, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
		return nil, errors.New("enforcer: a realm is printable ASCII without quotes and backslashes")
	}
	cfg.Address = cfg.Address.Canonical()
	e := &Enforcer{cfg: cfg, rooms: sync.Pool{New: func() any { return new(room) }}}
	e.context, _ = cfg.Decider.(ContextDecider)
	e.wait, _ = cfg.Decider.(waiter)
	e.live.init()
	return e, nil
}

// room is the memory of one question. It is used again by others.
type room struct {
	ask   token.Request
	chain Chain
}

func (e *Enforcer) take() *room { return e.rooms.Get().(*room) }

func (e *Enforcer) give(m *room) {
	m.ask = token.Request{}
	m.chain.reset()
	e.rooms.Put(m)
}

// Check decides one question outside of net/http, for adapters to other
// frameworks. secret is what the caller presented, without "Bearer "; an empty
// one was not presented. The refusal is nil when the request may pass.
func (e *Enforcer) Check(ctx context.Context, secret, permission string, resource []string, from netip.Addr) (Identity, *Refusal) {
	id := Identity{Permission: permission, Address: from.Unmap()}
	if secret == "" {
		return id, &Refusal{Status: http.StatusUnauthorized, Permission: permission}
	}
	secret = strings.TrimPrefix(secret, secretURI)
	if !isToken68(secret) {
		return id, &Refusal{Status: http.StatusBadRequest, Code: CodeInvalidRequest, Permission: permission}
	}
	m := e.take()
	defer e.give(m)
	for _, key := range resource {
		m.chain.AddKey(key)
	}
	chain, err := m.chain.done()
	if err != nil {
		return id, ResourceRefusal(permission, err)
	}
	m.ask = token.Request{Permission: permission, Resource: chain, Address: id.Address}
	id.Decision = e.decide(ctx, secret, &m.ask, bearer)
	if id.Verdict != token.VerdictAllow {
		return id, refused(permission, id.Decision)
	}
	id.e, id.asked = e, &question{secret: token.NewSecret(strings.Clone(secret)), permission: permission, resource: cloned(resource), address: id.Address}
	return id, nil
}

func cloned(keys []string) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = strings.Clone(k)
	}
	return out
}

// decide asks. A user's API key counts only where it is configured.
func (e *Enforcer) decide(ctx context.Context, secret string, ask *token.Request, how presented) (d token.Decision) {
	if e.context != nil {
		d = e.context.VerifyContext(ctx, secret, ask)
	} else {
		d = e.cfg.Decider.Verify(secret, ask)
	}
	// The answer about an API key names its user and no token.
	key := d.Token.IsZero() && d.OwnerKind == token.OwnerUser
	if d.Verdict == token.VerdictAllow && (key && !e.cfg.LegacyKeys || !key && how == legacyKey) {
		d.Verdict, d.Reason = token.VerdictDeny, token.ReasonUnknown
	}
	if e.cfg.Observe != nil {
		e.cfg.Observe(d)
	}
	return d
}

// ResourceRefusal is the refusal that goes with an error of a Resource, for
// adapters.
func ResourceRefusal(permission string, err error) *Refusal {
	if errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &Refusal{Status: http.StatusServiceUnavailable, Permission: permission, RetryAfter: retryAfter, Err: err}
	}
	return &Refusal{Status: http.StatusBadRequest, Code: CodeInvalidRequest, Permission: permission, Err: err}
}

// Identity is who was let through, and to do what.
type Identity struct {
	token.Decision // always an allow
	// Permission is what was asked for, Address the client's; it is invalid
	// when it is not known.
	Permission string
	Address    netip.Addr

	// What was asked, for Bind: either a request that still holds it, or the
	// question itself.
	e     *Enforcer
	guard *guard
	r     *http.Request
	asked *question
}

// question is what was asked, with memory of its own.
type question struct {
	secret     token.Secret
	permission string
	resource   []string
	address    netip.Addr
	how        presented
}

type identityKey struct{}

// NewContext returns a context that carries id, as Require makes one.
func NewContext(ctx context.Context, id Identity) context.Context {
	return &identityContext{ctx, id}
}

// FromContext returns who was let through.
func FromContext(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(*Identity)
	if !ok {
		return Identity{}, false
	}
	return *id, true
}

// identityContext is a context.WithValue of one allocation.
type identityContext struct {
	context.Context
	id Identity
}

func (c *identityContext) Value(key any) any {
	if key == (identityKey{}) {
		return &c.id
	}
	return c.Context.Value(key)
}

// now is the clock of Bind. A testing/synctest bubble moves it.
func now() time.Time { return time.Now() }
