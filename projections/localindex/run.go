package localindex

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/enforcer"
	"watchword.dev/events/receipt"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/verifyindex"
)

// Run follows the feed, tells the followers of each commit when the index has
// applied it, and reports that, until ctx ends or it makes no sense to go on: then
// it returns why, and nothing is verified any more. The caller ends ctx when its
// own clients have been answered. What is read in bulk to fill an empty index is
// told to nobody.
func (x *Index) Run(ctx context.Context, feed events.Reader, followers ...enforcer.Follower) error {
	err := x.follow(ctx, feed, followers)
	if enforcer.Hopeless(err) && x.loaded.Seq > 0 && x.Position() == x.loaded {
		x.cfg.Log.Error("the ledger does not go on from the snapshot, which is thrown away: the ledger is read from its beginning", "error", err)
		if err := x.throwAway(); err != nil {
			return err
		}
		err = x.follow(ctx, feed, followers)
	}
	return err
}

// life is one index from its first commit to its last.
type life struct {
	x         *Index
	index     *verifyindex.Index
	feed      events.Reader
	followers []enforcer.Follower
	reports   *receipt.Reporter
	stop      context.CancelCauseFunc
}

func (x *Index) follow(ctx context.Context, feed events.Reader, followers []enforcer.Follower) error {
	if x.Retired() {
		return ErrRetired
	}
	reports, err := x.reporter()
	if err != nil {
		return err
	}
	l := &life{x: x, index: x.index.Load(), feed: patient{feed, x}, followers: followers, reports: reports}
	at := l.index.Position()
	reports.Applied(at, false)
	for _, f := range followers {
		f.Begin(at)
	}
	ctx, l.stop = context.WithCancelCause(ctx)
	defer l.stop(nil)
	runner := l.index.Follow(l.feed, projector.Options{Applied: l.applied, Now: x.cfg.Now})
	var parts sync.WaitGroup
	parts.Go(func() { l.stop(runner.Run(ctx)) })
	parts.Go(func() { l.stop(l.answer(ctx)) })
	<-ctx.Done()
	x.serving.Store(nil)
	parts.Wait()
	err = context.Cause(ctx)
	for _, f := range followers {
		f.Lost(err)
	}
	return err
}

// applied is told of what the index answers by now.
func (l *life) applied(commits []events.Commit) {
	retired, revoked := false, false
	for i := range commits {
		revoked = revoked || receipt.RevokesAny(&commits[i])
		for j := range commits[i].Records {
			r := &commits[i].Records[j]
			_, of := r.Data.(*events.EnforcerRetired)
			retired = retired || of && r.SubjectID() == l.x.cfg.Enforcer
		}
	}
	if retired {
		l.x.serving.Store(nil) // before anybody is told, and asks
		l.x.cfg.Log.Error("this enforcer is retired: nothing is verified any more", "enforcer", l.x.cfg.Enforcer)
	}
	for i := range commits {
		for _, f := range l.followers {
			f.Applied(&commits[i])
		}
	}
	l.reports.Applied(commits[len(commits)-1].End, revoked)
	if retired {
		l.stop(ErrRetired)
	}
	l.x.vouch()
}

// answer makes the index known, lets it answer, and reports until ctx ends.
func (l *life) answer(ctx context.Context) error {
	if err := l.introduce(ctx); err != nil {
		return err
	}
	own, ok := l.index.Enrolled(l.x.cfg.Enforcer)
	switch {
	case !ok:
		return ErrNotEnrolled
	case own.Status != aggregate.Active:
		return ErrRetired
	}
	l.x.serving.Store(&serving{l.index, l.reports, time.Duration(own.CeilingSeconds) * time.Second})
	if ctx.Err() != nil || l.x.Retired() { // meanwhile
		l.x.serving.Store(nil)
		return ctx.Err()
	}
	l.x.cfg.Log.Info("verifying", "instance", l.reports.Instance(), "sequence", l.index.Sequence(), "tokens", l.index.Stats().Tokens, "mode", l.index.Stats().Mode)
	select {
	case <-l.x.ready:
	default:
		close(l.x.ready)
	}
	return l.reports.Run(ctx)
}

// introduce catches up, says hello, and applies what was written until then: a
// revocation of before is nobody's to wait for, so it must be known here.
func (l *life) introduce(ctx context.Context) error {
	if err := l.reach(ctx); err != nil {
		return err
	}
	l.reports.Applied(l.index.Position(), false) // which the runner may be about to say
	for pause := firstPause; ; {
		err := l.reports.Hello(ctx)
		if err == nil {
			break
		}
		l.x.cfg.Log.Warn("nobody knows yet that this process verifies: it does not before", "error", err)
		if err := sleep(ctx, &pause); err != nil {
			return err
		}
	}
	if err := l.reach(ctx); err != nil {
		return err
	}
	for {
		if _, known := l.index.Age(); known {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.x.vouched:
		}
	}
}

// reach waits until the index has applied what the ledger holds now.
func (l *life) reach(ctx context.Context) error {
	for pause := firstPause; ; {
		head, err := l.feed.Head(ctx)
		if err == nil {
			return l.index.Wait(ctx, head)
		}
		l.x.cfg.Log.Warn("the end of the ledger cannot be found out", "error", err)
		if err := sleep(ctx, &pause); err != nil {
			return err
		}
	}
}

// patient is a feed that is read again when it fails for a reason that says
// nothing of the ledger.
type patient struct {
	events.Reader
	x *Index
}

func (p patient) Read(ctx context.Context, at events.Position, fn func(events.Commit) error) error {
	for pause := firstPause; ; {
		var ours error
		err := p.Reader.Read(ctx, at, func(c events.Commit) error {
			if ours = fn(c); ours == nil {
				at, pause = c.End, firstPause
			}
			return ours
		})
		if ours != nil || ctx.Err() != nil || enforcer.Hopeless(err) {
			return err
		}
		p.x.cfg.Log.Warn("the feed has failed and is read again", "sequence", at.Seq, "error", err)
		if err := sleep(ctx, &pause); err != nil {
			return err
		}
	}
}

// The pauses after what failed.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 15 * time.Second
)

// sleep waits before another attempt, longer each time.
func sleep(ctx context.Context, pause *time.Duration) error {
	timer := time.NewTimer(*pause/2 + rand.N(*pause/2))
	defer timer.Stop()
	*pause = min(2**pause, lastPause)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
