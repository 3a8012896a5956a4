package stream

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events"
)

// The names of the streams and of the bucket of personal keys.
const (
	EventsStream = "WATCHWORD_EVENTS"
	PulseStream  = "WATCHWORD_PULSE"
	KeysBucket   = "WATCHWORD_KEYS"
	KeysStream   = "KV_" + KeysBucket
)

// The subjects of pulses: where the pen stores them, and where the server
// republishes what it has stored.
const (
	PulseSubject     = "ww.pulse"
	LivePulseSubject = LivePrefix + "pulse"
)

// LivePrefix stands before the aggregate and the verb in the subject on which
// the server republishes a stored commit: "ww.live.core.token.revoked".
const LivePrefix = "ww.live.core."

const (
	// MaxMessage is a commit with its subject and headers: what a server
	// takes as one message by default.
	MaxMessage = 1 << 20
	keptPulses = 16
	// duplicates is the shortest window that a server accepts. We do not use
	// it: it is not what makes an append happen once.
	duplicates = 100 * time.Millisecond
)

// EventsConfig returns how the ledger's stream must be. It is kept for ever,
// on disk: nothing is deleted, purged, replaced or discarded, and at maxBytes
// it refuses an append cleanly, where a full disk would break it until a
// restart.
//
// TTL, delete markers and schedules stay off because they silently allow
// purging, compression because it widens the damage of a flipped bit.
func EventsConfig(replicas int, maxBytes int64) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              EventsStream,
		Description:       "The ledger of Watchword.",
		Subjects:          []string{events.SubjectPrefix + ">"},
		Retention:         jetstream.LimitsPolicy,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: -1,
		MaxConsumers:      -1,
		MaxBytes:          maxBytes,
		MaxMsgSize:        MaxMessage,
		Discard:           jetstream.DiscardNew,
		Duplicates:        duplicates,
		DenyDelete:        true,
		DenyPurge:         true,
		AllowDirect:       true,
		RePublish:         &jetstream.RePublish{Source: events.SubjectPrefix + ">", Destination: LivePrefix + ">"},
	}
}

// PulseConfig returns how the stream of pulses must be: the last few, on disk.
func PulseConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              PulseStream,
		Description:       "The pen's lease and watermark.",
		Subjects:          []string{PulseSubject},
		Retention:         jetstream.LimitsPolicy,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		MaxMsgs:           keptPulses,
		MaxMsgsPerSubject: -1,
		MaxConsumers:      -1,
		MaxBytes:          1 << 20,
		MaxMsgSize:        16 << 10,
		Discard:           jetstream.DiscardOld,
		Duplicates:        duplicates,
		DenyDelete:        true,
		DenyPurge:         true,
		AllowDirect:       true,
		RePublish:         &jetstream.RePublish{Source: PulseSubject, Destination: LivePulseSubject},
	}
}

// KeysConfig returns how the bucket of personal keys must be, one message for
// each person.
//
// A key is set once: a second message on its subject is refused, and without
// rollup neither a put nor a KV purge can replace it. Erasing deletes the
// message through the API, which overwrites its bytes.
func KeysConfig(replicas int, maxBytes int64) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:                 KeysStream,
		Description:          "Wrapped keys of personal fields.",
		Subjects:             []string{"$KV." + KeysBucket + ".>"},
		Retention:            jetstream.LimitsPolicy,
		Storage:              jetstream.FileStorage,
		Replicas:             replicas,
		MaxMsgs:              -1,
		MaxMsgsPerSubject:    1,
		MaxConsumers:         -1,
		MaxBytes:             maxBytes,
		MaxMsgSize:           4 << 10,
		Discard:              jetstream.DiscardNew,
		DiscardNewPerSubject: true,
		Duplicates:           duplicates,
		DenyPurge:            true,
		// AllowDirect stays off: the leader answers, so that a node that lost
		// the race for a key finds the winner's.
	}
}
