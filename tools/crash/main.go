// Command crash kills a loaded server again and again and checks that it kept
// every promise: what it acknowledged is in the ledger, and no secret verifies
// that the ledger does not vouch for.
//
//	go run ./tools/crash -rounds 100 -o json
//
// Every round starts the real binary on the same data directory, lets workers
// create, roll and revoke tokens over HTTP, and ends it with SIGKILL at a
// random moment, now and then while it still starts. The record of what was
// acknowledged lives here, outside of what is killed.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"

	json "github.com/go-json-experiment/json"

	"watchword.dev/services/e2e/proc"
)

func main() {
	rounds := flag.Int("rounds", 100, "how many times to kill the server")
	workers := flag.Int("workers", 16, "concurrent clients")
	output := flag.String("o", "text", "output: text or json")
	seed := flag.Uint64("seed", rand.Uint64(), "seed of the random choices")
	binary := flag.String("binary", "", "use this watchword binary instead of building one")
	keep := flag.String("keep", "", "use this empty directory for the data and keep it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	code, err := run(ctx, *rounds, *workers, *seed, *binary, *keep, *output)
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		code = 2
	}
	stop()
	os.Exit(code)
}

func run(ctx context.Context, rounds, workers int, seed uint64, binary, keep, output string) (int, error) {
	dir := keep
	if dir == "" {
		tmp, err := os.MkdirTemp("", "watchword-crash-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(tmp)
		dir = tmp
	}
	if binary == "" {
		fmt.Fprintln(os.Stderr, "crash: building the binary")
		b, err := proc.Build(ctx, dir)
		if err != nil {
			return 0, err
		}
		binary = b
	}
	fmt.Fprintf(os.Stderr, "crash: seed %d\n", seed)
	h := newHarness(binary, dir, workers, rand.New(rand.NewPCG(seed, 0)))
	if err := h.run(ctx, rounds); err != nil {
		return 0, err
	}
	rep := h.report
	if output == "json" {
		b, err := json.Marshal(rep)
		if err != nil {
			return 0, err
		}
		fmt.Printf("%s\n", b)
	} else {
		fmt.Printf("rounds %d, acknowledged %d, unanswered %d, lost %d, ghosts %d, fsck %s\n",
			rep.Rounds, rep.Acknowledged, rep.Unanswered, rep.Lost, rep.Ghosts, rep.Fsck)
	}
	for _, f := range h.findings {
		fmt.Fprintln(os.Stderr, "crash:", f)
	}
	if rep.Lost != 0 || rep.Ghosts != 0 || rep.Fsck != "clean" {
		return 1, nil
	}
	return 0, nil
}
