package embedtest

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/services/internal/embed"
)

// TestCluster checks that three servers with the permission table are a
// cluster: the pen appends and is fenced, a reader reads, a command is
// answered, the monitor sees every replica, and all that also with one member
// stopped and after it came back.
func TestCluster(t *testing.T) {
	c := Start(t, 3)
	pen := c.Connect(embed.Pen)
	node := c.Connect(embed.Node)
	js, err := jetstream.New(pen)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pen.Subscribe("ww.cmd.>", func(m *nats.Msg) { _ = m.Respond([]byte("yes")) }); err != nil {
		t.Fatal(err)
	}
	if err := pen.Flush(); err != nil {
		t.Fatal(err)
	}
	var last uint64
	round := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), Deadline)
		defer cancel()
		for range 10 {
			a, err := js.Publish(ctx, "ww.event.token.created", []byte("{}"), jetstream.WithExpectLastSequence(last))
			if err != nil {
				t.Fatal(err)
			}
			last = a.Sequence
		}
		_, err := js.Publish(ctx, "ww.event.token.created", []byte("{}"), jetstream.WithExpectLastSequence(last-1))
		if api, ok := errors.AsType[*jetstream.APIError](err); !ok || api.ErrorCode != 10071 {
			t.Fatalf("a second pen: %v", err)
		}
		answer(t, ctx, node)
		drain(t, ctx, c.Connect(embed.Reader), last)
	}
	round()
	if n := replicas(t, c.Connect(embed.Monitor), last); n != 3 {
		t.Errorf("the monitor saw %d replicas", n)
	}
	leader, err := js.Stream(t.Context(), embed.EventsStream)
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.Servers {
		if leader.CachedInfo().Cluster.Leader == c.configs[i].ServerName {
			c.Stop(i)
			publishUntil(t, js, &last)
			round()
			c.Restart(i)
			break
		}
	}
	c.Wait()
	round()
	if n := replicas(t, c.Connect(embed.Monitor), last); n != 3 {
		t.Errorf("the monitor saw %d replicas after a restart", n)
	}
}

// answer waits for the answer to a command: a subscription takes a moment to
// be known on all members.
func answer(t *testing.T, ctx context.Context, node *nats.Conn) {
	t.Helper()
	for {
		m, err := node.RequestWithContext(ctx, "ww.cmd.ping", nil)
		if err == nil && string(m.Data) == "yes" {
			return
		}
		if !errors.Is(err, nats.ErrNoResponders) {
			t.Fatalf("a command: %v", err)
		}
	}
}

// publishUntil appends until a new leader takes it, counting what is stored.
func publishUntil(t *testing.T, js jetstream.JetStream, last *uint64) {
	t.Helper()
	for end := time.Now().Add(Deadline); time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		a, err := js.Publish(ctx, "ww.event.token.created", []byte("{}"))
		cancel()
		if err == nil {
			*last = a.Sequence
			return
		}
	}
	t.Fatal("no new leader")
}

// drain reads the ledger from the first to the given sequence without a gap.
func drain(t *testing.T, ctx context.Context, nc *nats.Conn, last uint64) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	cons, err := js.OrderedConsumer(ctx, embed.EventsStream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	it, err := cons.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer it.Stop()
	for want := uint64(1); want <= last; want++ {
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			t.Fatalf("at %d of %d: %v", want, last, err)
		}
		if md, err := m.Metadata(); err != nil || md.Sequence.Stream != want {
			t.Fatalf("want %d, got %+v, %v", want, md, err)
		}
	}
}

// replicas counts the replicas of the ledger that the monitor sees without a
// hole up to last.
func replicas(t *testing.T, nc *nats.Conn, last uint64) int {
	t.Helper()
	inbox := nc.NewRespInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for end := time.Now().Add(Deadline); len(found) < 3 && time.Now().Before(end); {
		if err := nc.PublishRequest("$SYS.REQ.SERVER.PING.JSZ", inbox, []byte(`{"accounts":true,"streams":true}`)); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			m, err := sub.NextMsg(time.Second)
			if err != nil {
				break
			}
			var z struct {
				Server struct{ Name string }
				Data   struct {
					Accounts []struct {
						Streams []struct {
							Name  string
							State jetstream.StreamState
						} `json:"stream_detail"`
					} `json:"account_details"`
				}
			}
			if err := json.Unmarshal(m.Data, &z); err != nil {
				t.Fatal(err)
			}
			for _, a := range z.Data.Accounts {
				for _, s := range a.Streams {
					if s.Name == embed.EventsStream && s.State.LastSeq == last && s.State.Msgs == last && s.State.NumDeleted == 0 {
						found[z.Server.Name] = true
					}
				}
			}
		}
	}
	return len(found)
}
