// Package localindex is the verification index in an enforcing process: it answers
// without asking anybody, in about a microsecond, and follows the ledger by a feed.
//
//	x, err := localindex.Open(ctx, localindex.Config{
//		Dir: "/var/lib/edge/index", Enforcer: id, Key: key, Publisher: client, Snapshots: client,
//	})
//	e, err := enforcer.New(enforcer.Config{Decider: x})
//	feed, err := sse.New(sse.Config{URL: url, Key: secret, Pulse: x.Observe, PulseKey: x.PulseKey()})
//	go x.Run(ctx, feed, e)
//	<-x.Ready()
//
// The feed may as well be one over NATS, package feed, and the publisher its.
//
// # Where it begins
//
// It has a store of its own in Config.Dir, and a restart goes on from there. An
// empty store is filled from a verifier's snapshot, in seconds, and only when none
// can be had from the ledger's beginning. A snapshot is refused unless it is byte
// for byte what the verifier took, and is thrown away when the ledger that the feed
// delivers does not go on from it.
//
// # When it answers
//
// It is unavailable, which is neither a yes nor a no, until it has said hello,
// has then applied the ledger to its end, and the pen has vouched for that; and
// again whenever what it knows is older than the bound of the permission, when its
// receipts are not stored for so long that nobody waits for it, when it cannot
// apply an event, and for good when its enforcer is retired, also after a restart.
package localindex
