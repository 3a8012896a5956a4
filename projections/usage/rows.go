package usage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"watchword.dev/events/token"
	"watchword.dev/events/usage"
	"watchword.dev/projections/projector"
)

// The first bytes of the keys.
const (
	rowCredential = 'c'
	rowUse        = 'd'
	rowUses       = 'n'
	rowLost       = 'l'
	rowInstance   = 'i'
)

var errBroken = fmt.Errorf("%w: a row of usage", projector.ErrDamaged)

// day counts days from 1970.
type day uint32

const secondsADay = 24 * 60 * 60

func dayOf(t time.Time) day { return day(t.Unix() / secondsADay) }

// start is the beginning of the day, in UTC.
func (d day) start() time.Time { return time.Unix(int64(d)*secondsADay, 0).UTC() }

func (d day) key(row byte) []byte { return binary.BigEndian.AppendUint32([]byte{row}, uint32(d)) }

func credentialKey(id token.ID) []byte { return append([]byte{rowCredential}, id[:]...) }

func dayKey(row byte, d day, id token.ID) []byte { return append(d.key(row), id[:]...) }

// useKey is unique for what was done: texts hold no NUL.
func useKey(d day, w *usage.What) []byte {
	k := append(dayKey(rowUse, d, w.Credential), byte(w.Kind), byte(w.Result))
	k = append(k, w.Account[:]...)
	for _, s := range []string{w.Permission, w.Type, w.ID} {
		k = append(append(k, s...), 0)
	}
	return k
}

const useFixed = 1 + 4 + 16 + 2 + 16

func parseUse(key []byte) (d day, w usage.What, err error) {
	if len(key) < useFixed {
		return d, w, errBroken
	}
	d = day(binary.BigEndian.Uint32(key[1:]))
	w.Credential, w.Kind, w.Result = token.ID(key[5:21]), usage.Kind(key[21]), usage.Result(key[22])
	w.Account = token.ID(key[23:39])
	parts := bytes.Split(key[useFixed:], []byte{0})
	if len(parts) != 4 {
		return d, w, errBroken
	}
	w.Permission, w.Type, w.ID = string(parts[0]), string(parts[1]), string(parts[2])
	return d, w, nil
}

func beUint64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// unix turns Unix seconds into a time, and 0 into none.
func unix(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}

// get returns a row of at least size bytes, or nil when there is none.
func get(r pebble.Reader, key []byte, size int) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v = append([]byte(nil), v...)
	if err := closer.Close(); err != nil {
		return nil, err
	}
	if len(v) < size {
		return nil, errBroken
	}
	return v, nil
}

// number reads a row that is one number; 0 when there is none.
func number(r pebble.Reader, key []byte) (uint64, error) {
	v, err := get(r, key, 8)
	if v == nil {
		return 0, err
	}
	return beUint64(v), nil
}

func setNumber(b *pebble.Batch, key []byte, n uint64) error {
	return b.Set(key, binary.BigEndian.AppendUint64(nil, n), nil)
}

// pair is a row of two numbers.
func pair(r pebble.Reader, key []byte) (x, y uint64, there bool, err error) {
	v, err := get(r, key, 16)
	if v == nil {
		return 0, 0, false, err
	}
	return beUint64(v), beUint64(v[8:]), true, nil
}

func setPair(b *pebble.Batch, key []byte, x, y uint64) error {
	return b.Set(key, binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, x), y), nil)
}

// span is the row of a credential. The times are zero for one that was never
// good.
type span struct {
	kind        usage.Kind
	first, last int64 // Unix seconds
}

func readSpan(r pebble.Reader, id token.ID) (span, bool, error) {
	v, err := get(r, credentialKey(id), 17)
	if v == nil {
		return span{}, false, err
	}
	return span{usage.Kind(v[0]), int64(beUint64(v[1:])), int64(beUint64(v[9:]))}, true, nil
}

