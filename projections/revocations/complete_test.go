package revocations

import (
	"fmt"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/receipt"
)

// The tests of this file go through the rule of completeness, clause by clause.

// TestCompleteWhenAllHaveHeard: every live instance has receipted, the nodes of
// the installation included.
func TestCompleteWhenAllHaveHeard(t *testing.T) {
	w := newWorld(t)
	w.hello(edge, "a")
	w.hello(edge, "b")
	w.hello(node, "n")
	e := w.revoke()
	w.want(e, false, SomeWait, "n waiting", "a waiting", "b waiting")
	w.pass(4 * time.Millisecond)
	w.say(edge, "b", receipt.Revocation, e.Seq)
	w.say(node, "n", receipt.Revocation, e.Seq)
	r := w.want(e, false, SomeWait, "a waiting", "n applied", "b applied")
	if !r.By.Equal(e.Time.Add(10*time.Second + MinSkew)) {
		t.Errorf("complete at the latest %v after the event", r.By.Sub(e.Time))
	}
	w.tell(eventstest.ID(77), &events.AccountCreated{})
	w.say(edge, "a", receipt.Progress, w.at.Seq) // beyond it: it covers what it passed
	r = w.want(e, true, AllHeard, "a applied", "n applied", "b applied")
	if r.P50 != 6*time.Millisecond || r.P99 != 7*time.Millisecond || r.Max != 7*time.Millisecond {
		t.Errorf("p50 %v, p99 %v, max %v", r.P50, r.P99, r.Max)
	}
	if h := r.Instances[2]; h.Took != 5*time.Millisecond || !h.AppliedAt.Equal(e.Time.Add(h.Took)) || h.Region != "eu" || h.Seq != e.Seq {
		t.Errorf("b: %+v", h)
	}
}

// TestCompleteWhenBoundsAreOver: at the commit plus the largest bound and the
// largest skew, whoever has not been heard of.
func TestCompleteWhenBoundsAreOver(t *testing.T) {
	w := newWorld(t)
	for name, bound := range map[string]time.Duration{"a": 10 * time.Second, "b": 40 * time.Second} {
		r := w.receipt(edge, name, receipt.Hello, w.at.Seq)
		r.Bound = bound
		w.hear(w.message(r))
	}
	// The clock of c is five seconds behind that of the stream.
	r := w.receipt(edge, "c", receipt.Hello, w.at.Seq)
	r.SentAt = w.now.Add(-5 * time.Second)
	w.hear(w.message(r))
	r.Kind = receipt.Progress
	e := w.revoke()
	// b has the largest bound and c the largest skew: both count although the
	// one has heard.
	w.pass(time.Millisecond)
	heard := w.receipt(edge, "b", receipt.Revocation, e.Seq)
	heard.Bound = 40 * time.Second
	w.hear(w.message(heard))
	got := w.want(e, false, SomeWait, "a waiting", "c waiting", "b applied")
	if limit := got.By.Sub(e.Time); limit != 45*time.Second {
		t.Fatalf("over %v after the event", limit)
	}
	// a and c live on and say nothing new.
	for range 4 {
		w.pass(11 * time.Second)
		w.say(edge, "a", receipt.Progress, e.Seq-1)
		r.SentAt = w.now.Add(-5 * time.Second)
		w.hear(w.message(r))
	}
	w.want(e, false, SomeWait, "a waiting", "c waiting", "b applied")
	w.now = e.Time.Add(45 * time.Second)
	w.want(e, false, SomeWait, "a waiting", "c waiting", "b applied")
	w.pass(time.Millisecond)
	w.want(e, true, BoundOver, "a waiting", "c waiting", "b applied")
}

// TestStoppedInstances: who said bye verifies nothing, and who was killed is
// waited for until its lease is over.
func TestStoppedInstances(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"early", "late", "killed"} {
		w.hello(edge, name)
	}
	w.say(edge, "early", receipt.Bye, w.at.Seq)
	w.pass(time.Second)
	e := w.revoke()
	w.want(e, false, SomeWait, "late waiting", "killed waiting")
	w.say(edge, "late", receipt.Bye, e.Seq-1)
	w.want(e, false, SomeWait, "killed waiting", "late stopped")

	// A second revocation, long after killed was last heard.
	w.pass(25 * time.Second)
	second := w.revoke()
	w.want(second, false, SomeWait, "killed waiting")
	killed := w.p.Instances(w.now)
	var ends time.Time
	for _, i := range killed {
		if i.Name == "killed" {
			ends = i.LeaseEnds
			if limit := ends.Sub(i.LastSeen); limit != receipt.Lease+10*time.Second+MinSkew || i.State != Waiting {
				t.Errorf("its lease ends after %v, it is %s", limit, i.State)
			}
		}
	}
	// Its lease ends after the bound of the second one; let the bound be long.
	w.now = ends.Add(-9 * time.Second)
	third := w.revoke()
	w.now = ends
	w.want(third, false, SomeWait, "killed waiting")
	w.pass(time.Millisecond)
	w.want(third, true, AllHeard, "killed lease_over")
	// Nobody waits for it when something is revoked after its lease.
	w.pass(time.Second)
	w.want(w.revoke(), true, AllHeard)
	// It comes back, and is waited for again.
	w.say(edge, "killed", receipt.Progress, w.at.Seq)
	w.want(w.revoke(), false, SomeWait, "killed waiting")
}

