// Package fsck checks that the ledger holds together and that the projections
// are what it adds up to.
//
// It reads the whole ledger from sequence 1, with every check that any reader
// makes: sequences and numbers without a gap, one hash chain, known epochs,
// known events. Then it builds each projection anew, up to the checkpoint of
// the store that is checked, and compares the two row by row. It changes
// neither the ledger nor a store.
package fsck

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/projections/directory"
	"watchword.dev/projections/projector"
	"watchword.dev/projections/verifyindex"
)

// Kind is a projection that can be built anew.
type Kind struct {
	Name    string
	Version int
	Open    func(dir string, fs vfs.FS) (projector.Owned, error)
}

// Directory is the kind of package directory.
func Directory() Kind {
	return Kind{directory.Name, directory.Version, func(dir string, fs vfs.FS) (projector.Owned, error) {
		return directory.Open(directory.Options{Dir: dir, FS: fs})
	}}
}

// Index is the kind of package verifyindex. While it is built anew it uses at
// most memoryBytes for its tokens; 1 GiB when zero.
func Index(memoryBytes int64) Kind {
	return Kind{verifyindex.Name, verifyindex.Version, func(dir string, fs vfs.FS) (projector.Owned, error) {
		return verifyindex.Open(verifyindex.Options{Dir: dir, FS: fs, MemoryBytes: memoryBytes})
	}}
}

// Live is a projection that is in use.
type Live interface {
	// Snapshot writes a copy of the store, at one position, into dir, which
	// must not exist.
	Snapshot(dir string) error
}

// Store is what is checked.
type Store struct {
	Kind
	// Dir holds the store, which nobody else may have open. With Live it
	// must not exist: the copy goes there and is removed at the end.
	Dir  string
	FS   vfs.FS // the machine's when nil
	Live Live   // nil when Dir is the store itself
}

// Config says what to check.
type Config struct {
	Ledger events.Reader
	Stores []Store
	// Scratch is a directory that does not exist and is removed at the end:
	// where the projections are built anew. In memory when empty, which takes
	// about as much as the largest store has on disk.
	Scratch string
	// Patience is how long the ledger may deliver nothing before its end: 30
	// seconds when zero.
	Patience time.Duration
	// Progress, if not nil, hears now and then how many commits were read out
	// of how many. Each projection that is built anew reads them once more.
	Progress func(done, total uint64)
}

// Report is what a check has found.
type Report struct {
	Commits uint64        `json:"commits"`
	Events  uint64        `json:"events"`
	Epoch   uint32        `json:"epoch"`
	Head    string        `json:"head_hash"` // of the last event that could be read
	Stores  []StoreReport `json:"stores"`
	// Findings is everything that is not as it should be, and empty when
	// nothing is wrong.
	Findings []Finding `json:"findings"`
}

// Clean reports whether nothing is wrong.
func (r *Report) Clean() bool { return len(r.Findings) == 0 }

// StoreReport is how far a store was compared.
type StoreReport struct {
	Name     string `json:"name"`
	Sequence uint64 `json:"sequence"` // its checkpoint
	Rows     uint64 `json:"rows"`     // that were compared
}

// Finding is one thing that is wrong. Its text form is "<where>: <what>".
type Finding struct {
	Where string // "ledger" or the name of a projection
	What  string
}

// String returns the finding as text.
func (f Finding) String() string { return f.Where + ": " + f.What }

// MarshalText returns what String returns.
func (f Finding) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (f *Finding) UnmarshalText(b []byte) error {
	var ok bool
	if f.Where, f.What, ok = strings.Cut(string(b), ": "); !ok {
		return errors.New("fsck: a finding must be a place, a colon and a text")
	}
	return nil
}

// inLedger is the Where of what is wrong with the ledger itself.
const inLedger = "ledger"

