package authority

import "slices"

// base are the event types that every reader of version 1 knows, which the pen
// therefore writes without being told. A type that comes later is not added
// here: the pen writes it only after a format.raised names it, and nobody
// raises it while a live reader is too old for it.
var base = []string{
	"account.created.v1", "account.removed.v1", "account.updated.v1",
	"apikey.issued.v1", "apikey.revoked.v1", "apikey.rolled.v1",
	"catalogue.published.v1", "consumer.enrolled.v1", "consumer.retired.v1",
	"enforcer.enrolled.v1", "enforcer.retired.v1",
	"epoch.opened.v1", "format.raised.v1", "log.opened.v1",
	"member.added.v1", "member.changed.v1", "member.removed.v1",
	"pen.opened.v1", "policy.changed.v1",
	"resource.moved.v1", "resource.registered.v1", "resource.removed.v1", "resource.updated.v1",
	"revocation.swept.v1",
	"token.created.v1", "token.disabled.v1", "token.enabled.v1", "token.expired.v1", "token.expiring.v1",
	"token.revoked.v1", "token.rolled.v1", "token.updated.v1",
	"user.registered.v1", "user.removed.v1", "user.updated.v1",
}

// writable says whether the pen may write this type without a format.raised.
func writable(name string) bool {
	_, ok := slices.BinarySearch(base, name)
	return ok
}
