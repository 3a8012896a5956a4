package cloudflare_test

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword.dev/services/e2e/cloudflare"
)

// TestLife takes a token through all that the client can do with it.
func TestLife(t *testing.T) {
	each(t, func(t *testing.T, o *one) {
		expires := time.Now().Add(90 * 24 * time.Hour).UTC().Truncate(time.Second)
		m := o.make(cloudflare.Wish{Name: "life", Policies: zonePolicy(dnsWrite), Expires: expires})
		if !strings.HasPrefix(m.Secret, o.Prefix) || len(m.Secret) != 48 || m.Name != "life" || m.Status != "active" || m.Issued.IsZero() || m.Modified.IsZero() {
			t.Errorf("created: %+v", m)
		}
		got, err := o.Get(o.ctx, o.operator(), m.ID)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(o.http.text(), m.Secret) {
			t.Errorf("get tells the secret: %s", o.http.text())
		}
		m.Secret, got.Secret = "", m.Secret
		secret := got.Secret
		got.Secret = ""
		if !reflect.DeepEqual(got, m) || !got.Expires.Equal(expires) || !got.NotBefore.IsZero() {
			t.Errorf("got %+v, created %+v", got, m)
		}
		if p := got.Policies; len(p) != 1 || p[0].Groups[0].Name != "DNS Write" || p[0].ID == "" {
			t.Errorf("policies: %+v", p)
		}
		if s, err := o.Verify(o.ctx, o.bearer(secret)); err != nil || s.ID != m.ID || s.Status != "active" || !s.Expires.Equal(expires) {
			t.Errorf("verify: %+v, %v", s, err)
		}
		o.replace(m.ID, secret)
		secret = o.rollAll(m.ID, secret)
		if err := o.Delete(o.ctx, o.operator(), m.ID); err != nil {
			t.Errorf("delete: %v", err)
		}
		o.dead("verify after delete", secret)
		_, err = o.Get(o.ctx, o.operator(), m.ID)
		o.refused("get after delete", err, http.StatusNotFound, 1003)
		o.refused("second delete", o.Delete(o.ctx, o.operator(), m.ID), http.StatusNotFound, 1003)
	})
}

// replace checks that an update replaces everything but the secret and the
// status.
func (o *one) replace(id, secret string) {
	o.t.Helper()
	w := cloudflare.Wish{Name: "life 2", Policies: zonePolicy(dnsWrite, zoneRead)}
	update := func(status, want string) {
		o.t.Helper()
		w.Status = status
		up, err := o.Update(o.ctx, o.operator(), id, w)
		if err != nil {
			o.t.Fatal(err)
		}
		if up.Name != "life 2" || !up.Expires.IsZero() || len(up.Policies[0].Groups) != 2 || up.Status != want || up.Issued.IsZero() || up.Modified.IsZero() {
			o.t.Errorf("updated: %+v", up)
		}
		// Disabled, verify says so with a success, as the clients' enum has it.
		if s, err := o.Verify(o.ctx, o.bearer(secret)); err != nil || s.ID != id || s.Status != want {
			o.t.Errorf("verify: %+v, %v", s, err)
		}
	}
	update("", "active")
	update("disabled", "disabled")
	update("", "disabled")
	update("active", "active")
}

// rollAll rolls in every way that the client has, and returns the last secret.
func (o *one) rollAll(id, secret string) string {
	o.t.Helper()
	for _, roll := range o.Rolls {
		next, err := roll(o.ctx, o.operator(), id)
		if err != nil || next == secret || !strings.HasPrefix(next, o.Prefix) {
			o.t.Fatalf("roll: %v", err)
		}
		o.dead("the rolled secret", secret)
		o.lives(id, next)
		secret = next
	}
	return secret
}

// TestList checks that the client's pager comes to an end and sees every token
// once, forwards and backwards. A client without one sees the first page.
func TestList(t *testing.T) {
	inTurn(t, func(t *testing.T, o *one) {
		var want []string
		name := unique("listed")
		for range 13 {
			want = append(want, o.make(cloudflare.Wish{Name: name, Policies: zonePolicy(dnsWrite)}).ID)
		}
		if !o.Can.Page {
			all, err := o.List(o.ctx, o.operator(), 0, false)
			if err != nil || len(all) < 13 || len(all) > 20 {
				t.Errorf("%d tokens on the first page, %v", len(all), err)
			}
			return
		}
		for _, perPage := range []int{5, 6, 50} {
			for _, descending := range []bool{false, true} {
				all, err := o.List(o.ctx, o.operator(), perPage, descending)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, tok := range named(all, name) {
					got = append(got, tok.ID)
				}
				if descending {
					slices.Reverse(got)
				}
				if !slices.Equal(got, want) {
					t.Errorf("%v a page, descending %v: %q, want %q", perPage, descending, got, want)
				}
				if !strings.Contains(o.http.text(), `"result":[],`) {
					t.Errorf("the pager ended at %.200s", o.http.text())
				}
			}
		}
	})
}

