package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/oklog/run"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"watchword.dev/events/catalogue"
	"watchword.dev/services/config"
	"watchword.dev/services/introspection"
	"watchword.dev/services/introspection/extauthz"
	"watchword.dev/services/introspection/routes"
)

// proxySide is what proxies ask, beside HTTP's own part.
type proxySide struct {
	file     atomic.Pointer[routes.File] // nil before the node is ready, and without --routes
	envoy    *extauthz.Server            // nil where Envoy is not answered
	listener net.Listener
	grpc     *grpc.Server
}

// openProxies takes the address for Envoy.
func (n *node) openProxies() error {
	if n.cfg.ExtAuthzListen == "" || !n.cfg.Runs(config.RoleIntrospection) {
		return nil
	}
	var o []grpc.ServerOption
	if n.cfg.TLSCert != "" {
		c, err := credentials.NewServerTLSFromFile(n.cfg.TLSCert, n.cfg.TLSKey)
		if err != nil {
			return fmt.Errorf("the certificate: %w", err)
		}
		o = append(o, grpc.Creds(c))
	}
	var err error
	if n.proxies.listener, err = net.Listen("tcp", n.cfg.ExtAuthzListen); err != nil {
		return fmt.Errorf("listen for Envoy: %w", err)
	}
	n.proxies.envoy = extauthz.New(string(n.cfg.ExtAuthzKey), n.log)
	n.proxies.grpc = n.proxies.envoy.GRPC(o...)
	return nil
}

// openRoutes reads the file of routes. Here it must be good; later a bad one
// only changes nothing.
func (n *node) openRoutes(cat func() *catalogue.Catalogue) error {
	if n.cfg.Routes == "" {
		return nil
	}
	f, err := routes.Open(n.cfg.Routes, cat, n.log)
	if err != nil {
		return fmt.Errorf("the routes: %w", err)
	}
	n.proxies.file.Store(f)
	return nil
}

// routeMap returns the routes that hold, nil when there are none.
func (n *node) routeMap() *routes.Map {
	if f := n.proxies.file.Load(); f != nil {
		return f.Map()
	}
	return nil
}

// figures are how many routes hold, and 1 if the file as it is now is not what
// holds.
func (p *proxySide) figures() (routes, broken float64) {
	f := p.file.Load()
	if f == nil {
		return 0, 0
	}
	if f.Err() != nil {
		broken = 1
	}
	return float64(f.Map().Len()), broken
}

// serveEnvoy lets s answer Envoy from now on.
func (n *node) serveEnvoy(s *introspection.Service) {
	if n.proxies.envoy == nil {
		return
	}
	n.proxies.envoy.Open(s)
	n.log.Info("ext_authz", "grpc", n.proxies.listener.Addr().String())
}

// addProxies adds the actors.
func (n *node) addProxies(g *run.Group, actor func(func(context.Context) error)) {
	if n.cfg.Routes != "" {
		actor(n.watchRoutes)
	}
	if n.proxies.grpc == nil {
		return
	}
	g.Add(func() error {
		err := n.proxies.grpc.Serve(n.proxies.listener)
		if errors.Is(err, grpc.ErrServerStopped) {
			return nil
		}
		return err
	}, func(error) { n.stopEnvoy() })
}

// stopEnvoy lets running calls end, for as long as a shutdown may take.
func (n *node) stopEnvoy() {
	ended := make(chan struct{})
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.ShutdownTimeout)
	defer cancel()
	go func() {
		defer close(ended)
		n.proxies.grpc.GracefulStop()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		n.log.Warn("calls of Envoy were cut off at shutdown")
		n.proxies.grpc.Stop()
		<-ended
	}
}

// watchRoutes looks at the file of routes again and again, and at SIGHUP, until
// ctx ends.
func (n *node) watchRoutes(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	select {
	case <-ctx.Done():
		return nil
	case <-n.ready:
	}
	if f := n.proxies.file.Load(); f != nil {
		f.Run(ctx, hup)
	}
	<-ctx.Done()
	return nil
}
