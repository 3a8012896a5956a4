package openapi_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"sync"
	"testing"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"watchword.dev/events/receipt"
	"watchword.dev/services/internal/web/openapi"

	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/fanout/snapshots"
	"watchword.dev/services/upkeep"
)

// document validates against the document; it is built once, and its caches
// are not for several goroutines.
var document = sync.OnceValues(func() (validator.Validator, error) {
	doc, err := libopenapi.NewDocument(openapi.Document)
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return v, nil
})

var documentLock sync.Mutex

// holdAgainst checks an exchange against the document: every answer of a route
// that exists, and every request that was accepted.
func (l *lab) holdAgainst(r *http.Request, sent []byte, a *answer) {
	l.t.Helper()
	if !l.documented(r) || a.StatusCode == http.StatusMethodNotAllowed {
		return
	}
	documentLock.Lock()
	defer documentLock.Unlock()
	v, err := document()
	if err != nil {
		l.t.Fatal(err)
	}
	copied := r.Clone(r.Context())
	// The document's server is "/", and the validator compares whole URLs.
	copied.URL.Scheme, copied.URL.Host, copied.Host = "", "", ""
	copied.Body = io.NopCloser(bytes.NewReader(sent))
	if a.StatusCode < 300 {
		if ok, errs := v.ValidateHttpRequest(copied); !ok {
			l.t.Errorf("%s %s: the request does not fit the document: %v\n%s", r.Method, r.URL.Path, errs[0], sent)
			for _, e := range errs[0].SchemaValidationErrors {
				l.t.Errorf("  %s at %s", e.Reason, e.FieldPath)
			}
		}
		copied.Body = io.NopCloser(bytes.NewReader(sent))
	}
	resp := *a.Response
	resp.Body = io.NopCloser(bytes.NewReader(a.body))
	if ok, errs := v.ValidateHttpResponse(copied, &resp); !ok {
		l.t.Errorf("%s %s: the answer %d does not fit the document: %v\n%s", r.Method, r.URL.Path, a.StatusCode, errs[0], a.body)
		for _, e := range errs[0].SchemaValidationErrors {
			l.t.Errorf("  %s at %s", e.Reason, e.FieldPath)
		}
	}
}

// documented reports whether r is for a route, by its method and the shape of
// its path.
func (l *lab) documented(r *http.Request) bool {
	path := strings.Split(r.URL.Path, "/")
	for _, route := range l.routes {
		pattern := strings.Split(route.Pattern, "/")
		if route.Method != r.Method || len(pattern) != len(path) {
			continue
		}
		fits := true
		for i := range path {
			fits = fits && (path[i] == pattern[i] || strings.HasPrefix(pattern[i], "{") && path[i] != "")
		}
		if fits {
			return true
		}
	}
	return false
}

// TestDocumentIsComplete holds the document's operations against the router's
// routes, both ways, and the document against the rules of OpenAPI.
func TestDocumentIsComplete(t *testing.T) {
	l := newLab(t)
	v, err := document()
	if err != nil {
		t.Fatal(err)
	}
	if ok, errs := v.ValidateDocument(); !ok {
		for _, e := range errs {
			t.Errorf("document: %v %v", e, e.SchemaValidationErrors)
		}
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string                    `json:"operationId"`
			Responses   map[string]map[string]any `json:"responses"`
		} `json:"paths"`
	}
	served := l.do("GET", "/openapi.json", nil, nil, 200, 0)
	if err := json.Unmarshal(served.body, &doc); err != nil {
		t.Fatal(err)
	}
	var have, want []string
	ids := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, o := range methods {
			have = append(have, strings.ToUpper(method)+" "+path)
			if o.OperationID == "" || ids[o.OperationID] {
				t.Errorf("%s %s: operation id %q", method, path, o.OperationID)
			}
			ids[o.OperationID] = true
		}
	}
	for _, r := range l.routes {
		// The document cannot say that a part of a path may hold slashes.
		want = append(want, r.Method+" "+strings.Replace(r.Pattern, "...}", "}", 1))
	}
	sort.Strings(have)
	sort.Strings(want)
	if h, w := strings.Join(have, "\n"), strings.Join(want, "\n"); h != w {
		t.Errorf("documented:\n%s\n\nserved:\n%s", h, w)
	}
}

// jobDone waits until the last piece of upkeep has succeeded.
func (l *lab) jobDone(as http.Header) {
	l.t.Helper()
	for {
		var j upkeep.Job
		l.do("GET", "/v1/upkeep", as, nil, 200, 0).into(l.t, &j)
		if j.Failed != "" {
			l.t.Fatal(j.Failed)
		}
		if !j.Finished.IsZero() {
			return
		}
	}
}

