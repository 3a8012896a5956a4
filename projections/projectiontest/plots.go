package projectiontest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

// plot is a thing that can happen.
type plot struct {
	weight int
	many   bool // several of them may share a commit
	draft  func(*Story) (events.Draft, bool)
}

// plots holds at least one plot for every type of event in the catalogue.
var plots = []plot{
	{30, true, (*Story).tokenCreated},
	{12, true, (*Story).tokenUpdated},
	{20, true, (*Story).tokenRolled},
	{8, true, (*Story).tokenDisabled},
	{8, true, (*Story).tokenEnabled},
	{8, true, (*Story).tokenRevoked},
	{4, true, always((*Story).swept)},
	{2, true, (*Story).tokenExpiring},
	{2, true, (*Story).tokenExpired},
	{2, false, (*Story).keyIssued},
	{2, false, (*Story).keyRolled},
	{2, false, (*Story).keyRevoked},
	{3, true, always((*Story).userRegistered)},
	{2, true, (*Story).userUpdated},
	{1, false, (*Story).userRemoved},
	{3, true, always((*Story).accountCreated)},
	{2, true, (*Story).accountUpdated},
	{1, false, (*Story).accountRemoved},
	{3, true, (*Story).memberAdded},
	{2, true, (*Story).memberChanged},
	{1, true, (*Story).memberRemoved},
	{4, true, (*Story).resourceRegistered},
	{1, true, (*Story).resourceUpdated},
	{2, true, (*Story).resourceMoved},
	{1, true, (*Story).resourceRemoved},
	{1, false, always((*Story).cataloguePublished)},
	{2, true, (*Story).policyChanged},
	{3, true, (*Story).enforcerEnrolled},
	{1, true, (*Story).enforcerRetired},
	{2, true, always((*Story).consumerEnrolled)},
	{1, true, (*Story).consumerRetired},
	{1, false, always((*Story).penOpened)},
	{1, false, always((*Story).epochOpened)},
	{1, false, always((*Story).formatRaised)},
}

func always(draft func(*Story) events.Draft) func(*Story) (events.Draft, bool) {
	return func(s *Story) (events.Draft, bool) { return draft(s), true }
}

func (s *Story) tokenCreated() (events.Draft, bool) {
	kind, owner, ok := events.OwnedByUser, token.ID{}, false
	if s.rng.IntN(2) == 0 {
		owner, ok = s.liveUser()
	} else {
		kind = events.OwnedByAccount
		owner, ok = s.liveAccount()
	}
	if !ok {
		return events.Draft{}, false
	}
	id, foreign := s.id(), s.rng.IntN(8) == 0
	template, version := "", uint32(0)
	if n := s.rng.IntN(2 * templates); n < templates {
		template, version = fmt.Sprintf("template-%d", n), s.version
	}
	d := s.draft("token", id, &events.TokenCreated{
		Name: fmt.Sprintf("token %d", len(s.tokens)), OwnerKind: kind, Owner: owner, Secret: s.secret(id, kind, foreign),
		Grant: s.Grant(), Disabled: s.rng.IntN(10) == 0, Foreign: foreign, Request: fmt.Sprintf("r%d", s.rng.IntN(100)),
		Template: template, TemplateVersion: version,
	})
	if kind == events.OwnedByAccount {
		d.Account = owner
	}
	return d, true
}

func (s *Story) tokenUpdated() (events.Draft, bool) {
	t, ok := s.liveToken(func(*aggregate.Token) bool { return true })
	if !ok {
		return events.Draft{}, false
	}
	status := []string{"", "", "active", "disabled"}[s.rng.IntN(4)]
	return s.draft("token", t.ID, &events.TokenUpdated{Name: t.Name + "+", Grant: s.Grant(), Status: status}), true
}

func (s *Story) tokenRolled() (events.Draft, bool) {
	t, ok := s.liveToken(func(*aggregate.Token) bool { return true })
	if !ok {
		return events.Draft{}, false
	}
	d := &events.TokenRolled{Secret: s.secret(t.ID, t.OwnerKind, false)}
	if s.rng.IntN(2) == 0 {
		d.Request = fmt.Sprintf("r%d", s.rng.IntN(100))
	}
	switch s.rng.IntN(4) {
	case 0:
		d.Reason = events.RollRedelivery
	case 1, 2:
		d.GraceUntil = s.Now.Add(time.Duration(s.rng.IntN(7200)) * time.Second)
	}
	return s.draft("token", t.ID, d), true
}

