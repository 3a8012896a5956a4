package embed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
)

// attacker is a connection that tells which of its acts the server refused.
type attacker struct {
	*nats.Conn
	t    *testing.T
	role Role
	errs chan string
}

func newAttacker(t *testing.T, s *Server, r Role) *attacker {
	t.Helper()
	a := &attacker{t: t, role: r, errs: make(chan string, 1024)}
	a.Conn, _ = connect(t, s, r, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		a.errs <- err.Error()
	}))
	return a
}

// refused waits until the server says that it refused an act on a subject.
func (a *attacker) refused(act, subject string) bool {
	a.t.Helper()
	if err := a.FlushWithContext(bounded(a.t)); err != nil {
		a.t.Fatalf("%s: %v", a.role, err)
	}
	want := fmt.Sprintf("permissions violation for %s to %q", act, subject)
	timeout := time.After(10 * time.Second)
	for {
		select {
		case got := <-a.errs:
			if strings.Contains(strings.ToLower(got), strings.ToLower(want)) {
				return true
			}
		case <-timeout:
			return false
		}
	}
}

// mustRefuse publishes and expects the server to refuse it.
func (a *attacker) mustRefuse(subject string, body []byte, header nats.Header) {
	a.t.Helper()
	m := &nats.Msg{Subject: subject, Reply: a.NewRespInbox(), Data: body, Header: header}
	if err := a.PublishMsg(m); err != nil {
		a.t.Fatalf("%s: publish to %s: %v", a.role, subject, err)
	}
	if !a.refused("publish", subject) {
		a.t.Fatalf("%s: publish to %s was not refused", a.role, subject)
	}
}

// ledger is everything that the server stores, as it says itself.
type ledger struct {
	streams map[string]string // account/stream: configuration and state
	events  []string          // subject, header and body of each event
}

// observe looks at the server from inside, and at the events through a node.
func observe(t *testing.T, s *Server, node jetstream.JetStream) ledger {
	t.Helper()
	z, err := s.ns.Jsz(&server.JSzOptions{Accounts: true, Streams: true, Config: true})
	if err != nil {
		t.Fatal(err)
	}
	l := ledger{streams: map[string]string{}}
	for _, a := range z.AccountDetails {
		for _, st := range a.Streams {
			st.State.Consumers = 0 // readers come and go
			b, err := json.Marshal(struct {
				Config  *server.StreamConfig
				Created time.Time
				State   server.StreamState
			}{st.Config, st.Created, st.State})
			if err != nil {
				t.Fatal(err)
			}
			l.streams[a.Name+"/"+st.Name] = string(b)
		}
	}
	for _, m := range readAll(t, node, EventsStream) {
		l.events = append(l.events, fmt.Sprintf("%d %s %v %s", m.Sequence, m.Subject, m.Header, m.Data))
	}
	return l
}

// unchanged compares what is stored now with what was stored before.
func (l ledger) unchanged(t *testing.T, after ledger) {
	t.Helper()
	for name := range maps.Keys(after.streams) {
		if _, ok := l.streams[name]; !ok {
			t.Errorf("a stream appeared: %s", name)
		}
	}
	for name, was := range l.streams {
		if is := after.streams[name]; is != was {
			t.Errorf("%s changed\nfrom %s\n  to %s", name, was, is)
		}
	}
	if !slices.Equal(l.events, after.events) {
		t.Errorf("the events changed\nfrom %q\n  to %q", l.events, after.events)
	}
}

