package openapi_test

import (
	"strings"
	"testing"

	"watchword.dev/services/internal/web"
)

// badNames are names, as JSON has them, that nothing can have.
var badNames = map[string]string{
	"10,000 letters":           strings.Repeat("n", 10_000),
	"10,000 of two bytes":      strings.Repeat("é", 10_000),
	"10,000 of four bytes":     strings.Repeat("🔑", 10_000),
	"10,000 marks on one":      "e" + strings.Repeat("\u0301", 9_999),
	"121 characters":           strings.Repeat("名", web.MaxName+1),
	"NUL":                      `a\u0000b`,
	"a bell":                   `a\u0007b`,
	"an escape sequence":       `\u001b[2Ja`,
	"a line feed":              `a\nb`,
	"a header":                 `a\r\nX-Evil: 1`,
	"delete":                   `a\u007fb`,
	"a C1 control":             "a\u0085b",
	"a right-to-left override": "invoice\u202etxt.exe",
	"a left-to-right override": "a\u202db",
	"an embedding":             "a\u202bb\u202c",
	"an isolate":               "a\u2067b\u2069",
	"a line separator":         "a\u2028b",
	"a paragraph separator":    "a\u2029b",
}

// TestNames: a bad name of anything that has one is refused by every route that
// takes one, with the catalogue's code and where it stands, and changes nothing.
// The longest good one is taken.
func TestNames(t *testing.T) {
	l := newLab(t)
	const good = `"name":"n"`
	routes := append(l.bodied(l.tokens()), route{"POST", usersPath, asAdmin, `{"email":"b@example.com","name":"n"}`, false, web.MaxBody})
	tried := 0
	for _, r := range routes {
		if !strings.Contains(r.body, good) {
			continue
		}
		tried++
		number := 1001
		if strings.HasSuffix(r.path, "/catalogue") {
			number = 20030
		}
		for what, name := range badNames {
			body := strings.Replace(r.body, good, `"name":"`+name+`"`, 1)
			a := l.unmoved(r.method+" "+r.path+": "+what, func() *answer { return l.send(l.request(r.method, r.path, r.auth(l), body)) })
			if a.StatusCode != 400 || a.code() != number || a.Errors[0].Source.Pointer != "/name" {
				t.Errorf("%s %s, %s: %d %s", r.method, r.path, what, a.StatusCode, a.body)
			}
			if len(a.body) > 1000 || strings.Contains(string(a.body), "invoice") {
				t.Errorf("%s %s, %s: the answer quotes it: %.200s", r.method, r.path, what, a.body)
			}
		}
		if number != 1001 {
			continue // a catalogue's name is in bytes, and this one would drop what is in use
		}
		longest := strings.Replace(r.body, good, `"name":"`+strings.Repeat("名", web.MaxName)+`"`, 1)
		if a := l.send(l.request(r.method, r.path, r.auth(l), longest)); a.StatusCode != 200 {
			t.Errorf("%s %s, the longest name: %d %s", r.method, r.path, a.StatusCode, a.body)
		}
	}
	if tried < 15 {
		t.Errorf("only %d routes take a name", tried)
	}
}
