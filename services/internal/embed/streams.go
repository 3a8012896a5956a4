package embed

import (
	"fmt"
	"reflect"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// MaxCommitBytes is the largest message of the events stream: a commit of 64
// fat events.
const MaxCommitBytes = 1 << 20

// Streams are the configurations of the three streams.
//
// Replicas is 1 (embedded) or 3 (a cluster). EventsMaxBytes is the hard cap of
// the ledger: at the cap the stream refuses an append cleanly, where a full
// disk would break it until a restart.
type Streams struct {
	Replicas       int
	EventsMaxBytes int64
}

// Configs are the wanted configurations, in the order of their creation: the
// events stream comes last, so that where it exists all exist.
func (s Streams) Configs() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{s.Keys(), s.Pulse(), s.Events()}
}

// Events is the ledger: kept for ever, nothing deleted, nothing discarded.
//
// TTL, delete markers and schedules stay off because they silently allow
// purging; compression stays off because it widens the damage of a flipped
// bit. Nats-Msg-Id is not used, so the window for duplicates is the shortest.
func (s Streams) Events() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        EventsStream,
		Description: "The ledger of Watchword.",
		Subjects:    []string{"ww.event.>"},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    s.Replicas,
		MaxMsgs:     -1, MaxMsgsPerSubject: -1, MaxConsumers: -1,
		MaxBytes:    s.EventsMaxBytes,
		MaxMsgSize:  MaxCommitBytes,
		Discard:     jetstream.DiscardNew,
		Duplicates:  100 * time.Millisecond,
		DenyDelete:  true,
		DenyPurge:   true,
		AllowDirect: true,
		RePublish:   &jetstream.RePublish{Source: "ww.event.>", Destination: "ww.live.core.>"},
	}
}

// Pulse holds the last pulses of the pen.
func (s Streams) Pulse() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        PulseStream,
		Description: "The pen's lease and watermark.",
		Subjects:    []string{"ww.pulse"},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    s.Replicas,
		MaxMsgs:     16, MaxMsgsPerSubject: -1, MaxConsumers: -1,
		MaxBytes:    1 << 20,
		MaxMsgSize:  16 << 10,
		Discard:     jetstream.DiscardOld,
		Duplicates:  100 * time.Millisecond,
		DenyDelete:  true,
		DenyPurge:   true,
		AllowDirect: true,
		RePublish:   &jetstream.RePublish{Source: "ww.pulse", Destination: "ww.live.core.pulse"},
	}
}

// Keys is the key-value bucket of personal keys, one message a person.
//
// A key is set once: DiscardNewPerSubject refuses a second message, and without
// rollup neither a put nor a KV purge can replace a key. Erasing deletes the
// message through the API, which overwrites its bytes.
func (s Streams) Keys() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        KeysStream,
		Description: "Wrapped keys of personal fields.",
		Subjects:    []string{"$KV." + KeysBucket + ".>"},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    s.Replicas,
		MaxMsgs:     -1, MaxMsgsPerSubject: 1, MaxConsumers: -1,
		MaxBytes:             max(s.EventsMaxBytes/4, 1<<20),
		MaxMsgSize:           4 << 10,
		Discard:              jetstream.DiscardNew,
		DiscardNewPerSubject: true,
		Duplicates:           100 * time.Millisecond,
		DenyPurge:            true,
		// AllowDirect stays off: the leader answers, so that a node that lost
		// the race for a key finds the winner's.
	}
}

// same compares a wanted configuration with the one that the server answers.
// The server silently changes some settings at creation.
func same(want, got jetstream.StreamConfig) error {
	got.Metadata = nil // the server's own version marks
	// The server answers defaults that the client leaves at zero.
	got.ConsumerLimits = want.ConsumerLimits
	if !reflect.DeepEqual(want, got) {
		return fmt.Errorf("embed: the server made something else of %s: wanted %+v, got %+v", want.Name, want, got)
	}
	return nil
}
