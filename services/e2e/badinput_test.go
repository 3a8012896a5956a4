package e2e_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"watchword.dev/events/fault"
)

// badness is one way to get a request wrong.
type badness struct {
	name string
	// of says whether an operation can be got wrong this way.
	of func(operation) bool
	// ask returns the bytes of the request.
	ask func(*misuse, operation) string
	// want are the codes of which one must come; none means that net/http
	// itself answers 400 or 431, before any of our code.
	want []fault.Code
}

// misuse is a server and what there is to be got wrong on it.
type misuse struct {
	*installation
	target
}

// good returns the header lines of a good request.
func (m *misuse) good(o operation) []string {
	h := m.credentials(o, m.target)
	if o.media != "" {
		h = append(h, "Content-Type: "+o.media)
	}
	return h
}

// with returns a good request but for its body and more header lines.
func (m *misuse) with(o operation, body string, more ...string) string {
	return lines(o.method, m.fill(o, ""), append(m.good(o), more...), body)
}

// typed returns a good request whose body is said to be of another type.
func (m *misuse) typed(o operation, kind string) string {
	return lines(o.method, m.fill(o, ""), append(m.credentials(o, m.target), "Content-Type: "+kind), m.body(o))
}

// as returns a good request with these credentials.
func (m *misuse) as(o operation, credentials ...string) string {
	h := credentials
	if o.media != "" {
		h = append(slices.Clone(h), "Content-Type: "+o.media)
	}
	return lines(o.method, m.fill(o, ""), h, m.body(o))
}

// at returns a good request for another id.
func (m *misuse) at(o operation, id string) string {
	return lines(o.method, m.fill(o, id), m.good(o), m.body(o))
}

// body is the good body, or none where the operation takes none.
func (m *misuse) body(o operation) string {
	if o.media == "" {
		return ""
	}
	return m.target.body(o)
}

func isJSON(o operation) bool    { return o.json() }
func isForm(o operation) bool    { return o.form() }
func takesBody(o operation) bool { return o.media != "" }
func needsJSON(o operation) bool { return o.json() && o.needsBody }
func secured(o operation) bool   { return o.auth != "none" }
func byKey(o operation) bool     { return o.auth == "key" }
func verifies(o operation) bool  { return o.auth == "enforcer" && takesBody(o) && o.id != "postReceipt" }
func hasID(o operation) bool     { return strings.HasSuffix(beforeVerb(o.path), "_id}") }
func idNeeded(o operation) bool  { return hasID(o) && o.auth == "key" }
func ofUser(o operation) bool    { return strings.Contains(o.path, "{user_id}") }
func makesSecret(o operation) bool {
	return strings.HasSuffix(o.id, "Token") && (strings.HasPrefix(o.id, "create") || strings.HasPrefix(o.id, "roll"))
}
func anything(operation) bool { return true }

// beforeVerb cuts what stands behind the last parameter of a path.
func beforeVerb(path string) string { return path[:strings.LastIndexByte(path, '}')+1] }

