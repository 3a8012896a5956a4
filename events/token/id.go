package token

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"math"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// ID identifies an aggregate: a token, a user, an account. It is a ULID, so
// that ids sort by the time of their making. The zero value means no id.
type ID [16]byte

// errID is one value for every refused id: what was sent is not repeated.
var errID = errors.New("token: malformed id")

// ParseID parses the form that String returns: exactly 32 lower-case hex
// digits.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, errID
	}
	var all byte
	for i := range id {
		hi, lo := unhex(s[2*i]), unhex(s[2*i+1])
		all |= hi | lo // no digit is above 15
		id[i] = hi<<4 | lo
	}
	if all > 15 {
		return ID{}, errID
	}
	return id, nil
}

// unhex returns the value of a lower-case hex digit, or 0xff.
func unhex(b byte) byte { return hexDigits[b] }

// hexDigits has no branches: a replay reads hundreds of digits of every event.
var hexDigits = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i)
	}
	return t
}()

// ParseULID parses the form that ULID returns: 26 characters, upper case only,
// no look-alikes, no overflow.
func ParseULID(s string) (ID, error) {
	u, err := ulid.ParseStrict(s)
	if err != nil {
		return ID{}, errID
	}
	var back [ulid.EncodedSize]byte
	if u.MarshalTextTo(back[:]) != nil || string(back[:]) != s {
		return ID{}, errID
	}
	return ID(u), nil
}

// String returns the id as 32 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Spells reports whether s is what String returns. It is quicker than to parse
// s or to make that string, and does not allocate.
func (id *ID) Spells(s string) bool { return len(s) == 2*len(id) && spells(s, id) }

// ULID returns the id as a ULID of 26 characters, as events write their own.
func (id ID) ULID() string { return ulid.ULID(id).String() }

// AppendText appends what String returns.
func (id ID) AppendText(dst []byte) ([]byte, error) { return hex.AppendEncode(dst, id[:]), nil }

// AppendULID appends what ULID returns.
func (id ID) AppendULID(dst []byte) []byte {
	var b [ulid.EncodedSize]byte
	_ = ulid.ULID(id).MarshalTextTo(b[:]) // fails only for a short buffer
	return append(dst, b[:]...)
}

// MarshalText returns what String returns.
func (id ID) MarshalText() ([]byte, error) { return id.AppendText(nil) }

// UnmarshalText accepts exactly what ParseID accepts.
func (id *ID) UnmarshalText(b []byte) error {
	p, err := ParseID(string(b))
	if err != nil {
		return err
	}
	*id = p
	return nil
}

// IsZero reports whether there is no id.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders ids by the time of their making.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// Time returns the millisecond, in UTC, that is written in the id.
func (id ID) Time() time.Time { return ulid.Time(ulid.ULID(id).Time()).UTC() }

// step bounds the random distance between two ids of one millisecond, which
// keeps a neighbour from being guessed. The library draws steps of this width
// at once; of others it may throw away nearly all that it draws.
const step = math.MaxUint32

// Generator makes ids that always rise, however the clock behaves. Its zero
// value is not usable; NewGenerator makes one. It is safe for concurrent use.
type Generator struct {
	now func() time.Time

	mu      sync.Mutex // guards what follows
	last    uint64     // the millisecond of the newest id
	entropy *ulid.MonotonicEntropy
}

// NewGenerator returns a generator that reads the time from now, or from the
// system's clock when now is nil, and its randomness from crypto/rand.
func NewGenerator(now func() time.Time) *Generator { return newGenerator(now, rand.Reader) }

func newGenerator(now func() time.Time, random io.Reader) *Generator {
	if now == nil {
		now = time.Now
	}
	return &Generator{now: now, entropy: ulid.Monotonic(random, step)}
}

// New returns an id greater than every id before. When the clock stands still
// or goes back, or a millisecond is full, it goes on from the newest id.
//
// It panics when there is no randomness to be had, or after the year 10889:
// nothing sensible can follow either.
func (g *Generator) New() ID {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last, uint64(max(g.now().UnixMilli(), 0)))
	u, err := ulid.New(g.last, g.entropy)
	if errors.Is(err, ulid.ErrMonotonicOverflow) {
		g.last++
		u, err = ulid.New(g.last, g.entropy)
	}
	if err != nil {
		panic("token: no id: " + err.Error())
	}
	return ID(u)
}
