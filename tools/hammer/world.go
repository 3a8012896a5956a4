package main

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"time"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/token"
)

// The permission groups of the grants, by their ids in the built-in pack, and
// a permission out of each.
const (
	groupDNSWrite     = "4755a26eedb94da69e1066d98aa820be"
	groupZoneRead     = "c8fed203ed3043cba015a93ad1616f1f"
	groupCachePurge   = "e17beae8b8cb423a99b1730f21238bed"
	groupWorkersWrite = "e086da7e2179491d91ee5f35b3ca210a"

	permDNSWrite     = "dns.records.write"
	permDNSRead      = "dns.records.read"
	permZoneRead     = "zone.read"
	permWorkersWrite = "workers.scripts.write"
)

const (
	accounts   = 64
	zonesEach  = 8 // per account
	usersEach  = 64
	secretLen  = 48
	accountKey = "com.cloudflare.api.account."
	zoneKey    = "com.cloudflare.api.account.zone."
)

// world is a population of tokens that follows from their numbers alone: what
// each may do is known without asking the code under test. It is the model.
type world struct {
	n   int
	now time.Time // what validities are relative to
	// secrets are those of the first len/secretLen tokens, in one piece:
	// scattered over the heap they would add misses of their own to both
	// sides of a comparison.
	secrets  []byte
	accounts [accounts]string
	zones    [accounts][zonesEach]string
	chains   [accounts][zonesEach][]string
}

// newWorld returns a world of n tokens and makes the secrets of the first
// stored ones.
func newWorld(n, stored int) *world {
	w := &world{n: n, now: time.Now().UTC().Truncate(time.Second)}
	for a := range accounts {
		w.accounts[a] = accountKey + idOf('a', a).String()
		for z := range zonesEach {
			w.zones[a][z] = zoneKey + idOf('z', a*zonesEach+z).String()
			w.chains[a][z] = []string{w.accounts[a], w.zones[a][z]}
		}
	}
	w.secrets = make([]byte, 0, stored*secretLen)
	for i := range stored {
		w.secrets = appendSecret(w.secrets, i, 0)
	}
	return w
}

// secret returns a stored secret.
func (w *world) secret(i int) string {
	s := w.secrets[i*secretLen : (i+1)*secretLen]
	return unsafe.String(unsafe.SliceData(s), len(s))
}

// mix is the finaliser of splitmix64: numbers become random-looking words.
func mix(v uint64) uint64 {
	v += 0x9e3779b97f4a7c15
	v = (v ^ v>>30) * 0xbf58476d1ce4e5b9
	v = (v ^ v>>27) * 0x94d049bb133111eb
	return v ^ v>>31
}

// firstMilli is the time in the smallest id: 2026-01-01.
const firstMilli = 1767225600000

// idOf returns the id of the i-th thing of a kind, in the form of a ULID.
func idOf(kind byte, i int) (id token.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(firstMilli+i/16)<<16|uint64(kind)<<8)
	binary.BigEndian.PutUint64(id[8:], mix(uint64(i)^uint64(kind)<<56))
	return id
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// appendSecret appends the secret of token i after a number of rolls.
func appendSecret(b []byte, i, rolls int) []byte {
	from := len(b)
	b = append(b, "wwu_"...)
	if owner(i) == token.OwnerAccount {
		b[from+2] = 'a'
	}
	for k := 0; k < 38; {
		word := mix(mix(uint64(i)<<8|uint64(k))+uint64(rolls)<<48) | 1
		for range 10 {
			if k == 38 {
				break
			}
			b = append(b, base62[word%62])
			word /= 62
			k++
		}
	}
	sum := crc32.ChecksumIEEE(b[from:])
	var d [6]byte
	for k := len(d) - 1; k >= 0; k-- {
		d[k] = base62[sum%62]
		sum /= 62
	}
	return append(b, d[:]...)
}

// stranger returns a well-formed secret that no token has.
func stranger(i int) string { return string(appendSecret(nil, i, 1<<14)) }

func digestOf(i, rolls int) token.Digest { return token.Sum(appendSecret(nil, i, rolls)) }

func owner(i int) token.OwnerKind {
	if i%2 == 0 {
		return token.OwnerAccount
	}
	return token.OwnerUser
}

