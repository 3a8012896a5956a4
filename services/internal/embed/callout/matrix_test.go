package callout_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/services/internal/embed"
)

var rewrite = flag.Bool("rewrite", false, "write the golden file anew")

const matrixFile = "testdata/matrix.txt"

// place stands in a subject for the ids of an installation that is not the
// same twice.
type place struct{ own, other, server string }

func (p place) fill(subject string) string {
	return strings.NewReplacer("<own>", p.own, "<other>", p.other, "<server>", p.server).Replace(subject)
}

// streams are all that an installation has.
var streams = func() (names []string) {
	for _, c := range (embed.Streams{}).Configs() {
		names = append(names, c.Name)
	}
	return names
}()

// publishing are the subjects of the matrix to which somebody may want to
// publish. <own> is the id of the enforcer or the consumer who tries, <other> that
// of another enforcer.
func publishing() []string {
	subjects := []string{
		"ww.event.token.revoked", "ww.pulse", "ww.cmd.token.revoke", "ww.live.core.token.revoked", "ww.live.core.pulse",
		"ww.receipt.<own>.i", "ww.receipt.<other>.i", "ww.receipt.<own>", "ww.receipt.i",
		"ww.progress.<own>.i", "ww.progress.<other>.i", "ww.usage.<own>.i", "ww.usage.<other>.i", "ww.usage.node.i", "ww.access.x",
		"$KV.WATCHWORD_KEYS.alice", "_INBOX.x", "_INBOX_<own>.x", "_INBOX_<other>.x", "_INBOX_node.x", "_R_.x", "x",
		"$SYS.REQ.USER.AUTH", "$SYS.REQ.USER.INFO", "$SYS._INBOX.x.y", "$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.SERVER.<server>.KICK",
		"$SYS.REQ.SERVER.<server>.RELOAD", "$SYS.REQ.SERVER.<server>.CONNZ", "$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.SERVER.PING.JSZ", "$SYS.REQ.SERVER.PING.HEALTHZ",
		"$SYS.REQ.SERVER.PING.VARZ", "$SYS.REQ.ACCOUNT.ENFORCER.CONNZ", "$SYS.REQ.ACCOUNT.CONSUMER.CONNZ", "$SYS.REQ.ACCOUNT.PEN.CONNZ", "$SYS.REQ.ACCOUNT.PING.CONNZ",
		"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.CREATE.X", "$JS.API.ACCOUNT.PURGE.EVENTS", "$JS.API.META.LEADER.STEPDOWN",
	}
	for _, s := range streams {
		for _, verb := range []string{
			"STREAM.CREATE.%s", "STREAM.UPDATE.%s", "STREAM.DELETE.%s", "STREAM.PURGE.%s", "STREAM.MSG.DELETE.%s", "STREAM.SNAPSHOT.%s", "STREAM.RESTORE.%s",
			"STREAM.LEADER.STEPDOWN.%s", "STREAM.PEER.REMOVE.%s", "STREAM.INFO.%s", "STREAM.MSG.GET.%s", "DIRECT.GET.%s", "DIRECT.GET.%s.x",
			"CONSUMER.CREATE.%s", "CONSUMER.CREATE.%s.c", "CONSUMER.DURABLE.CREATE.%s.c", "CONSUMER.INFO.%s.c", "CONSUMER.DELETE.%s.c",
			"CONSUMER.MSG.NEXT.%s.c", "CONSUMER.LIST.%s", "CONSUMER.NAMES.%s",
		} {
			subjects = append(subjects, "$JS.API."+fmt.Sprintf(verb, s))
		}
		subjects = append(subjects, "$JS.ACK."+s+".c.1.1.1.1.0")
	}
	return subjects
}

// hearing are the subjects to which somebody may want to listen.
var hearing = []string{
	">", "ww.>", "ww.live.core.>", "ww.live.core.token.revoked", "ww.live.core.pulse", "ww.live.>", "ww.cmd.>", "ww.event.>", "ww.pulse",
	"ww.receipt.>", "ww.receipt.<own>.>", "ww.receipt.<other>.>", "ww.progress.>", "ww.usage.>", "$KV.>",
	"_INBOX.>", "_INBOX_<own>.>", "_INBOX_<other>.>", "_INBOX_node.>", "_INBOX_pen.>", "_INBOX_auth.>", "_R_.>",
	"$SYS.>", "$SYS.REQ.USER.AUTH", "$SYS.ACCOUNT.>", "$SYS._INBOX.>", "$JS.API.>", "$JS.EVENT.>", "$JS.ACK.>",
}

