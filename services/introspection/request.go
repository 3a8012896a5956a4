package introspection

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/events/usage"
	"watchword.dev/services/internal/web"
)

// The bounds of a request.
const (
	maxBody     = 1 << 20 // a batch of MaxBatch common requests is a third of it
	maxElements = 64      // of a resource chain; evaluation allows fewer
	keepBody    = 64 << 10
)

// MaxBatch is how many questions one request may ask.
const MaxBatch = 1000

// question is one verification that is asked for. Its texts lie in the work
// from which it came and die with it.
type question struct {
	secret     string
	permission string
	address    netip.Addr
	first, end int // of its chain, in the work's keys
	has        members
}

// members are the ones that a question has named.
type members uint8

const (
	hasSecret members = 1 << iota
	hasPermission
	hasResource
	hasClientIP
	hasRequests
)

// work is the memory of one request: it is used again by others, so nothing of
// it may outlive the answer.
type work struct {
	body   bytes.Buffer
	raw    []byte // what body held; the decoder consumes body
	dec    jsontext.Decoder
	text   []byte // strings without their escapes; never grows while in use
	keys   []string
	asked  []question
	batch  bool
	out    []byte
	ask    token.Request
	answer token.Decision
	lane   *usage.Lane // nil when nobody counts; it stays
}

// newWork returns an empty work. It is used again by the same processor, mostly,
// and so is its lane.
func newWork(count *usage.Recorder) *work {
	if count == nil {
		return new(work)
	}
	return &work{lane: count.Lane()}
}

// reset forgets the request, secrets first.
func (w *work) reset() {
	clear(w.raw)
	clear(w.text)
	clear(w.keys)
	clear(w.asked)
	w.body.Reset()
	w.raw = nil
	w.text, w.keys, w.asked, w.out = w.text[:0], w.keys[:0], w.asked[:0], w.out[:0]
	w.batch, w.ask, w.answer = false, token.Request{}, token.Decision{}
}

// small reports whether w is worth keeping for the next request.
func (w *work) small() bool { return w.body.Cap() <= keepBody }

// read takes in the body.
func (w *work) read(rw http.ResponseWriter, r *http.Request) *fault.Error {
	if enc := r.Header["Content-Encoding"]; len(enc) > 0 && enc[0] != "identity" {
		return fault.New(fault.UnsupportedContentType)
	}
	if r.ContentLength > maxBody {
		rw.Header().Set("Connection", "close")
		return tooLarge()
	}
	if n := int(r.ContentLength); n > 0 {
		w.body.Grow(n + bytes.MinRead) // ReadFrom wants this much to see the end
	}
	limited := io.LimitedReader{R: r.Body, N: maxBody + 1}
	if _, err := w.body.ReadFrom(&limited); err != nil {
		return fault.Wrap(fault.InvalidJSON, err)
	}
	if w.body.Len() > maxBody {
		rw.Header().Set("Connection", "close")
		return tooLarge()
	}
	return nil
}

func tooLarge() *fault.Error {
	return fault.New(fault.BodyTooLarge).WithDetail("at most %d bytes", maxBody)
}

// parse reads one question, an array of them, or {"requests": [...]}.
func (w *work) parse() *fault.Error {
	w.raw = w.body.Bytes()
	b := w.raw
	if len(bytes.TrimLeft(b, " \t\r\n")) == 0 {
		return fault.New(fault.MissingBody)
	}
	if web.TooDeep(b) {
		return fault.New(fault.TooDeep)
	}
	// No string without its escapes is longer than with them, so all of them
	// fit without growing: they can be pointed at.
	if cap(w.text) < len(b) {
		w.text = make([]byte, 0, max(len(b), 1024))
	}
	w.dec.Reset(&w.body)
	var err error
	switch w.dec.PeekKind() {
	case jsontext.KindBeginArray:
		err = w.questions("")
	case jsontext.KindBeginObject:
		err = w.question("", true)
	default:
		err = w.wrong("")
	}
	if err == nil {
		if _, err = w.dec.ReadToken(); err == io.EOF {
			return nil
		}
		err = fault.New(fault.InvalidJSON)
	}
	return jsonFault(err)
}

// jsonFault drops the decoder's own error: it may quote the body.
func jsonFault(err error) *fault.Error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return fault.New(fault.DuplicateKey)
	}
	return fault.New(fault.InvalidJSON)
}

