package cli

import (
	"testing"
	"time"
)

func TestParseSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90d": 90 * 24 * time.Hour, "12h": 12 * time.Hour, "1.5h": 90 * time.Minute, "0": 0, "0d": 0, "36500d": 36500 * 24 * time.Hour,
	} {
		if got, err := parseSpan(text); err != nil || got != want {
			t.Errorf("%q is %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "90", "-1h", "-1d", "1ms", "1.5s", "106752d", "2540400h1d", "soon"} {
		if got, err := parseSpan(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

// TestPolicyKeepsTheRest changes what was given and nothing else.
func TestPolicyKeepsTheRest(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	before := policyForm{LifetimeSecondsMax: 60, ExpiryRequired: true, AddressRequired: true, TokensMax: 7, KeysEnd: "2030-01-01T00:00:00Z"}
	for name, tt := range map[string]struct {
		flags policyFlags
		then  func(*policyForm)
	}{
		"lifetime":         {policyFlags{lifetime: "1d"}, func(p *policyForm) { p.LifetimeSecondsMax = 86400 }},
		"expiry-required":  {policyFlags{}, func(p *policyForm) { p.ExpiryRequired = false }},
		"address-required": {policyFlags{}, func(p *policyForm) { p.AddressRequired = false }},
		"tokens-max":       {policyFlags{tokens: 9}, func(p *policyForm) { p.TokensMax = 9 }},
		"keys-end":         {policyFlags{keysEnd: "10d"}, func(p *policyForm) { p.KeysEnd = "2026-01-11T00:00:00Z" }},
		"nothing":          {policyFlags{lifetime: "x"}, func(*policyForm) {}},
	} {
		got, want := before, before
		tt.then(&want)
		err := tt.flags.change(&got, func(flag string) bool { return flag == name }, now)
		if err != nil || got != want {
			t.Errorf("--%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
	never := policyFlags{keysEnd: "never"}
	if got := before; never.change(&got, func(flag string) bool { return flag == "keys-end" }, now) != nil || got.KeysEnd != "" {
		t.Errorf("--keys-end never: %+v", got)
	}
}
