package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"watchword.dev/services/e2e/proc"
)

// TestScripts runs testdata/script: what a person does at a terminal. Each
// script has a directory, a data directory and a server of its own. Beside
// testscript's commands they have:
//
//	serve [flag...]        start the server over ./data, wait until it is ready,
//	                       set URL, EMAIL, APIKEY, ACCOUNT, ENFORCER, NATS, SEED
//	stopserve, killserve   end it by SIGTERM (exit code 0) or by SIGKILL
//	exits CODE CMD...      run a command that ends with this exit code
//	until REGEXP CMD...    run a command again and again until its output matches
//	http [flags] STATUS METHOD PATH
//	                       send a request; -as op|none|SECRET, -d BODY, -H LINE
//	json PATH [TEXT]       standard output has this member (with this value)
//	grab NAME PATH         set a variable to that member
//	keep NAME [REGEXP]     set a variable to standard output, or to a part of it
//	follow NAME CMD...     run a command beside the script
//	await NAME REGEXP      until its output matches
//	unfollow NAME CODE     interrupt it, and show its output
//	natsread               print the ledger as a plain NATS client reads it
//	fill FILE...           put the values of variables into files, for $NAME
//	grow FILE BYTES        append lines of comment until it has so many
//	mode PERM FILE...      the files have these permissions
//	secret TEXT...         remember secrets
//	nosecrets              none of them stands in a file or log of the server
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Setup:               setup,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": cmdServe, "stopserve": cmdStopServe, "killserve": cmdKillServe,
			"exits": cmdExits, "until": cmdUntil, "http": cmdHTTP, "json": cmdJSON, "grab": cmdGrab, "keep": cmdKeep,
			"follow": cmdFollow, "await": cmdAwait, "unfollow": cmdUnfollow,
			"natsread": cmdNATSRead, "fill": cmdFill, "grow": cmdGrow, "mode": cmdMode, "secret": cmdSecret, "nosecrets": cmdNoSecrets,
		},
	})
}

// scene is what a script has beside its files.
type scene struct {
	dir     string
	server  *proc.Server
	speaker *speaker
	log     *output // of all servers of the script
	follows map[string]*follower
	secrets []string
}

type sceneKey struct{}

func sceneOf(ts *testscript.TestScript) *scene { return ts.Value(sceneKey{}).(*scene) }

func setup(e *testscript.Env) error {
	s := &scene{dir: e.WorkDir, log: newOutput(), follows: map[string]*follower{}}
	e.Values[sceneKey{}] = s
	e.Setenv("PATH", userBin+string(os.PathListSeparator)+e.Getenv("PATH"))
	e.Setenv("HOME", e.WorkDir)
	e.Setenv("WATCHWORD_CONTEXTS_FILE", filepath.Join(e.WorkDir, "contexts.json"))
	e.Setenv("ZONE", zoneID)
	e.Setenv("OTHERZONE", otherZone)
	e.Setenv("NOBODY", "00000000000000000000000000000001")
	e.Defer(func() {
		for _, f := range s.follows {
			f.kill()
		}
		if s.server != nil {
			s.server.Kill()
		}
	})
	return nil
}

func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	s := sceneOf(ts)
	if neg || s.server != nil {
		ts.Fatalf("usage: serve [flag...], once at a time")
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	// Like a user's: relative to the directory in which the script stands.
	env := []string{"HOME=" + s.dir, "PATH=" + ts.Getenv("PATH")}
	server, err := proc.Launch(proc.Options{Binary: binary, Data: filepath.Join(s.dir, "data"), Args: args, Dir: s.dir, Env: env, Log: s.log})
	ts.Check(err)
	s.server = server
	ts.Check(server.Ready(ctx))
	a := server.Admin
	s.speaker = newSpeaker(a)
	for k, v := range map[string]string{
		"URL": a.BaseURL, "EMAIL": a.Email, "APIKEY": a.APIKey, "ACCOUNT": a.AccountID, "USERID": a.UserID,
		"HOST": strings.TrimPrefix(a.BaseURL, "http://"), "ENFORCER": a.EnforcerKey, "NATS": a.NATSURL, "SEED": a.NATSSeedFile,
	} {
		ts.Setenv(k, v)
	}
}

func cmdStopServe(ts *testscript.TestScript, neg bool, args []string) {
	s := sceneOf(ts)
	if neg || s.server == nil {
		ts.Fatalf("no server runs")
	}
	ts.Check(s.server.Stop(deadline))
	s.server = nil
}

func cmdKillServe(ts *testscript.TestScript, neg bool, args []string) {
	s := sceneOf(ts)
	if neg || s.server == nil {
		ts.Fatalf("no server runs")
	}
	s.server.Kill()
	s.server = nil
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	code := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = fmt.Sprint(exit.ExitCode())
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}

// cmdUntil is for what becomes true a little later.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP COMMAND...")
	}
	wanted, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(deadline); ; <-time.After(500 * time.Millisecond) {
		ts.Check(ts.Exec(args[1], args[2:]...))
		switch out := ts.ReadFile("stdout"); {
		case wanted.MatchString(out):
			return
		case time.Now().After(end):
			ts.Fatalf("no %q in\n%s", args[0], out)
		}
	}
}

