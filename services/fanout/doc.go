// Package fanout serves the ledger to enforcing services over HTTP as it is
// written: GET /v1/feed, in the form that package sse describes.
//
// One reader follows the ledger and keeps the newest commits, encoded once for
// everybody, in a ring of bounded size. A client that is within the ring costs a
// goroutine and no copy; one that begins before it is brought there by a reader
// of its own, of which there are few at a time. Nobody waits for a slow client:
// a write that takes too long ends its stream, and it resumes by its last id.
package fanout
