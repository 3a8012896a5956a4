package feed

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events"
	"watchword.dev/events/receipt"
)

// Publisher brings the receipts of an enforcing service to the installation over
// NATS. It implements receipt.Publisher: nil means that the server has stored
// what was sent.
type Publisher struct{ js jetstream.JetStream }

var _ receipt.Publisher = (*Publisher)(nil)

// NewPublisher returns a publisher on nc, which stays the caller's and has logged
// in as the enforcer: the server takes receipts in no other name.
func NewPublisher(nc *nats.Conn) (*Publisher, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	return &Publisher{js}, nil
}

// Publish stores a receipt. ctx must have a deadline.
func (p *Publisher) Publish(ctx context.Context, subject string, data []byte) error {
	// The reporter repeats by itself, and makes each receipt anew.
	if _, err := p.js.Publish(ctx, subject, data, jetstream.WithRetryAttempts(0)); err != nil {
		return fmt.Errorf("feed: receipt: %w", err)
	}
	return nil
}

// Newest returns where the ledger ends now: where one begins to read who needs
// nothing of what was before, such as a cache.
func (r *Reader) Newest(ctx context.Context) (events.Position, error) {
	head, err := r.Head(ctx)
	if err != nil {
		return events.Position{}, err
	}
	return r.PositionAt(ctx, head)
}
