package cloudflare_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/cloudflare-go/v6/accounts"
	"github.com/cloudflare/cloudflare-go/v6/shared"
	"github.com/cloudflare/cloudflare-go/v6/user"
)

// TestLife takes a token through all that the client can do with it.
func TestLife(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		ctx := bounded(t)
		expires := time.Now().Add(90 * 24 * time.Hour).UTC().Truncate(time.Second)
		m, err := k.create(ctx, wish{name: "life", policies: []shared.TokenPolicyParam{zonePolicy(dnsWrite)}, expires: expires}, operator()...)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(m.secret, k.prefix) || len(m.secret) != 48 || m.name != "life" || m.status != "active" || m.issued.IsZero() || m.modified.IsZero() {
			t.Errorf("created: %+v", m)
		}
		got, err := k.get(ctx, m.id, operator()...)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != m.id || !got.ExpiresOn.Equal(expires) || !got.NotBefore.IsZero() || strings.Contains(got.JSON.RawJSON(), m.secret) {
			t.Errorf("got: %s", got.JSON.RawJSON())
		}
		if p := got.Policies; len(p) != 1 || p[0].PermissionGroups[0].Name != "DNS Write" || p[0].ID == "" {
			t.Errorf("policies: %s", got.JSON.RawJSON())
		}
		s, err := k.verify(ctx, bearer(m.secret)...)
		if err != nil || s.id != m.id || s.status != "active" || !s.expires.Equal(expires) {
			t.Errorf("verify: %+v, %v", s, err)
		}

		// An update replaces everything but the secret and the status.
		up, err := k.update(ctx, m.id, wish{name: "life 2", policies: []shared.TokenPolicyParam{zonePolicy(dnsWrite, zoneRead)}}, operator()...)
		if err != nil {
			t.Fatal(err)
		}
		if up.Name != "life 2" || !up.ExpiresOn.IsZero() || len(up.Policies[0].PermissionGroups) != 2 || up.Status != shared.TokenStatusActive {
			t.Errorf("updated: %s", up.JSON.RawJSON())
		}
		if _, err := k.verify(ctx, bearer(m.secret)...); err != nil {
			t.Errorf("verify after update: %v", err)
		}
		// Disabled, verify says so with a success, as the client's enum has it.
		w := wish{name: "life 2", policies: []shared.TokenPolicyParam{zonePolicy(dnsWrite)}, status: shared.TokenStatusDisabled}
		if up, err = k.update(ctx, m.id, w, operator()...); err != nil || up.Status != shared.TokenStatusDisabled {
			t.Errorf("disabled: %v, %v", up, err)
		}
		if s, err := k.verify(ctx, bearer(m.secret)...); err != nil || s.status != "disabled" {
			t.Errorf("verify while disabled: %+v, %v", s, err)
		}
		w.status = ""
		if up, err = k.update(ctx, m.id, w, operator()...); err != nil || up.Status != shared.TokenStatusDisabled {
			t.Errorf("an update without a status: %v, %v", up, err)
		}
		w.status = shared.TokenStatusActive
		if up, err = k.update(ctx, m.id, w, operator()...); err != nil || up.Status != shared.TokenStatusActive {
			t.Errorf("enabled: %v, %v", up, err)
		}

		// Roll: with {} and with the empty chunked body that Body nil makes.
		secret := m.secret
		for _, body := range []any{map[string]any{}, nil} {
			next, err := k.roll(ctx, m.id, body, operator()...)
			if err != nil || next == secret || !strings.HasPrefix(next, k.prefix) {
				t.Fatalf("roll with %v: %q, %v", body, next, err)
			}
			_, err = k.verify(ctx, bearer(secret)...)
			refused(t, "the rolled secret", err, "401", "1000")
			if s, err := k.verify(ctx, bearer(next)...); err != nil || s.id != m.id {
				t.Errorf("the new secret: %+v, %v", s, err)
			}
			secret = next
		}

		id, err := k.remove(ctx, m.id, operator()...)
		if err != nil || id != m.id {
			t.Errorf("delete: %q, %v", id, err)
		}
		_, err = k.verify(ctx, bearer(secret)...)
		refused(t, "verify after delete", err, "401", "1000")
		_, err = k.get(ctx, m.id, operator()...)
		refused(t, "get after delete", err, "404", "1003")
		_, err = k.remove(ctx, m.id, operator()...)
		refused(t, "second delete", err, "404", "1003")
	})
}

