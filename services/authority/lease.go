package authority

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"time"

	"watchword.dev/events"
)

// lease is until when nobody else can hold the pen.
type lease struct {
	mu    sync.Mutex
	start time.Time // when the last stored pulse was sent off
}

func (l *lease) renew(start time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start = start
}

func (l *lease) age() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.start.IsZero() {
		return 0
	}
	return time.Since(l.start)
}

// certain says whether the pulse was sent off less than d ago. The monotonic
// clock runs on while a process is stopped, but not while a machine is
// suspended; the wall clock is set right after that. So both are asked.
func (l *lease) certain(d time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.start.IsZero() {
		return false
	}
	now := time.Now()
	return now.Sub(l.start) < d && now.Round(0).Sub(l.start.Round(0)) < d
}

// pulseSeen is the newest pulse that a standby knows.
type pulseSeen struct {
	raw   []byte
	pulse events.Pulse
	seq   uint64    // zero: there is none
	at    time.Time // when it was heard, by the monotonic clock
}

var errBeaten = errors.New("authority: another pen has stored a pulse")

// Run lives the life of a pen until ctx ends: it waits, claims, writes, and
// waits again when it was fenced. It returns nil when ctx ends, else why the
// pen is Broken.
//
// When ctx ends while the pen is active, it finishes the commit under way and
// resigns, so that a standby needs not wait for the silence.
func (p *Pen) Run(ctx context.Context) error {
	watched := make(chan pulseSeen, 1)
	watching, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() { p.watch(watching, watched) })
	defer group.Wait()
	defer stop()
	var last pulseSeen
	for ctx.Err() == nil {
		err := p.standby(ctx, watched, &last)
		if err == nil {
			err = p.write(ctx, last)
		}
		switch {
		case fatal(err):
			p.setMode(Broken, err)
			p.cfg.Logger.Error("the pen is broken: a person must look at the ledger", "node", p.node, "error", err)
			return err
		case err != nil && ctx.Err() == nil:
			p.cfg.Logger.Warn("the pen is put down", "node", p.node, "error", err)
		}
	}
	return nil
}

// watch passes the newest pulse on. It is a hint that saves time: what counts
// is asked for in standby.
func (p *Pen) watch(ctx context.Context, to chan pulseSeen) {
	for ctx.Err() == nil {
		err := p.cfg.Pulses.WatchPulses(ctx, func(raw []byte, seq uint64) {
			pulse, err := p.open(raw)
			if err != nil {
				return // nobody's pulse
			}
			select {
			case <-to: // an older one that was not heard yet
			default:
			}
			to <- pulseSeen{bytes.Clone(raw), pulse, seq, time.Now()}
		})
		if ctx.Err() == nil {
			p.cfg.Logger.Warn("pulses cannot be watched", "error", err)
			p.pause(ctx, p.cfg.Beat)
		}
	}
}

func (p *Pen) open(raw []byte) (events.Pulse, error) {
	return events.OpenPulse(raw, p.cfg.Key.Public().(ed25519.PublicKey))
}

// pause waits for d or for the end of ctx.
func (p *Pen) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// standby waits until the pen may be claimed after last, which it keeps up to
// date: nobody has beaten for the length of a lease, or the last one has
// resigned, or there was none; and the directory is near the head.
func (p *Pen) standby(ctx context.Context, watched <-chan pulseSeen, last *pulseSeen) error {
	p.setMode(Standby, nil)
	for wait := time.Duration(0); ; {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case heard := <-watched:
			t.Stop()
			switch {
			case heard.seq <= last.seq:
			case heard.pulse.Resigned:
				wait = 0 // ask whether it is so
			default:
				*last, wait = heard, p.cfg.Lease
			}
			continue
		case <-t.C:
		}
		err := p.newest(ctx, last)
		if err == nil {
			err = p.near(ctx)
		}
		silent := time.Since(last.at)
		switch {
		case fatal(err):
			return err
		case err != nil:
			p.cfg.Logger.Warn("the pen cannot be claimed yet", "node", p.node, "error", err)
			wait = p.cfg.Beat / 4
		case last.seq == 0, last.pulse.Resigned, p.cfg.Sole, silent >= p.cfg.Lease:
			return nil
		default:
			wait = p.cfg.Lease - silent
		}
	}
}

// newest asks for the newest pulse as it is stored. One that was known before
// stays as old as it is.
func (p *Pen) newest(ctx context.Context, last *pulseSeen) error {
	now, err := p.lastPulse(ctx)
	if err == nil && (now.seq != last.seq || last.seq == 0) {
		*last = now
	}
	return err
}

// lastPulse asks for the newest pulse as it is stored.
func (p *Pen) lastPulse(ctx context.Context) (pulseSeen, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Beat)
	defer cancel()
	raw, seq, err := p.cfg.Pulses.LastPulse(ctx)
	if err != nil || seq == 0 {
		return pulseSeen{}, err
	}
	pulse, err := p.open(raw)
	if err != nil {
		// Somebody wrote here who has no right to. Nobody can claim over a
		// term that is not known.
		return pulseSeen{}, fmt.Errorf("authority: pulse %d: %w", seq, err)
	}
	return pulseSeen{raw, pulse, seq, time.Now()}, nil
}