func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	s := sceneOf(ts)
	a := asked{header: http.Header{}}
	as := "op"
	for len(args) >= 2 && strings.HasPrefix(args[0], "-") {
		switch v := args[1]; args[0] {
		case "-as":
			as = v
		case "-d":
			a.body = v
		case "-H":
			k, v, _ := strings.Cut(v, ":")
			a.header.Add(k, strings.TrimSpace(v))
		default:
			ts.Fatalf("unknown flag %s", args[0])
		}
		args = args[2:]
	}
	if neg || len(args) != 3 {
		ts.Fatalf("usage: http [-as WHO] [-d BODY] [-H LINE] STATUS METHOD PATH")
	}
	a.method, a.path = args[1], args[2]
	switch as {
	case "none":
	case "op":
		a.header.Set("X-Auth-Email", s.speaker.admin.Email)
		a.header.Set("X-Auth-Key", s.speaker.admin.APIKey)
	default:
		a.header.Set("Authorization", "Bearer "+as)
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if strings.HasPrefix(a.path, "/v1/verify") || strings.HasPrefix(a.path, "/oauth2/") {
		// The index follows the ledger: ask it about now.
		head, err := s.speaker.head(ctx)
		ts.Check(err)
		a.header.Set("Watchword-At-Least", fmt.Sprint(head))
	}
	got, err := s.speaker.do(ctx, a)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s\n", got.body)
	if fmt.Sprint(got.status) != args[0] {
		ts.Fatalf("%s %s: HTTP %d, want %s: %s", a.method, a.path, got.status, args[0], got.body)
	}
}

func cmdFill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fill FILE...")
	}
	for _, file := range args {
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(os.Expand(ts.ReadFile(file), ts.Getenv)), 0o600))
	}
}

func cmdGrow(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: grow FILE BYTES")
	}
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	text := []byte(ts.ReadFile(args[0]))
	for len(text) < size {
		text = append(text, "# a line that says nothing but takes its place in the file of a script\n"...)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text[:size], 0o600))
}

func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: mode PERM FILE...")
	}
	for _, file := range args[1:] {
		info, err := os.Stat(ts.MkAbs(file))
		ts.Check(err)
		if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
			ts.Fatalf("%s has mode %s, want %s", file, got, args[0])
		}
	}
}

// follower is a command that runs beside the script.
type follower struct {
	cmd  *exec.Cmd
	out  *output
	done chan struct{}
	err  error // valid after done
}

func cmdFollow(ts *testscript.TestScript, neg bool, args []string) {
	s := sceneOf(ts)
	if neg || len(args) < 2 {
		ts.Fatalf("usage: follow NAME COMMAND...")
	}
	path, err := lookPath(ts.Getenv("PATH"), args[1])
	ts.Check(err)
	f := &follower{cmd: exec.Command(path, args[2:]...), out: newOutput(), done: make(chan struct{})}
	f.cmd.Args[0] = args[1]
	f.cmd.Dir = s.dir
	for _, k := range []string{"PATH", "HOME", "WATCHWORD_CONTEXTS_FILE"} {
		f.cmd.Env = append(f.cmd.Env, k+"="+ts.Getenv(k))
	}
	f.cmd.Stdout, f.cmd.Stderr = f.out, f.out
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ts.Check(f.cmd.Start())
	go func() {
		f.err = f.cmd.Wait()
		close(f.done)
	}()
	s.follows[args[0]] = f
}

// lookPath finds a command in a script's PATH.
func lookPath(path, name string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: not found", name)
}

func (f *follower) kill() {
	f.cmd.Process.Kill()
	<-f.done
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	s := sceneOf(ts)
	if neg || len(args) != 2 || s.follows[args[0]] == nil {
		ts.Fatalf("usage: await NAME REGEXP")
	}
	f := s.follows[args[0]]
	ts.Check(f.out.await(args[1], f.done))
}

func cmdUnfollow(ts *testscript.TestScript, neg bool, args []string) {
	s := sceneOf(ts)
	if neg || len(args) != 2 || s.follows[args[0]] == nil {
		ts.Fatalf("usage: unfollow NAME CODE")
	}
	f := s.follows[args[0]]
	delete(s.follows, args[0])
	ts.Check(f.cmd.Process.Signal(os.Interrupt))
	select {
	case <-f.done:
	case <-time.After(deadline):
		f.kill()
		ts.Fatalf("%s did not end when it was interrupted", args[0])
	}
	if got := fmt.Sprint(f.cmd.ProcessState.ExitCode()); got != args[1] {
		ts.Fatalf("%s ended with exit code %s, want %s\n%s", args[0], got, args[1], f.out)
	}
	fmt.Fprint(ts.Stdout(), f.out)
}

// output collects what a process writes and tells who waits for some of it.
type output struct {
	mu  sync.Mutex
	b   []byte
	new chan struct{} // closed at the next write
}

var _ io.Writer = (*output)(nil)

func newOutput() *output { return &output{new: make(chan struct{})} }

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, p...)
	close(o.new)
	o.new = make(chan struct{})
	return len(p), nil
}

// String returns all that was written so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b)
}

// state returns what was written so far and what the next write closes.
func (o *output) state() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b), o.new
}
