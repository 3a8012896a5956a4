package sse

import (
	"errors"
	"strconv"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
)

// Path is where a node serves the feed.
const Path = "/v1/feed"

// ContentType is that of the feed.
const ContentType = "text/event-stream"

// The names of the events that are no commits. A commit has none, so that it is
// a "message" to browsers.
const (
	EventPosition = "position"
	EventPulse    = "pulse"
)

// After says in a query where to begin, as an ID, a bare sequence, or Newest;
// without it, and without a Last-Event-ID, it is Newest. Follow=false ends the
// feed when all that there is has been sent.
const (
	After  = "after"
	Follow = "follow"
	Newest = "head"
)

// Place is the data of the first event of every answer: where in the ledger it
// begins, and what a reader compares with what it has read.
type Place struct {
	Epoch    uint32    `json:"epoch"`
	Sequence uint64    `json:"sequence"`
	Number   uint64    `json:"number"`
	Chain    string    `json:"chain"` // hash of event Number's line, hex
	Time     time.Time `json:"time,omitzero"`
	// Head is the sequence of the last commit when the answer began.
	Head uint64 `json:"head"`
	// PulseKey is the key of the pulses, as it stands in log.opened.
	PulseKey []byte `json:"pulse_key,omitzero"`
}

// PlaceOf returns the place of a position.
func PlaceOf(at events.Position, head uint64, pulseKey []byte) Place {
	return Place{
		Epoch: at.Epoch, Sequence: at.Seq, Number: at.Number, Chain: at.Hash.String(), Time: at.Time, Head: head, PulseKey: pulseKey,
	}
}

// FormatID returns the id of the event that ends at a position.
func FormatID(at events.Position) string {
	return strconv.FormatUint(uint64(at.Epoch), 10) + "-" + strconv.FormatUint(at.Seq, 10)
}

// ErrID says that a text is no id of an event.
var ErrID = errors.New("sse: not the id of an event")

// ParseID reads what FormatID writes, or a bare sequence, whose epoch is zero.
func ParseID(s string) (epoch uint32, seq uint64, err error) {
	first, last, both := strings.Cut(s, "-")
	if !both {
		first, last = "0", first
	}
	e, eerr := strconv.ParseUint(first, 10, 31)
	seq, serr := strconv.ParseUint(last, 10, 63)
	if eerr != nil || serr != nil || both && e == 0 && seq > 0 {
		return 0, 0, ErrID
	}
	return uint32(e), seq, nil
}

// AppendCommit appends the event of a commit: its lines as they are stored.
func AppendCommit(b []byte, c *events.Commit) []byte {
	b = append(b, "id: "...)
	b = append(b, FormatID(c.End)...)
	for i := range c.Records {
		b = append(append(b, "\ndata: "...), c.Records[i].Line...)
	}
	return append(b, "\n\n"...)
}

// AppendPulse appends the event of a pulse as stored.
func AppendPulse(b, pulse []byte) []byte { return appendNamed(b, EventPulse, pulse) }

// AppendPlace appends the event that begins an answer.
func AppendPlace(b []byte, p Place) ([]byte, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return b, err
	}
	return appendNamed(b, EventPosition, data), nil
}

func appendNamed(b []byte, name string, data []byte) []byte {
	b = append(append(append(b, "event: "...), name...), "\ndata: "...)
	return append(append(b, data...), "\n\n"...)
}
