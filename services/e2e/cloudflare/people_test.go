package cloudflare_test

import (
	"net/http"
	"slices"
	"testing"

	"watchword.dev/services/e2e/cloudflare"
)

// TestKinds checks that neither kind of token passes for the other, and that
// tokens with permissions on tokens can use them.
func TestKinds(t *testing.T) {
	t.Parallel()
	for _, c := range clients() {
		if len(c.Kinds) < 2 {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			u, a := newOne(t, c, c.Kinds[0]), newOne(t, c, c.Kinds[1])
			mine := u.make(cloudflare.Wish{Name: "kinds", Policies: zonePolicy(dnsWrite)})
			theirs := a.make(cloudflare.Wish{Name: "kinds", Policies: zonePolicy(dnsWrite)})
			u.dead("an account's token at the user's route", theirs.Secret)
			a.dead("a user's token at the account's route", mine.Secret)
			_, err := u.Get(u.ctx, u.operator(), theirs.ID)
			u.refused("an account's token", err, http.StatusNotFound, 1003)
			_, err = a.Get(a.ctx, a.operator(), mine.ID)
			a.refused("a user's token", err, http.StatusNotFound, 1003)
		})
	}
}

// TestTokenOfTokens checks that a token with permissions on tokens can use
// them.
func TestTokenOfTokens(t *testing.T) {
	each(t, func(t *testing.T, o *one) {
		group, on := "API Tokens Write", userScope+"."+server.Admin.UserID
		if o.Kind.Name == "account" {
			group, on = "Account API Tokens Write", accountScope+"."+server.Admin.AccountID
		}
		groups, err := o.Groups(o.ctx, o.operator(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(groups, func(g cloudflare.Group) bool { return g.Name == group })
		if at < 0 {
			t.Fatalf("no group %q", group)
		}
		writer := o.make(cloudflare.Wish{Name: "writer", Policies: []cloudflare.Policy{policy("allow", on, groups[at].ID)}})
		m := o.make(cloudflare.Wish{Name: "written", Policies: zonePolicy(dnsWrite)})
		got, err := o.Get(o.ctx, o.bearer(writer.Secret), m.ID)
		if err != nil || got.ID != m.ID {
			t.Errorf("get with a token: %v", err)
		}
		if err := o.Delete(o.ctx, o.bearer(writer.Secret), m.ID); err != nil {
			t.Errorf("delete with a token: %v", err)
		}
		o.dead("what a token has deleted", m.Secret)
	})
}

// TestPeople reads the user, the accounts and the memberships.
func TestPeople(t *testing.T) {
	t.Parallel()
	for _, c := range clients() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			o := newOne(t, c, c.Kinds[0])
			me, err := c.User(o.ctx, o.operator())
			if err != nil || me.ID != server.Admin.UserID || me.Email != "" && me.Email != server.Admin.Email {
				t.Errorf("user: %+v, %v", me, err)
			}
			mine := o.account(server.Admin.AccountID)
			if mine.Name == "" {
				t.Errorf("account: %+v", mine)
			}
			for what, list := range map[string]func() ([]cloudflare.Named, error){
				"accounts":    func() ([]cloudflare.Named, error) { return c.Accounts(o.ctx, o.operator()) },
				"memberships": func() ([]cloudflare.Named, error) { return c.Memberships(o.ctx, o.operator()) },
			} {
				if what == "memberships" && c.Memberships == nil {
					continue
				}
				if all, err := list(); err != nil || !slices.Equal(all, []cloudflare.Named{mine}) {
					t.Errorf("%s: %+v, %v", what, all, err)
				}
			}
			_, err = c.Account(o.ctx, o.operator(), unknown)
			o.refused("an unknown account", err, http.StatusNotFound, 1003)
		})
	}
}

// account reads one that is there.
func (o *one) account(id string) cloudflare.Named {
	o.t.Helper()
	a, err := o.Account(o.ctx, o.operator(), id)
	if err != nil || a.ID != id {
		o.t.Fatalf("account: %+v, %v", a, err)
	}
	return a
}
