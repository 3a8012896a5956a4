// Package embed is the NATS server of an installation and the one table of
// who may do what on it.
//
// The table (table.go) is used three times, so that the three cannot differ:
// by the embedded server, by the configuration that an external cluster gets
// (ClusterConfig), and by the test that tries to destroy the ledger with every
// credential.
//
// # Accounts: a credential lives where nothing lives
//
// Subject permissions alone do not protect a stream. JetStream sends its
// answers to the reply subject that the asker names, without asking whether
// the asker may publish there. In an account that holds the stream, a reader
// that may only fetch can name $JS.API.STREAM.DELETE.<stream> as the reply of
// a fetch, and the empty "404 No Messages" that comes back deletes the ledger;
// or it can name an event subject, and the answer is appended to it. Both were
// seen with nats-server v2.15.2 (TestReplySubjectDeletes keeps the first).
//
// So each stream has an account of its own, in which nobody can log in, and
// each role has an account of its own, in which nothing listens. A role
// reaches what the table gives it by service and stream imports, subject by
// subject; the server replaces the reply subject at the border, so an answer
// can only land in the account of the asker. A consumer's deliver subject does
// stay in the account of its stream, where only the stream listens: and a
// stream refuses to deliver to itself (error 10081).
//
// So clients read by pull consumers, which is what package jetstream of nats.go
// makes; a push consumer finds no listener. Measured once (2 vCPU, 300,000
// messages, six runs, busy): the border costs a drain 9 to 41 %, median 24 %, and a
// publish 10 µs, where an fsync costs 1 ms.
//
// # Who enrolls
//
// Enforcing services and consumers of the events are not in the configuration.
// About a login that it does not know a server asks, and who has the role Auth
// answers from the ledger (package callout). Those of a kind share an account
// that owns nothing; in it each has allow lists of its own (Enrolled): receipts,
// progress and usage under its own id, its own inboxes, the live path, and
// messages of the ledger by sequence. There is no consumer to make and no stream
// to touch. What a live server says of all this stands in
// callout/testdata/matrix.txt.
//
// An answer of Auth counts with the signature of Issuer, and the server lets in
// whom it names, in whatever account. So the seeds of Issuer, Sealer and Auth
// together are worth as much as the servers' configuration: they can open the
// account of a stream. In a cluster give them to nodes that may hold the pen,
// and to no others.
//
// # What this does not stop
//
// A role that may read may make many consumers, and may delete another's
// consumer whose random name it knows. Ordered consumers notice and are made
// again; availability suffers, the ledger does not. A reader, or an enforcer by
// the reply subject that it names, can make the server send true events to the
// live path of its own account once more, with the marks of a stored message
// (Nats-Stream, Nats-Sequence) when they come from a direct get; a client cannot
// set these. A follower looks at sequence and chain, and drops what it has had.
// Nodes that put junk into the bucket of keys can fill it, not change it; an
// enforcer can fill the streams of what enforcers say, where the oldest makes
// room. Auth can end any connection. The pen is trusted to append; on a
// replicated stream of nats-server v2.15.2 its header Nats-Expected-Last-Msg-Id
// would stop the stream for good, and permissions cannot filter headers.
package embed
