package usage

import (
	"time"

	"watchword.dev/events/token"
	"watchword.dev/events/usage"
)

// Span is when a credential was used, as far as it was good.
type Span struct {
	Kind        usage.Kind
	First, Last time.Time // zero when it was never good
}

// Use is what a credential was used for on some days.
type Use struct {
	usage.What
	Count uint64
	Last  time.Time
}

// Day is how often a credential was used on a day.
type Day struct {
	Date                       time.Time // its beginning, in UTC
	Allowed, Refused, Rejected uint64
}

// History is a credential's use over some days.
type History struct {
	Uses []Use // in the order of What, days added up
	Days []Day // those with uses, the oldest first
}

// begin returns what ends a query.
func (u *Usage) begin() (func(), error) {
	u.inUse.RLock()
	if u.closed {
		u.inUse.RUnlock()
		return nil, ErrClosed
	}
	return u.inUse.RUnlock, nil
}

// Span returns when a credential was used; false when it never was.
func (u *Usage) Span(id token.ID) (Span, bool, error) {
	end, err := u.begin()
	if err != nil {
		return Span{}, false, err
	}
	defer end()
	s, ok, err := readSpan(u.store.DB(), id)
	if err != nil || !ok {
		return Span{}, false, err
	}
	return Span{s.kind, unix(s.first), unix(s.last)}, true, nil
}

// History returns what a credential was used for since a day, at most KeptDays
// ago.
func (u *Usage) History(id token.ID, since, now time.Time) (History, error) {
	var h History
	end, err := u.begin()
	if err != nil {
		return h, err
	}
	defer end()
	snap := u.store.DB().NewSnapshot()
	defer snap.Close()
	at := map[usage.What]int{}
	today := dayOf(now)
	first := dayOf(since)
	if today >= KeptDays {
		first = max(first, today-KeptDays+1)
	}
	for d := first; d <= today+1; d++ { // the stream's clock may be ahead
		sum := Day{Date: d.start()}
		lower := dayKey(rowUse, d, id)
		upper := append(append([]byte(nil), lower...), 0xff)
		err := within(snap, lower, upper, func(key, value []byte) error {
			if len(value) < 16 {
				return errBroken
			}
			_, w, err := parseUse(key)
			if err != nil {
				return err
			}
			n, last := beUint64(value), unix(int64(beUint64(value[8:])))
			i, ok := at[w]
			if !ok {
				i = len(h.Uses)
				at[w] = i
				h.Uses = append(h.Uses, Use{What: w})
			}
			h.Uses[i].Count += n
			if last.After(h.Uses[i].Last) {
				h.Uses[i].Last = last
			}
			sum.add(w.Result, n)
			return nil
		})
		if err != nil {
			return h, err
		}
		if sum.Allowed+sum.Refused+sum.Rejected > 0 {
			h.Days = append(h.Days, sum)
		}
	}
	return h, nil
}

func (d *Day) add(r usage.Result, n uint64) {
	switch r {
	case usage.Allowed:
		d.Allowed += n
	case usage.Refused:
		d.Refused += n
	case usage.Rejected:
		d.Rejected += n
	}
}

// Lost returns how many uses since a day the reporters had no room for. They
// are missing in every history.
func (u *Usage) Lost(since time.Time) (uint64, error) {
	end, err := u.begin()
	if err != nil {
		return 0, err
	}
	defer end()
	var sum uint64
	err = within(u.store.DB(), dayOf(since).key(rowLost), []byte{rowLost + 1}, func(_, value []byte) error {
		if len(value) < 8 {
			return errBroken
		}
		sum += beUint64(value)
		return nil
	})
	return sum, err
}
