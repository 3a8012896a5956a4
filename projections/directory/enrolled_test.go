package directory

import (
	"slices"
	"testing"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

func (m *model) checkEnrolled(t testing.TB, d asker) {
	t.Helper()
	var all []aggregate.Enforcer
	for id, want := range m.enforcers {
		got, ok, err := d.Enforcer(id)
		expect(t, "enforcer", got, ok, err, *want, true)
		all = append(all, *want)
		checkNkey(t, d, want.Nkey, aggregate.Credential{Kind: token.KindEnforcer, ID: id})
	}
	slices.SortFunc(all, func(a, b aggregate.Enforcer) int { return a.ID.Compare(b.ID) })
	got, err := d.Enforcers()
	expect(t, "enforcers", got, true, err, all, true)
	m.checkConsumers(t, d)
}

func (m *model) checkConsumers(t testing.TB, d asker) {
	t.Helper()
	var all []aggregate.Consumer
	for id, want := range m.consumers {
		got, ok, err := d.Consumer(id)
		expect(t, "consumer", got, ok, err, *want, true)
		all = append(all, *want)
		checkNkey(t, d, want.Nkey, aggregate.Credential{Kind: token.KindConsumer, ID: id})
	}
	slices.SortFunc(all, func(a, b aggregate.Consumer) int { return a.ID.Compare(b.ID) })
	got, err := d.Consumers()
	expect(t, "consumers", got, true, err, all, true)
}

// checkNkey checks that an nkey leads to its holder, retired or not, and that
// none leads nowhere.
func checkNkey(t testing.TB, d asker, public string, want aggregate.Credential) {
	t.Helper()
	if public == "" {
		want = aggregate.Credential{}
	}
	got, ok, err := d.ByNkey(public)
	expect(t, "nkey", got, ok, err, want, public != "")
}
