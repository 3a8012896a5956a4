package web

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/fault"
)

// serve answers one request and returns the answer, its body and the log.
func serve(t *testing.T, rt func(*Router), r *http.Request) (*http.Response, string, string) {
	t.Helper()
	var log bytes.Buffer
	router := NewRouter(Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	rt(router)
	w := httptest.NewRecorder()
	router.ServeHTTP(w, r)
	return w.Result(), w.Body.String(), log.String()
}

type envelope struct {
	Success bool           `json:"success"`
	Result  jsontext.Value `json:"result"`
	Errors  []struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Chain   []struct {
			Code int `json:"code"`
		} `json:"error_chain"`
		Doc    string `json:"documentation_url"`
		Source struct {
			Pointer string `json:"pointer"`
		} `json:"source"`
	} `json:"errors"`
	Messages []jsontext.Value `json:"messages"`
}

func TestRoutes(t *testing.T) {
	routes := func(rt *Router) {
		rt.Handle("GET", "/a/{id}", func(x *Exchange) error {
			id, err := x.ID("id")
			if err != nil {
				return err
			}
			return x.Result(id)
		})
		rt.Handle("DELETE", "/a/{id}", func(x *Exchange) error { return fault.New(fault.TokenNotFound) })
		rt.Handle("GET", "/panic", func(*Exchange) error { panic("hunter2") })
		rt.Handle("GET", "/cause", func(*Exchange) error { return errors.New("the cause") })
	}
	id := strings.Repeat("0a", 16)
	for _, c := range []struct {
		method, path string
		status, code int // code 0: success
		allow        string
	}{
		{"GET", "/a/" + id, 200, 0, ""},
		{"HEAD", "/a/" + id, 200, 0, ""},
		{"OPTIONS", "/a/" + id, 204, 0, "DELETE, GET, HEAD, OPTIONS"},
		{"POST", "/a/" + id, 405, 20002, "DELETE, GET, HEAD, OPTIONS"},
		{"BREW", "/a/" + id, 405, 20002, "DELETE, GET, HEAD, OPTIONS"},
		{"DELETE", "/a/" + id, 404, 1003, ""},
		{"GET", "/a/" + strings.ToUpper(id), 404, 7003, ""},
		{"GET", "/a/" + id[:31], 404, 7003, ""},
		{"GET", "/a/%00", 404, 7003, ""},
		{"GET", "/a/..%2f" + id, 404, 7000, ""},
		{"GET", "/b", 404, 7000, ""},
		{"GET", "/a/" + id + "/", 404, 7000, ""},
		{"GET", "//a/" + id, 404, 7000, ""},
		{"GET", "/b/../a/" + id, 404, 7000, ""},
		{"GET", "/panic", 500, 20000, ""},
		{"GET", "/cause", 500, 20000, ""},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			resp, body, log := serve(t, routes, httptest.NewRequest(c.method, c.path, nil))
			if resp.StatusCode != c.status || resp.Header.Get("Allow") != c.allow {
				t.Errorf("got %d, Allow %q, want %d, %q", resp.StatusCode, resp.Header.Get("Allow"), c.status, c.allow)
			}
			if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers %v", resp.Header)
			}
			if strings.Contains(body+log, "hunter2") || strings.Contains(body, "the cause") {
				t.Errorf("the cause is told: %s\n%s", body, log)
			}
			if !strings.Contains(log, "request_id=") || strings.Contains(log, id) {
				t.Errorf("log: %s", log)
			}
			if c.status == 204 {
				return
			}
			var e envelope
			if err := json.Unmarshal([]byte(body), &e); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			if c.code == 0 {
				if !e.Success || len(e.Errors) != 0 {
					t.Errorf("body %s", body)
				}
				return
			}
			if e.Success || len(e.Errors) != 1 || e.Errors[0].Code != c.code || string(e.Result) != "null" {
				t.Errorf("body %s", body)
			}
		})
	}
}

