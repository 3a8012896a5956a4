package verifyindex

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
)

// cast is a small company: a user who works in an account, another account, a
// resource in the first one, an operator, and a token or a key of each.
type cast struct {
	*crowd
	user, operator, account, other token.ID // the operator has a key, too
	secrets                        map[string]string
	commits                        []events.Commit
}

const (
	zoneOf = "com.cloudflare.api.account.zone."
	asked  = "com.cloudflare.api.account.zone.0123456789abcdef0123456789abcdef"
	wild   = `{"com.cloudflare.api.account.zone.*":"*"}`
)

// elsewhere is a group without the permission that is asked for.
var elsewhere = zoneGroups[slices.IndexFunc(zoneGroups, func(g catalogue.Group) bool {
	return !slices.Contains(g.Permissions, zoneGroups[0].Permissions[0])
})].ID

func newCast(t *testing.T) *cast {
	c := &cast{
		crowd: newCrowd(0), user: idOf('u', 1), operator: idOf('u', 2), account: idOf('a', 1), other: idOf('a', 2),
		secrets: map[string]string{"foreign": "a secret of elsewhere"},
	}
	rng := projectiontest.Seed(t)
	for name, kind := range map[string]token.Kind{"user": token.KindUser, "operator": token.KindUser, "account": token.KindAccount} {
		c.secrets[name] = projectiontest.NewSecret(rng, kind)
	}
	c.secrets["key"], c.secrets["operator's key"] = projectiontest.NewKey(rng), projectiontest.NewKey(rng)
	c.tell("log/1", &events.LogOpened{Brand: projectiontest.Brand})
	c.tell("user/"+c.user.String(), &events.UserRegistered{})
	c.tell("user/"+c.operator.String(), &events.UserRegistered{Operator: true})
	c.tell("account/"+c.account.String(), &events.AccountCreated{})
	c.tell("account/"+c.other.String(), &events.AccountCreated{})
	c.publish(t, catalogue.Role{Name: "Editor", Groups: []string{zoneGroups[0].ID}}, catalogue.Role{Name: "Other", Groups: []string{elsewhere}})
	c.tell("member/"+idOf('m', 1).String(), &events.MemberAdded{User: c.user, Account: c.account, Roles: []string{"Editor"}})
	c.tell("resource/"+idOf('r', 1).String(), &events.ResourceRegistered{
		Type: strings.TrimSuffix(zoneOf, "."), Resource: strings.TrimPrefix(asked, zoneOf), Parent: accountPrefix + c.account.String(),
	})
	for name, owner := range map[string]token.ID{"user": c.user, "operator": c.operator, "account": c.account, "foreign": c.user} {
		c.tell("token/"+c.tokenOf(name).String(), c.made(name, owner))
	}
	c.tell("apikey/"+c.user.String(), &events.APIKeyIssued{Secret: token.Sum(c.secrets["key"])})
	c.tell("apikey/"+c.operator.String(), &events.APIKeyIssued{Secret: token.Sum(c.secrets["operator's key"])})
	return c
}

func (c *cast) tokenOf(name string) token.ID { return idOf('t', int(name[0])) }

// made is a token that may do what its first group allows in every zone.
func (c *cast) made(name string, owner token.ID) *events.TokenCreated {
	d := &events.TokenCreated{OwnerKind: events.OwnedByUser, Owner: owner, Secret: token.Sum(c.secrets[name]), Grant: token.Grant{
		Policies: []token.Policy{{
			ID: idOf('p', 1), Effect: token.EffectAllow, Groups: []token.GroupRef{{ID: zoneGroups[0].ID}}, Resources: jsontext.Value(wild),
		}},
	}}
	switch name {
	case "account":
		d.OwnerKind = events.OwnedByAccount
	case "foreign":
		d.Foreign, d.Secret = true, token.SumForeign(sha256.Sum256([]byte(c.secrets[name])))
	}
	return d
}

// tell adds a commit of one event.
func (c *cast) tell(subject string, data events.Event) {
	c.commits = append(c.commits, c.commit(events.Draft{Envelope: events.Envelope{Subject: subject}, Data: data}))
}

// publish publishes the built-in catalogue with these roles.
func (c *cast) publish(t *testing.T, roles ...catalogue.Role) {
	t.Helper()
	d := catalogue.Cloudflare().Document()
	d.Roles, d.Templates = append(d.Roles, roles...), nil
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	version := uint32(1)
	for i := range c.commits {
		if publishes(&c.commits[i]) {
			version++
		}
	}
	c.tell("catalogue/"+idOf('c', int(version)).String(), &events.CataloguePublished{Version: version, Document: raw})
}

// reason asks for what the tokens of the cast are for.
func (c *cast) reason(x *Index, name string, chain ...string) token.Reason {
	return x.Verify(c.secrets[name], &token.Request{Permission: zoneGroups[0].Permissions[0], Resource: chain}).Reason
}