// TestLateInstances: who says hello after a revocation reads to the head before
// it verifies, and the revocation was there.
func TestLateInstances(t *testing.T) {
	w := newWorld(t)
	e := w.revoke()
	w.hello(edge, "knows") // it began behind the revocation
	w.pass(2 * time.Second)
	w.say(edge, "old", receipt.Hello, e.Seq-1) // it began on an old snapshot
	w.want(e, true, AllHeard)
	// But the clocks may differ by a second.
	e = w.revoke()
	w.pass(500 * time.Millisecond)
	w.say(edge, "close", receipt.Hello, e.Seq-1)
	w.say(edge, "knows", receipt.Revocation, e.Seq)
	w.say(edge, "old", receipt.Revocation, e.Seq)
	w.want(e, false, SomeWait, "close waiting", "old applied", "knows applied")

	// One whose hello is not known any more may have been there ever since.
	w.pass(2 * time.Second)
	w.say(edge, "close", receipt.Progress, e.Seq)
	w.say(edge, "ancient", receipt.Progress, e.Seq-1)
	w.want(e, false, SomeWait, "ancient waiting", "close applied", "old applied", "knows applied")
	w.pass(time.Millisecond)
	hello := w.receipt(edge, "ancient", receipt.Hello, e.Seq-1)
	w.hear(w.message(hello)) // it comes out of the other stream later
	w.want(e, true, AllHeard, "close applied", "old applied", "knows applied")
}

// TestRetiredEnforcer: an instance that has applied its own retirement refuses
// everything; of another one nothing is waited for once its bound is over.
func TestRetiredEnforcer(t *testing.T) {
	w := newWorld(t)
	w.hello(edge, "obeys")
	w.hello(edge, "deaf")
	w.hello(shop, "s")
	e := w.revoke()
	retired := w.tell(edge, &events.EnforcerRetired{})
	w.want(retired, false, SomeWait, "obeys waiting", "deaf waiting", "s waiting")
	next := w.revoke()
	w.say(edge, "obeys", receipt.Revocation, retired.Seq)
	w.want(next, false, SomeWait, "deaf waiting", "s waiting", "obeys retired")
	w.say(shop, "s", receipt.Revocation, retired.Seq)
	w.want(e, false, SomeWait, "deaf waiting", "s applied", "obeys applied")
	// What comes later is nothing to obeys: it has gone.
	later := w.revoke()
	w.say(shop, "s", receipt.Revocation, later.Seq)
	w.want(later, false, SomeWait, "deaf waiting", "s applied")
	// Nothing vouches for deaf after its retirement.
	w.now = retired.Time.Add(10*time.Second + MinSkew)
	last := w.revoke()
	w.say(shop, "s", receipt.Revocation, last.Seq)
	w.want(last, true, AllHeard, "s applied", "deaf retired")
	w.now = retired.Time.Add(10*time.Second + MinSkew)
	w.want(last, false, SomeWait, "deaf waiting", "s applied")
	w.pass(time.Hour)
	if n := w.refusals()[Retired]; n != 0 {
		t.Fatalf("%d refused", n)
	}
	w.say(edge, "deaf", receipt.Progress, e.Seq) // its key is of no use any more
	w.say(edge, "new", receipt.Progress, e.Seq)
	w.say(edge, "obeys", receipt.Progress, w.at.Seq) // it has said its last word
	if got := w.refusals(); got[Retired] != 2 || got[Stopped] != 1 {
		t.Errorf("refused %v", got)
	}
}

