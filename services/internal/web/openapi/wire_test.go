package openapi_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// refusal is a row of the contract: a request, and the exact refusal.
type refusal struct {
	method, path string
	h            http.Header
	body         any
	status, code int
	chain        int // the first number of error_chain; 0: none
	text         string
}

// TestRefusalTable holds the answers against Cloudflare's table of refusals:
// status, number and text, because tools look for the text and wrangler for the
// number.
func TestRefusalTable(t *testing.T) {
	l := newLab(t)
	as := l.admin.header()
	dns := l.create(userTokens, as, grant("dns", dnsWrite, zone))
	owned := l.create(l.admin.accountTokens(), as, grant("owned", dnsWrite, zone))
	away := l.create(userTokens, as, grant("away", dnsWrite, zone, `"condition":{"request_ip":{"in":["192.0.2.0/24"]}}`))
	key := func(email, key string) http.Header { return http.Header{"X-Auth-Email": {email}, "X-Auth-Key": {key}} }
	service := http.Header{"X-Auth-User-Service-Key": {"v1.0-" + strings.Repeat("a", 24) + "-" + strings.Repeat("b", 146)}}
	const headers, missing = "Invalid request headers", "Missing X-Auth-Key, X-Auth-Email or Authorization headers"
	nowhere := userTokens + "/" + strings.Repeat("0", 32)
	for name, c := range map[string]refusal{
		"no credentials":            {"GET", userTokens, nil, nil, 400, 9106, 0, missing},
		"an e-mail alone":           {"GET", userTokens, http.Header{"X-Auth-Email": {l.admin.email}}, nil, 400, 9106, 0, missing},
		"a malformed bearer":        {"GET", userTokens, bearer("x"), nil, 400, 6003, 6111, headers},
		"a malformed key":           {"GET", userTokens, key(l.admin.email, dns.Value), nil, 400, 6003, 6103, headers},
		"a malformed e-mail":        {"GET", userTokens, key("nobody", l.admin.key), nil, 400, 6003, 6102, headers},
		"another's key":             {"GET", userTokens, key(l.admin.email, l.rival.key), nil, 403, 9103, 0, "Unknown X-Auth-Key or X-Auth-Email"},
		"an Origin CA key":          {"GET", userTokens, service, nil, 403, 20024, 0, "X-Auth-User-Service-Key is not accepted: use an API token"},
		"an Origin CA key, verify":  {"GET", userTokens + "/verify", service, nil, 403, 20024, 0, "X-Auth-User-Service-Key is not accepted: use an API token"},
		"verify, unknown":           {"GET", userTokens + "/verify", bearer(strings.Repeat("x", 40)), nil, 401, 1000, 0, "Invalid API Token"},
		"verify, the other kind":    {"GET", userTokens + "/verify", bearer(owned.Value), nil, 401, 1000, 0, "Invalid API Token"},
		"unknown":                   {"GET", userTokens, bearer(strings.Repeat("x", 40)), nil, 403, 9109, 0, "Invalid access token"},
		"from elsewhere":            {"GET", userTokens, bearer(away.Value), nil, 403, 9109, 0, "Cannot use the access token from location: 127.0.0.1"},
		"verify, from elsewhere":    {"GET", userTokens + "/verify", bearer(away.Value), nil, 403, 9109, 0, "Cannot use the access token from location: 127.0.0.1"},
		"no permission on the user": {"GET", "/client/v4/user", bearer(dns.Value), nil, 403, 9109, 0, "Unauthorized to access requested resource"},
		"no permission on tokens":   {"GET", userTokens, bearer(dns.Value), nil, 403, 9109, 0, "Unauthorized to access requested resource"},
		"no permission elsewhere":   {"GET", "/client/v4/memberships", bearer(dns.Value), nil, 403, 10000, 0, "Authentication error"},
		"memberships of an account": {"GET", "/client/v4/memberships", bearer(owned.Value), nil, 400, 9106, 0, "Authentication failed"},
		"no JSON":                   {"POST", userTokens, as, "{", 400, 9207, 0, "Request body is invalid."},
		"no route":                  {"GET", "/client/v4/nothing", as, nil, 404, 7000, 0, "No route for that URI"},
		"no id":                     {"GET", userTokens + "/x", as, nil, 404, 7003, 7000, "Could not route to the requested path, perhaps your object identifier is invalid?"},
		"no such token":             {"GET", nowhere, as, nil, 404, 1003, 0, "token not found"},
		"a group without a scope": {"POST", userTokens, as, grant("n", apiTokensRead, zone), 400, 1001, 0,
			`Failed common permission check against resources. (Permission group: "API Tokens Read")`},
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			a := l.do(c.method, c.path, c.h, c.body, c.status, c.code)
			e := a.Errors[0]
			if e.Message != c.text {
				t.Errorf("the text is %q, want %q", e.Message, c.text)
			}
			if chain := len(e.Chain); chain != min(c.chain, 1) || chain == 1 && e.Chain[0].Code != c.chain {
				t.Errorf("the chain is %v, want %d", e.Chain, c.chain)
			}
			if !strings.HasPrefix(string(a.body), `{"success":false,"errors":[{"code":`) || !strings.HasSuffix(string(a.body), `"messages":[],"result":null}`) {
				t.Errorf("not the envelope: %s", a.body)
			}
		})
	}
}

