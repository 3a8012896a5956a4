package main

import (
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"watchword.dev/events/token"
	"watchword.dev/services/e2e/proc"
)

// TestMain makes the test binary an enforcer where the harness has started it as
// one.
func TestMain(m *testing.M) {
	if path := os.Getenv(jobVariable); path != "" {
		if err := runJob(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		return
	}
	os.Exit(m.Run())
}

// TestHistory runs a small history with every kind of enforcer and every fault,
// and the same with one that never heeds what it hears.
func TestHistory(t *testing.T) {
	binary, err := proc.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := options{changes: 80, length: 4 * time.Second, enforcers: 4, rate: 100, restarts: 1, read: 2 * time.Second, write: 1500 * time.Millisecond, seed: 7, binary: binary}
	t.Run("right", func(t *testing.T) {
		t.Parallel()
		o := o
		o.keep = t.TempDir()
		r, err := run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range r.findings {
			t.Error(f)
		}
		a, c, f := r.Answers, r.Changes, r.Faults
		if r.Violations.sum() != 0 || a.Allows == 0 || a.Denies == 0 || a.Unavailable == 0 || c.Revoked == 0 || c.Rolled == 0 || c.Scoped == 0 ||
			r.Receipts.Complete == 0 || f.Cuts+f.Stalls+f.Delays+f.Pauses < 4 || f.Restarts != 2 || f.ServerPauses != 1 || len(r.Enforcers) != 4 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("wrong", func(t *testing.T) {
		t.Parallel()
		o := o
		o.keep, o.enforcers, o.wrong, o.restarts = t.TempDir(), 1, 1, 0
		r, err := run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		// A yes that is kept for ever breaks each promise about time, and that
		// one alone does.
		if v := r.Violations; v.AfterComplete+v.AfterBound == 0 || v.Unvouched == 0 || v.WrongRefusals+v.Contradictions+v.Lost+v.Behind+v.Failed != 0 {
			t.Errorf("%+v", v)
		}
		for _, f := range r.findings {
			if !strings.HasPrefix(f, deaf) {
				t.Error(f)
			}
		}
	})
}

// lived is a token that was created at sequence 5, narrowed at 7, widened and
// rolled at 9, and revoked at 11, a minute lying between. Each change was in the
// ledger after a second, and of the last two somebody was told after two that
// everybody has heard.
func lived(bound time.Duration) *checker {
	id, at := token.ID{1}, func(minute, second int64) int64 { return (minute*60 + second) * int64(time.Second) }
	first, second := token.Sum("first"), token.Sum("second")
	h := &history{
		secrets: []secret{{ID: id, Secret: "first"}, {ID: id, Secret: "second"}}, read: bound, write: bound,
		settled: map[uint64]int64{5: at(1, 1), 8: at(2, 1), 9: at(3, 1), 11: at(4, 1)}, // 8 is of another token
		heard:   map[fact]int64{{9, "roll", id}: at(3, 2), {11, "revoke", id}: at(4, 2)}, away: [2]int64{at(9, 0), at(10, 0)},
		facts: map[fact]bool{{5, "create", id}: true, {7, "scope", id}: true, {9, "roll", id}: true, {11, "revoke", id}: true},
		tokens: map[token.ID][]state{id: {
			{heard: math.MaxInt64, settled: math.MinInt64, from: math.MinInt64},
			{seq: 5, verb: "create", from: at(1, 0), secret: first, alive: true, write: true, heard: math.MaxInt64},
			{seq: 7, verb: "scope", from: at(2, 0), secret: first, alive: true, heard: math.MaxInt64},
			{seq: 9, verb: "roll", from: at(3, 0), secret: second, alive: true, write: true, heard: math.MaxInt64},
			{seq: 11, verb: "revoke", from: at(4, 0), secret: second, heard: math.MaxInt64},
		}},
	}
	h.settle()
	return &checker{h: h, back: map[string]bool{}}
}

// TestChecker: each promise, kept to the last moment and broken by the first one
// after it.
func TestChecker(t *testing.T) {
	const allow, deny, unavailable = token.VerdictAllow, token.VerdictDeny, token.VerdictUnavailable
	const write, read, old, renewed = true, false, 0, 1
	bound := 10 * time.Second
	for name, c := range map[string]struct {
		minute, second int64
		past           time.Duration
		v              token.Verdict
		seq            uint64
		secret         int
		write          bool
		want           Violations
	}{
		"right":                            {1, 30, 0, allow, 6, old, write, Violations{}},
		"not there yet":                    {0, 30, 0, deny, 4, old, read, Violations{}},
		"allowed before it was there":      {0, 30, 0, allow, 5, old, read, Violations{AfterBound: 1}},
		"refused in time":                  {1, 11, 0, deny, 4, old, write, Violations{}},
		"refused too late":                 {1, 11, 1, deny, 4, old, write, Violations{WrongRefusals: 1}},
		"refused by the wrong state":       {1, 30, 0, deny, 5, old, write, Violations{WrongRefusals: 1, Contradictions: 1}},
		"narrowed, in time":                {2, 11, 0, allow, 6, old, write, Violations{}},
		"narrowed, too late":               {2, 11, 1, allow, 6, old, write, Violations{AfterBound: 1}},
		"narrowed, and it knew":            {2, 5, 0, allow, 7, old, write, Violations{Contradictions: 1}},
		"narrowed, but not for reading":    {2, 30, 0, allow, 7, old, read, Violations{}},
		"rolled, until all have heard":     {3, 2, -1, allow, 8, old, read, Violations{}},
		"rolled, and all have heard":       {3, 2, 0, allow, 8, old, read, Violations{AfterComplete: 1}},
		"the new secret, all have heard":   {3, 2, 0, deny, 8, renewed, write, Violations{WrongRefusals: 1}},
		"the new secret":                   {3, 30, 0, allow, 10, renewed, write, Violations{}},
		"revoked, and all have heard":      {4, 2, 0, allow, 10, renewed, read, Violations{AfterComplete: 1}},
		"revoked, in time":                 {4, 2, -1, allow, 10, renewed, read, Violations{}},
		"revoked":                          {4, 2, 0, deny, 11, renewed, read, Violations{}},
		"nobody could tell":                {4, 2, 0, unavailable, 0, renewed, read, Violations{}},
		"no server, in time":               {9, 10, 0, deny, 11, renewed, read, Violations{}},
		"no server, too late":              {9, 10, 1, deny, 11, renewed, read, Violations{Unvouched: 1}},
		"no server, and nobody could tell": {9, 30, 0, unavailable, 11, renewed, read, Violations{}},
	} {
		k := lived(bound)
		at := (c.minute*60+c.second)*int64(time.Second) + int64(c.past)
		if err := k.check("one", &answer{Begin: at, End: at, Sequence: c.seq, Verdict: c.v, Secret: c.secret, Write: c.write}); err != nil {
			t.Fatal(err)
		}
		if k.found != c.want || len(k.findings) != c.want.sum() {
			t.Errorf("%s: %+v %v", name, k.found, k.findings)
		}
	}
	// An answer that took long may be from any moment of that time.
	k := lived(bound)
	second := int64(time.Second)
	for _, v := range []token.Verdict{allow, deny} {
		if err := k.check("one", &answer{Begin: 230 * second, End: 300 * second, Sequence: map[token.Verdict]uint64{allow: 9, deny: 11}[v], Verdict: v, Secret: renewed}); err != nil {
			t.Fatal(err)
		}
	}
	if k.found.sum() != 0 {
		t.Errorf("%+v %v", k.found, k.findings)
	}
	k.lost([]fact{{5, "create", token.ID{1}}, {9, "scope", token.ID{1}}, {12, "revoke", token.ID{1}}})
	if k.found.Lost != 2 {
		t.Errorf("%d lost", k.found.Lost)
	}
}

// TestProxy: what the faults do to connections, and that they end.
func TestProxy(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	p, err := newProxy(echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	echoes := func(c net.Conn) error {
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
	c := dial()
	if err := echoes(c); err != nil {
		t.Fatal(err)
	}
	end := p.stop()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	end()
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("a stall has lost something: %v", err)
	}
	end = p.slow(time.Millisecond)
	if err := echoes(c); err != nil {
		t.Error(err)
	}
	end()
	end = p.cutOff()
	if echoes(c) == nil || echoes(dial()) == nil {
		t.Error("a connection lives on")
	}
	end()
	if err := echoes(dial()); err != nil {
		t.Error(err)
	}
}
