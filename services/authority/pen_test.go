package authority_test

import (
	"context"
	"errors"
	"testing"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// TestLife is one token from its creation to its end.
func TestLife(t *testing.T) {
	in(t, nil, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		create := w.Create()
		made, err := w.pen.Do(w.ctx, me, create)
		if err != nil {
			t.Fatal(err)
		}
		if made.Token == nil || made.Token.Secret != create.Secret || made.Token.Owner != w.Operator || made.Seq != w.ledger.Head() {
			t.Fatalf("created %+v at head %d", made, w.ledger.Head())
		}
		at := command.Target{ID: create.ID, OwnerKind: events.OwnedByUser}
		second := w.NewSecret()
		rolled, err := w.pen.Do(w.ctx, me, command.RollToken{Target: at, Secret: second})
		if err != nil || rolled.Token.Secret != second || rolled.Token.SecretVersion != 2 {
			t.Fatalf("rolled %+v, %v", rolled.Token, err)
		}
		if off, err := w.pen.Do(w.ctx, me, command.DisableToken{Target: at}); err != nil || off.Token.Status != aggregate.Disabled {
			t.Fatalf("disabled %+v, %v", off.Token, err)
		}
		if off, err := w.pen.Do(w.ctx, me, command.DisableToken{Target: at}); err != nil || !off.Unchanged || off.Seq != w.ledger.Head() {
			t.Fatalf("disabled again %+v, %v", off, err)
		}
		if gone, err := w.pen.Do(w.ctx, me, command.RevokeToken{Target: at, Reason: "done"}); err != nil || gone.Token.Status != aggregate.Revoked {
			t.Fatalf("revoked %+v, %v", gone.Token, err)
		}
		if _, err := w.pen.Do(w.ctx, me, command.RevokeToken{Target: at}); !errors.Is(err, fault.AlreadyRevoked) {
			t.Fatalf("revoked again: %v", err)
		}
		if head, err := w.pen.Head(w.ctx); err != nil || head != w.ledger.Head() {
			t.Fatalf("head %d, %v; the ledger is at %d", head, err, w.ledger.Head())
		}
		if n := w.whole(); n["token.created.v1"] != 1 || n["token.rolled.v1"] != 1 || n["pen.opened.v1"] != 1 || n["log.opened.v1"] != 1 {
			t.Errorf("the ledger holds %v", n)
		}
	})
}

// TestBootstrapAgain gives the first commands a second time.
func TestBootstrapAgain(t *testing.T) {
	in(t, nil, func(w *world) {
		head := w.ledger.Head()
		for _, cmd := range w.People() {
			res, err := w.pen.Do(w.ctx, command.Caller{System: true}, cmd)
			if err != nil || !res.Unchanged {
				t.Errorf("%s again: %+v, %v", cmd.Verb(), res, err)
			}
		}
		if w.ledger.Head() != head {
			t.Errorf("the ledger went from %d to %d", head, w.ledger.Head())
		}
	})
}

func TestCommandsEndWithTheirContext(t *testing.T) {
	in(t, nil, func(w *world) {
		ctx, cancel := context.WithCancel(w.ctx)
		cancel()
		if _, err := w.pen.Do(ctx, authoritytest.ByKey(w.Operator), w.Create()); !errors.Is(err, fault.Overloaded) {
			t.Errorf("a command without time: %v", err)
		}
		if n := w.whole(); n["token.created.v1"] != 0 {
			t.Errorf("the ledger holds %v", n)
		}
	})
}