// TestCredentialPrecedence: clients send what they find in their environment,
// all of it. A bearer wins over a key, and both over what is not accepted.
func TestCredentialPrecedence(t *testing.T) {
	l := newLab(t)
	user := l.create(userTokens, l.admin.header(), grant("u", l.group("User Details Read"), userType+l.admin.id.String()))
	service := http.Header{"X-Auth-User-Service-Key": {"v1.0-x"}}
	join := func(hs ...http.Header) http.Header {
		all := http.Header{}
		for _, h := range hs {
			for k, v := range h {
				all[k] = v
			}
		}
		return all
	}
	for name, c := range map[string]struct {
		h            http.Header
		status, code int
		whose        string
	}{
		"bearer, key and service key": {join(bearer(user.Value), l.rival.header(), service), 200, 0, l.admin.id.String()},
		"bearer and service key":      {join(bearer(user.Value), service), 200, 0, l.admin.id.String()},
		"key and service key":         {join(l.rival.header(), service), 200, 0, l.rival.id.String()},
		"bearer and key":              {join(bearer(user.Value), l.rival.header()), 200, 0, l.admin.id.String()},
		"an unknown bearer and key":   {join(bearer(strings.Repeat("x", 40)), l.rival.header()), 403, 9109, ""},
		"service key":                 {service, 403, 20024, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			if a := l.do("GET", "/client/v4/user", c.h, nil, c.status, c.code); !strings.Contains(string(a.body), c.whose) {
				t.Errorf("not the user %s: %s", c.whose, a.body)
			}
		})
	}
}

// TestAnswerHeaders: what every answer of the management API carries, good or
// bad, because clients and caches rest on it.
func TestAnswerHeaders(t *testing.T) {
	l := newLab(t)
	ray := regexp.MustCompile(`^[0-9a-f]{16}$`)
	for path, h := range map[string]http.Header{
		userTokens: l.admin.header(), userTokens + "?page=9": l.admin.header(), "/client/v4/user": nil,
		"/client/v4/nothing": nil, userTokens + "/verify": bearer(strings.Repeat("x", 40)), userTokens + "/x": l.admin.header(),
	} {
		a := l.send(l.request("GET", path, h, nil))
		for name, want := range map[string]string{
			"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Retry-After": "",
		} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("GET %s: %s is %q, want %q", path, name, got, want)
			}
		}
		if got := a.Header.Get("Cf-Ray"); !ray.MatchString(got) {
			t.Errorf("GET %s: Cf-Ray is %q", path, got)
		}
		if got, want := a.Header.Get("X-Should-Retry"), map[bool]string{true: "", false: "false"}[a.StatusCode < 400]; got != want {
			t.Errorf("GET %s: X-Should-Retry is %q, want %q", path, got, want)
		}
		if challenge := a.Header.Get("Www-Authenticate"); (challenge != "") != (a.StatusCode == 401) {
			t.Errorf("GET %s: %d with WWW-Authenticate %q", path, a.StatusCode, challenge)
		}
	}
}
