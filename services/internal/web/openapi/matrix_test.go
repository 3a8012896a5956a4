package openapi_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"watchword.dev/services/internal/web"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// idHoles are the ids in a pattern; a type is no id.
var idHoles = regexp.MustCompile(`\{(account_id|member_id|user_id|token_id|zone|id)\}`)

const matrixFile = "testdata/matrix.txt"

// cast are the principals of the matrix. The administrator is the rival, whose
// tokens the two tokens are; the reader is a member of their account.
var cast = []struct {
	name string
	of   func(*lab) http.Header
}{
	{"operator", func(l *lab) http.Header { return l.admin.header() }},
	{"administrator", func(l *lab) http.Header { return l.rival.header() }},
	{"reader", func(l *lab) http.Header { return l.join("reader@example.com", `"roles":["Administrator Read Only"]`) }},
	{"stranger", func(l *lab) http.Header { return l.join("stranger@example.com", "") }},
	{"user token", func(l *lab) http.Header {
		return bearer(l.create(userTokens, l.rival.header(), grant("t", dnsWrite, typeZone+"."+l.zoneOf(l.rival))).Value)
	}},
	{"account token", func(l *lab) http.Header {
		return bearer(l.create(l.rival.accountTokens(), l.rival.header(), grant("t", dnsWrite, typeZone+"."+l.zoneOf(l.rival))).Value)
	}},
	{"nobody", func(*lab) http.Header { return nil }},
}

// join makes a user with a key and, with roles, a member of the rival's account.
func (l *lab) join(email, roles string) http.Header {
	l.t.Helper()
	as := l.admin.header()
	var u, k thing
	l.do("POST", usersPath, as, `{"email":"`+email+`"}`, 200, 0).into(l.t, &u)
	l.do("POST", usersPath+"/"+u.ID+"/api_key", as, nil, 200, 0).into(l.t, &k)
	if roles != "" {
		l.do("POST", accountsPath+"/"+l.rival.account.String()+"/members", as, `{"email":"`+email+`",`+roles+`}`, 200, 0)
	}
	return http.Header{"X-Auth-Email": {email}, "X-Auth-Key": {k.APIKey}}
}

func (l *lab) zoneOf(p person) string {
	l.t.Helper()
	var z thing
	l.do("POST", zonesPath, l.admin.header(), `{"name":"z.example","account":{"id":"`+p.account.String()+`"}}`, 200, 0).into(l.t, &z)
	return z.ID
}

// about fills a route with fresh things of a person; n tells them apart.
func (l *lab) about(r web.Route, p person, n int) string {
	l.t.Helper()
	path := r.Pattern
	put := func(place string, make func() string) {
		if strings.Contains(path, place) {
			path = strings.ReplaceAll(path, place, make())
		}
	}
	email := fmt.Sprintf("fresh-%d@example.com", n)
	put("{user_id}", func() string { return p.id.String() })
	put("{member_id}", func() string {
		l.join(email, "")
		var m thing
		l.do("POST", accountsPath+"/"+p.account.String()+"/members", l.admin.header(), `{"email":"`+email+`","roles":["Administrator Read Only"]}`, 200, 0).into(l.t, &m)
		return m.ID
	})
	put("{token_id}", func() string {
		at := userTokens
		if strings.Contains(r.Pattern, "{account_id}") {
			at = p.accountTokens()
		}
		return l.create(at, p.header(), grant("t", dnsWrite, typeZone+"."+l.zoneOf(p))).ID
	})
	put("{zone}", func() string { return l.zoneOf(p) })
	put("{id}", func() string { return l.zoneOf(p) })
	put("{type}", func() string { return typeZone })
	put("{account_id}", func() string { return p.account.String() })
	if r.Pattern == incidentPath+"/receipts" {
		path += "?sequence=1&by=account&selected=" + p.account.String()
	}
	return path
}

