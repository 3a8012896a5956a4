package authority_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"watchword.dev/events/eventstest"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/authority"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// TestAppendFails lets each append of a short story fail in each way, and looks
// whether every answer is true: a success is in the ledger, once, at the
// sequence that was told; a refusal is not.
func TestAppendFails(t *testing.T) {
	for name, f := range map[string]func() eventstest.Fault{
		"not done":                 func() eventstest.Fault { return eventstest.Fault{Lose: eventstest.Call} },
		"done but unanswered":      func() eventstest.Fault { return eventstest.Fault{Lose: eventstest.Answer} },
		"refused":                  func() eventstest.Fault { return eventstest.Fault{Refuse: true} },
		"answered late":            func() eventstest.Fault { return eventstest.Fault{HoldAnswer: after(2 * time.Second)} },
		"done late":                func() eventstest.Fault { return eventstest.Fault{Hold: after(700 * time.Millisecond), Late: true} },
		"done much later":          func() eventstest.Fault { return eventstest.Fault{Hold: after(20 * time.Second), Late: true} },
		"an error of another kind": func() eventstest.Fault { return eventstest.Fault{Err: errors.New("the wire is cut")} },
	} {
		for nth := range 9 {
			t.Run(fmt.Sprintf("%s/%d", name, nth), func(t *testing.T) {
				in(t, nil, func(w *world) {
					faults := make([]eventstest.Fault, nth+1)
					faults[nth] = f()
					w.log.Inject(eventstest.OpAppend, faults...)
					tellTruth(w)
				})
			})
		}
	}
}

// after returns a channel that is closed d later in the bubble.
func after(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(d, func() { close(c) })
	return c
}

// tellTruth runs three waves of concurrent commands and compares each answer
// with the ledger.
func tellTruth(w *world) {
	w.t.Helper()
	me := authoritytest.ByKey(w.Operator)
	kept := w.Create()
	if _, err := w.pen.Do(w.ctx, me, kept); err != nil {
		kept.ID = token.ID{} // this one met the fault
	}
	var all, updated answers
	commands := map[int]command.CreateToken{}
	for wave := range 3 {
		for i := range 8 {
			n := wave*8 + i
			commands[n] = w.Create()
			all.do(w, n, me, commands[n])
		}
		all.group.Wait()
		if !kept.ID.IsZero() { // unlike a creation it can be done twice unnoticed
			updated.do(w, wave, me, command.UpdateToken{Target: kept.Target, Name: "b", Grant: kept.Grant})
			updated.group.Wait()
		}
	}
	sleep(time.Minute) // whatever is under way arrives
	w.compare(commands, &all)
	want := 0
	for _, err := range updated.errs {
		if err == nil {
			want++
		}
	}
	if n := w.whole()["token.updated.v1"]; n != want {
		w.t.Errorf("%d updates were acknowledged, %d are in the ledger", want, n)
	}
}

// compare looks each command up in the ledger.
func (w *world) compare(commands map[int]command.CreateToken, all *answers) {
	w.t.Helper()
	commits, err := w.ledger.Commits()
	if err != nil {
		w.t.Fatal(err)
	}
	at := map[string]uint64{}
	for _, c := range commits {
		for _, r := range c.Records {
			if r.Name == "token.created.v1" {
				if at[r.Subject] != 0 {
					w.t.Errorf("%s was created at %d and at %d", r.Subject, at[r.Subject], c.Seq)
				}
				at[r.Subject] = c.Seq
			}
		}
	}
	for n, cmd := range commands {
		got := at["token/"+cmd.ID.String()]
		switch err := all.errs[n]; {
		case err == nil && all.results[n].Unchanged:
			w.t.Errorf("command %d was told that nothing changed", n)
		case err == nil && got != all.results[n].Seq:
			w.t.Errorf("command %d was told commit %d and is in %d", n, all.results[n].Seq, got)
		case err != nil && got != 0 && !errors.Is(err, fault.OutcomeUnknown):
			w.t.Errorf("command %d was told %v and is in commit %d", n, err, got)
		}
	}
	w.whole()
}

