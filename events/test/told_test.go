package test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events/stream"
	"watchword.dev/events/test/natstest"
)

var errRead = errors.New("read enough")

// readTold reads n messages after a sequence.
func readTold(t *testing.T, u *stream.Told, after uint64, n int) (got []string) {
	t.Helper()
	err := u.Read(t.Context(), after, func(m stream.ToldMessage) error {
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

func TestTold(t *testing.T) {
	c := natstest.Start(t, 1)
	c.CreateStreams()
	nc := c.Connect()
	for _, of := range []struct {
		name, prefix string
		open         func(*nats.Conn, stream.Config) (*stream.Told, error)
		config       func(replicas int, maxBytes int64) jetstream.StreamConfig
	}{
		{stream.UsageStream, stream.UsagePrefix, stream.OpenUsage, stream.UsageConfig},
		{stream.ReceiptsStream, stream.ReceiptPrefix, stream.OpenReceipts, stream.ReceiptsConfig},
		{stream.ProgressStream, stream.ProgressPrefix, stream.OpenProgress, stream.ProgressConfig},
	} {
		t.Run(of.name, func(t *testing.T) {
			u, err := of.open(nc, unhurried)
			if err != nil {
				t.Fatal(err)
			}
			testTold(t, u, of.prefix)

			// A stream that was lost and made anew is read from its beginning.
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			if err := js.DeleteStream(t.Context(), of.name); err != nil {
				t.Fatal(err)
			}
			createAgain(t, js, of.config(1, natstest.MaxBytes))
			if err := u.Publish(t.Context(), of.prefix+"node.z", []byte("anew")); err != nil {
				t.Fatal(err)
			}
			if got, want := readTold(t, u, 3, 1), []string{of.prefix + "node.z anew"}; !slices.Equal(got, want) {
				t.Errorf("read %q, want %q", got, want)
			}
		})
	}
}

func testTold(t *testing.T, u *stream.Told, prefix string) {
	for _, text := range []string{"one", "two", "three"} {
		if err := u.Publish(t.Context(), prefix+"node."+text, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.Publish(t.Context(), "ww.event.token.revoked", []byte("{}")); err == nil {
		t.Error("what was told is published as an event")
	}
	if _, last, err := u.Bounds(t.Context()); err != nil || last != 3 {
		t.Errorf("the stream ends at %d (%v)", last, err)
	}
	if got, want := readTold(t, u, 1, 2), []string{prefix + "node.two two", prefix + "node.three three"}; !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if err := u.Read(ended, 3, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that was ended: %v", err)
	}
}
