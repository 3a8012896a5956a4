package enforcer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"watchword.dev/events"
	"watchword.dev/events/receipt"
)

var _ receipt.Publisher = (*Client)(nil)

// Publish brings a receipt to a verifier, which stores it: POST /v1/receipts. It
// implements receipt.Publisher; the subject stands in the receipt too.
func (c *Client) Publish(ctx context.Context, _ string, data []byte) error {
	var errs []error
	for i, v := range c.order() {
		err := c.bring(ctx, v, len(c.verifiers)-1-i, data)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("enforcer: no verifier has stored the receipt: %w", errors.Join(errs...))
}

func (c *Client) bring(ctx context.Context, v *verifier, others int, data []byte) error {
	ctx, cancel := share(ctx, others)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, v.base+"/v1/receipts", bytes.NewReader(data))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", c.bearer)
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %d", v.base, resp.StatusCode)
	}
	return nil
}

// FollowReporting is FollowNewest for a process that reports what its followers
// have applied: it says hello first, reports while it follows, and says bye when
// ctx has ended. The cache among the followers has r as its Reports.
func FollowReporting(ctx context.Context, feed Newest, r *receipt.Reporter, followers ...Follower) error {
	for pause := followAgain; r.Hello(ctx) != nil; {
		if err := rest(ctx, &pause); err != nil {
			return err
		}
	}
	var reporting sync.WaitGroup
	defer reporting.Wait()
	reporting.Go(func() { _ = r.Run(ctx) }) // whether there was a bye shows its lease
	return FollowNewest(ctx, feed, append(followers[:len(followers):len(followers)], Reporting(r))...)
}

// Reporting returns a follower that tells r what those before it have applied. It
// comes last.
func Reporting(r *receipt.Reporter) Follower { return reporting{r} }

type reporting struct{ r *receipt.Reporter }

// Begin implements Follower: what a follower keeps rests on at or later.
func (f reporting) Begin(at events.Position) { f.r.Applied(at, false) }

// Applied implements Follower.
func (f reporting) Applied(c *events.Commit) { f.r.Applied(c.End, receipt.RevokesAny(c)) }

// Lost implements Follower. The receipts go on to say how far this process came.
func (f reporting) Lost(error) {}