// bodies are the bad bodies.
var bodies = []badness{
	{"oversize", takesBody, func(m *misuse, o operation) string {
		return m.with(o, `{"name":"`+strings.Repeat("a", 4<<20)+`"}`)
	}, []fault.Code{fault.BodyTooLarge}},
	{"oversize and chunked", takesBody, func(m *misuse, o operation) string {
		chunk := fmt.Sprintf("%x\r\n%s\r\n", 4<<20, strings.Repeat(" ", 4<<20))
		return m.with(o, chunk+"0\r\n\r\n", "Transfer-Encoding: chunked")
	}, []fault.Code{fault.BodyTooLarge}},
	{"100,000 policies", takesBody, func(m *misuse, o operation) string {
		return m.with(o, `{"name":"n","policies":[`+strings.Repeat(`{"effect":"allow"},`, 99_999)+`{}]}`)
	}, []fault.Code{fault.BodyTooLarge}},
	{"plain text", takesBody, func(m *misuse, o operation) string { return m.typed(o, "text/plain") }, []fault.Code{fault.UnsupportedContentType}},
	{"XML", takesBody, func(m *misuse, o operation) string { return m.typed(o, "application/xml") }, []fault.Code{fault.UnsupportedContentType}},
	{"multipart", takesBody, func(m *misuse, o operation) string { return m.typed(o, "multipart/form-data; boundary=x") }, []fault.Code{fault.UnsupportedContentType}},
	{"a broken type", takesBody, func(m *misuse, o operation) string { return m.typed(o, "application/json; charset") }, []fault.Code{fault.UnsupportedContentType}},
	{"UTF-16", isJSON, func(m *misuse, o operation) string { return m.typed(o, "application/json; charset=utf-16") }, []fault.Code{fault.UnsupportedContentType}},
	{"JSON for a form", isForm, func(m *misuse, o operation) string { return m.typed(o, jsonContent) }, []fault.Code{fault.UnsupportedContentType}},
	{"a form for JSON", needsJSON, func(m *misuse, o operation) string { return m.typed(o, formContent) }, []fault.Code{fault.UnsupportedContentType}},
	{"gzip", takesBody, func(m *misuse, o operation) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		fmt.Fprint(z, m.body(o))
		z.Close()
		return m.with(o, b.String(), "Content-Encoding: gzip")
	}, []fault.Code{fault.UnsupportedContentType}},
	{"gzip in disguise", isJSON, func(m *misuse, o operation) string { return m.with(o, "\x1f\x8b\x08\x00\x00") }, []fault.Code{fault.InvalidJSON}},
	{"truncated JSON", isJSON, func(m *misuse, o operation) string { b := m.body(o); return m.with(o, b[:len(b)-1]) }, []fault.Code{fault.InvalidJSON}},
	{"no JSON", isJSON, func(m *misuse, o operation) string { return m.with(o, "name=n") }, []fault.Code{fault.InvalidJSON}},
	{"two values", isJSON, func(m *misuse, o operation) string { return m.with(o, m.body(o)+m.body(o)) }, []fault.Code{fault.InvalidJSON}},
	{"a trailing comma", isJSON, func(m *misuse, o operation) string { b := m.body(o); return m.with(o, b[:len(b)-1]+",}") }, []fault.Code{fault.InvalidJSON}},
	{"a string", isJSON, func(m *misuse, o operation) string { return m.with(o, `"x"`) }, []fault.Code{fault.InvalidJSON, fault.InvalidVerifyRequest}},
	{"an array of numbers", isJSON, func(m *misuse, o operation) string { return m.with(o, `[1]`) }, []fault.Code{fault.InvalidJSON, fault.InvalidVerifyRequest}},
	{"a duplicate key", isJSON, func(m *misuse, o operation) string { b := m.body(o); return m.with(o, b[:len(b)-1]+","+b[1:]) }, []fault.Code{fault.DuplicateKey}},
	{"a duplicate unknown key", isJSON, func(m *misuse, o operation) string { return m.with(o, `{"x":1,"x":2,`+m.body(o)[1:]) }, []fault.Code{fault.DuplicateKey}},
	{"deep arrays", isJSON, func(m *misuse, o operation) string {
		return m.with(o, `{"x":`+strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)+"}")
	}, []fault.Code{fault.TooDeep}},
	{"deep and open", isJSON, func(m *misuse, o operation) string { return m.with(o, strings.Repeat(`{"x":`, 10_000)) }, []fault.Code{fault.TooDeep}},
	{"no UTF-8", isJSON, func(m *misuse, o operation) string {
		return m.with(o, "{\"name\":\"\xff\",\"reason\":\"\xff\",\"secret\":\"\xff\"}")
	}, []fault.Code{fault.InvalidJSON}},
	{"a lone surrogate", isJSON, func(m *misuse, o operation) string {
		return m.with(o, `{"name":"\ud800","reason":"\ud800","secret":"\ud800"}`)
	}, []fault.Code{fault.InvalidJSON}},
	{"no body", needsJSON, func(m *misuse, o operation) string { return m.with(o, "") }, []fault.Code{fault.MissingBody}},
	{"an empty chunked body", needsJSON, func(m *misuse, o operation) string {
		return m.with(o, "0\r\n\r\n", "Transfer-Encoding: chunked")
	}, []fault.Code{fault.MissingBody}},
	{"a blank body", isJSON, func(m *misuse, o operation) string { return m.with(o, " \r\n ") }, []fault.Code{fault.MissingBody}},
	{"a broken chunk", takesBody, func(m *misuse, o operation) string {
		return m.with(o, "zz\r\n{}\r\n", "Transfer-Encoding: chunked")
	}, []fault.Code{fault.InvalidJSON, fault.InvalidVerifyRequest}},
	{"an empty form", isForm, func(m *misuse, o operation) string { return m.with(o, "") }, []fault.Code{fault.InvalidVerifyRequest}},
	{"two tokens in a form", isForm, func(m *misuse, o operation) string { return m.with(o, "token=a&token=b") }, []fault.Code{fault.InvalidVerifyRequest}},
	{"a broken form", isForm, func(m *misuse, o operation) string { return m.with(o, "token=%zz") }, []fault.Code{fault.InvalidVerifyRequest}},
	{"a bad client_ip", isForm, func(m *misuse, o operation) string { return m.with(o, "token=a&client_ip=300.0.0.1") }, []fault.Code{fault.InvalidVerifyRequest}},
}

