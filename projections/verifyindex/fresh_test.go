package verifyindex

import (
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
)

// scene is an index that has applied a story, with a token that may do one
// thing of each class.
type scene struct {
	*Index
	story *projectiontest.Story
	clock *clock
	text  string
}

const (
	zoneKey  = "com.cloudflare.api.account.zone.r1"
	readDNS  = "dns.records.read"
	writeDNS = "dns.records.write"
)

func newScene(t *testing.T, o Options) *scene {
	t.Helper()
	rng := projectiontest.Seed(t)
	s := projectiontest.Tell(rng, 20)
	for !s.Catalogue.Permission(readDNS).Known() || !s.Catalogue.Permission(writeDNS).Known() {
		s = projectiontest.Tell(rng, 20)
	}
	c := &clock{s.Now}
	o.Now = c.Now
	x := open(t, o, vfs.NewMem())
	t.Cleanup(func() { x.Close() })
	if err := x.Apply(s.Commits); err != nil {
		t.Fatal(err)
	}
	return &scene{Index: x, story: s, clock: c, text: projectiontest.NewSecret(rng, token.KindUser)}
}

func (s *scene) read() token.Decision { return s.ask(readDNS) }

func (s *scene) ask(permission string) token.Decision {
	return s.Verify(s.text, &token.Request{Permission: permission, Resource: []string{zoneKey}})
}

// step lets the story go on and applies it.
func (s *scene) step(t *testing.T) {
	t.Helper()
	if err := s.Apply([]events.Commit{s.story.Step()}); err != nil {
		t.Fatal(err)
	}
}

func TestStalenessByClass(t *testing.T) {
	s := newScene(t, Options{})
	s.Observe(pulse(s.story.At, s.clock.now), s.clock.now)
	stranger := func(permission string, ceiling time.Duration) token.Decision {
		return s.VerifyWithin(ceiling, s.text, &token.Request{Permission: permission, Resource: []string{zoneKey}})
	}
	const admin = "account.tokens.write"
	if p, _ := s.Catalogue().PermissionAt(s.Catalogue().Permission(admin)); p.Class.String() != "admin" {
		t.Fatalf("%s is of class %v", admin, p.Class)
	}
	start := s.clock.now
	for _, c := range []struct {
		age        time.Duration
		permission string
		ceiling    time.Duration
		want       token.Reason
		stale      bool
	}{
		{0, readDNS, 0, token.ReasonUnknown, false},
		{10 * time.Second, readDNS, 0, token.ReasonUnknown, false},
		{10*time.Second + time.Millisecond, readDNS, 0, token.ReasonUnknown, true},
		{10 * time.Second, admin, 0, token.ReasonUnknown, false},
		{10*time.Second + time.Millisecond, admin, 0, token.ReasonStale, true},
		{10*time.Second + time.Millisecond, "no.such.permission", 0, token.ReasonStale, true},
		{30 * time.Second, writeDNS, 0, token.ReasonUnknown, true},
		{30*time.Second + time.Millisecond, writeDNS, 0, token.ReasonStale, true},
		{5 * time.Minute, readDNS, 0, token.ReasonUnknown, true},
		{5*time.Minute + time.Millisecond, readDNS, 0, token.ReasonStale, true},
		{5 * time.Second, readDNS, 5 * time.Second, token.ReasonUnknown, false},
		{6 * time.Second, readDNS, 5 * time.Second, token.ReasonStale, true},
		{31 * time.Second, writeDNS, time.Hour, token.ReasonStale, true}, // a ceiling lowers, never raises
	} {
		s.clock.now = start.Add(c.age)
		d := stranger(c.permission, c.ceiling)
		if d.Reason != c.want || d.Verdict != c.want.Verdict() || d.Stale != c.stale || d.Age != c.age {
			t.Errorf("%s after %v with ceiling %v: %+v, want %v, stale %v", c.permission, c.age, c.ceiling, d, c.want, c.stale)
		}
	}
}

func TestAgeIsTheLargerOfTwo(t *testing.T) {
	s := newScene(t, Options{})
	// The pulse was under way for a minute: its own time counts.
	s.Observe(pulse(s.story.At, s.clock.now.Add(-time.Minute)), s.clock.now)
	if d := s.read(); d.Age != time.Minute || !d.Stale {
		t.Errorf("a late pulse: %+v", d)
	}
	// The pen's clock is ahead: its pulse is as old as its arrival.
	s.Observe(pulse(s.story.At, s.clock.now.Add(time.Minute)), s.clock.now)
	s.clock.now = s.clock.now.Add(3 * time.Second)
	if d := s.read(); d.Age != 3*time.Second {
		t.Errorf("a pulse from the future: %+v", d)
	}
}

