package verifyindex

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
)

// benchTokens is how many tokens the benchmarks have. What is measured is
// misses of caches and of the TLB: with few tokens every figure is better.
var benchTokens = flag.Int("tokens", 1_000_000, "tokens in the benchmarks")

// crowd is a large population of tokens, each with five policies.
type crowd struct {
	n       int
	secrets string // n × 48 bytes, in one piece: scattered ones would add misses of their own to both sides
	now     time.Time
	at      events.Position
}

const secretLen = 48

func newCrowd(n int) *crowd {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n*secretLen)
	for range n {
		b = append(b, projectiontest.NewSecret(rng, token.KindUser)...)
	}
	return &crowd{n: n, secrets: string(b), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func (c *crowd) secret(i int) string { return c.secrets[i*secretLen : (i+1)*secretLen] }

func idOf(kind byte, i int) (id token.ID) {
	id[0] = kind
	binary.BigEndian.PutUint64(id[8:], uint64(i)*0x9e3779b97f4a7c15)
	return id
}

// grant returns a grant of five policies with an address condition and times.
func (c *crowd) grant(i int) token.Grant {
	groups := zoneGroups
	g := token.Grant{
		Condition: &token.Condition{RequestIP: token.RequestIP{In: []string{"192.0.2.0/24", "2001:db8::/32"}}},
		NotBefore: c.now.Add(-time.Hour), ExpiresOn: c.now.Add(1000 * time.Hour),
	}
	for p := range 5 {
		g.Policies = append(g.Policies, token.Policy{
			ID: idOf('p', i*5+p), Effect: token.EffectAllow, Groups: []token.GroupRef{{ID: groups[p].ID}},
			Resources: jsontext.Value(fmt.Sprintf(`{"com.cloudflare.api.account.zone.%032x":"*"}`, i*5+p)),
		})
	}
	return g
}

var zoneGroups = catalogue.Cloudflare().Filter("", "com.cloudflare.api.account.zone")

// request returns a request that the last policy of token i allows.
func (c *crowd) request(i int) token.Request {
	groups := catalogue.Cloudflare().Filter("", "com.cloudflare.api.account.zone")
	group, _ := catalogue.Cloudflare().Group(groups[4].ID)
	return token.Request{
		Permission: group.Permissions[len(group.Permissions)-1],
		Resource:   []string{accountPrefix + idOf('a', i%1000).String(), fmt.Sprintf("com.cloudflare.api.account.zone.%032x", i*5+4)},
		Address:    netip.MustParseAddr("192.0.2.7"),
	}
}

// commit returns a commit of records as a reader would deliver them.
func (c *crowd) commit(data ...events.Draft) events.Commit {
	c.at.Seq++
	out := events.Commit{Seq: c.at.Seq}
	for _, d := range data {
		c.at.Number++
		r := events.Record{Envelope: d.Envelope, Seq: c.at.Seq, Data: d.Data}
		r.Number = c.at.Number
		out.Records = append(out.Records, r)
	}
	c.at.Epoch, c.at.Time = 1, c.now
	out.End = c.at
	return out
}

func (c *crowd) created(i int) events.Draft {
	return events.Draft{
		Envelope: events.Envelope{Subject: "token/" + idOf('t', i).String()},
		Data: &events.TokenCreated{
			OwnerKind: events.OwnedByUser, Owner: idOf('u', i%1000), Secret: token.Sum(c.secret(i)), Grant: c.grant(i),
		},
	}
}

// owners returns the users of the crowd, each a member of two accounts.
func (c *crowd) owners() []events.Draft {
	var all []events.Draft
	for i := range min(c.n, 1000) {
		user := idOf('u', i)
		all = append(all, events.Draft{Envelope: events.Envelope{Subject: "user/" + user.String()}, Data: &events.UserRegistered{}})
		for k, role := range []string{catalogue.SuperAdministrator, catalogue.AdministratorReadOnly} {
			all = append(all, events.Draft{
				Envelope: events.Envelope{Subject: "member/" + idOf('m', 2*i+k).String()},
				Data:     &events.MemberAdded{User: user, Account: idOf('a', (i+k)%1000), Roles: []string{role}},
			})
		}
	}
	return all
}

// fill loads the crowd into an index.
func (c *crowd) fill(b testing.TB, x *Index) {
	b.Helper()
	if err := x.BeginBulk(); err != nil {
		b.Fatal(err)
	}
	if err := x.Apply([]events.Commit{c.commit(events.Draft{Data: &events.LogOpened{Brand: "ww"}}), c.commit(c.owners()...)}); err != nil {
		b.Fatal(err)
	}
	for i := range c.n {
		if err := x.Apply([]events.Commit{c.commit(c.created(i))}); err != nil {
			b.Fatal(err)
		}
	}
	if err := x.EndBulk(); err != nil {
		b.Fatal(err)
	}
	x.Observe(pulse(c.at, c.now), c.now)
}

// steps returns n random tokens.
func (c *crowd) steps(n int) []int32 {
	rng := rand.New(rand.NewPCG(3, 4))
	s := make([]int32, n)
	for i := range s {
		s[i] = int32(rng.IntN(c.n))
	}
	return s
}

// presented returns the secrets of the steps in their order: like the request,
// a secret has just been read from somewhere when it is verified.
func (c *crowd) presented(steps []int32) []string {
	var text strings.Builder
	for _, i := range steps {
		text.WriteString(c.secret(int(i)))
	}
	all, piece := make([]string, len(steps)), text.String()
	for i := range all {
		all[i] = piece[i*secretLen : (i+1)*secretLen]
	}
	return all
}

// ratio runs two functions by turns and reports the median of the quotients of
// their times: the machine is never quiet, but both sides hear the same noise.
func ratio(b *testing.B, name string, limit, ours func()) {
	b.Helper()
	var quotients []float64
	var tl, to time.Duration
	rounds := max(b.N, 5)
	for range rounds {
		start := time.Now()
		limit()
		middle := time.Now()
		ours()
		l, o := middle.Sub(start), time.Since(middle)
		tl, to = tl+l, to+o
		quotients = append(quotients, float64(o)/float64(l))
	}
	slices.Sort(quotients)
	b.ReportMetric(quotients[len(quotients)/2], name)
	b.ReportMetric(float64(tl.Nanoseconds())/float64(rounds*perRound), "limit-ns")
	b.ReportMetric(float64(to.Nanoseconds())/float64(rounds*perRound), "ours-ns")
}

const perRound = 100_000

// requests returns one request for each of the steps: what an enforcer has in
// its hands anyway. Like the secrets they lie in one piece.
func (c *crowd) requests(steps []int32) []token.Request {
	all := make([]token.Request, len(steps))
	first := c.request(0)
	var text strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&text, "com.cloudflare.api.account.zone.%032x", int(s)*5+4)
	}
	keys, size := text.String(), text.Len()/len(steps)
	accounts := make([]string, 1000)
	for i := range accounts {
		accounts[i] = c.request(i).Resource[0]
	}
	chains := make([]string, 0, 2*len(steps))
	for i, s := range steps {
		chains = append(chains, accounts[s%1000], keys[i*size:(i+1)*size])
		all[i] = first
		all[i].Resource = chains[2*i : 2*i+2]
	}
	return all
}

