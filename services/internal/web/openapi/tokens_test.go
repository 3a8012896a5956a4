package openapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"watchword.dev/events/token"
)

const (
	dnsWrite          = "4755a26eedb94da69e1066d98aa820be"
	apiTokensRead     = "0cc3a61731504c89b99ec1be78b77aa0"
	accountTokensRead = "eb56a6953c034b9d97dd838155666f06"
	zoneType          = "com.cloudflare.api.account.zone."
	userType          = "com.cloudflare.api.user."
	accountType       = "com.cloudflare.api.account."
	userTokens        = "/client/v4/user/tokens"
	zone              = zoneType + "1f0c6b0f0a2b4c6d8e9f00112233aabb"
	otherZone         = zoneType + "2f0c6b0f0a2b4c6d8e9f00112233aabb"
	permissionDNS     = "dns.records.write"
	validAndActive    = "This API Token is valid and active"
	codeUnknownSecret = 1000
)

type tokenView struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Status     string `json:"status"`
	IssuedOn   string `json:"issued_on"`
	ModifiedOn string `json:"modified_on"`
	RolledOn   string `json:"rolled_on"`
	ExpiresOn  string `json:"expires_on"`
	Value      string `json:"value"`
	Template   string `json:"template"`
}

func (p person) accountTokens() string {
	return "/client/v4/accounts/" + p.account.String() + "/tokens"
}

// grant is the body of a token with one policy.
func grant(name, group, resource string, more ...string) string {
	return fmt.Sprintf(`{"name":%q,"policies":[{"effect":"allow","resources":{%q:"*"},"permission_groups":[{"id":%q}]}]%s}`,
		name, resource, group, strings.Join(append([]string{""}, more...), ","))
}

func (l *lab) create(path string, as http.Header, body any) tokenView {
	l.t.Helper()
	var v tokenView
	l.do("POST", path, as, body, 200, 0).into(l.t, &v)
	if v.ID == "" || v.Value == "" {
		l.t.Fatalf("no id or no secret: %+v", v)
	}
	return v
}

// group returns the id of a permission group of the catalogue by its name.
func (l *lab) group(name string) string {
	l.t.Helper()
	var all []struct {
		ID string `json:"id"`
	}
	l.do("GET", userTokens+"/permission_groups?name="+strings.ReplaceAll(name, " ", "%20"), l.admin.header(), nil, 200, 0).into(l.t, &all)
	if len(all) != 1 {
		l.t.Fatalf("%d groups are named %q", len(all), name)
	}
	return all[0].ID
}

