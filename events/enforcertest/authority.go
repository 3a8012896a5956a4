// Package enforcertest is an installation in memory for the tests of services
// that use package enforcer: tokens are made, narrowed, rolled and revoked by the
// test, and the service under test sees what it would see in earnest.
//
//	a := enforcertest.New(t)
//	tok := a.Token(enforcertest.Grant{
//		Permissions: []string{"dns.records.write"},
//		Resources:   []string{"com.cloudflare.api.account.zone.0123…"},
//	})
//	handler := newService(a.Enforcer(enforcer.Config{}))
//	…                                     // a request with tok.Secret: 200
//	a.Revoke(tok.ID)
//	…                                     // the same request: 401
//
// An [Authority] decides by itself, as an index in the process does; its Client
// asks it over HTTP, and its Cache keeps what the client was told. There is no
// network beyond a loopback server of httptest, and nothing here sleeps.
//
// It has no catalogue and no owners: a grant is a list of permissions and
// resources. What real grants mean is package token's matter.
package enforcertest

import (
	"context"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/enforcer"
	"watchword.dev/events/token"
)

// Grant is what a token may do. The zero value allows nothing.
type Grant struct {
	Permissions []string
	// Resources are resource keys, of which one must be in the chain; none
	// means every resource.
	Resources []string
	// From are the networks from which it may be used; none means any.
	From []netip.Prefix
	// Expires is when it ends; zero is never.
	Expires time.Time
}

// Token is a token that the test has made.
type Token struct {
	ID     token.ID
	Owner  token.ID
	Secret string
}

// Authority is a fake installation. It is safe for concurrent use.
type Authority struct {
	t   testing.TB
	key token.Secret
	ids *token.Generator

	server func() *httptest.Server // makes it when it is first wanted

	telling sync.Mutex // orders what the followers hear

	mu        sync.Mutex
	secrets   map[string]*state
	tokens    map[token.ID]*state
	at        events.Position
	followers []enforcer.Follower
	told      int // commits that the followers have heard
	commits   []events.Commit
	silent    bool
	reason    token.Reason // stale or not ready; none when all is well
	hold      chan struct{}
}

// state is a token as it is now.
type state struct {
	id, owner token.ID
	grant     Grant
	secret    string
	status    token.Reason // why it is refused; none while it is good
}

// New returns an installation without any token. It ends with the test.
func New(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, ids: token.NewGenerator(nil), secrets: map[string]*state{}, tokens: map[token.ID]*state{}}
	a.key = token.NewSecret(a.newSecret(token.KindEnforcer))
	a.server = sync.OnceValue(a.serve)
	a.append("log", &events.LogOpened{Installation: a.ids.New(), Brand: token.DefaultBrand, PulseKey: make([]byte, 32)})
	return a
}

