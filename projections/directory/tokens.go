package directory

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// MaxPerPage is the greatest page that can be asked for.
const MaxPerPage = 1000

// ErrPage says that a page was asked for that cannot exist.
var ErrPage = errors.New("directory: the page must be at least 1 and its size from 1 to MaxPerPage")

// Owner is a user or an account, as the owner of tokens.
type Owner = aggregate.Owner

// TokenQuery asks for one page of an owner's tokens: with a name or a prefix
// in the order of their names, without in that of their ids, which is that of
// their making.
type TokenQuery struct {
	Owner
	Listing
	// Ended lists also the tokens that were revoked or whose owner was
	// removed. They have no place among the names any more: together with a
	// name or a prefix it is ErrPage.
	Ended bool
	// ValidAt, unless it is zero, leaves out the tokens whose validity had
	// ended by then.
	ValidAt time.Time
}

// Tokens returns one page of an owner's tokens, read at one sequence.
func (q *queries) Tokens(ask TokenQuery) (Page[aggregate.Token], error) {
	named := ask.Name != "" || ask.Prefix != ""
	if !ask.valid() || named && ask.Ended {
		return Page[aggregate.Token]{}, ErrPage
	}
	return more(q, func(r pebble.Reader) (Page[aggregate.Token], error) {
		var none Page[aggregate.Token]
		past, err := ask.past(r)
		if err != nil {
			return none, err
		}
		ids, total, err := []token.ID(nil), uint64(0), error(nil)
		if named {
			ids, total, err = filteredPage(r, []list{listTokens(ask.Owner)}, &ask.Listing, func(id token.ID) (bool, error) {
				return !past[id], nil
			})
		} else {
			ids, total, err = ask.byAge(r, past)
		}
		if err != nil {
			return none, err
		}
		return pageOf(r, tableToken, ids, total, decode[aggregate.Token])
	})
}

// past returns the tokens that are left out because their validity has ended.
// It reads the keys of those alone.
func (q *TokenQuery) past(r pebble.Reader) (map[token.ID]bool, error) {
	if q.ValidAt.IsZero() {
		return nil, nil
	}
	prefix, err := ownerKey(tableExpiry, q.Owner)
	if err != nil {
		return nil, err
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: appendTime(slices.Clone(prefix), q.ValidAt.Add(time.Millisecond))})
	if err != nil {
		return nil, readError(err)
	}
	past := map[token.ID]bool{}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var id token.ID
		if id, err = decodeID(it.Key()[len(prefix)+8:]); err == nil {
			past[id] = true
		}
	}
	return past, errors.Join(err, readError(it.Error()), it.Close())
}

// byAge returns the ids on the page, and how many there are on all. It walks
// from that end of the list which is nearer to the page; of what it passes over
// it reads only keys.
func (q *TokenQuery) byAge(r pebble.Reader, past map[token.ID]bool) ([]token.ID, uint64, error) {
	counts, err := countsOf(r, q.Owner)
	if err != nil {
		return nil, 0, err
	}
	table, total := byte(tableLive), counts.Live-uint64(len(past))
	if q.Ended {
		table, total = tableAll, counts.All-uint64(len(past))
	}
	skip, n, ok := span(q.Page, q.PerPage, total)
	if !ok {
		return nil, total, nil
	}
	fromEnd := skip+n > total-skip
	if fromEnd {
		skip = total - skip - n
	}
	prefix, err := ownerKey(table, q.Owner)
	if err != nil {
		return nil, 0, err
	}
	ids, err := walk(r, prefix, q.Descending != fromEnd, skip, n, past)
	if fromEnd {
		slices.Reverse(ids)
	}
	return ids, total, err
}

// TokensAfter returns an owner's tokens that have not ended, at most so many, in
// the order of their ids from behind one: where a walk over all of them goes on.
// A token that is made during the walk stands behind those before it.
func (q *queries) TokensAfter(o Owner, after token.ID, most int) ([]aggregate.Token, error) {
	prefix, err := ownerKey(tableLive, o)
	if err != nil {
		return nil, err
	}
	return more(q, func(r pebble.Reader) ([]aggregate.Token, error) {
		first := append(append(slices.Clone(prefix), after[:]...), 0) // the key behind that of after
		it, err := r.NewIter(&pebble.IterOptions{LowerBound: first, UpperBound: prefixEnd(prefix)})
		if err != nil {
			return nil, readError(err)
		}
		var all []aggregate.Token
		for ok := it.First(); ok && len(all) < most && err == nil; ok = it.Next() {
			var id token.ID
			if id, err = decodeID(it.Key()[len(prefix):]); err != nil {
				break
			}
			var t aggregate.Token
			if t, err = must(r, idKey(tableToken, id), decode[aggregate.Token]); err == nil {
				all = append(all, t)
			}
		}
		return all, errors.Join(err, readError(it.Error()), it.Close())
	})
}

// NoticesDue returns at most so many tokens of whose end notice must be given
// by now, those first that have waited longest.
func (q *queries) NoticesDue(now time.Time, most int) ([]aggregate.Token, error) {
	return more(q, func(r pebble.Reader) ([]aggregate.Token, error) {
		it, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{tableNotice}, UpperBound: noticeKey(now.Add(time.Millisecond), token.ID{})})
		if err != nil {
			return nil, readError(err)
		}
		var all []aggregate.Token
		for ok := it.First(); ok && len(all) < most && err == nil; ok = it.Next() {
			var id token.ID
			if id, err = decodeID(it.Key()[1+8:]); err != nil {
				break
			}
			var t aggregate.Token
			if t, err = must(r, idKey(tableToken, id), decode[aggregate.Token]); err == nil {
				all = append(all, t)
			}
		}
		return all, errors.Join(err, readError(it.Error()), it.Close())
	})
}

// TokenCounts returns how many tokens an owner has; false when there never were
// any.
func (q *queries) TokenCounts(o Owner) (Counts, bool, error) {
	key, err := ownerKey(tableCount, o)
	if err != nil {
		return Counts{}, false, err
	}
	return one(q, key, decodeCounts)
}

func countsOf(r pebble.Reader, o Owner) (Counts, error) {
	key, err := ownerKey(tableCount, o)
	if err != nil {
		return Counts{}, err
	}
	n, _, err := get(r, key, decodeCounts)
	return n, err
}

// walk returns n ids behind prefix, after skip others, forwards or backwards.
// Those to leave out count as neither.
func walk(r pebble.Reader, prefix []byte, backwards bool, skip, n uint64, leave map[token.ID]bool) (ids []token.ID, err error) {
	it, err := scan(r, prefix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	first, next := it.First, it.Next
	if backwards {
		first, next = it.Last, it.Prev
	}
	ids = make([]token.ID, 0, n)
	for ok := first(); ok && uint64(len(ids)) < n; ok = next() {
		// The id stands last; a name may come before it.
		id, err := decodeID(it.Key()[max(len(prefix), len(it.Key())-len(token.ID{})):])
		switch {
		case err != nil:
			return nil, err
		case leave[id]:
		case skip > 0:
			skip--
		default:
			ids = append(ids, id)
		}
	}
	if err := it.Error(); err != nil {
		return nil, readError(err)
	}
	if uint64(len(ids)) != n {
		return nil, fmt.Errorf("directory: %w: the count of list %q %x does not fit it", errRow, prefix[:1], prefix[1:])
	}
	return ids, nil
}