// TestLife takes a token of either owner through its whole life.
func TestLife(t *testing.T) {
	l := newLab(t)
	for name, at := range map[string]string{"user": userTokens, "account": l.admin.accountTokens()} {
		t.Run(name, func(t *testing.T) {
			l, as := l.in(t), l.admin.header()
			a := l.create(at, as, grant("dns deployer", dnsWrite, zone))
			if a.Name != "dns deployer" || a.Status != "active" || a.IssuedOn == "" || a.ModifiedOn != a.IssuedOn || a.RolledOn != "" {
				t.Errorf("created: %+v", a)
			}
			got := l.do("GET", at+"/verify", bearer(a.Value), nil, 200, 0)
			if !strings.Contains(string(got.body), `"messages":[{"code":10000,"message":"`+validAndActive+`","type":null}]`) {
				t.Errorf("verify: %s", got.body)
			}
			if d := l.verify(a.Value, zone); d.Decision != "allow" || d.TokenID != a.ID || d.PolicyID == "" || d.OwnerKind != name {
				t.Errorf("allowed: %+v", d)
			}
			if d := l.verify(a.Value, otherZone); d.Decision != "deny" || d.Reason != "no_policy" {
				t.Errorf("other zone: %+v", d)
			}

			var b tokenView
			l.do("PUT", at+"/"+a.ID, as, grant("renamed", dnsWrite, otherZone), 200, 0).into(t, &b)
			if b.Name != "renamed" || b.Value != "" || b.ID != a.ID {
				t.Errorf("updated: %+v", b)
			}
			if d := l.verify(a.Value, zone); d.Reason != "no_policy" {
				t.Errorf("after the update: %+v", d)
			}

			var secret string
			l.do("PUT", at+"/"+a.ID+"/value", as, "", 200, 0).into(t, &secret)
			l.do("GET", at+"/verify", bearer(a.Value), nil, 401, codeUnknownSecret)
			l.do("GET", at+"/verify", bearer(secret), nil, 200, 0)
			if d := l.verify(a.Value, otherZone); d.Reason != "revoked" {
				t.Errorf("the old secret: %+v", d)
			}
			l.do("GET", at+"/"+a.ID, as, nil, 200, 0).into(t, &b)
			if b.RolledOn == "" || b.Value != "" {
				t.Errorf("rolled: %+v", b)
			}

			l.do("POST", at+"/"+a.ID+"/disable", as, `{"reason":"holiday"}`, 200, 0).into(t, &b)
			v := l.do("GET", at+"/verify", bearer(secret), nil, 200, 0)
			if b.Status != "disabled" || strings.Contains(string(v.body), validAndActive) || !strings.Contains(string(v.body), `"status":"disabled"`) {
				t.Errorf("disabled: %+v, verify %s", b, v.body)
			}
			l.do("POST", at+"/"+a.ID+"/enable", as, nil, 200, 0).into(t, &b)
			if b.Status != "active" {
				t.Errorf("enabled: %+v", b)
			}

			d := l.do("DELETE", at+"/"+a.ID, as, nil, 200, 0)
			if string(d.Result) != `{"id":"`+a.ID+`"}` {
				t.Errorf("deleted: %s", d.body)
			}
			l.do("DELETE", at+"/"+a.ID, as, "{}", 404, 1003)
			l.do("GET", at+"/"+a.ID, as, nil, 404, 1003)
			l.do("GET", at+"/verify", bearer(secret), nil, 401, codeUnknownSecret)
			if d := l.verify(secret, otherZone); d.Reason != "revoked" {
				t.Errorf("revoked: %+v", d)
			}
		})
	}
	l.secretsStay(t)
}

// in returns the lab as a subtest uses it.
func (l *lab) in(t testing.TB) *lab {
	c := *l
	c.t = t
	return &c
}

// secretsStay checks that nothing that lasts holds a secret.
func (l *lab) secretsStay(t *testing.T) {
	t.Helper()
	log := l.log.String()
	for _, prefix := range []string{"wwu_", "wwa_", "wwe_", "wwk_"} {
		if strings.Contains(log, prefix) {
			t.Errorf("the log holds a %s secret", prefix)
		}
		for seq := range l.ledger.Head() {
			if _, payload := l.ledger.Payload(seq + 1); strings.Contains(string(payload), prefix) {
				t.Errorf("commit %d holds a %s secret", seq+1, prefix)
			}
		}
	}
}

type decision struct {
	Decision  string `json:"decision"`
	Reason    string `json:"reason"`
	TokenID   string `json:"token_id"`
	Owner     string `json:"owner"`
	OwnerKind string `json:"owner_kind"`
	AccountID string `json:"account_id"`
	PolicyID  string `json:"policy_id"`
	Sequence  uint64 `json:"sequence"`
	AgeMS     int64  `json:"age_ms"`
	Stale     bool   `json:"stale"`
}

// verify asks as the enforcer about DNS on a zone.
func (l *lab) verify(secret, zone string) decision {
	l.t.Helper()
	body := map[string]any{"secret": secret, "permission": permissionDNS, "resource": []string{accountType + l.admin.account.String(), zone}, "client_ip": "192.0.2.10"}
	a := l.send(l.request("POST", "/v1/verify", bearer(l.enforcer), body))
	if a.StatusCode != 200 {
		l.t.Fatalf("verify: %d %s", a.StatusCode, a.body)
	}
	var d decision
	if err := jsonInto(a.body, &d); err != nil {
		l.t.Fatalf("%v: %s", err, a.body)
	}
	return d
}