func (s *Story) tokenDisabled() (events.Draft, bool) {
	t, ok := s.liveToken(func(t *aggregate.Token) bool { return t.Status == aggregate.Active })
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("token", t.ID, &events.TokenDisabled{Reason: "vacation"}), true
}

func (s *Story) tokenEnabled() (events.Draft, bool) {
	t, ok := s.liveToken(func(t *aggregate.Token) bool { return t.Status == aggregate.Disabled })
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("token", t.ID, &events.TokenEnabled{}), true
}

func (s *Story) tokenRevoked() (events.Draft, bool) {
	t, ok := s.liveToken(func(*aggregate.Token) bool { return true })
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("token", t.ID, &events.TokenRevoked{Reason: "leaked"}), true
}

// swept sweeps some of the tokens: mostly all that there are of the selection,
// else those before some token or other. Rarely all tokens there are.
func (s *Story) swept() events.Draft {
	d := &events.RevocationSwept{By: events.SweepAll, Through: s.At.Number}
	if s.rng.IntN(2) == 0 {
		d.Reason = "incident"
	}
	switch n := s.rng.IntN(20); {
	case n < 8:
		d.By, d.Selected = events.SweepOwner, s.users[s.rng.IntN(len(s.users))].String()
		if s.rng.IntN(4) == 0 {
			d.Selected = s.accounts[s.rng.IntN(len(s.accounts))].String()
		}
	case n < 13:
		d.By, d.Selected = events.SweepAccount, s.accounts[s.rng.IntN(len(s.accounts))].String()
	case n < 18: // now and then one that nobody has used
		d.By, d.Selected = events.SweepTemplate, fmt.Sprintf("template-%d", s.rng.IntN(templates+1))
	case n < 19 && len(s.tokens) > 0:
		d.Through = s.Tokens[s.tokens[s.rng.IntN(min(8, len(s.tokens)))]].Number
	}
	if s.rng.IntN(3) == 0 && len(s.tokens) > 0 {
		// The border is a token's creation, or the event just before it.
		d.Through = min(d.Through, s.Tokens[s.tokens[s.rng.IntN(len(s.tokens))]].Number-uint64(s.rng.IntN(2)))
	}
	return s.draft("revocation", s.id(), d)
}

func (s *Story) tokenExpiring() (events.Draft, bool) {
	t, ok := s.liveToken(func(t *aggregate.Token) bool { return !t.Grant.ExpiresOn.IsZero() })
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("token", t.ID, &events.TokenExpiring{ExpiresOn: t.Grant.ExpiresOn}), true
}

func (s *Story) tokenExpired() (events.Draft, bool) {
	t, ok := s.liveToken(func(t *aggregate.Token) bool { return !t.Grant.ExpiresOn.IsZero() })
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("token", t.ID, &events.TokenExpired{ExpiresOn: t.Grant.ExpiresOn}), true
}

func (s *Story) key(has bool, data func(token.Digest) events.Event) (events.Draft, bool) {
	id, ok := s.pick(s.users, func(id token.ID) bool {
		return s.Users[id].Status == aggregate.Active && s.Users[id].Key.IsZero() != has
	})
	if !ok {
		return events.Draft{}, false
	}
	text := NewKey(s.rng)
	d := s.draft("apikey", id, data(token.Sum(text)))
	if _, ended := d.Data.(*events.APIKeyRevoked); !ended {
		s.UserKeys = append(s.UserKeys, Secret{Text: text, Token: id})
	}
	return d, true
}

func (s *Story) keyIssued() (events.Draft, bool) {
	return s.key(false, func(d token.Digest) events.Event { return &events.APIKeyIssued{Secret: d} })
}

func (s *Story) keyRolled() (events.Draft, bool) {
	return s.key(true, func(d token.Digest) events.Event { return &events.APIKeyRolled{Secret: d} })
}

func (s *Story) keyRevoked() (events.Draft, bool) {
	return s.key(true, func(token.Digest) events.Event { return &events.APIKeyRevoked{Reason: "sunset"} })
}

func (s *Story) sealed() events.Sealed {
	return events.Sealed{Key: fmt.Sprintf("person-%d", s.rng.IntN(1<<30)), Nonce: []byte{1, 2, 3}, Ciphertext: []byte{4, 5, 6}}
}

func (s *Story) userRegistered() events.Draft {
	name := s.sealed()
	return s.draft("user", s.id(), &events.UserRegistered{
		Email: s.sealed(), EmailIndex: fmt.Sprintf("%016x", s.rng.Uint64()), Name: &name, Operator: s.rng.IntN(3) == 0,
	})
}