// TestNewEpoch: nothing is complete until every instance has receipted in the
// new epoch, whatever bounds and leases are over.
func TestNewEpoch(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"a", "b", "c", "gone", "dead"} {
		w.hello(edge, name)
	}
	w.say(edge, "gone", receipt.Bye, w.at.Seq)
	w.pass(time.Hour)
	for _, name := range []string{"a", "b", "c"} {
		w.hello(edge, name)
	}
	before := w.revoke()
	for _, name := range []string{"a", "b", "c"} {
		w.say(edge, name, receipt.Revocation, before.Seq)
	}
	w.want(before, true, AllHeard, "c applied", "b applied", "a applied")
	epoch := w.tell(eventstest.ID(9), &events.EpochOpened{Reason: "promoted"})
	e := w.revoke()
	if epoch.Epoch != 2 || e.Epoch != 2 {
		t.Fatalf("epoch %d", e.Epoch)
	}
	w.say(edge, "a", receipt.Revocation, e.Seq)
	w.say(edge, "b", receipt.Revocation, e.Seq)
	// c follows the old home, perhaps: silent towards us, alive there.
	w.pass(24 * time.Hour)
	for _, one := range []Event{before, e} {
		if r := w.report(one); r.Complete || r.Why != NewEpoch || !r.By.IsZero() {
			t.Errorf("event of epoch %d: %+v", one.Epoch, r)
		}
	}
	// A new instance, in the new epoch from the start, changes nothing.
	w.hello(edge, "fresh")
	if r := w.report(e); r.Complete || r.Why != NewEpoch {
		t.Errorf("with a new instance: %+v", r)
	}
	w.say(edge, "c", receipt.Progress, epoch.Seq) // the epoch is enough to end the doubt
	if r := w.report(e); !r.Complete || r.Why != BoundOver {
		t.Errorf("c is here: %+v", r)
	}
	w.say(edge, "c", receipt.Revocation, e.Seq)
	w.want(e, true, AllHeard, "c applied", "b applied", "a applied")
}

// TestNewEpochConfirmed: or the operator says that the old home is stopped.
func TestNewEpochConfirmed(t *testing.T) {
	w := newWorld(t)
	w.hello(edge, "a")
	w.hello(edge, "lost")
	w.tell(eventstest.ID(9), &events.EpochOpened{Reason: "promoted", PreviousStopped: true})
	e := w.revoke()
	w.say(edge, "a", receipt.Revocation, e.Seq)
	w.want(e, false, SomeWait, "lost waiting", "a applied")
	w.pass(10*time.Second + MinSkew)
	w.say(edge, "a", receipt.Progress, e.Seq)
	w.want(e, true, BoundOver, "lost waiting", "a applied")
}

// TestNotReadYet: while receipts may be stored that are not read, instances may
// live that nobody here knows of.
func TestNotReadYet(t *testing.T) {
	w := newWorld(t)
	w.blind = true
	first := w.revoke()
	w.want(first, false, NotRead)
	w.p.CaughtUp(first.Seq - 1) // looked at before it was there
	w.want(first, false, NotRead)
	w.p.CaughtUp(first.Seq)
	w.want(first, true, AllHeard)
	if w.p.Behind() {
		t.Error("behind, with nothing new")
	}
	w.tell(eventstest.ID(77), &events.AccountCreated{})
	if w.p.Behind() {
		t.Error("behind what revokes nothing")
	}
	second := w.revoke()
	w.pass(time.Hour)
	w.want(second, false, NotRead)
	w.want(first, true, AllHeard)
	if !w.p.Behind() {
		t.Error("not behind")
	}
	// After a restart nothing is known until they were looked at again.
	if err := w.p.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.want(first, false, NotRead)
	if !w.p.Behind() {
		t.Error("not behind after a restart")
	}
	w.p.CaughtUp(w.at.Seq)
	w.want(second, true, AllHeard)
}

// TestClocksThatDiffer: an instance whose clock is behind has not heard before
// the event.
func TestClocksThatDiffer(t *testing.T) {
	w := newWorld(t)
	w.hello(edge, "a")
	e := w.revoke()
	w.pass(50 * time.Millisecond)
	r := w.receipt(edge, "a", receipt.Revocation, e.Seq)
	r.AppliedAt, r.SentAt = w.now.Add(-500*time.Millisecond), w.now.Add(-499*time.Millisecond)
	// Its clock went back since its hello: that is a replay until it has
	// caught up with itself, and the reporter sees to that.
	r.SentAt = w.now.Add(-49 * time.Millisecond)
	w.hear(w.message(r))
	got := w.want(e, true, AllHeard, "a applied")
	if h := got.Instances[0]; h.Took != 0 || !h.AppliedAt.Equal(r.AppliedAt) || got.Max != 0 {
		t.Errorf("%+v", h)
	}
}

func TestQuantiles(t *testing.T) {
	for _, n := range []int{1, 2, 3, 100, 1000} {
		var r Report
		for i := range n {
			r.Instances = append(r.Instances, Heard{AppliedAt: eventstest.Epoch, Took: time.Duration(n-i) * time.Millisecond})
		}
		r.Instances = append(r.Instances, Heard{Took: time.Hour}) // not applied
		r.quantiles()
		ms := func(percent int) time.Duration { return time.Duration((n*percent+99)/100) * time.Millisecond }
		want := fmt.Sprint(ms(50), ms(90), ms(99), ms(100))
		if got := fmt.Sprint(r.P50, r.P90, r.P99, r.Max); got != want {
			t.Errorf("of %d: %s, want %s", n, got, want)
		}
	}
}
