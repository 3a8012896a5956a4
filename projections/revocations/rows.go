package revocations

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
)

// The first byte of every key; package documentation tells what follows.
const (
	rowMark       = 'a'
	rowRead       = 'c'
	rowEnforcer   = 'e'
	rowRing       = 'h'
	rowInstance   = 'i'
	rowLog        = 'l'
	rowEpoch      = 'p'
	rowRevocation = 'r'
	rowSubject    = 's'
	rowRefused    = 'x'
)

// ringSize is for how many of the newest commits it is known where they ended.
// A receipt about an older one is not compared with the ledger's chain.
const ringSize = 1 << 16

// instanceID names one process of an enforcing service.
type instanceID struct {
	enforcer token.ID
	name     string
}

func (id instanceID) key() []byte {
	return append(append([]byte{rowInstance}, id.enforcer[:]...), id.name...)
}

// instance is what the receipts of one process add up to.
type instance struct {
	Region string `json:"region,omitzero"`
	Reader int    `json:"reader"`
	Bound  span   `json:"bound"`
	// Place is how far it has come, and since when by its own clock.
	Place   place     `json:"place"`
	Applied time.Time `json:"applied"`
	// First is where it was when it said hello, FirstSeen when that was. Both
	// are zero while its hello is not known: then it may have been there ever
	// since. Like LastSeen they are by the clock of the stream that stores
	// receipts.
	First     place     `json:"first,omitzero"`
	FirstSeen time.Time `json:"first_seen,omitzero"`
	LastSeen  time.Time `json:"last_seen"`
	// Sent are its newest receipts in each stream, by its own clock.
	Sent [streams]time.Time `json:"sent"`
	// Skew is by how much its clock and the stream's may differ: what lay
	// between sending and storing its last receipt, in either direction.
	Skew span `json:"skew"`
	// Stopped is when it said bye, or that it has applied its own retirement.
	Stopped time.Time `json:"stopped,omitzero"`
	Retired bool      `json:"retired,omitzero"`
	// Forgotten is up to where its marks were thrown away.
	Forgotten place `json:"forgotten,omitzero"`
}

// span is a time.Duration that is written as a number of nanoseconds.
type span int64

func (n *instance) bound() time.Duration { return time.Duration(n.Bound) }

// skew is by how much the clocks may differ, as far as it is reckoned with.
func (n *instance) skew() time.Duration { return max(time.Duration(n.Skew), MinSkew) }

// place is a point of the ledger.
type place struct {
	Epoch uint32 `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// reached reports whether who is at p has applied q.
func (p place) reached(q place) bool {
	return p.Epoch > q.Epoch || p.Epoch == q.Epoch && p.Seq >= q.Seq
}

func (p place) append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, p.Epoch), p.Seq)
}

// mark says since when a place is applied, and when we heard so.
type mark struct {
	at            place
	applied, told time.Time
}

func markPrefix(id instanceID) []byte {
	k := append(append([]byte{rowMark}, id.enforcer[:]...), id.name...)
	return append(k, 0)
}

func (m *mark) value() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(m.applied.UnixMilli()))
	return binary.BigEndian.AppendUint64(b, uint64(m.told.UnixMilli()))
}

func readMark(prefix, key, value []byte) (mark, error) {
	k := key[len(prefix):]
	if len(k) != 12 || len(value) != 16 {
		return mark{}, fmt.Errorf("%w: a mark of an instance", projector.ErrDamaged)
	}
	return mark{
		at:      place{binary.BigEndian.Uint32(k), binary.BigEndian.Uint64(k[4:])},
		applied: time.UnixMilli(int64(binary.BigEndian.Uint64(value))).UTC(),
		told:    time.UnixMilli(int64(binary.BigEndian.Uint64(value[8:]))).UTC(),
	}, nil
}

func ringKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint32([]byte{rowRing}, uint32(seq%ringSize))
}

func revocationKey(seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{rowRevocation}, seq)
}

func readKey(s Stream) []byte { return []byte{rowRead, byte(s)} }

func subjectKey(s Subject, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(subjectPrefix(s), seq)
}

func subjectPrefix(s Subject) []byte {
	k := append([]byte{rowSubject}, s.Kind...)
	k = append(append(k, ' '), s.ID...)
	return append(k, 0)
}

// aggregateOf is the first part of an event's name.
func aggregateOf(name string) string {
	kind, _, _ := strings.Cut(name, ".")
	return kind
}

func refusedKey(r refusal) []byte {
	k := append([]byte{rowRefused}, r.reason...)
	return append(append(k, 0), r.enforcer[:]...)
}

// load reads what is kept in memory.
func (p *Revocations) load() error {
	for s := range p.read {
		raw, _, err := p.store.Get(readKey(Stream(s)))
		if err != nil {
			return err
		}
		if len(raw) == 8 {
			p.read[s] = binary.BigEndian.Uint64(raw)
		}
	}
	raw, there, err := p.store.Get([]byte{rowLog})
	if err == nil && there {
		p.info = new(events.LogOpened)
		err = decode(raw, p.info)
	}
	if err != nil {
		return err
	}
	if raw, there, err = p.store.Get([]byte{rowEpoch}); err == nil && there {
		err = decode(raw, &p.epoch)
	}
	if err != nil {
		return err
	}
	return p.loadRows()
}

func (p *Revocations) loadRows() error {
	it, err := p.store.DB().NewIter(&pebble.IterOptions{LowerBound: []byte{rowRevocation}, UpperBound: []byte{rowRevocation + 1}})
	if err != nil {
		return err
	}
	if it.Last() && len(it.Key()) == 9 {
		p.revoked = binary.BigEndian.Uint64(it.Key()[1:])
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return err
	}
	err = p.each([]byte{rowEnforcer}, func(_, v []byte) error {
		var n aggregate.Enforcer
		if err := decode(v, &n); err != nil {
			return err
		}
		p.enforcers[n.ID] = n
		return nil
	})
	if err != nil {
		return err
	}
	err = p.each([]byte{rowInstance}, func(k, v []byte) error {
		n := new(instance)
		if len(k) < 1+len(token.ID{}) {
			return fmt.Errorf("%w: the key of an instance", projector.ErrDamaged)
		}
		if err := decode(v, n); err != nil {
			return err
		}
		p.settle(instanceID{token.ID(k[1:17]), string(k[17:])}, n, nil)
		return nil
	})
	if err != nil {
		return err
	}
	return p.each([]byte{rowRefused}, func(k, v []byte) error {
		reason, id, ok := bytes.Cut(k[1:], []byte{0})
		if !ok || len(id) != len(token.ID{}) || len(v) != 8 {
			return fmt.Errorf("%w: a count of refused receipts", projector.ErrDamaged)
		}
		p.refused[refusal{Reason(reason), token.ID(id)}] = binary.BigEndian.Uint64(v)
		return nil
	})
}

func decode(raw []byte, row any) error {
	if err := json.Unmarshal(raw, row); err != nil {
		return fmt.Errorf("%w: %w", projector.ErrDamaged, err)
	}
	return nil
}

// each calls fn for every row whose key begins with prefix.
func (p *Revocations) each(prefix []byte, fn func(k, v []byte) error) error {
	it, err := p.store.DB().NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := fn(it.Key(), v); err != nil {
			return err
		}
	}
	return it.Error()
}

// after is the first key behind all that begin with prefix.
func after(prefix []byte) []byte {
	k := bytes.Clone(prefix)
	for i := len(k) - 1; i >= 0; i-- {
		if k[i]++; k[i] != 0 {
			return k[:i+1]
		}
	}
	return nil
}
