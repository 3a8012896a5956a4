package authority

import (
	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// sweep is a sweep that the directory may not have applied. It is whole when it
// reaches up to its own commit: then nothing that it could take is left.
type sweep struct {
	aggregate.Sweep
	whole bool
}

// recountMost is how many tokens of an owner are counted again while the
// directory has not applied a sweep of some of them. Whoever has more counts as
// having all of those until then.
const recountMost = 10_000

// sweeping reports whether there is a sweep in the layers.
func (v *view) sweeping() bool {
	for _, l := range v.layers {
		if len(l.sweeps.rows) > 0 {
			return true
		}
	}
	return false
}

// sweep returns the sweep of a selection that reaches furthest.
func (v *view) sweep(of aggregate.Selection) (aggregate.Sweep, bool) {
	s, ok := v.findSweep(of)
	return s.Sweep, ok
}

func (v *view) findSweep(of aggregate.Selection) (sweep, bool) {
	s, ok, _ := find(v, of, func(l *layer) *table[aggregate.Selection, sweep] { return &l.sweeps },
		func(of aggregate.Selection) (sweep, bool, error) {
			s, ok, err := v.past.Sweep(of)
			return sweep{Sweep: s}, ok, err
		})
	return s, ok
}

// applySweep keeps a sweep, unless one of the same selection reaches further.
func (v *view) applySweep(r *events.Record) error {
	s, err := aggregate.SweepOf(r)
	if err != nil {
		return err
	}
	before, ok := v.findSweep(s.Selection)
	if v.err != nil {
		return v.err
	}
	if ok && before.Through > s.Through {
		return nil
	}
	v.layers[0].sweeps.set(s.Selection, sweep{s, s.Through >= v.before}, r.Seq)
	return nil
}

// swept returns the token as the sweeps in the layers have left it.
func (v *view) swept(t *aggregate.Token) *aggregate.Token {
	if t.Status == aggregate.Revoked {
		return t
	}
	var by *aggregate.Sweep // the first that takes it
	for _, l := range v.layers {
		for _, row := range l.sweeps.rows {
			if s := row.value.Sweep; s.Takes(t) && (by == nil || s.Seq < by.Seq) {
				by = &s
			}
		}
	}
	if by == nil {
		return t
	}
	ended := *t
	ended.EndSwept(by)
	return &ended
}

// withoutSwept takes from an owner's count what the sweeps in the layers have
// ended that it does not reflect.
func (v *view) withoutSwept(o aggregate.Owner, n aggregate.Counts) aggregate.Counts {
	some, counted := false, n.Seq
	for _, l := range v.layers {
		for _, row := range l.sweeps.rows {
			s := row.value
			if s.Seq < counted || s.By == events.SweepOwner && s.Owner != o.ID {
				continue
			}
			some, n.Seq = true, max(n.Seq, s.Seq)
			if s.whole && s.By != events.SweepTemplate {
				n.Live = 0
			}
		}
	}
	if some && n.Live > 0 && n.Live <= recountMost {
		n.Live = v.recount(o)
	}
	return n
}

// recount counts the living tokens of an owner one by one.
func (v *view) recount(o aggregate.Owner) (living uint64) {
	seen := map[token.ID]bool{}
	count := func(t *aggregate.Token) {
		if !seen[t.ID] && v.swept(t).Status != aggregate.Revoked {
			living++
		}
		seen[t.ID] = true
	}
	for _, l := range v.layers {
		for _, row := range l.tokens.rows {
			if row.value.OwnedBy() == o {
				count(row.value)
			}
		}
	}
	known, err := v.past.TokensAfter(o, token.ID{}, recountMost+1)
	if err != nil {
		v.fail(err)
		return 0
	}
	for i := range known {
		count(&known[i])
	}
	return living
}
