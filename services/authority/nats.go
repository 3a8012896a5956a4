package authority

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"

	"watchword.dev/events"
	"watchword.dev/events/fault"
	"watchword.dev/services/internal/command"
)

// The subjects on which the pen is asked. Nodes publish there, the pen listens.
//
// A command goes to the pen of one term: behind SubjectDo stands a dot and the
// term, which the answer to SubjectHead names. A pen that was stopped and goes
// on listens a moment longer than it holds the pen. Were the subject the same
// for all, it would tell those who ask the new pen that nothing was done.
const (
	SubjectDo   = "ww.cmd.do"
	SubjectHead = "ww.cmd.head"

	subjectPulse = "ww.live.core.pulse"
)

// subjectOfTerm is where the pen of a term hears commands.
func subjectOfTerm(term uint64) string { return SubjectDo + "." + strconv.FormatUint(term, 10) }

// headerTimeout tells for how many milliseconds the asker waits.
const headerTimeout = "Watchword-Timeout"

const (
	askTimeout   = 10 * time.Second // of a command whose caller has no deadline
	headTimeout  = 2 * time.Second
	headTry      = time.Second // of which one try may take so much
	servedAtOnce = 1 << 15     // requests under way at one pen
)

// reply is the answer to a request: a result, a head or a fault.
type reply struct {
	Result *command.Result `json:"result,omitzero"`
	Head   uint64          `json:"head,omitzero"`
	Term   uint64          `json:"term,omitzero"` // of the pen that tells the head
	Fault  *wireFault      `json:"fault,omitzero"`
}

// wireFault is a fault on its way to another node, without its cause.
type wireFault struct {
	Code         fault.Code    `json:"code"`
	Pointer      fault.Pointer `json:"pointer,omitzero"`
	Detail       string        `json:"detail,omitzero"`
	Milliseconds int64         `json:"retry_after_ms,omitzero"`
}

// wire keeps the resources of a grant as they were sent, byte for byte.
var wire = jsontext.PreserveRawStrings(true)

func (w *wireFault) fault() *fault.Error {
	e := fault.New(w.Code).WithPointer(w.Pointer).WithRetryAfter(time.Duration(w.Milliseconds) * time.Millisecond)
	e.Detail = w.Detail
	return e
}

func faultReply(err error) reply {
	f := fault.From(err)
	return reply{Fault: &wireFault{f.Code, f.Pointer, f.Detail, f.RetryAfter.Milliseconds()}}
}

