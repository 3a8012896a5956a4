package authority_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/fault"
	"watchword.dev/services/authority"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// answers collects what concurrent commands got.
type answers struct {
	mu      sync.Mutex
	results map[int]command.Result
	errs    map[int]error
	group   sync.WaitGroup
}

func (a *answers) do(w *world, n int, by command.Caller, cmd command.Command) {
	a.group.Go(func() {
		res, err := w.pen.Do(w.ctx, by, cmd)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.results == nil {
			a.results, a.errs = map[int]command.Result{}, map[int]error{}
		}
		a.results[n], a.errs[n] = res, err
	})
}

// commit decodes the commit at seq.
func (w *world) commit(seq uint64) events.Commit {
	w.t.Helper()
	commits, err := w.ledger.Commits()
	if err != nil || seq == 0 || seq > uint64(len(commits)) {
		w.t.Fatalf("commit %d of %d: %v", seq, len(commits), err)
	}
	return commits[seq-1]
}

// TestRevocationPassesImport lets an import of 100,000 tokens wait and then
// revokes: the revocation is in the very next commit, whatever the clock says,
// and no commit is filled by more than half with the import.
func TestRevocationPassesImport(t *testing.T) {
	in(t, nil, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		victim := w.Create()
		if _, err := w.pen.Do(w.ctx, me, victim); err != nil {
			t.Fatal(err)
		}
		hold := make(chan struct{})
		w.log.Inject(eventstest.OpAppend, eventstest.Fault{Hold: hold})
		importer := me
		importer.Bulk = true
		const n = 20_000 // goroutines: the race detector takes 80 kB for each
		var all answers
		for i := range n {
			all.do(w, i, importer, w.Create())
		}
		synctest.Wait()
		running := w.ledger.Head() + 1
		var other answers
		other.do(w, 0, me, command.RevokeToken{Target: victim.Target})
		other.do(w, 1, me, w.Create())
		synctest.Wait()
		close(hold)
		all.group.Wait()
		other.group.Wait()
		if got := other.results[0].Seq; other.errs[0] != nil || got != running+1 {
			t.Errorf("the revocation is in commit %d (%v), the one after the running is %d", got, other.errs[0], running+1)
		}
		if got := other.results[1].Seq; other.errs[1] != nil || got != running+2 {
			t.Errorf("an ordinary creation is in commit %d (%v), want %d", got, other.errs[1], running+2)
		}
		for i, err := range all.errs {
			if err != nil {
				t.Fatalf("import %d: %v", i, err)
			}
		}
		commits, err := w.ledger.Commits()
		if err != nil {
			t.Fatal(err)
		}
		created := 0
		for _, c := range commits[running-1:] {
			if len(c.Records) > 129 {
				t.Errorf("commit %d has %d events, more than half a commit and one", c.Seq, len(c.Records))
			}
			for _, r := range c.Records {
				if r.Name == "token.created.v1" {
					created++
				}
			}
		}
		if created != n+1 {
			t.Errorf("%d tokens were created, want %d", created, n+1)
		}
		if most := n/128 + 3; len(commits)-int(running) > most {
			t.Errorf("the import took %d commits, %d should do", len(commits)-int(running), most)
		}
	})
}