// TestEnvelopeBytes pins the bytes: scripts look for them with grep.
func TestEnvelopeBytes(t *testing.T) {
	for name, c := range map[string]struct {
		h    Handler
		want string
	}{
		"result": {
			func(x *Exchange) error { return x.Result("v") },
			`{"result":"v","success":true,"errors":[],"messages":[]}`,
		},
		"note": {
			func(x *Exchange) error { return x.Result(struct{}{}, Message{10000, "fine"}) },
			`{"result":{},"success":true,"errors":[],"messages":[{"code":10000,"message":"fine","type":null}]}`,
		},
		"list": {
			func(x *Exchange) error { return x.List([]int{}, Page{Page: 2, PerPage: 20}) },
			`{"result":[],"success":true,"errors":[],"messages":[],"result_info":{"page":2,"per_page":20,"count":0,"total_count":0,"total_pages":0}}`,
		},
		"raw strings": {
			func(x *Exchange) error { return x.Result(jsontext.Value(`{"b\u0041":"\/","a":1e0}`)) },
			`{"result":{"b\u0041":"\/","a":1e0},"success":true,"errors":[],"messages":[]}`,
		},
		"fault": {
			func(x *Exchange) error { return fault.New(fault.MalformedAuthorization) },
			`{"success":false,"errors":[{"code":6003,"message":"Invalid request headers","error_chain":[{"code":6111,"message":"Invalid format for Authorization header"}],"documentation_url":"/errors#malformed_authorization"}],"messages":[],"result":null}`,
		},
		"pointer": {
			func(x *Exchange) error { return fault.New(fault.InvalidEffect).WithPointer("/policies/0/effect") },
			`{"success":false,"errors":[{"code":1001,"message":"Invalid effect","documentation_url":"/errors#invalid_effect","source":{"pointer":"/policies/0/effect"}}],"messages":[],"result":null}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body, _ := serve(t, func(rt *Router) { rt.Handle("GET", "/x", c.h) }, httptest.NewRequest("GET", "/x", nil))
			if body != c.want {
				t.Errorf("got\n%s\nwant\n%s", body, c.want)
			}
			if ct := resp.Header.Get("Content-Type"); ct != "application/json" {
				t.Errorf("content type %q", ct)
			}
		})
	}
}

func TestRetryHeaders(t *testing.T) {
	for _, c := range []struct {
		f                         *fault.Error
		after, afterMS, should    string
		status                    int
		authenticate, description string
	}{
		{fault.New(fault.NoPen), "2", "2000", "", 503, "", "comes back"},
		{fault.New(fault.NoPen).WithRetryAfter(300 * time.Millisecond), "1", "300", "", 503, "", "rounded up"},
		{fault.New(fault.InvalidName), "", "", "false", 400, "", "never better"},
		{fault.New(fault.Internal), "", "", "false", 500, "", "not repeated for minutes"},
		{fault.New(fault.InvalidAPIToken), "", "", "false", 401, "Bearer", "RFC 9110"},
	} {
		h := http.Header{}
		status, _ := FailureBody(h, c.f)
		if h.Get("Retry-After") != c.after || h.Get("Retry-After-Ms") != c.afterMS || h.Get("X-Should-Retry") != c.should ||
			status != c.status || h.Get("Www-Authenticate") != c.authenticate {
			t.Errorf("%s: status %d, %v", c.description, status, h)
		}
	}
}

// TestNoFaultBreaksClients: they take 408 and 409 for an invitation to repeat
// for minutes, and everything below 400 for a success.
func TestNoFaultBreaksClients(t *testing.T) {
	for _, e := range fault.All() {
		status, body := FailureBody(http.Header{}, fault.New(e.Code))
		if status < 400 || status == 408 || status == 409 || !jsontext.Value(body).IsValid() || e.Number < 1000 {
			t.Errorf("%s: status %d, number %d, body %s", e.Code, status, e.Number, body)
		}
	}
}

func TestIDs(t *testing.T) {
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, c := range []struct{ id, trace, wantID, wantTrace string }{
		{"job-7:a.b_c", trace, "job-7:a.b_c", trace},
		{"", "", "", ""},
		{"a b", "garbage", "", ""},
		{strings.Repeat("a", 129), strings.ToUpper(trace), "", ""},
		{"wwu_2nf70CwLdjhc7DaClkHUkhzRo9Hja5jxtMJRfP18nLFL", "", "", ""}, // a secret in the wrong header
		{"a\"b", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "", ""},
	} {
		var x *Exchange
		r := httptest.NewRequest("GET", "/x", nil)
		r.Header.Set("X-Request-Id", c.id)
		r.Header.Set("Traceparent", c.trace)
		resp, _, _ := serve(t, func(rt *Router) {
			rt.Handle("GET", "/x", func(e *Exchange) error { x = e; return e.Result(nil) })
		}, r)
		if c.wantID != "" && x.RequestID != c.wantID || c.wantID == "" && len(x.RequestID) != 26 {
			t.Errorf("%q: request id %q", c.id, x.RequestID)
		}
		if c.wantTrace != "" && x.Traceparent != c.wantTrace || !validTraceparent(x.Traceparent) {
			t.Errorf("%q: traceparent %q", c.trace, x.Traceparent)
		}
		if len(x.Ray) != 16 || !lowerHex(x.Ray) || resp.Header.Get("Cf-Ray") != x.Ray || resp.Header.Get("X-Request-Id") != x.RequestID {
			t.Errorf("headers %v", resp.Header)
		}
	}
}

func TestBody(t *testing.T) {
	big := strings.Repeat(" ", MaxBody)
	for name, c := range map[string]struct {
		body     string
		headers  map[string]string
		chunked  bool
		optional bool
		want     error
	}{
		"good":                     {body: `{"n":1}`},
		"no content type":          {body: `{"n":1}`, headers: map[string]string{"Content-Type": ""}},
		"charset":                  {body: `{"n":1}`, headers: map[string]string{"Content-Type": "application/json; charset=UTF-8"}},
		"another charset":          {body: `{"n":1}`, headers: map[string]string{"Content-Type": "application/json; charset=utf-16"}, want: fault.UnsupportedContentType},
		"text":                     {body: `{"n":1}`, headers: map[string]string{"Content-Type": "text/plain"}, want: fault.UnsupportedContentType},
		"form":                     {body: `{"n":1}`, headers: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, want: fault.UnsupportedContentType},
		"nonsense":                 {body: `{"n":1}`, headers: map[string]string{"Content-Type": ";;"}, want: fault.UnsupportedContentType},
		"compressed":               {body: `{"n":1}`, headers: map[string]string{"Content-Encoding": "gzip"}, want: fault.UnsupportedContentType},
		"not compressed":           {body: `{"n":1}`, headers: map[string]string{"Content-Encoding": "identity"}},
		"missing":                  {want: fault.MissingBody},
		"as large as allowed":      {body: `{"n":1}` + big[7:]},
		"too large":                {body: `{"n":1}` + big[6:], want: fault.BodyTooLarge},
		"too large, in chunks":     {body: `{"n":1}` + big[6:], chunked: true, want: fault.BodyTooLarge},
		"optional, missing":        {optional: true},
		"optional, by curl":        {optional: true, body: "{}", headers: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}},
		"optional, empty text":     {optional: true, headers: map[string]string{"Content-Type": "text/plain"}},
		"optional, text":           {optional: true, body: "{}", headers: map[string]string{"Content-Type": "text/plain"}, want: fault.UnsupportedContentType},
		"optional, broken":         {optional: true, body: "{", want: fault.InvalidJSON},
		"optional, blank in place": {optional: true, body: " ", want: fault.MissingBody},
	} {
		t.Run(name, func(t *testing.T) {
			var body io.Reader = strings.NewReader(c.body)
			if c.chunked {
				body = io.MultiReader(body)
			}
			r := httptest.NewRequest("POST", "/x", body)
			r.Header.Set("Content-Type", "application/json")
			for k, v := range c.headers {
				if r.Header.Set(k, v); v == "" {
					r.Header.Del(k)
				}
			}
			var got error
			serve(t, func(rt *Router) {
				rt.Handle("POST", "/x", func(x *Exchange) error {
					var v struct {
						N int `json:"n"`
					}
					if c.optional {
						got = x.DecodeOptional(&v)
					} else {
						got = x.Decode(&v)
					}
					return got
				})
			}, r)
			if !errors.Is(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestErrorTable(t *testing.T) {
	_, body, _ := serve(t, func(*Router) {}, httptest.NewRequest("GET", "/errors", nil))
	for _, e := range fault.All() {
		if !strings.Contains(body, `id="`+e.Anchor()+`"`) {
			t.Errorf("no row for %s", e.Code)
		}
	}
}
