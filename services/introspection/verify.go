package introspection

import (
	"net/http"
	"strconv"
	"time"

	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/internal/web"
)

// verify answers POST /v1/verify. Its speed is promised, so it is called
// without an Exchange, reads and writes in memory that is used again, and
// writes no access line: Observe counts instead.
func (s *Service) verify(rw http.ResponseWriter, r *http.Request) {
	w := s.works.Get().(*work)
	defer s.done(rw, w)
	web.SecurityHeaders(rw.Header())
	if f := s.ask(w, rw, r); f != nil {
		status, body := web.FailureBody(rw.Header(), f)
		send(rw, status, body)
	}
}

// done gives w back, and answers for a handler that panicked. Then nothing
// was written: the answer is written last, in one piece.
func (s *Service) done(rw http.ResponseWriter, w *work) {
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler {
			panic(p)
		}
		f := web.Recovered(p)
		s.Log.Error("verify", "fault", string(f.Code), "cause", f.Error())
		status, body := web.FailureBody(rw.Header(), f)
		send(rw, status, body)
		return // w is dropped: nobody knows what state it is in
	}
	if w.small() {
		w.reset()
		s.works.Put(w)
	}
}

func (s *Service) ask(w *work, rw http.ResponseWriter, r *http.Request) *fault.Error {
	if r.Method != http.MethodPost {
		rw.Header().Set("Allow", "POST")
		return fault.New(fault.MethodNotAllowed)
	}
	by, f := s.enforcer(web.BearerSecret(r.Header))
	if f != nil {
		return s.throttle(rw, r, f)
	}
	if !isJSON(r.Header) {
		return fault.New(fault.UnsupportedContentType)
	}
	if f := w.read(rw, r); f != nil {
		return f
	}
	if f := w.parse(); f != nil {
		return f
	}
	if f := s.reach(r); f != nil {
		return f
	}
	status := s.decide(w, &by)
	h := rw.Header()
	h[web.SequenceHeader] = []string{strconv.FormatUint(w.answer.Sequence, 10)}
	if status == http.StatusServiceUnavailable {
		h["Retry-After"] = []string{"1"}
	}
	send(rw, status, w.out)
	return nil
}

// decide answers every question into w.out. w.answer is left as the decision
// that rests on the lowest sequence.
func (s *Service) decide(w *work, by *verifyindex.EnforcerInfo) (status int) {
	lowest := s.Decider.Sequence()
	if w.batch {
		w.out = append(w.out, '[')
	}
	for i := range w.asked {
		q := &w.asked[i]
		w.ask.Permission, w.ask.Resource, w.ask.Address = q.permission, w.keys[q.first:q.end], q.address
		w.answer = s.Decider.VerifyWithin(by.Ceiling, q.secret, &w.ask)
		if s.Observe != nil {
			s.Observe(by.ID, &w.answer)
		}
		if w.lane != nil {
			w.lane.Decision(&w.answer, &w.ask)
		}
		if i > 0 {
			w.out = append(w.out, ',')
		}
		w.out = appendDecision(w.out, &w.answer)
		if i == 0 || w.answer.Sequence < lowest {
			lowest = w.answer.Sequence
		}
	}
	status = http.StatusOK
	switch {
	case w.batch:
		w.out = append(w.out, ']')
	case w.answer.Verdict == token.VerdictUnavailable:
		status = http.StatusServiceUnavailable
	}
	w.answer.Sequence = lowest
	return status
}

// appendDecision appends d as JSON. What is not known is left out; nothing in
// it needs escaping.
func appendDecision(b []byte, d *token.Decision) []byte {
	b = append(b, `{"decision":"`...)
	b = append(b, d.Verdict.String()...)
	b = append(b, `","reason":"`...)
	b = append(b, d.Reason.String()...)
	b = append(b, '"')
	b = appendID(b, `,"token_id":"`, d.Token)
	b = appendID(b, `,"owner":"`, d.Owner)
	if d.OwnerKind != token.OwnerNone {
		b = append(b, `,"owner_kind":"`...)
		b = append(b, d.OwnerKind.String()...)
		b = append(b, '"')
	}
	b = appendID(b, `,"account_id":"`, d.Account)
	b = appendID(b, `,"policy_id":"`, d.Policy)
	b = append(b, `,"sequence":`...)
	b = strconv.AppendUint(b, d.Sequence, 10)
	b = append(b, `,"age_ms":`...)
	b = strconv.AppendInt(b, d.Age.Milliseconds(), 10)
	b = append(b, `,"stale":`...)
	b = strconv.AppendBool(b, d.Stale)
	if d.Bound > 0 {
		b = append(b, `,"bound_ms":`...)
		b = strconv.AppendInt(b, d.Bound.Milliseconds(), 10)
	}
	if !d.Until.IsZero() {
		b = append(b, `,"until":"`...)
		b = d.Until.UTC().AppendFormat(b, time.RFC3339Nano)
		b = append(b, '"')
	}
	if d.ByAddress {
		b = append(b, `,"by_address":true`...)
	}
	if d.ByPlace {
		b = append(b, `,"by_place":true`...)
	}
	return append(b, '}')
}

func appendID(b []byte, before string, id token.ID) []byte {
	if id.IsZero() {
		return b
	}
	b = append(b, before...)
	b, _ = id.AppendText(b) // never fails
	return append(b, '"')
}

// isJSON accepts what says that it is JSON, or nothing.
func isJSON(h http.Header) bool {
	lines := h["Content-Type"]
	return len(lines) == 0 || len(lines) == 1 && lines[0] == "application/json" || web.JSONType(h) == nil
}

var jsonType = []string{"application/json"}

// buffered is how much of an answer net/http gathers before it needs to know
// the length; of less it finds that out for itself.
const buffered = 2048

// send writes the whole answer at once.
func send(rw http.ResponseWriter, status int, body []byte) {
	h := rw.Header()
	h["Content-Type"] = jsonType
	if len(body) >= buffered {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	if status != http.StatusOK {
		rw.WriteHeader(status)
	}
	_, _ = rw.Write(body) // the client may have gone
}
