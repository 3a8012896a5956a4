package eventstest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

// Conn is a connection to a ledger, as TestLog needs it.
type Conn interface {
	events.Log
	events.Pulses
}

// patience bounds every wait of the suite. It is no timing: it only ends a
// test that would hang.
const patience = 30 * time.Second

// TestLog checks the promises of events.Log, events.Reader and events.Pulses.
// open makes an empty ledger and returns a function that makes a further
// connection to it each time it is called. Ledger and connections must end
// with t.
func TestLog(t *testing.T, open func(t *testing.T) (connect func() Conn)) {
	cases := append([]testCase{
		{"conflict", testConflict},
		{"refused", testRefused},
		{"end of context for writers", testContextOfWriters},
		{"one winner", testOneWinner},
		{"pulses", testPulses},
		{"one pulse wins", testOnePulse},
		{"watch pulses", testWatchPulses},
	}, readerCases...)
	for _, c := range cases {
		c.run(t, func(t *testing.T) *suite {
			connect := open(t)
			log := connect()
			return &suite{connect: connect, log: log, reader: log, readers: func() events.Reader { return connect() }}
		})
	}
}

// TestReader checks the promises of events.Reader for one that is not an
// events.Log. open makes an empty ledger and returns a connection that writes to
// it, and a function that makes a further reader each time it is called.
func TestReader(t *testing.T, open func(t *testing.T) (log Conn, readers func() events.Reader)) {
	for _, c := range readerCases {
		c.run(t, func(t *testing.T) *suite {
			log, readers := open(t)
			return &suite{log: log, reader: readers(), readers: readers}
		})
	}
}

// readerCases are the promises of events.Reader.
var readerCases = []testCase{
	{"order", testOrder},
	{"sizes", testSizes},
	{"from any position", testFromAnyPosition},
	{"live tail", testLiveTail},
	{"rewind", testRewind},
	{"another chain", testAnotherChain},
	{"what fn returns", testCallbackError},
	{"end of context", testContext},
	{"head", testHead},
}

type testCase struct {
	name string
	test func(*suite)
}

func (c testCase) run(t *testing.T, open func(*testing.T) *suite) {
	t.Run(c.name, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		s := open(t)
		s.T, s.ctx = t, ctx
		c.test(s)
	})
}

// suite is one case's ledger.
type suite struct {
	*testing.T
	ctx     context.Context
	connect func() Conn          // a further connection; nil for cases of readers
	log     Conn                 // what writes
	reader  events.Reader        // what reads
	readers func() events.Reader // a further reader
}

// Drafts returns n drafts of account.created whose ids follow from first, for
// tests that need events and do not care which.
func Drafts(first, n int) []events.Draft {
	drafts := make([]events.Draft, n)
	for i := range drafts {
		id := ID(first + i)
		drafts[i] = events.Draft{
			Envelope: events.Envelope{
				ID:      id,
				Source:  "watchword/test",
				Subject: "account/" + id.String(),
				Time:    Epoch.Add(time.Duration(first+i) * time.Millisecond),
				Actor:   events.Actor{Kind: events.ActorSystem},
			},
			Data: &events.AccountCreated{Name: fmt.Sprintf("account %d", first+i)},
		}
	}
	return drafts
}

// ID returns an id that is made of n, for tests; never zero for n > 0.
func ID(n int) token.ID {
	var id token.ID
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	id[0] = 0x01
	return id
}

// compose makes the commit after at of n events.
func (s *suite) compose(at events.Position, n int) ([]byte, events.Commit) {
	s.Helper()
	payload, c, err := events.Compose(at, Drafts(int(at.Number)+1, n))
	if err != nil {
		s.Fatalf("compose: %v", err)
	}
	return payload, c
}

// append appends one commit for each size and returns the end.
func (s *suite) append(at events.Position, sizes ...int) events.Position {
	s.Helper()
	for _, n := range sizes {
		payload, c := s.compose(at, n)
		if err := s.log.Append(s.ctx, at, c.Subject, payload); err != nil {
			s.Fatalf("append after %d: %v", at.Seq, err)
		}
		at = c.End
	}
	return at
}

var errEnough = errors.New("enough")

