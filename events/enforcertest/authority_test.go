package enforcertest_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"watchword.dev/events/enforcer"
	"watchword.dev/events/enforcertest"
	"watchword.dev/events/token"
)

const (
	accountKey = "com.cloudflare.api.account.0123456789abcdef0123456789abcdef"
	zoneKey    = "com.cloudflare.api.account.zone.fedcba9876543210fedcba9876543210"
)

var question = &token.Request{Permission: "dns.records.write", Resource: []string{accountKey, zoneKey}, Address: netip.MustParseAddr("192.0.2.1")}

// TestAllWaysAgree: in the process, over HTTP and through a cache the answers
// are the same, through the whole life of a token.
func TestAllWaysAgree(t *testing.T) {
	a := enforcertest.New(t)
	ways := map[string]enforcer.Decider{"in the process": a, "over HTTP": a.Client(), "through a cache": a.Cache()}
	tok := a.Token(enforcertest.Grant{Permissions: []string{"dns.records.write"}, Resources: []string{zoneKey}})
	secret := tok.Secret
	expect := func(when string, want token.Reason) {
		t.Helper()
		for name, d := range ways {
			for range 2 { // the second may come out of the cache
				if got := d.Verify(secret, question); got.Reason != want || got.Verdict != want.Verdict() || want == token.ReasonNone && got.Token != tok.ID {
					t.Errorf("%s, %s: %+v, want %q", when, name, got, want)
				}
			}
		}
	}
	expect("new", token.ReasonNone)
	a.Disable(tok.ID)
	expect("disabled", token.ReasonDisabled)
	a.Enable(tok.ID)
	expect("enabled", token.ReasonNone)
	a.Update(tok.ID, enforcertest.Grant{Permissions: []string{"dns.records.read"}})
	expect("narrowed", token.ReasonNoPolicy)
	a.Update(tok.ID, enforcertest.Grant{Permissions: []string{"dns.records.write"}, From: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	expect("from elsewhere", token.ReasonAddress)
	a.Update(tok.ID, enforcertest.Grant{Permissions: []string{"dns.records.write"}, Expires: time.Now().Add(-time.Second)})
	expect("expired", token.ReasonExpired)
	a.Update(tok.ID, enforcertest.Grant{Permissions: []string{"dns.records.write"}})
	next := a.Roll(tok.ID)
	expect("with the old secret", token.ReasonRevoked)
	secret = next
	expect("with the new one", token.ReasonNone)
	a.Revoke(tok.ID)
	expect("revoked", token.ReasonRevoked)
	a.Unavailable(token.ReasonStale)
	if got := a.Client().Verify(secret, question); got.Reason != token.ReasonStale {
		t.Errorf("stale: %+v", got)
	}
}

// TestSilence: what a cache has not heard of it cannot know, and knows as soon
// as it hears.
func TestSilence(t *testing.T) {
	a := enforcertest.New(t)
	c := a.Cache()
	tok := a.Token(enforcertest.Grant{Permissions: []string{"dns.records.write"}})
	c.Verify(tok.Secret, question)
	a.Silence()
	a.Revoke(tok.ID)
	if d := c.Verify(tok.Secret, question); d.Verdict != token.VerdictAllow {
		t.Errorf("within the bound: %+v", d)
	}
	a.Speak()
	if d := c.Verify(tok.Secret, question); d.Reason != token.ReasonRevoked {
		t.Errorf("when it hears: %+v", d)
	}
}

// TestHold: an answer that is slow, and outdated when it comes.
func TestHold(t *testing.T) {
	a := enforcertest.New(t)
	c := a.Cache()
	tok := a.Token(enforcertest.Grant{Permissions: []string{"dns.records.write"}})
	release := a.Hold()
	got := make(chan token.Decision)
	go func() { got <- c.Verify(tok.Secret, question) }()
	a.Revoke(tok.ID)
	release()
	if d := <-got; d.Reason != token.ReasonRevoked {
		t.Errorf("%+v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer a.Hold()()
	cancel()
	if d := a.VerifyContext(ctx, tok.Secret, question); d.Verdict != token.VerdictUnavailable {
		t.Errorf("who does not wait: %+v", d)
	}
}

// TestServiceUnderTest is what a stranger's test looks like: their service, a
// token, its revocation, and a connection that is cut by it.
func TestServiceUnderTest(t *testing.T) {
	a := enforcertest.New(t)
	e := a.Enforcer(enforcer.Config{Decider: a.Cache()})
	zone := enforcer.Path("com.cloudflare.api.account.{account}", "com.cloudflare.api.account.zone.{zone}")
	cut := make(chan error, 1)
	begun := make(chan struct{})
	mux := http.NewServeMux()
	mux.Handle("GET /accounts/{account}/zones/{zone}/changes", e.Handle("dns.records.read", zone, func(w http.ResponseWriter, r *http.Request, id enforcer.Identity) {
		ctx, stop := id.Bind(r.Context())
		defer stop()
		close(begun)
		<-ctx.Done()
		cut <- context.Cause(ctx)
	}))
	server := httptest.NewServer(mux)
	defer server.Close()
	tok := a.Token(enforcertest.Grant{Permissions: []string{"dns.records.read"}, Resources: []string{zoneKey}})
	path := "/accounts/" + strings.TrimPrefix(accountKey, "com.cloudflare.api.account.") + "/zones/" + strings.TrimPrefix(zoneKey, "com.cloudflare.api.account.zone.") + "/changes"
	get := func() (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+path, nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "Bearer "+tok.Secret)
		resp, err := server.Client().Do(r)
		if err == nil {
			resp.Body.Close()
		}
		return resp, err
	}
	done := make(chan error, 1)
	go func() { _, err := get(); done <- err }()
	<-begun
	a.Revoke(tok.ID)
	if err := <-cut; !errors.Is(err, enforcer.ErrEnded) {
		t.Errorf("the stream ended by %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if resp, err := get(); err != nil || resp.StatusCode != 401 || !strings.Contains(resp.Header.Get("Www-Authenticate"), "invalid_token") {
		t.Errorf("%v, %v", resp, err)
	}
}
