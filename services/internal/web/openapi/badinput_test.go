package openapi_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword.dev/events/catalogue"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/fanout/snapshots"
	"watchword.dev/services/internal/web"
)

// route is an endpoint as the bad-input tests use it.
type route struct {
	method, path string
	auth         func(*lab) http.Header
	body         string // a good one; "" where there is none
	optional     bool   // it works without a body
	limit        int
}

func asAdmin(l *lab) http.Header    { return l.admin.header() }
func asEnforcer(l *lab) http.Header { return bearer(l.enforcer) }

// bodied returns every route that reads a JSON body. The id is that of a token
// of each owner.
func (l *lab) bodied(ids map[string]string) []route {
	var all []route
	for at, id := range ids {
		good := grant("n", dnsWrite, zone)
		all = append(all,
			route{"POST", at, asAdmin, good, false, web.MaxBody},
			route{"PUT", at + "/" + id, asAdmin, good, false, web.MaxBody},
			route{"DELETE", at + "/" + id, asAdmin, `{"reason":"r"}`, true, web.MaxBody},
			route{"PUT", at + "/" + id + "/value", asAdmin, `{"grace":"1h"}`, true, web.MaxBody},
			route{"POST", at + "/" + id + "/disable", asAdmin, `{"reason":"r"}`, true, web.MaxBody},
			route{"POST", at + "/" + id + "/enable", asAdmin, `{"reason":"r"}`, true, web.MaxBody},
		)
	}
	account := "/client/v4/accounts/" + l.admin.account.String()
	return append(all,
		route{"POST", "/client/v4/accounts", asAdmin, `{"name":"n"}`, false, web.MaxBody},
		route{"PUT", account, asAdmin, `{"name":"n"}`, false, web.MaxBody},
		route{"DELETE", account, asAdmin, `{"reason":"r"}`, true, web.MaxBody},
		route{"POST", account + "/members", asAdmin, `{"email":"a@example.com","roles":["Super Administrator"]}`, false, web.MaxBody},
		route{"PUT", account + "/members/" + l.admin.member.String(), asAdmin, `{"roles":["Super Administrator"]}`, false, web.MaxBody},
		route{"DELETE", account + "/members/" + l.admin.member.String(), asAdmin, `{"x":1}`, true, web.MaxBody},
		route{"PUT", account + "/token_policy", asAdmin, `{"tokens_max":1}`, false, web.MaxBody},
		route{"POST", account + "/token_policy/preview", asAdmin, `{"policy":{"tokens_max":1}}`, true, web.MaxBody},
		route{"POST", account + "/token_policy/apply", asAdmin, `{"limit":1}`, true, web.MaxBody},
		route{"POST", incidentPath, asAdmin, `{"template":"x","confirm":true}`, false, web.MaxBody},
		route{"POST", incidentPath + "/preview", asAdmin, `{"template":"x"}`, false, web.MaxBody},
		route{"POST", "/client/v4/zones", asAdmin, `{"name":"n","account":{"id":"` + l.admin.account.String() + `"}}`, false, web.MaxBody},
		route{"PATCH", "/client/v4/zones/" + l.zone, asAdmin, `{"name":"n"}`, false, web.MaxBody},
		route{"DELETE", "/client/v4/zones/" + l.zone, asAdmin, `{"reason":"r"}`, true, web.MaxBody},
		route{"POST", "/client/v4/resources", asAdmin, `{"name":"n","type":"` + typeZone + `","parent":"com.cloudflare.api.account.` + l.admin.account.String() + `"}`, false, web.MaxBody},
		route{"PUT", "/client/v4/resources/" + typeZone + "/" + l.zone, asAdmin, `{"name":"n"}`, false, web.MaxBody},
		route{"DELETE", "/client/v4/resources/" + typeZone + "/" + l.zone, asAdmin, `{"reason":"r"}`, true, web.MaxBody},
		route{"POST", "/client/v4/users", asAdmin, `{"email":"a@example.com"}`, false, web.MaxBody},
		route{"PATCH", "/client/v4/users/" + l.admin.id.String(), asAdmin, `{"name":"n"}`, false, web.MaxBody},
		route{"DELETE", "/client/v4/users/" + l.admin.id.String(), asAdmin, `{"reason":"r"}`, true, web.MaxBody},
		route{"POST", "/client/v4/users/" + l.admin.id.String() + "/api_key", asAdmin, `{"x":1}`, true, web.MaxBody},
		route{"DELETE", "/client/v4/users/" + l.admin.id.String() + "/api_key", asAdmin, `{"reason":"r"}`, true, web.MaxBody},
		route{"PUT", "/client/v4/user/api_key", asAdmin, `{"x":1}`, true, web.MaxBody},
		route{"DELETE", "/client/v4/user/api_key", asAdmin, `{"reason":"r"}`, true, web.MaxBody},
		route{"PUT", "/client/v4/catalogue", asAdmin, `{"name":"n"}`, false, catalogue.MaxDocument},
		route{"POST", importDirectoryPath, asAdmin, `{"entries":[{"x":1}]}`, false, 1 << 20},
		route{"POST", importPath, asAdmin, `{"tokens":[{"x":1}]}`, false, 1 << 20},
		route{"POST", "/v1/enforcers", asAdmin, `{"name":"n"}`, false, web.MaxBody},
		route{"DELETE", "/v1/enforcers/" + l.enforcerID.String(), asAdmin, `{"reason":"r"}`, true, web.MaxBody},
		route{"POST", "/v1/consumers", asAdmin, fmt.Sprintf(`{"name":"n","nkey":%q}`, authoritytest.NewNkey()), false, web.MaxBody},
		route{"DELETE", "/v1/consumers/" + l.consumerID.String(), asAdmin, `{"reason":"r"}`, true, web.MaxBody},
		route{"POST", "/v1/verify", asEnforcer, `{"secret":"s","permission":"p","resource":["r"]}`, false, 1 << 20},
	)
}

