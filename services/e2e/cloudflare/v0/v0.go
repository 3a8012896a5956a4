// Package v0 adapts cloudflare-go v0.119, the client of Terraform's provider
// v4 and of most programs written before 2025.
package v0

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	client "github.com/cloudflare/cloudflare-go"

	"watchword.dev/services/e2e/cloudflare"
)

// Client is the client.
func Client() cloudflare.Client {
	return cloudflare.Client{
		Name: "v0", Kinds: []cloudflare.Kind{userTokens()}, Refusal: refusal,
		User: func(ctx context.Context, as cloudflare.As) (cloudflare.User, error) {
			u, err := call(as, func(api *client.API) (client.User, error) { return api.UserDetails(ctx) })
			return cloudflare.User{ID: u.ID, Email: u.Email}, err
		},
		Accounts: func(ctx context.Context, as cloudflare.As) ([]cloudflare.Named, error) {
			found, err := call(as, func(api *client.API) ([]client.Account, error) {
				found, info, err := api.Accounts(ctx, client.AccountsListParams{})
				if err == nil && info.Total != len(found) {
					err = fmt.Errorf("%d accounts of %d", len(found), info.Total)
				}
				return found, err
			})
			return each(found, func(a client.Account) cloudflare.Named { return cloudflare.Named{ID: a.ID, Name: a.Name} }), err
		},
		Account: func(ctx context.Context, as cloudflare.As, id string) (cloudflare.Named, error) {
			a, err := call(as, func(api *client.API) (client.Account, error) {
				a, _, err := api.Account(ctx, id)
				return a, err
			})
			return cloudflare.Named{ID: a.ID, Name: a.Name}, err
		},
		Zones: func(ctx context.Context, as cloudflare.As, name string) ([]cloudflare.Zone, error) {
			var names []string
			if name != "" {
				names = append(names, name)
			}
			found, err := call(as, func(api *client.API) ([]client.Zone, error) { return api.ListZones(ctx, names...) })
			return each(found, func(z client.Zone) cloudflare.Zone {
				return cloudflare.Zone{ID: z.ID, Name: z.Name, Status: z.Status, AccountID: z.Account.ID}
			}), err
		},
	}
}

func userTokens() cloudflare.Kind {
	return cloudflare.Kind{
		Name: "user", Prefix: "wwu_",
		Create: func(ctx context.Context, as cloudflare.As, w cloudflare.Wish) (cloudflare.Token, error) {
			t, err := call(as, func(api *client.API) (client.APIToken, error) { return api.CreateAPIToken(ctx, request(w)) })
			return answer(t), err
		},
		Get: func(ctx context.Context, as cloudflare.As, id string) (cloudflare.Token, error) {
			t, err := call(as, func(api *client.API) (client.APIToken, error) { return api.GetAPIToken(ctx, id) })
			return answer(t), err
		},
		Update: func(ctx context.Context, as cloudflare.As, id string, w cloudflare.Wish) (cloudflare.Token, error) {
			t, err := call(as, func(api *client.API) (client.APIToken, error) { return api.UpdateAPIToken(ctx, id, request(w)) })
			return answer(t), err
		},
		List: func(ctx context.Context, as cloudflare.As, _ int, _ bool) ([]cloudflare.Token, error) {
			found, err := call(as, func(api *client.API) ([]client.APIToken, error) { return api.APITokens(ctx) })
			return each(found, answer), err
		},
		Rolls: []func(context.Context, cloudflare.As, string) (string, error){
			func(ctx context.Context, as cloudflare.As, id string) (string, error) {
				return call(as, func(api *client.API) (string, error) { return api.RollAPIToken(ctx, id) })
			},
		},
		Delete: func(ctx context.Context, as cloudflare.As, id string) error {
			_, err := call(as, func(api *client.API) (struct{}, error) { return struct{}{}, api.DeleteAPIToken(ctx, id) })
			return err
		},
		Verify: func(ctx context.Context, as cloudflare.As) (cloudflare.State, error) {
			s, err := call(as, func(api *client.API) (client.APITokenVerifyBody, error) { return api.VerifyAPIToken(ctx) })
			return cloudflare.State{ID: s.ID, Status: s.Status, NotBefore: s.NotBefore, Expires: s.ExpiresOn}, err
		},
		Groups: func(ctx context.Context, as cloudflare.As, _, _ string) ([]cloudflare.Group, error) {
			found, err := call(as, func(api *client.API) ([]client.APITokenPermissionGroups, error) {
				return api.ListAPITokensPermissionGroups(ctx)
			})
			return each(found, group), err
		},
	}
}

