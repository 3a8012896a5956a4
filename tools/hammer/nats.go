package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"watchword.dev/events/stream"
)

// limitServer is a plain nats-server with one stream like the ledger's: what
// the limits are measured on. One user may do everything.
type limitServer struct {
	ns *server.Server
}

const password = "on loopback only"

// startLimit starts a server over dir. With syncAlways it waits for the disk
// at every write, as the ledger's must; without, it is quick to fill.
func startLimit(dir string, syncAlways bool, maxBytes int64) (*limitServer, error) {
	ns, err := server.NewServer(&server.Options{
		ServerName: "limit", Host: "127.0.0.1", Port: server.RANDOM_PORT, StoreDir: dir,
		JetStream: true, JetStreamMaxStore: maxBytes + 64<<20, JetStreamMaxMemory: 64 << 20, SyncAlways: syncAlways,
		Username: "hammer", Password: password, NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, err
	}
	ns.Start()
	s := &limitServer{ns: ns}
	if !ns.ReadyForConnections(30 * time.Second) {
		s.stop()
		return nil, errors.New("the server for the limit does not listen")
	}
	nc, err := s.connect(false)
	if err == nil {
		defer nc.Close()
		var js jetstream.JetStream
		if js, err = jetstream.New(nc); err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, err = js.CreateStream(ctx, stream.EventsConfig(1, maxBytes))
		}
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("the server for the limit: %w", err)
	}
	return s, nil
}

// connect connects over TCP, or within the process.
func (s *limitServer) connect(inProcess bool) (*nats.Conn, error) {
	opts := []nats.Option{nats.UserInfo("hammer", password), nats.ReconnectBufSize(-1)}
	if inProcess {
		opts = append(opts, nats.InProcessServer(s.ns))
	}
	return nats.Connect(s.ns.ClientURL(), opts...)
}

func (s *limitServer) stop() {
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
}