// TestBytesKept: Terraform compares a policy's resources as text.
func TestBytesKept(t *testing.T) {
	l := newLab(t)
	const policies = `[{"effect":"allow","resources":{"` + otherZone + `":"*","` + zone + `":"*"},"permission_groups":[{"id":"` + dnsWrite + `"}]},` +
		`{"effect":"deny","resources":{ "com.cloudflare.api.account.zone.\u002a" : "*" },"permission_groups":[{"id":"` + dnsWrite + `","name":"ignored","meta":{"key":"k","value":"v"}}],"id":"ignored"}]`
	a := l.do("POST", userTokens, l.admin.header(), `{"name":"n","policies":`+policies+`,"condition":{"request.ip":{"in":["192.0.2.0/24","2001:db8::/48"],"not_in":["192.0.2.7/32"]}},"not_before":"2026-01-01T01:00:00+01:00","expires_on":"2199-04-01T00:00:00.9Z","strange":[{"x":null}]}`, 200, 0)
	for _, part := range []string{
		`"resources":{"` + otherZone + `":"*","` + zone + `":"*"},"permission_groups":[{"id":"` + dnsWrite + `","name":"DNS Write"}]`,
		`"resources":{"com.cloudflare.api.account.zone.\u002a":"*"}`,
		`"condition":{"request_ip":{"in":["192.0.2.0/24","2001:db8::/48"],"not_in":["192.0.2.7/32"]},"request.ip":{"in":["192.0.2.0/24","2001:db8::/48"],"not_in":["192.0.2.7/32"]}}`,
		`"not_before":"2026-01-01T00:00:00Z","expires_on":"2199-04-01T00:00:00Z"`,
	} {
		if !strings.Contains(string(a.body), part) {
			t.Errorf("no %s in\n%s", part, a.body)
		}
	}
	var v tokenView
	a.into(t, &v)
	again := l.do("GET", userTokens+"/"+v.ID, l.admin.header(), nil, 200, 0)
	if got, want := string(again.Result), strings.Replace(string(a.Result), `,"value":"`+v.Value+`"`, "", 1); got != want {
		t.Errorf("read otherwise than created:\n%s\n%s", got, want)
	}
	// What was left out is cleared.
	b := l.do("PUT", userTokens+"/"+v.ID, l.admin.header(), grant("n", dnsWrite, zone), 200, 0)
	for _, gone := range []string{"condition", "not_before", "expires_on", "null"} {
		if strings.Contains(string(b.Result), gone) {
			t.Errorf("%s is still there: %s", gone, b.body)
		}
	}
}

// TestConditionSpellings: one condition, two names.
func TestConditionSpellings(t *testing.T) {
	l := newLab(t)
	for body, code := range map[string]int{
		`"condition":{"request_ip":{"in":["192.0.2.1"]}}`:                                   0,
		`"condition":{"request.ip":{"in":["192.0.2.1"]}}`:                                   0,
		`"condition":{"request_ip":{"in":["192.0.2.1"]},"request.ip":{"in":["192.0.2.1"]}}`: 0,
		`"condition":{"request_ip":{"in":["192.0.2.1"]},"request.ip":{"in":["192.0.2.2"]}}`: 1001,
		`"condition":{"request_ip":{"in":["192.0.2.1"]},"request.ip":{}}`:                   1001,
		`"condition":{"request_ip":{"in":["192.0.2.300"]}}`:                                 1001,
		`"condition":{"request.ip":{"not_in":["192.0.2.0/33"]}}`:                            1001,
		`"condition":{"request_ip":{"in":[""]}}`:                                            1001,
		`"condition":{"request_ip":{"in":["fe80::1%eth0"]}}`:                                1001,
		`"condition":{"request_ip":{"in":"192.0.2.1"}}`:                                     9207,
		`"condition":{}`: 0, `"condition":null`: 0, `"condition":{"request_ip":null}`: 0, `"condition":{"request.ip":{}}`: 0,
		`"condition":{"request_ip":{"in":[` + strings.Repeat(`"192.0.2.1",`, 600) + `"192.0.2.1"]}}`: 1001,
	} {
		status := 200
		if code != 0 {
			status = 400
		}
		l.do("POST", userTokens, l.admin.header(), grant("n", dnsWrite, zone, body), status, code)
	}
	// An empty list is nobody, and says so again.
	a := l.create(userTokens, l.admin.header(), grant("n", dnsWrite, zone, `"condition":{"request_ip":{"in":[]}}`))
	l.do("GET", userTokens+"/verify", bearer(a.Value), nil, 403, 9109)
	if got := l.do("GET", userTokens+"/"+a.ID, l.admin.header(), nil, 200, 0); !strings.Contains(string(got.body), `"request_ip":{"in":[]}`) {
		t.Errorf("%s", got.body)
	}
}

