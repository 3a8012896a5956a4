package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events/token"
	"watchword.dev/services/e2e/penload"
)

// ofDirectory loads a large organisation into the real binary by its own
// imports and then asks for pages, looks for names and makes tokens, one request
// at a time, by turns with a bare handler that writes as many bytes.
type ofDirectory struct {
	overHTTP
	o      *organisation
	rng    *rand.Rand
	conn   *client
	plain  *client // to the bare handler
	header map[string]string
	admins []admin
	made   map[int]int // accounts → tokens that were made after the import
}

// admin is a user who administers the account of their number, with a key.
type admin struct {
	i      int
	header map[string]string
}

// answerMax is what a page, a look-up and a creation may take at the median.
const answerMax = 5 // ms

func benchDirectory(ctx context.Context, r *run) error {
	dir, remove, err := r.sub("directory")
	if err != nil {
		return err
	}
	defer remove()
	tokens := r.o.tokens / 10
	if r.o.full {
		tokens = r.o.tokens
	}
	b := &ofDirectory{
		o: newOrganisation(max(tokens/(orgOwned+orgUsers*orgTokens), 10)), rng: rand.New(rand.NewPCG(31, 37)),
		made: map[int]int{},
	}
	pen := newSeries("the pen alone, 64 clients", "events/s")
	if err := penRate(ctx, r, filepath.Join(dir, "pen"), pen); err != nil {
		return err
	}
	defer b.stop()
	if err := b.start(ctx, r, dir); err != nil {
		return err
	}
	b.header = map[string]string{"X-Auth-Email": b.server.Admin.Email, "X-Auth-Key": b.server.Admin.APIKey}
	p, err := b.load(ctx, r, dir, pen)
	if err == nil {
		err = r.publish(p)
	}
	if err != nil {
		return err
	}
	return b.ask(ctx, r)
}

// penRate measures how many creations a second the pen alone can do.
func penRate(ctx context.Context, r *run, dir string, rate *series) error {
	defer os.RemoveAll(dir)
	r.say("directory: the pen alone")
	a, err := penload.Start(ctx, dir)
	if err != nil {
		return err
	}
	b := &creation{pen: a, acked: map[token.ID]uint64{}}
	turn := time.Duration(r.o.seconds * float64(time.Second))
	err = b.together(ctx, r.o.clients, turn/4, b.create, nil)
	if err == nil {
		err = b.together(ctx, r.o.clients, turn, b.create, rate)
	}
	return errors.Join(err, a.Close())
}

// load imports the organisation, twice: the second time nothing changes.
func (b *ofDirectory) load(ctx context.Context, r *run, dir string, pen *series) (report, error) {
	var none report
	people, tokens := filepath.Join(dir, "organisation.csv"), filepath.Join(dir, "tokens.jsonl")
	if err := errors.Join(b.o.writeDirectory(people), b.o.writeTokens(tokens)); err != nil {
		return none, err
	}
	things := b.o.accounts + 2*b.o.users() + b.o.zones()
	r.say("directory: importing %d accounts, %d users and memberships, %d zones and %d tokens", b.o.accounts, b.o.users(), b.o.zones(), b.o.tokens())
	first, err := b.bring(ctx, r, "directory", people, "created", things)
	if err != nil {
		return none, err
	}
	second, err := b.bring(ctx, r, "tokens", tokens, "created", b.o.tokens())
	if err != nil {
		return none, err
	}
	caught, err := b.settled(ctx)
	if err != nil {
		return none, err
	}
	events := float64(things + b.o.tokens())
	whole := newSeries("import, all of it", "events/s")
	whole.add(events / (first + second + caught).Seconds())
	p := compared("directory.import", atLeast(0.5, "x the pen's own rate at creating tokens"), whole, pen)
	p.add(constant("accounts, users, memberships and zones", "events/s", float64(things)/first.Seconds()),
		constant("tokens", "events/s", float64(b.o.tokens())/second.Seconds()),
		constant("until the projections had caught up", "s", caught.Seconds()), constant("events", "", events))
	again, err := b.bring(ctx, r, "directory", people, "unchanged", things)
	if err != nil {
		return none, err
	}
	p.add(constant("the same import of the directory again", "things/s", float64(things)/again.Seconds()))
	sizes, err := b.sizes()
	p.add(sizes...)
	return p, err
}

