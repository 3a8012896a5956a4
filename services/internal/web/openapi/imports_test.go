package openapi_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const importPath = "/client/v4/import/tokens"

// imports is the body of an import.
func imports(rows ...string) string { return `{"tokens":[` + strings.Join(rows, ",") + `]}` }

// foreign is the row of a token of another system; body is a token as it would
// be created.
func foreign(owner, secret, body string) string {
	return fmt.Sprintf(`{"owner":%q,"secret":"d0:%x",%s`, owner, sha256.Sum256([]byte(secret)), body[1:])
}

// outcome is what became of a row.
type outcome struct {
	Outcome string `json:"outcome"`
	ID      string `json:"id"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Pointer string `json:"pointer"`
}

// brings imports rows as the operator.
func (l *lab) brings(query string, rows ...string) []outcome {
	l.t.Helper()
	var out struct {
		Tokens []outcome `json:"tokens"`
	}
	l.do("POST", importPath+query, l.admin.header(), imports(rows...), 200, 0).into(l.t, &out)
	if len(out.Tokens) != len(rows) {
		l.t.Fatalf("%d rows, %d outcomes", len(rows), len(out.Tokens))
	}
	return out.Tokens
}

func (l *lab) tryImports(try func(method, path, pattern string, as http.Header, body any) *answer) {
	try("POST", importPath, importPath, l.admin.header(), imports(foreign(l.admin.email, "one of elsewhere", grant("n", dnsWrite, zone)), `{}`))
	try("POST", importPath+"?dry_run=true", importPath, l.admin.header(), imports(foreign(l.admin.account.String(), "two of elsewhere",
		`{"name":"n","template":"edit-zone-dns","parameters":{"zone":"*"},"expires_on":"2199-01-01T00:00:00Z","condition":{"request_ip":{"in":["192.0.2.0/24"]}}}`)))
}

// TestImport: a secret of another system verifies, is rolled into one of ours,
// and what has ended does not come back with the next import.
func TestImport(t *testing.T) {
	l := newLab(t)
	const secret, other = "hunter2-of-elsewhere", "another-of-elsewhere"
	mine := typeZone + "." + l.zoneOf(l.rival)
	row := foreign(l.rival.email, secret, grant("legacy", dnsWrite, mine, `"condition":{"request_ip":{"in":["192.0.2.0/24"]}}`))
	owned := foreign(l.rival.account.String(), other, grant("of the account", dnsWrite, mine))
	for _, o := range l.brings("?dry_run=true", row, owned) {
		if o.Outcome != "created" {
			t.Errorf("a dry run: %+v", o)
		}
	}
	allowed := func(secret, want, reason string) {
		t.Helper()
		a := l.ask(bearer(l.enforcer), question(secret, permissionDNS, accountKey+l.rival.account.String(), mine))
		var d decision
		if err := jsonInto(a.body, &d); err != nil || d.Decision != want || d.Reason != reason {
			t.Errorf("%v: %s, want %s %s", err, a.body, want, reason)
		}
	}
	allowed(secret, "deny", "malformed")
	before := l.ledger.Head()
	made := l.brings("", row, owned)
	if made[0].Outcome != "created" || made[1].Outcome != "created" || l.ledger.Head() == before {
		t.Fatalf("%+v", made)
	}
	allowed(secret, "allow", "")
	allowed(other, "allow", "")
	allowed(secret+"x", "deny", "unknown")
	before = l.ledger.Head()
	for i, o := range l.brings("", row, owned) {
		if o.Outcome != "unchanged" || o.ID != made[i].ID {
			t.Errorf("again: %+v, want %s", o, made[i].ID)
		}
	}
	if o := l.brings("", foreign(l.rival.email, secret, grant("renamed", dnsWrite, mine)))[0]; o.Outcome != "conflict" || o.ID != made[0].ID {
		t.Errorf("another name: %+v", o)
	}
	if l.ledger.Head() != before {
		t.Error("an import that changed nothing is in the ledger")
	}
	var fresh string
	l.do("PUT", userTokens+"/"+made[0].ID+"/value", l.rival.header(), nil, 200, 0).into(t, &fresh)
	allowed(secret, "deny", "revoked")
	allowed(fresh, "allow", "")
	l.do("DELETE", l.rival.accountTokens()+"/"+made[1].ID, l.rival.header(), nil, 200, 0)
	allowed(other, "deny", "revoked")
	again := l.brings("", row, owned)
	if again[0].Outcome != "unchanged" || again[1].Outcome != "refused" || again[1].Reason != "token_revoked" {
		t.Errorf("after a roll and a revocation: %+v", again)
	}
	allowed(secret, "deny", "revoked")
	allowed(other, "deny", "revoked")
}

// TestImportRefusals: a row is refused alone, without a word of what stands in
// it.
func TestImportRefusals(t *testing.T) {
	l := newLab(t)
	mine := typeZone + "." + l.zoneOf(l.rival)
	good := grant("n", dnsWrite, mine)
	us := l.rival.email
	cases := []struct{ row, outcome, reason, pointer string }{
		{foreign(us, "first of elsewhere", good), "created", "", ""},
		{foreign(us, "first of elsewhere", grant("m", dnsWrite, mine)), "conflict", "conflict", ""},
		{`{"owner":"` + us + `","secret":"hunter2-hunter2",` + good[1:], "refused", "invalid_field", "/secret"},
		{`{"owner":"` + us + `","secret":"d0:hunter2",` + good[1:], "refused", "invalid_field", "/secret"},
		{`{"owner":"` + us + `","secret":"d0:` + strings.Repeat("hunter2x", 8) + `",` + good[1:], "refused", "invalid_field", "/secret"},
		{`{"owner":"` + us + `","secret":7,` + good[1:], "refused", "invalid_json", "/secret"},
		{`"hunter2"`, "refused", "invalid_json", ""},
		{foreign("nobody@example.com", "a of elsewhere", good), "refused", "user_not_found", "/owner"},
		{foreign("00000000000000000000000000000001", "b of elsewhere", good), "refused", "user_not_found", "/owner"},
		{foreign("hunter2", "c of elsewhere", good), "refused", "invalid_field", "/owner"},
		{foreign(us, "d of elsewhere", grant("n", dnsWrite, zone)), "refused", "group_not_held", "/policies/0/permission_groups/0"},
		{foreign(l.admin.account.String(), "e of elsewhere", good), "refused", "group_not_held", "/policies/0/permission_groups/0"},
		{foreign(us, "f of elsewhere", grant("n", "00000000000000000000000000000001", mine)), "refused", "unknown_permission_group", "/policies/0/permission_groups/0/id"},
		{foreign(us, "g of elsewhere", grant("", dnsWrite, mine)), "refused", "invalid_name", "/name"},
		{foreign(us, "h of elsewhere", grant(strings.Repeat("n", 10_000), dnsWrite, mine)), "refused", "invalid_name", "/name"},
		{foreign(us, "i of elsewhere", grant("a\u202eb", dnsWrite, mine)), "refused", "invalid_text", "/name"},
		{foreign(us, "j of elsewhere", grant("n", dnsWrite, mine, `"expires_on":"2020-01-01T00:00:00Z"`)), "refused", "token_expired", "/expires_on"},
		{foreign(us, "k of elsewhere", grant("n", dnsWrite, mine, `"status":"expired"`)), "refused", "invalid_status", "/status"},
		{foreign(us, "l of elsewhere", `{"template":"no-such"}`), "refused", "invalid_field", "/template"},
		{foreign(us, "m of elsewhere", `{"template":"edit-zone-dns"}`), "refused", "invalid_field", "/parameters/zone"},
		{foreign(us, "n of elsewhere", grant("n", dnsWrite, mine, `"widens":true`)), "refused", "invalid_field", ""},
	}
	rows := make([]string, len(cases))
	for i, c := range cases[1:] {
		rows[i+1] = c.row
	}
	l.brings("", cases[0].row)
	rows[0] = foreign(us, "last of elsewhere", good)
	for i, o := range l.brings("", rows...) {
		c := cases[i]
		if o.Outcome != c.outcome || o.Reason != c.reason || o.Pointer != c.pointer {
			t.Errorf("%s:\n%+v, want %s %s at %s", c.row, o, c.outcome, c.reason, c.pointer)
		}
		if strings.Contains(o.Message, "hunter") {
			t.Errorf("%s: quoted: %s", c.row, o.Message)
		}
	}
	for body, code := range map[string]int{`{"tokens":[]}`: 1001, `{}`: 1001, imports(strings.Split(strings.Repeat("{} ", 1001), " ")[:1001]...): 20006} {
		a := l.unmoved("bounds", func() *answer { return l.send(l.request("POST", importPath, l.admin.header(), body)) })
		if a.StatusCode != 400 || a.code() != code {
			t.Errorf("%.40s: %d %s", body, a.StatusCode, a.body)
		}
	}
}

// TestImportOutage: while no pen answers, rows fail and can be sent again.
func TestImportOutage(t *testing.T) {
	l := newLab(t)
	l.asked.lose.Store(true)
	row := foreign(l.admin.email, "of elsewhere", grant("n", dnsWrite, zone))
	if o := l.brings("", row)[0]; o.Outcome != "failed" || o.Reason != "outcome_unknown" {
		t.Errorf("the answer was lost: %+v", o)
	}
	if o := l.brings("", row)[0]; o.Outcome != "unchanged" {
		t.Errorf("again: %+v", o)
	}
	l.now.ahead.Store(int64(time.Hour))
	if o := l.brings("", row)[0]; o.Outcome != "unchanged" {
		t.Errorf("an hour later: %+v", o)
	}
}
