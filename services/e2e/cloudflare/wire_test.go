package cloudflare_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"
)

// TestDottedCondition sends both spellings of the condition at once, and those
// that say nothing.
func TestDottedCondition(t *testing.T) {
	t.Parallel()
	body := func(condition string) string {
		return `{"name":"dotted","policies":[{"id":"ignored","effect":"allow","resources":{"com.cloudflare.api.account.zone.` + zoneID + `":"*"},"permission_groups":[{"id":"` + dnsWrite + `","name":"x","meta":{"key":"a","value":"b"}}]}],"condition":` + condition + `}`
	}
	const both = `"condition":{"request_ip":{"in":["192.0.2.0/24"]},"request.ip":{"in":["192.0.2.0/24"]}}`
	for condition, want := range map[string]string{
		`{"request.ip":{"in":["192.0.2.0/24"]}}`:                                         both,
		`{"request_ip":{"in":["192.0.2.0/24"]}}`:                                         both,
		`{"request.ip":{"in":["192.0.2.0/24"]},"request_ip":{"in":["192.0.2.0/24"]}}`:    both,
		`{"request.ip":{"in":["192.0.2.0/24"]},"request_ip":{"in":["198.51.100.0/24"]}}`: "refused",
		`{"request.ip":{"in":["192.0.2.0/24"]},"request_ip":{}}`:                         "refused",
		`{}`:                  "",
		`null`:                "",
		`{"request.ip":null}`: "",
		`{"request.ip":{}}`:   "",
		`{"request_ip":{"in":null,"not_in":null}}`: "",
	} {
		status, text := raw(t, http.MethodPost, "/user/tokens", body(condition), key())
		var made struct {
			Result *struct {
				ID string `json:"id"`
			} `json:"result"`
		}
		if err := json.Unmarshal([]byte(text), &made); err != nil {
			t.Fatal(err)
		}
		if made.Result != nil {
			t.Cleanup(func() { del(t, "/user/tokens/"+made.Result.ID) })
		}
		switch {
		case want == "refused":
			if status != http.StatusBadRequest || made.Result != nil {
				t.Errorf("%s: %d %s", condition, status, text)
			}
		case status != http.StatusOK, want != "" && !strings.Contains(text, want), want == "" && strings.Contains(text, `"condition"`):
			t.Errorf("%s: %d %s", condition, status, text)
		}
	}
}

// TestBytes checks that policies, groups and resources come back in the order
// and the bytes in which they were sent, but for white space: Terraform's v5
// compares the text of resources.
func TestBytes(t *testing.T) {
	t.Parallel()
	const (
		zone     = "com.cloudflare.api.account.zone."
		flat     = `{"` + zone + `2f0c6b0f0a2b4c6d8e9f00112233aabb":"*","` + zone + `1f0c6b0f0a2b4c6d8e9f00112233aabb":"*"}`
		policies = `[{"effect":"deny","resources":` + flat + `,"permission_groups":[{"id":"` + zoneRead + `"},{"id":"` + dnsWrite + `"}]},` +
			`{"effect":"allow","resources":%s,"permission_groups":[{"id":"` + dnsWrite + `"}]}]`
	)
	nested := `{"com.cloudflare.api.account.` + server.Admin.AccountID + `":{"` + zone + `*":"*"}}`
	spaced := strings.NewReplacer(":", ": ", ",", " ,\n ").Replace(nested)
	for name, sent := range map[string]string{"compact": nested, "spaced": spaced} {
		status, text := raw(t, http.MethodPost, "/user/tokens", `{"name":"order","policies":`+fmt.Sprintf(policies, sent)+`}`, key())
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", name, status, text)
		}
		var made struct {
			Result struct {
				ID string `json:"id"`
			} `json:"result"`
		}
		if err := json.Unmarshal([]byte(text), &made); err != nil {
			t.Fatal(err)
		}
		_, again := raw(t, http.MethodGet, "/user/tokens/"+made.Result.ID, "", key())
		for _, want := range []string{
			`"resources":` + flat + `,"permission_groups":[{"id":"` + zoneRead + `","name":"Zone Read"},{"id":"` + dnsWrite + `","name":"DNS Write"}]}`,
			`"resources":` + nested + `,`,
		} {
			if !strings.Contains(text, want) || !strings.Contains(again, want) {
				t.Errorf("%s: %s or %s lacks %s", name, text, again, want)
			}
		}
		del(t, "/user/tokens/"+made.Result.ID)
	}
}

// del deletes as curl's users do: with a body that says nothing.
func del(t *testing.T, path string) {
	t.Helper()
	if status, text := raw(t, http.MethodDelete, path, "{}", key()); status != http.StatusOK {
		t.Errorf("delete: %d %s", status, text)
	}
}