// installation is a server whose streams hold something.
func installation(t *testing.T) (*Server, jetstream.JetStream) {
	t.Helper()
	cfg := testConfig(t)
	cfg.Log = nil // the attacks fill the log
	s := start(t, cfg)
	_, pen := connect(t, s, Pen)
	for i := range 5 {
		if _, err := pen.Publish(bounded(t), "ww.event.token.created", fmt.Appendf(nil, `{"number":%d}`, i+1), jetstream.WithExpectLastSequence(uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
	for _, subject := range []string{"ww.pulse", "$KV.WATCHWORD_KEYS.alice"} {
		if _, err := pen.Publish(bounded(t), subject, []byte("first")); err != nil {
			t.Fatal(err)
		}
	}
	_, node := connect(t, s, Node)
	for _, subject := range []string{"ww.receipt.x.y", "ww.progress.x.y"} {
		if _, err := node.Publish(bounded(t), subject, []byte("first")); err != nil {
			t.Fatal(err)
		}
	}
	return s, node
}

// credentials are the roles that an attack is tried with, and the operator,
// whose key exists while a cluster is set up.
func credentials(t *testing.T) []Role { t.Helper(); return append(Roles(), Operator) }

// withOperator starts a server like one member of a cluster that is being set
// up: the operator can log in.
func withOperator(t *testing.T) (*Server, jetstream.JetStream) {
	t.Helper()
	s, _ := installation(t)
	s.Shutdown()
	keys := maps.Clone(s.keys)
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	keys[Operator] = kp
	s, err = StartMember(ClusterConfig{ServerName: "watchword", StoreDir: s.dir}, keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	_, node := connect(t, s, Node)
	return s, node
}

// apiVerbs is every subject of the JetStream API that is more than reading,
// with %s where the stream's name stands, and bodies that would do harm.
var apiVerbs = []struct {
	subject string
	bodies  []string
}{
	{"STREAM.CREATE.%s", []string{`{"name":"%s","subjects":["x"]}`}},
	{"STREAM.UPDATE.%s", []string{
		`{"name":"%s","subjects":["ww.event.>"],"max_msgs_per_subject":2}`,
		`{"name":"%s","subjects":["ww.event.>"],"max_msgs":3}`,
		`{"name":"%s","subjects":["ww.event.>"],"max_age":200000000}`,
		`{"name":"%s","subjects":["ww.event.>"],"retention":"interest"}`,
		`{"name":"%s","subjects":["ww.event.>"],"deny_delete":false,"deny_purge":false}`,
		`{"name":"%s","subjects":["ww.event.>"],"sealed":true}`,
		`{"name":"%s","subjects":["other"]}`,
	}},
	{"STREAM.DELETE.%s", []string{``}},
	{"STREAM.PURGE.%s", []string{``, `{"seq":3}`, `{"filter":"ww.event.token.created"}`, `{"keep":1}`}},
	{"STREAM.MSG.DELETE.%s", []string{`{"seq":2}`, `{"seq":2,"no_erase":true}`}},
	{"STREAM.SNAPSHOT.%s", []string{`{"deliver_subject":"_INBOX_reader.snap"}`}},
	{"STREAM.RESTORE.%s", []string{`{"config":{"name":"%s","subjects":["ww.event.>"]},"state":{}}`}},
	{"STREAM.PEER.REMOVE.%s", []string{`{"peer":"watchword"}`}},
	{"STREAM.PEER.EVACUATE.%s", []string{`{"peer":"watchword"}`}},
	{"STREAM.CANCEL_MOVE.%s", []string{``}},
	{"STREAM.LEADER.STEPDOWN.%s", []string{``}},
	{"CONSUMER.LEADER.STEPDOWN.%s.c", []string{``}},
	{"CONSUMER.PEER.REMOVE.%s.c", []string{``}},
	{"CONSUMER.PEER.EVACUATE.%s.c", []string{``}},
	{"CONSUMER.DURABLE.CREATE.%s.c", []string{`{"stream_name":"%s","config":{"durable_name":"c"}}`}},
	{"CONSUMER.CREATE.%s", []string{`{"stream_name":"%s","config":{"deliver_subject":"ww.cmd.revoke"}}`}},
	{"CONSUMER.PAUSE.%s.c", []string{`{"pause_until":"2099-01-01T00:00:00Z"}`}},
	{"CONSUMER.RESET.%s.c", []string{`{"seq":1}`}},
	{"CONSUMER.UNPIN.%s.c", []string{`{"group":"g"}`}},
	{"CONSUMER.NAMES.%s", []string{``}},
	{"CONSUMER.LIST.%s", []string{``}},
	{"STREAM.NAMES", []string{``}},
	{"STREAM.LIST", []string{``}},
	{"ACCOUNT.PURGE.EVENTS", []string{``}},
	{"ACCOUNT.STREAM.MOVE.EVENTS.%s", []string{`{"server":"watchword"}`}},
	{"ACCOUNT.STREAM.CANCEL_MOVE.EVENTS.%s", []string{``}},
	{"META.LEADER.STEPDOWN", []string{``}},
	{"META.RESCUE", []string{``}},
	{"SERVER.REMOVE", []string{`{"peer":"watchword"}`}},
	{"SERVER.EVACUATE", []string{`{"peer":"watchword"}`}},
}

// newStreams would take the ledger's messages elsewhere or overlap with it.
var newStreams = []string{
	`{"name":"X","subjects":["ww.event.token.>"]}`,
	`{"name":"X","mirror":{"name":"WATCHWORD_EVENTS"}}`,
	`{"name":"X","sources":[{"name":"WATCHWORD_EVENTS"}]}`,
	`{"name":"X","subjects":["x"],"republish":{"src":"x","dest":"ww.event.token.revoked"}}`,
	`{"name":"X","subjects":["x"],"subject_transform":{"src":"x","dest":"ww.event.x"}}`,
}

// allowed says whether the table gives a role a subject to call.
func allowed(r Role, subject string) bool {
	publish, _, _ := r.permissions()
	return slices.ContainsFunc(publish, func(p string) bool { return server.SubjectsCollide(p, subject) })
}

// TestImmutable tries to destroy or change an event by every API that NATS
// has, with every credential, and looks at the streams after each role. What a
// role may call by the table is listed by TestAllowed, and tried by the tests
// below.
func TestImmutable(t *testing.T) {
	s, node := withOperator(t)
	before := observe(t, s, node)
	for _, r := range credentials(t) {
		t.Run(string(r), func(t *testing.T) {
			a := newAttacker(t, s, r)
			for _, prefix := range []string{"$JS.API.", "$JS.core.API.", "$JS.EVENTS.API."} {
				for _, v := range apiVerbs {
					for _, stream := range []string{EventsStream, PulseStream, KeysStream, ReceiptsStream, ProgressStream, UsageStream, "X"} {
						subject := prefix + strings.ReplaceAll(v.subject, "%s", stream)
						if allowed(r, subject) || stream != EventsStream && !strings.Contains(v.subject, "%s") {
							continue
						}
						for _, body := range v.bodies {
							a.mustRefuse(subject, []byte(strings.ReplaceAll(body, "%s", stream)), nil)
						}
					}
				}
				for _, body := range newStreams {
					a.mustRefuse(prefix+"STREAM.CREATE.X", []byte(body), nil)
				}
			}
			for _, subject := range systemVerbs(s) {
				if !allowed(r, subject) {
					a.mustRefuse(subject, nil, nil)
				}
			}
			for _, subject := range []string{
				"ww.receipt.x.y", "ww.progress.x.y",
				"ww.event.token.revoked", "ww.event.x", "ww.pulse", "ww.pulse.x", "$KV.WATCHWORD_KEYS.alice", "$KV.WATCHWORD_KEYS.a.b",
				"ww.live.core.token.revoked", "ww.live.core.pulse", "_R_.x.y", "_INBOX_node.x", "_INBOX_pen.x", "$JS.ACK.WATCHWORD_EVENTS.c.1.1.1.1.0", "$JS.FC.WATCHWORD_EVENTS.c.x",
				"$NRG.V.x", "$O.x.C.y", "$MQTT.sub.x", "WATCHWORD_EVENTS",
			} {
				if !allowed(r, subject) {
					a.mustRefuse(subject, []byte("forged"), nil)
				}
			}
			before.unchanged(t, observe(t, s, node))
		})
	}
}

// systemVerbs are requests of the system account, for this server by its id and
// for all.
func systemVerbs(s *Server) []string {
	id := s.ns.ID()
	subjects := []string{
		"$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.DELETE", "$SYS.REQ.CLAIMS.PACK", "$SYS.REQ.CLAIMS.LIST",
		"$SYS.REQ.ACCOUNT.EVENTS.CLAIMS.UPDATE", "$SYS.REQ.ACCOUNT.EVENTS.INFO", "$SYS.REQ.ACCOUNT.PING.CONNZ",
		"$SYS.REQ.ACCOUNT.NSUBS", "$SYS.DEBUG.SUBSCRIBERS", "$SYS.SERVER." + id + ".SHUTDOWN", "$SYS.SERVER." + id + ".LAMEDUCK",
		"$SYS.SERVER." + id + ".STATSZ", "$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO", "$SYS.ACCOUNT.EVENTS.SERVER.CONNS",
	}
	for _, verb := range []string{"RELOAD", "KICK", "LDM", "VARZ", "CONNZ", "SUBSZ", "ROUTEZ", "PROFILEZ", "ACCOUNTZ", "EXPVARZ", "RAFTZ", "IDZ", "STATSZ", "JSZ", "HEALTHZ"} {
		subjects = append(subjects, "$SYS.REQ.SERVER."+id+"."+verb, "$SYS.REQ.SERVER.PING."+verb)
	}
	return subjects
}

// TestAllowed is the permission table as a text, so that a change of it is
// seen in review.
func TestAllowed(t *testing.T) {
	want := map[Role]string{
		Pen: `$JS.API.CONSUMER.CREATE.WATCHWORD_EVENTS.> $JS.API.CONSUMER.CREATE.WATCHWORD_PULSE.>
			$JS.API.CONSUMER.DELETE.WATCHWORD_EVENTS.* $JS.API.CONSUMER.DELETE.WATCHWORD_PULSE.*
			$JS.API.CONSUMER.INFO.WATCHWORD_EVENTS.* $JS.API.CONSUMER.INFO.WATCHWORD_PULSE.*
			$JS.API.CONSUMER.MSG.NEXT.WATCHWORD_EVENTS.* $JS.API.CONSUMER.MSG.NEXT.WATCHWORD_PULSE.*
			$JS.API.DIRECT.GET.WATCHWORD_EVENTS $JS.API.DIRECT.GET.WATCHWORD_EVENTS.>
			$JS.API.DIRECT.GET.WATCHWORD_PULSE $JS.API.DIRECT.GET.WATCHWORD_PULSE.> $JS.API.INFO
			$JS.API.STREAM.INFO.KV_WATCHWORD_KEYS $JS.API.STREAM.INFO.WATCHWORD_EVENTS $JS.API.STREAM.INFO.WATCHWORD_PULSE
			$JS.API.STREAM.MSG.DELETE.KV_WATCHWORD_KEYS $JS.API.STREAM.MSG.GET.KV_WATCHWORD_KEYS
			$JS.API.STREAM.MSG.GET.WATCHWORD_EVENTS $JS.API.STREAM.MSG.GET.WATCHWORD_PULSE
			$KV.WATCHWORD_KEYS.* ww.event.> ww.pulse
			| _INBOX.> _INBOX_pen.> ww.cmd.> ww.live.core.> ww.live.core.pulse`,
		Node: `$JS.API.CONSUMER.CREATE.WATCHWORD_EVENTS.> $JS.API.CONSUMER.CREATE.WATCHWORD_PROGRESS.>
			$JS.API.CONSUMER.CREATE.WATCHWORD_PULSE.> $JS.API.CONSUMER.CREATE.WATCHWORD_RECEIPTS.> $JS.API.CONSUMER.CREATE.WATCHWORD_USAGE.>
			$JS.API.CONSUMER.DELETE.WATCHWORD_EVENTS.* $JS.API.CONSUMER.DELETE.WATCHWORD_PROGRESS.*
			$JS.API.CONSUMER.DELETE.WATCHWORD_PULSE.* $JS.API.CONSUMER.DELETE.WATCHWORD_RECEIPTS.* $JS.API.CONSUMER.DELETE.WATCHWORD_USAGE.*
			$JS.API.CONSUMER.INFO.WATCHWORD_EVENTS.* $JS.API.CONSUMER.INFO.WATCHWORD_PROGRESS.*
			$JS.API.CONSUMER.INFO.WATCHWORD_PULSE.* $JS.API.CONSUMER.INFO.WATCHWORD_RECEIPTS.* $JS.API.CONSUMER.INFO.WATCHWORD_USAGE.*
			$JS.API.CONSUMER.MSG.NEXT.WATCHWORD_EVENTS.* $JS.API.CONSUMER.MSG.NEXT.WATCHWORD_PROGRESS.*
			$JS.API.CONSUMER.MSG.NEXT.WATCHWORD_PULSE.* $JS.API.CONSUMER.MSG.NEXT.WATCHWORD_RECEIPTS.* $JS.API.CONSUMER.MSG.NEXT.WATCHWORD_USAGE.*
			$JS.API.DIRECT.GET.WATCHWORD_EVENTS $JS.API.DIRECT.GET.WATCHWORD_EVENTS.>
			$JS.API.DIRECT.GET.WATCHWORD_PROGRESS $JS.API.DIRECT.GET.WATCHWORD_PROGRESS.>
			$JS.API.DIRECT.GET.WATCHWORD_PULSE $JS.API.DIRECT.GET.WATCHWORD_PULSE.>
			$JS.API.DIRECT.GET.WATCHWORD_RECEIPTS $JS.API.DIRECT.GET.WATCHWORD_RECEIPTS.>
			$JS.API.DIRECT.GET.WATCHWORD_USAGE $JS.API.DIRECT.GET.WATCHWORD_USAGE.> $JS.API.INFO
			$JS.API.STREAM.INFO.KV_WATCHWORD_KEYS $JS.API.STREAM.INFO.WATCHWORD_EVENTS $JS.API.STREAM.INFO.WATCHWORD_PROGRESS
			$JS.API.STREAM.INFO.WATCHWORD_PULSE $JS.API.STREAM.INFO.WATCHWORD_RECEIPTS $JS.API.STREAM.INFO.WATCHWORD_USAGE
			$JS.API.STREAM.MSG.GET.KV_WATCHWORD_KEYS $JS.API.STREAM.MSG.GET.WATCHWORD_EVENTS $JS.API.STREAM.MSG.GET.WATCHWORD_PROGRESS
			$JS.API.STREAM.MSG.GET.WATCHWORD_PULSE $JS.API.STREAM.MSG.GET.WATCHWORD_RECEIPTS $JS.API.STREAM.MSG.GET.WATCHWORD_USAGE
			$KV.WATCHWORD_KEYS.* ww.cmd.> ww.progress.> ww.receipt.> ww.usage.node.*
			| _INBOX.> _INBOX_node.> ww.live.core.> ww.live.core.pulse`,
		Reader: `$JS.API.CONSUMER.CREATE.WATCHWORD_EVENTS.> $JS.API.CONSUMER.DELETE.WATCHWORD_EVENTS.*
			$JS.API.CONSUMER.INFO.WATCHWORD_EVENTS.* $JS.API.CONSUMER.MSG.NEXT.WATCHWORD_EVENTS.*
			$JS.API.DIRECT.GET.WATCHWORD_EVENTS $JS.API.DIRECT.GET.WATCHWORD_EVENTS.> $JS.API.INFO
			$JS.API.STREAM.INFO.WATCHWORD_EVENTS $JS.API.STREAM.MSG.GET.WATCHWORD_EVENTS
			| _INBOX.> _INBOX_reader.> ww.live.core.> ww.live.core.pulse`,
		Monitor: `$JS.API.INFO $SYS.REQ.SERVER.PING.HEALTHZ $SYS.REQ.SERVER.PING.JSZ | _INBOX.> _INBOX_monitor.>`,
		Auth: `$JS.API.INFO $SYS.REQ.ACCOUNT.CONSUMER.CONNZ $SYS.REQ.ACCOUNT.ENFORCER.CONNZ $SYS.REQ.SERVER.*.KICK
			| $SYS.REQ.USER.AUTH _INBOX.> _INBOX_auth.>`,
		Operator: `$JS.API.INFO $JS.API.STREAM.CREATE.KV_WATCHWORD_KEYS $JS.API.STREAM.CREATE.WATCHWORD_EVENTS
			$JS.API.STREAM.CREATE.WATCHWORD_PROGRESS $JS.API.STREAM.CREATE.WATCHWORD_PULSE $JS.API.STREAM.CREATE.WATCHWORD_RECEIPTS
			$JS.API.STREAM.CREATE.WATCHWORD_USAGE $JS.API.STREAM.INFO.KV_WATCHWORD_KEYS $JS.API.STREAM.INFO.WATCHWORD_EVENTS $JS.API.STREAM.INFO.WATCHWORD_PROGRESS
			$JS.API.STREAM.INFO.WATCHWORD_PULSE $JS.API.STREAM.INFO.WATCHWORD_RECEIPTS
			$JS.API.STREAM.INFO.WATCHWORD_USAGE | _INBOX.> _INBOX_operator.>`,
	}
	for _, r := range credentials(t) {
		publish, subscribe, _ := r.permissions()
		slices.Sort(publish)
		slices.Sort(subscribe)
		got := strings.Join(publish, " ") + " | " + strings.Join(subscribe, " ")
		if w := strings.Join(strings.Fields(want[r]), " "); got != w {
			t.Errorf("%s\n got %s\nwant %s", r, got, w)
		}
	}
}

// TestDeaf checks that a role hears only what the table gives it: no answer
// and no command of another, nothing of the system.
func TestDeaf(t *testing.T) {
	s, _ := withOperator(t)
	for _, r := range credentials(t) {
		a := newAttacker(t, s, r)
		_, may, _ := r.permissions()
		for _, subject := range []string{
			">", "*.>", "ww.>", "ww.cmd.>", "ww.cmd.revoke", "ww.event.>", "ww.pulse", "ww.live.>", "$JS.API.>", "$JS.ACK.>", "$JS.EVENT.>",
			"$SYS.>", "$SYS.REQ.USER.AUTH", "$KV.>", "_R_.>", "ww.receipt.>", "ww.progress.>", "_INBOX_pen.>", "_INBOX_node.>", "_INBOX_reader.>", "_INBOX_monitor.>", "_INBOX_operator.>",
		} {
			if slices.ContainsFunc(may, func(p string) bool { return p == subject || subject == "ww.cmd.revoke" && p == "ww.cmd.>" }) {
				continue
			}
			for _, queue := range []string{"", "q"} {
				if _, err := a.QueueSubscribeSync(subject, queue); err != nil {
					if _, err = a.SubscribeSync(subject); err != nil {
						t.Fatal(r, err)
					}
				}
				if !a.refused("subscription", subject) {
					t.Errorf("%s may subscribe to %s", r, subject)
				}
			}
		}
	}
}

// TestHeaders sends events with every header that changes what JetStream does
// with them. The pen can append; it cannot replace, expire, count or schedule.
func TestHeaders(t *testing.T) {
	s, node := installation(t)
	pen, _ := connect(t, s, Pen)
	before := observe(t, s, node)
	for _, h := range []nats.Header{
		{"Nats-Rollup": {"all"}}, {"Nats-Rollup": {"sub"}}, {"Nats-TTL": {"1s"}}, {"Nats-TTL": {"never"}},
		{"Nats-Incr": {"1"}}, {"Nats-Schedule": {"@at 2020-01-01T00:00:00Z"}, "Nats-Schedule-Target": {"ww.event.x"}},
		{"Nats-Batch-Id": {"b"}, "Nats-Batch-Sequence": {"1"}, "Nats-Batch-Commit": {"1"}},
		{"Nats-Expected-Last-Sequence": {"3"}}, {"Nats-Expected-Stream": {"X"}}, {"Nats-Expected-Last-Msg-Id": {"x"}},
		{"Nats-Marker-Reason": {"Purge"}, "Nats-Rollup": {"all"}},
	} {
		m, err := pen.RequestMsgWithContext(bounded(t), &nats.Msg{Subject: "ww.event.token.created", Header: h, Data: []byte("{}")})
		if err != nil {
			t.Fatal(h, err)
		}
		if !bytes.Contains(m.Data, []byte(`"error"`)) {
			t.Errorf("%v was taken: %s", h, m.Data)
		}
	}
	before.unchanged(t, observe(t, s, node))
}

// TestKeysSetOnce checks that nobody replaces or purges a key, that only the
// pen erases one, and that an erasure touches nothing else.
func TestKeysSetOnce(t *testing.T) {
	s, node := installation(t)
	before := observe(t, s, node)
	for _, r := range []Role{Pen, Node} {
		nc, _ := connect(t, s, r)
		for _, h := range []nats.Header{
			nil, {"KV-Operation": {"DEL"}}, {"KV-Operation": {"PURGE"}, "Nats-Rollup": {"sub"}}, {"Nats-Rollup": {"all"}},
			{"Nats-TTL": {"1s"}}, {"Nats-Expected-Last-Subject-Sequence": {"1"}}, {"Nats-Expected-Last-Sequence": {"1"}},
		} {
			m, err := nc.RequestMsgWithContext(bounded(t), &nats.Msg{Subject: "$KV.WATCHWORD_KEYS.alice", Header: h, Data: []byte("other")})
			if err != nil {
				t.Fatal(r, h, err)
			}
			if !bytes.Contains(m.Data, []byte(`"error"`)) {
				t.Errorf("%s replaced a key with %v: %s", r, h, m.Data)
			}
		}
	}
	before.unchanged(t, observe(t, s, node))

	newAttacker(t, s, Node).mustRefuse("$JS.API.STREAM.MSG.DELETE."+KeysStream, []byte(`{"seq":1}`), nil)
	_, pen := connect(t, s, Pen)
	st, err := pen.Stream(bounded(t), KeysStream)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.SecureDeleteMsg(bounded(t), 1); err != nil {
		t.Errorf("the pen cannot erase: %v", err)
	}
	after := observe(t, s, node)
	delete(before.streams, accountKeys+"/"+KeysStream)
	delete(after.streams, accountKeys+"/"+KeysStream)
	before.unchanged(t, after)
}
