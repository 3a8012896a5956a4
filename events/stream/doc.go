// Package stream is the ledger on NATS JetStream: it implements events.Log,
// events.Reader and events.Pulses.
//
// # The streams
//
// The commits are the messages of the stream [EventsStream], the pulses those
// of [PulseStream]. Beside them stands what enforcers say of themselves, in
// [ReceiptsStream] and [ProgressStream], and what is told of the use of
// credentials, in [UsageStream]. The package never creates, changes or
// deletes a stream; whoever makes an installation takes [EventsConfig],
// [PulseConfig], [KeysConfig], [ReceiptsConfig], [ProgressConfig]
// and [UsageConfig], and
// [Assert] and [AssertReplicas] say at every start whether the server really
// does as they say.
//
// # Trust
//
// The stream may lose and may roll back: JetStream can leave out a hole, or
// rewind, after one flipped bit, and say that it is healthy. It is therefore
// not trusted: a reader checks that sequences and numbers are contiguous and
// that every event names the hash of the one before, asks for the head again
// whenever nothing has come for a while, and stops with an error at the first
// thing that does not fit. Whoever can write to the stream's subjects can end
// the service; only who knows the ledger's hashes could change what it says.
//
// # The connection
//
// The caller makes and closes it, with nats.ReconnectBufSize(-1): an append
// that leaves later than its caller believes is worse than one that fails. The
// package never repeats an append by itself.
package stream
