// Package eventstest helps to test programs that append to the ledger or
// follow it: a ledger in memory that fails on command, a clock that stands
// still, and the conformance suite that every events.Log passes.
//
// A [Ledger] is the store; each [Log] is one connection to it, so that two
// pens can fight over one ledger:
//
//	ledger := eventstest.NewLedger()
//	old, young := ledger.Connect(), ledger.Connect()
//	old.Inject(eventstest.OpAppend, eventstest.Fault{Lose: eventstest.Answer})
//
// The ledger asserts the contract while it is used. It hands out copies and
// overwrites them when the callback returns, so that a reader that keeps what
// it may not keep is found; and it panics when its own bytes have changed.
//
// Nothing here reads a clock or sleeps: a ledger made inside a testing/synctest
// bubble blocks durably wherever it waits.
package eventstest
