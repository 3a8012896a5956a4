package authority

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"watchword.dev/events"
)

// land brings the commit into the log, and the state behind it. It returns nil
// when the commit is there; events.ErrRefused, errMoved or errFenced when it is
// not and never will be; errUnknown when that could not be found out.
//
// What a crash leaves behind: before the append, nothing; after it, a whole
// commit or none, which the next pen finds when it reads to the head. Nobody
// has been answered in either case, and who repeats a request is known by its
// digest, which is in the event.
func (p *Pen) land(b *batch) error {
	err := p.append(b)
	if err == nil {
		// Acknowledged: this is the one place where what was decided becomes
		// the state. A crash from here on loses memory only.
		p.memo.drop(&p.above)
		p.base.take(&p.above)
		p.arrive(b.end)
		return nil
	}
	p.above.clear()
	if errors.Is(err, events.ErrRefused) {
		return err // full: a person must act, but the pen knows where it is
	}
	p.cfg.Logger.Info("an append has no clear answer", "error", err, "sequence", b.start.Seq+1)
	p.stats.recoveries.Add(1)
	err = p.settle(b)
	switch {
	case fatal(err):
		p.putDown(err)
	case p.base.term > p.term:
		p.putDown(errFenced) // also when the commit had landed before
	}
	return err
}

func (p *Pen) append(b *batch) error {
	// Not the context of whoever holds the pen: others are in the commit.
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.AppendTimeout)
	defer cancel()
	return p.cfg.Log.Append(ctx, b.start, b.subject, b.payload)
}

// arrive makes at the acknowledged head.
func (p *Pen) arrive(at events.Position) {
	p.at = at
	p.head.Store(&at)
	p.backlog.Store(int64(len(p.base.events.rows)))
}

// settle finds out what became of a commit whose append had no clear answer.
//
// It reads the log to its head. The commit is there: it has landed. Something
// else is in its place: it never will, because an append is only ever accepted
// behind the sequence that it names. Nothing is there: the append may still be
// under way, so the same bytes are appended again at the same place; of the
// two, one at most can land, and either has the same events.
func (p *Pen) settle(b *batch) error {
	p.unsure = true
	deadline := time.Now().Add(p.cfg.RecoverFor)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		found, err := p.look(b)
		switch {
		case found:
			return nil
		case fatal(err):
			return err
		case err == nil && p.base.term > p.term:
			return errFenced
		case err == nil && p.at.Seq != b.start.Seq:
			return errMoved
		case err == nil:
			if err = p.append(b); err == nil {
				continue // and read it, like everything else
			}
		}
		if !time.Now().Before(deadline) {
			return fmt.Errorf("%w: %w", errUnknown, err)
		}
		time.Sleep(wait)
	}
}

// look reads on to the head and says whether the commit was among what was
// read. When it was, it has landed, however the read ended.
func (p *Pen) look(b *batch) (found bool, err error) {
	line := b.payload[bytes.LastIndexByte(b.payload, '\n')+1:]
	err = p.readToHead(func(c *events.Commit) {
		found = found || c.Seq == b.start.Seq+1 && bytes.Equal(c.Records[len(c.Records)-1].Line, line)
	})
	return found, err
}

// errHead ends a read that has come to the head.
var errHead = errors.New("authority: read to the head")

// readToHead applies everything that the log has behind p.at. The caller has
// the nib.
func (p *Pen) readToHead(each func(*events.Commit)) error {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.RecoverFor)
	defer cancel()
	head, err := p.cfg.Log.Head(ctx)
	if err != nil {
		return fmt.Errorf("authority: ask for the head: %w", err)
	}
	if head < p.at.Seq {
		return fmt.Errorf("%w: it ends at %d, %d was acknowledged", events.ErrRewind, head, p.at.Seq)
	}
	if head > p.at.Seq {
		err = p.cfg.Log.Read(ctx, p.at, func(c events.Commit) error {
			if err := p.applyCommit(&c); err != nil {
				return err
			}
			if each != nil {
				each(&c)
			}
			if c.Seq >= head {
				return errHead
			}
			return nil
		})
		if !errors.Is(err, errHead) {
			return fmt.Errorf("authority: read to the head: %w", err)
		}
	}
	p.unsure = false
	return nil
}

// applyCommit moves the state over a commit that was read.
func (p *Pen) applyCommit(c *events.Commit) error {
	p.memo.clear()
	if len(p.base.events.rows) >= 2*p.cfg.BacklogMax {
		p.base.prune(p.cfg.Past.Position().Seq)
		if len(p.base.events.rows) >= 2*p.cfg.BacklogMax {
			return errBehind
		}
	}
	v := &view{layers: []*layer{&p.base}, past: p.cfg.Past, before: p.at.Number}
	for i := range c.Records {
		if err := v.apply(&c.Records[i]); err != nil {
			return fmt.Errorf("%w: event %d: %w", errImpossible, c.Records[i].Number, err)
		}
	}
	p.arrive(c.End)
	return nil
}
