package web

import (
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"watchword.dev/events/fault"
)

// The bounds of a connection. A client that is slower than these is cut off.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 16 << 10
)

// NewServer returns a server for h with bounds on everything that a client can
// draw out. It does not listen yet.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	if log == nil {
		log = slog.Default()
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// errorTable serves the catalogue of errors, to which documentation_url points.
func errorTable(x *Exchange) error {
	var b strings.Builder
	b.WriteString("<!doctype html><meta charset=utf-8><title>Watchword: errors</title><h1>Errors</h1><table>" +
		"<tr><th>name<th>code<th>HTTP<th>message<th>when\n")
	for _, e := range fault.All() {
		fmt.Fprintf(&b, "<tr id=%q><td>%s<td>%d<td>%d<td>%s<td>%s\n",
			e.Anchor(), e.Code, e.Number, e.Status, html.EscapeString(e.Text), html.EscapeString(e.When))
	}
	b.WriteString("</table>\n")
	h := x.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'")
	_, _ = x.w.Write([]byte(b.String()))
	return nil
}
