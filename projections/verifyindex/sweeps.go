package verifyindex

import (
	"encoding/binary"
	"fmt"
	"maps"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/projections/projector"
)

// sweeps are how far the sweeps reach, of each selection the furthest: a token is
// revoked whose creation has a number up to there. They are not changed once they
// are in a view, where nil stands for none.
type sweeps struct {
	all       uint64
	owners    map[token.ID]uint64
	templates map[uint32]uint64
}

// take reports whether a sweep has revoked the token of a row. It costs two
// look-ups at most.
func (s *sweeps) take(r rowView) bool {
	n := r.number()
	if n <= s.all || n <= s.owners[r.owner()] {
		return true
	}
	if len(s.templates) == 0 {
		return false
	}
	template := r.template()
	return template != 0 && n <= s.templates[template]
}

// swept applies a sweep. Readers see it before the batch is durable, as they do
// the state of an entry: who reads rows of the batch sees the sweep, too.
func (x *Index) swept(r *events.Record) error {
	sweep, err := aggregate.SweepOf(r)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrImpossible, err)
	}
	key, next := []byte{rowSweep, sweep.By[0]}, x.w.nextSweeps()
	var through uint64
	switch sweep.By {
	case events.SweepOwner:
		key = append(key, sweep.Owner[:]...)
		through = max(sweep.Through, next.owners[sweep.Owner])
		next.owners[sweep.Owner] = through
	case events.SweepTemplate:
		n, known := x.templates[sweep.Template]
		if !known {
			return nil // no token before this was made from it
		}
		key = binary.LittleEndian.AppendUint32(key, n)
		through = max(sweep.Through, next.templates[n])
		next.templates[n] = through
	default:
		through = max(sweep.Through, next.all)
		next.all = through
	}
	return x.w.set(key, binary.LittleEndian.AppendUint64(nil, through))
}

// nextSweeps returns the sweeps that this batch changes, or of a load all.
func (w *writer) nextSweeps() *sweeps {
	if w.sweeps == nil {
		w.sweeps = w.x.view.Load().sweeps.clone()
	}
	return w.sweeps
}

func (s *sweeps) clone() *sweeps {
	if s == nil {
		return &sweeps{owners: map[token.ID]uint64{}, templates: map[uint32]uint64{}}
	}
	return &sweeps{all: s.all, owners: maps.Clone(s.owners), templates: maps.Clone(s.templates)}
}

// showSweeps lets readers see the sweeps of a batch.
func (x *Index) showSweeps() {
	if s := x.w.sweeps; s != nil {
		x.w.sweeps = nil
		x.publish(func(v *view) { v.sweeps = s })
	}
}

// sweptEntry reports whether a sweep has revoked the token of an entry that the
// writer looks at.
func (x *Index) sweptEntry(e entry) bool {
	s := x.w.sweeps
	if s == nil {
		s = x.view.Load().sweeps
	}
	return s != nil && s.take(rowView{row: e.row()})
}

// templateNumber returns the number of a template, from 1; it is given one the
// first time. Zero is no template.
func (x *Index) templateNumber(name string) (uint32, error) {
	if name == "" {
		return 0, nil
	}
	if n, known := x.templates[name]; known {
		return n, nil
	}
	n := uint32(len(x.templates) + 1)
	x.templates[name] = n
	return n, x.w.set(append([]byte{rowTemplate}, name...), binary.LittleEndian.AppendUint32(nil, n))
}

// loadSweeps reads the numbers of the templates, and the sweeps.
func (x *Index) loadSweeps() error {
	if err := x.each(rowTemplate, func(k, v []byte) error {
		if len(v) != 4 {
			return fmt.Errorf("%w: template row", projector.ErrDamaged)
		}
		x.templates[string(k[1:])] = binary.LittleEndian.Uint32(v)
		return nil
	}); err != nil {
		return err
	}
	var s *sweeps
	err := x.each(rowSweep, func(k, v []byte) error {
		if len(k) < 2 || len(v) != 8 {
			return fmt.Errorf("%w: sweep row", projector.ErrDamaged)
		}
		if s == nil {
			s = s.clone()
		}
		through, of := binary.LittleEndian.Uint64(v), k[2:]
		switch {
		case k[1] == events.SweepOwner[0] && len(of) == len(token.ID{}):
			s.owners[token.ID(of)] = through
		case k[1] == events.SweepTemplate[0] && len(of) == 4:
			s.templates[binary.LittleEndian.Uint32(of)] = through
		case k[1] == events.SweepAll[0] && len(of) == 0:
			s.all = through
		default:
			return fmt.Errorf("%w: sweep row", projector.ErrDamaged)
		}
		return nil
	})
	if err == nil && s != nil {
		x.publish(func(v *view) { v.sweeps = s })
	}
	return err
}
