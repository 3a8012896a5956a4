package events

import (
	"bytes"
	"fmt"
	"time"

	"watchword.dev/events/token"
)

// Decode reads one line of the Standard catalogue into r, strictly: it takes
// exactly what Encode writes. The line is kept in r, not copied.
func Decode(line []byte, r *Record) error { return Standard.Decode(line, r) }

// Decode reads one line into r as the package function does, with the types of
// this catalogue.
func (c *Catalogue) Decode(line []byte, r *Record) error {
	if len(line) > MaxLine {
		return fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxLine)
	}
	s := scanner{rest: line}
	s.envelope(r)
	if s.err != nil {
		return s.err
	}
	data := s.rest
	if len(data) < 3 || data[len(data)-1] != '}' {
		return fmt.Errorf("%w: not closed", ErrMalformed)
	}
	data = data[:len(data)-1]
	ev, err := c.DecodeData(r.Name, data)
	if err != nil {
		return err
	}
	r.Data, r.Line, r.Hash = ev, line, HashLine(line)
	return nil
}

// scanner walks over a line's envelope. The first error stays.
type scanner struct {
	rest []byte
	err  error
}

func (s *scanner) envelope(r *Record) {
	s.expect(openID)
	id := s.take(26)
	s.expect(openSource)
	source := s.text()
	s.expect(openType)
	name := s.text()
	s.expect(openSubject)
	subject := s.text()
	s.expect(openTime)
	at := s.take(len(TimeFormat))
	s.expect(openSchema)
	schema := s.text()
	s.expect(openNumber)
	number := s.uint()
	s.expect(openEpoch)
	epoch := s.uint()
	s.expect(openPrev)
	prev := s.take(2 * len(r.Prev))
	r.Account = s.optionalID(openAccount)
	r.Actor.ID = s.optionalID(openActorID)
	s.expect(openActorKind)
	kind := s.text()
	r.Actor.Credential = s.optionalID(openCredID)
	r.RequestID = s.optionalText(openRequestID)
	r.Traceparent = s.optionalText(openTraceparent)
	s.expect(openData)
	if s.err != nil {
		return
	}
	if !bytes.Equal(schema, name) || len(name) == 0 || len(source) == 0 || len(subject) == 0 || len(kind) == 0 ||
		number == 0 || number > maxNumber || epoch == 0 || epoch > 1<<31-1 {
		s.fail("an attribute that must not be empty is, or two do not agree")
		return
	}
	var err error
	if r.ID, err = token.ParseULID(string(id)); err != nil {
		s.fail("id")
		return
	}
	if r.Time, err = parseTime(at); err != nil {
		s.fail("time")
		return
	}
	if !readHex(r.Prev[:], prev) {
		s.fail("prev")
		return
	}
	if string(source) != r.Source { // a reused record is mostly of the same source
		r.Source = string(source)
	}
	r.Name, r.Subject = intern(name), string(subject)
	r.Actor.Kind = ActorKind(intern(kind))
	r.Number, r.Epoch = number, uint32(epoch)
}

func (s *scanner) fail(what string) {
	if s.err == nil {
		s.err = fmt.Errorf("%w: %s", ErrMalformed, what)
	}
}

func (s *scanner) expect(literal string) {
	if s.err != nil {
		return
	}
	if len(s.rest) < len(literal) || string(s.rest[:len(literal)]) != literal {
		s.fail("expected " + literal)
		return
	}
	s.rest = s.rest[len(literal):]
}

func (s *scanner) take(n int) []byte {
	if s.err != nil {
		return nil
	}
	if len(s.rest) < n {
		s.fail("too short")
		return nil
	}
	v := s.rest[:n]
	s.rest = s.rest[n:]
	return v
}

// text takes the bytes up to the next quote, which it leaves.
func (s *scanner) text() []byte {
	if s.err != nil {
		return nil
	}
	for i, c := range s.rest {
		if c == '"' {
			v := s.rest[:i]
			s.rest = s.rest[i:]
			return v
		}
		if c < 0x20 || c > 0x7e || c == '\\' || i >= MaxText {
			break
		}
	}
	s.fail("text")
	return nil
}

func (s *scanner) uint() uint64 {
	var n uint64
	i := 0
	for ; i < len(s.rest) && i < 19 && s.rest[i] >= '0' && s.rest[i] <= '9'; i++ {
		n = n*10 + uint64(s.rest[i]-'0')
	}
	if s.err == nil && (i == 0 || (s.rest[0] == '0' && i > 1)) {
		s.fail("number")
	}
	if s.err != nil {
		return 0
	}
	s.rest = s.rest[i:]
	return n
}

func (s *scanner) has(literal string) bool {
	return s.err == nil && len(s.rest) >= len(literal) && string(s.rest[:len(literal)]) == literal
}

func (s *scanner) optionalID(open string) token.ID {
	if !s.has(open) {
		return token.ID{}
	}
	s.rest = s.rest[len(open):]
	id, err := token.ParseID(string(s.take(32)))
	if err != nil || id.IsZero() {
		s.fail("id")
	}
	return id
}

func (s *scanner) optionalText(open string) string {
	if !s.has(open) {
		return ""
	}
	s.rest = s.rest[len(open):]
	v := s.text()
	if len(v) == 0 {
		s.fail("an empty attribute that could have been left out")
	}
	return string(v)
}

// parseTime reads TimeFormat. It is written out because it stands on the path
// of every replay; time.Parse takes several times as long.
func parseTime(b []byte) (time.Time, error) {
	const shape = "dddd-dd-ddTdd:dd:dd.dddZ"
	var v [7]int
	field, start := 0, true
	for i := range len(shape) {
		c := b[i]
		if shape[i] != 'd' {
			if c != shape[i] {
				return time.Time{}, ErrMalformed
			}
			start = true
			field++
			continue
		}
		if c < '0' || c > '9' {
			return time.Time{}, ErrMalformed
		}
		if start {
			v[field], start = 0, false
		}
		v[field] = v[field]*10 + int(c-'0')
	}
	year, month, day := v[0], v[1], v[2]
	// Every month has 28 days; for more the calendar is asked.
	if year < 1970 || month < 1 || month > 12 || day < 1 || day > 28 && day > daysIn(year, month) || v[3] > 23 || v[4] > 59 || v[5] > 59 {
		return time.Time{}, ErrMalformed
	}
	return time.Date(year, time.Month(month), day, v[3], v[4], v[5], v[6]*int(time.Millisecond), time.UTC), nil
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month+1), 0, 0, 0, 0, 0, time.UTC).Day()
}

// checkDepth refuses data that nests deeper than MaxDepth, before the JSON
// decoder recurses into it.
func checkDepth(b []byte) error {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		c := b[i]
		if inString {
			switch c {
			case '\\':
				i++
			case '"':
				inString = false
			}
			continue
		}
		switch c {
		case '"':
			inString = true
		case '{', '[':
			if depth++; depth > MaxDepth {
				return fmt.Errorf("%w: nested deeper than %d", ErrMalformed, MaxDepth)
			}
		case '}', ']':
			depth--
		case '\n', '\r':
			return fmt.Errorf("%w: a line break inside", ErrMalformed)
		}
	}
	return nil
}

// intern returns b as a string without a new allocation when it is one of the
// few values that most events carry.
func intern(b []byte) string {
	if e, ok := Standard.entries[string(b)]; ok {
		return e.name
	}
	switch string(b) {
	case string(ActorUser):
		return string(ActorUser)
	case string(ActorAccount):
		return string(ActorAccount)
	case string(ActorSystem):
		return string(ActorSystem)
	}
	return string(b)
}
