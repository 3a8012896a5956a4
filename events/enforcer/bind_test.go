package enforcer

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

// commitOf is a commit of one event, as a feed delivers it.
func commitOf(seq uint64, subject string, data events.Event) *events.Commit {
	r := events.Record{Envelope: events.Envelope{Name: data.EventName(), Subject: subject, Number: seq}, Seq: seq, Data: data}
	return &events.Commit{Seq: seq, Records: []events.Record{r}, End: events.Position{Seq: seq, Number: seq, Epoch: 1}}
}

// stage is an enforcer whose decider says what the test says, and a request
// that was let in.
type stage struct {
	e    *Enforcer
	d    atomic.Pointer[token.Decision]
	asks atomic.Int64
	ctx  context.Context
	stop context.CancelFunc
}

func bind(t *testing.T, cfg Config, d token.Decision) *stage {
	s := &stage{}
	s.d.Store(&d)
	cfg.Decider = scripted(func(string, *token.Request) token.Decision {
		s.asks.Add(1)
		return *s.d.Load()
	})
	s.e = newEnforcer(t, cfg)
	h := s.e.Require("dns.records.write", zone)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		s.ctx, s.stop = Bind(r.Context())
	}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+good)
	r.SetPathValue("account", someAccount.String())
	r.SetPathValue("zone", "z1")
	h.ServeHTTP(httptest.NewRecorder(), r)
	return s
}

var someAccount = token.ID{15: 9}

// ended returns the reason for which the context has ended, or "alive".
func (s *stage) ended() string {
	synctest.Wait()
	if s.ctx.Err() == nil {
		return "alive"
	}
	var end *Ended
	if cause := context.Cause(s.ctx); errors.As(cause, &end) && errors.Is(cause, ErrEnded) {
		return end.Decision.Reason.String()
	}
	return context.Cause(s.ctx).Error()
}

func TestBoundUntilAnEvent(t *testing.T) {
	id := "token/" + someToken.String()
	for name, c := range map[string]struct {
		event   events.Event
		subject string
		after   token.Decision // what the decider says from then on
		want    string
	}{
		"revoked":                  {&events.TokenRevoked{}, id, allow, "revoked"}, // nobody is asked
		"disabled":                 {&events.TokenDisabled{}, id, allow, "disabled"},
		"another token":            {&events.TokenRevoked{}, "token/" + token.ID{3}.String(), deny(token.ReasonRevoked), "alive"},
		"narrowed":                 {&events.TokenUpdated{}, id, deny(token.ReasonNoPolicy), "no_policy"},
		"narrowed elsewhere":       {&events.TokenUpdated{}, id, allow, "alive"},
		"rolled":                   {&events.TokenRolled{}, id, deny(token.ReasonRevoked), "revoked"},
		"nobody can tell":          {&events.TokenUpdated{}, id, deny(token.ReasonStale), "stale"},
		"the owner is gone":        {&events.UserRemoved{}, "user/" + someOwner.String(), deny(token.ReasonRevoked), "revoked"},
		"the owner leaves":         {&events.MemberRemoved{User: someOwner}, "member/" + token.ID{4}.String(), deny(token.ReasonNoPolicy), "no_policy"},
		"the account in the chain": {&events.AccountRemoved{}, "account/" + someAccount.String(), deny(token.ReasonNoPolicy), "no_policy"},
		"another account":          {&events.AccountRemoved{}, "account/" + token.ID{5}.String(), deny(token.ReasonNoPolicy), "alive"},
		"swept by owner":           {&events.RevocationSwept{By: events.SweepOwner, Selected: someOwner.String()}, "revocation/" + token.ID{6}.String(), deny(token.ReasonRevoked), "revoked"},
		"swept with all":           {&events.RevocationSwept{By: events.SweepAll}, "revocation/" + token.ID{6}.String(), deny(token.ReasonRevoked), "revoked"},
		"a new catalogue":          {&events.CataloguePublished{}, "catalogue/" + token.ID{7}.String(), deny(token.ReasonUnknownPermission), "unknown_permission"},
		"of a type not known":      {strange{}, "strange/" + token.ID{8}.String(), deny(token.ReasonNoPolicy), "no_policy"},
		"a name":                   {&events.AccountUpdated{}, "account/" + someAccount.String(), deny(token.ReasonNoPolicy), "alive"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := bind(t, Config{}, allow)
				defer s.stop()
				s.d.Store(&c.after)
				s.e.Applied(commitOf(8, c.subject, c.event))
				if got := s.ended(); got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
			})
		})
	}
}

