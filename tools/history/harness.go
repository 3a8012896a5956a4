package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/feed/sse"
	"watchword.dev/events/token"
	"watchword.dev/services/e2e/proc"
)

// harness runs the server, the enforcers, the load and the faults.
type harness struct {
	options
	dir        string
	rng        *rand.Rand // of the goroutine that runs everything
	http, nats string     // addresses of the server, the same after each start
	admin      proc.Admin
	server     *proc.Server
	enforcing  []*child
	clients    *clients
	report     Report
	away       [2]int64
}

// child is an enforcer's process and its ways to the server.
type child struct {
	name       string
	job        job
	cmd        *exec.Cmd
	done       chan struct{}
	log        bytes.Buffer
	http, nats *proxy
}

const (
	zoneID      = "1f0c6b0f0a2b4c6d8e9f00112233aabb"
	groupRead   = "82e64a83756745bbbb1c9c2701bf816b" // DNS Read
	groupWrite  = "4755a26eedb94da69e1066d98aa820be" // DNS Write
	zoneType    = "com.cloudflare.api.account.zone."
	accountType = "com.cloudflare.api.account."

	anchors  = 20
	startMax = 60 * time.Second
)

func newHarness(o options, dir string) *harness {
	h := &harness{options: o, dir: dir, rng: rand.New(rand.NewPCG(o.seed, 0))}
	h.report.Seed, h.report.Enforcers = o.seed, map[string]int{}
	return h
}

func (h *harness) close() {
	for _, c := range h.enforcing {
		c.close()
	}
	if h.server != nil {
		h.server.Kill()
	}
}

func (h *harness) path(name string) string { return filepath.Join(h.dir, name) }

func (h *harness) run(ctx context.Context) (*Report, error) {
	for _, addr := range []*string{&h.http, &h.nats} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		*addr = l.Addr().String()
		l.Close()
	}
	if err := h.start(ctx); err != nil {
		return nil, err
	}
	var err error
	if h.clients, err = newClients(h.admin, h.path("tokens"), h.seed); err != nil {
		return nil, err
	}
	defer h.clients.close()
	if err := h.clients.begin(ctx); err != nil {
		return nil, err
	}
	if err := h.launch(ctx); err != nil {
		return nil, err
	}
	if err := h.load(ctx); err != nil {
		return nil, err
	}
	if err := h.leave(ctx); err != nil {
		return nil, err
	}
	return &h.report, h.check(ctx)
}

// start runs the server until it is ready.
func (h *harness) start(ctx context.Context) error {
	args := append([]string{
		"--listen", h.http, "--nats-listen", h.nats,
		"--stale-read", h.read.String(), "--stale-write", h.write.String(), "--stale-admin", h.write.String(),
	}, proc.Unlimited...)
	var err error
	if h.server, err = proc.Start(h.binary, h.path("data"), args...); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	if err := h.server.Ready(wait); err != nil {
		return err
	}
	h.admin = h.server.Admin
	return nil
}

// launch enrolls the enforcers, starts them and waits until all verify.
func (h *harness) launch(ctx context.Context) error {
	kinds := [...]string{thinHTTP, thinNATS, fullHTTP, fullNATS}
	for n := range h.enforcers + h.wrong {
		kind := kinds[n%len(kinds)]
		if n >= h.enforcers {
			kind = deaf
		}
		c := &child{name: fmt.Sprintf("%s-%d", kind, n), done: make(chan struct{})}
		h.enforcing = append(h.enforcing, c)
		h.report.Enforcers[kind]++
		if err := h.enrol(ctx, c, kind); err != nil {
			return err
		}
		if err := c.start(h.path(c.name + ".job")); err != nil {
			return err
		}
	}
	return h.caughtUp(ctx, 1)
}

func (h *harness) enrol(ctx context.Context, c *child, kind string) error {
	file := h.path(c.name + ".json")
	cmd := exec.CommandContext(ctx, h.binary, "enforcer", "enroll", c.name, "--credentials", file, "--admin-file", h.path("data/admin.json"), "-o", "json")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("enroll %s: %w\n%s", c.name, err, out)
	}
	var err error
	if c.http, err = newProxy(h.http); err != nil {
		return err
	}
	if c.nats, err = newProxy(h.nats); err != nil {
		return err
	}
	c.job = job{
		Kind: kind, Credentials: file, HTTP: "http://" + c.http.addr(), NATS: "nats://" + c.nats.addr(),
		Tokens: h.path("tokens"), Answers: h.path(c.name + ".answers"), Dir: h.path(c.name + ".index"),
		Chain: []string{accountType + h.admin.AccountID, zoneType + zoneID},
		Read:  int64(h.read), Write: int64(h.write), Rate: h.rate, Seed: h.rng.Uint64(),
	}
	b, err := json.Marshal(c.job)
	if err != nil {
		return err
	}
	return os.WriteFile(h.path(c.name+".job"), b, 0o600)
}