// TestImportIsNotStarved keeps more ordinary commands of another subject waiting
// than a commit takes, while an import waits, too.
func TestImportIsNotStarved(t *testing.T) {
	in(t, func(c *authority.Config) { c.CommitEvents = 4 }, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		token := w.Create()
		if _, err := w.pen.Do(w.ctx, me, token); err != nil {
			t.Fatal(err)
		}
		hold := make(chan struct{})
		w.log.Inject(eventstest.OpAppend, eventstest.Fault{Hold: hold})
		var all answers
		for i := range 64 {
			all.do(w, i, me, command.RollToken{Target: token.Target, Secret: w.NewSecret()})
		}
		synctest.Wait()
		importer := me
		importer.Bulk = true
		ctx, cancel := context.WithTimeout(w.ctx, time.Second)
		defer cancel()
		patient := *w
		patient.ctx = ctx
		var imported answers
		imported.do(&patient, 0, importer, w.Create())
		synctest.Wait()
		// Each append takes a while, so that somebody is always waiting.
		w.log.InjectFunc(func(op eventstest.Op) eventstest.Fault {
			if op != eventstest.OpAppend {
				return eventstest.Fault{}
			}
			return eventstest.Fault{Hold: after(time.Millisecond)}
		})
		stop := make(chan struct{})
		var busy sync.WaitGroup
		for range 16 {
			busy.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						if _, err := w.pen.Do(w.ctx, me, command.RollToken{Target: token.Target, Secret: w.NewSecret()}); err != nil {
							t.Error(err)
							return
						}
					}
				}
			})
		}
		close(hold)
		imported.group.Wait()
		close(stop)
		busy.Wait()
		all.group.Wait()
		if imported.errs[0] != nil {
			t.Error(imported.errs[0])
		}
	})
}

// TestGrouping lets many commands wait for one append and looks at the commits
// that they go into.
func TestGrouping(t *testing.T) {
	in(t, nil, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		hold := make(chan struct{})
		w.log.Inject(eventstest.OpAppend, eventstest.Fault{Hold: hold})
		var all answers
		all.do(w, 0, me, w.Create())
		synctest.Wait()
		double := w.Create()
		for i := 1; i <= 40; i++ {
			cmd := w.Create()
			if i == 20 || i == 30 {
				cmd.ID = double.ID
			}
			if i == 25 {
				cmd.Name = ""
			}
			all.do(w, i, me, cmd)
			synctest.Wait() // so that they wait in this order
		}
		all.do(w, 41, me, command.EnrollEnforcer{ID: w.NewID(), Name: "edge", Secret: w.NewSecret()})
		synctest.Wait()
		running := w.ledger.Head() + 1
		close(hold)
		all.group.Wait()
		for i := 1; i <= 40; i++ {
			switch i {
			case 25:
				if !errors.Is(all.errs[i], fault.InvalidName) {
					t.Errorf("the one without a name: %v", all.errs[i])
				}
			case 30:
				if !errors.Is(all.errs[i], fault.Conflict) {
					t.Errorf("the second of one id: %v", all.errs[i])
				}
			default:
				if all.errs[i] != nil || all.results[i].Seq != running+1 {
					t.Errorf("command %d: commit %d, %v; want %d", i, all.results[i].Seq, all.errs[i], running+1)
				}
			}
		}
		if got := len(w.commit(running + 1).Records); got != 38 {
			t.Errorf("the commit has %d events, want 38", got)
		}
		if all.errs[41] != nil || all.results[41].Seq != running+2 {
			t.Errorf("the other subject: commit %d, %v; want %d", all.results[41].Seq, all.errs[41], running+2)
		}
		w.whole()
	})
}

// TestGroupingOfADirectory lets commands of three kinds wait by turns: each kind
// becomes one commit.
func TestGroupingOfADirectory(t *testing.T) {
	in(t, nil, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		hold := make(chan struct{})
		w.log.Inject(eventstest.OpAppend, eventstest.Fault{Hold: hold})
		var all answers
		all.do(w, 0, me, w.Create())
		synctest.Wait()
		const kinds, each = 3, 10
		for i := range each {
			user := w.NewID()
			for k, cmd := range []command.Command{
				command.CreateAccount{ID: w.NewID(), Name: "n"},
				command.RegisterUser{ID: user, EmailIndex: authoritytest.EmailOf(user), Email: events.Sealed{Key: "k"}},
				command.RegisterResource{Type: accountType + ".zone", Resource: fmt.Sprint("r", i), Name: "n", Parent: accountKey(w.Account)},
			} {
				all.do(w, 1+kinds*i+k, me, cmd)
				synctest.Wait()
			}
		}
		running := w.ledger.Head() + 1
		close(hold)
		all.group.Wait()
		for i := 1; i <= kinds*each; i++ {
			if want := running + 1 + uint64((i-1)%kinds); all.errs[i] != nil || all.results[i].Seq != want {
				t.Errorf("command %d: commit %d, %v; want %d", i, all.results[i].Seq, all.errs[i], want)
			}
		}
		w.whole()
	})
}

