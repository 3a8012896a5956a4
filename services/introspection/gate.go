package introspection

import (
	"context"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"watchword.dev/events/enforcer"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/internal/web"
	"watchword.dev/services/introspection/routes"
)

// EnforcerKeyHeader is where a proxy that asks for others shows its own key:
// Authorization is its client's.
const EnforcerKeyHeader = "Watchword-Enforcer-Key"

// IdentityHeaders tell the service behind a proxy who asks, for what. Every
// answer to a proxy has all of them, empty where there is nothing to say, so that
// the proxy replaces what its client may have sent under these names.
var IdentityHeaders = []string{
	"Watchword-Token-Id", "Watchword-Owner-Id", "Watchword-Owner-Kind", "Watchword-Account-Id",
	"Watchword-Policy-Id", "Watchword-Permission", "Watchword-Resource", web.SequenceHeader,
}

// proxyRetry is when a proxy's client may try again, tellEvery how often the log
// says that a proxy cannot be answered.
const (
	proxyRetry = time.Second
	tellEvery  = 10 * time.Second
)

// Passing is a request that a proxy holds back until it knows whether it may
// pass.
type Passing struct {
	Method string
	Host   string // empty: not known
	Target string // as it stands in the request line
	// Authorization are the lines of that header.
	Authorization []string
	// Address is the client's; the zero Addr when it is not known.
	Address netip.Addr
}

// Verdict is the answer to a proxy, and to its client if the request is refused.
type Verdict struct {
	Status int // 200, 401, 403 or 503
	Header http.Header
	Body   []byte
}

// Recognise returns which enforcer has this key, or the fault that refuses it.
func (s *Service) Recognise(key string) (verifyindex.EnforcerInfo, *fault.Error) {
	return s.enforcer(key)
}

// Pass decides about a request that an enforcer's proxy holds back.
func (s *Service) Pass(ctx context.Context, by *verifyindex.EnforcerInfo, p *Passing) *Verdict {
	var m *routes.Map
	if s.Map != nil {
		m = s.Map()
	}
	if m == nil {
		return s.Unavailable("there are no routes: serve --routes names a file of them")
	}
	v := &Verdict{Status: http.StatusOK, Header: newIdentity()}
	id, need, refusal := s.pass(ctx, by, p, m)
	if refusal == nil {
		identify(v.Header, &id, need)
	} else {
		s.Log.Debug("a proxy's request is refused", "enforcer", by.Name, "why", refusal)
		v.refuse(refusal)
	}
	if s.Passed != nil {
		s.Passed(v.Status)
	}
	return v
}

// Unavailable is the verdict of a proxy's request that could not be looked at.
// Why, the log says, but not for each request.
func (s *Service) Unavailable(why string) *Verdict {
	if now := time.Now().UnixNano(); now-s.told.Load() > int64(tellEvery) {
		s.told.Store(now)
		s.Log.Warn("a proxy is told that nobody knows", "why", why)
	}
	v := &Verdict{Header: newIdentity()}
	v.refuse(&enforcer.Refusal{Status: http.StatusServiceUnavailable, RetryAfter: proxyRetry})
	if s.Passed != nil {
		s.Passed(v.Status)
	}
	return v
}

func newIdentity() http.Header {
	h := make(http.Header, len(IdentityHeaders)+4)
	for _, name := range IdentityHeaders {
		h[name] = []string{""}
	}
	return h
}

// refuse answers with f.
func (v *Verdict) refuse(f *enforcer.Refusal) {
	// Proxies take any other status than these for a failure of ours.
	if f.Status == http.StatusBadRequest {
		f.Status, f.Code = http.StatusUnauthorized, enforcer.CodeInvalidToken
	}
	v.Status = f.Status
	v.Body = f.Render(v.Header, enforcer.DefaultRealm)
}

// pass finds what p needs and asks for it.
func (s *Service) pass(ctx context.Context, by *verifyindex.EnforcerInfo, p *Passing, m *routes.Map) (id enforcer.Identity, need []string, f *enforcer.Refusal) {
	secret, f := bearerOf(p.Authorization)
	if f != nil {
		return id, nil, f
	}
	n, ok, err := m.Find(p.Method, p.Host, p.Target)
	if err != nil || !ok {
		return id, nil, &enforcer.Refusal{Status: http.StatusForbidden, Code: enforcer.CodeInsufficientScope, Err: err}
	}
	id, f = s.gate.Check(context.WithValue(ctx, askerKey{}, by), secret, n.Permission, n.Resource, p.Address)
	d := id.Decision
	if f != nil {
		d = f.Decision
	}
	s.count(by, &d, &token.Request{Permission: n.Permission, Resource: n.Resource, Address: p.Address})
	return id, n.Resource, f
}

// count tells of a decision, if there was one: a secret of no form at all is
// refused without.
func (s *Service) count(by *verifyindex.EnforcerInfo, d *token.Decision, ask *token.Request) {
	if d.Verdict == token.VerdictDeny && d.Reason == token.ReasonNone {
		return
	}
	if s.Observe != nil {
		s.Observe(by.ID, d)
	}
	if s.Count != nil {
		s.Count.Lane().Decision(d, ask)
	}
}

// bearerOf returns the secret in Authorization. Another scheme is as good as
// nothing; what cannot be read is refused.
func bearerOf(lines []string) (string, *enforcer.Refusal) {
	needed := &enforcer.Refusal{Status: http.StatusUnauthorized}
	if len(lines) == 0 {
		return "", needed
	}
	scheme, rest, _ := strings.Cut(lines[0], " ")
	if len(lines) == 1 && !strings.EqualFold(scheme, "Bearer") {
		return "", needed
	}
	secret := strings.Trim(rest, " ")
	if len(lines) > 1 || secret == "" {
		return "", &enforcer.Refusal{Status: http.StatusUnauthorized, Code: enforcer.CodeInvalidToken}
	}
	return secret, nil
}

// askerKey is under which a context holds the enforcer that asks.
type askerKey struct{}

// within decides for the enforcer in the context.
type within struct{ s *Service }

// Verify implements enforcer.Decider; it is not called.
func (w within) Verify(secret string, ask *token.Request) token.Decision {
	return w.VerifyContext(context.Background(), secret, ask)
}

// VerifyContext implements enforcer.ContextDecider.
func (w within) VerifyContext(ctx context.Context, secret string, ask *token.Request) token.Decision {
	by, ok := ctx.Value(askerKey{}).(*verifyindex.EnforcerInfo)
	if !ok {
		return token.Decision{Verdict: token.VerdictUnavailable, Reason: token.ReasonNotReady}
	}
	return w.s.Decider.VerifyWithin(by.Ceiling, secret, ask)
}

// identify fills in who was let through, and to what.
func identify(h http.Header, id *enforcer.Identity, resource []string) {
	set := func(name string, of token.ID) {
		if !of.IsZero() {
			h[name][0] = of.String()
		}
	}
	set("Watchword-Token-Id", id.Token)
	set("Watchword-Owner-Id", id.Owner)
	set("Watchword-Account-Id", id.Account)
	set("Watchword-Policy-Id", id.Policy)
	if id.OwnerKind != token.OwnerNone {
		h["Watchword-Owner-Kind"][0] = id.OwnerKind.String()
	}
	h["Watchword-Permission"][0] = id.Permission
	h["Watchword-Resource"][0] = strings.Join(resource, " ")
	h[web.SequenceHeader][0] = strconv.FormatUint(id.Sequence, 10)
}
