package command

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

var (
	idA    = mustID("01990000000000000000000000000001")
	idB    = mustID("01990000000000000000000000000002")
	secret = token.Sum("a secret of a test")
)

func mustID(s string) token.ID {
	id, err := token.ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

var caller = Caller{
	Kind: token.KindUser, Digest: secret, EmailIndex: "index", Address: netip.MustParseAddr("192.0.2.1"),
	RequestID: "r-1", Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Bulk: true,
	Origin: events.Origin{Address: &sealed},
}

var grant = token.Grant{
	Policies: []token.Policy{{
		Effect: token.EffectAllow, Groups: []token.GroupRef{{ID: "4755a26eedb94da69e1066d98aa820be"}},
		Resources: jsontext.Value(`{"com.cloudflare.api.account.zone.\u007a":"*","a\/b":"*"}`),
	}},
	Condition: &token.Condition{RequestIP: token.RequestIP{In: []string{}}},
	ExpiresOn: time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC),
}

var sealed = events.Sealed{Key: "k", Nonce: []byte{1}, Ciphertext: []byte{2}}

var target = Target{ID: idA, OwnerKind: events.OwnedByAccount, Owner: idB}

// every is one full example of each command.
var every = []Command{
	CreateToken{Target: target, Name: "a", Grant: grant, Disabled: true, Secret: secret, Template: "t", Widens: true, Foreign: true, DryRun: true, Request: "q", Repeat: true},
	UpdateToken{Target: target, Name: "a", Grant: grant, Status: "disabled", Widens: new(bool)},
	RollToken{Target: target, Secret: secret, Grace: time.Hour + time.Nanosecond, Force: true, Request: "q", Repeat: true},
	DisableToken{Target: target, Reason: "r"},
	EnableToken{Target: target, Reason: "r"},
	RevokeToken{Target: target, Reason: "r"},
	RegisterUser{ID: idA, Email: sealed, EmailIndex: "i", Name: &sealed, Operator: true},
	IssueAPIKey{User: idA, Secret: secret},
	CreateAccount{ID: idA, Name: "a"},
	AddMember{ID: idA, Account: idB, User: idA, Roles: []string{"x", "y"}},
	EnrollEnforcer{ID: idA, Name: "e", Region: "eu", Secret: secret, CeilingSeconds: 7},
	RetireEnforcer{ID: idA, Reason: "r"},
	NoteExpiry{Token: idA, ExpiresOn: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), DaysBefore: 7},
	UpdateUser{ID: idA, Email: &sealed, EmailIndex: "i", Name: &sealed, NoName: true},
	RemoveUser{ID: idA, Reason: "r"},
	RevokeAPIKey{User: idA, Reason: "r"},
	UpdateAccount{ID: idA, Name: "a"},
	RemoveAccount{ID: idA, Reason: "r"},
	ChangePolicy{Account: idA, Policy: aggregate.Policy{
		LifetimeSecondsMax: 1, ExpiryRequired: true, AddressRequired: true, TokensMax: 2, KeysEnd: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}},
	ApplyPolicy{Account: idA, Token: idB, Policy: aggregate.Policy{LifetimeSecondsMax: 1, AddressRequired: true}},
	ChangeMember{ID: idA, Account: idB, Roles: []string{"x"}},
	RemoveMember{ID: idA, Account: idB},
	RegisterResource{Type: "t", Resource: "r", Name: "n", Parent: "p.1"},
	UpdateResource{Type: "t", Resource: "r", Name: "n"},
	MoveResource{Type: "t", Resource: "r", Parent: "p.1"},
	RemoveResource{Type: "t", Resource: "r", Reason: "x"},
	EnrollConsumer{ID: idA, Name: "c", Region: "eu", Nkey: "U"},
	RetireConsumer{ID: idA, Reason: "r"},
	RevokeToken{Target: Target{ID: idA}, Incident: true},
	Sweep{ID: idA, By: "template", Selected: "edit-zone-dns", Through: 7, Reason: "r"},
	PublishCatalogue{ID: idA, After: 3, Document: jsontext.Value(`{"name":"x"}`), Forced: true},
}

// TestEveryCommandTravels encodes and decodes each command, down to the bytes
// of its resources and the difference between no addresses and none at all.
func TestEveryCommandTravels(t *testing.T) {
	seen := map[string]bool{}
	for _, cmd := range every {
		seen[cmd.Verb()] = true
		b, err := Encode(caller, cmd)
		if err != nil {
			t.Fatalf("%s: %v", cmd.Verb(), err)
		}
		by, got, err := Decode(b)
		if err != nil {
			t.Fatalf("%s: %v", cmd.Verb(), err)
		}
		if by.Origin.Address == nil || !reflect.DeepEqual(*by.Origin.Address, *caller.Origin.Address) {
			t.Errorf("%s: origin %+v", cmd.Verb(), by.Origin)
		}
		by.Origin = caller.Origin
		if by != caller {
			t.Errorf("%s: caller\n got %+v\nwant %+v", cmd.Verb(), by, caller)
		}
		if !reflect.DeepEqual(got, cmd) {
			t.Errorf("%s:\n got %+v\nwant %+v", cmd.Verb(), got, cmd)
		}
	}
	for verb := range decoders {
		if !seen[verb] {
			t.Errorf("%s has no example here", verb)
		}
	}
}

// TestSystemStaysHome checks that no message makes its reader believe that the
// system itself asks.
func TestSystemStaysHome(t *testing.T) {
	b, err := Encode(Caller{System: true}, every[8])
	if err != nil {
		t.Fatal(err)
	}
	if by, _, err := Decode(b); err == nil && by.System {
		t.Error("the system crossed")
	}
	forged := bytes.Replace(b, []byte(`"caller":{`), []byte(`"caller":{"System":true,`), 1)
	if bytes.Equal(forged, b) {
		t.Fatal("nothing was forged")
	}
	if by, _, err := Decode(forged); err == nil || by.System {
		t.Errorf("a forged system: %+v, %v", by, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := Encode(caller, every[5])
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]string{
		"nothing":            "",
		"no object":          "[]",
		"an unknown verb":    strings.Replace(string(good), "token.revoke", "token.forge", 1),
		"an unknown member":  strings.Replace(string(good), `"reason"`, `"raison"`, 1),
		"a member twice":     strings.Replace(string(good), `{"verb"`, `{"verb":"token.enable","verb"`, 1),
		"a malformed id":     strings.Replace(string(good), idA.String(), "01", 1),
		"a malformed digest": strings.Replace(string(good), "d1:", "d0:", 1),
		"something behind":   string(good) + "x",
	} {
		if b == string(good) {
			t.Errorf("%s: the text is not broken", name)
		}
		if _, cmd, err := Decode([]byte(b)); err == nil {
			t.Errorf("%s: decoded as %+v", name, cmd)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, cmd := range every {
		b, err := Encode(caller, cmd)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"verb":"token.revoke","caller":{},"command":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		by, cmd, err := Decode(b)
		if err != nil {
			return
		}
		if by.System {
			t.Fatal("the system crossed")
		}
		again, err := Encode(by, cmd)
		if err != nil {
			return // such as resources that hold a name twice: the pen refuses them
		}
		if _, _, err := Decode(again); err != nil {
			t.Fatalf("what was decoded cannot be decoded again: %v\n%s", err, again)
		}
	})
}
