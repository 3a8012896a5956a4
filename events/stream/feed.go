package stream

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"watchword.dev/events"
)

// How far a feed works ahead. The server sends up to pullMessages that were
// not taken yet, and up to pullBytes for each of the two or three requests that
// are open at a time; decoded commits wait up to decodedMax or decodedBytes.
const (
	pullMessages = 512
	pullBytes    = 8 << 20
	pullExpires  = 30 * time.Second
	// consumerIdle must be longer than pullExpires: a consumer without an
	// open request counts as idle.
	consumerIdle = 2 * pullExpires
	decodedMax   = 256
	decodedBytes = 4 << 20
)

// feed pulls messages from a consumer and decodes them ahead of the reader.
//
// It speaks the pull protocol itself, on a plain subscription: the client
// library's Consume sets a timer back twice and takes several locks for each
// message, and its ordered consumer subscribes anew without asking us, who must
// look first whether the ledger still has what was read.
type feed struct {
	nc       *nats.Conn
	consumer string
	inbox    string
	sub      *nats.Subscription

	// Of the subscription's goroutine.
	at        events.Position
	delivered uint64 // messages of the consumer, all counted
	open      int    // messages that were asked for and have not come

	ready chan struct{} // has one element when the reader should look
	room  chan struct{} // has one element when the decoder should look
	quit  chan struct{} // closed by stop

	mu      sync.Mutex
	decoded []events.Commit
	bytes   int   // payload of decoded
	err     error // what ended the feed, after all of decoded
}

func newFeed(nc *nats.Conn, consumer string, at events.Position) (*feed, error) {
	f := &feed{
		nc:       nc,
		consumer: consumer,
		inbox:    nc.NewInbox(),
		at:       at,
		ready:    make(chan struct{}, 1),
		room:     make(chan struct{}, 1),
		quit:     make(chan struct{}),
		// Asked for here, before the subscription's goroutine can run.
		open: pullMessages,
	}
	sub, err := nc.Subscribe(f.inbox, f.message)
	if err != nil {
		return nil, err
	}
	f.sub = sub
	if err := f.pull(pullMessages); err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

// stop ends the feed. What it has not handed out is dropped.
func (f *feed) stop() {
	close(f.quit)
	// Both are for the server's comfort, and nobody waits for an answer: it
	// forgets an idle consumer by itself.
	_ = f.sub.Unsubscribe()
	_ = f.nc.Publish("$JS.API.CONSUMER.DELETE."+EventsStream+"."+f.consumer, nil)
}

// pull asks for n messages more.
func (f *feed) pull(n int) error {
	body := make([]byte, 0, 96)
	body = append(body, `{"batch":`...)
	body = strconv.AppendInt(body, int64(n), 10)
	body = append(body, `,"max_bytes":`...)
	body = strconv.AppendInt(body, pullBytes, 10)
	body = append(body, `,"expires":`...)
	body = strconv.AppendInt(body, int64(pullExpires), 10)
	body = append(body, '}')
	return f.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+EventsStream+"."+f.consumer, f.inbox, body)
}

// message is called for all that comes to the inbox, one at a time.
func (f *feed) message(m *nats.Msg) {
	if f.err != nil { // only this goroutine sets it
		return
	}
	err := f.accept(m)
	if err == nil && f.open <= pullMessages/2 {
		n := pullMessages - f.open
		f.open = pullMessages
		if err = f.pull(n); err != nil {
			err = lost("pull: %w", err)
		}
	}
	if err != nil {
		f.fail(err)
	}
}

func (f *feed) accept(m *nats.Msg) error {
	if len(m.Data) == 0 && m.Header.Get("Status") != "" {
		return f.status(m.Header)
	}
	place, err := parseReply(m.Reply)
	if err != nil {
		return lost("%w", err)
	}
	f.open--
	f.delivered++
	if place.delivered != f.delivered || place.seq <= f.at.Seq {
		// Not the ledger has a gap, but the way from the consumer to here; or
		// the consumer stands on a replica that is far behind.
		return lost("message %d of the consumer came as number %d, sequence %d after %d", place.delivered, f.delivered, place.seq, f.at.Seq)
	}
	return f.decode(m, place)
}