// TestRemovalsAreSeen: after the sequence at which something that a token rests
// on is gone nobody accepts the token, in whatever way the index came there.
func TestRemovalsAreSeen(t *testing.T) {
	for _, c := range []struct {
		name string
		all  string // whose secrets are refused, with the full chain
		near string // with the zone alone
		tell func(*testing.T, *cast)
	}{
		{"the member is removed", "user foreign key", "user foreign key", func(_ *testing.T, c *cast) {
			c.tell("member/"+idOf('m', 1).String(), &events.MemberRemoved{User: c.user, Account: c.account})
		}},
		{"the member changes roles", "user foreign key", "user foreign key", func(_ *testing.T, c *cast) {
			c.tell("member/"+idOf('m', 1).String(), &events.MemberChanged{User: c.user, Account: c.account, Roles: []string{"Other"}})
		}},
		{"the role is narrowed", "user foreign key", "user foreign key", func(t *testing.T, c *cast) {
			c.publish(t, catalogue.Role{Name: "Editor", Groups: []string{elsewhere}})
		}},
		{"the role is dropped", "user foreign key", "user foreign key", func(t *testing.T, c *cast) { c.publish(t) }},
		{"the user is removed", "user foreign key", "user foreign key", func(_ *testing.T, c *cast) {
			c.tell("user/"+c.user.String(), &events.UserRemoved{})
		}},
		{"the account is removed", "user foreign key account", "user foreign key account", func(_ *testing.T, c *cast) {
			c.tell("account/"+c.account.String(), &events.AccountRemoved{})
		}},
		{"the zone is moved", "", "user foreign key account", func(_ *testing.T, c *cast) {
			c.tell("resource/"+idOf('r', 1).String(), &events.ResourceMoved{
				Type: strings.TrimSuffix(zoneOf, "."), Resource: strings.TrimPrefix(asked, zoneOf), Parent: accountPrefix + c.other.String(),
			})
		}},
		{"the zone is removed", "", "user foreign key", func(_ *testing.T, c *cast) {
			c.tell("resource/"+idOf('r', 1).String(), &events.ResourceRemoved{
				Type: strings.TrimSuffix(zoneOf, "."), Resource: strings.TrimPrefix(asked, zoneOf),
			})
		}},
		{"keys end", "key", "key", func(_ *testing.T, c *cast) {
			c.tell("policy/"+c.account.String(), &events.PolicyChanged{KeysEnd: c.now})
		}},
		{"the key is rolled", "key", "key", func(_ *testing.T, c *cast) {
			c.tell("apikey/"+c.user.String(), &events.APIKeyRolled{Secret: token.Digest{1}})
		}},
		{"the key is revoked", "key", "key", func(_ *testing.T, c *cast) {
			c.tell("apikey/"+c.user.String(), &events.APIKeyRevoked{})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachWay(t, c.tell, func(t *testing.T, cast *cast, x *Index, after bool) {
				for _, name := range []string{"user", "foreign", "key", "account"} {
					for _, ask := range []struct {
						refused string
						chain   []string
					}{{c.all, []string{accountPrefix + cast.account.String(), asked}}, {c.near, []string{asked}}} {
						want := !after || !strings.Contains(" "+ask.refused+" ", " "+name+" ")
						if got := cast.reason(x, name, ask.chain...); (got == token.ReasonNone) != want {
							t.Errorf("%s, chain of %d: %q, want it allowed: %v", name, len(ask.chain), got, want)
						}
					}
				}
			})
		})
	}
}

// eachWay brings an index over a cast and what is told of it then, live, into a
// reopened index, and in one load, in each setup, and checks it.
func eachWay(t *testing.T, tell func(*testing.T, *cast), check func(t *testing.T, c *cast, x *Index, after bool)) {
	for _, setup := range setups {
		t.Run(setup.name, func(t *testing.T) {
			c, fs := newCast(t), vfs.NewMem()
			setup.o.Now = func() time.Time { return c.now }
			x := open(t, setup.o, fs)
			defer func() { x.Close() }()
			apply := func(x *Index, commits []events.Commit) {
				t.Helper()
				if err := x.Apply(commits); err != nil {
					t.Fatal(err)
				}
				x.Observe(pulse(c.at, c.now), c.now)
			}
			apply(x, c.commits)
			check(t, c, x, false)
			before := len(c.commits)
			tell(t, c)
			apply(x, c.commits[before:])
			check(t, c, x, true)
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
			x = open(t, setup.o, fs)
			x.Observe(pulse(c.at, c.now), c.now)
			check(t, c, x, true)

			loaded := open(t, setup.o, vfs.NewMem())
			defer loaded.Close()
			if err := loaded.BeginBulk(); err == nil { // else there is no memory for one
				apply(loaded, c.commits)
				if err := loaded.EndBulk(); err != nil {
					t.Fatal(err)
				}
			} else {
				apply(loaded, c.commits)
			}
			loaded.Observe(pulse(c.at, c.now), c.now)
			check(t, c, loaded, true)
			same(t, loaded, x)
		})
	}
}

