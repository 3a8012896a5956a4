package authority

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/services/internal/command"
)

// Due finds the tokens of whose end notice must be given by now, at most so
// many. The directory does.
type Due interface {
	NoticesDue(now time.Time, most int) ([]aggregate.Token, error)
}

// noticePage is how many notices are given before the directory is asked again.
const noticePage = 1000

// GiveNotices appends token.expiring and token.expired while this pen is
// active, until ctx ends. It looks each time that tick fires.
//
// Nothing is remembered here: what was given is part of the token's state at
// the head, where the pen decides. So a notice is given once, whoever has the
// pen and however often it is lost, and the ones that fell due while nobody had
// it are given by the next.
func (p *Pen) GiveNotices(ctx context.Context, due Due, tick <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		if mode, _ := p.Mode(); mode != Active {
			continue
		}
		if err := p.giveNotices(ctx, due); err != nil && ctx.Err() == nil {
			p.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "notices of tokens' ends wait", slog.String("cause", err.Error()))
		}
	}
}

// giveNotices gives all that are due now.
func (p *Pen) giveNotices(ctx context.Context, due Due) error {
	for {
		now := p.cfg.Now()
		tokens, err := due.NoticesDue(now, noticePage)
		if err != nil {
			return err
		}
		last := uint64(0)
		for i := range tokens {
			days, ok := tokens[i].DueNotice(now)
			if !ok {
				continue
			}
			r, err := p.Do(ctx, command.Caller{System: true, Bulk: true}, command.NoteExpiry{
				Token: tokens[i].ID, ExpiresOn: tokens[i].Grant.ExpiresOn, DaysBefore: days,
			})
			switch {
			case errors.Is(err, fault.TokenNotFound):
				// It has ended since the directory was asked.
			case err != nil:
				return err
			default:
				last = max(last, r.Seq)
			}
		}
		if len(tokens) < noticePage || last == 0 {
			return nil
		}
		if err := p.past(ctx, last); err != nil {
			return err
		}
	}
}

// past waits until the directory has come to seq.
func (p *Pen) past(ctx context.Context, seq uint64) error {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for p.cfg.Past.Position().Seq < seq {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
	}
	return nil
}
