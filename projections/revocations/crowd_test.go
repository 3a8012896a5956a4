package revocations

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"watchword.dev/events/receipt"
)

// TestCrowd: who has an enforcer's key can say hello in any number of names. Only
// so many are known each; the others hold a revocation back as one, until the
// bounds are over, and nothing that they say changes that.
func TestCrowd(t *testing.T) {
	w := newWorld(t)
	w.p.most = 3
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		w.hello(edge, name)
	}
	w.hello(shop, "s")
	if got := w.p.Instances(w.now); len(got) != 5 {
		t.Fatalf("%d instances: %+v", len(got), got)
	}
	e := w.revoke()
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		w.say(edge, name, receipt.Revocation, e.Seq)
	}
	w.say(shop, "s", receipt.Revocation, e.Seq)
	r := w.report(e)
	if r.Complete || r.Why != SomeWait || r.Counts[Applied] != 4 || r.Counts[Waiting] != 1 || r.Instances[0].Name != Others {
		t.Errorf("%+v", r)
	}

	// It is so after a restart.
	if err := w.p.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.p.most = 3
	w.hello(edge, "g")
	if got := w.p.Instances(w.now); len(got) != 5 {
		t.Errorf("%d instances: %+v", len(got), got)
	}
	w.now = r.By.Add(time.Millisecond)
	if r = w.report(e); !r.Complete || r.Why != BoundOver {
		t.Errorf("%+v", r)
	}
	// Who said hello when there was no room, and is silent, is not waited for.
	w.pass(receipt.Lease + time.Hour)
	w.want(w.revoke(), true, AllHeard)
}

// TestCrowdLeaves: those who have stopped make room, the longest silent first, and
// who was one of the others is then known.
func TestCrowdLeaves(t *testing.T) {
	w := newWorld(t)
	w.p.most = 3
	for _, name := range []string{"a", "b", "c"} {
		w.hello(edge, name)
	}
	w.say(edge, "b", receipt.Bye, w.at.Seq)
	w.hello(edge, "d") // b may be heard a second time, still
	w.pass(keepDead + time.Second)
	for _, name := range []string{"a", "c", "d"} {
		w.say(edge, name, receipt.Progress, w.at.Seq)
	}
	w.pass(receipt.Lease + time.Hour) // of the others
	e := w.revoke()
	for _, name := range []string{"a", "c", "d"} {
		w.say(edge, name, receipt.Revocation, e.Seq)
	}
	w.want(e, true, AllHeard, "d applied", "c applied", "a applied")
	known := ""
	for _, n := range w.p.Instances(w.now) {
		known += n.Name
	}
	if len(known) != 4 || strings.Contains(known, "b") || w.p.crowds[edge].count != 3 {
		t.Errorf("%q are known, %d counted", known, w.p.crowds[edge].count)
	}
}

// TestCrowdBye: one for whom there is no room and who stops is not waited for.
func TestCrowdBye(t *testing.T) {
	w := newWorld(t)
	w.p.most = 1
	w.hello(edge, "a")
	w.say(edge, "b", receipt.Bye, w.at.Seq)
	e := w.revoke()
	w.say(edge, "a", receipt.Revocation, e.Seq)
	w.want(e, true, AllHeard, "a applied")
}

// TestRefusedLog: refused receipts are counted one by one, but do not fill the log.
func TestRefusedLog(t *testing.T) {
	w := newWorld(t)
	for i := range 1000 {
		w.hear(w.stored(Kept, fmt.Sprintf("ww.receipt.%s.i%d", edge, i), []byte("{}")))
	}
	if n := w.refusals()[Signature]; n != 1000 {
		t.Errorf("%d are counted", n)
	}
	if n := strings.Count(w.log.String(), "\n"); n != loggedEach+6 { // 16, 32, … 512
		t.Errorf("%d lines", n)
	}
}

// TestAppliedLater: nobody has applied something later than when we heard so,
// whatever its clock says.
func TestAppliedLater(t *testing.T) {
	w := newWorld(t)
	w.hello(edge, "a")
	e := w.revoke()
	w.pass(20 * time.Millisecond)
	r := w.receipt(edge, "a", receipt.Revocation, e.Seq)
	r.AppliedAt = w.now.AddDate(500, 0, 0)
	w.hear(w.message(r))
	if got := w.report(e); got.Max != 20*time.Millisecond || !w.p.Instances(w.now)[0].Applied.Equal(w.now) {
		t.Errorf("the slowest took %v; %+v", got.Max, got.Instances)
	}
}
