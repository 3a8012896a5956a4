// Package grpc guards gRPC services with an enforcer: interceptors for unary
// calls and streams.
//
//	rules := grpc.Rules{
//		"/dns.v1.Records/Write": {Permission: "dns.records.write", Resource: zoneOf},
//		"/dns.v1.Records/Watch": {Permission: "dns.records.read", Resource: zoneOf},
//		"/grpc.health.v1.Health/Check": grpc.Open,
//	}
//	g, err := grpc.New(e, grpc.Config{Rules: rules})
//	…
//	server := googlegrpc.NewServer(googlegrpc.UnaryInterceptor(g.Unary), googlegrpc.StreamInterceptor(g.Stream))
//
// A method that no rule names is refused. The secret comes in the metadata
// "authorization", as over HTTP. What is answered:
//
//	no credential, or one that is not good   Unauthenticated
//	a header or a resource that is malformed InvalidArgument
//	a good one that does not allow this      PermissionDenied
//	nobody could tell                        Unavailable
//
// A handler finds who it is with enforcer.FromContext. The context of a stream
// ends when its token no longer allows the method, and the stream with it:
// see enforcer.Bind.
package grpc

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"watchword.dev/events/clientaddr"
	"watchword.dev/events/enforcer"
)

// Resource tells what a call is about: the keys, outermost first. req is the
// request of a unary call and nil for a stream, whose first message has not
// come. An error that wraps enforcer.ErrUnavailable is answered with
// Unavailable, every other one with InvalidArgument.
type Resource func(ctx context.Context, req any) ([]string, error)

// Rule says what a method needs.
type Rule struct {
	Permission string
	Resource   Resource
	open       bool
}

// Open is the rule of a method that everybody may call.
var Open = Rule{open: true}

// Rules are the rules of the methods, by full name: "/package.Service/Method".
type Rules map[string]Rule

// Config is what a Guard needs beside an enforcer.
type Config struct {
	Rules Rules
	// Address says how a client's address is found: that of the connection, or
	// what trusted proxies say in the metadata.
	Address clientaddr.Rule
	// Refused hears of each refusal, for the log; it may be nil.
	Refused func(ctx context.Context, method string, f *enforcer.Refusal)
}

// Guard holds the interceptors.
type Guard struct {
	e   *enforcer.Enforcer
	cfg Config
}

// New returns a guard.
func New(e *enforcer.Enforcer, cfg Config) (*Guard, error) {
	if e == nil {
		return nil, errors.New("enforcer/grpc: an enforcer is needed")
	}
	for method, r := range cfg.Rules {
		if !strings.HasPrefix(method, "/") || strings.Count(method, "/") != 2 {
			return nil, errors.New("enforcer/grpc: a method is written /package.Service/Method, not " + method)
		}
		if !r.open && (r.Permission == "" || r.Resource == nil) {
			return nil, errors.New("enforcer/grpc: " + method + " needs a permission and a resource")
		}
	}
	cfg.Address = cfg.Address.Canonical()
	return &Guard{e, cfg}, nil
}

// Unary is a grpc.UnaryServerInterceptor.
func (g *Guard) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	id, open, err := g.check(ctx, info.FullMethod, req)
	if err != nil {
		return nil, err
	}
	if !open {
		ctx = enforcer.NewContext(ctx, id)
	}
	return next(ctx, req)
}

// Stream is a grpc.StreamServerInterceptor.
func (g *Guard) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	id, open, err := g.check(stream.Context(), info.FullMethod, nil)
	if err != nil {
		return err
	}
	if open {
		return next(srv, stream)
	}
	ctx, stop := id.Bind(enforcer.NewContext(stream.Context(), id))
	defer stop()
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			o.panicked = recover()
			done <- o
		}()
		o.err = next(srv, &boundStream{stream, ctx})
	}()
	select {
	case o := <-done:
		return o.result(ctx)
	case <-ctx.Done():
		// A handler that waits for a message does not see that its context has
		// ended. The stream ends when this returns, and with it the wait.
		if end := ended(ctx); end != nil {
			return end
		}
		o := <-done
		return o.result(ctx)
	}
}

