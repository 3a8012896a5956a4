package authority_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/authority"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// lagging is a pen over a directory that moves only when told, beside a model
// whose directory has always applied everything.
type lagging struct {
	*authoritytest.Installation
	clock   eventstest.Clock
	ledger  *eventstest.Ledger
	pen     *authority.Pen
	behind  *authoritytest.Directory
	model   *authoritytest.Directory
	commits []events.Commit
	targets []command.Target
	secrets []command.Caller
	digests []token.Digest
}

// narrow is soon used up.
var narrow = command.Quota{User: 6, Account: 2}

func newLagging(t *rapid.T) (*lagging, func()) {
	l := &lagging{
		Installation: authoritytest.NewInstallation(), ledger: eventstest.NewLedger(),
		behind: authoritytest.NewDirectory(), model: authoritytest.NewDirectory(),
	}
	log := l.ledger.Connect()
	cfg := l.Config("node-a", log, log, l.behind)
	cfg.Now = l.clock.Now
	cfg.Quota = narrow
	cfg.Sole, cfg.Lease, cfg.Beat = true, time.Hour, time.Minute // no clock of the machine decides
	pen, err := authority.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l.pen = pen
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = pen.Run(ctx) })
	if err := authority.Bootstrap(ctx, pen, l.People()...); err != nil {
		t.Fatal(err)
	}
	l.catchUp(t)
	l.secrets = []command.Caller{authoritytest.ByKey(l.Operator), authoritytest.ByKey(l.Stranger)}
	return l, func() {
		cancel()
		group.Wait()
	}
}

// catchUp applies to the model what is new in the ledger, and to the directory
// that is behind as many commits as it draws.
func (l *lagging) catchUp(t *rapid.T) {
	all, err := l.ledger.Commits()
	if err != nil {
		t.Fatal(err)
	}
	for i := len(l.commits); i < len(all); i++ {
		if err := l.model.Apply(&all[i]); err != nil {
			t.Fatalf("the pen wrote what cannot be: %v", err)
		}
	}
	l.commits = all
	at := l.behind.Position().Seq
	for range rapid.SampledFrom([]int{0, 0, 0, 0, 0, 1, 1, 8}).Draw(t, "the directory moves by") {
		if at == uint64(len(all)) {
			break
		}
		if err := l.behind.Apply(&all[at]); err != nil {
			t.Fatal(err)
		}
		at++
	}
}

// do asks the model and the pen, and compares what they say.
func (l *lagging) do(t *rapid.T, by command.Caller, cmd command.Command) {
	l.clock.Advance(time.Duration(rapid.IntRange(0, 40_000).Draw(t, "milliseconds pass")) * time.Millisecond)
	decided, err := authority.DecideIn(&aggregate.Catalogues{}, narrow, l.model, by, cmd, l.clock.Now(), l.NewID)
	want := "unchanged"
	if err != nil {
		want = string(fault.From(err).Code)
	} else if decided.Draft.Data != nil {
		want = decided.Draft.Data.EventName()
	}
	head := l.ledger.Head()
	res, err := l.pen.Do(context.Background(), by, cmd)
	got := "unchanged"
	switch {
	case err != nil:
		got = string(fault.From(err).Code)
	case !res.Unchanged:
		got = "nothing"
		if subject, payload := l.ledger.Payload(head + 1); payload != nil {
			got = subject[len(events.SubjectPrefix):] + ".v1"
		}
	}
	if got != want {
		t.Fatalf("%s: the pen says %s, without a lag it is %s", cmd.Verb(), got, want)
	}
	l.catchUp(t)
	if err == nil && res.Token != nil {
		model, _, _ := l.model.Token(res.Token.ID)
		if !reflect.DeepEqual(model, *res.Token) {
			t.Fatalf("%s: the pen shows\n%+v\nthe ledger adds up to\n%+v", cmd.Verb(), *res.Token, model)
		}
	}
	if err == nil && decided.Redelivered != res.Redelivered {
		t.Fatalf("%s: redelivered %v", cmd.Verb(), res.Redelivered)
	}
}

