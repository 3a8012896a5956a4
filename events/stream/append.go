package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	json "github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"

	"watchword.dev/events"
)

// Append implements events.Log: one publish, never repeated.
//
// What a crash leaves behind: before the publish reaches the stream's leader,
// nothing; after it, the commit may be stored whole or not at all, and no
// answer comes. Who gets events.ErrAmbiguous reads the tail to know. A publish
// that is still under way then can do no harm: whatever was appended meanwhile
// moves the last sequence, and it is refused.
func (l *Log) Append(ctx context.Context, at events.Position, subject string, payload []byte) error {
	if len(payload) > events.MaxCommit {
		return fmt.Errorf("%w: %d bytes are more than a commit may have", events.ErrRefused, len(payload))
	}
	_, err := l.publish(ctx, EventsStream, subject, at.Seq, payload)
	return err
}

// publish stores data as the message of stream after sequence after.
func (l *Log) publish(ctx context.Context, stream, subject string, after uint64, data []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.AppendTimeout)
	defer cancel()
	m := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{
		"Nats-Expected-Last-Sequence": {strconv.FormatUint(after, 10)},
	}}
	reply, err := l.nc.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject):
		return 0, fmt.Errorf("%w: %w", events.ErrRefused, err) // it never left
	case err != nil:
		return 0, fmt.Errorf("%w: %w", events.ErrAmbiguous, err)
	}
	var ack struct {
		Error  *apiError `json:"error"`
		Stream string    `json:"stream"`
		Seq    uint64    `json:"seq"`
	}
	if err := json.Unmarshal(reply.Data, &ack); err != nil {
		return 0, fmt.Errorf("%w: a strange answer: %w", events.ErrAmbiguous, err)
	}
	if ack.Error != nil {
		return 0, fmt.Errorf("%w: %w", meaning(ack.Error), ack.Error)
	}
	if ack.Stream != stream || ack.Seq != after+1 {
		// After a flipped bit a server can check the expectation against one
		// last sequence and store behind another: stored, but not where it
		// belongs. Who reads the tail now learns that it was rewound.
		return 0, fmt.Errorf("%w: acknowledged as sequence %d of %q", events.ErrAmbiguous, ack.Seq, ack.Stream)
	}
	return ack.Seq, nil
}

// meaning says what an answer that is not an acknowledgement means for the
// caller. What is not known for sure is ambiguous.
func meaning(e *apiError) error {
	switch e.ErrCode {
	case codeWrongLastSequence:
		return events.ErrConflict
	case codeTooLarge, codeOtherStream, codeAccountLimits, codeNoResources, codeMemoryResources, codeStorageResources:
		return events.ErrRefused
	case codeStoreFailed:
		// One code for a limit, which is checked before anything is written,
		// and for whatever else goes wrong in the store. Only the words tell
		// them apart.
		switch e.Description {
		case "maximum bytes exceeded", "maximum messages exceeded", "maximum messages per subject exceeded", "message too large":
			return events.ErrRefused
		}
	}
	// 10164 is here too: another append with the same expectation is under
	// way, perhaps our own of a moment ago, and nobody knows yet how it ends.
	return events.ErrAmbiguous
}