// status is called for a message of the server about a pull request.
func (f *feed) status(h nats.Header) error {
	if h.Get("Status") == "100" {
		return nil
	}
	// A request that has ended before it was filled says how much is left of
	// it. All else means that the consumer is gone or about to go.
	left, err := strconv.Atoi(h.Get("Nats-Pending-Messages"))
	if err != nil {
		return lost("status %s: %s", h.Get("Status"), h.Get("Description"))
	}
	f.open -= left
	return nil
}

// decode appends the commit in m to those that wait for the reader.
func (f *feed) decode(m *nats.Msg, place place) error {
	spare, err := f.slot()
	if err != nil {
		return err
	}
	c, err := events.DecodeCommit(f.at, place.seq, m.Subject, m.Data, spare)
	if err != nil {
		return err
	}
	c.Pending = place.pending
	f.at = c.End
	f.mu.Lock()
	f.decoded = append(f.decoded, c)
	f.bytes += len(m.Data)
	f.mu.Unlock()
	signal(f.ready)
	return nil
}

// slot waits until there is room for a commit and returns the records of an
// older one, to be used again.
func (f *feed) slot() ([]events.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.decoded) >= decodedMax || f.bytes >= decodedBytes {
		f.mu.Unlock()
		select {
		case <-f.room:
		case <-f.quit:
		}
		f.mu.Lock()
		select {
		case <-f.quit:
			return nil, errStopped
		default:
		}
	}
	n := len(f.decoded)
	if n == cap(f.decoded) {
		return nil, nil
	}
	old := &f.decoded[:n+1][n]
	spare := old.Records
	old.Records = nil // the slice may come back with this slot still stale
	return spare, nil
}

var errStopped = errors.New("stream: stopped")

func (f *feed) fail(err error) {
	f.mu.Lock()
	f.err = err
	f.mu.Unlock()
	signal(f.ready)
}

// take returns what has been decoded, or the error that ended the feed when
// all was taken. done is what it returned before, whose memory is used again.
func (f *feed) take(done []events.Commit) ([]events.Commit, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.decoded) == 0 {
		return done[:0], f.err
	}
	batch := f.decoded
	f.decoded, f.bytes = done[:0], 0
	signal(f.room)
	return batch, nil
}

// signal makes c hold an element.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// place is what the server says about a message, in its reply subject.
type place struct {
	delivered uint64 // how many the consumer has delivered, with this one
	seq       uint64 // in the stream
	pending   uint64 // behind this one
}

// parseReply reads a reply subject, in the form of
//
//	$JS.ACK.<stream>.<consumer>.<tries>.<sequence>.<delivered>.<time>.<pending>
//
// or with <domain>.<account> after ACK and possibly one more element at the
// end. nats.go's Metadata does the same with a dozen allocations.
func parseReply(reply string) (place, error) {
	const prefix = "$JS.ACK."
	var from [13]int // where each element starts; the last entry is the end
	n := 0
	if len(reply) < len(prefix) || reply[:len(prefix)] != prefix {
		return place{}, fmt.Errorf("stream: a message without its place: %q", reply)
	}
	for i := len(prefix) - 1; i < len(reply); i++ {
		if reply[i] == '.' {
			if n == len(from)-1 {
				return place{}, fmt.Errorf("stream: a strange place: %q", reply)
			}
			from[n] = i + 1
			n++
		}
	}
	from[n] = len(reply) + 1
	first := 0
	switch {
	case n == 7:
	case n >= 9:
		first = 2
	default:
		return place{}, fmt.Errorf("stream: a strange place: %q", reply)
	}
	element := func(i int) string { return reply[from[first+i] : from[first+i+1]-1] }
	var p place
	var errs [3]error
	p.seq, errs[0] = strconv.ParseUint(element(3), 10, 64)
	p.delivered, errs[1] = strconv.ParseUint(element(4), 10, 64)
	p.pending, errs[2] = strconv.ParseUint(element(6), 10, 64)
	if errs != [3]error{} {
		return place{}, fmt.Errorf("stream: a strange place: %q", reply)
	}
	return p, nil
}
