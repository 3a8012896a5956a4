package openapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"watchword.dev/events/token"
)

const importDirectoryPath = "/client/v4/import/directory"

// entries is the body of an import of the directory.
func entries(rows ...string) string { return `{"entries":[` + strings.Join(rows, ",") + `]}` }

// enters imports rows of the directory.
func (l *lab) enters(as http.Header, query string, rows ...string) []outcome {
	l.t.Helper()
	var out struct {
		Entries []outcome `json:"entries"`
	}
	l.do("POST", importDirectoryPath+query, as, entries(rows...), 200, 0).into(l.t, &out)
	if len(out.Entries) != len(rows) {
		l.t.Fatalf("%d rows, %d outcomes", len(rows), len(out.Entries))
	}
	return out.Entries
}

func (l *lab) tryDirectoryImport(try func(method, path, pattern string, as http.Header, body any) *answer) {
	as := l.admin.header()
	try("POST", importDirectoryPath, importDirectoryPath, as, entries(
		`{"kind":"user","email":"imported@example.com","name":"I","operator":true,"id":"0000000000000000000000000000000a"}`,
		`{"kind":"account","name":"Imported Ltd"}`, `{}`))
	try("POST", importDirectoryPath+"?dry_run=true", importDirectoryPath, as, entries(
		`{"kind":"member","email":"imported@example.com","account":"Imported Ltd","roles":["Super Administrator"]}`,
		`{"kind":"resource","type":"`+typeZone+`","id":"z","name":"z","parent":"`+accountKey+l.admin.account.String()+`"}`))
}

// TestImportDirectory: what is there already is left alone, what differs is
// changed, and a dry run says the same and does nothing.
func TestImportDirectory(t *testing.T) {
	l := newLab(t)
	as := l.admin.header()
	const made = "0000000000000000000000000000000b"
	zoneIn := func(id, name, where string) string {
		return fmt.Sprintf(`{"kind":"resource","type":%q,"id":%q,"name":%q,%s}`, typeZone, id, name, where)
	}
	first := []string{
		`{"kind":"user","email":"eve@example.com","name":"Eve"}`,
		`{"kind":"user","email":"bob@example.com"}`,
		`{"kind":"account","name":"By Name"}`,
		`{"kind":"account","name":"By Id","id":"` + made + `"}`,
	}
	second := []string{
		`{"kind":"member","email":"eve@example.com","account":"By Name","roles":["Super Administrator"]}`,
		`{"kind":"member","email":"Bob@example.com","account":"` + made + `","roles":["Administrator Read Only","Super Administrator"]}`,
		zoneIn("z1", "one", `"account":"By Name"`),
		zoneIn("z2", "two", `"parent":"`+accountKey+made+`"`),
	}
	expect := func(what string, got []outcome, want ...string) {
		t.Helper()
		for i, o := range got {
			if o.Outcome != want[min(i, len(want)-1)] {
				t.Errorf("%s, row %d: %+v, want %s", what, i, o, want[min(i, len(want)-1)])
			}
		}
	}
	before := l.ledger.Head()
	var assuming []string
	for _, row := range second {
		assuming = append(assuming, strings.TrimSuffix(row, "}")+`,"assumed":["account","parent","user"]}`)
	}
	expect("a dry run", l.enters(as, "?dry_run=true", append(first, assuming...)...), "created")
	expect("a dry run of what rests on nothing", l.enters(as, "?dry_run=true", second...), "refused")
	expect("assumptions without a dry run", l.enters(as, "", assuming...), "refused")
	if l.ledger.Head() != before {
		t.Error("a dry run wrote something")
	}
	expect("at first", l.enters(as, "", first...), "created")
	expect("what rests on it", l.enters(as, "", second...), "created")
	before = l.ledger.Head()
	expect("again", l.enters(as, "", append(first, second...)...), "unchanged")
	if l.ledger.Head() != before {
		t.Error("an import of what is there wrote something")
	}
	changes := []string{
		`{"kind":"user","email":"EVE@example.com","name":"Eve II"}`,
		`{"kind":"user","email":"bob@example.com","name":"Bob"}`,
		`{"kind":"account","name":"Other Name","id":"` + made + `"}`,
		`{"kind":"member","email":"bob@example.com","account":"` + made + `","roles":["Super Administrator"]}`,
		zoneIn("z1", "uno", `"parent":"`+accountKey+made+`"`),
		zoneIn("z2", "two", `"account":"By Name"`),
	}
	expect("a dry run of changes", l.enters(as, "?dry_run=true", changes...), "changed")
	expect("changes", l.enters(as, "", changes...), "changed")
	expect("changes again", l.enters(as, "", changes...), "unchanged")
	var got thing
	l.do("GET", resourcesPath+"/"+typeZone+"/z1", as, nil, 200, 0).into(t, &got)
	if got.Name != "uno" || got.Parent != accountKey+made {
		t.Errorf("the resource is %+v", got)
	}
	var people []thing
	l.do("GET", usersPath+"?email=eve@example.com", as, nil, 200, 0).into(t, &people)
	if len(people) != 1 || people[0].Name != "Eve II" {
		t.Errorf("users: %+v", people)
	}
}

