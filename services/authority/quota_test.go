package authority_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/authority"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// full has as many tokens as the quota allows: "1" and "2" of the operator's,
// "3" of the account's.
func (s *story) full() {
	s.quota = command.Quota{User: 2, Account: 1}
	g := authoritytest.Grant(zone, dnsWrite)
	s.make("1", g)
	s.make("2", g)
	s.makeFor("3", events.OwnedByAccount, s.Account, g)
}

func (s *story) oneMore() string { return s.do(s.me(), s.create(authoritytest.Grant(zone, dnsWrite))) }

func (s *story) oneMoreOf(account token.ID) string {
	return s.do(s.me(), s.accountCreate(account, authoritytest.Grant(zone, dnsWrite)))
}

// administrator makes a user who administers the operator's account and runs
// nothing else.
func (s *story) administrator() command.Caller {
	c := command.AddMember{ID: s.NewID(), Account: s.Account, User: s.Stranger, Roles: []string{authority.SuperAdministrator}}
	s.must(s.me(), c)
	return s.stranger()
}

var quotas = []struct {
	name string
	when func(s *story) string // what comes after full
	then string
}{
	{"a user's last", func(s *story) string { return s.oneMore() }, "quota_reached"},
	{"an account's last", func(s *story) string { return s.oneMoreOf(s.Account) }, "quota_reached"},
	{"another user's", func(s *story) string {
		return s.do(s.stranger(), s.create(authoritytest.Grant(userKey(s.Stranger), apiTokensRead)))
	}, "token.created.v1"},
	{"after a revocation", func(s *story) string {
		s.must(s.me(), command.RevokeToken{Target: s.at("1")})
		return s.oneMore()
	}, "token.created.v1"},
	{"one only after a revocation", func(s *story) string {
		s.must(s.me(), command.RevokeToken{Target: s.at("1")})
		s.oneMore()
		return s.oneMore()
	}, "quota_reached"},
	{"after a suspension", func(s *story) string {
		s.must(s.me(), command.DisableToken{Target: s.at("1")})
		return s.oneMore()
	}, "quota_reached"},
	{"after an expiry", func(s *story) string {
		g := authoritytest.Grant(zone, dnsWrite)
		g.ExpiresOn = s.clock.Now().Add(day)
		s.must(s.me(), s.update("1", g))
		s.clock.Advance(2 * day)
		s.must(system, command.NoteExpiry{Token: s.at("1").ID, ExpiresOn: g.ExpiresOn})
		return s.oneMore()
	}, "quota_reached"},
	{"by an import", func(s *story) string {
		by := s.me()
		by.Bulk = true
		return s.do(by, s.create(authoritytest.Grant(zone, dnsWrite)))
	}, "quota_reached"},
	{"from a template", func(s *story) string {
		c := s.create(authoritytest.Grant(zone, dnsWrite))
		c.Template = "edit-zone-dns"
		return s.do(s.me(), c)
	}, "quota_reached"},
	{"a dry run", func(s *story) string {
		c := s.create(authoritytest.Grant(zone, dnsWrite))
		c.DryRun = true
		return s.do(s.me(), c)
	}, "quota_reached"},
	{"a dry run with room", func(s *story) string {
		s.quota.User = 3
		c := s.create(authoritytest.Grant(zone, dnsWrite))
		c.DryRun = true
		return s.do(s.me(), c)
	}, "unchanged"},
	{"the same command again", func(s *story) string { return s.do(s.me(), s.named["2"]) }, "unchanged"},
	{"a declared repeat", func(s *story) string {
		s.must(s.me(), command.RevokeToken{Target: s.at("1")})
		c := s.create(authoritytest.Grant(zone, dnsWrite))
		c.Request = "the request"
		s.must(s.me(), c)
		c.ID, c.Secret, c.Repeat = s.NewID(), s.NewSecret(), true
		return s.do(s.me(), c)
	}, "token.rolled.v1"},
	{"a policy that allows more", func(s *story) string {
		s.must(s.me(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{TokensMax: 2}})
		return s.oneMoreOf(s.Account)
	}, "token.created.v1"},
	{"a policy that allows fewer", func(s *story) string {
		s.quota.Account = 9
		s.must(s.me(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{TokensMax: 1}})
		return s.oneMoreOf(s.Account)
	}, "quota_reached"},
	{"an account's policy and its members", func(s *story) string {
		s.must(s.me(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{TokensMax: 100}})
		return s.oneMore()
	}, "quota_reached"},
	{"no quota", func(s *story) string {
		s.quota = command.Quota{}
		return s.oneMore()
	}, "token.created.v1"},

	{"an administrator raises the bound", func(s *story) string {
		return s.do(s.administrator(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{TokensMax: 2}})
	}, "not_permitted"},
	{"an administrator lowers the bound", func(s *story) string {
		s.quota.Account = 9
		return s.do(s.administrator(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{TokensMax: 9}})
	}, "policy.changed.v1"},
	{"an administrator keeps what an operator raised", func(s *story) string {
		s.must(s.me(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{TokensMax: 20}})
		return s.do(s.administrator(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{TokensMax: 20, ExpiryRequired: true}})
	}, "policy.changed.v1"},
}