func (s *Story) userUpdated() (events.Draft, bool) {
	id, ok := s.liveUser()
	if !ok {
		return events.Draft{}, false
	}
	index := s.Users[id].EmailIndex
	if s.rng.IntN(2) == 0 {
		index = fmt.Sprintf("%016x", s.rng.Uint64())
	}
	return s.draft("user", id, &events.UserUpdated{Email: s.sealed(), EmailIndex: index}), true
}

func (s *Story) userRemoved() (events.Draft, bool) {
	id, ok := s.liveUser()
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("user", id, &events.UserRemoved{Reason: "left"}), true
}

func (s *Story) accountCreated() events.Draft {
	return s.draft("account", s.id(), &events.AccountCreated{Name: fmt.Sprintf("account %d", len(s.accounts))})
}

func (s *Story) accountUpdated() (events.Draft, bool) {
	id, ok := s.liveAccount()
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("account", id, &events.AccountUpdated{Name: s.Accounts[id].Name + "+"}), true
}

func (s *Story) accountRemoved() (events.Draft, bool) {
	id, ok := s.liveAccount()
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("account", id, &events.AccountRemoved{Reason: "closed"}), true
}

func (s *Story) memberAdded() (events.Draft, bool) {
	user, ok := s.liveUser()
	account, ok2 := s.liveAccount()
	if !ok || !ok2 || s.isMember(account, user) {
		return events.Draft{}, false
	}
	s.busy[user] = true // one membership of the two at a time
	return s.draft("member", s.id(), &events.MemberAdded{Account: account, User: user, Roles: s.roles()}), true
}

// roles returns one or two roles of the present catalogue.
func (s *Story) roles() []string {
	all := s.Catalogue.Roles()
	names := []string{all[s.rng.IntN(len(all))].Name}
	if s.rng.IntN(3) == 0 {
		names = append(names, all[s.rng.IntN(len(all))].Name)
	}
	return names
}

func (s *Story) isMember(account, user token.ID) bool {
	for _, m := range s.Members {
		if m.Account == account && m.User == user && m.Status == aggregate.Active {
			return true
		}
	}
	return false
}

func (s *Story) liveMember() (*aggregate.Member, bool) {
	id, ok := s.pick(s.members, func(id token.ID) bool {
		m := s.Members[id]
		return m.Status == aggregate.Active && s.Users[m.User].Status == aggregate.Active && s.Accounts[m.Account].Status == aggregate.Active
	})
	return s.Members[id], ok
}

func (s *Story) memberChanged() (events.Draft, bool) {
	m, ok := s.liveMember()
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("member", m.ID, &events.MemberChanged{Account: m.Account, User: m.User, Roles: s.roles()}), true
}

func (s *Story) memberRemoved() (events.Draft, bool) {
	m, ok := s.liveMember()
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("member", m.ID, &events.MemberRemoved{Account: m.Account, User: m.User}), true
}

func (s *Story) policyChanged() (events.Draft, bool) {
	id, ok := s.liveAccount()
	if !ok {
		return events.Draft{}, false
	}
	d := &events.PolicyChanged{
		LifetimeSecondsMax: int64(s.rng.IntN(2)) * 86400, ExpiryRequired: s.rng.IntN(2) == 0, TokensMax: int32(s.rng.IntN(100)),
	}
	if s.rng.IntN(2) == 0 {
		d.KeysEnd = s.Now.Add(time.Duration(s.rng.IntN(120)-60) * time.Minute)
	}
	return s.draft("policy", id, d), true
}

// resourceRegistered registers one of the few zones that the story's grants
// name, in one of its accounts.
func (s *Story) resourceRegistered() (events.Draft, bool) {
	account, ok := s.liveAccount()
	id := fmt.Sprintf("r%d", s.rng.IntN(zones))
	_, there := s.liveResource(func(r *aggregate.Resource) bool { return r.Resource == id })
	if !ok || there || s.claimed[id] {
		return events.Draft{}, false
	}
	s.claimed[id] = true
	return s.draft("resource", s.id(), &events.ResourceRegistered{
		Type: typeZone, Resource: id, Name: id + ".example", Parent: s.parent(account),
	}), true
}

// parent returns the key of an account, or of something in it: a zone is a
// place like any other.
func (s *Story) parent(account token.ID) string {
	if s.rng.IntN(4) == 0 {
		return fmt.Sprintf("%s.r%d", typeZone, s.rng.IntN(zones))
	}
	return typeAccount + "." + account.String()
}

