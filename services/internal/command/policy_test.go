package command

import (
	"fmt"
	"testing"
	"time"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// TestMend holds what is done about a token, as seconds from now and reasons.
func TestMend(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 500_000_000, time.UTC)
	in := func(d time.Duration) time.Time { return now.Add(d) }
	here := &token.Condition{RequestIP: token.RequestIP{In: []string{"192.0.2.0/24"}}}
	hour := aggregate.Policy{LifetimeSecondsMax: 3600}
	for _, tt := range []struct {
		name   string
		policy aggregate.Policy
		token  aggregate.Token
		then   string
	}{
		{"no policy", aggregate.Policy{}, aggregate.Token{Status: aggregate.Active}, "nothing"},
		{"a bound of numbers only", aggregate.Policy{TokensMax: 1}, aggregate.Token{Status: aggregate.Active}, "nothing"},
		{"no end", hour, aggregate.Token{Status: aggregate.Active}, "ends in 59m59.5s: [expiry_required]"},
		{"an end too far", hour, aggregate.Token{Status: aggregate.Active, Grant: token.Grant{ExpiresOn: in(2 * time.Hour)}}, "ends in 59m59.5s: [lifetime_too_long]"},
		{"the last end", hour, aggregate.Token{Status: aggregate.Active, Grant: token.Grant{ExpiresOn: in(time.Hour)}}, "nothing"},
		{"no end where one is required", aggregate.Policy{ExpiryRequired: true}, aggregate.Token{Status: aggregate.Active}, "ends in 8759h59m59.5s: [expiry_required]"},
		{"any end where one is required", aggregate.Policy{ExpiryRequired: true},
			aggregate.Token{Status: aggregate.Active, Grant: token.Grant{ExpiresOn: in(9 * UnboundedLifetime)}}, "nothing"},
		{"no address", aggregate.Policy{AddressRequired: true}, aggregate.Token{Status: aggregate.Active}, "disabled: [address_required]"},
		{"an address", aggregate.Policy{AddressRequired: true}, aggregate.Token{Status: aggregate.Active, Grant: token.Grant{Condition: here}}, "nothing"},
		{"neither", aggregate.Policy{AddressRequired: true, ExpiryRequired: true}, aggregate.Token{Status: aggregate.Active}, "disabled: [expiry_required address_required]"},
		{"never valid with an end so near", hour, aggregate.Token{Status: aggregate.Active, Grant: token.Grant{NotBefore: in(time.Hour)}}, "disabled: [expiry_required]"},
		{"valid for a second", hour, aggregate.Token{Status: aggregate.Active, Grant: token.Grant{NotBefore: in(59 * time.Minute)}}, "ends in 59m59.5s: [expiry_required]"},
		{"disabled", hour, aggregate.Token{Status: aggregate.Disabled}, "nothing"},
		{"revoked", hour, aggregate.Token{Status: aggregate.Revoked}, "nothing"},
		{"expired", aggregate.Policy{AddressRequired: true}, aggregate.Token{Status: aggregate.Active, Grant: token.Grant{ExpiresOn: now}}, "nothing"},
		{"the shortest", aggregate.Policy{LifetimeSecondsMax: 1}, aggregate.Token{Status: aggregate.Active}, "ends in 500ms: [expiry_required]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := Mend(tt.policy, &tt.token, now)
			got := "nothing"
			if !m.ExpiresOn.IsZero() {
				got = fmt.Sprintf("ends in %v: %v", m.ExpiresOn.Sub(now), m.Breaches)
			} else if len(m.Breaches) > 0 {
				got = fmt.Sprintf("disabled: %v", m.Breaches)
			}
			if got != tt.then {
				t.Errorf("got %s, want %s", got, tt.then)
			}
			if got != "nothing" && !m.ExpiresOn.IsZero() {
				tt.token.Grant.ExpiresOn = m.ExpiresOn
				if again := Mend(tt.policy, &tt.token, now.Add(time.Minute)); len(again.Breaches) > 0 {
					t.Errorf("mended it breaks %v", again.Breaches)
				}
			}
		})
	}
}
