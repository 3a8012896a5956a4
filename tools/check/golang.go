package main

import (
	"bytes"
	"context"
	"fmt"
	"go/format"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"watchword.dev/tools/floors"
)

// tool runs a program in dir and returns what it printed if it failed. Extra
// environment comes last and wins.
func tool(ctx context.Context, dir string, env []string, name string, args ...string) (problem string) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second // a grandchild may hold the pipe
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	said := strings.TrimSpace(string(out))
	if ctx.Err() != nil || said == "" {
		said = strings.TrimSpace(fmt.Sprintf("%s: %v\n%s", filepath.Base(name), err, said))
	}
	return said
}

// problemsOf drops the empty ones.
func problemsOf(all ...string) (r result) {
	for _, p := range all {
		if p != "" {
			r.problems = append(r.problems, p)
		}
	}
	return r
}

// alone is the environment in which a module knows no siblings but by its own
// replace lines.
var alone = []string{"GOWORK=off"}

func checkFormat(_ context.Context, t *tree) (r result) {
	for _, name := range t.files {
		if !strings.HasSuffix(name, ".go") || strings.Contains("/"+name, "/testdata/") {
			continue
		}
		have, err := t.read(name)
		if err != nil {
			r.problems = append(r.problems, err.Error())
			continue
		}
		want, err := format.Source(have)
		switch {
		case err != nil:
			r.problems = append(r.problems, name+":"+err.Error())
		case !bytes.Equal(have, want):
			r.problems = append(r.problems, name+": run gofmt -w")
		}
	}
	return r
}

func checkVet(ctx context.Context, t *tree) result {
	return problemsOf(tool(ctx, t.root, nil, "go", "vet", "work"))
}

func checkFloors(ctx context.Context, t *tree) (r result) {
	violations, err := floors.Check(ctx, t.root)
	if err != nil {
		return problemsOf(err.Error())
	}
	for _, v := range violations {
		r.problems = append(r.problems, v.String())
	}
	return r
}

func checkGen(ctx context.Context, t *tree) result {
	return problemsOf(tool(ctx, t.root, nil, "go", "run", "./tools/gen", "-check"))
}

// lintDir is the module that pins the linters.
func (t *tree) lintDir() string { return filepath.Join(t.root, "tools", "lint") }

func checkTidy(ctx context.Context, t *tree) (r result) {
	dirs := []string{t.lintDir()}
	for _, m := range t.modules {
		dirs = append(dirs, m.Dir)
	}
	for _, dir := range dirs {
		if p := tool(ctx, dir, alone, "go", "mod", "tidy", "-diff"); p != "" {
			r.problems = append(r.problems, t.short(dir)+": run GOWORK=off go mod tidy\n"+p)
		}
	}
	return r
}

func checkBuild(ctx context.Context, t *tree) (r result) {
	for _, m := range t.modules {
		p := tool(ctx, m.Dir, alone, "go", "build", "./...")
		if p == "" {
			p = tool(ctx, m.Dir, alone, "go", "vet", "./...")
		}
		if p != "" {
			r.problems = append(r.problems, t.short(m.Dir)+":\n"+p)
		}
	}
	return r
}

func (t *tree) short(dir string) string {
	if rel, err := filepath.Rel(t.root, dir); err == nil {
		return filepath.ToSlash(rel)
	}
	return dir
}

// linter builds one of the tools of tools/lint, in the go command's cache, and
// returns the path of the program.
func (t *tree) linter(ctx context.Context, name string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "-n", name)
	cmd.Dir = t.lintDir()
	cmd.Env = append(os.Environ(), alone...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, errs.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

func checkStatic(ctx context.Context, t *tree) result {
	program, err := t.linter(ctx, "staticcheck")
	if err != nil {
		return problemsOf(err.Error())
	}
	return problemsOf(tool(ctx, t.root, nil, program, "work"))
}

// publicVulnDB is where the Go project serves its vulnerability database. No
// module proxy and no Debian package carries it.
const publicVulnDB = "https://vuln.go.dev"

func checkVuln(ctx context.Context, t *tree) (r result) {
	if err := reachable(ctx, t.vulnDB); err != nil {
		return result{notRun: "known vulnerabilities were not looked for: " + err.Error() +
			"\nset GOVULNDB to a database that can be reached (see -help)"}
	}
	program, err := t.linter(ctx, "govulncheck")
	if err != nil {
		return problemsOf(err.Error())
	}
	for _, m := range t.modules {
		if p := tool(ctx, m.Dir, nil, program, "-db", t.vulnDB, "./..."); p != "" {
			r.problems = append(r.problems, t.short(m.Dir)+":\n"+p)
		}
	}
	return r
}

// reachable asks for the database's smallest file, once and not for long.
func reachable(ctx context.Context, db string) error {
	u, err := url.Parse(db)
	if err != nil {
		return fmt.Errorf("GOVULNDB: %w", err)
	}
	if u.Scheme == "file" {
		_, err := os.ReadDir(filepath.FromSlash(u.Path))
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(db, "/")+"/index/db.json", nil)
	if err != nil {
		return fmt.Errorf("GOVULNDB: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", db, resp.Status)
	}
	return nil
}
