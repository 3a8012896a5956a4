package openapi_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
)

// stretchView is the answer of a preview or an application of a policy.
type stretchView struct {
	Tokens    int    `json:"tokens"`
	TokensMax int    `json:"tokens_max"`
	Over      int    `json:"over"`
	Examined  int    `json:"examined"`
	Next      string `json:"next"`
	Changes   []struct {
		ID           string   `json:"id"`
		Name         string   `json:"name"`
		Breaches     []string `json:"breaches"`
		Action       string   `json:"action"`
		ExpiresOn    string   `json:"expires_on"`
		NewExpiresOn string   `json:"new_expires_on"`
	} `json:"changes"`
}

// walk asks one verb for all of an account's tokens, two at a time, and returns
// what is to be, or was, changed: "name: action".
func (l *lab) walk(p person, verb, policy string) (all []string) {
	l.t.Helper()
	at := accountsPath + "/" + p.account.String() + "/token_policy/" + verb
	for after := ""; ; {
		body := `{"limit":2` + policy + after + `}`
		var v stretchView
		l.do("POST", at, p.header(), body, 200, 0).into(l.t, &v)
		for _, c := range v.Changes {
			all = append(all, fmt.Sprintf("%s: %s %v", c.Name, c.Action, c.Breaches))
			if (c.Action == "expire") != (c.NewExpiresOn != "") {
				l.t.Errorf("%+v", c)
			}
		}
		if v.Next == "" {
			return all
		}
		after = `,"after":"` + v.Next + `"`
	}
}