// TestDecidedBehindNeighbours rolls one token twice in one commit: the second
// meets the grace of the first.
func TestDecidedBehindNeighbours(t *testing.T) {
	in(t, nil, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		c := w.Create()
		if _, err := w.pen.Do(w.ctx, me, c); err != nil {
			t.Fatal(err)
		}
		hold := make(chan struct{})
		w.log.Inject(eventstest.OpAppend, eventstest.Fault{Hold: hold})
		var all answers
		all.do(w, 0, me, w.Create())
		for i := 1; i <= 2; i++ {
			synctest.Wait()
			all.do(w, i, me, command.RollToken{Target: c.Target, Secret: w.NewSecret(), Grace: time.Hour})
		}
		synctest.Wait()
		close(hold)
		all.group.Wait()
		if all.errs[1] != nil || !errors.Is(all.errs[2], fault.GraceRunning) {
			t.Errorf("first: %v; second: %v", all.errs[1], all.errs[2])
		}
	})
}

// TestBytesOfACommit fills commits with fat events.
func TestBytesOfACommit(t *testing.T) {
	const limit = 20_000
	in(t, func(c *authority.Config) { c.CommitBytes = limit }, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		hold := make(chan struct{})
		w.log.Inject(eventstest.OpAppend, eventstest.Fault{Hold: hold})
		var all answers
		for i := range 100 {
			c := w.Create()
			for j := range 20 {
				c.Grant.Policies = append(c.Grant.Policies, authoritytest.Grant(fmt.Sprintf("com.cloudflare.api.account.zone.z%d", j), authoritytest.DNSWrite).Policies...)
			}
			all.do(w, i, me, c)
		}
		synctest.Wait()
		close(hold)
		all.group.Wait()
		for i, err := range all.errs {
			if err != nil {
				t.Errorf("command %d: %v", i, err)
			}
		}
		for seq := uint64(1); seq <= w.ledger.Head(); seq++ {
			if _, payload := w.ledger.Payload(seq); len(payload) > limit {
				t.Errorf("commit %d has %d bytes, the limit is %d", seq, len(payload), limit)
			}
		}
		if n := w.whole(); n["token.created.v1"] != 100 {
			t.Errorf("the ledger holds %v", n)
		}
	})
}

// TestGivenUp lets commands lose their patience while they wait.
func TestGivenUp(t *testing.T) {
	in(t, nil, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		hold := make(chan struct{})
		w.log.Inject(eventstest.OpAppend, eventstest.Fault{Hold: hold})
		var all answers
		all.do(w, 0, me, w.Create())
		synctest.Wait()
		impatient := *w
		ctx, cancel := context.WithTimeout(w.ctx, 100*time.Millisecond)
		defer cancel()
		impatient.ctx = ctx
		var dropped answers
		for i := range 10 {
			dropped.do(&impatient, i, me, w.Create())
		}
		all.do(w, 1, me, w.Create())
		dropped.group.Wait()
		close(hold)
		all.group.Wait()
		for i, err := range dropped.errs {
			if !errors.Is(err, fault.Overloaded) {
				t.Errorf("impatient command %d: %v", i, err)
			}
		}
		if all.errs[0] != nil || all.errs[1] != nil {
			t.Errorf("the patient ones: %v, %v", all.errs[0], all.errs[1])
		}
		if n := w.whole(); n["token.created.v1"] != 2 {
			t.Errorf("the ledger holds %v", n)
		}
	})
}