// TestOutcomeUnknown cuts the log off after an append: the answer says that
// nobody knows, the pen goes on when the log is back, and nothing is doubled.
func TestOutcomeUnknown(t *testing.T) {
	for _, lose := range []eventstest.Loss{eventstest.Call, eventstest.Answer} {
		t.Run(fmt.Sprint(lose), func(t *testing.T) {
			in(t, func(c *authority.Config) { c.RecoverFor = time.Second }, func(w *world) {
				me := authoritytest.ByKey(w.Operator)
				cut := true
				w.log.Inject(eventstest.OpAppend, eventstest.Fault{Lose: lose})
				w.log.InjectFunc(func(op eventstest.Op) eventstest.Fault {
					if cut && op == eventstest.OpHead {
						return eventstest.Fault{Lose: eventstest.Call}
					}
					return eventstest.Fault{}
				})
				first := w.Create()
				if _, err := w.pen.Do(w.ctx, me, first); !errors.Is(err, fault.OutcomeUnknown) {
					t.Fatalf("with the log cut off: %v", err)
				}
				second := w.Create()
				if _, err := w.pen.Do(w.ctx, me, second); !errors.Is(err, fault.NoPen) {
					t.Fatalf("before the pen has read to the head: %v", err)
				}
				synctest.Wait()
				w.log.InjectFunc(nil)
				if _, err := w.pen.Do(w.ctx, me, second); err != nil {
					t.Fatalf("with the log back: %v", err)
				}
				// The very same command again tells what became of it.
				again, err := w.pen.Do(w.ctx, me, first)
				if err != nil || again.Unchanged != (lose == eventstest.Answer) {
					t.Errorf("the first again: %+v, %v", again, err)
				}
				if n := w.whole(); n["token.created.v1"] != 2 {
					t.Errorf("the ledger holds %v", n)
				}
			})
		})
	}
}

// TestLostAnswerMakesNoOrphan is the story of a client whose answer was lost
// and who repeats: one live token, with the secret of the repeat.
func TestLostAnswerMakesNoOrphan(t *testing.T) {
	in(t, nil, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		first := w.Create()
		first.Request = "digest of the request"
		made, err := w.pen.Do(w.ctx, me, first)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 { // each repeat may be lost, too
			sleep(30 * time.Second)
			again := w.Create()
			again.Request, again.Repeat = first.Request, true
			res, err := w.pen.Do(w.ctx, me, again)
			if err != nil || !res.Redelivered || res.Token.ID != made.Token.ID || res.Token.Secret != again.Secret {
				t.Fatalf("repeat %d: %+v, %v", i, res, err)
			}
		}
		if n := w.whole(); n["token.created.v1"] != 1 || n["token.rolled.v1"] != 3 {
			t.Errorf("the ledger holds %v", n)
		}
	})
}

// TestFullLedger fills the ledger: commands are refused as such, and the pen
// lives on.
func TestFullLedger(t *testing.T) {
	in(t, nil, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		w.ledger.SetLimit(1)
		if _, err := w.pen.Do(w.ctx, me, w.Create()); !errors.Is(err, fault.LedgerRefused) {
			t.Errorf("with a full ledger: %v", err)
		}
		w.ledger.SetLimit(0)
		if _, err := w.pen.Do(w.ctx, me, w.Create()); err != nil {
			t.Errorf("with room again: %v", err)
		}
		if mode, _ := w.pen.Mode(); mode != authority.Active {
			t.Errorf("the pen is %s", mode)
		}
	})
}

// TestLostTail takes the tail of the ledger away: the pen must not write over
// what it has acknowledged.
func TestLostTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ledger := eventstest.NewLedger()
		log, past := ledger.Connect(), authoritytest.NewDirectory()
		people := authoritytest.NewInstallation()
		pen, err := authority.New(people.Config("node-a", log, log, past))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- pen.Run(ctx) }()
		if err := authority.Bootstrap(ctx, pen, people.People()...); err != nil {
			t.Fatal(err)
		}
		ledger.Truncate(ledger.Head() - 1)
		if _, err := pen.Do(ctx, authoritytest.ByKey(people.Operator), people.Create()); err == nil {
			t.Error("a command was accepted behind a tail that is lost")
		}
		if err := <-ended; err == nil {
			t.Error("the pen ended without an error")
		}
		if mode, _ := pen.Mode(); mode != authority.Broken || pen.Cause() == nil {
			t.Errorf("the pen is %s: %v", mode, pen.Cause())
		}
		if _, err := pen.Do(ctx, authoritytest.ByKey(people.Operator), people.Create()); !errors.Is(err, fault.LedgerRefused) {
			t.Errorf("a command to a broken pen: %v", err)
		}
	})
}