// tokens makes one token of each owner and returns their ids by path.
func (l *lab) tokens() map[string]string {
	ids := map[string]string{}
	for _, at := range []string{userTokens, l.admin.accountTokens()} {
		ids[at] = l.create(at, l.admin.header(), grant("n", dnsWrite, zone)).ID
	}
	return ids
}

// unmoved runs fn and requires that it led to no command, no commit, and no
// answer of 500 or more.
func (l *lab) unmoved(what string, fn func() *answer) *answer {
	l.t.Helper()
	commands, head := l.asked.commands.Load(), l.ledger.Head()
	began := time.Now()
	a := fn()
	switch took := time.Since(began); {
	case a.StatusCode >= 500:
		l.t.Errorf("%s: %d %s", what, a.StatusCode, a.body)
	case a.StatusCode == 408 || a.StatusCode == 409:
		l.t.Errorf("%s: %d, which clients repeat", what, a.StatusCode)
	case l.asked.commands.Load() != commands:
		l.t.Errorf("%s: a command reached the authority", what)
	case l.ledger.Head() != head:
		l.t.Errorf("%s: the ledger has grown", what)
	case took > 5*time.Second: // a bound against hanging, no measurement
		l.t.Errorf("%s: took %v", what, took)
	}
	return a
}

// TestBadBodies: every bad body at every route that reads one.
func TestBadBodies(t *testing.T) {
	l := newLab(t)
	ids := l.tokens()
	json := []string{"application/json"}
	for name, c := range map[string]struct {
		body         func(r route) string
		header       map[string][]string
		status, code int
		needed       bool // only where a body is needed
	}{
		"missing":              {func(route) string { return "" }, nil, 400, 9207, true},
		"blank":                {func(route) string { return " \n" }, nil, 400, 9207, false},
		"not JSON":             {func(route) string { return "name=n" }, nil, 400, 9207, false},
		"truncated":            {func(r route) string { return r.body[:len(r.body)-1] }, nil, 400, 9207, false},
		"two values":           {func(r route) string { return r.body + r.body }, nil, 400, 9207, false},
		"a string":             {func(route) string { return `"x"` }, nil, 400, 0, false},
		"a number":             {func(route) string { return `1e999` }, nil, 400, 0, false},
		"not UTF-8":            {func(route) string { return "{\"name\":\"\xff\",\"reason\":\"\xff\",\"secret\":\"\xff\"}" }, nil, 400, 9207, false},
		"a lone surrogate":     {func(route) string { return `{"name":"\ud800","reason":"\ud800","secret":"\ud800"}` }, nil, 400, 9207, false},
		"duplicate keys":       {func(r route) string { return `{"x":1,"x":2,` + r.body[1:] }, nil, 400, 9207, false},
		"duplicate known keys": {func(r route) string { return r.body[:len(r.body)-1] + "," + r.body[1:] }, nil, 400, 9207, false},
		"deep arrays":          {func(r route) string { return `{"x":` + strings.Repeat("[", 30000) + strings.Repeat("]", 30000) + `}` }, nil, 400, 9207, false},
		"deep objects":         {func(r route) string { return strings.Repeat(`{"x":`, 5000) + "1" + strings.Repeat("}", 5000) }, nil, 400, 9207, false},
		"too large":            {func(r route) string { return r.body + strings.Repeat(" ", r.limit) }, nil, 413, 20003, false},
		"far too large":        {func(r route) string { return r.body + strings.Repeat(" ", 8*r.limit) }, nil, 413, 20003, false},
		"100,000 policies": {func(route) string {
			return `{"name":"n","reason":"r","secret":"s","permission":"p","policies":[` + strings.Repeat(`{"effect":"allow"},`, 99_999) + `{"effect":"allow"}]}`
		}, nil, 413, 20003, false},
		"text":             {func(r route) string { return r.body }, map[string][]string{"Content-Type": {"text/plain"}}, 415, 20004, false},
		"XML":              {func(r route) string { return r.body }, map[string][]string{"Content-Type": {"application/xml"}}, 415, 20004, false},
		"multipart":        {func(r route) string { return r.body }, map[string][]string{"Content-Type": {"multipart/form-data; boundary=x"}}, 415, 20004, false},
		"two types":        {func(r route) string { return r.body }, map[string][]string{"Content-Type": {"application/json", "text/plain"}}, 415, 20004, false},
		"another charset":  {func(r route) string { return r.body }, map[string][]string{"Content-Type": {"application/json; charset=utf-16"}}, 415, 20004, false},
		"a form":           {func(r route) string { return r.body }, map[string][]string{"Content-Type": {"application/x-www-form-urlencoded"}}, 415, 20004, true},
		"said to be gzip":  {func(r route) string { return r.body }, map[string][]string{"Content-Type": json, "Content-Encoding": {"gzip"}}, 415, 20004, false},
		"a control letter": {func(r route) string { return controlled(r.body) }, nil, 400, 1001, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			for _, r := range l.bodied(ids) {
				verify := r.path == "/v1/verify"
				if name == "a control letter" && controlled(r.body) == r.body {
					continue // it has no text
				}
				if c.needed && r.optional || verify && (name == "a control letter" || name == "100,000 policies") {
					continue // verify has no text of its own, and room for more
				}
				what := r.method + " " + r.path
				h := r.auth(l)
				for k, v := range c.header {
					h[k] = v
				}
				a := l.unmoved(what, func() *answer { return l.send(l.request(r.method, r.path, h, c.body(r))) })
				code := c.code
				if code == 0 { // JSON of the wrong type, which verify has a word of its own for
					if code = 9207; verify {
						code = 20005
					}
				}
				if name == "a control letter" && strings.HasSuffix(r.path, "/catalogue") {
					code = 20030
				}
				if verify && name == "a number" && a.code() == 9207 {
					continue
				}
				if a.StatusCode != c.status || a.code() != code {
					t.Errorf("%s: %d with code %d, want %d with %d: %.200s", what, a.StatusCode, a.code(), c.status, code, a.body)
				}
			}
		})
	}
}

