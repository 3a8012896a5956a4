// Package events is the contract of Watchword's ledger: what an event is, how
// its bytes look, how events hang together, and how to read them in order.
//
// # The line
//
// An event is one CloudEvents 1.0 JSON object on one line, always written in
// the same member order and without white space:
//
//	{"specversion":"1.0","id":"01K…","source":"watchword/<installation>",
//	 "type":"watchword.token.revoked.v1","subject":"token/<id>","time":"…",
//	 "datacontenttype":"application/json","dataschema":"…",
//	 "number":"7","epoch":1,"prev":"<sha-256>", … ,"data":{…}}
//
// (broken here for reading). The bytes stored are the bytes hashed: prev is the
// SHA-256 of the previous event's line, so one chain runs over the whole
// ledger, and nothing may ever re-encode a line. [Decode] accepts exactly the
// form that [Encode] writes; a reader in another language may use any JSON
// parser.
//
// # The commit
//
// One message of the stream is a commit: one or more lines of the same
// subject, joined by a newline. The sequence of the message is the unit of
// consistency and of checkpoints; the number of an event is its place in the
// whole ledger, from 1, without a gap.
//
// # Reading
//
// [Reader] delivers commits that [DecodeCommit] has checked against the
// [Position] before them. A gap, a rewind, a broken chain, an unknown epoch or
// an event that this program does not know ends the read with an error:
// readers stop, they never skip.
package events
