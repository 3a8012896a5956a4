package grpc

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"watchword.dev/events"
	"watchword.dev/events/clientaddr"
	"watchword.dev/events/enforcer"
	"watchword.dev/events/token"
)

const (
	check = "/grpc.health.v1.Health/Check"
	watch = "/grpc.health.v1.Health/Watch"
	drain = "/test.Drain/Drain"
)

var (
	secret    = "wwu_" + strings.Repeat("a", 44)
	someToken = token.ID{15: 1}
)

// world is a server whose decider says what the test says.
type world struct {
	e     *enforcer.Enforcer
	d     atomic.Pointer[token.Decision]
	asked atomic.Pointer[token.Request]
	seen  atomic.Pointer[enforcer.Identity]
	conn  *grpc.ClientConn
}

func (w *world) Verify(_ string, ask *token.Request) token.Decision {
	own := *ask
	own.Resource = []string{strings.Clone(strings.Join(ask.Resource, " "))}
	w.asked.Store(&own)
	return *w.d.Load()
}

func (w *world) say(r token.Reason) {
	w.d.Store(&token.Decision{Verdict: r.Verdict(), Reason: r, Token: someToken, Owner: token.ID{15: 2}, OwnerKind: token.OwnerUser})
}

// Check and Watch are those of the health service; Drain reads until its stream
// ends.
type service struct {
	*health.Server
	w *world
}

func (s *service) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if id, ok := enforcer.FromContext(ctx); ok {
		s.w.seen.Store(&id)
	}
	return s.Server.Check(ctx, r)
}

func (s *service) drain(_ any, stream grpc.ServerStream) error {
	for {
		if err := stream.RecvMsg(new(emptypb.Empty)); err != nil {
			return err
		}
		if err := stream.SendMsg(new(emptypb.Empty)); err != nil {
			return err
		}
	}
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{}
	w.say(token.ReasonNone)
	var err error
	if w.e, err = enforcer.New(enforcer.Config{Decider: w}); err != nil {
		t.Fatal(err)
	}
	of := func(_ context.Context, req any) ([]string, error) {
		r, ok := req.(*grpc_health_v1.HealthCheckRequest)
		switch {
		case !ok:
			return []string{"a.stream"}, nil
		case r.Service == "nobody can tell":
			return nil, fmt.Errorf("database: %w", enforcer.ErrUnavailable)
		}
		return []string{"a." + r.Service}, nil
	}
	rule := Rule{Permission: "dns.records.read", Resource: of}
	g, err := New(w.e, Config{
		Rules:   Rules{check: rule, watch: rule, drain: rule, "/test.Drain/Open": Open},
		Address: clientaddr.Rule{Trusted: clientaddr.Proxies{netip.MustParsePrefix("127.0.0.0/8")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(g.Unary), grpc.StreamInterceptor(g.Stream))
	s := &service{health.NewServer(), w}
	s.SetServingStatus("1", grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(server, s)
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Drain", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{
		{StreamName: "Drain", Handler: s.drain, ServerStreams: true, ClientStreams: true},
		{StreamName: "Open", Handler: s.drain, ServerStreams: true, ClientStreams: true},
		{StreamName: "Forgotten", Handler: s.drain, ServerStreams: true, ClientStreams: true},
	}}, s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(server.Stop)
	if w.conn, err = grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.conn.Close() })
	return w
}

