package verifyindex

import (
	"time"

	"watchword.dev/events/catalogue"
)

// Bounds are how old an answer may be at most, by the class of the permission
// that was asked for.
type Bounds struct {
	Read, Write, Admin time.Duration
}

// recentEnds is of how many commits the index knows where they end, to compare
// that with the pulses.
const recentEnds = 4096

// DefaultBounds are what applies to a zero field of Options.Bounds.
var DefaultBounds = Bounds{Read: 5 * time.Minute, Write: 30 * time.Second, Admin: 10 * time.Second}

// StaleAfter is the age from which on an answer says that it is stale.
const StaleAfter = 10 * time.Second

func (b Bounds) orDefault() Bounds {
	if b.Read == 0 {
		b.Read = DefaultBounds.Read
	}
	if b.Write == 0 {
		b.Write = DefaultBounds.Write
	}
	if b.Admin == 0 {
		b.Admin = DefaultBounds.Admin
	}
	return b
}

// Longest returns the greatest of the bounds, with the defaults where one is zero:
// nothing older is ever answered by.
func (b Bounds) Longest() time.Duration {
	b = b.orDefault()
	return max(b.Read, b.Write, b.Admin)
}

// of returns the bound of a class; of an unknown one the strictest.
func (b Bounds) of(c catalogue.Class) time.Duration {
	switch c {
	case catalogue.Read:
		return b.Read
	case catalogue.Write:
		return b.Write
	}
	return b.Admin
}
