package terraform_test

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// script is a recorded session with a server.
//
// A section "as NAME" holds a set of headers. Every other section is a step:
//
//	METHOD path [as NAME]
//	{the body, on one line, if there is one}
//	STATUS the answer
//
// $name stands for what differs from run to run: the first time in an answer
// it may be anything of its kind, later it is the same. "..." in an answer is
// anything, and "as before" the last answer to the same request.
type script struct {
	headers map[string]http.Header
	steps   []step
}

type step struct {
	name      string
	exchanges []exchange
}

type exchange struct {
	method, path, as, body string
	status                 int
	answer                 string
}

// requester is who asks unless the script says otherwise.
const requester = "provider"

var (
	requestLine = regexp.MustCompile(`^(GET|POST|PUT|DELETE) (/\S+)(?: as (\w+))?$`)
	answerLine  = regexp.MustCompile(`^(\d{3}) (.+)$`)
)

func load(t *testing.T, file string) script {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := script{headers: map[string]http.Header{}}
	last := map[string]string{}
	for _, f := range txtar.Parse(b).Files {
		lines := strings.Split(strings.TrimSpace(string(f.Data)), "\n")
		if name, ok := strings.CutPrefix(f.Name, "as "); ok {
			s.headers[name] = http.Header{}
			for _, l := range lines {
				k, v, _ := strings.Cut(l, ": ")
				s.headers[name].Set(k, v)
			}
			continue
		}
		st := step{name: f.Name}
		for len(lines) > 0 {
			x, n, err := parse(lines)
			if err != nil {
				t.Fatalf("%s: %s: %v", file, f.Name, err)
			}
			request := x.method + " " + x.path + " as " + x.as
			if x.answer == "as before" {
				x.answer = last[request]
			}
			last[request] = x.answer
			if s.headers[x.as] == nil || x.answer == "" {
				t.Fatalf("%s: %s: %q has no headers or no answer", file, f.Name, lines[0])
			}
			st.exchanges, lines = append(st.exchanges, x), lines[n:]
		}
		s.steps = append(s.steps, st)
	}
	return s
}

// parse reads the first exchange and returns how many lines it has.
func parse(lines []string) (x exchange, n int, err error) {
	m := requestLine.FindStringSubmatch(lines[0])
	if m == nil {
		return x, 0, fmt.Errorf("%q is no request", lines[0])
	}
	x = exchange{method: m[1], path: m[2], as: m[3]}
	if x.as == "" {
		x.as = requester
	}
	n = 1
	if n < len(lines) && strings.HasPrefix(lines[n], "{") {
		x.body = lines[n]
		n++
	}
	if n < len(lines) {
		m = answerLine.FindStringSubmatch(lines[n])
	}
	if n == len(lines) || m == nil {
		return x, 0, fmt.Errorf("%q has no answer", lines[0])
	}
	x.status, _ = strconv.Atoi(m[1])
	x.answer = m[2]
	return x, n + 1, nil
}

// names are what the names of a script stand for in this run.
type names map[string]string

var (
	name = regexp.MustCompile(`\$[a-z]+[0-9]*`)
	hole = regexp.MustCompile(`\$[a-z]+[0-9]*|\.\.\.`)
)

// fill puts what is known into a part of a request.
func (n names) fill(s string) string {
	return name.ReplaceAllStringFunc(s, func(v string) string {
		if known, ok := n[v]; ok {
			return known
		}
		return v
	})
}

// forms are the kinds of names.
var forms = map[string]string{
	"token": `[0-9a-f]{32}`, "policy": `[0-9a-f]{32}`,
	"issued": instant, "modified": instant, "rolled": instant,
	"secret": `ww[ua]_[0-9A-Za-z]{44}`, "fresh": `ww[ua]_[0-9A-Za-z]{44}`,
}

const instant = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`

// match holds an answer against the script's and learns the new names.
func (n names) match(want, got string) error {
	var pattern strings.Builder
	var learned []string
	at := 0
	for _, h := range hole.FindAllStringIndex(want, -1) {
		pattern.WriteString(regexp.QuoteMeta(want[at:h[0]]))
		at = h[1]
		what := want[h[0]:h[1]]
		known, ok := n[what]
		form := forms[strings.Trim(what, "$0123456789")]
		switch {
		case what == "...":
			pattern.WriteString(`.*`)
		case ok:
			pattern.WriteString(regexp.QuoteMeta(known))
		case form == "":
			return fmt.Errorf("nobody knows what %s is", what)
		case slices.Contains(learned, what):
			return fmt.Errorf("%s stands twice before it is known", what)
		default:
			learned = append(learned, what)
			pattern.WriteString(`(` + form + `)`)
		}
	}
	pattern.WriteString(regexp.QuoteMeta(want[at:]))
	m := regexp.MustCompile(`^` + pattern.String() + `$`).FindStringSubmatch(got)
	if m == nil {
		return fmt.Errorf("got\n%s\nwant\n%s", got, n.fill(want))
	}
	for i, what := range learned {
		n[what] = m[i+1]
	}
	return nil
}
