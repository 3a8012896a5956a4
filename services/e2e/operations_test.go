package e2e_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"

	"watchword.dev/services/authority/authoritytest"
)

// operation is one method of one path, as /openapi.json of the server tells.
type operation struct {
	method, path, id string
	query            []string // names of the parameters of the query
	media            string   // of the request's body; "" where it takes none
	needsBody        bool
	auth             string // key, token, enforcer or none
	statuses         []int  // that the document knows
}

// reads reports whether the operation takes a body of this media type.
func (o operation) json() bool { return o.media == jsonContent }
func (o operation) form() bool { return o.media == formContent }

const formContent = "application/x-www-form-urlencoded"

// document is the part of an OpenAPI document that the tests read.
type document struct {
	Security []map[string][]string             `json:"security"`
	Paths    map[string]map[string]operationIn `json:"paths"`
	Parts    struct {
		Parameters map[string]parameterIn `json:"parameters"`
	} `json:"components"`
}

type operationIn struct {
	ID         string                 `json:"operationId"`
	Security   *[]map[string][]string `json:"security"`
	Parameters []parameterIn          `json:"parameters"`
	Body       *struct {
		Required bool           `json:"required"`
		Content  map[string]any `json:"content"`
	} `json:"requestBody"`
	Responses map[string]any `json:"responses"`
}

type parameterIn struct {
	Ref  string `json:"$ref"`
	Name string `json:"name"`
	In   string `json:"in"`
}

// operations reads the server's own document, and adds what it leaves out: the
// upkeep, which is for `watchword fsck` and `watchword rebuild`.
func (i *installation) operations() []operation {
	i.t.Helper()
	got := i.call(asked{http.MethodGet, "/openapi.json", nil, ""})
	var d document
	if err := json.Unmarshal(got.body, &d); err != nil || got.status != http.StatusOK {
		i.t.Fatalf("/openapi.json: %d, %v", got.status, err)
	}
	var all []operation
	for path, methods := range d.Paths {
		for method, in := range methods {
			all = append(all, d.operation(i.t, strings.ToUpper(method), path, in))
		}
	}
	if !slices.ContainsFunc(all, func(o operation) bool { return strings.HasPrefix(o.path, "/v1/upkeep") }) {
		known := []int{200, 400, 403, 404, 503}
		all = append(all,
			operation{method: http.MethodGet, path: "/v1/upkeep", id: "upkeep", auth: "key", statuses: known},
			operation{method: http.MethodPost, path: "/v1/upkeep/fsck", id: "fsck", auth: "key", statuses: known},
			operation{method: http.MethodPost, path: "/v1/upkeep/rebuild/{projection}", id: "rebuild", auth: "key", statuses: known},
		)
	}
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	if len(all) < 30 {
		i.t.Fatalf("/openapi.json names only %d operations", len(all))
	}
	return all
}

func (d *document) operation(t testing.TB, method, path string, in operationIn) operation {
	t.Helper()
	o := operation{method: method, path: path, id: in.ID, auth: "none"}
	for _, p := range in.Parameters {
		if p.Ref != "" {
			p = d.Parts.Parameters[p.Ref[strings.LastIndexByte(p.Ref, '/')+1:]]
		}
		if p.In == "query" {
			o.query = append(o.query, p.Name)
		}
	}
	if in.Body != nil {
		o.needsBody = in.Body.Required
		for media := range in.Body.Content {
			o.media = media
		}
	}
	security := d.Security
	if in.Security != nil {
		security = *in.Security
	}
	for _, one := range security {
		for scheme := range one {
			switch {
			case scheme == "apiKey" || scheme == "apiEmail":
				o.auth = "key"
			case scheme == "token" && o.auth == "none":
				o.auth = "token"
			case strings.HasPrefix(scheme, "enforcer"):
				o.auth = "enforcer"
			}
		}
	}
	for status := range in.Responses {
		n, err := strconv.Atoi(status)
		if err != nil {
			t.Fatalf("%s %s: response %q", method, path, status)
		}
		o.statuses = append(o.statuses, n)
	}
	return o
}

// target has what stands for the parameters of paths.
type target struct {
	account               string
	enforcer, consumer    string
	user, member, zone    string
	userToken, ownedToken tokenResult
}