// controlled puts a NUL into the name or the reason; where there is neither,
// as a bad grace, address or role.
func controlled(body string) string {
	for _, good := range []string{`"name":"n`, `"reason":"r`, `"grace":"1h`, `"email":"a`, `"roles":["S`} {
		if strings.Contains(body, good) {
			return strings.Replace(body, good, good+`\u0000`, 1)
		}
	}
	return body
}

// TestBadTokens: what is JSON, and still no token.
func TestBadTokens(t *testing.T) {
	l := newLab(t)
	ids := l.tokens()
	policy := `"policies":[{"effect":"allow","resources":{"` + zone + `":"*"},"permission_groups":[{"id":"` + dnsWrite + `"}]}]`
	with := func(old, new string) string { return `{"name":"n",` + strings.Replace(policy, old, new, 1) + `}` }
	name := func(s string) string { return `{"name":"` + s + `",` + policy + `}` }
	more := func(s string) string { return `{"name":"n",` + policy + `,` + s + `}` }
	resources := func(s string) string { return with(`{"`+zone+`":"*"}`, s) }
	many := func(n int, part string) string { return strings.TrimSuffix(strings.Repeat(part+",", n), ",") }
	var zones []string
	for i := range 1001 {
		zones = append(zones, fmt.Sprintf(`"%s%d":"*"`, zoneType, i))
	}
	for what, c := range map[string]struct {
		body    string
		code    int
		pointer string
	}{
		"an array":                     {`[]`, 9207, ""},
		"no name":                      {`{` + policy + `}`, 1001, "/name"},
		"a null name":                  {`{"name":null,` + policy + `}`, 1001, "/name"},
		"an empty name":                {name(""), 1001, "/name"},
		"a blank name":                 {name("  "), 1001, "/name"},
		"a long name":                  {name(strings.Repeat("n", 121)), 1001, "/name"},
		"CR LF in the name":            {name(`a\r\nX-Evil: 1`), 1001, "/name"},
		"NUL in the name":              {name(`a\u0000b`), 1001, "/name"},
		"a line separator":             {name(`a\u2028b`), 1001, "/name"},
		"a secret as the name":         {name(l.admin.key), 1001, "/name"},
		"a secret in the name":         {name("old: " + l.enforcer + "!"), 1001, "/name"},
		"a number as the name":         {`{"name":7,` + policy + `}`, 9207, "/name"},
		"no policies":                  {`{"name":"n"}`, 1001, "/policies"},
		"null policies":                {`{"name":"n","policies":null}`, 1001, "/policies"},
		"empty policies":               {`{"name":"n","policies":[]}`, 1001, "/policies"},
		"an object of policies":        {`{"name":"n","policies":{}}`, 9207, "/policies"},
		"a null policy":                {`{"name":"n","policies":[null]}`, 1001, "/policies/0/effect"},
		"an empty policy":              {`{"name":"n","policies":[{}]}`, 1001, "/policies/0/effect"},
		"too many policies":            {`{"name":"n","policies":[` + many(101, `{}`) + `]}`, 1001, "/policies"},
		"another effect":               {with("allow", "Allow"), 1001, "/policies/0/effect"},
		"no resources":                 {with(`"resources"`, `"resource"`), 1001, "/policies/0/resources"},
		"null resources":               {resources(`null`), 1001, "/policies/0/resources"},
		"empty resources":              {resources(`{}`), 1001, "/policies/0/resources"},
		"a list of resources":          {resources(`["` + zone + `"]`), 1001, "/policies/0/resources"},
		"an unknown type":              {resources(`{"com.example.thing.1":"*"}`), 1001, "/policies/0/resources"},
		"a resource without an id":     {resources(`{"com.cloudflare.api.account.zone.":"*"}`), 1001, "/policies/0/resources"},
		"a resource with a bad id":     {resources(`{"com.cloudflare.api.account.zone.a b":"*"}`), 1001, "/policies/0/resources"},
		"a resource with NUL":          {resources(`{"com.cloudflare.api.account.zone.a\u0000":"*"}`), 1001, "/policies/0/resources"},
		"a long resource":              {resources(`{"com.cloudflare.api.account.zone.` + strings.Repeat("a", 400) + `":"*"}`), 1001, "/policies/0/resources"},
		"another value":                {resources(`{"` + zone + `":"read"}`), 1001, "/policies/0/resources"},
		"null as the value":            {resources(`{"` + zone + `":null}`), 1001, "/policies/0/resources"},
		"flat and nested":              {resources(`{"` + zone + `":"*","` + accountType + `x":{"` + zoneType + `*":"*"}}`), 1001, "/policies/0/resources"},
		"nested twice":                 {resources(`{"` + accountType + `x":{"` + zoneType + `*":{"` + zone + `":"*"}}}`), 1001, "/policies/0/resources"},
		"a resource twice":             {resources(`{"` + zone + `":"*","` + zone + `":"*"}`), 9207, ""},
		"too many resources":           {resources(`{` + strings.Join(zones, ",") + `}`), 1001, "/policies/0/resources"},
		"no groups":                    {with(`"permission_groups"`, `"groups"`), 1001, "/policies/0/permission_groups"},
		"empty groups":                 {with(`[{"id":"`+dnsWrite+`"}]`, `[]`), 1001, "/policies/0/permission_groups"},
		"an unknown group":             {with(dnsWrite, strings.Repeat("0", 32)), 1001, "/policies/0/permission_groups/0/id"},
		"a group without an id":        {with(`{"id":"`+dnsWrite+`"}`, `{"name":"DNS Write"}`), 1001, "/policies/0/permission_groups/0/id"},
		"a group as text":              {with(`{"id":"`+dnsWrite+`"}`, `"`+dnsWrite+`"`), 9207, "/policies/0/permission_groups/0"},
		"a group of another scope":     {resources(`{"` + accountType + `x":"*"}`), 1001, "/policies/0/permission_groups/0"},
		"another status":               {more(`"status":"revoked"`), 1001, "/status"},
		"a time that is none":          {more(`"expires_on":"tomorrow"`), 1001, "/expires_on"},
		"a date":                       {more(`"expires_on":"2030-01-01"`), 1001, "/expires_on"},
		"a time without a zone":        {more(`"not_before":"2030-01-01T00:00:00"`), 1001, "/not_before"},
		"a time long gone":             {more(`"expires_on":"0001-01-01T00:00:01Z"`), 1001, "/expires_on"},
		"a time far away":              {more(`"expires_on":"9999-12-31T23:59:59Z"`), 1001, "/expires_on"},
		"year 10000":                   {more(`"expires_on":"10000-01-01T00:00:00Z"`), 1001, "/expires_on"},
		"a 30th of February":           {more(`"expires_on":"2030-02-30T00:00:00Z"`), 1001, "/expires_on"},
		"a time as a number":           {more(`"expires_on":1893456000`), 9207, "/expires_on"},
		"an end before the begin":      {more(`"not_before":"2031-01-01T00:00:00Z","expires_on":"2030-01-01T00:00:00Z"`), 1001, "/expires_on"},
		"an end at the begin":          {more(`"not_before":"2030-01-01T00:00:00.5Z","expires_on":"2030-01-01T00:00:01Z"`), 1001, "/expires_on"},
		"a CIDR that is none":          {more(`"condition":{"request_ip":{"in":["192.0.2.0/24","10.0.0.0/99"]}}`), 1001, "/condition/request_ip/in/1"},
		"a condition that is a string": {more(`"condition":"192.0.2.1"`), 9207, "/condition"},
	} {
		t.Run(what, func(t *testing.T) {
			l := l.in(t)
			for at, id := range ids {
				for _, r := range []route{{method: "POST", path: at}, {method: "PUT", path: at + "/" + id}} {
					a := l.unmoved(what, func() *answer { return l.send(l.request(r.method, r.path, l.admin.header(), c.body)) })
					if a.StatusCode != 400 || a.code() != c.code || a.Errors[0].Source.Pointer != c.pointer {
						t.Errorf("%s: %d %.300s, want code %d at %q", r.method, a.StatusCode, a.body, c.code, c.pointer)
					}
				}
			}
		})
	}
}