func (s *Story) liveResource(fits func(*aggregate.Resource) bool) (*aggregate.Resource, bool) {
	id, ok := s.pick(s.resources, func(id token.ID) bool {
		return s.Resources[id].Status == aggregate.Active && fits(s.Resources[id])
	})
	return s.Resources[id], ok
}

func anyResource(*aggregate.Resource) bool { return true }

func (s *Story) resourceUpdated() (events.Draft, bool) {
	r, ok := s.liveResource(anyResource)
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("resource", r.ID, &events.ResourceUpdated{Type: r.Type, Resource: r.Resource, Name: r.Name + "+"}), true
}

func (s *Story) resourceMoved() (events.Draft, bool) {
	r, ok := s.liveResource(anyResource)
	account, ok2 := s.liveAccount()
	if !ok || !ok2 {
		return events.Draft{}, false
	}
	return s.draft("resource", r.ID, &events.ResourceMoved{Type: r.Type, Resource: r.Resource, Parent: s.parent(account)}), true
}

func (s *Story) resourceRemoved() (events.Draft, bool) {
	r, ok := s.liveResource(anyResource)
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("resource", r.ID, &events.ResourceRemoved{Type: r.Type, Resource: r.Resource, Reason: "sold"}), true
}

// cataloguePublished publishes a part of the built-in catalogue, with roles of
// its own.
func (s *Story) cataloguePublished() events.Draft {
	s.version++
	raw, err := json.Marshal(s.document(), json.Deterministic(true))
	if err != nil {
		panic(fmt.Sprintf("projectiontest: %v", err))
	}
	return s.draft("catalogue", s.id(), &events.CataloguePublished{Version: s.version, Document: raw})
}

func (s *Story) document() catalogue.Document {
	first := catalogue.Cloudflare()
	d := catalogue.Document{Name: fmt.Sprintf("version %d", s.version), ResourceTypes: first.Types()}
	needed := map[string]bool{}
	for _, scope := range []string{typeAccount, typeZone, typeUser} {
		for _, g := range first.Filter("", scope)[:groupsEach] {
			if s.rng.IntN(8) == 0 || slices.ContainsFunc(d.Groups, func(o catalogue.Group) bool { return o.ID == g.ID }) {
				continue // this one is dropped
			}
			d.Groups = append(d.Groups, g)
			for _, p := range g.Permissions {
				needed[p] = true
			}
		}
	}
	for _, p := range first.Permissions() {
		if needed[p.Name] {
			d.Permissions = append(d.Permissions, p)
		}
	}
	for n := range 3 {
		if s.rng.IntN(6) == 0 {
			continue
		}
		role := catalogue.Role{Name: fmt.Sprintf("Role %d", n)}
		for range 1 + s.rng.IntN(3) {
			if id := d.Groups[s.rng.IntN(len(d.Groups))].ID; !slices.Contains(role.Groups, id) {
				role.Groups = append(role.Groups, id)
			}
		}
		d.Roles = append(d.Roles, role)
	}
	return d
}

func (s *Story) enforcerEnrolled() (events.Draft, bool) {
	id, text := s.id(), NewSecret(s.rng, token.KindEnforcer)
	s.Keys = append(s.Keys, Secret{Text: text, Token: id})
	e := &events.EnforcerEnrolled{
		Name: fmt.Sprintf("edge-%d", len(s.enforcers)), Region: "north", Secret: token.Sum(text), CeilingSeconds: int32(s.rng.IntN(60)),
	}
	if s.rng.IntN(2) == 0 {
		e.Nkey = nkey(id)
	}
	return s.draft("enforcer", id, e), true
}

// nkey returns a text in place of the public nkey of an enforcer or a consumer.
func nkey(id token.ID) string { return "U" + strings.ToUpper(id.String()) }

func (s *Story) enforcerRetired() (events.Draft, bool) {
	id, ok := s.pick(s.enforcers, func(id token.ID) bool { return s.Enforcers[id].Status == aggregate.Active })
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("enforcer", id, &events.EnforcerRetired{Reason: "scrapped"}), true
}

func (s *Story) consumerEnrolled() events.Draft {
	id := s.id()
	return s.draft("consumer", id, &events.ConsumerEnrolled{Name: fmt.Sprintf("siem-%d", len(s.consumers)), Region: "south", Nkey: nkey(id)})
}