// Serve answers the requests of other nodes as long as the pen is active, until
// ctx ends. A standby does not listen, so that requests find the pen or nobody.
func Serve(ctx context.Context, nc *nats.Conn, p *Pen) error {
	var leaving sync.WaitGroup
	defer leaving.Wait()
	for {
		mode, changed := p.Mode()
		if mode == Active {
			if err := serveActive(ctx, nc, p, changed, &leaving); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// serveActive listens until the mode changes or ctx ends. What was heard by
// then is answered, in leaving: with NoPen, which tells the asker to try again.
//
// Heads are not drained by NATS, which would answer those that are still on the
// way: a subscription that drains while the connection is away comes back with
// it, and the server keeps it for good. Each later request would be delivered
// twice and spend the one answer that it is allowed. A term's commands come to
// an end with it.
func serveActive(ctx context.Context, nc *nats.Conn, p *Pen, changed <-chan struct{}, leaving *sync.WaitGroup) error {
	s := &server{pen: p, term: p.ownTerm.Load(), heard: make(chan *nats.Msg, servedAtOnce), room: make(chan struct{}, servedAtOnce)}
	subject := subjectOfTerm(s.term)
	do, err := nc.ChanSubscribe(subject, s.heard)
	if err != nil {
		return fmt.Errorf("authority: listen on %s: %w", subject, err)
	}
	head, err := nc.ChanSubscribe(SubjectHead, s.heard)
	if err != nil {
		_ = do.Unsubscribe()
		return fmt.Errorf("authority: listen on %s: %w", SubjectHead, err)
	}
	closed := do.StatusChanged(nats.SubscriptionClosed)
	s.answerUntil(changed, ctx.Done())
	_ = head.Unsubscribe() // fails when the connection is closed: then it is gone
	if do.Drain() != nil {
		closed = nil
	}
	leaving.Go(func() {
		if closed != nil {
			s.answerClosing(closed)
		}
		s.answerRest()
		s.group.Wait()
	})
	if ctx.Err() == nil && nc.IsClosed() {
		return nats.ErrConnectionClosed
	}
	return nil
}

// server answers the requests of one term.
type server struct {
	pen   *Pen
	term  uint64
	heard chan *nats.Msg
	room  chan struct{} // requests under way
	group sync.WaitGroup
}

// answerUntil answers what comes until one of the channels is closed.
func (s *server) answerUntil(changed, done <-chan struct{}) {
	for {
		select {
		case m := <-s.heard:
			s.answer(m)
		case <-changed:
			return
		case <-done:
			return
		}
	}
}

// answerClosing answers what comes until the subscription is closed.
func (s *server) answerClosing(closed <-chan nats.SubStatus) {
	for {
		select {
		case m := <-s.heard:
			s.answer(m)
		case <-closed:
			return
		}
	}
}

// answerRest answers what has come.
func (s *server) answerRest() {
	for {
		select {
		case m := <-s.heard:
			s.answer(m)
		default:
			return
		}
	}
}

// answer answers one request without waiting for what it takes. Commands are in
// their lines in the order in which they came, so that a declared repeat never
// overtakes the request that it repeats.
func (s *server) answer(m *nats.Msg) {
	p := s.pen
	select {
	case s.room <- struct{}{}:
	default:
		p.respond(m, faultReply(fault.Overloaded))
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeoutOf(m))
	then := func() reply { return p.answerHead(ctx, s.term) }
	if m.Subject != SubjectHead {
		then = p.answerDo(ctx, m.Data)
	}
	s.group.Go(func() {
		defer func() { <-s.room }()
		defer cancel()
		p.respond(m, then())
	})
}

// timeoutOf returns for how long the asker waits.
func timeoutOf(m *nats.Msg) time.Duration {
	ms, err := strconv.ParseInt(m.Header.Get(headerTimeout), 10, 64)
	if err != nil || ms <= 0 || ms > askTimeout.Milliseconds() {
		return askTimeout
	}
	return time.Duration(ms) * time.Millisecond
}

func (p *Pen) respond(m *nats.Msg, r reply) {
	b, err := json.Marshal(r, wire)
	if err == nil {
		err = m.Respond(b)
	}
	if err != nil {
		p.cfg.Logger.Warn("an answer could not be sent", "subject", m.Subject, "error", err)
	}
}

// answerDo puts a command in its line and returns what waits for its answer.
func (p *Pen) answerDo(ctx context.Context, b []byte) func() reply {
	by, cmd, err := command.Decode(b)
	if err != nil {
		return func() reply { return faultReply(fault.Wrap(fault.InvalidField, err)) }
	}
	wait := p.begin(ctx, by, cmd)
	return func() reply {
		res, err := wait()
		if err != nil {
			if f := fault.From(err); f.Entry().Status >= 500 {
				p.cfg.Logger.Warn("a command failed", "verb", cmd.Verb(), "request", by.RequestID, "error", err)
			}
			return faultReply(err)
		}
		return reply{Result: &res}
	}
}

func (p *Pen) answerHead(ctx context.Context, term uint64) reply {
	head, err := p.Head(ctx)
	if err != nil {
		return faultReply(err)
	}
	return reply{Head: head, Term: term}
}

// Remote is the way to the pen over NATS. It implements command.Authority.
//
// When nobody holds the pen, or a request meets a pen that is just being put
// down, nothing was done, and Remote asks again for a short while. When an
// answer is lost the outcome is unknown, and it says so: to ask again is the
// caller's decision, with the mark of a repeat.
//
// It learns whom to ask from the answers to Head, and sooner from the pulses:
// a pen that is stopped still seems to listen.
type Remote struct {
	nc       *nats.Conn
	patience time.Duration
	term     atomic.Uint64 // of the newest pen that is known; zero: ask
	watching sync.Once     // the pulses

	mu      sync.Mutex
	running bool
	next    *headCall // of those who have asked since the running one left
}

var _ command.Authority = (*Remote)(nil)

type headCall struct {
	done chan struct{}
	head uint64
	err  error
}

// NewRemote returns the way to the pen over nc. It asks for patience long when
// it finds no pen; a takeover takes a few seconds.
func NewRemote(nc *nats.Conn, patience time.Duration) *Remote {
	return &Remote{nc: nc, patience: patience}
}

// Do implements command.Authority.
func (r *Remote) Do(ctx context.Context, by command.Caller, cmd command.Command) (command.Result, error) {
	if by.System {
		return command.Result{}, fault.Wrap(fault.Internal, errors.New("authority: the system's commands do not leave the process"))
	}
	b, err := command.Encode(by, cmd)
	if err != nil {
		return command.Result{}, fault.Wrap(fault.InvalidField, err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	r.watching.Do(r.watch)
	answer, err := r.again(ctx, func() (reply, error) { return r.askPen(ctx, b) })
	switch {
	case err != nil:
		return command.Result{}, err
	case answer.Result == nil:
		return command.Result{}, fault.Wrap(fault.OutcomeUnknown, errors.New("authority: an answer without a result"))
	}
	return *answer.Result, nil
}

// Head implements command.Authority. One request serves all who ask before it
// leaves; those who come later wait for the next, because the head may have
// moved on.
func (r *Remote) Head(ctx context.Context) (uint64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &headCall{done: make(chan struct{})}
	}
	call := r.next
	if !r.running {
		r.running = true
		go r.askHeads()
	}
	r.mu.Unlock()
	select {
	case <-call.done:
		return call.head, call.err
	case <-ctx.Done():
		return 0, fault.Wrap(fault.Unavailable, ctx.Err())
	}
}

func (r *Remote) askHeads() {
	for {
		r.mu.Lock()
		call := r.next
		r.next = nil
		r.running = call != nil
		r.mu.Unlock()
		if call == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), headTimeout)
		answer, err := r.again(ctx, func() (reply, error) { return r.askHead(ctx) })
		cancel()
		call.head, call.err = answer.Head, err
		close(call.done)
	}
}

// watch follows the pulses for the term of the pen. They are a hint: who wants
// to be believed answers on the subject of the term.
func (r *Remote) watch() {
	_, _ = r.nc.Subscribe(subjectPulse, func(m *nats.Msg) {
		var p events.Pulse
		if json.Unmarshal(m.Data, &p) == nil && !p.Claim && !p.Resigned {
			r.learn(p.Term)
		}
	}) // without the hint, a head tells after the next time limit
}

// learn remembers the term of a pen, unless a newer one is known.
func (r *Remote) learn(term uint64) {
	for known := r.term.Load(); known < term; known = r.term.Load() {
		if r.term.CompareAndSwap(known, term) {
			return
		}
	}
}

// again asks, and asks again while there is no pen and patience is left.
func (r *Remote) again(ctx context.Context, ask func() (reply, error)) (reply, error) {
	until := time.Now().Add(r.patience)
	for {
		answer, err := ask()
		if err == nil || !errors.Is(err, fault.NoPen) || !time.Now().Before(until) {
			return answer, err
		}
		t := time.NewTimer(50 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return answer, err
		}
	}
}

// askPen sends a command to the pen of the newest term that is known. No other
// pen hears it, so that what this one says is all that there is to say.
func (r *Remote) askPen(ctx context.Context, b []byte) (reply, error) {
	term := r.term.Load()
	if term == 0 {
		answer, err := r.askHead(ctx)
		if err != nil {
			return reply{}, err
		}
		if term = answer.Term; term == 0 {
			return reply{}, fault.Wrap(fault.NoPen, errors.New("authority: a pen without a term"))
		}
		r.learn(term)
	}
	answer, err := r.askOnce(ctx, subjectOfTerm(term), b)
	if errors.Is(err, fault.NoPen) || errors.Is(err, fault.OutcomeUnknown) {
		r.term.CompareAndSwap(term, 0)
	}
	return answer, err
}

// askHead asks for the head. A question has no outcome that could be unknown.
func (r *Remote) askHead(ctx context.Context) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, headTry)
	defer cancel()
	answer, err := r.askOnce(ctx, SubjectHead, nil)
	if errors.Is(err, fault.OutcomeUnknown) {
		err = fault.Wrap(fault.NoPen, err)
	}
	return answer, err
}

