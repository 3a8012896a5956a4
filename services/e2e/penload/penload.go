// Package penload runs the write side of an installation without its HTTP: the
// embedded server that waits for the disk, the pen, and the directory that it
// decides by. It is for tools that load the authority and then read the ledger
// back; they may not import what is internal to services themselves.
package penload

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"

	"watchword.dev/events"
	"watchword.dev/events/stream"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
	"watchword.dev/projections/projector"
	"watchword.dev/services/authority"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/embed"
)

// openTimeout bounds how long the pen may take until it writes.
const openTimeout = 30 * time.Second

// Authority is a running write side with one user in it.
type Authority struct {
	server    *embed.Server
	conns     []*nats.Conn
	ledger    *stream.Log // for reading, over TCP
	directory *directory.Directory
	pen       *authority.Pen
	user      token.ID
	caller    command.Caller // the user, by their API key

	stop  context.CancelFunc
	ended chan error // of the pen and of the directory's runner
}

// Start starts a new installation over an empty directory. The pen writes over
// a connection within the process and the directory reads over TCP, as in
// `watchword serve`.
func Start(ctx context.Context, dir string) (*Authority, error) {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	a := &Authority{stop: stop, ended: make(chan error, 2)}
	if err := a.open(run, dir); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := a.populate(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *Authority) open(ctx context.Context, dir string) (err error) {
	if a.server, err = embed.Start(embed.Config{Dir: filepath.Join(dir, "nats"), Listen: "127.0.0.1:0"}); err != nil {
		return err
	}
	opts, err := embed.Options(embed.Node, a.server.SeedFile(embed.Node), nil)
	if err != nil {
		return err
	}
	reads, err := nats.Connect(a.server.ClientURL(), opts...)
	if err != nil {
		return fmt.Errorf("penload: connect to read: %w", err)
	}
	a.conns = append(a.conns, reads)
	if a.ledger, err = stream.Open(ctx, reads, stream.Config{}); err != nil {
		return err
	}
	writes, err := a.server.Connect(embed.Pen)
	if err != nil {
		return err
	}
	a.conns = append(a.conns, writes)
	log, err := stream.Open(ctx, writes, stream.Config{})
	if err != nil {
		return err
	}
	if a.directory, err = directory.Open(directory.Options{Dir: filepath.Join(dir, "directory")}); err != nil {
		return err
	}
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	installation := token.NewGenerator(nil).New()
	a.pen, err = authority.New(authority.Config{
		Log: log, Pulses: log, Past: a.directory, Key: key, Installation: installation, Node: "hammer", Sole: true,
		Genesis: &events.LogOpened{Installation: installation, Brand: token.DefaultBrand, PulseKey: public},
	})
	if err != nil {
		return err
	}
	runner := projector.NewRunner(a.ledger, a.directory, projector.Options{})
	go func() { a.ended <- runner.Run(ctx) }()
	go func() { a.ended <- a.pen.Run(ctx) }()
	return nil
}

// populate registers the user who will create tokens. Their e-mail is sealed
// under no key: nobody will read it.
func (a *Authority) populate(ctx context.Context) error {
	ids := token.NewGenerator(nil)
	a.user = ids.New()
	key, err := token.Format{}.Generate(token.KindKey)
	if err != nil {
		return err
	}
	const emailIndex = "penload"
	a.caller = command.Caller{Kind: token.KindKey, Digest: key.Digest(), EmailIndex: emailIndex}
	sealed := events.Sealed{Key: ids.New().String(), Nonce: make([]byte, 12), Ciphertext: make([]byte, 32)}
	return authority.Bootstrap(ctx, a.pen,
		command.RegisterUser{ID: a.user, Email: sealed, EmailIndex: emailIndex, Operator: true},
		command.IssueAPIKey{User: a.user, Secret: key.Digest()},
	)
}

// Create creates a token that the user owns and returns the sequence of its
// commit as soon as that is durable.
func (a *Authority) Create(ctx context.Context, id token.ID, name string, secret token.Digest, g token.Grant) (uint64, error) {
	result, err := a.pen.Do(ctx, a.caller, command.CreateToken{
		Target: command.Target{ID: id, OwnerKind: events.OwnedByUser, Owner: a.user}, Name: name, Grant: g, Secret: secret,
	})
	return result.Seq, err
}

// Ledger reads the ledger, checking its chain.
func (a *Authority) Ledger() events.Reader { return a.ledger }

// Stats are the pen's own figures: how many commits it has written, of how
// many events.
func (a *Authority) Stats() (commits, written uint64) {
	s := a.pen.Stats()
	return s.Commits, s.Events
}

// Close stops everything and waits.
func (a *Authority) Close() error {
	a.stop()
	var errs []error
	if a.pen != nil {
		for range cap(a.ended) {
			if err := <-a.ended; err != nil && !errors.Is(err, context.Canceled) {
				errs = append(errs, err)
			}
		}
	}
	if a.directory != nil {
		errs = append(errs, a.directory.Close())
	}
	for _, nc := range a.conns {
		nc.Close()
	}
	if a.server != nil {
		a.server.Shutdown()
	}
	return errors.Join(errs...)
}
