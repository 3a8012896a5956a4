package openapi_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// ask sends a body to /v1/verify.
func (l *lab) ask(h http.Header, body any) *answer {
	l.t.Helper()
	return l.send(l.request("POST", "/v1/verify", h, body))
}

func question(secret, permission string, chain ...string) string {
	for i := range chain {
		chain[i] = fmt.Sprintf("%q", chain[i])
	}
	return fmt.Sprintf(`{"secret":%q,"permission":%q,"resource":[%s],"client_ip":"192.0.2.10"}`, secret, permission, strings.Join(chain, ","))
}

// TestVerifyDecisions: one question of every kind, alone and in both forms of
// a batch, with the same answers.
func TestVerifyDecisions(t *testing.T) {
	l := newLab(t)
	as, account := l.admin.header(), accountType+l.admin.account.String()
	good := l.create(userTokens, as, grant("good", dnsWrite, zone))
	owned := l.create(l.admin.accountTokens(), as, grant("owned", dnsWrite, zone))
	here := l.create(userTokens, as, grant("here", dnsWrite, zone, `"condition":{"request_ip":{"in":["192.0.2.0/24"],"not_in":["192.0.2.10"]}}`))
	later := l.create(userTokens, as, grant("later", dnsWrite, zone, `"not_before":"2199-01-01T00:00:00Z"`))
	off := l.create(userTokens, as, grant("off", dnsWrite, zone, `"status":"disabled"`))
	gone := l.create(userTokens, as, grant("gone", dnsWrite, zone))
	l.do("DELETE", userTokens+"/"+gone.ID, as, nil, 200, 0)
	denied := l.create(userTokens, as, `{"name":"denied","policies":[{"effect":"allow","resources":{"`+zoneType+`*":"*"},"permission_groups":[{"id":"`+dnsWrite+`"}]},{"effect":"deny","resources":{"`+zone+`":"*"},"permission_groups":[{"id":"`+dnsWrite+`"}]}]}`)
	cases := []struct{ body, decision, reason, id string }{
		{question(good.Value, permissionDNS, account, zone), "allow", "", good.ID},
		{question(good.Value, "dns.records.read", account, zone), "allow", "", good.ID},
		{question(owned.Value, permissionDNS, account, zone), "allow", "", owned.ID},
		{question(good.Value, permissionDNS, account, otherZone), "deny", "no_policy", good.ID},
		{question(good.Value, permissionDNS, account), "deny", "no_policy", good.ID},
		{question(good.Value, permissionDNS), "deny", "no_policy", good.ID},
		{`{"secret":"` + good.Value + `","permission":"` + permissionDNS + `"}`, "deny", "no_policy", good.ID},
		{question(good.Value, "zone.read", account, zone), "deny", "no_policy", good.ID},
		{question(good.Value, "no.such", account, zone), "deny", "unknown_permission", good.ID},
		{question(here.Value, permissionDNS, account, zone), "deny", "address", here.ID},
		{strings.Replace(question(here.Value, permissionDNS, account, zone), "192.0.2.10", "::ffff:192.0.2.11", 1), "allow", "", here.ID},
		{strings.Replace(question(here.Value, permissionDNS, account, zone), `"192.0.2.10"`, "null", 1), "deny", "address", here.ID},
		{question(later.Value, permissionDNS, account, zone), "deny", "not_yet_valid", later.ID},
		{question(off.Value, permissionDNS, account, zone), "deny", "disabled", off.ID},
		{question(gone.Value, permissionDNS, account, zone), "deny", "revoked", gone.ID},
		{question(denied.Value, permissionDNS, account, zone), "deny", "denied_by_policy", denied.ID},
		{question(denied.Value, permissionDNS, account, otherZone), "allow", "", denied.ID},
		{question("", permissionDNS, account, zone), "deny", "malformed", ""},
		{question(good.Value[:40], permissionDNS, account, zone), "deny", "malformed", ""},
		{question(strings.Repeat("x", 100_000), permissionDNS), "deny", "malformed", ""},
		{question(l.enforcer, permissionDNS, account, zone), "deny", "unknown", ""},
		{question(l.admin.key, permissionDNS, account, zone), "allow", "", ""},
		{question(l.admin.key, permissionDNS, accountType+strings.Repeat("f", 32), zone), "allow", "", ""},
		{question(l.admin.key, permissionDNS), "deny", "no_policy", ""},
		{question(l.admin.key, "no.such", account, zone), "deny", "unknown_permission", ""},
		{strings.Replace(question(good.Value, permissionDNS, account, zone), `"secret"`, `"more":{"a":[1]},"secret"`, 1), "allow", "", good.ID},
		{strings.Replace(question(good.Value, permissionDNS, account, zone), "dns", `d\u006es`, 1), "allow", "", good.ID},
	}
	var bodies []string
	for _, c := range cases {
		bodies = append(bodies, c.body)
		a := l.ask(bearer(l.enforcer), c.body)
		var d decision
		if err := jsonInto(a.body, &d); err != nil || a.StatusCode != 200 {
			t.Fatalf("%d %s: %v", a.StatusCode, a.body, err)
		}
		if d.Decision != c.decision || d.Reason != c.reason || d.TokenID != c.id {
			t.Errorf("%.200s\n got %s", c.body, a.body)
		}
		if d.Sequence == 0 || a.Header.Get("Watchword-Sequence") != fmt.Sprint(d.Sequence) || a.Header.Get("Cache-Control") != "no-store" || d.AgeMS < 0 {
			t.Errorf("headers %v of %s", a.Header, a.body)
		}
	}
	batch := "[" + strings.Join(bodies, ",") + "]"
	for _, body := range []string{batch, `{"requests":` + batch + `}`, `{"strange":{},"requests":` + batch + `,"more":1}`} {
		a := l.ask(bearer(l.enforcer), body)
		var all []decision
		if err := jsonInto(a.body, &all); err != nil || len(all) != len(cases) {
			t.Fatalf("%d %s: %v", a.StatusCode, a.body, err)
		}
		for i, d := range all {
			if d.Decision != cases[i].decision || d.Reason != cases[i].reason || d.TokenID != cases[i].id {
				t.Errorf("%d of the batch: got %+v", i, d)
			}
		}
	}
	for body, want := range map[string]string{"[]": "[]", `{"requests":[]}`: "[]"} {
		if a := l.ask(bearer(l.enforcer), body); string(a.body) != want {
			t.Errorf("%s: %s", body, a.body)
		}
	}
}

