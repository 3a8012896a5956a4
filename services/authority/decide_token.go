package authority

import (
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// owner returns the owner under whom the caller addresses tokens, if the caller
// may manage that owner's tokens. It comes before any look at a token, so that
// the ids of others tell nothing.
func (r *rules) owner(v *view, p *principal, t command.Target, now time.Time) (command.Target, error) {
	if p.system {
		return t, fault.NotPermitted // no act on tokens without somebody who wants it
	}
	if t.OwnerKind == events.OwnedByUser && t.Owner.IsZero() && p.user != nil {
		t.Owner = p.user.ID
	}
	return t, r.mayManage(v, p, t.OwnerKind, t.Owner, now)
}

// target returns the living token that the caller addresses.
func (r *rules) target(v *view, p *principal, at command.Target, now time.Time) (*aggregate.Token, error) {
	at, err := r.owner(v, p, at, now)
	if err != nil {
		return nil, err
	}
	t, ok := v.token(at.ID)
	if !ok || t.OwnerKind != at.OwnerKind || t.Owner != at.Owner {
		return nil, fault.TokenNotFound
	}
	if t.Status == aggregate.Revoked {
		return nil, fault.TokenRevoked
	}
	return t, nil
}

// grant returns the grant as the event will carry it, with a new id for each
// policy: ids that came with a request mean nothing.
func (r *rules) grant(v *view, p *principal, at command.Target, given token.Grant, now time.Time) (token.Grant, error) {
	g, err := given.Normalize()
	if err != nil {
		return g, command.GrantFault(err, r.catalogue)
	}
	if err := g.Validate(r.catalogue, r.limits); err != nil {
		return g, command.GrantFault(err, r.catalogue)
	}
	if err := r.mayGrant(v, p, at.OwnerKind, at.Owner, g, now); err != nil {
		return g, err
	}
	if err := r.bound(v, p, at, g, now); err != nil {
		return g, err
	}
	for i := range g.Policies {
		g.Policies[i].ID = r.newID()
	}
	return g, nil
}

func (r *rules) tokenDraft(p *principal, t command.Target, now time.Time, data events.Event) events.Draft {
	var account token.ID
	if t.OwnerKind == events.OwnedByAccount {
		account = t.Owner
	}
	return r.draft(p, "token", t.ID, account, now, data)
}

func targetOf(t *aggregate.Token) command.Target {
	return command.Target{ID: t.ID, OwnerKind: t.OwnerKind, Owner: t.Owner}
}

// createToken makes a token.
//
// A declared repeat rolls the secret of the token that the first request made,
// as long as nothing has happened to that token since; else the secret was
// seen by somebody, and the repeat is an ordinary creation. The very same
// command heard twice changes nothing.
func (r *rules) createToken(v *view, p *principal, c *command.CreateToken, now time.Time) (outcome, error) {
	if c.Foreign {
		return r.importToken(v, p, c, now)
	}
	at, err := r.owner(v, p, c.Target, now)
	if err != nil {
		return outcome{}, err
	}
	if err := checkName(c.Name); err != nil {
		return outcome{}, err
	}
	if at.ID.IsZero() || len(c.Request) > textMax || len(c.Template) > textMax || !cleanText(c.Template) {
		return outcome{}, fault.InvalidField
	}
	if c.Widens && !p.mayWiden(at.OwnerKind) {
		return outcome{}, fault.New(fault.NotPermitted).WithPointer("/widens")
	}
	g, err := r.grant(v, p, at, c.Grant, now)
	if err == nil && c.DryRun {
		err = r.room(v, at)
	}
	if err != nil || c.DryRun {
		return outcome{}, err
	}
	if t, first, ok := r.repeated(v, c.Request, c.Repeat, now); ok &&
		t.OwnerKind == at.OwnerKind && t.Owner == at.Owner && t.Modified.Equal(first) {
		return r.redeliver(v, p, t, c.Secret, c.Request, now)
	}
	if t, ok := v.token(at.ID); ok {
		if t.OwnerKind == at.OwnerKind && t.Owner == at.Owner && t.Secret == c.Secret && t.SecretVersion == 1 {
			return outcome{token: t.ID}, nil
		}
		return outcome{}, fault.Conflict
	}
	if err := r.room(v, at); err != nil {
		return outcome{}, err
	}
	if err := checkSecret(v, c.Secret); err != nil {
		return outcome{}, err
	}
	version := uint32(0)
	if c.Template != "" {
		version = v.published().Version
	}
	return outcome{token: at.ID, draft: r.tokenDraft(p, at, now, &events.TokenCreated{
		Name: c.Name, OwnerKind: at.OwnerKind, Owner: at.Owner, Secret: c.Secret, Grant: g,
		Disabled: c.Disabled, Template: c.Template, TemplateVersion: version, Widens: c.Widens,
		Request: c.Request, Origin: p.caller.Origin,
	})}, nil
}

// repeated returns the living token whose present secret was caused by the
// first request of which this is the declared repeat, and the time of that.
func (r *rules) repeated(v *view, request string, repeat bool, now time.Time) (*aggregate.Token, time.Time, bool) {
	if !repeat || request == "" {
		return nil, time.Time{}, false
	}
	first, ok := v.request(request)
	if !ok || now.Sub(first.Time) > RepeatWindow {
		return nil, time.Time{}, false
	}
	t, ok := v.token(first.Token)
	if !ok || t.Status == aggregate.Revoked || t.SecretVersion != first.SecretVersion {
		return nil, time.Time{}, false
	}
	return t, first.Time, true
}

// mayUse says whether the principal may bring the token to life or into their
// own hands, and with it its grant. A token may do so with itself; else:
//
//   - who comes by another token must hold that grant, and a token that may
//     give more than it holds is out of reach of one that may not;
//   - an account's token is bound by nothing but its grant, so the principal
//     must hold all of that; a user's token by what its user holds, always.
func (r *rules) mayUse(v *view, p *principal, t *aggregate.Token, now time.Time) error {
	if p.token != nil && p.token.ID == t.ID {
		return nil
	}
	if t.Widens && !p.mayWiden(t.OwnerKind) {
		return fault.New(fault.NotPermitted).WithPointer("/widens")
	}
	if t.OwnerKind == events.OwnedByAccount {
		return r.mayGrant(v, p, t.OwnerKind, t.Owner, t.Grant, now)
	}
	return r.within(p, t.Grant, now)
}

// redeliver replaces a secret that was never delivered. That the principal may
// give the grant that stands in the command says nothing about the one that the
// token has: that both are the same only the node claims, by the digest of the
// request.
func (r *rules) redeliver(v *view, p *principal, t *aggregate.Token, secret token.Digest, request string, now time.Time) (outcome, error) {
	if err := r.mayUse(v, p, t, now); err != nil {
		return outcome{}, err
	}
	if t.Secret == secret {
		return outcome{token: t.ID, redelivered: true}, nil
	}
	if err := checkSecret(v, secret); err != nil {
		return outcome{}, err
	}
	return outcome{token: t.ID, redelivered: true, draft: r.tokenDraft(p, targetOf(t), now, &events.TokenRolled{
		Secret: secret, Reason: events.RollRedelivery, Request: request, Origin: p.caller.Origin,
	})}, nil
}

// updateToken replaces a token's name and grant. A token never changes itself:
// what it may do is for others to say.
func (r *rules) updateToken(v *view, p *principal, c *command.UpdateToken, now time.Time) (outcome, error) {
	t, err := r.target(v, p, c.Target, now)
	if err != nil {
		return outcome{}, err
	}
	if p.token != nil && p.token.ID == t.ID {
		return outcome{}, fault.New(fault.NotPermitted).WithDetail("a token cannot change itself")
	}
	if err := checkName(c.Name); err != nil {
		return outcome{}, err
	}
	if s := aggregate.Status(c.Status); s != "" && s != aggregate.Active && s != aggregate.Disabled {
		return outcome{}, fault.New(fault.InvalidStatus).WithPointer("/status")
	}
	widens := t.Widens
	if c.Widens != nil {
		widens = *c.Widens
	}
	if widens && !t.Widens && !p.mayWiden(t.OwnerKind) {
		return outcome{}, fault.New(fault.NotPermitted).WithPointer("/widens")
	}
	g, err := r.grant(v, p, targetOf(t), c.Grant, now)
	if err != nil {
		return outcome{}, err
	}
	return outcome{token: t.ID, draft: r.tokenDraft(p, targetOf(t), now, &events.TokenUpdated{
		Name: c.Name, Grant: g, Status: c.Status, Widens: widens, Origin: p.caller.Origin,
	})}, nil
}

// rollToken replaces a token's secret. Whoever rolls a token gets its secret
// and with it its grant: who comes by a token must hold that grant. A token
// that may write tokens may roll itself.
func (r *rules) rollToken(v *view, p *principal, c *command.RollToken, now time.Time) (outcome, error) {
	t, err := r.target(v, p, c.Target, now)
	if err != nil {
		return outcome{}, err
	}
	if c.Grace < 0 || c.Grace > r.graceMax {
		return outcome{}, fault.New(fault.InvalidGrace).WithPointer("/grace").WithDetail("0 to %v", r.graceMax)
	}
	if len(c.Request) > textMax {
		return outcome{}, fault.InvalidField
	}
	if err := r.mayUse(v, p, t, now); err != nil {
		return outcome{}, err
	}
	if same, _, ok := r.repeated(v, c.Request, c.Repeat, now); ok && same.ID == t.ID {
		return r.redeliver(v, p, t, c.Secret, c.Request, now)
	}
	if t.Secret == c.Secret && !c.Secret.IsZero() {
		return outcome{token: t.ID}, nil // the same command heard twice
	}
	if err := checkSecret(v, c.Secret); err != nil {
		return outcome{}, err
	}
	if !c.Force && now.Before(t.PreviousUntil) {
		return outcome{}, fault.New(fault.GraceRunning).WithDetail("until %v", t.PreviousUntil)
	}
	e := &events.TokenRolled{Secret: c.Secret, Request: c.Request, Origin: p.caller.Origin}
	if grace := c.Grace.Truncate(time.Millisecond); grace > 0 {
		e.GraceUntil = now.Add(grace)
	}
	return outcome{token: t.ID, draft: r.tokenDraft(p, targetOf(t), now, e)}, nil
}

// switchToken disables or enables a token. To enable one is to give its grant
// to whoever has its secret, so it must keep the policies of today like a new
// one.
func (r *rules) switchToken(v *view, p *principal, at command.Target, reason string, to aggregate.Status, now time.Time) (outcome, error) {
	t, err := r.target(v, p, at, now)
	if err != nil {
		return outcome{}, err
	}
	if err := checkReason(reason); err != nil {
		return outcome{}, err
	}
	if to == aggregate.Active {
		if err := r.mayUse(v, p, t, now); err != nil {
			return outcome{}, err
		}
	}
	if t.Status == to {
		return outcome{token: t.ID}, nil
	}
	if to == aggregate.Active {
		if err := r.bound(v, p, targetOf(t), t.Grant, now); err != nil {
			return outcome{}, err
		}
	}
	var data events.Event = &events.TokenEnabled{Reason: reason, Origin: p.caller.Origin}
	if to == aggregate.Disabled {
		data = &events.TokenDisabled{Reason: reason, Origin: p.caller.Origin}
	}
	return outcome{token: t.ID, draft: r.tokenDraft(p, targetOf(t), now, data)}, nil
}

// revokeToken ends a token. A token that may write tokens may end itself.
func (r *rules) revokeToken(v *view, p *principal, c *command.RevokeToken, now time.Time) (outcome, error) {
	t, err := r.doomed(v, p, c, now)
	if err == fault.TokenRevoked {
		return outcome{}, fault.AlreadyRevoked
	}
	if err != nil {
		return outcome{}, err
	}
	if err := checkReason(c.Reason); err != nil {
		return outcome{}, err
	}
	return outcome{token: t.ID, draft: r.tokenDraft(p, targetOf(t), now, &events.TokenRevoked{
		Reason: c.Reason, Origin: p.caller.Origin,
	})}, nil
}

// doomed returns the living token that is to end: one that the caller manages, or
// in an incident an operator's choice.
func (r *rules) doomed(v *view, p *principal, c *command.RevokeToken, now time.Time) (*aggregate.Token, error) {
	if !c.Incident {
		return r.target(v, p, c.Target, now)
	}
	if p.system || !p.operates() {
		return nil, fault.NotPermitted
	}
	t, ok := v.token(c.ID)
	if !ok {
		return nil, fault.TokenNotFound
	}
	if t.Status == aggregate.Revoked {
		return nil, fault.TokenRevoked
	}
	return t, nil
}
