package test

import (
	"errors"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/stream"
	"watchword.dev/events/test/natstest"
	"watchword.dev/events/token"
)

// replayEvents is how many commits of one event the replay benchmarks read.
const replayEvents = 100_000

// fill stores n commits of one token.created each, without waiting for the
// disk, and returns the server.
func fill(b *testing.B, n int) *natstest.Cluster {
	b.Helper()
	c := natstest.Start(b, 1, func(o *server.Options) { o.SyncAlways = false })
	c.CreateStream(stream.EventsConfig(1, 1<<30))
	js, err := jetstream.New(c.Connect(nats.ReconnectBufSize(0)), jetstream.WithPublishAsyncMaxPending(2000))
	if err != nil {
		b.Fatal(err)
	}
	grant := token.Grant{Policies: []token.Policy{
		{ID: eventstest.ID(7), Effect: token.EffectAllow, Groups: []token.GroupRef{{ID: "4755a26eedb94da69e1066d98aa820be"}},
			Resources: jsontext.Value(`{"com.cloudflare.api.account.zone.023e105f4ecef8ad9ca31a8372d0c353":"*"}`)},
	}}
	at := events.Position{}
	for i := range n {
		drafts := eventstest.Drafts(i+1, 1)
		drafts[0].Data = &events.TokenCreated{Name: "token " + strconv.Itoa(i), OwnerKind: events.OwnedByUser, Owner: eventstest.ID(4), Secret: token.Sum(strconv.Itoa(i)), Grant: grant}
		payload, commit, err := events.Compose(at, drafts)
		if err != nil {
			b.Fatal(err)
		}
		m := &nats.Msg{Subject: commit.Subject, Data: payload, Header: nats.Header{"Nats-Expected-Last-Sequence": {strconv.FormatUint(at.Seq, 10)}}}
		if _, err := js.PublishMsgAsync(m); err != nil {
			b.Fatal(err)
		}
		at = commit.End
	}
	<-js.PublishAsyncComplete()
	if head, err := openB(b, c).Head(b.Context()); err != nil || head != uint64(n) {
		b.Fatalf("head %d, %v", head, err)
	}
	return c
}

func openB(b *testing.B, c *natstest.Cluster) *stream.Log {
	b.Helper()
	l, err := stream.Open(b.Context(), c.Connect(), unhurried)
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// BenchmarkReplay reads a ledger over loopback: drained by the client library's
// ordered consumer, without a look at the bytes, and read by Log.Read, which
// decodes and checks all of it.
func BenchmarkReplay(b *testing.B) {
	c := fill(b, replayEvents)
	b.Run("drain", func(b *testing.B) {
		js, err := jetstream.New(c.Connect())
		if err != nil {
			b.Fatal(err)
		}
		before := cpuTime(b)
		for b.Loop() {
			consumer, err := js.OrderedConsumer(b.Context(), stream.EventsStream, jetstream.OrderedConsumerConfig{})
			if err != nil {
				b.Fatal(err)
			}
			done, n := make(chan struct{}), 0
			cc, err := consumer.Consume(func(jetstream.Msg) {
				if n++; n == replayEvents {
					close(done)
				}
			})
			if err != nil {
				b.Fatal(err)
			}
			<-done
			cc.Stop()
		}
		perEvent(b, before)
	})
	b.Run("read", func(b *testing.B) {
		l := openB(b, c)
		enough := errors.New("enough")
		before := cpuTime(b)
		for b.Loop() {
			err := l.Read(b.Context(), events.Position{}, func(c events.Commit) error {
				if c.Seq == replayEvents {
					return enough
				}
				return nil
			})
			if !errors.Is(err, enough) {
				b.Fatal(err)
			}
		}
		perEvent(b, before)
	})
}

// perEvent reports the time of one event, and the processor time that client
// and server have spent on it together: that says more on a busy machine.
func perEvent(b *testing.B, cpuBefore time.Duration) {
	events := float64(b.N) * replayEvents * float64(time.Microsecond)
	b.ReportMetric(float64(b.Elapsed())/events, "us/event")
	b.ReportMetric(float64(cpuTime(b)-cpuBefore)/events, "cpu-us/event")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