// near says whether this node could decide soon after a claim: a standby whose
// directory is far behind leaves the pen to others.
func (p *Pen) near(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Beat)
	defer cancel()
	at := p.cfg.Past.Position().Seq // before the head, which only grows
	head, err := p.cfg.Log.Head(ctx)
	if err != nil {
		return err
	}
	switch {
	case head == 0 && p.cfg.Genesis == nil && p.cfg.Sole:
		return errEmpty
	case head == 0 && p.cfg.Genesis == nil:
		return errors.New("authority: the ledger has not been opened yet")
	case at > head:
		return fmt.Errorf("%w: it ends at %d, the directory is at %d", events.ErrRewind, head, at)
	case head-at > uint64(p.cfg.BacklogMax)/256:
		return fmt.Errorf("%w: at %d of %d", errBehind, at, head)
	}
	return nil
}

// write claims the pen after last, opens it and writes until it is fenced,
// fails or ctx ends.
//
// What a crash leaves behind: after the claim, a pulse that vouches for
// nothing, and silence, after which another standby claims in turn; after
// pen.opened the same, with an event that says so.
func (p *Pen) write(ctx context.Context, last pulseSeen) error {
	h := &heart{pen: p, term: last.pulse.Term + 1, after: last.seq, before: last.pulse}
	if err := h.claim(ctx); err != nil {
		return err
	}
	p.ownTerm.Store(h.term)
	p.setMode(Opening, nil)
	select { // what is left of an earlier term
	case <-p.lost:
	default:
	}
	select {
	case <-p.opened:
	default:
	}
	beating, stop := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- h.beat(beating) }()

	err := p.openLedger(ctx, h.term, last.pulse)
	if err == nil {
		p.opened <- struct{}{}
		p.setMode(Active, nil)
		p.cfg.Logger.Info("the pen is open", "node", p.node, "term", h.term, "sequence", p.head.Load().Seq)
		select {
		case err = <-stopped:
			stopped <- nil
		case err = <-p.lost:
		case <-ctx.Done():
		}
	}
	p.setMode(Standby, nil) // from here on nothing more is taken …
	p.awaitHolder()         // … and what was taken is answered
	stop()
	if failed := <-stopped; err == nil {
		err = failed
	}
	if err == nil {
		h.vouch = true // the pen was open, if only for a moment
		return h.resign()
	}
	return err
}

// openLedger reads to the head and appends pen.opened, behind log.opened on the
// very first start. From then on no older pen can append. A ledger that does
// not hold what before vouches for is not written to: a store that has lost its
// end looks whole, and the projections may have been built from what is left.
func (p *Pen) openLedger(ctx context.Context, term uint64, before events.Pulse) error {
	p.nib.Lock()
	defer p.nib.Unlock()
	p.base.clear()
	p.above.clear()
	p.memo.clear()
	p.at, p.term, p.unsure = p.cfg.Past.Position(), term, true
	there := p.at // where before vouches for, if it is passed
	pass := func(c *events.Commit) {
		if c.Seq == before.Sequence {
			there = c.End
		}
	}
	for tries := 0; ; tries++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.readToHead(pass); err != nil {
			return err
		}
		if err := vouched(before, there, p.at); err != nil {
			return err
		}
		if p.base.term >= term {
			return errFenced
		}
		// The directory does not keep terms, so a newer pen.opened may lie
		// before where the reading began. Nobody has claimed while the lease
		// is certain.
		if !p.lease.certain(p.trusted()) {
			return errors.New("authority: the lease ran out while the pen was opened")
		}
		data := events.Event(&events.PenOpened{Term: term, Node: p.node})
		if p.at.Seq == 0 {
			if p.cfg.Genesis == nil {
				return errEmpty
			}
			data = p.cfg.Genesis
		}
		err := p.appendOwn(data)
		switch {
		case err == nil && data != events.Event(p.cfg.Genesis):
			return nil
		case err == nil, errors.Is(err, errMoved) && tries < triesMax:
			continue
		}
		return err
	}
}

// vouched compares the head of the ledger with the pulse of the pen before, and
// so does it with there when that is the place that the pulse names. A pulse is
// stored after what it vouches for, so a sound ledger is never behind it. A new
// epoch says that an operator knows of the loss.
func vouched(before events.Pulse, there, head events.Position) error {
	switch {
	case head.Epoch > before.Epoch:
		return nil
	case head.Seq < before.Sequence:
		return fmt.Errorf("%w: it ends at %d, the pulse of term %d vouches for %d", events.ErrRewind, head.Seq, before.Term, before.Sequence)
	case there.Seq == before.Sequence && before.Sequence > 0 && there.Hash.String() != before.Chain:
		return fmt.Errorf("%w: at %d it is %v, the pulse of term %d says %s", events.ErrChain, there.Seq, there.Hash, before.Term, before.Chain)
	}
	return nil
}

