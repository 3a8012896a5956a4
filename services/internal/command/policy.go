package command

import (
	"net/netip"
	"strings"
	"time"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
)

// ApplyPolicy brings one token of an account to what the account's policy asks
// for, as Mend says. It may be given again: what keeps the policy stays.
type ApplyPolicy struct {
	Account token.ID `json:"account"`
	Token   token.ID `json:"token"`
	// Policy is the one whose consequences were looked at. When the account
	// has another one by now nothing is done.
	Policy aggregate.Policy `json:"policy"`
}

// Verb implements Command.
func (ApplyPolicy) Verb() string { return "policy.apply" }

// SamePolicy compares policies, and their times as moments.
func SamePolicy(a, b aggregate.Policy) bool {
	same := a.KeysEnd.Equal(b.KeysEnd)
	a.KeysEnd, b.KeysEnd = time.Time{}, time.Time{}
	return same && a == b
}

// KeepsPolicy says whether a grant that is made now keeps an account's policy.
func KeepsPolicy(p aggregate.Policy, g token.Grant, now time.Time) error {
	if all := breaches(p, g, now); len(all) > 0 {
		return all[0]
	}
	return nil
}

// breaches returns all that an account's policy does not allow of a grant that
// is made now.
func breaches(p aggregate.Policy, g token.Grant, now time.Time) (all []*fault.Error) {
	most := longest(p)
	switch {
	case (p.ExpiryRequired || most > 0) && g.ExpiresOn.IsZero():
		all = append(all, fault.New(fault.ExpiryRequired).WithPointer("/expires_on"))
	case most > 0 && g.ExpiresOn.Sub(now) > most:
		all = append(all, fault.New(fault.LifetimeTooLong).WithPointer("/expires_on").WithDetail("at most %v", most))
	}
	if p.AddressRequired && !namesAddresses(g.Condition) {
		all = append(all, fault.New(fault.AddressRequired).WithPointer("/condition"))
	}
	return all
}

// longest is the bound of lifetimes; zero is none.
func longest(p aggregate.Policy) time.Duration {
	return time.Duration(p.LifetimeSecondsMax) * time.Second
}

// namesAddresses says whether a condition says which addresses may use a token.
// All of them is no answer.
func namesAddresses(c *token.Condition) bool {
	if c == nil || c.RequestIP.In == nil {
		return false
	}
	for _, s := range c.RequestIP.In {
		if !strings.Contains(s, "/") {
			continue
		}
		if p, err := netip.ParsePrefix(s); err != nil || p.Bits() == 0 {
			return false
		}
	}
	return true
}

// UnboundedLifetime is the time that a token without an end is left when a
// policy requires one and bounds no lifetimes.
const UnboundedLifetime = 365 * 24 * time.Hour

// Mending is what is to be done about a token that breaks its account's policy.
// The zero value is nothing.
type Mending struct {
	// Breaches are the codes of the faults with which such a token would be
	// refused today.
	Breaches []fault.Code
	// ExpiresOn is the end that the token gets; zero when no end mends it and
	// it is disabled.
	ExpiresOn time.Time
}

// Mend says what is to be done about a token under a policy. It is the least
// that helps, and nothing that cannot be undone:
//
//   - A token without an end, or with one too far, ends when one that is made
//     now would have to, at a whole second. Its time counts from now: what was
//     allowed when it was made does not die without notice.
//   - What no end mends is disabled: addresses that it does not name are for
//     somebody to say, and it works again with them.
//   - A token that has ended, has expired or is disabled is let be. It cannot be
//     used, and nobody enables it before it keeps the policy.
//   - Nothing is done about tokens beyond the quota: which of them are needed
//     their owner knows. No more are made.
//
// What was mended needs no mending later, so that a batch of them can be cut
// off anywhere and run again.
func Mend(p aggregate.Policy, t *aggregate.Token, now time.Time) (m Mending) {
	if t.Status != aggregate.Active || !t.Grant.ExpiresOn.IsZero() && !now.Before(t.Grant.ExpiresOn) {
		return m
	}
	found := breaches(p, t.Grant, now)
	for _, f := range found {
		m.Breaches = append(m.Breaches, f.Code)
	}
	if len(found) != 1 || found[0].Code == fault.AddressRequired {
		return m
	}
	most := longest(p)
	if most == 0 {
		most = UnboundedLifetime
	}
	if end := now.Add(most).UTC().Truncate(time.Second); t.Grant.NotBefore.Before(end) {
		m.ExpiresOn = end
	}
	return m
}

// Reason is what the event says of why it was made.
func (m Mending) Reason(account token.ID) string {
	codes := make([]string, len(m.Breaches))
	for i, c := range m.Breaches {
		codes[i] = string(c)
	}
	return "token policy of account " + account.String() + ": " + strings.Join(codes, ", ")
}
