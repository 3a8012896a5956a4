package directory

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// MaxPerPage is the greatest page that can be asked for.
const MaxPerPage = 1000

// ErrPage says that a page was asked for that cannot exist.
var ErrPage = errors.New("directory: the page must be at least 1 and its size from 1 to MaxPerPage")

// Owner is a user or an account, as the owner of tokens.
type Owner struct {
	Kind events.OwnerKind
	ID   token.ID
}

// TokenQuery asks for one page of an owner's tokens.
type TokenQuery struct {
	Owner
	Page       int // from 1
	PerPage    int // from 1 to MaxPerPage
	Descending bool
	// Ended lists also the tokens that were revoked or whose owner was
	// removed.
	Ended bool
}

// TokenPage is one page of tokens, in the order of their ids, which is that of
// their making. Pages behind the last are empty.
type TokenPage struct {
	Tokens []aggregate.Token
	Total  uint64 // of all pages
	Seq    uint64 // the sequence at which the page and the total were read
}

// Tokens returns one page of an owner's tokens, read at one sequence.
func (q *queries) Tokens(ask TokenQuery) (TokenPage, error) {
	if ask.Page < 1 || ask.PerPage < 1 || ask.PerPage > MaxPerPage {
		return TokenPage{}, ErrPage
	}
	return more(q, func(r pebble.Reader) (TokenPage, error) {
		at, err := positionOf(r)
		if err != nil {
			return TokenPage{}, err
		}
		counts, err := countsOf(r, ask.Owner)
		if err != nil {
			return TokenPage{}, err
		}
		page := TokenPage{Total: counts.Live, Seq: at.Seq}
		if ask.Ended {
			page.Total = counts.All
		}
		ids, err := ask.ids(r, page.Total)
		if err != nil {
			return TokenPage{}, err
		}
		page.Tokens = make([]aggregate.Token, 0, len(ids))
		for _, id := range ids {
			t, err := must(r, idKey(tableToken, id), decode[aggregate.Token])
			if err != nil {
				return TokenPage{}, err
			}
			page.Tokens = append(page.Tokens, t)
		}
		return page, nil
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

// TokenCounts returns how many tokens an owner has.
func (q *queries) TokenCounts(o Owner) (Counts, error) {
	return more(q, func(r pebble.Reader) (Counts, error) { return countsOf(r, o) })
}

func countsOf(r pebble.Reader, o Owner) (Counts, error) {
	key, err := ownerKey(tableCount, o)
	if err != nil {
		return Counts{}, err
	}
	n, _, err := get(r, key, decodeCounts)
	return n, err
}

// ids returns the ids on the page. It walks from that end of the list which is
// nearer to the page; of what it passes over it reads only keys.
func (q *TokenQuery) ids(r pebble.Reader, total uint64) ([]token.ID, error) {
	skip, n, ok := span(q.Page, q.PerPage, total)
	if !ok {
		return nil, nil
	}
	fromEnd := skip+n > total-skip
	if fromEnd {
		skip = total - skip - n
	}
	table := byte(tableLive)
	if q.Ended {
		table = tableAll
	}
	prefix, err := ownerKey(table, q.Owner)
	if err != nil {
		return nil, err
	}
	ids, err := walk(r, prefix, q.Descending != fromEnd, skip, n)
	if err != nil {
		return nil, err
	}
	if fromEnd {
		slices.Reverse(ids)
	}
	return ids, nil
}

// walk returns n ids behind prefix, after skip others, forwards or backwards.
func walk(r pebble.Reader, prefix []byte, backwards bool, skip, n uint64) (ids []token.ID, err error) {
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
		if skip > 0 {
			skip--
			continue
		}
		// The id stands last; a name may come before it.
		id, err := decodeID(it.Key()[max(len(prefix), len(it.Key())-len(token.ID{})):])
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if err := it.Error(); err != nil {
		return nil, readError(err)
	}
	if uint64(len(ids)) != n {
		return nil, fmt.Errorf("directory: %w: the count of list %q %x does not fit it", errRow, prefix[:1], prefix[1:])
	}
	return ids, nil
}
