package management

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/fault"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// importBatch is what the rows of one request of an import share.
type importBatch struct {
	s   *Service
	c   *caller
	ctx context.Context
	by  command.Caller
	dry bool
	seq atomic.Uint64 // the highest of what was done
	// broken is the fault of a row whose handling panicked.
	broken atomic.Pointer[fault.Error]
}

// importBatch begins a request of an import. Others go before it.
func (s *Service) importBatch(x *web.Exchange, c *caller, dry bool) (*importBatch, error) {
	by, err := s.sender(x, c)
	by.Bulk = true
	return &importBatch{s: s, c: c, ctx: x.Context(), by: by, dry: dry}, err
}

// all imports the rows, each on its own. Those under way at the same time
// become one commit.
func (r *importBatch) all(x *web.Exchange, rows []jsontext.Value, one func(jsontext.Value) importOutcome) ([]importOutcome, error) {
	out := make([]importOutcome, len(rows))
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(importAtOnce, len(rows)) {
		group.Go(func() {
			defer func() { // the router sees only the request's own goroutine
				if p := recover(); p != nil {
					r.broken.Store(web.Recovered(p))
				}
			}()
			for i := next.Add(1) - 1; i < int64(len(rows)); i = next.Add(1) - 1 {
				out[i] = one(rows[i])
			}
		})
	}
	group.Wait()
	if f := r.broken.Load(); f != nil {
		return nil, f
	}
	if seq := r.seq.Load(); seq > 0 {
		x.Sequence(seq)
		r.s.settle(x.Context(), seq)
	}
	return out, nil
}

// do gives the command of a row to the authority.
func (r *importBatch) do(cmd command.Command) (command.Result, error) {
	ctx, cancel := context.WithTimeout(r.ctx, r.s.CommandWait)
	defer cancel()
	res, err := r.s.Authority.Do(ctx, r.by, cmd)
	if err != nil {
		return res, outcome(err)
	}
	for old := r.seq.Load(); old < res.Seq && !r.seq.CompareAndSwap(old, res.Seq); old = r.seq.Load() {
	}
	return res, nil
}

// refusal says why a row was not imported. Of the row it quotes nothing.
func (r *importBatch) refusal(id string, err error) importOutcome {
	f := fault.From(err)
	e := f.Entry()
	out := importOutcome{Outcome: importRefused, ID: id, Code: e.Number, Reason: f.Code, Message: f.Message(), Pointer: f.Pointer}
	switch {
	case e.Status >= http.StatusInternalServerError:
		out.Outcome = importFailed
	case f.Code == fault.Conflict:
		out.Outcome = importConflict
	}
	return out
}