// appendOwn appends an event of the pen itself.
func (p *Pen) appendOwn(data events.Event) error {
	id := p.cfg.Installation
	kind := "log"
	if _, opens := data.(*events.PenOpened); opens {
		kind = "pen"
	}
	b := &batch{start: p.at, now: p.now(), size: 1}
	var err error
	var c events.Commit
	b.payload, c, err = events.Compose(p.at, []events.Draft{{
		Envelope: events.Envelope{
			ID: p.rules.newID(), Source: p.rules.source, Subject: kind + "/" + id.String(), Time: b.now,
			Actor: events.Actor{Kind: events.ActorSystem},
		},
		Data: data,
	}})
	if err != nil {
		return err
	}
	b.subject, b.end = c.Subject, c.End
	if err := p.view().apply(&c.Records[0]); err != nil {
		return err
	}
	return p.land(b)
}

// heart stores the pulses of one term.
type heart struct {
	pen   *Pen
	term  uint64
	after uint64 // the pulse behind which the next one goes
	vouch bool   // the pen is open: pulses vouch for the head

	before events.Pulse // the newest one when the term was claimed
}

// pulse returns the next pulse. The time is read before the position: what was
// acknowledged at Time is at or before Sequence.
func (h *heart) pulse(resigned bool) ([]byte, error) {
	now := h.pen.cfg.Now().UTC().Truncate(time.Millisecond)
	pulse := events.Pulse{Term: h.term, Time: now, Node: h.pen.node, Claim: !h.vouch, Resigned: resigned}
	if h.vouch {
		at := h.pen.head.Load()
		pulse.Epoch, pulse.Sequence, pulse.Number, pulse.Chain = at.Epoch, at.Seq, at.Number, at.Hash.String()
	} else { // the next one that claims must know it too
		b := h.before
		pulse.Epoch, pulse.Sequence, pulse.Number, pulse.Chain = b.Epoch, b.Sequence, b.Number, b.Chain
	}
	return pulse.Sign(h.pen.cfg.Key)
}

// claim stores the first pulse of the term. It fences the pulses of the pen
// before, and of every other standby that claims after the same one.
func (h *heart) claim(ctx context.Context) error {
	err := h.store(ctx, false)
	if err != nil {
		return fmt.Errorf("authority: claim term %d: %w", h.term, err)
	}
	return nil
}

// store stores one pulse and renews the lease by it. After an answer that is
// not clear it looks at the newest pulse: its own, another pen's, or still the
// one before.
func (h *heart) store(ctx context.Context, resigned bool) error {
	raw, err := h.pulse(resigned)
	if err != nil {
		return err
	}
	start := time.Now()
	storing, cancel := context.WithTimeout(ctx, h.pen.cfg.Beat)
	defer cancel()
	seq, err := h.pen.cfg.Pulses.StorePulse(storing, h.after, raw)
	if err == nil {
		h.after = seq
		h.pen.lease.renew(start)
		return nil
	}
	last, look := h.pen.lastPulse(ctx)
	switch {
	case look != nil:
		return fmt.Errorf("authority: store a pulse: %w, then %w", err, look)
	case last.pulse.Term == h.term && last.pulse.Node == h.pen.node:
		// Our own: this one, or one of before that came late.
		h.after = last.seq
		if bytes.Equal(last.raw, raw) {
			h.pen.lease.renew(start)
			return nil
		}
		return err
	case last.seq != h.after:
		return fmt.Errorf("%w: term %d of %s", errBeaten, last.pulse.Term, last.pulse.Node)
	}
	return err // still the one before: try again
}

// beat stores a pulse each second until ctx ends or the lease is lost.
func (h *heart) beat(ctx context.Context) error {
	p := h.pen
	ticker := time.NewTicker(p.cfg.Beat)
	defer ticker.Stop()
	again := time.NewTimer(p.cfg.Lease)
	again.Stop()
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.opened:
			h.vouch = true
		case <-ticker.C:
		case <-again.C:
		}
		err := h.store(ctx, false)
		switch {
		case err == nil:
			again.Stop()
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errBeaten):
			return err
		case !p.lease.certain(p.cfg.Lease):
			return fmt.Errorf("authority: no pulse could be stored for %v: %w", p.cfg.Lease, err)
		default:
			p.cfg.Logger.Warn("a pulse could not be stored", "node", p.node, "error", err)
			again.Reset(p.cfg.Beat / 10)
		}
	}
}

// resign stores the last pulse of the term. It must not come before the last
// append: the caller has made sure that nothing is under way.
func (h *heart) resign() error {
	ctx, cancel := context.WithTimeout(context.Background(), h.pen.cfg.Beat)
	defer cancel()
	if err := h.store(ctx, true); err != nil {
		return fmt.Errorf("authority: resign: %w", err)
	}
	h.pen.cfg.Logger.Info("the pen has resigned", "node", h.pen.node, "term", h.term)
	return nil
}

// awaitHolder returns when whoever holds the pen has put it down.
func (p *Pen) awaitHolder() {
	p.nib.Lock()
	defer p.nib.Unlock()
}
