package authority_test

import (
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// endKeys lets API keys end in an account after a while.
func (s *story) endKeys(account token.ID, after time.Duration) {
	s.must(s.me(), command.ChangePolicy{Account: account, Policy: aggregate.Policy{KeysEnd: s.clock.Now().Add(after)}})
}

// accountToken is the command that makes a token of an account.
func (s *story) accountToken(account token.ID) command.CreateToken {
	return s.accountCreate(account, authoritytest.Grant(accountKey(account), accountSettingsRead))
}

var keyDecisions = []struct {
	name string
	when func(s *story) string // given and when
	then string
}{
	{"before keys end", func(s *story) string {
		_, _, by := s.join(s.Account, admin...)
		s.endKeys(s.Account, time.Hour)
		s.clock.Advance(time.Hour - time.Second)
		return s.do(by, s.accountToken(s.Account))
	}, "token.created.v1"},
	{"once keys have ended", func(s *story) string {
		_, _, by := s.join(s.Account, admin...)
		s.endKeys(s.Account, time.Hour)
		s.clock.Advance(time.Hour)
		return s.do(by, s.accountToken(s.Account))
	}, "api_keys_ended"},
	{"and to make an own token", func(s *story) string {
		user, _, by := s.join(s.Account, admin...)
		s.endKeys(s.Account, 0)
		c := s.accountToken(s.Account)
		c.Target = command.Target{ID: s.NewID(), OwnerKind: events.OwnedByUser, Owner: user}
		return s.do(by, c)
	}, "api_keys_ended"},
	{"until they end no more", func(s *story) string {
		_, _, by := s.join(s.Account, admin...)
		s.endKeys(s.Account, 0)
		s.must(s.me(), command.ChangePolicy{Account: s.Account})
		return s.do(by, s.accountToken(s.Account))
	}, "token.created.v1"},
	{"one of two accounts: there", func(s *story) string {
		user, _, by := s.join(s.Account, admin...)
		s.must(s.me(), command.AddMember{ID: s.NewID(), Account: s.ForeignAccount, User: user, Roles: admin})
		s.endKeys(s.Account, 0)
		return s.do(by, s.accountToken(s.Account))
	}, "api_keys_ended"},
	{"one of two accounts: elsewhere", func(s *story) string {
		user, _, by := s.join(s.Account, admin...)
		s.must(s.me(), command.AddMember{ID: s.NewID(), Account: s.ForeignAccount, User: user, Roles: admin})
		s.endKeys(s.Account, 0)
		return s.do(by, s.accountToken(s.ForeignAccount))
	}, "token.created.v1"},
	{"one of two accounts: an own token into it", func(s *story) string {
		user, _, by := s.join(s.Account, admin...)
		s.must(s.me(), command.AddMember{ID: s.NewID(), Account: s.ForeignAccount, User: user, Roles: admin})
		s.endKeys(s.Account, 0)
		c := s.accountToken(s.Account)
		c.Target = command.Target{ID: s.NewID(), OwnerKind: events.OwnedByUser, Owner: user}
		return s.do(by, c)
	}, "api_keys_ended"},
	{"one of two accounts: another key", func(s *story) string {
		user, _, by := s.join(s.Account, admin...)
		s.must(s.me(), command.AddMember{ID: s.NewID(), Account: s.ForeignAccount, User: user, Roles: admin})
		s.endKeys(s.Account, 0)
		return s.do(by, command.IssueAPIKey{User: user, Secret: token.Sum("another")})
	}, "apikey.rolled.v1"},
	{"a key is rolled after its end", func(s *story) string {
		user, _, by := s.join(s.Account, admin...)
		s.endKeys(s.Account, 0)
		return s.do(by, command.IssueAPIKey{User: user, Secret: token.Sum("another")})
	}, "api_keys_ended"},
	{"a key is issued after its end", func(s *story) string {
		user, _, _ := s.join(s.Account, admin...)
		s.endKeys(s.Account, 0)
		return s.do(s.me(), command.IssueAPIKey{User: user, Secret: token.Sum("another")})
	}, "api_keys_ended"},
	{"who belongs to no account", func(s *story) string {
		user, m, by := s.join(s.Account, admin...)
		s.endKeys(s.Account, 0)
		s.must(s.me(), command.RemoveMember{ID: m, Account: s.Account})
		return s.do(by, command.UpdateUser{ID: user, Name: &events.Sealed{Key: "n"}})
	}, "user.updated.v1"},
	{"a stranger is told nothing of it", func(s *story) string {
		s.endKeys(s.Account, 0)
		return s.do(s.stranger(), s.accountToken(s.Account))
	}, "not_permitted"},
	{"a token goes on", func(s *story) string {
		s.accountWriter("a")
		s.endKeys(s.Account, 0)
		return s.do(s.by("a"), command.DisableToken{Target: s.at("a")})
	}, "token.disabled.v1"},
	{"operators manage on", func(s *story) string {
		s.endKeys(s.Account, 0)
		return s.do(s.me(), s.accountToken(s.Account))
	}, "token.created.v1"},
	{"an operator's key is rolled", func(s *story) string {
		s.endKeys(s.Account, 0)
		return s.do(s.me(), command.IssueAPIKey{User: s.Operator, Secret: token.Sum("another")})
	}, "apikey.rolled.v1"},
}

// TestKeysEnd is the decision table of API keys that end.
func TestKeysEnd(t *testing.T) {
	for _, c := range keyDecisions {
		t.Run(c.name, func(t *testing.T) {
			if got := c.when(tell(t)); got != c.then {
				t.Errorf("got %s, want %s", got, c.then)
			}
		})
	}
}