func BenchmarkVerifyResident(b *testing.B) {
	c := newCrowd(*benchTokens)
	x := open(b, Options{MemoryBytes: 4 << 30, Now: func() time.Time { return time.Now() }}, vfs.NewMem())
	defer x.Close()
	c.now = time.Now().UTC().Truncate(time.Millisecond)
	c.fill(b, x)
	x.o.Bounds = Bounds{time.Hour, time.Hour, time.Hour}
	m := make(map[token.Digest]uint32, c.n)
	for i := range c.n {
		m[token.Sum(c.secret(i))] = uint32(i)
	}
	steps := c.steps(perRound)
	requests, secrets := c.requests(steps), c.presented(steps)
	runtime.GC()
	s := x.Stats()
	limit := func() {
		sum := uint32(0)
		for _, secret := range secrets {
			sum += m[token.Sum(secret)]
		}
		sink = sum
	}
	ours := func() {
		for k, secret := range secrets {
			if d := x.Verify(secret, &requests[k]); d.Verdict != token.VerdictAllow {
				b.Fatalf("%+v", d)
			}
		}
	}
	b.Run("alone", func(b *testing.B) {
		ratio(b, "x-of-sha256+map", limit, ours)
		b.ReportMetric(float64(s.MemoryBytes)/float64(s.Tokens), "B/token-memory")
		b.ReportMetric(float64(s.DiskBytes)/float64(s.Tokens), "B/token-disk")
	})
	b.Run("while applying", func(b *testing.B) {
		stop, done := make(chan struct{}), sync.WaitGroup{}
		var applied int
		began := time.Now()
		done.Go(func() { applied = c.churn(b, x, stop) })
		ratio(b, "x-of-sha256+map", limit, ours)
		close(stop)
		done.Wait()
		b.ReportMetric(float64(applied)/time.Since(began).Seconds(), "applies/s")
	})
}

var sink uint32