func (a *Authority) newSecret(k token.Kind) string {
	s, err := token.Format{}.Generate(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return s.Reveal()
}

// Token makes a token of a new user.
func (a *Authority) Token(g Grant) Token {
	s := &state{id: a.ids.New(), owner: a.ids.New(), grant: g, secret: a.newSecret(token.KindUser)}
	a.change(func() {
		a.secrets[s.secret], a.tokens[s.id] = s, s
		a.append("token/"+s.id.String(), &events.TokenCreated{
			Name: "a token", OwnerKind: events.OwnedByUser, Owner: s.owner, Secret: token.Sum(s.secret),
		})
	})
	return Token{s.id, s.owner, s.secret}
}

// Update gives a token another grant.
func (a *Authority) Update(id token.ID, g Grant) {
	a.about(id, &events.TokenUpdated{Name: "a token"}, func(s *state) { s.grant = g })
}

// Roll gives a token another secret, which is returned; the old one dies.
func (a *Authority) Roll(id token.ID) string {
	secret := a.newSecret(token.KindUser)
	a.about(id, &events.TokenRolled{Secret: token.Sum(secret)}, func(s *state) {
		old := *s
		old.status = token.ReasonRevoked
		a.secrets[s.secret], a.secrets[secret] = &old, s
		s.secret = secret
	})
	return secret
}

// Disable suspends a token.
func (a *Authority) Disable(id token.ID) {
	a.about(id, &events.TokenDisabled{}, func(s *state) { s.status = token.ReasonDisabled })
}

// Enable ends the suspension of a token.
func (a *Authority) Enable(id token.ID) {
	a.about(id, &events.TokenEnabled{}, func(s *state) { s.status = token.ReasonNone })
}

// Revoke ends a token for good. When it returns, all followers have heard of
// it, unless the feed is silent.
func (a *Authority) Revoke(id token.ID) {
	a.about(id, &events.TokenRevoked{}, func(s *state) { s.status = token.ReasonRevoked })
}

func (a *Authority) about(id token.ID, data events.Event, do func(*state)) {
	a.t.Helper()
	a.change(func() {
		s := a.tokens[id]
		if s == nil || s.status == token.ReasonRevoked {
			a.t.Errorf("enforcertest: %s of a token that is not there or was revoked", data.EventName())
			return
		}
		do(s)
		a.append("token/"+id.String(), data)
	})
}

func (a *Authority) change(do func()) {
	a.mu.Lock()
	do()
	a.mu.Unlock()
	a.tell()
}

// append adds a commit to the ledger. a.mu is held, or nobody else has a yet.
func (a *Authority) append(subject string, data events.Event) {
	if subject == "log" {
		subject += "/" + a.ids.New().String()
	}
	_, c, err := events.Compose(a.at, []events.Draft{{Data: data, Envelope: events.Envelope{
		ID: a.ids.New(), Source: "watchword/test", Subject: subject, Time: time.Now(), Actor: events.Actor{Kind: events.ActorSystem},
	}}})
	if err != nil {
		a.t.Errorf("enforcertest: %v", err)
		return
	}
	a.commits, a.at = append(a.commits, c), c.End
}

// Unavailable lets every question be answered with "unavailable", for reason
// token.ReasonStale or token.ReasonNotReady; token.ReasonNone ends that.
func (a *Authority) Unavailable(reason token.Reason) {
	if reason.Verdict() == token.VerdictDeny {
		a.t.Errorf("enforcertest: %v is no reason to be unavailable", reason)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reason = reason
}

// Hold keeps all answers back until the function that it returns is called. What
// they say was decided before.
func (a *Authority) Hold() (release func()) {
	hold := make(chan struct{})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hold = hold
	return sync.OnceFunc(func() {
		a.mu.Lock()
		if a.hold == hold {
			a.hold = nil
		}
		a.mu.Unlock()
		close(hold)
	})
}

// Verify implements enforcer.Decider.
func (a *Authority) Verify(secret string, ask *token.Request) token.Decision {
	return a.VerifyContext(context.Background(), secret, ask)
}

// VerifyContext implements enforcer.ContextDecider.
func (a *Authority) VerifyContext(ctx context.Context, secret string, ask *token.Request) token.Decision {
	d, hold := a.decide(secret, ask)
	if hold == nil {
		return d
	}
	select {
	case <-hold:
		return d
	case <-ctx.Done():
		return token.Decision{Verdict: token.VerdictUnavailable, Reason: token.ReasonNotReady}
	}
}

// bound is how old an answer may be: that of a permission that writes.
const bound = 30 * time.Second

func (a *Authority) decide(secret string, ask *token.Request) (d token.Decision, hold chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d = token.Decision{Sequence: a.at.Seq, Bound: bound}
	s := a.secrets[secret]
	switch {
	case a.reason != token.ReasonNone:
		d.Reason = a.reason
	case s == nil:
		d.Reason = token.ReasonUnknown
	default:
		d.Token, d.Owner, d.OwnerKind = s.id, s.owner, token.OwnerUser
		d.ByAddress = len(s.grant.From) > 0
		if d.Reason = s.reason(ask); s.grant.Expires.After(time.Now()) {
			d.Until = s.grant.Expires
		}
	}
	d.Verdict = d.Reason.Verdict()
	return d, a.hold
}

func (s *state) reason(ask *token.Request) token.Reason {
	g := &s.grant
	switch {
	case s.status != token.ReasonNone:
		return s.status
	case !g.Expires.IsZero() && !time.Now().Before(g.Expires):
		return token.ReasonExpired
	case len(g.From) > 0 && !slices.ContainsFunc(g.From, func(p netip.Prefix) bool { return p.Contains(ask.Address) }):
		return token.ReasonAddress
	case !slices.Contains(g.Permissions, ask.Permission):
		return token.ReasonNoPolicy
	case len(g.Resources) > 0 && !slices.ContainsFunc(g.Resources, func(k string) bool { return slices.Contains(ask.Resource, k) }):
		return token.ReasonNoPolicy
	}
	return token.ReasonNone
}