// TestList checks that the client's pager comes to an end and sees every token
// once, forwards and backwards.
func TestList(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		ctx := bounded(t)
		var want []string
		name := unique("listed")
		for n := range 13 {
			m, err := k.create(ctx, wish{name: name, policies: []shared.TokenPolicyParam{zonePolicy(dnsWrite)}}, operator()...)
			if err != nil {
				t.Fatalf("%d: %v", n, err)
			}
			want = append(want, m.id)
		}
		for _, perPage := range []float64{5, 6, 50} {
			for _, descending := range []bool{false, true} {
				all, err := k.list(ctx, perPage, descending, operator()...)
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
			}
		}
	})
}

// TestGroups looks permission groups up as the client and its users do.
func TestGroups(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		ctx := bounded(t)
		const zone, account = "com.cloudflare.api.account.zone", "com.cloudflare.api.account"
		all, err := k.groups(ctx, "", "", operator()...)
		if err != nil || len(all) < 311 {
			t.Fatalf("%d groups, %v", len(all), err)
		}
		for _, g := range all {
			if len(g.id) != 32 || g.name == "" || len(g.scopes) == 0 {
				t.Errorf("group %+v", g)
			}
		}
		for _, c := range []struct {
			name, scope string
			ids         int
			first       string
		}{
			{"DNS Write", "", 1, dnsWrite},
			{"DNS Write", zone, 1, dnsWrite},
			{"DNS Write", account, 0, ""},
			{"DNS%20Write", zone, 1, dnsWrite}, // arrives encoded twice
			{"Account%20Settings Write", "", 1, ""},
			{"Logs Read", "", 2, ""},
			{"Logs Read", zone, 1, ""},
			{"no such group", "", 0, ""},
		} {
			got, err := k.groups(ctx, c.name, c.scope, operator()...)
			if err != nil || len(got) != c.ids || c.first != "" && got[0].id != c.first {
				t.Errorf("%q %q: %+v, %v", c.name, c.scope, got, err)
			}
		}
	})
}

// TestCondition checks that both spellings come back, whichever was sent, and
// that omitting the condition clears it.
func TestCondition(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		ctx := bounded(t)
		w := wish{name: "condition", policies: []shared.TokenPolicyParam{zonePolicy(dnsWrite)},
			in: []string{"192.0.2.0/24", "2001:db8::/48"}, notIn: []string{"192.0.2.7/32"}}
		m, err := k.create(ctx, w, operator()...)
		if err != nil {
			t.Fatal(err)
		}
		const both = `{"request_ip":{"in":["192.0.2.0/24","2001:db8::/48"],"not_in":["192.0.2.7/32"]},"request.ip":{"in":["192.0.2.0/24","2001:db8::/48"],"not_in":["192.0.2.7/32"]}}`
		if !strings.Contains(m.raw, `"condition":`+both) {
			t.Errorf("created: %s", m.raw)
		}
		got, err := k.get(ctx, m.id, operator()...)
		if err != nil || !slices.Equal(got.Condition.RequestIP.In, w.in) || !slices.Equal(got.Condition.RequestIP.NotIn, w.notIn) {
			t.Errorf("got: %v, %v", got, err)
		}
		_, err = k.verify(ctx, bearer(m.secret)...)
		refused(t, "verify from elsewhere", err, "403", "9109")
		if !strings.Contains(fmt.Sprint(err), "Cannot use the access token from location: 127.0.0.1") {
			t.Errorf("verify from elsewhere: %v", err)
		}
		// From an address that it allows it works.
		w.in = append(w.in, "127.0.0.0/8")
		if _, err := k.update(ctx, m.id, w, operator()...); err != nil {
			t.Fatal(err)
		}
		if s, err := k.verify(ctx, bearer(m.secret)...); err != nil || s.status != "active" {
			t.Errorf("verify from an allowed address: %+v, %v", s, err)
		}
		// An empty "in" is nobody; a condition that is left out is none.
		w.in, w.notIn = []string{}, nil
		if _, err := k.update(ctx, m.id, w, operator()...); err != nil {
			t.Fatal(err)
		}
		_, err = k.verify(ctx, bearer(m.secret)...)
		refused(t, "an empty in", err, "403", "9109")
		w.in = nil
		up, err := k.update(ctx, m.id, w, operator()...)
		if err != nil || strings.Contains(up.JSON.RawJSON(), `"condition":`) {
			t.Errorf("cleared: %v, %v", up, err)
		}
		if _, err := k.verify(ctx, bearer(m.secret)...); err != nil {
			t.Errorf("verify without a condition: %v", err)
		}
	})
}

