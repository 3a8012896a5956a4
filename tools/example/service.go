package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"watchword.dev/events"
	"watchword.dev/events/credentials"
	"watchword.dev/events/enforcer"
	"watchword.dev/events/feed"
	"watchword.dev/events/feed/sse"
	"watchword.dev/events/receipt"
	"watchword.dev/events/token"
	"watchword.dev/projections/localindex"
	"watchword.dev/projections/verifyindex"
)

// service is the example: what guards it, and what keeps that up to date.
type service struct {
	guard  *enforcer.Enforcer
	follow func(context.Context) error // until the context ends; then it has said bye
	ready  <-chan struct{}
	close  func() error
}

// identity is who this service is to the installation, and its ways there.
type identity struct {
	credentials.File
	key    ed25519.PrivateKey
	client *enforcer.Client
	nc     *nats.Conn // nil over HTTP
}

func newService(ctx context.Context, o options) (*service, error) {
	id, err := identify(o)
	if err != nil {
		return nil, err
	}
	var s *service
	switch o.mode {
	case "thin":
		s, err = id.thin()
	case "full":
		s, err = id.full(ctx, o.data)
	default:
		err = fmt.Errorf("-mode %s: there are thin and full", o.mode)
	}
	if err != nil {
		return nil, errors.Join(err, id.close())
	}
	return s, nil
}

func identify(o options) (*identity, error) {
	c, err := credentials.Read(o.credentials)
	if err != nil {
		return nil, err
	}
	if c.Kind != credentials.Enforcer || c.SeedFile == "" {
		return nil, fmt.Errorf("%s is not that of an enforcer with a seed", o.credentials)
	}
	seed, err := os.ReadFile(c.SeedFile)
	if err != nil {
		return nil, err
	}
	id := &identity{File: c}
	if id.key, err = receipt.ParseSeed(strings.TrimSpace(string(seed))); err != nil {
		return nil, err
	}
	if id.client, err = enforcer.NewClient(enforcer.ClientConfig{URLs: []string{c.BaseURL}, Key: token.NewSecret(c.Key), Log: slog.Default()}); err != nil {
		return nil, err
	}
	switch {
	case o.feed == "nats" || o.feed == "auto" && c.NATSURL != "":
		id.nc, err = feed.Connect(c.NATSURL, c.SeedFile, c.ID.String(), slog.Default())
	case o.feed != "http" && o.feed != "auto":
		err = fmt.Errorf("-feed %s: there are auto, nats and http", o.feed)
	}
	return id, err
}

func (id *identity) close() error {
	id.client.Close()
	if id.nc != nil {
		id.nc.Close()
	}
	return nil
}

// publisher is where the receipts go.
func (id *identity) publisher() (receipt.Publisher, error) {
	if id.nc == nil {
		return id.client, nil
	}
	return feed.NewPublisher(id.nc)
}

// events is where the events come from. Pulse hears of each pulse, whose key is
// found out where it is nil.
func (id *identity) events(pulse func(events.Pulse, time.Time), key ed25519.PublicKey) (enforcer.Newest, error) {
	if id.nc == nil {
		return sse.New(sse.Config{URL: id.BaseURL, Key: id.Key, Pulse: pulse, PulseKey: key, Log: slog.Default()})
	}
	return feed.New(id.nc, feed.Config{Pulse: pulse, PulseKey: key, Log: slog.Default()}), nil
}

// guarded is an enforcer by a decider.
func guarded(d enforcer.Decider) (*enforcer.Enforcer, error) {
	return enforcer.New(enforcer.Config{Decider: d, OnRevoked: func(r enforcer.Revocation) {
		slog.Info("revoked", "by", r.By, "id", r.ID.String(), "sequence", r.Sequence)
	}})
}

// oldest is how old what an answer rests on may be: for so long somebody who
// revokes a token must wait for a service that has fallen silent.
const oldest = 30 * time.Second

// thin asks a verifier for what is new, and keeps the answers.
func (id *identity) thin() (*service, error) {
	publisher, err := id.publisher()
	if err != nil {
		return nil, err
	}
	reports, err := receipt.NewReporter(receipt.Config{
		Enforcer: id.ID, Key: id.key, Publisher: publisher, Region: id.Region, Bound: oldest, Log: slog.Default(),
	})
	if err != nil {
		return nil, err
	}
	cache, err := enforcer.NewCache(enforcer.CacheConfig{Source: id.client, Reports: reports, Log: slog.Default()})
	if err != nil {
		return nil, err
	}
	guard, err := guarded(cache)
	if err != nil {
		return nil, err
	}
	ready, came := make(chan struct{}), false
	follows, err := id.events(func(p events.Pulse, arrived time.Time) {
		cache.Observe(p, arrived)
		if _, known := cache.Age(); known && !came {
			came = true
			close(ready)
		}
	}, nil)
	if err != nil {
		return nil, err
	}
	return &service{guard: guard, ready: ready, close: id.close, follow: func(ctx context.Context) error {
		return enforcer.FollowReporting(ctx, follows, reports, cache, guard)
	}}, nil
}

// full has an index of its own, which begins with a verifier's snapshot.
func (id *identity) full(ctx context.Context, dir string) (*service, error) {
	publisher, err := id.publisher()
	if err != nil {
		return nil, err
	}
	x, err := localindex.Open(ctx, localindex.Config{
		Dir: dir, Enforcer: id.ID, Key: id.key, Publisher: publisher, Region: id.Region, Snapshots: id.client, Log: slog.Default(),
		Bounds: verifyindex.Bounds{Read: oldest, Write: oldest},
	})
	if err != nil {
		return nil, err
	}
	guard, err := guarded(x)
	if err != nil {
		return nil, errors.Join(err, x.Close())
	}
	follows, err := id.events(x.Observe, x.PulseKey())
	if err != nil {
		return nil, errors.Join(err, x.Close())
	}
	return &service{
		guard: guard, ready: x.Ready(),
		follow: func(ctx context.Context) error { return x.Run(ctx, follows, guard) },
		close:  func() error { return errors.Join(x.Close(), id.close()) },
	}, nil
}
