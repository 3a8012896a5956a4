package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
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
	"watchword.dev/events/stream"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/verifyindex"
)

// jobVariable is the environment variable that makes this program an enforcer:
// it names the file with the job.
const jobVariable = "WATCHWORD_HISTORY_JOB"

// The kinds of enforcers.
const (
	thinSSE  = "sse"  // a cache that hears the events over HTTP
	thinNATS = "nats" // a cache that hears them over NATS
	full     = "full" // an index of its own
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
	log      *slog.Logger
	who      credentials.File
	nc       *nats.Conn // of those over NATS
	guard    *enforcer.Enforcer
	reporter *receipt.Reporter
	file     *os.File

	mu      sync.Mutex
	secrets []secret
	anchors []int
	out     *bufio.Writer
}

func (e *enforcing) run(ctx context.Context) error {
	var err error
	if e.who, err = credentials.Read(e.Credentials); err != nil {
		return err
	}
	if e.file, err = os.OpenFile(e.Answers, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return err
	}
	defer e.file.Close()
	e.out = bufio.NewWriter(e.file)
	if e.Kind == thinNATS || e.Kind == full {
		if e.nc, err = feed.Connect(e.NATS, e.who.SeedFile, e.who.ID.String(), e.log, nats.IgnoreDiscoveredServers()); err != nil {
			return err
		}
		defer e.nc.Close()
	}
	if err := e.report(); err != nil {
		return err
	}
	for e.reporter.Hello(ctx) != nil {
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil
		}
	}
	follow, release, err := e.build(ctx)
	if err != nil {
		return err
	}
	defer release()
	var wg sync.WaitGroup
	reporting, bye := context.WithCancel(context.Background())
	defer bye()
	wg.Go(func() { _ = e.reporter.Run(reporting) }) // without a bye its lease ends
	wg.Go(func() { follow(ctx) })
	wg.Go(func() { e.load(ctx) })
	var asking sync.WaitGroup
	for n := range askers {
		asking.Go(func() { e.ask(ctx, rand.New(rand.NewPCG(e.Seed, uint64(n)))) })
	}
	asking.Wait()
	bye()
	wg.Wait()
	return e.out.Flush()
}

// report makes what says how far this enforcer has come.
func (e *enforcing) report() error {
	seed, err := os.ReadFile(e.who.SeedFile)
	if err != nil {
		return err
	}
	key, err := receipt.ParseSeed(strings.TrimSpace(string(seed)))
	if err != nil {
		return err
	}
	var publisher receipt.Publisher = overHTTP{e.HTTP + "/v1/receipts", e.who.Key}
	if e.nc != nil {
		cfg := stream.Config{Log: e.log}
		kept, err := stream.OpenReceipts(e.nc, cfg)
		if err != nil {
			return err
		}
		progress, err := stream.OpenProgress(e.nc, cfg)
		if err != nil {
			return err
		}
		publisher = overNATS{kept, progress}
	}
	e.reporter, err = receipt.NewReporter(receipt.Config{
		Enforcer: e.who.ID, Key: key, Publisher: publisher, Region: e.who.Region, Bound: time.Duration(max(e.Read, e.Write)), Log: e.log,
	})
	return err
}

// overHTTP sends receipts to a node.
type overHTTP struct{ url, key string }

// Publish implements receipt.Publisher.
func (p overHTTP) Publish(ctx context.Context, _ string, data []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(data))
	if err != nil {
		return err
	}
	r.Header = http.Header{"Authorization": {"Bearer " + p.key}, "Content-Type": {"application/json"}}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// overNATS stores receipts itself.
type overNATS struct{ kept, progress *stream.Told }

// Publish implements receipt.Publisher.
func (p overNATS) Publish(ctx context.Context, subject string, data []byte) error {
	if strings.HasPrefix(subject, stream.ProgressPrefix) {
		return p.progress.Publish(ctx, subject, data)
	}
	return p.kept.Publish(ctx, subject, data)
}

