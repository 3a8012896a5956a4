package cloudflare_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"
)

// The forms that clients demand of a secret before they send anything.
var (
	terraformToken = regexp.MustCompile(`^[0-9A-Za-z\-_]{40,80}$`)
	terraformKey   = regexp.MustCompile(`^[0-9A-Za-z\-_]{37,60}$`)
	terraform4Key  = regexp.MustCompile(`[0-9a-f]{37}`)
	caddyToken     = regexp.MustCompile(`^[A-Za-z0-9_-]{35,50}$`)
)

// routes are the two places of tokens.
func routes() []string {
	return []string{"/user/tokens", "/accounts/" + server.Admin.AccountID + "/tokens"}
}

const body = `{"name":"curl","policies":[{"effect":"allow","resources":{"` + zoneScope + "." + zoneID + `":"*"},"permission_groups":[{"id":"` + dnsWrite + `"}]}]}`

// made is what shell users cut out of an answer.
type made struct{ id, value string }

// create makes a token as curl's users do.
func create(t *testing.T, at string) made {
	t.Helper()
	status, text := raw(t, http.MethodPost, at, body, key())
	id, value := between(text, `"id":"`), between(text, `"value":"`)
	if status != http.StatusOK || id == "" || value == "" || !strings.Contains(text, `"success":true`) {
		t.Fatalf("create: %d %s", status, text)
	}
	t.Cleanup(func() { raw(t, http.MethodDelete, at+"/"+id, "", key()) })
	return made{id, value}
}

// between returns what grep and cut make of an answer: the text from after to
// the next quote.
func between(text, after string) string {
	_, rest, _ := strings.Cut(text, after)
	found, _, _ := strings.Cut(rest, `"`)
	return found
}

func with(secret string, more ...string) http.Header {
	h := http.Header{"Authorization": {"Bearer " + secret}}
	for i := 0; i < len(more); i += 2 {
		h.Set(more[i], more[i+1])
	}
	return h
}

// TestSecretForms checks that every secret passes what clients look at.
func TestSecretForms(t *testing.T) {
	t.Parallel()
	for _, at := range routes() {
		m := create(t, at)
		_, text := raw(t, http.MethodPut, at+"/"+m.id+"/value", "{}", key())
		for _, secret := range []string{m.value, between(text, `"result":"`)} {
			if !terraformToken.MatchString(secret) || !caddyToken.MatchString(secret) {
				t.Errorf("%s: a secret of %d characters passes no client", at, len(secret))
			}
		}
	}
	if k := server.Admin.APIKey; !terraformKey.MatchString(k) || !terraform4Key.MatchString(k) {
		t.Errorf("a key of %d characters passes no client", len(k))
	}
}

// TestGrep checks the texts that scripts and scanners look for.
func TestGrep(t *testing.T) {
	t.Parallel()
	for _, at := range routes() {
		m := create(t, at)
		status, text := raw(t, http.MethodGet, at+"/verify", "", with(m.value, "Content-Type", "application/json"))
		want := `{"result":{"id":"` + m.id + `","status":"active"},"success":true,"errors":[],"messages":[{"code":10000,"message":"This API Token is valid and active","type":null}]}`
		if status != http.StatusOK || text != want {
			t.Errorf("verify: %d %s, want %s", status, text, want)
		}
		for what, secret := range map[string]string{"a key": server.Admin.APIKey, "nobody's": "wwu_2nf70CwLdjhc7DaClkHUkhzRo9Hja5jxtMJRfP18nLFL"} {
			status, text := raw(t, http.MethodGet, at+"/verify", "", with(secret))
			if status != http.StatusUnauthorized || !strings.HasPrefix(text, `{"success":false,"errors":[{"code":1000,"message":"Invalid API Token"`) {
				t.Errorf("verify with %s: %d %s", what, status, text)
			}
		}
	}
}

// TestForms sends rolls and deletes in each form that is out there, and
// checks that dates always come back.
func TestForms(t *testing.T) {
	t.Parallel()
	plain, form := key(), key()
	plain.Del("Content-Type")
	form.Set("Content-Type", "application/x-www-form-urlencoded") // what curl -d says
	for _, at := range routes() {
		for name, c := range map[string]struct {
			body   string
			header http.Header
		}{
			"no body": {"", key()}, "no body, no type": {"", plain}, "an object": {"{}", key()}, "curl -d": {"{}", form},
		} {
			m := create(t, at)
			status, text := raw(t, http.MethodPut, at+"/"+m.id+"/value", c.body, c.header)
			if status != http.StatusOK || !strings.HasPrefix(text, `{"result":"ww`) {
				t.Errorf("roll, %s: %d %s", name, status, text)
			}
			for _, path := range []string{at, at + "/" + m.id} {
				if _, text := raw(t, http.MethodGet, path, "", key()); strings.Count(text, `"issued_on":"2`) != strings.Count(text, `"modified_on":"2`) || !strings.Contains(text, `"issued_on":"2`) {
					t.Errorf("get: %s", text)
				}
			}
			if status, text := raw(t, http.MethodDelete, at+"/"+m.id, c.body, c.header); status != http.StatusOK || text != `{"result":{"id":"`+m.id+`"},"success":true,"errors":[],"messages":[]}` {
				t.Errorf("delete, %s: %d %s", name, status, text)
			}
		}
	}
}

// TestBothCredentials sends a token and a key together, as cloudflare-go's own
// tests do: the token wins.
func TestBothCredentials(t *testing.T) {
	t.Parallel()
	m := create(t, "/user/tokens")
	h := key()
	h.Set("Authorization", "Bearer "+m.value)
	if status, text := raw(t, http.MethodGet, "/user/tokens/verify", "", h); status != http.StatusOK || between(text, `"id":"`) != m.id {
		t.Errorf("verify: %d %s", status, text)
	}
	if status, text := raw(t, http.MethodGet, "/user/tokens", "", h); status != http.StatusForbidden {
		t.Errorf("list: %d %s", status, text)
	}
}

// TestOnePageOfGroups asks for permission groups with the page sizes that
// people add: all come in one answer.
func TestOnePageOfGroups(t *testing.T) {
	t.Parallel()
	for _, at := range routes() {
		var counts []int
		for _, query := range []string{"", "?per_page=100", "?per_page=1000", "?page=1&per_page=5"} {
			status, text := raw(t, http.MethodGet, at+"/permission_groups"+query, "", key())
			var all struct {
				Result []struct {
					ID string `json:"id"`
				} `json:"result"`
			}
			if err := json.Unmarshal([]byte(text), &all); err != nil || status != http.StatusOK {
				t.Fatalf("%s: %d %v", query, status, err)
			}
			counts = append(counts, len(all.Result))
		}
		for _, n := range counts {
			if n < 311 || n != counts[0] {
				t.Errorf("%s: %d groups", at, counts)
				break
			}
		}
	}
}
