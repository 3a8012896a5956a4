// Package projector runs projections: it reads the ledger in order, hands it to
// a projection in batches, wakes those who wait for a sequence, and stops,
// visibly, at the first commit that cannot be applied. It never skips.
//
// A projection keeps its rows in a [Store] of its own, which can be thrown
// away: everything in it follows from the ledger. Rows and checkpoint move in
// one Pebble batch that is not synced. After a crash the store is therefore at
// one sequence, never between two, and what it lost is read again.
package projector

import (
	"watchword.dev/events"
)

// Projection is a read model fed by the ledger.
type Projection interface {
	// Name and Version name the shape of the rows. A store of another name
	// or version is refused, and built anew beside the old one.
	Name() string
	Version() int
	// Position is where the projection is: the runner reads on from there.
	Position() events.Position
	// Apply reflects commits, which follow Position without a gap, and moves
	// Position to the end of the last one; rows and checkpoint in one
	// batch. When it returns nil every reader sees the change. The commits
	// are valid until it returns. After an error the projection is where it
	// was before and is given nothing more. One goroutine calls it.
	Apply(commits []events.Commit) error
}

// Bulk is a projection that can be filled from empty in a faster way than
// batch by batch.
type Bulk interface {
	Projection
	// BeginBulk is called on an empty projection that is far behind the
	// head. From here until EndBulk nobody reads the projection, and Apply
	// may move Position in memory only: a crash leaves the store empty, and
	// the load starts again.
	BeginBulk() error
	// EndBulk makes what was applied since BeginBulk durable and visible.
	// It does nothing when the projection is not in bulk mode, which it may
	// also leave by itself.
	EndBulk() error
}
