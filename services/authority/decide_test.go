package authority_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/authority"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

// Permission groups of the built-in catalogue.
const (
	dnsWrite           = authoritytest.DNSWrite
	dnsRead            = "82e64a83756745bbbb1c9c2701bf816b"
	apiTokensWrite     = "686d18d5ac6c441c867cbf6771e58a0a"
	apiTokensRead      = "0cc3a61731504c89b99ec1be78b77aa0"
	accountTokensWrite = "5bc3f8b21c554832afc660159ab75fa4"
	accountSettings    = "1af1fa2adc104452b74a9a3364202f20"
)

const (
	zone  = "com.cloudflare.api.account.zone.z1"
	zone2 = "com.cloudflare.api.account.zone.z2"
)

func userKey(id token.ID) string    { return "com.cloudflare.api.user." + id.String() }
func accountKey(id token.ID) string { return "com.cloudflare.api.account." + id.String() }

// story is a past that is made of decisions: each one that gives an event is
// applied to it.
type story struct {
	*authoritytest.Installation
	t     *testing.T
	past  *authoritytest.Directory
	clock eventstest.Clock
	named map[string]command.CreateToken

	catalogues aggregate.Catalogues
	quota      command.Quota
}

func tell(t *testing.T) *story {
	s := &story{Installation: authoritytest.NewInstallation(), t: t, past: authoritytest.NewDirectory(), named: map[string]command.CreateToken{}}
	for _, cmd := range s.People() {
		s.must(command.Caller{System: true}, cmd)
	}
	return s
}

func (s *story) decide(by command.Caller, cmd command.Command) (authority.Decided, error) {
	return authority.DecideIn(&s.catalogues, s.quota, s.past, by, cmd, s.clock.Now(), s.NewID)
}

// do returns the name of the event, "unchanged", or the code of the fault.
func (s *story) do(by command.Caller, cmd command.Command) string {
	s.t.Helper()
	out, err := s.decide(by, cmd)
	if err != nil {
		return string(fault.From(err).Code)
	}
	if out.Draft.Data == nil {
		return "unchanged"
	}
	_, c, err := events.Compose(s.past.Position(), []events.Draft{out.Draft})
	if err != nil {
		s.t.Fatalf("%s: %v", cmd.Verb(), err)
	}
	if err := s.past.Apply(&c); err != nil {
		s.t.Fatalf("%s: %v", cmd.Verb(), err)
	}
	if r := c.Records[0]; r.Actor.Kind == "" || !strings.HasSuffix(r.Subject, r.SubjectID().String()) {
		s.t.Fatalf("%s: envelope %+v", cmd.Verb(), r.Envelope)
	}
	return c.Records[0].Name
}

func (s *story) must(by command.Caller, cmd command.Command) {
	s.t.Helper()
	if got := s.do(by, cmd); !strings.HasSuffix(got, ".v1") {
		s.t.Fatalf("%s: %s", cmd.Verb(), got)
	}
}

// make makes a token of the operator and remembers it under a name.
func (s *story) make(name string, g token.Grant) command.CreateToken {
	s.t.Helper()
	return s.makeFor(name, events.OwnedByUser, token.ID{}, g)
}

func (s *story) makeFor(name string, kind events.OwnerKind, owner token.ID, g token.Grant) command.CreateToken {
	s.t.Helper()
	c := command.CreateToken{Target: command.Target{ID: s.NewID(), OwnerKind: kind, Owner: owner}, Name: name, Grant: g, Secret: s.NewSecret()}
	s.must(s.me(), c)
	s.named[name] = c
	return c
}

func (s *story) me() command.Caller       { return authoritytest.ByKey(s.Operator) }
func (s *story) stranger() command.Caller { return authoritytest.ByKey(s.Stranger) }

// by is the caller who has the named token's first secret.
func (s *story) by(name string) command.Caller {
	c := s.named[name]
	kind := token.KindUser
	if c.OwnerKind == events.OwnedByAccount {
		kind = token.KindAccount
	}
	return command.Caller{Kind: kind, Digest: c.Secret, Address: netip.MustParseAddr("192.0.2.1")}
}