// build makes the guard, and returns what must run beside it and what to do at
// the end.
func (e *enforcing) build(ctx context.Context) (follow func(context.Context), release func(), err error) {
	if e.Kind == full {
		return e.buildFull(ctx)
	}
	client, err := enforcer.NewClient(enforcer.ClientConfig{URLs: []string{e.HTTP}, Key: token.NewSecret(e.who.Key), Log: e.log})
	if err != nil {
		return nil, nil, err
	}
	cache, err := enforcer.NewCache(enforcer.CacheConfig{Source: client, Log: e.log})
	if err != nil {
		return nil, nil, err
	}
	var decider enforcer.Decider = cache
	if e.Kind == deaf {
		decider = &forEver{Decider: cache, kept: map[string]token.Decision{}}
	}
	if e.guard, err = enforcer.New(enforcer.Config{Decider: decider}); err != nil {
		return nil, nil, err
	}
	var newest enforcer.Newest
	if e.nc != nil {
		newest = overCore{feed.New(e.nc, feed.Config{Pulse: cache.Observe, Log: e.log})}
	} else if newest, err = sse.New(sse.Config{URL: e.HTTP, Key: e.who.Key, Pulse: cache.Observe, Log: e.log}); err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context) {
		_ = enforcer.FollowNewest(ctx, newest, cache, e.guard, told{e.reporter}) // ends with ctx
	}, client.Close, nil
}

// overCore is a feed over NATS that knows where the ledger ends.
type overCore struct{ *feed.Reader }

// Newest implements enforcer.Newest.
func (f overCore) Newest(ctx context.Context) (events.Position, error) {
	head, err := f.Head(ctx)
	if err != nil {
		return events.Position{}, err
	}
	return f.PositionAt(ctx, head)
}

// told tells the reporter what the followers before it have applied.
type told struct{ *receipt.Reporter }

// Begin implements enforcer.Follower.
func (t told) Begin(at events.Position) { t.Reporter.Applied(at, false) }

// Applied implements enforcer.Follower.
func (t told) Applied(c *events.Commit) { t.Reporter.Applied(c.End, revokes(c)) }

// Lost implements enforcer.Follower.
func (t told) Lost(error) {}

func revokes(c *events.Commit) bool {
	for i := range c.Records {
		if receipt.Revokes(c.Records[i].Data) {
			return true
		}
	}
	return false
}

// buildFull makes an index, and waits until it has what was there at the hello.
func (e *enforcing) buildFull(ctx context.Context) (func(context.Context), func(), error) {
	write := time.Duration(e.Write)
	index, err := verifyindex.Open(verifyindex.Options{
		Dir: e.Dir, MemoryBytes: 64 << 20, Bounds: verifyindex.Bounds{Read: time.Duration(e.Read), Write: write, Admin: write}, Log: e.log,
	})
	if err != nil {
		return nil, nil, err
	}
	reader := feed.New(e.nc, feed.Config{Pulse: index.Observe, Log: e.log})
	runner := index.Follow(reader, projector.Options{Applied: func(commits []events.Commit) {
		revoked := false
		for i := range commits {
			revoked = revoked || revokes(&commits[i])
		}
		e.reporter.Applied(commits[len(commits)-1].End, revoked)
	}})
	ended := make(chan error, 1)
	go func() { ended <- runner.Run(ctx) }()
	head, err := reader.Head(ctx)
	for ; err != nil; head, err = reader.Head(ctx) {
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, nil, err
		}
	}
	if err := index.Wait(ctx, head); err != nil {
		return nil, nil, err
	}
	if e.guard, err = enforcer.New(enforcer.Config{Decider: index}); err != nil {
		return nil, nil, err
	}
	follow := func(ctx context.Context) {
		if err := <-ended; ctx.Err() == nil {
			e.log.Error("the index is fed no more", "error", err)
		}
	}
	return follow, func() { _ = index.Close() }, nil // its data is thrown away
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
		a := answer{Secret: which, Write: rng.IntN(2) == 0, Verdict: token.VerdictUnavailable}
		permission := permissionRead
		if a.Write {
			permission = permissionWrite
		}
		a.Begin = time.Now().UnixNano()
		if !e.reporter.Lapsed() {
			id, _ := e.guard.Check(ctx, s.Secret, permission, e.Chain, address)
			a.Verdict, a.Sequence = id.Verdict, id.Sequence
		}
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