// targets makes a token of each kind, an enforcer and a consumer.
func (i *installation) targets() target {
	i.t.Helper()
	var g target
	g.account = i.admin.AccountID
	g.userToken = i.create("mine")
	i.must(asked{http.MethodPost, "/client/v4/accounts/" + g.account + "/tokens", i.operator(), grant("theirs", zoneID)}, &g.ownedToken)
	var e tokenResult
	i.must(asked{http.MethodPost, "/v1/enforcers", i.operator(), `{"name":"target"}`}, &e)
	g.enforcer, g.user = e.ID, i.admin.UserID
	i.must(asked{http.MethodPost, "/v1/consumers", i.operator(), g.body(operation{id: "enrollConsumer"})}, &e)
	g.consumer = e.ID
	var members []tokenResult
	i.must(asked{http.MethodGet, "/client/v4/accounts/" + g.account + "/members", i.operator(), ""}, &members)
	g.member = members[0].ID
	var z tokenResult
	i.must(asked{http.MethodPost, "/client/v4/zones", i.operator(), g.body(operation{id: "createZone"})}, &z)
	g.zone = z.ID
	return g
}

// token returns the token that an operation's path is about.
func (g target) token(o operation) tokenResult {
	if strings.Contains(o.path, "{account_id}") {
		return g.ownedToken
	}
	return g.userToken
}

// fill puts values into the path; with replace, that one for the last of them.
func (g target) fill(o operation, replace string) string {
	path := o.path
	if replace != "" {
		open, end := strings.LastIndexByte(path, '{'), strings.LastIndexByte(path, '}')
		path = path[:open] + replace + path[end+1:]
	}
	return strings.NewReplacer(
		"{account_id}", g.account, "{enforcer_id}", g.enforcer, "{consumer_id}", g.consumer, "{token_id}", g.token(o).ID, "{projection}", "verifyindex",
		"{user_id}", g.user, "{member_id}", g.member, "{zone}", g.zone, "{type}", strings.TrimSuffix(zoneType, "."), "{id}", g.zone,
	).Replace(path)
}

// credentials returns the header lines with which an operation works.
func (i *installation) credentials(o operation, g target) []string {
	switch o.auth {
	case "key":
		return []string{"X-Auth-Email: " + i.admin.Email, "X-Auth-Key: " + i.admin.APIKey}
	case "token":
		return []string{"Authorization: Bearer " + g.token(o).Value}
	case "enforcer":
		return []string{"Authorization: Bearer " + i.admin.EnforcerKey}
	}
	return nil
}

// body returns a good body for an operation.
func (g target) body(o operation) string {
	switch o.id {
	case "createZone":
		return `{"name":"n.example","account":{"id":"` + g.account + `"}}`
	case "registerResource":
		return `{"name":"n","type":"` + strings.TrimSuffix(zoneType, ".") + `","parent":"com.cloudflare.api.account.` + g.account + `"}`
	case "addMember", "changeMember":
		return `{"email":"a@example.com","roles":["Super Administrator"]}`
	case "registerUser":
		return `{"email":"a@example.com"}`
	case "updatePerson":
		return `{"name":"n"}`
	case "previewIncident", "revokeIncident":
		return `{"account":"` + g.account + `","created_before":"2020-01-01T00:00:00Z","confirm":true}`
	case "putTokenPolicy":
		return `{"tokens_max":50}`
	}
	switch {
	case o.form():
		return "token=" + g.userToken.Value
	case strings.HasPrefix(o.id, "create"), strings.HasPrefix(o.id, "update"):
		return grant("changed", zoneID)
	case o.id == "enrollEnforcer":
		return `{"name":"more"}`
	case o.id == "enrollConsumer":
		return `{"name":"more","nkey":"` + authoritytest.NewNkey() + `"}`
	case strings.HasPrefix(o.id, "roll"):
		return `{"grace":"1h"}`
	case o.id == "verify":
		return `{"secret":"` + g.userToken.Value + `","permission":"dns.records.write","resource":["` + zoneType + zoneID + `"]}`
	}
	return `{"reason":"r"}`
}