// bring runs `watchword import` and looks whether the outcome of every row is
// what it must be.
func (b *ofDirectory) bring(ctx context.Context, r *run, what, file, outcome string, want int) (time.Duration, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(ctx, b.binary, "import", what, file, "-o", "json", "--admin-file", filepath.Join(b.server.Data, "admin.json"))
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	began := time.Now()
	go b.watch(ctx, r, began)
	err := cmd.Run()
	took := time.Since(began)
	if err != nil {
		return took, fmt.Errorf("import %s: %w\n%.2000s", what, err, problems.Bytes())
	}
	got, err := outcomes(what, outcome, out.Bytes())
	if err == nil && got != want {
		err = wrong("import %s: %d of %d were %s: %.2000s", what, got, want, outcome, out.Bytes())
	}
	r.say("directory: import %s: %d %s in %v, %.0f a second, %.1f s of the client's processor", what, got, outcome, took.Round(time.Millisecond),
		float64(got)/took.Seconds(), (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
	return took, err
}

// outcomes reads the summary of an import: how many rows had the outcome.
func outcomes(what, outcome string, summary []byte) (n int, err error) {
	if what == "tokens" {
		var all struct {
			Counts map[string]int `json:"counts"`
		}
		err = json.Unmarshal(summary, &all)
		return all.Counts[outcome], err
	}
	var all struct {
		Counts map[string]map[string]int `json:"counts"`
	}
	err = json.Unmarshal(summary, &all)
	for _, counts := range all.Counts {
		n += counts[outcome]
	}
	return n, err
}

// watch tells how far the import is.
func (b *ofDirectory) watch(ctx context.Context, r *run, began time.Time) {
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		ledger, err := sizeOf(filepath.Join(b.server.Data, "nats"))
		state, err2 := b.state(ctx)
		if errors.Join(err, err2) == nil {
			r.say("directory: %v: commit %d, %.0f MB of ledger, %.0f MB resident", time.Since(began).Round(time.Second),
				state.Projections[0].Sequence, ledger/1e6, statusBytes(b.server.PID(), "VmRSS")/1e6)
		}
	}
}

// nodeState is what /readyz tells.
type nodeState struct {
	Projections []struct {
		Name     string `json:"name"`
		Sequence uint64 `json:"sequence"`
		Lag      uint64 `json:"lag"`
	} `json:"projections"`
	Index struct {
		Tokens      int     `json:"tokens"`
		MemoryBytes float64 `json:"memory_bytes"`
	} `json:"index"`
}

func (b *ofDirectory) state(ctx context.Context) (s nodeState, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, b.server.URL+"/readyz", nil)
	if err != nil {
		return s, err
	}
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		return s, err
	}
	defer answer.Body.Close()
	if err := json.UnmarshalRead(answer.Body, &s); err != nil {
		return s, err
	}
	if len(s.Projections) == 0 {
		err = errors.New("the server tells of no projection")
	}
	return s, err
}

// settled waits until no projection is behind.
func (b *ofDirectory) settled(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	for {
		s, err := b.state(ctx)
		if err != nil {
			return 0, err
		}
		lag := uint64(0)
		for _, p := range s.Projections {
			lag = max(lag, p.Lag)
		}
		if lag == 0 {
			if s.Index.Tokens != b.o.tokens() {
				return 0, wrong("the index has %d tokens, %d were imported", s.Index.Tokens, b.o.tokens())
			}
			return time.Since(began), nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sizes are what the organisation takes on disk and in memory.
func (b *ofDirectory) sizes() ([]figure, error) {
	entries, err := os.ReadDir(b.server.Data)
	if err != nil {
		return nil, err
	}
	var all []figure
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		n, err := sizeOf(filepath.Join(b.server.Data, e.Name()))
		if err != nil {
			return nil, err
		}
		name := e.Name() + " on disk"
		if e.Name() == "nats" {
			name = "the ledger and the keys of personal fields on disk"
		}
		all = append(all, constant(name, "bytes", n))
	}
	s, err := b.state(context.Background())
	return append(all, constant("tokens in the verification index", "bytes", s.Index.MemoryBytes),
		constant("resident memory of the server", "bytes", statusBytes(b.server.PID(), "VmRSS")),
		constant("its peak", "bytes", statusBytes(b.server.PID(), "VmHWM"))), err
}

// sizeOf is how many bytes the files of a directory have. Those that go
// meanwhile do not count.
func sizeOf(dir string) (float64, error) {
	total := 0.0
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			total += float64(info.Size())
		}
		return err
	})
	return total, err
}

// statusBytes reads one of the sizes that Linux tells of a process; 0 elsewhere.
func statusBytes(pid int, name string) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var n float64
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			if _, err := fmt.Sscanf(rest, "%g kB", &n); err == nil {
				return n * 1024
			}
		}
	}
	return 0
}
