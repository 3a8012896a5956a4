package serve

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/fault"
	"watchword.dev/projections/directory"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/internal/web"
	"watchword.dev/services/management"
)

// job is a piece of upkeep that runs in the background, one at a time.
type job struct {
	Kind     string    `json:"kind"` // "rebuild <projection>" or "fsck"
	Started  time.Time `json:"started"`
	Done     uint64    `json:"done"` // commits
	Head     uint64    `json:"head"`
	Finished time.Time `json:"finished,omitzero"`
	Failed   string    `json:"failed,omitzero"`
	// Result is what fsck has found.
	Result jsontext.Value `json:"result,omitzero"`
}

// upkeep runs jobs and remembers the last one.
type upkeep struct {
	mu   sync.Mutex
	last *job
	wg   sync.WaitGroup
}

// start runs work in the background, unless another job is running.
func (u *upkeep) start(kind string, work func(progress func(done, head uint64)) (any, error)) (job, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last != nil && u.last.Finished.IsZero() {
		return job{}, fault.New(fault.UpkeepRunning)
	}
	j := &job{Kind: kind, Started: time.Now().UTC()}
	u.last = j
	u.wg.Go(func() {
		result, err := work(func(done, head uint64) {
			u.mu.Lock()
			defer u.mu.Unlock()
			j.Done, j.Head = done, head
		})
		u.mu.Lock()
		defer u.mu.Unlock()
		j.Finished = time.Now().UTC()
		if err == nil && result != nil {
			j.Result, err = json.Marshal(result)
		}
		if err != nil {
			j.Failed = err.Error()
		}
	})
	return *j, nil
}

// state returns the job that runs or the last one.
func (u *upkeep) state() (job, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		return job{}, false
	}
	return *u.last, true
}

// upkeepRoutes adds the operator's routes: rebuilding a projection and
// checking the ledger against the projections.
func (f *front) upkeepRoutes(rt *web.Router, m *management.Service) {
	n := f.n
	operator := func(h web.Handler) web.Handler {
		return func(x *web.Exchange) error {
			if err := m.Operator(x); err != nil {
				return err
			}
			return h(x)
		}
	}
	rt.Handle(http.MethodGet, "/v1/upkeep", operator(func(x *web.Exchange) error {
		j, ok := n.upkeep.state()
		if !ok {
			return x.Result(nil)
		}
		return x.Result(j)
	}))
	rt.Handle(http.MethodPost, "/v1/upkeep/rebuild/{projection}", operator(func(x *web.Exchange) error {
		rebuild, ok := map[string]func(context.Context, func(uint64, uint64)) error{
			directory.Name: n.directory.rebuild, verifyindex.Name: n.index.rebuild,
		}[x.Param("projection")]
		if !ok {
			return fault.New(fault.UnknownRoute)
		}
		return n.job(x, "rebuild "+x.Param("projection"), func(ctx context.Context, progress func(done, head uint64)) (any, error) {
			return nil, rebuild(ctx, progress)
		})
	}))
	rt.Handle(http.MethodPost, "/v1/upkeep/fsck", operator(func(x *web.Exchange) error {
		return n.job(x, "fsck", n.fsck)
	}))
}

// job starts a job and answers with it.
func (n *node) job(x *web.Exchange, kind string, work func(context.Context, func(done, head uint64)) (any, error)) error {
	j, err := n.upkeep.start(kind, func(progress func(done, head uint64)) (any, error) {
		result, err := work(n.working, progress)
		if err != nil && !errors.Is(err, context.Canceled) {
			n.log.Error("upkeep failed", "job", kind, "error", err)
		}
		return result, err
	})
	if err != nil {
		return err
	}
	n.log.Info("upkeep", "job", kind)
	return x.Result(j)
}
