package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// send sends rows until each has its outcome. A request that is refused as a
// whole is cut in two, until the row is found that it is refused for.
func (im *tokenImport) send(ctx context.Context, rows []batchRow) error {
	began := time.Now()
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		left, err := im.try(ctx, rows)
		remote, isRemote := errors.AsType[*statusError](err)
		switch {
		case isRemote && (remote.status == http.StatusBadRequest || remote.status == http.StatusRequestEntityTooLarge):
			if len(rows) > 1 {
				return errors.Join(im.send(ctx, rows[:len(rows)/2]), im.send(ctx, rows[len(rows)/2:]))
			}
			im.refuse(rows[0].line, remote)
			return nil
		case isRemote && remote.status < http.StatusInternalServerError && remote.status != http.StatusTooManyRequests:
			return err // by whom it is sent, or where to
		case err == nil && len(left) == 0:
			return nil
		}
		if len(left) < len(rows) {
			began = time.Now() // it goes on
		}
		if rows = left; time.Since(began) >= im.flags.retryFor {
			if err == nil {
				err = Fail(ExitRemote, errors.New("the server cannot take changes at the moment"))
			}
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// try sends rows once and returns those that are to be sent again.
func (im *tokenImport) try(ctx context.Context, rows []batchRow) ([]batchRow, error) {
	var body bytes.Buffer
	body.WriteString(`{"tokens":[`)
	for i, r := range rows {
		if i > 0 {
			body.WriteByte(',')
		}
		body.Write(r.body)
	}
	body.WriteString(`]}`)
	path := importTokensRoute
	if im.flags.dry {
		path += "?dry_run=true"
	}
	var out struct {
		Tokens []rowOutcome `json:"tokens"`
	}
	if err := im.c.call(ctx, http.MethodPost, path, jsontext.Value(body.Bytes()), &out); err != nil {
		return rows, err
	}
	if len(out.Tokens) != len(rows) {
		return nil, Fail(ExitRemote, errors.New("the server's answer does not fit: it has not one outcome for each token"))
	}
	var left []batchRow
	for i := range out.Tokens {
		if out.Tokens[i].Outcome == "failed" {
			left = append(left, rows[i])
			continue
		}
		im.note(rows[i].line, &out.Tokens[i])
	}
	im.mu.Lock()
	done := im.counts.all()
	im.mu.Unlock()
	im.show.at(int(im.read.Load()), fmt.Sprintf("%d tokens", done))
	return left, nil
}
