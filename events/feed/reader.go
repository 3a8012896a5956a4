package feed

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"watchword.dev/events"
	"watchword.dev/events/stream"
	"watchword.dev/events/watermark"
)

// Config are the settings of a Reader. The zero value is good.
type Config struct {
	// PulseKey is the key under which the pen signs its pulses, as it stands
	// in log.opened. Nil takes it from there: from what is read when that
	// begins at the beginning, else from the server's word for the first
	// event. Who keeps a checkpoint keeps the key beside it.
	PulseKey ed25519.PublicKey
	// Pulse hears of each pulse that the pen has signed, and when it arrived,
	// on a goroutine of its own; it may be nil. verifyindex.Index.Observe is
	// one.
	Pulse func(p events.Pulse, arrived time.Time)
	// RequestTimeout bounds the wait for what the stream is asked for; zero
	// means five seconds.
	RequestTimeout time.Duration
	// IdleCheck is how long nothing says that the ledger is where the reader
	// is before it looks at the stream; zero means five seconds.
	IdleCheck time.Duration
	// RewindPatience is for how long the stream must be shorter than what was
	// read from it before that is an error; zero means five seconds. Any
	// replica answers, and one that was started anew may be behind.
	RewindPatience time.Duration
	// Log gets the causes of all waiting; nil discards them.
	Log *slog.Logger
}

func (c *Config) setDefaults() {
	if c.RequestTimeout <= 0 {
		c.RequestTimeout = 5 * time.Second
	}
	if c.IdleCheck <= 0 {
		c.IdleCheck = 5 * time.Second
	}
	if c.RewindPatience <= 0 {
		c.RewindPatience = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Reader follows the ledger on one connection. It is safe for concurrent use.
type Reader struct {
	nc  *nats.Conn
	cfg Config

	newest atomic.Pointer[follower] // of the Read that began last
}

var _ events.Reader = (*Reader)(nil)

// New returns a reader on nc, which stays the caller's. It may do nothing but
// subscribe to the live subjects and its inbox, and ask for messages of the
// events stream by direct gets.
func New(nc *nats.Conn, cfg Config) *Reader {
	cfg.setDefaults()
	return &Reader{nc: nc, cfg: cfg}
}

// Read implements events.Reader. fn is called on the caller's goroutine.
//
// When the server or the connection goes away, Read waits and goes on behind
// the last commit that it has delivered, after it has made sure that the ledger
// still has it. It ends only by fn, by ctx, by what is wrong with the ledger, or
// when the connection is closed for good. Memory is bounded: what comes faster
// than fn takes it is dropped, and read from the stream later.
func (r *Reader) Read(ctx context.Context, at events.Position, fn func(events.Commit) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := r.follow(at, fn)
	if err != nil {
		return err
	}
	defer f.stop()
	r.newest.Store(f)
	return f.run(ctx)
}

// directGet is where messages of the events stream are asked for.
const directGet = "$JS.API.DIRECT.GET." + stream.EventsStream

// Head implements events.Reader. Any replica answers, so that it may be a
// moment behind.
func (r *Reader) Head(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.RequestTimeout)
	defer cancel()
	m, err := r.nc.RequestWithContext(ctx, directGet, []byte(`{"last_by_subj":"`+events.SubjectPrefix+`>"}`))
	if err != nil {
		return 0, fmt.Errorf("feed: head: %w", err)
	}
	switch status := m.Header.Get("Status"); status {
	case "":
		return strconv.ParseUint(m.Header.Get(nats.JSSequence), 10, 64)
	case notFound:
		return 0, nil
	default:
		return 0, fmt.Errorf("feed: head: status %s: %s", status, m.Header.Get("Description"))
	}
}

// PositionAt returns the position at the end of the commit with this sequence,
// for a Read that does not begin at the beginning. It takes that commit's word
// for what lies before it; what comes after is checked as ever. Sequence 0 is
// the beginning.
func (r *Reader) PositionAt(ctx context.Context, seq uint64) (events.Position, error) {
	if seq == 0 {
		return events.Position{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.RequestTimeout)
	defer cancel()
	m, err := r.nc.RequestWithContext(ctx, directGet, fmt.Appendf(nil, `{"seq":%d}`, seq))
	if err != nil {
		return events.Position{}, fmt.Errorf("feed: position: %w", err)
	}
	switch status := m.Header.Get("Status"); {
	case status == "" && m.Header.Get(nats.JSSequence) == strconv.FormatUint(seq, 10):
		return stream.EndOf(m.Data, seq)
	case status == notFound:
		return events.Position{}, fmt.Errorf("%w: the ledger has no sequence %d", events.ErrRewind, seq)
	default:
		return events.Position{}, fmt.Errorf("feed: position: status %s: %s", status, m.Header.Get("Description"))
	}
}

// Age returns how old the knowledge is of whoever has been given the commits
// by the Read that began last, where a commit counts from when fn has returned:
// the time since the newest pulse arrived of which everything was delivered, or
// what the clock says since that pulse was signed if that is longer. It is false
// before the first such pulse, and when the ledger is not the pen's.
//
// Who applies later than fn returns, as a projection does, passes the pulses on
// instead, and asks the projection.
func (r *Reader) Age() (time.Duration, bool) {
	f := r.newest.Load()
	if f == nil {
		return 0, false
	}
	return f.water.Age(time.Now())
}

// Skew returns how far the pen's clock was behind this one by the newest pulse
// of the Read that began last. Beyond watermark.MaxSkew, either way, something
// is wrong.
func (r *Reader) Skew() time.Duration {
	f := r.newest.Load()
	if f == nil {
		return 0
	}
	return f.listener.Skew()
}

// recentEnds is of how many commits a Read knows where they end, to compare
// that with the pulses.
const recentEnds = 256

func (r *Reader) follow(at events.Position, fn func(events.Commit) error) (*follower, error) {
	f := &follower{
		r: r, at: at, fn: fn, verify: at.Seq > 0, gap: true, // what is there already is read from the stream
		live: make(chan *nats.Msg, liveQueue), answers: make(chan *nats.Msg, 2*batchMessages),
		inbox: r.nc.NewInbox(), broken: make(chan struct{}, 1),
	}
	f.water.Reset(at, recentEnds, nil)
	f.listener = watermark.NewListener(r.cfg.PulseKey, f.observe, r.cfg.Log)
	f.changes = r.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	go f.watch()
	var err error
	sub := func(s *nats.Subscription, e error) {
		if e == nil {
			f.subs = append(f.subs, s)
		} else if err == nil {
			err = fmt.Errorf("feed: subscribe: %w", e)
		}
	}
	sub(r.nc.ChanSubscribe(f.inbox+".*", f.answers))
	sub(r.nc.ChanSubscribe(stream.LivePrefix+"*.*", f.live)) // aggregate and verb
	sub(r.nc.Subscribe(stream.LivePulseSubject, func(m *nats.Msg) { f.listener.Hear(m.Data, time.Now()) }))
	if err != nil {
		f.stop()
		return nil, err
	}
	f.dueAt = time.Now()
	f.due = time.AfterFunc(0, func() { f.tell(isDue) })
	return f, nil
}
