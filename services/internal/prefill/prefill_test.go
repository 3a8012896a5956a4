package prefill_test

import (
	"errors"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"watchword.dev/events"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/prefill"
)

var (
	now  = time.Date(2026, 11, 25, 12, 0, 0, 5e8, time.UTC)
	user = prefill.Owner{Kind: events.OwnedByUser, ID: token.ID{15: 7}}
	acc  = prefill.Owner{Kind: events.OwnedByAccount, ID: token.ID{15: 9}}
)

const zoneType = "com.cloudflare.api.account.zone"

// template has every kind of hole.
var template = catalogue.Template{
	ID: "t", Name: "T",
	Parameters: []catalogue.Parameter{
		{Name: "account", Type: catalogue.TypeAccount, Default: catalogue.Self},
		{Name: "zone", Type: zoneType, Many: true},
	},
	Policies: []catalogue.TemplatePolicy{
		{Effect: "allow", Groups: []catalogue.GroupRef{{ID: "g1"}}, Resources: jsontext.Value(`{"com.cloudflare.api.account.zone.{zone}":"*"}`)},
		{Effect: "deny", Groups: []catalogue.GroupRef{{ID: "g2"}, {ID: "g3"}},
			Resources: jsontext.Value(`{"com.cloudflare.api.account.{account}":{"com.cloudflare.api.account.zone.{zone}":"*"}}`)},
	},
	LifetimeDays: 30,
}

func values(pairs ...string) map[string][]string {
	v := map[string][]string{}
	for i := 0; i < len(pairs); i += 2 {
		v[pairs[i]] = append(v[pairs[i]], pairs[i+1])
	}
	return v
}

func TestFill(t *testing.T) {
	g, err := prefill.Fill(template, prefill.Request{Values: values("zone", "b", "zone", "a")}, acc, now)
	if err != nil {
		t.Fatal(err)
	}
	want := token.Grant{
		Policies: []token.Policy{
			{Effect: token.EffectAllow, Groups: []token.GroupRef{{ID: "g1"}},
				Resources: jsontext.Value(`{"com.cloudflare.api.account.zone.b":"*","com.cloudflare.api.account.zone.a":"*"}`)},
			{Effect: token.EffectDeny, Groups: []token.GroupRef{{ID: "g2"}, {ID: "g3"}},
				Resources: jsontext.Value(`{"com.cloudflare.api.account.` + acc.ID.String() + `":{"com.cloudflare.api.account.zone.b":"*","com.cloudflare.api.account.zone.a":"*"}}`)},
		},
		ExpiresOn: time.Date(2026, 12, 25, 12, 0, 0, 0, time.UTC),
	}
	if diff := cmp.Diff(want, g); diff != "" {
		t.Errorf("grant (-want +got):\n%s", diff)
	}
}

// TestRefused gives every wrong value to the template's holes.
func TestRefused(t *testing.T) {
	many := values()
	for i := range prefill.ValuesMax + 1 {
		many["zone"] = append(many["zone"], token.ID{15: byte(i)}.String())
	}
	for name, c := range map[string]struct {
		values    map[string][]string
		owner     prefill.Owner
		parameter string
	}{
		"nothing for zone":       {nil, acc, "zone"},
		"self for a user":        {values("zone", "a"), user, "account"},
		"two accounts":           {values("zone", "a", "account", "x", "account", "y"), acc, "account"},
		"twice":                  {values("zone", "a", "zone", "a"), acc, "zone"},
		"all and one":            {values("zone", "a", "zone", "*"), acc, "zone"},
		"a key for an id":        {values("zone", `a":"*","com.cloudflare.api.account.zone.b`), acc, "zone"},
		"a hole in a hole":       {values("zone", "{zone}"), acc, "zone"},
		"empty":                  {values("zone", ""), acc, "zone"},
		"too many":               {many, acc, "zone"},
		"no such parameter":      {values("zone", "a", "planet", "mars"), acc, ""},
		"self where no one says": {values("zone", "self", "zone", "*"), acc, "zone"},
	} {
		_, err := prefill.Fill(template, prefill.Request{Values: c.values}, c.owner, now)
		e, ok := errors.AsType[*prefill.Error](err)
		if !ok || e.Parameter != c.parameter {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBuiltIn fills every template that Watchword comes with and holds the
// grant to the rules for grants.
func TestBuiltIn(t *testing.T) {
	cat := catalogue.Cloudflare()
	all := cat.Templates()
	if len(all) == 0 {
		t.Fatal("there are no templates")
	}
	for _, tpl := range all {
		r := prefill.Request{Template: tpl.ID, Values: map[string][]string{}}
		for _, p := range tpl.Parameters {
			if p.Default == "" {
				r.Values[p.Name] = []string{"1f0c6b0f0a2b4c6d8e9f00112233aabb"}
			}
		}
		g, err := prefill.Fill(tpl, r, user, now)
		if err == nil {
			g, err = g.Normalize()
		}
		if err == nil {
			err = g.Validate(cat, token.DefaultLimits)
		}
		if err != nil {
			t.Errorf("%s: %v", tpl.ID, err)
		}
	}
}

// TestLink checks that a link brings back what it was made of.
func TestLink(t *testing.T) {
	want := prefill.Request{Template: "edit-zone-dns", Name: "deploy & more", Values: values("zone", "a", "zone", "b")}
	link := prefill.Link("https://tokens.example/", want)
	got, err := prefill.ParseLink(link)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", link, diff)
	}
	for _, bad := range []string{"", "https://tokens.example/tokens/new", "https://tokens.example/tokens/new?template=a&template=b", "https://tokens.example/?template=a", "https://tokens.example/tokens/new?template=%zz"} {
		if r, err := prefill.ParseLink(bad); err == nil {
			t.Errorf("%q gave %+v", bad, r)
		}
	}
}
