package serve

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/stream"
	"watchword.dev/events/token"
	"watchword.dev/events/usage"
	"watchword.dev/projections/projector"
	used "watchword.dev/projections/usage"
	"watchword.dev/services/internal/embed"
)

// usageParts is what a node has to do with usage: it counts what it sees, tells
// it, and follows what all nodes and enforcers tell. Nothing that decides about
// anybody waits for it.
type usageParts struct {
	home   projector.Home
	log    *slog.Logger
	memory int64
	source usageSource

	count  *usage.Recorder
	sender *usage.Sender

	current atomic.Pointer[used.Usage]

	mu      sync.Mutex      // guards what follows, and one rebuild at a time
	running context.Context // nil before run
	stop    context.CancelFunc
	done    chan struct{}
}

// usageSource is the stream of reports as the projection reads it.
type usageSource struct{ *stream.Told }

func (s usageSource) Read(ctx context.Context, after uint64, fn func(used.Message) error) error {
	return s.Told.Read(ctx, after, func(m stream.ToldMessage) error { return fn(used.Message(m)) })
}

func (s usageSource) Last(ctx context.Context) (uint64, error) {
	_, last, err := s.Bounds(ctx)
	return last, err
}

// usageMemory bounds the block cache of the projection.
const usageMemory = 32 << 20

// usageOf returns the parts, not opened yet.
func (n *node) usageOf() (*usageParts, error) {
	nc, err := n.nats.connect(embed.Node, false)
	if err != nil {
		return nil, err
	}
	reports, err := stream.OpenUsage(nc, stream.Config{Log: n.log})
	if err != nil {
		return nil, err
	}
	return &usageParts{home: projector.Home{Dir: n.cfg.Path(used.Name)}, log: n.log, memory: usageMemory, source: usageSource{reports}}, nil
}

// openUsage opens the projection and the counting.
func (n *node) openUsage() error {
	u, err := n.usageOf()
	if err != nil {
		return err
	}
	n.usage = u
	u.count = usage.NewRecorder(usage.Options{Catalogue: func() *catalogue.Catalogue { return n.index.get().Catalogue() }})
	u.sender = usage.NewSender(usage.SenderConfig{Recorder: u.count, Publisher: u.source, Reporter: usage.Node, Log: n.log})
	return u.start()
}

func (u *usageParts) open(dir string) (*used.Usage, error) {
	return used.Open(used.Options{Dir: dir, CacheBytes: u.memory, Log: u.log})
}

// start opens the generation that serves, or a new one where it cannot be used.
func (u *usageParts) start() error {
	dir, err := u.home.Current()
	if err != nil {
		return err
	}
	p, err := u.open(dir)
	if errors.Is(err, projector.ErrForeignStore) || errors.Is(err, projector.ErrDamaged) || pebble.IsCorruptionError(err) {
		u.log.Error("the usage of credentials cannot be used as it is and is built anew", "directory", dir, "error", err)
		if dir, err = u.home.Next(); err != nil {
			return err
		}
		if p, err = u.open(dir); err == nil {
			err = u.home.Use(dir)
		}
	}
	if err != nil {
		return err
	}
	u.current.Store(p)
	return u.home.Prune()
}

// run tells and follows until ctx ends.
func (u *usageParts) run(ctx context.Context) error {
	u.mu.Lock()
	u.running = ctx
	u.follow(u.current.Load())
	u.mu.Unlock()
	u.sender.Run(ctx)
	return nil
}

// follow feeds p in the background. The caller holds mu.
func (u *usageParts) follow(p *used.Usage) {
	ctx, stop := context.WithCancel(u.running)
	done := make(chan struct{})
	u.stop, u.done = stop, done
	go func() {
		defer close(done)
		if err := p.Follow(ctx, u.source); ctx.Err() == nil {
			u.log.Error("the usage of credentials is not followed any more", "error", err)
		}
	}()
}

// close ends the following and closes the projection.
func (u *usageParts) close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stop != nil {
		u.stop()
		<-u.done
	}
	if p := u.current.Load(); p != nil {
		return p.Close()
	}
	return nil
}

// rebuild builds the projection anew from what the stream holds, beside the old
// one, and lets it take over. What is older than the stream is forgotten by it.
func (u *usageParts) rebuild(ctx context.Context, progress func(done, head uint64)) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.running != nil && u.running.Err() != nil {
		return context.Canceled
	}
	dir, err := u.home.Next()
	if err != nil {
		return err
	}
	next, err := u.open(dir)
	if err != nil {
		return err
	}
	if err = next.Fill(ctx, u.source, progress); err == nil {
		err = u.home.Use(dir)
	}
	if err != nil {
		return errors.Join(err, next.Close(), u.home.Prune())
	}
	old := u.current.Swap(next)
	if u.running != nil {
		u.stop()
		<-u.done
		u.follow(next)
	}
	if old != nil {
		err = old.Close()
	}
	return errors.Join(err, u.home.Prune())
}

// ask asks the generation that serves, and the next one if it has just been
// replaced.
func ask[T any](u *usageParts, question func(*used.Usage) (T, error)) (T, error) {
	for {
		p := u.current.Load()
		answer, err := question(p)
		if errors.Is(err, used.ErrClosed) && u.current.Load() != p {
			continue
		}
		return answer, err
	}
}

// Span, History and Lost pass each question to the generation that serves now.

func (u *usageParts) Span(id token.ID) (used.Span, bool, error) {
	there := false
	s, err := ask(u, func(p *used.Usage) (s used.Span, err error) {
		s, there, err = p.Span(id)
		return s, err
	})
	return s, there, err
}

func (u *usageParts) History(id token.ID, since, now time.Time) (used.History, error) {
	return ask(u, func(p *used.Usage) (used.History, error) { return p.History(id, since, now) })
}

func (u *usageParts) Lost(since time.Time) (uint64, error) {
	return ask(u, func(p *used.Usage) (uint64, error) { return p.Lost(since) })
}

func (u *usageParts) status() projector.Status { return u.current.Load().Status() }
