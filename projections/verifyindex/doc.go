// Package verifyindex answers whether a secret is good for a request: it maps
// the digest of every secret that was ever handed out to the compiled grant of
// its token, and evaluates the grant from those bytes.
//
// It is the hot path. In resident mode a verification is one SHA-256, one
// look-up in a table without locks and one evaluation, with no allocation and
// no I/O. When the tokens need more memory than Options.MemoryBytes allows, the
// index goes over to disk mode, in which the same bytes are read from Pebble.
//
// # Rows
//
//	e <enforcer>         the state of an enforcer, JSON
//	i <token>            digest of its secret, then that of the previous one
//	                     when there is one
//	l                    what the ledger said of itself when it was opened, JSON
//	n                    how many tokens and secrets there are
//	o <owner> <token>    nothing: the tokens of an owner
//	t <digest>           an entry: see below
//	x <owner>            nothing: an owner that was removed
//
// # Entries
//
// An entry is the same bytes on disk and in memory, but that in memory the
// digest stands before it. All numbers are little-endian.
//
//	 0  size u32 · version u8 · owner kind u8 · 0 u16
//	 8  state u64: flags in the low 16 bits, above them the millisecond
//	    (Unix) until which a replaced secret still verifies
//	16  number u64 of the event that created the token
//	24  token, owner: 16 bytes each
//	56  the compiled grant; of an entry that can never verify again only its
//	    validity
//
// Everything but the state stays as it is once readers can see it; the state
// is one word that is written atomically, so that a revocation is one store.
//
// # What verifies
//
// A token has at most two live secrets: the newest one, and the one before it
// until a grace ends. Secrets that were replaced and tokens that were revoked
// stay known, and the reason for both is revoked: whoever holds such a secret
// once held a good one, and "unknown" would hide that it was taken back.
package verifyindex