// TestVerifyStates: what verify says about a known secret that is not good.
func TestVerifyStates(t *testing.T) {
	l := newLab(t)
	as := l.admin.header()
	for name, c := range map[string]struct {
		more         string
		ahead        time.Duration
		status, code int
		says         string
	}{
		"active":        {"", 0, 200, 0, `"status":"active"`},
		"expired":       {`"expires_on":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"`, 2 * time.Hour, 200, 0, `"status":"expired"`},
		"not yet valid": {`"not_before":"2199-01-01T00:00:00Z"`, 0, 200, 0, `"status":"not_yet_valid","not_before":"2199-01-01T00:00:00Z"`},
		"disabled":      {`"status":"disabled"`, 0, 200, 0, `"status":"disabled"`},
		"from here":     {`"condition":{"request_ip":{"in":["127.0.0.0/8"]}}`, 0, 200, 0, `"status":"active"`},
		"not from here": {`"condition":{"request_ip":{"not_in":["127.0.0.1/32"]}}`, 0, 403, 9109, "Cannot use the access token from location: 127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			l.now.ahead.Store(0)
			a := l.create(userTokens, as, grant(name, dnsWrite, zone, strings.Fields(c.more)...))
			l.now.ahead.Store(int64(c.ahead))
			got := l.do("GET", userTokens+"/verify", bearer(a.Value), nil, c.status, c.code)
			if !strings.Contains(string(got.body), c.says) {
				t.Errorf("got %s", got.body)
			}
			if good := c.says == `"status":"active"`; strings.Contains(string(got.body), validAndActive) != good {
				t.Errorf("the text of the active: %s", got.body)
			}
			// The management API refuses the same secrets.
			if c.says != `"status":"active"` {
				l.do("GET", userTokens, bearer(a.Value), nil, 403, 9109)
			}
		})
	}
	l.now.ahead.Store(0)
	user := l.create(userTokens, as, grant("u", dnsWrite, zone))
	account := l.create(l.admin.accountTokens(), as, grant("a", dnsWrite, zone))
	l.do("GET", l.admin.accountTokens()+"/verify", bearer(user.Value), nil, 401, codeUnknownSecret)
	l.do("GET", userTokens+"/verify", bearer(account.Value), nil, 401, codeUnknownSecret)
	l.do("GET", l.rival.accountTokens()+"/verify", bearer(account.Value), nil, 401, codeUnknownSecret)
	l.do("GET", userTokens+"/verify", bearer(strings.Repeat("x", 40)), nil, 401, codeUnknownSecret)
	l.do("GET", userTokens+"/verify", bearer(l.enforcer), nil, 401, codeUnknownSecret)
	l.do("GET", userTokens+"/verify", as, nil, 401, codeUnknownSecret)
	l.do("GET", userTokens+"/verify", nil, nil, 400, 9106)
}

