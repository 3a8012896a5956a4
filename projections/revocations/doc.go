// Package revocations knows who has heard of a revocation, and who has not. It
// reads the ledger for what was revoked, and receipts for how far each instance
// of each enforcing service has come.
//
// A receipt covers everything up to its sequence. So nothing is kept for each
// pair of a revocation and an instance: an instance leaves a mark where a
// receipt covers a revocation that none before it has covered, and has heard of
// a revocation since its first mark at or behind it. However many are revoked at
// once, an instance that reports once leaves one mark.
//
// # Rows
//
//	a <enforcer> <instance> 0 <epoch> <sequence>  a mark: since when it is
//	                                              applied, and when we heard so
//	c <stream>         how far receipts were read: a sequence
//	e <enforcer>       the state of an enforcer, JSON
//	h <slot>           where a commit ended: position, by sequence mod ringSize
//	i <enforcer> <instance>  the state of an instance, JSON; of those that are
//	                   too many to be known each, under the name Others
//	l                  what the ledger said of itself when it was opened, JSON
//	p                  the epoch and when it began, JSON
//	r <sequence>       a commit that revokes: epoch and time
//	s <kind> <id> 0 <sequence>  an event that revokes, by what it is about, JSON
//	x <reason> <enforcer>  how many receipts of an enforcer were refused
//
// Receipts are no part of the ledger: when they are lost, what is lost is who
// has heard of what, and every instance says within ten seconds where it is.
package revocations