// unaccepted are the codes of a credential that is nobody's.
var unaccepted = []fault.Code{fault.InvalidAccessToken, fault.InvalidAPIToken, fault.EnforcerKeyNeeded}

// malformed are the codes of a credential that is none.
var malformed = []fault.Code{fault.MalformedAuthorization, fault.EnforcerKeyNeeded}

// headers are the bad credentials and other bad header lines.
var headers = []badness{
	{"no credential", secured, func(m *misuse, o operation) string { return m.as(o) }, []fault.Code{fault.MissingCredentials, fault.EnforcerKeyNeeded}},
	{"two Authorization headers", secured, func(m *misuse, o operation) string {
		return m.as(o, "Authorization: Bearer "+m.userToken.Value, "Authorization: Bearer "+m.userToken.Value)
	}, malformed},
	{"an empty bearer", secured, func(m *misuse, o operation) string { return m.as(o, "Authorization: Bearer ") }, malformed},
	{"no scheme", secured, func(m *misuse, o operation) string { return m.as(o, "Authorization: "+m.userToken.Value) }, malformed},
	{"Basic garbage", secured, func(m *misuse, o operation) string { return m.as(o, "Authorization: Basic !!!") }, malformed},
	{"a truncated secret", secured, func(m *misuse, o operation) string { return m.as(o, "Authorization: Bearer "+m.userToken.Value[:47]) }, unaccepted},
	{"a short secret", secured, func(m *misuse, o operation) string { return m.as(o, "Authorization: Bearer wwu_abc") }, malformed},
	{"a long secret", secured, func(m *misuse, o operation) string {
		return m.as(o, "Authorization: Bearer "+strings.Repeat("a", 8000))
	}, malformed},
	{"a secret with a typo", secured, func(m *misuse, o operation) string {
		v, typo := m.userToken.Value, "0"
		if v[20:21] == typo {
			typo = "1"
		}
		return m.as(o, "Authorization: Bearer "+v[:20]+typo+v[21:])
	}, unaccepted},
	{"a well-formed stranger", secured, func(m *misuse, o operation) string {
		return m.as(o, "Authorization: Bearer wwu_2nf70CwLdjhc7DaClkHUkhzRo9Hja5jxtMJRfP18nLFL")
	}, unaccepted},
	{"a secret in the query", secured, func(m *misuse, o operation) string {
		return strings.Replace(m.as(o), " HTTP/1.1", "?access_token="+m.userToken.Value+" HTTP/1.1", 1)
	}, []fault.Code{fault.MissingCredentials, fault.EnforcerKeyNeeded}},
	{"a token as API key", byKey, func(m *misuse, o operation) string {
		return m.as(o, "X-Auth-Email: "+m.admin.Email, "X-Auth-Key: "+m.userToken.Value)
	}, []fault.Code{fault.MalformedAPIKey}},
	{"an unknown API key", byKey, func(m *misuse, o operation) string {
		return m.as(o, "X-Auth-Email: "+m.admin.Email, "X-Auth-Key: wwk_2563982b7997767869d08bb120773ddb909343b54dfdae9c")
	}, []fault.Code{fault.InvalidAPIKey}},
	{"another's e-mail", byKey, func(m *misuse, o operation) string {
		return m.as(o, "X-Auth-Email: somebody@example.com", "X-Auth-Key: "+m.admin.APIKey)
	}, []fault.Code{fault.InvalidAPIKey}},
	{"no e-mail", byKey, func(m *misuse, o operation) string { return m.as(o, "X-Auth-Key: "+m.admin.APIKey) }, []fault.Code{fault.MalformedAuthEmail}},
	{"a bad e-mail", byKey, func(m *misuse, o operation) string {
		return m.as(o, "X-Auth-Email: not an address", "X-Auth-Key: "+m.admin.APIKey)
	}, []fault.Code{fault.MalformedAuthEmail}},
	{"a token without the permission", func(o operation) bool {
		return byKey(o) && !slices.Contains([]string{"listAccounts", "listZones", "listResources", "importDirectory", "getIncidentReceipts"}, o.id) // those answer with less, row by row, or not without a parameter
	}, func(m *misuse, o operation) string {
		return m.as(o, "Authorization: Bearer "+m.userToken.Value)
	}, []fault.Code{fault.NotPermitted, fault.PermissionMissing, fault.AccountNotFound, fault.ResourceNotFound}},
	{"an enforcer's key", byKey, func(m *misuse, o operation) string { return m.as(o, "Authorization: Bearer "+m.admin.EnforcerKey) }, unaccepted},
	{"a NUL in a header", anything, func(m *misuse, o operation) string { return m.as(o, "Authorization: Bearer a\x00b") }, nil},
	{"a bare CR in a header", anything, func(m *misuse, o operation) string { return m.as(o, "Authorization: Bearer a\rb") }, nil},
	{"headers without an end", anything, func(m *misuse, o operation) string { return m.as(o, "X-Filler: "+strings.Repeat("a", 64<<10)) }, nil},
	{"two lengths", takesBody, func(m *misuse, o operation) string { return m.with(o, "{}", "Content-Length: 5") }, nil},
	{"a bad Watchword-At-Least", verifies, func(m *misuse, o operation) string {
		return m.with(o, m.body(o), "Watchword-At-Least: -1")
	}, []fault.Code{fault.InvalidHeader}},
	{"two Watchword-At-Least", verifies, func(m *misuse, o operation) string {
		return m.with(o, m.body(o), "Watchword-At-Least: 1", "Watchword-At-Least: 1")
	}, []fault.Code{fault.InvalidHeader}},
	{"a bad Idempotency-Key", makesSecret, func(m *misuse, o operation) string {
		return m.with(o, m.body(o), "Idempotency-Key: "+strings.Repeat("k", 300))
	}, []fault.Code{fault.InvalidHeader}},
}