// TestListPages: clients ask for pages until one is empty.
func TestListPages(t *testing.T) {
	l := newLab(t)
	as := l.admin.header()
	for i := range 12 {
		l.create(userTokens, as, grant(fmt.Sprint("t", i), dnsWrite, zone))
	}
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	l.create(userTokens, as, grant("old", dnsWrite, zone, `"expires_on":"`+soon+`"`))
	l.now.ahead.Store(int64(2 * time.Hour))
	names := func(query string) (string, page) {
		var all []tokenView
		a := l.do("GET", userTokens+"?"+query, as, nil, 200, 0)
		a.into(t, &all)
		var names []string
		for _, v := range all {
			names = append(names, v.Name)
		}
		return strings.Join(names, " "), a.Info
	}
	for query, want := range map[string]struct {
		names string
		info  page
	}{
		"":                                    {"t0 t1 t2 t3 t4 t5 t6 t7 t8 t9 t10 t11", page{1, 20, 12, 12, 1}},
		"page=2":                              {"", page{2, 20, 0, 12, 1}},
		"per_page=5&page=2":                   {"t5 t6 t7 t8 t9", page{2, 5, 5, 12, 3}},
		"per_page=5&page=3":                   {"t10 t11", page{3, 5, 2, 12, 3}},
		"per_page=5&page=4":                   {"", page{4, 5, 0, 12, 3}},
		"per_page=1":                          {"t0 t1 t2 t3 t4", page{1, 5, 5, 12, 3}},
		"per_page=5&direction=desc":           {"t11 t10 t9 t8 t7", page{1, 5, 5, 12, 3}},
		"page=3&per_page=5&direction=desc":    {"t1 t0", page{3, 5, 2, 12, 3}},
		"include_expired=true&direction=desc": {"old t11 t10 t9 t8 t7 t6 t5 t4 t3 t2 t1 t0", page{1, 20, 13, 13, 1}},
		"include_expired=true&page=1073741824&per_page=1000": {"", page{1 << 30, 1000, 0, 13, 1}},
		"per_page=99999": {"t0 t1 t2 t3 t4 t5 t6 t7 t8 t9 t10 t11", page{1, 1000, 12, 12, 1}},
	} {
		if got, info := names(query); got != want.names || info != want.info {
			t.Errorf("%s: got %q %+v, want %q %+v", query, got, info, want.names, want.info)
		}
	}
	for _, bad := range []string{"page=0", "page=-1", "page=x", "page=99999999999999999999", "per_page=0", "per_page=ten", "direction=up", "include_expired=maybe"} {
		l.do("GET", userTokens+"?"+bad, as, nil, 400, 1001)
	}
	var none []tokenView
	a := l.do("GET", userTokens, l.rival.header(), nil, 200, 0)
	if a.into(t, &none); len(none) != 0 || string(a.Result) != "[]" {
		t.Errorf("another's list: %s", a.body)
	}
}

