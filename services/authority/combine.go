package authority

import (
	"context"
	"errors"
	"fmt"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/services/internal/command"
)

// bulkLeadsAfter is after how many commits without one of them a waiting
// import chooses the subject of a commit.
const bulkLeadsAfter = 8

// triesMax is how often a command is decided again after others were appended
// first. Only a fight of two pens does that, and one of them is fenced soon.
const triesMax = 16

// Do decides cmd at the head and returns when its event is durable.
//
// When ctx ends before the command's turn, it is dropped and nothing is done.
// Once its turn has come it is always answered with what became of it.
func (p *Pen) Do(ctx context.Context, by command.Caller, cmd command.Command) (command.Result, error) {
	return p.begin(ctx, by, cmd)()
}

// begin puts cmd in its line, so that it stands before whatever begins later,
// and returns the rest of Do. It must be called: it may be told to hold the
// pen.
func (p *Pen) begin(ctx context.Context, by command.Caller, cmd command.Command) func() (command.Result, error) {
	it := &item{ctx: ctx, by: by, cmd: cmd, class: classOf(&by, cmd), subject: expected(cmd), wake: make(chan bool, 1)}
	began := time.Now()
	first, err := false, ctx.Err()
	if err != nil {
		err = fault.Wrap(fault.Overloaded, fmt.Errorf("%w: %w", errWaited, err))
	} else {
		first, err = p.enqueue(it)
	}
	return func() (result command.Result, _ error) {
		if err == nil {
			result, err = p.finish(ctx, it, first)
		}
		p.stats.command(cmd.Verb(), result, err, time.Since(began))
		return result, err
	}
}

// finish waits until a command that is in its line is answered, or holds the
// pen.
func (p *Pen) finish(ctx context.Context, it *item, first bool) (command.Result, error) {
	if first {
		p.hold(it)
		return it.result, it.err
	}
	select {
	case hold := <-it.wake:
		if hold {
			p.hold(it)
		}
		return it.result, it.err
	case <-ctx.Done():
		return p.giveUp(it)
	}
}

// enqueue puts the command in its line and says whether the pen was idle: then
// the caller holds it.
func (p *Pen) enqueue(it *item) (first bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	room := p.cfg.WaitingMax
	if it.class == urgent {
		room += room / 8
	}
	switch {
	case p.mode == Broken:
		return false, fault.Wrap(fault.LedgerRefused, p.cause)
	case p.mode != Active:
		return false, fault.Wrap(fault.NoPen, errNotActive)
	case p.waiting >= room:
		return false, fault.New(fault.Overloaded)
	}
	p.served++
	it.ticket = p.served
	p.queues[it.class].push(it)
	p.waiting++
	if p.held {
		return false, nil
	}
	p.held, it.holder = true, true
	return true, nil
}

// giveUp ends the wait of a command whose caller will not wait longer, or
// waits for its answer when its turn has come already.
func (p *Pen) giveUp(it *item) (command.Result, error) {
	p.mu.Lock()
	if it.state != waiting {
		p.mu.Unlock()
		// Put back because another pen was faster, it may be told to hold
		// the pen instead of being answered.
		if hold := <-it.wake; hold {
			p.hold(it)
		}
		return it.result, it.err
	}
	it.state = gone
	p.waiting--
	if it.holder { // it was told to hold the pen at this very moment
		p.passOn()
	}
	p.mu.Unlock()
	return command.Result{}, fault.Wrap(fault.Overloaded, fmt.Errorf("%w: %w", errWaited, it.ctx.Err()))
}

// hold writes commits until the holder's own command is answered, then hands
// the pen to somebody who waits. So nobody serves others for long.
func (p *Pen) hold(own *item) {
	for {
		p.round()
		p.mu.Lock()
		if own.state == waiting && own.ctx.Err() != nil {
			own.state = gone
			p.waiting--
			own.err = fault.Wrap(fault.Overloaded, fmt.Errorf("%w: %w", errWaited, own.ctx.Err()))
		}
		if own.state == done || own.state == gone {
			p.passOn()
			p.mu.Unlock()
			return
		}
		p.mu.Unlock()
	}
}

// passOn tells the first of those who wait to hold the pen, or leaves it idle.
// The caller holds mu.
func (p *Pen) passOn() {
	for c := range p.queues {
		if l := p.queues[c].oldest(); l != nil {
			it := l.oldest()
			it.holder = true
			it.wake <- true
			return
		}
	}
	p.held = false
}

// batch is the commit under way.
type batch struct {
	start   events.Position
	end     events.Position
	now     time.Time
	subject string
	payload []byte
	size    int // events
	bulk    int // of them
	bulkLen int // their bytes
	full    bool
	entries []entry
}

// entry is a command that was taken for the commit, with the answer that it
// gets when the commit is in the log.
type entry struct {
	it     *item
	result command.Result
	err    error
	event  bool // it has an event in the commit
}