func with(ctx context.Context, pairs ...string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

func TestUnary(t *testing.T) {
	w := start(t)
	bearer := []string{"authorization", "Bearer " + secret}
	for name, c := range map[string]struct {
		metadata []string
		service  string
		reason   token.Reason
		want     codes.Code
	}{
		"allowed":               {bearer, "1", token.ReasonNone, codes.OK},
		"no credential":         {nil, "1", token.ReasonNone, codes.Unauthenticated},
		"another scheme":        {[]string{"authorization", "Basic dTpw"}, "1", token.ReasonNone, codes.Unauthenticated},
		"two of them":           {append(bearer, bearer...), "1", token.ReasonNone, codes.InvalidArgument},
		"nothing behind":        {[]string{"authorization", "Bearer "}, "1", token.ReasonNone, codes.InvalidArgument},
		"a malformed one":       {[]string{"authorization", "Bearer a b"}, "1", token.ReasonNone, codes.InvalidArgument},
		"revoked":               {bearer, "1", token.ReasonRevoked, codes.Unauthenticated},
		"no policy":             {bearer, "1", token.ReasonNoPolicy, codes.PermissionDenied},
		"stale":                 {bearer, "1", token.ReasonStale, codes.Unavailable},
		"an id with a star":     {bearer, "*", token.ReasonNone, codes.InvalidArgument},
		"a resource not to had": {bearer, "nobody can tell", token.ReasonNone, codes.Unavailable},
	} {
		w.say(c.reason)
		w.seen.Store(nil)
		_, err := grpc_health_v1.NewHealthClient(w.conn).Check(with(t.Context(), c.metadata...), &grpc_health_v1.HealthCheckRequest{Service: c.service})
		if status.Code(err) != c.want || err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
		if id := w.seen.Load(); (id != nil) != (c.want == codes.OK) || id != nil && id.Token != someToken {
			t.Errorf("%s: the handler saw %+v", name, id)
		}
	}
}

func TestAddressComesFromTrustedProxies(t *testing.T) {
	w := start(t)
	client := grpc_health_v1.NewHealthClient(w.conn)
	ctx := with(t.Context(), "authorization", "Bearer "+secret)
	for _, c := range []struct {
		ctx  context.Context
		want string
	}{{ctx, "127.0.0.1"}, {with(ctx, "x-forwarded-for", "203.0.113.9, 198.51.100.7"), "198.51.100.7"}} {
		if _, err := client.Check(c.ctx, &grpc_health_v1.HealthCheckRequest{Service: "1"}); err != nil {
			t.Fatal(err)
		}
		if a := w.asked.Load(); a.Address.String() != c.want || a.Resource[0] != "a.1" || a.Permission != "dns.records.read" {
			t.Errorf("asked about %+v, want it from %s", a, c.want)
		}
	}
}

// TestStreamsEndWithTheToken: one that waits for its context, and one that
// waits for a message.
func TestStreamsEndWithTheToken(t *testing.T) {
	w := start(t)
	ctx := with(t.Context(), "authorization", "Bearer "+secret)
	watching, err := grpc_health_v1.NewHealthClient(w.conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watching.Recv(); err != nil {
		t.Fatal(err)
	}
	draining := w.stream(t, ctx, drain)
	if err := echo(draining); err != nil {
		t.Fatal(err)
	}
	id := "token/" + someToken.String()
	w.e.Applied(&events.Commit{Seq: 8, Records: []events.Record{{Envelope: events.Envelope{Subject: id}, Seq: 8, Data: &events.TokenRevoked{}}}})
	if _, err := watching.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the one that watches: %v", err)
	}
	if err := draining.RecvMsg(new(emptypb.Empty)); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the one that reads: %v", err)
	}
}

func TestStreamsAreRefused(t *testing.T) {
	w := start(t)
	w.say(token.ReasonNoPolicy)
	ctx := with(t.Context(), "authorization", "Bearer "+secret)
	for method, want := range map[string]codes.Code{drain: codes.PermissionDenied, "/test.Drain/Forgotten": codes.PermissionDenied, "/test.Drain/Open": codes.OK} {
		if err := echo(w.stream(t, ctx, method)); status.Code(err) != want {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func (w *world) stream(t *testing.T, ctx context.Context, method string) grpc.ClientStream {
	t.Helper()
	s, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// echo sends a message and waits for the answer.
func echo(s grpc.ClientStream) error {
	_ = s.SendMsg(new(emptypb.Empty)) // what was refused, the answer tells
	return s.RecvMsg(new(emptypb.Empty))
}

func TestMistakesAreFoundAtTheStart(t *testing.T) {
	e, err := enforcer.New(enforcer.Config{Decider: &world{}})
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]Rules{
		"no permission": {check: {Resource: func(context.Context, any) ([]string, error) { return nil, nil }}},
		"no resource":   {check: {Permission: "p"}},
		"no method":     {"Check": Open},
	} {
		if _, err := New(e, Config{Rules: r}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := New(nil, Config{}); err == nil {
		t.Error("no enforcer: taken")
	}
}
