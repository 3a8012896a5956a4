package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// storeTimeout bounds a call of the JetStream store: a forbidden publish is
// never answered.
const storeTimeout = 5 * time.Second

// The server's codes for "this subject has a message already". The third says
// that one is being written at this moment.
const (
	errWrongLastSequence     jetstream.ErrorCode = 10071
	errMaximumPerSubject     jetstream.ErrorCode = 10077
	errConcurrentLastSubject jetstream.ErrorCode = 10164
)

// jetStreamStore keeps keys in a key-value bucket of JetStream whose stream
// refuses a second message of a subject.
type jetStreamStore struct {
	js      jetstream.JetStream
	stream  jetstream.Stream
	subject string
}

// NewJetStreamStore opens the bucket over a connection that may read and
// create keys. Erase needs a connection that may delete messages of the
// bucket's stream.
//
// The bucket is kept by fsync before acknowledging, may not lose, may not roll
// back, and is trusted with wrapped keys only.
func NewJetStreamStore(ctx context.Context, nc *nats.Conn, bucket string) (Store, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	st, err := js.Stream(ctx, "KV_"+bucket)
	if err != nil {
		return nil, fmt.Errorf("keyring: bucket %s: %w", bucket, err)
	}
	c := st.CachedInfo().Config
	if c.MaxMsgsPerSubject != 1 || !c.DiscardNewPerSubject || c.Discard != jetstream.DiscardNew || c.AllowRollup {
		return nil, fmt.Errorf("keyring: bucket %s would let a key be overwritten", bucket)
	}
	if c.AllowDirect {
		return nil, fmt.Errorf("keyring: bucket %s answers from any replica, which may not have a key yet", bucket)
	}
	return &jetStreamStore{js, st, "$KV." + bucket + "."}, nil
}

// Get implements Store: the leader answers.
func (s *jetStreamStore) Get(ctx context.Context, name string) ([]byte, error) {
	m, err := s.last(ctx, name)
	if err != nil {
		return nil, err
	}
	return m.Data, nil
}

func (s *jetStreamStore) last(ctx context.Context, name string) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	m, err := s.stream.GetLastMsgForSubject(ctx, s.subject+name)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, ErrNotFound
	}
	return m, err
}

// Create implements Store.
func (s *jetStreamStore) Create(ctx context.Context, name string, value []byte) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	_, err := s.js.Publish(ctx, s.subject+name, value, jetstream.WithExpectLastSequencePerSubject(0))
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch api.ErrorCode {
		case errWrongLastSequence, errMaximumPerSubject, errConcurrentLastSubject:
			return ErrExists
		}
	}
	return err
}

// Erase implements Store: the server overwrites the bytes.
func (s *jetStreamStore) Erase(ctx context.Context, name string) error {
	m, err := s.last(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := s.stream.SecureDeleteMsg(ctx, m.Sequence); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return err
	}
	return nil
}