// TestQuotaNamesItsLimit looks at the whole answer.
func TestQuotaNamesItsLimit(t *testing.T) {
	s := tell(t)
	s.full()
	_, err := s.decide(s.me(), s.create(authoritytest.Grant(zone, dnsWrite)))
	if got := fault.From(err).Message(); got != "The owner's quota of tokens is used up: at most 2" {
		t.Errorf("got %q", got)
	}
	_, err = s.decide(s.administrator(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{TokensMax: 3}})
	if f := fault.From(err); f.Pointer != "/tokens_max" || f.Message() != "Unauthorized to access requested resource: above 1 it is an operator's to set" {
		t.Errorf("got %q at %s", f.Message(), f.Pointer)
	}
}

func TestQuota(t *testing.T) {
	for _, c := range quotas {
		t.Run(c.name, func(t *testing.T) {
			s := tell(t)
			s.full()
			if got := c.when(s); got != c.then {
				t.Errorf("got %s, want %s", got, c.then)
			}
		})
	}
}

// TestQuotaUnderConcurrency lets more creations wait than there is room for,
// while the directory hears nothing: as many as there is room for are accepted,
// whether they come in one commit or in several, and a revocation makes room
// for exactly one.
func TestQuotaUnderConcurrency(t *testing.T) {
	for _, size := range []int{1, 7, 256} {
		in(t, func(c *authority.Config) { c.Quota, c.CommitEvents = command.Quota{User: 10}, size }, func(w *world) {
			w.past.Hold()
			defer w.past.Release()
			me := authoritytest.ByKey(w.Operator)
			hold := make(chan struct{})
			w.log.Inject(eventstest.OpAppend, eventstest.Fault{Hold: hold})
			made := w.race(me, 30, hold)
			if len(made) != 10 {
				t.Fatalf("commits of %d: %d creations were accepted, the quota is 10", size, len(made))
			}
			if _, err := w.pen.Do(w.ctx, me, command.RevokeToken{Target: made[0]}); err != nil {
				t.Fatal(err)
			}
			if made = w.race(me, 5, nil); len(made) != 1 {
				t.Errorf("commits of %d: after one revocation %d were accepted", size, len(made))
			}
			if n := w.whole(); n["token.created.v1"] != 11 {
				t.Errorf("commits of %d: the ledger holds %v", size, n)
			}
		})
	}
}

// race creates n tokens at once, of which the first may hang in the log until
// all have come, and returns those that were accepted. All others must have
// been refused for the quota.
func (w *world) race(by command.Caller, n int, hold chan struct{}) (accepted []command.Target) {
	w.t.Helper()
	var all answers
	cmds := make([]command.CreateToken, n)
	for i := range cmds {
		cmds[i] = w.Create()
		all.do(w, i, by, cmds[i])
	}
	synctest.Wait()
	if hold != nil {
		close(hold)
	}
	all.group.Wait()
	for i, err := range all.errs {
		switch {
		case err == nil:
			accepted = append(accepted, cmds[i].Target)
		case !errors.Is(err, fault.QuotaReached):
			w.t.Fatalf("creation %d: %v", i, err)
		}
	}
	return accepted
}