// caller is the operator most of the time, else anybody whose secret was seen.
func (l *lagging) caller(t *rapid.T) command.Caller {
	if rapid.IntRange(0, 2).Draw(t, "by the operator") > 0 {
		return l.secrets[0]
	}
	return rapid.SampledFrom(l.secrets).Draw(t, "by")
}

func (l *lagging) target(t *rapid.T) command.Target {
	if len(l.targets) == 0 {
		return command.Target{ID: l.NewID(), OwnerKind: events.OwnedByUser}
	}
	return rapid.SampledFrom(l.targets).Draw(t, "token")
}

// secret is new most of the time, else one that was seen before.
func (l *lagging) secret(t *rapid.T) token.Digest {
	if len(l.digests) > 0 && rapid.IntRange(0, 2).Draw(t, "old secret") == 0 {
		return rapid.SampledFrom(l.digests).Draw(t, "secret")
	}
	d := l.NewSecret()
	l.digests = append(l.digests, d)
	return d
}

func (l *lagging) request(t *rapid.T) (string, bool) {
	n := rapid.IntRange(0, 4).Draw(t, "request")
	if n == 0 {
		return "", false
	}
	return fmt.Sprintf("request %d", n), rapid.Bool().Draw(t, "repeat")
}

func (l *lagging) grant(t *rapid.T, owner token.ID) token.Grant {
	g := authoritytest.Grant(zone, dnsWrite)
	if rapid.Bool().Draw(t, "may write tokens") {
		g = both(g, authoritytest.Grant(userKey(owner), apiTokensWrite))
	}
	if rapid.IntRange(0, 3).Draw(t, "expires") == 0 {
		g.ExpiresOn = l.clock.Now().Add(time.Minute)
	}
	return g
}

// TestDeadSecretsUnderLag gives secrets that have died to other tokens while the
// directory, which is held back, still knows them as alive.
func TestDeadSecretsUnderLag(t *testing.T) {
	in(t, nil, func(w *world) {
		me := authoritytest.ByKey(w.Operator)
		first := w.Create()
		if _, err := w.pen.Do(w.ctx, me, first); err != nil {
			t.Fatal(err)
		}
		second := command.RollToken{Target: first.Target, Secret: w.NewSecret(), Grace: time.Hour}
		if _, err := w.pen.Do(w.ctx, me, second); err != nil {
			t.Fatal(err)
		}
		if err := authoritytest.Settle(w.ctx, w.pen, w.past); err != nil {
			t.Fatal(err)
		}
		w.past.Hold()
		defer w.past.Release()
		if _, err := w.pen.Do(w.ctx, me, command.RollToken{Target: first.Target, Secret: w.NewSecret(), Force: true}); err != nil {
			t.Fatal(err)
		}
		for name, dead := range map[string]token.Digest{"previous": first.Secret, "present": second.Secret} {
			c := w.Create()
			c.Secret = dead
			if _, err := w.pen.Do(w.ctx, me, c); err != nil {
				t.Errorf("the %s secret before the roll: %v", name, err)
			}
			c = w.Create()
			c.Secret = dead
			if _, err := w.pen.Do(w.ctx, me, c); !errors.Is(err, fault.Conflict) {
				t.Errorf("and a second time: %v", err)
			}
		}
		w.whole()
	})
}

