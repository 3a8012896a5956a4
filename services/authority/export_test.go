package authority

import (
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// Decided is what the pure part answers to a command.
type Decided struct {
	Draft       events.Draft // Data is nil when nothing needs to change
	Token       token.ID
	Redelivered bool
}

// Decide is decide on nothing but the past.
func Decide(past Past, by command.Caller, cmd command.Command, now time.Time, newID func() token.ID) (Decided, error) {
	return DecideIn(&aggregate.Catalogues{}, command.Quota{}, past, by, cmd, now, newID)
}

// DecideIn is Decide with catalogues that are kept from one decision to the
// next, and under a quota.
func DecideIn(catalogues *aggregate.Catalogues, quota command.Quota, past Past, by command.Caller, cmd command.Command, now time.Time, newID func() token.ID) (Decided, error) {
	r := rules{catalogues: catalogues, limits: token.DefaultLimits, graceMax: GraceMax, quota: quota, source: "watchword/test", newID: newID}
	out, err := r.decide(&view{layers: []*layer{{}}, past: past, before: past.Position().Number}, &by, cmd, now)
	return Decided{out.draft, out.token, out.redelivered}, err
}

// Writable says whether the pen writes this event type.
var Writable = writable

// Base are the event types that need no format.raised.
var Base = base

// PermissionUserTokens and PermissionAccountTokens are what the management of
// tokens needs.
const (
	PermissionUserTokens    = permissionUserTokens
	PermissionAccountTokens = permissionAccountTokens
)
