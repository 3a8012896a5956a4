package verifyindex

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
)

// links are the digests of a token's live secrets.
type links struct {
	current  token.Digest
	previous token.Digest // zero when there is none
}

// writer makes the changes of one batch. It reads its own writes: in resident
// mode out of the table, which is changed at once; in disk mode out of maps
// that last as long as the batch; and in a bulk load, which has no batch, out
// of the table and of maps that last as long as the load.
type writer struct {
	x     *Index
	table *table        // nil in disk mode; readers see it after the batch
	batch *pebble.Batch // nil during a load

	links map[token.ID]links     // what this batch has linked; of a load only tokens with two secrets
	rows  map[token.Digest]entry // entries of this batch; in disk mode
	owned []ownedToken           // tokens that this batch has created
	small map[string][]byte      // other rows that this batch has set; nil when deleted

	// holders is what is known of users; of a load all of them.
	holders map[token.ID]*holder

	next            *catalogue.Catalogue // that this batch publishes
	sweeps          *sweeps              // that this batch has changed; of a load all
	tokens, secrets int64                // how many more there are
	room            []byte               // for an entry that is being made
	key             [1 + 2*16 + digestLen]byte
}

type ownedToken struct{ owner, token token.ID }

func (w *writer) begin() {
	if w.x.bulk == nil {
		w.batch = w.x.store.DB().NewBatch()
		if len(w.holders) > mostHolders {
			clear(w.holders)
		}
	}
}

// end forgets the batch, whether it was committed or not.
func (w *writer) end() {
	if w.batch != nil {
		w.batch.Close()
		w.batch = nil
	}
	if w.x.bulk == nil {
		w.forget()
	}
}

func (w *writer) forget() {
	clear(w.links)
	clear(w.rows)
	clear(w.small)
	w.owned = w.owned[:0]
}

// commit makes the batch durable in its order.
func (w *writer) commit(at events.Position) error {
	if w.tokens != 0 || w.secrets != 0 {
		if err := w.set([]byte{rowCount}, w.count()); err != nil {
			return err
		}
	}
	return w.x.store.Commit(w.batch, at)
}

// count adds what is new to the figures and returns their row.
func (w *writer) count() []byte {
	c := &w.x.counts
	row := binary.LittleEndian.AppendUint64(nil, uint64(c.tokens.Add(w.tokens)))
	row = binary.LittleEndian.AppendUint64(row, uint64(c.secrets.Add(w.secrets)))
	w.tokens, w.secrets = 0, 0
	return row
}

// set writes one of the small rows.
func (w *writer) set(key, value []byte) error {
	if value == nil {
		value = []byte{}
	}
	if w.batch == nil {
		w.x.bulk.small[string(key)] = value
		return nil
	}
	w.small[string(key)] = value
	return w.batch.Set(key, value, nil)
}

// unset deletes one of the small rows.
func (w *writer) unset(key []byte) error {
	if w.batch == nil {
		delete(w.x.bulk.small, string(key))
		return nil
	}
	w.small[string(key)] = nil
	return w.batch.Delete(key, nil)
}

// get returns one of the small rows as this batch has left it.
func (w *writer) get(key []byte) ([]byte, bool, error) {
	if w.batch == nil {
		v, ok := w.x.bulk.small[string(key)]
		return v, ok, nil
	}
	if v, ok := w.small[string(key)]; ok {
		return v, v != nil, nil
	}
	return w.x.store.Get(key)
}