// start runs this program again, as an enforcer.
func (c *child) start(jobFile string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c.cmd = exec.Command(self)
	c.cmd.Env = append(os.Environ(), jobVariable+"="+jobFile)
	c.cmd.Stderr = &c.log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = c.cmd.Wait() // ProcessState tells
		close(c.done)
	}()
	return nil
}

func (c *child) signal(s os.Signal) {
	_ = c.cmd.Process.Signal(s) // it may have ended, which is found at the end
}

func (c *child) running() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

func (c *child) close() {
	if c.cmd != nil && c.cmd.Process != nil {
		_ = c.cmd.Process.Kill() // it may have ended
		<-c.done
	}
	for _, p := range []*proxy{c.http, c.nats} {
		if p != nil {
			p.close()
		}
	}
}

// caughtUp waits until every enforcer has receipted seq.
func (h *harness) caughtUp(ctx context.Context, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, startMax)
	defer cancel()
	for {
		behind, err := h.behind(ctx, seq)
		if err == nil && len(behind) == 0 {
			return nil
		}
		for _, c := range h.enforcing {
			if !c.running() {
				return fmt.Errorf("%s has ended: %v\n%s", c.name, c.cmd.ProcessState, c.log.String())
			}
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("not at sequence %d in time: %v, %v", seq, behind, err)
		}
	}
}

// behind are the enforcers of which no live instance has receipted seq.
func (h *harness) behind(ctx context.Context, seq uint64) (names []string, err error) {
	var all []struct {
		Name      string `json:"name"`
		Instances []struct {
			State    string `json:"state"`
			Sequence uint64 `json:"sequence"`
		} `json:"instances"`
	}
	if _, err := h.clients.ask(ctx, "GET", "/v1/enforcers", nil, &all); err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, e := range all {
		for _, i := range e.Instances {
			there[e.Name] = there[e.Name] || i.State == "live" && i.Sequence >= seq
		}
	}
	for _, c := range h.enforcing {
		if !there[c.name] {
			names = append(names, c.name)
		}
	}
	return names, nil
}

// load changes tokens for as long as was asked for, with all faults.
func (h *harness) load(ctx context.Context) error {
	faulty, quiet := context.WithCancel(ctx)
	stormy := make(chan struct{})
	go func() {
		defer close(stormy)
		if h.calm {
			return
		}
		h.storms(faulty, rand.New(rand.NewPCG(h.seed, 2)))
	}()
	changing := make(chan struct{})
	go func() {
		defer close(changing)
		h.clients.change(ctx, h.changes, h.length)
	}()
	// After a kill some seconds pass until all can have heard again: the first
	// half goes without.
	err := pause(ctx, h.length/2)
	for range h.restarts {
		if err = h.restart(ctx, h.length/time.Duration(2*h.restarts+2)); err != nil {
			break
		}
	}
	if err != nil {
		h.clients.stop()
	}
	<-changing
	quiet()
	<-stormy
	return errors.Join(err, ctx.Err())
}

// restart stops the server for a moment, and after a while kills it.
func (h *harness) restart(ctx context.Context, after time.Duration) error {
	moment := time.Duration(h.rng.Int64N(int64(h.read)))
	if err := h.server.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	h.report.Faults.ServerPauses++
	err := pause(ctx, moment)
	if err := errors.Join(err, h.server.Signal(syscall.SIGCONT)); err != nil {
		return err
	}
	if err := pause(ctx, max(after-moment, 0)); err != nil {
		return err
	}
	h.report.Faults.Restarts++
	h.server.Kill()
	if err := h.start(ctx); err != nil {
		return err
	}
	h.clients.settled(ctx)
	return nil
}

// storms lets all enforcers suffer for a while, and then none, by turns.
func (h *harness) storms(ctx context.Context, rng *rand.Rand) {
	var mu sync.Mutex
	for first := true; first || pause(ctx, 2*h.read) == nil; first = false {
		storm, end := context.WithTimeout(ctx, h.read+time.Duration(rng.Int64N(int64(2*h.read))))
		var all sync.WaitGroup
		for _, c := range h.enforcing {
			own := rand.New(rand.NewPCG(rng.Uint64(), 3))
			all.Go(func() { c.suffer(storm, own, 2*h.read, &h.report.Faults, &mu) })
		}
		all.Wait()
		end()
	}
}

