// Command example is a small DNS service that obeys Watchword: it asks a
// verifier over HTTP, keeps the answers, and drops what the feed says has
// changed.
//
//	go run ./tools/example -admin data/admin.json
//
//	curl -i -H "Authorization: Bearer wwu_…" 127.0.0.1:8430/accounts/ACCOUNT/zones/ZONE/records
//	curl -N -H "Authorization: Bearer wwu_…" 127.0.0.1:8430/accounts/ACCOUNT/zones/ZONE/changes
//
// The second one goes on until the token is revoked.
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

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/enforcer"
	"watchword.dev/events/feed/sse"
	"watchword.dev/events/token"
)

// credentials are the part of admin.json that a service needs: where to ask,
// and with which key.
type credentials struct {
	BaseURL     string `json:"base_url"`
	EnforcerKey string `json:"enforcer_key"`
}

func main() {
	admin := flag.String("admin", "data/admin.json", "file with base_url and enforcer_key, as the first start of a server writes it")
	listen := flag.String("listen", "127.0.0.1:8430", "where to serve")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *admin, *listen, func(addr string) { slog.Info("serving", "addr", addr) }); err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. It calls ready when the doors are open and a pulse
// has vouched for the cache.
func run(ctx context.Context, admin, listen string, ready func(addr string)) error {
	raw, err := os.ReadFile(admin)
	if err != nil {
		return err
	}
	var c credentials
	if err := json.Unmarshal(raw, &c); err != nil {
		return fmt.Errorf("%s: %w", admin, err)
	}
	s, err := newService(c)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	followed := make(chan error, 1)
	go func() { followed <- enforcer.FollowNewest(ctx, s.feed, s.cache, s.guard) }()
	server := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	go func() {
		select {
		case <-s.vouched:
			ready(l.Addr().String())
			<-ctx.Done()
		case <-ctx.Done():
		}
		end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(end) // what is left after that is cut by the end of the process
	}()
	err = server.Serve(l)
	stop()
	<-followed
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// service is the example.
type service struct {
	cache   *enforcer.Cache
	guard   *enforcer.Enforcer
	feed    *sse.Reader
	vouched chan struct{} // has an element as soon as a pulse has come
}

func newService(c credentials) (*service, error) {
	client, err := enforcer.NewClient(enforcer.ClientConfig{URLs: []string{c.BaseURL}, Key: token.NewSecret(c.EnforcerKey), Log: slog.Default()})
	if err != nil {
		return nil, err
	}
	s := &service{vouched: make(chan struct{}, 1)}
	if s.cache, err = enforcer.NewCache(enforcer.CacheConfig{Source: client, Log: slog.Default()}); err != nil {
		return nil, err
	}
	if s.guard, err = enforcer.New(enforcer.Config{Decider: s.cache, OnRevoked: func(r enforcer.Revocation) {
		slog.Info("revoked", "by", r.By, "id", r.ID.String(), "sequence", r.Sequence)
	}}); err != nil {
		return nil, err
	}
	s.feed, err = sse.New(sse.Config{URL: c.BaseURL, Key: c.EnforcerKey, Log: slog.Default(), Pulse: func(p events.Pulse, arrived time.Time) {
		s.cache.Observe(p, arrived)
		select {
		case s.vouched <- struct{}{}:
		default:
		}
	}})
	return s, err
}

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
