// Package feed follows the ledger over NATS as it is written. An enforcing
// service or any other consumer hears each commit from the server's RePublish a
// moment after it was stored, and nothing is kept on the server for it.
//
//	nc, err := feed.Connect("nats://…", "edge-7.seed", id)
//	r := feed.New(nc, feed.Config{Pulse: index.Observe, PulseKey: key})
//	err = r.Read(ctx, index.Position(), apply)
//
// # What is believed
//
// A commit from the live subjects is believed when its sequence, number, epoch
// and hash follow from the one before it. Anything else, be it lost, repeated,
// reordered or forged, is at most a hint that something is missing; what comes
// next is then read from the stream itself, in batches of direct gets. What does
// not follow there is an error of package events that ends the Read: the ledger
// is not the one that was read before.
//
// Only the server can publish on the live subjects. If somebody else could, who
// also knows the newest commit, they could forge one that follows; the next
// true commit, or the next pulse, ends the Read with events.ErrChain.
//
// # How old it is
//
// The pen's pulse tells each second where the ledger ends. One that names more
// than was heard shows a live path that has gone silent, and the stream is read.
// Where pulses do not come either, the stream is looked at every few seconds,
// and [Reader.Age] grows.
package feed
