package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/services/e2e/proc"
)

// Report is the result of a run.
type Report struct {
	Rounds       int    `json:"rounds"`
	Acknowledged int    `json:"acknowledged"` // changes that the server answered with success
	Unanswered   int    `json:"unanswered"`   // changes whose answer the kill swallowed
	Lost         int    `json:"lost"`         // acknowledged, but not in the ledger or not in force
	Ghosts       int    `json:"ghosts"`       // in force, but not in the ledger
	Fsck         string `json:"fsck"`         // "clean", or what it found
}

// harness runs the rounds.
type harness struct {
	binary, data string
	workers      []*worker
	rng          *rand.Rand
	report       Report
	findings     []string

	ledger ledger
}

// ledger is what the events read so far add up to.
type ledger struct {
	tokens map[token.ID]*aggregate.Token
	facts  map[fact]bool // what happened, for looking up acknowledged changes
	seq    uint64
}

// fact identifies a change: an event of a token, by the secret that it brought
// where it brought one.
type fact struct {
	id     token.ID
	verb   string
	secret token.Digest
}

func newHarness(binary, dir string, workers int, rng *rand.Rand) *harness {
	h := &harness{binary: binary, data: filepath.Join(dir, "data"), rng: rng}
	h.ledger = ledger{tokens: map[token.ID]*aggregate.Token{}, facts: map[fact]bool{}}
	for range workers {
		h.workers = append(h.workers, &worker{rng: rand.New(rand.NewPCG(rng.Uint64(), 1))})
	}
	return h
}

func (h *harness) run(ctx context.Context, rounds int) error {
	for h.report.Rounds = 0; h.report.Rounds < rounds; h.report.Rounds++ {
		if err := h.round(ctx); err != nil {
			return fmt.Errorf("round %d: %w", h.report.Rounds+1, err)
		}
		if (h.report.Rounds+1)%10 == 0 {
			fmt.Fprintf(os.Stderr, "crash: round %d of %d, %d acknowledged, %d unanswered, %d lost, %d ghosts\n",
				h.report.Rounds+1, rounds, h.report.Acknowledged, h.report.Unanswered, h.report.Lost, h.report.Ghosts)
		}
	}
	// One more start, so that the last kill is checked too.
	s, err := h.start(ctx)
	if err != nil {
		return err
	}
	err = h.check(ctx, s)
	if err := s.Stop(30 * time.Second); err != nil {
		return fmt.Errorf("a clean stop failed: %w", err)
	}
	if err != nil {
		return err
	}
	h.report.Fsck = h.fsck(ctx)
	return nil
}

// start runs the server until it is ready, and in one of eight cases kills it
// first while it starts.
func (h *harness) start(ctx context.Context) (*proc.Server, error) {
	if h.rng.IntN(8) == 0 {
		s, err := proc.Start(h.binary, h.data, proc.Unlimited...)
		if err != nil {
			return nil, err
		}
		time.Sleep(time.Duration(h.rng.IntN(400)) * time.Millisecond)
		s.Kill()
	}
	s, err := proc.Start(h.binary, h.data, proc.Unlimited...)
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	if err := s.Ready(wait); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// round starts the server, checks what the kill before left, loads it and
// kills it.
func (h *harness) round(ctx context.Context) error {
	s, err := h.start(ctx)
	if err != nil {
		return err
	}
	defer s.Kill()
	if err := h.check(ctx, s); err != nil {
		return err
	}
	load, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	for _, w := range h.workers {
		wg.Go(func() { w.work(load, s.Admin) })
	}
	// Until here everything was quiet; the kill comes at any moment of the load.
	time.Sleep(time.Duration(10+h.rng.IntN(500)) * time.Millisecond)
	s.Kill()
	stop()
	wg.Wait()
	return ctx.Err()
}

// check reads what the ledger holds now and compares it with what was
// acknowledged and with what the server says.
func (h *harness) check(ctx context.Context, s *proc.Server) error {
	if err := h.read(ctx); err != nil {
		return err
	}
	for i, w := range h.workers {
		for _, f := range w.acknowledged {
			if !h.ledger.facts[f] {
				h.report.Lost++
				h.find("worker %d: acknowledged %s of %v is not in the ledger", i, f.verb, f.id)
			}
		}
		h.report.Acknowledged += len(w.acknowledged)
		h.report.Unanswered += w.unanswered
		w.acknowledged, w.unanswered = w.acknowledged[:0], 0
	}
	if err := h.checkList(ctx, s); err != nil {
		return err
	}
	return h.checkSecrets(ctx, s)
}

// read takes the events that have come since the last call.
func (h *harness) read(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, h.binary, "events", "tail", "-o", "json", "--from", strconv.FormatUint(h.ledger.seq+1, 10),
		"--admin-file", filepath.Join(h.data, "admin.json"), "--with-sequence")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("read the ledger: %w\n%s", err, stderr.String())
	}
	for line := range bytes.Lines(out) {
		seqText, event, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		seq, err := strconv.ParseUint(string(seqText), 10, 64)
		if !ok || err != nil {
			return fmt.Errorf("the ledger's output has an odd line: %.80q", line)
		}
		var r events.Record
		if err := events.Decode(bytes.Clone(event), &r); err != nil {
			return err
		}
		r.Seq = seq
		if err := h.ledger.apply(&r); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) apply(r *events.Record) error {
	l.seq = r.Seq
	f := fact{id: r.SubjectID()}
	switch d := r.Data.(type) {
	case *events.TokenCreated:
		f.verb, f.secret = "create", d.Secret
	case *events.TokenRolled:
		f.verb, f.secret = "roll", d.Secret
	case *events.TokenRevoked:
		f.verb = "revoke"
	default:
		return nil
	}
	l.facts[f] = true
	t := l.tokens[f.id]
	if t == nil {
		t = new(aggregate.Token)
		l.tokens[f.id] = t
	}
	return t.Apply(r)
}

// fsck asks the binary, with no server running.
func (h *harness) fsck(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, h.binary, "fsck", "--data", h.data, "-o", "json").CombinedOutput()
	if err == nil {
		return "clean"
	}
	var answer struct {
		Findings []string `json:"findings"`
	}
	if json.Unmarshal(bytes.TrimSpace(out), &answer) == nil && len(answer.Findings) > 0 {
		return fmt.Sprint(answer.Findings)
	}
	return fmt.Sprintf("failed: %v: %s", err, out)
}

func (h *harness) find(format string, args ...any) {
	const enough = 50
	if len(h.findings) < enough {
		h.findings = append(h.findings, fmt.Sprintf(format, args...))
	}
}