// read reads from at up to and with sequence last, and returns a copy of every
// line and every commit's end.
func (s *suite) read(log events.Reader, at events.Position, last uint64) (lines []string, ends []events.Position) {
	s.Helper()
	if at.Seq == last {
		return nil, nil
	}
	err := log.Read(s.ctx, at, func(c events.Commit) error {
		for i := range c.Records {
			if c.Records[i].Seq != c.Seq {
				return fmt.Errorf("a record of sequence %d in commit %d", c.Records[i].Seq, c.Seq)
			}
			lines = append(lines, string(c.Records[i].Line))
		}
		ends = append(ends, c.End)
		if c.Seq == last && c.Pending != 0 {
			return fmt.Errorf("commit %d says that %d wait behind it", c.Seq, c.Pending)
		}
		if c.Seq >= last {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		s.Fatalf("read after %d up to %d: %v", at.Seq, last, err)
	}
	return lines, ends
}

func (s *suite) wantError(what string, err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// testOrder: what was appended is read, byte by byte, in order, by everybody.
func testOrder(s *suite) {
	var want []string
	at := events.Position{}
	for _, n := range []int{1, 3, 1, 64, 2} {
		payload, c := s.compose(at, n)
		if err := s.log.Append(s.ctx, at, c.Subject, payload); err != nil {
			s.Fatal(err)
		}
		want = append(want, strings.Split(string(payload), "\n")...)
		at = c.End
	}
	for _, log := range []events.Reader{s.reader, s.readers()} {
		lines, ends := s.read(log, events.Position{}, at.Seq)
		if strings.Join(lines, "\n") != strings.Join(want, "\n") {
			s.Error("other lines were read than appended")
		}
		if got := ends[len(ends)-1]; got != at {
			s.Errorf("the read ended at %+v, the appends at %+v", got, at)
		}
	}
}

// testSizes: a commit may have MaxCommit bytes and not one more.
func testSizes(s *suite) {
	line := func(name int) []events.Draft {
		d := Drafts(1, 2)
		d[0].Data = &events.AccountCreated{Name: strings.Repeat("x", events.MaxLine-1000)}
		d[1].Data = &events.AccountCreated{Name: strings.Repeat("x", name)}
		return d
	}
	payload, _, err := events.Compose(events.Position{}, line(1))
	if err != nil {
		s.Fatal(err)
	}
	fill := events.MaxCommit - len(payload) + 1
	exact, c, err := events.Compose(events.Position{}, line(fill))
	if err != nil || len(exact) != events.MaxCommit {
		s.Fatalf("a payload of %d bytes, want %d: %v", len(exact), events.MaxCommit, err)
	}
	s.wantError("one byte too many", s.log.Append(s.ctx, events.Position{}, c.Subject, append(exact, ' ')), events.ErrRefused)
	if err := s.log.Append(s.ctx, events.Position{}, c.Subject, exact); err != nil {
		s.Fatalf("the longest commit: %v", err)
	}
	s.read(s.reader, events.Position{}, 1)
}

// testConflict: only the commit after the last is taken.
func testConflict(s *suite) {
	at := s.append(events.Position{}, 1, 1)
	for _, wrong := range []uint64{0, 1, 3, 1000} {
		p := at
		p.Seq = wrong
		payload, c := s.compose(at, 1)
		s.wantError(fmt.Sprintf("append after %d", wrong), s.log.Append(s.ctx, p, c.Subject, payload), events.ErrConflict)
	}
	if head, err := s.log.Head(s.ctx); err != nil || head != 2 {
		s.Errorf("head %d, %v; want 2", head, err)
	}
	s.append(at, 1)
}

// testRefused: what is too large is refused, is not stored and does no harm.
func testRefused(s *suite) {
	at := s.append(events.Position{}, 1)
	err := s.log.Append(s.ctx, at, events.SubjectOf("account.created.v1"), make([]byte, events.MaxCommit+1))
	s.wantError("too large", err, events.ErrRefused)
	at = s.append(at, 1)
	s.read(s.log, events.Position{}, at.Seq)
}

// testFromAnyPosition: a read may begin behind any commit.
func testFromAnyPosition(s *suite) {
	end := s.append(events.Position{}, 2, 1, 5, 1, 1, 3)
	lines, ends := s.read(s.reader, events.Position{}, end.Seq)
	for i, from := range ends {
		got, _ := s.read(s.reader, from, end.Seq)
		if strings.Join(got, "\n") != strings.Join(lines[from.Number:], "\n") {
			s.Errorf("read from commit %d gave other lines than the read from the beginning", i+1)
		}
	}
}

// testLiveTail: a reader at the end gets what is appended later, by whomever.
func testLiveTail(s *suite) {
	at := s.append(events.Position{}, 1)
	seen := make(chan events.Position)
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan error, 1)
	reader := s.readers()
	go func() {
		done <- reader.Read(ctx, events.Position{}, func(c events.Commit) error {
			select {
			case seen <- c.End:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	for range 20 {
		if got := <-seen; got != at {
			s.Fatalf("the reader is at %+v, want %+v", got, at)
		}
		at = s.append(at, 2)
	}
	cancel()
	s.wantError("the end of the context", <-done, context.Canceled)
}

// testRewind: nobody reads on from a place that the ledger has not reached.
func testRewind(s *suite) {
	fail := func(events.Commit) error { return errors.New("called") }
	at := events.Position{Seq: 1, Number: 1, Epoch: 1}
	s.wantError("an empty ledger", s.reader.Read(s.ctx, at, fail), events.ErrRewind)
	at = s.append(events.Position{}, 1, 1, 1)
	at.Seq = 4
	s.wantError("a shorter ledger", s.reader.Read(s.ctx, at, fail), events.ErrRewind)
}

// testAnotherChain: nobody reads on from an event that is not there.
func testAnotherChain(s *suite) {
	fail := func(events.Commit) error { return errors.New("called") }
	end := s.append(events.Position{}, 1, 2, 1)
	_, ends := s.read(s.reader, events.Position{}, end.Seq)
	for _, at := range ends {
		at.Hash[3] ^= 1
		s.wantError(fmt.Sprintf("another hash at %d", at.Seq), s.reader.Read(s.ctx, at, fail), events.ErrChain)
	}
}

// testCallbackError: the reader stops at the first error and returns it.
func testCallbackError(s *suite) {
	s.append(events.Position{}, 1, 1, 1)
	calls := 0
	err := s.reader.Read(s.ctx, events.Position{}, func(c events.Commit) error {
		if calls++; calls == 2 {
			return fmt.Errorf("at %d: %w", c.Seq, errEnough)
		}
		return nil
	})
	s.wantError("read", err, errEnough)
	if calls != 2 {
		s.Errorf("called %d times, want 2", calls)
	}
}

// testContextOfWriters: whoever waits is freed by the end of the context.
func testContextOfWriters(s *suite) {
	ended, cancel := context.WithCancel(s.ctx)
	cancel()
	payload, c := s.compose(events.Position{}, 1)
	s.wantError("append", s.log.Append(ended, events.Position{}, c.Subject, payload), events.ErrAmbiguous)
	_, err := s.log.StorePulse(ended, 0, []byte("pulse"))
	s.wantError("store a pulse", err, events.ErrAmbiguous)
	s.wantError("watch", s.log.WatchPulses(ended, func([]byte, uint64) {}), context.Canceled)

	// The append may have been done: its successor tells where we are.
	head, err := s.log.Head(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	at := events.Position{}
	if head == 1 {
		at = c.End
	}
	s.append(at, 1)
}

// testContext: whoever reads is freed by the end of the context.
func testContext(s *suite) {
	ended, cancel := context.WithCancel(s.ctx)
	cancel()
	s.wantError("read", s.reader.Read(ended, events.Position{}, func(events.Commit) error { return nil }), context.Canceled)
	at := s.append(events.Position{}, 1, 1)
	waiting, cancel := context.WithCancel(s.ctx)
	err := s.reader.Read(waiting, events.Position{}, func(c events.Commit) error {
		if c.Seq == at.Seq {
			cancel()
		}
		return nil
	})
	cancel()
	s.wantError("read at the end", err, context.Canceled)
}

// testHead: the head is that of the last append, on every connection.
func testHead(s *suite) {
	other := s.readers()
	at := events.Position{}
	for want := range uint64(4) {
		for _, log := range []events.Reader{s.reader, other} {
			if head, err := log.Head(s.ctx); err != nil || head != want {
				s.Errorf("head %d, %v; want %d", head, err, want)
			}
		}
		at = s.append(at, 2)
	}
}

// testOneWinner: of those who append after the same commit exactly one is
// acknowledged, and what is read is what the winners wrote.
func testOneWinner(s *suite) {
	const pens, rounds = 4, 10
	conns := make([]Conn, pens)
	for i := range conns {
		conns[i] = s.connect()
	}
	at := events.Position{}
	for round := range rounds {
		errs := make([]error, pens)
		ends := make([]events.Position, pens)
		var all sync.WaitGroup
		for i, conn := range conns {
			drafts := Drafts((round*pens+i)*10+1, i+1)
			all.Go(func() {
				payload, c, err := events.Compose(at, drafts)
				if err != nil {
					errs[i] = err
					return
				}
				ends[i], errs[i] = c.End, conn.Append(s.ctx, at, c.Subject, payload)
			})
		}
		all.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				s.Fatalf("round %d: two winners", round)
			case err == nil:
				winner = i
			case !errors.Is(err, events.ErrConflict):
				s.Fatalf("round %d: %v, want a conflict", round, err)
			}
		}
		if winner < 0 {
			s.Fatalf("round %d: no winner", round)
		}
		at = ends[winner]
	}
	_, ends := s.read(s.log, events.Position{}, at.Seq)
	if got := ends[len(ends)-1]; got != at {
		s.Errorf("the ledger ends at %+v, the last winner at %+v", got, at)
	}
}

// testPulses: a pulse is stored after its predecessor only, and the newest is found.
func testPulses(s *suite) {
	if pulse, seq, err := s.log.LastPulse(s.ctx); err != nil || pulse != nil || seq != 0 {
		s.Fatalf("the last of no pulses: %q, %d, %v", pulse, seq, err)
	}
	var last uint64
	for i := range 30 {
		text := fmt.Appendf(nil, "pulse %d", i)
		seq, err := s.log.StorePulse(s.ctx, last, text)
		if err != nil || seq <= last {
			s.Fatalf("store after %d: %d, %v", last, seq, err)
		}
		_, err = s.log.StorePulse(s.ctx, last, []byte("too late"))
		s.wantError("store after the predecessor again", err, events.ErrConflict)
		last = seq
		if pulse, seq, err := s.log.LastPulse(s.ctx); err != nil || string(pulse) != string(text) || seq != last {
			s.Fatalf("the last pulse: %q, %d, %v; want %q, %d", pulse, seq, err, text, last)
		}
	}
}

// testOnePulse: of those who beat after the same pulse exactly one is heard.
func testOnePulse(s *suite) {
	const pens = 4
	var last uint64
	for round := range 10 {
		errs := make([]error, pens)
		seqs := make([]uint64, pens)
		var all sync.WaitGroup
		for i := range pens {
			conn := s.connect()
			all.Go(func() { seqs[i], errs[i] = conn.StorePulse(s.ctx, last, fmt.Appendf(nil, "%d", i)) })
		}
		all.Wait()
		won := 0
		for i, err := range errs {
			if err == nil {
				won++
				last = seqs[i]
			} else if !errors.Is(err, events.ErrConflict) {
				s.Errorf("round %d: %v, want a conflict", round, err)
			}
		}
		if won != 1 {
			s.Fatalf("round %d: %d winners", round, won)
		}
	}
}

// testWatchPulses: a watcher hears the newest pulse and then each later one,
// in order.
func testWatchPulses(s *suite) {
	var last uint64
	store := func(i int) {
		seq, err := s.log.StorePulse(s.ctx, last, fmt.Appendf(nil, "%d", i))
		if err != nil {
			s.Fatal(err)
		}
		last = seq
	}
	store(0)
	store(1)
	ctx, cancel := context.WithCancel(s.ctx)
	type heard struct {
		text string
		seq  uint64
	}
	hear := make(chan heard, 100)
	done := make(chan error, 1)
	watcher := s.connect()
	go func() {
		done <- watcher.WatchPulses(ctx, func(pulse []byte, seq uint64) { hear <- heard{string(pulse), seq} })
	}()
	for i := 1; i < 20; i++ {
		select {
		case got := <-hear:
			if want := (heard{fmt.Sprint(i), last}); got != want {
				s.Fatalf("heard %+v, want %+v", got, want)
			}
		case <-s.ctx.Done():
			s.Fatalf("pulse %d was not heard", i)
		}
		store(i + 1)
	}
	cancel()
	s.wantError("watch", <-done, context.Canceled)
}