func (s *Story) consumerRetired() (events.Draft, bool) {
	id, ok := s.pick(s.consumers, func(id token.ID) bool { return s.Consumers[id].Status == aggregate.Active })
	if !ok {
		return events.Draft{}, false
	}
	return s.draft("consumer", id, &events.ConsumerRetired{Reason: "replaced"}), true
}

func (s *Story) penOpened() events.Draft {
	s.term++
	return s.draft("pen", s.id(), &events.PenOpened{Term: s.term, Node: "node-1"})
}

func (s *Story) epochOpened() events.Draft {
	return s.draft("epoch", s.id(), &events.EpochOpened{Reason: "restored"})
}

func (s *Story) formatRaised() events.Draft {
	return s.draft("format", s.id(), &events.FormatRaised{Types: []string{"token.created.v1"}})
}

// Places of the requests and grants of a story: few, so that they meet.
const (
	typeAccount = "com.cloudflare.api.account"
	typeZone    = "com.cloudflare.api.account.zone"
	typeUser    = "com.cloudflare.api.user"

	zones      = 4 // that are ever named
	groupsEach = 6 // of a scope that are ever used
	templates  = 3 // that tokens are ever made from
)

func (s *Story) keyOf(typ string) string {
	if s.rng.IntN(4) == 0 {
		return typ + ".*"
	}
	return s.place(typ)
}

// place returns the key of something of a type: one of the first few that there
// are, or one that nobody knows.
func (s *Story) place(typ string) string {
	known := s.accounts
	switch typ {
	case typeZone:
		return fmt.Sprintf("%s.r%d", typ, s.rng.IntN(zones))
	case typeUser:
		known = s.users
	}
	if n := s.rng.IntN(min(4, len(known)) + 1); n < len(known) {
		return typ + "." + known[n].String()
	}
	return typ + ".r0"
}

// Grant returns a random valid grant of one to four policies.
func (s *Story) Grant() token.Grant {
	var g token.Grant
	for range 1 + s.rng.IntN(4) {
		g.Policies = append(g.Policies, s.policy())
	}
	if s.rng.IntN(3) == 0 {
		g.Condition = &token.Condition{RequestIP: token.RequestIP{In: []string{"192.0.2.0/24", "2001:db8::/32"}}}
		if s.rng.IntN(2) == 0 {
			g.Condition.RequestIP.NotIn = []string{"192.0.2.128/25"}
		}
	}
	if s.rng.IntN(4) == 0 {
		g.NotBefore = s.Now.Add(time.Duration(s.rng.IntN(120)-60) * time.Minute)
	}
	if s.rng.IntN(4) == 0 {
		g.ExpiresOn = s.Now.Add(time.Duration(61+s.rng.IntN(600)) * time.Minute)
	}
	g, err := g.Normalize()
	if err != nil {
		panic(fmt.Sprintf("projectiontest: %v", err))
	}
	return g
}

func (s *Story) policy() token.Policy {
	p := token.Policy{ID: s.id(), Effect: token.EffectAllow}
	if s.rng.IntN(4) == 0 {
		p.Effect = token.EffectDeny
	}
	scope := []string{typeAccount, typeZone, typeUser}[s.rng.IntN(3)]
	resources := fmt.Sprintf(`{%q:"*"}`, s.keyOf(scope))
	if scope == typeZone && s.rng.IntN(2) == 0 {
		resources = fmt.Sprintf(`{%q:{%q:"*"}}`, s.keyOf(typeAccount), s.keyOf(scope))
	}
	p.Resources = jsontext.Value(resources)
	groups := s.Catalogue.Filter("", scope)
	for range 1 + s.rng.IntN(3) {
		// Among the first few, so that requests hit what is granted.
		p.Groups = append(p.Groups, token.GroupRef{ID: groups[s.rng.IntN(min(groupsEach, len(groups)))].ID})
	}
	return p
}

// Request returns a random request of the kind that the story's grants are
// about; now and then one that makes no sense.
func (s *Story) Request() token.Request {
	var r token.Request
	scope := []string{typeAccount, typeZone, typeUser}[s.rng.IntN(3)]
	group := catalogue.Cloudflare().Filter("", scope)[s.rng.IntN(groupsEach)]
	r.Permission = group.Permissions[s.rng.IntN(len(group.Permissions))]
	if s.rng.IntN(20) == 0 {
		r.Permission = "no.such.permission"
	}
	if scope == typeZone && s.rng.IntN(3) > 0 {
		r.Resource = append(r.Resource, s.place(typeAccount))
	}
	r.Resource = append(r.Resource, s.place(scope))
	r.Address = addresses[s.rng.IntN(len(addresses))]
	return r
}