// TestBadCredentials: every route that needs a credential, with every kind of
// bad one.
func TestBadCredentials(t *testing.T) {
	l := newLab(t)
	ids := l.tokens()
	user := l.create(userTokens, l.admin.header(), grant("u", dnsWrite, zone)).Value
	dead := l.create(userTokens, l.admin.header(), grant("d", dnsWrite, zone))
	l.do("DELETE", userTokens+"/"+dead.ID, l.admin.header(), nil, 200, 0)
	both := l.admin.header()
	both["Authorization"] = []string{"Bearer " + user[:30]}
	rivalKey := l.admin.header()
	rivalKey["X-Auth-Key"] = []string{l.rival.key}
	for name, c := range map[string]struct {
		h            http.Header
		status, code int
	}{
		"none":                 {nil, 400, 9106},
		"truncated":            {bearer(user[:20]), 400, 6003},
		"cut by one":           {bearer(user[:47]), 403, 9109},
		"one more":             {bearer(user + "0"), 403, 9109},
		"doubled":              {bearer(user + user), 400, 6003},
		"another case":         {bearer(strings.ToUpper(user)), 403, 9109},
		"padded":               {bearer(user + "=="), 400, 6003},
		"foreign":              {bearer(strings.Repeat("A", 40)), 403, 9109},
		"revoked":              {bearer(dead.Value), 403, 9109},
		"an enforcer's":        {bearer(l.enforcer), 403, 9109},
		"a key as a bearer":    {bearer(l.admin.key), 403, 9109},
		"no scheme":            {http.Header{"Authorization": {user}}, 400, 6003},
		"Basic":                {http.Header{"Authorization": {"Basic dXNlcjpwYXNz"}}, 400, 6003},
		"twice":                {http.Header{"Authorization": {"Bearer " + user, "Bearer " + user}}, 400, 6003},
		"a token as a key":     {http.Header{"X-Auth-Email": {l.admin.email}, "X-Auth-Key": {user}}, 400, 6003},
		"a key without e-mail": {http.Header{"X-Auth-Key": {l.admin.key}}, 400, 6003},
		"an e-mail alone":      {http.Header{"X-Auth-Email": {l.admin.email}}, 400, 9106},
		"another's e-mail":     {http.Header{"X-Auth-Email": {l.rival.email}, "X-Auth-Key": {l.admin.key}}, 403, 9103},
		"another's key":        {rivalKey, 403, 9103},
		"a broken bearer wins": {both, 400, 6003},
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			for _, r := range l.routes {
				if !managed(r) || strings.HasSuffix(r.Pattern, "/verify") {
					continue // open, or with rules of their own
				}
				path, body := l.fill(r, ids)
				for _, body := range []string{body, "", "{"} { // strangers are not told about their bodies
					a := l.unmoved(r.Method+" "+path, func() *answer { return l.send(l.request(r.Method, path, c.h.Clone(), body)) })
					if a.StatusCode != c.status || a.code() != c.code {
						t.Errorf("%s %s %q: %d with code %d, want %d with %d", r.Method, path, body, a.StatusCode, a.code(), c.status, c.code)
					}
				}
			}
		})
	}
}

