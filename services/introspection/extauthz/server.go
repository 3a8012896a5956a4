// Package extauthz answers Envoy's external authorization over gRPC
// (envoy.service.auth.v3) as package introspection answers the forward-auth of
// other proxies: the same routes, the same identity headers, 401, 403 and 503.
//
// Every answer is a decision with a status of its own, never an error of gRPC:
// Envoy could be told to let requests pass on errors.
package extauthz

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sort"
	"sync/atomic"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"watchword.dev/events/fault"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/internal/web"
	"watchword.dev/services/introspection"
)

// KeyMetadata is where Envoy shows the enforcer's key, from initial_metadata of
// its grpc_service.
const KeyMetadata = "watchword-enforcer-key"

// The bounds of a call.
const (
	maxMessage  = 1 << 20
	maxMetadata = 16 << 10
	maxStreams  = 1000 // of one connection
)

// Gate decides. introspection.Service is one.
type Gate interface {
	Recognise(key string) (verifyindex.EnforcerInfo, *fault.Error)
	Pass(ctx context.Context, by *verifyindex.EnforcerInfo, p *introspection.Passing) *introspection.Verdict
	Unavailable(why string) *introspection.Verdict
}

// Server answers Envoy. Until Open it says that it is unavailable.
type Server struct {
	authv3.UnimplementedAuthorizationServer
	gate atomic.Pointer[Gate]
	key  string
	log  *slog.Logger
}

// New returns a server. key is the enforcer's key for callers that show none;
// where it is empty they are refused. A nil log is slog.Default().
func New(key string, log *slog.Logger) *Server {
	if log == nil {
		log = slog.Default()
	}
	return &Server{key: key, log: log}
}

// Open lets g decide from now on.
func (s *Server) Open(g Gate) { s.gate.Store(&g) }

// GRPC returns a gRPC server for s with bounds on what callers may send.
func (s *Server) GRPC(o ...grpc.ServerOption) *grpc.Server {
	g := grpc.NewServer(append(o, grpc.MaxRecvMsgSize(maxMessage), grpc.MaxHeaderListSize(maxMetadata), grpc.MaxConcurrentStreams(maxStreams))...)
	authv3.RegisterAuthorizationServer(g, s)
	return g
}

// Check implements authv3.AuthorizationServer.
func (s *Server) Check(ctx context.Context, r *authv3.CheckRequest) (answer *authv3.CheckResponse, _ error) {
	gate := s.gate.Load()
	if gate == nil {
		return denied(&introspection.Verdict{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"1"}}}), nil
	}
	defer func() {
		if p := recover(); p != nil {
			f := web.Recovered(p)
			s.log.Error("ext_authz", "fault", string(f.Code), "cause", f.Error())
			answer = denied((*gate).Unavailable("a failure of ours"))
		}
	}()
	by, f := (*gate).Recognise(s.keyOf(ctx))
	if f != nil {
		return denied((*gate).Unavailable("Envoy has no good key: " + string(f.Code))), nil
	}
	v := (*gate).Pass(ctx, &by, passing(r.GetAttributes()))
	if v.Status != http.StatusOK {
		return denied(v), nil
	}
	return allowed(v), nil
}

// keyOf returns the enforcer's key of a call.
func (s *Server) keyOf(ctx context.Context) string {
	shown := metadata.ValueFromIncomingContext(ctx, KeyMetadata)
	switch len(shown) {
	case 0:
		return s.key
	case 1:
		return shown[0]
	}
	return ""
}

// passing reads what Envoy tells of the request.
func passing(a *authv3.AttributeContext) *introspection.Passing {
	h := a.GetRequest().GetHttp()
	p := &introspection.Passing{Method: h.GetMethod(), Host: h.GetHost(), Target: h.GetPath()}
	// Envoy joins the lines of a header with commas, which no secret has in it.
	if line, ok := h.GetHeaders()["authorization"]; ok {
		p.Authorization = []string{line}
	}
	for _, v := range h.GetHeaderMap().GetHeaders() { // with encode_raw_headers
		if v.GetKey() == "authorization" {
			p.Authorization = append(p.Authorization, v.GetValue()+string(v.GetRawValue()))
		}
	}
	if from, err := netip.ParseAddr(a.GetSource().GetAddress().GetSocketAddress().GetAddress()); err == nil {
		p.Address = from.Unmap().WithZone("")
	}
	return p
}

// allowed replaces the identity headers, also by empty ones, and keeps the
// secret from the service.
func allowed(v *introspection.Verdict) *authv3.CheckResponse {
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: options(v.Header), HeadersToRemove: []string{"authorization"},
		}},
	}
}

func denied(v *introspection.Verdict) *authv3.CheckResponse {
	code := codes.PermissionDenied
	switch v.Status {
	case http.StatusUnauthorized:
		code = codes.Unauthenticated
	case http.StatusServiceUnavailable:
		code = codes.Unavailable
	}
	h := v.Header.Clone()
	for _, name := range introspection.IdentityHeaders {
		delete(h, name) // they go to the client
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(code)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode(v.Status)}, Headers: options(h), Body: string(v.Body),
		}},
	}
}

// options are headers that replace those of the same names.
func options(h http.Header) []*corev3.HeaderValueOption {
	all := make([]*corev3.HeaderValueOption, 0, len(h))
	for name, lines := range h {
		all = append(all, &corev3.HeaderValueOption{
			Header:         &corev3.HeaderValue{Key: name, Value: lines[0]},
			AppendAction:   corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			KeepEmptyValue: true,
		})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Header.Key < all[j].Header.Key })
	return all
}
