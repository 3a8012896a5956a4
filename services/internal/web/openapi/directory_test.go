package openapi_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"watchword.dev/events/token"
)

const (
	accountsPath  = "/client/v4/accounts"
	zonesPath     = "/client/v4/zones"
	resourcesPath = "/client/v4/resources"
	usersPath     = "/client/v4/users"
	accountKey    = "com.cloudflare.api.account."
	zoneRead      = "c8fed203ed3043cba015a93ad1616f1f"
)

// thing is what most answers about the directory have.
type thing struct {
	ID     string `json:"id"`
	Key    string `json:"key"`
	APIKey string `json:"api_key"`
	Name   string `json:"name"`
	Email  string `json:"email"`
	Parent string `json:"parent"`
	Roles  []struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"roles"`
	Account struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"account"`
}

// tryDirectory sends a good request to every route about the directory.
func (l *lab) tryDirectory(try func(method, path, pattern string, as http.Header, body any) *answer) {
	as := l.admin.header()
	one := func(a *answer) (v thing) {
		l.t.Helper()
		a.into(l.t, &v)
		return v
	}
	account := one(try("POST", accountsPath, accountsPath, as, `{"name":"Made Ltd"}`)).ID
	at, of := accountsPath+"/"+account, accountsPath+"/{account_id}"
	try("PUT", at, of, as, `{"name":"Renamed Ltd"}`)
	try("GET", at+"/roles?page=1", of+"/roles", as, nil)
	try("PUT", at+"/token_policy", of+"/token_policy", as, `{"lifetime_seconds_max":86400,"expiry_required":true,"keys_end":"2030-01-01T00:00:00Z"}`)
	try("GET", at+"/token_policy", of+"/token_policy", as, nil)
	try("POST", at+"/token_policy/preview", of+"/token_policy/preview", as, `{"policy":{"address_required":true},"limit":5}`)
	try("POST", at+"/token_policy/apply", of+"/token_policy/apply", as, nil)

	try("GET", "/client/v4/legacy/report?days=7&per_page=50", "/client/v4/legacy/report", as, nil)
	try("GET", at+"/legacy/report", of+"/legacy/report", as, nil)

	user := one(try("POST", usersPath, usersPath, as, `{"email":"new@example.com","name":"Ada"}`)).ID
	try("GET", usersPath+"?email=new@example.com", usersPath, as, nil)
	try("GET", usersPath+"/"+user, usersPath+"/{user_id}", as, nil)
	try("PATCH", usersPath+"/"+user, usersPath+"/{user_id}", as, `{"name":"","email":"newer@example.com"}`)
	key := one(try("POST", usersPath+"/"+user+"/api_key", usersPath+"/{user_id}/api_key", as, nil)).APIKey
	own := http.Header{"X-Auth-Email": {"newer@example.com"}, "X-Auth-Key": {key}}
	own["X-Auth-Key"] = []string{one(try("PUT", "/client/v4/user/api_key", "/client/v4/user/api_key", own, nil)).APIKey}
	try("DELETE", "/client/v4/user/api_key", "/client/v4/user/api_key", own, `{"reason":"done"}`)
	again := one(try("POST", usersPath+"/"+user+"/api_key", usersPath+"/{user_id}/api_key", as, nil)).APIKey
	try("DELETE", usersPath+"/"+user+"/api_key", usersPath+"/{user_id}/api_key", as, `{"reason":"leaked"}`)
	l.do("GET", "/client/v4/user", http.Header{"X-Auth-Email": {"newer@example.com"}, "X-Auth-Key": {again}}, nil, 403, 9103)

	member := one(try("POST", at+"/members", of+"/members", as, `{"email":"newer@example.com","roles":["Super Administrator"]}`)).ID
	try("GET", at+"/members?per_page=50", of+"/members", as, nil)
	var some []thing
	for email, n := range map[string]int{"newer@example.com": 1, l.rival.email: 0, "nobody@example.com": 0} {
		if try("GET", at+"/members?email="+email, of+"/members", as, nil).into(l.t, &some); len(some) != n {
			l.t.Errorf("members with the address %s: %+v", email, some)
		}
	}
	try("GET", at+"/members/"+member, of+"/members/{member_id}", as, nil)
	try("PUT", at+"/members/"+member, of+"/members/{member_id}", as, `{"roles":[{"id":"`+roleReadOnly+`"}]}`)
	try("DELETE", at+"/members/"+member, of+"/members/{member_id}", as, nil)

	zone := one(try("POST", zonesPath, zonesPath, as, `{"name":"made.example","account":{"id":"`+account+`"},"type":"full","jump_start":true}`)).ID
	try("GET", zonesPath+"?account.id="+account+"&name=made.example&status=active&page=1&per_page=50", zonesPath, as, nil)
	try("GET", zonesPath+"/"+zone, zonesPath+"/{zone}", as, nil)
	try("PATCH", zonesPath+"/"+zone, zonesPath+"/{zone}", as, `{"name":"renamed.example"}`)
	try("DELETE", zonesPath+"/"+zone, zonesPath+"/{zone}", as, nil)

	made := one(try("POST", resourcesPath, resourcesPath, as, `{"type":"`+typeZone+`","id":"z-1","name":"one.example","parent":"`+accountKey+account+`"}`))
	try("GET", resourcesPath+"?type="+typeZone+"&all=true&name_prefix=one", resourcesPath, as, nil)
	pattern := resourcesPath + "/{type}/{id}"
	try("GET", resourcesPath+"/"+typeZone+"/z-1", pattern, as, nil)
	try("PUT", resourcesPath+"/"+typeZone+"/z-1", pattern, as, `{"name":"two.example","parent":"`+accountKey+l.admin.account.String()+`"}`)
	try("DELETE", resourcesPath+"/"+typeZone+"/z-1", pattern, as, `{"reason":"sold"}`)
	if made.Key != typeZone+".z-1" {
		l.t.Errorf("the key of a resource: %q", made.Key)
	}
	try("DELETE", usersPath+"/"+user, usersPath+"/{user_id}", as, nil)
	try("DELETE", at, of, as, `{"reason":"closed"}`)
}