// wish is a good body for a route.
func (l *lab) wish(r web.Route, p person, n int) string {
	last := r.Pattern[strings.LastIndexByte(r.Pattern, '/')+1:]
	switch {
	case r.Method == "GET" || r.Method == "DELETE":
		return ""
	case r.Pattern == importPath:
		return imports(foreign(p.email, fmt.Sprint("of elsewhere ", n), grant("n", dnsWrite, typeZone+"."+l.zoneOf(p))))
	case r.Pattern == importDirectoryPath:
		return entries(fmt.Sprintf(`{"kind":"resource","type":%q,"id":"n%d","name":"n","account":%q}`, typeZone, n, p.account))
	case strings.HasPrefix(r.Pattern, incidentPath):
		return `{"account":"` + p.account.String() + `","through":1,"confirm":true}` // nobody had made one by then
	case last == "zones":
		return `{"name":"n","account":{"id":"` + p.account.String() + `"}}`
	case last == "resources":
		return `{"name":"n","type":"` + typeZone + `","parent":"` + accountKey + p.account.String() + `"}`
	case last == "users":
		return fmt.Sprintf(`{"email":"new-%d@example.com"}`, n)
	case last == "members", last == "{member_id}":
		email := fmt.Sprintf("member-%d@example.com", n)
		l.join(email, "")
		return `{"email":"` + email + `","roles":["Administrator Read Only"]}`
	case last == "token_policy":
		return `{"tokens_max":100}`
	case last == "tokens", last == "{token_id}":
		return grant("n", dnsWrite, typeZone+"."+l.zoneOf(p))
	}
	return `{"name":"n"}`
}

// ends reports whether a route, done to what is one's own, ends whoever asks. It
// is tried on what is others'.
func ends(r web.Route) bool {
	return r.Method == "DELETE" && strings.HasSuffix(r.Pattern, "{account_id}") || strings.Contains(r.Pattern, "{user_id}") && r.Method != "GET"
}

// TestMatrix tries every route of the management API by every kind of
// principal, on what is the rival's, the operator's and nobody's, and holds the
// answers as a table. The operator's is foreign to all others: for them it and
// nobody's are the same bytes. (The ray id is in a header.)
func TestMatrix(t *testing.T) {
	var out strings.Builder
	const nobody = "00000000000000000000000000000001"
	for _, who := range cast {
		l := newLab(t)
		as := who.of(l)
		routes := slices.DeleteFunc(slices.Clone(l.routes), func(r web.Route) bool {
			return !managed(r) || strings.HasPrefix(r.Pattern, "/v1/") || strings.HasSuffix(r.Pattern, "/verify") ||
				strings.HasSuffix(r.Pattern, "/user/api_key") || ends(r) && who.name == "operator"
		})
		for i, r := range routes {
			ask := func(path, body string) *answer { return l.send(l.request(r.Method, path, as, body)) }
			cell := func(a *answer) string { return fmt.Sprintf("%d/%d", a.StatusCode, a.code()) }
			row := fmt.Sprintf("%-14s %-6s %-60s", who.name, r.Method, r.Pattern)
			if !ends(r) {
				row += " the rival's " + cell(ask(l.about(r, l.rival, 2*i), l.wish(r, l.rival, 2*i)))
			}
			if strings.Contains(r.Pattern, "{") {
				body := l.wish(r, l.rival, 2*i+1)
				foreign := ask(l.about(r, l.admin, 2*i+1), body)
				unknown := ask(strings.NewReplacer("{type}", typeZone).Replace(idHoles.ReplaceAllString(r.Pattern, nobody)), body)
				row += fmt.Sprintf("  the operator's %s  nobody's %s", cell(foreign), cell(unknown))
				if who.name != "operator" && string(foreign.body) != string(unknown.body) {
					t.Errorf("%s: %s %s: foreign and unknown differ:\n%s\n%s", who.name, r.Method, r.Pattern, foreign.body, unknown.body)
				}
			}
			fmt.Fprintln(&out, row)
		}
	}
	if *rewrite {
		if err := os.WriteFile(matrixFile, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(matrixFile)
	if err != nil {
		t.Fatal(err)
	}
	have := strings.Split(out.String(), "\n")
	for i, line := range strings.Split(string(want), "\n") {
		if i >= len(have) || have[i] != line {
			t.Fatalf("line %d of %s (go test -run Matrix -rewrite):\nwant %s\ngot  %s", i+1, matrixFile, line, strings.Join(have[min(i, len(have)):min(i+1, len(have))], ""))
		}
	}
}
