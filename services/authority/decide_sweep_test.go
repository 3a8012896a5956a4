package authority_test

import (
	"errors"
	"testing"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// TestSweepAtTheHead sweeps while the directory is held back: what was swept is
// revoked for every command at once, what is made afterwards is not, and the
// owner's quota is free again.
func TestSweepAtTheHead(t *testing.T) {
	in(t, nil, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		do := func(cmd command.Command) command.Result {
			t.Helper()
			res, err := w.pen.Do(w.ctx, me, cmd)
			if err != nil {
				t.Fatalf("%s: %v", cmd.Verb(), err)
			}
			return res
		}
		w.past.Hold()
		old := w.Create()
		do(old)
		swept := do(command.Sweep{ID: w.NewID(), By: events.SweepOwner, Selected: w.Operator.String(), Reason: "leak"})
		if s := swept.Sweep; s == nil || s.Through != swept.Number-1 || s.Seq != swept.Seq {
			t.Fatalf("the sweep: %+v", swept)
		}
		fresh := w.Create()
		do(fresh)
		for _, cmd := range []command.Command{
			command.UpdateToken{Target: old.Target, Name: "b", Grant: old.Grant}, command.RollToken{Target: old.Target, Secret: w.NewSecret()},
			command.EnableToken{Target: old.Target}, command.DisableToken{Target: old.Target},
		} {
			if _, err := w.pen.Do(w.ctx, me, cmd); !errors.Is(err, fault.TokenRevoked) {
				t.Errorf("%s of what was swept: %v", cmd.Verb(), err)
			}
		}
		if _, err := w.pen.Do(w.ctx, me, command.RevokeToken{Target: old.Target}); !errors.Is(err, fault.AlreadyRevoked) {
			t.Errorf("revoked again: %v", err)
		}
		by := command.Caller{Kind: token.KindUser, Digest: old.Secret}
		if _, err := w.pen.Do(w.ctx, by, command.RevokeToken{Target: fresh.Target}); !errors.Is(err, fault.InvalidAccessToken) {
			t.Errorf("a swept token acts: %v", err)
		}
		do(command.RollToken{Target: fresh.Target, Secret: w.NewSecret()})
		w.past.Release()
		if err := authoritytest.Settle(w.ctx, w.pen, w.past); err != nil {
			t.Fatal(err)
		}
		got, _, _ := w.past.Token(old.ID)
		if got.Status != aggregate.Revoked || got.Reason != "leak" {
			t.Errorf("the swept token: %+v", got)
		}
		w.whole()
	})
}

// TestSweepAgain checks that a sweep is done once, and that only one that
// reaches further is another.
func TestSweepAgain(t *testing.T) {
	in(t, nil, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		sweep := command.Sweep{ID: w.NewID(), By: events.SweepAccount, Selected: w.Account.String()}
		first, err := w.pen.Do(w.ctx, me, sweep)
		if err != nil || first.Unchanged {
			t.Fatalf("%+v, %v", first, err)
		}
		smaller := sweep
		smaller.ID, smaller.Through = w.NewID(), first.Sweep.Through
		further := smaller
		further.ID, further.Through = w.NewID(), first.Number
		for _, test := range []struct {
			cmd       command.Sweep
			unchanged bool
		}{{sweep, true}, {smaller, true}, {further, false}, {smaller, true}} {
			res, err := w.pen.Do(w.ctx, me, test.cmd)
			if err != nil || res.Unchanged != test.unchanged || res.Sweep == nil {
				t.Errorf("%+v: %+v, %v", test.cmd, res, err)
			}
		}
		further.ID, further.Through = w.NewID(), 1<<40
		if _, err := w.pen.Do(w.ctx, me, further); !errors.Is(err, fault.InvalidField) {
			t.Errorf("through what is to come: %v", err)
		}
		if n := w.whole()["revocation.swept.v1"]; n != 2 {
			t.Errorf("%d sweeps", n)
		}
	})
}

// TestWhoSweeps checks who may sweep what.
func TestWhoSweeps(t *testing.T) {
	in(t, nil, func(w *world) {
		operator, stranger := authoritytest.ByKey(w.Operator), authoritytest.ByKey(w.Stranger)
		for _, test := range []struct {
			name        string
			by          command.Caller
			what, which string
			want        error
		}{
			{"an operator, all", operator, events.SweepAll, "", nil},
			{"an operator, a template", operator, events.SweepTemplate, "edit-zone-dns", nil},
			{"an operator, somebody's", operator, events.SweepOwner, w.Stranger.String(), nil},
			{"an operator, nobody's", operator, events.SweepOwner, w.NewID().String(), fault.ObjectNotFound},
			{"an operator, not an id", operator, events.SweepOwner, "?", fault.InvalidField},
			{"an operator, no template", operator, events.SweepTemplate, "", fault.InvalidField},
			{"an operator, all of something", operator, events.SweepAll, "x", fault.InvalidField},
			{"an operator, what is no selector", operator, "name", "x", fault.InvalidField},
			{"a user, their own", stranger, events.SweepOwner, w.Stranger.String(), nil},
			{"a user, another's", stranger, events.SweepOwner, w.Operator.String(), fault.NotPermitted},
			{"a user, nobody's", stranger, events.SweepOwner, w.NewID().String(), fault.NotPermitted},
			{"a user, an account's", stranger, events.SweepAccount, w.Account.String(), fault.NotPermitted},
			{"a user, all", stranger, events.SweepAll, "", fault.NotPermitted},
			{"a user, a template", stranger, events.SweepTemplate, "edit-zone-dns", fault.NotPermitted},
			{"the system", command.Caller{System: true}, events.SweepAll, "", fault.NotPermitted},
		} {
			_, err := w.pen.Do(w.ctx, test.by, command.Sweep{ID: w.NewID(), By: test.what, Selected: test.which})
			if !errors.Is(err, test.want) {
				t.Errorf("%s: %v, want %v", test.name, err, test.want)
			}
		}
	})
}

// TestIncidentRevocation checks that operators end anybody's token, and nobody
// else does.
func TestIncidentRevocation(t *testing.T) {
	in(t, nil, func(w *world) {
		operator, stranger := authoritytest.ByKey(w.Operator), authoritytest.ByKey(w.Stranger)
		theirs := w.Create()
		if _, err := w.pen.Do(w.ctx, operator, theirs); err != nil {
			t.Fatal(err)
		}
		c := command.RevokeToken{Target: command.Target{ID: theirs.ID}, Incident: true}
		unknown := command.RevokeToken{Target: command.Target{ID: w.NewID()}, Incident: true}
		for _, test := range []struct {
			by   command.Caller
			cmd  command.RevokeToken
			want error
		}{
			{stranger, c, fault.NotPermitted}, {stranger, unknown, fault.NotPermitted}, {operator, unknown, fault.TokenNotFound},
			{command.Caller{System: true}, c, fault.NotPermitted}, {operator, c, nil}, {operator, c, fault.AlreadyRevoked},
		} {
			if _, err := w.pen.Do(w.ctx, test.by, test.cmd); !errors.Is(err, test.want) {
				t.Errorf("%+v: %v, want %v", test.cmd.ID, err, test.want)
			}
		}
	})
}
