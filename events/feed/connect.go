package feed

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

// Connect connects to the NATS servers at url, a list with commas, with the
// credential that enrolment has written to seedFile. The file must be readable
// by its owner alone. id names whose it is: the id that enrolment has printed.
// Further options go last.
//
// The connection never gives up, and it comes back after waits of which no two
// clients have the same. What happens to it goes to log, which may be nil.
func Connect(url, seedFile, id string, log *slog.Logger, opts ...nats.Option) (*nats.Conn, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	info, err := os.Stat(seedFile)
	if err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("feed: %s can be read by others: its mode is %o, want 0600", seedFile, mode)
	}
	key, err := nats.NkeyOptionFromSeed(seedFile)
	if err != nil {
		return nil, fmt.Errorf("feed: %s: %w", seedFile, err)
	}
	all := append([]nats.Option{
		key,
		nats.Name("watchword-feed"),
		nats.CustomInboxPrefix("_INBOX_" + id),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(time.Second, 2*time.Second),
		nats.ReconnectBufSize(-1),
		// A node that is behind refuses everybody for a moment.
		nats.IgnoreAuthErrorAbort(),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(5 * time.Second),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			log.Warn("nats", "error", err, "subject", subject)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil: the caller has closed it
				log.Warn("nats connection lost", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("nats connection back", "url", nc.ConnectedUrlRedacted()) }),
	}, opts...)
	nc, err := nats.Connect(url, all...)
	if err != nil {
		return nil, fmt.Errorf("feed: connect: %w", err)
	}
	return nc, nil
}
