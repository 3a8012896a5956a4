package test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/stream"
	"watchword.dev/events/test/natstest"
	"watchword.dev/events/token"
)

// commitOnce appends the drafts after at, as a pen does: after every answer
// that is not clear it reads the tail, and looks there for its own event before
// it tries again. It returns the new end and how many answers were not clear.
func commitOnce(t *testing.T, l *stream.Log, at events.Position, drafts []events.Draft) (events.Position, int) {
	t.Helper()
	unclear := 0
	for {
		payload, c, err := events.Compose(at, slices.Clone(drafts))
		if err != nil {
			t.Fatal(err)
		}
		switch err = l.Append(t.Context(), at, c.Subject, payload); {
		case err == nil:
			return c.End, unclear
		case !errors.Is(err, events.ErrAmbiguous) && !errors.Is(err, events.ErrConflict):
			t.Fatal(err)
		}
		unclear++
		landed := false
		if at, landed = readTail(t, l, at, drafts[0].ID); landed {
			return at, unclear
		}
	}
}

// readTail reads from at to the head and says whether the event is there.
func readTail(t *testing.T, l *stream.Log, at events.Position, id token.ID) (end events.Position, landed bool) {
	t.Helper()
	var head uint64
	for {
		var err error
		if head, err = l.Head(t.Context()); err == nil {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
	if head <= at.Seq {
		return at, false
	}
	enough := errors.New("enough")
	err := l.Read(t.Context(), at, func(c events.Commit) error {
		for i := range c.Records {
			landed = landed || c.Records[i].ID == id
		}
		if end = c.End; c.Seq >= head {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	return end, landed
}

// TestStepDown makes the leader of the stream step down again and again while
// one pen appends and a reader follows. Every event must be there once.
func TestStepDown(t *testing.T) {
	c := natstest.Start(t, 3)
	c.CreateStreams()
	cfg := stream.Config{AppendTimeout: 500 * time.Millisecond, RequestTimeout: 2 * time.Second, IdleCheck: 500 * time.Millisecond}
	pen, follower := open(t, c, cfg), open(t, c, cfg)

	const commits, each, every = 200, 3, 20
	ctx, cancel := context.WithTimeout(t.Context(), natstest.Patience)
	defer cancel()
	seen := map[token.ID]int{}
	var last events.Position
	done := make(chan error, 1)
	enough := errors.New("enough")
	go func() {
		done <- follower.Read(ctx, events.Position{}, func(c events.Commit) error {
			for i := range c.Records {
				seen[c.Records[i].ID]++
			}
			if last = c.End; last.Number == commits*each {
				return enough
			}
			return nil
		})
	}()

	operator := c.Connect()
	at, unclear := events.Position{}, 0
	for i := range commits {
		if i%every == every/2 {
			stepDown(t, operator)
		}
		end, n := commitOnce(t, pen, at, eventstest.Drafts(i*each+1, each))
		at, unclear = end, unclear+n
	}
	if err := <-done; !errors.Is(err, enough) {
		t.Fatalf("follower: %v", err)
	}
	if last != at || at.Number != commits*each || at.Seq != commits {
		t.Errorf("the follower ends at %+v, the pen at %+v", last, at)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%v is there %d times", id, n)
		}
	}
	if len(seen) != commits*each {
		t.Errorf("%d events, want %d", len(seen), commits*each)
	}
	if err := stream.AssertReplicas(ctx, c.System()); err != nil {
		t.Error(err)
	}
	t.Logf("%d answers were not clear", unclear)
}

// stepDown asks the leader to step down. No answer is no matter: another pen
// may have done so.
func stepDown(t *testing.T, nc *nats.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+stream.EventsStream, nil)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

// TestLeaderDies stops the server of the stream's leader while a pen appends,
// and starts it again.
func TestLeaderDies(t *testing.T) {
	c := natstest.Start(t, 3)
	c.CreateStreams()
	cfg := stream.Config{AppendTimeout: 500 * time.Millisecond, RequestTimeout: time.Second, IdleCheck: 500 * time.Millisecond}
	pen := open(t, c, cfg)
	at := events.Position{}
	for i := range 20 {
		at, _ = commitOnce(t, pen, at, eventstest.Drafts(i+1, 1))
	}
	s, err := jetStream(t, c).Stream(t.Context(), stream.EventsStream)
	if err != nil {
		t.Fatal(err)
	}
	leader := s.CachedInfo().Cluster.Leader
	i := slices.IndexFunc(c.Servers(), func(s *server.Server) bool { return s.Name() == leader })
	unclear := 0
	c.Restart(i, func(string) {
		for j := range 20 {
			end, n := commitOnce(t, pen, at, eventstest.Drafts(21+j, 1))
			at, unclear = end, unclear+n
		}
	})
	if got := readAll(t, open(t, c, unhurried), 40); got[39] != at || at.Number != 40 {
		t.Errorf("the ledger ends at %+v, the pen at %+v", got[39], at)
	}
	t.Logf("%d answers were not clear", unclear)
}
