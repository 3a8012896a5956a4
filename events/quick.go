package events

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"watchword.dev/events/token"
)

// A replay is mostly token.created and token.updated, and the JSON library
// takes most of its time there; a revocation is what everybody waits for. The decoders here read the one form that such
// data has, members in order, and decline everything that is not plainly it:
// what they decline goes to the library, which decides. A fuzz test holds them
// to that.
//
// What they return shares no memory with the data; groups and resources of one
// event share theirs with each other, behind capacities that keep them apart.

func quickTokenCreated(data []byte) (Event, bool) {
	q := newQuick(data)
	made := new(struct {
		TokenCreated
		grantRoom
	})
	e := &made.TokenCreated
	q.room = &made.grantRoom
	q.must(`{"name":`)
	e.Name = q.string()
	q.must(`,"owner_kind":`)
	e.OwnerKind = OwnerKind(q.string())
	q.must(`,"owner":`)
	e.Owner = q.id()
	q.must(`,"secret_digest":`)
	e.Secret = q.digest()
	q.must(`,"grant":`)
	q.grant(&e.Grant)
	e.Disabled = q.may(`,"disabled":true`)
	if q.may(`,"template":`) {
		e.Template = q.some()
	}
	if q.may(`,"template_version":`) {
		e.TemplateVersion = q.count()
	}
	e.Widens = q.may(`,"widens":true`)
	e.Foreign = q.may(`,"foreign":true`)
	if q.may(`,"request_digest":`) {
		e.Request = q.some()
	}
	if q.may(`,"origin":`) {
		q.origin(&e.Origin)
	}
	q.must(`}`)
	return e, q.done()
}

func quickTokenUpdated(data []byte) (Event, bool) {
	q := newQuick(data)
	made := new(struct {
		TokenUpdated
		grantRoom
	})
	e := &made.TokenUpdated
	q.room = &made.grantRoom
	q.must(`{"name":`)
	e.Name = q.string()
	q.must(`,"grant":`)
	q.grant(&e.Grant)
	if q.may(`,"status":`) {
		e.Status = q.some()
	}
	e.Widens = q.may(`,"widens":true`)
	if q.may(`,"reason":`) {
		e.Reason = q.some()
	}
	if q.may(`,"origin":`) {
		q.origin(&e.Origin)
	}
	q.must(`}`)
	return e, q.done()
}

func quickTokenRevoked(data []byte) (Event, bool) {
	q := newQuick(data)
	e := new(TokenRevoked)
	q.must(`{`)
	reason := q.may(`"reason":`)
	if reason {
		e.Reason = q.some()
	}
	if reason && q.may(`,"origin":`) || !reason && q.may(`"origin":`) {
		q.origin(&e.Origin)
	}
	q.must(`}`)
	return e, q.done()
}

// quick reads data from the left. When declined is set, nothing counts.
type quick struct {
	data     []byte
	at       int
	declined bool

	room      *grantRoom
	groups    []token.GroupRef // room that policies take their parts of
	resources []byte
}

// grantRoom is made together with its event: most grants have no more than
// this and then need no other room.
type grantRoom struct {
	policies [2]token.Policy
	groups   [4]token.GroupRef
}

func newQuick(data []byte) quick { return quick{data: data} }

func (q *quick) done() bool { return !q.declined && q.at == len(q.data) }

func (q *quick) may(literal string) bool {
	if rest := q.data[q.at:]; q.declined || len(rest) < len(literal) || string(rest[:len(literal)]) != literal {
		return false
	}
	q.at += len(literal)
	return true
}

func (q *quick) must(literal string) {
	if !q.may(literal) {
		q.declined = true
	}
}

// quoted reads a string without any escape and returns what is in its quotes.
func (q *quick) quoted() []byte {
	if q.declined || q.at >= len(q.data) || q.data[q.at] != '"' {
		q.declined = true
		return nil
	}
	rest := q.data[q.at+1:]
	var all byte
	for i := easy(rest); i < len(rest); i++ {
		c := rest[i]
		if c == '"' {
			s := rest[:i]
			q.at += i + 2
			if all >= utf8.RuneSelf && !utf8.Valid(s) {
				q.declined = true
			}
			return s
		}
		if c == '\\' || c < ' ' {
			break
		}
		all |= c
	}
	q.declined = true
	return nil
}