// TestDottedCondition sends what cloudflare-go v0 and Terraform v4 send, and
// reads it with v6.
func TestDottedCondition(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	k := userKind()
	name := unique("dotted")
	body := func(condition string) string {
		return `{"name":"` + name + `","policies":[{"id":"ignored","effect":"allow","resources":{"com.cloudflare.api.account.zone.` + zoneID + `":"*"},"permission_groups":[{"id":"` + dnsWrite + `","name":"x","meta":{"key":"a","value":"b"}}]}],"condition":` + condition + `}`
	}
	for condition, want := range map[string]int{
		`{"request.ip":{"in":["192.0.2.0/24"]}}`:                                         http.StatusOK,
		`{"request.ip":{"in":["192.0.2.0/24"]},"request_ip":{"in":["192.0.2.0/24"]}}`:    http.StatusOK,
		`{"request.ip":{"in":["192.0.2.0/24"]},"request_ip":{"in":["198.51.100.0/24"]}}`: http.StatusBadRequest,
		`{}`:   http.StatusOK,
		`null`: http.StatusOK,
	} {
		if status, text := raw(t, http.MethodPost, "/user/tokens", body(condition), key()); status != want {
			t.Errorf("%s: %d %s", condition, status, text)
		}
	}
	all, err := k.list(ctx, 50, false, operator()...)
	if err != nil {
		t.Fatal(err)
	}
	with := 0
	for _, tok := range named(all, name) {
		if slices.Equal(tok.Condition.RequestIP.In, []string{"192.0.2.0/24"}) {
			with++
		}
	}
	if all := named(all, name); len(all) != 4 || with != 2 {
		t.Errorf("%d tokens, %d with a condition", len(all), with)
	}
}

// TestOrder checks that policies, groups and resources come back in the order
// and the bytes in which they were sent.
func TestOrder(t *testing.T) {
	t.Parallel()
	const (
		zone     = "com.cloudflare.api.account.zone."
		flat     = `{"` + zone + `2f0c6b0f0a2b4c6d8e9f00112233aabb":"*","` + zone + `1f0c6b0f0a2b4c6d8e9f00112233aabb":"*"}`
		policies = `[{"effect":"deny","resources":` + flat + `,"permission_groups":[{"id":"` + zoneRead + `"},{"id":"` + dnsWrite + `"}]},` +
			`{"effect":"allow","resources":%s,"permission_groups":[{"id":"` + dnsWrite + `"}]}]`
	)
	nested := `{"com.cloudflare.api.account.` + server.Admin.AccountID + `":{"` + zone + `*":"*"}}`
	spaced := strings.NewReplacer(":", ": ", ",", " ,\n ").Replace(nested)
	for name, sent := range map[string]string{"compact": nested, "spaced": spaced} {
		status, text := raw(t, http.MethodPost, "/user/tokens", `{"name":"order","policies":`+fmt.Sprintf(policies, sent)+`}`, key())
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", name, status, text)
		}
		for _, want := range []string{
			`"resources":` + flat + `,"permission_groups":[{"id":"` + zoneRead + `","name":"Zone Read"},{"id":"` + dnsWrite + `","name":"DNS Write"}]}`,
			`"resources":` + nested + `,`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %s lacks %s", name, text, want)
			}
		}
	}
	// And the client decodes each form as what it is.
	ctx := bounded(t)
	m, err := userKind().create(ctx, wish{name: "order", policies: []shared.TokenPolicyParam{
		policy(shared.TokenPolicyEffectAllow, shared.TokenPolicyResourcesIAMResourcesTypeObjectNestedParam{
			"com.cloudflare.api.account." + server.Admin.AccountID: {zone + "*": "*"}}, dnsWrite),
		zonePolicy(zoneRead),
	}}, operator()...)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := m.policies[0].Resources.(shared.TokenPolicyResourcesIAMResourcesTypeObjectNested); !ok {
		t.Errorf("nested resources decode as %T", m.policies[0].Resources)
	}
	if _, ok := m.policies[1].Resources.(shared.TokenPolicyResourcesIAMResourcesTypeObjectString); !ok {
		t.Errorf("flat resources decode as %T", m.policies[1].Resources)
	}
}

