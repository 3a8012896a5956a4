package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// step is something that the README tells a newcomer to type, or the answer
// that it shows.
type step struct {
	kind string // sh, json or inline
	text string
}

// inlineCommand is a command in the running text.
var inlineCommand = regexp.MustCompile("`(\\./watchword [^`]+)`")

// readmeSteps returns the steps of a section of the README, in its order.
func readmeSteps(t *testing.T, title string) []step {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(b), "\n## "+title+"\n")
	if !ok {
		t.Fatalf("the README has no section %q", title)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var steps []step
	for i, part := range strings.Split(section, "```") {
		if i%2 == 1 {
			kind, text, _ := strings.Cut(part, "\n")
			steps = append(steps, step{kind, text})
			continue
		}
		for _, m := range inlineCommand.FindAllStringSubmatch(part, -1) {
			steps = append(steps, step{"inline", strings.Join(strings.Fields(m[1]), " ")})
		}
	}
	return steps
}

// newcomer follows the README in a directory of their own.
type newcomer struct {
	t      *testing.T
	i      *installation
	dir    string
	vars   []string // assignments of the terminal so far
	id     string
	secret string
	last   string // what the last command printed
	ran    []string
}

// TestReadme types the 60 seconds of the README, all of it, as it stands
// there. Only what would touch the machine is different: the binary is built
// already, and the server has free ports and a directory of the test.
func TestReadme(t *testing.T) {
	t.Parallel()
	steps := readmeSteps(t, "60 seconds on one machine")
	if len(steps) == 0 || steps[0] != (step{"sh", "go run ./services/cmd/watchword serve\n"}) {
		t.Fatalf("the README does not begin with serve: %q", steps)
	}
	n := &newcomer{t: t, i: install(t)}
	n.dir = filepath.Dir(n.i.data)
	if err := os.Symlink(binary, filepath.Join(n.dir, "watchword")); err != nil {
		t.Fatal(err)
	}
	for _, s := range steps[1:] {
		switch s.kind {
		case "sh":
			n.block(s.text)
		case "json":
			n.compare(s.text)
		case "inline":
			n.run(s.text)
		default:
			t.Errorf("a block of kind %q", s.kind)
		}
	}
	for _, want := range []string{"./watchword token create", "curl ", "./watchword token roll", "./watchword token revoke", "./watchword events tail", "nats ", "./watchword fsck", "./watchword rebuild"} {
		if !slices.ContainsFunc(n.ran, func(c string) bool { return strings.HasPrefix(c, want) }) {
			t.Errorf("the README does not show %q", want)
		}
	}
	// "kill -9 the server at any moment": the newcomer's token stays revoked.
	n.i.server.Kill()
	n.i.start()
	n.run("./watchword events tail")
	if !strings.Contains(n.last, "token.revoked") || !strings.Contains(n.last, n.id) {
		t.Errorf("after kill -9 the ledger shows\n%s", n.last)
	}
}

// block types a block of commands.
func (n *newcomer) block(text string) {
	n.t.Helper()
	var commands []string
	for line := range strings.Lines(text) {
		switch line = strings.TrimRight(line, "\n"); {
		case strings.HasPrefix(line, "go build ./services/cmd/watchword "):
			// TestMain has built this package.
		case regexp.MustCompile(`^[A-Z]+=`).MatchString(line):
			n.vars = append(n.vars, line)
		case strings.TrimSpace(line) != "":
			commands = append(commands, line)
		}
	}
	if len(commands) > 0 {
		n.run(strings.Join(commands, "\n"))
	}
}