// TestTokenNames: a name or its beginning finds an owner's own tokens, byte by
// byte, in the order of names.
func TestTokenNames(t *testing.T) {
	l := newLab(t)
	soon := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for at, as := range map[string]http.Header{userTokens: l.admin.header(), l.admin.accountTokens(): l.admin.header()} {
		for _, name := range []string{"deploy b", "Deploy", "deploy a", "deploy a", "other", "déploy", "dé", "starts_with:x", "100% _x"} {
			l.create(at, as, grant(name, dnsWrite, zone))
		}
		l.create(at, as, grant("deploy old", dnsWrite, zone, `"expires_on":"`+soon+`"`))
		gone := l.create(at, as, grant("deploy gone", dnsWrite, zone))
		l.do("DELETE", at+"/"+gone.ID, as, nil, 200, 0)
	}
	l.create(userTokens, l.rival.header(), grant("deploy theirs", accountTokensRead, accountType+l.rival.account.String()))
	l.now.ahead.Store(int64(2 * time.Hour))
	for _, at := range []string{userTokens, l.admin.accountTokens()} {
		for query, want := range map[string]struct {
			names string
			info  page
		}{
			"name_prefix=deploy":                           {"deploy a, deploy a, deploy b", page{1, 20, 3, 3, 1}},
			"name=starts_with:deploy":                      {"deploy a, deploy a, deploy b", page{1, 20, 3, 3, 1}},
			"name_prefix=deploy&include_expired=true":      {"deploy a, deploy a, deploy b, deploy old", page{1, 20, 4, 4, 1}},
			"name_prefix=d&direction=desc":                 {"déploy, dé, deploy b, deploy a, deploy a", page{1, 20, 5, 5, 1}},
			"name_prefix=d%C3%A9":                          {"dé, déploy", page{1, 20, 2, 2, 1}},
			"name=deploy%20a":                              {"deploy a, deploy a", page{1, 20, 2, 2, 1}},
			"name=deploy":                                  {"", page{1, 20, 0, 0, 0}},
			"name=equal:starts_with:x":                     {"starts_with:x", page{1, 20, 1, 1, 1}},
			"name=deploy%20a&name_prefix=o":                {"", page{1, 20, 0, 0, 0}},
			"name_prefix=deploy&page=2":                    {"", page{2, 20, 0, 3, 1}},
			"name_prefix=deploy&page=1073741824":           {"", page{1 << 30, 20, 0, 3, 1}},
			"name_prefix=&name=&per_page=5&page=2":         {"déploy, dé, starts_with:x, 100% _x", page{2, 5, 4, 9, 2}},
			"name_prefix=%25":                              {"", page{1, 20, 0, 0, 0}},
			"name_prefix=100%25%20_":                       {"100% _x", page{1, 20, 1, 1, 1}},
			"name_prefix=" + strings.Repeat("%C3%BC", 120): {"", page{1, 20, 0, 0, 0}},
			"name=starts_with:" + strings.Repeat("x", 120): {"", page{1, 20, 0, 0, 0}},
		} {
			var all []tokenView
			a := l.do("GET", at+"?"+query, l.admin.header(), nil, 200, 0)
			a.into(t, &all)
			var names []string
			for _, v := range all {
				names = append(names, v.Name)
			}
			if got := strings.Join(names, ", "); got != want.names || a.Info != want.info {
				t.Errorf("%s: got %q %+v, want %q %+v", query, got, a.Info, want.names, want.info)
			}
		}
		long := strings.Repeat("x", 121)
		for _, bad := range []string{"name=" + long, "name_prefix=" + long, "name=starts_with:" + long, "name_prefix=%FF", "name=starts_with:a&name_prefix=b"} {
			l.do("GET", at+"?"+bad, l.admin.header(), nil, 400, 1001)
		}
	}
	foreign := l.do("GET", l.admin.accountTokens()+"?name_prefix=deploy", l.rival.header(), nil, 404, 1003)
	unknown := l.do("GET", "/client/v4/accounts/"+strings.Repeat("ef", 16)+"/tokens?name_prefix=deploy", l.rival.header(), nil, 404, 1003)
	if string(foreign.body) != string(unknown.body) {
		t.Errorf("a foreign account: %s\nan unknown one: %s", foreign.body, unknown.body)
	}
}

// TestPermissionGroups: one page, and filters that clients encode twice.
func TestPermissionGroups(t *testing.T) {
	l := newLab(t)
	for query, want := range map[string]int{
		"":                 311,
		"?per_page=1000":   311,
		"?name=DNS%20Read": 1, "?name=DNS+Read": 1, "?name=DNS%2520Read": 1, "?name=Account%2520Settings+Write": 1,
		"?name=Logs%20Read": 2, "?name=Logs%20Read&scope=com.cloudflare.api.account.zone": 1,
		"?name=nothing": 0, "?name=%25zz": 0, "?scope=com.cloudflare.edge.r2.bucket": 2,
	} {
		var all []struct {
			ID     string   `json:"id"`
			Name   string   `json:"name"`
			Scopes []string `json:"scopes"`
		}
		l.do("GET", userTokens+"/permission_groups"+query, l.admin.header(), nil, 200, 0).into(t, &all)
		if len(all) != want {
			t.Errorf("%q: %d groups, want %d", query, len(all), want)
		}
		for _, g := range all {
			if len(g.ID) != 32 || g.Name == "" || len(g.Scopes) == 0 {
				t.Errorf("group %+v", g)
			}
		}
	}
}

