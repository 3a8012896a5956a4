// Package authority is the write side: it decides commands and holds the pen,
// the only thing that appends to the ledger.
//
// # Deciding
//
// decide is pure: the state at the head, who asks, the command and the time
// give an event, a refusal, or the answer that nothing needs to change. The
// state at the head is the directory's rows ([Past]) under everything that was
// appended since and that the directory has not applied yet (the overlay), so
// a directory that lags never makes a decision wrong. Authentication and
// authorisation are part of the decision: a token revoked by the command
// before cannot mint another.
//
// Of an owner's tokens the state has the number, too, with the sequence of its
// last change, so that the overlay counts on from any directory and a quota is
// kept to the token, however many creations come at once.
//
// # What a node is believed
//
// A command that comes over NATS names its caller by the digest of the secret
// that the node was shown. The pen checks everything else itself: what has that
// digest at the head, that it lives, what it may do, and that a grant is held.
// It cannot check that the node was ever shown the secret. Digests stand in the
// ledger, which nodes read, and so do the digests of requests: whoever has the
// credential of a node can act as every user and token of the installation, and
// the events will say that those acted. The address, on which a token's
// condition rests, the request's id and the origin are the node's word as well.
// It cannot act as the system, learn a secret that it was not shown, or change
// or remove what is in the ledger. So the credential of a node is kept like the
// pen's, and readers have one of their own, which sends no commands.
//
// # Appending
//
// The pen is a flat combiner. Whoever finds it idle takes it and publishes
// their own command themselves, so that a lonely command costs one publish and
// no change of goroutine; those who come meanwhile wait, and the next one who
// holds the pen takes them along in one commit. Revocations go before
// everything that waits, imports never fill more than half a commit.
//
// A commit is a message of events of one subject. Its commands are decided one
// after the other, each against the state that the ones before it will have
// left; nothing is answered, not even a refusal, before the commit is in the
// log, because a refusal may rest on an event of the same commit. When an
// append has no clear answer the pen forgets what it decided above the
// acknowledged prefix, reads the log to its head, answers by event id what it
// finds, and decides the rest again. The same code runs at the start and at a
// takeover.
//
// # Who holds the pen
//
// The pen stores a signed pulse each second under the expected sequence of the
// one before. A standby that has heard none for three seconds stores its claim
// there, which fences the old pen's pulses, reads the events to the head and
// appends pen.opened, which fences the old pen's appends. Success needs no
// look at the lease: the log itself refuses the append of a pen that is not
// the last writer. What rests on no append (the head, a refusal) is answered
// only while the lease is certainly ours.
package authority
