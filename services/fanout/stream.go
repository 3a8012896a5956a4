package fanout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/fault"
	"watchword.dev/events/feed/sse"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/web"
)

// wish is what a request asks for.
type wish struct {
	newest bool // begin at the end
	epoch  uint32
	seq    uint64
	once   bool // end when all that there is was sent
}

func readWish(r *http.Request) (wish, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return wish{}, fault.New(fault.InvalidParameter)
	}
	for name, values := range q {
		if name != sse.After && name != sse.Follow || len(values) != 1 {
			return wish{}, fault.New(fault.InvalidParameter).WithDetail("only after and follow, once each")
		}
	}
	var w wish
	switch q.Get(sse.Follow) {
	case "", "true":
	case "false":
		w.once = true
	default:
		return wish{}, fault.New(fault.InvalidParameter).WithDetail("follow is true or false")
	}
	// A browser that comes back repeats the query and adds the header.
	text, last := q.Get(sse.After), r.Header["Last-Event-Id"]
	if len(last) > 1 {
		return wish{}, fault.New(fault.InvalidHeader)
	}
	if len(last) == 1 && last[0] != "" {
		if w.epoch, w.seq, err = sse.ParseID(last[0]); err != nil {
			return wish{}, fault.New(fault.InvalidHeader)
		}
		return w, nil
	}
	if text == "" || text == sse.Newest {
		w.newest = true
		return w, nil
	}
	if w.epoch, w.seq, err = sse.ParseID(text); err != nil {
		return wish{}, fault.New(fault.InvalidParameter).WithDetail("after is an id, a sequence or head")
	}
	return w, nil
}

// stream is one client.
type stream struct {
	s     *Service
	owner token.ID
	ctx   context.Context
	cut   context.CancelCauseFunc
	last  atomic.Uint64 // the sequence after which it ends; 0 while it does not

	out  io.Writer
	rc   *http.ResponseController
	lock sync.Mutex // guards haste
	// haste bounds what is left of a stream that must end.
	haste time.Time

	sent  events.Position
	beats uint64
	quiet time.Time // when something was sent last
}

// lastWords is how long the owner of a stream that was retired may take for
// what is left of it.
const lastWords = time.Second

// retire ends the stream behind seq, which tells its owner why, and at once if
// it is not that far.
func (t *stream) retire(seq uint64) {
	t.last.Store(seq)
	t.lock.Lock()
	t.haste = time.Now().Add(lastWords)
	if t.rc != nil {
		_ = t.rc.SetWriteDeadline(t.haste) // also for a write that is under way
	}
	t.lock.Unlock()
	t.cut(errRetired)
}

// serve answers GET /v1/feed.
func (s *Service) serve(x *web.Exchange) error {
	secret := web.BearerSecret(x.Request().Header)
	owner, err := s.enforcer(secret)
	if err != nil {
		return err
	}
	if err := x.Admit(owner); err != nil {
		return err
	}
	w, err := readWish(x.Request())
	if err != nil {
		return err
	}
	ctx, cut := context.WithCancelCause(x.Context())
	defer cut(nil)
	t := &stream{s: s, owner: owner, ctx: ctx, cut: cut}
	seq, err := s.hub.join(t, s.MaxStreams)
	switch {
	case errors.Is(err, errFull):
		return fault.Wrap(fault.Overloaded, err)
	case err != nil:
		return fault.Wrap(fault.NotReady, err)
	}
	defer s.hub.leave(t)
	// A retirement up to seq is the index's to know, one behind it cuts t.
	if err := s.settled(ctx, secret, seq); err != nil {
		return err
	}
	head, err := t.locate(w)
	if err != nil {
		return err
	}
	if t.out, err = x.Stream(http.StatusOK, sse.ContentType); err != nil {
		return err
	}
	if x.Request().Method == http.MethodHead {
		return nil
	}
	t.lock.Lock()
	t.rc = x.Controller()
	t.lock.Unlock()
	// It is the client's to go away, and the next one's to come back: how a
	// stream that was answered has ended is no fault of the exchange.
	if err := t.run(w, head); err != nil {
		s.Log.Debug("a feed has ended", "enforcer", owner, "sequence", t.sent.Seq, "cause", err)
	}
	return nil
}

// settled asks who it is again when the index has reached seq.
func (s *Service) settled(ctx context.Context, secret string, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, s.Settle)
	defer cancel()
	if err := s.Enforcers.Wait(ctx, seq); err != nil {
		return fault.Wrap(fault.NotReady, err)
	}
	_, err := s.enforcer(secret)
	return err
}