// TestRollGrace: Watchword's addition to the roll.
func TestRollGrace(t *testing.T) {
	l := newLab(t)
	as := l.admin.header()
	a := l.create(userTokens, as, grant("n", dnsWrite, zone))
	at := userTokens + "/" + a.ID + "/value"
	for _, bad := range []string{`{"grace":"-1h"}`, `{"grace":"soon"}`, `{"grace":-1}`, `{"grace":1e300}`, `{"grace":[]}`, `{"grace":true}`, `{"grace":"9000h"}`, `{"grace":"999999999h"}`} {
		l.do("PUT", at, as, bad, 400, 1001)
	}
	l.do("PUT", at, as, `{"force":"yes"}`, 400, 9207)
	var second, third string
	l.do("PUT", at, as, `{"grace":"24h"}`, 200, 0).into(t, &second)
	l.do("GET", userTokens+"/verify", bearer(a.Value), nil, 200, 0)
	l.do("GET", userTokens+"/verify", bearer(second), nil, 200, 0)
	l.do("PUT", at, as, `{"grace":3600}`, 400, 20009)
	l.do("PUT", at, as, `{"grace":3600.5,"force":true}`, 200, 0).into(t, &third)
	l.do("GET", userTokens+"/verify", bearer(a.Value), nil, 401, codeUnknownSecret)
	l.do("GET", userTokens+"/verify", bearer(second), nil, 200, 0)
	l.now.ahead.Store(int64(2 * time.Hour))
	l.do("GET", userTokens+"/verify", bearer(second), nil, 401, codeUnknownSecret)
	l.do("GET", userTokens+"/verify", bearer(third), nil, 200, 0)
}

// TestLostAnswer: a repeat of a create or a roll whose answer was lost leaves
// one live token with one live secret.
func TestLostAnswer(t *testing.T) {
	l := newLab(t)
	for name, mark := range map[string]func(http.Header, int){
		"idempotency key": func(h http.Header, _ int) { h["Idempotency-Key"] = []string{"job 7"} },
		"retry count":     func(h http.Header, n int) { h["X-Stainless-Retry-Count"] = []string{fmt.Sprint(n)} },
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			as := func(n int) http.Header {
				h := l.admin.header()
				mark(h, n)
				return h
			}
			body := grant(name, dnsWrite, zoneType+"*")
			before := l.count()
			l.asked.lose.Store(true)
			lost := l.do("POST", userTokens, as(0), body, 503, 20016)
			if lost.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			a := l.create(userTokens, as(1), body)
			if n := l.count(); n != before+1 {
				t.Errorf("%d tokens more", n-before)
			}
			l.do("GET", userTokens+"/verify", bearer(a.Value), nil, 200, 0)

			l.asked.lose.Store(true)
			l.do("PUT", userTokens+"/"+a.ID+"/value", as(0), "{}", 503, 20016)
			var secret string
			l.do("PUT", userTokens+"/"+a.ID+"/value", as(1), " { } ", 200, 0).into(t, &secret)
			l.do("GET", userTokens+"/verify", bearer(secret), nil, 200, 0)
			l.do("GET", userTokens+"/verify", bearer(a.Value), nil, 401, codeUnknownSecret)
			// Another's request of the same bytes is another request.
			h := l.rival.header()
			mark(h, 1)
			if b := l.create(userTokens, h, body); b.ID == a.ID {
				t.Error("a stranger was given the token")
			}
		})
	}
	// What declares nothing is a new request.
	body := grant("twice", dnsWrite, zone)
	if a, b := l.create(userTokens, l.admin.header(), body), l.create(userTokens, l.admin.header(), body); a.ID == b.ID {
		t.Error("two requests were taken for one")
	}
	for _, bad := range []string{strings.Repeat("k", 256), "ключ"} {
		h := l.admin.header()
		h["Idempotency-Key"] = []string{bad}
		l.do("POST", userTokens, h, body, 400, 1001)
	}
}

// count returns how many tokens the admin has.
func (l *lab) count() int {
	l.t.Helper()
	return l.do("GET", userTokens, l.admin.header(), nil, 200, 0).Info.TotalCount
}