// may says whether the server lets a connection publish to a subject, or
// subscribe to it. It answers a violation before the answer to a ping that was
// sent after it.
func may(t *testing.T, nc *nats.Conn, act, subject string) bool {
	t.Helper()
	switch act {
	case "publish":
		if err := nc.PublishRequest(subject, nc.NewRespInbox(), nil); err != nil {
			t.Fatal(err)
		}
	case "subscribe":
		sub, err := nc.SubscribeSync(subject)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Unsubscribe()
	}
	if err := nc.FlushWithContext(bounded(t)); err != nil {
		t.Fatalf("%s %s: %v", act, subject, err)
	}
	act = map[string]string{"publish": "publish", "subscribe": "subscription"}[act]
	return nc.LastError() == nil || !strings.Contains(strings.ToLower(nc.LastError().Error()), strings.ToLower(fmt.Sprintf("%s to %q", act, subject)))
}

// TestMatrix asks the live server who may do what, and compares the answers
// with the golden file: every kind of credential, every subject of interest.
func TestMatrix(t *testing.T) {
	s := standalone(t)
	l := newLedger()
	serve(t, auth(t, s), s.SeedFile, l)
	enforcer, consumer, other := l.enroll(t, embed.Enforcer), l.enroll(t, embed.Consumer), l.enroll(t, embed.Enforcer)
	type actor struct {
		name string
		nc   *nats.Conn
		own  string
	}
	var cast []actor
	for _, r := range embed.Roles() {
		nc, err := s.Connect(r, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		cast = append(cast, actor{string(r), nc, enforcer.id.String()})
	}
	for _, m := range []member{enforcer, consumer} {
		cast = append(cast, actor{string(m.role), login(t, s.ClientURL(), m), m.id.String()})
	}
	var got strings.Builder
	row := func(act, subject string, mark func(actor) bool) {
		fmt.Fprintf(&got, "%-10s %-52s", act, subject)
		for _, a := range cast {
			cell := "-"
			if mark(a) {
				cell = a.name
			}
			fmt.Fprintf(&got, " %-*s", len(a.name), cell)
		}
		s := strings.TrimRight(got.String(), " ")
		got.Reset()
		got.WriteString(s + "\n")
	}
	for _, act := range []string{"publish", "subscribe"} {
		subjects := hearing
		if act == "publish" {
			subjects = publishing()
		}
		for _, subject := range subjects {
			row(act, subject, func(a actor) bool {
				p := place{a.own, other.id.String(), a.nc.ConnectedServerId()}
				return may(t, a.nc, act, p.fill(subject))
			})
		}
	}
	if *rewrite {
		if err := os.WriteFile(matrixFile, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(matrixFile)
	if err != nil {
		t.Fatal(err)
	}
	if g := got.String(); g != string(want) {
		t.Errorf("who may do what has changed: run the test with -rewrite and read the new rows\n%s", diff(string(want), g))
	}
}

// diff lists the lines of a text that the other one does not have.
func diff(want, got string) string {
	var b strings.Builder
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for _, line := range w {
		if !slices.Contains(g, line) {
			fmt.Fprintln(&b, "-", line)
		}
	}
	for _, line := range g {
		if !slices.Contains(w, line) {
			fmt.Fprintln(&b, "+", line)
		}
	}
	return b.String()
}

// TestReplies names harmful subjects as the reply of all that an enforcer may
// ask, and expects every stream to be as before: the answers of the server end
// at the border of the account.
func TestReplies(t *testing.T) {
	s := standalone(t)
	l := newLedger()
	serve(t, auth(t, s), s.SeedFile, l)
	m, victim := l.enroll(t, embed.Enforcer), l.enroll(t, embed.Enforcer)
	node, err := s.Connect(embed.Node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	before := states(t, node)
	nc := login(t, s.ClientURL(), m)
	publish, _ := embed.Enrolled(m.role, m.id)
	asked := uint64(0)
	for _, subject := range publish {
		subject = strings.Replace(subject, ".>", ".i", 1)
		for _, target := range []string{
			"$JS.API.STREAM.DELETE." + embed.EventsStream, "$JS.API.STREAM.PURGE." + embed.EventsStream, "$JS.API.STREAM.DELETE." + embed.ReceiptsStream,
			"$JS.API.ACCOUNT.PURGE.EVENTS", "ww.event.token.revoked", "ww.pulse", "$KV.WATCHWORD_KEYS.alice", "ww.cmd.token.revoke",
			"ww.receipt." + victim.id.String() + ".i", "ww.progress." + victim.id.String() + ".i", "$SYS.REQ.USER.AUTH", "$SYS.REQ.SERVER." + nc.ConnectedServerId() + ".RELOAD",
		} {
			for _, body := range []string{"", `{"seq":1}`, `{"batch":10,"seq":1}`} {
				if err := nc.PublishRequest(subject, target, []byte(body)); err != nil {
					t.Fatal(err)
				}
				asked++
			}
		}
	}
	// Answered after all that was asked before it.
	for _, subject := range publish {
		if _, err := nc.RequestWithContext(bounded(t), strings.Replace(subject, ".>", ".i", 1), []byte(`{"seq":1}`)); err != nil {
			t.Fatal(err)
		}
	}
	each := asked/uint64(len(publish)) + 1
	want := slices.Clone(before)
	for i, name := range streams {
		switch name {
		case embed.ReceiptsStream, embed.ProgressStream, embed.UsageStream: // under its own name
			want[i] += each
		}
	}
	if after := states(t, node); !slices.Equal(after, want) {
		t.Errorf("last sequences of %v: %v, want %v", streams, after, want)
	}
	js, err := jetstream.New(node)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{embed.ReceiptsStream, embed.ProgressStream} {
		st, err := js.Stream(bounded(t), name)
		if err != nil {
			t.Fatal(err)
		}
		info, err := st.Info(bounded(t), jetstream.WithSubjectFilter("ww.*."+victim.id.String()+".>"))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(info.State.Subjects); n != 0 {
			t.Errorf("%s: %d subjects in another's name", name, n)
		}
	}
}

// states are the last sequences of the streams.
func states(t *testing.T, node *nats.Conn) (last []uint64) {
	t.Helper()
	js, err := jetstream.New(node)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range streams {
		st, err := js.Stream(bounded(t), name)
		if err != nil {
			t.Fatal(err)
		}
		last = append(last, st.CachedInfo().State.LastSeq)
	}
	return last
}

// TestLivePath keeps what an enforcer can do to others of its kind, and to
// nobody else: make the server send true events to their live path, by the
// reply subject of a request. A follower sees it by the sequence.
func TestLivePath(t *testing.T) {
	s := standalone(t)
	l := newLedger()
	serve(t, auth(t, s), s.SeedFile, l)
	pen, err := s.Connect(embed.Pen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pen.Close)
	if _, err := pen.RequestWithContext(bounded(t), "ww.event.token.created", []byte("true")); err != nil {
		t.Fatal(err)
	}
	attacker := login(t, s.ClientURL(), l.enroll(t, embed.Enforcer))
	node, err := s.Connect(embed.Node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(node.Close)
	hear := func(nc *nats.Conn) *nats.Subscription {
		sub, err := nc.SubscribeSync("ww.live.core.>")
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.FlushWithContext(bounded(t)); err != nil {
			t.Fatal(err)
		}
		return sub
	}
	victim := hear(login(t, s.ClientURL(), l.enroll(t, embed.Enforcer)))
	others := []*nats.Subscription{hear(login(t, s.ClientURL(), l.enroll(t, embed.Consumer))), hear(node)}
	if err := attacker.PublishRequest("$JS.API.DIRECT.GET."+embed.EventsStream, "ww.live.core.token.revoked", []byte(`{"seq":1}`)); err != nil {
		t.Fatal(err)
	}
	m, err := victim.NextMsgWithContext(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	if string(m.Data) != "true" || m.Header.Get(nats.JSSequence) != "1" {
		t.Errorf("heard %q, %v", m.Data, m.Header)
	}
	// What is stored now is the first that the others hear.
	if _, err := pen.RequestWithContext(bounded(t), "ww.event.token.revoked", []byte("second")); err != nil {
		t.Fatal(err)
	}
	for _, sub := range others {
		if m, err := sub.NextMsgWithContext(bounded(t)); err != nil || string(m.Data) != "second" {
			t.Errorf("another kind heard %v, %v", m, err)
		}
	}
}