// roleReadOnly is the id of Administrator Read Only: the first 32 digits of
// `printf 'Administrator Read Only' | sha256sum`.
const roleReadOnly = "adfcd2360203ce29e8ab004e53d2c2eb"

// names returns the names on a page, in their order.
func names(t testing.TB, a *answer) []string {
	t.Helper()
	var all []thing
	a.into(t, &all)
	out := []string{}
	for _, v := range all {
		out = append(out, v.Name)
	}
	if a.Info.Count != len(all) || a.Info.TotalPages != (a.Info.TotalCount+a.Info.PerPage-1)/a.Info.PerPage {
		t.Errorf("result_info %+v of %d", a.Info, len(all))
	}
	return out
}

// TestZones: who sees which zones, by what credential, and by which page.
func TestZones(t *testing.T) {
	l := newLab(t)
	mine := accountKey + l.rival.account.String()
	ids := map[string]string{}
	for _, name := range []string{"c.example", "a.example", "b.example", "ab.example", "d.example", "e.example", "f.example"} {
		var z thing
		l.do("POST", zonesPath, l.rival.header(), `{"name":"`+name+`","account":{"id":"`+l.rival.account.String()+`"}}`, 200, 0).into(t, &z)
		ids[name] = z.ID
		if z.Account.ID != l.rival.account.String() || z.Account.Name == "" {
			t.Errorf("the account of %s: %+v", name, z.Account)
		}
	}
	key := func(name string) string { return typeZone + "." + ids[name] }
	token := func(policies ...string) http.Header {
		return bearer(l.create(userTokens, l.rival.header(), `{"name":"t","policies":[`+strings.Join(policies, ",")+`]}`).Value)
	}
	policy := func(effect, resources string) string {
		return `{"effect":"` + effect + `","resources":` + resources + `,"permission_groups":[{"id":"` + zoneRead + `"}]}`
	}
	everything := []string{"a.example", "ab.example", "b.example", "c.example", "d.example", "e.example", "f.example"}
	all := `{"` + mine + `":{"` + typeZone + `.*":"*"}}`
	single := policy("allow", `{"`+key("b.example")+`":"*"}`)
	for name, c := range map[string]struct {
		as    http.Header
		query string
		want  []string
		total int
	}{
		"by key":                        {l.rival.header(), "?per_page=50", everything, 7},
		"the second page":               {l.rival.header(), "?per_page=5&page=2", everything[5:], 7},
		"a page behind the last":        {l.rival.header(), "?per_page=5&page=3", []string{}, 7},
		"by name":                       {l.rival.header(), "?name=b.example", []string{"b.example"}, 1},
		"by a prefix":                   {l.rival.header(), "?name=starts_with:a", []string{"a.example", "ab.example"}, 2},
		"an unknown name":               {l.rival.header(), "?name=x.example", []string{}, 0},
		"another status":                {l.rival.header(), "?status=pending", []string{}, 0},
		"in the account":                {l.rival.header(), "?account.id=" + l.rival.account.String(), everything, 7},
		"in another's account":          {l.rival.header(), "?account.id=" + l.admin.account.String(), []string{}, 0},
		"in no account":                 {l.rival.header(), "?account.id=00000000000000000000000000000001", []string{}, 0},
		"another user":                  {l.admin.header(), "", []string{"example.com"}, 1},
		"an operator in an account":     {l.admin.header(), "?account.id=" + l.rival.account.String(), everything, 7},
		"a token for all":               {token(policy("allow", all)), "", everything, 7},
		"a token for one":               {token(single), "", []string{"b.example"}, 1},
		"a token for one, by name":      {token(single), "?name=b.example", []string{"b.example"}, 1},
		"a token for one, by another's": {token(single), "?name=a.example", []string{}, 0},
		"a token for all but one":       {token(policy("allow", all), policy("deny", `{"`+key("a.example")+`":"*"}`)), "", everything[1:], 6},
		"a token for one and none":      {token(single, policy("deny", all)), "", []string{}, 0},
		"a token for all and one":       {token(policy("allow", all), single), "?per_page=5", everything[:5], 7},
		"a token for other things":      {bearer(l.create(userTokens, l.rival.header(), grant("t", dnsWrite, key("a.example"))).Value), "", []string{}, 0},
	} {
		a := l.do("GET", zonesPath+c.query, c.as, nil, 200, 0)
		if got := names(t, a); !slices.Equal(got, c.want) || a.Info.TotalCount != c.total {
			t.Errorf("%s: %q of %d, want %q of %d", name, got, a.Info.TotalCount, c.want, c.total)
		}
	}
	one := token(single)
	l.do("GET", zonesPath+"/"+ids["b.example"], one, nil, 200, 0)
	l.do("GET", zonesPath+"/"+ids["a.example"], one, nil, 403, 9109)
	l.do("PATCH", zonesPath+"/"+ids["b.example"], one, `{"name":"x"}`, 404, 1003)
}

