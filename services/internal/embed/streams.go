package embed

import (
	"fmt"
	"reflect"

	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events/stream"
)

// Streams says how large the streams of an installation are.
//
// Replicas is 1 (embedded) or 3 (a cluster). EventsMaxBytes is the hard cap of
// the ledger: at the cap the stream refuses an append cleanly, where a full
// disk would break it until a restart.
type Streams struct {
	Replicas       int
	EventsMaxBytes int64
}

// Caps that follow from the ledger's: a share of it, within bounds. Of the keys
// each person needs about 200 bytes; of the receipts and of the reports of usage
// the oldest make room.
var (
	keysCap     = share{of: 8, min: 1 << 20, max: 4 << 30}
	receiptsCap = share{of: 16, min: 1 << 20, max: 16 << 30}
	progressCap = share{of: 64, min: 1 << 20, max: 256 << 20}
	usageCap    = share{of: 16, min: 4 << 20, max: 8 << 30}
)

type share struct{ of, min, max int64 }

func (s share) cap(ledger int64) int64 { return min(max(ledger/s.of, s.min), s.max) }

// Configs are the wanted configurations, in the order of their creation: the
// events stream comes last, so that where it exists all exist.
func (s Streams) Configs() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		stream.KeysConfig(s.Replicas, keysCap.cap(s.EventsMaxBytes)),
		stream.PulseConfig(s.Replicas),
		stream.ReceiptsConfig(s.Replicas, receiptsCap.cap(s.EventsMaxBytes)),
		stream.ProgressConfig(s.Replicas, progressCap.cap(s.EventsMaxBytes)),
		stream.UsageConfig(s.Replicas, usageCap.cap(s.EventsMaxBytes)),
		stream.EventsConfig(s.Replicas, s.EventsMaxBytes),
	}
}

// same compares a wanted configuration with the one that the server answers.
// The server silently changes some settings at creation.
func same(want, got jetstream.StreamConfig) error {
	got.Metadata = nil                       // the server's own version marks
	got.ConsumerLimits = want.ConsumerLimits // defaults that the client leaves at zero
	w, g := reflect.ValueOf(want), reflect.ValueOf(got)
	for i := range w.NumField() {
		if a, b := w.Field(i).Interface(), g.Field(i).Interface(); !reflect.DeepEqual(a, b) {
			return fmt.Errorf("embed: %s: the server has %s as %+v, wanted %+v", want.Name, w.Type().Field(i).Name, b, a)
		}
	}
	return nil
}
