package web

import (
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"watchword.dev/events/clientaddr"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/throttle"
)

// Handler answers one exchange, or returns why not. An error that is no
// *fault.Error is answered as an internal one.
type Handler func(x *Exchange) error

// Config is what a Router needs. Its zero value trusts no proxy, limits nothing,
// logs to slog's default and has the default brand.
type Config struct {
	// Format is the form of the installation's secrets.
	Format token.Format
	// Address says how a client's address is found.
	Address clientaddr.Rule
	// Gate bounds how often somebody may ask; nil bounds nothing.
	Gate *throttle.Gate
	// Log gets one line for each exchange; nil means slog.Default().
	Log *slog.Logger
	// Observe hears of each exchange, for metrics; it may be nil. The route is
	// a pattern of the program, never a client's path.
	Observe func(route, method string, status int, took time.Duration)
	// IDs makes request ids; nil means a generator of its own.
	IDs *token.Generator
}

// Route is one method of one path.
type Route struct {
	Method, Pattern string
}

// Router holds the routes of a server. Routes are added before it serves.
type Router struct {
	cfg     Config
	mux     *http.ServeMux
	entries map[string]*entry
	lean    map[string]http.Handler
	routes  []Route
	unknown *entry
}

// entry is a path with its methods.
type entry struct {
	rt      *Router
	pattern string
	methods map[string]Handler
	allow   string
	exempt  bool // from the limits on requests
}

// NewRouter returns a router without routes, but for the table of errors.
func NewRouter(cfg Config) *Router {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.IDs == nil {
		cfg.IDs = token.NewGenerator(nil)
	}
	cfg.Address = cfg.Address.Canonical()
	rt := &Router{cfg: cfg, mux: http.NewServeMux(), entries: map[string]*entry{}, lean: map[string]http.Handler{}}
	rt.unknown = &entry{rt: rt, pattern: "unknown"}
	rt.mux.Handle("/", rt.unknown)
	rt.Handle(http.MethodGet, errorsPath, errorTable)
	return rt
}

// Handle adds a route. The pattern is a path of net/http's ServeMux, without a
// method: "/client/v4/user/tokens/{token_id}". GET also answers HEAD. It
// panics on a route that is already there.
func (rt *Router) Handle(method, pattern string, h Handler) {
	e, ok := rt.entries[pattern]
	if !ok {
		e = &entry{rt: rt, pattern: pattern, methods: map[string]Handler{}}
		rt.entries[pattern] = e
		rt.mux.Handle(pattern, e)
	}
	if _, ok := e.methods[method]; ok {
		panic(fmt.Sprintf("web: %s %s stands twice", method, pattern))
	}
	e.methods[method] = h
	if method == http.MethodGet {
		e.methods[http.MethodHead] = h
	}
	allow := []string{http.MethodOptions}
	for m := range e.methods {
		allow = append(allow, m)
	}
	slices.Sort(allow)
	e.allow = strings.Join(allow, ", ")
	rt.routes = append(rt.routes, Route{method, pattern})
}

// Mount adds a handler that is called without an Exchange, for exactly this
// path. It is for routes that are asked for each request of others, whose speed
// is promised; the handler must do for itself what the Router does for others.
func (rt *Router) Mount(method, path string, h http.Handler) {
	rt.lean[path] = h
	rt.routes = append(rt.routes, Route{method, path})
}

// Routes returns the routes in the order in which they were added.
func (rt *Router) Routes() []Route { return slices.Clone(rt.routes) }

// ServeHTTP answers a request.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h, ok := rt.lean[r.URL.Path]; ok {
		h.ServeHTTP(w, r)
		return
	}
	// ServeMux would redirect to the clean form, with a page of HTML.
	if p := r.URL.Path; p == "" || p[0] != '/' || path.Clean(p) != p {
		rt.unknown.ServeHTTP(w, r)
		return
	}
	rt.mux.ServeHTTP(w, r)
}

