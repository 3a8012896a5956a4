package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/services/e2e/proc"
)

// bounded is how long anything here may take; no promise of speed.
const bounded = 90 * time.Second

const (
	zoneID    = "1f0c6b0f0a2b4c6d8e9f00112233aabb"
	groupRead = "82e64a83756745bbbb1c9c2701bf816b" // DNS Read
)

// TestExample runs the example beside the real server, as a newcomer does: in both
// modes, and each by one of the two ways to follow.
func TestExample(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), bounded)
	defer cancel()
	binary, err := proc.Build(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "data")
	server, err := proc.Start(binary, data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill)
	if err := server.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	for _, o := range []options{
		{mode: "thin", feed: "nats"}, {mode: "full", feed: "http"}, {mode: "full", feed: "nats"}, {mode: "thin", feed: "http"},
	} {
		o.listen, o.data = "127.0.0.1:0", filepath.Join(t.TempDir(), "index")
		o.credentials = enroll(t, ctx, binary, data, o.mode+"-"+o.feed)
		t.Run(o.mode+" "+o.feed, func(t *testing.T) { try(t, ctx, server, o) })
	}
}

// enroll makes a credentials file, by the command line.
func enroll(t *testing.T, ctx context.Context, binary, data, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "edge.json")
	cmd := exec.CommandContext(ctx, binary, "enforcer", "enroll", name, "--region", "eu", "--credentials", file)
	cmd.Env = append(os.Environ(), "WATCHWORD_ADMIN_FILE="+filepath.Join(data, "admin.json"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

// try runs one service through the life of a token.
func try(t *testing.T, ctx context.Context, server *proc.Server, o options) {
	addr, ended := make(chan string, 1), make(chan error, 1)
	service, stop := context.WithCancel(ctx)
	defer stop()
	go func() { ended <- run(service, o, func(a string) { addr <- a }) }()
	var base string
	select {
	case a := <-addr:
		base = "http://" + a + "/accounts/" + server.Admin.AccountID + "/zones/" + zoneID
	case err := <-ended:
		t.Fatal(err)
	}
	id, secret := create(t, ctx, server)
	for o.mode == "full" { // it hears of the token in a moment
		if status, _ := get(t, ctx, base+"/records", secret); status == 200 {
			break
		}
	}
	if status, body := get(t, ctx, base+"/records", secret); status != 200 || !strings.Contains(body, id) {
		t.Errorf("records: %d %s", status, body)
	}
	if status, _ := get(t, ctx, base+"/records", ""); status != 401 {
		t.Errorf("without a token: %d", status)
	}
	stream := open(t, ctx, base+"/changes", secret)
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	if !lines.Scan() {
		t.Fatal(lines.Err())
	}
	// Who waits for the receipts knows that it is refused everywhere.
	body := management(t, ctx, server, http.MethodDelete, "/"+id+"?wait=receipts&timeout=25s", "")
	if !strings.Contains(string(body), `"complete":true`) {
		t.Errorf("who has heard: %s", body)
	}
	if status, _ := get(t, ctx, base+"/records", secret); status != 401 {
		t.Errorf("after the revocation: %d", status)
	}
	last := ""
	for lines.Scan() {
		last = lines.Text()
	}
	if !strings.HasPrefix(last, "the end: ") || !strings.Contains(last, "revoked") {
		t.Errorf("the stream ended with %q, %v", last, lines.Err())
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func create(t *testing.T, ctx context.Context, s *proc.Server) (id, secret string) {
	t.Helper()
	body := management(t, ctx, s, http.MethodPost, "", fmt.Sprintf(
		`{"name":"example","policies":[{"effect":"allow","resources":{"com.cloudflare.api.account.zone.%s":"*"},"permission_groups":[{"id":%q}]}]}`, zoneID, groupRead))
	var answer struct {
		Result struct {
			ID    string `json:"id"`
			Value string `json:"value"`
		} `json:"result"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Result.ID, answer.Result.Value
}

func management(t *testing.T, ctx context.Context, s *proc.Server, method, path, body string) []byte {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, s.Admin.BaseURL+"/client/v4/user/tokens"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"X-Auth-Email": {s.Admin.Email}, "X-Auth-Key": {s.Admin.APIKey}, "Content-Type": {"application/json"}}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s %s: %d %s, %v", method, path, resp.StatusCode, b, err)
	}
	return b
}

func open(t *testing.T, ctx context.Context, url, secret string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func get(t *testing.T, ctx context.Context, url, secret string) (int, string) {
	t.Helper()
	resp := open(t, ctx, url, secret)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