// TestGroups looks permission groups up as the client and its users do.
func TestGroups(t *testing.T) {
	each(t, func(t *testing.T, o *one) {
		all, err := o.Groups(o.ctx, o.operator(), "", "")
		if err != nil || len(all) < 311 {
			t.Fatalf("%d groups, %v", len(all), err)
		}
		for _, g := range all {
			if len(g.ID) != 32 || g.Name == "" || len(g.Scopes) == 0 {
				t.Errorf("group %+v", g)
			}
		}
		if !o.Can.Filter {
			return
		}
		for _, c := range []struct {
			name, scope string
			ids         int
			first       string
		}{
			{"DNS Write", "", 1, dnsWrite},
			{"DNS Write", zoneScope, 1, dnsWrite},
			{"DNS Write", accountScope, 0, ""},
			{"DNS%20Write", zoneScope, 1, dnsWrite}, // arrives encoded twice
			{"Account%20Settings Write", "", 1, ""},
			{"Logs Read", "", 2, ""},
			{"Logs Read", zoneScope, 1, ""},
			{"no such group", "", 0, ""},
		} {
			got, err := o.Groups(o.ctx, o.operator(), c.name, c.scope)
			if err != nil || len(got) != c.ids || c.first != "" && got[0].ID != c.first {
				t.Errorf("%q %q: %+v, %v", c.name, c.scope, got, err)
			}
		}
	})
}

// TestCondition checks that both spellings come back, whichever the client
// sends, and that omitting the condition clears it.
func TestCondition(t *testing.T) {
	each(t, func(t *testing.T, o *one) {
		c := &cloudflare.Condition{In: []string{"192.0.2.0/24", "2001:db8::/48"}, NotIn: []string{"192.0.2.7/32"}}
		w := cloudflare.Wish{Name: "condition", Policies: zonePolicy(dnsWrite), Condition: c}
		const lists = `{"in":["192.0.2.0/24","2001:db8::/48"],"not_in":["192.0.2.7/32"]}`
		m := o.make(w)
		if !strings.Contains(o.http.text(), `"condition":{"request_ip":`+lists+`,"request.ip":`+lists+`}`) {
			t.Errorf("created: %s", o.http.text())
		}
		got, err := o.Get(o.ctx, o.operator(), m.ID)
		if err != nil || !reflect.DeepEqual(got.Condition, c) {
			t.Errorf("got: %+v, %v", got, err)
		}
		_, err = o.Verify(o.ctx, o.bearer(m.Secret))
		o.refused("verify from elsewhere", err, http.StatusForbidden, 9109)
		if !strings.Contains(o.http.text(), `"Cannot use the access token from location: 127.0.0.1"`) {
			t.Errorf("verify from elsewhere: %s", o.http.text())
		}
		update := func(c *cloudflare.Condition) cloudflare.Token {
			t.Helper()
			w.Condition = c
			up, err := o.Update(o.ctx, o.operator(), m.ID, w)
			if err != nil {
				t.Fatal(err)
			}
			return up
		}
		// From an address that it allows it works.
		update(&cloudflare.Condition{In: []string{"192.0.2.0/24", "127.0.0.0/8"}, NotIn: c.NotIn})
		o.lives(m.ID, m.Secret)
		// An empty "in" is nobody; a condition that is left out is none.
		if o.Can.SendEmptyIn {
			update(&cloudflare.Condition{In: []string{}})
			_, err = o.Verify(o.ctx, o.bearer(m.Secret))
			o.refused("an empty in", err, http.StatusForbidden, 9109)
		}
		if up := update(nil); up.Condition != nil || strings.Contains(o.http.text(), `"condition":`) {
			t.Errorf("cleared: %s", o.http.text())
		}
		o.lives(m.ID, m.Secret)
	})
}

// TestOrder checks that policies, groups and resources come back in the order
// and the form in which the client sent them.
func TestOrder(t *testing.T) {
	each(t, func(t *testing.T, o *one) {
		want := []cloudflare.Policy{
			policy("deny", zoneScope+".2f0c6b0f0a2b4c6d8e9f00112233aabb", zoneRead, dnsWrite),
			policy("allow", zoneScope+".1f0c6b0f0a2b4c6d8e9f00112233aabb", dnsWrite),
			{Effect: "allow", Groups: []cloudflare.Group{{ID: dnsWrite}, {ID: zoneRead}},
				Resources: map[string]any{accountScope + "." + server.Admin.AccountID: map[string]any{zoneScope + ".*": "*"}}},
		}
		m := o.make(cloudflare.Wish{Name: "order", Policies: want})
		got, err := o.Get(o.ctx, o.operator(), m.ID)
		if err != nil {
			t.Fatal(err)
		}
		// As people do it: what was read is sent back, ids and names too.
		up, err := o.Update(o.ctx, o.operator(), m.ID, cloudflare.Wish{Name: "order", Policies: got.Policies})
		if err != nil {
			t.Fatal(err)
		}
		for what, ps := range map[string][]cloudflare.Policy{"create": m.Policies, "get": got.Policies, "update": up.Policies} {
			if !reflect.DeepEqual(sent(ps), want) {
				t.Errorf("%s: %+v, want %+v", what, ps, want)
			}
		}
	})
}

// sent is what of policies a client sends.
func sent(all []cloudflare.Policy) []cloudflare.Policy {
	var out []cloudflare.Policy
	for _, p := range all {
		q := cloudflare.Policy{Effect: p.Effect, Resources: p.Resources}
		for _, g := range p.Groups {
			q.Groups = append(q.Groups, cloudflare.Group{ID: g.ID})
		}
		out = append(out, q)
	}
	return out
}
