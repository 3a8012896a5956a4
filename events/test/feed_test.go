package test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/feed"
	"watchword.dev/events/test/natstest"
)

// eager is for tests in which the feed must notice something by itself.
var eager = feed.Config{RequestTimeout: 2 * time.Second, IdleCheck: 200 * time.Millisecond, RewindPatience: 50 * time.Millisecond}

// calm is for tests in which only a live message or a pulse may wake the feed.
var calm = feed.Config{RequestTimeout: 20 * time.Second, IdleCheck: time.Hour, RewindPatience: 50 * time.Millisecond}

func TestFeedR1(t *testing.T) {
	eventstest.TestReader(t, func(t *testing.T) (eventstest.Conn, func() events.Reader) {
		c := natstest.Start(t, 1)
		c.CreateStreams()
		return open(t, c, unhurried), func() events.Reader { return feed.New(c.Connect(), calm) }
	})
}

// TestFeedR3 uses one cluster for all cases, as TestLogR3 does: what the pen writes
// through one server is heard and read through any.
func TestFeedR3(t *testing.T) {
	c := natstest.Start(t, 3)
	eventstest.TestReader(t, func(t *testing.T) (eventstest.Conn, func() events.Reader) {
		c.CreateStreams()
		t.Cleanup(func() { c.DeleteStreams() })
		return open(t, c, unhurried), func() events.Reader { return feed.New(c.Connect(), calm) }
	})
}

func TestFeedInProcess(t *testing.T) {
	eventstest.TestReader(t, func(t *testing.T) (eventstest.Conn, func() events.Reader) {
		c := natstest.Start(t, 1)
		c.CreateStreams()
		return open(t, c, unhurried), func() events.Reader {
			return feed.New(c.Connect(nats.InProcessServer(c.Servers()[0])), calm)
		}
	})
}