// TestVerifyRefusals: what is no question.
func TestVerifyRefusals(t *testing.T) {
	l := newLab(t)
	q := question("s", "p", "r")
	batch := func(n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(`{"secret":"s","permission":"p"},`, n), ",") + "]"
	}
	for body, c := range map[string]struct {
		status, code int
		pointer      string
	}{
		batch(1000):                                {200, 0, ""},
		batch(1001):                                {400, 20006, ""},
		`{}`:                                       {400, 20005, "/secret"},
		`{"secret":"s"}`:                           {400, 20005, "/permission"},
		`{"secret":null,"permission":"p"}`:         {400, 20005, "/secret"},
		`{"secret":"s","permission":["p"]}`:        {400, 20005, "/permission"},
		`{"requests":{}}`:                          {400, 20005, "/requests"},
		`{"requests":[],"secret":"s"}`:             {400, 20005, "/requests"},
		`{"requests":[{"requests":[]}]}`:           {400, 20005, "/requests/0/secret"},
		`[` + q + `,7]`:                            {400, 20005, "/1"},
		`[[` + q + `]]`:                            {400, 20005, "/0"},
		`[` + q + `,{"secret":"s"}]`:               {400, 20005, "/1/permission"},
		`null`:                                     {400, 20005, ""},
		strings.Replace(q, `["r"]`, `"r"`, 1):      {400, 20005, "/resource"},
		strings.Replace(q, `["r"]`, `["r",{}]`, 1): {400, 20005, "/resource"},
		strings.Replace(q, `"r"`, strings.Repeat(`"r",`, 64)+`"r"`, 1):     {400, 20005, "/resource"},
		strings.Replace(q, "192.0.2.10", "192.0.2.300", 1):                 {400, 20005, "/client_ip"},
		strings.Replace(q, "192.0.2.10", "fe80::1%eth0", 1):                {400, 20005, "/client_ip"},
		strings.Replace(q, `"192.0.2.10"`, "3221225994", 1):                {400, 20005, "/client_ip"},
		strings.Replace(q, `"permission"`, `"secret":"t","permission"`, 1): {400, 9207, ""},
		strings.Replace(q, `"permission"`, `"s\u0065cret":"t","x"`, 1):     {400, 9207, ""},
		strings.Replace(q, `"permission":"p"`, `"p\u0065rmission":"p"`, 1): {200, 0, ""},
		strings.Replace(q, `"s"`, "\"\xc3\x28\"", 1):                       {400, 9207, ""},
		q + "x": {400, 9207, ""},
	} {
		a := l.unmoved(body, func() *answer { return l.ask(bearer(l.enforcer), body) })
		pointer := ""
		if len(a.Errors) > 0 {
			pointer = a.Errors[0].Source.Pointer
		}
		if a.StatusCode != c.status || a.code() != c.code || pointer != c.pointer {
			t.Errorf("%.200s: %d %.300s", body, a.StatusCode, a.body)
		}
	}
	for name, h := range map[string]http.Header{
		"nothing": nil, "a typo": bearer(l.enforcer[:47] + "!"), "another key": bearer(strings.Replace(l.enforcer, "wwe_", "wwu_", 1)),
		"an API key": l.admin.header(), "twice": {"Authorization": {"Bearer " + l.enforcer, "Bearer " + l.enforcer}},
	} {
		a := l.unmoved(name, func() *answer { return l.ask(h, q) })
		if a.StatusCode != 401 || a.code() != 20001 || a.Header.Get("Www-Authenticate") == "" {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	for _, method := range []string{"GET", "PUT", "OPTIONS"} {
		if a := l.send(l.request(method, "/v1/verify?secret=s&permission=p", bearer(l.enforcer), nil)); a.StatusCode != 405 || a.Header.Get("Allow") != "POST" {
			t.Errorf("%s: %d", method, a.StatusCode)
		}
	}
	var key string
	l.do("POST", "/v1/enforcers", l.admin.header(), `{"name":"short-lived"}`, 200, 0).field(t, "key", &key)
	if a := l.ask(bearer(key), q); a.StatusCode != 200 {
		t.Errorf("a fresh enforcer: %d %s", a.StatusCode, a.body)
	}
	l.do("DELETE", "/v1/enforcers/"+l.enforcerID.String(), l.admin.header(), nil, 200, 0)
	if a := l.ask(bearer(l.enforcer), q); a.StatusCode != 401 {
		t.Errorf("a retired enforcer: %d %s", a.StatusCode, a.body)
	}
}

func (a *answer) field(t testing.TB, name string, v any) {
	t.Helper()
	var all map[string]any
	a.into(t, &all)
	*v.(*string), _ = all[name].(string)
}

// TestAtLeast: whoever names a sequence gets an answer by it, or none.
func TestAtLeast(t *testing.T) {
	l := newLab(t)
	a := l.do("POST", userTokens, l.admin.header(), grant("n", dnsWrite, zone), 200, 0)
	var v tokenView
	a.into(t, &v)
	with := func(seq string) http.Header {
		h := bearer(l.enforcer)
		h["Watchword-At-Least"] = []string{seq}
		return h
	}
	body := question(v.Value, permissionDNS, zone)
	if got := l.ask(with(a.Header.Get("Watchword-Sequence")), body); got.StatusCode != 200 || !strings.Contains(string(got.body), "allow") {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	if got := l.ask(with("18446744073709551615"), body); got.StatusCode != 503 || got.code() != 20020 || got.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
	for _, bad := range []string{"-1", "x", "18446744073709551616", "1.0"} {
		if got := l.ask(with(bad), body); got.StatusCode != 400 || got.code() != 1001 {
			t.Errorf("%q: %d %s", bad, got.StatusCode, got.body)
		}
	}
}

// introspect asks RFC 7662.
func (l *lab) introspect(h http.Header, form string) *answer {
	l.t.Helper()
	h = h.Clone()
	h["Content-Type"] = []string{"application/x-www-form-urlencoded"}
	return l.send(l.request("POST", "/oauth2/introspect", h, form))
}

func basic(user, password string) http.Header {
	return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}}
}