// leave stops the server for longer than all bounds, and waits until all have
// caught up afterwards.
func (h *harness) leave(ctx context.Context) error {
	h.clients.settled(ctx)
	h.report.Faults.Restarts++
	h.server.Kill()
	h.away[0] = time.Now().UnixNano()
	if err := pause(ctx, 2*max(h.read, h.write)+time.Second); err != nil {
		return err
	}
	h.away[1] = time.Now().UnixNano()
	if err := h.start(ctx); err != nil {
		return err
	}
	last := h.clients.last(ctx) // one more change, which nobody may miss
	if err := h.caughtUp(ctx, last); err != nil {
		h.report.Violations.Behind++
		h.report.findings = append(h.report.findings, err.Error())
	}
	h.clients.stop()
	return pause(ctx, h.read+time.Second) // some answers that rest on it
}

// check ends the enforcers and holds their answers against the ledger.
func (h *harness) check(ctx context.Context) error {
	checker := &checker{back: map[string]bool{}, h: &history{
		tokens: map[token.ID][]state{}, facts: map[fact]bool{}, read: h.read, write: h.write, away: h.away,
		settled: h.clients.settledAt, heard: h.clients.heardAt, secrets: h.clients.secrets,
	}}
	checker.found, checker.findings = h.report.Violations, h.report.findings
	for _, c := range h.enforcing {
		ended := !c.running()
		c.signal(syscall.SIGTERM)
		<-c.done
		if ended || !c.cmd.ProcessState.Success() {
			checker.found.Failed++
			checker.find("%s: %v\n%s", c.name, c.cmd.ProcessState, c.log.String())
		}
	}
	if err := h.ledger(ctx, checker.h); err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	checker.h.settle()
	checker.lost(h.clients.acknowledged)
	for _, c := range h.enforcing {
		if err := c.judge(checker); err != nil {
			return err
		}
		if !checker.back[c.name] {
			checker.found.Behind++
			checker.find("%s allows nothing since the server is back\n%s", c.name, c.log.String())
		}
	}
	checker.answers.LateMS = quantile(checker.answers.late)
	h.report.Answers, h.report.Violations, h.report.findings = checker.answers, checker.found, checker.findings
	h.clients.count(&h.report)
	return nil
}

// ledger reads all events.
func (h *harness) ledger(ctx context.Context, into *history) error {
	r, err := sse.New(sse.Config{URL: h.admin.BaseURL, Key: h.admin.EnforcerKey})
	if err != nil {
		return err
	}
	head, err := r.Head(ctx)
	if err != nil {
		return err
	}
	enough := errors.New("enough")
	tokens := map[token.ID]*aggregate.Token{}
	err = r.Read(ctx, events.Position{}, func(c events.Commit) error {
		for i := range c.Records {
			if err := into.apply(tokens, &c.Records[i]); err != nil {
				return err
			}
		}
		if c.Seq >= head {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		return err
	}
	return nil
}

// judge reads the answers of one enforcer.
func (c *child) judge(k *checker) error {
	f, err := os.Open(c.job.Answers)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if err := k.check(c.name, &a); err != nil {
			return err
		}
	}
}

// suffer does something bad to an enforcer again and again until ctx ends, and
// leaves it well.
func (c *child) suffer(ctx context.Context, rng *rand.Rand, most time.Duration, count *Faults, mu *sync.Mutex) {
	upTo := func(d time.Duration) time.Duration { return d/10 + time.Duration(rng.Int64N(int64(d))) }
	for first := true; first || pause(ctx, upTo(most)) == nil; first = false {
		ways := [][]*proxy{{c.http, c.nats}, {c.http}, {c.nats}}[rng.IntN(3)]
		var ends []func()
		lasts, which := upTo(most), (*int)(nil)
		switch rng.IntN(4) {
		case 0:
			which = &count.Cuts
			for _, p := range ways {
				ends = append(ends, p.cutOff())
			}
		case 1:
			which = &count.Stalls
			for _, p := range ways {
				ends = append(ends, p.stop())
			}
		case 2:
			which = &count.Delays
			d := time.Duration(rng.Int64N(int64(300 * time.Millisecond)))
			for _, p := range ways {
				ends = append(ends, p.slow(d))
			}
		case 3:
			which = &count.Pauses
			c.signal(syscall.SIGSTOP)
			ends = append(ends, func() { c.signal(syscall.SIGCONT) })
		}
		mu.Lock()
		*which++
		mu.Unlock()
		_ = pause(ctx, lasts) // the end of the storm ends it too
		for _, end := range ends {
			end()
		}
	}
}
