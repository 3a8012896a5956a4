package serve

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"watchword.dev/events"
	"watchword.dev/events/receipt"
	"watchword.dev/events/stream"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/revocations"
	"watchword.dev/services/fanout/receipts"
	"watchword.dev/services/internal/embed"
	"watchword.dev/services/management"
)

// receiptParts is what a node has to do with receipts: it reads those of all,
// answers who has heard of what, and sends its own.
type receiptParts struct {
	projection *live[*revocations.Revocations]
	collector  *receipts.Collector
	service    *receipts.Service
	publisher  receiptPublisher
}

// receiptStream is a stream of receipts as the collector reads it.
type receiptStream struct {
	*stream.Told
	of revocations.Stream
}

func (s receiptStream) Read(ctx context.Context, after uint64, fn func(revocations.Message) error) error {
	return s.Told.Read(ctx, after, func(m stream.ToldMessage) error {
		return fn(revocations.Message{Stream: s.of, Seq: m.Seq, Subject: m.Subject, Data: m.Data, Stored: m.Stored})
	})
}

func (s receiptStream) Last(ctx context.Context) (uint64, error) {
	_, last, err := s.Bounds(ctx)
	return last, err
}

// receiptPublisher stores a receipt in the stream to which it belongs.
type receiptPublisher struct{ kept, progress *stream.Told }

// Publish implements receipt.Publisher.
func (p receiptPublisher) Publish(ctx context.Context, subject string, data []byte) error {
	if strings.HasPrefix(subject, stream.ProgressPrefix) {
		return p.progress.Publish(ctx, subject, data)
	}
	return p.kept.Publish(ctx, subject, data)
}

// revocationParts is the projection, not opened yet.
func (n *node) revocationParts() *live[*revocations.Revocations] {
	return &live[*revocations.Revocations]{
		home: projector.Home{Dir: n.cfg.Path(revocations.Name)}, read: n.ledger, log: n.log, o: n.feeding,
		open: func(dir string) (*revocations.Revocations, error) {
			return revocations.Open(revocations.Options{Dir: dir, Log: n.log})
		},
		follow: func(p *revocations.Revocations, r events.Reader, o projector.Options) *projector.Runner {
			return projector.NewRunner(r, p, o)
		},
	}
}

// openReceipts opens the projection and what feeds it.
func (n *node) openReceipts() error {
	nc, err := n.nats.connect(embed.Node, false)
	if err != nil {
		return err
	}
	cfg := stream.Config{Log: n.log}
	kept, err := stream.OpenReceipts(nc, cfg)
	if err != nil {
		return err
	}
	progress, err := stream.OpenProgress(nc, cfg)
	if err != nil {
		return err
	}
	r := &receiptParts{projection: n.revocationParts(), publisher: receiptPublisher{kept, progress}}
	if err := r.projection.start(); err != nil {
		return err
	}
	n.receipts = r
	r.collector = receipts.NewCollector(receipts.CollectorConfig{
		Projection: r.projection.get, Reached: r.projection, Ledger: n.ledger,
		Kept: receiptStream{kept, revocations.Kept}, Progress: receiptStream{progress, revocations.Progress}, Log: n.log,
	})
	r.service = receipts.New(receipts.Config{
		Projection: r.projection.get, Enforcers: liveIndex{n.index}, Directory: liveDirectory{n.directory}, Publisher: r.publisher,
	})
	return nil
}

// reports is how far the index that answers here has come.
func (n *node) reports(at events.Position, revoked bool) {
	if r := n.reporter.Load(); r != nil {
		r.Applied(at, revoked)
	}
}

// introduce makes this node's index known to those who wait for revocations,
// and then waits until it has applied all that nobody waits for on its behalf.
// Without that the node must not verify.
func (n *node) introduce(ctx context.Context) error {
	r, err := receipt.NewReporter(receipt.Config{
		Enforcer: n.opened.Installation, Key: n.keys.PulseKey(), Publisher: n.receipts.publisher,
		Bound: max(n.cfg.StaleRead, n.cfg.StaleWrite, n.cfg.StaleAdmin), Log: n.log,
	})
	if err != nil {
		return err
	}
	n.reporter.Store(r)
	n.reports(n.index.get().Position(), false)
	for {
		if err = r.Hello(ctx); err == nil {
			break
		}
		n.log.Warn("nobody knows yet that this node verifies; it is not ready before", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
	n.log.Info("this node reports what it has applied", "instance", r.Instance())
	head, err := n.ledger.Head(ctx)
	if err != nil {
		return err
	}
	if err := n.index.Wait(ctx, head); err != nil {
		return fmt.Errorf("the verification index: %w", err)
	}
	return nil
}

// report sends this node's receipts once it is ready. It is ended after HTTP was:
// its last word is that nothing is verified here any more.
func (n *node) report(ctx context.Context) error {
	select {
	case <-n.ready:
	case <-ctx.Done():
		return nil
	}
	if err := n.reporter.Load().Run(ctx); !errors.Is(err, context.Canceled) {
		n.log.Warn("the last receipt was not stored", "error", err)
	}
	return nil
}

// answering answers management: the projection, and how far it is.
type answering struct {
	*receipts.Service
	management.Waiter
}

// receipts are the figures of those who report. Enforcers of one name are one.
func (c nodeCollector) receipts(gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string)) {
	p := c.n.receipts.projection.get()
	refused := p.Refused()
	for _, reason := range revocations.Reasons() {
		sum := uint64(0)
		for _, n := range refused[reason] {
			sum += n
		}
		counter(descRefused, sum, string(reason))
	}
	names := map[token.ID]string{c.n.receipts.service.Installation(): "watchword"}
	if all, err := c.n.directory.get().Enforcers(); err == nil {
		for i := range all {
			names[all[i].ID] = all[i].Name
		}
	}
	type figures struct {
		lag    uint64
		silent time.Time
		states map[revocations.State]int
	}
	head, by := p.Position().Seq, map[string]*figures{}
	for _, i := range p.Instances(time.Now()) {
		f := by[names[i.Enforcer]]
		if f == nil {
			f = &figures{states: map[revocations.State]int{}}
			by[names[i.Enforcer]] = f
		}
		f.states[i.State]++
		if i.State != revocations.Waiting {
			continue
		}
		if head > i.Seq {
			f.lag = max(f.lag, head-i.Seq)
		}
		if f.silent.IsZero() || i.LastSeen.Before(f.silent) {
			f.silent = i.LastSeen
		}
	}
	for name, f := range by {
		for state, n := range f.states {
			if state == revocations.Waiting {
				state = "live"
			}
			gauge(descLive, float64(n), name, string(state))
		}
		if !f.silent.IsZero() {
			gauge(descBehind, float64(f.lag), name)
			gauge(descSilent, float64(f.silent.UnixMilli())/1000, name)
		}
	}
}
