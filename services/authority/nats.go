package authority

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"

	"watchword.dev/events/fault"
	"watchword.dev/services/internal/command"
)

// The subjects on which the pen is asked. Nodes publish there, the pen listens.
const (
	SubjectDo   = "ww.cmd.do"
	SubjectHead = "ww.cmd.head"
)

// headerTimeout tells for how many milliseconds the asker waits.
const headerTimeout = "Watchword-Timeout"

const (
	askTimeout   = 10 * time.Second // of a command whose caller has no deadline
	headTimeout  = 2 * time.Second
	servedAtOnce = 1 << 15 // requests under way at one pen
)

// reply is the answer to a request: a result, a head or a fault.
type reply struct {
	Result *command.Result `json:"result,omitzero"`
	Head   uint64          `json:"head,omitzero"`
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
	for {
		mode, changed := p.Mode()
		if mode == Active {
			if err := serveActive(ctx, nc, p, changed); err != nil {
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
// then is answered.
func serveActive(ctx context.Context, nc *nats.Conn, p *Pen, changed <-chan struct{}) error {
	room := make(chan struct{}, servedAtOnce)
	var group sync.WaitGroup
	defer group.Wait()
	listen := func(subject string, answer func(context.Context, []byte) reply) (*nats.Subscription, error) {
		return nc.Subscribe(subject, func(m *nats.Msg) {
			select {
			case room <- struct{}{}:
			default:
				p.respond(m, faultReply(fault.Overloaded))
				return
			}
			group.Go(func() {
				defer func() { <-room }()
				ctx, cancel := context.WithTimeout(context.Background(), timeoutOf(m))
				defer cancel()
				p.respond(m, answer(ctx, m.Data))
			})
		})
	}
	do, err := listen(SubjectDo, p.answerDo)
	if err != nil {
		return fmt.Errorf("authority: listen on %s: %w", SubjectDo, err)
	}
	head, err := listen(SubjectHead, p.answerHead)
	if err != nil {
		_ = do.Unsubscribe()
		return fmt.Errorf("authority: listen on %s: %w", SubjectHead, err)
	}
	select {
	case <-changed:
	case <-ctx.Done():
	}
	// Drain, so that requests that have come already are answered too: with
	// NoPen, which tells the asker to try again.
	for _, sub := range []*nats.Subscription{do, head} {
		closed := sub.StatusChanged(nats.SubscriptionClosed)
		if sub.Drain() == nil {
			<-closed
		}
	}
	if ctx.Err() == nil && nc.IsClosed() {
		return nats.ErrConnectionClosed
	}
	return nil
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

func (p *Pen) answerDo(ctx context.Context, b []byte) reply {
	by, cmd, err := command.Decode(b)
	if err != nil {
		return faultReply(fault.Wrap(fault.InvalidField, err))
	}
	res, err := p.Do(ctx, by, cmd)
	if err != nil {
		if f := fault.From(err); f.Entry().Status >= 500 {
			p.cfg.Logger.Warn("a command failed", "verb", cmd.Verb(), "request", by.RequestID, "error", err)
		}
		return faultReply(err)
	}
	return reply{Result: &res}
}

func (p *Pen) answerHead(ctx context.Context, _ []byte) reply {
	head, err := p.Head(ctx)
	if err != nil {
		return faultReply(err)
	}
	return reply{Head: head}
}

// Remote is the way to the pen over NATS. It implements command.Authority.
//
// When nobody holds the pen, or a request meets a pen that is just being put
// down, nothing was done, and Remote asks again for a short while. When an
// answer is lost the outcome is unknown, and it says so: to ask again is the
// caller's decision, with the mark of a repeat.
type Remote struct {
	nc       *nats.Conn
	patience time.Duration

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
	answer, err := r.ask(ctx, SubjectDo, b)
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
		answer, err := r.ask(ctx, SubjectHead, nil)
		cancel()
		if errors.Is(err, fault.OutcomeUnknown) {
			err = fault.Wrap(fault.NoPen, err) // a question has no outcome
		}
		call.head, call.err = answer.Head, err
		close(call.done)
	}
}

// ask sends one request, and again while there is no pen and patience is left.
func (r *Remote) ask(ctx context.Context, subject string, b []byte) (reply, error) {
	until := time.Now().Add(r.patience)
	for {
		answer, err := r.askOnce(ctx, subject, b)
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

func (r *Remote) askOnce(ctx context.Context, subject string, b []byte) (reply, error) {
	m := &nats.Msg{Subject: subject, Data: b, Header: nats.Header{}}
	if deadline, ok := ctx.Deadline(); ok {
		m.Header.Set(headerTimeout, strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10))
	}
	got, err := r.nc.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return reply{}, fault.Wrap(fault.BodyTooLarge, err)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrConnectionClosed):
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
