package verifyindex

import (
	"encoding/hex"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
)

// oracle answers as the index must, from the aggregates and from the text of
// grants: no digest table, no compiled form, no bits.
type oracle struct {
	story *projectiontest.Story
	cat   *catalogue.Catalogue
}

func oracleOf(s *projectiontest.Story) oracle { return oracle{s, s.Catalogue} }

func (o oracle) verify(secret projectiontest.Secret, req token.Request, now time.Time) (token.Reason, token.ID) {
	t := o.story.Tokens[secret.Token]
	d := secret.Digest()
	live := t.Secret == d || t.Previous == d && now.Before(t.PreviousUntil)
	switch {
	case !live || t.Status == aggregate.Revoked || o.story.OwnerGone(t) || o.story.Swept(t):
		return token.ReasonRevoked, token.ID{}
	case t.Status == aggregate.Disabled:
		return token.ReasonDisabled, token.ID{}
	}
	g := t.Grant
	switch {
	case !g.NotBefore.IsZero() && now.Before(g.NotBefore):
		return token.ReasonNotYetValid, token.ID{}
	case !g.ExpiresOn.IsZero() && !now.Before(g.ExpiresOn):
		return token.ReasonExpired, token.ID{}
	case g.Condition != nil && !allowed(g.Condition.RequestIP, req.Address):
		return token.ReasonAddress, token.ID{}
	case !o.cat.Permission(req.Permission).Known():
		return token.ReasonUnknownPermission, token.ID{}
	}
	for _, effect := range []token.Effect{token.EffectDeny, token.EffectAllow} {
		for _, p := range g.Policies {
			if p.Effect != effect || !o.applies(p, req) {
				continue
			}
			if effect == token.EffectDeny {
				return token.ReasonDeniedByPolicy, p.ID
			}
			if !o.held(t, req) {
				return token.ReasonNoPolicy, token.ID{}
			}
			return token.ReasonNone, p.ID
		}
	}
	return token.ReasonNoPolicy, token.ID{}
}

func allowed(c token.RequestIP, a netip.Addr) bool {
	in := func(list []string) bool {
		return slices.ContainsFunc(list, func(s string) bool { return netip.MustParsePrefix(s).Contains(a.Unmap()) })
	}
	return a.IsValid() && in(c.In) && !in(c.NotIn)
}

func (o oracle) applies(p token.Policy, req token.Request) bool {
	var resources map[string]any
	if err := json.Unmarshal(p.Resources, &resources); err != nil {
		panic(err)
	}
	for outer, v := range resources {
		inner, nested := v.(map[string]any)
		if !nested {
			if slices.ContainsFunc(req.Resource, func(k string) bool { return means(outer, k) }) && o.grants(p, typeOf(outer), req.Permission) {
				return true
			}
			continue
		}
		for key := range inner {
			for i, k := range req.Resource {
				if means(outer, k) && slices.ContainsFunc(req.Resource[i+1:], func(k string) bool { return means(key, k) }) &&
					o.grants(p, typeOf(key), req.Permission) {
					return true
				}
			}
		}
	}
	return false
}

// verifyKey answers as the index must about a user's API key.
func (o oracle) verifyKey(key projectiontest.Secret, req token.Request, now time.Time) token.Reason {
	u := o.story.Users[key.Token]
	if u.Key != key.Digest() {
		return token.ReasonRevoked
	}
	p := o.cat.Permission(req.Permission)
	if !p.Known() {
		return token.ReasonUnknownPermission
	}
	at := o.rootOf(req.Resource)
	scoped := slices.ContainsFunc(o.cat.Groups(), func(g catalogue.Group) bool {
		return slices.Contains(g.Permissions, req.Permission) && slices.Contains(g.Scopes, userType)
	})
	if !o.holds(u.ID, at, req.Permission) || typeOf(at) == userType && !scoped {
		return token.ReasonNoPolicy
	}
	if a := o.account(at); a != nil && !a.Policy.KeysEnd.IsZero() && !now.Before(a.Policy.KeysEnd) {
		return token.ReasonExpired
	}
	return token.ReasonNone
}

