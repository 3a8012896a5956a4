package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events/fault"
)

// policies returns a body with these policies.
func policies(text string) string { return `{"name":"bad","policies":` + text + `}` }

// onePolicy returns a body with one policy of these parts.
func onePolicy(effect, resources, groups string) string {
	return policies(fmt.Sprintf(`[{"effect":%s,"resources":%s,"permission_groups":%s}]`, effect, resources, groups))
}

// extra returns a good body with more members.
func extra(members string) string {
	good := grant("bad", zoneID)
	return good[:len(good)-1] + "," + members + "}"
}

// tokenFields are bodies of a create or an update with a wrong value in it.
func tokenFields() map[string]struct {
	body string
	want fault.Code
} {
	const allow, groups = `"allow"`, `[{"id":"` + dnsWrite + `"}]`
	zone := `{"` + zoneType + zoneID + `":"*"}`
	named := func(name string) string { return strings.Replace(grant("bad", zoneID), `"bad"`, name, 1) }
	return map[string]struct {
		body string
		want fault.Code
	}{
		"no name":               {`{"policies":[]}`, fault.InvalidName},
		"an empty name":         {named(`""`), fault.InvalidName},
		"a blank name":          {named(`"  "`), fault.InvalidName},
		"a long name":           {named(`"` + strings.Repeat("n", 121) + `"`), fault.InvalidName},
		"CR and LF in the name": {named(`"a\r\nb"`), fault.InvalidText},
		"a NUL in the name":     {named(`"a\u0000b"`), fault.InvalidText},
		"a name of a number":    {named(`5`), fault.InvalidJSON},

		"no policies":             {`{"name":"bad"}`, fault.InvalidPolicies},
		"null policies":           {policies(`null`), fault.InvalidPolicies},
		"an empty list":           {policies(`[]`), fault.InvalidPolicies},
		"policies of a string":    {policies(`"all"`), fault.InvalidJSON},
		"20,000 empty policies":   {policies(`[` + strings.Repeat(`{},`, 19_999) + `{}]`), fault.InvalidPolicies},
		"300 policies":            {policies(`[` + strings.Repeat(`{"effect":"allow","resources":`+zone+`,"permission_groups":`+groups+`},`, 299) + `{}]`), fault.InvalidPolicies},
		"an effect":               {onePolicy(`"maybe"`, zone, groups), fault.InvalidEffect},
		"no effect":               {onePolicy(`null`, zone, groups), fault.InvalidEffect},
		"no groups":               {onePolicy(allow, zone, `[]`), fault.InvalidPolicies},
		"an unknown group":        {onePolicy(allow, zone, `[{"id":"00000000000000000000000000000001"}]`), fault.UnknownPermissionGroup},
		"a group by name":         {onePolicy(allow, zone, `[{"name":"DNS Write"}]`), fault.UnknownPermissionGroup},
		"a group with a NUL":      {onePolicy(allow, zone, `[{"id":"\u0000"}]`), fault.UnknownPermissionGroup},
		"no resources":            {onePolicy(allow, `{}`, groups), fault.InvalidResources},
		"null resources":          {onePolicy(allow, `null`, groups), fault.InvalidResources},
		"resources of a list":     {onePolicy(allow, `["*"]`, groups), fault.InvalidResources},
		"an unknown type":         {onePolicy(allow, `{"com.example.thing.x":"*"}`, groups), fault.InvalidResources},
		"a resource of no id":     {onePolicy(allow, `{"`+zoneType+`":"*"}`, groups), fault.InvalidResources},
		"a resource with a NUL":   {onePolicy(allow, `{"`+zoneType+`a\u0000":"*"}`, groups), fault.InvalidResources},
		"a value but a star":      {onePolicy(allow, `{"`+zoneType+zoneID+`":"read"}`, groups), fault.InvalidResources},
		"flat and nested":         {onePolicy(allow, `{"`+zoneType+zoneID+`":"*","com.cloudflare.api.account.*":{"`+zoneType+`*":"*"}}`, groups), fault.InvalidResources},
		"nested twice":            {onePolicy(allow, `{"com.cloudflare.api.account.*":{"`+zoneType+`*":{"x":"*"}}}`, groups), fault.InvalidResources},
		"another scope":           {onePolicy(allow, `{"com.cloudflare.api.account.*":"*"}`, groups), fault.GroupScopeMismatch},
		"a duplicate resource":    {onePolicy(allow, `{"`+zoneType+zoneID+`":"*","`+zoneType+zoneID+`":"*"}`, groups), fault.DuplicateKey},
		"another user's tokens":   {onePolicy(allow, `{"com.cloudflare.api.user.00000000000000000000000000000001":"*"}`, `[{"id":"686d18d5ac6c441c867cbf6771e58a0a"}]`), fault.GroupNotHeld},
		"a foreign account":       {onePolicy(allow, `{"com.cloudflare.api.account.00000000000000000000000000000001":{"`+zoneType+`*":"*"}}`, groups), fault.GroupNotHeld},
		"a status":                {extra(`"status":"revoked"`), fault.InvalidStatus},
		"a status of a number":    {extra(`"status":1`), fault.InvalidJSON},
		"a CIDR of nonsense":      {extra(`"condition":{"request_ip":{"in":["everywhere"]}}`), fault.InvalidCIDR},
		"a CIDR too wide":         {extra(`"condition":{"request_ip":{"in":["192.0.2.0/33"]}}`), fault.InvalidCIDR},
		"a CIDR out of range":     {extra(`"condition":{"request_ip":{"not_in":["192.0.2.256/32"]}}`), fault.InvalidCIDR},
		"a CIDR of v6":            {extra(`"condition":{"request_ip":{"in":["2001:db8::/129"]}}`), fault.InvalidCIDR},
		"a CIDR with a zone":      {extra(`"condition":{"request_ip":{"in":["fe80::1%eth0/64"]}}`), fault.InvalidCIDR},
		"a CIDR with a NUL":       {extra(`"condition":{"request_ip":{"in":["192.0.2.1\u0000"]}}`), fault.InvalidCIDR},
		"the other spelling":      {extra(`"condition":{"request.ip":{"in":["x"]}}`), fault.InvalidCIDR},
		"two spellings":           {extra(`"condition":{"request.ip":{"in":["192.0.2.1"]},"request_ip":{"in":["192.0.2.2"]}}`), fault.ConditionMismatch},
		"many CIDRs":              {extra(`"condition":{"request_ip":{"in":[` + strings.Repeat(`"192.0.2.1",`, 4000) + `"192.0.2.1"]}}`), fault.InvalidCondition},
		"a condition of text":     {extra(`"condition":"none"`), fault.InvalidJSON},
		"a time of nonsense":      {extra(`"expires_on":"tomorrow"`), fault.InvalidTimes},
		"a date":                  {extra(`"expires_on":"2099-01-01"`), fault.InvalidTimes},
		"a 13th month":            {extra(`"expires_on":"2099-13-01T00:00:00Z"`), fault.InvalidTimes},
		"the year 10000":          {extra(`"expires_on":"10000-01-01T00:00:00Z"`), fault.InvalidTimes},
		"the year 0":              {extra(`"not_before":"0000-01-01T00:00:00Z"`), fault.InvalidTimes},
		"an end before the start": {extra(`"not_before":"2099-01-02T00:00:00Z","expires_on":"2099-01-01T00:00:00Z"`), fault.InvalidTimes},
		"a time of a number":      {extra(`"expires_on":4102444800`), fault.InvalidJSON},
	}
}

