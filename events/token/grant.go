package token

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Effect is what a policy does with what it matches.
type Effect string

// The effects. A request that a policy denies is refused whatever others allow.
const (
	EffectAllow Effect = "allow"
	EffectDeny  Effect = "deny"
)

// GroupRef names a permission group.
type GroupRef struct {
	ID string `json:"id"`
}

// Policy allows or denies some permission groups on some resources. Its JSON
// form is Cloudflare's.
type Policy struct {
	// ID is given by the authority and is the policy's name in a Decision.
	ID     ID         `json:"id,omitzero"`
	Effect Effect     `json:"effect"`
	Groups []GroupRef `json:"permission_groups"`
	// Resources is a JSON object, kept as it was sent but for white space:
	// clients compare its text with what they sent.
	Resources jsontext.Value `json:"resources"`
}

// Condition narrows a grant to some client addresses.
type Condition struct {
	RequestIP RequestIP `json:"request_ip,omitzero"`
}

// RequestIP is a set of addresses: In minus NotIn, as prefixes or single
// addresses, IPv4 and IPv6.
type RequestIP struct {
	// In being nil means every address. In being empty but not nil means none
	// at all: nobody can use the grant.
	In []string `json:"in,omitzero"`
	// NotIn is taken away from In.
	NotIn []string `json:"not_in,omitzero"`
}

// unrestricted reports whether the condition lets everybody through, those of
// unknown address included.
func (c *Condition) unrestricted() bool {
	return c == nil || c.RequestIP.In == nil && len(c.RequestIP.NotIn) == 0
}

// Grant is all that a token may do.
type Grant struct {
	Policies []Policy `json:"policies"`
	// Condition is nil when there is none.
	Condition *Condition `json:"condition,omitzero"`
	// NotBefore and ExpiresOn bound the validity, the first inclusive and the
	// second exclusive. Zero leaves that side open.
	NotBefore time.Time `json:"not_before,omitzero"`
	ExpiresOn time.Time `json:"expires_on,omitzero"`
}

// Normalize returns the grant as events carry it: resources without white
// space but with their order, their keys and their escapes untouched, and
// times in UTC and whole milliseconds. The result shares nothing with g. It
// fails if resources are no valid JSON.
func (g Grant) Normalize() (Grant, error) {
	out := g.Clone()
	for i := range out.Policies {
		if err := compactResources(&out.Policies[i].Resources); err != nil {
			return Grant{}, &GrantError{
				Kind:    Invalid,
				Pointer: fmt.Sprintf("/policies/%d/resources", i),
				Text:    "resources must be a JSON object",
			}
		}
	}
	if !g.NotBefore.IsZero() {
		out.NotBefore = g.NotBefore.UTC().Truncate(time.Millisecond)
	}
	if !g.ExpiresOn.IsZero() {
		out.ExpiresOn = g.ExpiresOn.UTC().Truncate(time.Millisecond)
	}
	return out, nil
}

// compactResources drops white space between tokens and nothing else.
func compactResources(v *jsontext.Value) error {
	return v.Format(jsontext.PreserveRawStrings(true), jsontext.AllowDuplicateNames(true))
}

// Clone returns a copy that shares no memory with g.
func (g Grant) Clone() Grant {
	g.Policies = slices.Clone(g.Policies)
	for i := range g.Policies {
		p := &g.Policies[i]
		p.Groups = slices.Clone(p.Groups)
		p.Resources = slices.Clone(p.Resources)
	}
	if g.Condition != nil {
		c := *g.Condition
		c.RequestIP.In = slices.Clone(c.RequestIP.In)
		c.RequestIP.NotIn = slices.Clone(c.RequestIP.NotIn)
		g.Condition = &c
	}
	return g
}

// ErrorKind tells the refusals of a grant apart.
type ErrorKind uint8

// The kinds of GrantError. The zero value is none of them.
const (
	Invalid      ErrorKind = iota + 1 // not of the right form
	TooMany                           // more than the Limits allow
	UnknownGroup                      // the catalogue has no such permission group
	WrongScope                        // a group applies to none of its policy's resources
	NotHeld                           // the grantor does not hold what it grants
)

// String returns the kind's name.
func (k ErrorKind) String() string {
	switch k {
	case Invalid:
		return "invalid"
	case TooMany:
		return "too_many"
	case UnknownGroup:
		return "unknown_group"
	case WrongScope:
		return "wrong_scope"
	case NotHeld:
		return "not_held"
	}
	return "none"
}

// GrantError says why a grant is refused. All of it may be shown to whoever
// sent the grant; nothing unbounded that they sent is in it.
type GrantError struct {
	Kind ErrorKind
	// Pointer is the JSON Pointer of the part that is at fault, such as
	// /policies/0/resources.
	Pointer string
	// Text is one short sentence without the final stop.
	Text string
	// Group is the id of the permission group at fault, if it is one that the
	// catalogue has.
	Group string
}

// Error returns the pointer and the text.
func (e *GrantError) Error() string { return "token: grant: " + e.Pointer + ": " + e.Text }
