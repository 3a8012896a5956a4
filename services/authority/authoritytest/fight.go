package authoritytest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/authority"
)

// Open makes one more connection to the ledger under test, for one process.
type Open func(t testing.TB) (events.Log, events.Pulses)

// Fight is how pens fight over one ledger. The zero value is a short one.
type Fight struct {
	Seed    uint64
	Steps   int           // things that happen to the pens; default 20
	Pens    int           // default 2
	Callers int           // who give commands all the time; default 8
	Step    time.Duration // the longest time between two things; default 6 s
	// Lossy makes one append or pulse in so many lose its call or its answer;
	// zero makes none.
	Lossy int
	// Delay is the longest time that an append or a pulse travels, each way,
	// in addition to what it takes. In fake time all else takes none.
	Delay time.Duration
	// Takeover is how long the ledger may be without a pen that answers;
	// default 5 s.
	Takeover time.Duration
	// Tune changes the settings of a pen.
	Tune func(*authority.Config)
}

func (f *Fight) setDefaults() {
	def := func(field *int, n int) {
		if *field == 0 {
			*field = n
		}
	}
	def(&f.Steps, 20)
	def(&f.Pens, 2)
	def(&f.Callers, 8)
	if f.Step == 0 {
		f.Step = 6 * time.Second
	}
	if f.Takeover == 0 {
		f.Takeover = 5 * time.Second
	}
}

// Pens lets pens be stopped, resumed, killed, started again and put down at
// random, while callers give commands to all of them, and then reads the
// ledger:
//
//   - what was acknowledged is there, once, where the answer said, and the pen
//     that answered was the one that was open there;
//   - what was refused is not there;
//   - nothing is there twice, and the chain is whole;
//   - no pen told a head that was behind what had been acknowledged;
//   - whenever a living pen was left, commands were accepted again within
//     Takeover.
func Pens(t testing.TB, open Open, f Fight) {
	t.Helper()
	f.setDefaults()
	t.Logf("seed %d", f.Seed)
	a := &arena{Fight: f, t: t, open: open, people: NewInstallation(), end: make(chan struct{})}
	a.ctx, a.stop = context.WithCancel(context.Background())
	a.run()
	a.check()
}

// arena is where a fight takes place.
type arena struct {
	Fight
	t      testing.TB
	open   Open
	people *Installation
	ctx    context.Context
	stop   context.CancelFunc
	end    chan struct{}
	group  sync.WaitGroup
	acked  atomic.Uint64 // the highest sequence that was acknowledged

	mu        sync.Mutex
	nodes     []*node
	made      []asked
	takeovers int
	longest   time.Duration
}

// node is one process.
type node struct {
	name   string
	gate   *gate
	pen    *authority.Pen
	cancel context.CancelFunc
	ended  chan struct{}
	paused bool
}

// asked is a command and what its caller was told.
type asked struct {
	id    token.ID
	pen   string
	seq   uint64
	err   error
	alone bool // the caller never heard anything: the process was killed
}

func (a *arena) rng(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(a.Seed, stream)) }

