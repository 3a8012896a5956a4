package catalogue_test

import (
	"slices"
	"strings"
	"testing"

	"watchword.dev/events/catalogue"
)

// templates are Cloudflare's own, with the groups that each gives, by scope.
var templates = []struct{ id, name, groups string }{
	{"edit-zone-dns", "Edit zone DNS", "zone: DNS Write"},
	{"read-billing", "Read billing info", "account: Billing Read"},
	{"read-analytics-logs", "Read analytics and logs", "zone: Analytics Read, Logs Read"},
	{"edit-workers", "Edit Cloudflare Workers", "account: Account Settings Read, Workers KV Storage Write, Workers R2 Storage Write, Workers Scripts Write, Workers Tail Read; " +
		"user: Memberships Read, User Details Read; zone: Workers Routes Write"},
	{"edit-load-balancing", "Edit load balancing configuration", "account: Load Balancing: Monitors and Pools Write; zone: Load Balancers Write"},
	{"wordpress", "WordPress", "account: Account Settings Read; zone: Analytics Read, Cache Purge, DNS Read, Zone Read, Zone Settings Write"},
	{"create-tokens", "Create additional tokens", "user: API Tokens Write"},
	{"read-all", "Read all resources", ""}, // every one that only reads: below
}

// scopes are the types on which the templates give something.
var scopes = map[string]string{
	"com.cloudflare.api.account": "account", "com.cloudflare.api.account.zone": "zone", "com.cloudflare.api.user": "user",
}

// TestTemplates names the groups of each built-in template, all of them
// allowed, with the scope on which each is given.
func TestTemplates(t *testing.T) {
	c := catalogue.Cloudflare()
	all := c.Templates()
	if len(all) != len(templates) {
		t.Fatalf("%d templates, want %d", len(all), len(templates))
	}
	for i, want := range templates {
		if want.id == "read-all" {
			want.groups = readers(c)
		}
		have := all[i]
		given := map[string][]string{}
		for _, p := range have.Policies {
			key := strings.TrimPrefix(string(p.Resources), `{"`)
			scope := scopes[key[:strings.LastIndex(key, ".{")]]
			if p.Effect != "allow" || scope == "" {
				t.Errorf("%s: %s on %s", have.ID, p.Effect, p.Resources)
			}
			for _, ref := range p.Groups {
				g, ok := c.Group(ref.ID)
				if !ok || !slices.ContainsFunc(g.Scopes, func(s string) bool { return scopes[s] == scope }) {
					t.Errorf("%s: the group %s is not for a %s", have.ID, ref.ID, scope)
				}
				given[scope] = append(given[scope], g.Name)
			}
		}
		if got := lines(given); have.ID != want.id || have.Name != want.name || got != want.groups {
			t.Errorf("%s %q:\ngot  %s\nwant %s %q:\n     %s", have.ID, have.Name, got, want.id, want.name, want.groups)
		}
	}
}

// readers are the groups of the three scopes that only read.
func readers(c *catalogue.Catalogue) string {
	given := map[string][]string{}
	for _, g := range c.Filter("", "") {
		if slices.ContainsFunc(g.Permissions, func(p string) bool { return !strings.HasSuffix(p, ".read") }) {
			continue
		}
		for _, s := range g.Scopes {
			if scopes[s] != "" {
				given[scopes[s]] = append(given[scopes[s]], g.Name)
			}
		}
	}
	return lines(given)
}

// lines writes groups by scope, sorted. One that is given twice shows.
func lines(given map[string][]string) string {
	var all []string
	for scope, names := range given {
		slices.Sort(names)
		all = append(all, scope+": "+strings.Join(names, ", "))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}
