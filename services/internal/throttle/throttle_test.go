package throttle

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// clock is set by the test.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newClock() *clock { return &clock{time.Date(2026, 1, 5, 9, 30, 0, 0, time.UTC)} }

func addr(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil && s != "" {
		panic(err)
	}
	return a
}

// TestTake tells the story of one bucket of 10 in 20 seconds, step by step.
func TestTake(t *testing.T) {
	c := newClock()
	limit := Limit{Quota: 10, Window: 20 * time.Second}
	table := NewTable(limit, c.now)
	for i, step := range []struct {
		after time.Duration
		times int // how often it is asked; the last answer counts
		want  State
	}{
		{0, 1, State{Remaining: 9, Full: 2 * time.Second}},
		{0, 8, State{Remaining: 1, Full: 18 * time.Second}},
		{0, 1, State{Remaining: 0, Full: 20 * time.Second, Retry: 2 * time.Second}},
		{0, 1, State{Refused: true, Full: 20 * time.Second, Retry: 2 * time.Second}},
		{500 * time.Millisecond, 100, State{Refused: true, Full: 19500 * time.Millisecond, Retry: 1500 * time.Millisecond}}, // a refusal costs nothing
		{1500 * time.Millisecond, 1, State{Full: 20 * time.Second, Retry: 2 * time.Second}},
		{0, 1, State{Refused: true, Full: 20 * time.Second, Retry: 2 * time.Second}},
		{10 * time.Second, 1, State{Remaining: 4, Full: 12 * time.Second}},
		{time.Hour, 1, State{Remaining: 9, Full: 2 * time.Second}},                               // no more than full
		{-time.Minute, 1, State{Refused: true, Full: 62 * time.Second, Retry: 44 * time.Second}}, // a clock set back gives nothing away
	} {
		c.at = c.at.Add(step.after)
		var got State
		for range step.times {
			got = table.Take([]byte("k"))
		}
		step.want.Limit = limit
		if got != step.want {
			t.Errorf("step %d: got %+v, want %+v", i, got, step.want)
		}
	}
	if got := table.Take([]byte("another")); got.Refused || got.Remaining != 9 {
		t.Errorf("another key: %+v", got)
	}
}

// TestRate checks the promise over a long run: never more than the quota at
// once, and the quota in each window from then on.
func TestRate(t *testing.T) {
	for _, limit := range []Limit{{1200, 5 * time.Minute}, {200, time.Second}, {7, 3 * time.Second}, {1, time.Second}, {maxQuota, time.Second}} {
		c := newClock()
		table := NewTable(limit, c.now)
		took := func() (n int) {
			for !table.Take([]byte("k")).Refused {
				n++
			}
			return n
		}
		if n := took(); n < limit.Quota || n > limit.Quota+limit.Quota/1000 {
			t.Errorf("%v: %d at once", limit, n)
		}
		if limit.Quota > 10_000 {
			continue // the same arithmetic, for many seconds
		}
		sum := 0
		for range 1000 { // ten windows
			c.at = c.at.Add(limit.Window / 100)
			sum += took()
		}
		if want := 10 * limit.Quota; sum < want-1 || sum > want+1 {
			t.Errorf("%v: %d in ten windows, want %d", limit, sum, want)
		}
	}
}

// TestBounded: strange keys, however many, take no memory, and cost a key that
// is busy nothing until they have been as busy.
func TestBounded(t *testing.T) {
	c := newClock()
	table := NewTable(Limit{Quota: 10, Window: time.Minute}, c.now)
	busy := []byte("busy")
	for range 11 {
		table.Take(busy)
	}
	strange := make([]byte, 8)
	for i := range uint64(20 * setCount * setSize) {
		binary.LittleEndian.PutUint64(strange, i)
		if table.Take(strange).Refused {
			t.Fatal("a key that was never seen is refused")
		}
	}
	if !table.Take(busy).Refused {
		t.Error("a flood of keys that asked once has pushed out one that is over its limit")
	}
	if len(table.sets) != setCount {
		t.Errorf("%d sets", len(table.sets))
	}
}

// TestForgetsTheFullest: where there is no room, the bucket that has most goes.
func TestForgetsTheFullest(t *testing.T) {
	var s set
	for i := range setSize {
		*s.find(uint64(i + 1)) = place{uint64(i + 1), int64(100 - i)}
	}
	s.find(1000)
	for i := range setSize {
		_, kept := i, s.places[i].key == uint64(i+1)
		if gone := i == setSize-1; kept == gone {
			t.Errorf("place %d: kept %v", i, kept)
		}
	}
}

// TestConcurrent: what passes is counted once, whoever asks at the same time.
func TestConcurrent(t *testing.T) {
	c := newClock()
	g := NewGate(Limits{Requests: Limit{1000, time.Hour}}, c.now)
	var passed [8]int
	var wg sync.WaitGroup
	for i := range passed {
		wg.Go(func() {
			for range 1000 {
				if !g.Principal([16]byte{7}).Refused {
					passed[i]++
				}
			}
		})
	}
	wg.Wait()
	sum := 0
	for _, n := range passed {
		sum += n
	}
	if sum != 1000 || g.Refused(Requests) != 7000 {
		t.Errorf("%d passed and %d were refused, want 1000 and 7000", sum, g.Refused(Requests))
	}
}

