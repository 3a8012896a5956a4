package web

import (
	"math"
	"net/http"
	"strconv"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/fault"
)

// errorsPath is where the table of errors is served; documentation_url points
// into it.
const errorsPath = "/errors"

// FailureBody returns the envelope of f and sets the headers that go with it.
// It is the only place where a fault turns into HTTP.
func FailureBody(h http.Header, f *fault.Error) (status int, body []byte) {
	e := f.Entry()
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
		h.Set("Retry-After-Ms", strconv.FormatInt(f.RetryAfter.Milliseconds(), 10))
	} else {
		// Cloudflare's clients repeat every 5xx up to ten times unless told
		// that it does not help.
		h.Set("X-Should-Retry", "false")
	}
	if e.Status == http.StatusUnauthorized && h.Get("Www-Authenticate") == "" {
		h.Set("Www-Authenticate", "Bearer")
	}
	w := wireError{Code: e.Number, Message: f.Message(), Doc: errorsPath + "#" + e.Anchor()}
	for _, l := range e.Chain {
		w.Chain = append(w.Chain, chainLink{Code: l.Number, Message: l.Text})
	}
	if f.Pointer != "" {
		w.Source = &source{Pointer: string(f.Pointer)}
	}
	body, err := json.Marshal(failure{Errors: []wireError{w}, Messages: []wireMessage{}, Result: jsontext.Value("null")})
	if err != nil {
		// Only a text that is not UTF-8 could do that, and the catalogue's are.
		body = []byte(`{"success":false,"errors":[{"code":20000,"message":"Internal error"}],"messages":[],"result":null}`)
	}
	return e.Status, body
}

// Fail answers with f in the envelope, with more members before it: text such
// as `"error":"invalid_client",` for the routes of another standard. It
// returns f, for the handler to return, so that it is logged.
func (x *Exchange) Fail(f *fault.Error, members string) error {
	status, body := FailureBody(x.w.Header(), f)
	x.send(status, append([]byte("{"+members), body[1:]...))
	return f
}

// fail answers with err, whatever it is.
func (x *Exchange) fail(err error) *fault.Error {
	f := fault.From(err)
	if x.w.status != 0 {
		return f // answered already
	}
	f = x.Throttle(f)
	status, body := FailureBody(x.w.Header(), f)
	x.send(status, body)
	return f
}

// RetryIn returns a fault of code that asks the client to come back after d.
func RetryIn(code fault.Code, d time.Duration, cause error) error {
	return fault.Wrap(code, cause).WithRetryAfter(d)
}