// managed reports whether a route is one of the management API: all that are
// neither open nor for enforcers.
func managed(r web.Route) bool {
	return r.Pattern != "/tokens/new" && r.Pattern != "/errors" && r.Pattern != "/openapi.json" && !strings.HasPrefix(r.Pattern, "/audit/") && !strings.HasPrefix(r.Pattern, "/.well-known") &&
		!lean(r) && r.Pattern != "/v1/feed" && r.Pattern != snapshots.Path && r.Pattern != "/v1/receipts" && r.Pattern != "/oauth2/introspect"
}

// lean reports whether a route has no more than its one method.
func lean(r web.Route) bool { return r.Pattern == "/v1/verify" || r.Pattern == forwardAuth }

// fill returns a path and a body for a route.
func (l *lab) fill(r web.Route, ids map[string]string) (path, body string) {
	at := userTokens
	if strings.Contains(r.Pattern, "{account_id}") {
		at = l.admin.accountTokens()
	}
	path = strings.NewReplacer("{account_id}", l.admin.account.String(), "{token_id}", ids[at], "{enforcer_id}", l.enforcerID.String(), "{consumer_id}", l.consumerID.String(),
		"{member_id}", l.admin.member.String(), "{user_id}", l.admin.id.String(),
		"{zone}", l.zone, "{type}", typeZone, "{id}", l.zone).Replace(r.Pattern)
	switch {
	case r.Method == "POST" && r.Pattern == "/v1/enforcers", r.Method == "PUT" && r.Pattern == "/client/v4/catalogue":
		body = `{"name":"n"}`
	case r.Method == "POST" && r.Pattern == "/v1/consumers":
		body = fmt.Sprintf(`{"name":"n","nkey":%q}`, authoritytest.NewNkey())
	case r.Method == "POST" && strings.HasSuffix(r.Pattern, "/tokens"), r.Method == "PUT" && strings.HasSuffix(r.Pattern, "{token_id}"):
		body = grant("n", dnsWrite, zone)
	}
	return path, body
}

