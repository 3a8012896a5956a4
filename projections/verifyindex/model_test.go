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

func (o oracle) verify(secret projectiontest.Secret, req token.Request, now time.Time) (token.Reason, token.ID) {
	t := o.story.Tokens[secret.Token]
	d := token.Sum(secret.Text)
	live := t.Secret == d || t.Previous == d && now.Before(t.PreviousUntil)
	switch {
	case !live || t.Status == aggregate.Revoked || o.story.OwnerGone(t):
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
