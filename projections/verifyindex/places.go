package verifyindex

import (
	"encoding/binary"
	"fmt"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
)

// account is what the index knows of an account. Its row is a byte, 1 when the
// account is there and 0 when it was removed, and the Unix millisecond at which
// API keys end, big-endian; 0 when they do not.
type account struct {
	alive   bool
	keysEnd time.Time
}

func accountKey(id token.ID) []byte { return append([]byte{rowAccount}, id[:]...) }

func (x *Index) setAccount(id token.ID, a account) error {
	b := make([]byte, 1, 9)
	if a.alive {
		b[0] = 1
	}
	ms := int64(0)
	if !a.keysEnd.IsZero() {
		ms = max(a.keysEnd.UnixMilli(), 1) // 0 is never
	}
	return x.w.set(accountKey(id), binary.BigEndian.AppendUint64(b, uint64(ms)))
}

func decodeAccount(raw []byte) (account, error) {
	if len(raw) != 9 {
		return account{}, fmt.Errorf("%w: account row", projector.ErrDamaged)
	}
	return account{raw[0] == 1, fromMilli(int64(binary.BigEndian.Uint64(raw[1:])))}, nil
}

// A key's row is the user's id and a byte that is 1 while the key is good.
const keyRowLen = 16 + 1

func keyKey(d token.Digest) []byte { return append([]byte{rowKey}, d[:]...) }

func keyRow(user token.ID, good byte) []byte { return append(user[:], good) }

// setKey makes d, unless it is zero, the API key of a user, and ends the one
// before it.
func (x *Index) setKey(user token.ID, d token.Digest) error {
	h, err := x.w.holder(user)
	if err != nil || h.key == d {
		return err
	}
	if !h.key.IsZero() {
		if err := x.w.set(keyKey(h.key), keyRow(user, 0)); err != nil {
			return err
		}
	}
	if !d.IsZero() {
		if _, taken, err := x.w.get(keyKey(d)); err != nil || taken {
			return impossible(err, "an API key is given twice")
		}
		if err := x.w.set(keyKey(d), keyRow(user, 1)); err != nil {
			return err
		}
	}
	h.key = d
	return x.w.set(userKey(user), h.row())
}

func catalogueKey(version uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{rowCatalogue}, version)
}

// published takes in a catalogue. Readers see it after its batch, which holds
// nothing else.
func (x *Index) published(d *events.CataloguePublished) error {
	if d.Version != x.version+1 {
		return impossible(nil, "version %d of the catalogue follows version %d", d.Version, x.version)
	}
	c, err := catalogue.FromDocument(x.view.Load().cat, d.Document)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrImpossible, err)
	}
	x.version, x.w.next = d.Version, c
	for _, h := range x.w.holders {
		h.compiled = false // it may know more roles
	}
	return x.w.set(catalogueKey(d.Version), d.Document)
}

// showCatalogue lets readers see a catalogue that was published.
func (x *Index) showCatalogue() {
	if c := x.w.next; c != nil {
		x.w.next = nil
		x.publish(func(v *view) { v.cat = c })
	}
}

// loadCatalogue extends the built-in catalogue by all that were published, in
// their order, so that the numbers are the same again.
func (x *Index) loadCatalogue() error {
	c := x.o.Catalogue
	err := x.each(rowCatalogue, func(k, v []byte) error {
		x.version++
		if string(k) != string(catalogueKey(x.version)) {
			return fmt.Errorf("%w: version %d of the catalogue is missing", projector.ErrDamaged, x.version)
		}
		next, err := catalogue.FromDocument(c, v)
		if err != nil {
			return fmt.Errorf("%w: catalogue row: %w", projector.ErrDamaged, err)
		}
		c = next
		return nil
	})
	if err == nil {
		x.publish(func(v *view) { v.cat = c })
	}
	return err
}
