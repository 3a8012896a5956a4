package e2e_test

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/enforcer"
	"watchword.dev/events/feed/sse"
	"watchword.dev/events/token"
)

const accountType = "com.cloudflare.api.account."

// enforcing is a service with a cache that follows the server over HTTP.
type enforcing struct {
	e      *enforcer.Enforcer
	client *enforcer.Client
	cache  *enforcer.Cache
	heard  chan enforcer.Revocation
}

func enforce(t *testing.T, i *installation) *enforcing {
	t.Helper()
	s := &enforcing{heard: make(chan enforcer.Revocation, 8)}
	var err error
	if s.client, err = enforcer.NewClient(enforcer.ClientConfig{URLs: []string{i.admin.BaseURL}, Key: token.NewSecret(i.admin.EnforcerKey)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	if s.cache, err = enforcer.NewCache(enforcer.CacheConfig{Source: s.client}); err != nil {
		t.Fatal(err)
	}
	if s.e, err = enforcer.New(enforcer.Config{Decider: s.cache, OnRevoked: func(r enforcer.Revocation) { s.heard <- r }}); err != nil {
		t.Fatal(err)
	}
	vouched := make(chan struct{}, 1)
	feed, err := sse.New(sse.Config{URL: i.admin.BaseURL, Key: i.admin.EnforcerKey, Pulse: pulsed(s.cache, vouched)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = enforcer.FollowNewest(ctx, feed, s.cache, s.e) }() // ends with ctx
	t.Cleanup(func() { stop(); <-ended })
	for {
		if _, ok := s.cache.Age(); ok {
			return s
		}
		select {
		case <-vouched:
		case <-time.After(deadline):
			t.Fatal("no pulse came")
		}
	}
}

func (s *enforcing) check(t *testing.T, i *installation, secret, permission string) (enforcer.Identity, int) {
	t.Helper()
	id, f := s.e.Check(t.Context(), secret, permission, []string{accountType + i.admin.AccountID, zoneType + zoneID}, netip.MustParseAddr("192.0.2.1"))
	if f != nil {
		return id, f.Status
	}
	return id, http.StatusOK
}

// TestThinEnforcer: a service of a stranger's, the real server and the whole
// life of a token.
func TestThinEnforcer(t *testing.T) {
	i := install(t)
	s := enforce(t, i)
	tok := i.create("thin")
	var id enforcer.Identity
	for n := range 10 {
		var status int
		if id, status = s.check(t, i, tok.Value, "dns.records.write"); status != http.StatusOK || id.Token.String() != tok.ID || id.Bound != 30*time.Second {
			t.Fatalf("check %d: %d, %+v", n, status, id)
		}
	}
	if got := s.cache.Stats(); got.Asked != 1 || got.Hits != 9 {
		t.Errorf("%+v: the answer was not kept", got)
	}
	if _, status := s.check(t, i, tok.Value, "zone.read"); status != http.StatusForbidden {
		t.Errorf("a permission that it has not: %d", status)
	}
	ctx, stop := id.Bind(t.Context())
	defer stop()
	i.must(asked{http.MethodDelete, userTokens + "/" + tok.ID, i.operator(), ""}, new(any))
	select {
	case <-ctx.Done():
	case <-time.After(deadline):
		t.Fatal("the bound context lives on")
	}
	if !errors.Is(context.Cause(ctx), enforcer.ErrEnded) {
		t.Error(context.Cause(ctx))
	}
	if r := <-s.heard; r.By != enforcer.RevokedToken || r.ID.String() != tok.ID {
		t.Errorf("heard of %+v", r)
	}
	if _, status := s.check(t, i, tok.Value, "dns.records.write"); status != http.StatusUnauthorized {
		t.Errorf("after the revocation: %d", status)
	}
	i.server.Kill()
	stranger, err := token.Format{}.Generate(token.KindUser)
	if err != nil {
		t.Fatal(err)
	}
	if _, status := s.check(t, i, stranger.Reveal(), "dns.records.write"); status != http.StatusServiceUnavailable {
		t.Errorf("with nobody to ask: %d", status)
	}
}

// pulsed passes pulses on to the cache and tells that one has come.
func pulsed(c *enforcer.Cache, came chan<- struct{}) func(events.Pulse, time.Time) {
	return func(p events.Pulse, arrived time.Time) {
		c.Observe(p, arrived)
		select {
		case came <- struct{}{}:
		default:
		}
	}
}