// TestZonesAsResources: the list of resources shows no zone that the list of
// zones does not.
func TestZonesAsResources(t *testing.T) {
	l := newLab(t)
	mine := accountKey + l.rival.account.String()
	var zones [2]thing
	for i, name := range []string{"a.example", "b.example"} {
		l.do("POST", zonesPath, l.rival.header(), `{"name":"`+name+`","account":{"id":"`+l.rival.account.String()+`"}}`, 200, 0).into(t, &zones[i])
	}
	const settings = "c1fde68c7bcc44588cbb6ddbc16d6480" // Account Settings Read
	policy := func(effect, group, resources string) string {
		return `,{"effect":"` + effect + `","resources":` + resources + `,"permission_groups":[{"id":"` + group + `"}]}`
	}
	all := policy("allow", zoneRead, `{"`+mine+`":{"`+typeZone+`.*":"*"}}`)
	for name, c := range map[string]struct {
		more string
		want []string
	}{
		"no zone":     {"", []string{}},
		"another use": {policy("allow", dnsWrite, `{"`+mine+`":{"`+typeZone+`.*":"*"}}`), []string{}},
		"one":         {policy("allow", zoneRead, `{"`+typeZone+"."+zones[1].ID+`":"*"}`), []string{"b.example"}},
		"all":         {all, []string{"a.example", "b.example"}},
		"all but one": {all + policy("deny", zoneRead, `{"`+typeZone+"."+zones[1].ID+`":"*"}`), []string{"a.example"}},
	} {
		made := l.create(userTokens, l.rival.header(), `{"name":"t","policies":[{"effect":"allow","resources":{"`+mine+`":"*"},"permission_groups":[{"id":"`+settings+`"}]}`+c.more+`]}`)
		for _, query := range []string{"", "?type=" + typeZone, "?parent=" + mine} {
			a := l.do("GET", resourcesPath+query, bearer(made.Value), nil, 200, 0)
			if got := names(t, a); !slices.Equal(got, c.want) || a.Info.TotalCount != len(c.want) {
				t.Errorf("%s, %q: %q of %d, want %q", name, query, got, a.Info.TotalCount, c.want)
			}
		}
	}
}

