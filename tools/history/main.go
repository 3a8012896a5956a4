// Command history checks the promise that Watchword is for: while tokens are
// revoked, rolled and changed, it asks many enforcers, processes of their own,
// about them all the time, cuts, stalls and slows their connections, stops the
// processes and kills the server; and afterwards it holds every answer against
// the ledger.
//
//	go run ./tools/history -changes 10000 -length 2m -o json
//
// Wrong is an answer that allows what was taken away, after a receipts answer had
// said that everybody has heard, or later than the staleness bound; one that
// refuses what nothing had taken away; and one that does not go with the sequence
// on which it says that it rests. "Unavailable" is neither. At
// the end the server is gone for longer than the bounds: nobody may answer then,
// and all must catch up. The exit code is 1 when anything was wrong.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/services/e2e/proc"
)

// options say how large a run is.
type options struct {
	changes     int
	length      time.Duration
	enforcers   int
	wrong       int
	rate        int
	restarts    int
	read, write time.Duration
	calm        bool
	seed        uint64
	binary      string
	keep        string
}

func main() {
	if path := os.Getenv(jobVariable); path != "" {
		if err := runJob(path); err != nil {
			fmt.Fprintln(os.Stderr, "history: enforcer:", err)
			os.Exit(2)
		}
		return
	}
	var o options
	flag.IntVar(&o.changes, "changes", 1000, "revocations, rolls and scope changes")
	flag.DurationVar(&o.length, "length", 45*time.Second, "how long the changes take")
	flag.IntVar(&o.enforcers, "enforcers", 20, "enforcers, by turns thin and with an index of their own, over HTTP and over NATS")
	flag.IntVar(&o.wrong, "wrong", 0, "further enforcers that never heed what they hear: they must be found")
	flag.IntVar(&o.rate, "rate", 100, "questions a second that each enforcer is asked")
	flag.IntVar(&o.restarts, "restarts", 2, "how many times to stop the server for a moment, and to kill it, under the load")
	flag.DurationVar(&o.read, "read", 3*time.Second, "staleness bound for reading")
	flag.DurationVar(&o.write, "write", 2*time.Second, "staleness bound for writing")
	flag.BoolVar(&o.calm, "calm", false, "leave the enforcers alone: receipts as they are without faults")
	flag.Uint64Var(&o.seed, "seed", rand.Uint64(), "seed of the random choices")
	flag.StringVar(&o.binary, "binary", "", "use this watchword binary instead of building one")
	flag.StringVar(&o.keep, "keep", "", "use this empty directory for the data and keep it")
	output := flag.String("o", "text", "output: text or json")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	rep, err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "history:", err)
		os.Exit(2)
	}
	if err := rep.print(*output); err != nil {
		fmt.Fprintln(os.Stderr, "history:", err)
		os.Exit(2)
	}
	if rep.Violations.sum() > 0 {
		os.Exit(1)
	}
}

// Report is the result of a run.
type Report struct {
	Seed       uint64         `json:"seed"`
	Enforcers  map[string]int `json:"enforcers"` // by kind
	Changes    Changes        `json:"changes"`
	Faults     Faults         `json:"faults"`
	Answers    Answers        `json:"answers"`
	Receipts   Receipts       `json:"receipts"`
	Violations Violations     `json:"violations"`

	findings []string
}

// Changes count what was done to tokens.
type Changes struct {
	Created    int `json:"created"`
	Revoked    int `json:"revoked"`
	Rolled     int `json:"rolled"`
	Scoped     int `json:"scoped"`
	Unanswered int `json:"unanswered"` // done or not: the ledger tells
}

// Faults count what was done to enforcers and to the server.
type Faults struct {
	Cuts     int `json:"cuts"`
	Stalls   int `json:"stalls"`
	Delays   int `json:"delays"`
	Pauses   int `json:"pauses"`
	Restarts int `json:"restarts"` // kills of the server
	// ServerPauses are those of the server's process.
	ServerPauses int `json:"server_pauses"`
}

// Receipts tell when changes were said to be complete, from the event on. In the
// times of AllHeard nobody was waited for in vain.
type Receipts struct {
	Watched     int      `json:"watched"`
	Complete    int      `json:"complete"`
	AllHeard    int      `json:"all_heard"`
	AllHeardMS  Quantile `json:"all_heard_ms"`
	BoundOver   int      `json:"bound_over"`
	BoundOverMS Quantile `json:"bound_over_ms"`
}

func run(ctx context.Context, o options) (*Report, error) {
	dir := o.keep
	if dir == "" {
		tmp, err := os.MkdirTemp("", "watchword-history-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(tmp)
		dir = tmp
	}
	if o.binary == "" {
		fmt.Fprintln(os.Stderr, "history: building the binary")
		b, err := proc.Build(ctx, dir)
		if err != nil {
			return nil, err
		}
		o.binary = b
	}
	fmt.Fprintf(os.Stderr, "history: seed %d\n", o.seed)
	h := newHarness(o, dir)
	defer h.close()
	return h.run(ctx)
}

func (r *Report) print(output string) error {
	for _, f := range r.findings {
		fmt.Fprintln(os.Stderr, "history:", f)
	}
	if output == "json" {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", b)
		return nil
	}
	c, f, a, q, v := r.Changes, r.Faults, r.Answers, r.Receipts, r.Violations
	fmt.Printf("seed        %d\nenforcers   %v\n", r.Seed, r.Enforcers)
	fmt.Printf("changes     %d: %d revoked, %d rolled, %d scoped; %d created, %d unanswered\n", c.Revoked+c.Rolled+c.Scoped, c.Revoked, c.Rolled, c.Scoped, c.Created, c.Unanswered)
	fmt.Printf("faults      %d cuts, %d stalls, %d delays, %d pauses; of the server %d pauses, %d kills\n", f.Cuts, f.Stalls, f.Delays, f.Pauses, f.ServerPauses, f.Restarts)
	fmt.Printf("answers     %d: %d allows, %d denies, %d unavailable; %d allows after the change: p50 %.1f ms, p99 %.1f ms, at most %.1f ms\n",
		a.All, a.Allows, a.Denies, a.Unavailable, a.Late, a.LateMS.P50, a.LateMS.P99, a.LateMS.Max)
	fmt.Printf("receipts    %d of %d complete: %d all heard (p50 %.1f ms, p99 %.1f ms, max %.1f ms), %d by the bound (p50 %.1f ms, max %.1f ms)\n",
		q.Complete, q.Watched, q.AllHeard, q.AllHeardMS.P50, q.AllHeardMS.P99, q.AllHeardMS.Max, q.BoundOver, q.BoundOverMS.P50, q.BoundOverMS.Max)
	fmt.Printf("violations  %d: %d after complete, %d after the bound, %d wrong refusals, %d contradictions, %d unvouched, %d lost, %d behind, %d failed\n",
		v.sum(), v.AfterComplete, v.AfterBound, v.WrongRefusals, v.Contradictions, v.Unvouched, v.Lost, v.Behind, v.Failed)
	return nil
}
