// Package test runs the ledger on real nats-servers.
package test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"watchword.dev/events/eventstest"
	"watchword.dev/events/stream"
	"watchword.dev/events/test/natstest"
)

// unhurried is for tests in which no answer gets lost: on a busy machine an
// fsync may take long.
var unhurried = stream.Config{AppendTimeout: 20 * time.Second, RequestTimeout: 20 * time.Second}

// open returns a further connection to the ledger of c.
func open(t *testing.T, c *natstest.Cluster, cfg stream.Config, opts ...nats.Option) *stream.Log {
	t.Helper()
	l, err := stream.Open(t.Context(), c.Connect(opts...), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLogR1(t *testing.T) {
	eventstest.TestLog(t, func(t *testing.T) func() eventstest.Conn {
		c := natstest.Start(t, 1)
		c.CreateStreams()
		return func() eventstest.Conn { return open(t, c, unhurried) }
	})
}

func TestLogInProcess(t *testing.T) {
	eventstest.TestLog(t, func(t *testing.T) func() eventstest.Conn {
		c := natstest.Start(t, 1)
		c.CreateStreams()
		return func() eventstest.Conn { return open(t, c, unhurried, nats.InProcessServer(c.Servers()[0])) }
	})
}

// TestLogR3 uses one cluster for all cases: to form one takes longer than to
// run the case. Each case has its own streams.
func TestLogR3(t *testing.T) {
	c := natstest.Start(t, 3)
	eventstest.TestLog(t, func(t *testing.T) func() eventstest.Conn {
		c.CreateStreams()
		t.Cleanup(func() { c.DeleteStreams() })
		return func() eventstest.Conn { return open(t, c, unhurried) }
	})
}
