package openapi_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// lastUsed reads a token of the administrator, and checks that the list says the
// same of it.
func (l *lab) lastUsed(id string) string {
	l.t.Helper()
	l.teller.Send(l.t.Context())
	type seen struct {
		ID         string `json:"id"`
		LastUsedOn string `json:"last_used_on"`
	}
	var one seen
	var all []seen
	l.do("GET", userTokens+"/"+id, l.admin.header(), nil, 200, 0).into(l.t, &one)
	l.do("GET", userTokens+"?per_page=1000", l.admin.header(), nil, 200, 0).into(l.t, &all)
	if !slices.Contains(all, one) {
		l.t.Errorf("the list says %+v, the token %+v", all, one)
	}
	return one.LastUsedOn
}

func TestLastUsed(t *testing.T) {
	l := newLab(t)
	as, account := l.admin.header(), accountType+l.admin.account.String()
	for name, c := range map[string]struct {
		more string
		use  func(secret, id string)
		used bool
	}{
		"never": {use: func(string, string) {}},
		"verified": {use: func(secret, _ string) {
			l.ask(bearer(l.enforcer), question(secret, permissionDNS, account, zone))
		}, used: true},
		"refused what it may not": {use: func(secret, _ string) {
			l.ask(bearer(l.enforcer), question(secret, "zone.read", account, zone))
		}, used: true},
		"in a batch": {use: func(secret, _ string) {
			l.ask(bearer(l.enforcer), "["+question(secret, permissionDNS, account, zone)+"]")
		}, used: true},
		"from a wrong address": {more: `"condition":{"request_ip":{"in":["203.0.113.0/24"]}}`, use: func(secret, _ string) {
			l.ask(bearer(l.enforcer), question(secret, permissionDNS, account, zone))
			l.do("GET", userTokens, bearer(secret), nil, 403, 9109)
		}},
		"disabled": {more: `"status":"disabled"`, use: func(secret, _ string) {
			l.ask(bearer(l.enforcer), question(secret, permissionDNS, account, zone))
			l.do("GET", userTokens+"/verify", bearer(secret), nil, 200, 0)
		}},
		"introspected":                   {use: func(secret, _ string) { l.introspect(bearer(l.enforcer), "token="+secret) }, used: true},
		"shown to the management API":    {use: func(secret, _ string) { l.do("GET", userTokens, bearer(secret), nil, 403, 9109) }, used: true},
		"verified by the management API": {use: func(secret, _ string) { l.do("GET", userTokens+"/verify", bearer(secret), nil, 200, 0) }, used: true},
		"a typo": {use: func(secret, _ string) {
			l.ask(bearer(l.enforcer), question(secret[:40]+"x"+secret[41:], permissionDNS, account, zone))
		}},
		"rolled: the old secret":          {use: l.rollAnd(account, false)},
		"rolled: the new secret":          {use: l.rollAnd(account, true), used: true},
		"its own name is no use of it":    {use: func(_, id string) { l.do("GET", userTokens+"/"+id, as, nil, 200, 0) }},
		"nor is one who asks without key": {use: func(secret, _ string) { l.ask(nil, question(secret, permissionDNS, account, zone)) }},
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			var more []string
			if c.more != "" {
				more = []string{c.more}
			}
			made := l.create(userTokens, as, grant("t", dnsWrite, zone, more...))
			if got := l.lastUsed(made.ID); got != "" {
				t.Errorf("it was used before it was used: %s", got)
			}
			seq := l.dir.Applied()
			before := time.Now().Add(-time.Second)
			c.use(made.Value, made.ID)
			got := l.lastUsed(made.ID)
			at, err := time.Parse(time.RFC3339, got)
			if c.used != (got != "") || c.used && (err != nil || at.Before(before.Add(-time.Second)) || at.After(time.Now().Add(time.Second))) {
				t.Errorf("last used %q (%v)", got, err)
			}
			if !strings.HasPrefix(name, "rolled") && l.dir.Applied() != seq {
				t.Error("a use has written to the ledger")
			}
		})
	}
}

// rollAnd rolls a token and shows one of its secrets to an enforcer.
func (l *lab) rollAnd(account string, fresh bool) func(secret, id string) {
	return func(secret, id string) {
		var next string
		l.do("PUT", userTokens+"/"+id+"/value", l.admin.header(), "{}", 200, 0).into(l.t, &next)
		if fresh {
			secret = next
		}
		l.ask(bearer(l.enforcer), question(secret, permissionDNS, account, zone))
	}
}

// legacy is what the report says of one key.
type legacy struct {
	Email      string `json:"email"`
	LastUsedOn string `json:"last_used_on"`
	Allowed    int    `json:"allowed"`
	Refused    int    `json:"refused"`
	Rejected   int    `json:"rejected"`
	Used       []struct {
		Permission string `json:"permission"`
		Resource   string `json:"resource"`
		AccountID  string `json:"account_id"`
		Count      int    `json:"count"`
	} `json:"used"`
	Warnings []string `json:"warnings"`
	Proposal *struct {
		Name      string   `json:"name"`
		Policies  []any    `json:"policies"`
		Summary   []string `json:"summary"`
		Uncovered []string `json:"uncovered"`
	} `json:"proposal"`
}