// TestTokenPolicyIsApplied makes tokens, then a policy, looks at what it means
// and applies it: in one go, again, and after a change of the policy meanwhile.
func TestTokenPolicyIsApplied(t *testing.T) {
	l := newLab(t)
	p := l.admin
	as, at := p.header(), accountsPath+"/"+p.account.String()+"/token_policy"
	far := time.Now().AddDate(1, 0, 0).UTC().Format(time.RFC3339)
	near := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	here := `"condition":{"request_ip":{"in":["192.0.2.0/24"]}}`
	for name, rest := range map[string][]string{"far": {here, `"expires_on":"` + far + `"`}, "near": {here, `"expires_on":"` + near + `"`}, "endless": {here}, "open": {`"expires_on":"` + near + `"`}, "off": {`"status":"disabled"`}} {
		l.create(p.accountTokens(), as, grant(name, dnsWrite, zone, rest...))
	}
	mine := l.create(userTokens, as, grant("mine", dnsWrite, zone))
	const policy = `{"lifetime_seconds_max":86400,"address_required":true}`
	same := func(what string, got []string, want ...string) {
		t.Helper()
		seen := map[string]bool{}
		for _, g := range got {
			seen[g] = true
		}
		if len(got) != len(want) {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
		for _, w := range want {
			if !seen[w] {
				t.Errorf("%s: got %q, want %q among it", what, got, w)
			}
		}
	}
	wanted := []string{"far: expire [lifetime_too_long]", "endless: expire [expiry_required]", "open: disable [address_required]"}
	same("a preview before the policy", l.walk(p, "preview", `,"policy":`+policy), wanted...)
	same("a preview of no policy", l.walk(p, "preview", ""))
	l.do("POST", at+"/apply", as, `{"policy":`+policy+`}`, 400, 20011)
	l.do("PUT", at, as, policy, 200, 0)
	same("a preview of the policy", l.walk(p, "preview", ""), wanted...)
	same("the application", l.walk(p, "apply", `,"policy":`+policy), wanted...)
	same("the application again", l.walk(p, "apply", ""))
	same("a preview afterwards", l.walk(p, "preview", ""))

	var all []tokenView
	l.do("GET", p.accountTokens(), as, nil, 200, 0).into(t, &all)
	for _, v := range all {
		end, err := time.Parse(time.RFC3339, v.ExpiresOn)
		switch v.Name {
		case "far", "endless":
			if err != nil || v.Status != "active" || end.After(time.Now().AddDate(0, 0, 1)) || end.Before(time.Now().Add(23*time.Hour)) {
				t.Errorf("%s is %s until %s", v.Name, v.Status, v.ExpiresOn)
			}
		case "near":
			if v.Status != "active" || v.ExpiresOn != near {
				t.Errorf("near is %s until %s, was until %s", v.Status, v.ExpiresOn, near)
			}
		default:
			if v.Status != "disabled" {
				t.Errorf("%s is %s", v.Name, v.Status)
			}
			l.do("POST", p.accountTokens()+"/"+v.ID+"/enable", as, nil, 400, faultNumber(t, map[string]fault.Code{"open": fault.AddressRequired, "off": fault.ExpiryRequired}[v.Name]))
		}
	}
	var own tokenView
	l.do("GET", userTokens+"/"+mine.ID, as, nil, 200, 0).into(t, &own)
	if own.Status != "active" || own.ExpiresOn != "" {
		t.Errorf("the user's token is %s until %q", own.Status, own.ExpiresOn)
	}
}

func faultNumber(t *testing.T, code fault.Code) int {
	t.Helper()
	for _, e := range fault.All() {
		if e.Code == code {
			return e.Number
		}
	}
	t.Fatalf("no fault %q", code)
	return 0
}

// TestQuota uses up what an account may have, and what lies beyond.
func TestQuota(t *testing.T) {
	l := newLab(t)
	p := l.rival
	as, at := p.header(), accountsPath+"/"+p.account.String()+"/token_policy"
	body := grant("t", dnsWrite, typeZone+"."+l.zoneOf(p))
	first := l.create(p.accountTokens(), as, body)
	l.create(p.accountTokens(), as, body)
	l.do("PUT", at, as, `{"tokens_max":2}`, 200, 0)
	l.do("POST", p.accountTokens(), as, body, 400, 20010)
	if dry := l.do("POST", p.accountTokens()+"?dry_run=true", as, body, 200, 0); !strings.Contains(string(dry.Result), "at most 2") {
		t.Errorf("a dry run says %s", dry.Result)
	}
	l.create(userTokens, as, body) // another owner
	l.do("DELETE", p.accountTokens()+"/"+first.ID, as, nil, 200, 0)
	l.create(p.accountTokens(), as, body)
	l.do("POST", p.accountTokens(), as, body, 400, 20010)

	l.do("PUT", at, as, `{"tokens_max":1}`, 200, 0)
	var v stretchView
	l.do("POST", at+"/preview", as, nil, 200, 0).into(t, &v)
	if v.Tokens != 2 || v.TokensMax != 1 || v.Over != 1 || v.Examined != 2 || len(v.Changes) != 0 {
		t.Errorf("over the bound the preview says %+v", v)
	}
}

// TestStretchAsksOnlyTheMighty: a member who may not change the policy may not
// look at what it would mean, and of the accounts of others one learns nothing.
func TestStretchAsksOnlyTheMighty(t *testing.T) {
	l := newLab(t)
	reader := l.join("reader@example.com", `"roles":["Administrator Read Only"]`)
	for _, verb := range []string{"preview", "apply"} {
		at := accountsPath + "/" + l.rival.account.String() + "/token_policy/" + verb
		l.do("POST", at, reader, nil, 403, 9109)
		l.do("POST", at, l.rival.header(), `{"limit":0}`, 400, 1001)
		l.do("POST", at, l.rival.header(), `{"limit":1001}`, 400, 1001)
		l.do("POST", at, l.rival.header(), `{"after":"x"}`, 400, 1001)
		l.do("POST", at, l.rival.header(), `{"policy":{"tokens_max":-1}}`, 400, 1001)
		foreign := l.do("POST", accountsPath+"/"+l.admin.account.String()+"/token_policy/"+verb, l.rival.header(), nil, 404, 1003)
		unknown := l.do("POST", accountsPath+"/00000000000000000000000000000001/token_policy/"+verb, l.rival.header(), nil, 404, 1003)
		if string(foreign.body) != string(unknown.body) {
			t.Errorf("%s: foreign %s, unknown %s", verb, foreign.body, unknown.body)
		}
	}
}

// TestStretchHidesNames: who may change the policy and not read the tokens
// learns which of them break it, and not what they are called.
func TestStretchHidesNames(t *testing.T) {
	l := newLab(t)
	p := l.admin
	settingsWrite := "1af1fa2adc104452b74a9a3364202f20"
	keeper := l.create(p.accountTokens(), p.header(), grant("keeper", settingsWrite, accountKey+p.account.String()))
	at := accountsPath + "/" + p.account.String() + "/token_policy/preview"
	var v stretchView
	l.do("POST", at, bearer(keeper.Value), `{"policy":{"expiry_required":true}}`, 200, 0).into(t, &v)
	if len(v.Changes) != 1 || v.Changes[0].ID != keeper.ID || v.Changes[0].Name != "" {
		t.Errorf("got %+v", v.Changes)
	}
}

// TestApplicationGoesOn loses the answer of the first of four changes: the
// request fails, and another one does what is left, each token once.
func TestApplicationGoesOn(t *testing.T) {
	l := newLab(t)
	p := l.admin
	as, at := p.header(), accountsPath+"/"+p.account.String()+"/token_policy"
	for i := range 4 {
		l.create(p.accountTokens(), as, grant(fmt.Sprint("t", i), dnsWrite, zone))
	}
	l.do("PUT", at, as, `{"expiry_required":true}`, 200, 0)
	l.asked.lose.Store(true)
	l.do("POST", at+"/apply", as, nil, 503, 20016)
	if got := l.walk(p, "apply", ""); len(got) != 3 {
		t.Errorf("the second request changed %q", got)
	}
	if got := l.walk(p, "preview", ""); len(got) != 0 {
		t.Errorf("left are %q", got)
	}
	commits, err := l.ledger.Commits()
	if err != nil {
		t.Fatal(err)
	}
	times := map[token.ID]int{}
	for _, c := range commits {
		for _, r := range c.Records {
			if e, ok := r.Data.(*events.TokenUpdated); ok {
				times[r.SubjectID()]++
				if !strings.Contains(e.Reason, p.account.String()) {
					t.Errorf("the reason is %q", e.Reason)
				}
			}
		}
	}
	if len(times) != 4 {
		t.Errorf("tokens were changed so many times: %v", times)
	}
	for id, n := range times {
		if n != 1 {
			t.Errorf("token %v was changed %d times", id, n)
		}
	}
}
