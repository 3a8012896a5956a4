package authority_test

import (
	"strings"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/authority"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

const (
	zoneType    = "com.cloudflare.api.account.zone"
	accountType = "com.cloudflare.api.account"
)

var admin = []string{authority.SuperAdministrator}

// register is the registration of a zone in an account.
func register(id string, account token.ID) command.RegisterResource {
	return command.RegisterResource{Type: zoneType, Resource: id, Name: id + ".example.com", Parent: accountKey(account)}
}

// join makes a new person with a key who is a member of an account.
func (s *story) join(account token.ID, roles ...string) (user, member token.ID, by command.Caller) {
	s.t.Helper()
	user, member = s.NewID(), s.NewID()
	s.must(s.me(), command.RegisterUser{ID: user, EmailIndex: authoritytest.EmailOf(user), Email: events.Sealed{Key: "k/joined"}})
	s.must(s.me(), command.IssueAPIKey{User: user, Secret: authoritytest.KeyOf(user)})
	s.must(s.me(), command.AddMember{ID: member, Account: account, User: user, Roles: roles})
	return user, member, authoritytest.ByKey(user)
}

// memberOf is the membership of a user in an account.
func (s *story) memberOf(account, user token.ID) token.ID {
	m, ok, _ := s.past.MemberOf(account, user)
	if !ok {
		s.t.Fatal("no such membership")
	}
	return m.ID
}

// settingsToken makes an account's token that may change its account's settings.
func (s *story) settingsToken(name string) {
	s.makeFor(name, events.OwnedByAccount, s.Account, authoritytest.Grant(accountKey(s.Account), accountSettings))
}

var directoryDecisions = []struct {
	name string
	when func(s *story) string // given and when
	then string
}{
	// Users.
	{"operator registers a user", func(s *story) string { return s.do(s.me(), command.RegisterUser{ID: s.NewID(), EmailIndex: "e"}) }, "user.registered.v1"},
	{"operator's token registers a user", func(s *story) string {
		s.writer("w")
		return s.do(s.by("w"), command.RegisterUser{ID: s.NewID(), EmailIndex: "e"})
	}, "not_permitted"},
	{"stranger registers a user", func(s *story) string { return s.do(s.stranger(), command.RegisterUser{ID: s.NewID(), EmailIndex: "e"}) }, "not_permitted"},
	{"user changes the own name", func(s *story) string {
		return s.do(s.stranger(), command.UpdateUser{ID: s.Stranger, Name: &events.Sealed{Key: "n"}})
	}, "user.updated.v1"},
	{"the same name again", func(s *story) string {
		c := command.UpdateUser{ID: s.Stranger, Name: &events.Sealed{Key: "n"}}
		s.must(s.stranger(), c)
		return s.do(s.stranger(), c)
	}, "unchanged"},
	{"user forgets a name that is not there", func(s *story) string { return s.do(s.stranger(), command.UpdateUser{ID: s.Stranger, NoName: true}) }, "unchanged"},
	{"user changes the own address", func(s *story) string {
		return s.do(s.stranger(), command.UpdateUser{ID: s.Stranger, Email: &events.Sealed{Key: "n"}, EmailIndex: "new"})
	}, "not_permitted"},
	{"operator changes an address", func(s *story) string {
		return s.do(s.me(), command.UpdateUser{ID: s.Stranger, Email: &events.Sealed{Key: "n"}, EmailIndex: "new"})
	}, "user.updated.v1"},
	{"an address that is taken", func(s *story) string {
		return s.do(s.me(), command.UpdateUser{ID: s.Stranger, Email: &events.Sealed{Key: "n"}, EmailIndex: authoritytest.EmailOf(s.Operator)})
	}, "conflict"},
	{"an address without its index", func(s *story) string {
		return s.do(s.me(), command.UpdateUser{ID: s.Stranger, Email: &events.Sealed{Key: "n"}})
	}, "invalid_field"},
	{"user changes another", func(s *story) string { return s.do(s.stranger(), command.UpdateUser{ID: s.Operator, NoName: true}) }, "not_permitted"},
	{"user changes one who is not there", func(s *story) string { return s.do(s.stranger(), command.UpdateUser{ID: s.NewID(), NoName: true}) }, "not_permitted"},
	{"operator changes one who is not there", func(s *story) string { return s.do(s.me(), command.UpdateUser{ID: s.NewID(), NoName: true}) }, "user_not_found"},
	{"operator removes a user", func(s *story) string { return s.do(s.me(), command.RemoveUser{ID: s.Stranger}) }, "user.removed.v1"},
	{"operator removes a user twice", func(s *story) string {
		s.must(s.me(), command.RemoveUser{ID: s.Stranger})
		return s.do(s.me(), command.RemoveUser{ID: s.Stranger})
	}, "user_not_found"},
	{"operator removes themselves", func(s *story) string { return s.do(s.me(), command.RemoveUser{ID: s.Operator}) }, "not_permitted"},
	{"the only administrator leaves", func(s *story) string { return s.do(s.stranger(), command.RemoveUser{ID: s.Stranger}) }, "last_administrator"},
	{"one of two administrators leaves", func(s *story) string {
		user, _, by := s.join(s.Account, admin...)
		return s.do(by, command.RemoveUser{ID: user})
	}, "user.removed.v1"},
	{"user removes another", func(s *story) string { return s.do(s.stranger(), command.RemoveUser{ID: s.Operator}) }, "not_permitted"},
	{"a removed user asks", func(s *story) string {
		s.must(s.me(), command.RemoveUser{ID: s.Stranger})
		return s.do(s.stranger(), s.Create())
	}, "invalid_api_key"},
	{"user revokes the own key", func(s *story) string { return s.do(s.stranger(), command.RevokeAPIKey{User: s.Stranger}) }, "apikey.revoked.v1"},
	{"operator revokes the own key", func(s *story) string { return s.do(s.me(), command.RevokeAPIKey{User: s.Operator}) }, "not_permitted"},
	{"operator revokes a key", func(s *story) string { return s.do(s.me(), command.RevokeAPIKey{User: s.Stranger}) }, "apikey.revoked.v1"},
	{"operator revokes a key twice", func(s *story) string {
		s.must(s.me(), command.RevokeAPIKey{User: s.Stranger})
		return s.do(s.me(), command.RevokeAPIKey{User: s.Stranger})
	}, "unchanged"},
	{"a revoked key asks", func(s *story) string {
		s.must(s.stranger(), command.RevokeAPIKey{User: s.Stranger})
		return s.do(s.stranger(), s.Create())
	}, "invalid_api_key"},
	{"user revokes another's key", func(s *story) string { return s.do(s.stranger(), command.RevokeAPIKey{User: s.Operator}) }, "not_permitted"},
	{"token revokes its user's key", func(s *story) string {
		s.writer("w")
		return s.do(s.by("w"), command.RevokeAPIKey{User: s.Operator})
	}, "not_permitted"},

	// Accounts.
	{"operator creates an account", func(s *story) string { return s.do(s.me(), command.CreateAccount{ID: s.NewID(), Name: "n"}) }, "account.created.v1"},
	{"stranger creates an account", func(s *story) string {
		return s.do(s.stranger(), command.CreateAccount{ID: s.NewID(), Name: "n"})
	}, "not_permitted"},
	{"administrator renames", func(s *story) string {
		return s.do(s.stranger(), command.UpdateAccount{ID: s.ForeignAccount, Name: "n"})
	}, "account.updated.v1"},
	{"the same name of an account", func(s *story) string {
		return s.do(s.stranger(), command.UpdateAccount{ID: s.ForeignAccount, Name: "Another Ltd"})
	}, "unchanged"},
	{"operator renames a foreign account", func(s *story) string { return s.do(s.me(), command.UpdateAccount{ID: s.ForeignAccount, Name: "n"}) }, "account.updated.v1"},
	{"operator renames no account", func(s *story) string { return s.do(s.me(), command.UpdateAccount{ID: s.NewID(), Name: "n"}) }, "account_not_found"},
	{"stranger renames a foreign account", func(s *story) string { return s.do(s.stranger(), command.UpdateAccount{ID: s.Account, Name: "n"}) }, "not_permitted"},
	{"stranger renames no account", func(s *story) string { return s.do(s.stranger(), command.UpdateAccount{ID: s.NewID(), Name: "n"}) }, "not_permitted"},
	{"account's token renames", func(s *story) string {
		s.settingsToken("a")
		return s.do(s.by("a"), command.UpdateAccount{ID: s.Account, Name: "n"})
	}, "account.updated.v1"},
	{"account's token without the permission renames", func(s *story) string {
		s.makeFor("a", events.OwnedByAccount, s.Account, authoritytest.Grant(zone, dnsRead))
		return s.do(s.by("a"), command.UpdateAccount{ID: s.Account, Name: "n"})
	}, "not_permitted"},
	{"account's token renames a foreign account", func(s *story) string {
		s.settingsToken("a")
		return s.do(s.by("a"), command.UpdateAccount{ID: s.ForeignAccount, Name: "n"})
	}, "not_permitted"},
	{"operator removes an account", func(s *story) string { return s.do(s.me(), command.RemoveAccount{ID: s.ForeignAccount}) }, "account.removed.v1"},
	{"operator removes an account twice", func(s *story) string {
		s.must(s.me(), command.RemoveAccount{ID: s.ForeignAccount})
		return s.do(s.me(), command.RemoveAccount{ID: s.ForeignAccount})
	}, "account_not_found"},
	{"administrator removes the account", func(s *story) string { return s.do(s.stranger(), command.RemoveAccount{ID: s.ForeignAccount}) }, "not_permitted"},
	{"a removed account's token asks", func(s *story) string {
		s.accountWriter("a")
		s.must(s.me(), command.RemoveAccount{ID: s.Account})
		return s.do(s.by("a"), s.accountCreate(s.Account, authoritytest.Grant(zone, dnsRead)))
	}, "invalid_access_token"},

	// Policies.
	{"policy", func(s *story) string {
		return s.do(s.stranger(), command.ChangePolicy{Account: s.ForeignAccount, Policy: aggregate.Policy{ExpiryRequired: true}})
	}, "policy.changed.v1"},
	{"the same policy", func(s *story) string {
		return s.do(s.stranger(), command.ChangePolicy{Account: s.ForeignAccount})
	}, "unchanged"},
	{"policy of a foreign account", func(s *story) string { return s.do(s.stranger(), command.ChangePolicy{Account: s.Account}) }, "not_permitted"},
	{"negative lifetime", func(s *story) string {
		return s.do(s.me(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{LifetimeSecondsMax: -1}})
	}, "invalid_field"},
	{"lifetime beyond all bounds", func(s *story) string {
		return s.do(s.me(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{LifetimeSecondsMax: 1 << 62}})
	}, "invalid_field"},
	{"negative quota", func(s *story) string {
		return s.do(s.me(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{TokensMax: -1}})
	}, "invalid_field"},
	{"keys that end before there were any", func(s *story) string {
		return s.do(s.me(), command.ChangePolicy{Account: s.Account, Policy: aggregate.Policy{KeysEnd: time.Unix(0, 0)}})
	}, "invalid_times"},

	// Members.
	{"administrator adds a member", func(s *story) string {
		return s.do(s.stranger(), command.AddMember{ID: s.NewID(), Account: s.ForeignAccount, User: s.Operator, Roles: admin})
	}, "member.added.v1"},
	{"stranger adds a member", func(s *story) string {
		return s.do(s.stranger(), command.AddMember{ID: s.NewID(), Account: s.Account, User: s.Stranger, Roles: admin})
	}, "not_permitted"},
	{"account's token adds a member", func(s *story) string {
		s.settingsToken("a")
		return s.do(s.by("a"), command.AddMember{ID: s.NewID(), Account: s.Account, User: s.Stranger, Roles: admin})
	}, "role_not_held"},
	{"token adds a member", func(s *story) string {
		s.make("u", authoritytest.Grant(accountKey(s.Account), accountSettings))
		return s.do(s.by("u"), command.AddMember{ID: s.NewID(), Account: s.Account, User: s.Stranger, Roles: admin})
	}, "role_not_held"},
	{"a member without roles", func(s *story) string {
		return s.do(s.me(), command.AddMember{ID: s.NewID(), Account: s.Account, User: s.Stranger})
	}, "invalid_roles"},
	{"a role that is not there", func(s *story) string {
		return s.do(s.me(), command.AddMember{ID: s.NewID(), Account: s.Account, User: s.Stranger, Roles: []string{"Emperor"}})
	}, "invalid_roles"},
	{"a role twice", func(s *story) string {
		return s.do(s.me(), command.AddMember{ID: s.NewID(), Account: s.Account, User: s.Stranger, Roles: []string{admin[0], admin[0]}})
	}, "invalid_roles"},
	{"a member who is nobody", func(s *story) string {
		return s.do(s.me(), command.AddMember{ID: s.NewID(), Account: s.Account, User: s.NewID(), Roles: admin})
	}, "user_not_found"},
	{"a membership's id in use", func(s *story) string {
		return s.do(s.me(), command.AddMember{ID: s.memberOf(s.Account, s.Operator), Account: s.Account, User: s.Stranger, Roles: admin})
	}, "conflict"},
	{"change a member", func(s *story) string {
		_, m, _ := s.join(s.Account, admin...)
		return s.do(s.me(), command.ChangeMember{ID: m, Account: s.Account, Roles: []string{readOnly}})
	}, "member.changed.v1"},
	{"the same roles", func(s *story) string {
		return s.do(s.me(), command.ChangeMember{ID: s.memberOf(s.Account, s.Operator), Account: s.Account, Roles: admin})
	}, "unchanged"},
	{"change a member of a foreign account", func(s *story) string {
		return s.do(s.stranger(), command.ChangeMember{ID: s.memberOf(s.Account, s.Operator), Account: s.Account, Roles: admin})
	}, "not_permitted"},
	{"change a foreign member in the own account", func(s *story) string {
		return s.do(s.stranger(), command.ChangeMember{ID: s.memberOf(s.Account, s.Operator), Account: s.ForeignAccount, Roles: admin})
	}, "member_not_found"},
	{"the only administrator steps down", func(s *story) string {
		return s.do(s.stranger(), command.ChangeMember{ID: s.memberOf(s.ForeignAccount, s.Stranger), Account: s.ForeignAccount, Roles: []string{readOnly}})
	}, "last_administrator"},
	{"the only living administrator steps down", func(s *story) string {
		user, _, _ := s.join(s.ForeignAccount, admin...)
		s.must(s.me(), command.RemoveUser{ID: user})
		return s.do(s.stranger(), command.ChangeMember{ID: s.memberOf(s.ForeignAccount, s.Stranger), Account: s.ForeignAccount, Roles: []string{readOnly}})
	}, "last_administrator"},
	{"one of two administrators steps down", func(s *story) string {
		s.join(s.ForeignAccount, admin...)
		return s.do(s.stranger(), command.ChangeMember{ID: s.memberOf(s.ForeignAccount, s.Stranger), Account: s.ForeignAccount, Roles: []string{readOnly}})
	}, "member.changed.v1"},
	{"one who may only read makes a member", func(s *story) string {
		_, _, by := s.join(s.Account, readOnly)
		return s.do(by, command.AddMember{ID: s.NewID(), Account: s.Account, User: s.Stranger, Roles: []string{readOnly}})
	}, "not_permitted"},
	{"remove a member", func(s *story) string {
		_, m, _ := s.join(s.Account, admin...)
		return s.do(s.me(), command.RemoveMember{ID: m, Account: s.Account})
	}, "member.removed.v1"},
	{"remove a member twice", func(s *story) string {
		_, m, _ := s.join(s.Account, admin...)
		s.must(s.me(), command.RemoveMember{ID: m, Account: s.Account})
		return s.do(s.me(), command.RemoveMember{ID: m, Account: s.Account})
	}, "member_not_found"},
	{"a removed member asks", func(s *story) string {
		_, m, by := s.join(s.Account, admin...)
		s.must(s.me(), command.RemoveMember{ID: m, Account: s.Account})
		return s.do(by, s.accountCreate(s.Account, authoritytest.Grant(accountKey(s.Account), accountSettings)))
	}, "not_permitted"},
	{"remove the only administrator", func(s *story) string {
		return s.do(s.stranger(), command.RemoveMember{ID: s.memberOf(s.ForeignAccount, s.Stranger), Account: s.ForeignAccount})
	}, "last_administrator"},
	{"operator removes the only administrator", func(s *story) string {
		return s.do(s.me(), command.RemoveMember{ID: s.memberOf(s.ForeignAccount, s.Stranger), Account: s.ForeignAccount})
	}, "member.removed.v1"},

	// Resources.
	{"administrator registers a zone", func(s *story) string { return s.do(s.stranger(), register("z1", s.ForeignAccount)) }, "resource.registered.v1"},
	{"the same zone again", func(s *story) string {
		s.must(s.stranger(), register("z1", s.ForeignAccount))
		return s.do(s.stranger(), register("z1", s.ForeignAccount))
	}, "unchanged"},
	{"a zone that another account has", func(s *story) string {
		s.must(s.stranger(), register("z1", s.ForeignAccount))
		return s.do(s.me(), register("z1", s.Account))
	}, "conflict"},
	{"a zone in a foreign account", func(s *story) string { return s.do(s.stranger(), register("z1", s.Account)) }, "not_permitted"},
	{"a zone in no account", func(s *story) string { return s.do(s.stranger(), register("z1", s.NewID())) }, "not_permitted"},
	{"operator's zone in no account", func(s *story) string { return s.do(s.me(), register("z1", s.NewID())) }, "invalid_parent"},
	{"a zone in a removed account", func(s *story) string {
		s.must(s.me(), command.RemoveAccount{ID: s.ForeignAccount})
		return s.do(s.me(), register("z1", s.ForeignAccount))
	}, "invalid_parent"},
	{"a zone in a zone", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		c := register("z2", s.Account)
		c.Parent = zone
		return s.do(s.me(), c)
	}, "invalid_parent"},
	{"a zone in a user", func(s *story) string {
		c := register("z2", s.Account)
		c.Parent = userKey(s.Operator)
		return s.do(s.me(), c)
	}, "invalid_parent"},
	{"a type that is not there", func(s *story) string {
		c := register("z2", s.Account)
		c.Type = "com.example.thing"
		return s.do(s.me(), c)
	}, "invalid_resource_type"},
	{"an account as a resource", func(s *story) string {
		c := register("z2", s.Account)
		c.Type = accountType
		return s.do(s.me(), c)
	}, "invalid_resource_type"},
	{"a resource id that is none", func(s *story) string { return s.do(s.me(), register("a.b", s.Account)) }, "invalid_field"},
	{"a zone with a long name", func(s *story) string {
		c := register("z1", s.Account)
		c.Name = strings.Repeat("x", 121)
		return s.do(s.me(), c)
	}, "invalid_name"},
	{"account's token registers a zone", func(s *story) string {
		s.settingsToken("a")
		return s.do(s.by("a"), register("z1", s.Account))
	}, "resource.registered.v1"},
	{"rename a zone", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		return s.do(s.me(), command.UpdateResource{Type: zoneType, Resource: "z1", Name: "n"})
	}, "resource.updated.v1"},
	{"rename a foreign zone", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		return s.do(s.stranger(), command.UpdateResource{Type: zoneType, Resource: "z1", Name: "n"})
	}, "resource_not_found"},
	{"rename no zone", func(s *story) string {
		return s.do(s.stranger(), command.UpdateResource{Type: zoneType, Resource: "z1", Name: "n"})
	}, "resource_not_found"},
	{"operator moves a zone", func(s *story) string { return s.move(s.me()) }, "resource.moved.v1"},
	{"one who administers one place moves a zone", func(s *story) string { return s.move(s.stranger()) }, "resource_not_found"},
	{"one who administers both places moves a zone", func(s *story) string {
		s.must(s.me(), command.AddMember{ID: s.NewID(), Account: s.Account, User: s.Stranger, Roles: admin})
		return s.move(s.stranger())
	}, "resource.moved.v1"},
	{"move to where it is", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		return s.do(s.me(), command.MoveResource{Type: zoneType, Resource: "z1", Parent: accountKey(s.Account)})
	}, "unchanged"},
	{"move out of a removed account", func(s *story) string {
		s.must(s.me(), register("z1", s.ForeignAccount))
		s.must(s.me(), command.RemoveAccount{ID: s.ForeignAccount})
		return s.do(s.me(), command.MoveResource{Type: zoneType, Resource: "z1", Parent: accountKey(s.Account)})
	}, "resource.moved.v1"},
	{"move to a foreign account", func(s *story) string {
		s.must(s.me(), register("z1", s.ForeignAccount))
		return s.do(s.stranger(), command.MoveResource{Type: zoneType, Resource: "z1", Parent: accountKey(s.Account)})
	}, "not_permitted"},
	{"remove a zone", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		return s.do(s.me(), command.RemoveResource{Type: zoneType, Resource: "z1"})
	}, "resource.removed.v1"},
	{"remove a zone twice", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		s.must(s.me(), command.RemoveResource{Type: zoneType, Resource: "z1"})
		return s.do(s.me(), command.RemoveResource{Type: zoneType, Resource: "z1"})
	}, "resource_not_found"},
	{"register a removed zone again", func(s *story) string {
		s.must(s.me(), register("z1", s.Account))
		s.must(s.me(), command.RemoveResource{Type: zoneType, Resource: "z1"})
		return s.do(s.me(), register("z1", s.ForeignAccount))
	}, "resource.registered.v1"},
}

