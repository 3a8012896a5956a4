package cloudflare_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// watched is the transport under every client. It holds every answer against
// what the clients cannot stand, whatever they make of it.
type watched struct {
	t *testing.T

	mu   sync.Mutex
	last string // the newest answer
}

// RoundTrip implements http.RoundTripper.
func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(b))
	if err != nil {
		return resp, err
	}
	if err := tolerable(resp, b); err != nil {
		w.t.Errorf("%s %s: HTTP %d: %v: %.300s", r.Method, r.URL.Path, resp.StatusCode, err, b)
	}
	w.mu.Lock()
	w.last = string(b)
	w.mu.Unlock()
	return resp, nil
}

// text is the newest answer.
func (w *watched) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// tolerable checks what holds for every answer of the API: a success is 200
// and says so, a refusal is 400 or more and has an error to show, both are
// compact JSON, and no status makes a client try again for minutes.
func tolerable(resp *http.Response, body []byte) error {
	var e struct {
		Success  *bool            `json:"success"`
		Errors   []map[string]any `json:"errors"`
		Messages []any            `json:"messages"`
		Result   jsontext.Value   `json:"result"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return err
	}
	compact := jsontext.Value(bytes.Clone(body))
	if err := compact.Compact(); err != nil || !bytes.Equal(compact, body) {
		return fmt.Errorf("not compact: %v", err)
	}
	good := resp.StatusCode == http.StatusOK
	switch got := resp.Header.Get("Content-Type"); {
	case got != "application/json":
		return fmt.Errorf("of type %q", got)
	case !good && resp.StatusCode < 400, resp.StatusCode == http.StatusConflict, resp.StatusCode == http.StatusRequestTimeout:
		return fmt.Errorf("a status that clients misunderstand")
	case e.Success == nil || *e.Success != good:
		return fmt.Errorf("success and status differ")
	case e.Errors == nil || e.Messages == nil || good != (len(e.Errors) == 0):
		return fmt.Errorf("errors and status differ")
	case len(e.Result) == 0 || good == (e.Result.Kind() == jsontext.KindNull):
		return fmt.Errorf("result and status differ")
	}
	return nil
}
