package usage

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"watchword.dev/events/token"
)

func unsafeString(b []byte) string { return unsafe.String(&b[0], len(b)) }

func sample() Report {
	from := newClock().at
	return Report{
		Reporter: Node, Instance: "k3f", Number: 7, From: from, To: from.Add(4 * time.Second), Lost: 2,
		Rows: []Row{
			{What{Credential: id(1), Kind: UserToken, Permission: "dns.records.write", Type: "com.cloudflare.api.account.zone", Result: Allowed}, 12},
			{What{Credential: id(3), Kind: APIKey, Permission: "zone.read", Type: "com.cloudflare.api.account.zone", ID: id(7).String(), Account: id(9), Result: Refused}, 1},
			{What{Credential: id(4), Kind: ForeignToken, Result: Rejected}, 1},
		},
	}
}

// TestGolden holds the form on the wire.
func TestGolden(t *testing.T) {
	golden, err := os.ReadFile("testdata/report.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	golden = bytes.TrimSpace(golden)
	r := sample()
	b, err := r.Encode()
	if err != nil || !bytes.Equal(b, golden) {
		t.Errorf("encoded (%v)\n%s, want\n%s", err, b, golden)
	}
	back, err := Decode(golden)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := back.Encode(); err != nil || !bytes.Equal(again, golden) {
		t.Errorf("decoded and encoded (%v)\n%s", err, again)
	}
	if got, want := back.Subject(), "ww.usage.node.k3f"; got != want {
		t.Errorf("subject %s, want %s", got, want)
	}
}

func TestDecodeIsStrict(t *testing.T) {
	r := sample()
	good, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"another version":        {`"v":1`, `"v":2`},
		"an unknown member":      {`"v":1`, `"v":1,"w":1`},
		"a member twice":         {`"v":1`, `"v":1,"v":1`},
		"another case":           {`"number"`, `"Number"`},
		"a reporter":             {`"node"`, `"nodes"`},
		"an instance":            {`"k3f"`, `"k.f"`},
		"no number":              {`"number":7`, `"number":0`},
		"a negative number":      {`"number":7`, `"number":-7`},
		"a window that ends":     {`"to":"2026-01-02T03:04:09Z"`, `"to":"2026-01-02T03:04:04Z"`},
		"a window of an hour":    {`"to":"2026-01-02T03:04:09Z"`, `"to":"2026-01-02T04:04:09Z"`},
		"a kind":                 {`"user_token"`, `"token"`},
		"a kind that is none":    {`"user_token"`, `""`},
		"a result":               {`"allowed"`, `"maybe"`},
		"a permission":           {`dns.records.write`, `dns records`},
		"a count of nothing":     {`"count":12`, `"count":0`},
		"a count of everything":  {`"count":12`, `"count":18446744073709551615`},
		"a token's resource":     {`"kind":"api_key"`, `"kind":"user_token"`},
		"a resource that is one": {id(7).String(), "a.b"},
		"a credential":           {id(1).String(), "1"},
		"no credential":          {id(1).String(), token.ID{}.String()},
		"something behind":       {`}]}`, `}]}{}`},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(string(good), change[0], change[1], 1)
			if bad == string(good) {
				t.Fatal("nothing was changed")
			}
			if _, err := Decode([]byte(bad)); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s is taken: %v", bad, err)
			}
		})
	}
	r.Rows = make([]Row, MaxRows+1)
	for i := range r.Rows {
		r.Rows[i] = sample().Rows[0]
	}
	if _, err := r.Encode(); !errors.Is(err, ErrMalformed) {
		t.Errorf("too many rows: %v", err)
	}
	if _, err := Decode(append(good, bytes.Repeat([]byte(" "), MaxBytes)...)); !errors.Is(err, ErrMalformed) {
		t.Errorf("too long: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	r := sample()
	b, err := r.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		if _, err := r.Encode(); err != nil {
			t.Errorf("what was taken cannot be written: %v", err)
		}
	})
}

// outbox takes reports while it works.
type outbox struct {
	broken bool // answers nothing, although it takes what it is given
	down   bool
	got    []Report
}

