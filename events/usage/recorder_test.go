package usage

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

const zoneKey = "com.cloudflare.api.account.zone."

func id(n byte) (id token.ID) {
	id[0], id[15] = n, n
	return id
}

// clock is set by hand.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newClock() *clock { return &clock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func builtIn() *catalogue.Catalogue { return catalogue.Cloudflare() }

func decision(n byte, kind token.OwnerKind, reason token.Reason) *token.Decision {
	return &token.Decision{Token: id(n), Owner: id(200), OwnerKind: kind, Reason: reason}
}

func ask(permission string, chain ...string) *token.Request {
	return &token.Request{Permission: permission, Resource: chain}
}

func TestDecisionsBecomeRows(t *testing.T) {
	account, zone := accountPrefix+id(9).String(), zoneKey+id(7).String()
	for name, c := range map[string]struct {
		d    *token.Decision
		ask  *token.Request
		want What
	}{
		"a user's token": {decision(1, token.OwnerUser, token.ReasonNone), ask("dns.records.write", account, zone),
			What{Credential: id(1), Kind: UserToken, Permission: "dns.records.write", Type: "com.cloudflare.api.account.zone", Result: Allowed}},
		"an account's token": {decision(1, token.OwnerAccount, token.ReasonNoPolicy), ask("dns.records.write", zone),
			What{Credential: id(1), Kind: AccountToken, Permission: "dns.records.write", Type: "com.cloudflare.api.account.zone", Result: Refused}},
		"a foreign token": {&token.Decision{Token: id(1), OwnerKind: token.OwnerAccount, Foreign: true, Reason: token.ReasonRevoked}, ask("dns.records.write", zone),
			What{Credential: id(1), Kind: ForeignToken, Permission: "dns.records.write", Type: "com.cloudflare.api.account.zone", Result: Rejected}},
		"an API key": {&token.Decision{Owner: id(3), OwnerKind: token.OwnerUser}, ask("dns.records.write", account, zone),
			What{Credential: id(3), Kind: APIKey, Permission: "dns.records.write", Type: "com.cloudflare.api.account.zone", ID: id(7).String(), Account: id(9), Result: Allowed}},
		"an API key without the account": {&token.Decision{Owner: id(3), OwnerKind: token.OwnerUser}, ask("dns.records.write", zone),
			What{Credential: id(3), Kind: APIKey, Permission: "dns.records.write", Type: "com.cloudflare.api.account.zone", ID: id(7).String(), Result: Allowed}},
		"what the catalogue does not know": {decision(1, token.OwnerUser, token.ReasonUnknownPermission), ask("wwu_looks_like_a_secret", "strange."+id(1).String()),
			What{Credential: id(1), Kind: UserToken, Result: Refused}},
		"no resource": {decision(1, token.OwnerUser, token.ReasonNoPolicy), ask("dns.records.write"),
			What{Credential: id(1), Kind: UserToken, Permission: "dns.records.write", Result: Refused}},
		"a short id": {&token.Decision{Owner: id(3), OwnerKind: token.OwnerUser}, ask("dns.records.read", zoneKey+"short"),
			What{Credential: id(3), Kind: APIKey, Permission: "dns.records.read", Type: "com.cloudflare.api.account.zone", ID: "short", Result: Allowed}},
		"an id that is none": {&token.Decision{Owner: id(3), OwnerKind: token.OwnerUser, Reason: token.ReasonNoPolicy}, ask("dns.records.read", zoneKey+strings.Repeat("\n", 32)),
			What{Credential: id(3), Kind: APIKey, Permission: "dns.records.read", Type: "com.cloudflare.api.account.zone", Result: Refused}},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRecorder(Options{Catalogue: builtIn, Lanes: 2})
			for range 4 { // in both lanes, twice
				r.Lane().Decision(c.d, c.ask)
			}
			if got, want := r.Drain().Rows, (map[What]uint64{c.want: 4}); !maps.Equal(got, want) {
				t.Errorf("counted\n%v, want\n%v", got, want)
			}
			if got := r.Drain().Rows; len(got) > 0 {
				t.Errorf("after a drain there is still %v", got)
			}
		})
	}
}

func TestNothingIsCountedOfStrangers(t *testing.T) {
	r := NewRecorder(Options{Catalogue: builtIn, Lanes: 1})
	l := r.Lane()
	for _, reason := range []token.Reason{token.ReasonUnknown, token.ReasonMalformed} {
		l.Decision(&token.Decision{Reason: reason, Foreign: true}, ask("dns.records.write"))
	}
	l.Decision(decision(1, token.OwnerUser, token.ReasonStale), ask("dns.records.write"))
	if w := r.Drain(); len(w.Rows) > 0 || w.Lost > 0 {
		t.Errorf("counted %v", w)
	}
}