// Check checks the ledger and the stores. An error says that it could not do
// that; what is wrong with what it has checked is in the report.
func Check(ctx context.Context, c Config) (report Report, err error) {
	if c.Patience == 0 {
		c.Patience = 30 * time.Second
	}
	k := &checker{Config: c, passed: map[uint64]events.Position{}}
	k.report.Stores, k.report.Findings = []StoreReport{}, []Finding{}
	defer func() { err = errors.Join(err, k.cleanUp()) }()
	// The stores first: they may move on while the ledger is read, but what
	// they are compared at must be behind the head that is read to.
	for _, s := range c.Stores {
		if err := k.open(s); err != nil {
			return k.report, err
		}
	}
	if err := k.readLedger(ctx); err != nil {
		return k.report, err
	}
	for _, s := range k.stores {
		if err := k.checkStore(ctx, s); err != nil {
			return k.report, err
		}
	}
	return k.report, nil
}

// checker is a check under way.
type checker struct {
	Config
	report Report
	stores []*opened

	head   uint64                     // of the ledger, as it says
	last   events.Position            // the last commit that could be read
	passed map[uint64]events.Position // where the stores are, as the ledger has it

	done, total uint64
}

func (k *checker) find(where, format string, args ...any) {
	k.report.Findings = append(k.report.Findings, Finding{where, fmt.Sprintf(format, args...)})
}

// advance counts a commit that was read.
func (k *checker) advance() {
	const step = 1000
	if k.done++; k.Progress != nil && (k.done%step == 0 || k.done == k.total) {
		k.Progress(k.done, k.total)
	}
}

var (
	errEnd   = errors.New("fsck: the head is reached")
	errQuiet = errors.New("fsck: the ledger delivers nothing")
)

// readLedger reads the ledger to its head. What is wrong with it ends up in
// the report, together with how far it is good.
func (k *checker) readLedger(ctx context.Context) error {
	head, err := k.Ledger.Head(ctx)
	if err != nil {
		return fmt.Errorf("fsck: read the head: %w", err)
	}
	k.head, k.total = head, head
	for _, s := range k.stores {
		k.total += s.at.Seq
	}
	defer func() {
		k.report.Commits, k.report.Events, k.report.Epoch = k.last.Seq, k.last.Number, k.last.Epoch
		k.report.Head = k.last.Hash.String()
	}()
	if head == 0 {
		return nil
	}
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	quiet := time.AfterFunc(k.Patience, func() { stop(errQuiet) })
	defer quiet.Stop()
	err = k.Ledger.Read(reading, events.Position{}, func(c events.Commit) error {
		quiet.Reset(k.Patience)
		return k.pass(c)
	})
	switch {
	case errors.Is(err, errEnd):
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(context.Cause(reading), errQuiet):
		k.find(inLedger, "it says that it ends at sequence %d, but does not deliver %d", head, k.last.Seq+1)
	case isDamage(err):
		k.find(inLedger, "%v", err)
	default:
		return fmt.Errorf("fsck: read the ledger: %w", err)
	}
	return nil
}

// pass takes note of a commit that is good.
func (k *checker) pass(c events.Commit) error {
	if _, opened := c.Records[0].Data.(*events.LogOpened); opened != (c.Seq == 1) {
		k.find(inLedger, "sequence %d holds a %s", c.Seq, c.Records[0].Name)
	}
	k.last = c.End
	for _, s := range k.stores {
		if s.at.Seq == c.Seq {
			k.passed[c.Seq] = c.End
		}
	}
	k.advance()
	if c.Seq >= k.head {
		return errEnd
	}
	return nil
}

// isDamage reports whether a reader's error is about what the ledger holds,
// and not about the way to it.
func isDamage(err error) bool {
	for _, damage := range []error{
		events.ErrGap, events.ErrRewind, events.ErrChain, events.ErrEpoch, events.ErrMalformed, events.ErrUnknown,
	} {
		if errors.Is(err, damage) {
			return true
		}
	}
	return false
}