const (
	userType    = "com.cloudflare.api.user"
	accountType = "com.cloudflare.api.account"
	nobodys     = "gone" // the root of what lies in something that is gone
)

// held reports whether the owner of a token holds what is asked for.
func (o oracle) held(t *aggregate.Token, req token.Request) bool {
	at := o.rootOf(req.Resource)
	if t.OwnerKind == events.OwnedByAccount {
		return at == "" || at == accountType+"."+t.Owner.String()
	}
	return o.holds(t.Owner, at, req.Permission)
}

// holds reports whether a user holds a permission below a root: the key of an
// account or a user, nobodys, or nothing when nobody is registered for it.
func (o oracle) holds(user token.ID, at, permission string) bool {
	u := o.story.Users[user]
	switch typeOf(at) {
	case "":
		return u.Operator
	case userType:
		return at == userType+"."+user.String()
	case accountType:
	default:
		return false
	}
	a := o.account(at)
	if a == nil {
		return u.Operator
	}
	for _, m := range o.story.Members {
		if m.User == user && m.Account == a.ID && m.Status == aggregate.Active && a.Status == aggregate.Active &&
			slices.ContainsFunc(m.Roles, func(name string) bool { return o.roleHas(name, permission) }) {
			return true
		}
	}
	return false
}

func (o oracle) roleHas(name, permission string) bool {
	p, _ := o.cat.PermissionAt(o.cat.Permission(permission))
	for _, r := range o.cat.Roles() {
		if r.Name != name {
			continue
		}
		return r.All == catalogue.AllEverything || r.All == catalogue.AllRead && p.Class == catalogue.Read ||
			slices.ContainsFunc(r.Groups, func(id string) bool {
				g, _ := o.cat.Group(id)
				return slices.Contains(g.Permissions, permission)
			})
	}
	return false
}

func (o oracle) account(key string) *aggregate.Account {
	for id, a := range o.story.Accounts {
		if key == accountType+"."+id.String() {
			return a
		}
	}
	return nil
}

// rootOf returns the root of a chain.
func (o oracle) rootOf(chain []string) string {
	for _, key := range chain {
		if isRoot(key) {
			return key
		}
		if r := o.registered(key); r != nil {
			return o.above(r.Parent, 0)
		}
	}
	return ""
}

func (o oracle) above(key string, depth int) string {
	r := o.registered(key)
	switch {
	case isRoot(key):
		if a := o.account(key); typeOf(key) == accountType && (a == nil || a.Status != aggregate.Active) {
			return nobodys
		}
		return key
	case r == nil || depth > 100:
		return nobodys
	}
	return o.above(r.Parent, depth+1)
}

func isRoot(key string) bool { return typeOf(key) == accountType || typeOf(key) == userType }

func (o oracle) registered(key string) *aggregate.Resource {
	for _, r := range o.story.Resources {
		if r.Status == aggregate.Active && r.Key() == key {
			return r
		}
	}
	return nil
}

// grants reports whether a group of the policy has the permission and may be
// given on this type.
func (o oracle) grants(p token.Policy, typ, permission string) bool {
	return slices.ContainsFunc(p.Groups, func(r token.GroupRef) bool {
		g, _ := o.cat.Group(r.ID)
		return slices.Contains(g.Scopes, typ) && slices.Contains(g.Permissions, permission)
	})
}

var lastPart = regexp.MustCompile(`\.[A-Za-z0-9_*-]+$`)

func typeOf(key string) string { return lastPart.ReplaceAllString(key, "") }

func means(selector, key string) bool {
	if t, wild := strings.CutSuffix(selector, ".*"); wild {
		return typeOf(key) == t
	}
	return selector == key
}

// pulse is what a pen at the end of the story would say.
func pulse(at events.Position, now time.Time) events.Pulse {
	return events.Pulse{
		Term: 1, Epoch: at.Epoch, Sequence: at.Seq, Number: at.Number,
		Chain: hex.EncodeToString(at.Hash[:]), Time: now, Node: "node-1",
	}
}
