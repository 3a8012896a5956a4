package authority_test

import (
	"testing"
	"time"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// under changes the operator's account's policy and creates a token on
// resource with the condition's addresses and the lifetime, unless zero.
func (s *story) under(policy aggregate.Policy, resource string, lifetime time.Duration, in ...string) string {
	s.must(s.me(), command.ChangePolicy{Account: s.Account, Policy: policy})
	group := accountSettingsRead
	if resource == zone || resource == allZones {
		group = dnsRead
	}
	g := authoritytest.Grant(resource, group)
	if lifetime > 0 {
		g.ExpiresOn = s.clock.Now().Add(lifetime)
	}
	if in != nil {
		g.Condition = &token.Condition{RequestIP: token.RequestIP{In: in}}
	}
	return s.do(s.me(), s.create(g))
}

// note makes a token that ends in ten days and gives notice after a while.
func (s *story) note(after time.Duration, days int32) (command.NoteExpiry, string) {
	g := authoritytest.Grant(zone, dnsRead)
	g.ExpiresOn = s.clock.Now().Add(10 * 24 * time.Hour)
	made := s.make("t", g)
	s.clock.Advance(after)
	c := command.NoteExpiry{Token: made.ID, ExpiresOn: g.ExpiresOn, DaysBefore: days}
	return c, s.do(system, c)
}

var system = command.Caller{System: true}

const day = 24 * time.Hour

var bounds = []struct {
	name string
	when func(s *story) string // given and when
	then string
}{
	{"expiry required", func(s *story) string {
		return s.under(aggregate.Policy{ExpiryRequired: true}, accountKey(s.Account), 0)
	}, "expiry_required"},
	{"expiry given", func(s *story) string {
		return s.under(aggregate.Policy{ExpiryRequired: true}, accountKey(s.Account), time.Hour)
	}, "token.created.v1"},
	{"a bounded lifetime without end", func(s *story) string {
		return s.under(aggregate.Policy{LifetimeSecondsMax: 60}, accountKey(s.Account), 0)
	}, "expiry_required"},
	{"the longest lifetime", func(s *story) string {
		return s.under(aggregate.Policy{LifetimeSecondsMax: 60}, accountKey(s.Account), time.Minute)
	}, "token.created.v1"},
	{"a longer lifetime", func(s *story) string {
		return s.under(aggregate.Policy{LifetimeSecondsMax: 60}, accountKey(s.Account), time.Minute+time.Millisecond)
	}, "lifetime_too_long"},
	{"no address", func(s *story) string {
		return s.under(aggregate.Policy{AddressRequired: true}, accountKey(s.Account), 0)
	}, "address_required"},
	{"an address", func(s *story) string {
		return s.under(aggregate.Policy{AddressRequired: true}, accountKey(s.Account), 0, "192.0.2.1")
	}, "token.created.v1"},
	{"all addresses", func(s *story) string {
		return s.under(aggregate.Policy{AddressRequired: true}, accountKey(s.Account), 0, "192.0.2.1", "0.0.0.0/0")
	}, "address_required"},
	{"by a wildcard", func(s *story) string {
		return s.under(aggregate.Policy{AddressRequired: true}, allZones, 0)
	}, "address_required"},
	{"by a registered zone", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		return s.under(aggregate.Policy{AddressRequired: true}, zone, 0)
	}, "address_required"},
	{"a zone of no account", func(s *story) string {
		return s.under(aggregate.Policy{AddressRequired: true}, zone, 0)
	}, "token.created.v1"},
	{"an account's token", func(s *story) string {
		s.must(s.me(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{AddressRequired: true}})
		return s.do(s.me(), s.accountCreate(s.Account, authoritytest.Grant(zone, dnsRead)))
	}, "address_required"},
	{"an import", func(s *story) string {
		s.must(s.me(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{AddressRequired: true}})
		by := s.me()
		by.Bulk = true
		return s.do(by, s.accountCreate(s.Account, authoritytest.Grant(zone, dnsRead)))
	}, "address_required"},
	{"an update", func(s *story) string {
		s.make("t", authoritytest.Grant(accountKey(s.Account), accountSettingsRead))
		s.must(s.me(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{ExpiryRequired: true}})
		return s.do(s.me(), s.update("t", authoritytest.Grant(accountKey(s.Account), accountSettingsRead)))
	}, "expiry_required"},
	{"another account's policy", func(s *story) string {
		s.must(s.me(), command.ChangePolicy{Account: s.ForeignAccount, Policy: aggregate.Policy{ExpiryRequired: true}})
		return s.do(s.me(), s.create(authoritytest.Grant(accountKey(s.Account), accountSettingsRead)))
	}, "token.created.v1"},

	{"notice in time", func(s *story) string { _, got := s.note(3*day, 7); return got }, "token.expiring.v1"},
	{"notice too early", func(s *story) string { _, got := s.note(3*day-1, 7); return got }, "invalid_times"},
	{"the same notice twice", func(s *story) string { c, _ := s.note(3*day, 7); return s.do(system, c) }, "unchanged"},
	{"less pressing notice", func(s *story) string {
		c, _ := s.note(3*day, 7)
		c.DaysBefore = 30
		return s.do(system, c)
	}, "unchanged"},
	{"more pressing notice", func(s *story) string {
		c, _ := s.note(3*day, 7)
		s.clock.Advance(6 * day)
		c.DaysBefore = 1
		return s.do(system, c)
	}, "token.expiring.v1"},
	{"the end", func(s *story) string { _, got := s.note(10*day, 0); return got }, "token.expired.v1"},
	{"the end twice", func(s *story) string { c, _ := s.note(10*day, 0); return s.do(system, c) }, "unchanged"},
	{"the end before it comes", func(s *story) string { _, got := s.note(10*day-1, 0); return got }, "invalid_times"},
	{"notice of an end that was moved", func(s *story) string {
		c, _ := s.note(0, 30)
		g := authoritytest.Grant(zone, dnsRead)
		g.ExpiresOn = c.ExpiresOn.Add(time.Hour)
		s.must(s.me(), s.update("t", g))
		return s.do(system, c)
	}, "unchanged"},
	{"notice of the end that it was moved to", func(s *story) string {
		c, _ := s.note(0, 30)
		g := authoritytest.Grant(zone, dnsRead)
		g.ExpiresOn = c.ExpiresOn.Add(time.Hour)
		s.must(s.me(), s.update("t", g))
		c.ExpiresOn = g.ExpiresOn
		return s.do(system, c)
	}, "token.expiring.v1"},
	{"notice of a token that has ended", func(s *story) string {
		c, _ := s.note(0, 30)
		s.must(s.me(), command.RevokeToken{Target: s.at("t")})
		c.DaysBefore = 0
		s.clock.Advance(10 * day)
		return s.do(system, c)
	}, "token_not_found"},
	{"notice of a token whose owner has ended", func(s *story) string {
		s.accountWriter("a")
		s.must(s.me(), command.RemoveAccount{ID: s.Account})
		return s.do(system, command.NoteExpiry{Token: s.at("a").ID, ExpiresOn: s.clock.Now()})
	}, "token_not_found"},
	{"notice by an operator", func(s *story) string { c, _ := s.note(0, 30); return s.do(s.me(), c) }, "not_permitted"},
}

func TestBounds(t *testing.T) {
	for _, c := range bounds {
		t.Run(c.name, func(t *testing.T) {
			if got := c.when(tell(t)); got != c.then {
				t.Errorf("got %s, want %s", got, c.then)
			}
		})
	}
}
