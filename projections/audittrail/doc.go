// Package audittrail is the projection behind the audit trail. It keeps the
// Merkle tree of the ledger, so that it can be shown to anybody that an event
// stands there and that nothing before it was changed.
//
// Leaf n-1 of the tree is the line of event number n; see package proof for the tree
// and for what is made of it. Every region computes the same tree from its own
// copy of the ledger: equal roots at equal sizes say that the copies are equal.
//
// A tree head is what other places call a checkpoint; the checkpoint of this
// projection is, as everywhere in this house, the position up to which it has
// applied the ledger. The tree has as many leaves as that position has events.
//
// # Epochs
//
// Within an epoch the tree only grows. When a stream was restored or promoted it
// may have lost its end, and with it leaves of heads that were signed: another
// tree grows from what is left, under another origin ([proof.Origin]). Its first
// leaf is epoch.opened, which by its prev, the hash of the line before, commits to
// every line that the new epoch took over. [Trail.Epochs] tells where each one began,
// and the root of what it took over: where a head of the epoch before has more
// leaves, those are what the restore has lost.
//
// # Rows
//
//	h <index>   a hash of the tree, in the order of the tlog package: 32 bytes
//	e <epoch>   where an epoch began: the number of its first event, and the root
//	            of the tree before it
//	i           the id of the installation
//	r           the root at the checkpoint
//
// Numbers in keys and rows are big-endian. Rows of h and e are written once and
// never change, so whatever size a question is about, it needs no snapshot.
package audittrail
