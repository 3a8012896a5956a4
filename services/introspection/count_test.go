package introspection

import (
	"testing"
	"time"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/events/usage"
	"watchword.dev/projections/verifyindex"
)

// TestDecisionsAreCounted: each question of a batch, without an allocation, and
// nothing of the request is kept.
func TestDecisionsAreCounted(t *testing.T) {
	count := usage.NewRecorder(usage.Options{Catalogue: catalogue.Cloudflare})
	id := token.NewGenerator(nil).New()
	s, err := New(Config{Count: count, Decider: &scripted{decide: func(_ time.Duration, secret string, _ *token.Request) token.Decision {
		if secret == "unknown" {
			return token.Decision{Reason: token.ReasonUnknown}
		}
		return token.Decision{Verdict: token.VerdictAllow, Token: id, Owner: id, OwnerKind: token.OwnerUser}
	}}})
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`[{"secret":"s","permission":"dns.records.write","resource":["com.cloudflare.api.account.zone.z1"]},{"secret":"unknown","permission":"p"}]`)
	w := s.works.Get().(*work)
	w.body.Write(body)
	if err := w.parse(); err != nil {
		t.Fatal(err)
	}
	runs := uint64(0)
	n := testing.AllocsPerRun(100, func() {
		w.out = w.out[:0]
		s.decide(w, &verifyindex.EnforcerInfo{})
		runs++
	})
	w.reset()
	if n > 0 {
		t.Errorf("%v allocations", n)
	}
	want := usage.What{Credential: id, Kind: usage.UserToken, Permission: "dns.records.write", Type: "com.cloudflare.api.account.zone", Result: usage.Allowed}
	if got := count.Drain(); len(got.Rows) != 1 || got.Rows[want] != runs {
		t.Errorf("counted %+v, want %d of %v", got, runs, want)
	}
}
