package test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events/stream"
	"watchword.dev/events/test/natstest"
)

var errRead = errors.New("read enough")

// readUsage reads n messages after a sequence.
func readUsage(t *testing.T, u *stream.Usage, after uint64, n int) (got []string) {
	t.Helper()
	err := u.Read(t.Context(), after, func(m stream.UsageMessage) error {
		if m.Stored.IsZero() {
			t.Errorf("message %d was stored at no time", m.Seq)
		}
		if got = append(got, m.Subject+" "+string(m.Data)); len(got) == n {
			return errRead
		}
		return nil
	})
	if !errors.Is(err, errRead) {
		t.Fatal(err)
	}
	return got
}

func TestUsage(t *testing.T) {
	c := natstest.Start(t, 1)
	c.CreateStreams()
	nc := c.Connect()
	u, err := stream.OpenUsage(nc, unhurried)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two", "three"} {
		if err := u.Publish(t.Context(), "ww.usage.node.a", []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.Publish(t.Context(), "ww.event.token.revoked", []byte("{}")); err == nil {
		t.Error("a report is published as an event")
	}
	if _, last, err := u.Bounds(t.Context()); err != nil || last != 3 {
		t.Errorf("the stream ends at %d (%v)", last, err)
	}
	if got, want := readUsage(t, u, 1, 2), []string{"ww.usage.node.a two", "ww.usage.node.a three"}; !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if err := u.Read(ended, 3, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that was ended: %v", err)
	}

	// A stream that was lost and made anew is read from its beginning.
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), stream.UsageStream); err != nil {
		t.Fatal(err)
	}
	createAgain(t, js, stream.UsageConfig(1, natstest.MaxBytes))
	if err := u.Publish(t.Context(), "ww.usage.node.b", []byte("anew")); err != nil {
		t.Fatal(err)
	}
	if got, want := readUsage(t, u, 3, 1), []string{"ww.usage.node.b anew"}; !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
}
