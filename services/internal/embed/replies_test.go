package embed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// quiet waits until everything that was sent before has had its effect: an
// event passes through the ledger's own queue, in which answers and deliveries
// stand too, and then no API request is under way.
func quiet(t *testing.T, s *Server, pen jetstream.JetStream) {
	t.Helper()
	if _, err := pen.Publish(bounded(t), "ww.event.mark.made", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	readAll(t, pen, EventsStream)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	ctx := bounded(t)
	for {
		z, err := s.ns.Jsz(nil)
		if err != nil {
			t.Fatal(err)
		}
		if z.API.Inflight == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("API requests are still under way")
		}
	}
}

// targets are subjects at which an answer or a delivery of the server would do
// harm, had it a way there.
func targets(s *Server) []string {
	return []string{
		"$JS.API.STREAM.DELETE." + EventsStream, "$JS.API.STREAM.PURGE." + EventsStream, "$JS.API.STREAM.DELETE." + PulseStream,
		"$JS.API.STREAM.DELETE." + KeysStream, "$JS.API.STREAM.PURGE." + KeysStream, "$JS.core.API.STREAM.DELETE." + EventsStream,
		"$JS.API.ACCOUNT.PURGE.EVENTS", "$JS.API.META.LEADER.STEPDOWN", "$JS.API.STREAM.LEADER.STEPDOWN." + EventsStream,
		"ww.event.token.revoked", "ww.pulse", "$KV.WATCHWORD_KEYS.alice", "$KV.WATCHWORD_KEYS.mallory",
		"ww.live.core.token.revoked", "ww.live.core.pulse", "$SYS.REQ.SERVER." + s.ns.ID() + ".RELOAD", "$SYS.REQ.CLAIMS.DELETE",
		"$JS.ACK." + EventsStream + ".c.1.1.1.1.0", "_INBOX_pen.x", "_INBOX_node.x",
	}
}

// own says whether a role may publish to a target itself: what lands there at
// its wish is no more than it may do.
func own(r Role, target string) bool { return allowed(r, target) }