// start starts a process in place i.
func (a *arena) start(i, life int) {
	log, pulses := a.open(a.t)
	g := &gate{log: log, pulses: pulses, end: a.end, rng: a.rng(uint64(1000*i + life)), lossy: a.Lossy, delay: a.Delay}
	past := NewDirectory()
	n := &node{name: fmt.Sprintf("node-%d-%d", i, life), gate: g, ended: make(chan struct{})}
	cfg := a.people.Config(n.name, g, g, past)
	if a.Tune != nil {
		a.Tune(&cfg)
	}
	pen, err := authority.New(cfg)
	if err != nil {
		a.t.Fatal(err)
	}
	n.pen = pen
	ctx, cancel := context.WithCancel(a.ctx)
	n.cancel = cancel
	a.group.Go(func() {
		if err := past.Follow(ctx, g, nil); err != nil && !errors.Is(err, errKilled) {
			a.t.Errorf("the directory of %s: %v", n.name, err)
		}
	})
	a.group.Go(func() {
		defer close(n.ended)
		if err := pen.Run(ctx); err != nil && !errors.Is(err, errKilled) {
			a.t.Errorf("the pen of %s: %v", n.name, err)
		}
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	if i == len(a.nodes) {
		a.nodes = append(a.nodes, n)
	} else {
		a.nodes[i] = n
	}
}

// some returns a node that is not stopped.
func (a *arena) some(rng *rand.Rand) *node {
	a.mu.Lock()
	defer a.mu.Unlock()
	for range 8 {
		if n := a.nodes[rng.IntN(len(a.nodes))]; !n.paused {
			return n
		}
	}
	return nil
}

// ask gives one command to a node and remembers what came of it.
func (a *arena) ask(n *node, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(a.ctx, patience)
	defer cancel()
	c := a.people.Create()
	res, err := n.pen.Do(ctx, ByKey(a.people.Operator), c)
	a.mu.Lock()
	defer a.mu.Unlock()
	n.gate.mu.Lock()
	dead := n.gate.dead
	n.gate.mu.Unlock()
	a.made = append(a.made, asked{c.ID, n.pen.Stats().Node, res.Seq, err, dead})
	if err == nil && !dead {
		for was := a.acked.Load(); was < res.Seq && !a.acked.CompareAndSwap(was, res.Seq); was = a.acked.Load() {
		}
	}
	return err
}

func (a *arena) call(i int) {
	rng := a.rng(uint64(100 + i))
	for a.ctx.Err() == nil {
		if n := a.some(rng); n != nil {
			_ = a.ask(n, 2*time.Second) // remembered
		}
		time.Sleep(time.Duration(1+rng.IntN(30)) * time.Millisecond)
	}
}

// probe asks for heads and compares them with what was acknowledged before.
func (a *arena) probe() {
	rng := a.rng(99)
	for a.ctx.Err() == nil {
		a.mu.Lock()
		n := a.nodes[rng.IntN(len(a.nodes))] // stopped ones, too
		a.mu.Unlock()
		before := a.acked.Load()
		if head, err := n.pen.Head(a.ctx); err == nil && head < before {
			a.t.Errorf("%s told head %d when %d had been acknowledged", n.name, head, before)
		}
		time.Sleep(time.Duration(1+rng.IntN(20)) * time.Millisecond)
	}
}

func (a *arena) run() {
	rng := a.rng(0)
	for i := range a.Pens {
		a.start(i, 0)
	}
	a.bootstrap()
	for i := range a.Callers {
		a.group.Go(func() { a.call(i) })
	}
	a.group.Go(a.probe)
	for step := range a.Steps {
		time.Sleep(time.Duration(rng.Int64N(int64(a.Step))))
		a.step(rng, step)
	}
	for i := range a.nodes {
		a.nodes[i].gate.resume()
	}
	time.Sleep(a.Step) // whatever is under way arrives
	a.stop()
	close(a.end)
	a.group.Wait()
}

func (a *arena) bootstrap() {
	for a.ctx.Err() == nil {
		for _, n := range a.nodes {
			if mode, _ := n.pen.Mode(); mode == authority.Active {
				err := authority.Bootstrap(a.ctx, n.pen, a.people.People()...)
				if err == nil {
					return
				}
				a.t.Logf("bootstrap: %v", err) // and again: each command may be given twice
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// step lets one thing happen, mostly to the pen that writes, and waits until
// commands are accepted again.
func (a *arena) step(rng *rand.Rand, step int) {
	i := rng.IntN(len(a.nodes))
	if rng.IntN(3) > 0 {
		for j, n := range a.nodes {
			if mode, _ := n.pen.Mode(); mode == authority.Active && !n.paused {
				i = j
			}
		}
	}
	for j := range a.nodes { // somebody must be left
		if j != i && a.nodes[j].paused {
			a.setPaused(j, false)
		}
	}
	n := a.nodes[i]
	what := rng.IntN(5)
	switch {
	case n.paused:
		a.setPaused(i, false)
		a.t.Logf("step %d: %s goes on", step, n.name)
	case what < 3:
		a.setPaused(i, true)
		a.t.Logf("step %d: %s is stopped", step, n.name)
	case what == 3:
		a.t.Logf("step %d: %s is killed", step, n.name)
		n.gate.kill()
		n.cancel()
		a.start(i, step+1)
	default:
		a.t.Logf("step %d: %s ends", step, n.name)
		n.cancel()
		<-n.ended
		a.start(i, step+1)
	}
	a.takenOver(rng, step)
}

func (a *arena) setPaused(i int, paused bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nodes[i].paused = paused
	if paused {
		a.nodes[i].gate.pause()
	} else {
		a.nodes[i].gate.resume()
	}
}

// takenOver waits until somebody accepts a command.
func (a *arena) takenOver(rng *rand.Rand, step int) {
	began := time.Now()
	for {
		if n := a.some(rng); n != nil && a.ask(n, time.Second) == nil {
			break
		}
		if time.Since(began) > 10*a.Takeover {
			a.t.Fatalf("step %d: no command is accepted any more", step)
		}
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(began)
	a.longest = max(a.longest, took)
	if took > a.Takeover {
		a.t.Errorf("step %d: commands were accepted again after %v, the bound is %v", step, took, a.Takeover)
	}
}

// check reads the ledger and compares it with what the callers were told.
func (a *arena) check() {
	log, _ := a.open(a.t)
	at, opened := a.read(log)
	acked, unknown := 0, 0
	for _, m := range a.made {
		got := at[m.id]
		switch {
		case m.alone || errors.Is(m.err, fault.OutcomeUnknown):
			unknown++
		case m.err == nil:
			acked++
			if got != m.seq {
				a.t.Errorf("token %v was acknowledged in commit %d and is in %d (0: lost)", m.id, m.seq, got)
			}
			if pen := opened(m.seq); pen != m.pen {
				a.t.Errorf("commit %d was acknowledged by %s while %s was open", m.seq, m.pen, pen)
			}
		case got != 0:
			a.t.Errorf("token %v is in commit %d, its caller was told %v", m.id, got, m.err)
		}
	}
	a.t.Logf("%d commands: %d acknowledged, %d of unknown outcome; %d pens opened; at most %v without one",
		len(a.made), acked, unknown, a.takeovers, a.longest)
	if acked == 0 || a.takeovers < 2 {
		a.t.Errorf("%d commands acknowledged, %d pens opened: that was no fight", acked, a.takeovers)
	}
}

// read applies the whole ledger to a fresh directory, which refuses what
// cannot be, such as a token that is created twice. It returns the commits in
// which tokens were created, and which pen was open at a sequence.
func (a *arena) read(log events.Log) (map[token.ID]uint64, func(uint64) string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	head, err := log.Head(ctx)
	if err != nil {
		a.t.Fatal(err)
	}
	at := map[token.ID]uint64{}
	type pen struct {
		seq  uint64
		node string
		term uint64
	}
	var pens []pen
	past, end := NewDirectory(), errors.New("read")
	err = log.Read(ctx, events.Position{}, func(c events.Commit) error {
		for i := range c.Records {
			switch d := c.Records[i].Data.(type) {
			case *events.TokenCreated:
				at[c.Records[i].SubjectID()] = c.Seq
			case *events.PenOpened:
				pens = append(pens, pen{c.Seq, strings.Clone(d.Node), d.Term})
			}
		}
		if err := past.Apply(&c); err != nil {
			return err
		}
		if c.Seq == head {
			return end
		}
		return nil
	})
	if !errors.Is(err, end) {
		a.t.Errorf("the ledger: %v", err)
	}
	a.takeovers = len(pens)
	for i := 1; i < len(pens); i++ {
		if pens[i].term <= pens[i-1].term {
			a.t.Errorf("term %d was opened after term %d", pens[i].term, pens[i-1].term)
		}
	}
	return at, func(seq uint64) string {
		node := ""
		for _, p := range pens {
			if p.seq <= seq {
				node = p.node
			}
		}
		return node
	}
}
