package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/throttle"
)

// MaxBody is the most that a request's body may hold unless its route says
// otherwise.
const MaxBody = 64 << 10

// SequenceHeader carries the sequence that an answer rests on, or that a write
// led to. AtLeastHeader carries the one that a client wants to be seen.
// BulkHeader says true in the requests of imports, which let others go first.
const (
	SequenceHeader = "Watchword-Sequence"
	AtLeastHeader  = "Watchword-At-Least"
	BulkHeader     = "Watchword-Bulk"
)

// maxUserAgent is how much of a client's User-Agent is kept.
const maxUserAgent = 256

// Exchange is one request and its answer.
type Exchange struct {
	// RequestID is the client's own when it is sane, else a ULID.
	RequestID string
	// Ray names the exchange as Cloudflare's clients show it: 16 hex digits.
	Ray string
	// Traceparent is the W3C trace context, the client's or a new one.
	Traceparent string
	// Address is the client's; the zero Addr when it is not known.
	Address netip.Addr

	r *http.Request
	w *response

	credential Credential
	credErr    error

	// What is counted of it: see limits.go.
	gate       *throttle.Gate
	exempt     bool         // its route has no limit on requests
	recognised bool         // its credential is one of ours
	metered    bool         // it was counted for somebody
	over       *fault.Error // what Admit has answered

	atEnd func(error)
}

// AtEnd has fn called once the request was handled, with the error that it ends
// in or nil. Of two, the last one is called. A handler that panics has no end.
func (x *Exchange) AtEnd(fn func(error)) { x.atEnd = fn }

// Context returns the request's context, which ends when the client goes away.
func (x *Exchange) Context() context.Context { return x.r.Context() }

// Request returns the request. Its body is read through Body and Decode only.
func (x *Exchange) Request() *http.Request { return x.r }

// Param returns the part of the path that the route's pattern names.
func (x *Exchange) Param(name string) string { return x.r.PathValue(name) }

// Header returns the header of the answer.
func (x *Exchange) Header() http.Header { return x.w.Header() }

// Credential returns what the request presented, or the fault of a malformed
// header.
func (x *Exchange) Credential() (Credential, error) { return x.credential, x.credErr }

// Stream begins an answer that goes on for as long as the client and the
// handler like, and returns where it is written. The server's deadlines end: the
// handler sets one before each write, by Controller.
func (x *Exchange) Stream(status int, contentType string) (io.Writer, error) {
	rc := x.Controller()
	if err := errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{})); err != nil {
		return nil, fmt.Errorf("web: stream: %w", err)
	}
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Accel-Buffering", "no") // nginx would hold it back
	x.w.WriteHeader(status)
	return x.w, nil
}

// Controller returns what flushes an answer and sets its deadlines.
func (x *Exchange) Controller() *http.ResponseController { return http.NewResponseController(x.w) }

// UserAgent returns what the client says that it is, cut to a sane length and
// without control characters.
func (x *Exchange) UserAgent() string {
	s := x.r.UserAgent()
	if len(s) > maxUserAgent {
		s = strings.ToValidUTF8(s[:maxUserAgent], "")
	}
	if !printable(s) {
		return ""
	}
	return s
}

// Body reads the whole body, at most limit bytes of it.
func (x *Exchange) Body(limit int64) ([]byte, error) {
	if enc := x.r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return nil, fault.New(fault.UnsupportedContentType)
	}
	if x.r.ContentLength > limit {
		return nil, x.tooLarge(limit)
	}
	b, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, limit))
	if err == nil {
		return b, nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, x.tooLarge(limit)
	}
	// A body that breaks off or comes too slowly is the client's, too.
	return nil, fault.Wrap(fault.InvalidJSON, err)
}

// tooLarge also ends the connection: what the client still sends is not read.
func (x *Exchange) tooLarge(limit int64) error {
	x.w.Header().Set("Connection", "close")
	return fault.New(fault.BodyTooLarge).WithDetail("at most %d bytes", limit)
}

// Decode reads a JSON body into dst, strictly. Without a body it is a fault.
func (x *Exchange) Decode(dst any) error {
	b, err := x.Body(MaxBody)
	if err != nil {
		return err
	}
	return x.DecodeBytes(b, dst)
}

// DecodeBytes is Decode for a body that Body has returned.
func (x *Exchange) DecodeBytes(b []byte, dst any) error {
	if err := jsonType(x.r.Header, false); err != nil {
		return err
	}
	return Unmarshal(b, dst)
}

// DecodeOptional is Decode for routes that work without a body: then dst stays
// as it is. The content type may also be what curl says of its own accord.
func (x *Exchange) DecodeOptional(dst any) error {
	b, err := x.Body(MaxBody)
	if err != nil {
		return err
	}
	return x.DecodeOptionalBytes(b, dst)
}

// DecodeOptionalBytes is DecodeOptional for a body that Body has returned.
func (x *Exchange) DecodeOptionalBytes(b []byte, dst any) error {
	if len(b) == 0 {
		return nil
	}
	if err := jsonType(x.r.Header, true); err != nil {
		return err
	}
	return Unmarshal(b, dst)
}

// JSONType refuses headers that say that the body is not JSON.
func JSONType(h http.Header) error { return jsonType(h, false) }

// jsonType refuses a body that says that it is not JSON. With form it may be
// called a form: curl -d does that to everything.
func jsonType(h http.Header, form bool) error {
	lines := h["Content-Type"]
	if len(lines) == 0 {
		return nil
	}
	kind, params, err := mime.ParseMediaType(lines[0])
	charset := params["charset"]
	switch {
	case err != nil || len(lines) > 1:
	case charset != "" && !strings.EqualFold(charset, "utf-8"):
	case kind == "application/json", form && kind == "application/x-www-form-urlencoded":
		return nil
	}
	return fault.New(fault.UnsupportedContentType)
}

// ID returns the id that stands in the path under this name.
func (x *Exchange) ID(name string) (token.ID, error) {
	id, err := token.ParseID(x.r.PathValue(name))
	if err != nil {
		return token.ID{}, fault.New(fault.InvalidID)
	}
	return id, nil
}

// AtLeast returns the sequence that the client wants to be seen, or 0.
func AtLeast(h http.Header) (uint64, error) {
	lines := h[AtLeastHeader]
	if len(lines) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseUint(lines[0], 10, 64)
	if err != nil || len(lines) > 1 {
		return 0, fault.New(fault.InvalidHeader)
	}
	return n, nil
}

// Sequence says in the answer which sequence it rests on or led to.
func (x *Exchange) Sequence(seq uint64) {
	x.w.Header().Set(SequenceHeader, strconv.FormatUint(seq, 10))
}
