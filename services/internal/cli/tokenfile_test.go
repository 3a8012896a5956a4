package cli

import (
	"fmt"
	"strings"
	"testing"
)

// TestTokenFile: the three formats say the same.
func TestTokenFile(t *testing.T) {
	const want = `[2 a@example.com n hunter2hunter2 ["DNS Write" "DNS Read"] ["zone.1"] 2030-01-01T00:00:00Z  ["192.0.2.0/24"] disabled]`
	for format, text := range map[string]string{
		"csv":   "\ufeffowner,secret,name,permissions,resources,expires_on,ip,status\na@example.com,hunter2hunter2,n,DNS Write;DNS Read,zone.1,2030-01-01,192.0.2.0/24,disabled\n",
		"jsonl": "\n" + `{"owner":"a@example.com","secret":"hunter2hunter2","name":"n","permissions":["DNS Write","DNS Read"],"resources":["zone.1"],"expires_on":"2030-01-01","ip":["192.0.2.0/24"],"status":"disabled"}`,
		"yaml":  "tokens:\n  - {owner: a@example.com, secret: hunter2hunter2, name: n, permissions: [DNS Write, DNS Read], resources: [zone.1], expires_on: 2030-01-01, ip: [192.0.2.0/24], status: disabled}\n",
	} {
		var rows []string
		err := eachToken(format, strings.NewReader(text), func(r *tokenRow) error {
			rows = append(rows, fmt.Sprintf("%d %s %s %s %q %q %s %s %q %s", r.line, r.Owner, r.Name, r.Secret, r.Permissions, r.Resources, r.ExpiresOn, r.NotBefore, r.IP, r.Status))
			return nil
		}, func(line int, why error) { t.Errorf("%s: line %d: %v", format, line, why) })
		if got := fmt.Sprint(rows); err != nil || got != want {
			t.Errorf("%s: %v: %s", format, err, got)
		}
	}
}

// TestTokenFileRefusals: what is wrong is told by its line, and never quoted.
func TestTokenFileRefusals(t *testing.T) {
	const rest = `,"name":"n","permissions":["g"],"resources":["r.1"]}`
	csv := func(line string) string {
		return "owner,name,secret,permissions,resources,policies,parameters\n" + line + "\n"
	}
	for _, c := range []struct{ format, text, want string }{
		{"jsonl", `{"owner":"o","secret":"hunter2` + "\n" + `{"owner":"o","secret":hunter2` + rest, "line 1: not valid JSON from byte 31 on; line 2: not valid JSON from byte 23 on"},
		{"jsonl", `"hunter2"`, "line 1: not an object with the members of a token"},
		{"jsonl", `{"hunter2":1}`, "line 1: a member is not known; those that are: owner, name,"},
		{"jsonl", `{"owner":["hunter2"]}`, "line 1: owner has a value of another kind"},
		{"jsonl", `{"owner":"hunter2","owner":"x"}`, "line 1: a member stands twice"},
		{"jsonl", `{"owner":"o","policies":[{"hunter2":1}]}`, "line 1: policies has a value of another kind than it must have, or an unknown member"},
		{"jsonl", `{"secret":"hunter2hunter2"` + rest, "line 1: there is no owner"},
		{"jsonl", `{"owner":"o","secret":"hunter2hunter2"}`, "line 1: there is no name"},
		{"jsonl", `{"owner":"o","name":"n"}`, "line 1: there are neither permissions and resources, nor policies, nor a template"},
		{"jsonl", `{"owner":"o","template":"t"` + rest, "line 1: a template gives the policies"},
		{"jsonl", `{"owner":"o","parameters":{"a":"b"}` + rest, "line 1: parameters fill a template"},
		{"jsonl", strings.Repeat("hunter2", 1<<18), "line 1 is longer than 1048576 bytes"},
		{"csv", "", "line 1: there is no header"},
		{"csv", "owner,hunter2\n", "line 1: column 2 of the header is not known"},
		{"csv", "owner,owner\n", "line 1: column 2 of the header is not known or stands twice"},
		{"csv", csv(`o,n,hunter2`), "line 2: wrong number of fields"},
		{"csv", csv(`o,n,"hunter2"x,,,,`), `line 2: extraneous or missing " in quoted-field`},
		{"csv", csv(`o,n,s,,,hunter2,`), "line 2: policies are not a JSON list of policies"},
		{"csv", csv(`o,n,s,,,,hunter2`), "line 2: parameters are not NAME=ID"},
		{"yaml", "hunter2", "line 1: neither a list of tokens nor tokens:"},
		{"yaml", "- owner: o\n  secret: *hunter2\n", "not valid YAML"},
		{"yaml", "- a: b\n c: hunter2\n", "line 1: not valid YAML"},
		{"yaml", "- {owner: &x hunter2, secret: *x}\n", "line 1: aliases are not read"},
		{"yaml", "- {hunter2: x, hunter2: y}\n", "line 1: a member stands twice, or is no text"},
		{"yaml", "- {hunter2: x}\n", "line 1: a member is not known"},
		{"hunter", "", "unknown format"},
	} {
		var all []string
		err := eachToken(c.format, strings.NewReader(c.text), func(r *tokenRow) error {
			t.Errorf("%.80q was taken", c.text)
			return nil
		}, func(line int, why error) { all = append(all, fmt.Sprintf("line %d: %v", line, why)) })
		if err != nil {
			all = append(all, err.Error())
		}
		got := strings.Join(all, "; ")
		if !strings.Contains(got, c.want) || c.format != "hunter" && strings.Contains(got, "hunter") {
			t.Errorf("%s %.80q:\ngot  %s\nwant %s", c.format, c.text, got, c.want)
		}
	}
}

// TestTokenDigest: a secret is hashed, a digest is taken as it is, and what
// could not be one is refused without a word of it.
func TestTokenDigest(t *testing.T) {
	const sum = "cd3f0b85b158c08a2b113464991810cf2cdfc387d44a9e3ab5c6fbea5a2ed1bd"
	for secret, want := range map[string]string{
		"hunter2-hunter2": "", "sha256:" + sum: sum, "d0:" + sum: sum,
		"": "there is no secret", "hunter2": "has not 8 to 256 bytes", strings.Repeat("hunter2", 37): "has not 8 to 256 bytes",
		" hunter2hunter2": "begins or ends with white space", "sha256:hunter2hunter2": "behind sha256: there are not 64",
		"of the name hunter2": "the name holds the secret", "wwu_0000000000000000000000000000000000000000WAPw2": "",
	} {
		row := &tokenRow{Name: "of the name hunter2 of elsewhere", Secret: secret}
		d, err := row.digest()
		got := ""
		switch {
		case err != nil:
			got = err.Error()
		case strings.HasPrefix(want, sum):
			got = fmt.Sprintf("%x", d)
		}
		if !strings.Contains(got, want) || (want == "") != (got == "") || strings.Contains(got, "hunter") || row.Secret != "" {
			t.Errorf("%q: %s, want %s", secret, got, want)
		}
	}
}
