package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"watchword.dev/events"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/verifyindex"
)

const fivePolicies = 5

// benchVerify measures verifyindex.Index: in memory, in memory while events
// are applied beside it, and from disk.
func benchVerify(ctx context.Context, r *run) error {
	if err := verifyResident(ctx, r); err != nil {
		return err
	}
	debug.FreeOSMemory()
	return verifyDisk(ctx, r)
}

// indexed is an index over a madeUp ledger, with the heart beat that a pen
// would give it.
type indexed struct {
	*verifyindex.Index
	source *madeUp
	ended  chan error
	stop   context.CancelFunc
}

// fill opens an index in dir and fills it from the source. It reports the
// events a second.
func fill(ctx context.Context, r *run, dir string, source *madeUp, memory int64) (*indexed, error) {
	x, err := verifyindex.Open(verifyindex.Options{Dir: dir, MemoryBytes: memory})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	in := &indexed{Index: x, source: source, ended: make(chan error, 2), stop: stop}
	runner := x.Follow(source, projector.Options{})
	running := make(chan error, 1)
	go func() { running <- runner.Run(ctx) }()
	go func() { in.ended <- in.beat(ctx, runner) }()
	go func() { in.ended <- <-running }()
	waited := make(chan error, 1)
	go func() { waited <- x.Wait(ctx, source.end().Seq) }()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-waited:
			if err != nil {
				return nil, errors.Join(err, in.close())
			}
			return in, nil
		case <-tick.C:
			s := runner.Status()
			r.say("  filled %d of %d", max(s.Loading, s.Applied.Seq), source.end().Seq)
		}
	}
}

