package authority

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// Config is what a pen needs. The fields of the first group have no default.
type Config struct {
	Log          events.Log
	Pulses       events.Pulses
	Past         Past
	Key          ed25519.PrivateKey // signs the pulses
	Installation token.ID           // names the source of the events

	// Node names this process in pulses, in pen.opened and in logs. A random
	// part is added, so that no two pens ever have one name.
	Node string
	// Genesis is the first event of the ledger. It is set only on the
	// explicit first start of an installation: without it a pen refuses to
	// open an empty ledger, which may be one that was lost.
	Genesis *events.LogOpened
	// Sole says that no other pen can exist, for example because this process
	// holds the lock of the only store. Such a pen waits for no silence.
	Sole bool

	// Catalogue holds until one is published; default: catalogue.Cloudflare().
	Catalogue *catalogue.Catalogue
	Limits    token.Limits  // default: token.DefaultLimits
	GraceMax  time.Duration // default: GraceMax
	Quota     command.Quota // zero: none

	// CommitEvents and CommitBytes bound a commit; the defaults are 256 and
	// 512 KiB. One event that is larger goes alone.
	CommitEvents int
	CommitBytes  int
	// WaitingMax is how many commands may wait, 131,072 by default. An eighth
	// more is left to the urgent ones.
	WaitingMax int
	// BacklogMax is how many events the directory may be behind before
	// commands are refused, 100,000 by default, and an eighth more for the
	// urgent ones. It bounds the pen's memory.
	BacklogMax int
	// AppendTimeout is how long an append may go unanswered before the pen
	// looks whether it is there, 500 ms by default. RecoverFor is for how long
	// it looks and tries again before it answers that the outcome is unknown,
	// 5 s by default.
	AppendTimeout time.Duration
	RecoverFor    time.Duration
	// Lease is after how long a silence a standby may claim the pen, 3 s by
	// default; Beat the time between two pulses, 1 s. The pen itself trusts
	// its lease for a sixth less.
	Lease time.Duration
	Beat  time.Duration

	Now    func() time.Time // of events and pulses; default time.Now
	Logger *slog.Logger     // default: discards
}