func (r *Remote) askOnce(ctx context.Context, subject string, b []byte) (reply, error) {
	m := &nats.Msg{Subject: subject, Data: b, Header: nats.Header{}}
	if deadline, ok := ctx.Deadline(); ok {
		m.Header.Set(headerTimeout, strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10))
	}
	got, err := r.nc.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return reply{}, fault.Wrap(fault.BodyTooLarge, err)
	case errors.Is(err, nats.ErrNoResponders):
		return reply{}, fault.Wrap(fault.NoPen, err) // it has reached nobody
	case err != nil:
		return reply{}, fault.Wrap(fault.OutcomeUnknown, err)
	}
	var answer reply
	if err := json.Unmarshal(got.Data, &answer, wire); err != nil {
		return reply{}, fault.Wrap(fault.OutcomeUnknown, fmt.Errorf("authority: a strange answer: %w", err))
	}
	if answer.Fault != nil {
		return reply{}, answer.Fault.fault()
	}
	return answer, nil
}

// Nearest asks the pen of this process while it is active, and the way to the
// others' else. It implements command.Authority.
type Nearest struct {
	Pen  *Pen
	Away command.Authority
}

var _ command.Authority = Nearest{}

func (n Nearest) choose() command.Authority {
	if mode, _ := n.Pen.Mode(); mode == Active {
		return n.Pen
	}
	return n.Away
}

// Do implements command.Authority.
func (n Nearest) Do(ctx context.Context, by command.Caller, cmd command.Command) (command.Result, error) {
	return n.choose().Do(ctx, by, cmd)
}

// Head implements command.Authority.
func (n Nearest) Head(ctx context.Context) (uint64, error) { return n.choose().Head(ctx) }