// TestBadPaths: ids that are none, at every place of every path, and methods
// that do not exist.
func TestBadPaths(t *testing.T) {
	l := newLab(t)
	ids := l.tokens()
	as := l.admin.header()
	for _, r := range l.routes {
		path, body := l.fill(r, ids)
		for _, place := range []string{"{account_id}", "{token_id}", "{enforcer_id}", "{consumer_id}", "{member_id}", "{user_id}"} {
			if !strings.Contains(r.Pattern, place) {
				continue
			}
			for _, id := range []string{"x", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("A", 32), strings.Repeat("g", 32), "%00", "'%20or%201=1", "..%2f..%2fetc", "%f0%9f%94%91"} {
				bad := strings.Replace(r.Pattern, place, id, 1)
				bad, _ = l.fill(web.Route{Method: r.Method, Pattern: bad}, ids)
				a := l.unmoved(r.Method+" "+bad, func() *answer { return l.send(l.request(r.Method, bad, as, body)) })
				if a.StatusCode != 404 || a.code() != 7003 && a.code() != 7000 {
					t.Errorf("%s %s: %d with code %d", r.Method, bad, a.StatusCode, a.code())
				}
			}
		}
		for _, method := range []string{"PATCH", "TRACE", "BREW"} {
			if l.allowed(method, r.Pattern) {
				continue
			}
			a := l.unmoved(method+" "+path, func() *answer { return l.send(l.request(method, path, as, body)) })
			if a.StatusCode != 405 || a.Header.Get("Allow") == "" {
				t.Errorf("%s %s: %d, Allow %q", method, path, a.StatusCode, a.Header.Get("Allow"))
			}
		}
		if !lean(r) {
			if a := l.send(l.request("OPTIONS", path, nil, nil)); a.StatusCode != 204 || !strings.Contains(a.Header.Get("Allow"), r.Method) {
				t.Errorf("OPTIONS %s: %d, Allow %q", path, a.StatusCode, a.Header.Get("Allow"))
			}
		}
		if a := l.send(l.request(r.Method, path+"/", as, body)); a.StatusCode != 404 || a.code() != 7000 {
			t.Errorf("%s %s/: %d with code %d", r.Method, path, a.StatusCode, a.code())
		}
	}
}