// move moves a zone from the operator's account into the stranger's.
func (s *story) move(by command.Caller) string {
	s.must(s.me(), register("z1", s.Account))
	return s.do(by, command.MoveResource{Type: zoneType, Resource: "z1", Parent: accountKey(s.ForeignAccount)})
}

const readOnly = catalogue.AdministratorReadOnly

func TestDecideDirectory(t *testing.T) {
	for _, c := range directoryDecisions {
		t.Run(c.name, func(t *testing.T) {
			if got := c.when(tell(t)); got != c.then {
				t.Errorf("got %s, want %s", got, c.then)
			}
		})
	}
}

// TestForeignResourceAndUnknownAlike compares whole answers.
func TestForeignResourceAndUnknownAlike(t *testing.T) {
	s := tell(t)
	s.must(s.me(), register("z1", s.Account))
	for _, cmd := range []func(id string) command.Command{
		func(id string) command.Command { return command.UpdateResource{Type: zoneType, Resource: id} },
		func(id string) command.Command {
			return command.MoveResource{Type: zoneType, Resource: id, Parent: accountKey(s.ForeignAccount)}
		},
		func(id string) command.Command {
			return command.RemoveResource{Type: zoneType, Resource: id, Reason: "\n"}
		},
	} {
		_, foreign := s.decide(s.stranger(), cmd("z1"))
		_, unknown := s.decide(s.stranger(), cmd("z9"))
		if foreign == nil || unknown == nil || foreign.Error() != unknown.Error() || fault.From(foreign).Code != fault.ResourceNotFound {
			t.Errorf("foreign: %v; unknown: %v", foreign, unknown)
		}
	}
	for _, cmd := range []func(id token.ID) command.Command{
		func(id token.ID) command.Command { return command.UpdateAccount{ID: id} },
		func(id token.ID) command.Command { return command.RemoveAccount{ID: id} },
		func(id token.ID) command.Command { return command.ChangePolicy{Account: id} },
		func(id token.ID) command.Command { return command.AddMember{Account: id} },
		func(id token.ID) command.Command { return register("z2", id) },
	} {
		_, foreign := s.decide(s.stranger(), cmd(s.Account))
		_, unknown := s.decide(s.stranger(), cmd(s.NewID()))
		if foreign == nil || unknown == nil || foreign.Error() != unknown.Error() {
			t.Errorf("foreign: %v; unknown: %v", foreign, unknown)
		}
	}
}
