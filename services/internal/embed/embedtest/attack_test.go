package embedtest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/services/internal/embed"
)

// TestClusterAttacked names harmful subjects as the reply of every request of
// every role, and as the deliver subject of consumers, through every member:
// what holds on one server must hold where requests cross routes.
func TestClusterAttacked(t *testing.T) {
	c := Start(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), Deadline)
	defer cancel()
	pen, err := jetstream.New(c.Connect(embed.Pen))
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	add := func() {
		t.Helper()
		// Refused if anything else was appended meanwhile.
		a, err := pen.Publish(ctx, "ww.event.token.created", []byte("{}"), jetstream.WithExpectLastSequence(last))
		if err != nil {
			t.Fatal(err)
		}
		last = a.Sequence
	}
	for range 5 {
		add()
	}
	for _, subject := range []string{"ww.pulse", "$KV.WATCHWORD_KEYS.alice"} {
		if _, err := pen.Publish(ctx, subject, []byte("first")); err != nil {
			t.Fatal(err)
		}
	}
	before := settings(t, ctx, pen)
	targets := []string{
		"$JS.API.STREAM.DELETE.WATCHWORD_EVENTS", "$JS.API.STREAM.PURGE.WATCHWORD_EVENTS", "$JS.API.STREAM.DELETE.WATCHWORD_PULSE",
		"$JS.API.STREAM.DELETE.KV_WATCHWORD_KEYS", "$JS.API.ACCOUNT.PURGE.EVENTS", "$JS.API.META.LEADER.STEPDOWN", "$JS.API.META.RESCUE",
		"ww.event.token.revoked", "ww.pulse", "$KV.WATCHWORD_KEYS.alice", "$JS.ACK.WATCHWORD_EVENTS.c.1.1.1.1.0",
	}
	for i, s := range c.Servers {
		for _, r := range []embed.Role{embed.Node, embed.Reader, embed.Monitor, embed.Auth, embed.Operator} {
			nc, err := s.Connect(r, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // refusals, by the hundred
			if err != nil {
				t.Fatal(err)
			}
			attack(t, ctx, nc, fmt.Sprintf("%s%d", r, i), targets)
			nc.Close()
		}
		add() // through the stream's queue, after the attack
		drain(t, ctx, c.Connect(embed.Reader), last)
	}
	c.Wait()
	if n := replicas(t, c.Connect(embed.Monitor), last); n != 3 {
		t.Errorf("%d replicas hold the ledger whole", n)
	}
	if after := settings(t, ctx, pen); after != before {
		t.Errorf("settings changed\nfrom %s\n  to %s", before, after)
	}
	for name, want := range map[string]uint64{embed.PulseStream: 1, embed.KeysStream: 1} {
		st, err := pen.Stream(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if got := st.CachedInfo().State; got.LastSeq != want || got.Msgs != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// attack makes consumers that answer with empty bodies and that push, and asks
// everything with harmful replies. What a role may not ask, the server refuses.
func attack(t *testing.T, ctx context.Context, nc *nats.Conn, name string, targets []string) {
	t.Helper()
	create := func(name, more string) {
		body := fmt.Sprintf(`{"stream_name":"WATCHWORD_EVENTS","config":{"name":%q,"deliver_policy":"all","ack_policy":"none","mem_storage":true%s}}`, name, more)
		m, err := nc.RequestWithContext(ctx, "$JS.API.CONSUMER.CREATE.WATCHWORD_EVENTS."+name, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(more, "pull") && strings.Contains(string(m.Data), `"error"`) {
			t.Fatalf("%s", m.Data)
		}
	}
	if strings.HasPrefix(name, "node") || strings.HasPrefix(name, "reader") {
		create("pull-"+name, `,"inactive_threshold":60000000000,"description":"pull"`)
		for i, target := range targets {
			create(fmt.Sprintf("push-%s-%d", name, i), fmt.Sprintf(`,"headers_only":true,"idle_heartbeat":100000000,"deliver_subject":%q`, target))
		}
	}
	for _, subject := range []string{
		"$JS.API.CONSUMER.MSG.NEXT.WATCHWORD_EVENTS.pull-" + name, "$JS.API.STREAM.INFO.WATCHWORD_EVENTS", "$JS.API.DIRECT.GET.WATCHWORD_EVENTS",
		"$JS.API.DIRECT.GET.WATCHWORD_EVENTS.ww.event.token.created", "$JS.API.STREAM.MSG.GET.WATCHWORD_EVENTS", "$JS.API.INFO", "ww.cmd.revoke",
		"$SYS.REQ.SERVER.PING.JSZ", "$SYS.REQ.SERVER.PING.HEALTHZ", "$JS.API.STREAM.CREATE.WATCHWORD_EVENTS",
	} {
		for _, target := range targets {
			for _, body := range []string{"", `{"batch":1,"no_wait":true}`, `{"seq":1}`} {
				if err := nc.PublishRequest(subject, target, []byte(body)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := nc.FlushWithContext(ctx); err != nil {
		t.Fatal(err)
	}
}

// settings are the configurations of the streams as the servers answer them.
func settings(t *testing.T, ctx context.Context, js jetstream.JetStream) string {
	t.Helper()
	var all strings.Builder
	for _, name := range []string{embed.EventsStream, embed.PulseStream, embed.KeysStream} {
		st, err := js.Stream(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(st.CachedInfo().Config)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s %v %s\n", name, st.CachedInfo().Created, b)
	}
	return all.String()
}