// TestDirectoryOfOthers: what a zone and a resource of others answer is what
// none answers, by every method, and to one without the permission alike.
func TestDirectoryOfOthers(t *testing.T) {
	l := newLab(t)
	const none = "00000000000000000000000000000001"
	for _, r := range []struct{ method, path, body string }{
		{"GET", zonesPath + "/ID", ""}, {"PATCH", zonesPath + "/ID", `{"name":"n"}`}, {"DELETE", zonesPath + "/ID", ""},
		{"GET", resourcesPath + "/" + typeZone + "/ID", ""}, {"PUT", resourcesPath + "/" + typeZone + "/ID", `{"name":"n"}`},
		{"DELETE", resourcesPath + "/" + typeZone + "/ID", ""}, {"GET", resourcesPath + "?parent=" + typeZone + ".ID", ""},
	} {
		ask := func(id string) string {
			a := l.unmoved(r.path, func() *answer {
				return l.do(r.method, strings.Replace(r.path, "ID", id, 1), l.rival.header(), r.body, 404, 1003)
			})
			return string(a.body)
		}
		if foreign, absent := ask(l.zone), ask(none); foreign != absent {
			t.Errorf("%s %s:\n%s\n%s", r.method, r.path, foreign, absent)
		}
	}
	for _, parent := range []string{accountKey + l.admin.account.String(), accountKey + none, typeZone + "." + l.zone, "x", ""} {
		l.do("POST", resourcesPath, l.rival.header(), map[string]string{"type": typeZone, "name": "n", "parent": parent}, 400, 1001)
	}
}

// TestAddressesOfOthers: who may give nobody a role does not learn who has an
// address.
func TestAddressesOfOthers(t *testing.T) {
	l := newLab(t)
	const codeRoleNotHeld = 20026
	account := l.rival.account.String()
	members := accountsPath + "/" + account + "/members"
	made := l.create(l.rival.accountTokens(), l.rival.header(), `{"name":"t","policies":[{"effect":"allow","resources":{"`+accountKey+account+`":"*"},"permission_groups":[{"id":"1af1fa2adc104452b74a9a3364202f20"}]}]}`)
	ask := func(email, dry string) string {
		body := `{"email":"` + email + `","roles":["Administrator Read Only"]}`
		a := l.do("POST", members, bearer(made.Value), body, 400, codeRoleNotHeld)
		row := `{"kind":"member","account":"` + account + `",` + body[1:]
		return string(a.body) + string(l.do("POST", importDirectoryPath+dry, bearer(made.Value), entries(row), 200, 0).body)
	}
	for _, dry := range []string{"", "?dry_run=true"} {
		if known, unknown := ask(l.admin.email, dry), ask("nobody@example.com", dry); known != unknown {
			t.Errorf("%q:\n%s\n%s", dry, known, unknown)
		}
	}
	l.do("POST", members, l.rival.header(), `{"email":"nobody@example.com","roles":["Administrator Read Only"]}`, 404, 1003)
}