func (s *story) at(name string) command.Target { return s.named[name].Target }

func (s *story) create(g token.Grant) command.CreateToken {
	c := s.Create()
	c.Grant = g
	return c
}

func both(gs ...token.Grant) token.Grant {
	var out token.Grant
	for _, g := range gs {
		out.Policies = append(out.Policies, g.Policies...)
	}
	return out
}

// writer makes a token that may write its user's tokens and holds DNS Write on
// a zone.
func (s *story) writer(name string) {
	s.make(name, both(authoritytest.Grant(userKey(s.Operator), apiTokensWrite), authoritytest.Grant(zone, dnsWrite)))
}

// accountWriter makes an account's token that may write that account's tokens.
func (s *story) accountWriter(name string) {
	s.makeFor(name, events.OwnedByAccount, s.Account, both(
		authoritytest.Grant(accountKey(s.Account), accountTokensWrite, accountSettings), authoritytest.Grant(zone, dnsWrite)))
}

func (s *story) accountCreate(owner token.ID, g token.Grant) command.CreateToken {
	c := s.create(g)
	c.OwnerKind, c.Owner = events.OwnedByAccount, owner
	return c
}

func (s *story) roll(name string) command.RollToken {
	return command.RollToken{Target: s.at(name), Secret: s.NewSecret()}
}

func (s *story) update(name string, g token.Grant) command.UpdateToken {
	return command.UpdateToken{Target: s.at(name), Name: "renamed", Grant: g}
}

// decision is a command in a story and what comes of it.
type decision struct {
	name string
	when func(s *story) string // given and when
	then string
}

