// Code generated from v6.go by go generate. DO NOT EDIT.

package v7

import (
	"context"

	"github.com/cloudflare/cloudflare-go/v7/accounts"
	"github.com/cloudflare/cloudflare-go/v7/memberships"
	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/shared"
	"github.com/cloudflare/cloudflare-go/v7/user"
	"github.com/cloudflare/cloudflare-go/v7/zones"

	"watchword.dev/services/e2e/cloudflare"
)

// Client is the client.
func Client() cloudflare.Client {
	return cloudflare.Client{
		Name: "v7", Kinds: []cloudflare.Kind{userTokens(), accountTokens()}, Refusal: cloudflare.Refusal,
		Can: cloudflare.Can{Page: true, Filter: true, SendEmptyIn: true, Count: true},
		User: func(ctx context.Context, as cloudflare.As) (cloudflare.User, error) {
			u, err := user.NewUserService().Get(ctx, options(as)...)
			if err != nil {
				return cloudflare.User{}, err
			}
			return cloudflare.User{ID: u.ID}, nil
		},
		Accounts: func(ctx context.Context, as cloudflare.As) ([]cloudflare.Named, error) {
			pager := accounts.NewAccountService().ListAutoPaging(ctx, accounts.AccountListParams{}, options(as)...)
			return cloudflare.Collect(pager, account)
		},
		Account: func(ctx context.Context, as cloudflare.As, id string) (cloudflare.Named, error) {
			var p accounts.AccountGetParams
			cloudflare.Set(&p.AccountID, id)
			a, err := accounts.NewAccountService().Get(ctx, p, options(as)...)
			if err != nil {
				return cloudflare.Named{}, err
			}
			return account(*a), nil
		},
		Memberships: func(ctx context.Context, as cloudflare.As) ([]cloudflare.Named, error) {
			pager := memberships.NewMembershipService().ListAutoPaging(ctx, memberships.MembershipListParams{}, options(as)...)
			return cloudflare.Collect(pager, func(m memberships.Membership) cloudflare.Named { return account(m.Account) })
		},
		Zones: func(ctx context.Context, as cloudflare.As, name string) ([]cloudflare.Zone, error) {
			var p zones.ZoneListParams
			cloudflare.Give(&p.Name, name)
			pager := zones.NewZoneService().ListAutoPaging(ctx, p, options(as)...)
			return cloudflare.Collect(pager, func(z zones.Zone) cloudflare.Zone {
				return cloudflare.Zone{ID: z.ID, Name: z.Name, Status: string(z.Status), AccountID: z.Account.ID}
			})
		},
	}
}

func account(a accounts.Account) cloudflare.Named { return cloudflare.Named{ID: a.ID, Name: a.Name} }

// options say where and as whom to ask. Credentials of the environment are
// what the client's root package adds, and it is not here.
func options(as cloudflare.As) []option.RequestOption {
	o := []option.RequestOption{option.WithBaseURL(as.BaseURL), option.WithHTTPClient(as.HTTP), option.WithMaxRetries(as.Repeats)}
	if as.Token != "" {
		o = append(o, option.WithAPIToken(as.Token))
	}
	if as.Key != "" {
		o = append(o, option.WithAPIEmail(as.Email), option.WithAPIKey(as.Key))
	}
	return o
}

