package test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/stream"
	"watchword.dev/events/test/natstest"
)

func jetStream(t *testing.T, c *natstest.Cluster) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(c.Connect())
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// write appends n commits of one event and returns the ends of all.
func write(t *testing.T, l events.Log, at events.Position, n int) []events.Position {
	t.Helper()
	ends := make([]events.Position, n)
	for i := range ends {
		payload, c, err := events.Compose(at, eventstest.Drafts(int(at.Number)+1, 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Append(t.Context(), at, c.Subject, payload); err != nil {
			t.Fatal(err)
		}
		at = c.End
		ends[i] = at
	}
	return ends
}

// TestAssert weakens one setting at a time and expects it to be named.
func TestAssert(t *testing.T) {
	c := natstest.Start(t, 1)
	js := jetStream(t, c)
	tests := []struct {
		name   string
		weaken func(keys, pulse, events *jetstream.StreamConfig)
		want   []string // nothing means that all is well
	}{
		{"as it must be", func(_, _, _ *jetstream.StreamConfig) {}, nil},
		{"another size", func(k, _, e *jetstream.StreamConfig) { e.MaxBytes, k.MaxBytes = 1<<30, 1<<21 }, nil},
		{"another text", func(_, _, e *jetstream.StreamConfig) {
			e.Description, e.Metadata = "mine", map[string]string{"team": "a"}
		}, nil},
		{"memory", func(_, _, e *jetstream.StreamConfig) { e.Storage = jetstream.MemoryStorage }, []string{"WATCHWORD_EVENTS: Storage is Memory, must be File"}},
		{"compression", func(_, _, e *jetstream.StreamConfig) { e.Compression = jetstream.S2Compression }, []string{"Compression"}},
		{"delete", func(_, _, e *jetstream.StreamConfig) { e.DenyDelete = false }, []string{"DenyDelete is false, must be true"}},
		{"purge", func(_, _, e *jetstream.StreamConfig) { e.DenyPurge = false }, []string{"DenyPurge"}},
		{"rollup", func(_, _, e *jetstream.StreamConfig) { e.DenyPurge, e.AllowRollup = false, true }, []string{"AllowRollup", "DenyPurge"}},
		{"TTL", func(_, _, e *jetstream.StreamConfig) { e.AllowMsgTTL = true }, []string{"AllowMsgTTL"}},
		{"delete markers", func(_, _, e *jetstream.StreamConfig) { e.AllowMsgTTL, e.SubjectDeleteMarkerTTL = true, time.Second }, []string{"SubjectDeleteMarkerTTL", "DenyPurge"}},
		{"schedules", func(_, _, e *jetstream.StreamConfig) { e.AllowMsgSchedules, e.Discard = true, jetstream.DiscardOld }, []string{"AllowMsgSchedules", "DenyPurge", "AllowRollup"}},
		{"async persistence", func(_, _, e *jetstream.StreamConfig) { e.PersistMode = jetstream.AsyncPersistMode }, []string{"PersistMode"}},
		{"max messages", func(_, _, e *jetstream.StreamConfig) { e.MaxMsgs = 1000 }, []string{"MaxMsgs"}},
		{"max messages of a subject", func(_, _, e *jetstream.StreamConfig) { e.MaxMsgsPerSubject = 1000 }, []string{"MaxMsgsPerSubject"}},
		{"max age", func(_, _, e *jetstream.StreamConfig) { e.MaxAge = time.Hour }, []string{"MaxAge"}},
		{"no size", func(_, _, e *jetstream.StreamConfig) { e.MaxBytes = -1 }, []string{"MaxBytes"}},
		{"discard old", func(_, _, e *jetstream.StreamConfig) { e.Discard = jetstream.DiscardOld }, []string{"Discard is"}},
		{"interest", func(_, _, e *jetstream.StreamConfig) { e.Retention = jetstream.InterestPolicy }, []string{"Retention"}},
		{"work queue", func(_, _, e *jetstream.StreamConfig) { e.Retention = jetstream.WorkQueuePolicy }, []string{"Retention"}},
		{"no acknowledgement", func(_, _, e *jetstream.StreamConfig) { e.NoAck = true }, []string{"NoAck"}},
		{"other subjects", func(_, _, e *jetstream.StreamConfig) { e.Subjects = []string{"ww.event.token.>"} }, []string{"Subjects"}},
		{"more subjects", func(_, _, e *jetstream.StreamConfig) { e.Subjects = append(e.Subjects, "other") }, []string{"Subjects"}},
		{"smaller messages", func(_, _, e *jetstream.StreamConfig) { e.MaxMsgSize = 1024 }, []string{"MaxMsgSize"}},
		{"no republishing", func(_, _, e *jetstream.StreamConfig) { e.RePublish = nil }, []string{"RePublish"}},
		{"republishing of headers", func(_, _, e *jetstream.StreamConfig) { e.RePublish.HeadersOnly = true }, []string{"RePublish"}},
		{"transform", func(_, _, e *jetstream.StreamConfig) {
			e.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "ww.event.>", Destination: "x.>"}
		}, []string{"SubjectTransform"}},
		{"begins later", func(_, _, e *jetstream.StreamConfig) { e.FirstSeq = 100 }, []string{"FirstSeq"}},
		{"atomic batches", func(_, _, e *jetstream.StreamConfig) { e.AllowAtomicPublish = true }, []string{"AllowAtomicPublish"}},
		{"counters", func(_, _, e *jetstream.StreamConfig) { e.AllowMsgCounter, e.Discard = true, jetstream.DiscardOld }, []string{"AllowMsgCounter"}},
		{"pulses in memory", func(_, p, _ *jetstream.StreamConfig) { p.Storage = jetstream.MemoryStorage }, []string{"WATCHWORD_PULSE: Storage"}},
		{"pulses can be deleted", func(_, p, _ *jetstream.StreamConfig) { p.DenyDelete = false }, []string{"WATCHWORD_PULSE: DenyDelete"}},
		{"keys age", func(k, _, _ *jetstream.StreamConfig) { k.MaxAge = time.Hour }, []string{"KV_WATCHWORD_KEYS: MaxAge"}},
		{"keys can be replaced", func(k, _, _ *jetstream.StreamConfig) { k.DiscardNewPerSubject = false }, []string{"KV_WATCHWORD_KEYS: DiscardNewPerSubject"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			keys, pulse, evs := stream.KeysConfig(1, natstest.MaxBytes), stream.PulseConfig(1), stream.EventsConfig(1, natstest.MaxBytes)
			test.weaken(&keys, &pulse, &evs)
			for _, cfg := range append(spoken(), keys, pulse, evs) {
				createAgain(t, js, cfg)
			}
			defer c.DeleteStreams()
			err := stream.Assert(t.Context(), js, 1)
			if len(test.want) == 0 && err != nil {
				t.Errorf("refused: %v", err)
			}
			for _, want := range test.want {
				if !errors.Is(err, stream.ErrSettings) || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want it to name %q", err, want)
				}
			}
		})
	}
	t.Run("replicas", func(t *testing.T) {
		c.CreateStreams()
		defer c.DeleteStreams()
		if err := stream.Assert(t.Context(), js, 3); !errors.Is(err, stream.ErrSettings) || !strings.Contains(err.Error(), "Replicas is 1, must be 3") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("receipts that go", func(t *testing.T) {
		c.CreateStreams()
		defer c.DeleteStreams()
		short := spoken()[0]
		short.MaxAge = time.Hour
		if _, err := js.UpdateStream(t.Context(), short); err != nil {
			t.Fatal(err)
		}
		if err := stream.Assert(t.Context(), js, 1); !errors.Is(err, stream.ErrSettings) || !strings.Contains(err.Error(), "WATCHWORD_RECEIPTS: MaxAge") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no stream", func(t *testing.T) {
		if err := stream.Assert(t.Context(), js, 1); !errors.Is(err, jetstream.ErrStreamNotFound) {
			t.Errorf("error %v", err)
		}
		if _, err := stream.Open(t.Context(), c.Connect(), unhurried); !errors.Is(err, stream.ErrNoStream) {
			t.Errorf("open: %v", err)
		}
	})
}

// spoken are the streams to which enforcers publish.
func spoken() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		stream.ReceiptsConfig(1, natstest.MaxBytes), stream.ProgressConfig(1, natstest.MaxBytes), stream.UsageConfig(1, natstest.MaxBytes),
	}
}

