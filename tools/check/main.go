// Check runs every check that needs no test run: people before a commit, and
// CI, by the same command.
//
//	go run ./tools/check                    every step
//	go run ./tools/check -only format,vet   some
//	go run ./tools/check -help              what each step does
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"watchword.dev/tools/internal/workspace"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// command is the program: 0 when all is well, 1 when a step failed, 2 when it
// was called wrongly.
func command(ctx context.Context, args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	flags.SetOutput(errs)
	only := flags.String("only", "", "run these `steps`, separated by commas, instead of all")
	strict := flags.Bool("strict", false, "fail when a step could not run")
	flags.Usage = func() { usage(flags, errs) }
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		flags.Usage()
		return 2
	}
	chosen, err := choose(*only)
	if err != nil {
		fmt.Fprintln(errs, "check:", err)
		return 2
	}
	t, err := openTree(ctx, "")
	if err != nil {
		fmt.Fprintln(errs, "check:", err)
		return 2
	}
	if !runSteps(ctx, t, chosen, *strict, out) {
		return 1
	}
	return 0
}

func usage(flags *flag.FlagSet, w io.Writer) {
	fmt.Fprint(w, "check: every check of this checkout that needs no test run\n\nsteps:\n")
	for _, s := range steps {
		about := strings.ReplaceAll(s.about, "\n", "\n"+strings.Repeat(" ", 14))
		fmt.Fprintf(w, "  %-12s%s\n", s.name, about)
	}
	fmt.Fprint(w, "\nflags:\n")
	flags.PrintDefaults()
}

// tree is the checkout under check.
type tree struct {
	root    string
	modules []workspace.Module
	files   []string // known to git or new, not ignored; relative, with slashes
	vulnDB  string   // URL of the vulnerability database
}

func openTree(ctx context.Context, dir string) (*tree, error) {
	root, err := workspace.Root(ctx, dir)
	if err != nil {
		return nil, err
	}
	t := &tree{root: root, vulnDB: os.Getenv("GOVULNDB")}
	if t.vulnDB == "" {
		t.vulnDB = publicVulnDB
	}
	if t.modules, err = workspace.Modules(ctx, root); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	for _, name := range strings.Split(string(out), "\x00") {
		info, err := os.Lstat(filepath.Join(root, filepath.FromSlash(name)))
		if name != "" && err == nil && info.Mode().IsRegular() {
			t.files = append(t.files, name)
		}
	}
	return t, nil
}

// read returns the text of one of t's files.
func (t *tree) read(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(t.root, filepath.FromSlash(name)))
}

// result is what a step found.
type result struct {
	problems []string // each makes the step fail
	warnings []string // shown only
	notRun   string   // why the step could not do its work; empty when it did
}

type step struct {
	name  string
	about string
	run   func(context.Context, *tree) result
}

// stepLimit bounds each step, so that no check can hang a commit or CI.
const stepLimit = 10 * time.Minute

var steps = []step{
	{"format", "every Go file is as gofmt writes it", checkFormat},
	{"vet", "go vet over the workspace", checkVet},
	{"floors", "imports follow tools/floors/floors.txt", checkFloors},
	{"gen", "generated tables equal a fresh generation (tools/gen)", checkGen},
	{"words", "no unfinished work, skipped test, path of somebody's machine", checkWords},
	{"sizes", "warns of functions over 70 lines and files over 500", checkSizes},
	{"tidy", "go mod tidy would change no module", checkTidy},
	{"build", "each module builds and vets by itself (GOWORK=off)", checkBuild},
	{"static", "staticcheck, pinned in tools/lint, over the workspace", checkStatic},
	{"vuln", "govulncheck, pinned in tools/lint, over each module.\n" +
		"Its database is " + publicVulnDB + ", or the URL in GOVULNDB, for example\n" +
		"file:///path/data/osv in a copy of github.com/golang/vulndb. When it\n" +
		"cannot be reached the step says NOT RUN, which fails only with -strict.", checkVuln},
}

// choose returns the steps named in only, in their usual order; all for "".
func choose(only string) ([]step, error) {
	if only == "" {
		return steps, nil
	}
	names := strings.Split(only, ",")
	for _, name := range names {
		if !slices.ContainsFunc(steps, func(s step) bool { return s.name == name }) {
			return nil, fmt.Errorf("no step %q; see -help", name)
		}
	}
	var chosen []step
	for _, s := range steps {
		if slices.Contains(names, s.name) {
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}

// runSteps runs all of them, prints a line for each with what it found, and
// reports whether all is well.
func runSteps(ctx context.Context, t *tree, chosen []step, strict bool, out io.Writer) bool {
	well := true
	var missing []string
	for _, s := range chosen {
		start := time.Now()
		stepCtx, cancel := context.WithTimeout(ctx, stepLimit)
		r := s.run(stepCtx, t)
		cancel()
		verdict := "ok"
		switch {
		case len(r.problems) > 0:
			verdict, well = "FAIL", false
		case r.notRun != "":
			verdict = "NOT RUN"
			missing = append(missing, s.name)
		}
		fmt.Fprintf(out, "%-8s %-8s %6.1fs\n", verdict, s.name, time.Since(start).Seconds())
		for _, w := range r.warnings {
			fmt.Fprintln(out, "    warning:", w)
		}
		for _, p := range append(r.problems, r.notRun) {
			if p = strings.TrimSpace(p); p != "" {
				fmt.Fprintln(out, "    "+strings.ReplaceAll(clip(p), "\n", "\n    "))
			}
		}
	}
	if len(missing) > 0 {
		fmt.Fprintln(out, "not checked:", strings.Join(missing, ", "))
	}
	return well && (!strict || len(missing) == 0)
}

// maxProblemLines is how much of one problem is shown; the diff of a go.sum
// can have thousands.
const maxProblemLines = 60

func clip(problem string) string {
	lines := strings.Split(problem, "\n")
	if len(lines) <= maxProblemLines {
		return problem
	}
	rest := fmt.Sprintf("… and %d more lines", len(lines)-maxProblemLines)
	return strings.Join(append(lines[:maxProblemLines:maxProblemLines], rest), "\n")
}
