package cli

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// heard is an answer about who has heard.
func heard(complete bool, why, state, rest string, n, waiting int) string {
	return fmt.Sprintf(`{"success":true,"errors":[],"messages":[],"result":{"token_id":"0123456789abcdef0123456789abcdef",
		"event":{"type":"watchword.token.revoked.v1","sequence":7,"number":7,"epoch":1,"time":"2026-01-02T03:04:05.678Z"},
		"complete":%v,"why":%q,"complete_by":"2026-01-02T03:04:16.678Z","heard":%d,"waiting":%d,
		"instances":[{"enforcer_id":"0123456789abcdef0123456789abcdef","name":"edge\u001b[2J","instance":"k3","state":%q%s}]}}`,
		complete, why, n, waiting, state, rest)
}

// TestRevokeWaits asks until everybody has heard, or time is over; a server that
// sends control characters writes nothing on the terminal.
func TestRevokeWaits(t *testing.T) {
	waits := heard(false, "waiting", "waiting", `,"not_since":"2026-01-02T03:04:05.000Z","lease_ends_on":"2026-01-02T03:04:45.000Z"`, 0, 1)
	done := heard(true, "all_heard", "applied", `,"milliseconds":12`, 1, 0)
	for name, c := range map[string]struct {
		answers []string // to the questions after the revocation; the last one repeats
		timeout string
		code    int
		want    []string
		not     string
	}{
		"all have heard": {[]string{waits, waits, done}, "1m", ExitOK, []string{"12 ms", "complete: every live instance refuses it"}, "not complete"},
		"time is over":   {[]string{waits}, "30ms", ExitTimeout, []string{"waiting", "not since", "not complete: somebody has not heard yet"}, "\x1b"},
	} {
		t.Run(name, func(t *testing.T) {
			asked, revoked := 0, 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodDelete {
					revoked++
					fmt.Fprint(w, `{"success":true,"errors":[],"messages":[],"result":{"id":"x"}}`)
					return
				}
				if asked == 0 && r.URL.Query().Get("wait") != "receipts" {
					t.Errorf("asked %s", r.URL)
				}
				fmt.Fprint(w, c.answers[min(asked, len(c.answers)-1)])
				asked++
			}))
			defer server.Close()
			var out, errs bytes.Buffer
			file := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(file, []byte("wwu_x"), 0o600); err != nil {
				t.Fatal(err)
			}
			env := map[string]string{"WATCHWORD_URL": server.URL, "WATCHWORD_TOKEN_FILE": file, "WATCHWORD_CONTEXTS_FILE": file + "s"}
			a := &App{In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(k string) string { return env[k] }}
			root := &cobra.Command{Use: "watchword", SilenceUsage: true, SilenceErrors: true}
			a.Flags(root)
			root.AddCommand(a.Commands()...)
			root.SetArgs([]string{"token", "revoke", "0123456789abcdef0123456789abcdef", "--wait", "--timeout", c.timeout})
			err := root.Execute()
			code := ExitOK
			if e, ok := errors.AsType[*Error](err); ok {
				code = e.Code
			} else if err != nil {
				code = ExitLocal
			}
			if code != c.code || revoked != 1 || asked < len(c.answers) {
				t.Errorf("exit code %d (%v), %d revocations, asked %d times", code, err, revoked, asked)
			}
			for _, w := range c.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("%q does not stand in\n%s", w, out.String())
				}
			}
			if strings.Contains(out.String(), c.not) || strings.Contains(out.String()+errs.String(), "\x1b[2J") {
				t.Errorf("printed\n%q\n%q", out.String(), errs.String())
			}
		})
	}
}

// TestClock: a lease may end on another day, which the time alone does not tell.
func TestClock(t *testing.T) {
	now := time.Date(2026, 1, 2, 23, 0, 0, 0, time.UTC)
	for at, want := range map[time.Time]string{
		now.Add(30 * time.Minute): "23:30:00.000",
		now.Add(2 * time.Hour):    "2026-01-03 01:00:00",
		now.Add(24 * time.Hour):   "2026-01-03 23:00:00",
	} {
		if got := clockAt(at, now); got != want {
			t.Errorf("%v: %q, want %q", at, got, want)
		}
	}
}

// TestSlowestFirst: who is as far as another and silent for longer comes first, by
// parts of a second too.
func TestSlowestFirst(t *testing.T) {
	var out bytes.Buffer
	a := &App{Out: &out}
	err := a.instanceTable([]enforcerView{{Name: "e", Instances: []instanceView{
		{Instance: "quick", Silent: 0.2}, {Instance: "slow", Silent: 0.9}, {Instance: "behind", Lag: 1},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if b, s, q := strings.Index(text, "behind"), strings.Index(text, "slow"), strings.Index(text, "quick"); b < 0 || b > s || s > q {
		t.Errorf("%s", text)
	}
}