// easy returns how many bytes at the start of b, in steps of eight, are ASCII
// and neither controls nor quotes nor backslashes.
func easy(b []byte) (n int) {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for ; len(b) >= n+8; n += 8 {
		x := binary.LittleEndian.Uint64(b[n:])
		quote, slash := x^'"'*ones, x^'\\'*ones
		// The top bit of a byte is set where it is less than what is taken
		// away; a borrow can only come out of a byte that is found itself.
		if (x|(x-' '*ones)|(quote-ones)|(slash-ones))&tops != 0 {
			break
		}
	}
	return n
}

func (q *quick) string() string {
	switch s := q.quoted(); string(s) {
	case string(token.EffectAllow):
		return string(token.EffectAllow)
	case string(token.EffectDeny):
		return string(token.EffectDeny)
	case string(OwnedByUser):
		return string(OwnedByUser)
	case string(OwnedByAccount):
		return string(OwnedByAccount)
	default:
		return string(s)
	}
}

// count reads a number that would have been left out if it were zero.
func (q *quick) count() uint32 {
	n, from := uint64(0), q.at
	for ; q.at < len(q.data) && q.at-from < 11 && '0' <= q.data[q.at] && q.data[q.at] <= '9'; q.at++ {
		n = 10*n + uint64(q.data[q.at]-'0')
	}
	if q.declined || q.at == from || q.data[from] == '0' || n > math.MaxUint32 {
		q.declined = true
	}
	return uint32(n)
}

// some reads a string that would have been left out if it were empty.
func (q *quick) some() string {
	s := q.string()
	if s == "" {
		q.declined = true
	}
	return s
}

func (q *quick) id() token.ID {
	var id token.ID
	q.hex(id[:], q.fixed(2*len(id)))
	return id
}

// fixed reads a string of n bytes, which the caller looks at.
func (q *quick) fixed(n int) []byte {
	if rest := q.data[q.at:]; !q.declined && len(rest) >= n+2 && rest[0] == '"' && rest[n+1] == '"' {
		q.at += n + 2
		return rest[1 : n+1]
	}
	q.declined = true
	return nil
}

// hex reads as many lower-case hex digits as dst has room for, and no more.
func (q *quick) hex(dst, s []byte) {
	if !readHex(dst, s) {
		q.declined = true
	}
}

// readHex reads exactly as many lower-case hex digits as dst has room for.
func readHex(dst, s []byte) bool {
	if len(s) != 2*len(dst) {
		return false
	}
	var all byte
	for i := range dst {
		hi, lo := unhex[s[2*i]], unhex[s[2*i+1]]
		all |= hi | lo // no digit is above 15
		dst[i] = hi<<4 | lo
	}
	return all <= 15
}

func (q *quick) digest() (d token.Digest) {
	const scheme = "d1:"
	s, ok := bytes.CutPrefix(q.fixed(len(scheme)+2*len(d)), []byte(scheme))
	if !ok {
		q.declined = true
	}
	q.hex(d[:], s)
	return d
}

// unhex is the value of each lower-case hex digit, and 0xff for the rest.
var unhex = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i)
	}
	return t
}()

func (q *quick) grant(g *token.Grant) {
	q.must(`{"policies":[`)
	g.Policies, q.groups = q.room.policies[:0], q.room.groups[:0]
	for i := 0; !q.declined && !q.may(`]`); i++ {
		if i > 0 {
			q.must(`,`)
		}
		if i == len(q.room.policies) {
			g.Policies = append(make([]token.Policy, 0, 8), g.Policies...)
			q.resources = slices.Grow(q.resources, 4*len(q.resources)/i)
		}
		g.Policies = append(g.Policies, token.Policy{})
		q.policy(&g.Policies[i])
	}
	if q.may(`,"condition":`) {
		g.Condition = new(token.Condition)
		q.condition(g.Condition)
	}
	if q.may(`,"not_before":`) {
		g.NotBefore = q.time()
	}
	if q.may(`,"expires_on":`) {
		g.ExpiresOn = q.time()
	}
	q.must(`}`)
}