// TestLagMakesNothingWrong is the promise of the overlay: however far behind
// the directory is, commands end as if it were not.
func TestLagMakesNothingWrong(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, stop := newLagging(t)
		defer stop()
		t.Repeat(map[string]func(*rapid.T){
			"create": func(t *rapid.T) {
				owner := rapid.SampledFrom([]token.ID{l.Operator, l.Operator, l.Stranger}).Draw(t, "owner")
				c := command.CreateToken{
					Target: command.Target{ID: l.NewID(), OwnerKind: events.OwnedByUser, Owner: owner},
					Name:   "a token", Grant: l.grant(t, owner), Secret: l.secret(t),
				}
				c.Request, c.Repeat = l.request(t)
				c.Template = rapid.SampledFrom(someTemplates).Draw(t, "template")
				l.targets = append(l.targets, c.Target)
				l.secrets = append(l.secrets, command.Caller{Kind: token.KindUser, Digest: c.Secret, Address: netip.MustParseAddr("192.0.2.1")})
				l.do(t, l.caller(t), c)
			},
			"create for the account": func(t *rapid.T) {
				c := command.CreateToken{
					Target: command.Target{ID: l.NewID(), OwnerKind: events.OwnedByAccount, Owner: l.Account},
					Name:   "a token", Grant: authoritytest.Grant(zone, dnsWrite), Secret: l.secret(t),
				}
				l.targets = append(l.targets, c.Target)
				l.do(t, l.caller(t), c)
			},
			"policy": func(t *rapid.T) {
				most := rapid.Int32Range(0, 4).Draw(t, "tokens at most")
				l.do(t, l.caller(t), command.ChangePolicy{Account: l.Account, Policy: aggregate.Policy{TokensMax: most}})
			},
			"roll": func(t *rapid.T) {
				c := command.RollToken{Target: l.target(t), Secret: l.secret(t), Force: rapid.Bool().Draw(t, "force")}
				c.Grace = time.Duration(rapid.IntRange(0, 2).Draw(t, "minutes of grace")) * time.Minute
				c.Request, c.Repeat = l.request(t)
				l.secrets = append(l.secrets, command.Caller{Kind: token.KindUser, Digest: c.Secret})
				l.do(t, l.caller(t), c)
			},
			"update": func(t *rapid.T) {
				at := l.target(t)
				status := rapid.SampledFrom([]string{"", "active", "disabled"}).Draw(t, "status")
				l.do(t, l.caller(t), command.UpdateToken{Target: at, Name: "b", Grant: l.grant(t, at.Owner), Status: status})
			},
			"disable": func(t *rapid.T) { l.do(t, l.caller(t), command.DisableToken{Target: l.target(t)}) },
			"enable":  func(t *rapid.T) { l.do(t, l.caller(t), command.EnableToken{Target: l.target(t)}) },
			"revoke":  func(t *rapid.T) { l.do(t, l.caller(t), command.RevokeToken{Target: l.target(t)}) },
			"sweep": func(t *rapid.T) {
				c := command.Sweep{ID: l.NewID(), By: rapid.SampledFrom([]string{events.SweepOwner, events.SweepAccount, events.SweepTemplate, events.SweepAll}).Draw(t, "by")}
				switch c.By {
				case events.SweepOwner:
					c.Selected = rapid.SampledFrom([]token.ID{l.Operator, l.Stranger, l.Stranger, l.Account}).Draw(t, "owner").String()
				case events.SweepAccount:
					c.Selected = l.Account.String()
				case events.SweepTemplate:
					c.Selected = rapid.SampledFrom(someTemplates).Draw(t, "template")
				}
				if rapid.Bool().Draw(t, "not all") {
					end := l.commits[len(l.commits)-1].End.Number
					c.Through = rapid.Uint64Range(1, end+1).Draw(t, "through")
				}
				l.do(t, l.caller(t), c)
			},
			"key": func(t *rapid.T) {
				secret := l.secret(t)
				l.do(t, command.Caller{System: true}, command.IssueAPIKey{User: l.Stranger, Secret: secret})
				l.secrets = append(l.secrets, command.Caller{Kind: token.KindKey, Digest: secret, EmailIndex: authoritytest.EmailOf(l.Stranger)})
			},
			"enforcer": func(t *rapid.T) {
				l.do(t, l.caller(t), command.EnrollEnforcer{ID: l.NewID(), Name: "edge", Secret: l.secret(t), Nkey: nkey(t)})
			},
			"consumer": func(t *rapid.T) {
				l.do(t, l.caller(t), command.EnrollConsumer{ID: l.NewID(), Name: "siem", Nkey: nkey(t)})
			},
			"": func(*rapid.T) {},
		})
	})
}

// someTemplates are few, and one is none.
var someTemplates = []string{"", "edit-zone-dns", "read-logs"}

// someNkeys are few, so that one is often enrolled a second time.
var someNkeys = []string{authoritytest.NewNkey(), authoritytest.NewNkey(), authoritytest.NewNkey(), authoritytest.NewNkey()}

func nkey(t *rapid.T) string { return rapid.SampledFrom(someNkeys).Draw(t, "nkey") }