func (s span) write(b *pebble.Batch, id token.ID) error {
	v := binary.BigEndian.AppendUint64([]byte{byte(s.kind)}, uint64(s.first))
	return b.Set(credentialKey(id), binary.BigEndian.AppendUint64(v, uint64(s.last)), nil)
}

// change is the effect of one report.
type change struct{ batch *pebble.Batch }

// report reflects a report that was stored at a moment.
func (c *change) report(r *usage.Report, stored time.Time) error {
	key := append([]byte{rowInstance}, r.Reporter+"."+r.Instance...)
	last, _, _, err := pair(c.batch, key)
	if err != nil || r.Number <= last {
		return err // told before
	}
	today := dayOf(stored)
	if err := setPair(c.batch, key, r.Number, uint64(today)); err != nil {
		return err
	}
	from, to := r.From, r.To
	if to.After(stored) {
		to = stored // the clock of the reporter is ahead
	}
	if from.After(to) {
		from = to
	}
	d := dayOf(from)
	if d+KeptDays <= today {
		return fmt.Errorf("%w: from too long ago", usage.ErrMalformed)
	}
	if err := c.prune(today); err != nil {
		return err
	}
	if r.Lost > 0 {
		key := d.key(rowLost)
		n, err := number(c.batch, key)
		if err == nil {
			err = setNumber(c.batch, key, n+r.Lost)
		}
		if err != nil {
			return err
		}
	}
	for i := range r.Rows {
		if err := c.row(&r.Rows[i], d, from.Unix(), to.Unix()); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) row(r *usage.Row, d day, from, to int64) error {
	s, _, err := readSpan(c.batch, r.Credential)
	if err != nil {
		return err
	}
	if s.kind = r.Kind; r.Result != usage.Rejected {
		if s.first == 0 || from < s.first {
			s.first = from
		}
		s.last = max(s.last, to)
	}
	if err := s.write(c.batch, r.Credential); err != nil {
		return err
	}
	key, err := c.room(d, r.What)
	if err != nil {
		return err
	}
	n, last, _, err := pair(c.batch, key)
	if err != nil {
		return err
	}
	return setPair(c.batch, key, n+r.Count, max(last, uint64(to)))
}

// room returns the key under which a use is counted, and sees to it that no
// credential has too many of them in a day.
func (c *change) room(d day, w usage.What) ([]byte, error) {
	count := dayKey(rowUses, d, w.Credential)
	n, err := number(c.batch, count)
	if err != nil {
		return nil, err
	}
	for {
		key := useKey(d, &w)
		_, _, there, err := pair(c.batch, key)
		bare := w.Permission == "" && w.Type == ""
		if err != nil || there {
			return key, err
		}
		if n < MaxUses || bare || n < 2*MaxUses && w.ID == "" {
			return key, setNumber(c.batch, count, n+1)
		}
		if w.ID != "" {
			w.ID = ""
			continue
		}
		w.Permission, w.Type, w.Account = "", "", token.ID{}
	}
}

// prune removes the days that are not kept any more, and the instances that have
// told nothing since. It does so when the first report of a day comes.
func (c *change) prune(today day) error {
	if today < KeptDays {
		return nil
	}
	oldest := today - KeptDays + 1
	stale := false
	err := within(c.batch, []byte{rowUse}, oldest.key(rowUse), func(_, _ []byte) error {
		stale = true
		return errStop
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	if err != nil || !stale {
		return err
	}
	for _, row := range []byte{rowUse, rowUses, rowLost} {
		if err := c.batch.DeleteRange([]byte{row}, oldest.key(row), nil); err != nil {
			return err
		}
	}
	var gone [][]byte
	err = within(c.batch, []byte{rowInstance}, []byte{rowInstance + 1}, func(key, value []byte) error {
		if len(value) >= 16 && beUint64(value[8:]) < uint64(oldest) {
			gone = append(gone, append([]byte(nil), key...))
		}
		return nil
	})
	for _, key := range gone {
		err = errors.Join(err, c.batch.Delete(key, nil))
	}
	return err
}

var errStop = errors.New("stop")
