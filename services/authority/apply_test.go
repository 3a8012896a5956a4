package authority_test

import (
	"strings"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// strict makes a token "t" of the operator's account and then a policy.
func (s *story) strict(p aggregate.Policy) {
	s.makeFor("t", events.OwnedByAccount, s.Account, authoritytest.Grant(zone, dnsRead))
	s.must(s.me(), command.ChangePolicy{Account: s.Account, Policy: p})
}

func (s *story) apply(p aggregate.Policy) command.ApplyPolicy {
	return command.ApplyPolicy{Account: s.Account, Token: s.at("t").ID, Policy: p}
}

var (
	oneDay    = aggregate.Policy{LifetimeSecondsMax: 86400}
	addresses = aggregate.Policy{AddressRequired: true}
)

var applied = []struct {
	name string
	when func(s *story) string
	then string
}{
	{"an end that is missing", func(s *story) string {
		s.strict(oneDay)
		return s.do(s.me(), s.apply(oneDay))
	}, "token.updated.v1"},
	{"twice", func(s *story) string {
		s.strict(oneDay)
		s.must(s.me(), s.apply(oneDay))
		s.clock.Advance(time.Hour)
		return s.do(s.me(), s.apply(oneDay))
	}, "unchanged"},
	{"addresses that are missing", func(s *story) string {
		s.strict(addresses)
		return s.do(s.me(), s.apply(addresses))
	}, "token.disabled.v1"},
	{"disabled, and twice", func(s *story) string {
		s.strict(addresses)
		s.must(s.me(), s.apply(addresses))
		return s.do(s.me(), s.apply(addresses))
	}, "unchanged"},
	{"and enabled", func(s *story) string {
		s.strict(addresses)
		s.must(s.me(), s.apply(addresses))
		return s.do(s.me(), command.EnableToken{Target: s.at("t")})
	}, "address_required"},
	{"and enabled with addresses", func(s *story) string {
		s.strict(addresses)
		s.must(s.me(), s.apply(addresses))
		g := authoritytest.Grant(zone, dnsRead)
		g.Condition = &token.Condition{RequestIP: token.RequestIP{In: []string{"192.0.2.1"}}}
		s.must(s.me(), s.update("t", g))
		return s.do(s.me(), command.EnableToken{Target: s.at("t")})
	}, "token.enabled.v1"},
	{"a token that was revoked", func(s *story) string {
		s.strict(oneDay)
		s.must(s.me(), command.RevokeToken{Target: s.at("t")})
		return s.do(s.me(), s.apply(oneDay))
	}, "unchanged"},
	{"another policy than was looked at", func(s *story) string {
		s.strict(oneDay)
		return s.do(s.me(), s.apply(addresses))
	}, "conflict"},
	{"no policy", func(s *story) string {
		s.makeFor("t", events.OwnedByAccount, s.Account, authoritytest.Grant(zone, dnsRead))
		return s.do(s.me(), s.apply(aggregate.Policy{}))
	}, "unchanged"},
	{"a user's token", func(s *story) string {
		s.make("mine", authoritytest.Grant(zone, dnsRead))
		s.strict(oneDay)
		c := s.apply(oneDay)
		c.Token = s.at("mine").ID
		return s.do(s.me(), c)
	}, "token_not_found"},
	{"no token", func(s *story) string {
		s.strict(oneDay)
		c := s.apply(oneDay)
		c.Token = s.NewID()
		return s.do(s.me(), c)
	}, "token_not_found"},
	{"a token of another account", func(s *story) string {
		s.strict(oneDay)
		s.must(s.me(), command.ChangePolicy{Account: s.ForeignAccount, Policy: oneDay})
		c := s.apply(oneDay)
		c.Account = s.ForeignAccount
		return s.do(s.me(), c)
	}, "token_not_found"},
	{"by an administrator who holds less than the token", func(s *story) string {
		s.strict(oneDay)
		return s.do(s.administrator(), s.apply(oneDay))
	}, "token.updated.v1"},
	{"by a stranger", func(s *story) string {
		s.strict(oneDay)
		return s.do(s.stranger(), s.apply(oneDay))
	}, "not_permitted"},
	{"by a stranger in no account", func(s *story) string {
		s.strict(oneDay)
		c := s.apply(oneDay)
		c.Account = s.NewID()
		return s.do(s.stranger(), c)
	}, "not_permitted"},
	{"by a token that may manage tokens only", func(s *story) string {
		s.makeFor("w", events.OwnedByAccount, s.Account, authoritytest.Grant(accountKey(s.Account), accountTokensWrite))
		s.strict(oneDay)
		return s.do(s.by("w"), s.apply(oneDay))
	}, "not_permitted"},
}

func TestApplyPolicy(t *testing.T) {
	for _, c := range applied {
		t.Run(c.name, func(t *testing.T) {
			if got := c.when(tell(t)); got != c.then {
				t.Errorf("got %s, want %s", got, c.then)
			}
		})
	}
}

// TestApplyPolicyChangesNothingElse looks at the token before and after, and at
// what the event says.
func TestApplyPolicyChangesNothingElse(t *testing.T) {
	s := tell(t)
	s.strict(oneDay)
	before, _, _ := s.past.Token(s.at("t").ID)
	out, err := s.decide(s.me(), s.apply(oneDay))
	if err != nil {
		t.Fatal(err)
	}
	d := out.Draft.Data.(*events.TokenUpdated)
	want := before.Grant
	want.ExpiresOn = s.clock.Now().Add(day).Truncate(time.Second)
	if d.Name != before.Name || d.Status != "" || d.Grant.ExpiresOn != want.ExpiresOn || d.Grant.Policies[0].ID != before.Grant.Policies[0].ID {
		t.Errorf("the event has %+v\nthe token had %+v", d, before)
	}
	if !strings.Contains(d.Reason, s.Account.String()) || !strings.Contains(d.Reason, "expiry_required") {
		t.Errorf("the reason is %q", d.Reason)
	}
}
