package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	json "github.com/go-json-experiment/json"
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

// jobVariable is the environment variable that makes this program an enforcer:
// it names the file with the job.
const jobVariable = "WATCHWORD_HISTORY_JOB"

// The kinds of enforcers.
const (
	thinHTTP = "thin-http" // a cache that hears the events over HTTP
	thinNATS = "thin-nats" // a cache that hears them over NATS
	fullHTTP = "full-http" // an index of its own that hears them over HTTP
	fullNATS = "full-nats"
	deaf     = "deaf" // wrong on purpose: it says what it hears, and does not heed it
)

// job is what an enforcer is told.
type job struct {
	Kind        string   `json:"kind"`
	Credentials string   `json:"credentials"`
	HTTP        string   `json:"http"` // base URL, through the faults
	NATS        string   `json:"nats"`
	Tokens      string   `json:"tokens"`  // file with the secrets to ask about, which grows
	Answers     string   `json:"answers"` // file for the answers
	Dir         string   `json:"dir"`     // for an index
	Chain       []string `json:"chain"`   // the resource
	Read        int64    `json:"read"`    // staleness bounds, nanoseconds
	Write       int64    `json:"write"`
	Rate        int      `json:"rate"` // questions a second
	Seed        uint64   `json:"seed"`
}

// secret is a line of job.Tokens; it is named by its place there.
type secret struct {
	ID     token.ID `json:"id"`
	Secret string   `json:"secret"`
	Anchor bool     `json:"anchor,omitzero"` // its token never changes
}

// answer is a line of job.Answers.
type answer struct {
	Begin    int64         `json:"b"` // Unix nanoseconds
	End      int64         `json:"e"`
	Sequence uint64        `json:"q"`
	Verdict  token.Verdict `json:"v"`
	Secret   int           `json:"s"` // its place in job.Tokens
	Write    bool          `json:"w"` // the permission: to write, or to read
}

const (
	permissionRead  = "dns.records.read"
	permissionWrite = "dns.records.write"
	askers          = 4   // goroutines that ask
	newestSecrets   = 300 // of which most questions are
)

