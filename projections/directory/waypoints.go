package directory

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events/token"
)

// waypoints remember where every so many-th entry of a long list stands, so that
// a page in its middle costs a short walk and not one over half of the list.
// They are found on the way to pages that were asked for, and hold for as long
// as the list is as it was.
type waypoints struct {
	every uint64 // entries between two of them; waypointEvery when zero

	mu  sync.Mutex // guards what follows
	all map[list]waymarks
}

// waymarks are those of one list: keys[i] is the entry behind (i+1)*every others.
type waymarks struct {
	of   length // that was read with them
	keys [][]byte
}

const (
	waypointEvery = 1000
	// waypointLists bounds the memory: about 100 KB for a list of a million.
	waypointLists = 64
)

func (w *waypoints) step() uint64 {
	if w.every == 0 {
		return waypointEvery
	}
	return w.every
}

// of returns what is known of a list with this length row.
func (w *waypoints) of(l list, now length) [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.all[l]; m.of == now {
		return m.keys
	}
	return nil
}

// keep remembers more of them.
func (w *waypoints) keep(l list, now length, keys [][]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, known := w.all[l]
	if m.of.newer(now) || m.of == now && len(m.keys) >= len(keys) {
		return
	}
	if !known && len(w.all) >= waypointLists {
		for other := range w.all { // some one: the order of a map is random
			delete(w.all, other)
			break
		}
	}
	if w.all == nil {
		w.all = map[list]waymarks{}
	}
	w.all[l] = waymarks{now, keys}
}

// stretchOfList returns n ids of a list behind skip others. It walks from the
// end or from the waypoint before, whichever is nearer.
func (q *queries) stretchOfList(r pebble.Reader, l list, skip, n uint64, of length) ([]token.ID, error) {
	prefix := append([]byte{tablePlace}, l[:]...)
	keys := q.waypoints.of(l, of)
	at := min(skip/q.waypoints.step(), uint64(len(keys)))
	if behind := of.n - skip - n; behind < skip-at*q.waypoints.step() {
		ids, err := walk(r, prefix, true, behind, n, nil)
		slices.Reverse(ids)
		return ids, err
	}
	first := prefix
	if at > 0 {
		first = keys[at-1]
	}
	ids, found, err := q.waypoints.walk(r, prefix, first, at, skip, n)
	if err == nil && len(found) > 0 && at == uint64(len(keys)) {
		q.waypoints.keep(l, of, append(slices.Clip(keys), found...))
	}
	return ids, err
}

// walk returns n ids behind skip others of a list, from the entry first on, which
// stands behind at times as many as one step has; and the waypoints that it has
// passed.
func (w *waypoints) walk(r pebble.Reader, prefix, first []byte, at, skip, n uint64) (ids []token.ID, found [][]byte, err error) {
	it, err := scan(r, prefix)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	ids = make([]token.ID, 0, n)
	for position, ok := at*w.step(), it.SeekGE(first); ok && uint64(len(ids)) < n; position, ok = position+1, it.Next() {
		if position%w.step() == 0 && position > at*w.step() {
			found = append(found, bytes.Clone(it.Key()))
		}
		if position < skip {
			continue
		}
		_, id, err := cutPlace(it.Key()[len(prefix):])
		if err != nil {
			return nil, nil, err
		}
		ids = append(ids, id)
	}
	if err := it.Error(); err != nil {
		return nil, nil, readError(err)
	}
	if uint64(len(ids)) != n {
		return nil, nil, fmt.Errorf("directory: %w: the count of list %q %x does not fit it", errRow, prefix[:1], prefix[1:])
	}
	return ids, found, nil
}