// TestImportDirectoryRefusals: each row is refused alone, as its own request
// would be, and others' accounts are like ones that do not exist.
func TestImportDirectoryRefusals(t *testing.T) {
	l := newLab(t)
	l.do("POST", accountsPath, l.admin.header(), `{"name":"Twin"}`, 200, 0)
	l.do("POST", accountsPath, l.admin.header(), `{"name":"Twin"}`, 200, 0)
	mine, theirs, nobody := l.rival.account, l.admin.account, token.ID{15: 1}
	good := fmt.Sprintf(`{"kind":"resource","type":%q,"id":"fine","name":"n","account":%q}`, typeZone, mine)
	resource := func(more string) string {
		return fmt.Sprintf(`{"kind":"resource","type":%q,"id":"r","name":"n",%s}`, typeZone, more)
	}
	member := func(account any) string {
		return fmt.Sprintf(`{"kind":"member","email":%q,"account":"%v","roles":["Super Administrator"]}`, l.admin.email, account)
	}
	for name, c := range map[string]struct {
		as   person
		rows []string
		want string // of the refused ones
	}{
		"no kind":          {l.admin, []string{`{}`, `{"kind":"zone","name":"n"}`}, "invalid_field /kind"},
		"no object":        {l.admin, []string{`7`, `"x"`, `null`}, ""},
		"no address":       {l.admin, []string{`{"kind":"user","name":"n"}`, `{"kind":"member","account":"Twin","roles":["Super Administrator"]}`}, "invalid_field /email"},
		"no name":          {l.admin, []string{`{"kind":"account"}`, `{"kind":"account","name":"` + strings.Repeat("n", 10_000) + `"}`}, "invalid_name /name"},
		"a hidden name":    {l.admin, []string{`{"kind":"account","name":"a\u202eb"}`, `{"kind":"account","name":"a\u0007"}`}, ""},
		"a strange id":     {l.admin, []string{`{"kind":"account","name":"n","id":"x"}`, `{"kind":"user","email":"a@example.com","id":"x"}`}, "invalid_field /id"},
		"two of one name":  {l.admin, []string{member("Twin")}, "invalid_field /account"},
		"no such account":  {l.admin, []string{member(nobody), member("No Such"), resource(`"account":"No Such"`)}, "account_not_found /account"},
		"no such person":   {l.admin, []string{`{"kind":"member","email":"nobody@example.com","account":"` + theirs.String() + `","roles":["Super Administrator"]}`}, "user_not_found /email"},
		"no roles":         {l.admin, []string{`{"kind":"member","email":"a@example.com","account":"` + theirs.String() + `"}`}, "invalid_roles /roles"},
		"no such role":     {l.admin, []string{`{"kind":"member","email":"a@example.com","account":"` + theirs.String() + `","roles":["King"]}`}, "invalid_roles /roles/0"},
		"no place":         {l.admin, []string{resource(`"parent":""`), resource(`"parent":"` + accountKey + `x","account":"y"`)}, "invalid_parent /parent"},
		"no such place":    {l.admin, []string{resource(`"parent":"` + typeZone + `.none"`)}, "invalid_parent /parent"},
		"no such type":     {l.admin, []string{`{"kind":"resource","type":"t","id":"r","name":"n","account":"Twin"}`}, "invalid_resource_type /type"},
		"not an operator":  {l.rival, []string{`{"kind":"user","email":"a@example.com"}`}, "not_permitted "},
		"others' accounts": {l.rival, []string{member(theirs), member(nobody), member("Twin"), resource(`"account":"` + theirs.String() + `"`)}, "account_not_found /account"},
		"others' account":  {l.rival, []string{`{"kind":"account","name":"n","id":"` + theirs.String() + `"}`, `{"kind":"account","name":"n","id":"` + nobody.String() + `"}`, `{"kind":"account","name":"new"}`}, "account_not_found "},
		"others' places":   {l.rival, []string{resource(`"parent":"` + accountKey + theirs.String() + `"`), resource(`"parent":"` + accountKey + nobody.String() + `"`)}, "invalid_parent /parent"},
		"others' resource": {l.rival, []string{`{"kind":"resource","type":"` + typeZone + `","id":"` + l.zone + `","name":"n","account":"` + mine.String() + `"}`}, "conflict "},
	} {
		t.Run(name, func(t *testing.T) {
			got := l.in(t).enters(c.as.header(), "", append(c.rows, good)...)
			for i, o := range got[:len(c.rows)] {
				refused := o.Outcome == "refused" || o.Outcome == "conflict"
				if why := o.Reason + " " + o.Pointer; !refused || c.want != "" && why != c.want || o.Reason == "" {
					t.Errorf("%s: %+v, want %s", c.rows[i], o, c.want)
				}
			}
			if c.as.account == mine && got[len(c.rows)].Outcome != "created" && got[len(c.rows)].Outcome != "unchanged" {
				t.Errorf("the good row: %+v", got[len(c.rows)])
			}
		})
	}
	for body, code := range map[string]int{`{"entries":[]}`: 1001, `{}`: 1001, entries(strings.Split(strings.Repeat("{} ", 1001), " ")[:1001]...): 20006} {
		a := l.unmoved("bounds", func() *answer { return l.send(l.request("POST", importDirectoryPath, l.admin.header(), body)) })
		if a.StatusCode != 400 || a.code() != code {
			t.Errorf("%.40s: %d %s", body, a.StatusCode, a.body)
		}
	}
}

