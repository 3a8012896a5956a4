package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/services/e2e/proc"
)

const (
	zoneID      = "1f0c6b0f0a2b4c6d8e9f00112233aabb"
	otherZone   = "2f0c6b0f0a2b4c6d8e9f00112233aabb"
	dnsWrite    = "4755a26eedb94da69e1066d98aa820be"
	userTokens  = "/client/v4/user/tokens"
	zoneType    = "com.cloudflare.api.account.zone."
	jsonContent = "application/json"
)

// grant is the body of a create with one policy for one zone.
func grant(name, zone string) string {
	return fmt.Sprintf(`{"name":%q,"policies":[{"effect":"allow","resources":{%q:"*"},"permission_groups":[{"id":%q}]}]}`,
		name, zoneType+zone, dnsWrite)
}

// asked is a request; the zero header is none.
type asked struct {
	method, path string
	header       http.Header
	body         string
}

// answered is what came back.
type answered struct {
	status int
	header http.Header
	body   []byte
}

// speaker speaks HTTP with one server.
type speaker struct {
	admin proc.Admin
	http  *http.Client
}

func newSpeaker(a proc.Admin) *speaker {
	return &speaker{a, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: deadline}}
}

// operator is the header of the operator's Global API Key.
func (s *speaker) operator() http.Header {
	return http.Header{"X-Auth-Email": {s.admin.Email}, "X-Auth-Key": {s.admin.APIKey}, "Content-Type": {jsonContent}}
}

// enforcer is the header of the first enforcer.
func (s *speaker) enforcer() http.Header { return bearer(s.admin.EnforcerKey) }

func bearer(secret string) http.Header {
	return http.Header{"Authorization": {"Bearer " + secret}, "Content-Type": {jsonContent}}
}

// do sends a request and reads the whole answer.
func (s *speaker) do(ctx context.Context, a asked) (answered, error) {
	r, err := http.NewRequestWithContext(ctx, a.method, s.admin.BaseURL+a.path, strings.NewReader(a.body))
	if err != nil {
		return answered{}, err
	}
	if a.body == "" {
		r.Body = http.NoBody
	}
	if a.header != nil {
		r.Header = a.header
	}
	resp, err := s.http.Do(r)
	if err != nil {
		return answered{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answered{resp.StatusCode, resp.Header, b}, err
}

// head returns the sequence that a read rests on now: the head of the ledger.
func (s *speaker) head(ctx context.Context) (uint64, error) {
	a, err := s.do(ctx, asked{http.MethodGet, "/client/v4/user", s.operator(), ""})
	if err != nil {
		return 0, err
	}
	if a.status != http.StatusOK {
		return 0, fmt.Errorf("GET /client/v4/user: %d %s", a.status, a.body)
	}
	return strconv.ParseUint(a.header.Get("Watchword-Sequence"), 10, 64)
}

// envelope is the form of the management API's answers.
type envelope struct {
	Success bool           `json:"success"`
	Result  jsontext.Value `json:"result"`
	Errors  []struct {
		Code          int    `json:"code"`
		Documentation string `json:"documentation_url"`
	} `json:"errors"`
}

// tokenResult is what the tests look at in a token.
type tokenResult struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Value  string `json:"value"`
}

// installation is a server with a data directory of its own.
type installation struct {
	*speaker
	t      testing.TB
	server *proc.Server
	log    *output // of all its servers
	data   string
}

// install starts a server in an empty directory. The end of the test ends it.
func install(t testing.TB, args ...string) *installation {
	t.Helper()
	i := &installation{t: t, data: t.TempDir() + "/data", log: newOutput()}
	t.Cleanup(func() {
		if i.server != nil {
			i.server.Kill()
		}
		if t.Failed() {
			text := i.log.String()
			t.Logf("the end of the server's log:\n%s", text[max(0, len(text)-4000):])
		}
	})
	i.start(args...)
	return i
}

// start runs the server over the data directory until it is ready. It has no
// limits but those in args.
func (i *installation) start(args ...string) {
	i.t.Helper()
	args = slices.Concat(proc.Unlimited, args)
	var err error
	if i.server, err = proc.Launch(proc.Options{Binary: binary, Data: i.data, Args: args, Log: i.log}); err != nil {
		i.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(i.t.Context(), deadline)
	defer cancel()
	if err := i.server.Ready(ctx); err != nil {
		i.t.Fatal(err)
	}
	i.speaker = newSpeaker(i.server.Admin)
}

// call sends a request that must be answered.
func (i *installation) call(a asked) answered {
	i.t.Helper()
	got, err := i.do(i.t.Context(), a)
	if err != nil {
		i.t.Fatalf("%s %s: %v", a.method, a.path, err)
	}
	return got
}

// must sends a request that must succeed and decodes the result into out.
func (i *installation) must(a asked, out any) {
	i.t.Helper()
	got := i.call(a)
	var e envelope
	if err := json.Unmarshal(got.body, &e); err != nil || got.status != http.StatusOK || !e.Success {
		i.t.Fatalf("%s %s: %d %s", a.method, a.path, got.status, got.body)
	}
	if err := json.Unmarshal(e.Result, out); err != nil {
		i.t.Fatalf("%s %s: %v: %s", a.method, a.path, err, got.body)
	}
}

// create makes a token for one zone.
func (i *installation) create(name string) tokenResult {
	i.t.Helper()
	var t tokenResult
	i.must(asked{http.MethodPost, userTokens, i.operator(), grant(name, zoneID)}, &t)
	return t
}
