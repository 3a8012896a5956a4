package main

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// state is a token from one event on until the next.
type state struct {
	seq     uint64
	verb    string
	from    int64 // Unix nanoseconds: nobody can have known it before
	settled int64 // it was in the ledger by then
	heard   int64 // a receipts answer had said by then that it is complete; never if math.MaxInt64

	secret token.Digest
	alive  bool
	write  bool
}

// allows is what is right in a state.
func (s *state) allows(secret token.Digest, write bool) bool {
	return s.alive && s.secret == secret && (s.write || !write)
}

// history is what happened, by the ledger and by who asked for it.
type history struct {
	tokens  map[token.ID][]state // each begins with the state of not being there
	facts   map[fact]bool        // what happened
	head    uint64
	settled map[uint64]int64 // when an answer to a change, or a start, showed that it is in the ledger
	heard   map[fact]int64   // when it was said to be complete
	secrets []secret         // by their number
	digests []token.Digest   // of them

	read, write time.Duration // the bounds
	away        [2]int64      // from when to when there was no server
}

// fact is a change of a token. A commit may hold many of different tokens.
type fact struct {
	seq  uint64
	verb string
	id   token.ID
}

// apply adds a record of the ledger.
func (h *history) apply(of map[token.ID]*aggregate.Token, r *events.Record) error {
	h.head = r.Seq
	f := fact{seq: r.Seq, id: r.SubjectID()}
	switch r.Data.(type) {
	case *events.TokenCreated:
		f.verb = "create"
		h.tokens[f.id], of[f.id] = []state{{heard: math.MaxInt64, settled: math.MinInt64, from: math.MinInt64}}, new(aggregate.Token)
	case *events.TokenRolled:
		f.verb = "roll"
	case *events.TokenUpdated:
		f.verb = "scope"
	case *events.TokenRevoked:
		f.verb = "revoke"
	default:
		return nil
	}
	t := of[f.id]
	if t == nil {
		return fmt.Errorf("a %s of a token that nobody has created, at %d", f.verb, r.Seq)
	}
	if err := t.Apply(r); err != nil {
		return err
	}
	h.facts[f] = true
	h.tokens[f.id] = append(h.tokens[f.id], state{
		seq: r.Seq, verb: f.verb, from: r.Time.UnixNano(), secret: t.Secret, alive: t.Status == aggregate.Active, write: writes(&t.Grant), heard: math.MaxInt64,
	})
	return nil
}

func writes(g *token.Grant) bool {
	for _, p := range g.Policies {
		for _, group := range p.Groups {
			if group.ID == groupWrite {
				return true
			}
		}
	}
	return false
}

// settle fills in when each state was in the ledger: at the latest when a later
// change was.
func (h *history) settle() {
	known := make([]uint64, 0, len(h.settled))
	for seq := range h.settled {
		known = append(known, seq)
	}
	slices.Sort(known)
	earliest := make([]int64, len(known)+1)
	earliest[len(known)] = math.MaxInt64
	for i := len(known) - 1; i >= 0; i-- {
		earliest[i] = min(earliest[i+1], h.settled[known[i]])
	}
	for id, states := range h.tokens {
		for i := range states[1:] {
			s := &states[1+i]
			at, _ := slices.BinarySearch(known, s.seq)
			s.settled = earliest[at]
			if heard, ok := h.heard[fact{s.seq, s.verb, id}]; ok {
				s.heard = heard
			}
		}
	}
	h.digests = h.digests[:0]
	for _, s := range h.secrets {
		h.digests = append(h.digests, token.Sum(s.Secret))
	}
}

// Violations count the answers, and the changes, that break a promise.
type Violations struct {
	AfterComplete  int `json:"after_complete"` // allowed after it was said that everybody refuses
	AfterBound     int `json:"after_bound"`    // allowed longer after the change than the bound
	WrongRefusals  int `json:"wrong_refusals"` // refused what nothing had taken away
	Contradictions int `json:"contradictions"` // what the ledger says neither at the answer's own sequence nor later
	Unvouched      int `json:"unvouched"`      // allowed or refused with the server gone for longer than the bound
	Lost           int `json:"lost"`           // acknowledged, and not in the ledger
	Behind         int `json:"behind"`         // enforcers that did not catch up
	Failed         int `json:"failed"`         // enforcers that ended before their time
}

func (v *Violations) sum() int {
	return v.AfterComplete + v.AfterBound + v.WrongRefusals + v.Contradictions + v.Unvouched + v.Lost + v.Behind + v.Failed
}

// Answers count what enforcers answered.
type Answers struct {
	All         int `json:"all"`
	Allows      int `json:"allows"`
	Denies      int `json:"denies"`
	Unavailable int `json:"unavailable"`
	// Late are those of Allows that came after the change that took it away
	// was in the ledger, and LateMS the times from then on until they were
	// asked for.
	Late   int      `json:"late"`
	LateMS Quantile `json:"late_ms"`

	late []time.Duration
}

