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

	ReceiptsStream = "WATCHWORD_RECEIPTS"
	ProgressStream = "WATCHWORD_PROGRESS"
	UsageStream    = "WATCHWORD_USAGE"
)

// The subjects of pulses: where the pen stores them, and where the server
// republishes what it has stored.
const (
	PulseSubject     = "ww.pulse"
	LivePulseSubject = LivePrefix + "pulse"
)

// What stands before an enforcer's id, and then its instance, in the subjects
// on which it says what it has applied, and for what credentials were used
// there. Our own nodes tell that too, with NodeReporter instead of an id.
const (
	ReceiptPrefix  = "ww.receipt."
	ProgressPrefix = "ww.progress."
	UsagePrefix    = "ww.usage."

	NodeReporter = "node"
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
	// keptReceipts is how long it can be shown who had heard of a revocation.
	keptReceipts = 18 * 30 * 24 * time.Hour
	maxReceipt   = 16 << 10 // a signed receipt with its subject and headers
	// keptUsage is for how long reports of usage are kept.
	keptUsage = 90 * 24 * time.Hour
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

// ReceiptsConfig returns how the stream of receipts for revocations must be:
// each is kept for eighteen months, the oldest make room at maxBytes.
//
// A single server writes them to the disk in its own time, because a receipt
// that a crash has lost is sent again; what is replicated has copies instead.
func ReceiptsConfig(replicas int, maxBytes int64) jetstream.StreamConfig {
	c := spoken(replicas, maxBytes)
	c.Name, c.Description = ReceiptsStream, "Which enforcers have applied which revocations."
	c.Subjects, c.MaxAge = []string{ReceiptPrefix + ">"}, keptReceipts
	return c
}

// ProgressConfig returns how the stream must be that keeps, of each instance
// of an enforcer, the last word on how far it is.
func ProgressConfig(replicas int, maxBytes int64) jetstream.StreamConfig {
	c := spoken(replicas, maxBytes)
	c.Name, c.Description = ProgressStream, "How far each instance of each enforcer is."
	c.Subjects, c.MaxMsgsPerSubject = []string{ProgressPrefix + ">"}, 1
	return c
}

// UsageConfig returns how the stream must be that keeps the reports of usage
// for ninety days; the oldest make room at maxBytes.
func UsageConfig(replicas int, maxBytes int64) jetstream.StreamConfig {
	c := spoken(replicas, maxBytes)
	c.Name, c.Description = UsageStream, "What credentials are used for."
	c.Subjects, c.MaxAge, c.MaxMsgSize = []string{UsagePrefix + ">"}, keptUsage, MaxMessage
	return c
}

// spoken is what the streams have in common to which enforcers publish.
func spoken(replicas int, maxBytes int64) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Retention:         jetstream.LimitsPolicy,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		MaxMsgs:           -1,
		MaxMsgsPerSubject: -1,
		MaxConsumers:      -1,
		MaxBytes:          maxBytes,
		MaxMsgSize:        maxReceipt,
		Discard:           jetstream.DiscardOld,
		Duplicates:        duplicates,
		DenyDelete:        true,
		DenyPurge:         true,
		AllowDirect:       true,
	}
	if replicas == 1 {
		c.PersistMode = jetstream.AsyncPersistMode
	}
	return c
}