// TestRefusals checks that the client sees every refusal as an error, with the
// status and code that its users look at.
func TestRefusals(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		ctx := bounded(t)
		good := wish{name: "refusals", policies: []shared.TokenPolicyParam{zonePolicy(dnsWrite)}}
		m, err := k.create(ctx, good, operator()...)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{unknown, strings.Repeat("f", 32)} {
			_, err = k.get(ctx, id, operator()...)
			refused(t, "get", err, "404", "1003")
			_, err = k.update(ctx, id, good, operator()...)
			refused(t, "update", err, "404", "1003")
			_, err = k.roll(ctx, id, map[string]any{}, operator()...)
			refused(t, "roll", err, "404", "1003")
			_, err = k.remove(ctx, id, operator()...)
			refused(t, "delete", err, "404", "1003")
		}
		_, err = k.get(ctx, "not-an-id", operator()...)
		refused(t, "a malformed id", err, "404", "7003")

		// A token without permissions on tokens, and one that nobody knows.
		_, err = k.list(ctx, 20, false, bearer(m.secret)...)
		refused(t, "list", err, "403", "9109")
		_, err = k.create(ctx, good, bearer(m.secret)...)
		refused(t, "create", err, "403", "9109")
		_, err = k.get(ctx, m.id, bearer(m.secret)...)
		refused(t, "get", err, "403", "9109")
		stranger := k.prefix + "2nf70CwLdjhc7DaClkHUkhzRo9Hja5jxtMJRfP18nLFL"
		_, err = k.list(ctx, 20, false, bearer(stranger)...)
		refused(t, "an unknown secret", err, "403", "9109")
		_, err = k.verify(ctx, bearer(stranger)...)
		refused(t, "an unknown secret", err, "401", "1000")
		_, err = k.verify(ctx, bearer("short")...)
		refused(t, "a malformed secret", err, "400", "6003")
		_, err = k.verify(ctx, bearer(server.Admin.APIKey)...)
		refused(t, "another kind's secret", err, "401", "1000")
		_, err = k.list(ctx, 20, false, operator()[:1]...)
		refused(t, "no credential", err, "400", "9106")

		for name, bad := range map[string]wish{
			"no name":         {policies: good.policies},
			"no policies":     {name: "bad", policies: []shared.TokenPolicyParam{}},
			"no groups":       {name: "bad", policies: []shared.TokenPolicyParam{zonePolicy()}},
			"unknown group":   {name: "bad", policies: []shared.TokenPolicyParam{zonePolicy(unknown)}},
			"a bad CIDR":      {name: "bad", policies: good.policies, in: []string{"192.0.2.0/33"}},
			"never valid":     {name: "bad", policies: good.policies, notBefore: time.Now().Add(time.Hour), expires: time.Now().Add(time.Minute)},
			"a bad effect":    {name: "bad", policies: []shared.TokenPolicyParam{policy("maybe", shared.TokenPolicyResourcesIAMResourcesTypeObjectStringParam{"com.cloudflare.api.account.zone." + zoneID: "*"}, dnsWrite)}},
			"a bad resource":  {name: "bad", policies: []shared.TokenPolicyParam{policy("allow", shared.TokenPolicyResourcesIAMResourcesTypeObjectStringParam{"zone": "*"}, dnsWrite)}},
			"the wrong scope": {name: "bad", policies: []shared.TokenPolicyParam{policy("allow", shared.TokenPolicyResourcesIAMResourcesTypeObjectStringParam{"com.cloudflare.api.account." + server.Admin.AccountID: "*"}, dnsWrite)}},
		} {
			code := "1001"
			_, err := k.create(ctx, bad, operator()...)
			refused(t, "create: "+name, err, "400", code)
			_, err = k.update(ctx, m.id, bad, operator()...)
			refused(t, "update: "+name, err, "400", code)
		}
		all, err := k.list(ctx, 50, false, operator()...)
		if err != nil || len(named(all, "bad")) != 0 {
			t.Errorf("a refused create made something: %v", err)
		}
	})
}

