package throttle

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// The bounds of a limit.
const (
	maxQuota  = 1_000_000
	minWindow = time.Second
	maxWindow = 24 * time.Hour
)

// Limit allows Quota requests at once, and Quota in each Window from then on.
// The zero value is no limit. Its text is "1200/5m", or "0".
type Limit struct {
	Quota  int
	Window time.Duration // whole seconds
}

// Off reports whether there is no limit.
func (l Limit) Off() bool { return l.Quota == 0 }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Limit) UnmarshalText(text []byte) error {
	if string(text) == "0" {
		*l = Limit{}
		return nil
	}
	quota, window, _ := strings.Cut(string(text), "/")
	n, err := strconv.Atoi(quota)
	d, werr := time.ParseDuration(window)
	switch {
	case err != nil || werr != nil:
		return fmt.Errorf("%q is no limit like 1200/5m, and not 0", text)
	case n < 1 || n > maxQuota:
		return fmt.Errorf("%q allows not 1 to %d", text, maxQuota)
	case d < minWindow || d > maxWindow || d%time.Second != 0:
		return fmt.Errorf("%q is not over whole seconds, at most %v", text, maxWindow)
	}
	*l = Limit{Quota: n, Window: d}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (l Limit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// String returns the text that UnmarshalText reads.
func (l Limit) String() string {
	if l.Off() {
		return "0"
	}
	return strconv.Itoa(l.Quota) + "/" + l.Window.String()
}

// State is how a bucket stands after somebody has asked.
type State struct {
	// Limit is the bucket's own; the zero one says that nothing is limited.
	Limit Limit
	// Refused says that this one was too many. It is not counted.
	Refused bool
	// Remaining is how many more would pass at once.
	Remaining int
	// Full is how long the bucket takes to be full if nobody asks again.
	Full time.Duration
	// Retry is how long until one more passes; zero when one would now.
	Retry time.Duration
}

// Seconds rounds up, as headers want it: who comes back then is not early.
func Seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }
