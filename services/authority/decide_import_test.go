package authority_test

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// foreign is the import of a token of another system for its owner.
func (s *story) foreign(kind events.OwnerKind, owner token.ID, g token.Grant) command.CreateToken {
	c := s.create(g)
	c.OwnerKind, c.Owner, c.Foreign = kind, owner, true
	c.Secret = token.SumForeign(sha256.Sum256(fmt.Append(nil, "of elsewhere ", c.ID)))
	return c
}

// imported is the import of a token for the stranger's zone that was accepted.
func (s *story) imported() command.CreateToken {
	s.must(s.me(), register("z1", s.ForeignAccount))
	c := s.foreign(events.OwnedByUser, s.Stranger, authoritytest.Grant(zone, dnsWrite))
	s.must(s.me(), c)
	return c
}

var imports = []struct {
	name string
	when func(s *story) string
	then string
}{
	{"for a user who holds it", func(s *story) string {
		s.must(s.me(), register("z1", s.ForeignAccount))
		return s.do(s.me(), s.foreign(events.OwnedByUser, s.Stranger, authoritytest.Grant(zone, dnsWrite)))
	}, "token.created.v1"},
	{"for a user who does not hold it", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		return s.do(s.me(), s.foreign(events.OwnedByUser, s.Stranger, authoritytest.Grant(zone, dnsWrite)))
	}, "group_not_held"},
	{"for a user, what only operators may name", func(s *story) string {
		return s.do(s.me(), s.foreign(events.OwnedByUser, s.Stranger, authoritytest.Grant(zone, dnsWrite)))
	}, "group_not_held"},
	{"for an operator, what only operators may name", func(s *story) string {
		return s.do(s.me(), s.foreign(events.OwnedByUser, s.Operator, authoritytest.Grant(zone, dnsWrite)))
	}, "token.created.v1"},
	{"for an account, what lies in it", func(s *story) string {
		s.must(s.me(), register("z1", s.ForeignAccount))
		return s.do(s.me(), s.foreign(events.OwnedByAccount, s.ForeignAccount, both(
			authoritytest.Grant(zone, dnsWrite), nested(accountKey(s.ForeignAccount), allZones, dnsRead))))
	}, "token.created.v1"},
	{"for an account, what lies in another", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		return s.do(s.me(), s.foreign(events.OwnedByAccount, s.ForeignAccount, authoritytest.Grant(zone, dnsWrite)))
	}, "group_not_held"},
	{"for an account, all accounts", func(s *story) string {
		return s.do(s.me(), s.foreign(events.OwnedByAccount, s.ForeignAccount, authoritytest.Grant(allAccounts, accountSettingsRead)))
	}, "group_not_held"},
	{"for nobody", func(s *story) string {
		return s.do(s.me(), s.foreign(events.OwnedByUser, s.NewID(), authoritytest.Grant(zone, dnsWrite)))
	}, "user_not_found"},
	{"for no account", func(s *story) string {
		return s.do(s.me(), s.foreign(events.OwnedByAccount, s.NewID(), authoritytest.Grant(zone, dnsWrite)))
	}, "account_not_found"},
	{"for oneself, by no operator", func(s *story) string {
		s.must(s.me(), register("z1", s.ForeignAccount))
		return s.do(s.stranger(), s.foreign(events.OwnedByUser, s.Stranger, authoritytest.Grant(zone, dnsWrite)))
	}, "not_permitted"},
	{"by an operator's token", func(s *story) string {
		s.widener("w")
		return s.do(s.by("w"), s.foreign(events.OwnedByUser, s.Operator, authoritytest.Grant(zone, dnsWrite)))
	}, "not_permitted"},
	{"against the account's policy", func(s *story) string {
		s.must(s.me(), register("z1", s.ForeignAccount))
		s.must(s.me(), command.ChangePolicy{Account: s.ForeignAccount, Policy: aggregate.Policy{ExpiryRequired: true}})
		return s.do(s.me(), s.foreign(events.OwnedByUser, s.Stranger, authoritytest.Grant(zone, dnsWrite)))
	}, "expiry_required"},
	{"one that has expired", func(s *story) string {
		c := s.foreign(events.OwnedByUser, s.Operator, authoritytest.Grant(zone, dnsWrite))
		c.Grant.ExpiresOn = s.clock.Now()
		return s.do(s.me(), c)
	}, "token_expired"},
	{"one that may give more than it holds", func(s *story) string {
		c := s.foreign(events.OwnedByUser, s.Operator, authoritytest.Grant(zone, dnsWrite))
		c.Widens = true
		return s.do(s.me(), c)
	}, "invalid_field"},
	{"a secret that another token has", func(s *story) string {
		c := s.imported()
		other := s.foreign(events.OwnedByUser, s.Stranger, c.Grant)
		other.Secret = c.Secret
		return s.do(s.me(), other)
	}, "conflict"},
	{"again", func(s *story) string { return s.do(s.me(), s.imported()) }, "unchanged"},
	{"again, after its owner has lost what it gives", func(s *story) string {
		c := s.imported()
		s.must(s.me(), command.RemoveResource{Type: "com.cloudflare.api.account.zone", Resource: "z1"})
		return s.do(s.me(), c)
	}, "unchanged"},
	{"again, after a roll", func(s *story) string {
		c := s.imported()
		s.must(s.stranger(), command.RollToken{Target: c.Target, Secret: s.NewSecret()})
		return s.do(s.me(), c)
	}, "unchanged"},
	{"again, after its revocation", func(s *story) string {
		c := s.imported()
		s.must(s.stranger(), command.RevokeToken{Target: c.Target})
		return s.do(s.me(), c)
	}, "token_revoked"},
	{"again with another name", func(s *story) string {
		c := s.imported()
		c.Name = "another"
		return s.do(s.me(), c)
	}, "conflict"},
	{"again with another grant", func(s *story) string {
		c := s.imported()
		c.Grant = authoritytest.Grant(zone, dnsRead)
		return s.do(s.me(), c)
	}, "conflict"},
	{"again with another condition", func(s *story) string {
		c := s.imported()
		c.Grant.Condition = &token.Condition{RequestIP: token.RequestIP{In: []string{}}}
		return s.do(s.me(), c)
	}, "conflict"},
	{"again with another end", func(s *story) string {
		c := s.imported()
		c.Grant.ExpiresOn = s.clock.Now().Add(time.Hour)
		return s.do(s.me(), c)
	}, "conflict"},
	{"again for another owner", func(s *story) string {
		c := s.imported()
		c.OwnerKind, c.Owner = events.OwnedByAccount, s.ForeignAccount
		return s.do(s.me(), c)
	}, "conflict"},
	{"in the place of a token that was made here", func(s *story) string {
		made := s.make("made", authoritytest.Grant(zone, dnsWrite))
		c := s.foreign(events.OwnedByUser, s.Operator, made.Grant)
		c.ID, c.Name = made.ID, made.Name
		return s.do(s.me(), c)
	}, "conflict"},
	{"above the account's quota", func(s *story) string {
		s.must(s.me(), register("z1", s.ForeignAccount))
		s.must(s.me(), command.ChangePolicy{Account: s.ForeignAccount, Policy: aggregate.Policy{TokensMax: 1}})
		c := s.foreign(events.OwnedByAccount, s.ForeignAccount, authoritytest.Grant(zone, dnsWrite))
		s.must(s.me(), c)
		dry := s.foreign(events.OwnedByAccount, s.ForeignAccount, c.Grant)
		dry.DryRun = true
		return s.do(s.me(), c) + ", " + s.do(s.me(), dry) + ", " + s.do(s.me(), s.foreign(events.OwnedByAccount, s.ForeignAccount, c.Grant))
	}, "unchanged, quota_reached, quota_reached"},
	{"a dry run", func(s *story) string {
		c := s.foreign(events.OwnedByUser, s.Operator, authoritytest.Grant(zone, dnsWrite))
		c.DryRun = true
		return s.do(s.me(), c)
	}, "unchanged"},
}

// TestImports: an operator brings tokens of another system, and the owner must
// hold what they give.
func TestImports(t *testing.T) {
	for _, tc := range imports {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.when(tell(t)); got != tc.then {
				t.Errorf("%s, want %s", got, tc.then)
			}
		})
	}
}
