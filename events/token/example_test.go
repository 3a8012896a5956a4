package token_test

import (
	"fmt"
	"net/netip"
	"time"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

// A grant is validated when it is asked for, compiled when it is applied and
// evaluated at every use.
func Example() {
	cat := catalogue.Cloudflare()
	const zone = "com.cloudflare.api.account.zone"
	grant := token.Grant{
		Policies: []token.Policy{{
			Effect:    token.EffectAllow,
			Groups:    []token.GroupRef{{ID: cat.Filter("DNS Write", zone)[0].ID}},
			Resources: []byte(`{"com.cloudflare.api.account.zone.1f0c6b0f0a2b4c6d8e9f00112233aabb":"*"}`),
		}},
		Condition: &token.Condition{RequestIP: token.RequestIP{In: []string{"192.0.2.0/24"}}},
	}
	if err := grant.Validate(cat, token.DefaultLimits); err != nil {
		panic(err)
	}
	compiled, err := token.Compile(grant, cat)
	if err != nil {
		panic(err)
	}
	for _, id := range []string{"1f0c6b0f0a2b4c6d8e9f00112233aabb", "another"} {
		reason, _, allowed := compiled.Evaluate(cat, cat.Permission("dns.records.write"),
			[]string{"com.cloudflare.api.account.7e11", zone + "." + id},
			netip.MustParseAddr("192.0.2.1"), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		fmt.Printf("%v %q\n", allowed, reason)
	}
	// Output:
	// true ""
	// false "no_policy"
}

// A secret shows itself only when it is asked to.
func ExampleSecret() {
	s := token.NewSecret("wwu_0000000000000000000000000000000000000001Oexk")
	fmt.Println(s)
	fmt.Println(s.Reveal())
	// Output:
	// wwu_…
	// wwu_0000000000000000000000000000000000000001Oexk
}