func account(i int) int { return int(mix(uint64(i)) % accounts) }
func zone(i, step int) int {
	return int(mix(uint64(i))>>8%zonesEach+uint64(step)) % zonesEach
}

// fate is what has become of a token.
type fate uint8

const (
	fine fate = iota
	disabled
	expired
	revoked
	// churned tokens change while others are verified; nobody asks about
	// them before the end.
	churned
)

func fateOf(i int) fate {
	switch v := mix(uint64(i)) >> 32 % 100; {
	case v == 0:
		return disabled
	case v == 1:
		return expired
	case v == 2:
		return revoked
	case v < 13:
		return churned
	}
	return fine
}

// tokenID and policyID are known from numbers.
func tokenID(i int) token.ID     { return idOf('t', i) }
func policyID(i, p int) token.ID { return idOf('p', i*8+p) }

func ownerID(i int) token.ID {
	if owner(i) == token.OwnerAccount {
		return idOf('a', account(i))
	}
	return idOf('u', account(i)*usersEach+i/2%usersEach)
}

// memberships is how many the users have, each in two accounts.
const memberships = 2 * accounts * usersEach

// member returns the n-th membership: everything in the account of the user's
// tokens, and a look at the next one.
func member(n int) *events.MemberAdded {
	at, role := n/2/usersEach, catalogue.SuperAdministrator
	if n%2 == 1 {
		at, role = (at+1)%accounts, catalogue.AdministratorReadOnly
	}
	return &events.MemberAdded{Account: idOf('a', at), User: idOf('u', n/2), Roles: []string{role}}
}

// grant returns the first few of the five policies of token i, an address
// condition and a validity.
func (w *world) grant(i, policies int) token.Grant {
	a := account(i)
	object := func(keys ...string) (b []byte) {
		b = append(b, '{')
		for k, key := range keys {
			if k > 0 {
				b = append(b, ',')
			}
			b = append(append(append(b, '"'), key...), `":"*"`...)
		}
		return append(b, '}')
	}
	policy := func(p int, e token.Effect, group string, resources []byte) token.Policy {
		return token.Policy{ID: policyID(i, p), Effect: e, Groups: []token.GroupRef{{ID: group}}, Resources: jsontext.Value(resources)}
	}
	all := [...]func() token.Policy{
		func() token.Policy {
			return policy(0, token.EffectAllow, groupDNSWrite, object(w.zones[a][zone(i, 0)]))
		},
		func() token.Policy {
			return policy(1, token.EffectDeny, groupDNSWrite, object(w.zones[a][zone(i, 1)]))
		},
		func() token.Policy {
			nested := append([]byte(`{"`+w.accounts[a]+`":`), object(zoneKey+"*")...)
			return policy(2, token.EffectAllow, groupZoneRead, append(nested, '}'))
		},
		func() token.Policy {
			return policy(3, token.EffectAllow, groupCachePurge, object(w.zones[a][zone(i, 2)], w.zones[a][zone(i, 3)]))
		},
		func() token.Policy {
			return policy(4, token.EffectAllow, groupWorkersWrite, object(w.accounts[a]))
		},
	}
	g := token.Grant{NotBefore: w.now.Add(-24 * time.Hour), ExpiresOn: w.now.Add(240 * time.Hour), Condition: &token.Condition{
		RequestIP: token.RequestIP{
			In:    []string{fmt.Sprintf("10.%d.0.0/16", a), fmt.Sprintf("2001:db8:%x::/48", a)},
			NotIn: []string{fmt.Sprintf("10.%d.77.0/24", a)},
		},
	}}
	if fateOf(i) == expired {
		g.ExpiresOn = w.now.Add(-time.Hour)
	}
	for p := range policies {
		g.Policies = append(g.Policies, all[p]())
	}
	return g
}

var actorKinds = map[token.OwnerKind]events.OwnerKind{
	token.OwnerUser: events.OwnedByUser, token.OwnerAccount: events.OwnedByAccount,
}