// run types commands, and remembers what a token create has printed.
func (n *newcomer) run(commands string) {
	n.t.Helper()
	n.ran = append(n.ran, commands)
	text := strings.NewReplacer(
		"http://127.0.0.1:8420", n.i.admin.BaseURL, "nats://127.0.0.1:4222", n.i.admin.NATSURL,
		"wwu_…", n.secret, " ID", " "+n.id,
	).Replace(commands)
	text = strings.Join(n.vars, "\n") + "\n" + text
	if strings.HasPrefix(commands, "nats ") {
		n.listen(text)
		return
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), deadline)
	defer cancel()
	cmd := n.shell(ctx, text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		n.t.Fatalf("%s: %v\n%s%s", commands, err, out, stderr.Bytes())
	}
	n.last = string(out)
	if strings.HasPrefix(commands, "./watchword token create") {
		id := regexp.MustCompile(`(?m)^id +([0-9a-f]{32})$`).FindStringSubmatch(n.last)
		secret := regexp.MustCompile(`(?m)^secret +(wwu_\w{44})$`).FindStringSubmatch(n.last)
		if id == nil || secret == nil {
			n.t.Fatalf("token create printed\n%s", n.last)
		}
		n.id, n.secret = id[1], secret[1]
	}
}

// listen types a command that goes on, and lets something happen meanwhile.
func (n *newcomer) listen(text string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), deadline)
	defer cancel()
	// The shell becomes the command, so that the interrupt reaches it.
	cmd := n.shell(ctx, strings.Replace(text, "nats ", "exec nats ", 1))
	out := newOutput()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	ended := make(chan struct{})
	var result error
	go func() {
		result = cmd.Wait()
		close(ended)
	}()
	if err := out.await("Subscribing on", ended); err != nil {
		n.t.Fatal(err)
	}
	made := n.i.create("heard")
	if err := out.await(`"subject":"token/`+made.ID+`"`, ended); err != nil {
		n.t.Fatal(err)
	}
	cancel()
	<-ended
	if result != nil && !errors.Is(result, context.Canceled) {
		n.t.Errorf("%s: %v\n%s", text, result, out)
	}
}

func (n *newcomer) shell(ctx context.Context, text string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", text)
	cmd.Dir = n.dir
	cmd.Env = []string{"HOME=" + n.dir, "PATH=" + userBin + string(os.PathListSeparator) + os.Getenv("PATH")}
	return cmd
}

// compare holds the last answer against the one that the README shows: the
// same members in the same order, and the same values but where the README has
// "…" or a number.
func (n *newcomer) compare(want string) {
	n.t.Helper()
	wantNames, wantValues := members(n.t, want)
	gotNames, gotValues := members(n.t, n.last)
	if !slices.Equal(wantNames, gotNames) {
		n.t.Errorf("the answer has the members %q, in the README %q", gotNames, wantNames)
		return
	}
	for i, v := range wantValues {
		if v.Kind() != jsontext.KindNumber && string(v) != `"…"` && string(v) != string(gotValues[i]) {
			n.t.Errorf("%s is %s, in the README %s", wantNames[i], gotValues[i], v)
		}
	}
}

// members returns the names and values of an object.
func members(t *testing.T, text string) (names []string, values []jsontext.Value) {
	t.Helper()
	dec := jsontext.NewDecoder(strings.NewReader(text))
	if k := dec.PeekKind(); k != jsontext.KindBeginObject {
		t.Fatalf("no object: %s", text)
	}
	if _, err := dec.ReadToken(); err != nil {
		t.Fatal(err)
	}
	for dec.PeekKind() != jsontext.KindEndObject {
		name, err := dec.ReadToken()
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		names = append(names, name.String())
		v, err := dec.ReadValue()
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		values = append(values, v.Clone())
	}
	return names, values
}

// TestReadmePaths checks that the packages and files that the README names
// exist.
func TestReadmePaths(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile(`go (?:run|build|doc|test) (\./[\w/]+)|\]\(([\w./]+)\)`).FindAllStringSubmatch(string(b), -1) {
		found++
		if _, err := os.Stat(filepath.Join("../..", m[1]+m[2])); err != nil {
			t.Errorf("the README names %s: %v", m[1]+m[2], err)
		}
	}
	if found < 5 {
		t.Errorf("only %d paths in the README: %s", found, fmt.Sprint(found))
	}
}
