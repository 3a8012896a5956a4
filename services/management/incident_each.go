package management

import (
	"context"
	"errors"
	"sync"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// incidentWorkers is how many revocations of one request are under way at a time:
// they leave in one commit.
const incidentWorkers = 64

// revokeEach revokes the tokens that were found, one event each. What fails in the
// middle goes on with the same request: what has ended is not found again.
func (s *Service) revokeEach(x *web.Exchange, c *caller, in *incident) error {
	by, err := s.sender(x, c)
	if err != nil {
		return err
	}
	by.Bulk = true // others have their turn
	w := &revoker{service: s, by: by, incident: c.operator(), reason: in.body.Reason, next: make(chan *aggregate.Token), answer: &in.answer}
	ctx, cancel := context.WithCancel(x.Context())
	defer cancel()
	w.stop = cancel
	var all sync.WaitGroup
	for range min(incidentWorkers, len(in.tokens)) {
		all.Go(func() { w.work(ctx) })
	}
	for i := range in.tokens {
		select {
		case w.next <- &in.tokens[i]:
		case <-ctx.Done():
		}
	}
	close(w.next)
	all.Wait()
	if w.err != nil {
		return w.err
	}
	if in.answer.Sequence > 0 {
		x.Sequence(in.answer.Sequence)
		s.settle(x.Context(), in.answer.Sequence)
	}
	return x.Context().Err()
}

// revoker revokes tokens.
type revoker struct {
	service  *Service
	by       command.Caller
	incident bool // an operator revokes what is not theirs
	reason   string
	next     chan *aggregate.Token
	stop     func()

	mu     sync.Mutex // guards what follows
	err    error      // the first
	answer *incidentAnswer
}

func (w *revoker) work(ctx context.Context) {
	for t := range w.next {
		at := command.Target{ID: t.ID, OwnerKind: t.OwnerKind, Owner: t.Owner}
		r, err := w.do(ctx, command.RevokeToken{Target: at, Reason: w.reason, Incident: w.incident})
		w.mu.Lock()
		switch {
		case errors.Is(err, fault.AlreadyRevoked): // somebody else was faster
		case err != nil:
			if w.err == nil {
				w.err = outcome(err)
			}
			w.stop()
		default:
			w.answer.Revoked++
			if r.Seq >= w.answer.Sequence {
				w.answer.Sequence, w.answer.Last = r.Seq, t.ID
			}
		}
		w.mu.Unlock()
	}
}

func (w *revoker) do(ctx context.Context, cmd command.RevokeToken) (command.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, w.service.CommandWait)
	defer cancel()
	return w.service.Authority.Do(ctx, w.by, cmd)
}
