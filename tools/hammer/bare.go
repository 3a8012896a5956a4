package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	json "github.com/go-json-experiment/json"
)

// bareCommand makes this program the limit of the http bench: a process of its
// own, as the server is one.
const bareCommand = "bare-http-server"

// bareAnswer is as long as a decision of the server.
const bareAnswer = `{"decision":"allow","reason":"","token_id":"019b77a0b4007400bf58476d1ce4e5b9","owner":"019b77a0b4007500bf58476d1ce4e5b9",` +
	`"owner_kind":"user","policy_id":"019b77a0b4007000bf58476d1ce4e5b9","sequence":2008,"age_ms":512,"stale":false}`

// serveBare answers every POST with the same bytes, after it has decoded the
// body, and every GET with as many as its query says. It says on out where it listens, and ends by a signal.
func serveBare(out io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, l.Addr())
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt, syscall.SIGTERM)
	s := &http.Server{Handler: http.HandlerFunc(bare)}
	go func() {
		<-ended
		s.Close()
	}()
	if err := s.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// bareBody is what POST /v1/verify takes.
type bareBody struct {
	Secret     string   `json:"secret"`
	Permission string   `json:"permission"`
	Resource   []string `json:"resource"`
	ClientIP   string   `json:"client_ip"`
}

func bare(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		bareBytes(w, r)
		return
	}
	var body bareBody
	if err := json.UnmarshalRead(r.Body, &body); err != nil || body.Secret == "" || len(body.Resource) != 2 {
		http.Error(w, "no", http.StatusBadRequest)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(bareAnswer)))
	io.WriteString(w, bareAnswer)
}

// bareBytes writes as many bytes as an answer has that was made by looking
// something up.
func bareBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.RawQuery)
	if err != nil || n < 0 || n > 1<<20 {
		http.Error(w, "no", http.StatusBadRequest)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(n))
	w.Write(bytes.Repeat([]byte{'x'}, n))
}