// TestReplies names each target as the reply of each request that a role may
// send. JetStream answers without asking whether the asker may publish there;
// the account's border keeps the answer with the asker.
func TestReplies(t *testing.T) {
	s, node := withOperator(t)
	_, pen := connect(t, s, Pen)
	for _, r := range credentials(t) {
		t.Run(string(r), func(t *testing.T) {
			a := newAttacker(t, s, r)
			if r == Pen || r == Node || r == Reader { // a consumer without messages answers with empty bodies
				body := `{"stream_name":"WATCHWORD_EVENTS","config":{"name":"c-%s","deliver_policy":"new","filter_subject":"ww.event.never","ack_policy":"none","mem_storage":true,"inactive_threshold":60000000000}}`
				if _, err := a.RequestWithContext(bounded(t), "$JS.API.CONSUMER.CREATE.WATCHWORD_EVENTS.c-"+string(r)+".ww.event.never", fmt.Appendf(nil, body, r)); err != nil {
					t.Fatal(err)
				}
			}
			before := observe(t, s, node)
			for _, subject := range requests(r) {
				for _, target := range targets(s) {
					if own(r, target) {
						continue
					}
					for _, body := range []string{"", `{"batch":1,"no_wait":true}`, `{"seq":1}`, `{"batch":10,"seq":1}`} {
						if err := a.PublishMsg(&nats.Msg{Subject: subject, Reply: target, Data: []byte(body)}); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			if err := a.FlushWithContext(bounded(t)); err != nil {
				t.Fatal(err)
			}
			quiet(t, s, pen)
			after := observe(t, s, node)
			marked(t, before, after)
		})
	}
}

// requests are literal subjects of all that a role may ask without storing
// anything.
func requests(r Role) []string {
	publish, _, _ := r.permissions()
	var subjects []string
	for _, p := range publish {
		if strings.HasPrefix(p, "ww.") && p != "ww.cmd.>" || strings.HasPrefix(p, "$KV.") || strings.Contains(p, ".CREATE.") || strings.Contains(p, ".DELETE.") {
			continue
		}
		p = strings.Replace(p, ".*", ".c-"+string(r), 1)
		p = strings.Replace(p, ".>", ".ww.event.token.created", 1)
		subjects = append(subjects, p)
	}
	return subjects
}

// marked is unchanged, but for the one event that quiet has appended.
func marked(t *testing.T, before, after ledger) {
	t.Helper()
	n := len(before.events)
	if len(after.events) != n+1 || !strings.Contains(after.events[n], " ww.event.mark.made ") || !slices.Equal(before.events, after.events[:n]) {
		t.Errorf("the events changed\nfrom %q\n  to %q", before.events, after.events)
	}
	for name, was := range before.streams {
		if is := after.streams[name]; is != was && name != accountEvents+"/"+EventsStream {
			t.Errorf("%s changed\nfrom %s\n  to %s", name, was, is)
		}
	}
	if len(after.streams) != len(before.streams) {
		t.Errorf("streams: %v", slices.Collect(maps.Keys(after.streams)))
	}
}

// TestDeliveries creates push consumers that would deliver to each target:
// messages, headers alone and heartbeats, which have empty bodies. The server
// delivers where the account of the stream has a subscription to that very
// subject, and says so at once (push_bound). That account has the stream alone,
// and a stream refuses to deliver to itself. What is left is the live path,
// when somebody follows a literal subject of it: a reader can make the server
// send true events there again, but without the marks of a republished one.
func TestDeliveries(t *testing.T) {
	s, node := installation(t)
	_, pen := connect(t, s, Pen)
	follower, _ := connect(t, s, Node)
	if _, err := follower.SubscribeSync("ww.live.core.>"); err != nil {
		t.Fatal(err)
	}
	literal, err := follower.SubscribeSync("ww.live.core.x")
	if err != nil {
		t.Fatal(err)
	}
	if err := follower.FlushWithContext(bounded(t)); err != nil {
		t.Fatal(err)
	}
	for _, r := range []Role{Pen, Node, Reader} {
		t.Run(string(r), func(t *testing.T) {
			a := newAttacker(t, s, r)
			before := observe(t, s, node)
			const beats = `,"idle_heartbeat":100000000,"flow_control":true`
			for i, target := range append(targets(s), "ww.cmd.revoke", "ww.live.core.x", "_R_.x.y", "ww.event.>", "*") {
				for j, more := range []string{"", `,"headers_only":true`, beats, `,"headers_only":true` + beats} {
					name := fmt.Sprintf("p%s-%d-%d", r, i, j)
					answer, bound := push(t, a.Conn, EventsStream, name, target, more)
					if bound != (target == "ww.live.core.x") {
						t.Errorf("delivers to %s: %v: %s", target, bound, answer)
					}
					if strings.HasPrefix(target, "ww.event.") && !strings.Contains(answer, `"error"`) {
						t.Errorf("a stream would deliver to itself at %s: %s", target, answer)
					}
				}
			}
			for range 4 * len(before.events) { // at least: heartbeats come too
				m, err := literal.NextMsg(10 * time.Second)
				if err != nil {
					t.Fatal(err)
				}
				if m.Header.Get("Nats-Sequence") != "" || m.Header.Get("Nats-Stream") != "" {
					t.Errorf("a delivery passes for a republished event: %v", m.Header)
				}
			}
			quiet(t, s, pen)
			marked(t, before, observe(t, s, node))
		})
	}
}

// push creates a push consumer and says whether the server delivers to it.
func push(t *testing.T, nc *nats.Conn, stream, name, target, more string) (string, bool) {
	t.Helper()
	body := fmt.Sprintf(`{"stream_name":%q,"config":{"name":%q,"deliver_policy":"all","ack_policy":"none","mem_storage":true,"deliver_subject":%q%s}}`, stream, name, target, more)
	m, err := nc.RequestWithContext(bounded(t), "$JS.API.CONSUMER.CREATE."+stream+"."+name, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(m.Data), `"error"`) {
		return string(m.Data), false
	}
	if m, err = nc.RequestWithContext(bounded(t), "$JS.API.CONSUMER.INFO."+stream+"."+name, nil); err != nil {
		t.Fatal(err)
	}
	var info jetstream.ConsumerInfo
	if err := json.Unmarshal(m.Data, &info); err != nil || info.Name != name {
		t.Fatalf("%s, %v", m.Data, err)
	}
	return string(m.Data), info.PushBound || info.Delivered.Consumer != 0
}

// TestCommandReply checks that a node cannot make the pen write: the pen
// answers a command to the reply subject that it is given, and may itself
// publish events.
func TestCommandReply(t *testing.T) {
	s, node := installation(t)
	penConn, pen := connect(t, s, Pen)
	answered := make(chan string, 100)
	if _, err := penConn.Subscribe("ww.cmd.>", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"forged":true}`))
		answered <- m.Reply
	}); err != nil {
		t.Fatal(err)
	}
	if err := penConn.Flush(); err != nil {
		t.Fatal(err)
	}
	a := newAttacker(t, s, Node)
	before := observe(t, s, node)
	for _, target := range targets(s) {
		// The server refuses a reply of $JS.ACK from any client.
		if own(Node, target) || strings.HasPrefix(target, "$JS.ACK.") {
			continue
		}
		if err := a.PublishRequest("ww.cmd.revoke", target, nil); err != nil {
			t.Fatal(err)
		}
		select {
		case reply := <-answered:
			if !strings.HasPrefix(reply, "_R_.") {
				t.Errorf("the pen was told to answer to %s", reply)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("the pen did not hear the command that answers to %s", target)
		}
	}
	if err := penConn.FlushWithContext(bounded(t)); err != nil {
		t.Fatal(err)
	}
	quiet(t, s, pen)
	marked(t, before, observe(t, s, node))
	if m, err := a.RequestWithContext(bounded(t), "ww.cmd.revoke", nil); err != nil || len(m.Data) == 0 {
		t.Errorf("an honest command: %v", err)
	}
}

// TestNoPen checks that a command without a pen is refused at once.
func TestNoPen(t *testing.T) {
	s, _ := installation(t)
	nc, _ := connect(t, s, Node)
	if _, err := nc.RequestWithContext(bounded(t), "ww.cmd.revoke", nil); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("got %v", err)
	}
}

// TestReplySubjectDeletes keeps the reason for the accounts: with the stream
// and its reader in one account, a reader that may only create consumers and
// fetch makes the server deliver into another stream, and deletes the stream
// by the reply subject of a fetch. If this test fails after an update of
// nats-server, the server has learned to refuse it; the accounts may stay.
func TestReplySubjectDeletes(t *testing.T) {
	o := &server.Options{}
	if err := o.ProcessConfigString(`jetstream: {}, accounts: { ONE: { jetstream: enabled, users: [
		{user: owner, password: x}
		{user: reader, password: x, permissions: {subscribe: "_INBOX.>", publish: ["$JS.API.CONSUMER.CREATE.S.>", "$JS.API.CONSUMER.INFO.S.*", "$JS.API.CONSUMER.MSG.NEXT.S.*"]}}
	]}}`); err != nil {
		t.Fatal(err)
	}
	o.StoreDir, o.DontListen, o.NoSigs, o.NoLog = t.TempDir(), true, true, true
	ns, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(10 * time.Second) {
		t.Fatal("not ready")
	}
	login := func(user string) *nats.Conn {
		nc, err := nats.Connect("", nats.InProcessServer(ns), nats.UserInfo(user, "x"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	js, err := jetstream.New(login("owner"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(bounded(t), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, DenyDelete: true, DenyPurge: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(bounded(t), jetstream.StreamConfig{Name: "P", Subjects: []string{"pulse"}}); err != nil {
		t.Fatal(err)
	}
	reader := login("reader")
	if answer, bound := push(t, reader, "S", "p", "pulse", ""); !bound {
		t.Errorf("the server does not deliver into another stream: %s", answer)
	}
	if _, err := reader.RequestWithContext(bounded(t), "$JS.API.CONSUMER.CREATE.S.c", []byte(`{"stream_name":"S","config":{"name":"c","ack_policy":"none"}}`)); err != nil {
		t.Fatal(err)
	}
	if err := reader.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.S.c", "$JS.API.STREAM.DELETE.S", []byte(`{"batch":1,"no_wait":true}`)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if _, err := js.Stream(ctx, "S"); errors.Is(err, jetstream.ErrStreamNotFound) {
			return
		}
	}
	t.Error("the stream was not deleted")
}