// round takes the commands of one commit, decides them, brings the commit into
// the log and answers.
func (p *Pen) round() {
	p.nib.Lock()
	defer p.nib.Unlock()
	if mode, _ := p.Mode(); mode != Active {
		p.refuseAll(fault.Wrap(fault.NoPen, errNotActive))
		return
	}
	if err := p.regain(); err != nil {
		p.refuseAll(fault.Wrap(fault.NoPen, err))
		return
	}
	moved := p.base.people() > 0 // before they are pruned
	p.base.prune(p.cfg.Past.Position().Seq)
	p.memo.begin(moved)
	b := &batch{start: p.at, end: p.at, now: p.now()}
	defer p.onPanic(b)
	for !b.full && b.size < p.cfg.CommitEvents && len(b.entries) < 4*p.cfg.CommitEvents {
		it := p.next(b)
		if it == nil {
			break
		}
		p.consider(b, it)
	}
	p.settleAnswers(b)
}

// regain reads to the head when an append before went without any answer.
func (p *Pen) regain() error {
	if !p.unsure {
		return nil
	}
	err := p.readToHead(nil)
	if err == nil && p.base.term > p.term {
		err = errFenced
	}
	if err == errFenced || fatal(err) {
		p.putDown(err)
	}
	return err
}

// onPanic puts the pen down for good when a decision panics, so that those who
// wait are answered, and goes on panicking.
func (p *Pen) onPanic(b *batch) {
	r := recover()
	if r == nil {
		return
	}
	p.putDown(fmt.Errorf("%w: panic: %v", errImpossible, r))
	for _, e := range b.entries {
		if e.it.state != done {
			p.answer(e.it, command.Result{}, fault.New(fault.OutcomeUnknown))
		}
	}
	p.refuseAll(fault.New(fault.Internal))
	panic(r)
}

// now is the time of the commit under way: never before the ledger's last.
func (p *Pen) now() time.Time {
	now := p.cfg.Now().UTC().Truncate(time.Millisecond)
	if now.Before(p.at.Time) {
		return p.at.Time
	}
	return now
}

// next takes the next command that can be part of the commit: first of what is
// most urgent, the oldest first, and then only those of the same subject.
func (p *Pen) next(b *batch) *item {
	p.mu.Lock()
	defer p.mu.Unlock()
	halfFull := 2*(b.bulk+1) > p.cfg.CommitEvents || 2*b.bulkLen > p.cfg.CommitBytes
	if b.subject != "" {
		for c := range p.queues {
			if class(c) == bulk && halfFull {
				break
			}
			if l := p.queues[c].line(b.subject); l.oldest() != nil {
				return p.takeFrom(l)
			}
		}
		return nil
	}
	order := [classes]class{urgent, normal, bulk}
	if p.passed >= bulkLeadsAfter {
		order = [classes]class{urgent, bulk, normal}
	}
	for _, c := range order {
		if l := p.queues[c].oldest(); l != nil {
			return p.takeFrom(l)
		}
	}
	return nil
}

func (p *Pen) takeFrom(l *line) *item {
	it := l.oldest()
	l.drop()
	it.state = taken
	p.waiting--
	return it
}

// putBack makes a command wait again, as the oldest of its line.
func (p *Pen) putBack(it *item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	it.state = waiting
	p.waiting++
	p.queues[it.class].unshift(it)
}

// consider decides a command on the state that the commit will have left so
// far, and makes its event part of the commit.
func (p *Pen) consider(b *batch, it *item) {
	if it.ctx.Err() != nil {
		b.entries = append(b.entries, entry{it: it, err: fault.Wrap(fault.Overloaded, fmt.Errorf("%w: %w", errWaited, it.ctx.Err()))})
		return
	}
	if room := p.cfg.BacklogMax; len(p.base.events.rows)+b.size >= room && (it.class != urgent || len(p.base.events.rows)+b.size >= room+room/8) {
		b.entries = append(b.entries, entry{it: it, err: fault.Wrap(fault.Overloaded, errBehind)})
		return
	}
	v := p.view()
	out, err := p.rules.decide(v, &it.by, it.cmd, b.now)
	if err != nil || out.draft.Data == nil {
		e := entry{it: it, err: err}
		if err == nil {
			e.result = p.result(v, out, b.start.Seq, b.start.Number)
			e.result.Unchanged = true
		}
		b.entries = append(b.entries, e)
		return
	}
	if subject := events.SubjectOf(out.draft.Data.EventName()); b.size > 0 && subject != b.subject {
		it.subject = subject
		p.putBack(it) // for the next commit; it is decided again then
		return
	}
	p.add(b, it, out)
}

// view is the state behind the commit under way.
func (p *Pen) view() *view {
	return &view{layers: []*layer{&p.above, &p.base}, past: p.memo, before: p.at.Number}
}

