package authority_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/services/authority/authoritytest"
	"watchword.dev/services/internal/command"
)

var (
	privilegeCases = flag.Int("privilege-cases", 1000, "random worlds in TestPrivilege")
	privilegeSeed  = flag.Uint64("privilege-seed", 0, "the seed of the first of them; 0: a random one")
)

// realm is a random world: a catalogue of a made-up company, accounts with
// shops in them and tills in the shops, people with roles, and their tokens.
type realm struct {
	*story
	rng      *rand.Rand
	doc      catalogue.Document
	people   []token.ID
	accounts []token.ID
	tokens   []string          // names of story.named
	in       map[string]string // registered resource → what it lies in
	keys     []string          // all resources, some of which are not registered
}

func pick[T any](rng *rand.Rand, all []T) T { return all[rng.IntN(len(all))] }

// some returns a random part of all, never none.
func some[T any](rng *rand.Rand, all []T) []T {
	out := []T{}
	for _, x := range all {
		if rng.IntN(2) == 0 {
			out = append(out, x)
		}
	}
	if len(out) == 0 {
		out = append(out, pick(rng, all))
	}
	return out
}

func newRealm(t *testing.T, seed uint64) *realm {
	r := &realm{story: tell(t), rng: rand.New(rand.NewPCG(seed, 0)), in: map[string]string{}}
	r.catalogue()
	r.people = []token.ID{r.Operator, r.Stranger}
	r.accounts = []token.ID{r.Account, r.ForeignAccount}
	for range 3 {
		user := r.NewID()
		r.must(r.me(), command.RegisterUser{ID: user, EmailIndex: authoritytest.EmailOf(user), Email: events.Sealed{Key: "k"}})
		r.must(r.me(), command.IssueAPIKey{User: user, Secret: authoritytest.KeyOf(user)})
		r.people = append(r.people, user)
		for _, account := range some(r.rng, r.accounts) {
			r.must(r.me(), command.AddMember{ID: r.NewID(), Account: account, User: user, Roles: r.roles()})
		}
	}
	for i := range 4 {
		shop := fmt.Sprintf("shop.s%d", i)
		r.keys = append(r.keys, shop)
		if i < 3 {
			r.register("shop", shop, accountKey(pick(r.rng, r.accounts)))
		}
		till := fmt.Sprintf("till.t%d", i)
		r.keys = append(r.keys, till)
		if i < 3 {
			r.register("till", till, pick(r.rng, []string{"shop.s0", fmt.Sprintf("shop.s%d", i)}))
		}
	}
	for _, a := range r.accounts {
		r.keys = append(r.keys, accountKey(a))
	}
	for _, u := range r.people {
		r.keys = append(r.keys, userKey(u))
	}
	return r
}

func (r *realm) register(kind, key, parent string) {
	r.must(r.me(), command.RegisterResource{Type: kind, Resource: strings.TrimPrefix(key, kind+"."), Name: key, Parent: parent})
	r.in[key] = parent
}

// catalogue publishes a random catalogue.
func (r *realm) catalogue() {
	d := catalogue.Document{ResourceTypes: []catalogue.ResourceType{{Name: "shop", Parent: accountType}, {Name: "till", Parent: "shop"}}}
	var ids []string
	for i := range 5 {
		d.Permissions = append(d.Permissions, catalogue.Permission{Name: fmt.Sprintf("goods.p%d", i), Class: catalogue.Class(1 + r.rng.IntN(3))})
	}
	for i := range 6 {
		g := catalogue.Group{ID: strings.Repeat(fmt.Sprint(i), 32), Name: fmt.Sprintf("Group %d", i), Scopes: some(r.rng, []string{accountType, "shop", "till"})}
		for _, p := range some(r.rng, d.Permissions) {
			g.Permissions = append(g.Permissions, p.Name)
		}
		d.Groups = append(d.Groups, g)
		ids = append(ids, g.ID)
	}
	for i := range 4 {
		d.Roles = append(d.Roles, catalogue.Role{Name: fmt.Sprintf("Role %d", i), Groups: append(some(r.rng, ids), some(r.rng, []string{accountTokensWrite, accountSettings})...)})
	}
	raw, err := json.Marshal(d)
	if err != nil {
		r.t.Fatal(err)
	}
	r.must(r.me(), command.PublishCatalogue{ID: r.NewID(), Document: jsontext.Value(raw)})
	r.doc = d
}

func (r *realm) roles() []string {
	all := []string{readOnly}
	for _, role := range r.doc.Roles {
		all = append(all, role.Name)
	}
	return some(r.rng, all)
}

