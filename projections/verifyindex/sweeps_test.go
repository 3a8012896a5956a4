package verifyindex

import (
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
)

// TestSweep checks the border of a sweep, to the event; that a smaller one later
// takes nothing back; that all of it holds after a start and in an index built
// anew; and that it costs no memory.
func TestSweep(t *testing.T) {
	for _, setup := range setups {
		t.Run(setup.name, func(t *testing.T) {
			s := projectiontest.NewStory(projectiontest.Seed(t))
			c := &clock{s.Now}
			setup.o.Now = c.Now
			fs := vfs.NewMem()
			x := open(t, setup.o, fs)
			defer func() { x.Close() }()
			for len(s.Secrets) < 40 {
				s.Step()
			}
			if err := x.Apply(s.Commits); err != nil {
				t.Fatal(err)
			}
			sweep := func(by, selected string, through uint64) {
				t.Helper()
				d := events.Draft{Data: &events.RevocationSwept{By: by, Selected: selected, Through: through}}
				d.ID, d.Source, d.Time = token.ID{1, byte(s.At.Seq)}, "watchword/test", s.Now
				d.Subject, d.Actor = "revocation/"+d.ID.String(), events.Actor{Kind: events.ActorSystem}
				if err := x.Apply([]events.Commit{s.Append(d)}); err != nil {
					t.Fatal(err)
				}
				c.now = s.Now
				x.Observe(pulse(s.At, c.now), c.now)
				check(t, x, s, c)
			}
			for _, border := range []int{10, 3} {
				tok := s.Tokens[s.Secrets[border].Token]
				sweep(events.SweepOwner, tok.Owner.String(), tok.Number)
				sweep(events.SweepOwner, tok.Owner.String(), tok.Number-1)
				sweep(events.SweepAll, "", s.Tokens[s.Secrets[border/2].Token].Number)
				sweep(events.SweepTemplate, "template-1", tok.Number)
			}
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
			x = open(t, setup.o, fs)
			x.Observe(pulse(s.At, c.now), c.now)
			check(t, x, s, c)
			// Not every secret of the story is a swept token's, and others may
			// need a look into the rows.
			req := s.Request()
			swept := slices.IndexFunc(s.Secrets, func(h projectiontest.Secret) bool { return x.Verify(h.Text, &req).Reason == token.ReasonRevoked })
			if swept < 0 {
				t.Fatal("no token was swept")
			}
			secret := s.Secrets[swept].Text
			if n := testing.AllocsPerRun(100, func() { x.Verify(secret, &req) }); n != 0 && x.Stats().Mode == Resident {
				t.Errorf("a verification of a swept token allocates %v times", n)
			}
			built := open(t, setup.o, vfs.NewMem())
			defer built.Close()
			if err := built.BeginBulk(); err == nil {
				if err := built.Apply(s.Commits); err != nil {
					t.Fatal(err)
				}
				if err := built.EndBulk(); err != nil {
					t.Fatal(err)
				}
				built.Observe(pulse(s.At, c.now), c.now)
				check(t, built, s, c)
			}
		})
	}
}

// check compares what the index says of every secret with the oracle.
func check(t *testing.T, x *Index, s *projectiontest.Story, c *clock) {
	t.Helper()
	o := oracleOf(s)
	swept := 0
	for _, secret := range s.Secrets {
		req := s.Request()
		want, _ := o.verify(secret, req, c.now)
		if got := x.Verify(secret.Text, &req); got.Reason != want {
			t.Fatalf("sequence %d, token %v: got %v, want %v", s.At.Seq, secret.Token, got.Reason, want)
		}
		if s.Swept(s.Tokens[secret.Token]) {
			swept++
		}
	}
	if swept == 0 {
		t.Fatal("no token was swept")
	}
}
