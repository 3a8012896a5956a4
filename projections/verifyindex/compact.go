package verifyindex

import "fmt"

// shrunk says that n bytes of an entry in the table are of no use any more.
func (t *table) shrunk(e entry, n int) {
	if n == 0 {
		return
	}
	d := e.digest()
	t.arena.drop(t.slot(&d).ref(), n)
}

// compact moves what is alive out of the block with most dead bytes, when that
// is more than half of it, and takes the block out. Readers that are inside go
// on reading the old bytes; the memory goes back when the last one has left.
func (x *Index) compact() error {
	t := x.w.table
	if t.arena.next > maxBlocks/2 {
		return x.renew()
	}
	if t.arena.used-t.arena.live < t.arena.size/2 {
		return nil
	}
	number := t.arena.worst()
	if number < 0 {
		return nil
	}
	if err := x.evacuate(t, t.arena, number); err != nil {
		return err
	}
	t.arena.retire(number)
	return nil
}

// evacuate moves the live entries of a block of from into t.
func (x *Index) evacuate(t *table, from *arena, number int) error {
	b := from.blocks[number].Load()
	for at := unit; at < b.used; {
		e := entryAt(b, at)
		r := ref(number)<<unitBits | ref(at/unit)
		at += roundUp(len(e))
		d := e.digest()
		slot := t.slot(&d)
		if slot.ref() != r {
			continue // replaced since
		}
		if e.load().hopeless() {
			e = e.bare()
		}
		now, err := t.arena.add(e)
		if err != nil {
			return fmt.Errorf("%w: %w", errNoRoom, err)
		}
		slot.store(newSlot(hashDigest(&d), len(e), now))
		if w := x.ids.slot(e.token()); w.ref() == r {
			*w = newSlot(w.hash(), 0, now)
		}
	}
	return nil
}

// renew moves everything into a new table, because the numbers of the arena's
// blocks are used up. Readers of the old table see it as it was.
func (x *Index) renew() error {
	old := x.w.table
	t, err := x.emptyTable()
	if err != nil {
		return fmt.Errorf("%w: %w", errNoRoom, err)
	}
	for _, w := range old.slots.word {
		if w == 0 {
			continue
		}
		e, _ := old.arena.at(w.ref())
		if e.load().hopeless() {
			e = e.bare()
		}
		if t, err = x.insert(t, e); err != nil {
			return fmt.Errorf("%w: %w", errNoRoom, err)
		}
	}
	x.w.table = t
	x.publish(func(v *view) { v.table = t })
	return nil
}