// add composes the event, with the readers' own decoder, as the next line of
// the commit. One that cannot be composed is refused alone.
func (p *Pen) add(b *batch, it *item, out outcome) {
	place := b.end
	place.Seq = b.start.Seq
	line, c, err := events.Compose(place, []events.Draft{out.draft})
	if err != nil {
		b.entries = append(b.entries, entry{it: it, err: fault.Wrap(fault.Internal, err)})
		return
	}
	if b.size > 0 && len(b.payload)+1+len(line) > p.cfg.CommitBytes {
		b.full = true
		p.putBack(it)
		return
	}
	v := p.view()
	if err := v.apply(&c.Records[0]); err != nil {
		// Nothing is half applied by an event that does not fit: evolve
		// comes before every change of a row.
		b.entries = append(b.entries, entry{it: it, err: fault.Wrap(fault.Internal, err)})
		return
	}
	b.subject, b.end = c.Subject, c.End
	if b.size > 0 {
		b.payload = append(b.payload, '\n')
	}
	b.payload = append(b.payload, line...)
	b.size++
	if it.class == bulk {
		b.bulk++
		b.bulkLen += len(line) + 1
	}
	b.entries = append(b.entries, entry{it: it, event: true, result: p.result(v, out, c.Seq, c.Records[0].Number)})
}

// result describes the state of what the command was about.
func (p *Pen) result(v *view, out outcome, seq, number uint64) command.Result {
	res := command.Result{Seq: seq, Number: number, Redelivered: out.redelivered}
	if !out.token.IsZero() {
		res.Token = shown(&res, v.token, out.token, func(t *aggregate.Token) uint64 { return t.Seq })
	}
	if !out.enforcer.IsZero() {
		res.Enforcer = shown(&res, v.enforcer, out.enforcer, func(n *aggregate.Enforcer) uint64 { return n.Seq })
	}
	if !out.consumer.IsZero() {
		res.Consumer = shown(&res, v.consumer, out.consumer, func(n *aggregate.Consumer) uint64 { return n.Seq })
	}
	if !out.user.IsZero() {
		res.User = shown(&res, v.user, out.user, func(u *aggregate.User) uint64 { return u.Seq })
	}
	if !out.account.IsZero() {
		res.Account = shown(&res, v.account, out.account, func(a *aggregate.Account) uint64 { return a.Seq })
	}
	if !out.member.IsZero() {
		res.Member = shown(&res, v.memberByID, out.member, func(m *aggregate.Member) uint64 { return m.Seq })
	}
	if out.sweep.By != "" {
		if s, ok := v.sweep(out.sweep); ok {
			res.Sweep, res.Seq = &s, max(res.Seq, s.Seq)
		}
	}
	if out.resource != "" {
		res.Resource = shown(&res, v.registration, out.resource, func(s *aggregate.Resource) uint64 { return s.Seq })
	}
	return res
}

// shown returns a copy of a row for the result, and moves the result's sequence
// to where the row was written.
func shown[K, V any](res *command.Result, get func(K) (*V, bool), key K, seq func(*V) uint64) *V {
	row, ok := get(key)
	if !ok {
		return nil
	}
	copied := *row
	res.Seq = max(res.Seq, seq(row))
	return &copied
}

// settleAnswers brings the commit into the log and answers its commands.
//
// What rests on no event of the commit (a refusal, or no change) rests on the
// state before it or on the events of its neighbours. So it is true when the
// commit is in the log, which proves that nobody else had appended; without
// any event it is true when the lease is certain after it was decided.
func (p *Pen) settleAnswers(b *batch) {
	p.lead(b)
	var err error
	if b.size > 0 {
		err = p.land(b)
	} else if len(b.entries) > 0 {
		err = p.sure()
	}
	p.above.clear()
	switch {
	case err == nil:
		p.stats.commit(b.size)
		for _, e := range b.entries {
			p.answer(e.it, e.result, e.err)
		}
		return
	case errors.Is(err, errMoved):
		for i := len(b.entries) - 1; i >= 0; i-- {
			it := b.entries[i].it
			if it.tries++; it.tries > triesMax {
				p.answer(it, command.Result{}, fault.Wrap(fault.NoPen, err))
				continue
			}
			p.putBack(it)
		}
		return
	}
	for _, e := range b.entries {
		p.answer(e.it, command.Result{}, failure(err, e.event))
	}
}

// failure is the answer to a command whose commit did not become certain.
func failure(err error, event bool) error {
	switch {
	case errors.Is(err, events.ErrRefused):
		return fault.Wrap(fault.LedgerRefused, err)
	case errors.Is(err, errUnknown) && event:
		return fault.Wrap(fault.OutcomeUnknown, err)
	case fatal(err) && event:
		return fault.Wrap(fault.OutcomeUnknown, err)
	}
	return fault.Wrap(fault.NoPen, err)
}

// lead counts the commits that passed over a waiting import.
func (p *Pen) lead(b *batch) {
	if b.size == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.bulk > 0 || p.queues[bulk].oldest() == nil {
		p.passed = 0
	} else {
		p.passed++
	}
}

func (p *Pen) answer(it *item, res command.Result, err error) {
	if err != nil {
		res, err = command.Result{}, fault.From(err)
	}
	it.result, it.err = res, err
	p.mu.Lock()
	it.state = done
	p.mu.Unlock()
	if !it.holder {
		it.wake <- false
	}
}

// refuseAll answers everything that waits.
func (p *Pen) refuseAll(err error) {
	for {
		it := p.next(&batch{})
		if it == nil {
			return
		}
		p.answer(it, command.Result{}, err)
	}
}
