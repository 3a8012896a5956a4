package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

// madeUp is an events.Reader over a ledger that exists nowhere: commits of one
// event each, made as they are read, log.opened first, then what its users hold,
// all tokens of a world and the ends of those that are revoked. So an index of any size can be
// filled without a stream. Its chain is one of sequence numbers, which only
// the stream's own reader would check.
//
// Behind that it delivers the commits of a prepared churn, when it is told to,
// at a rate.
type madeUp struct {
	w        *world
	policies int
	last     []int // tokens that are revoked, in order

	churn *churn
	begin chan struct{} // closed when the churn is to be delivered
}

func newMadeUp(w *world, policies int) *madeUp {
	m := &madeUp{w: w, policies: policies, begin: make(chan struct{})}
	for i := range w.n {
		if fateOf(i) == revoked {
			m.last = append(m.last, i)
		}
	}
	return m
}

// end is the position behind everything but the churn.
func (m *madeUp) end() events.Position {
	return m.position(uint64(1 + memberships + m.w.n + len(m.last)))
}

func (m *madeUp) position(seq uint64) events.Position {
	p := events.Position{Seq: seq, Number: seq, Epoch: 1, Time: m.w.now}
	binary.BigEndian.PutUint64(p.Hash[:], mix(seq))
	return p
}

// Head implements events.Reader.
func (m *madeUp) Head(context.Context) (uint64, error) { return m.end().Seq, nil }

// Read implements events.Reader.
func (m *madeUp) Read(ctx context.Context, at events.Position, fn func(events.Commit) error) error {
	var room [1]events.Record
	for end := m.end(); at.Seq < end.Seq; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var c events.Commit
		c, room[0] = m.commit(at.Seq + 1)
		c.Records, c.Pending = room[:], end.Seq-c.Seq
		if err := fn(c); err != nil {
			return err
		}
		at = c.End
	}
	select {
	case <-m.begin:
		return m.churn.deliver(ctx, at, fn)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// commit makes the commit at a sequence, without its record, and the record.
func (m *madeUp) commit(seq uint64) (events.Commit, events.Record) {
	var d events.Draft
	switch i := int(seq) - 2 - memberships; {
	case seq == 1:
		d = m.w.opened()
	case i < 0:
		d.Data = member(i + memberships)
		d.Subject = "member/" + idOf('m', i+memberships).String()
	case i < m.w.n:
		d.Data = m.w.created(i, m.policies)
		d.Subject = "token/" + tokenID(i).String()
	default:
		d.Data = &events.TokenRevoked{}
		d.Subject = "token/" + tokenID(m.last[i-m.w.n]).String()
	}
	d.Name = d.Data.EventName()
	r := events.Record{Envelope: d.Envelope, Seq: seq, Data: d.Data}
	r.Number, r.Epoch = seq, 1
	return events.Commit{Seq: seq, Subject: events.SubjectOf(d.Name), End: m.position(seq)}, r
}

// churn is a prepared stretch of the ledger: real lines in real messages, with
// the places of a pen, to be decoded as they are applied. Some of it concerns
// tokens that are being verified (updates that leave the grant as it is, so
// that entries move about under the readers), the rest churned and new ones.
type churn struct {
	rate     int
	messages []message
	events   int
	sent     atomic.Int64 // events delivered

	// What the tokens are like at the end.
	model   map[int]*churnState
	fresh   int // tokens from world.n on that it creates
	revoked int
}

type message struct {
	subject string
	payload []byte
	events  int
}

// churnState is what became of a churned token.
type churnState struct {
	disabled, revoked bool
	rolls             int
}

// perMessage is how many events a message of the churn holds: what a busy pen
// writes at once.
const perMessage = 50

// newChurn prepares a number of events behind at, to be applied at a rate.
func newChurn(w *world, at events.Position, count, rate int) (*churn, error) {
	c := &churn{rate: rate, model: map[int]*churnState{}}
	var movers, targets []int
	for i := 0; len(targets) < 20_000 && i < w.n; i++ {
		switch fateOf(i) {
		case churned:
			targets = append(targets, i)
			c.model[i] = &churnState{}
		case fine:
			movers = append(movers, i)
		}
	}
	for n := 0; c.events < count; n++ {
		drafts := make([]events.Draft, perMessage)
		for k := range drafts {
			i, data := c.next(w, n, mix(uint64(c.events+k)^0xc0ffee), movers, targets)
			drafts[k] = w.draft(int(at.Number)+k, i, data)
		}
		payload, commit, err := events.Compose(at, drafts)
		if err != nil {
			return nil, fmt.Errorf("prepare the churn: %w", err)
		}
		c.messages = append(c.messages, message{commit.Subject, payload, len(drafts)})
		at = commit.End
		c.events += len(drafts)
	}
	return c, nil
}

// next returns an event of the n-th message; all events of one have one type.
func (c *churn) next(w *world, n int, dice uint64, movers, targets []int) (int, events.Event) {
	i := targets[dice%uint64(len(targets))]
	s := c.model[i]
	kind := n % 20
	if kind >= 10 && s.revoked {
		// Nothing happens to it any more: another one, the next that lives.
		for ; s.revoked; s = c.model[i] {
			dice++
			i = targets[dice%uint64(len(targets))]
		}
	}
	switch {
	case kind < 6:
		i = movers[dice%uint64(len(movers))]
		return i, &events.TokenUpdated{Name: "same grant", Grant: w.grant(i, 5)}
	case kind < 10:
		i = w.n + c.fresh
		c.fresh++
		return i, w.created(i, 5)
	case kind < 14:
		s.disabled = true
		return i, &events.TokenDisabled{}
	case kind < 18:
		s.disabled = false
		return i, &events.TokenEnabled{}
	case kind == 18 || n%100 != 19 || c.revoked > len(targets)/2:
		s.rolls++
		return i, &events.TokenRolled{Secret: digestOf(i, s.rolls)}
	}
	s.revoked = true
	c.revoked++
	return i, &events.TokenRevoked{}
}

// deliver decodes and hands out the messages as they fall due.
func (c *churn) deliver(ctx context.Context, at events.Position, fn func(events.Commit) error) error {
	var room []events.Record
	began := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for n := 0; n < len(c.messages); {
		due := min(int(time.Since(began).Seconds()*float64(c.rate))/perMessage, len(c.messages))
		for ; n < due; n++ {
			m := &c.messages[n]
			commit, err := events.DecodeCommit(at, at.Seq+1, m.subject, m.payload, room)
			if err != nil {
				return err
			}
			commit.Pending = uint64(due - n - 1)
			if err := fn(commit); err != nil {
				return err
			}
			at, room = commit.End, commit.Records
			c.sent.Add(int64(m.events))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// expected is the answer to the plainest question about a churned token under
// one of its secrets, in the end.
func (s *churnState) expected(rolls int) token.Reason {
	switch {
	case s.revoked || rolls < s.rolls:
		return token.ReasonRevoked
	case s.disabled:
		return token.ReasonDisabled
	}
	return token.ReasonNone
}