// TestBadFields sends creates and updates of both kinds of token with every
// value wrong in turn.
func TestBadFields(t *testing.T) {
	t.Parallel()
	m := misused(t)
	all := m.operations()
	for name, c := range tokenFields() {
		t.Run(name, func(t *testing.T) {
			for _, id := range []string{"createUserToken", "createAccountToken", "updateUserToken", "updateAccountToken"} {
				o := find(t, all, id)
				m.check(t, id, o, m.with(o, c.body), []fault.Code{c.want})
			}
		})
	}
	others := []struct {
		id, body string
		want     fault.Code
	}{
		{"rollUserToken", `{"grace":"-1s"}`, fault.InvalidGrace},
		{"rollUserToken", `{"grace":"87600000h"}`, fault.InvalidGrace},
		{"rollUserToken", `{"grace":1e300}`, fault.InvalidGrace},
		{"rollUserToken", `{"grace":"\u0000"}`, fault.InvalidGrace},
		{"rollUserToken", `{"grace":[]}`, fault.InvalidGrace},
		{"rollAccountToken", `{"force":"yes"}`, fault.InvalidJSON},
		{"revokeUserToken", `{"reason":"a\r\nb"}`, fault.InvalidText},
		{"revokeAccountToken", `{"reason":"a\u0000b"}`, fault.InvalidText},
		{"revokeUserToken", `{"reason":"` + strings.Repeat("r", 60_000) + `"}`, fault.InvalidReason},
		{"disableUserToken", `{"reason":5}`, fault.InvalidJSON},
		{"enableAccountToken", `{"reason":"\u001b[2J"}`, fault.InvalidText},
		{"enrollEnforcer", `{}`, fault.InvalidName},
		{"enrollEnforcer", `{"name":"a\u0000"}`, fault.InvalidText},
		{"enrollEnforcer", `{"name":"a","region":"a b"}`, fault.InvalidField},
		{"enrollEnforcer", `{"name":"a","region":"` + strings.Repeat("r", 64) + `"}`, fault.InvalidField},
		{"enrollEnforcer", `{"name":"a","ceiling_seconds":-1}`, fault.InvalidField},
		{"enrollEnforcer", `{"name":"a","ceiling_seconds":86401}`, fault.InvalidField},
		{"enrollEnforcer", `{"name":"a","ceiling_seconds":1e12}`, fault.InvalidJSON},
		{"enrollEnforcer", `{"name":"a","nkey":"U"}`, fault.InvalidField},
		{"enrollConsumer", `{"name":"a"}`, fault.InvalidField},
		{"enrollConsumer", `{"name":"a","nkey":"SUAKGEFGDZCKEFGRHVLGZRLTUWBUYMNQKQCFYNTLEYJRUA7XFVIKSG4UAU"}`, fault.InvalidField},
		{"enrollConsumer", `{"nkey":"x"}`, fault.InvalidName},
		{"retireConsumer", `{"reason":"\u0007"}`, fault.InvalidText},
		{"retireEnforcer", `{"reason":"\u0007"}`, fault.InvalidText},
		{"verify", `{}`, fault.InvalidVerifyRequest},
		{"verify", `{"secret":"x"}`, fault.InvalidVerifyRequest},
		{"verify", `{"secret":5,"permission":"p"}`, fault.InvalidVerifyRequest},
		{"verify", `{"secret":"x","permission":"p","resource":"r"}`, fault.InvalidVerifyRequest},
		{"verify", `{"secret":"x","permission":"p","resource":[1]}`, fault.InvalidVerifyRequest},
		{"verify", `{"secret":"x","permission":"p","resource":[` + strings.Repeat(`"r",`, 100) + `"r"]}`, fault.InvalidVerifyRequest},
		{"verify", `{"secret":"x","permission":"p","client_ip":"192.0.2.0/24"}`, fault.InvalidVerifyRequest},
		{"verify", `{"secret":"x","permission":"p","client_ip":"fe80::1%eth0"}`, fault.InvalidVerifyRequest},
		{"verify", `{"requests":{}}`, fault.InvalidVerifyRequest},
		{"verify", `{"requests":[],"secret":"x","permission":"p"}`, fault.InvalidVerifyRequest},
		{"verify", `[` + strings.Repeat(`{"secret":"x","permission":"p"},`, 1000) + `{"secret":"x","permission":"p"}]`, fault.BatchTooLarge},
		{"verify", `[{"secret":"x","permission":"p"},5]`, fault.InvalidVerifyRequest},
	}
	for n, c := range others {
		o := find(t, all, c.id)
		m.check(t, fmt.Sprintf("%d: %s %.60s", n, c.id, c.body), o, m.with(o, c.body), []fault.Code{c.want})
	}
	m.unharmed(t)
}

