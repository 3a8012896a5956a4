// Command hammer measures the server against its limits and its peers, and
// checks every answer that it gets against a model while it does so.
//
//	go run ./tools/hammer all
//	go run ./tools/hammer verify -tokens 1000000 -rounds 9
//	go run ./tools/hammer create -o json
//
// A figure is worth something only beside another one of the same run: every
// bench runs the thing and its limit by turns and reports the median of the
// quotients of neighbouring turns. README.md says which goals there are.
//
// Exit code 0: every answer was right, whether or not the goals were met (the
// report says which were). 1: an answer was wrong. 2: a bench could not run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"watchword.dev/projections/verifyindex"
)

// options are the flags.
type options struct {
	tokens  int
	rounds  int
	seconds float64
	group   int
	rate    int
	clients int
	full    bool
	output  string
	dir     string
	profile string
	binary  string
}

// bench is one subcommand: it hands each of its reports to the run.
type bench struct {
	name string
	run  func(context.Context, *run) error
}

var benches = []bench{
	{"verify", benchVerify}, {"http", benchHTTP}, {"replay", benchReplay}, {"create", benchCreate}, {"directory", benchDirectory},
	{"middleware", benchMiddleware}, {"fanout", benchFanout}, {"snapshot", benchSnapshot}, {"receipts", benchReceipts},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == bareCommand {
		if err := serveBare(os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "hammer:", err)
			os.Exit(2)
		}
		return
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(verifyindex.GCPercent) // as the server does
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return
	case errors.Is(err, errWrong):
		fmt.Fprintln(os.Stderr, "hammer: WRONG ANSWER:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "hammer:", err)
	os.Exit(2)
}

// errWrong says that the code under test gave an answer that the model does
// not give. It stops everything: the speed of wrong answers is of no interest.
var errWrong = errors.New("the answer differs from the model")

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errWrong, fmt.Sprintf(format, args...))
}

func parse(args []string) (names []string, o options, err error) {
	f := flag.NewFlagSet("hammer", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprintln(f.Output(), "usage: hammer all|verify|http|replay|create|directory|middleware|fanout|snapshot|receipts [flags]")
		f.PrintDefaults()
	}
	f.IntVar(&o.tokens, "tokens", 1_000_000, "tokens of verify, middleware and receipts, events of replay and snapshot; for disk mode ten times as many with -full; of directory a tenth, or with -full all")
	f.IntVar(&o.rounds, "rounds", 5, "rounds of every comparison")
	f.Float64Var(&o.seconds, "seconds", 2, "length of each turn of http and create")
	f.IntVar(&o.group, "group", 1, "events in a message of the replayed stream; 1 is the hardest case")
	f.IntVar(&o.rate, "rate", 50_000, "events a second that are applied beside verify")
	f.IntVar(&o.clients, "clients", 64, "concurrent clients of http and create")
	f.BoolVar(&o.full, "full", false, "disk mode with ten times -tokens, directory with all of them (minutes, and gigabytes in -dir)")
	f.StringVar(&o.output, "o", "table", "output: table or json, one line for each bench")
	f.StringVar(&o.dir, "dir", "", "where temporary directories are made; the system's when empty")
	f.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of this process to the file")
	f.StringVar(&o.binary, "binary", "", "use this watchword binary instead of building one")
	for len(args) > 0 {
		if !strings.HasPrefix(args[0], "-") {
			names, args = append(names, args[0]), args[1:]
			continue
		}
		if err := f.Parse(args); err != nil {
			return nil, o, err
		}
		args = f.Args()
	}
	switch {
	case len(names) == 0:
		f.Usage()
		return nil, o, flag.ErrHelp
	case o.output != "table" && o.output != "json":
		return nil, o, fmt.Errorf("-o %s: there are table and json", o.output)
	case o.tokens < 10_000 || o.rounds < 1 || o.seconds <= 0 || o.rate < 1_000 || o.clients < 1 || o.group < 1 || o.group > 256:
		return nil, o, errors.New("at least 10,000 tokens, a rate of 1,000, one round and one client, some seconds and groups of 1 to 256")
	}
	return names, o, nil
}

func command(ctx context.Context, args []string, out io.Writer) error {
	names, o, err := parse(args)
	if err != nil {
		return err
	}
	var chosen []bench
	for _, name := range names {
		found := false
		for _, b := range benches {
			if name == b.name || name == "all" {
				chosen, found = append(chosen, b), true
			}
		}
		if !found {
			return fmt.Errorf("there is no bench %q", name)
		}
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	dir, err := os.MkdirTemp(o.dir, "watchword-hammer-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := &run{o: o, dir: dir, machine: thisMachine(), out: out}
	for _, b := range chosen {
		if err := b.run(ctx, r); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return r.table()
}

// run is what the benches share.
type run struct {
	o       options
	dir     string // temporary; it is removed at the end
	machine machine
	out     io.Writer
	reports []report
}

// sub makes a temporary directory that is removed by the returned function, or
// with everything else at the end.
func (r *run) sub(name string) (dir string, remove func(), err error) {
	dir = filepath.Join(r.dir, name)
	return dir, func() { os.RemoveAll(dir) }, os.MkdirAll(dir, 0o755)
}

// say tells on stderr what is going on.
func (r *run) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "hammer: %s %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}
