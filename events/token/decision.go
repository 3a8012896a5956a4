package token

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Request is what an enforcer asks: may the bearer of a secret do this?
type Request struct {
	// Permission is the name of the permission needed, such as
	// dns.records.write.
	Permission string
	// Resource is the chain of resource keys, outermost first: the account,
	// then the zone. It is the enforcer's claim and is not looked up.
	Resource []string
	// Address is the client's address. The zero value means unknown, which a
	// grant with an address condition refuses.
	Address netip.Addr
	// Time is when the request is made. The zero value means an unknown time,
	// at which nothing is allowed.
	Time time.Time
}

// Verdict is the short answer to a Request. The zero value denies.
type Verdict uint8

// The verdicts.
const (
	VerdictDeny Verdict = iota
	VerdictAllow
	// VerdictUnavailable means that no answer can be given now. It is neither
	// a yes nor a no: the enforcer answers 503.
	VerdictUnavailable
)

var verdictNames = [...]string{VerdictDeny: "deny", VerdictAllow: "allow", VerdictUnavailable: "unavailable"}

// String returns the verdict's name on the wire.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return "invalid"
}

// MarshalText returns the verdict's name; an invalid verdict is an error.
func (v Verdict) MarshalText() ([]byte, error) {
	return marshalName(verdictNames[:], int(v), "verdict")
}

// UnmarshalText accepts exactly the names that MarshalText returns.
func (v *Verdict) UnmarshalText(b []byte) error {
	n, err := unmarshalName(verdictNames[:], b, "verdict")
	*v = Verdict(n)
	return err
}

// Reason says why a request was not allowed. The zero value is no reason: it
// goes with VerdictAllow.
type Reason uint8

// The reasons.
const (
	ReasonNone              Reason = iota
	ReasonMalformed                // the secret, or the request itself, has not the right form
	ReasonUnknown                  // nobody knows the secret
	ReasonUnknownPermission        // the catalogue has no such permission
	ReasonRevoked                  // the token, or the secret in it, was ended for good
	ReasonDisabled                 // the token is suspended
	ReasonExpired                  // the grant has ended
	ReasonNotYetValid              // the grant has not begun
	ReasonAddress                  // the grant is not for this client address
	ReasonNoPolicy                 // no policy allows it
	ReasonDeniedByPolicy           // a policy denies it
	ReasonStale                    // what is known here is too old to answer by
	ReasonNotReady                 // nothing is known here yet, or it cannot be read
)

var reasonNames = [...]string{
	ReasonNone: "", ReasonMalformed: "malformed", ReasonUnknown: "unknown",
	ReasonUnknownPermission: "unknown_permission", ReasonRevoked: "revoked",
	ReasonDisabled: "disabled", ReasonExpired: "expired", ReasonNotYetValid: "not_yet_valid",
	ReasonAddress: "address", ReasonNoPolicy: "no_policy",
	ReasonDeniedByPolicy: "denied_by_policy", ReasonStale: "stale", ReasonNotReady: "not_ready",
}

// String returns the reason's name on the wire; no reason is the empty string.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "invalid"
}

// MarshalText returns the reason's name; an invalid reason is an error.
func (r Reason) MarshalText() ([]byte, error) { return marshalName(reasonNames[:], int(r), "reason") }

// UnmarshalText accepts exactly the names that MarshalText returns.
func (r *Reason) UnmarshalText(b []byte) error {
	n, err := unmarshalName(reasonNames[:], b, "reason")
	*r = Reason(n)
	return err
}

// Verdict returns the verdict that goes with the reason.
func (r Reason) Verdict() Verdict {
	switch r {
	case ReasonNone:
		return VerdictAllow
	case ReasonStale, ReasonNotReady:
		return VerdictUnavailable
	}
	return VerdictDeny
}

// OwnerKind says what owns a token. The zero value is no owner.
type OwnerKind uint8

// The kinds of owners.
const (
	OwnerNone OwnerKind = iota
	OwnerUser
	OwnerAccount
	OwnerEnforcer
	OwnerConsumer
)

var ownerNames = [...]string{"", "user", "account", "enforcer", "consumer"}

// String returns the kind's name on the wire.
func (k OwnerKind) String() string {
	if int(k) < len(ownerNames) {
		return ownerNames[k]
	}
	return "invalid"
}

// MarshalText returns the kind's name; an invalid kind is an error.
func (k OwnerKind) MarshalText() ([]byte, error) {
	return marshalName(ownerNames[:], int(k), "owner kind")
}

// UnmarshalText accepts exactly the names that MarshalText returns.
func (k *OwnerKind) UnmarshalText(b []byte) error {
	n, err := unmarshalName(ownerNames[:], b, "owner kind")
	*k = OwnerKind(n)
	return err
}

// Decision is the answer to a Request and what it rests on. Its zero value
// denies.
type Decision struct {
	Verdict Verdict
	Reason  Reason

	// The token that was recognised, whose it is, and the policy that decided.
	// They are zero as far as nothing was recognised.
	Token     ID
	Owner     ID
	OwnerKind OwnerKind
	// Foreign says that the secret has not our form: what was recognised, if
	// anything, is a token that was taken over from another system.
	Foreign bool
	Account ID
	Policy  ID

	// What the answer rests on: the last sequence applied, how long ago that
	// was known to be current, and whether that is long.
	Sequence uint64
	Age      time.Duration
	Stale    bool

	// What else may change the answer, for whoever keeps it for a while. Told
	// with a yes, and with a no as far as it matters.

	// Bound is how old an answer about this permission may be; zero means
	// that it was not told, and nobody should keep the answer.
	Bound time.Duration
	// Until is when the clock alone changes the answer: when the token
	// expires, begins to be valid, or its replaced secret ends. Zero means
	// never.
	Until time.Time
	// ByAddress says that another client address may get another answer.
	ByAddress bool
	// ByPlace says that the answer rests on where the resource is registered:
	// the chain did not begin at an account or a user.
	ByPlace bool
}

func marshalName(names []string, n int, what string) ([]byte, error) {
	if n >= len(names) {
		return nil, fmt.Errorf("token: invalid %s %d", what, n)
	}
	return []byte(names[n]), nil
}

func unmarshalName(names []string, b []byte, what string) (int, error) {
	for i, n := range names {
		if string(b) == n {
			return i, nil
		}
	}
	return 0, errors.New("token: unknown " + what)
}