// absent are the codes of an id that is nobody's, or somebody else's.
var absent = []fault.Code{fault.TokenNotFound, fault.AccountNotFound, fault.EnforcerNotFound, fault.ConsumerNotFound, fault.UserNotFound, fault.MemberNotFound}

// paths are the bad ids and parameters.
var paths = []badness{
	{"an unknown id", idNeeded, func(m *misuse, o operation) string { return m.at(o, "00000000000000000000000000000001") }, absent},
	{"another owner's id", idNeeded, func(m *misuse, o operation) string {
		id := m.ownedToken.ID
		if m.token(o) == m.ownedToken {
			id = m.userToken.ID
		}
		return m.at(o, id)
	}, absent},
	{"the user's id", func(o operation) bool { return idNeeded(o) && !ofUser(o) }, func(m *misuse, o operation) string { return m.at(o, m.admin.UserID) }, absent},
	{"an id in capitals", hasID, func(m *misuse, o operation) string { return m.at(o, strings.ToUpper(strings.Repeat("a", 32))) }, []fault.Code{fault.InvalidID}},
	{"a short id", hasID, func(m *misuse, o operation) string { return m.at(o, strings.Repeat("a", 31)) }, []fault.Code{fault.InvalidID}},
	{"a long id", hasID, func(m *misuse, o operation) string { return m.at(o, strings.Repeat("a", 33)) }, []fault.Code{fault.InvalidID}},
	{"a very long id", hasID, func(m *misuse, o operation) string { return m.at(o, strings.Repeat("a", 3000)) }, []fault.Code{fault.InvalidID}},
	{"a NUL in an id", hasID, func(m *misuse, o operation) string { return m.at(o, strings.Repeat("a", 31)+"%00") }, []fault.Code{fault.InvalidID}},
	{"a line break in an id", hasID, func(m *misuse, o operation) string { return m.at(o, strings.Repeat("a", 31)+"%0d%0a") }, []fault.Code{fault.InvalidID}},
	{"a slash in an id", hasID, func(m *misuse, o operation) string { return m.at(o, "..%2f..%2fuser") }, []fault.Code{fault.InvalidID, fault.UnknownRoute}},
	{"no UTF-8 in an id", hasID, func(m *misuse, o operation) string { return m.at(o, "%ff%fe") }, []fault.Code{fault.InvalidID}},
	{"a path that climbs", anything, func(m *misuse, o operation) string {
		return lines(o.method, "/client/v4/../.."+m.fill(o, ""), m.good(o), m.body(o))
	}, []fault.Code{fault.UnknownRoute}},
	{"a double slash", anything, func(m *misuse, o operation) string {
		return lines(o.method, "/"+m.fill(o, ""), m.good(o), m.body(o))
	}, []fault.Code{fault.UnknownRoute}},
	{"a slash at the end", anything, func(m *misuse, o operation) string {
		return lines(o.method, m.fill(o, "")+"/", m.good(o), m.body(o))
	}, []fault.Code{fault.UnknownRoute}},
	{"an invented method", anything, func(m *misuse, o operation) string {
		return lines("BREW", m.fill(o, ""), m.good(o), m.body(o))
	}, []fault.Code{fault.MethodNotAllowed}},
	{"PATCH", func(o operation) bool {
		return !strings.HasSuffix(o.path, "/{user_id}") && !strings.HasSuffix(o.path, "/{zone}")
	}, func(m *misuse, o operation) string {
		return lines("PATCH", m.fill(o, ""), m.good(o), m.body(o))
	}, []fault.Code{fault.MethodNotAllowed}},
	{"a bad page", asks("page"), query("page=0"), []fault.Code{fault.InvalidParameter}},
	{"a negative page", asks("page"), query("page=-1"), []fault.Code{fault.InvalidParameter}},
	{"a page out of range", asks("page"), query("page=99999999999999999999"), []fault.Code{fault.InvalidParameter}},
	{"a page that is no number", asks("page"), query("page=%00"), []fault.Code{fault.InvalidParameter}},
	{"a bad per_page", asks("per_page"), query("per_page=0"), []fault.Code{fault.InvalidParameter}},
	{"a per_page that is no number", asks("per_page"), query("per_page=many"), []fault.Code{fault.InvalidParameter}},
	{"a bad direction", asks("direction"), query("direction=up"), []fault.Code{fault.InvalidParameter}},
	{"a bad include_expired", asks("include_expired"), query("include_expired=maybe"), []fault.Code{fault.InvalidParameter}},
}

