package cloudflare_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"watchword.dev/services/e2e/cloudflare"
	v0 "watchword.dev/services/e2e/cloudflare/v0"
	v6 "watchword.dev/services/e2e/cloudflare/v6"
	v7 "watchword.dev/services/e2e/cloudflare/v7"
	"watchword.dev/services/e2e/proc"
)

// deadline bounds everything that a test waits for; it promises no speed.
const deadline = 90 * time.Second

const (
	zoneID   = "1f0c6b0f0a2b4c6d8e9f00112233aabb"
	dnsWrite = "4755a26eedb94da69e1066d98aa820be"
	zoneRead = "c8fed203ed3043cba015a93ad1616f1f"
	unknown  = "00000000000000000000000000000001"

	userScope    = "com.cloudflare.api.user"
	accountScope = "com.cloudflare.api.account"
	zoneScope    = "com.cloudflare.api.account.zone"
)

// server is one that all tests share: what they make has different names, and
// the end of a test deletes it.
var server *proc.Server

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "watchword-e2e-cloudflare-")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	binary, err := proc.Build(ctx, dir)
	if err != nil {
		return complain(err)
	}
	if server, err = proc.Start(binary, dir+"/data", proc.Unlimited...); err != nil {
		return complain(err)
	}
	defer server.Kill()
	if err := server.Ready(ctx); err != nil {
		return complain(err)
	}
	return m.Run()
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// one is one client with one of its kinds of tokens, in one test.
type one struct {
	cloudflare.Client
	cloudflare.Kind
	t    *testing.T
	ctx  context.Context
	http *watched
}

// clients are all of Cloudflare's that run here.
func clients() []cloudflare.Client {
	return []cloudflare.Client{v0.Client(), v6.Client(), v7.Client()}
}

// each runs f for every client and kind of token.
func each(t *testing.T, f func(*testing.T, *one)) {
	t.Parallel()
	for _, c := range clients() {
		for _, k := range c.Kinds {
			t.Run(c.Name+" "+k.Name, func(t *testing.T) {
				t.Parallel()
				f(t, newOne(t, c, k))
			})
		}
	}
}

// inTurn is each, one after the other and before all tests that run side by
// side: nothing else changes what the pages of a list are cut from.
func inTurn(t *testing.T, f func(*testing.T, *one)) {
	for _, c := range clients() {
		for _, k := range c.Kinds {
			t.Run(c.Name+" "+k.Name, func(t *testing.T) { f(t, newOne(t, c, k)) })
		}
	}
}

func newOne(t *testing.T, c cloudflare.Client, k cloudflare.Kind) *one {
	return &one{c, k, t, bounded(t), &watched{t: t}}
}

// as is the server with no credential.
func (o *one) as() cloudflare.As {
	return cloudflare.As{BaseURL: base(), AccountID: server.Admin.AccountID, HTTP: &http.Client{Transport: o.http, Timeout: deadline}}
}

// operator is the operator's Global API Key.
func (o *one) operator() cloudflare.As {
	as := o.as()
	as.Email, as.Key = server.Admin.Email, server.Admin.APIKey
	return as
}

// bearer is a token.
func (o *one) bearer(secret string) cloudflare.As {
	as := o.as()
	as.Token = secret
	return as
}

// make creates a token as the operator. The end of the test deletes it.
func (o *one) make(w cloudflare.Wish) cloudflare.Token {
	o.t.Helper()
	m, err := o.Create(o.ctx, o.operator(), w)
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { o.clean(m.ID) })
	return m
}

// clean deletes a token that may be gone.
func (o *one) clean(id string) {
	path := "/user/tokens/"
	if o.Kind.Name == "account" {
		path = "/accounts/" + server.Admin.AccountID + "/tokens/"
	}
	r, err := http.NewRequest(http.MethodDelete, base()+path+id, nil)
	if err != nil {
		o.t.Error(err)
		return
	}
	r.Header = key()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		o.t.Error(err)
		return
	}
	resp.Body.Close()
}

// refused checks that err is the API's refusal with this status and code.
func (o *one) refused(what string, err error, status, code int) {
	o.t.Helper()
	if err == nil {
		o.t.Errorf("%s: no error", what)
		return
	}
	if s, c, ok := o.Refusal(err); !ok || s != status || c != code {
		o.t.Errorf("%s: %v; want HTTP %d, code %d", what, err, status, code)
	}
}

// zonePolicy allows groups on the zone.
func zonePolicy(groups ...string) []cloudflare.Policy {
	return []cloudflare.Policy{policy("allow", zoneScope+"."+zoneID, groups...)}
}

func policy(effect, on string, groups ...string) cloudflare.Policy {
	p := cloudflare.Policy{Effect: effect, Resources: map[string]any{on: "*"}}
	for _, g := range groups {
		p.Groups = append(p.Groups, cloudflare.Group{ID: g})
	}
	return p
}

// base is the base URL as people configure it.
func base() string { return server.Admin.BaseURL + "/client/v4" }

// bounded is a context for one test.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// raw sends a request of our own and returns the answer's body.
func raw(t *testing.T, method, path, body string, h http.Header) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline) // also while a test cleans up
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, base()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = h
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// key is the header of the operator's key.
func key() http.Header {
	return http.Header{"X-Auth-Email": {server.Admin.Email}, "X-Auth-Key": {server.Admin.APIKey}, "Content-Type": {"application/json"}}
}

// serial makes the names of tokens differ where a test runs several times.
var serial atomic.Int64

// unique returns a name that no other test has.
func unique(name string) string { return fmt.Sprintf("%s %d", name, serial.Add(1)) }

// named returns the tokens of this name, in the list's order.
func named(all []cloudflare.Token, name string) []cloudflare.Token {
	return slices.DeleteFunc(slices.Clone(all), func(t cloudflare.Token) bool { return t.Name != name })
}