// legacyOf returns what a report says of a person's key, and the answer.
func (l *lab) legacyOf(path string, as http.Header, p person) (k legacy, found bool) {
	l.t.Helper()
	l.teller.Send(l.t.Context())
	var all []legacy
	l.do("GET", path, as, nil, 200, 0).into(l.t, &all)
	for _, k := range all {
		if k.Email == p.email {
			return k, true
		}
	}
	return legacy{}, false
}

// TestLegacyReport replaces an API key by the token that the report proposes.
func TestLegacyReport(t *testing.T) {
	l := newLab(t)
	r := l.rival
	account, in := accountType+r.account.String(), accountsPath+"/"+r.account.String()+"/legacy/report"
	mine := zoneType + l.zoneOf(r)
	verify := func(secret, permission string, chain ...string) string {
		t.Helper()
		var d decision
		if a := l.ask(bearer(l.enforcer), question(secret, permission, chain...)); jsonInto(a.body, &d) != nil {
			t.Fatalf("%s", a.body)
		}
		return d.Decision
	}
	k, ok := l.legacyOf("/client/v4/legacy/report", l.admin.header(), r)
	if !ok || k.LastUsedOn != "" || k.Proposal != nil || len(k.Used) != 0 || !slices.Contains(k.Warnings, "it was never used, as far as reports go back (90 days at most)") {
		t.Fatalf("an unused key: %+v", k)
	}
	for _, permission := range []string{"dns.records.read", "dns.records.write", "dns.records.write"} {
		if d := verify(r.key, permission, account, mine); d != "allow" {
			t.Fatalf("%s by the key: %s", permission, d)
		}
	}
	verify(r.key, "zone.read", accountType+l.admin.account.String(), zoneType+l.zone) // it is another's
	// Afterwards the second one has used the key, too.
	for _, path := range []string{"/client/v4/legacy/report?days=2", in} {
		as := l.admin.header()
		if path == in {
			as = r.header()
		}
		k, ok = l.legacyOf(path, as, r)
		if !ok || len(k.Used) != 2 || k.Used[0].Permission != "dns.records.read" || k.Used[0].Count != 1 || k.Used[1].Count != 2 ||
			k.Used[1].Resource != mine || k.Used[1].AccountID != r.account.String() || k.LastUsedOn == "" || k.Proposal == nil || len(k.Proposal.Uncovered) != 0 {
			t.Fatalf("%s: %+v", path, k)
		}
		if want := []string{"May edit DNS of zone z.example."}; !slices.Equal(k.Proposal.Summary, want) {
			t.Errorf("%s: the proposal may %q, want %q", path, k.Proposal.Summary, want)
		}
	}
	if _, ok := l.legacyOf(in, r.header(), l.admin); ok {
		t.Error("the report on an account names one who is no member of it")
	}

	made := l.create(userTokens, r.header(), map[string]any{"name": k.Proposal.Name, "policies": k.Proposal.Policies})
	for permission, want := range map[string]string{"dns.records.read": "allow", "dns.records.write": "allow", "zone.read": "deny"} {
		if d := verify(made.Value, permission, account, mine); d != want {
			t.Errorf("%s by the token: %s, want %s", permission, d, want)
		}
	}
	if d := verify(made.Value, "dns.records.read", account, zoneType+l.zoneOf(r)); d != "deny" {
		t.Errorf("the token reaches another zone: %s", d)
	}
	// To make it, the key was used for something more.
	if k, _ = l.legacyOf("/client/v4/legacy/report", l.admin.header(), r); !slices.ContainsFunc(k.Proposal.Summary, func(s string) bool { return strings.Contains(s, "API Tokens") }) {
		t.Errorf("the proposal leaves out making tokens: %q", k.Proposal.Summary)
	}
	l.do("GET", "/client/v4/legacy/report?days=91", l.admin.header(), nil, 400, 1001)
	l.do("GET", "/client/v4/legacy/report?days=x", l.admin.header(), nil, 400, 1001)
}

// TestLegacyList: whoever lists zones by their key needs a token for the zones
// of the account, and names none that is not there.
func TestLegacyList(t *testing.T) {
	l := newLab(t)
	r := l.rival
	for range 2 {
		l.do("GET", zonesPath, r.header(), nil, 200, 0)
	}
	k, ok := l.legacyOf("/client/v4/legacy/report", l.admin.header(), r)
	if !ok || len(k.Used) != 1 || k.Used[0].Permission != "zone.read" || k.Used[0].Resource != "" || k.Used[0].Count != 2 ||
		k.Used[0].AccountID != r.account.String() || k.Proposal == nil {
		t.Fatalf("%+v", k)
	}
	mine := l.zoneOf(r)
	made := l.create(userTokens, r.header(), map[string]any{"name": k.Proposal.Name, "policies": k.Proposal.Policies})
	var zones []thing
	if l.do("GET", zonesPath, bearer(made.Value), nil, 200, 0).into(t, &zones); !slices.ContainsFunc(zones, func(z thing) bool { return z.ID == mine }) {
		t.Errorf("the proposed token lists %+v", zones)
	}
}

