package authority_test

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

const (
	accountSettingsRead = "c1fde68c7bcc44588cbb6ddbc16d6480"
	allZones            = "com.cloudflare.api.account.zone.*"
	allAccounts         = "com.cloudflare.api.account.*"
)

// nested is a grant on what lies in outer.
func nested(outer, inner string, groups ...string) token.Grant {
	g := authoritytest.Grant(outer, groups...)
	g.Policies[0].Resources = jsontext.Value(`{"` + outer + `":{"` + inner + `":"*"}}`)
	return g
}

// reader makes a person who may only read in the operator's account.
func (s *story) reader() command.Caller {
	_, _, by := s.join(s.Account, readOnly)
	return by
}

// widener makes a token of the operator that may give more than it holds.
func (s *story) widener(name string) {
	c := s.create(authoritytest.Grant(userKey(s.Operator), apiTokensWrite))
	c.Widens = true
	s.must(s.me(), c)
	s.named[name] = c
}

var grants = []struct {
	name string
	when func(s *story) string // given and when
	then string
}{
	// Single accounts and what is registered in them.
	{"what the role holds", func(s *story) string {
		return s.do(s.reader(), s.create(authoritytest.Grant(accountKey(s.Account), accountSettingsRead)))
	}, "token.created.v1"},
	{"more than the role holds", func(s *story) string {
		return s.do(s.reader(), s.create(authoritytest.Grant(accountKey(s.Account), accountSettings)))
	}, "group_not_held"},
	{"one of two groups that the role does not hold", func(s *story) string {
		return s.do(s.reader(), s.create(authoritytest.Grant(accountKey(s.Account), accountSettingsRead, accountSettings)))
	}, "group_not_held"},
	{"a zone of the own account", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		return s.do(s.reader(), s.create(authoritytest.Grant(zone, dnsRead)))
	}, "token.created.v1"},
	{"more than the role holds on a zone", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		return s.do(s.reader(), s.create(authoritytest.Grant(zone, dnsWrite)))
	}, "group_not_held"},
	{"a zone of a foreign account", func(s *story) string {
		s.must(s.me(), register("z1", s.ForeignAccount))
		return s.do(s.reader(), s.create(authoritytest.Grant(zone, dnsRead)))
	}, "group_not_held"},
	{"operator: a zone of a foreign account", func(s *story) string {
		s.must(s.me(), register("z1", s.ForeignAccount))
		return s.do(s.me(), s.create(authoritytest.Grant(zone, dnsRead)))
	}, "group_not_held"},
	{"a zone that nobody registered", func(s *story) string {
		return s.do(s.reader(), s.create(authoritytest.Grant(zone, dnsRead)))
	}, "group_not_held"},
	{"operator: a zone that nobody registered", func(s *story) string {
		return s.do(s.me(), s.create(authoritytest.Grant(zone, dnsRead)))
	}, "token.created.v1"},
	{"operator: a zone of a removed account", func(s *story) string {
		s.must(s.me(), register("z1", s.ForeignAccount))
		s.must(s.me(), command.RemoveAccount{ID: s.ForeignAccount})
		return s.do(s.me(), s.create(authoritytest.Grant(zone, dnsRead)))
	}, "group_not_held"},
	{"operator: an account that is not there", func(s *story) string {
		return s.do(s.me(), s.create(authoritytest.Grant(accountKey(s.NewID()), accountSettings)))
	}, "group_not_held"},
	{"an account that is not there", func(s *story) string {
		return s.do(s.stranger(), s.create(authoritytest.Grant(accountKey(s.NewID()), accountSettings)))
	}, "group_not_held"},
	{"a denial of what is not held", func(s *story) string {
		g := both(authoritytest.Grant(accountKey(s.Account), accountSettingsRead), authoritytest.Grant(accountKey(s.Account), accountSettings))
		g.Policies[1].Effect = token.EffectDeny
		return s.do(s.reader(), s.create(g))
	}, "token.created.v1"},
	{"a zone that was moved away", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		by := s.reader()
		s.must(s.me(), command.MoveResource{Type: zoneType, Resource: "z1", Parent: accountKey(s.ForeignAccount)})
		return s.do(by, s.create(authoritytest.Grant(zone, dnsRead)))
	}, "group_not_held"},

	// Wildcards.
	{"all accounts, held in each", func(s *story) string {
		return s.do(s.reader(), s.create(authoritytest.Grant(allAccounts, accountSettingsRead)))
	}, "token.created.v1"},
	{"all accounts, held in one of two", func(s *story) string {
		user, _, by := s.join(s.Account, admin...)
		s.must(s.me(), command.AddMember{ID: s.NewID(), Account: s.ForeignAccount, User: user, Roles: []string{readOnly}})
		return s.do(by, s.create(authoritytest.Grant(allAccounts, accountSettings)))
	}, "group_not_held"},
	{"all zones, held in one of two accounts", func(s *story) string {
		user, _, by := s.join(s.Account, admin...)
		s.must(s.me(), command.AddMember{ID: s.NewID(), Account: s.ForeignAccount, User: user, Roles: []string{readOnly}})
		return s.do(by, s.create(authoritytest.Grant(allZones, dnsWrite)))
	}, "group_not_held"},
	{"all zones, held in the account that is left", func(s *story) string {
		user, _, by := s.join(s.Account, admin...)
		s.must(s.me(), command.AddMember{ID: s.NewID(), Account: s.ForeignAccount, User: user, Roles: []string{readOnly}})
		s.must(s.me(), command.RemoveAccount{ID: s.ForeignAccount})
		return s.do(by, s.create(authoritytest.Grant(allZones, dnsWrite)))
	}, "token.created.v1"},
	{"all accounts of one who has none", func(s *story) string {
		_, m, by := s.join(s.Account, admin...)
		s.must(s.me(), command.RemoveMember{ID: m, Account: s.Account})
		return s.do(by, s.create(authoritytest.Grant(allAccounts, accountSettingsRead)))
	}, "group_not_held"},
	{"all zones of an account", func(s *story) string {
		return s.do(s.reader(), s.create(nested(accountKey(s.Account), allZones, dnsRead)))
	}, "token.created.v1"},
	{"more than the role holds on all zones of an account", func(s *story) string {
		return s.do(s.reader(), s.create(nested(accountKey(s.Account), allZones, dnsWrite)))
	}, "group_not_held"},
	{"all zones of a foreign account", func(s *story) string {
		return s.do(s.reader(), s.create(nested(accountKey(s.ForeignAccount), allZones, dnsRead)))
	}, "group_not_held"},
	{"a foreign zone in the own account", func(s *story) string {
		s.must(s.me(), register("z1", s.ForeignAccount))
		return s.do(s.reader(), s.create(nested(accountKey(s.Account), zone, dnsRead)))
	}, "group_not_held"},
	{"an unregistered zone in the own account", func(s *story) string {
		return s.do(s.reader(), s.create(nested(accountKey(s.Account), zone, dnsRead)))
	}, "token.created.v1"},

	// Account tokens.
	{"account's token for all zones everywhere", func(s *story) string {
		return s.do(s.me(), s.accountCreate(s.Account, authoritytest.Grant(allZones, dnsWrite)))
	}, "group_not_held"},
	{"account's token for all accounts", func(s *story) string {
		return s.do(s.me(), s.accountCreate(s.Account, authoritytest.Grant(allAccounts, accountSettings)))
	}, "group_not_held"},
	{"account's token for a zone in it", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		return s.do(s.me(), s.accountCreate(s.Account, authoritytest.Grant(zone, dnsWrite)))
	}, "token.created.v1"},
	{"account's token for the zone of another account of the maker", func(s *story) string {
		s.must(s.me(), command.AddMember{ID: s.NewID(), Account: s.ForeignAccount, User: s.Operator, Roles: admin})
		s.must(s.me(), register("z1", s.ForeignAccount))
		return s.do(s.me(), s.accountCreate(s.Account, authoritytest.Grant(zone, dnsWrite)))
	}, "group_not_held"},
	{"account's token for an account that is not there", func(s *story) string {
		return s.do(s.me(), s.accountCreate(s.Account, authoritytest.Grant(accountKey(s.NewID()), accountSettings)))
	}, "group_not_held"},
	{"account's token for a user", func(s *story) string {
		return s.do(s.me(), s.accountCreate(s.Account, authoritytest.Grant(userKey(s.Operator), apiTokensRead)))
	}, "group_not_held"},
	{"reader makes an account's token", func(s *story) string {
		return s.do(s.reader(), s.accountCreate(s.Account, authoritytest.Grant(accountKey(s.Account), accountSettingsRead)))
	}, "not_permitted"},
	{"account's token survives its maker", func(s *story) string {
		user, _, by := s.join(s.Account, admin...)
		c := s.accountCreate(s.Account, authoritytest.Grant(accountKey(s.Account), accountTokensWrite))
		s.must(by, c)
		s.named["a"] = c
		s.must(s.me(), command.RemoveUser{ID: user})
		return s.do(s.by("a"), s.accountCreate(s.Account, authoritytest.Grant(accountKey(s.Account), accountTokensWrite)))
	}, "token.created.v1"},
	{"user's token does not", func(s *story) string {
		user, _, by := s.join(s.Account, admin...)
		c := s.create(authoritytest.Grant(userKey(user), apiTokensWrite))
		s.must(by, c)
		s.named["u"] = c
		s.must(s.me(), command.RemoveUser{ID: user})
		return s.do(s.by("u"), s.create(authoritytest.Grant(userKey(user), apiTokensRead)))
	}, "invalid_access_token"},

	// Account tokens in the hands of those who hold less.
	{"an admin without what it names rolls an account's token", func(s *story) string {
		s.accountWriter("a") // names a zone that nobody registered
		_, _, by := s.join(s.Account, admin...)
		return s.do(by, s.roll("a"))
	}, "group_not_held"},
	{"an admin who holds all rolls an account's token", func(s *story) string {
		s.settingsToken("a")
		_, _, by := s.join(s.Account, admin...)
		return s.do(by, s.roll("a"))
	}, "token.rolled.v1"},
	{"an admin without what it names ends an account's token", func(s *story) string {
		s.accountWriter("a")
		_, _, by := s.join(s.Account, admin...)
		return s.do(by, command.RevokeToken{Target: s.at("a")})
	}, "token.revoked.v1"},

	// Giving more than one holds.
	{"token that widens", func(s *story) string {
		s.widener("w")
		return s.do(s.by("w"), s.create(authoritytest.Grant(accountKey(s.Account), accountSettings)))
	}, "token.created.v1"},
	{"token that widens, beyond its user", func(s *story) string {
		s.widener("w")
		return s.do(s.by("w"), s.create(authoritytest.Grant(accountKey(s.ForeignAccount), accountSettings)))
	}, "group_not_held"},
	{"token that widens makes one", func(s *story) string {
		s.widener("w")
		c := s.create(authoritytest.Grant(userKey(s.Operator), apiTokensWrite))
		c.Widens = true
		return s.do(s.by("w"), c)
	}, "token.created.v1"},
	{"token that does not widen makes one", func(s *story) string {
		s.writer("w")
		c := s.create(authoritytest.Grant(userKey(s.Operator), apiTokensWrite))
		c.Widens = true
		return s.do(s.by("w"), c)
	}, "not_permitted"},
	{"account's token that widens", func(s *story) string {
		c := s.accountCreate(s.Account, authoritytest.Grant(accountKey(s.Account), accountTokensWrite))
		c.Widens = true
		return s.do(s.me(), c)
	}, "not_permitted"},
	{"token rolls one that widens", func(s *story) string {
		s.writer("w")
		s.widener("v")
		return s.do(s.by("w"), s.roll("v"))
	}, "not_permitted"},
	{"token enables one that widens", func(s *story) string {
		s.writer("w")
		s.widener("v")
		s.must(s.me(), command.DisableToken{Target: s.at("v")})
		return s.do(s.by("w"), command.EnableToken{Target: s.at("v")})
	}, "not_permitted"},
	{"token makes another widen", func(s *story) string {
		s.writer("w")
		s.make("v", authoritytest.Grant(zone, dnsRead))
		c := s.update("v", authoritytest.Grant(zone, dnsRead))
		c.Widens = new(true)
		return s.do(s.by("w"), c)
	}, "not_permitted"},
	{"key makes a token widen", func(s *story) string {
		s.make("v", authoritytest.Grant(userKey(s.Operator), apiTokensWrite))
		c := s.update("v", authoritytest.Grant(userKey(s.Operator), apiTokensWrite))
		c.Widens = new(true)
		s.must(s.me(), c)
		return s.do(s.by("v"), s.create(authoritytest.Grant(accountKey(s.Account), accountSettings)))
	}, "token.created.v1"},
	{"an update that says nothing of it", func(s *story) string {
		s.widener("v")
		s.must(s.me(), s.update("v", authoritytest.Grant(userKey(s.Operator), apiTokensWrite)))
		return s.do(s.by("v"), s.create(authoritytest.Grant(accountKey(s.Account), accountSettings)))
	}, "token.created.v1"},
	{"token that no longer widens", func(s *story) string {
		s.widener("v")
		c := s.update("v", authoritytest.Grant(userKey(s.Operator), apiTokensWrite))
		c.Widens = new(bool)
		s.must(s.me(), c)
		return s.do(s.by("v"), s.create(authoritytest.Grant(accountKey(s.Account), accountSettings)))
	}, "group_not_held"},
	{"what was held when the token was made and is not now", func(s *story) string {
		_, m, by := s.join(s.Account, admin...)
		c := s.create(authoritytest.Grant(accountKey(s.Account), accountSettings))
		s.must(by, c)
		s.must(s.me(), command.ChangeMember{ID: m, Account: s.Account, Roles: []string{readOnly}})
		return s.do(by, command.UpdateToken{Target: c.Target, Name: "n", Grant: c.Grant})
	}, "group_not_held"},
}