// ServeHTTP makes the exchange and sees to it that it is answered, whatever
// happens, and logged.
func (e *entry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	x := e.rt.exchange(w, r)
	x.exempt = e.exempt
	var err error
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			err = x.fail(Recovered(p))
		}
		e.rt.done(x, e.pattern, err, time.Since(began))
	}()
	err = e.answer(x)
	if x.atEnd != nil {
		x.atEnd(err)
	}
	if err != nil {
		err = x.fail(err)
	}
}

func (e *entry) answer(x *Exchange) error {
	if over := x.arrive(); over != nil {
		return over
	}
	if e.methods == nil {
		return fault.New(fault.UnknownRoute)
	}
	if h, ok := e.methods[x.r.Method]; ok {
		return h(x)
	}
	x.w.Header().Set("Allow", e.allow)
	if x.r.Method == http.MethodOptions {
		if over := x.stranger(); over != nil {
			return over
		}
		x.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return fault.New(fault.MethodNotAllowed)
}

// exchange reads what every request has, before any handler.
func (rt *Router) exchange(w http.ResponseWriter, r *http.Request) *Exchange {
	x := &Exchange{
		Ray:         newRay(),
		Traceparent: traceparent(r.Header),
		Address:     rt.cfg.Address.Of(r),
		r:           r,
		w:           &response{ResponseWriter: w},
		gate:        rt.cfg.Gate,
	}
	x.RequestID = rt.requestID(r.Header)
	x.credential, x.credErr = credential(rt.cfg.Format, r.Header)
	h := w.Header()
	h.Set("Cf-Ray", x.Ray)
	h.Set("X-Request-Id", x.RequestID)
	SecurityHeaders(h)
	return x
}

// requestID returns the client's own id, or a new one. It goes into the log and
// the ledger, so it must not be a secret that stands in the wrong header.
func (rt *Router) requestID(h http.Header) string {
	if id := h["X-Request-Id"]; len(id) == 1 && validRequestID(id[0]) && !HoldsSecret(rt.cfg.Format, id[0]) {
		return id[0]
	}
	return rt.cfg.IDs.New().ULID()
}

// SecurityHeaders sets what every answer carries: nothing is cached, nothing
// is guessed.
func SecurityHeaders(h http.Header) {
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
}

var (
	noStore = []string{"no-store"}
	noSniff = []string{"nosniff"}
)

// done writes the access line. It names the route and not the path: a path may
// hold anything, a secret too.
func (rt *Router) done(x *Exchange, route string, err error, took time.Duration) {
	if rt.cfg.Observe != nil {
		rt.cfg.Observe(route, methodLabel(x.r.Method), x.w.status, took)
	}
	attrs := []slog.Attr{
		slog.String("method", methodLabel(x.r.Method)), slog.String("route", route),
		slog.Int("status", x.w.status), slog.Int64("bytes", x.w.bytes),
		slog.Duration("took", took), slog.String("request_id", x.RequestID), slog.String("ray", x.Ray),
	}
	level := slog.LevelInfo
	if err != nil {
		f := fault.From(err)
		attrs = append(attrs, slog.String("fault", string(f.Code)))
		if f.Entry().Status >= 500 {
			level = slog.LevelError
			attrs = append(attrs, slog.String("cause", f.Error()))
		}
	}
	rt.cfg.Log.LogAttrs(x.r.Context(), level, "http", attrs...)
}

// methodLabel keeps a client's invention out of logs and metrics.
func methodLabel(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return m
	}
	return "other"
}

// Recovered returns the fault of a handler that panicked. It describes the
// panic without its value, which may hold anything, unless the value is the
// runtime's own.
func Recovered(p any) *fault.Error {
	what := fmt.Sprintf("%T", p)
	if re, ok := p.(runtime.Error); ok {
		what = re.Error()
	}
	return fault.Wrap(fault.Internal, fmt.Errorf("panic: %s\n%s", what, debug.Stack()))
}

// response remembers what was answered.
type response struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// WriteHeader keeps the first status.
func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write counts.
func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController through.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