var decisions = []decision{
	// Who asks.
	{"key creates", func(s *story) string { return s.do(s.me(), s.Create()) }, "token.created.v1"},
	{"unknown key", func(s *story) string {
		return s.do(command.Caller{Kind: token.KindKey, Digest: s.NewSecret(), EmailIndex: "x"}, s.Create())
	}, "invalid_api_key"},
	{"key with another's e-mail", func(s *story) string {
		c := s.me()
		c.EmailIndex = authoritytest.EmailOf(s.Stranger)
		return s.do(c, s.Create())
	}, "invalid_api_key"},
	{"key without e-mail", func(s *story) string { c := s.me(); c.EmailIndex = ""; return s.do(c, s.Create()) }, "invalid_api_key"},
	{"key as a token", func(s *story) string { c := s.me(); c.Kind = token.KindUser; return s.do(c, s.Create()) }, "invalid_access_token"},
	{"nobody", func(s *story) string { return s.do(command.Caller{}, s.Create()) }, "invalid_access_token"},
	{"unknown token", func(s *story) string {
		return s.do(command.Caller{Kind: token.KindUser, Digest: s.NewSecret()}, s.Create())
	}, "invalid_access_token"},
	{"rolled key", func(s *story) string {
		s.must(s.me(), command.IssueAPIKey{User: s.Operator, Secret: s.NewSecret()})
		return s.do(s.me(), s.Create())
	}, "invalid_api_key"},
	{"enforcer's key", func(s *story) string {
		secret := s.NewSecret()
		s.must(s.me(), command.EnrollEnforcer{ID: s.NewID(), Name: "edge", Secret: secret})
		return s.do(command.Caller{Kind: token.KindEnforcer, Digest: secret}, s.Create())
	}, "invalid_access_token"},
	{"token creates what it holds", func(s *story) string { s.writer("w"); return s.do(s.by("w"), s.Create()) }, "token.created.v1"},
	{"revoked token", func(s *story) string {
		s.writer("w")
		s.must(s.me(), command.RevokeToken{Target: s.at("w")})
		return s.do(s.by("w"), s.Create())
	}, "invalid_access_token"},
	{"disabled token", func(s *story) string {
		s.writer("w")
		s.must(s.me(), command.DisableToken{Target: s.at("w")})
		return s.do(s.by("w"), s.Create())
	}, "inactive_access_token"},
	{"expired token", func(s *story) string {
		g := both(authoritytest.Grant(userKey(s.Operator), apiTokensWrite))
		g.ExpiresOn = s.clock.Now().Add(time.Hour)
		s.make("w", g)
		s.clock.Advance(time.Hour)
		return s.do(s.by("w"), s.Create())
	}, "inactive_access_token"},
	{"token before its time", func(s *story) string {
		g := authoritytest.Grant(userKey(s.Operator), apiTokensWrite)
		g.NotBefore = s.clock.Now().Add(time.Hour)
		s.make("w", g)
		return s.do(s.by("w"), s.Create())
	}, "inactive_access_token"},
	{"token from elsewhere", func(s *story) string {
		g := authoritytest.Grant(userKey(s.Operator), apiTokensWrite)
		g.Condition = &token.Condition{RequestIP: token.RequestIP{In: []string{"198.51.100.0/24"}}}
		s.make("w", g)
		return s.do(s.by("w"), s.Create())
	}, "address_refused"},
	{"rolled secret", func(s *story) string {
		s.writer("w")
		s.must(s.me(), s.roll("w"))
		return s.do(s.by("w"), s.Create())
	}, "invalid_access_token"},
	{"rolled secret in its grace", func(s *story) string {
		s.writer("w")
		roll := s.roll("w")
		roll.Grace = time.Hour
		s.must(s.me(), roll)
		return s.do(s.by("w"), s.Create())
	}, "token.created.v1"},
	{"rolled secret after its grace", func(s *story) string {
		s.writer("w")
		roll := s.roll("w")
		roll.Grace = time.Hour
		s.must(s.me(), roll)
		s.clock.Advance(time.Hour)
		return s.do(s.by("w"), s.Create())
	}, "invalid_access_token"},

	// What they may do.
	{"token without the permission", func(s *story) string {
		s.make("r", both(authoritytest.Grant(userKey(s.Operator), apiTokensRead), authoritytest.Grant(zone, dnsWrite)))
		return s.do(s.by("r"), s.Create())
	}, "not_permitted"},
	{"key for another user", func(s *story) string {
		c := s.Create()
		c.Owner = s.Stranger
		return s.do(s.me(), c)
	}, "not_permitted"},
	{"key for a user who is not there", func(s *story) string { c := s.Create(); c.Owner = s.NewID(); return s.do(s.me(), c) }, "not_permitted"},
	{"key for the own account", func(s *story) string {
		return s.do(s.me(), s.accountCreate(s.Account, authoritytest.Grant(accountKey(s.Account), accountSettings)))
	}, "token.created.v1"},
	{"key for a foreign account", func(s *story) string {
		return s.do(s.me(), s.accountCreate(s.ForeignAccount, authoritytest.Grant(zone, dnsWrite)))
	}, "not_permitted"},
	{"key for an account that is not there", func(s *story) string {
		return s.do(s.me(), s.accountCreate(s.NewID(), authoritytest.Grant(zone, dnsWrite)))
	}, "not_permitted"},
	{"account's token in its account", func(s *story) string {
		s.accountWriter("a")
		return s.do(s.by("a"), s.accountCreate(s.Account, authoritytest.Grant(zone, dnsRead)))
	}, "token.created.v1"},
	{"account's token in another account", func(s *story) string {
		s.accountWriter("a")
		return s.do(s.by("a"), s.accountCreate(s.ForeignAccount, authoritytest.Grant(zone, dnsRead)))
	}, "not_permitted"},
	{"account's token for a user", func(s *story) string { s.accountWriter("a"); return s.do(s.by("a"), s.Create()) }, "not_permitted"},
	{"user's token in an account it is for", func(s *story) string {
		s.make("u", authoritytest.Grant(accountKey(s.Account), accountTokensWrite))
		return s.do(s.by("u"), s.accountCreate(s.Account, authoritytest.Grant(accountKey(s.Account), accountTokensWrite)))
	}, "token.created.v1"},
	{"user's token in an account it is not for", func(s *story) string {
		s.writer("u")
		return s.do(s.by("u"), s.accountCreate(s.Account, authoritytest.Grant(zone, dnsWrite)))
	}, "not_permitted"},
	{"the system wants no token", func(s *story) string { return s.do(command.Caller{System: true}, s.Create()) }, "not_permitted"},

	// What they may grant.
	{"more than the token holds: group", func(s *story) string {
		s.writer("w")
		return s.do(s.by("w"), s.create(authoritytest.Grant(userKey(s.Operator), apiTokensRead, "9201bc6f42d440968aaab0c6f17ebb1d")))
	}, "group_not_held"},
	{"more than the token holds: zone", func(s *story) string {
		s.writer("w")
		return s.do(s.by("w"), s.create(authoritytest.Grant(zone2, dnsWrite)))
	}, "group_not_held"},
	{"less than the token holds", func(s *story) string {
		s.writer("w")
		return s.do(s.by("w"), s.create(authoritytest.Grant(zone, dnsRead)))
	}, "token.created.v1"},
	{"longer than the token lives", func(s *story) string {
		g := both(authoritytest.Grant(userKey(s.Operator), apiTokensWrite), authoritytest.Grant(zone, dnsWrite))
		g.ExpiresOn = s.clock.Now().Add(time.Hour)
		s.make("w", g)
		return s.do(s.by("w"), s.create(authoritytest.Grant(zone, dnsWrite)))
	}, "group_not_held"},
	{"a begin that has passed binds nobody", func(s *story) string {
		g := both(authoritytest.Grant(userKey(s.Operator), apiTokensWrite), authoritytest.Grant(zone, dnsWrite))
		g.NotBefore = s.clock.Now().Add(time.Minute)
		s.make("w", g)
		s.clock.Advance(time.Hour)
		return s.do(s.by("w"), s.create(authoritytest.Grant(zone, dnsWrite)))
	}, "token.created.v1"},
	{"another user's resources", func(s *story) string {
		return s.do(s.me(), s.create(authoritytest.Grant(userKey(s.Stranger), apiTokensRead)))
	}, "group_not_held"},
	{"all users' resources", func(s *story) string {
		return s.do(s.me(), s.create(authoritytest.Grant("com.cloudflare.api.user.*", apiTokensRead)))
	}, "group_not_held"},
	{"a foreign account's resources", func(s *story) string {
		return s.do(s.me(), s.create(authoritytest.Grant(accountKey(s.ForeignAccount), accountSettings)))
	}, "group_not_held"},
	{"the zones of a foreign account", func(s *story) string {
		g := authoritytest.Grant(zone, dnsWrite)
		g.Policies[0].Resources = jsontext.Value(`{"` + accountKey(s.ForeignAccount) + `":{"com.cloudflare.api.account.zone.*":"*"}}`)
		return s.do(s.me(), s.create(g))
	}, "group_not_held"},
	{"a denial about a foreign account gives nothing", func(s *story) string {
		deny := authoritytest.Grant(accountKey(s.ForeignAccount), accountSettings)
		deny.Policies[0].Effect = token.EffectDeny
		return s.do(s.me(), s.create(both(authoritytest.Grant(zone, dnsWrite), deny)))
	}, "token.created.v1"},
	{"account's token for all zones everywhere", func(s *story) string {
		return s.do(s.me(), s.accountCreate(s.Account, authoritytest.Grant("com.cloudflare.api.account.zone.*", dnsWrite)))
	}, "group_not_held"},
	{"account's token for all zones of its account", func(s *story) string {
		g := authoritytest.Grant(zone, dnsWrite)
		g.Policies[0].Resources = jsontext.Value(`{"` + accountKey(s.Account) + `":{"com.cloudflare.api.account.zone.*":"*"}}`)
		return s.do(s.me(), s.accountCreate(s.Account, g))
	}, "token.created.v1"},
	{"unknown group", func(s *story) string {
		return s.do(s.me(), s.create(authoritytest.Grant(zone, strings.Repeat("0", 32))))
	}, "unknown_permission_group"},
	{"group of another scope", func(s *story) string { return s.do(s.me(), s.create(authoritytest.Grant(zone, apiTokensRead))) }, "group_scope_mismatch"},
	{"resources of no type", func(s *story) string {
		return s.do(s.me(), s.create(authoritytest.Grant("com.example.thing.1", dnsRead)))
	}, "invalid_resources"},
	{"resources that are no JSON", func(s *story) string {
		g := authoritytest.Grant(zone, dnsRead)
		g.Policies[0].Resources = jsontext.Value(`{"`)
		return s.do(s.me(), s.create(g))
	}, "invalid_resources"},
	{"no policy", func(s *story) string { return s.do(s.me(), s.create(token.Grant{})) }, "invalid_policies"},
	{"bad prefix", func(s *story) string {
		g := authoritytest.Grant(zone, dnsRead)
		g.Condition = &token.Condition{RequestIP: token.RequestIP{In: []string{"192.0.2.0/99"}}}
		return s.do(s.me(), s.create(g))
	}, "invalid_cidr"},
	{"ends before it begins", func(s *story) string {
		g := authoritytest.Grant(zone, dnsRead)
		g.NotBefore, g.ExpiresOn = s.clock.Now(), s.clock.Now().Add(-time.Hour)
		return s.do(s.me(), s.create(g))
	}, "invalid_times"},

	// Creating.
	{"no name", func(s *story) string { c := s.Create(); c.Name = ""; return s.do(s.me(), c) }, "invalid_name"},
	{"long name", func(s *story) string { c := s.Create(); c.Name = strings.Repeat("ä", 121); return s.do(s.me(), c) }, "invalid_name"},
	{"longest name", func(s *story) string { c := s.Create(); c.Name = strings.Repeat("ä", 120); return s.do(s.me(), c) }, "token.created.v1"},
	{"a name that turns text around", func(s *story) string { c := s.Create(); c.Name = "a\u202eb"; return s.do(s.me(), c) }, "invalid_text"},
	{"a name with what is not seen", func(s *story) string { c := s.Create(); c.Name = "a\u200bb"; return s.do(s.me(), c) }, "invalid_text"},
	{"line break in a name", func(s *story) string { c := s.Create(); c.Name = "a\r\nb"; return s.do(s.me(), c) }, "invalid_text"},
	{"no id", func(s *story) string { c := s.Create(); c.ID = token.ID{}; return s.do(s.me(), c) }, "invalid_field"},
	{"no secret", func(s *story) string { c := s.Create(); c.Secret = token.Digest{}; return s.do(s.me(), c) }, "invalid_field"},
	{"id in use", func(s *story) string {
		c := s.make("t", authoritytest.Grant(zone, dnsRead))
		c.Secret = s.NewSecret()
		return s.do(s.me(), c)
	}, "conflict"},
	{"secret in use", func(s *story) string {
		c := s.Create()
		c.Secret = s.make("t", authoritytest.Grant(zone, dnsRead)).Secret
		return s.do(s.me(), c)
	}, "conflict"},
	{"secret in use as a key", func(s *story) string {
		c := s.Create()
		c.Secret = authoritytest.KeyOf(s.Stranger)
		return s.do(s.me(), c)
	}, "conflict"},
	{"the same command twice", func(s *story) string { return s.do(s.me(), s.make("t", authoritytest.Grant(zone, dnsRead))) }, "unchanged"},

	// Which token.
	{"roll of no token", func(s *story) string {
		return s.do(s.me(), command.RollToken{Target: command.Target{ID: s.NewID(), OwnerKind: events.OwnedByUser}, Secret: s.NewSecret()})
	}, "token_not_found"},
	{"roll of a foreign token", func(s *story) string { s.writer("w"); return s.do(s.stranger(), s.roll("w")) }, "token_not_found"},
	{"roll under the wrong owner", func(s *story) string {
		s.accountWriter("a")
		c := s.roll("a")
		c.OwnerKind, c.Owner = events.OwnedByUser, token.ID{}
		return s.do(s.me(), c)
	}, "token_not_found"},
	{"roll by one who may manage nothing", func(s *story) string {
		s.make("r", authoritytest.Grant(zone, dnsWrite))
		return s.do(s.by("r"), s.roll("r"))
	}, "not_permitted"},
	{"roll after revoke", func(s *story) string {
		s.writer("w")
		s.must(s.me(), command.RevokeToken{Target: s.at("w")})
		return s.do(s.me(), s.roll("w"))
	}, "token_revoked"},
	{"revoke after revoke", func(s *story) string {
		s.writer("w")
		s.must(s.me(), command.RevokeToken{Target: s.at("w")})
		return s.do(s.me(), command.RevokeToken{Target: s.at("w")})
	}, "already_revoked"},

	// Rolling.
	{"roll", func(s *story) string { s.writer("w"); return s.do(s.me(), s.roll("w")) }, "token.rolled.v1"},
	{"roll itself", func(s *story) string { s.writer("w"); return s.do(s.by("w"), s.roll("w")) }, "token.rolled.v1"},
	{"roll a token that holds more", func(s *story) string {
		s.writer("w")
		s.make("strong", authoritytest.Grant(zone2, dnsWrite))
		return s.do(s.by("w"), s.roll("strong"))
	}, "group_not_held"},
	{"roll a token that holds less", func(s *story) string {
		s.writer("w")
		s.make("weak", authoritytest.Grant(zone, dnsRead))
		return s.do(s.by("w"), s.roll("weak"))
	}, "token.rolled.v1"},
	{"negative grace", func(s *story) string { s.writer("w"); c := s.roll("w"); c.Grace = -1; return s.do(s.me(), c) }, "invalid_grace"},
	{"long grace", func(s *story) string {
		s.writer("w")
		c := s.roll("w")
		c.Grace = authority.GraceMax + 1
		return s.do(s.me(), c)
	}, "invalid_grace"},
	{"longest grace", func(s *story) string {
		s.writer("w")
		c := s.roll("w")
		c.Grace = authority.GraceMax
		return s.do(s.me(), c)
	}, "token.rolled.v1"},
	{"roll during a grace", func(s *story) string {
		s.writer("w")
		c := s.roll("w")
		c.Grace = time.Hour
		s.must(s.me(), c)
		return s.do(s.me(), s.roll("w"))
	}, "grace_running"},
	{"forced roll during a grace", func(s *story) string {
		s.writer("w")
		c := s.roll("w")
		c.Grace = time.Hour
		s.must(s.me(), c)
		c = s.roll("w")
		c.Force = true
		return s.do(s.me(), c)
	}, "token.rolled.v1"},
	{"roll after a grace", func(s *story) string {
		s.writer("w")
		c := s.roll("w")
		c.Grace = time.Hour
		s.must(s.me(), c)
		s.clock.Advance(time.Hour)
		return s.do(s.me(), s.roll("w"))
	}, "token.rolled.v1"},
	{"roll to a secret in use", func(s *story) string {
		s.writer("w")
		c := s.roll("w")
		c.Secret = authoritytest.KeyOf(s.Stranger)
		return s.do(s.me(), c)
	}, "conflict"},
	{"the same roll twice", func(s *story) string {
		s.writer("w")
		c := s.roll("w")
		s.must(s.me(), c)
		return s.do(s.me(), c)
	}, "unchanged"},

	// Changing.
	{"update", func(s *story) string {
		s.writer("w")
		return s.do(s.me(), s.update("w", authoritytest.Grant(zone, dnsRead)))
	}, "token.updated.v1"},
	{"update itself", func(s *story) string {
		s.writer("w")
		return s.do(s.by("w"), s.update("w", authoritytest.Grant(zone, dnsRead)))
	}, "not_permitted"},
	{"update beyond the token", func(s *story) string {
		s.writer("w")
		s.make("t", authoritytest.Grant(zone, dnsRead))
		return s.do(s.by("w"), s.update("t", authoritytest.Grant(zone2, dnsRead)))
	}, "group_not_held"},
	{"update to a strange status", func(s *story) string {
		s.writer("w")
		c := s.update("w", authoritytest.Grant(zone, dnsRead))
		c.Status = "revoked"
		return s.do(s.me(), c)
	}, "invalid_status"},
	{"disable", func(s *story) string { s.writer("w"); return s.do(s.me(), command.DisableToken{Target: s.at("w")}) }, "token.disabled.v1"},
	{"enable the enabled", func(s *story) string { s.writer("w"); return s.do(s.me(), command.EnableToken{Target: s.at("w")}) }, "unchanged"},
	{"enable", func(s *story) string {
		s.writer("w")
		s.must(s.me(), command.DisableToken{Target: s.at("w")})
		return s.do(s.me(), command.EnableToken{Target: s.at("w")})
	}, "token.enabled.v1"},
	{"revoke itself", func(s *story) string { s.writer("w"); return s.do(s.by("w"), command.RevokeToken{Target: s.at("w")}) }, "token.revoked.v1"},
	{"long reason", func(s *story) string {
		s.writer("w")
		return s.do(s.me(), command.RevokeToken{Target: s.at("w"), Reason: strings.Repeat("x", 257)})
	}, "invalid_reason"},

	// Who runs the installation.
	{"user rolls the own key", func(s *story) string {
		return s.do(s.me(), command.IssueAPIKey{User: s.Operator, Secret: s.NewSecret()})
	}, "apikey.rolled.v1"},
	{"user rolls another's key", func(s *story) string {
		return s.do(s.stranger(), command.IssueAPIKey{User: s.Operator, Secret: s.NewSecret()})
	}, "not_permitted"},
	{"token rolls its user's key", func(s *story) string {
		s.writer("w")
		return s.do(s.by("w"), command.IssueAPIKey{User: s.Operator, Secret: s.NewSecret()})
	}, "not_permitted"},
	{"an address twice", func(s *story) string {
		return s.do(command.Caller{System: true}, command.RegisterUser{ID: s.NewID(), EmailIndex: authoritytest.EmailOf(s.Operator)})
	}, "conflict"},
	{"a membership twice", func(s *story) string {
		return s.do(command.Caller{System: true}, command.AddMember{ID: s.NewID(), Account: s.Account, User: s.Operator, Roles: []string{authority.SuperAdministrator}})
	}, "conflict"},

	// A lost answer.
	{"repeat of a creation", func(s *story) string { return s.repeatCreate(0, nil) }, "token.rolled.v1"},
	{"repeat within the minute", func(s *story) string { return s.repeatCreate(time.Minute, nil) }, "token.rolled.v1"},
	{"repeat after the minute", func(s *story) string { return s.repeatCreate(time.Minute+time.Millisecond, nil) }, "token.created.v1"},
	{"repeat after a roll", func(s *story) string {
		return s.repeatCreate(0, func(at command.Target) command.Command { return command.RollToken{Target: at, Secret: s.NewSecret()} })
	}, "token.created.v1"},
	{"repeat after a change", func(s *story) string {
		return s.repeatCreate(time.Second, func(at command.Target) command.Command { return command.DisableToken{Target: at} })
	}, "token.created.v1"},
	{"repeat after the end", func(s *story) string {
		return s.repeatCreate(0, func(at command.Target) command.Command { return command.RevokeToken{Target: at} })
	}, "token.created.v1"},
	{"undeclared repeat", func(s *story) string {
		c := s.Create()
		c.Request = "r1"
		s.must(s.me(), c)
		again := s.Create()
		again.Request = "r1"
		return s.do(s.me(), again)
	}, "token.created.v1"},
	{"repeat of a request that was never heard", func(s *story) string {
		c := s.Create()
		c.Request, c.Repeat = "r1", true
		return s.do(s.me(), c)
	}, "token.created.v1"},
	{"repeat by another owner", func(s *story) string {
		c := s.Create()
		c.Request = "r1"
		s.must(s.me(), c)
		again := s.create(authoritytest.Grant(accountKey(s.ForeignAccount), accountSettings))
		again.Request, again.Repeat = "r1", true
		return s.do(s.stranger(), again)
	}, "token.created.v1"},
	{"repeat of a roll", func(s *story) string { return s.repeatRoll(nil) }, "token.rolled.v1"},
	{"repeat of a roll after another", func(s *story) string {
		return s.repeatRoll(func(at command.Target) command.Command {
			return command.RollToken{Target: at, Secret: s.NewSecret(), Force: true, Grace: time.Hour}
		})
	}, "grace_running"},
}

