package authority

import (
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// SuperAdministrator is the role whose members may do everything in their
// account.
const SuperAdministrator = catalogue.SuperAdministrator

// The permissions and the resource types of the management API itself. They
// are those of the permission groups "API Tokens Write" and "Account API
// Tokens Write".
const (
	permissionUserTokens    = "user.tokens.write"
	permissionAccountTokens = "account.tokens.write"

	typeUser    = "com.cloudflare.api.user"
	typeAccount = "com.cloudflare.api.account"
)

// principal is who asks, as the head of the ledger knows them.
type principal struct {
	system bool
	user   *aggregate.User  // the user, or the owner of a user's token; nil for an account's token
	token  *aggregate.Token // nil when the credential is the user's API key
	// account is set when an account is asked about as such: what may be
	// granted to its tokens by nobody in particular.
	account token.ID
	grant   token.Compiled // of token
	caller  *command.Caller
	actor   events.Actor
	// keyEnded says that they would have held something that they needed, had
	// API keys not ended in the account in question.
	keyEnded bool
}

// authenticate finds out who asks. What the head does not know, what has ended
// and what is of another kind is answered alike.
func (r *rules) authenticate(v *view, by *command.Caller, now time.Time) (*principal, error) {
	if by.System {
		return &principal{system: true, caller: by, actor: events.Actor{Kind: events.ActorSystem}}, nil
	}
	unknown := fault.InvalidAccessToken
	if by.Kind == token.KindKey {
		unknown = fault.InvalidAPIKey
	}
	c, ok := v.credential(by.Digest)
	if !ok || c.Kind != by.Kind {
		return nil, unknown
	}
	switch by.Kind {
	case token.KindKey:
		u, ok := v.user(c.ID)
		if !ok || u.Status != aggregate.Active || u.Key != by.Digest || by.EmailIndex == "" || u.EmailIndex != by.EmailIndex {
			return nil, unknown
		}
		if v.keysOver(u, now) {
			return nil, fault.APIKeysEnded
		}
		return &principal{user: u, caller: by, actor: events.Actor{Kind: events.ActorUser, ID: u.ID, Credential: u.ID}}, nil
	case token.KindUser, token.KindAccount:
		t, ok := v.token(c.ID)
		if !ok || t.Status == aggregate.Revoked || !secretLives(t, by.Digest, now) {
			return nil, unknown
		}
		return r.authenticateToken(v, by, t, now)
	}
	return nil, unknown
}

// secretLives says whether d is the token's present secret, or the previous
// one within its grace.
func secretLives(t *aggregate.Token, d token.Digest, now time.Time) bool {
	return t.Secret == d || t.Previous == d && now.Before(t.PreviousUntil)
}

func (r *rules) authenticateToken(v *view, by *command.Caller, t *aggregate.Token, now time.Time) (*principal, error) {
	p := &principal{token: t, caller: by, actor: events.Actor{Kind: events.ActorAccount, ID: t.Owner, Credential: t.ID}}
	if t.OwnerKind == events.OwnedByUser {
		u, ok := v.user(t.Owner)
		if !ok || u.Status != aggregate.Active {
			return nil, fault.InvalidAccessToken
		}
		p.user, p.actor.Kind = u, events.ActorUser
	} else if !v.accountActive(t.Owner) {
		return nil, fault.InvalidAccessToken
	}
	if t.Status != aggregate.Active {
		return nil, fault.InactiveAccessToken
	}
	var err error
	if p.grant, err = token.Compile(t.Grant, r.catalogue); err != nil {
		return nil, err
	}
	// Asked for no permission at all, a grant that holds here and now answers
	// that it does not know it.
	switch reason, _, _ := p.grant.Evaluate(r.catalogue, catalogue.PermissionRef(0), nil, by.Address, now); reason {
	case token.ReasonUnknownPermission:
		return p, nil
	case token.ReasonExpired, token.ReasonNotYetValid:
		return nil, fault.InactiveAccessToken
	case token.ReasonAddress:
		return nil, fault.New(fault.AddressRefused).WithDetail("%v", by.Address)
	default:
		return nil, fault.Internal
	}
}

func (v *view) accountActive(id token.ID) bool {
	a, ok := v.account(id)
	return ok && a.Status == aggregate.Active
}

// keysOver says whether a user's API key is good for nothing any more: keys have
// ended in all accounts that they belong to, of which there are some. An
// operator's is: no token stands for what operators do.
func (v *view) keysOver(u *aggregate.User, now time.Time) bool {
	if u.Operator {
		return false
	}
	some := false
	for _, m := range v.memberships(u.ID) {
		a, ok := v.account(m.Account)
		if !ok || a.Status != aggregate.Active {
			continue
		}
		if !a.Policy.KeysOver(now) {
			return false
		}
		some = true
	}
	return some
}

// holds says whether the principal holds a permission in an account: members by
// their roles, an account's token by what it is, and whoever comes by a token
// only what that token's own grant allows on the account here and now. An
// account that does not exist is held by nobody, like one of others.
func (r *rules) holds(v *view, p *principal, permission string, account token.ID, now time.Time) bool {
	switch {
	case p.user != nil:
		if !r.anyHolds(r.rolesFor(v, p, account, now), permission) {
			return false
		}
	case p.token == nil || p.token.Owner != account || !v.accountActive(account):
		return false
	}
	return r.tokenAllows(p, permission, typeAccount, account, now)
}

// tokenAllows says whether the principal's token, if they come by one, allows a
// permission on a root.
func (r *rules) tokenAllows(p *principal, permission, kind string, id token.ID, now time.Time) bool {
	if p.token == nil {
		return true
	}
	chain := []string{aggregate.ResourceKey(kind, id.String())}
	_, _, ok := p.grant.Evaluate(r.catalogue, r.catalogue.Permission(permission), chain, p.caller.Address, now)
	return ok
}

// mayManage says whether the principal may create and change tokens of this
// owner. It is the one place where roles and permissions come together:
//
//   - a user, by their API key: their own tokens, and those of the accounts in
//     which they hold the permission;
//   - a user's token: the same, as far as its own grant allows it;
//   - an account's token: those of its account, as far as its grant allows it.
//
// An owner that does not exist is refused like one that belongs to others.
func (r *rules) mayManage(v *view, p *principal, kind events.OwnerKind, owner token.ID, now time.Time) error {
	allowed := false
	switch kind {
	case events.OwnedByUser:
		allowed = p.user != nil && p.user.ID == owner && r.tokenAllows(p, permissionUserTokens, typeUser, owner, now)
	case events.OwnedByAccount:
		allowed = r.holds(v, p, permissionAccountTokens, owner, now)
	}
	if !allowed {
		return fault.NotPermitted
	}
	return nil
}