// TestRemovalEnds: what hangs on a member, a user, an account or a zone ends
// with it, at once.
func TestRemovalEnds(t *testing.T) {
	l := newLab(t)
	as := l.admin.header()
	account := accountsPath + "/" + l.rival.account.String()
	var user, key, member thing
	l.do("POST", usersPath, as, `{"email":"eve@example.com"}`, 200, 0).into(t, &user)
	l.do("POST", usersPath+"/"+user.ID+"/api_key", as, nil, 200, 0).into(t, &key)
	eve := http.Header{"X-Auth-Email": {"eve@example.com"}, "X-Auth-Key": {key.APIKey}}
	l.do("GET", account, eve, nil, 404, 1003)
	l.do("POST", account+"/members", l.rival.header(), `{"email":"eve@example.com","roles":["Administrator Read Only"]}`, 200, 0).into(t, &member)
	l.do("GET", account+"/members", eve, nil, 200, 0)
	l.do("PUT", account, eve, `{"name":"Mine"}`, 403, 9109)
	l.do("POST", zonesPath, eve, `{"name":"z","account":{"id":"`+l.rival.account.String()+`"}}`, 403, 9109)
	l.do("PUT", account+"/members/"+member.ID, l.rival.header(), `{"roles":["Super Administrator"]}`, 200, 0).into(t, &member)
	if len(member.Roles) != 1 || member.Roles[0].Name != "Super Administrator" || member.Email != "eve@example.com" {
		t.Errorf("%+v", member)
	}
	l.do("PUT", account, eve, `{"name":"Ours"}`, 200, 0)
	l.do("DELETE", account+"/members/"+member.ID, l.rival.header(), nil, 200, 0)
	l.do("GET", account+"/members", eve, nil, 404, 1003)
	l.do("GET", account+"/members/"+member.ID, l.rival.header(), nil, 404, 1003)
	l.do("DELETE", usersPath+"/"+user.ID, as, nil, 200, 0)
	l.do("GET", "/client/v4/user", eve, nil, 403, 9103)
	l.do("GET", usersPath+"/"+user.ID, as, nil, 404, 1003)
	l.do("DELETE", account, l.rival.header(), nil, 403, 9109)
	l.do("DELETE", account, as, nil, 200, 0)
	l.do("GET", account, l.rival.header(), nil, 404, 1003)
	l.do("GET", account, as, nil, 404, 1003)
}

// TestImportedIDs: what an import makes under its own id is made once, however
// often it is asked for, and never again after its end.
func TestImportedIDs(t *testing.T) {
	l := newLab(t)
	as := l.admin.header()
	id := token.NewGenerator(nil).New().String()
	head := l.ledger.Head()
	for range 2 {
		l.do("POST", accountsPath, as, `{"id":"`+id+`","name":"Imported"}`, 200, 0)
		l.do("POST", usersPath, as, `{"id":"`+id+`","email":"imported@example.com"}`, 200, 0)
		l.do("POST", accountsPath+"/"+id+"/members", as, `{"id":"`+id+`","email":"imported@example.com","roles":["Super Administrator"]}`, 200, 0)
		l.do("POST", resourcesPath, as, `{"type":"`+typeZone+`","id":"imported","name":"n","parent":"`+accountKey+id+`"}`, 200, 0)
	}
	if got := l.ledger.Head() - head; got != 4 {
		t.Errorf("%d commits for four things", got)
	}
	l.do("POST", usersPath, as, `{"email":"imported@example.com"}`, 400, 20011)
	l.do("POST", accountsPath, as, `{"id":"`+id+`","name":"Other"}`, 400, 20011)
}
