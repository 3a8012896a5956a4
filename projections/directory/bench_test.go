package directory

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

// fivePolicies is a grant of the size that the speeds are told for.
func (s *ledger) fivePolicies() (g token.Grant) {
	for range 5 {
		g.Policies = append(g.Policies, token.Policy{
			ID: s.id(), Effect: token.EffectAllow,
			Groups:    []token.GroupRef{{ID: "4755a26eedb94da69e1066d98aa820be"}, {ID: "82e64a83756745bbbb1c9c2701bf816b"}},
			Resources: jsontext.Value(fmt.Sprintf(`{"com.cloudflare.api.account.zone.%032x":"*"}`, s.rng.Uint64())),
		})
	}
	return g
}

// creations is n commits of eight tokens each, behind what the ledger has.
func (s *ledger) creations(n int, owners ...token.ID) (all []events.Commit, secrets []token.Digest) {
	at := s.m.at
	for range n {
		var drafts []events.Draft
		for range 8 {
			secrets = append(secrets, s.digest())
			drafts = append(drafts, events.Draft{
				Envelope: events.Envelope{
					ID: s.id(), Source: "watchword/test", Subject: "token/" + s.id().String(), Time: s.now,
					Actor: events.Actor{Kind: events.ActorSystem},
				},
				Data: &events.TokenCreated{
					Name: "deploy", OwnerKind: events.OwnedByAccount, Owner: owners[s.rng.IntN(len(owners))],
					Secret: secrets[len(secrets)-1], Grant: s.fivePolicies(), Request: s.digest().String(),
				},
			})
		}
		_, c, err := events.Compose(at, drafts)
		if err != nil {
			s.t.Fatal(err)
		}
		at = c.End
		all = append(all, c)
	}
	return all, secrets
}

func (s *ledger) owners() []token.ID {
	all := make([]token.ID, 100)
	for i := range all {
		all[i] = s.id()
	}
	return all
}

// BenchmarkApply tells the time per token.created, in batches of 1,000.
func BenchmarkApply(b *testing.B) {
	s, begin := newLedger(b)
	history, _ := s.creations(b.N/8+1, s.owners()...)
	d := closing(b, openMem(b, vfs.NewMem()))
	apply(b, d, begin...)
	b.ReportAllocs()
	b.ResetTimer()
	for len(history) > 0 {
		n := min(125, len(history))
		apply(b, d, history[:n]...)
		history = history[n:]
	}
}

// filled returns a directory of 16,000 tokens.
func (s *ledger) filled(b *testing.B, begin []events.Commit, owners ...token.ID) (*Directory, []token.Digest) {
	history, secrets := s.creations(2000, owners...)
	d := openMem(b, vfs.NewMem())
	apply(b, d, begin...)
	for _, c := range history {
		apply(b, d, c)
	}
	if err := d.Store().DB().Flush(); err != nil {
		b.Fatal(err)
	}
	return d, secrets
}

// BenchmarkLookup tells the time from a secret's digest to its token.
func BenchmarkLookup(b *testing.B) {
	s, begin := newLedger(b)
	d, secrets := s.filled(b, begin, s.owners()...)
	closing(b, d)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		v, err := d.View()
		if err != nil {
			b.Fatal(err)
		}
		c, ok, err := v.Credential(secrets[i*7919%len(secrets)])
		if err != nil || !ok {
			b.Fatal(ok, err)
		}
		if _, ok, err := v.Token(c.ID); err != nil || !ok {
			b.Fatal(ok, err)
		}
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPage tells the time of a page of 20 from the middle of an owner's
// list of 16,000.
func BenchmarkPage(b *testing.B) {
	s, begin := newLedger(b)
	d, _ := s.filled(b, begin, s.account)
	closing(b, d)
	for b.Loop() {
		page, err := d.Tokens(TokenQuery{Owner: Owner{Kind: events.OwnedByAccount, ID: s.account}, Listing: Listing{Page: 400, PerPage: 20}})
		if err != nil || len(page.Items) != 20 {
			b.Fatal(len(page.Items), err)
		}
	}
}

// BenchmarkRemove tells the time to end an account with 16,000 tokens.
func BenchmarkRemove(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s, begin := newLedger(b)
		d, _ := s.filled(b, begin, s.account)
		end := d.Position()
		end.Seq++
		b.StartTimer()
		apply(b, d, events.Commit{Seq: end.Seq, End: end, Records: []events.Record{{
			Envelope: events.Envelope{Name: "account.removed.v1", Subject: "account/" + s.account.String(), Time: end.Time},
			Seq:      end.Seq, Data: &events.AccountRemoved{},
		}}})
		b.StopTimer()
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
