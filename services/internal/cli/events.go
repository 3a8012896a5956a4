package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"watchword.dev/events"
	"watchword.dev/events/credentials"
	"watchword.dev/events/feed"
	"watchword.dev/events/stream"
)

// readerInbox is the inbox prefix that the reader's credential is allowed.
const readerInbox = "_INBOX_reader"

func (a *App) eventsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "events", Short: "Read the ledger's events"}
	cmd.AddCommand(a.eventsTailCommand())
	return cmd
}

// tailFlags say what of the ledger to show.
type tailFlags struct {
	natsURL, seedFile string
	credentials       string
	from              uint64
	last              uint64
	follow            bool
	withSequence      bool
}

func (a *App) eventsTailCommand() *cobra.Command {
	f := &tailFlags{}
	cmd := &cobra.Command{
		Use: "tail", Short: "Show events, each checked against the chain", Args: cobra.NoArgs,
		Long: `Show events of the ledger in order. Sequence, number, chain and epoch of each are
checked; at the first one that does not fit, the command ends with exit code 5.

With -o json each line is an event exactly as it is stored: a CloudEvents 1.0
object whose SHA-256 is the prev of the next one.`,
		Example: "  watchword events tail\n  watchword events tail -f -o json\n  watchword events tail --from 1 > ledger.txt",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.tail(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.natsURL, "nats-url", "", "NATS URL (default: the context's; env WATCHWORD_NATS_URL)")
	fl.StringVar(&f.seedFile, "nats-seed-file", "", "nkey seed file of a reader (default: the context's; env WATCHWORD_NATS_SEED_FILE)")
	fl.StringVar(&f.credentials, "credentials", "", "credentials file of an enrolled consumer or enforcer, instead of a reader's seed")
	fl.Uint64Var(&f.from, "from", 0, "start at this sequence; 1 is the beginning")
	fl.Uint64VarP(&f.last, "last", "n", 100, "show this many of the newest commits when --from is not given")
	fl.BoolVarP(&f.follow, "follow", "f", false, "go on as events come")
	fl.BoolVar(&f.withSequence, "with-sequence", false, "with -o json: the commit's sequence and a space before each event")
	return cmd
}

// dialReader connects to NATS with the reader's credential.
func (a *App) dialReader(f *tailFlags) (*nats.Conn, error) {
	url, seed := f.natsURL, f.seedFile
	if url == "" {
		url = a.Getenv("WATCHWORD_NATS_URL")
	}
	if seed == "" {
		seed = a.Getenv("WATCHWORD_NATS_SEED_FILE")
	}
	if url == "" || seed == "" {
		c, err := a.resolve()
		if err != nil {
			return nil, err
		}
		if url == "" {
			url = c.NATSURL
		}
		if seed == "" {
			seed = c.NATSSeedFile
		}
	}
	if url == "" || seed == "" {
		return nil, Fail(ExitLocal, errors.New("no NATS server is known"),
			"the server must listen on NATS (serve --nats-listen), and a reader's seed file is needed",
			"name them with --nats-url and --nats-seed-file")
	}
	sign, err := nats.NkeyOptionFromSeed(seed)
	if err != nil {
		return nil, Fail(ExitLocal, fmt.Errorf("read the seed file %s: %w", seed, err))
	}
	nc, err := nats.Connect(url, sign, nats.CustomInboxPrefix(readerInbox), nats.Name("watchword events"), nats.MaxReconnects(-1))
	if err != nil {
		return nil, Fail(ExitLocal, fmt.Errorf("connect to %s: %w", url, err), "is the server running?")
	}
	return nc, nil
}

// ledger is the events in order, read with one credential or the other.
type ledger interface {
	events.Reader
	PositionAt(ctx context.Context, seq uint64) (events.Position, error)
}

// openLedger connects and gives the ledger, and what ends the connection.
func (a *App) openLedger(ctx context.Context, f *tailFlags) (ledger, func(), error) {
	if f.credentials != "" {
		return a.openFeed(f)
	}
	nc, err := a.dialReader(f)
	if err != nil {
		return nil, nil, err
	}
	log, err := stream.Open(ctx, nc, stream.Config{})
	if err != nil {
		nc.Close()
		return nil, nil, Fail(ExitRemote, err)
	}
	return log, nc.Close, nil
}

// openFeed is openLedger for somebody enrolled, who may not do what a reader
// may.
func (a *App) openFeed(f *tailFlags) (ledger, func(), error) {
	c, err := credentials.Read(f.credentials)
	if err != nil {
		return nil, nil, Fail(ExitLocal, err)
	}
	if f.natsURL != "" {
		c.NATSURL = f.natsURL
	}
	if c.NATSURL == "" || c.SeedFile == "" {
		return nil, nil, Fail(ExitLocal, fmt.Errorf("%s names no NATS server", f.credentials), "name one with --nats-url")
	}
	nc, err := feed.Connect(c.NATSURL, c.SeedFile, c.ID.String(), slog.New(slog.NewTextHandler(a.Err, nil)))
	if err != nil {
		return nil, nil, Fail(ExitLocal, err, "is the server running? a retired one is not let in")
	}
	return feed.New(nc, feed.Config{}), nc.Close, nil
}

// errEnough ends a read that has shown all it was asked for.
var errEnough = errors.New("enough")

func (a *App) tail(ctx context.Context, f *tailFlags) error {
	asJSON, err := a.json()
	if err != nil {
		return err
	}
	log, done, err := a.openLedger(ctx, f)
	if err != nil {
		return err
	}
	defer done()
	head, err := log.Head(ctx)
	if err != nil {
		return Fail(ExitRemote, err)
	}
	from := f.from
	if from == 0 {
		from = head - min(head, f.last) + 1
	}
	if !f.follow && from > head {
		return nil
	}
	at, err := log.PositionAt(ctx, from-1)
	if err != nil {
		return Fail(ExitRemote, err)
	}
	err = log.Read(ctx, at, func(c events.Commit) error {
		for i := range c.Records {
			a.showEvent(&c.Records[i], asJSON, f.withSequence)
		}
		if !f.follow && c.Seq >= head {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough), errors.Is(err, context.Canceled):
		return nil
	case errors.Is(err, events.ErrGap), errors.Is(err, events.ErrChain), errors.Is(err, events.ErrRewind), errors.Is(err, events.ErrEpoch), errors.Is(err, events.ErrMalformed):
		return Fail(ExitProof, err, "the ledger does not hold together: run `watchword fsck` and keep a copy of the store")
	}
	return Fail(ExitRemote, err)
}

func (a *App) showEvent(r *events.Record, asJSON, withSequence bool) {
	switch {
	case asJSON && withSequence:
		fmt.Fprintf(a.Out, "%d %s\n", r.Seq, r.Line)
	case asJSON:
		fmt.Fprintf(a.Out, "%s\n", r.Line)
	default:
		by := string(r.Actor.Kind)
		if !r.Actor.ID.IsZero() {
			by += "/" + r.Actor.ID.String()
		}
		of := r.Subject
		if d, ok := r.Data.(*events.RevocationSwept); ok {
			of += "  " + strings.TrimSpace(d.By+" "+terminalSafe(d.Selected)) + fmt.Sprintf(" through %d", d.Through)
		}
		short := strings.TrimPrefix(events.SubjectOf(r.Name), events.SubjectPrefix)
		fmt.Fprintf(a.Out, "%-7d %s  %-18s %s  by %s\n", r.Number, r.Time.UTC().Format(time.RFC3339), short, of, by)
	}
}
