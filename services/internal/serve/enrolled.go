package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"watchword.dev/events"
	"watchword.dev/events/stream"
	"watchword.dev/services/config"
	"watchword.dev/services/internal/embed"
	"watchword.dev/services/internal/embed/callout"
)

const (
	// sweepEvery is how often connections are looked through without a cause.
	sweepEvery = time.Minute
	// sweepAgain is when they are looked through once more after a
	// retirement: a login that was answered before it is a connection, or
	// refused, by then.
	sweepAgain = 3 * time.Second
)

// admitEnrolled answers the logins of enforcers and consumers, and ends the
// connections of those that are retired, once the node is ready.
func (n *node) admitEnrolled(ctx context.Context) error {
	if n.callout == nil {
		<-ctx.Done()
		return nil
	}
	select {
	case <-n.ready:
	case <-ctx.Done():
		return nil
	}
	retired, err := n.retirements()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- n.callout.Serve(ctx) }()
	n.sweepEnrolled(ctx, retired)
	return <-ended
}

// openCallout gives the service that answers, or nil on a node of a cluster
// that was not given the seeds for it. Where the pen can be they must be, so
// that an installation has somebody who answers.
func (n *node) openCallout() (*callout.Service, error) {
	issuer, ierr := n.nats.key(embed.Issuer)
	sealer, serr := n.nats.key(embed.Sealer)
	switch err := errors.Join(ierr, serr); {
	case errors.Is(err, fs.ErrNotExist) && !n.cfg.Runs(config.RoleAuthority):
		n.log.Info("this node has no seeds of issuer and sealer: it leaves the logins of enforcers and consumers to others")
		return nil, nil
	case err != nil:
		return nil, err
	}
	nc, err := n.nats.connect(embed.Auth, false)
	if err != nil {
		return nil, err
	}
	return callout.New(callout.Config{
		Conn: nc, Issuer: issuer, Sealer: sealer, Directory: liveDirectory{n.directory}, Fresh: n.directoryFresh, Log: n.log,
	}), nil
}

// directoryFresh waits until the directory has reached what the index has, for
// which the pen has vouched. Older than the bound of permissions that write,
// nothing is known of who is enrolled.
func (n *node) directoryFresh(ctx context.Context) error {
	index := n.index.get()
	switch age, known := index.Age(); {
	case !known:
		return errors.New("the pen has vouched for nothing that this node has applied")
	case age > n.cfg.StaleWrite:
		return fmt.Errorf("the pen has vouched for what this node has applied %v ago", age)
	}
	return n.directory.Wait(ctx, index.Sequence())
}

// retirements follows the live path for what retires somebody. A message says
// no more than that it is time to look: what counts is the directory.
func (n *node) retirements() (<-chan *nats.Msg, error) {
	nc, err := n.nats.connect(embed.Node, false)
	if err != nil {
		return nil, err
	}
	heard := make(chan *nats.Msg, 64)
	for _, e := range []events.Event{&events.EnforcerRetired{}, &events.ConsumerRetired{}} {
		if _, err := nc.ChanSubscribe(stream.LivePrefix+events.SubjectOf(e.EventName())[len(events.SubjectPrefix):], heard); err != nil {
			return nil, fmt.Errorf("follow retirements: %w", err)
		}
	}
	return heard, nc.Flush()
}

// sweepEnrolled ends connections until ctx ends.
func (n *node) sweepEnrolled(ctx context.Context, retired <-chan *nats.Msg) {
	again := time.NewTimer(0) // those who were retired while this node was down
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-retired:
			for len(retired) > 0 { // one look is enough for all
				m = <-retired
			}
			if seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64); err == nil {
				limit, cancel := context.WithTimeout(ctx, sweepEvery)
				if err := n.directory.Wait(limit, seq); err != nil && ctx.Err() == nil {
					n.log.Error("a retirement has not reached the directory", "sequence", seq, "error", err)
				}
				cancel()
			}
			again.Reset(sweepAgain)
		case <-again.C:
			again.Reset(sweepEvery)
		}
		if ended, err := n.callout.Sweep(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("look for connections of those who are retired", "ended", ended, "error", err)
		}
	}
}