// TestReadYourWrites: a directory that is held back makes reads wait and never
// wrong.
func TestReadYourWrites(t *testing.T) {
	l := newLab(t)
	as := l.admin.header()
	l.count() // the directory knows the caller
	open := l.hold.close()
	a := l.create(userTokens, as, grant("n", dnsWrite, zone))
	got := make(chan *answer, 1)
	go func() { got <- l.send(l.request("GET", userTokens+"/"+a.ID, as, nil)) }()
	select {
	case early := <-got:
		t.Errorf("answered before the directory had it: %d", early.StatusCode)
	case <-time.After(50 * time.Millisecond):
	}
	open()
	if late := <-got; late.StatusCode != 200 || late.Header.Get("Watchword-Sequence") == "" {
		t.Errorf("got %d %s", late.StatusCode, late.body)
	}
	// A token that was made a moment ago can be used at once, although the
	// directory does not know it yet.
	writer := l.create(userTokens, as, `{"name":"w","policies":[{"effect":"allow","resources":{"`+userType+l.admin.id.String()+`":"*"},"permission_groups":[{"id":"`+l.group("API Tokens Write")+`"}]},{"effect":"allow","resources":{"`+zone+`":"*"},"permission_groups":[{"id":"`+dnsWrite+`"}]}]}`)
	open = l.hold.close()
	second := l.create(userTokens, as, grant("x", dnsWrite, zone))
	go func() {
		got <- l.send(l.request("POST", userTokens+"/"+second.ID+"/disable", bearer(writer.Value), nil))
	}()
	select {
	case known := <-got: // the writer was known already: no wait is right, too
		got <- known
	case <-time.After(50 * time.Millisecond):
	}
	open()
	if used := <-got; used.StatusCode != 200 {
		t.Errorf("the new token disables another: %d %s", used.StatusCode, used.body)
	}

	l.asked.gone.Store(true)
	gone := l.do("GET", userTokens, as, nil, 503, 20015)
	if gone.Header.Get("Retry-After") == "" || gone.Header.Get("X-Should-Retry") != "" {
		t.Errorf("headers %v", gone.Header)
	}
}

// TestVerifyWithoutPen: whoever is known stays known while no pen answers, and
// nobody is called invalid who may only be new.
func TestVerifyWithoutPen(t *testing.T) {
	l := newLab(t)
	as := l.admin.header()
	a := l.create(userTokens, as, grant("n", dnsWrite, zone))
	owned := l.create(l.admin.accountTokens(), as, grant("n", dnsWrite, zone))
	off := l.create(userTokens, as, grant("n", dnsWrite, zone, `"status":"disabled"`))
	away := l.create(userTokens, as, grant("n", dnsWrite, zone, `"condition":{"request_ip":{"in":["192.0.2.1"]}}`))
	gone := l.create(userTokens, as, grant("n", dnsWrite, zone))
	l.do("DELETE", userTokens+"/"+gone.ID, as, nil, 200, 0)
	stranger, err := token.Format{}.Generate(token.KindUser)
	if err != nil {
		t.Fatal(err)
	}
	l.asked.gone.Store(true)
	for _, c := range []struct {
		path, secret string
		status, code int
		has          string
	}{
		{userTokens, a.Value, 200, 0, validAndActive},
		{l.admin.accountTokens(), owned.Value, 200, 0, validAndActive},
		{l.rival.accountTokens(), owned.Value, 401, codeUnknownSecret, ""},
		{userTokens, owned.Value, 401, codeUnknownSecret, ""},
		{userTokens, off.Value, 200, 0, `"status":"disabled"`},
		{userTokens, away.Value, 403, 9109, "127.0.0.1"},
		{userTokens, gone.Value, 401, codeUnknownSecret, ""},
		{userTokens, stranger.Reveal(), 503, 20015, ""},
	} {
		if got := l.do("GET", c.path+"/verify", bearer(c.secret), nil, c.status, c.code); !strings.Contains(string(got.body), c.has) {
			t.Errorf("%s", got.body)
		}
	}
}