func (c *Config) setDefaults() {
	def(&c.Limits, token.DefaultLimits)
	def(&c.GraceMax, GraceMax)
	def(&c.CommitEvents, 256)
	def(&c.CommitBytes, 512<<10)
	def(&c.WaitingMax, 1<<17)
	def(&c.BacklogMax, 100_000)
	def(&c.AppendTimeout, 500*time.Millisecond)
	def(&c.RecoverFor, 5*time.Second)
	def(&c.Lease, 3*time.Second)
	def(&c.Beat, time.Second)
	if c.Catalogue == nil {
		c.Catalogue = catalogue.Cloudflare()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.CommitBytes = min(c.CommitBytes, events.MaxCommit)
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Mode is what a pen is doing.
type Mode string

// The modes of a pen.
const (
	Standby Mode = "standby" // another one writes, or nobody yet
	Opening Mode = "opening" // it has claimed the pen and reads to the head
	Active  Mode = "active"  // it decides and appends
	Broken  Mode = "broken"  // it has seen something that must not be; a person must act
)

// Pen is the authority of one process: active or waiting to be. It implements
// command.Authority. Run makes it live.
type Pen struct {
	cfg   Config
	rules rules
	node  string
	stats counters

	// The waiting commands and who holds the pen.
	mu      sync.Mutex
	held    bool // somebody is in hold or was told to be
	queues  [classes]queue
	waiting int    // commands in the queues
	served  uint64 // tickets given
	passed  int    // commits since waiting bulk commands led one
	mode    Mode
	changed chan struct{} // closed and replaced when the mode changes
	cause   error         // why Broken

	// The state at the head, of the goroutine that has the nib: the holder for
	// one commit, or the one that opens the pen.
	nib    nib
	at     events.Position // the end of what is known to be in the log
	base   layer           // what the log has beyond the directory
	above  layer           // what the commit under way would change; empty between commits
	memo   *memo           // the past, what was looked up of it kept
	term   uint64
	unsure bool // an append went unanswered: read to the head first

	// What others may see without the nib.
	head    atomic.Pointer[events.Position] // acknowledged
	lease   lease
	lost    chan error    // of capacity 1: why the pen must be put down
	opened  chan struct{} // of capacity 1: a pulse may vouch for the head now
	backlog atomic.Int64
	ownTerm atomic.Uint64
}

var _ command.Authority = (*Pen)(nil)

// nib is a lock that is held across an append. It is a channel and not a
// sync.Mutex, so that tests in fake time know who waits for it.
type nib chan struct{}

func (n nib) Lock()   { n <- struct{}{} }
func (n nib) Unlock() { <-n }

// New returns a pen that waits for Run.
func New(cfg Config) (*Pen, error) {
	cfg.setDefaults()
	switch {
	case cfg.Log == nil || cfg.Pulses == nil || cfg.Past == nil:
		return nil, errors.New("authority: a pen needs a log, pulses and a past")
	case len(cfg.Key) != ed25519.PrivateKeySize:
		return nil, errors.New("authority: a pen needs a key to sign its pulses")
	case cfg.Installation.IsZero():
		return nil, errors.New("authority: a pen needs the installation's id")
	case cfg.Node == "" || attribute(cfg.Node) != cfg.Node || len(cfg.Node) > textMax:
		return nil, errors.New("authority: a pen needs a short, plain name of its node")
	}
	var unique [4]byte
	if _, err := rand.Read(unique[:]); err != nil {
		return nil, fmt.Errorf("authority: name the pen: %w", err)
	}
	p := &Pen{
		memo: newMemo(cfg.Past), cfg: cfg, node: cfg.Node + "/" + hex.EncodeToString(unique[:]), mode: Standby, changed: make(chan struct{}),
		nib: make(nib, 1), lost: make(chan error, 1), opened: make(chan struct{}, 1),
		rules: rules{
			catalogues: &aggregate.Catalogues{Builtin: cfg.Catalogue}, limits: cfg.Limits, graceMax: cfg.GraceMax, quota: cfg.Quota,
			source: "watchword/" + cfg.Installation.String(),
			newID:  token.NewGenerator(cfg.Now).New,
		},
	}
	p.head.Store(&events.Position{})
	return p, nil
}

// Mode returns what the pen is doing, and a channel that is closed when that
// changes.
func (p *Pen) Mode() (Mode, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode, p.changed
}

// Cause returns why the pen is Broken, else nil.
func (p *Pen) Cause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cause
}

// Await waits until the pen is in the mode, is Broken, or ctx ends.
func (p *Pen) Await(ctx context.Context, want Mode) error {
	for {
		mode, changed := p.Mode()
		switch mode {
		case want:
			return nil
		case Broken:
			return p.Cause()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// setMode changes the mode. Broken is for good.
func (p *Pen) setMode(m Mode, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == m || p.mode == Broken {
		return
	}
	p.mode, p.cause = m, cause
	close(p.changed)
	p.changed = make(chan struct{})
}

// putDown makes the pen stop writing, whatever it is doing, and tells Run.
func (p *Pen) putDown(cause error) {
	if fatal(cause) {
		p.setMode(Broken, cause)
	} else {
		p.setMode(Standby, nil)
	}
	select {
	case p.lost <- cause:
	default:
	}
}

// fatal says that after this error the pen does not know what the ledger is.
// It writes nothing more: a person must look.
func fatal(err error) bool {
	for _, target := range []error{
		events.ErrGap, events.ErrRewind, events.ErrChain, events.ErrEpoch,
		events.ErrUnknown, events.ErrMalformed, errEmpty, errImpossible,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

var (
	errEmpty      = errors.New("authority: the ledger is empty and this is not a first start")
	errImpossible = errors.New("authority: the ledger and the directory do not fit")
	errFenced     = errors.New("authority: another pen has been opened")
	errMoved      = errors.New("authority: something else was appended first")
	errUnknown    = errors.New("authority: the outcome of an append is not known")
	errNotActive  = errors.New("authority: this node does not hold the pen")
	errWaited     = errors.New("authority: gave up waiting for the pen")
	errBehind     = errors.New("authority: the directory is too far behind")
)

// Head returns the sequence of the last commit that was acknowledged. It
// answers only while nobody else can have appended: the lease is certainly
// this pen's, by two clocks, after the question was asked.
func (p *Pen) Head(context.Context) (uint64, error) {
	head := p.head.Load().Seq
	if err := p.sure(); err != nil {
		return 0, err
	}
	return head, nil
}

// sure says whether this pen is the only one that can be appending now.
func (p *Pen) sure() error {
	if mode, _ := p.Mode(); mode != Active || !p.lease.certain(p.trusted()) {
		return fault.Wrap(fault.NoPen, errNotActive)
	}
	return nil
}

// trusted is for how long after a pulse was sent off the pen trusts its lease.
// A standby counts from when it heard the pulse, which was later; the rest is
// for clocks that run at different speeds.
func (p *Pen) trusted() time.Duration { return p.cfg.Lease - p.cfg.Lease/6 }

// Bootstrap gives the commands to the authority as the system itself. Each may
// be given again: what is as it asks for stays. When the pen is lost meanwhile
// it goes on where it was as soon as this process has the pen again.
func Bootstrap(ctx context.Context, p *Pen, cmds ...command.Command) error {
	for _, cmd := range cmds {
		for {
			if err := p.Await(ctx, Active); err != nil {
				return err
			}
			_, err := p.Do(ctx, command.Caller{System: true}, cmd)
			if err == nil {
				break
			}
			if !errors.Is(err, fault.NoPen) && !errors.Is(err, fault.OutcomeUnknown) && !errors.Is(err, fault.Overloaded) {
				return fmt.Errorf("authority: bootstrap: %s: %w", cmd.Verb(), err)
			}
			select { // the mode changes a moment later than the answer comes
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}