func (o *outbox) Publish(_ context.Context, subject string, b []byte) error {
	if o.down {
		return errors.New("down")
	}
	r, err := Decode(b)
	if err != nil {
		return err
	}
	if r.Subject() != subject {
		return errors.New("wrong subject")
	}
	o.got = append(o.got, r)
	if o.broken {
		return errors.New("no answer")
	}
	return nil
}

// once returns the uses of each minute, counting each report once.
func (o *outbox) once() (uses map[string]uint64, lost uint64) {
	uses = map[string]uint64{}
	last := uint64(0)
	for _, r := range o.got {
		if r.Number <= last {
			continue
		}
		last = r.Number
		uses[r.From.Format("15:04")] += r.uses()
		lost += r.Lost
	}
	return uses, lost
}

func TestSenderDeliversOnce(t *testing.T) {
	c, out := newClock(), &outbox{}
	rec := NewRecorder(Options{Catalogue: builtIn, Lanes: 1, Now: c.now})
	s := NewSender(SenderConfig{Recorder: rec, Publisher: out, Reporter: Node})
	use := func(n byte, times int) {
		for range times {
			rec.Lane().Use(id(n), UserToken, "zone.read", nil, Allowed)
		}
	}
	step := func(d time.Duration) {
		c.at = c.at.Add(d)
		s.Send(t.Context())
	}
	use(1, 3)
	step(4 * time.Second)
	out.broken = true // it is delivered, but nobody hears of that
	use(1, 2)
	step(4 * time.Second)
	out.broken, out.down = false, true
	use(2, 5)
	step(4 * time.Second)
	c.at = c.at.Add(time.Minute)
	use(2, 7)
	step(4 * time.Second)
	if s.kept == 0 {
		t.Error("nothing waits although nothing can be delivered")
	}
	out.down = false
	step(4 * time.Second)
	// The window in which the minute turned began in the first one.
	uses, lost := out.once()
	if want := uint64(17); uses["03:04"]+uses["03:05"] != want || lost != 0 || s.kept != 0 || len(s.ready) != 0 {
		t.Errorf("delivered %v, lost %d; %d and %d still wait", uses, lost, s.kept, len(s.ready))
	}
	if len(out.got) < 4 || out.got[1].Number != out.got[2].Number {
		t.Error("the report that was not answered was not sent again")
	}
	if st := s.Stats(); st.Failed != 3 || st.Lost != 0 {
		t.Errorf("%+v", st)
	}
}

func TestSenderForgetsTheOldest(t *testing.T) {
	c, out := newClock(), &outbox{down: true}
	rec := NewRecorder(Options{Catalogue: builtIn, Lanes: 1, Now: c.now})
	s := NewSender(SenderConfig{Recorder: rec, Publisher: out, Reporter: Node, Backlog: 10})
	for minute := range 6 {
		for n := range byte(4) {
			for range minute + 1 {
				rec.Lane().Use(id(n+1), UserToken, "zone.read", nil, Allowed)
			}
		}
		c.at = c.at.Add(time.Minute)
		s.Send(t.Context())
	}
	out.down = false
	s.Send(t.Context())
	uses, lost := out.once()
	total := lost
	for _, n := range uses {
		total += n
	}
	if want := uint64(4 * (1 + 2 + 3 + 4 + 5 + 6)); total != want || lost == 0 || s.Stats().Lost != lost {
		t.Errorf("delivered %v, told of %d that are lost (%+v), want %d in all", uses, lost, s.Stats(), want)
	}
}

func TestLargeWindowIsManyReports(t *testing.T) {
	c, out := newClock(), &outbox{}
	rec := NewRecorder(Options{Catalogue: builtIn, Lanes: 1, Now: c.now})
	s := NewSender(SenderConfig{Recorder: rec, Publisher: out, Reporter: Node})
	for n := range 2500 {
		rec.Lane().Use(token.ID{byte(n >> 8), byte(n), 1}, UserToken, "zone.read", nil, Allowed)
	}
	s.Send(t.Context())
	if len(out.got) != 3 || len(out.got[0].Rows) != MaxRows || len(out.got[2].Rows) != 500 {
		t.Errorf("%d reports", len(out.got))
	}
	if uses, _ := out.once(); uses["03:04"] != 2500 {
		t.Errorf("delivered %v", uses)
	}
}