func TestPulsesVouchForWhatIsApplied(t *testing.T) {
	s := newScene(t, Options{})
	ahead := s.story.Step()
	s.clock.now = s.story.Now
	s.Observe(pulse(s.story.At, s.clock.now), s.clock.now)
	if d := s.read(); d.Reason != token.ReasonNotReady {
		t.Errorf("the only pulse is of a sequence that is not applied: %+v", d)
	}
	if err := s.Apply([]events.Commit{ahead}); err != nil {
		t.Fatal(err)
	}
	if d := s.read(); d.Reason != token.ReasonUnknown || d.Age != 0 {
		t.Errorf("the sequence of the pulse is applied: %+v", d)
	}
	// Hundreds of pulses of sequences to come; the last one is applied later.
	for range 300 {
		s.story.Step()
		s.Observe(pulse(s.story.At, s.story.Now), s.story.Now)
	}
	first := s.Sequence()
	for _, c := range s.story.Commits[first:] {
		if err := s.Apply([]events.Commit{c}); err != nil {
			t.Fatal(err)
		}
	}
	s.clock.now = s.story.Now
	if d := s.read(); d.Reason != token.ReasonUnknown || d.Age != 0 {
		t.Errorf("all are applied: %+v", d)
	}
	if err := s.Diverged(); err != nil {
		t.Error(err)
	}
}

func TestWhatDoesNotVouch(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*events.Pulse)
	}{
		{"a claim", func(p *events.Pulse) { p.Claim = true }},
		{"an older term", func(p *events.Pulse) { p.Term = 1 }},
		{"an older epoch", func(p *events.Pulse) { p.Epoch-- }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, Options{})
			first := pulse(s.story.At, s.clock.now)
			first.Term = 2
			s.Observe(first, s.clock.now)
			s.clock.now = s.clock.now.Add(8 * time.Second)
			p := pulse(s.story.At, s.clock.now)
			p.Term = 2
			c.change(&p)
			s.Observe(p, s.clock.now)
			if d := s.read(); d.Age != 8*time.Second {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestDivergedStopsServing(t *testing.T) {
	for _, c := range []struct {
		name   string
		pulse  func(s *scene) events.Pulse
		before int // steps that are applied after the pulse's sequence
	}{
		{"another chain at the head", func(s *scene) events.Pulse {
			p := pulse(s.story.At, s.story.Now)
			p.Chain = p.Chain[1:] + "0"
			return p
		}, 0},
		{"another chain some commits ago", func(s *scene) events.Pulse {
			p := pulse(s.story.Commits[len(s.story.Commits)-4].End, s.story.Now)
			p.Chain, p.Epoch = p.Chain[1:]+"0", s.story.At.Epoch // a pulse of an older epoch says nothing
			return p
		}, 5},
		{"an epoch that was opened before", func(s *scene) events.Pulse {
			p := pulse(s.story.At, s.story.Now)
			p.Epoch++
			return p
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, Options{})
			for range c.before {
				s.step(t)
			}
			s.clock.now = s.story.Now
			s.Observe(pulse(s.story.At, s.clock.now), s.clock.now)
			if d := s.read(); d.Reason != token.ReasonUnknown {
				t.Fatalf("before: %+v", d)
			}
			s.Observe(c.pulse(s), s.clock.now)
			if d := s.read(); d.Reason != token.ReasonNotReady {
				t.Errorf("after: %+v", d)
			}
			if _, reason := s.Enforcer(projectiontest.NewSecret(projectiontest.Seed(t), token.KindEnforcer)); reason != token.ReasonNotReady {
				t.Errorf("an enforcer: %v", reason)
			}
			if !errors.Is(s.Diverged(), ErrDiverged) {
				t.Errorf("diverged: %v", s.Diverged())
			}
			// A good pulse does not heal it.
			s.Observe(pulse(s.story.At, s.clock.now), s.clock.now)
			if d := s.read(); d.Reason != token.ReasonNotReady {
				t.Errorf("later: %+v", d)
			}
		})
	}
}

// TestPendingPulseIsChecked: a pulse of a sequence to come must fit when it is
// reached, even in the middle of a batch.
func TestPendingPulseIsChecked(t *testing.T) {
	s := newScene(t, Options{})
	at := len(s.story.Commits)
	for range 5 {
		s.story.Step()
	}
	p := pulse(s.story.Commits[at+2].End, s.story.Now)
	p.Chain = p.Chain[1:] + "0"
	s.Observe(p, s.story.Now)
	if err := s.Apply(s.story.Commits[at:]); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(s.Diverged(), ErrDiverged) {
		t.Errorf("diverged: %v", s.Diverged())
	}
}