// call makes a client and calls it. The client's own limit of four requests a
// second would be the longest part of the tests.
func call[T any](as cloudflare.As, f func(*client.API) (T, error)) (T, error) {
	var none T
	o := []client.Option{
		client.BaseURL(as.BaseURL), client.HTTPClient(as.HTTP), client.UsingRateLimit(10_000),
		client.UsingRetryPolicy(as.Repeats, 0, 1),
	}
	var api *client.API
	var err error
	switch {
	case as.Token != "":
		api, err = client.NewWithAPIToken(as.Token, o...)
	case as.Key != "":
		api, err = client.New(as.Key, as.Email, o...)
	default: // it is not made without a credential
		o = append(o, client.HTTPClient(&http.Client{Transport: bare{as.HTTP.Transport}}))
		api, err = client.NewWithAPIToken("none", o...)
	}
	if err != nil {
		return none, err
	}
	return f(api)
}

// bare sends requests without credentials.
type bare struct{ through http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bare) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del("Authorization")
	return b.through.RoundTrip(r)
}

// request is w as the client sends it: with the ids and names that people keep
// in policies which they have from an answer.
func request(w cloudflare.Wish) client.APIToken {
	t := client.APIToken{Name: w.Name, Status: w.Status, NotBefore: ref(w.NotBefore), ExpiresOn: ref(w.Expires)}
	for _, p := range w.Policies {
		groups := each(p.Groups, func(g cloudflare.Group) client.APITokenPermissionGroups {
			return client.APITokenPermissionGroups{ID: g.ID, Name: g.Name}
		})
		t.Policies = append(t.Policies, client.APITokenPolicies{ID: p.ID, Effect: p.Effect, Resources: p.Resources, PermissionGroups: groups})
	}
	if c := w.Condition; c != nil {
		t.Condition = &client.APITokenCondition{RequestIP: &client.APITokenRequestIPCondition{In: c.In, NotIn: c.NotIn}}
	}
	return t
}

func answer(t client.APIToken) cloudflare.Token {
	out := cloudflare.Token{
		ID: t.ID, Name: t.Name, Status: t.Status, Secret: t.Value,
		Issued: deref(t.IssuedOn), Modified: deref(t.ModifiedOn), NotBefore: deref(t.NotBefore), Expires: deref(t.ExpiresOn),
	}
	for _, p := range t.Policies {
		out.Policies = append(out.Policies, cloudflare.Policy{ID: p.ID, Effect: p.Effect, Resources: p.Resources, Groups: each(p.PermissionGroups, group)})
	}
	if c := t.Condition; c != nil && c.RequestIP != nil {
		out.Condition = &cloudflare.Condition{In: c.RequestIP.In, NotIn: c.RequestIP.NotIn}
	}
	return out
}

func group(g client.APITokenPermissionGroups) cloudflare.Group {
	return cloudflare.Group{ID: g.ID, Name: g.Name, Scopes: g.Scopes}
}

// each converts a list; no list stays none.
func each[A, B any](all []A, f func(A) B) []B {
	var out []B
	for _, a := range all {
		out = append(out, f(a))
	}
	return out
}

func ref(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func deref(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// refusal reads the client's errors: each status that its users tell apart has
// a type of its own, and what else is below 500 shares one.
func refusal(err error) (status, code int, ok bool) {
	var codes []int
	if e, is := errors.AsType[*client.AuthorizationError](err); is {
		status, codes = http.StatusUnauthorized, e.ErrorCodes()
	}
	if e, is := errors.AsType[*client.AuthenticationError](err); is {
		status, codes = http.StatusForbidden, e.ErrorCodes()
	}
	if e, is := errors.AsType[*client.NotFoundError](err); is {
		status, codes = http.StatusNotFound, e.ErrorCodes()
	}
	if e, is := errors.AsType[*client.RequestError](err); is {
		status, codes = http.StatusBadRequest, e.ErrorCodes()
	}
	if len(codes) == 0 {
		return 0, 0, false
	}
	return status, codes[0], true
}
