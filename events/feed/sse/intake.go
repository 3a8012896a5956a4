package sse

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
)

// event is one server-sent event.
type event struct {
	name, id string
	data     []byte
}

// place returns the data of a position.
func (e event) place() (Place, error) {
	var p Place
	if e.name != EventPosition {
		return p, lost("the answer begins with %q", e.name)
	}
	if err := json.Unmarshal(e.data, &p); err != nil {
		return p, lost("where the answer begins: %w", err)
	}
	return p, nil
}

// intake receives an answer while what came before is taken.
type intake struct {
	f      *follower
	ctx    context.Context
	body   *timed
	events chan event
	err    error // why it has ended; set before events is closed
}

func (in *intake) receive() {
	defer close(in.events)
	s := newScanner(in.body)
	begun := false
	for {
		e, err := s.next()
		if err != nil {
			in.err = lost("the answer has ended: %w", err)
			return
		}
		switch {
		case e.name == EventPulse && begun:
			in.f.listener.Hear(e.data, in.body.arrived())
			if in.f.water.Diverged() != nil {
				return
			}
			continue
		case begun == (e.name == EventPosition):
			in.err = lost("an event %q where none may be", e.name)
			return
		}
		begun = true
		select {
		case in.events <- e:
			continue
		default:
			in.body.late()
		}
		select {
		case in.events <- e:
		case <-in.ctx.Done():
			in.err = lost("%w", in.ctx.Err())
			return
		}
	}
}

// timed knows when the bytes that it reads have arrived at the latest. While
// the reader was held up they have waited in the network since nobody knows
// when; then that counts from when it was held up, until a read has to wait
// again.
type timed struct {
	r     io.Reader
	heard func() // called after every read
	since time.Time
}

// waited is how long a read takes that found nothing there.
const waited = time.Millisecond

func (t *timed) Read(b []byte) (int, error) {
	began := time.Now()
	n, err := t.r.Read(b)
	if time.Since(began) >= waited {
		t.since = time.Time{}
	}
	t.heard()
	return n, err
}

// late says that nothing is read for now.
func (t *timed) late() {
	if t.since.IsZero() {
		t.since = time.Now()
	}
}

func (t *timed) arrived() time.Time {
	if !t.since.IsZero() {
		return t.since
	}
	return time.Now()
}

// scanner reads server-sent events, as the HTML standard describes them, as far
// as the node writes them: a field is followed by ": ", lines end with "\n".
type scanner struct{ r *bufio.Reader }

func newScanner(r io.Reader) *scanner { return &scanner{bufio.NewReaderSize(r, 32<<10)} }

var errTooLong = errors.New("a longer event than a commit may be")

// next returns the next event that has data.
func (s *scanner) next() (event, error) {
	var e event
	lines := 0
	for {
		line, err := s.line()
		if err != nil {
			return e, err
		}
		if len(line) == 0 {
			if lines > 0 {
				return e, nil
			}
			e = event{}
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(": "))
		switch string(field) {
		case "event":
			e.name = string(value)
		case "id":
			e.id = string(value)
		case "data":
			if lines++; lines > 1 {
				e.data = append(e.data, '\n')
			}
			if len(e.data)+len(value) > events.MaxCommit {
				return e, errTooLong
			}
			e.data = append(e.data, value...)
		}
	}
}

// line returns a line without its end. It is valid until the next call.
func (s *scanner) line() ([]byte, error) {
	line, err := s.r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return bytes.TrimSuffix(line, []byte("\n")), err
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = s.r.ReadSlice('\n')
		if long = append(long, line...); len(long) > events.MaxCommit+64 {
			return nil, errTooLong
		}
	}
	return bytes.TrimSuffix(long, []byte("\n")), err
}
