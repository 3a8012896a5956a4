package aggregate_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

var (
	t0     = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	id     = mustID("01990000000000000000000000000001")
	owner  = mustID("01990000000000000000000000000002")
	first  = token.Sum("first")
	second = token.Sum("second")
	third  = token.Sum("third")
)

func mustID(s string) token.ID {
	id, err := token.ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

// records gives events about one thing their places: event n is at sequence
// and number n+1, one minute after the one before.
func records(kind string, data ...events.Event) []*events.Record {
	var out []*events.Record
	for i, d := range data {
		out = append(out, &events.Record{
			Envelope: events.Envelope{
				Name: d.EventName(), Subject: kind + "/" + id.String(), Number: uint64(i + 1),
				Time: t0.Add(time.Duration(i) * time.Minute), Actor: events.Actor{Kind: events.ActorUser, ID: owner},
			},
			Seq: uint64(i + 1), Data: d,
		})
	}
	return out
}

type applier interface{ Apply(*events.Record) error }

func apply(t *testing.T, a applier, rs []*events.Record) {
	t.Helper()
	for _, r := range rs {
		if err := a.Apply(r); err != nil {
			t.Fatal(err)
		}
	}
}

func created() *events.TokenCreated {
	return &events.TokenCreated{Name: "a", OwnerKind: events.OwnedByAccount, Owner: owner, Secret: first}
}

// after is what is looked at of a token.
type after struct {
	status           aggregate.Status
	secret, previous token.Digest
	until            time.Time
	version          uint32
}

func TestToken(t *testing.T) {
	minute := func(n int) time.Time { return t0.Add(time.Duration(n) * time.Minute) }
	roll := func(d token.Digest, until time.Time) *events.TokenRolled {
		return &events.TokenRolled{Secret: d, GraceUntil: until}
	}
	redeliver := func(d token.Digest) *events.TokenRolled {
		return &events.TokenRolled{Secret: d, Reason: events.RollRedelivery}
	}
	off := created()
	off.Disabled = true
	for name, c := range map[string]struct {
		given []events.Event
		want  after
	}{
		"created":               {[]events.Event{created()}, after{aggregate.Active, first, token.Digest{}, time.Time{}, 1}},
		"created disabled":      {[]events.Event{off}, after{aggregate.Disabled, first, token.Digest{}, time.Time{}, 1}},
		"rolled":                {[]events.Event{created(), roll(second, time.Time{})}, after{aggregate.Active, second, token.Digest{}, time.Time{}, 2}},
		"rolled with a grace":   {[]events.Event{created(), roll(second, minute(9))}, after{aggregate.Active, second, first, minute(9), 2}},
		"a roll ends a grace":   {[]events.Event{created(), roll(second, minute(9)), roll(third, time.Time{})}, after{aggregate.Active, third, token.Digest{}, time.Time{}, 3}},
		"a grace ends another":  {[]events.Event{created(), roll(second, minute(9)), roll(third, minute(20))}, after{aggregate.Active, third, second, minute(20), 3}},
		"redelivered":           {[]events.Event{created(), redeliver(second)}, after{aggregate.Active, second, token.Digest{}, time.Time{}, 2}},
		"redelivery of a roll":  {[]events.Event{created(), roll(second, minute(9)), redeliver(third)}, after{aggregate.Active, third, first, minute(9), 3}},
		"disabled":              {[]events.Event{created(), &events.TokenDisabled{}}, after{aggregate.Disabled, first, token.Digest{}, time.Time{}, 1}},
		"enabled":               {[]events.Event{off, &events.TokenEnabled{}}, after{aggregate.Active, first, token.Digest{}, time.Time{}, 1}},
		"updated keeps status":  {[]events.Event{off, &events.TokenUpdated{}}, after{aggregate.Disabled, first, token.Digest{}, time.Time{}, 1}},
		"updated sets status":   {[]events.Event{off, &events.TokenUpdated{Status: "active"}}, after{aggregate.Active, first, token.Digest{}, time.Time{}, 1}},
		"revoked ends a grace":  {[]events.Event{created(), roll(second, minute(9)), &events.TokenRevoked{}}, after{aggregate.Revoked, second, token.Digest{}, time.Time{}, 2}},
		"a notice changes none": {[]events.Event{created(), &events.TokenExpiring{}, &events.TokenExpired{}}, after{aggregate.Active, first, token.Digest{}, time.Time{}, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			var got aggregate.Token
			apply(t, &got, records("token", c.given...))
			if have := (after{got.Status, got.Secret, got.Previous, got.PreviousUntil, got.SecretVersion}); have != c.want {
				t.Errorf("\n got %+v\nwant %+v", have, c.want)
			}
			if got.Seq != uint64(len(c.given)) || got.Number != 1 || got.ID != id || got.Account() != owner || got.Created != t0 {
				t.Errorf("the token is %+v", got)
			}
		})
	}
}

func TestTokenModified(t *testing.T) {
	var got aggregate.Token
	apply(t, &got, records("token", created(), &events.TokenUpdated{Name: "b"}, &events.TokenExpiring{}))
	if got.Modified != t0.Add(time.Minute) || got.Name != "b" || got.Seq != 3 {
		t.Errorf("the token is %+v", got)
	}
}

// TestImpossible gives each thing what cannot be: it is an error, and the thing
// stays as it was.
func TestImpossible(t *testing.T) {
	for name, c := range map[string]struct {
		thing applier
		given []events.Event
		then  events.Event
	}{
		"token: first a roll":          {&aggregate.Token{}, nil, &events.TokenRolled{}},
		"token: created twice":         {&aggregate.Token{}, []events.Event{created()}, created()},
		"token: after its end":         {&aggregate.Token{}, []events.Event{created(), &events.TokenRevoked{}}, &events.TokenEnabled{}},
		"token: ended twice":           {&aggregate.Token{}, []events.Event{created(), &events.TokenRevoked{}}, &events.TokenRevoked{}},
		"token: another's event":       {&aggregate.Token{}, []events.Event{created()}, &events.UserUpdated{}},
		"user: first an update":        {&aggregate.User{}, nil, &events.UserUpdated{}},
		"user: a key before":           {&aggregate.User{}, nil, &events.APIKeyIssued{}},
		"user: registered twice":       {&aggregate.User{}, []events.Event{&events.UserRegistered{}}, &events.UserRegistered{}},
		"user: a key after":            {&aggregate.User{}, []events.Event{&events.UserRegistered{}, &events.UserRemoved{}}, &events.APIKeyIssued{}},
		"user: another's event":        {&aggregate.User{}, []events.Event{&events.UserRegistered{}}, created()},
		"account: first an update":     {&aggregate.Account{}, nil, &events.AccountUpdated{}},
		"account: created twice":       {&aggregate.Account{}, []events.Event{&events.AccountCreated{}}, &events.AccountCreated{}},
		"account: after its end":       {&aggregate.Account{}, []events.Event{&events.AccountCreated{}, &events.AccountRemoved{}}, &events.AccountUpdated{}},
		"account: another's event":     {&aggregate.Account{}, []events.Event{&events.AccountCreated{}}, created()},
		"member: first a change":       {&aggregate.Member{}, nil, &events.MemberChanged{}},
		"member: added twice":          {&aggregate.Member{}, []events.Event{&events.MemberAdded{}}, &events.MemberAdded{}},
		"member: after its end":        {&aggregate.Member{}, []events.Event{&events.MemberAdded{}, &events.MemberRemoved{}}, &events.MemberChanged{}},
		"member: another's event":      {&aggregate.Member{}, []events.Event{&events.MemberAdded{}}, created()},
		"enforcer: first a retirement": {&aggregate.Enforcer{}, nil, &events.EnforcerRetired{}},
		"enforcer: enrolled twice":     {&aggregate.Enforcer{}, []events.Event{&events.EnforcerEnrolled{}}, &events.EnforcerEnrolled{}},
		"enforcer: retired twice":      {&aggregate.Enforcer{}, []events.Event{&events.EnforcerEnrolled{}, &events.EnforcerRetired{}}, &events.EnforcerRetired{}},
		"enforcer: another's event":    {&aggregate.Enforcer{}, []events.Event{&events.EnforcerEnrolled{}}, created()},
	} {
		t.Run(name, func(t *testing.T) {
			kind, _, _ := strings.Cut(name, ":")
			all := records(kind, append(c.given, c.then)...)
			apply(t, c.thing, all[:len(c.given)])
			before := reflect.ValueOf(c.thing).Elem().Interface()
			if err := c.thing.Apply(all[len(c.given)]); !errors.Is(err, aggregate.ErrImpossible) {
				t.Errorf("it gave %v", err)
			}
			if now := reflect.ValueOf(c.thing).Elem().Interface(); !reflect.DeepEqual(now, before) {
				t.Errorf("it became\n%+v\nand was\n%+v", now, before)
			}
		})
	}
}

func TestUser(t *testing.T) {
	var u aggregate.User
	rs := records("user", &events.UserRegistered{EmailIndex: "a", Operator: true}, &events.APIKeyIssued{Secret: first},
		&events.APIKeyRolled{Secret: second}, &events.UserUpdated{EmailIndex: "b"})
	apply(t, &u, rs)
	if u.Key != second || u.KeyIssued != t0.Add(2*time.Minute) || u.EmailIndex != "b" || !u.Operator || u.Status != aggregate.Active || u.Seq != 4 {
		t.Errorf("the user is %+v", u)
	}
	gone := u
	apply(t, &gone, records("user", behind(4, &events.UserRemoved{})...)[4:])
	if gone.Status != aggregate.Revoked || !gone.Key.IsZero() {
		t.Errorf("removed, the user is %+v", gone)
	}
	apply(t, &u, records("user", behind(4, &events.APIKeyRevoked{})...)[4:])
	if !u.Key.IsZero() || u.Status != aggregate.Active {
		t.Errorf("without a key, the user is %+v", u)
	}
}

// behind puts n events of no matter before e, so that e gets its place.
func behind(n int, e events.Event) []events.Event {
	var out []events.Event
	for range n {
		out = append(out, &events.UserUpdated{})
	}
	return append(out, e)
}

func TestEndWithOwner(t *testing.T) {
	var tok aggregate.Token
	apply(t, &tok, records("token", created(), &events.TokenRolled{Secret: second, GraceUntil: t0.Add(time.Hour)}))
	removal := records("account", behind(4, &events.AccountRemoved{})...)[4]
	tok.EndWithOwner(removal)
	if tok.Status != aggregate.Revoked || tok.Reason != aggregate.ReasonOwnerRemoved || tok.Seq != 5 || tok.Ended != removal.Time || !tok.Previous.IsZero() {
		t.Errorf("the token is %+v", tok)
	}
	was := tok
	tok.EndWithOwner(records("account", behind(5, &events.AccountRemoved{})...)[5])
	if !reflect.DeepEqual(tok, was) {
		t.Errorf("it ended twice: %+v", tok)
	}

	var m aggregate.Member
	apply(t, &m, records("member", &events.MemberAdded{Account: owner, User: id, Roles: []string{"x"}}, &events.MemberChanged{Roles: []string{"y"}}))
	if m.Roles[0] != "y" || m.Account != owner {
		t.Errorf("the member is %+v", m)
	}
	m.EndWith(removal)
	if m.Status != aggregate.Revoked || m.Seq != 5 {
		t.Errorf("the member is %+v", m)
	}
}

func TestEnforcerAndAccount(t *testing.T) {
	var n aggregate.Enforcer
	apply(t, &n, records("enforcer", &events.EnforcerEnrolled{Name: "edge", Region: "eu", Secret: first, CeilingSeconds: 30}, &events.EnforcerRetired{}))
	if n.Status != aggregate.Revoked || n.Retired != t0.Add(time.Minute) || n.Secret != first || n.CeilingSeconds != 30 || n.Region != "eu" {
		t.Errorf("the enforcer is %+v", n)
	}
	var a aggregate.Account
	apply(t, &a, records("account", &events.AccountCreated{Name: "a"}, &events.AccountUpdated{Name: "b"}, &events.AccountRemoved{}))
	if a.Name != "b" || a.Status != aggregate.Revoked || a.Modified != t0.Add(2*time.Minute) {
		t.Errorf("the account is %+v", a)
	}
}