// locate finds where the stream begins, and where the ledger ends.
func (t *stream) locate(w wish) (head uint64, err error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.s.Settle)
	defer cancel()
	if head, err = t.s.Ledger.Head(ctx); err != nil {
		return 0, fault.Wrap(fault.Unavailable, err)
	}
	if w.newest {
		w.seq = head
	}
	if w.seq > head {
		return 0, fault.Wrap(fault.FeedRewound, fmt.Errorf("asked for %d, the ledger ends at %d", w.seq, head))
	}
	at, known := t.s.hub.position(w.seq)
	if !known {
		at, err = t.s.Ledger.PositionAt(ctx, w.seq)
	}
	switch {
	case errors.Is(err, events.ErrRewind):
		return 0, fault.Wrap(fault.FeedRewound, err)
	case err != nil:
		return 0, fault.Wrap(fault.Unavailable, err)
	case w.epoch != 0 && w.epoch != at.Epoch:
		return 0, fault.New(fault.FeedReplaced)
	}
	t.sent = at
	return head, nil
}

// run sends until the stream ends, and returns why.
func (t *stream) run(w wish, head uint64) error {
	begin, err := sse.AppendPlace(nil, sse.PlaceOf(t.sent, head, t.s.PulseKey))
	if err != nil {
		return err
	}
	if err := t.write(begin, true); err != nil {
		return err
	}
	beat := time.NewTicker(t.s.Beat)
	defer beat.Stop()
	for {
		g := t.s.hub.look(t.sent.Seq)
		if g.behind {
			if err := t.catchUp(); err != nil {
				return err
			}
			continue
		}
		if err := t.send(g); err != nil {
			return err
		}
		if last := t.last.Load(); last > 0 && t.sent.Seq >= last {
			return errRetired
		}
		if w.once && t.sent.Seq >= head {
			return nil
		}
		select {
		case <-g.changed:
		case <-beat.C:
			if time.Since(t.quiet) >= t.s.Beat {
				if err := t.write([]byte(":\n\n"), true); err != nil {
					return err
				}
			}
		case <-t.ctx.Done():
			if last := t.last.Load(); last > t.sent.Seq && t.s.hub.reaches(t.sent.Seq) {
				continue // it gets its retirement
			}
			return context.Cause(t.ctx)
		}
	}
}

// send writes what the hub has for the stream, the newest pulse last.
func (t *stream) send(g glance) error {
	last := t.last.Load()
	for i := range g.frames {
		if last > 0 && g.frames[i].end.Seq > last {
			break
		}
		if err := t.write(g.frames[i].data, false); err != nil {
			return err
		}
		t.sent = g.frames[i].end
	}
	if last == 0 && g.pulse != nil && g.beats != t.beats {
		t.beats = g.beats
		if err := t.write(g.pulse, false); err != nil {
			return err
		}
	}
	return t.rc.Flush()
}

var errWithin = errors.New("fanout: within the ring")

// await waits until there is room in turns, and takes it.
func (t *stream) await(turns chan struct{}) error {
	beat := time.NewTicker(t.s.Beat)
	defer beat.Stop()
	for {
		select {
		case turns <- struct{}{}:
			return nil
		case <-beat.C:
			if err := t.write([]byte(":\n\n"), true); err != nil {
				return err
			}
		case <-t.ctx.Done():
			return context.Cause(t.ctx)
		}
	}
}

// catchUp reads what the ring does not hold any more, when it is its turn among
// its owner's streams, and then among all.
func (t *stream) catchUp() error {
	for _, turns := range []chan struct{}{t.s.hub.turnsOf(t.owner, t.s.MaxCatchUps), t.s.behind} {
		if err := t.await(turns); err != nil {
			return err
		}
		defer func() { <-turns }()
	}
	var buf []byte
	err := t.s.Ledger.Read(t.ctx, t.sent, func(c events.Commit) error {
		buf = sse.AppendCommit(buf[:0], &c)
		if err := t.write(buf, c.Pending == 0); err != nil {
			return err
		}
		t.sent = c.End
		if t.s.hub.reaches(c.Seq) {
			return errWithin
		}
		return nil
	})
	switch {
	case errors.Is(err, errWithin):
		return t.rc.Flush()
	case t.ctx.Err() != nil:
		return context.Cause(t.ctx)
	}
	return err
}

// write sends b within the time that a client has.
func (t *stream) write(b []byte, flush bool) error {
	t.lock.Lock()
	now := time.Now()
	deadline := now.Add(t.s.WriteTimeout)
	if !t.haste.IsZero() && t.haste.Before(deadline) {
		deadline = t.haste
	}
	err := t.rc.SetWriteDeadline(deadline)
	t.lock.Unlock()
	if err != nil {
		return err
	}
	t.quiet = now
	if _, err := t.out.Write(b); err != nil || !flush {
		return err
	}
	return t.rc.Flush()
}