// beat vouches for what is applied, like the pen's pulses.
func (in *indexed) beat(ctx context.Context, runner *projector.Runner) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		if at := runner.Status().Applied; at.Seq > 0 {
			now := time.Now()
			in.Observe(events.Pulse{Term: 1, Epoch: at.Epoch, Sequence: at.Seq, Number: at.Number, Chain: at.Hash.String(), Time: now}, now)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// ready waits until the index answers.
func (in *indexed) ready(ctx context.Context) error {
	for {
		if d := in.Verify(stranger(0), &token.Request{Permission: permDNSWrite}); d.Verdict != token.VerdictUnavailable {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (in *indexed) close() error {
	in.stop()
	var errs []error
	for range cap(in.ended) {
		if err := <-in.ended; err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, in.Close())...)
}

// resident is the comparison in memory.
type resident struct {
	w     *world
	x     *indexed
	limit map[token.Digest]token.ID // by the plain SHA-256 of the secret
	asked []question
	// secrets are those of asked, in one piece and in that order: whoever
	// asks has just read the secret, so neither side is to wait for it. The
	// tokens that they lead to are anywhere.
	secrets []byte
}

func verifyResident(ctx context.Context, r *run) error {
	w := newWorld(r.o.tokens, r.o.tokens)
	source := newMadeUp(w, fivePolicies)
	seconds := float64(r.o.rounds)*1.5 + 2
	r.say("verify: preparing %d tokens and %.0f s of churn", w.n, seconds)
	var err error
	if source.churn, err = newChurn(w, source.end(), int(seconds*float64(r.o.rate)), r.o.rate); err != nil {
		return err
	}
	dir, remove, err := r.sub("resident")
	if err != nil {
		return err
	}
	defer remove()
	began := time.Now()
	b := resident{w: w}
	if b.x, err = fill(ctx, r, dir, source, 16<<30); err != nil {
		return err
	}
	filled := time.Since(began)
	err = b.run(ctx, r, constant("fill", "events/s", float64(source.end().Seq)/filled.Seconds()))
	return errors.Join(err, b.x.close())
}

func (b *resident) run(ctx context.Context, r *run, filled figure) error {
	if err := b.x.ready(ctx); err != nil {
		return err
	}
	stats := b.x.Stats()
	if stats.Mode != verifyindex.Resident || stats.Tokens != int64(b.w.n) {
		return wrong("the index is in %s mode with %d tokens, want %d in memory", stats.Mode, stats.Tokens, b.w.n)
	}
	b.limit = make(map[token.Digest]token.ID, b.w.n)
	for i := range b.w.n {
		b.limit[sha256.Sum256([]byte(b.w.secret(i)))] = tokenID(i)
	}
	b.asked = b.w.questions(400_000)
	for k := range b.asked {
		b.secrets = append(b.secrets, b.w.secret(int(b.asked[k].token))...)
	}
	runtime.GC()
	r.say("verify: alone")
	alone, limit := newSeries("Verify", "cpu-ns"), newSeries("SHA-256 + map", "cpu-ns")
	if err := b.turns(ctx, r.o.rounds, alone, limit); err != nil {
		return err
	}
	p := compared("verify.resident", atMost(1.7, "x SHA-256 + a look-up in a Go map"), alone, limit)
	p.add(
		constant("tokens", "", float64(b.w.n)),
		constant("memory", "bytes/token", float64(stats.MemoryBytes)/float64(stats.Tokens)),
		constant("disk", "bytes/token", float64(stats.DiskBytes)/float64(stats.Tokens)),
		filled,
	)
	if err := r.publish(p); err != nil {
		return err
	}
	if err := b.allocations(r); err != nil {
		return err
	}
	return b.whileApplying(ctx, r, p.Figures[2])
}

// questions returns one question each about n tokens in random order, none
// about those that change.
func (w *world) questions(n int) []question {
	rng := rand.New(rand.NewPCG(7, 11))
	all := make([]question, 0, n)
	for len(all) < n {
		if i := rng.IntN(w.n); fateOf(i) != churned {
			all = append(all, w.question(i, rng.IntN(askKinds)))
		}
	}
	return all
}

// turns runs both sides by turns, after one that warms up.
func (b *resident) turns(ctx context.Context, rounds int, ours, limit *series) error {
	for n := range rounds + 1 {
		o, err := b.ours()
		if err != nil {
			return err
		}
		l, err := b.limits()
		if err != nil {
			return err
		}
		if n > 0 {
			ours.add(o)
			limit.add(l)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// ours asks every question and returns the nanoseconds that one has taken.
func (b *resident) ours() (float64, error) {
	c := startClock()
	for k := range b.asked {
		q := &b.asked[k]
		d := b.x.Verify(nth(b.secrets, k), &q.ask)
		if !q.fits(&d) {
			c.stop()
			return 0, q.explain(&d)
		}
	}
	return c.stop() / float64(len(b.asked)), nil
}

// limits does for each question what nobody can leave out.
func (b *resident) limits() (float64, error) {
	c := startClock()
	for k := range b.asked {
		i := int(b.asked[k].token)
		secret := b.secrets[k*secretLen : (k+1)*secretLen]
		if b.limit[sha256.Sum256(secret)] != tokenID(i) {
			c.stop()
			return 0, errors.New("the map of the limit has lost a token")
		}
	}
	return c.stop() / float64(len(b.asked)), nil
}

func (b *resident) allocations(r *run) error {
	k, bad := 0, error(nil)
	perRun := testing.AllocsPerRun(100_000, func() {
		q := &b.asked[k%len(b.asked)]
		if d := b.x.Verify(nth(b.secrets, k), &q.ask); !q.fits(&d) && bad == nil {
			bad = q.explain(&d)
		}
		k++
	})
	if bad != nil {
		return bad
	}
	s := newSeries("allocations", "per Verify")
	s.add(perRun)
	return r.publish(report{
		Bench: "verify.allocations", Ratio: &perRun, Goal: "<= 0 allocations", Met: perRun == 0, Figures: []figure{s.figure()},
	})
}

// whileApplying verifies while the churn is applied, and looks afterwards
// whether all of it has arrived.
func (b *resident) whileApplying(ctx context.Context, r *run, quiet figure) error {
	c := b.x.source.churn
	r.say("verify: while %d events/s are applied", c.rate)
	ours, limit := newSeries("Verify", "cpu-ns"), newSeries("SHA-256 + map, applying too", "cpu-ns")
	rate := newSeries("events applied", "events/s")
	close(b.x.source.begin)
	// The churn may be shorter than the rounds on a slow machine: a round
	// without it does not count.
	for n := 0; n < r.o.rounds+1; n++ {
		began, applied := time.Now(), b.x.Position().Number
		o, err := b.ours()
		if err != nil {
			return err
		}
		l, err := b.limits()
		if err != nil {
			return err
		}
		reached := float64(b.x.Position().Number-applied) / time.Since(began).Seconds()
		if int(c.sent.Load()) >= c.events {
			break
		}
		if n > 0 {
			ours.add(o)
			limit.add(l)
			rate.add(reached)
		}
	}
	if len(ours.values) == 0 {
		return errors.New("the churn was over before a round was")
	}
	over := newSeries("quiet SHA-256 + map", "cpu-ns")
	for range ours.values {
		over.add(quiet.Median)
	}
	p := compared("verify.applying", atMost(2.2, "x the quiet SHA-256 + look-up in a Go map, with events applied beside"), ours, over)
	p.add(quotients("ratio to the limit under the same load", ours, limit).figure(), limit.figure(), rate.figure(),
		constant("events asked for", "events/s", float64(c.rate)))
	if reached := rate.figure().Median; reached < 0.9*float64(c.rate) {
		p.Met = false // the goal is about that rate
		p.note("only %.0f of %d events/s were applied: this machine had no more to give", reached, c.rate)
	}
	if err := b.settled(ctx, r); err != nil {
		return err
	}
	return r.publish(p)
}

// settled waits for the whole churn and holds every token that it has touched
// against the model.
func (b *resident) settled(ctx context.Context, r *run) error {
	c := b.x.source.churn
	last := b.x.source.end().Seq + uint64(len(c.messages))
	if err := b.x.Wait(ctx, last); err != nil {
		return err
	}
	asked := 0
	check := func(i, rolls int, want token.Reason) error {
		asked++
		req := token.Request{Permission: permDNSWrite, Resource: b.w.chains[account(i)][zone(i, 0)], Address: b.w.inside(i)}
		d := b.x.Verify(string(appendSecret(nil, i, rolls)), &req)
		if d.Reason != want || d.Token != tokenID(i) {
			return wrong("after the churn token %d with secret %d: %q, want %q", i, rolls, d.Reason, want)
		}
		return nil
	}
	for i, s := range c.model {
		for rolls := range s.rolls + 1 {
			if err := check(i, rolls, s.expected(rolls)); err != nil {
				return err
			}
		}
	}
	for i := b.w.n; i < b.w.n+c.fresh; i++ {
		want := map[fate]token.Reason{disabled: token.ReasonDisabled, expired: token.ReasonExpired}[fateOf(i)]
		if err := check(i, 0, want); err != nil {
			return err
		}
	}
	if n := b.x.Stats().Tokens; n != int64(b.w.n+c.fresh) {
		return wrong("after the churn there are %d tokens, want %d", n, b.w.n+c.fresh)
	}
	r.say("verify: %d secrets held against the model after %d events of churn", asked, c.events)
	_, err := b.ours()
	return err
}

// clock tells the processor time of the calling thread: what takes no I/O is
// not slower because somebody else has the processor for a while.
type clock struct{ began int64 }

func startClock() clock {
	runtime.LockOSThread()
	return clock{threadTime()}
}

// stop returns the nanoseconds since the start.
func (c clock) stop() float64 {
	defer runtime.UnlockOSThread()
	return float64(threadTime() - c.began)
}

func threadTime() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err) // every Linux has this clock
	}
	return t.Nano()
}

// inside is an address that the condition of token i lets through.
func (w *world) inside(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(account(i)), 3, byte(i)})
}

func humanBytes(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