// outcome is how a handler has ended.
type outcome struct {
	err      error
	panicked any
}

// result passes a panic on to where interceptors look for it.
func (o *outcome) result(ctx context.Context) error {
	if o.panicked != nil {
		panic(o.panicked)
	}
	if end := ended(ctx); end != nil && o.err != nil {
		return end
	}
	return o.err
}

// boundStream is a stream under the context of its token.
type boundStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *boundStream) Context() context.Context { return s.ctx }

// SendMsg sends nothing once the token has ended.
func (s *boundStream) SendMsg(m any) error {
	if err := ended(s.ctx); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

// RecvMsg receives nothing once the token has ended.
func (s *boundStream) RecvMsg(m any) error {
	if err := ended(s.ctx); err != nil {
		return err
	}
	err := s.ServerStream.RecvMsg(m)
	if end := ended(s.ctx); end != nil {
		return end
	}
	return err
}

// ended returns the status of a bound context whose token has ended, or nil.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, enforcer.ErrUnavailable):
		return status.Error(codes.Unavailable, "the access token could not be checked")
	case errors.Is(cause, enforcer.ErrEnded):
		return status.Error(codes.Unauthenticated, "the access token has ended")
	}
	return nil
}

// check decides about a call.
func (g *Guard) check(ctx context.Context, method string, req any) (id enforcer.Identity, open bool, err error) {
	rule, ok := g.cfg.Rules[method]
	switch {
	case !ok:
		return id, false, status.Error(codes.PermissionDenied, "nobody may call this method")
	case rule.open:
		return id, true, nil
	}
	id, f := g.ask(ctx, &rule, req)
	if f == nil {
		return id, false, nil
	}
	if g.cfg.Refused != nil {
		g.cfg.Refused(ctx, method, f)
	}
	return id, false, statusOf(f)
}

func (g *Guard) ask(ctx context.Context, rule *Rule, req any) (enforcer.Identity, *enforcer.Refusal) {
	md, _ := metadata.FromIncomingContext(ctx)
	secret, f := credential(md["authorization"])
	if f != nil {
		f.Permission = rule.Permission
		return enforcer.Identity{}, f
	}
	chain, err := rule.Resource(ctx, req)
	if err != nil {
		return enforcer.Identity{}, enforcer.ResourceRefusal(rule.Permission, err)
	}
	return g.e.Check(ctx, secret, rule.Permission, chain, g.address(ctx, md))
}

// credential returns the secret in the metadata, by the rules of HTTP.
func credential(lines []string) (string, *enforcer.Refusal) {
	none := &enforcer.Refusal{Status: http.StatusUnauthorized}
	switch len(lines) {
	case 0:
		return "", none
	case 1:
	default:
		return "", &enforcer.Refusal{Status: http.StatusBadRequest, Code: enforcer.CodeInvalidRequest}
	}
	scheme, secret, _ := strings.Cut(lines[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", none
	}
	if secret = strings.Trim(secret, " "); secret == "" {
		return "", &enforcer.Refusal{Status: http.StatusBadRequest, Code: enforcer.CodeInvalidRequest}
	}
	return secret, nil
}

// address returns the client's address, by the rules of HTTP.
func (g *Guard) address(ctx context.Context, md metadata.MD) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return netip.Addr{}
	}
	name := g.cfg.Address.Header
	return g.cfg.Address.Of(&http.Request{RemoteAddr: p.Addr.String(), Header: http.Header{name: md[strings.ToLower(name)]}})
}

// statusOf returns what the client is told.
func statusOf(f *enforcer.Refusal) error {
	switch f.Status {
	case http.StatusBadRequest:
		return status.Error(codes.InvalidArgument, "the request has a malformed credential or resource")
	case http.StatusUnauthorized:
		if f.Code == "" {
			return status.Error(codes.Unauthenticated, "an access token is needed")
		}
		return status.Error(codes.Unauthenticated, "the access token is not valid here")
	case http.StatusForbidden:
		return status.Error(codes.PermissionDenied, "the access token does not allow "+f.Permission+" here")
	}
	return status.Error(codes.Unavailable, "the access token could not be checked")
}