func (r *realm) cat() *catalogue.Catalogue {
	c, _, _ := r.past.Catalogue()
	cat, err := r.catalogues.Of(&c)
	if err != nil {
		r.t.Fatal(err)
	}
	return cat
}

// grant is a random one: resources by name and by wildcard, flat and nested. Now
// and then it holds a policy of another token's.
func (r *realm) grant() token.Grant {
	var g token.Grant
	for range 1 + r.rng.IntN(2) {
		if len(r.tokens) > 0 && r.rng.IntN(3) == 0 {
			t, _, _ := r.past.Token(r.named[pick(r.rng, r.tokens)].ID)
			g.Policies = append(g.Policies, pick(r.rng, t.Grant.Policies))
			continue
		}
		g.Policies = append(g.Policies, r.policy())
	}
	if r.rng.IntN(4) == 0 {
		g.Condition = &token.Condition{RequestIP: token.RequestIP{In: []string{"192.0.2.0/24"}}}
	}
	return g
}

func (r *realm) policy() token.Policy {
	p := token.Policy{Effect: token.EffectAllow}
	if r.rng.IntN(5) == 0 {
		p.Effect = token.EffectDeny
	}
	kind := pick(r.rng, []string{accountType, "shop", "till", "com.cloudflare.api.user"})
	fit := []string{apiTokensWrite}
	if kind != "com.cloudflare.api.user" {
		fit = nil
		for _, x := range r.doc.Groups {
			if slices.Contains(x.Scopes, kind) {
				fit = append(fit, x.ID)
			}
		}
	}
	if kind == accountType {
		fit = append(fit, accountTokensWrite)
	}
	if len(fit) == 0 {
		return r.policy()
	}
	for _, id := range some(r.rng, fit) {
		p.Groups = append(p.Groups, token.GroupRef{ID: id})
	}
	keys := []string{kind + ".*"}
	for _, key := range r.keys {
		if name, _, _ := catalogue.SplitKey(key); name == kind {
			keys = append(keys, key)
		}
	}
	key := pick(r.rng, keys)
	p.Resources = jsontext.Value(`{"` + key + `":"*"}`)
	if (kind == "shop" || kind == "till") && r.rng.IntN(2) == 0 {
		outer := accountKey(pick(r.rng, r.accounts))
		if kind == "till" && r.rng.IntN(2) == 0 {
			outer = pick(r.rng, []string{"shop.*", "shop.s0", "shop.s3"})
		}
		p.Resources = jsontext.Value(`{"` + outer + `":{"` + key + `":"*"}}`)
	}
	return p
}

// caller is somebody by their key or by a token of theirs or of an account.
// who is the user, or zero; by is the token's name, or empty.
func (r *realm) caller() (c command.Caller, who token.ID, by string) {
	if len(r.tokens) == 0 || r.rng.IntN(3) == 0 {
		who = pick(r.rng, r.people)
		return authoritytest.ByKey(who), who, ""
	}
	by = pick(r.rng, r.tokens)
	t, _, _ := r.past.Token(r.named[by].ID)
	if t.OwnerKind == events.OwnedByUser {
		who = t.Owner
	}
	return r.by(by), who, by
}

// chain is the true chain of a resource, outermost first.
func (r *realm) chain(key string) []string {
	out := []string{key}
	for r.in[out[0]] != "" {
		out = append([]string{r.in[out[0]]}, out...)
	}
	return out
}

// roleHas is the slow and obvious way to ask what a role holds.
func (r *realm) roleHas(role string, permission catalogue.Permission) bool {
	switch role {
	case admin[0]:
		return true
	case readOnly:
		return permission.Class == catalogue.Read
	}
	for _, known := range r.doc.Roles {
		if known.Name != role {
			continue
		}
		for _, g := range r.cat().Groups() {
			if slices.Contains(known.Groups, g.ID) && slices.Contains(g.Permissions, permission.Name) {
				return true
			}
		}
	}
	return false
}

// userMay is what a user holds.
func (r *realm) userMay(user token.ID, p catalogue.Permission, chain []string) bool {
	if chain[0] == userKey(user) {
		return true
	}
	for _, a := range r.accounts {
		if chain[0] != accountKey(a) {
			continue
		}
		m, ok, _ := r.past.MemberOf(a, user)
		return ok && slices.ContainsFunc(m.Roles, func(role string) bool { return r.roleHas(role, p) })
	}
	return user == r.Operator && !strings.HasPrefix(chain[0], "com.cloudflare.api.user.")
}