func userTokens() cloudflare.Kind {
	s := user.NewTokenService()
	roll := func(body any) func(context.Context, cloudflare.As, string) (string, error) {
		return func(ctx context.Context, as cloudflare.As, id string) (string, error) {
			return secret(s.Value.Update(ctx, id, user.TokenValueUpdateParams{Body: body}, options(as)...))
		}
	}
	return cloudflare.Kind{
		Name: "user", Prefix: "wwu_",
		Rolls:  []func(context.Context, cloudflare.As, string) (string, error){roll(map[string]any{}), roll(nil)},
		Create: createUser(s),
		Get: func(ctx context.Context, as cloudflare.As, id string) (cloudflare.Token, error) {
			return answer(s.Get(ctx, id, options(as)...))
		},
		Update: func(ctx context.Context, as cloudflare.As, id string, w cloudflare.Wish) (cloudflare.Token, error) {
			return answer(s.Update(ctx, id, user.TokenUpdateParams{Token: param(w)}, options(as)...))
		},
		List: func(ctx context.Context, as cloudflare.As, perPage int, descending bool) ([]cloudflare.Token, error) {
			var p user.TokenListParams
			cloudflare.Set(&p.PerPage, perPage)
			if descending {
				cloudflare.Set(&p.Direction, user.TokenListParamsDirectionDesc)
			}
			return cloudflare.Collect(s.ListAutoPaging(ctx, p, options(as)...), token)
		},
		Delete: func(ctx context.Context, as cloudflare.As, id string) error {
			r, err := s.Delete(ctx, id, options(as)...)
			if err != nil {
				return err
			}
			return cloudflare.Same(r.ID, id)
		},
		Verify: func(ctx context.Context, as cloudflare.As) (cloudflare.State, error) {
			r, err := s.Verify(ctx, options(as)...)
			if err != nil {
				return cloudflare.State{}, err
			}
			return cloudflare.State{ID: r.ID, Status: string(r.Status), NotBefore: r.NotBefore, Expires: r.ExpiresOn}, nil
		},
		Groups: func(ctx context.Context, as cloudflare.As, name, scope string) ([]cloudflare.Group, error) {
			var p user.TokenPermissionGroupListParams
			cloudflare.Give(&p.Name, name)
			cloudflare.Give(&p.Scope, scope)
			pager := s.PermissionGroups.ListAutoPaging(ctx, p, options(as)...)
			return cloudflare.Collect(pager, func(g user.TokenPermissionGroupListResponse) cloudflare.Group {
				return cloudflare.Group{ID: g.ID, Name: g.Name, Scopes: texts(g.Scopes)}
			})
		},
	}
}

// createUser makes tokens of the user.
func createUser(s *user.TokenService) func(context.Context, cloudflare.As, cloudflare.Wish) (cloudflare.Token, error) {
	return func(ctx context.Context, as cloudflare.As, w cloudflare.Wish) (cloudflare.Token, error) {
		var p user.TokenNewParams
		fill(w, &p.Name, &p.Policies, &p.NotBefore, &p.ExpiresOn)
		if c := w.Condition; c != nil {
			var ip user.TokenNewParamsConditionRequestIP
			cloudflare.Give(&ip.In, c.In)
			cloudflare.Give(&ip.NotIn, c.NotIn)
			var cond user.TokenNewParamsCondition
			cloudflare.Set(&cond.RequestIP, ip)
			cloudflare.Set(&p.Condition, cond)
		}
		r, err := s.New(ctx, p, options(as)...)
		if err != nil {
			return cloudflare.Token{}, err
		}
		return cloudflare.Token{
			ID: r.ID, Name: r.Name, Status: string(r.Status), Secret: string(r.Value), Issued: r.IssuedOn, Modified: r.ModifiedOn,
			NotBefore: r.NotBefore, Expires: r.ExpiresOn, Policies: policies(r.Policies),
			Condition: condition(r.Condition.RequestIP.In, r.Condition.RequestIP.NotIn),
		}, nil
	}
}