// wrong says that a value has the wrong type, or is no JSON.
func (w *work) wrong(at fault.Pointer) error {
	if err := w.dec.SkipValue(); err != nil {
		return err
	}
	return fault.New(fault.InvalidVerifyRequest).WithPointer(at)
}

func (w *work) questions(at fault.Pointer) error {
	if _, err := w.dec.ReadToken(); err != nil {
		return err
	}
	w.batch = true
	for w.dec.PeekKind() != jsontext.KindEndArray {
		n := len(w.asked)
		if n == MaxBatch {
			return fault.New(fault.BatchTooLarge).WithDetail("at most %d", MaxBatch)
		}
		here := at.Index(n)
		if w.dec.PeekKind() != jsontext.KindBeginObject {
			return w.wrong(here)
		}
		if err := w.question(here, false); err != nil {
			return err
		}
	}
	_, err := w.dec.ReadToken()
	return err
}

// question reads one object and adds what it asks; at the top it may also be
// the envelope of a batch.
func (w *work) question(at fault.Pointer, top bool) error {
	if _, err := w.dec.ReadToken(); err != nil {
		return err
	}
	q := question{first: len(w.keys), end: len(w.keys)}
	for w.dec.PeekKind() != jsontext.KindEndObject {
		name, err := w.string()
		if err != nil {
			return err
		}
		switch {
		case name == "secret":
			q.secret, err = w.textOf(&q, hasSecret, at+"/secret")
		case name == "permission":
			q.permission, err = w.textOf(&q, hasPermission, at+"/permission")
		case name == "client_ip":
			err = w.clientIP(&q, at+"/client_ip")
		case name == "resource":
			err = w.chain(&q, at+"/resource")
		case top && name == "requests":
			q.has |= hasRequests
			if w.dec.PeekKind() != jsontext.KindBeginArray {
				return w.wrong("/requests")
			}
			err = w.questions("/requests")
		default:
			err = w.dec.SkipValue()
		}
		if err != nil {
			return err
		}
	}
	if _, err := w.dec.ReadToken(); err != nil {
		return err
	}
	switch {
	case q.has == hasRequests:
		return nil
	case q.has&hasRequests != 0:
		return fault.New(fault.InvalidVerifyRequest).WithPointer("/requests")
	case q.has&hasSecret == 0:
		return fault.New(fault.InvalidVerifyRequest).WithPointer(at + "/secret")
	case q.has&hasPermission == 0:
		return fault.New(fault.InvalidVerifyRequest).WithPointer(at + "/permission")
	}
	w.asked = append(w.asked, q)
	return nil
}

func (w *work) textOf(q *question, which members, at fault.Pointer) (string, error) {
	q.has |= which
	if w.dec.PeekKind() != jsontext.KindString {
		return "", w.wrong(at)
	}
	return w.string()
}

// string reads a string into w.text and returns it in place.
func (w *work) string() (string, error) {
	v, err := w.dec.ReadValue()
	if err != nil {
		return "", err
	}
	from := len(w.text)
	if w.text, err = jsontext.AppendUnquote(w.text, v); err != nil {
		return "", err
	}
	s := w.text[from:]
	return unsafe.String(unsafe.SliceData(s), len(s)), nil
}

// clientIP reads an address; null and "" are an unknown one.
func (w *work) clientIP(q *question, at fault.Pointer) error {
	q.has |= hasClientIP
	if w.dec.PeekKind() == jsontext.KindNull {
		return w.dec.SkipValue()
	}
	s, err := w.textOf(q, hasClientIP, at)
	if err != nil || s == "" {
		return err
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return fault.New(fault.InvalidVerifyRequest).WithPointer(at)
	}
	q.address = a.Unmap()
	return nil
}

// chain reads the resource keys, outermost first.
func (w *work) chain(q *question, at fault.Pointer) error {
	q.has |= hasResource
	if w.dec.PeekKind() != jsontext.KindBeginArray {
		return w.wrong(at)
	}
	if _, err := w.dec.ReadToken(); err != nil {
		return err
	}
	q.first = len(w.keys)
	for w.dec.PeekKind() != jsontext.KindEndArray {
		n := len(w.keys) - q.first
		if n == maxElements {
			return fault.New(fault.InvalidVerifyRequest).WithPointer(at)
		}
		key, err := w.textOf(q, hasResource, at)
		if err != nil {
			return err
		}
		w.keys = append(w.keys, key)
	}
	q.end = len(w.keys)
	_, err := w.dec.ReadToken()
	return err
}
