package events

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrGap says that a commit or an event is missing between two that are there.
	ErrGap = errors.New("events: gap in the ledger")
	// ErrRewind says that the ledger ends before a position that was read
	// from it: it has lost its tail or is another one.
	ErrRewind = errors.New("events: the ledger is shorter than what was read from it")
	// ErrChain says that an event does not follow from the one before it.
	ErrChain = errors.New("events: the chain is broken")
	// ErrEpoch says that an event is of an epoch that was never opened.
	ErrEpoch = errors.New("events: unknown epoch")
)

// Position is a place between two commits: the last of what was read or
// appended. The zero Position is the beginning.
type Position struct {
	Seq    uint64    // sequence of the last commit
	Number uint64    // number of its last event
	Epoch  uint32    // epoch of that event
	Hash   Hash      // of that event's line
	Time   time.Time // of that event
}

const positionSize = 8 + 8 + 4 + 8 + len(Hash{})

// AppendBinary appends the position in its stored form.
func (p Position) AppendBinary(b []byte) ([]byte, error) {
	b = binary.BigEndian.AppendUint64(b, p.Seq)
	b = binary.BigEndian.AppendUint64(b, p.Number)
	b = binary.BigEndian.AppendUint32(b, p.Epoch)
	ms := int64(0)
	if !p.Time.IsZero() {
		ms = p.Time.UnixMilli()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(ms))
	return append(b, p.Hash[:]...), nil
}

// UnmarshalBinary reads what AppendBinary wrote.
func (p *Position) UnmarshalBinary(b []byte) error {
	if len(b) != positionSize {
		return fmt.Errorf("events: a stored position is %d bytes long, want %d", len(b), positionSize)
	}
	p.Seq = binary.BigEndian.Uint64(b)
	p.Number = binary.BigEndian.Uint64(b[8:])
	p.Epoch = binary.BigEndian.Uint32(b[16:])
	p.Time = time.Time{}
	if ms := int64(binary.BigEndian.Uint64(b[20:])); ms != 0 {
		p.Time = time.UnixMilli(ms).UTC()
	}
	copy(p.Hash[:], b[28:])
	return nil
}

// Ends says whether the payload of the commit at p.Seq ends with the event at
// which p stands. A reader asks before it goes on from a position that it has
// kept: the ledger may have been replaced meanwhile.
func (p Position) Ends(payload []byte) bool {
	return HashLine(payload[bytes.LastIndexByte(payload, '\n')+1:]) == p.Hash
}

// MaxCommit is how many bytes the payload of one commit may have. With its
// subject and headers it stays below the 1 MiB that a NATS server takes as one
// message by default.
const MaxCommit = 960 << 10

// Commit is one message of the stream.
type Commit struct {
	Seq     uint64
	Subject string
	Records []Record // at least one; valid until the callback that got it returns
	End     Position // the position after it
	// Pending is how many commits the log held behind this one when it was
	// delivered. A reader that gathers batches writes them out at zero.
	Pending uint64
}

// DecodeCommit decodes a message of the stream with the Standard catalogue and
// checks that it follows at. dst is reused for the records.
func DecodeCommit(at Position, seq uint64, subject string, payload []byte, dst []Record) (Commit, error) {
	return Standard.DecodeCommit(at, seq, subject, payload, dst)
}

// DecodePayload is DecodeCommit for a payload that has come without its
// subject, which follows from the name of its first event.
func DecodePayload(at Position, seq uint64, payload []byte, dst []Record) (Commit, error) {
	return Standard.decode(at, seq, "", payload, dst)
}

// DecodeCommit is the package function with the types of this catalogue.
func (c *Catalogue) DecodeCommit(at Position, seq uint64, subject string, payload []byte, dst []Record) (Commit, error) {
	if subject == "" {
		return Commit{}, fmt.Errorf("sequence %d: %w: no subject", seq, ErrMalformed)
	}
	return c.decode(at, seq, subject, payload, dst)
}

