package cli

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// The bounds of one request of an import, below those of the server.
const (
	batchRows  = 1000
	batchBytes = 768 << 10
)

// batchRow is a row on its way.
type batchRow struct {
	line int // by which it is known to whoever sends it
	body jsontext.Value
}

// rowOutcome is what the server says of a row.
type rowOutcome struct {
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Pointer string `json:"pointer"`
}

// refusedRow is the outcome of a row that is not sent, or that no request can
// hold.
func refusedRow(why error) *rowOutcome {
	return &rowOutcome{Outcome: "refused", Reason: "invalid_row", Message: why.Error()}
}

// rowSender sends the rows of an import, many in a request and some requests at
// a time.
type rowSender struct {
	c        *client
	path     string
	member   string // of the request and of the answer, in which the rows are
	dry      bool
	retryFor time.Duration // for how long what the server cannot take is tried again

	note func(batchRow, *rowOutcome) // what became of a row; called once for each
	sent func()                      // after each request
}

// all sends the batches that produce puts into its channel and returns when each
// of their rows has its outcome. What cannot be sent at all ends everything, and
// produce with it; its own error is the first result.
func (s *rowSender) all(ctx context.Context, workers int, produce func(context.Context, chan<- []batchRow) error) (produced, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	batches := make(chan []batchRow)
	var running sync.WaitGroup
	for range max(workers, 1) {
		running.Go(func() {
			for b := range batches {
				if err := s.send(ctx, b); err != nil {
					stop(err)
				}
			}
		})
	}
	produced = produce(ctx, batches)
	close(batches)
	running.Wait()
	return produced, context.Cause(ctx)
}

// send sends rows until each has its outcome. A request that is refused as a
// whole is cut in two, until the row is found that it is refused for.
func (s *rowSender) send(ctx context.Context, rows []batchRow) error {
	began := time.Now()
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		left, err := s.try(ctx, rows)
		remote, isRemote := errors.AsType[*statusError](err)
		switch {
		case isRemote && (remote.status == http.StatusBadRequest || remote.status == http.StatusRequestEntityTooLarge):
			if len(rows) > 1 {
				return errors.Join(s.send(ctx, rows[:len(rows)/2]), s.send(ctx, rows[len(rows)/2:]))
			}
			s.note(rows[0], refusedRow(remote))
			return nil
		case isRemote && remote.status < http.StatusInternalServerError && remote.status != http.StatusTooManyRequests:
			return err // by whom it is sent, or where to
		case err == nil && len(left) == 0:
			return nil
		}
		if len(left) < len(rows) {
			began = time.Now() // it goes on
		}
		if rows = left; time.Since(began) >= s.retryFor {
			if err == nil {
				err = Fail(ExitRemote, errors.New("the server cannot take changes at the moment"))
			}
			return err
		}
		select {
		case <-time.After(max(wait, retryAfter(remote))):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// retryAfter is how long the server wants to be left alone.
func retryAfter(refused *statusError) time.Duration {
	if refused == nil {
		return 0
	}
	return refused.retryAfter
}

// try sends rows once and returns those that are to be sent again.
func (s *rowSender) try(ctx context.Context, rows []batchRow) ([]batchRow, error) {
	var body bytes.Buffer
	body.WriteString(`{"` + s.member + `":[`)
	for i, r := range rows {
		if i > 0 {
			body.WriteByte(',')
		}
		body.Write(r.body)
	}
	body.WriteString(`]}`)
	path := s.path
	if s.dry {
		path += "?dry_run=true"
	}
	var out map[string][]rowOutcome
	if err := s.c.call(ctx, http.MethodPost, path, jsontext.Value(body.Bytes()), &out); err != nil {
		return rows, err
	}
	if len(out[s.member]) != len(rows) {
		return rows, Fail(ExitRemote, errors.New("the server's answer does not fit: it has not one outcome for each row"))
	}
	var left []batchRow
	for i := range rows {
		if o := &out[s.member][i]; o.Outcome == "failed" {
			left = append(left, rows[i])
		} else {
			s.note(rows[i], o)
		}
	}
	s.sent()
	return left, nil
}