// TestCountIsTheModels counts at random from many goroutines.
func TestCountIsTheModels(t *testing.T) {
	r := NewRecorder(Options{Catalogue: builtIn, Lanes: 3})
	permissions := []string{"dns.records.read", "dns.records.write", "zone.read", "made.up", ""}
	const workers, each = 8, 5000
	var mu sync.Mutex
	got, lost := map[What]uint64{}, uint64(0)
	drain := func() {
		w := r.Drain()
		mu.Lock()
		defer mu.Unlock()
		lost += w.Lost
		for what, n := range w.Rows {
			got[what] += n
		}
	}
	want := map[What]uint64{}
	var wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() {
			rng, lane, mine := rand.New(rand.NewPCG(uint64(n), 1)), r.Lane(), map[What]uint64{}
			for i := range each {
				permission := permissions[rng.IntN(len(permissions))]
				d := decision(byte(1+rng.IntN(20)), token.OwnerUser, token.ReasonNone)
				lane.Decision(d, ask(permission, zoneKey+id(byte(rng.IntN(9))).String()))
				if permission == "made.up" {
					permission = ""
				}
				mine[What{Credential: d.Token, Kind: UserToken, Permission: permission, Type: "com.cloudflare.api.account.zone", Result: Allowed}]++
				if i%1000 == 999 {
					drain()
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for what, n := range mine {
				want[what] += n
			}
		})
	}
	wg.Wait()
	drain()
	if !maps.Equal(got, want) || lost != 0 {
		t.Errorf("counted %v and lost %d, want %v", got, lost, want)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	r := NewRecorder(Options{Catalogue: builtIn, Lanes: 1, Rows: 8})
	l := r.Lane()
	for n := range byte(12) {
		for range 3 {
			l.Decision(decision(n+1, token.OwnerUser, token.ReasonNone), ask("zone.read"))
		}
	}
	select {
	case <-r.Full():
	default:
		t.Error("nobody is told that a lane is full")
	}
	w := r.Drain()
	if len(w.Rows) != 8 || w.Lost != 12 {
		t.Errorf("%d rows and %d uses lost, want 8 and 12", len(w.Rows), w.Lost)
	}
	for what, n := range w.Rows {
		if n != 3 {
			t.Errorf("%v was counted %d times", what, n)
		}
	}
	if w := r.Drain(); w.Lost != 0 {
		t.Errorf("%d are lost twice", w.Lost)
	}
}

func TestResourcesOfAKeyAreBounded(t *testing.T) {
	r := NewRecorder(Options{Catalogue: builtIn, Lanes: 2})
	d := &token.Decision{Owner: id(3), OwnerKind: token.OwnerUser}
	for n := range 3 * maxResources {
		r.Lane().Decision(d, ask("zone.read", zoneKey+fmt.Sprintf("%032x", n)))
	}
	named, rest := 0, uint64(0)
	for what, n := range r.Drain().Rows {
		if what.ID != "" {
			named++
		} else {
			rest += n
		}
	}
	if named != maxResources || rest != 2*maxResources {
		t.Errorf("%d resources are named and %d uses of others counted", named, rest)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	r := NewRecorder(Options{Catalogue: builtIn, Lanes: 1})
	l := r.Lane()
	req := ask("dns.records.write", accountPrefix+id(9).String(), zoneKey+id(7).String())
	next := byte(0)
	if n := testing.AllocsPerRun(1000, func() {
		next++ // new rows and old ones
		l.Decision(decision(next, token.OwnerUser, token.ReasonNone), req)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestTextsAreNotKept counts with memory that is used again.
func TestTextsAreNotKept(t *testing.T) {
	r := NewRecorder(Options{Catalogue: builtIn, Lanes: 1})
	memory := []byte("dns.records.write" + zoneKey + id(7).String())
	text := unsafeString(memory)
	r.Lane().Decision(&token.Decision{Owner: id(3), OwnerKind: token.OwnerUser}, ask(text[:17], text[17:]))
	clear(memory)
	want := What{Credential: id(3), Kind: APIKey, Permission: "dns.records.write", Type: "com.cloudflare.api.account.zone", ID: id(7).String(), Result: Allowed}
	if got := r.Drain().Rows; got[want] != 1 {
		t.Errorf("counted %v", got)
	}
}

func BenchmarkDecision(b *testing.B) {
	r := NewRecorder(Options{Catalogue: builtIn})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		l := r.Lane()
		d := decision(1, token.OwnerUser, token.ReasonNone)
		req := ask("dns.records.write", accountPrefix+id(9).String(), zoneKey+id(7).String())
		for n := uint32(0); pb.Next(); n++ {
			d.Token[0], d.Token[1] = byte(n), byte(n>>8)&3 // a thousand tokens
			l.Decision(d, req)
		}
	})
}