// checker compares answers with a history.
type checker struct {
	h        *history
	answers  Answers
	found    Violations
	findings []string
	back     map[string]bool // who has allowed something since the server was back
}

// check judges one answer.
func (c *checker) check(who string, a *answer) error {
	if a.Secret >= len(c.h.secrets) {
		return fmt.Errorf("%s answers about secret %d of %d", who, a.Secret, len(c.h.secrets))
	}
	c.answers.All++
	switch a.Verdict {
	case token.VerdictAllow:
		c.answers.Allows++
		c.back[who] = c.back[who] || a.Begin > c.h.away[1]
	case token.VerdictDeny:
		c.answers.Denies++
	default:
		c.answers.Unavailable++
		return nil
	}
	bound := c.h.read
	if a.Write {
		bound = c.h.write
	}
	id, digest := c.h.secrets[a.Secret].ID, c.h.digests[a.Secret]
	states := c.h.tokens[id]
	if len(states) == 0 {
		return fmt.Errorf("the ledger has no token %v", id)
	}
	right := func(i int) bool {
		return states[i].allows(digest, a.Write) == (a.Verdict == token.VerdictAllow)
	}
	tell := func(count *int, what string) {
		*count++
		c.find("%s: %s: secret %d of token %v, write %v: %v by its sequence %d, asked at %s\n  %s", who, what, a.Secret, id, a.Write, a.Verdict, a.Sequence,
			clock(a.Begin), describe(states))
	}
	if down, up := c.h.away[0], c.h.away[1]; down != 0 && a.Begin > down+int64(bound) && a.End < up {
		tell(&c.found.Unvouched, "an answer although nothing vouches for it")
	}
	// It may rest on any state between the last one that it had to know when it
	// was asked for and the last one that was there when it came.
	heard, old := 0, 0
	for i := range states {
		if states[i].heard <= a.Begin {
			heard = i
		}
		if states[i].settled != math.MaxInt64 && (i == 0 || states[i].settled+int64(bound) < a.Begin) {
			old = i
		}
	}
	last := sort.Search(len(states), func(i int) bool { return states[i].from > a.End }) - 1
	// It has all up to its own sequence, and may have some more that came while it
	// was made.
	if own := sort.Search(len(states), func(i int) bool { return states[i].seq > a.Sequence }) - 1; !c.any(own, max(own, last), right) {
		tell(&c.found.Contradictions, "contradicts its own sequence")
	}
	c.late(a, states[:last+1], right)
	switch {
	case heard > 0 && !c.any(heard, last, right) && a.Verdict == token.VerdictAllow:
		tell(&c.found.AfterComplete, "allowed after everybody had heard")
	case !c.any(old, last, right) && a.Verdict == token.VerdictAllow:
		tell(&c.found.AfterBound, "allowed after the bound")
	case !c.any(max(heard, old), last, right):
		tell(&c.found.WrongRefusals, "refused wrongly")
	}
	return nil
}

// any reports whether a verdict is right in one of the states from first to last.
func (c *checker) any(first, last int, right func(int) bool) bool {
	for i := first; i <= last; i++ {
		if right(i) {
			return true
		}
	}
	return false
}

// late counts a yes that was asked for when the ledger had a no already.
func (c *checker) late(a *answer, states []state, right func(int) bool) {
	if a.Verdict != token.VerdictAllow {
		return
	}
	since := int64(0)
	for i := len(states) - 1; i > 0; i-- {
		if right(i) {
			break
		}
		since = states[i].settled
	}
	if since != 0 && since < a.Begin {
		c.answers.Late++
		c.answers.late = append(c.answers.late, time.Duration(a.Begin-since))
	}
}

// lost compares what was acknowledged with the ledger.
func (c *checker) lost(acknowledged []fact) {
	for _, f := range acknowledged {
		if !c.h.facts[f] {
			c.found.Lost++
			c.find("acknowledged at %d: %s of %v, which the ledger does not have there", f.seq, f.verb, f.id)
		}
	}
}

func (c *checker) find(format string, args ...any) {
	const enough = 20
	if len(c.findings) < enough {
		c.findings = append(c.findings, fmt.Sprintf(format, args...))
	}
}

func clock(ns int64) string {
	if ns == math.MaxInt64 || ns == math.MinInt64 {
		return "never"
	}
	return time.Unix(0, ns).UTC().Format("15:04:05.000000")
}

func describe(states []state) (text string) {
	for i := range states[1:] {
		s := &states[1+i]
		text += fmt.Sprintf("[%d at %s: alive %v, write %v, secret %.8v, in the ledger by %s, complete by %s] ", s.seq, clock(s.from), s.alive, s.write, s.secret, clock(s.settled), clock(s.heard))
	}
	return text
}

// Quantile are some quantiles of times, in milliseconds.
type Quantile struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func quantile(all []time.Duration) Quantile {
	if len(all) == 0 {
		return Quantile{}
	}
	slices.Sort(all)
	at := func(percent int) float64 {
		return float64(all[(len(all)*percent+99)/100-1].Microseconds()) / 1000
	}
	return Quantile{at(50), at(99), at(100)}
}
