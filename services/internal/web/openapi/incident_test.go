package openapi_test

import (
	"flag"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword.dev/events/fault"
	"watchword.dev/events/token"
)

const incidentPath = "/client/v4/incident/revocations"

// incidentView is the answer of a preview or a revocation of many tokens.
type incidentView struct {
	Sweep    bool `json:"sweep"`
	Tokens   int  `json:"tokens"`
	Examined int  `json:"examined"`
	Through  int  `json:"through"`
	First    []struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"first"`
	Next     string `json:"next"`
	APIKey   bool   `json:"api_key"`
	Revoked  int    `json:"revoked"`
	Sequence int    `json:"sequence"`
	By       string `json:"by"`
	Selected string `json:"selected"`
	Last     string `json:"last_token_id"`
}

func (v *incidentView) names() (all []string) {
	for _, t := range v.First {
		all = append(all, t.Name)
	}
	return all
}

// TestIncidentSweep sweeps the tokens of a user: previewed, confirmed by the
// count, refused everywhere at once, and not done again.
func TestIncidentSweep(t *testing.T) {
	l := newLab(t)
	operator, them := l.admin.header(), l.rival.header()
	theirs := zoneKeyOf(l)
	var secrets []string
	for i := range 3 {
		secrets = append(secrets, l.create(userTokens, them, grant(fmt.Sprint("theirs ", i), dnsWrite, theirs)).Value)
	}
	other := l.create(userTokens, operator, grant("the operator's", dnsWrite, zone)).Value
	body := `{"owner":"` + l.rival.email + `"`
	var v incidentView
	l.do("POST", incidentPath+"/preview", operator, body+`,"limit":2}`, 200, 0).into(t, &v)
	if !v.Sweep || v.Tokens != 3 || !slices.Equal(v.names(), []string{"theirs 0", "theirs 1"}) || v.Next == "" || !v.APIKey || v.Revoked != 0 {
		t.Errorf("the preview: %+v", v)
	}
	conflict, field := faultNumber(t, fault.Conflict), faultNumber(t, fault.InvalidField)
	l.do("POST", incidentPath, operator, body+`}`, 400, field)
	l.do("POST", incidentPath, operator, body+`,"confirm":false}`, 400, field)
	l.do("POST", incidentPath, operator, body+`,"confirm":2}`, 400, conflict)
	for _, s := range secrets {
		l.do("GET", userTokens+"/verify", bearer(s), nil, 200, 0)
	}
	l.do("POST", incidentPath, operator, body+`,"confirm":3,"reason":"laptop stolen"}`, 200, 0).into(t, &v)
	if v.Revoked != 3 || v.By != "owner" || v.Selected != l.rival.id.String() || v.Sequence == 0 {
		t.Errorf("the sweep: %+v", v)
	}
	for _, s := range secrets {
		if a := l.send(l.request("GET", userTokens+"/verify", bearer(s), nil)); a.StatusCode < 400 {
			t.Errorf("a swept token verifies: %s", a.body)
		}
	}
	l.do("GET", userTokens+"/verify", bearer(other), nil, 200, 0)
	fresh := l.create(userTokens, them, grant("fresh", dnsWrite, theirs)).Value
	l.do("GET", userTokens+"/verify", bearer(fresh), nil, 200, 0)
	head := l.ledger.Head()
	bounded := body + fmt.Sprintf(`,"through":%d`, v.Through)
	var again incidentView
	l.do("POST", incidentPath, operator, bounded+`,"confirm":true}`, 200, 0).into(t, &again)
	if again.Revoked != 0 || again.Tokens != 0 || l.ledger.Head() != head {
		t.Errorf("the same again: %+v", again)
	}
	l.do("GET", userTokens+"/verify", bearer(fresh), nil, 200, 0)
	l.do("POST", incidentPath, them, `{"owner":"`+l.rival.id.String()+`","confirm":1}`, 200, 0).into(t, &v)
	if a := l.send(l.request("GET", userTokens+"/verify", bearer(fresh), nil)); a.StatusCode < 400 {
		t.Errorf("a token that its owner swept verifies: %s", a.body)
	}
}

// TestIncidentReceipts asks who has heard of a sweep and of a revocation.
func TestIncidentReceipts(t *testing.T) {
	l := newLab(t)
	operator := l.admin.header()
	var v incidentView
	l.create(l.rival.accountTokens(), l.rival.header(), grant("a", dnsWrite, zoneKeyOf(l)))
	l.do("POST", incidentPath, operator, `{"account":"`+l.rival.account.String()+`","confirm":true}`, 200, 0).into(t, &v)
	at := fmt.Sprintf("%s/receipts?sequence=%d", incidentPath, v.Sequence)
	if v.By != "account" || v.Revoked != 1 {
		t.Errorf("the sweep: %+v", v)
	}
	a := l.do("GET", at+"&by="+v.By+"&selected="+v.Selected, operator, nil, 200, 0)
	if !strings.Contains(string(a.body), `"type":"watchword.revocation.swept.v1"`) {
		t.Errorf("%s", a.body)
	}
	l.do("GET", at+"&by="+v.By+"&selected="+v.Selected, l.rival.header(), nil, 200, 0)
	l.do("GET", at+"&by=all", operator, nil, 404, faultNumber(t, fault.ObjectNotFound))
	l.do("GET", at+"&by=all", l.rival.header(), nil, 403, faultNumber(t, fault.NotPermitted))
	l.do("GET", incidentPath+"/receipts?by=all", operator, nil, 400, faultNumber(t, fault.InvalidParameter))

	id := l.create(userTokens, l.rival.header(), grant("ci-1", dnsWrite, zoneKeyOf(l))).ID
	l.do("POST", incidentPath, operator, `{"name_prefix":"ci-","confirm":true}`, 200, 0).into(t, &v)
	if v.Sweep || v.Last != id || v.Revoked != 1 {
		t.Errorf("the revocation: %+v", v)
	}
	at = fmt.Sprintf("%s/receipts?sequence=%d&token_id=%s", incidentPath, v.Sequence, id)
	a = l.do("GET", at, operator, nil, 200, 0)
	if !strings.Contains(string(a.body), `"type":"watchword.token.revoked.v1"`) {
		t.Errorf("%s", a.body)
	}
	l.do("GET", at, l.rival.header(), nil, 200, 0)
}

func zoneKeyOf(l *lab) string { return typeZone + "." + l.zoneOf(l.rival) }

// TestIncidentSelectors revokes by what no sweep can say, two tokens at a time,
// and looks at what is left.
func TestIncidentSelectors(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		want []string // what is revoked, of those below
	}{
		"by name":               {`"name_prefix":"ci-"`, []string{"ci-1", "ci-2", "ci-3"}},
		"by name, one owner's":  {`"name_prefix":"ci-","owner":"RIVAL"`, []string{"ci-2", "ci-3"}},
		"by permission":         {`"permission":"dns.records.write"`, []string{"ci-1", "ci-2", "ci-3", "x"}},
		"by group":              {`"permission":"` + dnsWrite + `","owner":"ADMIN"`, []string{"ci-1", "x"}},
		"by resource":           {`"resource":"` + zone + `"`, []string{"ci-1", "x"}},
		"by their resource":     {`"resource":"THEIRS"`, []string{"ci-2", "ci-3"}},
		"by another resource":   {`"resource":"` + typeZone + `.00000000000000000000000000000abc"`, nil},
		"by maker":              {`"created_by":"RIVAL"`, []string{"ci-2", "ci-3"}},
		"never used":            {`"unused_since":"2020-01-01T00:00:00Z","owner":"RIVAL"`, []string{"ci-2", "ci-3"}},
		"used":                  {`"used_since":"2020-01-01T00:00:00Z"`, nil},
		"of a template":         {`"template":"edit-zone-dns","owner":"RIVAL"`, nil},
		"made before all of it": {`"created_before":"2020-01-01T00:00:00Z","all":true`, nil},
		"made before now":       {`"created_before":"NOW","all":true`, []string{"ci-1", "ci-2", "ci-3", "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			operator := l.admin.header()
			l.create(userTokens, operator, grant("ci-1", dnsWrite, zone))
			theirs := zoneKeyOf(l)
			l.create(userTokens, l.rival.header(), grant("ci-2", dnsWrite, theirs))
			l.create(userTokens, l.rival.header(), grant("ci-3", dnsWrite, theirs))
			l.create(userTokens, operator, grant("x", dnsWrite, zone))
			body := strings.NewReplacer("RIVAL", l.rival.id.String(), "ADMIN", l.admin.id.String(),
				"THEIRS", theirs, "NOW", time.Now().UTC().Format(time.RFC3339Nano)).Replace(test.body)
			walk := func(path, rest string) (names []string, revoked int) {
				for after := ""; ; {
					var v incidentView
					l.do("POST", path, operator, `{`+body+`,"limit":2`+rest+after+`}`, 200, 0).into(t, &v)
					names, revoked = append(names, v.names()...), revoked+v.Revoked
					if v.Next == "" || v.Sweep && path == incidentPath {
						return names, revoked
					}
					after = `,"after":"` + v.Next + `"`
				}
			}
			names, _ := walk(incidentPath+"/preview", "")
			if slices.Sort(names); !slices.Equal(names, test.want) {
				t.Errorf("previewed %q, want %q", names, test.want)
			}
			if _, n := walk(incidentPath, `,"confirm":true`); n != len(test.want) {
				t.Errorf("revoked %d, want %d", n, len(test.want))
			}
			var left []tokenView
			for _, as := range []person{l.admin, l.rival} {
				var some []tokenView
				l.do("GET", userTokens, as.header(), nil, 200, 0).into(t, &some)
				left = append(left, some...)
			}
			if len(left) != 4-len(test.want) || slices.ContainsFunc(left, func(v tokenView) bool { return slices.Contains(test.want, v.Name) }) {
				t.Errorf("left: %+v", left)
			}
			if names, _ := walk(incidentPath+"/preview", ""); len(names) != 0 {
				t.Errorf("still there: %q", names)
			}
		})
	}
}

// TestIncidentsAreForWhoMay checks that what belongs to others and what does not
// exist are answered alike.
func TestIncidentsAreForWhoMay(t *testing.T) {
	l := newLab(t)
	them, refused := l.rival.header(), faultNumber(t, fault.NotPermitted)
	const nobody = "00000000000000000000000000000001"
	for _, path := range []string{incidentPath, incidentPath + "/preview"} {
		bodies := map[string]string{}
		for _, body := range []string{
			`"owner":"` + l.admin.id.String() + `"`, `"owner":"` + l.admin.email + `"`, `"owner":"nobody@example.com"`, `"owner":"` + nobody + `"`,
			`"account":"` + l.admin.account.String() + `"`, `"account":"` + nobody + `"`, `"all":true`, `"template":"x"`, `"name_prefix":"x"`,
			`"owner":"` + l.admin.account.String() + `","name_prefix":"x"`,
		} {
			a := l.do("POST", path, them, `{`+body+`,"confirm":true}`, 403, refused)
			bodies[string(a.body)] = body
		}
		if len(bodies) != 1 {
			t.Errorf("%s answers in %d ways: %v", path, len(bodies), bodies)
		}
		operator, field := l.admin.header(), faultNumber(t, fault.InvalidField)
		for _, body := range []string{
			`{}`, `{"confirm":true}`, `{"owner":"x"}`, `{"account":"a@example.com"}`, `{"owner":"` + nobody + `","all":true}`,
			`{"all":true,"limit":0}`, `{"all":true,"limit":10001}`, `{"all":true,"after":"x"}`, `{"all":true,"through":1000000}`,
			`{"all":true,"created_before":"2200-01-01T00:00:00Z"}`, `{"permission":"no.such"}`, `{"resource":"x"}`, `{"created_by":"x"}`,
		} {
			l.do("POST", path, operator, body, 400, field)
		}
		l.do("POST", path, operator, `{"owner":"`+nobody+`"}`, 404, faultNumber(t, fault.ObjectNotFound))
		l.do("POST", path, operator, `{"owner":"nobody@example.com"}`, 404, faultNumber(t, fault.UserNotFound))
	}
}

// tryIncident sends a good request to every route about very many tokens.
func (l *lab) tryIncident(try func(method, path, pattern string, as http.Header, body any) *answer) {
	as := l.admin.header()
	for range 2 {
		l.create(l.admin.accountTokens(), as, grant("n", dnsWrite, zone))
	}
	all := `{"account":"` + l.admin.account.String() + `","created_before":"` + time.Now().UTC().Format(time.RFC3339Nano) + `","limit":1`
	var v incidentView
	try("POST", incidentPath+"/preview", incidentPath+"/preview", as, all+`}`)
	try("POST", incidentPath, incidentPath, as, all+`,"reason":"why","confirm":2}`).into(l.t, &v)
	receipts := fmt.Sprintf("%s/receipts?sequence=%d", incidentPath, v.Sequence)
	try("GET", receipts+"&by="+v.By+"&selected="+v.Selected, incidentPath+"/receipts", as, nil)
	l.create(l.admin.accountTokens(), as, grant("ci-1", dnsWrite, zone))
	for _, body := range []string{
		`{"owner":"` + l.admin.id.String() + `","template":"x","name_prefix":"ci-","permission":"dns.records.write","resource":"` + zone + `","limit":10000}`,
		`{"created_by":"` + l.admin.id.String() + `","unused_since":"2020-01-01T00:00:00Z","used_since":"2020-01-01T00:00:00Z","through":1}`,
		`{"all":true}`, `{"template":"x"}`,
	} {
		try("POST", incidentPath+"/preview", incidentPath+"/preview", as, body)
	}
	try("POST", incidentPath, incidentPath, as, `{"name_prefix":"ci-","confirm":true}`).into(l.t, &v)
	try("GET", fmt.Sprintf("%s/receipts?sequence=%d&token_id=%s", incidentPath, v.Sequence, v.Last), incidentPath+"/receipts", as, nil)
}

var burst = flag.Int("burst", 300, "how many tokens TestIncidentBurst revokes")

// TestIncidentBurst revokes very many tokens by one event each while somebody
// asks about one that stays and one that had ended before: every answer is right,
// and at the end the index is where the ledger is.
func TestIncidentBurst(t *testing.T) {
	l := newLab(t)
	operator := l.admin.header()
	stays := l.create(userTokens, operator, grant("stays", dnsWrite, zone)).Value
	ended := l.create(userTokens, operator, grant("ended", dnsWrite, zone))
	l.do("DELETE", userTokens+"/"+ended.ID, operator, nil, 200, 0)
	var secrets []string
	for i := range *burst {
		secrets = append(secrets, l.create(userTokens, operator, grant(fmt.Sprint("ci-", i), dnsWrite, zone)).Value)
	}
	decide := func(secret string) token.Decision {
		return l.index.Verify(secret, &token.Request{Permission: "dns.records.write", Resource: []string{zone}, Address: netip.MustParseAddr("127.0.0.1")})
	}
	stop, wrong := make(chan struct{}), make(chan string, 1)
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if d, e := decide(stays), decide(ended.Value); d.Verdict != token.VerdictAllow || e.Reason != token.ReasonRevoked {
				select {
				case wrong <- fmt.Sprintf("%+v, %+v", d, e):
				default:
				}
			}
		}
	})
	revoked := 0
	for after := ""; ; {
		var v incidentView
		l.do("POST", incidentPath, operator, `{"name_prefix":"ci-","confirm":true,"limit":10000`+after+`}`, 200, 0).into(t, &v)
		if revoked += v.Revoked; v.Next == "" {
			break
		}
		after = `,"after":"` + v.Next + `"`
	}
	close(stop)
	asking.Wait()
	select {
	case w := <-wrong:
		t.Errorf("an answer during the burst: %s", w)
	default:
	}
	if revoked != *burst {
		t.Errorf("revoked %d of %d", revoked, *burst)
	}
	head := l.ledger.Head()
	if err := l.index.Wait(t.Context(), head); err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets {
		if d := decide(s); d.Reason != token.ReasonRevoked || d.Sequence < head {
			t.Fatalf("a revoked token: %+v", d)
		}
	}
}