// TestDirectoryFarBehind holds the directory back: commands are refused before
// memory fills, revocations a little later, and all goes on afterwards.
func TestDirectoryFarBehind(t *testing.T) {
	in(t, func(c *authority.Config) { c.BacklogMax = 16 }, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		first := w.Create()
		if _, err := w.pen.Do(w.ctx, me, first); err != nil {
			t.Fatal(err)
		}
		if err := authoritytest.Settle(w.ctx, w.pen, w.past); err != nil {
			t.Fatal(err)
		}
		w.past.Hold()
		for i := range 16 {
			if _, err := w.pen.Do(w.ctx, me, w.Create()); err != nil {
				t.Fatalf("command %d: %v", i, err)
			}
		}
		if _, err := w.pen.Do(w.ctx, me, w.Create()); !errors.Is(err, fault.Overloaded) {
			t.Errorf("a creation with a full backlog: %v", err)
		}
		if _, err := w.pen.Do(w.ctx, me, command.RevokeToken{Target: first.Target}); err != nil {
			t.Errorf("a revocation with a full backlog: %v", err)
		}
		w.past.Release()
		if err := authoritytest.Settle(w.ctx, w.pen, w.past); err != nil {
			t.Fatal(err)
		}
		if _, err := w.pen.Do(w.ctx, me, w.Create()); err != nil {
			t.Errorf("after the directory has caught up: %v", err)
		}
	})
}

// overtake appends an event behind everything that is in the ledger, as another
// pen would.
func (w *world) overtake() {
	w.t.Helper()
	end := w.commit(w.ledger.Head()).End
	id := w.NewID()
	line, c, err := events.Compose(end, []events.Draft{{
		Envelope: events.Envelope{
			ID: w.NewID(), Source: "watchword/test", Subject: "enforcer/" + id.String(), Time: end.Time,
			Actor: events.Actor{Kind: events.ActorSystem},
		},
		Data: &events.EnforcerEnrolled{Name: "edge", Secret: w.NewSecret()},
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.ledger.Connect().Append(w.ctx, end, c.Subject, line); err != nil {
		w.t.Fatal(err)
	}
}

// TestGivenUpHoldsThePen lets both callers of a commit lose their patience
// before somebody else's append overtakes it. The first gives the pen on to the
// second, who had given up waiting for an answer: it must take it all the same,
// or nobody ever holds the pen again.
func TestGivenUpHoldsThePen(t *testing.T) {
	in(t, nil, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		first, second := make(chan struct{}), make(chan struct{})
		w.log.Inject(eventstest.OpAppend, eventstest.Fault{Hold: first}, eventstest.Fault{Hold: second})
		var all, impatient answers
		all.do(w, 0, me, w.Create())
		synctest.Wait()
		ctx, cancel := context.WithCancel(w.ctx)
		hasty := *w
		hasty.ctx = ctx
		for i := range 2 {
			impatient.do(&hasty, i, me, w.Create())
			synctest.Wait()
		}
		close(first) // the two go into the next commit, and its append hangs
		all.group.Wait()
		synctest.Wait()
		cancel()
		synctest.Wait()
		w.overtake()
		close(second)
		impatient.group.Wait()
		for i, err := range impatient.errs {
			if !errors.Is(err, fault.Overloaded) {
				t.Errorf("impatient command %d: %+v, %v", i, impatient.results[i], err)
			}
		}
		ctx, cancel = context.WithTimeout(w.ctx, time.Minute)
		defer cancel()
		if _, err := w.pen.Do(ctx, me, w.Create()); err != nil {
			t.Errorf("afterwards the pen is stuck: %v", err)
		}
		if n := w.whole(); n["token.created.v1"] != 2 {
			t.Errorf("the ledger holds %v", n)
		}
	})
}
