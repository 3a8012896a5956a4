package directory

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// sweepPiece is how many tokens a batch ends of those that a sweep takes: so
// many that the batch is worth it, and so few that it does not fill the memory.
var sweepPiece = 4096 // smaller in tests

// Selection is what a sweep is about.
type Selection = aggregate.Selection

// sweepKey finds the sweep of a selection.
func sweepKey(of Selection) []byte {
	return textKey(tableSwept, of.By+" "+of.Owner.String()+" "+of.Template)
}

func templatePrefix(template string) []byte { return textKey(tableTemplate, template) }

func sweeps(c *events.Commit) bool {
	for i := range c.Records {
		if _, ok := c.Records[i].Data.(*events.RevocationSwept); ok {
			return true
		}
	}
	return false
}

// sweep reflects a commit of sweeps. It may end very many tokens, so it does that
// in pieces, each a batch of its own.
//
// What a crash leaves behind: some of the tokens have ended, and the checkpoint
// stands before the commit. The commit is reflected again then, and finds the
// others. Who asks meanwhile sees some tokens ended a moment early.
func (d *Directory) sweep(c *events.Commit) error {
	at := d.store.Position()
	for i := range c.Records {
		s, err := aggregate.SweepOf(&c.Records[i])
		if err == nil {
			err = d.endSwept(&s, at)
		}
		if err != nil {
			return fmt.Errorf("directory: sequence %d: %w", c.Seq, err)
		}
	}
	b := d.store.DB().NewIndexedBatch()
	defer b.Close()
	last := newChange(b, d.known, at.Time)
	for i := range c.Records {
		if err := last.reflect(&c.Records[i]); err != nil {
			return fmt.Errorf("directory: sequence %d: %w", c.Seq, err)
		}
	}
	if err := last.finish(); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	return d.store.Commit(b, c.End)
}

// endSwept ends the tokens that a sweep takes and leaves the checkpoint where it
// is.
func (d *Directory) endSwept(s *aggregate.Sweep, at events.Position) error {
	ranges, err := livingOf(s.Selection)
	if err != nil {
		return err
	}
	var ids []token.ID
	end := func() error {
		b := d.store.DB().NewIndexedBatch()
		defer b.Close()
		c := newChange(b, d.known, at.Time)
		c.seq = s.Seq
		if err := c.endTokens(s, ids); err != nil {
			return err
		}
		ids = ids[:0]
		return d.store.Commit(b, at)
	}
	for _, prefix := range ranges {
		it, err := scan(d.store.DB(), prefix) // which does not see what is written meanwhile
		if err != nil {
			return err
		}
		for ok := it.First(); ok && err == nil; ok = it.Next() {
			ids = append(ids, lastID(it.Key()))
			if len(ids) == sweepPiece {
				err = end()
			}
		}
		if err = errors.Join(err, readError(it.Error()), it.Close()); err != nil {
			return err
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return end()
}

// endTokens ends those of some tokens that a sweep takes.
func (c *change) endTokens(s *aggregate.Sweep, ids []token.ID) error {
	for _, id := range ids {
		t, err := must(c.b, idKey(tableToken, id), decode[aggregate.Token])
		if err != nil {
			return err
		}
		if !s.Takes(&t) {
			continue
		}
		before := t
		t.EndSwept(s)
		if err := c.setToken(&before, &t); err != nil {
			return err
		}
	}
	return c.finish()
}

// swept keeps the sweep of each selection that reaches furthest.
func (c *change) swept(r *events.Record) error {
	s, err := aggregate.SweepOf(r)
	if err != nil {
		return err
	}
	key := sweepKey(s.Selection)
	before, there, err := get(c.b, key, decode[aggregate.Sweep])
	if err != nil || there && before.Through > s.Through {
		return err
	}
	return c.setJSON(key, &s)
}

// livingOf returns the beginnings of the keys that end with the ids of a
// selection's living tokens.
func livingOf(of Selection) ([][]byte, error) {
	switch of.By {
	case events.SweepOwner:
		var both [][]byte
		for _, kind := range []events.OwnerKind{events.OwnedByUser, events.OwnedByAccount} {
			prefix, err := ownerKey(tableLive, Owner{Kind: kind, ID: of.Owner})
			if err != nil {
				return nil, err
			}
			both = append(both, prefix)
		}
		return both, nil
	case events.SweepTemplate:
		return [][]byte{templatePrefix(of.Template)}, nil
	case events.SweepAll:
		return [][]byte{{tableLive}}, nil
	}
	return nil, fmt.Errorf("directory: no such selection: %q", of.By)
}

func lastID(key []byte) (id token.ID) {
	copy(id[:], key[len(key)-len(id):])
	return id
}

// Sweep returns the sweep of a selection that reaches furthest.
func (q *queries) Sweep(of Selection) (aggregate.Sweep, bool, error) {
	return one(q, sweepKey(of), decode[aggregate.Sweep])
}

// LivingCount returns how many living tokens a selection has now. It looks at
// keys alone: of an owner's or a template's tokens at all of them, and of all
// tokens at one for each owner.
func (q *queries) LivingCount(of Selection) (uint64, error) {
	ranges, err := livingOf(of)
	if err != nil {
		return 0, err
	}
	return more(q, func(r pebble.Reader) (n uint64, err error) {
		if of.By == events.SweepAll {
			counts, err := values(r, []byte{tableCount}, decodeCounts)
			for _, c := range counts {
				n += c.Live
			}
			return n, err
		}
		for _, prefix := range ranges {
			it, err := scan(r, prefix)
			if err != nil {
				return 0, err
			}
			for ok := it.First(); ok; ok = it.Next() {
				n++
			}
			if err := errors.Join(readError(it.Error()), it.Close()); err != nil {
				return 0, err
			}
		}
		return n, nil
	})
}

// LivingAfter calls visit with the living tokens of a selection, in the order of
// their ids from behind one, and looks at no more than so many rows. It returns
// behind which the next call goes on; the zero ID when nothing is left.
func (q *queries) LivingAfter(of Selection, after token.ID, most int, visit func(*aggregate.Token) error) (token.ID, error) {
	ranges, err := livingOf(of)
	if of.By == events.SweepAll {
		ranges = [][]byte{{tableToken}} // tableLive is in the order of owners
	}
	if err != nil {
		return token.ID{}, err
	}
	return more(q, func(r pebble.Reader) (token.ID, error) {
		for _, prefix := range ranges {
			last, err := visitAfter(r, prefix, after, &most, visit)
			if err != nil || !last.IsZero() {
				return last, err
			}
		}
		return token.ID{}, nil
	})
}

// visitAfter is LivingAfter for the keys with one beginning.
func visitAfter(r pebble.Reader, prefix []byte, after token.ID, most *int, visit func(*aggregate.Token) error) (last token.ID, err error) {
	first := append(append(slices.Clone(prefix), after[:]...), 0) // the key behind that of after
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: first, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return last, readError(err)
	}
	defer func() { err = errors.Join(err, readError(it.Error()), it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if *most == 0 {
			return last, nil
		}
		*most--
		last = lastID(it.Key())
		t, err := must(r, idKey(tableToken, last), decode[aggregate.Token])
		if err != nil {
			return last, err
		}
		if t.Status == aggregate.Revoked {
			continue
		}
		if err := visit(&t); err != nil {
			return last, err
		}
	}
	return token.ID{}, nil
}