// decode takes an empty subject for that of the first event.
func (c *Catalogue) decode(at Position, seq uint64, subject string, payload []byte, dst []Record) (Commit, error) {
	if seq != at.Seq+1 {
		return Commit{}, fmt.Errorf("%w: after sequence %d came %d", ErrGap, at.Seq, seq)
	}
	out := Commit{Seq: seq, Subject: subject, Records: dst[:0], End: at}
	out.End.Seq = seq
	for len(payload) > 0 || len(out.Records) == 0 {
		line := payload
		if i := bytes.IndexByte(payload, '\n'); i >= 0 {
			line, payload = payload[:i], payload[i+1:]
			if len(payload) == 0 {
				return Commit{}, fmt.Errorf("sequence %d: %w: a newline at the end", seq, ErrMalformed)
			}
		} else {
			payload = nil
		}
		out.Records = append(out.Records, Record{})
		r := &out.Records[len(out.Records)-1]
		if err := c.Decode(line, r); err != nil {
			return Commit{}, fmt.Errorf("sequence %d, event %d: %w", seq, out.End.Number+1, err)
		}
		r.Seq = seq
		if out.Subject == "" {
			out.Subject = SubjectOf(r.Name)
		}
		if !subjectFits(out.Subject, r.Name) {
			return Commit{}, fmt.Errorf("sequence %d: %w: a %s on subject %q", seq, ErrMalformed, r.Name, out.Subject)
		}
		if err := out.End.advance(r); err != nil {
			return Commit{}, fmt.Errorf("sequence %d: %w", seq, err)
		}
	}
	return out, nil
}

// subjectFits says whether events with this name belong on subject. Only the
// version may stand behind it.
func subjectFits(subject, name string) bool {
	if len(subject) <= len(SubjectPrefix) || subject[:len(SubjectPrefix)] != SubjectPrefix {
		return false
	}
	short := subject[len(SubjectPrefix):]
	return len(name) > len(short)+2 && name[:len(short)] == short && name[len(short):len(short)+2] == ".v"
}

// advance moves the position over r, or says why r cannot come next.
func (p *Position) advance(r *Record) error {
	switch {
	case r.Number != p.Number+1:
		return fmt.Errorf("%w: after event %d came %d", ErrGap, p.Number, r.Number)
	case r.Prev != p.Hash:
		return fmt.Errorf("%w: event %d says its predecessor is %v, but it is %v", ErrChain, r.Number, r.Prev, p.Hash)
	case r.Time.Before(p.Time):
		return fmt.Errorf("%w: event %d is older than the one before it", ErrChain, r.Number)
	}
	if r.Epoch != p.Epoch {
		_, opens := r.Data.(*EpochOpened)
		first := p.Number == 0 && r.Epoch == 1
		if !first && (!opens || r.Epoch != p.Epoch+1) {
			return fmt.Errorf("%w: event %d is of epoch %d, the ledger is in %d", ErrEpoch, r.Number, r.Epoch, p.Epoch)
		}
	}
	p.Number, p.Epoch, p.Hash, p.Time = r.Number, r.Epoch, r.Hash, r.Time
	return nil
}

// Draft is an event that has no place in the ledger yet.
type Draft struct {
	Envelope
	Data Event
}

// Compose gives the drafts their places after at and returns the message to
// append: its subject, its payload, and the commit as any reader will see it.
// All drafts must have one subject. It decodes what it has encoded with the
// readers' own decoder, so that nothing can be appended that stops a reader.
func Compose(at Position, drafts []Draft) (payload []byte, c Commit, err error) {
	if len(drafts) == 0 {
		return nil, Commit{}, errors.New("events: nothing to compose")
	}
	place := at
	if place.Epoch == 0 {
		place.Epoch = 1
	}
	subject := SubjectOf(drafts[0].Data.EventName())
	for i := range drafts {
		d := &drafts[i]
		d.Name = d.Data.EventName()
		if _, opens := d.Data.(*EpochOpened); opens {
			place.Epoch++
		}
		place.Number++
		d.Number, d.Epoch, d.Prev = place.Number, place.Epoch, place.Hash
		if d.Time = d.Time.UTC().Truncate(time.Millisecond); d.Time.Before(place.Time) {
			d.Time = place.Time
		}
		line, err := Encode(&d.Envelope, d.Data)
		if err != nil {
			return nil, Commit{}, err
		}
		if i > 0 {
			payload = append(payload, '\n')
		}
		payload = append(payload, line...)
		place.Hash, place.Time = HashLine(line), d.Time
	}
	c, err = DecodeCommit(at, at.Seq+1, subject, payload, make([]Record, 0, len(drafts)))
	return payload, c, err
}