// allowed reports whether a path has this method.
func (l *lab) allowed(method, pattern string) bool {
	return slices.Contains(l.routes, web.Route{Method: method, Pattern: pattern})
}

// TestTenants: what belongs to others is answered like what does not exist, on
// every route that names a thing.
func TestTenants(t *testing.T) {
	l := newLab(t)
	ids := l.tokens()
	const nowhere = "00000000000000000000000000000001"
	mine := l.create(userTokens, l.rival.header(), grant("n", dnsWrite, zoneType+"*")).ID
	mineInAccount := l.create(l.rival.accountTokens(), l.rival.header(), grant("n", accountTokensRead, accountType+l.rival.account.String())).ID
	for _, r := range l.routes {
		if !strings.Contains(r.Pattern, "_id}") || strings.Contains(r.Pattern, "enforcer") || strings.Contains(r.Pattern, "consumer") {
			continue
		}
		if strings.HasSuffix(r.Pattern, "/verify") {
			continue // TestVerifyStates
		}
		_, body := l.fill(r, ids)
		ask := func(account, id string) string {
			path := strings.NewReplacer("{account_id}", account, "{token_id}", id, "{member_id}", id, "{user_id}", id).Replace(r.Pattern)
			a := l.send(l.request(r.Method, path, l.rival.header(), body))
			if a.StatusCode != 404 || a.code() != 1003 {
				t.Errorf("%s %s: %d with code %d: %s", r.Method, path, a.StatusCode, a.code(), a.body)
			}
			return fmt.Sprint(a.StatusCode, string(a.body))
		}
		if strings.Contains(r.Pattern, "{account_id}") {
			foreign, absent := ask(l.admin.account.String(), ids[l.admin.accountTokens()]), ask(nowhere, mineInAccount)
			if foreign != absent {
				t.Errorf("%s %s: a foreign account and none differ:\n%s\n%s", r.Method, r.Pattern, foreign, absent)
			}
		}
		if strings.Contains(r.Pattern, "{user_id}") {
			if foreign, absent := ask("", l.admin.id.String()), ask("", nowhere); foreign != absent {
				t.Errorf("%s %s: a foreign user and none differ:\n%s\n%s", r.Method, r.Pattern, foreign, absent)
			}
		}
		if strings.Contains(r.Pattern, "{member_id}") {
			own := l.rival.account.String()
			if foreign, absent := ask(own, l.admin.member.String()), ask(own, nowhere); foreign != absent {
				t.Errorf("%s %s: a foreign membership and none differ:\n%s\n%s", r.Method, r.Pattern, foreign, absent)
			}
		}
		if strings.Contains(r.Pattern, "{token_id}") {
			own := l.rival.account.String()
			absent := ask(own, nowhere)
			for _, id := range []string{ids[userTokens], ids[l.admin.accountTokens()], l.admin.id.String()} {
				if foreign := ask(own, id); foreign != absent {
					t.Errorf("%s %s: a foreign token and none differ:\n%s\n%s", r.Method, r.Pattern, foreign, absent)
				}
			}
			other := mineInAccount // the caller's own, under the wrong owner
			if strings.Contains(r.Pattern, "{account_id}") {
				other = mine
			}
			if foreign := ask(own, other); foreign != absent {
				t.Errorf("%s %s: a token of the other kind: %s", r.Method, r.Pattern, foreign)
			}
		}
	}
	// Nobody but an operator sees enforcers, consumers and the catalogue.
	for _, r := range []route{{method: "GET", path: "/client/v4/catalogue"}, {method: "PUT", path: "/client/v4/catalogue", body: `{"name":"n"}`}, {method: "GET", path: "/v1/enforcers"}, {method: "POST", path: "/v1/enforcers", body: `{"name":"n"}`}, {method: "DELETE", path: "/v1/enforcers/" + l.enforcerID.String()},
		{method: "GET", path: "/v1/consumers"}, {method: "POST", path: "/v1/consumers", body: `{"name":"n"}`}, {method: "DELETE", path: "/v1/consumers/" + l.consumerID.String()}} {
		l.unmoved(r.path, func() *answer { return l.do(r.method, r.path, l.rival.header(), r.body, 403, 9109) })
	}
}