// TestImportDirectoryAlike: whoever asks, a row is answered as a request of its
// own is.
func TestImportDirectoryAlike(t *testing.T) {
	for _, who := range cast {
		l := newLab(t)
		as := who.of(l)
		for i, account := range []string{l.rival.account.String(), l.admin.account.String(), "00000000000000000000000000000001"} {
			row := fmt.Sprintf(`"type":%q,"name":"n","parent":%q`, typeZone, accountKey+account)
			alone := l.send(l.request("POST", resourcesPath, as, fmt.Sprintf(`{"id":"alone%d",%s}`, i, row)))
			a := l.send(l.request("POST", importDirectoryPath, as, entries(fmt.Sprintf(`{"kind":"resource","id":"row%d",%s}`, i, row))))
			if a.StatusCode != 200 {
				if alone.StatusCode != a.StatusCode || alone.code() != a.code() {
					t.Errorf("%s in %s: %s\nin an import: %s", who.name, account, alone.body, a.body)
				}
				continue
			}
			var out struct {
				Entries []outcome `json:"entries"`
			}
			a.into(t, &out)
			o := out.Entries[0]
			if made := alone.StatusCode == 200; made != (o.Outcome == "created") || !made && !strings.Contains(string(alone.body), "/errors#"+o.Reason+`"`) {
				t.Errorf("%s in %s: %s\nin an import: %+v", who.name, account, alone.body, o)
			}
		}
	}
}