// repeatCreate creates, lets something happen meanwhile, and repeats.
func (s *story) repeatCreate(after time.Duration, meanwhile func(command.Target) command.Command) string {
	c := s.Create()
	c.Request = "r1"
	s.must(s.me(), c)
	s.clock.Advance(after)
	if meanwhile != nil {
		s.must(s.me(), meanwhile(c.Target))
	}
	again := s.Create()
	again.Request, again.Repeat = "r1", true
	return s.do(s.me(), again)
}

func (s *story) repeatRoll(meanwhile func(command.Target) command.Command) string {
	s.writer("w")
	c := s.roll("w")
	c.Request, c.Grace = "r1", time.Hour
	s.must(s.me(), c)
	if meanwhile != nil {
		s.must(s.me(), meanwhile(c.Target))
	}
	again := s.roll("w")
	again.Request, again.Grace, again.Repeat = "r1", time.Hour, true
	return s.do(s.me(), again)
}

func TestDecide(t *testing.T) {
	for _, c := range slices.Concat(decisions, enrolments) {
		t.Run(c.name, func(t *testing.T) {
			if got := c.when(tell(t)); got != c.then {
				t.Errorf("got %s, want %s", got, c.then)
			}
		})
	}
}

// TestRedelivery looks at what a repeat leaves: the same token with the new
// secret, whose older secret and grace are untouched.
func TestRedelivery(t *testing.T) {
	s := tell(t)
	s.writer("w")
	first := s.named["w"].Secret
	roll := s.roll("w")
	roll.Request, roll.Grace = "r1", time.Hour
	s.must(s.me(), roll)
	again := s.roll("w")
	again.Request, again.Grace, again.Repeat = "r1", time.Hour, true
	out, err := s.decide(s.me(), again)
	if err != nil || !out.Redelivered || out.Draft.Data.(*events.TokenRolled).Reason != events.RollRedelivery {
		t.Fatalf("%+v, %v", out, err)
	}
	s.must(s.me(), again)
	got, _, _ := s.past.Token(roll.ID)
	if got.Secret != again.Secret || got.Previous != first || got.PreviousUntil != s.clock.Now().Add(time.Hour) {
		t.Errorf("the token is %+v", got)
	}
	if _, alive, _ := s.past.Credential(roll.Secret); alive {
		t.Error("the secret that was never delivered still leads somewhere")
	}
}

