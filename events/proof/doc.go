// Package proof shows that an event stands in the ledger, and that the ledger
// only ever grew, to somebody who trusts neither the server nor its files.
//
// The ledger is a Merkle tree as in RFC 6962. Leaf n-1 is the line of event
// number n, exactly as stored and without its newline: inner hashes are
// SHA-256 of 0x01 and two hashes, leaf hashes of 0x00 and the line. A tree head
// says how many leaves there are and what their root is. The installation signs
// heads as the log; witnesses, which have seen that each head extends the one
// before, cosign them. All forms are those of C2SP, so that tools which know
// nothing of Watchword read them.
//
// # A tree head
//
// A signed head is a note (c2sp.org/tlog-checkpoint): the origin, the size, the
// root in base64, an empty line, and one line for each signature.
//
//	watchword/01f3…/audit/1
//	20852163
//	CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//
//	— watchword/01f3…/audit/1 Az3grlgtzPICa5OS8n…
//	— witness.example/w1 jWbPPwAAAABkGFDLEZMHwSR…
//
// C2SP calls this a checkpoint; here a checkpoint is what a projection keeps,
// and this is a head. [Origin] names the log: one for each epoch of an
// installation's ledger. Within an epoch no two heads may contradict each other.
// When a stream was restored it may have lost its end, so the heads of the epoch
// before can be longer than what is left: the new epoch is another log with
// another name, and nobody takes it for the old one.
//
// # Proofs
//
// [Inclusion] is a file of c2sp.org/tlog-proof: with the line, the file and a
// [Policy] one knows that the line is a leaf, with no network. [Consistency] is
// the request of c2sp.org/tlog-witness: that a head extends an older one.
//
// What a proof does not show: that an event is true, or that it was recorded
// when it says. It shows that nothing was changed, removed or put in since the
// head was signed, and with witnesses that everybody is shown the same.
package proof
