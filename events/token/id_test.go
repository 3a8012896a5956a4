package token

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	json "github.com/go-json-experiment/json"
)

func TestParseID(t *testing.T) {
	const good = "0123456789abcdef0123456789abcdef"
	id, err := ParseID(good)
	if err != nil || id.String() != good || id[1] != 0x23 {
		t.Fatalf("got %v, %v", id, err)
	}
	for _, bad := range []string{
		"", good[1:], good + "0", strings.ToUpper(good), good[:31] + "g", good[:31] + " ", good[:31] + "\x00",
		good[:30] + "é", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01234567-89ab-cdef-0123-456789abcdef", "{" + good[:30] + "}",
	} {
		if id, err := ParseID(bad); err == nil || !id.IsZero() {
			t.Errorf("%q is taken for %v", bad, id)
		}
		if err := new(ID).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q unmarshals", bad)
		}
	}
}

func TestParseULID(t *testing.T) {
	const good = "01ARZ3NDEKTSV4RRFFQ69G5FAV" // the example of the ULID specification
	id, err := ParseULID(good)
	if err != nil || id.ULID() != good || id.String() != "01563e3ab5d3d6764c61efb99302bd5b" {
		t.Fatalf("got %v, %v", id, err)
	}
	if got := string(id.AppendULID([]byte("x"))); got != "x"+good {
		t.Errorf("AppendULID: %q", got)
	}
	if got := id.Time(); !got.Equal(time.UnixMilli(1469922850259)) || got.Location() != time.UTC {
		t.Errorf("Time: %v", got)
	}
	for _, bad := range []string{
		"", good[1:], good + "0", strings.ToLower(good), good[:25] + "v",
		good[:25] + "!", good[:25] + "U", good[:25] + "I", good[:25] + "L", good[:25] + "O",
		"8" + good[1:], "Z" + good[1:], id.String(),
	} {
		if id, err := ParseULID(bad); err == nil || !id.IsZero() {
			t.Errorf("%q is taken for %v", bad, id)
		}
	}
}

func TestIDJSON(t *testing.T) {
	type doc struct {
		A ID `json:"a"`
		B ID `json:"b,omitzero"`
	}
	in := doc{A: ID{0xab, 1}}
	b, err := json.Marshal(in)
	if err != nil || string(b) != `{"a":"ab010000000000000000000000000000"}` {
		t.Fatalf("got %s, %v", b, err)
	}
	var out doc
	if err := json.Unmarshal(b, &out); err != nil || out != in {
		t.Errorf("got %+v, %v", out, err)
	}
}

// TestGeneratorRises: ids rise through a clock that stands, leaps and goes
// back, and carry the time while it rises.
func TestGeneratorRises(t *testing.T) {
	now := epoch
	g := NewGenerator(func() time.Time { return now })
	var last ID
	for i, step := range []time.Duration{0, 0, 0, time.Millisecond, time.Hour, -2 * time.Hour, 0, 2 * time.Hour, -365 * 24 * time.Hour, -100 * 365 * 24 * time.Hour} {
		now = now.Add(step)
		for range 100 {
			id := g.New()
			if id.Compare(last) <= 0 {
				t.Fatalf("step %d: %v after %v", i, id, last)
			}
			last = id
		}
	}
	if want := epoch.Add(time.Hour + time.Millisecond); last.Time() != want {
		t.Errorf("the clock went back and took the ids along: %v, want %v", last.Time(), want)
	}
}

// fullFirst gives the greatest number for the first id, so that a millisecond
// is full with it, and ones from then on.
type fullFirst struct{ given int }

func (r *fullFirst) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 1
		if r.given < 10 {
			p[i] = 0xff
		}
		r.given++
	}
	return len(p), nil
}

func TestGeneratorOverflow(t *testing.T) {
	g := newGenerator(func() time.Time { return epoch }, &fullFirst{})
	a, b := g.New(), g.New()
	if !b.Time().Equal(a.Time().Add(time.Millisecond)) || b.Compare(a) <= 0 {
		t.Errorf("%v (%v), then %v (%v)", a, a.Time(), b, b.Time())
	}
}

type noRandomness struct{}

func (noRandomness) Read([]byte) (int, error) { return 0, errors.New("none left") }

func TestGeneratorWithoutRandomness(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("made an id of nothing")
		}
	}()
	newGenerator(nil, noRandomness{}).New()
}

// TestGeneratorConcurrent: no id twice, and each goroutine sees its own rise.
func TestGeneratorConcurrent(t *testing.T) {
	g := NewGenerator(nil)
	var wg sync.WaitGroup
	made := make([][]ID, 8)
	for i := range made {
		wg.Go(func() {
			for range 500 {
				made[i] = append(made[i], g.New())
			}
		})
	}
	wg.Wait()
	seen := map[ID]bool{}
	for _, ids := range made {
		for i, id := range ids {
			if seen[id] || i > 0 && id.Compare(ids[i-1]) <= 0 {
				t.Fatalf("%v does not rise", id)
			}
			seen[id] = true
		}
	}
}
