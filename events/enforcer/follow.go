package enforcer

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"watchword.dev/events"
)

// Follower is told what a feed delivers. [Cache] and [Enforcer] are followers.
type Follower interface {
	// Begin says that the commits after at will come.
	Begin(at events.Position)
	// Applied takes in a commit, in order. It keeps nothing of it.
	Applied(c *events.Commit)
	// Lost says that no more will come, and why.
	Lost(err error)
}

// The time between two attempts to follow a feed that fails.
const (
	followAgain    = 500 * time.Millisecond
	followAgainMax = 15 * time.Second
)

// ErrLost says that what a feed delivers is not the ledger that was followed,
// or that this program is too old for it.
var ErrLost = errors.New("enforcer: the ledger cannot be followed")

// Follow passes the commits after at to the followers, in this order: a cache
// comes before the enforcer that asks it. It returns when ctx ends, or with
// ErrLost when going on makes no sense: the ledger was rewound or replaced, or
// it holds an event that this program does not know. Then the followers have
// been told. A feed that fails otherwise is read again after a while.
//
// The newest pulse tells where to begin: see [From].
func Follow(ctx context.Context, feed events.Reader, at events.Position, followers ...Follower) error {
	for _, f := range followers {
		f.Begin(at)
	}
	pause := followAgain
	for {
		err := feed.Read(ctx, at, func(c events.Commit) error {
			for _, f := range followers {
				f.Applied(&c)
			}
			at, pause = c.End, followAgain
			return nil
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if Hopeless(err) {
			err = fmt.Errorf("%w: after sequence %d: %w", ErrLost, at.Seq, err)
			for _, f := range followers {
				f.Lost(err)
			}
			return err
		}
		if err := rest(ctx, &pause); err != nil {
			return err
		}
	}
}

// Newest is a feed that can tell where the ledger ends. sse.Reader is one.
type Newest interface {
	events.Reader
	Newest(ctx context.Context) (events.Position, error)
}

// FollowNewest follows a feed from where the ledger ends now, and once more from
// there after ErrLost: a cache needs nothing of what was before. It returns when
// ctx ends. What goes wrong meanwhile the feed's own log tells, and the age of
// the cache.
func FollowNewest(ctx context.Context, feed Newest, followers ...Follower) error {
	pause := followAgain
	for {
		at, err := feed.Newest(ctx)
		if err == nil {
			began := time.Now()
			_ = Follow(ctx, feed, at, followers...) // the followers were told
			if time.Since(began) > followAgainMax {
				pause = followAgain
			}
		}
		if err := rest(ctx, &pause); err != nil {
			return err
		}
	}
}

// rest waits before another attempt, longer each time.
func rest(ctx context.Context, pause *time.Duration) error {
	timer := time.NewTimer(*pause/2 + rand.N(*pause/2))
	defer timer.Stop()
	*pause = min(2**pause, followAgainMax)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Hopeless reports whether an error of a feed says that the ledger is not the one
// that was followed, or that this program is too old for it: reading it again
// helps nobody.
func Hopeless(err error) bool {
	for _, kind := range []error{events.ErrRewind, events.ErrGap, events.ErrChain, events.ErrEpoch, events.ErrUnknown, events.ErrMalformed} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// From returns the position at which the ledger stood when the pen gave a
// pulse: where one begins to follow who needs nothing of what was before.
func From(p events.Pulse) (events.Position, error) {
	at := events.Position{Seq: p.Sequence, Number: p.Number, Epoch: p.Epoch}
	hash, err := hex.DecodeString(p.Chain)
	if err != nil || len(hash) != len(at.Hash) {
		return events.Position{}, errors.New("enforcer: a pulse without a place in the chain")
	}
	at.Hash = events.Hash(hash)
	return at, nil
}
