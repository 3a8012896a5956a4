package cli

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"

	"watchword.dev/events/fault"
)

// TestNoRedirect: a server that points elsewhere does not get the credentials
// carried there.
func TestNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s reached another server with %d header lines", r.Method, len(r.Header))
	}))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		here := httptest.NewServer(http.RedirectHandler(elsewhere.URL, status))
		defer here.Close()
		app := &App{Getenv: func(name string) string {
			return map[string]string{
				"WATCHWORD_URL":           here.URL,
				"WATCHWORD_CONTEXTS_FILE": filepath.Join(t.TempDir(), "contexts.json"),
			}[name]
		}}
		c, err := app.client()
		if err != nil {
			t.Fatal(err)
		}
		c.ctx.Email, c.ctx.APIKey = "ops@example.com", "a key"
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if err := c.call(t.Context(), method, "/client/v4/user/tokens", map[string]string{}, nil); err == nil {
				t.Errorf("%s with status %d succeeded", method, status)
			}
		}
	}
}

// TestThrottled: who asks too often is told when to come back.
func TestThrottled(t *testing.T) {
	resp := &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"90"}}}
	err := remoteError(resp, []apiError{{Code: 20014, Message: "Too many requests"}})
	failed, ok := errors.AsType[*Error](err)
	if !ok || failed.Code != ExitRemote || !slices.Equal(failed.Hints, []string{"the server limits how often one may ask; try again in 1m30s"}) {
		t.Errorf("got %#v", err)
	}
}

// TestRefusalHints: each is about an error that there is, and is shown with it.
func TestRefusalHints(t *testing.T) {
	for name, hint := range refusalHints {
		e := fault.Code(name).Entry()
		if e.Anchor() != name {
			t.Errorf("%s is no error of the catalogue", name)
		}
		resp := &http.Response{StatusCode: e.Status}
		failed, ok := errors.AsType[*Error](remoteError(resp, []apiError{{Code: e.Number, Message: e.Text, Documentation: "/errors#" + name}}))
		if !ok || failed.Code != ExitRemote || !slices.Equal(failed.Hints, []string{hint}) {
			t.Errorf("%s: %#v", name, failed)
		}
	}
}
