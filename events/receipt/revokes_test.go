package receipt_test

import (
	"slices"
	"strings"
	"testing"

	"watchword.dev/events"
	"watchword.dev/events/receipt"
)

// all has an event of every type, so that none is left out unseen.
var all = []events.Event{
	&events.TokenCreated{}, &events.TokenUpdated{}, &events.TokenRolled{}, &events.TokenDisabled{}, &events.TokenEnabled{},
	&events.TokenRevoked{}, &events.TokenExpiring{}, &events.TokenExpired{},
	&events.APIKeyIssued{}, &events.APIKeyRolled{}, &events.APIKeyRevoked{},
	&events.UserRegistered{}, &events.UserUpdated{}, &events.UserRemoved{},
	&events.AccountCreated{}, &events.AccountUpdated{}, &events.AccountRemoved{},
	&events.MemberAdded{}, &events.MemberChanged{}, &events.MemberRemoved{},
	&events.ResourceRegistered{}, &events.ResourceUpdated{}, &events.ResourceMoved{}, &events.ResourceRemoved{},
	&events.CataloguePublished{}, &events.PolicyChanged{},
	&events.EnforcerEnrolled{}, &events.EnforcerRetired{}, &events.ConsumerEnrolled{}, &events.ConsumerRetired{},
	&events.RevocationSwept{}, &events.LogOpened{}, &events.EpochOpened{}, &events.PenOpened{}, &events.FormatRaised{},
}

type stranger struct{}

func (stranger) EventName() string { return "token.teleported.v1" }

// TestRevokes names every event that enforcers report at once. A type that is
// added has to be judged here.
func TestRevokes(t *testing.T) {
	want := strings.Fields(`
		account.removed.v1 apikey.revoked.v1 apikey.rolled.v1 catalogue.published.v1 enforcer.retired.v1
		member.changed.v1 member.removed.v1 policy.changed.v1 resource.moved.v1 resource.removed.v1
		revocation.swept.v1 token.disabled.v1 token.revoked.v1 token.rolled.v1 token.updated.v1 user.removed.v1`)
	var names, got []string
	for _, e := range all {
		names = append(names, e.EventName())
		if receipt.Revokes(e) {
			got = append(got, e.EventName())
		}
	}
	slices.Sort(names)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("revoke: %v\nwant    %v", got, want)
	}
	if !slices.Equal(names, events.Standard.Names()) {
		t.Errorf("the catalogue has %v", events.Standard.Names())
	}
	if !receipt.Revokes(stranger{}) {
		t.Error("an unknown event revokes nothing")
	}
}