func TestIntrospect(t *testing.T) {
	l := newLab(t)
	as := l.admin.header()
	a := l.create(userTokens, as, grant("n", dnsWrite, zone, `"not_before":"2026-01-01T00:00:00Z"`, `"expires_on":"2199-01-01T00:00:00Z"`))
	bound := l.create(userTokens, as, grant("n", dnsWrite, zone, `"condition":{"request_ip":{"in":["192.0.2.0/24"]}}`))
	off := l.create(userTokens, as, grant("n", dnsWrite, zone, `"status":"disabled"`))
	denied := l.create(userTokens, as, `{"name":"n","policies":[{"effect":"allow","resources":{"`+zoneType+`*":"*"},"permission_groups":[{"id":"`+dnsWrite+`"}]},{"effect":"deny","resources":{"`+zone+`":"*"},"permission_groups":[{"id":"`+l.group("DNS Read")+`"}]}]}`)
	var full struct {
		Active      bool     `json:"active"`
		Scope       string   `json:"scope"`
		Permissions []string `json:"permissions"`
		ClientID    string   `json:"client_id"`
		Sub         string   `json:"sub"`
		Exp         int64    `json:"exp"`
		Iat         int64    `json:"iat"`
		Nbf         int64    `json:"nbf"`
		Iss         string   `json:"iss"`
		JTI         string   `json:"jti"`
		TokenType   string   `json:"token_type"`
	}
	for name, h := range map[string]http.Header{
		"bearer": bearer(l.enforcer), "id and key": basic(l.enforcerID.String(), l.enforcer), "any name": basic("edge", l.enforcer),
		"key as name": basic(l.enforcer, ""), "key as password": basic("", l.enforcer),
	} {
		got := l.introspect(h, "token_type_hint=access_token&token="+a.Value)
		if err := jsonInto(got.body, &full); err != nil || got.StatusCode != 200 || !full.Active {
			t.Fatalf("%s: %d %s", name, got.StatusCode, got.body)
		}
		if got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("Watchword-Sequence") == "" || got.Header.Get("Www-Authenticate") != "" {
			t.Errorf("headers %v", got.Header)
		}
	}
	issued, _ := time.Parse(time.RFC3339, a.IssuedOn)
	if full.Scope != "dns.records.read dns.records.write" || strings.Join(full.Permissions, " ") != full.Scope || full.Sub != l.admin.id.String() ||
		full.ClientID != a.ID || full.JTI != a.ID || full.Iat != issued.Unix() || full.Nbf != 1767225600 || full.Exp != 7226582400 ||
		full.Iss != l.url || full.TokenType != "Bearer" {
		t.Errorf("%+v", full)
	}
	const inactive = `{"active":false}`
	l.do("GET", userTokens, l.admin.header(), nil, 200, 0) // the directory has all of them: a scope needs it
	for name, c := range map[string]struct{ form, want string }{
		"unknown":         {"token=" + strings.Repeat("x", 48), inactive},
		"malformed":       {"token=%00", inactive},
		"empty":           {"token=", inactive},
		"disabled":        {"token=" + off.Value, inactive},
		"the enforcer's":  {"token=" + l.enforcer, inactive},
		"bound, no ip":    {"token=" + bound.Value, inactive},
		"bound, other ip": {"token=" + bound.Value + "&client_ip=198.51.100.1", inactive},
		"bound, its ip":   {"token=" + bound.Value + "&client_ip=192.0.2.1", `"active":true`},
		"URI form":        {"token=secret-token%3A" + a.Value, `"active":true`},
		"denied read":     {"token=" + denied.Value, `"scope":"dns.records.write"`},
	} {
		if got := l.introspect(bearer(l.enforcer), c.form); got.StatusCode != 200 || c.want == inactive && string(got.body) != inactive || !strings.Contains(string(got.body), c.want) {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	for name, c := range map[string]struct {
		h            http.Header
		form, error  string
		status, code int
	}{
		"no token":        {bearer(l.enforcer), "x=y", "invalid_request", 400, 20005},
		"two tokens":      {bearer(l.enforcer), "token=a&token=b", "invalid_request", 400, 20005},
		"a broken form":   {bearer(l.enforcer), "token=%zz", "invalid_request", 400, 20005},
		"a bad address":   {bearer(l.enforcer), "token=a&client_ip=x", "invalid_request", 400, 20005},
		"too large":       {bearer(l.enforcer), "token=" + strings.Repeat("a", 1<<17), "invalid_request", 413, 20003},
		"nobody":          {http.Header{}, "token=a", "invalid_client", 401, 20001},
		"another's id":    {basic(l.admin.id.String(), l.enforcer), "token=a", "invalid_client", 401, 20001},
		"a wrong key":     {basic(l.enforcerID.String(), "x"), "token=a", "invalid_client", 401, 20001},
		"a broken header": {http.Header{"Authorization": {"Basic ???"}}, "token=a", "invalid_client", 401, 20001},
		"a user's token":  {bearer(a.Value), "token=a", "invalid_client", 401, 20001},
	} {
		got := l.unmoved(name, func() *answer { return l.introspect(c.h, c.form) })
		if got.StatusCode != c.status || got.code() != c.code || !strings.HasPrefix(string(got.body), `{"error":"`+c.error+`",`) {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
		if (c.status == 401) != (got.Header.Get("Www-Authenticate") != "") {
			t.Errorf("%s: WWW-Authenticate %q", name, got.Header.Get("Www-Authenticate"))
		}
	}
	query := l.request("POST", "/oauth2/introspect?token="+a.Value, bearer(l.enforcer), "x=y")
	query.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if got := l.send(query); got.StatusCode != 400 {
		t.Errorf("a token in the query: %d %s", got.StatusCode, got.body)
	}
	if got := l.send(l.request("POST", "/oauth2/introspect", bearer(l.enforcer), `{"token":"x"}`)); got.StatusCode != 415 {
		t.Errorf("JSON: %d %s", got.StatusCode, got.body)
	}
	l.do("GET", "/oauth2/introspect?token="+a.Value, bearer(l.enforcer), nil, 405, 20002)
	l.secretsStay(t)
}

// TestPeople: who the caller is, and which accounts they see.
func TestPeople(t *testing.T) {
	l := newLab(t)
	as, id := l.admin.header(), l.admin.id.String()
	token := func(resource, group string) http.Header {
		return bearer(l.create(userTokens, as, grant("n", l.group(group), resource)).Value)
	}
	self, account := userType+id, accountType+l.admin.account.String()
	reader, members := token(self, "User Details Read"), token(self, "Memberships Read")
	settings, dns := token(account, "Account Settings Read"), bearer(l.create(userTokens, as, grant("n", dnsWrite, zone)).Value)
	owned := bearer(l.create(l.admin.accountTokens(), as, grant("n", dnsWrite, zone)).Value)
	accounts, one := "/client/v4/accounts", "/client/v4/accounts/"+l.admin.account.String()
	for _, c := range []struct {
		path         string
		h            http.Header
		status, code int
		has          string
	}{
		{"/client/v4/user", as, 200, 0, `"id":"` + id + `","email":"` + l.admin.email + `","username":"ops-`},
		{"/client/v4/user", reader, 200, 0, `"first_name":null`},
		{"/client/v4/user", dns, 403, 9109, ""},
		{"/client/v4/user", owned, 403, 9109, ""},
		{accounts, as, 200, 0, `"total_count":1`},
		{accounts, settings, 200, 0, `"type":"standard","settings":{"enforce_twofactor":false}`},
		{accounts, dns, 200, 0, `"result":[]`},
		{accounts, owned, 200, 0, `"id":"` + l.admin.account.String() + `"`},
		{accounts + "?page=2", as, 200, 0, `"result":[]`},
		{accounts + "?name=other", as, 200, 0, `"result":[]`},
		{one, as, 200, 0, `"name":"Example `},
		{one, settings, 200, 0, ""},
		{one, dns, 403, 9109, ""},
		{one, owned, 200, 0, ""},
		{one, l.rival.header(), 404, 1003, ""},
		{"/client/v4/memberships", as, 200, 0, `"status":"accepted","roles":["Super Administrator"],"account":{"id":"` + l.admin.account.String()},
		{"/client/v4/memberships", members, 200, 0, ""},
		{"/client/v4/memberships", dns, 403, 10000, ""},
		{"/client/v4/memberships", owned, 400, 9106, ""},
		{userTokens, dns, 403, 9109, ""},
		{userTokens, owned, 403, 9109, ""},
		{userTokens, token(self, "API Tokens Read"), 200, 0, ""},
		{l.admin.accountTokens(), settings, 403, 9109, ""},
		{l.admin.accountTokens(), token(account, "Account API Tokens Read"), 200, 0, ""},
		{l.rival.accountTokens(), owned, 404, 1003, ""},
	} {
		if a := l.do("GET", c.path, c.h, nil, c.status, c.code); !strings.Contains(string(a.body), c.has) {
			t.Errorf("%s: no %s in %s", c.path, c.has, a.body)
		}
	}
}
