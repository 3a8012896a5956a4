package events

import (
	"context"
	"errors"
)

var (
	// ErrConflict says that something else was appended first: another pen
	// has written, and this one is fenced. Nothing was stored.
	ErrConflict = errors.New("events: another writer has appended")
	// ErrAmbiguous says that an append got no clear answer: it may be
	// stored or not. Only reading the tail tells.
	ErrAmbiguous = errors.New("events: no answer to an append")
	// ErrRefused says that the log did not take an append and never will
	// as it is: it is full, or the message is too large. Nothing was stored.
	ErrRefused = errors.New("events: the log refused an append")
)

// Reader reads the ledger in order.
type Reader interface {
	// Read calls fn for every commit after at, in order, each checked
	// against the one before, and waits for new ones until ctx ends. It
	// returns the first error of fn or of the ledger, and ctx.Err() at the
	// end of ctx. When the ledger ends before at it returns ErrRewind, when
	// at is not on its chain ErrChain.
	Read(ctx context.Context, at Position, fn func(Commit) error) error
	// Head returns the sequence of the last commit; 0 when there is none.
	Head(ctx context.Context) (uint64, error)
}

// Log is the ledger as the pen sees it.
type Log interface {
	Reader
	// Append stores payload as the commit after at, durably, or returns
	// ErrConflict, ErrRefused or ErrAmbiguous (also when ctx ends first).
	Append(ctx context.Context, at Position, subject string, payload []byte) error
}

// Pulses is the pen's lease and watermark: the few newest pulses, each stored
// under its expected predecessor so that one pen at a time can beat.
type Pulses interface {
	// LastPulse returns the newest pulse as stored and its sequence, or
	// nil and 0 when there is none.
	LastPulse(ctx context.Context) (pulse []byte, seq uint64, err error)
	// StorePulse stores a pulse as the successor of sequence after and
	// returns its own, or ErrConflict or ErrAmbiguous.
	StorePulse(ctx context.Context, after uint64, pulse []byte) (uint64, error)
	// WatchPulses calls fn for the newest pulse and for each later one
	// until ctx ends.
	WatchPulses(ctx context.Context, fn func(pulse []byte, seq uint64)) error
}