func accountTokens() cloudflare.Kind {
	s := accounts.NewTokenService()
	roll := func(body any) func(context.Context, cloudflare.As, string) (string, error) {
		return func(ctx context.Context, as cloudflare.As, id string) (string, error) {
			p := accounts.TokenValueUpdateParams{Body: body}
			cloudflare.Set(&p.AccountID, as.AccountID)
			return secret(s.Value.Update(ctx, id, p, options(as)...))
		}
	}
	return cloudflare.Kind{
		Name: "account", Prefix: "wwa_",
		Rolls:  []func(context.Context, cloudflare.As, string) (string, error){roll(map[string]any{}), roll(nil)},
		Create: createAccount(s),
		Get: func(ctx context.Context, as cloudflare.As, id string) (cloudflare.Token, error) {
			var p accounts.TokenGetParams
			cloudflare.Set(&p.AccountID, as.AccountID)
			return answer(s.Get(ctx, id, p, options(as)...))
		},
		Update: func(ctx context.Context, as cloudflare.As, id string, w cloudflare.Wish) (cloudflare.Token, error) {
			p := accounts.TokenUpdateParams{Token: param(w)}
			cloudflare.Set(&p.AccountID, as.AccountID)
			return answer(s.Update(ctx, id, p, options(as)...))
		},
		List: func(ctx context.Context, as cloudflare.As, perPage int, descending bool) ([]cloudflare.Token, error) {
			var p accounts.TokenListParams
			cloudflare.Set(&p.AccountID, as.AccountID)
			cloudflare.Set(&p.PerPage, perPage)
			if descending {
				cloudflare.Set(&p.Direction, accounts.TokenListParamsDirectionDesc)
			}
			return cloudflare.Collect(s.ListAutoPaging(ctx, p, options(as)...), token)
		},
		Delete: func(ctx context.Context, as cloudflare.As, id string) error {
			var p accounts.TokenDeleteParams
			cloudflare.Set(&p.AccountID, as.AccountID)
			r, err := s.Delete(ctx, id, p, options(as)...)
			if err != nil {
				return err
			}
			return cloudflare.Same(r.ID, id)
		},
		Verify: func(ctx context.Context, as cloudflare.As) (cloudflare.State, error) {
			var p accounts.TokenVerifyParams
			cloudflare.Set(&p.AccountID, as.AccountID)
			r, err := s.Verify(ctx, p, options(as)...)
			if err != nil {
				return cloudflare.State{}, err
			}
			return cloudflare.State{ID: r.ID, Status: string(r.Status), NotBefore: r.NotBefore, Expires: r.ExpiresOn}, nil
		},
		Groups: func(ctx context.Context, as cloudflare.As, name, scope string) ([]cloudflare.Group, error) {
			var p accounts.TokenPermissionGroupListParams
			cloudflare.Set(&p.AccountID, as.AccountID)
			cloudflare.Give(&p.Name, name)
			cloudflare.Give(&p.Scope, scope)
			pager := s.PermissionGroups.ListAutoPaging(ctx, p, options(as)...)
			return cloudflare.Collect(pager, func(g accounts.TokenPermissionGroupListResponse) cloudflare.Group {
				return cloudflare.Group{ID: g.ID, Name: g.Name, Scopes: texts(g.Scopes)}
			})
		},
	}
}

// createAccount makes tokens of an account.
func createAccount(s *accounts.TokenService) func(context.Context, cloudflare.As, cloudflare.Wish) (cloudflare.Token, error) {
	return func(ctx context.Context, as cloudflare.As, w cloudflare.Wish) (cloudflare.Token, error) {
		var p accounts.TokenNewParams
		cloudflare.Set(&p.AccountID, as.AccountID)
		fill(w, &p.Name, &p.Policies, &p.NotBefore, &p.ExpiresOn)
		if c := w.Condition; c != nil {
			var ip accounts.TokenNewParamsConditionRequestIP
			cloudflare.Give(&ip.In, c.In)
			cloudflare.Give(&ip.NotIn, c.NotIn)
			var cond accounts.TokenNewParamsCondition
			cloudflare.Set(&cond.RequestIP, ip)
			cloudflare.Set(&p.Condition, cond)
		}
		r, err := s.New(ctx, p, options(as)...)
		if err != nil {
			return cloudflare.Token{}, err
		}
		return cloudflare.Token{
			ID: r.ID, Name: r.Name, Status: string(r.Status), Secret: string(r.Value), Issued: r.IssuedOn, Modified: r.ModifiedOn,
			NotBefore: r.NotBefore, Expires: r.ExpiresOn, Policies: policies(r.Policies),
			Condition: condition(r.Condition.RequestIP.In, r.Condition.RequestIP.NotIn),
		}, nil
	}
}

