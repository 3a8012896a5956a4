package serve

import (
	"context"
	"crypto/ed25519"

	"watchword.dev/events/feed"
	"watchword.dev/projections/projector/snapshot"
	"watchword.dev/services/fanout"
	"watchword.dev/services/fanout/snapshots"
	"watchword.dev/services/internal/embed"
)

// openFeed opens what passes the ledger and the index on to enforcers, where
// verifications are answered. It hears each commit from the server as it is
// stored.
func (n *node) openFeed() error {
	nc, err := n.nats.connect(embed.Node, false)
	if err != nil {
		return err
	}
	key := n.keys.PulseKey().Public().(ed25519.PublicKey)
	n.fanout, err = fanout.New(fanout.Config{
		Ledger: n.ledger, Live: feed.New(nc, feed.Config{PulseKey: key, Log: n.log}),
		Enforcers: liveIndex{n.index}, PulseKey: key, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.snapshots, err = snapshots.New(snapshots.Config{
		Index: func() snapshot.Source { return n.index.get() }, Enforcers: liveIndex{n.index}, Dir: n.cfg.Path(snapshotDir), Log: n.log,
	})
	return err
}

// snapshotDir is where copies of the index lie while enforcers load them.
const snapshotDir = "snapshots"

// passOn runs the feed until ctx ends. One that has stopped is shown by /readyz,
// as a projection is: ending the process would help nobody.
func (n *node) passOn(ctx context.Context) error {
	if err := n.fanout.Run(ctx); ctx.Err() == nil {
		n.log.Error("the feed has stopped", "error", err)
	}
	<-ctx.Done()
	return nil
}
