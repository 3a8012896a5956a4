package stream

import (
	"bytes"
	"context"
	"fmt"

	"watchword.dev/events"
)

// PositionAt returns the position at the end of the commit with this sequence,
// for a reader that does not begin at the beginning. It takes that commit's
// word for what lies before it; what comes after is checked as ever. Sequence
// 0 is the beginning.
func (l *Log) PositionAt(ctx context.Context, seq uint64) (events.Position, error) {
	if seq == 0 {
		return events.Position{}, nil
	}
	payload, _, err := l.message(ctx, EventsStream, fmt.Sprintf(`{"seq":%d}`, seq))
	if err != nil {
		return events.Position{}, err
	}
	if payload == nil {
		return events.Position{}, fmt.Errorf("%w: the ledger has no sequence %d", events.ErrRewind, seq)
	}
	return EndOf(payload, seq)
}

// EndOf returns the position at the end of a commit, from the message in which
// it is stored.
func EndOf(payload []byte, seq uint64) (events.Position, error) {
	var last events.Record
	if err := events.Decode(payload[bytes.LastIndexByte(payload, '\n')+1:], &last); err != nil {
		return events.Position{}, fmt.Errorf("sequence %d: %w", seq, err)
	}
	return events.Position{Seq: seq, Number: last.Number, Epoch: last.Epoch, Hash: last.Hash, Time: last.Time}, nil
}