// tokenMay is what a token may do: what its grant says, and what its user holds
// or what is in its account.
func (r *realm) tokenMay(t aggregate.Token, p catalogue.Permission, chain []string, addr netip.Addr) bool {
	c, err := token.Compile(t.Grant, r.cat())
	if err != nil {
		r.t.Fatal(err)
	}
	if _, _, ok := c.Evaluate(r.cat(), r.cat().Permission(p.Name), chain, addr, r.clock.Now()); !ok {
		return false
	}
	if t.OwnerKind == events.OwnedByUser {
		return r.userMay(t.Owner, p, chain)
	}
	return chain[0] == accountKey(t.Owner) || !strings.HasPrefix(chain[0], "com.cloudflare.api.")
}

// compare fails when a token that the principal has just had in their hands may
// do something that the principal may not.
func (r *realm) compare(what string, who token.ID, before *aggregate.Token, got aggregate.Token) {
	if got.Widens && what != "update" && before != nil && !before.Widens {
		r.t.Fatalf("%s: a token that does not widen got one that does", what)
	}
	var ps []catalogue.Permission
	ps = append(ps, r.doc.Permissions...)
	for _, p := range r.cat().Permissions() {
		if p.Name == "account.tokens.write" || p.Name == "user.tokens.write" {
			ps = append(ps, p)
		}
	}
	for _, key := range r.keys {
		chain := r.chain(key)
		for _, p := range ps {
			for _, addr := range []string{"192.0.2.1", "198.51.100.1"} {
				at := netip.MustParseAddr(addr)
				if !r.tokenMay(got, p, chain, at) {
					continue
				}
				may := before != nil && r.tokenMay(*before, p, chain, at)
				if before == nil || before.Widens {
					may = r.userMay(who, p, chain)
				}
				if !may {
					r.t.Fatalf("%s: the token may %s on %v from %v and the principal may not:\n%+v\nby %+v", what, p.Name, chain, at, got.Grant, before)
				}
			}
		}
	}
}

// act lets somebody do something to a token and returns whether it was allowed.
func (r *realm) act() bool {
	by, who, name := r.caller()
	var before *aggregate.Token
	if name != "" {
		t, _, _ := r.past.Token(r.named[name].ID)
		before = &t
	}
	var cmd command.Command
	var about token.ID
	what := pick(r.rng, []string{"create", "create", "update", "roll"})
	if len(r.tokens) == 0 {
		what = "create"
	}
	switch what {
	case "create":
		c := r.create(r.grant())
		c.Widens = r.rng.IntN(4) == 0
		if r.rng.IntN(2) == 0 {
			c.OwnerKind, c.Owner = events.OwnedByAccount, pick(r.rng, r.accounts)
		}
		cmd, about = c, c.ID
	case "update":
		other := pick(r.rng, r.tokens)
		c := r.update(other, r.grant())
		if r.rng.IntN(2) == 0 {
			c.Widens = new(r.rng.IntN(2) == 0)
		}
		cmd, about = c, c.ID
	case "roll":
		c := r.roll(pick(r.rng, r.tokens))
		cmd, about = c, c.ID
	}
	if got := r.do(by, cmd); !strings.HasSuffix(got, ".v1") {
		return false
	}
	switch c := cmd.(type) {
	case command.CreateToken:
		r.tokens, r.named[c.ID.String()] = append(r.tokens, c.ID.String()), c
	case command.RollToken:
		kept := r.named[c.ID.String()]
		kept.Secret = c.Secret
		r.named[c.ID.String()] = kept
	}
	got, _, _ := r.past.Token(about)
	if before == nil || before.ID != got.ID {
		r.compare(what, who, before, got)
	}
	return true
}

// TestPrivilege checks that whatever anybody does to tokens, in random worlds,
// no token that they make, change or roll may do what they may not.
func TestPrivilege(t *testing.T) {
	seed := *privilegeSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d, %d cases", seed, *privilegeCases)
	done := map[bool]int{}
	for i := range *privilegeCases {
		r := newRealm(t, seed+uint64(i))
		for range 30 {
			done[r.act()]++
		}
		if t.Failed() {
			t.Fatalf("the case's seed is %d", seed+uint64(i))
		}
	}
	t.Logf("%d allowed, %d refused", done[true], done[false])
	if done[true] < *privilegeCases {
		t.Errorf("only %d acts were allowed: the worlds are too small", done[true])
	}
}
