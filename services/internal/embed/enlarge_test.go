package embed

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// TestEnlarge checks that a later start raises the ledger's cap and never
// lowers it, and that nobody who can log in may do that.
func TestEnlarge(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), EventsMaxBytes: 8 << 20}
	for _, step := range []struct{ ask, want int64 }{{8 << 20, 8 << 20}, {32 << 20, 32 << 20}, {16 << 20, 32 << 20}, {0, 32 << 20}} {
		cfg.EventsMaxBytes = step.ask
		s, err := Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		nc, err := s.Connect(Node)
		if err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		ledger, err := js.Stream(t.Context(), EventsStream)
		if err != nil {
			t.Fatal(err)
		}
		if got := ledger.CachedInfo().Config.MaxBytes; got != step.want {
			t.Errorf("asked for %d: the cap is %d, want %d", step.ask, got, step.want)
		}
		nc.Close()
		s.Shutdown()
	}
}
