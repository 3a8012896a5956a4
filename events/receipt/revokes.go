package receipt

import "watchword.dev/events"

// Revokes reports whether an enforcer that has not heard of an event might
// allow what nobody may any more. Of such events it reports at once.
//
// It does not ask whether this one took anything away: an update of a grant or
// of roles may narrow it, a roll ends a secret now or later by a time that only
// those know who have heard. What can only add, names, and notices of what the
// clock decides are left out. An event of a type that this program does not know
// counts as one.
func Revokes(e events.Event) bool {
	switch e.(type) {
	case *events.TokenCreated, *events.TokenEnabled, *events.TokenExpiring, *events.TokenExpired,
		*events.APIKeyIssued,
		*events.UserRegistered, *events.UserUpdated,
		*events.AccountCreated, *events.AccountUpdated,
		*events.MemberAdded,
		*events.ResourceRegistered, *events.ResourceUpdated,
		*events.EnforcerEnrolled, *events.ConsumerEnrolled, *events.ConsumerRetired,
		*events.LogOpened, *events.EpochOpened, *events.PenOpened, *events.FormatRaised:
		return false
	}
	return true
}

// RevokesAny reports whether Revokes is true of an event in a commit.
func RevokesAny(c *events.Commit) bool {
	for i := range c.Records {
		if Revokes(c.Records[i].Data) {
			return true
		}
	}
	return false
}
