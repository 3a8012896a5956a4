package aggregate

import (
	"time"

	"watchword.dev/events/token"
)

// Notice says of which end of a token, and how many days ahead, notice was
// given; 0 days ahead is that it has come. The zero value is none.
type Notice struct {
	ExpiresOn  time.Time `json:"expires_on"`
	DaysBefore int32     `json:"days_before,omitzero"`
}

// NoticeDays are how many days ahead notice of a token's end is given, from
// the first to that of the end itself.
var NoticeDays = [...]int32{30, 7, 1, 0}

// Given reports whether notice was given, so many days ahead or fewer, of the
// end that the token has now.
func (t *Token) Given(daysBefore int32) bool {
	n := t.Notice
	return !n.ExpiresOn.IsZero() && n.ExpiresOn.Equal(t.Grant.ExpiresOn) && n.DaysBefore <= daysBefore
}

// NextNotice returns when the next notice of the token's end is due; false
// when there is none to give. A day that had passed already when the token was
// last changed gets no notice: whoever changed it then knew.
func (t *Token) NextNotice() (time.Time, bool) {
	for _, days := range NoticeDays {
		if due, ok := t.notice(days); ok {
			return due, true
		}
	}
	return time.Time{}, false
}

// DueNotice returns how many days ahead the notice is that must be given now;
// false when none is. Of several that were missed it is the last.
func (t *Token) DueNotice(now time.Time) (daysBefore int32, ok bool) {
	for _, days := range NoticeDays {
		if due, open := t.notice(days); open && !now.Before(due) {
			daysBefore, ok = days, true
		}
	}
	return daysBefore, ok
}

// notice returns when the notice so many days ahead is due; false when it is
// not to be given, or was.
func (t *Token) notice(days int32) (time.Time, bool) {
	end := t.Grant.ExpiresOn
	if t.ID == (token.ID{}) || t.Status == Revoked || end.IsZero() || t.Given(days) {
		return time.Time{}, false
	}
	due := end.AddDate(0, 0, -int(days))
	return due, days == 0 || due.After(t.Modified)
}
