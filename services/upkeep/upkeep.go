// Package upkeep lets an operator have the running process do long work on its
// own data: build a projection anew, check the ledger against the projections.
//
// One job runs at a time, in the background. The last one is remembered until
// the process ends, so that whoever started it can ask how far it is.
package upkeep

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/fault"
	"watchword.dev/services/internal/web"
)

// Work is what a job does. It tells progress how many commits are done out of
// how many, and ends early when ctx does. Its result, which may be nil, is shown
// as JSON.
type Work func(ctx context.Context, progress func(done, head uint64)) (result any, err error)

// Job is a piece of upkeep.
type Job struct {
	Kind     string    `json:"kind"` // "rebuild <projection>" or "fsck"
	Started  time.Time `json:"started"`
	Done     uint64    `json:"done"` // commits
	Head     uint64    `json:"head"`
	Finished time.Time `json:"finished,omitzero"` // zero while it runs
	Failed   string    `json:"failed,omitzero"`   // why, when it did not succeed
	// Result is what a check has found.
	Result jsontext.Value `json:"result,omitzero"`
}

// Config is what a Service needs.
type Config struct {
	// Operator returns nil when an operator has sent the request, and else
	// the fault that refuses it.
	Operator func(*web.Exchange) error
	Rebuild  map[string]Work // by projection
	Fsck     Work
	Log      *slog.Logger // nil: slog.Default()
}

// Service runs jobs and answers for them.
type Service struct {
	Config
	ctx  context.Context // of the jobs
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu   sync.Mutex
	last *Job
}

// New returns a service that runs nothing yet.
func New(cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Service{Config: cfg}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Close ends the job that runs, if one does, and waits for it.
func (s *Service) Close() {
	s.stop()
	s.wg.Wait()
}

// Routes adds the service's routes to rt.
func (s *Service) Routes(rt *web.Router) {
	rt.Handle(http.MethodGet, "/v1/upkeep", s.operators(func(x *web.Exchange) error {
		s.mu.Lock()
		last := s.last
		var j Job
		if last != nil {
			j = *last
		}
		s.mu.Unlock()
		if last == nil {
			return x.Result(nil)
		}
		return x.Result(j)
	}))
	rt.Handle(http.MethodPost, "/v1/upkeep/rebuild/{projection}", s.operators(func(x *web.Exchange) error {
		name := x.Param("projection")
		work, ok := s.Rebuild[name]
		if !ok {
			return fault.New(fault.ObjectNotFound)
		}
		return s.run(x, "rebuild "+name, work)
	}))
	rt.Handle(http.MethodPost, "/v1/upkeep/fsck", s.operators(func(x *web.Exchange) error {
		return s.run(x, "fsck", s.Fsck)
	}))
}

// operators lets nobody but operators through to h.
func (s *Service) operators(h web.Handler) web.Handler {
	return func(x *web.Exchange) error {
		if err := s.Operator(x); err != nil {
			return err
		}
		return h(x)
	}
}

// run starts work in the background, unless another job is running, and
// answers with the job.
func (s *Service) run(x *web.Exchange, kind string, work Work) error {
	s.mu.Lock()
	if s.last != nil && s.last.Finished.IsZero() {
		s.mu.Unlock()
		return fault.New(fault.UpkeepRunning)
	}
	j := &Job{Kind: kind, Started: time.Now().UTC()}
	started := *j
	s.last = j
	s.wg.Go(func() { s.work(j, work) })
	s.mu.Unlock()
	s.Log.Info("upkeep", "job", kind, "request_id", x.RequestID)
	return x.Result(started)
}

// work does a job and writes down how it ended.
func (s *Service) work(j *Job, work Work) {
	result, err := work(s.ctx, func(done, head uint64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		j.Done, j.Head = done, head
	})
	var shown jsontext.Value
	if err == nil && result != nil {
		shown, err = json.Marshal(result)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		s.Log.Error("upkeep failed", "job", j.Kind, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	j.Result, j.Finished = shown, time.Now().UTC()
	if err != nil {
		j.Failed = err.Error()
	}
}
