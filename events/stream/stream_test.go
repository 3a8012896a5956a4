package stream

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events"
)

func TestParseReply(t *testing.T) {
	tests := []struct {
		reply string
		want  place
		ok    bool
	}{
		{"$JS.ACK.WATCHWORD_EVENTS.abc.1.77.5.1767323045000000000.3", place{delivered: 5, seq: 77, pending: 3}, true},
		{"$JS.ACK.core.HASH.WATCHWORD_EVENTS.abc.1.77.5.1767323045000000000.3", place{delivered: 5, seq: 77, pending: 3}, true},
		{"$JS.ACK._.HASH.WATCHWORD_EVENTS.abc.1.77.5.1767323045000000000.3.random", place{delivered: 5, seq: 77, pending: 3}, true},
		{"$JS.ACK.S.c.1.18446744073709551615.5.1.0", place{delivered: 5, seq: 1<<64 - 1}, true},
		{"$JS.ACK.S.c.1.18446744073709551616.5.1.0", place{}, false},
		{"$JS.ACK.S.c.1.-7.5.1.0", place{}, false},
		{"$JS.ACK.S.c.1.7.x.1.0", place{}, false},
		{"$JS.ACK.S.c.1.7.5.1.", place{}, false},
		{"$JS.ACK.S.c.1.7.5.1", place{}, false},
		{"$JS.ACK.S.c.1.7.5.1.0.0", place{}, false},
		{"$JS.ACK." + strings.Repeat("a.", 40), place{}, false},
		{"$JS.ACK.", place{}, false},
		{"_INBOX.abc.def", place{}, false},
		{"", place{}, false},
	}
	for _, test := range tests {
		got, err := parseReply(test.reply)
		if got != test.want || (err == nil) != test.ok {
			t.Errorf("%q: %+v, %v; want %+v", test.reply, got, err, test.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = parseReply(tests[0].reply) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestMeaning checks that only what surely stored nothing is called so.
func TestMeaning(t *testing.T) {
	tests := []struct {
		code int
		text string
		want error
	}{
		{10071, "wrong last sequence: 7", events.ErrConflict},
		{10164, "wrong last sequence", events.ErrAmbiguous},
		{10077, "maximum bytes exceeded", events.ErrRefused},
		{10077, "maximum messages exceeded", events.ErrRefused},
		{10077, "message too large", events.ErrRefused},
		{10077, "no space left on device", events.ErrAmbiguous},
		{10054, "message size exceeds maximum allowed", events.ErrRefused},
		{10047, "insufficient storage resources available", events.ErrRefused},
		{10023, "insufficient resources", events.ErrRefused},
		{10002, "resource limits exceeded for account", events.ErrRefused},
		{10008, "JetStream system temporarily unavailable", events.ErrAmbiguous},
		{10000, "something new", events.ErrAmbiguous},
	}
	for _, test := range tests {
		if got := meaning(&apiError{ErrCode: test.code, Description: test.text}); !errors.Is(got, test.want) {
			t.Errorf("%d %s: %v, want %v", test.code, test.text, got, test.want)
		}
	}
}

// TestCodes ties our numbers to those that nats.go names.
func TestCodes(t *testing.T) {
	for code, want := range map[int]jetstream.ErrorCode{
		codeNoMessage:         jetstream.JSErrCodeMessageNotFound,
		codeStreamNotFound:    jetstream.JSErrCodeStreamNotFound,
		codeWrongLastSequence: jetstream.JSErrCodeStreamWrongLastSequence,
	} {
		if jetstream.ErrorCode(code) != want {
			t.Errorf("code %d, nats.go says %d", code, want)
		}
	}
}

// TestWatcher feeds a watcher what the stream tells and what the live subject
// brings, in orders in which it can happen.
func TestWatcher(t *testing.T) {
	type step struct {
		stored bool
		text   string
		seq    uint64
	}
	tests := []struct {
		name  string
		steps []step
		want  string
	}{
		{"in order", []step{{true, "a", 1}, {false, "b", 2}, {false, "c", 3}}, "a b c"},
		{"the newest is live too", []step{{true, "b", 2}, {false, "b", 2}, {false, "c", 3}}, "b c"},
		{"older ones wait in the queue", []step{{true, "c", 3}, {false, "b", 2}, {false, "c", 3}, {false, "d", 4}}, "c d"},
		{"one got lost", []step{{true, "a", 1}, {false, "c", 3}}, "a c"},
		{"silence", []step{{true, "a", 1}, {true, "a", 1}, {true, "b", 2}}, "a b"},
		{"nothing stored yet", []step{{true, "", 0}, {false, "a", 1}}, "a"},
		{"a forged one does not silence the rest", []step{{true, "a", 1}, {false, "forged", 1000}, {false, "b", 2}}, "a forged b"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var heard []string
			w := watcher{fn: func(pulse []byte, _ uint64) { heard = append(heard, string(pulse)) }}
			for _, s := range test.steps {
				if s.stored {
					w.stored([]byte(s.text), s.seq)
				} else {
					w.live([]byte(s.text), s.seq)
				}
			}
			if got := strings.Join(heard, " "); got != test.want {
				t.Errorf("heard %q, want %q", got, test.want)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	var c Config
	c.setDefaults()
	if c.AppendTimeout != time.Second || c.RequestTimeout != 5*time.Second || c.IdleCheck != 5*time.Second || c.Log == nil {
		t.Errorf("defaults %+v", c)
	}
	c = Config{AppendTimeout: 1, RequestTimeout: 2, IdleCheck: 3}
	c.setDefaults()
	if c.AppendTimeout != 1 || c.RequestTimeout != 2 || c.IdleCheck != 3 {
		t.Errorf("changed to %+v", c)
	}
}