// runJob is the whole life of an enforcer: it ends with SIGTERM, says bye, and
// leaves its answers in their file.
func runJob(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	e := &enforcing{log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if err := json.Unmarshal(raw, &e.job); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return e.run(ctx)
}

// enforcing is an enforcing service: it asks itself.
type enforcing struct {
	job
	log    *slog.Logger
	who    credentials.File
	key    ed25519.PrivateKey // of who
	client *enforcer.Client
	nc     *nats.Conn // of those over NATS

	guard   *enforcer.Enforcer
	follow  func(context.Context) error // until the context ends, and then it says bye
	release func() error

	mu      sync.Mutex
	secrets []secret
	anchors []int
	out     *bufio.Writer
}

func (e *enforcing) run(ctx context.Context) error {
	file, err := os.OpenFile(e.Answers, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	e.out = bufio.NewWriter(file)
	if err := e.connect(); err != nil {
		return err
	}
	defer e.client.Close()
	if e.nc != nil {
		defer e.nc.Close()
	}
	if e.Kind == fullHTTP || e.Kind == fullNATS {
		err = e.buildFull(ctx)
	} else {
		err = e.buildThin()
	}
	if err != nil {
		return err
	}
	// Its last word is that it verifies nothing more, so the asking ends first.
	following, stop := context.WithCancel(context.Background())
	defer stop()
	followed := make(chan error, 1)
	go func() { followed <- e.follow(following) }()
	var asking sync.WaitGroup
	asking.Go(func() { e.load(ctx) })
	for n := range askers {
		asking.Go(func() { e.ask(ctx, rand.New(rand.NewPCG(e.Seed, uint64(n)))) })
	}
	asking.Wait()
	stop()
	if err = <-followed; errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, e.release(), e.out.Flush())
}

// connect reads who it is, and makes its ways to the server.
func (e *enforcing) connect() error {
	var err error
	if e.who, err = credentials.Read(e.Credentials); err != nil {
		return err
	}
	seed, err := os.ReadFile(e.who.SeedFile)
	if err != nil {
		return err
	}
	if e.key, err = receipt.ParseSeed(strings.TrimSpace(string(seed))); err != nil {
		return err
	}
	if e.client, err = enforcer.NewClient(enforcer.ClientConfig{URLs: []string{e.HTTP}, Key: token.NewSecret(e.who.Key), Log: e.log}); err != nil {
		return err
	}
	if e.Kind == thinNATS || e.Kind == fullNATS {
		e.nc, err = feed.Connect(e.NATS, e.who.SeedFile, e.who.ID.String(), e.log, nats.IgnoreDiscoveredServers())
	}
	return err
}

// publisher brings the receipts the way that the events come.
func (e *enforcing) publisher() (receipt.Publisher, error) {
	if e.nc == nil {
		return e.client, nil
	}
	return feed.NewPublisher(e.nc)
}

// events is the feed.
func (e *enforcing) events(pulse func(events.Pulse, time.Time), key ed25519.PublicKey) (enforcer.Newest, error) {
	if e.nc == nil {
		return sse.New(sse.Config{URL: e.HTTP, Key: e.who.Key, Pulse: pulse, PulseKey: key, Log: e.log})
	}
	return feed.New(e.nc, feed.Config{Pulse: pulse, PulseKey: key, Log: e.log}), nil
}

// buildThin makes a cache before the verifier.
func (e *enforcing) buildThin() error {
	publisher, err := e.publisher()
	if err != nil {
		return err
	}
	reporter, err := receipt.NewReporter(receipt.Config{
		Enforcer: e.who.ID, Key: e.key, Publisher: publisher, Region: e.who.Region, Bound: time.Duration(max(e.Read, e.Write)), Log: e.log,
	})
	if err != nil {
		return err
	}
	cache, err := enforcer.NewCache(enforcer.CacheConfig{Source: e.client, Reports: reporter, Log: e.log})
	if err != nil {
		return err
	}
	var decider enforcer.Decider = cache
	if e.Kind == deaf {
		decider = &forEver{Decider: cache, kept: map[string]token.Decision{}}
	}
	if e.guard, err = enforcer.New(enforcer.Config{Decider: decider}); err != nil {
		return err
	}
	newest, err := e.events(cache.Observe, nil)
	e.follow = func(ctx context.Context) error {
		return enforcer.FollowReporting(ctx, newest, reporter, cache, e.guard)
	}
	e.release = func() error { return nil }
	return err
}

// buildFull makes an index, from a snapshot.
func (e *enforcing) buildFull(ctx context.Context) error {
	publisher, err := e.publisher()
	if err != nil {
		return err
	}
	write := time.Duration(e.Write)
	index, err := localindex.Open(ctx, localindex.Config{
		Dir: e.Dir, Enforcer: e.who.ID, Key: e.key, Publisher: publisher, Region: e.who.Region, Snapshots: e.client, MemoryBytes: 64 << 20,
		Bounds: verifyindex.Bounds{Read: time.Duration(e.Read), Write: write, Admin: write}, Log: e.log,
	})
	if err != nil {
		return err
	}
	if e.guard, err = enforcer.New(enforcer.Config{Decider: index}); err != nil {
		return errors.Join(err, index.Close())
	}
	reader, err := e.events(index.Observe, index.PulseKey())
	if err != nil {
		return errors.Join(err, index.Close())
	}
	e.follow = func(ctx context.Context) error { return index.Run(ctx, reader, e.guard) }
	e.release = index.Close
	return nil
}

// forEver is a decider that keeps every yes, whatever it hears.
type forEver struct {
	enforcer.Decider
	mu   sync.Mutex
	kept map[string]token.Decision
}

// Verify implements enforcer.Decider.
func (f *forEver) Verify(secret string, ask *token.Request) token.Decision {
	k := secret + ask.Permission
	f.mu.Lock()
	d, ok := f.kept[k]
	f.mu.Unlock()
	if ok {
		return d
	}
	if d = f.Decider.Verify(secret, ask); d.Verdict == token.VerdictAllow {
		f.mu.Lock()
		f.kept[strings.Clone(k)] = d
		f.mu.Unlock()
	}
	return d
}

// load takes in the secrets that are written to the file meanwhile, and sees to
// it that the answers are.
func (e *enforcing) load(ctx context.Context) {
	f, err := os.Open(e.Tokens)
	if err != nil {
		e.log.Error("no secrets", "error", err)
		return
	}
	defer f.Close()
	var rest []byte
	for {
		more, err := io.ReadAll(f)
		if err != nil {
			e.log.Error("no secrets", "error", err)
			return
		}
		rest = append(rest, more...)
		e.mu.Lock()
		for {
			line, after, whole := bytes.Cut(rest, []byte("\n"))
			if !whole {
				break
			}
			var s secret
			if err := json.Unmarshal(line, &s); err != nil {
				e.log.Error("an odd secret", "error", err)
			}
			if s.Anchor {
				e.anchors = append(e.anchors, len(e.secrets))
			}
			e.secrets, rest = append(e.secrets, s), after
		}
		err = e.out.Flush()
		e.mu.Unlock()
		if err != nil {
			e.log.Error("answers are lost", "error", err)
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return
		}
	}
}

// ask asks until ctx ends, and writes what it is answered.
func (e *enforcing) ask(ctx context.Context, rng *rand.Rand) {
	address := netip.MustParseAddr("192.0.2.1")
	each := time.Second * askers / time.Duration(e.Rate)
	for pause(ctx, each/2+rand.N(each)) == nil {
		which, s, ok := e.choose(rng)
		if !ok {
			continue
		}
		a := answer{Secret: which, Write: rng.IntN(2) == 0}
		permission := permissionRead
		if a.Write {
			permission = permissionWrite
		}
		a.Begin = time.Now().UnixNano()
		id, _ := e.guard.Check(ctx, s.Secret, permission, e.Chain, address)
		a.Verdict, a.Sequence = id.Verdict, id.Sequence
		a.End = time.Now().UnixNano()
		if ctx.Err() != nil {
			return // the end has cut it short
		}
		line, err := json.Marshal(a)
		if err != nil {
			e.log.Error("an answer is lost", "error", err)
			continue
		}
		e.mu.Lock()
		_, err = e.out.Write(append(line, '\n'))
		e.mu.Unlock()
		if err != nil {
			e.log.Error("an answer is lost", "error", err)
		}
	}
}

// choose takes one of those that never change, or one of the newest, or any.
func (e *enforcing) choose(rng *rand.Rand) (int, secret, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.secrets) == 0 {
		return 0, secret{}, false
	}
	n := rng.IntN(len(e.secrets))
	switch dice := rng.IntN(8); {
	case dice == 0 && len(e.anchors) > 0:
		n = e.anchors[rng.IntN(len(e.anchors))]
	case dice < 7:
		n = max(len(e.secrets)-1-rng.IntN(newestSecrets), 0)
	}
	return n, e.secrets[n], true
}

// pause waits, or returns why it did not.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("ended: %w", ctx.Err())
	case <-t.C:
		return nil
	}
}