func (w *world) created(i, policies int) *events.TokenCreated {
	return &events.TokenCreated{
		Name: fmt.Sprintf("deploy key %d", i), OwnerKind: actorKinds[owner(i)], Owner: ownerID(i),
		Secret: digestOf(i, 0), Grant: w.grant(i, policies), Disabled: fateOf(i) == disabled,
	}
}

// draft wraps an event about token i as the pen would.
func (w *world) draft(number int, i int, data events.Event) events.Draft {
	d := events.Draft{Data: data, Envelope: events.Envelope{
		ID: idOf('e', number), Source: "watchword/" + installation.String(), Subject: "token/" + tokenID(i).String(),
		Time: w.now, Actor: events.Actor{Kind: events.ActorUser, ID: idOf('u', i%4096), Credential: idOf('u', i%4096)},
		RequestID: "req-" + idOf('r', number).ULID(),
	}}
	if owner(i) == token.OwnerAccount {
		d.Account = ownerID(i)
	}
	return d
}

var installation = idOf('i', 0)

// members returns all memberships as the pen would write them.
func (w *world) members() []events.Draft {
	all := make([]events.Draft, memberships)
	for n := range all {
		all[n] = w.opened()
		all[n].ID, all[n].Subject, all[n].Data = idOf('n', n), "member/"+idOf('m', n).String(), member(n)
	}
	return all
}

// opened is the first event of the world's ledger.
func (w *world) opened() events.Draft {
	return events.Draft{Data: &events.LogOpened{Installation: installation, Brand: token.DefaultBrand, PulseKey: make([]byte, 32)},
		Envelope: events.Envelope{
			ID: idOf('e', 0), Source: "watchword/" + installation.String(), Subject: "log/" + installation.String(),
			Time: w.now, Actor: events.Actor{Kind: events.ActorSystem},
		}}
}

// question is something to ask about a token, and what the answer must be.
type question struct {
	token  int32
	reason token.Reason
	policy int8 // that decides; -1 for none
	ask    token.Request
}

// kinds of questions, of which each token gets one by chance.
const askKinds = 20

// question returns a question about token i with all of its five policies.
func (w *world) question(i, kind int) question {
	a, x := account(i), zone(i, 0)
	at := func(step int) []string { return w.chains[a][zone(i, step)] }
	from := netip.AddrFrom4([4]byte{10, byte(a), 3, byte(i)})
	q := question{token: int32(i), policy: -1, ask: token.Request{Permission: permDNSWrite, Resource: w.chains[a][x], Address: from}}
	switch fateOf(i) {
	case disabled:
		q.reason = token.ReasonDisabled
		return q
	case expired:
		q.reason = token.ReasonExpired
		return q
	case revoked:
		q.reason = token.ReasonRevoked
		return q
	}
	switch k := kind % askKinds; {
	case k < 6:
		q.policy = 0
	case k < 11:
		q.ask.Permission, q.ask.Resource, q.policy = permZoneRead, at(5), 2
	case k < 15:
		q.ask.Permission, q.policy = permWorkersWrite, 4
		q.ask.Address = netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 0, byte(a), 15: byte(i)})
	case k < 17:
		q.ask.Resource, q.reason, q.policy = at(1), token.ReasonDeniedByPolicy, 1
	case k < 19:
		q.ask.Permission, q.ask.Resource, q.reason = permDNSRead, at(5), token.ReasonNoPolicy
	default:
		q.ask.Address, q.reason = netip.AddrFrom4([4]byte{10, byte(a), 77, 9}), token.ReasonAddress
	}
	return q
}

// fits reports whether d is the right answer to q.
func (q *question) fits(d *token.Decision) bool {
	if d.Reason != q.reason || d.Verdict != q.reason.Verdict() || d.Token != tokenID(int(q.token)) {
		return false
	}
	if q.policy < 0 {
		return d.Policy.IsZero()
	}
	return d.Policy == policyID(int(q.token), int(q.policy))
}

// explain says what was wrong.
func (q *question) explain(d *token.Decision) error {
	return wrong("token %d asked for %s on %v from %v: got %s %q by policy %v of token %v, want %q by policy %d of token %v", q.token,
		q.ask.Permission, q.ask.Resource, q.ask.Address, d.Verdict, d.Reason, d.Policy, d.Token, q.reason, q.policy, tokenID(int(q.token)))
}
