package token

import (
	"net/netip"
	"testing"
	"time"

	"watchword.dev/events/catalogue"
)

// benchGrant is what the hot path is measured with: five policies on
// Cloudflare's own catalogue, the last of which decides, address ranges of both
// families and a validity.
func benchGrant() Grant {
	group := func(name, scope string) []GroupRef {
		return []GroupRef{{ID: catalogue.Cloudflare().Filter(name, scope)[0].ID}}
	}
	const zone, account = "com.cloudflare.api.account.zone", "com.cloudflare.api.account"
	return Grant{
		Policies: []Policy{
			{ID: ID{1}, Effect: EffectDeny, Groups: group("Zone Write", zone), Resources: []byte(`{"com.cloudflare.api.account.zone.1f0c6b0f0a2b4c6d8e9f001122330001":"*"}`)},
			{ID: ID{2}, Effect: EffectAllow, Groups: group("DNS Write", zone), Resources: []byte(`{"com.cloudflare.api.account.zone.1f0c6b0f0a2b4c6d8e9f001122330002":"*"}`)},
			{ID: ID{3}, Effect: EffectAllow, Groups: group("DNS Read", zone), Resources: []byte(`{"com.cloudflare.api.account.zone.1f0c6b0f0a2b4c6d8e9f001122330003":"*"}`)},
			{ID: ID{4}, Effect: EffectAllow, Groups: group("Workers Scripts Write", account), Resources: []byte(`{"com.cloudflare.api.account.*":"*"}`)},
			{ID: ID{5}, Effect: EffectAllow, Groups: group("DNS Write", zone), Resources: []byte(`{"com.cloudflare.api.account.7e11aabbccddeeff0011223344556677":{"com.cloudflare.api.account.zone.*":"*"}}`)},
		},
		Condition: &Condition{RequestIP: RequestIP{In: []string{"192.0.2.0/24", "2001:db8::/48"}, NotIn: []string{"192.0.2.7/32"}}},
		NotBefore: epoch,
		ExpiresOn: epoch.AddDate(0, 3, 0),
	}
}

type hotPath struct {
	cat   *catalogue.Catalogue
	c     Compiled
	perm  string
	chain []string
	addr  netip.Addr
	now   time.Time
}

func newHotPath(tb testing.TB) *hotPath {
	h := &hotPath{
		cat:   catalogue.Cloudflare(),
		perm:  "dns.records.write",
		chain: []string{"com.cloudflare.api.account.7e11aabbccddeeff0011223344556677", "com.cloudflare.api.account.zone.1f0c6b0f0a2b4c6d8e9f001122334455"},
		addr:  netip.MustParseAddr("192.0.2.99"),
		now:   epoch.Add(time.Hour),
	}
	if err := benchGrant().Validate(h.cat, DefaultLimits); err != nil {
		tb.Fatal(err)
	}
	var err error
	if h.c, err = Compile(benchGrant(), h.cat); err != nil {
		tb.Fatal(err)
	}
	if reason, by := h.evaluate(); reason != ReasonNone || by != (ID{5}) {
		tb.Fatalf("got %q by %v", reason, by)
	}
	return h
}

func (h *hotPath) evaluate() (Reason, ID) {
	reason, by, _ := h.c.Evaluate(h.cat, h.cat.Permission(h.perm), h.chain, h.addr, h.now)
	return reason, by
}

// TestHotPathAllocatesNothing covers all that a verification calls here.
func TestHotPathAllocatesNothing(t *testing.T) {
	h := newHotPath(t)
	secret, err := Format{}.Generate(KindUser)
	if err != nil {
		t.Fatal(err)
	}
	text, raw := secret.Reveal(), []byte(secret.Reveal())
	bad := text[:47] + "-"
	var id [32]byte
	for name, f := range map[string]func(){
		"Parse":        func() { _, _ = Format{}.Parse(text) },
		"ParseBytes":   func() { _, _ = Format{}.ParseBytes(raw) },
		"Parse bad":    func() { _, _ = Format{}.Parse(bad) },
		"Sum string":   func() { _ = Sum(text) },
		"Sum bytes":    func() { _ = Sum(raw) },
		"Digest":       func() { _ = secret.Digest() },
		"Evaluate":     func() { h.evaluate() },
		"Evaluate bad": func() { h.c[:len(h.c)-1].Evaluate(h.cat, 0, h.chain, h.addr, h.now) },
		"Check":        func() { _ = h.c.Check(h.cat) },
		"TypeOf":       func() { _, _, _ = h.cat.TypeOf(h.chain[1]) },
		"ParseID":      func() { _, _ = ParseID("0123456789abcdef0123456789abcdef") },
		"ParseULID":    func() { _, _ = ParseULID("01ARZ3NDEKTSV4RRFFQ69G5FAV") },
		"AppendText":   func() { _, _ = ID{}.AppendText(id[:0]) },
		"AppendULID":   func() { _ = ID{}.AppendULID(id[:0]) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkSum(b *testing.B) {
	s, err := Format{}.Generate(KindUser)
	if err != nil {
		b.Fatal(err)
	}
	text := s.Reveal()
	b.ReportAllocs()
	for b.Loop() {
		Sum(text)
	}
}

func BenchmarkParse(b *testing.B) {
	s, err := Format{}.Generate(KindUser)
	if err != nil {
		b.Fatal(err)
	}
	text := s.Reveal()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (Format{}).Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEvaluate(b *testing.B) {
	h := newHotPath(b)

	b.ReportAllocs()
	for b.Loop() {
		h.evaluate()
	}
}

// BenchmarkEvaluateLargest asks the largest grant that the default limits
// allow for something that it does not hold.
func BenchmarkEvaluateLargest(b *testing.B) {
	c, err := Compile(largeGrant(b), world)
	if err != nil {
		b.Fatal(err)
	}
	chain := []string{"w.account.a1", "w.account.zone.ffffffffffffffffffffffffffffffff"}
	perm := world.Permission("zone.read")

	b.ReportAllocs()
	for b.Loop() {
		if reason, _, _ := c.Evaluate(world, perm, chain, netip.Addr{}, epoch); reason != ReasonNoPolicy {
			b.Fatal(reason)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	g, cat := benchGrant(), catalogue.Cloudflare()
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = AppendCompiled(dst[:0], g, cat); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGenerate(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (Format{}).Generate(KindUser); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGenerator(b *testing.B) {
	g := NewGenerator(nil)
	b.ReportAllocs()
	for b.Loop() {
		g.New()
	}
}

func BenchmarkCoversLargest(b *testing.B) {
	big := largeGrant(b)
	for b.Loop() {
		if err := Covers(big, big, world); err != nil {
			b.Fatal(err)
		}
	}
}
