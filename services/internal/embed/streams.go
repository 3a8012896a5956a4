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

// The cap of the bucket of keys, of which each person needs about 200 bytes, is
// a share of the ledger's, within bounds.
const (
	keysShare    = 8
	keysMinBytes = 1 << 20
	keysMaxBytes = 4 << 30
)

// Configs are the wanted configurations, in the order of their creation: the
// events stream comes last, so that where it exists all exist.
func (s Streams) Configs() []jetstream.StreamConfig {
	keys := min(max(s.EventsMaxBytes/keysShare, keysMinBytes), keysMaxBytes)
	return []jetstream.StreamConfig{
		stream.KeysConfig(s.Replicas, keys),
		stream.PulseConfig(s.Replicas),
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