// TestForeignAndUnknownAlike compares the whole answers, not only their codes.
func TestForeignAndUnknownAlike(t *testing.T) {
	s := tell(t)
	s.writer("w")
	for _, cmd := range []func(command.Target) command.Command{
		func(at command.Target) command.Command { return command.UpdateToken{Target: at} },
		func(at command.Target) command.Command { return command.RollToken{Target: at, Grace: -1} },
		func(at command.Target) command.Command { return command.RevokeToken{Target: at, Reason: "\n"} },
		func(at command.Target) command.Command { return command.DisableToken{Target: at, Reason: "\n"} },
	} {
		foreign, unknown := s.at("w"), command.Target{ID: s.NewID(), OwnerKind: events.OwnedByUser}
		_, a := s.decide(s.stranger(), cmd(foreign))
		_, b := s.decide(s.stranger(), cmd(unknown))
		if a == nil || b == nil || a.Error() != b.Error() || !errors.Is(a, fault.TokenNotFound) {
			t.Errorf("foreign: %v; unknown: %v", a, b)
		}
	}
}

// TestNames ties the constants to the catalogue: the two groups that let a
// token manage tokens hold the permissions that are asked for.
func TestNames(t *testing.T) {
	cat := catalogue.Cloudflare()
	for id, want := range map[string]string{apiTokensWrite: authority.PermissionUserTokens, accountTokensWrite: authority.PermissionAccountTokens} {
		g, ok := cat.Group(id)
		if !ok || !slices.Contains(g.Permissions, want) || !cat.Permission(want).Known() {
			t.Errorf("group %s holds %v, not %s", id, g.Permissions, want)
		}
	}
	if !slices.IsSorted(authority.Base) {
		t.Error("the base of event types is not sorted")
	}
	for _, name := range events.Standard.Names() {
		if !authority.Writable(name) {
			t.Errorf("%s is neither in the base nor raised", name)
		}
	}
	if authority.Writable("token.created.v2") {
		t.Error("a type that nobody raised is writable")
	}
}