func find(t *testing.T, all []operation, id string) operation {
	t.Helper()
	n := slices.IndexFunc(all, func(o operation) bool { return o.id == id })
	if n < 0 {
		t.Fatalf("/openapi.json has no operation %s", id)
	}
	return all[n]
}

// TestNothingToSay checks questions of enforcers that are odd and yet have an
// answer: no.
func TestNothingToSay(t *testing.T) {
	t.Parallel()
	m := misused(t)
	secret := m.userToken.Value
	chain := `["` + zoneType + zoneID + `"]`
	for _, c := range []struct{ secret, permission, resource, reason string }{
		{secret[:47], "dns.records.write", chain, "malformed"},
		{"", "dns.records.write", chain, "malformed"},
		{`a\u0000b`, "dns.records.write", chain, "malformed"},
		{`a\r\nb`, "dns.records.write", chain, "malformed"},
		{strings.Repeat("a", 100_000), "dns.records.write", chain, "malformed"},
		{"wwu_2nf70CwLdjhc7DaClkHUkhzRo9Hja5jxtMJRfP18nLFL", "dns.records.write", chain, "unknown"},
		{m.admin.APIKey[:50] + "00", "dns.records.write", chain, "malformed"},
		{m.admin.APIKey, "", chain, "unknown_permission"},
		{m.admin.APIKey, "dns.records.write", `[]`, "no_policy"},
		{m.admin.APIKey, "dns.records.write", `["` + zoneType + zoneID + `\u0000"]`, "no_policy"},
		{m.admin.APIKey, "dns.records.write", `["*"]`, "no_policy"},
		{m.admin.EnforcerKey, "dns.records.write", chain, "unknown"},
		{secret, "", chain, "unknown_permission"},
		{secret, `dns.records.write\u0000`, chain, "unknown_permission"},
		{secret, strings.Repeat("p", 100_000), chain, "unknown_permission"},
		{secret, "dns.records.write", `[]`, "no_policy"},
		{secret, "dns.records.write", `["` + zoneType + zoneID + `\u0000"]`, "no_policy"},
		{secret, "dns.records.write", `["` + zoneType + `*"]`, "no_policy"},
		{secret, "dns.records.write", `["*"]`, "no_policy"},
	} {
		body := fmt.Sprintf(`{"secret":"%s","permission":"%s","resource":%s}`, c.secret, c.permission, c.resource)
		a := asked{http.MethodPost, "/v1/verify", m.speaker.enforcer(), body}
		head, err := m.head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a.header.Set("Watchword-At-Least", fmt.Sprint(head))
		got := m.call(a)
		var d struct {
			Decision string `json:"decision"`
			Reason   string `json:"reason"`
		}
		if err := json.Unmarshal(got.body, &d); err != nil || got.status != http.StatusOK || d.Decision != "deny" || d.Reason != c.reason {
			t.Errorf("%.120s: %d %s, want deny and %s", body, got.status, got.body, c.reason)
		}
	}
	// What is not known is ignored, as Cloudflare does.
	var made tokenResult
	m.must(asked{http.MethodPost, userTokens, m.operator(), extra(`"id":"x","issued_on":"never","value":"mine","modified_on":5,"unknown":{"a":[1,2,3]},"last_used_on":null,"condition":{},"expires_on":null`)}, &made)
	if made.ID == "x" || made.Value == "mine" || made.Status != "active" {
		t.Errorf("unknown fields: %+v", made)
	}
	// A roll without a body is one; so is the empty chunked one of cloudflare-go v6.
	for _, request := range []string{
		lines(http.MethodPut, userTokens+"/"+made.ID+"/value", m.good(operation{auth: "key"}), ""),
		lines(http.MethodPut, userTokens+"/"+made.ID+"/value", append(m.good(operation{auth: "key", media: jsonContent}), "Transfer-Encoding: chunked"), "0\r\n\r\n"),
	} {
		if got, err := m.wire(http.MethodPut, request); err != nil || got.status != http.StatusOK {
			t.Errorf("a roll without a body: %d %s, %v", got.status, got.body, err)
		}
	}
}
