package summary_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/summary"
)

const (
	dnsWrite = "4755a26eedb94da69e1066d98aa820be"
	dnsRead  = "82e64a83756745bbbb1c9c2701bf816b"
	zoneKey  = "com.cloudflare.api.account.zone.1f0c6b0f0a2b4c6d8e9f00112233aabb"
)

func policy(effect token.Effect, resources string, groups ...string) token.Policy {
	p := token.Policy{Effect: effect, Resources: jsontext.Value(resources)}
	for _, id := range groups {
		p.Groups = append(p.Groups, token.GroupRef{ID: id})
	}
	return p
}

func names(key string) (string, bool) { return "example.com", key == zoneKey }

// TestOf holds grants to the words for them.
func TestOf(t *testing.T) {
	one := `{"` + zoneKey + `":"*"}`
	all := `{"com.cloudflare.api.account.zone.*":"*"}`
	inside := `{"com.cloudflare.api.account.0a1b":{"com.cloudflare.api.account.zone.*":"*"}}`
	from := &token.Condition{RequestIP: token.RequestIP{In: []string{"192.0.2.0/24"}, NotIn: []string{"192.0.2.7"}}}
	day := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		g    token.Grant
		want summary.Summary
	}{
		{"deploy", token.Grant{
			Policies:  []token.Policy{policy(token.EffectAllow, one, dnsWrite)},
			Condition: &token.Condition{RequestIP: token.RequestIP{In: []string{"192.0.2.0/24"}}}, ExpiresOn: day,
		}, summary.Summary{Sentences: []string{"May edit DNS of zone example.com, from 192.0.2.0/24, until 1 March 2027."}, Warnings: []string{}}},
		{"dns writer", token.Grant{Policies: []token.Policy{policy(token.EffectAllow, all, dnsRead)}},
			summary.Summary{
				Sentences: []string{"May read DNS of every zone."},
				Warnings:  []string{`its name says "writer", but it may only read`, "it reaches every zone, those that come later too"},
			}},
		{"read-only", token.Grant{
			Policies:  []token.Policy{policy(token.EffectAllow, inside, dnsRead, dnsWrite), policy(token.EffectDeny, one, dnsWrite)},
			Condition: from, NotBefore: day.Add(90 * time.Minute),
		}, summary.Summary{
			Sentences: []string{
				"May never edit DNS of zone example.com.",
				"May read DNS and edit DNS of every zone in account 0a1b, from 192.0.2.0/24 but not 192.0.2.7, from 1 March 2027 01:30:00 UTC on.",
			},
			Warnings: []string{`its name says "read", but it may change things`, "it may change things and never expires"},
		}},
		{"x", token.Grant{
			Policies:  []token.Policy{policy(token.EffectDeny, one, dnsRead)},
			Condition: &token.Condition{RequestIP: token.RequestIP{In: []string{}}},
		}, summary.Summary{
			Sentences: []string{"May never read DNS of zone example.com."},
			Warnings:  []string{"it allows nothing at all", "its list of addresses is empty: nobody can use it"},
		}},
	} {
		got, err := summary.Of(c.name, c.g, catalogue.Cloudflare(), names)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestMany checks that a long list is counted and not told.
func TestMany(t *testing.T) {
	var keys []string
	for _, c := range "0123456789abcdef" {
		keys = append(keys, `"com.cloudflare.api.account.zone.z`+string(c)+`":"*"`)
	}
	got, err := summary.Of("x", token.Grant{Policies: []token.Policy{policy(token.EffectAllow, "{"+strings.Join(keys, ",")+"}", dnsRead)}}, catalogue.Cloudflare(), nil)
	if err != nil || !strings.HasSuffix(got.Sentences[0], "zone z7 and 8 more.") {
		t.Errorf("got %q, %v", got.Sentences, err)
	}
}

// TestStrange checks that what the catalogue does not know is an error and not
// a sentence with a hole.
func TestStrange(t *testing.T) {
	for _, p := range []token.Policy{
		policy(token.EffectAllow, `{"`+zoneKey+`":"*"}`, strings.Repeat("0", 32)),
		policy(token.EffectAllow, `{"no.such.type.a":"*"}`, dnsRead),
	} {
		_, err := summary.Of("x", token.Grant{Policies: []token.Policy{p}}, catalogue.Cloudflare(), names)
		if err == nil || errors.Unwrap(err) == nil && !strings.Contains(err.Error(), "catalogue") {
			t.Errorf("%s: %v", p.Resources, err)
		}
	}
}
