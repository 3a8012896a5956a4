package embed

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// Options are the options of a connection as r with the seed in a file, for a
// server that runs elsewhere. Further options may follow them.
func Options(r Role, seedFile string, log *slog.Logger) ([]nats.Option, error) {
	kp, err := ReadSeed(r, seedFile)
	if err != nil {
		return nil, err
	}
	return clientOptions(r, kp, log)
}

// clientOptions are the options that every connection of ours has.
//
// A connection never gives up; it buffers nothing while it is cut off, because
// a publish that leaves later than its sender believes is worse than one that
// fails. A forbidden publish is not answered, it only reaches the log: so
// every publish needs a deadline.
func clientOptions(r Role, kp nkeys.KeyPair, log *slog.Logger) ([]nats.Option, error) {
	pub, err := kp.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("embed: nkey of %s: %w", r, err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("nats_role", string(r))
	return []nats.Option{
		nats.Name("watchword-" + string(r)),
		nats.Nkey(pub, kp.Sign),
		nats.CustomInboxPrefix(r.InboxPrefix()),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, time.Second),
		nats.ReconnectBufSize(-1),
		nats.PingInterval(20 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(5 * time.Second),
		nats.DrainTimeout(5 * time.Second),
		nats.IgnoreAuthErrorAbort(),
		nats.PermissionErrOnSubscribe(true),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			log.Error("nats", "error", err, "subject", subject)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
				log.Warn("nats connection lost", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("nats connection back", "url", nc.ConnectedUrlRedacted())
		}),
	}, nil
}
