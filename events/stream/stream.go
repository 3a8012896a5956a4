package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events"
)

// Config are the settings of a Log. The zero value is good for production.
type Config struct {
	// AppendTimeout bounds the wait for the answer to an append or a stored
	// pulse, after which it is ambiguous. Zero means one second: several
	// times a slow fsync, and short enough that a cluster that has lost its
	// leader, which shows as silence, does not hold the pen for long. An
	// answer that comes too late costs one look at the tail, no more.
	AppendTimeout time.Duration
	// RequestTimeout bounds every other request; zero means five seconds.
	RequestTimeout time.Duration
	// IdleCheck is how long a reader hears nothing before it asks for the
	// head, to notice a ledger that has lost its tail and a consumer that has
	// died; zero means five seconds.
	IdleCheck time.Duration
	// Log gets the causes for which a reader has subscribed anew; nil
	// discards them.
	Log *slog.Logger
}

func (c *Config) setDefaults() {
	if c.AppendTimeout <= 0 {
		c.AppendTimeout = time.Second
	}
	if c.RequestTimeout <= 0 {
		c.RequestTimeout = 5 * time.Second
	}
	if c.IdleCheck <= 0 {
		c.IdleCheck = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Log is the ledger on one connection. It is safe for concurrent use.
type Log struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	cfg Config
}

var (
	_ events.Log    = (*Log)(nil)
	_ events.Pulses = (*Log)(nil)
)

// ErrNoStream says that the server has no ledger. It is never made on the way:
// a store that was opened with a wrong key looks just as empty.
var ErrNoStream = errors.New("stream: the server has no stream " + EventsStream)

// Open returns the ledger on nc, or ErrNoStream. The connection stays the
// caller's.
func Open(ctx context.Context, nc *nats.Conn, cfg Config) (*Log, error) {
	cfg.setDefaults()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	l := &Log{nc: nc, js: js, cfg: cfg}
	if _, err := l.Head(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// Codes of JetStream's API errors that are not in nats.go, or are told apart
// here.
const (
	codeNoMessage         = 10037
	codeStreamNotFound    = 10059
	codeWrongLastSequence = 10071
	codeStoreFailed       = 10077
	codeAccountLimits     = 10002
	codeNoResources       = 10023
	codeMemoryResources   = 10028
	codeStorageResources  = 10047
	codeTooLarge          = 10054
	codeOtherStream       = 10060
)

// apiError is the error member of JetStream's answers.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string {
	return e.Description + " (" + strconv.Itoa(e.ErrCode) + ")"
}

// request asks JetStream's API and decodes the answer.
func (l *Log) request(ctx context.Context, subject string, body []byte, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.RequestTimeout)
	defer cancel()
	m, err := l.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return fmt.Errorf("stream: %s: %w", subject, err)
	}
	if err := json.Unmarshal(m.Data, answer); err != nil {
		return fmt.Errorf("stream: %s: a strange answer: %w", subject, err)
	}
	return nil
}

// Head implements events.Reader. The stream's leader answers.
func (l *Log) Head(ctx context.Context) (uint64, error) {
	var info struct {
		Error *apiError `json:"error"`
		State struct {
			LastSeq uint64 `json:"last_seq"`
		} `json:"state"`
	}
	if err := l.request(ctx, "$JS.API.STREAM.INFO."+EventsStream, nil, &info); err != nil {
		return 0, err
	}
	switch e := info.Error; {
	case e == nil:
		return info.State.LastSeq, nil
	case e.ErrCode == codeStreamNotFound:
		return 0, ErrNoStream
	default:
		return 0, fmt.Errorf("stream: head: %w", e)
	}
}

// message asks the leader of a stream for one message; nil when it has none
// such. A direct get would be quicker, but any replica answers it.
func (l *Log) message(ctx context.Context, stream, query string) (data []byte, seq uint64, err error) {
	var answer struct {
		Error   *apiError `json:"error"`
		Message struct {
			Seq  uint64 `json:"seq"`
			Data []byte `json:"data"`
		} `json:"message"`
	}
	if err := l.request(ctx, "$JS.API.STREAM.MSG.GET."+stream, []byte(query), &answer); err != nil {
		return nil, 0, err
	}
	switch e := answer.Error; {
	case e == nil:
		return answer.Message.Data, answer.Message.Seq, nil
	case e.ErrCode == codeNoMessage:
		return nil, 0, nil
	default:
		return nil, 0, fmt.Errorf("stream: message of %s: %w", stream, e)
	}
}