// createAgain creates a stream. The directory of one of the same name that was
// deleted just before goes a moment later than the answer says.
func createAgain(t *testing.T, js jetstream.JetStream, cfg jetstream.StreamConfig) {
	t.Helper()
	const storeError = 10049
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := js.CreateStream(t.Context(), cfg)
		if err == nil {
			return
		}
		if e, ok := errors.AsType[*jetstream.APIError](err); !ok || e.ErrorCode != storeError || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// TestAssertWhole deletes an event, which takes a stream that was made wrong.
func TestAssertWhole(t *testing.T) {
	for name, victim := range map[string]uint64{"the first": 1, "one inside": 3, "the last": 5} {
		t.Run(name, func(t *testing.T) {
			c := natstest.Start(t, 1)
			js := jetStream(t, c)
			weak := stream.EventsConfig(1, natstest.MaxBytes)
			weak.DenyDelete = false
			for _, cfg := range append(spoken(), stream.KeysConfig(1, natstest.MaxBytes), stream.PulseConfig(1), weak) {
				if _, err := js.CreateStream(t.Context(), cfg); err != nil {
					t.Fatal(err)
				}
			}
			l := open(t, c, unhurried)
			ends := write(t, l, events.Position{}, 5)
			if err := stream.AssertReplicas(t.Context(), c.System()); err != nil {
				t.Fatalf("before: %v", err)
			}
			s, err := js.Stream(t.Context(), stream.EventsStream)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.DeleteMsg(t.Context(), victim); err != nil {
				t.Fatal(err)
			}
			if err := stream.Assert(t.Context(), js, 1); !errors.Is(err, stream.ErrSettings) || !strings.Contains(err.Error(), "not whole") {
				t.Errorf("Assert: %v", err)
			}
			if err := stream.AssertReplicas(t.Context(), c.System()); !errors.Is(err, stream.ErrSettings) || !strings.Contains(err.Error(), "not whole") {
				t.Errorf("AssertReplicas: %v", err)
			}
			// Readers see it too, wherever they begin.
			if victim < 5 {
				if err := l.Read(t.Context(), events.Position{}, func(events.Commit) error { return nil }); !errors.Is(err, events.ErrGap) {
					t.Errorf("read: %v", err)
				}
			}
			if err := l.Read(t.Context(), ends[victim-1], func(events.Commit) error { return nil }); !errors.Is(err, events.ErrGap) {
				t.Errorf("read from the deleted event: %v", err)
			}
		})
	}
}

func TestAssertReplicas(t *testing.T) {
	t.Run("as it must be", func(t *testing.T) {
		c := natstest.Start(t, 3)
		c.CreateStreams()
		write(t, open(t, c, unhurried), events.Position{}, 5)
		if err := stream.AssertReplicas(t.Context(), c.System()); err != nil {
			t.Error(err)
		}
		if err := stream.Assert(t.Context(), jetStream(t, c), 3); err != nil {
			t.Error(err)
		}
	})
	t.Run("a server that does not wait for the disk", func(t *testing.T) {
		c := natstest.Start(t, 3, func(o *server.Options) { o.SyncAlways = o.ServerName != "n2" })
		c.CreateStreams()
		err := stream.AssertReplicas(t.Context(), c.System())
		if !errors.Is(err, stream.ErrSettings) || !strings.Contains(err.Error(), "n2: sync_interval is not always") || strings.Contains(err.Error(), "n1") {
			t.Errorf("error %v, want it to name n2", err)
		}
	})
	t.Run("a replica that does not answer", func(t *testing.T) {
		c := natstest.Start(t, 3)
		c.CreateStreams()
		system := c.System()
		for i, s := range c.Servers() {
			if s.ClientURL() != system.ConnectedUrl() {
				c.Servers()[i].Shutdown()
				break
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := stream.AssertReplicas(ctx, system); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want that one is missing", err)
		}
	})
	t.Run("no ledger", func(t *testing.T) {
		c := natstest.Start(t, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := stream.AssertReplicas(ctx, c.System()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want that nobody has it", err)
		}
	})
}
