package cloudflare_test

import (
	"context"
	"testing"
	"time"

	"github.com/cloudflare/cloudflare-go/v6/accounts"
	"github.com/cloudflare/cloudflare-go/v6/option"
	"github.com/cloudflare/cloudflare-go/v6/shared"
	"github.com/cloudflare/cloudflare-go/v6/user"
)

// made is what both kinds of create tell.
type made struct {
	id, secret, name, status string
	issued, modified         time.Time
	policies                 []shared.TokenPolicy
	raw                      string
}

// state is what both kinds of verify tell.
type state struct {
	id, status         string
	notBefore, expires time.Time
}

// group is what both kinds of permission group tell.
type group struct {
	id, name string
	scopes   []string
}

// wish is what a token shall be.
type wish struct {
	name               string
	policies           []shared.TokenPolicyParam
	in, notIn          []string
	notBefore, expires time.Time
	status             shared.TokenStatus // updates only
}

// kind is one of the two sets of routes, through the client's services.
type kind struct {
	name, prefix string
	create       func(context.Context, wish, ...option.RequestOption) (made, error)
	get          func(context.Context, string, ...option.RequestOption) (*shared.Token, error)
	update       func(context.Context, string, wish, ...option.RequestOption) (*shared.Token, error)
	list         func(context.Context, float64, bool, ...option.RequestOption) ([]shared.Token, error)
	roll         func(context.Context, string, any, ...option.RequestOption) (string, error)
	remove       func(context.Context, string, ...option.RequestOption) (string, error)
	verify       func(context.Context, ...option.RequestOption) (state, error)
	groups       func(ctx context.Context, name, scope string, opts ...option.RequestOption) ([]group, error)
}

// kinds returns both.
func kinds() []kind { return []kind{userKind(), accountKind()} }

// each runs f for both kinds.
func each(t *testing.T, f func(*testing.T, kind)) {
	t.Parallel()
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			f(t, k)
		})
	}
}

func userKind() kind {
	s := user.NewTokenService()
	return kind{
		name: "user", prefix: "wwu_",
		create: func(ctx context.Context, w wish, opts ...option.RequestOption) (made, error) {
			var p user.TokenNewParams
			w.fill(&p.Name, &p.Policies, &p.NotBefore, &p.ExpiresOn)
			if w.in != nil || w.notIn != nil {
				var ip user.TokenNewParamsConditionRequestIP
				give(&ip.In, w.in)
				give(&ip.NotIn, w.notIn)
				var c user.TokenNewParamsCondition
				set(&c.RequestIP, ip)
				set(&p.Condition, c)
			}
			r, err := s.New(ctx, p, opts...)
			if err != nil {
				return made{}, err
			}
			return made{r.ID, string(r.Value), r.Name, string(r.Status), r.IssuedOn, r.ModifiedOn, r.Policies, r.JSON.RawJSON()}, nil
		},
		get: func(ctx context.Context, id string, opts ...option.RequestOption) (*shared.Token, error) {
			return s.Get(ctx, id, opts...)
		},
		update: func(ctx context.Context, id string, w wish, opts ...option.RequestOption) (*shared.Token, error) {
			return s.Update(ctx, id, user.TokenUpdateParams{Token: w.param()}, opts...)
		},
		list: func(ctx context.Context, perPage float64, descending bool, opts ...option.RequestOption) ([]shared.Token, error) {
			var p user.TokenListParams
			set(&p.PerPage, perPage)
			if descending {
				set(&p.Direction, user.TokenListParamsDirectionDesc)
			}
			return collect(s.ListAutoPaging(ctx, p, opts...))
		},
		roll: func(ctx context.Context, id string, body any, opts ...option.RequestOption) (string, error) {
			v, err := s.Value.Update(ctx, id, user.TokenValueUpdateParams{Body: body}, opts...)
			return deref(v), err
		},
		remove: func(ctx context.Context, id string, opts ...option.RequestOption) (string, error) {
			r, err := s.Delete(ctx, id, opts...)
			if err != nil {
				return "", err
			}
			return r.ID, nil
		},
		verify: func(ctx context.Context, opts ...option.RequestOption) (state, error) {
			r, err := s.Verify(ctx, opts...)
			if err != nil {
				return state{}, err
			}
			return state{r.ID, string(r.Status), r.NotBefore, r.ExpiresOn}, nil
		},
		groups: func(ctx context.Context, name, scope string, opts ...option.RequestOption) ([]group, error) {
			var all []group
			var p user.TokenPermissionGroupListParams
			give(&p.Name, name)
			give(&p.Scope, scope)
			pager := s.PermissionGroups.ListAutoPaging(ctx, p, opts...)
			for pager.Next() {
				g := group{id: pager.Current().ID, name: pager.Current().Name}
				for _, sc := range pager.Current().Scopes {
					g.scopes = append(g.scopes, string(sc))
				}
				all = append(all, g)
			}
			return all, pager.Err()
		},
	}
}

