package embed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
)

// enlarge raises the cap of the ledger to what cfg wants, if it is lower. A
// ledger at its cap refuses everything, also the event by which a pen opens it,
// so this happens before anybody else can connect: the server runs for this
// process alone, with a credential that is never written down. A crash leaves
// the old cap or the new one.
func enlarge(cfg Config, keys map[Role]nkeys.KeyPair) error {
	key, err := nkeys.CreatePairWithRand(nkeys.PrefixByteUser, rand.Reader)
	if err != nil {
		return fmt.Errorf("embed: make an nkey: %w", err)
	}
	defer key.Wipe()
	keys = maps.Clone(keys)
	keys[enlarger] = key
	cfg.Listen = ""
	s, err := run(cfg, keys)
	if err != nil {
		return err
	}
	defer s.Shutdown()
	nc, err := s.Connect(enlarger)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("embed: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ledger, err := js.Stream(ctx, EventsStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("%w: %s", ErrStreamMissing, EventsStream)
	}
	if err != nil {
		return fmt.Errorf("embed: look at %s: %w", EventsStream, err)
	}
	now := ledger.CachedInfo().Config
	switch {
	case now.MaxBytes == cfg.EventsMaxBytes:
		return nil
	case now.MaxBytes > cfg.EventsMaxBytes:
		cfg.Log.Warn("the ledger's cap is never lowered", "cap", now.MaxBytes, "wanted", cfg.EventsMaxBytes)
		return nil
	}
	was := now.MaxBytes
	now.MaxBytes = cfg.EventsMaxBytes
	if _, err := js.UpdateStream(ctx, now); err != nil {
		return fmt.Errorf("embed: raise the cap of %s: %w", EventsStream, err)
	}
	cfg.Log.Info("the ledger's cap is raised", "from", was, "to", now.MaxBytes)
	return nil
}
