package web

import (
	"net/http"
	"strconv"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/fault"
)

// Message is a note beside a successful result. Its type is always null, as
// clients have it from Cloudflare.
type Message struct {
	Code int
	Text string
}

// Page says which part of a list an answer holds.
type Page struct {
	Page       int `json:"page"`
	PerPage    int `json:"per_page"`
	Count      int `json:"count"`
	TotalCount int `json:"total_count"`
	TotalPages int `json:"total_pages"`
}

// success is the envelope of a good answer. The order of its members is the
// one of Cloudflare's answers.
type success struct {
	Result   any           `json:"result"`
	Success  bool          `json:"success"`
	Errors   []struct{}    `json:"errors"`
	Messages []wireMessage `json:"messages"`
	Info     *Page         `json:"result_info,omitzero"`
}

type wireMessage struct {
	Code    int     `json:"code"`
	Message string  `json:"message"`
	Type    *string `json:"type"`
}

// failure is the envelope of a refusal.
type failure struct {
	Success  bool           `json:"success"`
	Errors   []wireError    `json:"errors"`
	Messages []wireMessage  `json:"messages"`
	Result   jsontext.Value `json:"result"`
}

type wireError struct {
	Code    int         `json:"code"`
	Message string      `json:"message"`
	Chain   []chainLink `json:"error_chain,omitempty"`
	Doc     string      `json:"documentation_url,omitempty"`
	Source  *source     `json:"source,omitzero"`
}

type chainLink struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

type source struct {
	Pointer string `json:"pointer"`
}

// Result answers with v in the envelope.
func (x *Exchange) Result(v any, notes ...Message) error {
	return x.write(success{Result: v, Success: true, Messages: wire(notes)})
}

// List answers with one page of a list. An empty v must be an empty slice and
// not nil of an interface: clients stop at [].
func (x *Exchange) List(v any, info Page, notes ...Message) error {
	return x.write(success{Result: v, Success: true, Info: &info, Messages: wire(notes)})
}

func wire(notes []Message) []wireMessage {
	out := make([]wireMessage, 0, len(notes))
	for _, n := range notes {
		out = append(out, wireMessage{Code: n.Code, Message: n.Text})
	}
	return out
}

func (x *Exchange) write(v success) error {
	// Raw strings are kept: clients compare a policy's resources as text.
	b, err := json.Marshal(v, jsontext.PreserveRawStrings(true))
	if err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	x.send(http.StatusOK, b)
	return nil
}

// JSON answers with a body that is not in the envelope, for the routes that
// follow another standard.
func (x *Exchange) JSON(status int, body []byte) { x.send(status, body) }

// Bytes answers 200 with a body of another type.
func (x *Exchange) Bytes(contentType string, body []byte) {
	x.w.Header().Set("Content-Type", contentType)
	_, _ = x.w.Write(body) // a client that is gone needs no answer
}

func (x *Exchange) send(status int, body []byte) {
	h := x.w.Header()
	h["Content-Type"] = jsonContentType
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(status)
	_, _ = x.w.Write(body) // the client may have gone; there is nobody to tell
}

var jsonContentType = []string{"application/json"}