func accountKind() kind {
	s := accounts.NewTokenService()
	of := func(field any) { set(field, server.Admin.AccountID) }
	return kind{
		name: "account", prefix: "wwa_",
		create: func(ctx context.Context, w wish, opts ...option.RequestOption) (made, error) {
			var p accounts.TokenNewParams
			of(&p.AccountID)
			w.fill(&p.Name, &p.Policies, &p.NotBefore, &p.ExpiresOn)
			if w.in != nil || w.notIn != nil {
				var ip accounts.TokenNewParamsConditionRequestIP
				give(&ip.In, w.in)
				give(&ip.NotIn, w.notIn)
				var c accounts.TokenNewParamsCondition
				set(&c.RequestIP, ip)
				set(&p.Condition, c)
			}
			r, err := s.New(ctx, p, opts...)
			if err != nil {
				return made{}, err
			}
			return made{r.ID, string(r.Value), r.Name, string(r.Status), r.IssuedOn, r.ModifiedOn, r.Policies, r.JSON.RawJSON()}, nil
		},
		get: func(ctx context.Context, id string, opts ...option.RequestOption) (*shared.Token, error) {
			var p accounts.TokenGetParams
			of(&p.AccountID)
			return s.Get(ctx, id, p, opts...)
		},
		update: func(ctx context.Context, id string, w wish, opts ...option.RequestOption) (*shared.Token, error) {
			p := accounts.TokenUpdateParams{Token: w.param()}
			of(&p.AccountID)
			return s.Update(ctx, id, p, opts...)
		},
		list: func(ctx context.Context, perPage float64, descending bool, opts ...option.RequestOption) ([]shared.Token, error) {
			var p accounts.TokenListParams
			of(&p.AccountID)
			set(&p.PerPage, perPage)
			if descending {
				set(&p.Direction, accounts.TokenListParamsDirectionDesc)
			}
			return collect(s.ListAutoPaging(ctx, p, opts...))
		},
		roll: func(ctx context.Context, id string, body any, opts ...option.RequestOption) (string, error) {
			p := accounts.TokenValueUpdateParams{Body: body}
			of(&p.AccountID)
			v, err := s.Value.Update(ctx, id, p, opts...)
			return deref(v), err
		},
		remove: func(ctx context.Context, id string, opts ...option.RequestOption) (string, error) {
			var p accounts.TokenDeleteParams
			of(&p.AccountID)
			r, err := s.Delete(ctx, id, p, opts...)
			if err != nil {
				return "", err
			}
			return r.ID, nil
		},
		verify: func(ctx context.Context, opts ...option.RequestOption) (state, error) {
			var p accounts.TokenVerifyParams
			of(&p.AccountID)
			r, err := s.Verify(ctx, p, opts...)
			if err != nil {
				return state{}, err
			}
			return state{r.ID, string(r.Status), r.NotBefore, r.ExpiresOn}, nil
		},
		groups: func(ctx context.Context, name, scope string, opts ...option.RequestOption) ([]group, error) {
			var all []group
			var p accounts.TokenPermissionGroupListParams
			of(&p.AccountID)
			give(&p.Name, name)
			give(&p.Scope, scope)
			pager := s.PermissionGroups.ListAutoPaging(ctx, p, opts...)
			for pager.Next() {
				g := group{id: pager.Current().ID, name: pager.Current().Name}
				for _, sc := range pager.Current().Scopes {
					g.scopes = append(g.scopes, string(sc))
				}
				all = append(all, g)
			}
			return all, pager.Err()
		},
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// fill sets the parameters that creates and updates share.
func (w wish) fill(name, policies, notBefore, expires any) {
	set(name, w.name)
	set(policies, w.policies)
	give(notBefore, w.notBefore)
	give(expires, w.expires)
}

// param is w as the client sends an update.
func (w wish) param() shared.TokenParam {
	var p shared.TokenParam
	w.fill(&p.Name, &p.Policies, &p.NotBefore, &p.ExpiresOn)
	give(&p.Status, w.status)
	if w.in != nil || w.notIn != nil {
		var ip shared.TokenConditionRequestIPParam
		give(&ip.In, w.in)
		give(&ip.NotIn, w.notIn)
		var c shared.TokenConditionParam
		set(&c.RequestIP, ip)
		set(&p.Condition, c)
	}
	return p
}
