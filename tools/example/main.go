// Command example is a small DNS service that obeys Watchword. Thin, it asks a
// verifier over HTTP, keeps the answers, and drops what the feed says has changed;
// full, it has the whole index and asks nobody.
//
//	watchword enforcer enroll edge --region eu      # writes edge.json and edge.nkey
//	go run ./tools/example -credentials edge.json -mode full -data edge-index
//
//	curl -i -H "Authorization: Bearer wwu_…" 127.0.0.1:8430/accounts/ACCOUNT/zones/ZONE/records
//	curl -N -H "Authorization: Bearer wwu_…" 127.0.0.1:8430/accounts/ACCOUNT/zones/ZONE/changes
//
// The second one goes on until the token is revoked. demo.sh beside this file
// shows who has heard of that.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"watchword.dev/events/enforcer"
)

// options are the flags.
type options struct {
	credentials string
	mode        string
	feed        string
	data        string
	listen      string
}

func main() {
	var o options
	flag.StringVar(&o.credentials, "credentials", "edge.json", "file that `watchword enforcer enroll` has written, with the seed beside it")
	flag.StringVar(&o.mode, "mode", "thin", "thin asks a verifier for what is new, full has an index of its own")
	flag.StringVar(&o.feed, "feed", "auto", "how the events come and the receipts go: nats, http, or auto: nats where the installation lets its clients in")
	flag.StringVar(&o.data, "data", "edge-index", "directory of the index of -mode full")
	flag.StringVar(&o.listen, "listen", "127.0.0.1:8430", "where to serve")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, func(addr string) { slog.Info("serving", "addr", addr, "mode", o.mode) }); err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, or until nothing can be verified any more. It calls
// ready when the doors are open and the pen has vouched for what is known.
func run(ctx context.Context, o options, ready func(addr string)) error {
	s, err := newService(ctx, o)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return errors.Join(err, s.close())
	}
	// Requests end before the following does, whose last word is that nothing is
	// verified here any more.
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	followed := make(chan error, 1)
	go func() { followed <- s.follow(following) }()
	server := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return requests }}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	for up := s.ready; err == nil && ctx.Err() == nil; {
		select {
		case <-up:
			ready(l.Addr().String())
			up = nil
		case err = <-followed: // never nil
		case <-ctx.Done():
		}
	}
	cut()
	end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = server.Shutdown(end) // what is left after that is cut by the end of the process
	<-served
	if stop(); err == nil {
		if err = <-followed; errors.Is(err, context.Canceled) {
			err = nil
		}
	}
	return errors.Join(err, s.close())
}

// routes are those of the service.
func (s *service) routes() http.Handler {
	zone := enforcer.Path("com.cloudflare.api.account.{account}", "com.cloudflare.api.account.zone.{zone}")
	mux := http.NewServeMux()
	mux.Handle("GET /accounts/{account}/zones/{zone}/records", s.guard.Require("dns.records.read", zone)(http.HandlerFunc(records)))
	mux.Handle("GET /accounts/{account}/zones/{zone}/changes", s.guard.Handle("dns.records.read", zone, changes))
	return mux
}

// records is a short request: that it was let through says all.
func records(w http.ResponseWriter, r *http.Request) {
	id, _ := enforcer.FromContext(r.Context())
	fmt.Fprintf(w, "the records of %s, for token %v\n", r.PathValue("zone"), id.Token)
}

// changes goes on for as long as the token allows it.
func changes(w http.ResponseWriter, r *http.Request, id enforcer.Identity) {
	ctx, stop := id.Bind(r.Context())
	defer stop()
	answer := http.NewResponseController(w)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		fmt.Fprintf(w, "nothing has changed in %s\n", r.PathValue("zone"))
		if answer.Flush() != nil {
			return // the client has gone
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			fmt.Fprintf(w, "the end: %v\n", context.Cause(ctx))
			return
		}
	}
}