// TestSlowAndBroken: a body that does not come to its end changes nothing.
func TestSlowAndBroken(t *testing.T) {
	l := newLab(t)
	body := grant("n", dnsWrite, zone)
	pr, pw := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	r := l.request("POST", userTokens, l.admin.header(), nil).WithContext(ctx)
	r.Body, r.ContentLength = pr, int64(len(body)+10)
	head := l.ledger.Head()
	done := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(r)
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	if _, err := io.WriteString(pw, body); err != nil {
		t.Fatal(err)
	}
	cancel()
	pw.CloseWithError(context.Canceled) // the transport may be waiting in a read of it
	<-done
	l.do("GET", userTokens, l.admin.header(), nil, 200, 0)
	if l.ledger.Head() != head {
		t.Error("half a body made a token")
	}
	// cloudflare-go v6 rolls with an empty body in chunks.
	id := l.create(userTokens, l.admin.header(), body).ID
	empty := l.request("PUT", userTokens+"/"+id+"/value", l.admin.header(), nil)
	empty.Body, empty.ContentLength = io.NopCloser(strings.NewReader("")), -1
	empty.Header.Set("Content-Type", "application/json")
	if a := l.send(empty); a.StatusCode != 200 {
		t.Errorf("an empty body in chunks: %d %s", a.StatusCode, a.body)
	}
}
