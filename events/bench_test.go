package events_test

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/token"
)

// realistic returns a token.created as installations write it: five policies,
// a condition and a validity.
func realistic(t testing.TB) ([]byte, events.Record) {
	t.Helper()
	zones := []string{"023e105f4ecef8ad9ca31a8372d0c353", "8a1f0f6d9f0e4b6f9d3c5b7a1e2d3c4f"}
	grant := token.Grant{
		Condition: &token.Condition{RequestIP: token.RequestIP{In: []string{"192.0.2.0/24"}}},
		ExpiresOn: eventstest.Epoch.Add(90 * 24 * time.Hour),
	}
	for i := range 5 {
		effect := token.EffectAllow
		if i == 4 {
			effect = token.EffectDeny
		}
		grant.Policies = append(grant.Policies, token.Policy{
			ID:        eventstest.ID(100 + i),
			Effect:    effect,
			Groups:    []token.GroupRef{{ID: "4755a26eedb94da69e1066d98aa820be"}},
			Resources: jsontext.Value(`{"com.cloudflare.api.account.zone.` + zones[i%2] + `":"*"}`),
		})
	}
	draft := events.Draft{
		Envelope: events.Envelope{
			ID: eventstest.ID(1), Source: "watchword/0192f3a4b5c6d7e8f90a1b2c3d4e5f60",
			Subject: "token/" + eventstest.ID(2).String(), Time: eventstest.Epoch,
			Account: eventstest.ID(3), RequestID: "8f14e45f-ceea-467f-a8d1-7b1a2c3d4e5f",
			Actor: events.Actor{Kind: events.ActorUser, ID: eventstest.ID(4), Credential: eventstest.ID(5)},
		},
		Data: &events.TokenCreated{
			Name: "deploy of the shop", OwnerKind: events.OwnedByUser, Owner: eventstest.ID(4),
			Secret: token.Sum("a secret"), Grant: grant,
		},
	}
	payload, c, err := events.Compose(events.Position{}, []events.Draft{draft})
	if err != nil {
		t.Fatal(err)
	}
	return payload, c.Records[0]
}

func BenchmarkDecode(b *testing.B) {
	line, _ := realistic(b)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	var r events.Record
	for b.Loop() {
		if err := events.Decode(line, &r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeData(b *testing.B) {
	_, r := realistic(b)
	i := len(r.Line) - 1
	for ; string(r.Line[i:i+8]) != `,"data":`; i-- {
		if len(r.Line)-i < 9 {
			i = len(r.Line) - 9
		}
	}
	data := r.Line[i+8 : len(r.Line)-1]
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := events.Standard.DecodeData(r.Name, data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHash(b *testing.B) {
	line, _ := realistic(b)
	for b.Loop() {
		events.HashLine(line)
	}
}

func BenchmarkEncode(b *testing.B) {
	_, r := realistic(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := events.Encode(&r.Envelope, r.Data); err != nil {
			b.Fatal(err)
		}
	}
}
