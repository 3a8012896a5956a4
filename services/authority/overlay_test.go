package authority

import (
	"testing"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// ahead is a past that hears of a commit between two look-ups: it has no token
// yet, and has counted one.
type ahead struct {
	Past
	seq uint64
}

func (ahead) Token(token.ID) (aggregate.Token, bool, error) { return aggregate.Token{}, false, nil }

func (p ahead) TokenCounts(aggregate.Owner) (aggregate.Counts, bool, error) {
	return aggregate.Counts{Live: 1, All: 1, Seq: p.seq}, true, nil
}

// TestNothingIsCountedTwice applies the creation of a token at sequence 5 to
// counts of the past that are before it, at it and behind it.
func TestNothingIsCountedTwice(t *testing.T) {
	owner := aggregate.Owner{Kind: events.OwnedByUser, ID: token.ID{1}}
	for seq, want := range map[uint64]uint64{4: 2, 5: 1, 6: 1} {
		v := &view{layers: []*layer{{}}, past: ahead{seq: seq}}
		r := &events.Record{Seq: 5, Envelope: events.Envelope{Number: 9, Subject: "token/" + token.ID{2}.String(), Name: "token.created.v1"},
			Data: &events.TokenCreated{OwnerKind: owner.Kind, Owner: owner.ID, Secret: token.Digest{3}}}
		if err := v.apply(r); err != nil {
			t.Fatal(err)
		}
		if n, _ := v.counts(owner); n.Live != want || n.All != want {
			t.Errorf("over a past of sequence %d the owner has %+v, want %d", seq, n, want)
		}
	}
}