// TestEveryRoute sends at least one good request to every route; send holds it
// and its answer against the document.
func TestEveryRoute(t *testing.T) {
	l := newLab(t)
	as, account := l.admin.header(), l.admin.accountTokens()
	good := map[string]bool{}
	try := func(method, path, pattern string, as http.Header, body any) *answer {
		t.Helper()
		good[method+" "+pattern] = true
		return l.do(method, path, as, body, 200, 0)
	}
	for at, pattern := range map[string]string{userTokens: userTokens, account: "/client/v4/accounts/{account_id}/tokens"} {
		var a tokenView
		full := grant("all", dnsWrite, zone, `"condition":{"request_ip":{"in":["0.0.0.0/0","::/0"]},"request.ip":null}`,
			`"not_before":"2026-01-01T00:00:00Z"`, `"expires_on":"2199-01-01T00:00:00Z"`, `"status":"active"`)
		try("POST", at, pattern, as, full).into(t, &a)
		try("GET", at+"?page=1&per_page=50&direction=desc&include_expired=true", pattern, as, nil)
		try("GET", at+"/verify", pattern+"/verify", bearer(a.Value), nil)
		try("GET", at+"/permission_groups?name=DNS%20Read&scope=com.cloudflare.api.account.zone", pattern+"/permission_groups", as, nil)
		try("GET", at+"/"+a.ID, pattern+"/{token_id}", as, nil)
		try("PUT", at+"/"+a.ID, pattern+"/{token_id}", as, full)
		try("POST", at+"/"+a.ID+"/disable", pattern+"/{token_id}/disable", as, `{"reason":"why"}`)
		try("POST", at+"/"+a.ID+"/enable", pattern+"/{token_id}/enable", as, nil)
		try("PUT", at+"/"+a.ID+"/value", pattern+"/{token_id}/value", as, `{"grace":"1h"}`)
		try("DELETE", at+"/"+a.ID, pattern+"/{token_id}", as, `{"reason":"why"}`)
		try("GET", at+"/"+a.ID+"/receipts", pattern+"/{token_id}/receipts", as, nil)
	}
	try("GET", "/tokens/new?template=edit-zone-dns&zone=a&zone=b&name=x", "/tokens/new", nil, nil)
	try("GET", "/client/v4/user", "/client/v4/user", as, nil)
	try("GET", "/client/v4/accounts", "/client/v4/accounts", as, nil)
	try("GET", "/client/v4/accounts/"+l.admin.account.String(), "/client/v4/accounts/{account_id}", as, nil)
	l.tryDirectory(try)
	l.tryIncident(try)
	l.tryImports(try)
	l.tryDirectoryImport(try)
	try("GET", "/client/v4/memberships", "/client/v4/memberships", as, nil)
	var cat struct {
		Document jsontext.Value `json:"document"`
	}
	try("GET", "/client/v4/catalogue", "/client/v4/catalogue", as, nil).into(t, &cat)
	try("PUT", "/client/v4/catalogue?dry_run=true", "/client/v4/catalogue", as, `{"name":"nothing of its own"}`)
	try("PUT", "/client/v4/catalogue", "/client/v4/catalogue", as, string(cat.Document))
	try("GET", "/v1/enforcers", "/v1/enforcers", as, nil)
	var n struct {
		ID  string `json:"id"`
		Key string `json:"key"`
	}
	try("POST", "/v1/enforcers", "/v1/enforcers", as, fmt.Sprintf(`{"name":"eu","region":"eu-1","ceiling_seconds":60,"nkey":%q}`, authoritytest.NewNkey())).into(t, &n)
	try("DELETE", "/v1/enforcers/"+n.ID, "/v1/enforcers/{enforcer_id}", as, nil)
	body := fmt.Sprintf(`{"name":"siem","region":"eu-1","nkey":%q}`, authoritytest.NewNkey())
	try("POST", "/v1/consumers", "/v1/consumers", as, body).into(t, &n)
	try("GET", "/v1/consumers", "/v1/consumers", as, nil)
	try("DELETE", "/v1/consumers/"+n.ID, "/v1/consumers/{consumer_id}", as, nil)
	try("GET", "/v1/upkeep", "/v1/upkeep", as, nil)
	try("POST", "/v1/upkeep/fsck", "/v1/upkeep/fsck", as, nil)
	l.jobDone(as)
	try("POST", "/v1/upkeep/rebuild/directory", "/v1/upkeep/rebuild/{projection}", as, nil)
	l.jobDone(as)
	try("POST", "/v1/verify", "/v1/verify", bearer(l.enforcer), `{"secret":"x","permission":"dns.records.read"}`)
	try("POST", "/v1/receipts", "/v1/receipts", bearer(l.enforcer), string(l.receiptOf(l.enforcerID, "edge1", receipt.Hello)))
	try("GET", forwardAuth, forwardAuth, l.proxied(l.create(userTokens, as, grant("t", dnsWrite, zone)).Value, "GET", l.recordsPath()), nil)
	try("GET", "/v1/feed?after=0&follow=false", "/v1/feed", bearer(l.enforcer), nil)
	try("GET", snapshots.Path, snapshots.Path, bearer(l.enforcer), nil)
	form := bearer(l.enforcer)
	form["Content-Type"] = []string{"application/x-www-form-urlencoded"}
	try("POST", "/oauth2/introspect", "/oauth2/introspect", form, "token=x")
	try("GET", "/.well-known/oauth-authorization-server", "/.well-known/oauth-authorization-server", nil, nil)
	l.tryAudit(try)
	try("GET", "/errors", "/errors", nil, nil)
	try("GET", "/openapi.json", "/openapi.json", nil, nil)
	for _, r := range l.routes {
		if !good[r.Method+" "+r.Pattern] {
			t.Errorf("%s %s was not tried", r.Method, r.Pattern)
		}
	}
}
