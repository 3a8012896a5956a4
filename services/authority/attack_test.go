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

// TestSmallerTokenCannotSeize lets a token that may write tokens, and holds
// nothing else but one group on one zone, try to get hold of a token that holds
// more, in every way that it is not asked what that token holds.
func TestSmallerTokenCannotSeize(t *testing.T) {
	const refused = "group_not_held"
	for _, c := range []struct {
		name string
		do   func(s *story) string
		want string
	}{
		{"roll it", func(s *story) string { return s.do(s.by("small"), s.roll("large")) }, refused},
		{"enable it when it was suspended", func(s *story) string {
			s.must(s.me(), command.DisableToken{Target: s.at("large")})
			return s.do(s.by("small"), command.EnableToken{Target: s.at("large")})
		}, refused},
		{"let an update enable it", func(s *story) string {
			s.must(s.me(), command.DisableToken{Target: s.at("large")})
			return s.do(s.by("small"), command.UpdateToken{Target: s.at("large"), Name: "x", Grant: s.named["large"].Grant, Status: string(aggregate.Active)})
		}, refused},
		// A node that is not honest reads the digests of requests in the ledger.
		{"claim to repeat its creation", func(s *story) string {
			c := s.create(authoritytest.Grant(zone, dnsWrite))
			c.Request, c.Repeat = "the large one", true
			return s.do(s.by("small"), c)
		}, refused},
		{"claim to repeat its roll", func(s *story) string {
			r := s.roll("large")
			r.Request = "a roll"
			s.must(s.me(), r)
			r = s.roll("large")
			r.Request, r.Repeat = "a roll", true
			return s.do(s.by("small"), r)
		}, refused},
		{"suspend it", func(s *story) string { return s.do(s.by("small"), command.DisableToken{Target: s.at("large")}) }, "token.disabled.v1"},
		{"enable one that holds no more", func(s *story) string {
			s.make("equal", authoritytest.Grant(zone, dnsWrite))
			s.must(s.me(), command.DisableToken{Target: s.at("equal")})
			return s.do(s.by("small"), command.EnableToken{Target: s.at("equal")})
		}, "token.enabled.v1"},
		{"enable it by the owner's key", func(s *story) string {
			s.must(s.me(), command.DisableToken{Target: s.at("large")})
			return s.do(s.me(), command.EnableToken{Target: s.at("large")})
		}, "token.enabled.v1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := tell(t)
			s.writer("small")
			large := command.CreateToken{
				Target: command.Target{ID: s.NewID(), OwnerKind: events.OwnedByUser}, Name: "large", Secret: s.NewSecret(),
				Grant: both(authoritytest.Grant(zone, dnsWrite), authoritytest.Grant(zone2, dnsWrite)), Request: "the large one",
			}
			s.must(s.me(), large)
			s.named["large"] = large
			if got := c.do(s); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// TestOldSecretDiesAtOnce: whoever has the old secret of a token that was
// rolled without a grace can do nothing with it, also not undo the roll by
// claiming to repeat it.
func TestOldSecretDiesAtOnce(t *testing.T) {
	s := tell(t)
	s.writer("w")
	r := s.roll("w")
	r.Request = "a roll"
	s.must(s.me(), r)
	for _, cmd := range []command.Command{
		s.Create(), s.roll("w"), command.RevokeToken{Target: s.at("w")},
		command.RollToken{Target: s.at("w"), Secret: s.NewSecret(), Request: "a roll", Repeat: true, Force: true},
		command.RollToken{Target: s.at("w"), Secret: s.named["w"].Secret, Grace: time.Hour},
	} {
		if got := s.do(s.by("w"), cmd); got != "invalid_access_token" {
			t.Errorf("%s with a dead secret: %s", cmd.Verb(), got)
		}
	}
}

// TestNoGrantGrows lets tokens make tokens that make tokens, each asking for
// more than the one before in one way: not one of the chain may get it.
func TestNoGrantGrows(t *testing.T) {
	nested := func(outer, inner string, groups ...string) token.Grant {
		g := authoritytest.Grant("x", groups...)
		g.Policies[0].Resources = []byte(`{"` + outer + `":{"` + inner + `":"*"}}`)
		return g
	}
	const zones = "com.cloudflare.api.account.zone.*"
	deny := func(g token.Grant) token.Grant {
		for i := range g.Policies {
			g.Policies[i].Effect = token.EffectDeny
		}
		return g
	}
	s := tell(t)
	tokens := authoritytest.Grant(userKey(s.Operator), apiTokensWrite)
	held := both(tokens, nested(accountKey(s.Account), zones, dnsWrite), deny(authoritytest.Grant(zone2, dnsWrite)))
	parent := s.make("0", held)
	for depth, name := range []string{"1", "2", "3"} {
		by := s.by(string(rune('0' + depth)))
		for what, g := range map[string]token.Grant{
			"without the denial":             both(tokens, nested(accountKey(s.Account), zones, dnsWrite)),
			"a smaller denial":               both(tokens, nested(accountKey(s.Account), zones, dnsWrite), deny(authoritytest.Grant(zone2, dnsRead))),
			"a denial of something else":     both(tokens, nested(accountKey(s.Account), zones, dnsWrite), deny(authoritytest.Grant(zone, dnsWrite))),
			"a zone wherever it lies":        both(authoritytest.Grant(zone, dnsWrite), deny(authoritytest.Grant(zone2, dnsWrite))),
			"all zones wherever they lie":    both(authoritytest.Grant(zones, dnsWrite), deny(authoritytest.Grant(zone2, dnsWrite))),
			"zones of all accounts":          both(nested("com.cloudflare.api.account.*", zones, dnsWrite), deny(authoritytest.Grant(zone2, dnsWrite))),
			"zones of a foreign account":     both(nested(accountKey(s.ForeignAccount), zones, dnsWrite), deny(authoritytest.Grant(zone2, dnsWrite))),
			"the account's own tokens":       both(authoritytest.Grant(accountKey(s.Account), accountTokensWrite), deny(authoritytest.Grant(zone2, dnsWrite))),
			"users' tokens by the wildcard":  both(authoritytest.Grant("com.cloudflare.api.user.*", apiTokensWrite), deny(authoritytest.Grant(zone2, dnsWrite))),
			"another user's tokens":          both(authoritytest.Grant(userKey(s.Stranger), apiTokensWrite), deny(authoritytest.Grant(zone2, dnsWrite))),
			"an escaped name for a zone":     both(authoritytest.Grant(`com.cloudflare.api.account.zone.\u007a9`, dnsWrite), deny(authoritytest.Grant(zone2, dnsWrite))),
			"denial and allowance exchanged": both(deny(nested(accountKey(s.Account), zones, dnsWrite)), authoritytest.Grant(zone2, dnsWrite)),
		} {
			if got := s.do(by, s.create(g)); got != "group_not_held" {
				t.Errorf("depth %d: %s: %s", depth, what, got)
			}
			update := command.UpdateToken{Target: parent.Target, Name: "x", Grant: g}
			if depth == 0 {
				continue // a token never changes itself at all
			}
			if got := s.do(by, update); got != "group_not_held" {
				t.Errorf("depth %d: update of the first to %s: %s", depth, what, got)
			}
		}
		c := s.create(held)
		s.must(by, c)
		s.named[name] = c
	}
}
