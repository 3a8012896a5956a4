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
// An instance is one process of an enforcing service. It reports within a second
// when it has moved, at once when a revocation was in what it applied (see
// [Revokes]), every ten seconds in any case, and says bye when it verifies no
// more. Signs of life alone replace each other, the rest is kept. [Reporter] does
// all that.
//
// # What an instance owes
//
// "Everybody has heard" is true only when each instance keeps to three rules:
//
//   - It says hello first ([Reporter.Hello]), then asks for the head of the
//     ledger, and verifies nothing before it has applied that. Nobody waits for
//     an instance that came after a revocation.
//   - It verifies nothing when its knowledge is older than Bound.
//   - It verifies nothing after its bye, after its enforcer's retirement, and
//     while [Reporter.Lapsed] says that nobody waits for it any more: when none
//     of its receipts was stored for [Lease] and its bound.
package receipt