func asks(name string) func(operation) bool {
	return func(o operation) bool { return slices.Contains(o.query, name) }
}

func query(q string) func(*misuse, operation) string {
	return func(m *misuse, o operation) string { return lines(o.method, m.fill(o, "")+"?"+q, m.good(o), "") }
}

// misused starts a server with something to be got wrong on it.
func misused(t *testing.T) *misuse {
	i := install(t)
	return &misuse{i, i.targets()}
}

// check sends a bad request, and requires a code of the catalogue, an answer
// that the OpenAPI document knows, and a ledger that has not moved.
func (m *misuse) check(t *testing.T, what string, o operation, request string, want []fault.Code) {
	t.Helper()
	before, err := m.head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	got, err := m.wire(method, request)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	after, err := m.head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if before != after {
		t.Errorf("%s: the ledger went from %d to %d", what, before, after)
	}
	if want == nil {
		if got.status != 400 && got.status != 431 {
			t.Errorf("%s: HTTP %d", what, got.status)
		}
		return
	}
	code, err := got.fault()
	if err != nil || !slices.Contains(want, code) {
		t.Errorf("%s: HTTP %d %q (%v), want one of %q: %.200s", what, got.status, code, err, want, got.body)
		return
	}
	if method == o.method && code != fault.UnknownRoute && !slices.Contains(o.statuses, got.status) {
		t.Errorf("%s: the OpenAPI document does not know HTTP %d", what, got.status)
	}
}

// TestBadInput gets every operation of the server's own OpenAPI document wrong
// in every way that it can be, over the real binary.
func TestBadInput(t *testing.T) {
	t.Parallel()
	m := misused(t)
	all := m.operations()
	asked := map[string]int{}
	for _, bad := range slices.Concat(bodies, headers, paths) {
		t.Run(bad.name, func(t *testing.T) {
			n := 0
			for _, o := range all {
				if !bad.of(o) {
					continue
				}
				n++
				asked[o.path+o.method]++
				m.check(t, o.method+" "+o.path, o, bad.ask(m, o), bad.want)
			}
			if n == 0 {
				t.Error("no operation can be got wrong this way")
			}
		})
	}
	for _, o := range all {
		if asked[o.path+o.method] < 5 {
			t.Errorf("%s %s was got wrong in %d ways only", o.method, o.path, asked[o.path+o.method])
		}
	}
	m.unharmed(t)
}

// unharmed checks what a server is like after all of that.
func (m *misuse) unharmed(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(m.log.String()) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic") {
			t.Errorf("a fault of ours: %s", line)
		}
	}
	for _, o := range []operation{{id: "verifyUserToken", path: userTokens + "/verify"}, {id: "verifyAccountToken", path: "/client/v4/accounts/{account_id}/tokens/verify"}} {
		if got := m.call(asked{"GET", m.fill(o, ""), bearer(m.token(o).Value), ""}); got.status != 200 {
			t.Errorf("a token that nobody changed: %d %s", got.status, got.body)
		}
	}
	if out, err := exec.CommandContext(t.Context(), binary, "--admin-file", m.data+"/admin.json", "fsck", "--data", m.data).CombinedOutput(); err != nil {
		t.Errorf("fsck: %v\n%s", err, out)
	}
}