// fill sets the parameters that creates and updates share.
func fill(w cloudflare.Wish, name, all, notBefore, expires any) {
	ps := []shared.TokenPolicyParam{}
	for _, p := range w.Policies {
		ps = append(ps, policyParam(p))
	}
	cloudflare.Set(name, w.Name)
	cloudflare.Set(all, ps)
	cloudflare.Give(notBefore, w.NotBefore)
	cloudflare.Give(expires, w.Expires)
}

func policyParam(p cloudflare.Policy) shared.TokenPolicyParam {
	refs := []shared.TokenPolicyPermissionGroupParam{}
	for _, g := range p.Groups {
		var ref shared.TokenPolicyPermissionGroupParam
		cloudflare.Set(&ref.ID, g.ID)
		refs = append(refs, ref)
	}
	var on shared.TokenPolicyResourcesUnionParam
	if flat, ok := cloudflare.Flat(p.Resources); ok {
		on = shared.TokenPolicyResourcesIAMResourcesTypeObjectStringParam(flat)
	} else {
		on = shared.TokenPolicyResourcesIAMResourcesTypeObjectNestedParam(cloudflare.Nested(p.Resources))
	}
	var out shared.TokenPolicyParam
	cloudflare.Set(&out.Effect, shared.TokenPolicyEffect(p.Effect))
	cloudflare.Set(&out.Resources, on)
	cloudflare.Set(&out.PermissionGroups, refs)
	return out
}

// param is w as the client sends an update.
func param(w cloudflare.Wish) shared.TokenParam {
	var p shared.TokenParam
	fill(w, &p.Name, &p.Policies, &p.NotBefore, &p.ExpiresOn)
	cloudflare.Give(&p.Status, shared.TokenStatus(w.Status))
	if c := w.Condition; c != nil {
		var ip shared.TokenConditionRequestIPParam
		cloudflare.Give(&ip.In, c.In)
		cloudflare.Give(&ip.NotIn, c.NotIn)
		var cond shared.TokenConditionParam
		cloudflare.Set(&cond.RequestIP, ip)
		cloudflare.Set(&p.Condition, cond)
	}
	return p
}

func answer(t *shared.Token, err error) (cloudflare.Token, error) {
	if err != nil {
		return cloudflare.Token{}, err
	}
	return token(*t), nil
}

func token(t shared.Token) cloudflare.Token {
	return cloudflare.Token{
		ID: t.ID, Name: t.Name, Status: string(t.Status), Issued: t.IssuedOn, Modified: t.ModifiedOn,
		NotBefore: t.NotBefore, Expires: t.ExpiresOn, Policies: policies(t.Policies),
		Condition: condition(t.Condition.RequestIP.In, t.Condition.RequestIP.NotIn),
	}
}

func policies(all []shared.TokenPolicy) []cloudflare.Policy {
	var out []cloudflare.Policy
	for _, p := range all {
		q := cloudflare.Policy{ID: p.ID, Effect: string(p.Effect), Resources: map[string]any{}}
		switch on := p.Resources.(type) {
		case shared.TokenPolicyResourcesIAMResourcesTypeObjectString:
			for k, v := range on {
				q.Resources[k] = v
			}
		case shared.TokenPolicyResourcesIAMResourcesTypeObjectNested:
			for k, v := range on {
				q.Resources[k] = cloudflare.Loose(v)
			}
		}
		for _, g := range p.PermissionGroups {
			q.Groups = append(q.Groups, cloudflare.Group{ID: g.ID, Name: g.Name})
		}
		out = append(out, q)
	}
	return out
}

// condition is none without lists: the client does not tell.
func condition(in, notIn []string) *cloudflare.Condition {
	if in == nil && notIn == nil {
		return nil
	}
	return &cloudflare.Condition{In: in, NotIn: notIn}
}

func secret(s *string, err error) (string, error) {
	if err != nil || s == nil {
		return "", err
	}
	return *s, nil
}

func texts[S ~string](all []S) []string {
	var out []string
	for _, s := range all {
		out = append(out, string(s))
	}
	return out
}