func TestGrants(t *testing.T) {
	for _, c := range grants {
		t.Run(c.name, func(t *testing.T) {
			if got := c.when(tell(t)); got != c.then {
				t.Errorf("got %s, want %s", got, c.then)
			}
		})
	}
}

// TestForeignGrantAndUnknownAlike compares the whole refusals of what others
// have with those of what is not there.
func TestForeignGrantAndUnknownAlike(t *testing.T) {
	s := tell(t)
	s.must(s.me(), register("z1", s.Account))
	refusal := func(g token.Grant) string {
		_, err := s.decide(s.stranger(), s.create(g))
		if fault.From(err).Code != fault.GroupNotHeld {
			t.Fatalf("it gave %v", err)
		}
		f := fault.From(err)
		return f.Error() + string(f.Pointer)
	}
	for _, c := range [][2]token.Grant{
		{authoritytest.Grant(zone, dnsRead, dnsWrite), authoritytest.Grant(zone2, dnsRead, dnsWrite)},
		{authoritytest.Grant(accountKey(s.Account), accountTokensWrite, accountSettings), authoritytest.Grant(accountKey(s.NewID()), accountTokensWrite, accountSettings)},
		{nested(accountKey(s.Account), allZones, dnsRead), nested(accountKey(s.NewID()), allZones, dnsRead)},
		{authoritytest.Grant(userKey(s.Operator), apiTokensRead), authoritytest.Grant(userKey(s.NewID()), apiTokensRead)},
	} {
		if foreign, unknown := refusal(c[0]), refusal(c[1]); foreign != unknown {
			t.Errorf("foreign: %s; unknown: %s", foreign, unknown)
		}
	}
}