// churn applies about 50,000 events a second until stop: suspensions and their
// ends, and updates.
func (c *crowd) churn(b *testing.B, x *Index, stop <-chan struct{}) (applied int) {
	const rate, batch = 50_000, 500
	tick := time.NewTicker(time.Second * batch / rate)
	defer tick.Stop()
	rng := rand.New(rand.NewPCG(5, 6))
	for {
		select {
		case <-stop:
			return applied
		case <-tick.C:
		}
		var drafts []events.Draft
		for len(drafts) < batch {
			i := rng.IntN(c.n)
			d := events.Draft{Envelope: events.Envelope{Subject: "token/" + idOf('t', i).String()}, Data: &events.TokenEnabled{}}
			if len(drafts)%5 == 0 {
				d.Data = &events.TokenUpdated{Grant: c.grant(i)}
			}
			drafts = append(drafts, d)
		}
		if err := x.Apply([]events.Commit{c.commit(drafts...)}); err != nil {
			b.Error(err)
			return applied
		}
		applied += batch
	}
}

func BenchmarkVerifyDisk(b *testing.B) {
	c := newCrowd(*benchTokens)
	dir := b.TempDir()
	// A cache of a tenth of the bytes.
	memory := int64(c.n) * 60
	c.now = time.Now().UTC().Truncate(time.Millisecond)
	filled, err := Open(Options{Dir: dir, MemoryBytes: 4 << 30})
	if err != nil {
		b.Fatal(err)
	}
	c.fill(b, filled)
	if err := filled.Close(); err != nil {
		b.Fatal(err)
	}
	x, err := Open(Options{Dir: dir, MemoryBytes: memory})
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	if x.Stats().Mode != Disk {
		b.Fatalf("%+v", x.Stats())
	}
	x.o.Bounds = Bounds{time.Hour, time.Hour, time.Hour}
	x.Observe(pulse(c.at, c.now), c.now)
	steps := c.steps(perRound)
	requests, secrets := c.requests(steps), c.presented(steps)
	rng := rand.New(rand.NewPCG(7, 8))
	strangers := make([]string, 10_000)
	for i := range strangers {
		strangers[i] = projectiontest.NewSecret(rng, token.KindUser)
	}
	raw := func(secret string) {
		d := token.Sum(secret)
		v, closer, err := x.store.DB().Get(append([]byte{rowEntry}, d[:]...))
		if err == nil {
			sink += uint32(len(v))
			closer.Close()
		} else if err != pebble.ErrNotFound {
			b.Fatal(err)
		}
	}
	hit := func() {
		for _, secret := range secrets {
			raw(secret)
		}
	}
	hit() // fill the caches once
	b.Run("hit", func(b *testing.B) {
		ratio(b, "x-of-sha256+get", hit, func() {
			for k, secret := range secrets {
				if d := x.Verify(secret, &requests[k]); d.Verdict != token.VerdictAllow {
					b.Fatalf("%+v", d)
				}
			}
		})
	})
	b.Run("miss", func(b *testing.B) {
		ratio(b, "x-of-sha256+get", hit, func() {
			for k := range steps {
				if d := x.Verify(strangers[k%len(strangers)], &requests[k]); d.Reason != token.ReasonUnknown {
					b.Fatalf("%+v", d)
				}
			}
		})
	})
}

// BenchmarkBulk loads an empty index: what a replay costs beyond reading and
// decoding.
func BenchmarkBulk(b *testing.B) {
	c := newCrowd(*benchTokens / 5)
	commits := []events.Commit{c.commit(events.Draft{Data: &events.LogOpened{Brand: "ww"}})}
	for i := range c.n {
		commits = append(commits, c.commit(c.created(i)))
	}
	var loading, ending time.Duration
	for b.Loop() {
		x, err := Open(Options{Dir: b.TempDir(), MemoryBytes: 4 << 30})
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		if err := x.BeginBulk(); err != nil {
			b.Fatal(err)
		}
		for part := range slices.Chunk(commits, 1000) {
			if err := x.Apply(part); err != nil {
				b.Fatal(err)
			}
		}
		middle := time.Now()
		if err := x.EndBulk(); err != nil {
			b.Fatal(err)
		}
		loading, ending = loading+middle.Sub(start), ending+time.Since(middle)
		x.Close()
	}
	events := float64(len(commits) * b.N)
	b.ReportMetric(events/(loading+ending).Seconds(), "events/s")
	b.ReportMetric(float64(loading.Nanoseconds())/events, "apply-ns/event")
	b.ReportMetric(float64(ending.Nanoseconds())/events, "ingest-ns/event")
}
