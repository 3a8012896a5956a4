package cloudflare_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudflare/cloudflare-go/v6/option"
	"github.com/cloudflare/cloudflare-go/v6/shared"

	"watchword.dev/services/e2e/proc"
)

// deadline bounds everything that a test waits for; it promises no speed.
const deadline = 90 * time.Second

const (
	zoneID   = "1f0c6b0f0a2b4c6d8e9f00112233aabb"
	dnsWrite = "4755a26eedb94da69e1066d98aa820be"
	zoneRead = "c8fed203ed3043cba015a93ad1616f1f"
	unknown  = "00000000000000000000000000000001"
)

// binary is the watchword binary, and server one that all tests share: what
// they make has different names.
var (
	binary string
	server *proc.Server
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "watchword-e2e-cloudflare-")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if binary, err = proc.Build(ctx, dir); err != nil {
		return complain(err)
	}
	if server, err = proc.Start(binary, dir+"/data"); err != nil {
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

// set gives a parameter of the client a value. Its type, param.Field, has a
// name and a constructor in the heavy root package only.
func set(field, value any) {
	f := reflect.ValueOf(field).Elem()
	v := f.FieldByName("Value")
	v.Set(reflect.ValueOf(value).Convert(v.Type()))
	f.FieldByName("Present").SetBool(true)
}

// give is set unless the value is zero; an empty list is a value.
func give(field, value any) {
	if !reflect.ValueOf(value).IsZero() {
		set(field, value)
	}
}

// base is the base URL as people configure it.
func base() string { return server.Admin.BaseURL + "/client/v4" }

// operator are the options of the operator's Global API Key.
func operator(more ...option.RequestOption) []option.RequestOption {
	return append([]option.RequestOption{
		option.WithBaseURL(base()), option.WithAPIEmail(server.Admin.Email), option.WithAPIKey(server.Admin.APIKey),
		option.WithMaxRetries(0), option.WithRequestTimeout(deadline),
	}, more...)
}

// bearer are the options of a token.
func bearer(secret string) []option.RequestOption {
	return []option.RequestOption{
		option.WithBaseURL(base()), option.WithAPIToken(secret), option.WithMaxRetries(0), option.WithRequestTimeout(deadline),
	}
}

// zonePolicy allows groups on the zone.
func zonePolicy(groups ...string) shared.TokenPolicyParam {
	return policy(shared.TokenPolicyEffectAllow,
		shared.TokenPolicyResourcesIAMResourcesTypeObjectStringParam{"com.cloudflare.api.account.zone." + zoneID: "*"}, groups...)
}

func policy(effect shared.TokenPolicyEffect, on shared.TokenPolicyResourcesUnionParam, groups ...string) shared.TokenPolicyParam {
	refs := []shared.TokenPolicyPermissionGroupParam{}
	for _, g := range groups {
		var ref shared.TokenPolicyPermissionGroupParam
		set(&ref.ID, g)
		refs = append(refs, ref)
	}
	var p shared.TokenPolicyParam
	set(&p.Effect, effect)
	set(&p.Resources, on)
	set(&p.PermissionGroups, refs)
	return p
}

// pager is the client's own loop over pages: it ends at an empty one.
type pager interface {
	Next() bool
	Current() shared.Token
	Err() error
}

// collect runs a pager to its end. More than a few thousand tokens mean that
// it has none.
func collect(p pager) ([]shared.Token, error) {
	var all []shared.Token
	for p.Next() {
		if all = append(all, p.Current()); len(all) > 5000 {
			return nil, fmt.Errorf("the pager does not end")
		}
	}
	return all, p.Err()
}

// refusal is what the client's error says: HTTP status and the first code.
var refusal = regexp.MustCompile(`": (\d{3}) [^{]*\{.*?"code":(\d+)`)

// refused checks that err is the API's refusal with this status and code.
func refused(t *testing.T, what string, err error, status, code string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	if m := refusal.FindStringSubmatch(err.Error()); m == nil || m[1] != status || m[2] != code {
		t.Errorf("%s: %v; want HTTP %s, code %s", what, err, status, code)
	}
}

// bounded is a context for one test.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// raw sends a request of our own and returns the answer's body.
func raw(t *testing.T, method, path, body string, h http.Header) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(bounded(t), method, base()+path, strings.NewReader(body))
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
func named(all []shared.Token, name string) []shared.Token {
	return slices.DeleteFunc(slices.Clone(all), func(t shared.Token) bool { return t.Name != name })
}