type strange struct{}

func (strange) EventName() string { return "strange.happened.v1" }

// TestBoundUntilTheClock: without any event a bound context ends when the token
// does, and when nobody has vouched for it within the bound.
func TestBoundUntilTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := allow
		d.Until = time.Now().Add(10 * time.Second)
		s := bind(t, Config{}, d)
		defer s.stop()
		after := deny(token.ReasonExpired)
		s.d.Store(&after)
		time.Sleep(10*time.Second - time.Millisecond)
		if got := s.ended(); got != "alive" {
			t.Fatalf("before it expires: %s", got)
		}
		time.Sleep(2 * time.Millisecond)
		if got := s.ended(); got != "expired" {
			t.Errorf("after: %s", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := bind(t, Config{}, allow)
		defer s.stop()
		time.Sleep(10*time.Minute + time.Second)
		if got := s.ended(); got != "alive" || s.asks.Load() != 1+10*60/30 {
			t.Fatalf("%s after %d checks", got, s.asks.Load())
		}
		after := deny(token.ReasonStale)
		s.d.Store(&after)
		time.Sleep(28 * time.Second) // the last answer was given less than a second before
		if got := s.ended(); got != "alive" {
			t.Fatalf("within the bound: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := s.ended(); got != "stale" || !errors.Is(context.Cause(s.ctx), ErrUnavailable) {
			t.Errorf("after the bound: %s", got)
		}
	})
}

// TestBoundUntilAnotherClock: when the decider's clock is behind, it is asked
// once a second and not without end.
func TestBoundUntilAnotherClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := allow
		d.Until = time.Now().Add(time.Second)
		s := bind(t, Config{}, d)
		defer s.stop()
		time.Sleep(4*time.Second + time.Millisecond)
		if got := s.ended(); got != "alive" || s.asks.Load() != 1+4 {
			t.Errorf("%s after %d checks", got, s.asks.Load())
		}
	})
}

func TestBindForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := bind(t, Config{}, allow)
		s.stop()
		if got := s.ended(); got != "context canceled" || len(s.e.live.all)+len(s.e.live.byID) != 0 {
			t.Errorf("%s, %v", got, s.e.live.byID)
		}
	})
	ctx, _ := Bind(t.Context())
	if ctx.Err() == nil || errors.Is(context.Cause(ctx), ErrEnded) {
		t.Errorf("without an identity: %v", context.Cause(ctx))
	}
}

// TestBoundTooLate: what was heard between the decision and Bind counts.
func TestBoundTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		e := newEnforcer(t, Config{Decider: scripted(func(string, *token.Request) token.Decision {
			if first {
				return allow
			}
			return deny(token.ReasonRevoked)
		})})
		id, f := e.Check(t.Context(), good, "p", []string{"com.cloudflare.api.account.a1"}, netip.Addr{})
		if f != nil {
			t.Fatal(f)
		}
		first = false
		e.Applied(commitOf(8, "token/"+someToken.String(), &events.TokenRevoked{}))
		ctx, stop := id.Bind(t.Context())
		defer stop()
		if !errors.Is(context.Cause(ctx), ErrEnded) {
			t.Errorf("it lives: %v", context.Cause(ctx))
		}
	})
}

func TestOnRevoked(t *testing.T) {
	var heard []Revocation
	e := newEnforcer(t, Config{Decider: scripted(nil), OnRevoked: func(r Revocation) { heard = append(heard, r) }})
	e.Applied(commitOf(8, "token/"+someToken.String(), &events.TokenRevoked{}))
	e.Applied(commitOf(9, "token/"+someToken.String(), &events.TokenDisabled{}))
	e.Applied(commitOf(10, "user/"+someOwner.String(), &events.UserRemoved{}))
	e.Applied(commitOf(11, "revocation/"+token.ID{1}.String(), &events.RevocationSwept{By: events.SweepTemplate, Selected: "edit-zone-dns", Through: 5}))
	want := []Revocation{
		{By: RevokedToken, ID: someToken, Through: 8, Sequence: 8}, {By: events.SweepOwner, ID: someOwner, Through: 10, Sequence: 10},
		{By: events.SweepTemplate, Template: "edit-zone-dns", Through: 5, Sequence: 11},
	}
	if len(heard) != len(want) || heard[0] != want[0] || heard[1] != want[1] || heard[2] != want[2] {
		t.Errorf("got %+v\nwant %+v", heard, want)
	}
}
