package e2e_test

import (
	"context"
	"net/http"
	"os/exec"
	"regexp"
	"sync"
	"testing"

	json "github.com/go-json-experiment/json"
)

// TestPolicyKilled kills the server with -9 while an account's policy is applied
// to its tokens, and lets the command line do the rest: each token is changed
// once.
func TestPolicyKilled(t *testing.T) {
	t.Parallel()
	i := install(t)
	const tokens = 300
	at := "/client/v4/accounts/" + i.admin.AccountID
	for range tokens {
		i.must(asked{http.MethodPost, at + "/tokens", i.operator(), grant("n", zoneID)}, new(tokenResult))
	}
	i.must(asked{http.MethodPut, at + "/token_policy", i.operator(), `{"lifetime_seconds_max":86400}`}, new(struct{}))
	i.applyUntilKilled(at + "/token_policy")
	i.start()

	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "--admin-file", i.data+"/admin.json", "account", "policy", "apply", i.admin.AccountID, "-o", "json").Output()
	var report struct {
		Examined int `json:"examined"`
		Expire   int `json:"expire"`
	}
	if err == nil {
		err = json.Unmarshal(out, &report)
	}
	if err != nil || report.Examined != tokens || report.Expire == tokens {
		t.Fatalf("after the kill: %s, %v", out, err)
	}
	t.Logf("the kill left %d of %d tokens to be changed", report.Expire, tokens)
	out, err = exec.CommandContext(ctx, binary, "--admin-file", i.data+"/admin.json", "events", "tail", "--from", "1").Output()
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for _, m := range regexp.MustCompile(`token\.updated +token/([0-9a-f]{32})`).FindAllSubmatch(out, -1) {
		times[string(m[1])]++
	}
	if len(times) != tokens {
		t.Errorf("%d of %d tokens were changed", len(times), tokens)
	}
	for id, n := range times {
		if n != 1 {
			t.Errorf("token %s was changed %d times", id, n)
		}
	}
}

// applyUntilKilled lets one request apply the policy to all tokens, and kills the
// server as soon as somebody else sees that some are changed.
func (i *installation) applyUntilKilled(path string) {
	i.t.Helper()
	var request sync.WaitGroup
	request.Go(func() {
		// Most likely there is no answer.
		_, _ = i.do(i.t.Context(), asked{http.MethodPost, path + "/apply", i.operator(), `{"limit":1000}`})
	})
	defer request.Wait()
	for {
		var s struct {
			Examined int        `json:"examined"`
			Changes  []struct{} `json:"changes"`
		}
		i.must(asked{http.MethodPost, path + "/preview", i.operator(), `{"limit":1000}`}, &s)
		if len(s.Changes) < s.Examined {
			i.server.Kill()
			return
		}
	}
}
