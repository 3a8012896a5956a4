package serve

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	json "github.com/go-json-experiment/json"

	"watchword.dev/services/internal/cataloguefile"
)

const acmeFile = "../../../deploy/catalogues/acme.yaml"

// register makes a resource known.
func (r *running) register(kind, parent, name string) (id string) {
	r.t.Helper()
	var made struct {
		ID string `json:"id"`
	}
	body := fmt.Sprintf(`{"type":%q,"parent":%q,"name":%q}`, kind, parent, name)
	if code := r.call(http.MethodPost, "/client/v4/resources", body, &made); code != http.StatusOK || made.ID == "" {
		r.t.Fatalf("register %s: HTTP %d", name, code)
	}
	return made.ID
}

// ask asks for a decision about a chain.
func (r *running) ask(secret, permission string, chain ...string) string {
	r.t.Helper()
	body, err := json.Marshal(map[string]any{"secret": secret, "permission": permission, "resource": chain})
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.BaseURL+"/v1/verify", strings.NewReader(string(body)))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.EnforcerKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	var d struct {
		Decision string `json:"decision"`
		Reason   string `json:"reason"`
	}
	if err := json.Unmarshal(b, &d); err != nil {
		r.t.Fatalf("%s: %s", resp.Status, b)
	}
	return strings.TrimSpace(d.Decision + " " + d.Reason)
}

// TestAcme: a first start publishes the catalogue of a company that has nothing
// to do with DNS, and a token for one environment of one project works there
// only, also after the node was started again.
func TestAcme(t *testing.T) {
	dir := t.TempDir()
	r := start(t, settings(t, dir, "--catalogue", acmeFile), nil)
	const project, environment = "com.acme.project", "com.acme.project.environment"
	account := "com.cloudflare.api.account." + r.AccountID
	shop := project + "." + r.register(project, account, "shop")
	blog := project + "." + r.register(project, account, "blog")
	staging := environment + "." + r.register(environment, shop, "staging")
	live := environment + "." + r.register(environment, shop, "live")
	other := environment + "." + r.register(environment, blog, "staging")

	var c created
	body := fmt.Sprintf(`{"name":"pipeline","policies":[{"effect":"allow","resources":{%q:"*"},"permission_groups":[{"id":"ac0e0000000000000000000000000003"}]}]}`, staging)
	if code := r.call(http.MethodPost, "/client/v4/user/tokens", body, &c); code != http.StatusOK {
		t.Fatalf("create: HTTP %d", code)
	}
	if code := r.call(http.MethodPost, "/client/v4/user/tokens", strings.Replace(body, "ac0e0000000000000000000000000003", dnsWrite, 1), nil); code != http.StatusBadRequest {
		t.Errorf("a group of the built-in catalogue: HTTP %d", code)
	}
	decide := func(r *running) {
		t.Helper()
		for _, q := range []struct {
			permission string
			chain      []string
			allowed    bool
		}{
			{"deployments.create", []string{account, shop, staging}, true},
			{"deployments.read", []string{account, shop, staging}, true},
			{"logs.read", []string{account, shop, staging}, false},
			{"secrets.rotate", []string{account, shop, staging}, false},
			{"deployments.create", []string{account, shop, live}, false},
			{"deployments.create", []string{account, blog, other}, false},
			{"deployments.create", []string{account, shop}, false},
			{"deployments.create", []string{account}, false},
			{"dns.records.write", []string{account, shop, staging}, false},
		} {
			if got := r.ask(c.Value, q.permission, q.chain...); strings.HasPrefix(got, "allow") != q.allowed {
				t.Errorf("%s on %v: %s", q.permission, q.chain, got)
			}
		}
	}
	decide(r)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, settings(t, dir), nil)
	decide(r)

	// Without the group the token may do nothing; that needs force.
	text, err := os.ReadFile(acmeFile)
	if err != nil {
		t.Fatal(err)
	}
	f, err := cataloguefile.Read([]byte(strings.Replace(string(text), "[deployments.read, deployments.create]", "[deployments.read]", 1)))
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Version  uint32 `json:"version"`
		Affected struct {
			TokenCount int `json:"token_count"`
		} `json:"affected"`
	}
	if code := r.call(http.MethodPut, "/client/v4/catalogue?dry_run=true", string(f.Document), &p); code != http.StatusOK || p.Affected.TokenCount != 1 || p.Version != 1 {
		t.Errorf("dry run: HTTP %d, %+v", code, p)
	}
	if code := r.call(http.MethodPut, "/client/v4/catalogue", string(f.Document), nil); code != http.StatusBadRequest {
		t.Errorf("without force: HTTP %d", code)
	}
	if code := r.call(http.MethodPut, "/client/v4/catalogue?force=true", string(f.Document), &p); code != http.StatusOK || p.Version != 2 {
		t.Errorf("with force: HTTP %d, %+v", code, p)
	}
	if got := r.ask(c.Value, "deployments.create", account, shop, staging); strings.HasPrefix(got, "allow") {
		t.Errorf("what the catalogue took away: %s", got)
	}
	if got := r.ask(c.Value, "deployments.read", account, shop, staging); !strings.HasPrefix(got, "allow") {
		t.Errorf("what it left: %s", got)
	}
}