// TestKinds checks that neither kind of token passes for the other, and that
// tokens with permissions on tokens can use them.
func TestKinds(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	u, a := userKind(), accountKind()
	mine, err := u.create(ctx, wish{name: "kinds", policies: []shared.TokenPolicyParam{zonePolicy(dnsWrite)}}, operator()...)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := a.create(ctx, wish{name: "kinds", policies: []shared.TokenPolicyParam{zonePolicy(dnsWrite)}}, operator()...)
	if err != nil {
		t.Fatal(err)
	}
	_, err = u.verify(ctx, bearer(theirs.secret)...)
	refused(t, "an account's token at the user's route", err, "401", "1000")
	_, err = a.verify(ctx, bearer(mine.secret)...)
	refused(t, "a user's token at the account's route", err, "401", "1000")
	_, err = u.get(ctx, theirs.id, operator()...)
	refused(t, "an account's token", err, "404", "1003")
	_, err = a.get(ctx, mine.id, operator()...)
	refused(t, "a user's token", err, "404", "1003")

	groups, err := u.groups(ctx, "API Tokens Write", "", operator()...)
	if err != nil || len(groups) != 1 {
		t.Fatalf("%v, %v", groups, err)
	}
	writer, err := u.create(ctx, wish{name: "kinds", policies: []shared.TokenPolicyParam{
		policy("allow", shared.TokenPolicyResourcesIAMResourcesTypeObjectStringParam{"com.cloudflare.api.user." + server.Admin.UserID: "*"}, groups[0].id),
	}}, operator()...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := u.get(ctx, mine.id, bearer(writer.secret)...)
	if err != nil || got.ID != mine.id {
		t.Errorf("get with a token: %v", err)
	}
	if _, err := u.remove(ctx, mine.id, bearer(writer.secret)...); err != nil {
		t.Errorf("delete with a token: %v", err)
	}
	_, err = u.verify(ctx, bearer(mine.secret)...)
	refused(t, "what a token has deleted", err, "401", "1000")
}

// TestPeople reads the user and the accounts.
func TestPeople(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	me, err := user.NewUserService().Get(ctx, operator()...)
	if err != nil || me.ID != server.Admin.UserID {
		t.Errorf("user: %+v, %v", me, err)
	}
	s := accounts.NewAccountService()
	pager := s.ListAutoPaging(ctx, accounts.AccountListParams{}, operator()...)
	var ids []string
	for pager.Next() && len(ids) < 100 {
		ids = append(ids, pager.Current().ID)
	}
	if pager.Err() != nil || !slices.Equal(ids, []string{server.Admin.AccountID}) {
		t.Errorf("accounts: %q, %v", ids, pager.Err())
	}
	var one accounts.AccountGetParams
	set(&one.AccountID, server.Admin.AccountID)
	got, err := s.Get(ctx, one, operator()...)
	if err != nil || got.ID != server.Admin.AccountID || got.Name == "" {
		t.Errorf("account: %+v, %v", got, err)
	}
	set(&one.AccountID, unknown)
	_, err = s.Get(ctx, one, operator()...)
	refused(t, "an unknown account", err, "404", "1003")
}
