// Package directory is the read model of who and what there is: users and their
// API keys, accounts, members, enforcers, and tokens by owner. Lists are served
// from it, and it gives commands their past.
//
// # Rows
//
// A row is an aggregate, as package events/aggregate evolves it, in compact
// JSON, under its id. Small rows beside them answer the other questions: an
// owner's tokens in the order of their ids with their number, a user by the
// index of an address, members by account and by user, the holder of a secret
// by its digest, and the secret that a recent request has caused. rows.go has
// the tables.
//
// Lists that may be long are read by pages: all accounts, all users, an
// account's members, an owner's tokens, and the resources of a type or in a
// parent. Each is a range of keys in the order of names, with its length beside
// it, so that a page, a name and the beginning of a name are found without
// looking at the rest. lists.go has them.
//
// What has ended stays as a row, so that fsck and the audit can find it, and
// leaves every index: it is in no list, no count of what lives, and no secret
// leads to it. Removing a user or an account ends their tokens and memberships
// in the same step. A sweep ends what it takes in several, before the checkpoint
// moves over it.
//
// # Trust
//
// Everything here follows from the ledger and may be thrown away. Times are
// those of events, never of a clock, so a rebuild has the same rows as a
// directory that has lived through it. An event that does not fit what came
// before stops the projection with aggregate.ErrImpossible; one of an unknown
// type stops it with events.ErrUnknown.
package directory