// prefixed returns the key of a row, valid until the next call.
func (w *writer) prefixed(kind byte, parts ...[]byte) []byte {
	k := append(w.key[:0], kind)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

// near asks for the slots of a token and of a secret, to have them near when the
// grant is compiled.
func (w *writer) near(id token.ID, d *token.Digest) {
	if w.table != nil {
		w.table.nearSlot(d)
		w.x.ids.near(id)
	}
}

// linksOf returns the live secrets of a token, and whether there is one.
func (w *writer) linksOf(id token.ID) (links, bool, error) {
	if l, ok := w.links[id]; ok {
		return l, true, nil
	}
	if w.table != nil {
		e, ok := w.x.ids.find(id)
		if !ok {
			return links{}, false, nil
		}
		if !e.load().has(flagPrevious) {
			return links{current: e.digest()}, true, nil
		}
	}
	raw, ok, err := w.x.store.Get(w.prefixed(rowID, id[:]))
	if err != nil || !ok {
		return links{}, false, err
	}
	var l links
	if len(raw) != digestLen && len(raw) != 2*digestLen {
		return l, false, fmt.Errorf("%w: token row", projector.ErrDamaged)
	}
	copy(l.current[:], raw)
	copy(l.previous[:], raw[digestLen:])
	return l, true, nil
}

// link says which secrets of a token are live.
func (w *writer) link(id token.ID, l links) error {
	if w.batch == nil {
		// The load finds everything else in the table.
		if l.previous.IsZero() {
			delete(w.links, id)
		} else {
			w.links[id] = l
		}
		return nil
	}
	w.links[id] = l
	if l.previous.IsZero() {
		return w.batch.Set(w.prefixed(rowID, id[:]), l.current[:], nil)
	}
	return w.batch.Set(w.prefixed(rowID, id[:]), append(l.current[:], l.previous[:]...), nil)
}

// own says whose a token is.
func (w *writer) own(owner, id token.ID) error {
	if w.batch == nil {
		w.x.bulk.own(owner, id)
		return nil
	}
	w.owned = append(w.owned, ownedToken{owner, id})
	return w.batch.Set(w.prefixed(rowOwner, owner[:], id[:]), nil, nil)
}

// tokensOf returns the tokens of an owner, in the order of their ids.
func (w *writer) tokensOf(owner token.ID) ([]token.ID, error) {
	if w.batch == nil {
		return w.x.bulk.tokensOf(owner), nil
	}
	var ids []token.ID
	lower := append([]byte{rowOwner}, owner[:]...)
	err := w.x.within(lower, successor(lower), func(k, _ []byte) error {
		if len(k) != 1+2*16 {
			return fmt.Errorf("%w: owner row", projector.ErrDamaged)
		}
		ids = append(ids, token.ID(k[1+16:]))
		return nil
	})
	for _, o := range w.owned {
		if o.owner == owner {
			ids = append(ids, o.token)
		}
	}
	slices.SortFunc(ids, token.ID.Compare)
	return ids, err
}

// successor returns the first key after all that begin with prefix.
func successor(prefix []byte) []byte {
	s := slices.Clone(prefix)
	for i := len(s) - 1; i >= 0; i-- {
		if s[i]++; s[i] != 0 {
			return s[:i+1]
		}
	}
	return nil
}

// entry returns the entry of a digest, or nil. It may lie in the table: its
// state is read with load and only setState changes it.
func (w *writer) entry(d token.Digest) (entry, error) {
	if w.table != nil {
		e, _, _ := w.table.find(&d) // the table holds the block
		return e, nil
	}
	if e, ok := w.rows[d]; ok {
		return e, nil
	}
	// The reader that looks into the filters: most of these are new.
	gen := w.x.view.Load().gen
	r, err := gen.take()
	if err != nil {
		return nil, err
	}
	defer gen.give(r)
	row, err := r.find(&d)
	if err != nil || row == nil {
		return nil, err
	}
	return rowEntryOf(d, row)
}

// rowEntryOf returns an entry from its row, in memory of its own, aligned.
func rowEntryOf(d token.Digest, row []byte) (entry, error) {
	e := append(append(make(entry, 0, digestLen+len(row)), d[:]...), row...)
	if !e.whole() {
		return nil, fmt.Errorf("%w: entry row", projector.ErrDamaged)
	}
	return e, nil
}

// put adds an entry or replaces the one of the same secret. It keeps a copy.
func (w *writer) put(e entry) error {
	if w.table == nil {
		w.rows[e.digest()] = e.copyWith(e.digest())
		return w.write(e)
	}
	t, err := w.x.insert(w.table, e)
	if err != nil {
		return err
	}
	w.table = t
	return w.write(e)
}

// setState changes the state of an entry that w.entry has returned.
func (w *writer) setState(e entry, s state) error {
	if w.table == nil {
		c := e.copyWith(e.digest())
		c.setState(s)
		w.rows[c.digest()] = c
		return w.write(c)
	}
	before := weight(e)
	e.store(s)
	w.table.shrunk(e, before-weight(e))
	return w.write(e)
}

// write puts the row of an entry into the batch.
func (w *writer) write(e entry) error {
	if w.batch == nil {
		return nil
	}
	return w.batch.Set(w.prefixed(rowEntry, e[:digestLen]), rowOf(e), nil)
}

// rowOf returns the row of an entry: without the policies when nobody will ever
// need it again.
func rowOf(e entry) []byte {
	if e.load().hopeless() {
		e = e.bare()
	}
	return e.row()
}

var errNoRoom = errors.New("verifyindex: no memory for the table")
