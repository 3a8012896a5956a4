package cloudflare_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"watchword.dev/services/e2e/cloudflare"
)

// TestRefusals checks that the client sees every refusal as an error, with the
// status and code that its users look at.
func TestRefusals(t *testing.T) {
	each(t, func(t *testing.T, o *one) {
		good := cloudflare.Wish{Name: "refusals", Policies: zonePolicy(dnsWrite)}
		m := o.make(good)
		for _, id := range []string{unknown, strings.Repeat("f", 32)} {
			_, err := o.Get(o.ctx, o.operator(), id)
			o.refused("get", err, http.StatusNotFound, 1003)
			_, err = o.Update(o.ctx, o.operator(), id, good)
			o.refused("update", err, http.StatusNotFound, 1003)
			_, err = o.Rolls[0](o.ctx, o.operator(), id)
			o.refused("roll", err, http.StatusNotFound, 1003)
			o.refused("delete", o.Delete(o.ctx, o.operator(), id), http.StatusNotFound, 1003)
		}
		_, err := o.Get(o.ctx, o.operator(), "not-an-id")
		o.refused("a malformed id", err, http.StatusNotFound, 7003)

		// A token without permissions on tokens, and one that nobody knows.
		_, err = o.List(o.ctx, o.bearer(m.Secret), 20, false)
		o.refused("list", err, http.StatusForbidden, 9109)
		_, err = o.Create(o.ctx, o.bearer(m.Secret), good)
		o.refused("create", err, http.StatusForbidden, 9109)
		_, err = o.Get(o.ctx, o.bearer(m.Secret), m.ID)
		o.refused("get", err, http.StatusForbidden, 9109)
		stranger := o.Prefix + "2nf70CwLdjhc7DaClkHUkhzRo9Hja5jxtMJRfP18nLFL"
		_, err = o.List(o.ctx, o.bearer(stranger), 20, false)
		o.refused("an unknown secret", err, http.StatusForbidden, 9109)
		o.dead("an unknown secret", stranger)
		_, err = o.Verify(o.ctx, o.bearer("short"))
		o.refused("a malformed secret", err, http.StatusBadRequest, 6003)
		o.dead("another kind's secret", server.Admin.APIKey)
		_, err = o.List(o.ctx, o.as(), 20, false)
		o.refused("no credential", err, http.StatusBadRequest, 9106)
		o.refuseBad(m.ID, good)
	})
}

// refuseBad tries to create, and to turn a token into, what cannot be.
func (o *one) refuseBad(id string, good cloudflare.Wish) {
	o.t.Helper()
	on := func(effect, resource string) []cloudflare.Policy {
		return []cloudflare.Policy{policy(effect, resource, dnsWrite)}
	}
	from := func(in string) *cloudflare.Condition { return &cloudflare.Condition{In: []string{in}} }
	for name, bad := range map[string]cloudflare.Wish{
		"no name":         {Policies: good.Policies},
		"no policies":     {Name: "bad"},
		"no groups":       {Name: "bad", Policies: zonePolicy()},
		"unknown group":   {Name: "bad", Policies: zonePolicy(unknown)},
		"a bad CIDR":      {Name: "bad", Policies: good.Policies, Condition: from("192.0.2.0/33")},
		"never valid":     {Name: "bad", Policies: good.Policies, NotBefore: time.Now().Add(time.Hour), Expires: time.Now().Add(time.Minute)},
		"a bad effect":    {Name: "bad", Policies: on("maybe", zoneScope+"."+zoneID)},
		"a bad resource":  {Name: "bad", Policies: on("allow", "zone")},
		"the wrong scope": {Name: "bad", Policies: on("allow", accountScope+"."+server.Admin.AccountID)},
	} {
		_, err := o.Create(o.ctx, o.operator(), bad)
		o.refused("create: "+name, err, http.StatusBadRequest, 1001)
		_, err = o.Update(o.ctx, o.operator(), id, bad)
		o.refused("update: "+name, err, http.StatusBadRequest, 1001)
	}
	all, err := o.List(o.ctx, o.operator(), 50, false)
	if err != nil || len(named(all, "bad")) != 0 {
		o.t.Errorf("a refused create made something: %v", err)
	}
}