// TestGateNames: who shares a bucket with whom.
func TestGateNames(t *testing.T) {
	one := Limit{1, time.Hour}
	for name, c := range map[string]struct {
		first, second func(*Gate) State
		shared        bool
	}{
		"one address":                    {address("192.0.2.1"), address("192.0.2.1"), true},
		"two addresses":                  {address("192.0.2.1"), address("192.0.2.2"), false},
		"one /64":                        {address("2001:db8::1"), address("2001:db8::ffff:0:0:2"), true},
		"two /64":                        {address("2001:db8::1"), address("2001:db8:0:1::1"), false},
		"IPv4 within IPv6":               {address("::ffff:192.0.2.1"), address("192.0.2.1"), true},
		"an IPv4 and an IPv6 alike":      {address("32.1.13.184"), address("2001:db8::"), false},
		"nobody knows":                   {address(""), address(""), true},
		"unknown and the zero address":   {address(""), address("0.0.0.0"), false},
		"unknown and the zero network":   {address(""), address("::"), false},
		"strangers":                      {stranger("192.0.2.1"), stranger("192.0.2.1"), true},
		"a stranger and a count of all":  {stranger("192.0.2.1"), address("192.0.2.1"), false},
		"one principal":                  {principal(1), principal(1), true},
		"two principals":                 {principal(1), principal(2), false},
		"a principal and a stranger":     {principal('4'), stranger("4.0.0.0"), false},
		"wrong, one address":             {wrong("192.0.2.1", ""), wrong("192.0.2.1", ""), true},
		"wrong, one address, two names":  {wrong("192.0.2.1", "a@example.com"), wrong("192.0.2.1", "b@example.com"), true},
		"wrong, one name, two addresses": {wrong("192.0.2.1", "a@example.com"), wrong("192.0.2.2", "A@Example.com"), true},
		"wrong, two of both":             {wrong("192.0.2.1", "a@example.com"), wrong("192.0.2.2", "b@example.com"), false},
		"wrong, no names":                {wrong("192.0.2.1", ""), wrong("192.0.2.2", ""), false},
		"wrong and good":                 {wrong("192.0.2.1", "a@example.com"), address("192.0.2.1"), false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewGate(Limits{Requests: one, Address: one, Wrong: one}, newClock().now)
			if c.first(g).Refused {
				t.Fatal("the first one is refused")
			}
			if got := c.second(g).Refused; got != c.shared {
				t.Errorf("the second one is refused: %v, want %v", got, c.shared)
			}
		})
	}
}

func address(a string) func(*Gate) State  { return func(g *Gate) State { return g.Address(addr(a)) } }
func stranger(a string) func(*Gate) State { return func(g *Gate) State { return g.Stranger(addr(a)) } }
func principal(n byte) func(*Gate) State {
	return func(g *Gate) State { return g.Principal([16]byte{n}) }
}

func wrong(a, name string) func(*Gate) State {
	return func(g *Gate) State { return g.Wrong(addr(a), name) }
}

// TestOff: without a limit nothing is refused, and there is nothing to tell.
func TestOff(t *testing.T) {
	for _, g := range []*Gate{nil, NewGate(Limits{}, nil)} {
		for range 5000 {
			for _, s := range []State{g.Principal([16]byte{}), g.Stranger(addr("192.0.2.1")), g.Address(addr("192.0.2.1")), g.Wrong(addr("192.0.2.1"), "a")} {
				if s != (State{}) {
					t.Fatalf("%+v", s)
				}
			}
		}
	}
}

func TestCounts(t *testing.T) {
	g := NewGate(Limits{Wrong: Limit{1, time.Hour}}, newClock().now)
	g.Wrong(addr("192.0.2.1"), "a")
	g.Wrong(addr("192.0.2.1"), "b")
	g.Wrong(addr("192.0.2.2"), "a")
	got := fmt.Sprint(g.WrongCredentials())
	for b := range Bounds {
		got += fmt.Sprintf(" %s=%d", b, g.Refused(b))
	}
	if want := "3 requests=0 address=0 wrong_address=1 wrong_identifier=1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLimitText(t *testing.T) {
	for text, want := range map[string]Limit{
		"1200/5m": {1200, 5 * time.Minute}, "200/1s": {200, time.Second}, "0": {}, "1/24h": {1, 24 * time.Hour},
		"1000000/90s": {1_000_000, 90 * time.Second},
	} {
		var l Limit
		if err := l.UnmarshalText([]byte(text)); err != nil || l != want {
			t.Errorf("%q: %v, %v", text, l, err)
		}
		var again Limit
		b, err := l.MarshalText()
		if err != nil || again.UnmarshalText(b) != nil || again != l {
			t.Errorf("%q does not come back from %q: %v", text, b, again)
		}
	}
	for _, text := range []string{"", "1200", "5m", "/5m", "0/5m", "-1/5m", "1200/0s", "1200/5", "1/25h", "1/1500ms", "1/-1m", "2000000/1s", "1200/5m/1", " 1/1s", "1e3/1s"} {
		l := Limit{9, time.Hour}
		if err := l.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, l)
		}
	}
}

// TestNoAllocation: the good path pays with nothing that must be collected.
func TestNoAllocation(t *testing.T) {
	limit := Limit{maxQuota, time.Hour}
	g := NewGate(Limits{limit, limit, limit}, time.Now)
	a, id := addr("2001:db8::1"), [16]byte{1}
	if n := testing.AllocsPerRun(1000, func() {
		g.Address(a)
		g.Principal(id)
		g.Stranger(a)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTake(b *testing.B) {
	g := NewGate(Limits{Requests: Limit{1200, 5 * time.Minute}}, nil)
	id := [16]byte{1}
	b.ReportAllocs()
	for b.Loop() {
		g.Principal(id)
	}
}
