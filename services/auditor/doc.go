// Package auditor shows the Merkle tree of the ledger to whoever wants to check
// this installation without trusting it: its newest signed tree head at
// /audit/checkpoint, and its hashes as tiles at /audit/tile/…, in the forms of
// c2sp.org/tlog-tiles. From those two anybody makes proofs by themselves; package
// events/proof says what is shown by them.
//
// Both are open to all. They hold hashes and how many events there are, and no
// line can be guessed from its hash: each has the random id of its event in it.
//
// # Signing
//
// A head is signed when somebody asks and the newest one is a second old. The key
// signs nothing that contradicts what it has signed before: the last head is kept
// in a file and synced before anybody sees it, and the next one is signed only
// when its tree extends that. A ledger that was put back to an earlier state and
// has gone on from there in the same epoch therefore gets no more heads, and says
// why in /readyz. The epoch that an operator opens after a restore is another log
// with another name.
//
// What the file's attacker can do: without the file a node signs whatever its
// ledger holds. Who has kept an older head, as a witness does, sees that.
package auditor
