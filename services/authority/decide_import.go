package authority

import (
	"bytes"
	"slices"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// importToken takes over a token that another system made. An operator brings
// it, and its owner must hold what it gives: a user as if they made it by their
// key, an account all that lies in it.
//
// The same token again is left as it has become here since: a secret that was
// rolled or revoked does not come to life again. Again with another name or
// grant it is a conflict.
func (r *rules) importToken(v *view, p *principal, c *command.CreateToken, now time.Time) (outcome, error) {
	if p.system || !p.operates() {
		return outcome{}, fault.NotPermitted
	}
	holder, err := v.holder(p, c.Target)
	if err != nil {
		return outcome{}, err
	}
	if err := checkName(c.Name); err != nil {
		return outcome{}, err
	}
	if c.ID.IsZero() || len(c.Template) > textMax || !cleanText(c.Template) || c.Widens || c.Request != "" || c.Repeat {
		return outcome{}, fault.InvalidField
	}
	if t, ok := v.token(c.ID); ok {
		return takenOver(t, c)
	}
	if end := c.Grant.ExpiresOn; !end.IsZero() && !now.Before(end) {
		return outcome{}, fault.New(fault.TokenExpired).WithPointer("/expires_on")
	}
	g, err := r.grant(v, holder, c.Target, c.Grant, now)
	if err != nil {
		return outcome{}, err
	}
	if err := r.room(v, c.Target); err != nil {
		return outcome{}, err
	}
	if err := checkSecret(v, c.Secret); err != nil || c.DryRun {
		return outcome{}, err
	}
	version := uint32(0)
	if c.Template != "" {
		version = v.published().Version
	}
	return outcome{token: c.ID, draft: r.tokenDraft(p, c.Target, now, &events.TokenCreated{
		Name: c.Name, OwnerKind: c.OwnerKind, Owner: c.Owner, Secret: c.Secret, Grant: g, Disabled: c.Disabled,
		Template: c.Template, TemplateVersion: version, Foreign: true, Origin: p.caller.Origin,
	})}, nil
}

// holder is the owner of an imported token, as the one who must hold its grant.
func (v *view) holder(p *principal, at command.Target) (*principal, error) {
	if at.OwnerKind == events.OwnedByAccount {
		if !v.accountActive(at.Owner) {
			return nil, fault.AccountNotFound
		}
		return &principal{account: at.Owner, caller: p.caller}, nil
	}
	u, ok := v.user(at.Owner)
	if at.OwnerKind != events.OwnedByUser || !ok || u.Status != aggregate.Active {
		return nil, fault.UserNotFound
	}
	return &principal{user: u, caller: p.caller}, nil
}

// takenOver answers the import of a token that was imported before.
func takenOver(t *aggregate.Token, c *command.CreateToken) (outcome, error) {
	if t.Status == aggregate.Revoked {
		return outcome{}, fault.TokenRevoked
	}
	g, err := c.Grant.Normalize()
	same := err == nil && t.Foreign && t.OwnerKind == c.OwnerKind && t.Owner == c.Owner && t.Name == c.Name &&
		t.Template == c.Template && (t.Secret == c.Secret || t.SecretVersion > 1) && sameGrant(&t.Grant, &g)
	if !same {
		return outcome{}, fault.Conflict
	}
	return outcome{token: t.ID}, nil
}

// sameGrant says whether two normal grants give the same, whatever the ids of
// their policies.
func sameGrant(a, b *token.Grant) bool {
	return a.NotBefore.Equal(b.NotBefore) && a.ExpiresOn.Equal(b.ExpiresOn) && sameCondition(a.Condition, b.Condition) &&
		slices.EqualFunc(a.Policies, b.Policies, func(x, y token.Policy) bool {
			return x.Effect == y.Effect && slices.Equal(x.Groups, y.Groups) && bytes.Equal(x.Resources, y.Resources)
		})
}

// sameCondition says whether two conditions list the same addresses, in the
// same order. No list and an empty one of those let in do not mean the same.
func sameCondition(a, b *token.Condition) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := &a.RequestIP, &b.RequestIP
	return (x.In == nil) == (y.In == nil) && slices.Equal(x.In, y.In) && slices.Equal(x.NotIn, y.NotIn)
}
