package cli

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func TestSinceDays(t *testing.T) {
	for in, want := range map[string]int{"30d": 30, "1d": 1, "90d": 90, "72h": 3, "73h": 4, "1h": 1, "91d": 0, "0d": 0, "-1d": 0, "": 0, "30": 0, "d": 0} {
		if got, err := sinceDays(in); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d (%v), want %d", in, got, err, want)
		}
	}
}

// TestCreatingCommand: what is printed does what is proposed, whatever stands in
// names.
func TestCreatingCommand(t *testing.T) {
	groups := []groupView{{ID: "1", Name: "DNS Write"}, {ID: "2", Name: "it's $(mine)"}}
	policy := func(resources string) policyView {
		return policyView{Effect: "allow", Resources: jsontext.Value(resources), Groups: groups}
	}
	const body = `[{"effect":"allow","resources":{"com.cloudflare.api.account.a":{"com.cloudflare.api.account.zone.*":"*"}},"permission_groups":[{"id":"1"},{"id":"2"}]}]`
	for want, policies := range map[string][]policyView{
		`watchword token create --name 'a b' --permission 'DNS Write' --permission 'it'\''s $(mine)' --zone z1 --zone z2`: {
			policy(`{"com.cloudflare.api.account.zone.z2":"*","com.cloudflare.api.account.zone.z1":"*"}`)},
		`watchword token create --name 'a b' --permission 'DNS Write' --permission 'it'\''s $(mine)' --resource com.cloudflare.api.account.a`: {
			policy(`{"com.cloudflare.api.account.a":"*"}`)},
		`echo '` + body + `' | watchword token create --name 'a b' --policies -`: {
			policy(`{"com.cloudflare.api.account.a":{"com.cloudflare.api.account.zone.*":"*"}}`)},
	} {
		if got := creatingCommand(&legacyProposalView{Name: "a b", Policies: policies}); got != want {
			t.Errorf("got\n%s, want\n%s", got, want)
		}
	}
}
