// Package receipt is what an enforcing service says of itself: how far it has
// applied the ledger. From receipts follows who has heard of a revocation.
//
// # The line
//
// A receipt is one JSON object, always written in the same member order and
// without white space, whose last member is a signature:
//
//	{"enforcer":"<id>","instance":"k3v9…","region":"eu","kind":"revocation",
//	 "epoch":1,"sequence":41,"number":77,"head":"<sha-256>","reader":1,
//	 "bound_ms":30000,"applied_at":"…","sent_at":"…","signature":"<base64>"}
//
// (broken here for reading). Head is the hash of the ledger's line number 77,
// with which commit 41 ends: an enforcer that follows another ledger shows
// itself. The signature is Ed25519 under the public nkey that the ledger has
// for the enforcer, of a prefix that no other signature of that key can have
// and the object without its last member. [Open] takes exactly what [Sign]
// writes.
//
// # Where it goes
//
// An instance is one process of an enforcing service. It says hello before it
// verifies anything, reports within a second when it has moved, at once when a
// revocation was in what it applied, every ten seconds in any case, and says bye
// when it verifies no more. What concerns revocations is kept; of the rest the
// last one of each instance. [Reporter] does all that.
//
// An enforcer whose receipts have not been acknowledged for [Lease] and its own
// bound is taken for gone: see [Reporter.Lapsed].
package receipt
