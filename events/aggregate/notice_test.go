package aggregate_test

import (
	"testing"
	"time"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// TestNotices follows tokens to their ends: which notices are given, in which
// order, and none twice.
func TestNotices(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		life  time.Duration
		looks []time.Duration // when somebody looks, after the start
		want  []int32
	}{
		"a year":               {365 * day, []time.Duration{0, 334 * day, 335 * day, 336 * day, 358 * day, 364 * day, 365 * day, 366 * day}, []int32{30, 7, 1, 0}},
		"two days":             {2 * day, []time.Duration{0, day, 2 * day, 3 * day}, []int32{1, 0}},
		"an hour":              {time.Hour, []time.Duration{0, time.Hour - 1, time.Hour, 2 * time.Hour}, []int32{0}},
		"nobody looks at once": {90 * day, []time.Duration{0, 85 * day, 200 * day, 201 * day}, []int32{7, 0}},
		"for ever":             {0, []time.Duration{0, 1000 * day}, nil},
	} {
		tok := aggregate.Token{ID: token.ID{1}, Status: aggregate.Active, Created: start, Modified: start}
		if c.life > 0 {
			tok.Grant.ExpiresOn = start.Add(c.life)
		}
		var got []int32
		for _, at := range c.looks {
			now := start.Add(at)
			next, more := tok.NextNotice()
			days, due := tok.DueNotice(now)
			if due && (!more || next.After(now)) {
				t.Errorf("%s after %v: due, but the next is at %v", name, at, next)
			}
			if due {
				got = append(got, days)
				tok.Notice = aggregate.Notice{ExpiresOn: tok.Grant.ExpiresOn, DaysBefore: days}
				if _, again := tok.DueNotice(now); again {
					t.Errorf("%s after %v: due twice", name, at)
				}
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
	}
	ended := aggregate.Token{ID: token.ID{1}, Status: aggregate.Revoked, Grant: token.Grant{ExpiresOn: start}}
	if _, ok := ended.DueNotice(start.Add(day)); ok {
		t.Error("notice of a token that was revoked")
	}
}