// TestWhoHoldsWhat asks about places of all kinds.
func TestWhoHoldsWhat(t *testing.T) {
	nothing := func(*testing.T, *cast) {}
	eachWay(t, nothing, func(t *testing.T, c *cast, x *Index, _ bool) {
		mine, foreign, nowhere := accountPrefix+c.account.String(), accountPrefix+c.other.String(), accountPrefix+strings.Repeat("7", 32)
		free := zoneOf + strings.Repeat("8", 32)
		for _, ask := range []struct {
			allowed string
			chain   []string
		}{
			{"user foreign key account", []string{mine, asked}},
			{"user foreign key account", []string{mine, free}},
			{"user foreign key account", []string{asked}},
			{"", []string{foreign, asked}}, // an operator is no member of it
			{"operator", []string{nowhere, free}},
			{"operator account", []string{free}},
			{"user foreign key account", []string{free, asked}},
			{"", []string{free, foreign}},
			{"", []string{userPrefix + idOf('u', 9).String(), free}},
			{"user foreign", []string{userPrefix + c.user.String(), free}}, // the key: nobody gives that permission on a user
			{"operator", []string{accountPrefix + "7", free}},
		} {
			for _, name := range []string{"user", "foreign", "key", "account", "operator"} {
				want := token.ReasonNoPolicy
				if strings.Contains(" "+ask.allowed+" ", " "+name+" ") {
					want = token.ReasonNone
				}
				if got := c.reason(x, name, ask.chain...); got != want {
					t.Errorf("%s on %v: %q, want %q", name, ask.chain, got, want)
				}
			}
		}
		for key, want := range map[string]token.Reason{
			free: token.ReasonNone, nowhere: token.ReasonNone, foreign: token.ReasonNoPolicy, asked: token.ReasonNoPolicy, "*": token.ReasonNoPolicy,
			zoneOf + "*": token.ReasonNoPolicy, free + "\x00": token.ReasonNoPolicy, "com.example.thing.1": token.ReasonNoPolicy, "": token.ReasonNoPolicy,
		} {
			if got := c.reason(x, "operator's key", key); got != want {
				t.Errorf("an operator's key on %q: %q, want %q", key, got, want)
			}
		}
	})
}

// TestManyMemberships: who holds more than fits into an entry holds it all.
func TestManyMemberships(t *testing.T) {
	const many = 3 * mostHeld
	eachWay(t, func(_ *testing.T, c *cast) {
		for i := range many {
			c.tell("member/"+idOf('m', 100+i).String(), &events.MemberAdded{
				User: c.user, Account: idOf('a', 100+i), Roles: []string{catalogue.SuperAdministrator},
			})
		}
	}, func(t *testing.T, c *cast, x *Index, after bool) {
		for i := range many {
			if got := c.reason(x, "user", accountPrefix+idOf('a', 100+i).String(), asked); (got == token.ReasonNone) != after {
				t.Fatalf("account %d: %q", i, got)
			}
		}
		if got := c.reason(x, "user", accountPrefix+c.other.String(), asked); got != token.ReasonNoPolicy {
			t.Errorf("another account: %q", got)
		}
	})
}

// TestForeignSecrets: what is not of our form is looked up when there is
// anything to find.
func TestForeignSecrets(t *testing.T) {
	c := newCast(t)
	x := open(t, Options{Now: func() time.Time { return c.now }}, vfs.NewMem())
	defer x.Close()
	ask := func(secret string) token.Reason {
		return x.Verify(secret, &token.Request{Permission: zoneGroups[0].Permissions[0], Resource: []string{asked}}).Reason
	}
	for i := range c.commits {
		if err := x.Apply(c.commits[i : i+1]); err != nil {
			t.Fatal(err)
		}
		d, made := c.commits[i].Records[0].Data.(*events.TokenCreated)
		if made && d.Foreign {
			break
		}
		if got := ask(c.secrets["foreign"]); i > 0 && got != token.ReasonMalformed {
			t.Fatalf("before there is one: %q", got)
		}
	}
	x.Observe(pulse(x.Position(), c.now), c.now)
	for secret, want := range map[string]token.Reason{
		c.secrets["foreign"]: token.ReasonNone, c.secrets["foreign"] + "x": token.ReasonUnknown, "1234567": token.ReasonMalformed,
		"12345678": token.ReasonUnknown, strings.Repeat("x", 256): token.ReasonUnknown, strings.Repeat("x", 257): token.ReasonMalformed, "": token.ReasonMalformed,
	} {
		if got := ask(secret); got != want {
			t.Errorf("%d characters: %q, want %q", len(secret), got, want)
		}
	}
	id, reason := x.Identify(c.secrets["foreign"], netip.Addr{})
	if reason != token.ReasonNone || id.Kind != token.KindUser || id.Owner != c.user {
		t.Errorf("identify: %+v %q", id, reason)
	}
	rolled := token.Sum(projectiontest.NewSecret(projectiontest.Seed(t), token.KindUser))
	roll := c.commit(events.Draft{Envelope: events.Envelope{Subject: fmt.Sprint("token/", c.tokenOf("foreign"))}, Data: &events.TokenRolled{Secret: rolled}})
	if err := x.Apply([]events.Commit{roll}); err != nil {
		t.Fatal(err)
	}
	if got := ask(c.secrets["foreign"]); got != token.ReasonRevoked {
		t.Errorf("after a roll: %q", got)
	}
}