const codeKeysEnded = 20044

// TestSunset lets API keys end in an account.
func TestSunset(t *testing.T) {
	l := newLab(t)
	r := l.rival
	policy := accountsPath + "/" + r.account.String() + "/token_policy"
	end := func(at string) { l.do("PUT", policy, l.admin.header(), `{"keys_end":"`+at+`"}`, 200, 0) }
	sunset := func(a *answer) string { return a.Header.Get("Sunset") }

	if a := l.do("GET", userTokens, r.header(), nil, 200, 0); sunset(a) != "" || a.Header.Get("Deprecation") != "" {
		t.Errorf("keys that do not end are said to: %v", a.Header)
	}
	token := l.create(userTokens, r.header(), grant("t", l.group("API Tokens Write"), "com.cloudflare.api.user."+r.id.String()))
	ahead := time.Now().Add(48 * time.Hour).UTC()
	end(ahead.Format(time.RFC3339))
	for _, path := range []string{userTokens, policy} {
		a := l.do("GET", path, r.header(), nil, 200, 0)
		if got, want := sunset(a), ahead.Format(http.TimeFormat); got != want || !strings.HasPrefix(a.Header.Get("Deprecation"), "@") {
			t.Errorf("%s: Sunset %q, want %q; Deprecation %q", path, got, want, a.Header.Get("Deprecation"))
		}
	}
	if a := l.do("GET", userTokens, bearer(token.Value), nil, 200, 0); sunset(a) != "" {
		t.Error("a token is said to end")
	}
	if k, _ := l.legacyOf("/client/v4/legacy/report", l.admin.header(), r); !slices.ContainsFunc(k.Warnings, func(s string) bool { return strings.Contains(s, "API keys end in account "+r.account.String()) }) {
		t.Errorf("the report does not warn: %q", k.Warnings)
	}

	end("2020-01-01T00:00:00Z")
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"GET", userTokens, nil}, {"GET", "/client/v4/user", nil}, {"GET", policy, nil}, {"GET", accountsPath, nil},
		{"POST", userTokens, grant("n", dnsWrite, zoneType+l.zone)}, {"PUT", "/client/v4/user/api_key", "{}"},
	} {
		if a := l.do(c.method, c.path, r.header(), c.body, 403, codeKeysEnded); sunset(a) != "Wed, 01 Jan 2020 00:00:00 GMT" {
			t.Errorf("%s %s: Sunset %q", c.method, c.path, sunset(a))
		}
	}
	l.do("POST", usersPath+"/"+r.id.String()+"/api_key", l.admin.header(), nil, 403, codeKeysEnded)
	l.do("GET", userTokens, bearer(token.Value), nil, 200, 0)
	wrong := r.header()
	wrong["X-Auth-Email"] = []string{l.admin.email}
	l.do("GET", userTokens, wrong, nil, 403, 9103) // who has half of it is told nothing
	var d decision
	if a := l.ask(bearer(l.enforcer), question(r.key, "account.settings.read", accountType+r.account.String())); jsonInto(a.body, &d) != nil || d.Reason != "expired" {
		t.Errorf("a verifier says %s", a.body)
	}

	// An operator manages on, in an account of theirs too.
	l.do("PUT", accountsPath+"/"+l.admin.account.String()+"/token_policy", l.admin.header(), `{"keys_end":"2020-01-01T00:00:00Z"}`, 200, 0)
	l.create(l.admin.accountTokens(), l.admin.header(), grant("t", dnsWrite, zoneType+l.zone))
	if k, _ := l.legacyOf("/client/v4/legacy/report", l.admin.header(), r); k.Rejected != 7 {
		t.Errorf("%d uses after the end are counted: %+v", k.Rejected, k)
	}

	// In one of two accounts.
	var second thing
	l.do("POST", accountsPath, l.admin.header(), `{"name":"Second Ltd"}`, 200, 0).into(t, &second)
	l.do("POST", accountsPath+"/"+second.ID+"/members", l.admin.header(), `{"email":"`+r.email+`","roles":["Super Administrator"]}`, 200, 0)
	l.do("GET", policy, r.header(), nil, 403, codeKeysEnded)
	l.do("GET", userTokens, r.header(), nil, 200, 0)
	var seen []thing
	if l.do("GET", accountsPath, r.header(), nil, 200, 0).into(t, &seen); len(seen) != 1 || seen[0].ID == r.account.String() {
		t.Errorf("accounts %+v", seen)
	}
}