func (q *quick) policy(p *token.Policy) {
	q.must(`{`)
	if q.may(`"id":`) {
		if p.ID = q.id(); p.ID.IsZero() {
			q.declined = true
		}
		q.must(`,`)
	}
	q.must(`"effect":`)
	p.Effect = token.Effect(q.string())
	q.must(`,"permission_groups":[`)
	from := len(q.groups)
	for i := 0; !q.declined && !q.may(`]`); i++ {
		if i > 0 {
			q.must(`,`)
		}
		q.must(`{"id":`)
		q.groups = append(q.groups, token.GroupRef{ID: q.string()})
		q.must(`}`)
	}
	p.Groups = q.groups[from:len(q.groups):len(q.groups)]
	q.must(`,"resources":`)
	start := q.at
	q.object(true)
	value := q.data[start:q.at]
	if q.resources == nil {
		q.resources = make([]byte, 0, len(q.room.policies)*len(value))
	}
	from = len(q.resources)
	q.resources = append(q.resources, value...)
	p.Resources = q.resources[from:len(q.resources):len(q.resources)]
	q.must(`}`)
}

// resourceNames is how many members an object of resources may have: more
// would take long to compare with each other.
const resourceNames = 8

// object passes over an object whose values are strings or, once, such
// objects.
func (q *quick) object(nested bool) {
	var names [resourceNames][]byte
	q.must(`{`)
	for n := 0; !q.declined && !q.may(`}`); n++ {
		if n > 0 {
			q.must(`,`)
		}
		name := q.quoted()
		if n == resourceNames {
			q.declined = true
			return
		}
		for _, other := range names[:n] {
			if bytes.Equal(name, other) {
				q.declined = true
			}
		}
		names[n] = name
		q.must(`:`)
		if nested && q.at < len(q.data) && q.data[q.at] == '{' {
			q.object(false)
		} else {
			q.quoted()
		}
	}
}

func (q *quick) condition(c *token.Condition) {
	q.must(`{"request_ip":{`)
	in := q.may(`"in":`)
	if in {
		c.RequestIP.In = q.strings()
	}
	switch {
	case in && q.may(`,"not_in":`), !in && q.may(`"not_in":`):
		c.RequestIP.NotIn = q.strings()
	case !in: // it would have been left out
		q.declined = true
	}
	q.must(`}}`)
}

func (q *quick) strings() []string {
	q.must(`[`)
	list := []string{}
	for i := 0; !q.declined && !q.may(`]`); i++ {
		if i > 0 {
			q.must(`,`)
		}
		list = append(list, q.string())
	}
	return list
}

// time reads a time in UTC to the second or to the millisecond; the form has
// no zeros at the end of a fraction.
func (q *quick) time() time.Time {
	s := q.quoted()
	const whole = len("2006-01-02T15:04:05")
	var full [len(TimeFormat)]byte
	copy(full[:], "0000-00-00T00:00:00.000Z")
	n := len(s)
	if n < whole+1 || n > len(full) || s[n-1] != 'Z' || n > whole+1 && (s[whole] != '.' || n == whole+2 || s[n-2] == '0') {
		q.declined = true
		return time.Time{}
	}
	copy(full[:], s[:n-1])
	t, err := parseTime(full[:])
	if err != nil {
		q.declined = true
	}
	return t
}

func (q *quick) origin(o *Origin) {
	q.must(`{`)
	address := q.may(`"address":`)
	if address {
		o.Address = q.sealed()
	}
	switch {
	case address && q.may(`,"agent":`), !address && q.may(`"agent":`):
		o.Agent = q.sealed()
	case !address: // it would have been left out
		q.declined = true
	}
	q.must(`}`)
}

func (q *quick) sealed() *Sealed {
	s := new(Sealed)
	q.must(`{"k":`)
	s.Key = q.string()
	q.must(`,"n":`)
	s.Nonce = q.bytes()
	q.must(`,"ct":`)
	s.Ciphertext = q.bytes()
	q.must(`}`)
	return s
}

func (q *quick) bytes() []byte {
	b, err := base64.StdEncoding.Strict().AppendDecode([]byte{}, q.quoted())
	if err != nil {
		q.declined = true
	}
	return b
}
