package command

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

func id(b byte) token.ID { return token.ID{0: 1, 15: b} }

// samples has each command with all of its fields set.
func samples() []Command {
	at := Target{ID: id(1), OwnerKind: events.OwnedByAccount, Owner: id(2)}
	sealed := events.Sealed{Key: "k", Nonce: []byte{1, 2}, Ciphertext: []byte{3}}
	grant := token.Grant{
		Policies: []token.Policy{{
			ID: id(3), Effect: token.EffectAllow,
			// The order, the spaces and the escapes are the client's.
			Resources: jsontext.Value(`{"z":"*","a\u0062":"*"}`), Groups: []token.GroupRef{{ID: "g"}},
		}},
		Condition: &token.Condition{RequestIP: token.RequestIP{In: []string{"192.0.2.0/24"}, NotIn: []string{"192.0.2.1/32"}}},
		NotBefore: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), ExpiresOn: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	return []Command{
		CreateToken{Target: at, Name: "n", Grant: grant, Disabled: true, Secret: token.Sum("s"), Request: "r", Repeat: true},
		UpdateToken{Target: at, Name: "n", Grant: grant, Status: "disabled"},
		RollToken{Target: at, Secret: token.Sum("s"), Grace: 36*time.Hour + 1, Force: true, Request: "r", Repeat: true},
		DisableToken{Target: at, Reason: "why"},
		EnableToken{Target: at, Reason: "why"},
		RevokeToken{Target: at, Reason: "why"},
		RegisterUser{ID: id(4), Email: sealed, EmailIndex: "i", Name: &sealed, Operator: true},
		IssueAPIKey{User: id(4), Secret: token.Sum("s")},
		CreateAccount{ID: id(5), Name: "n"},
		AddMember{ID: id(6), Account: id(5), User: id(4), Roles: []string{"r"}},
		EnrollEnforcer{ID: id(7), Name: "n", Region: "r", Secret: token.Sum("s"), CeilingSeconds: 3},
		RetireEnforcer{ID: id(7), Reason: "why"},
	}
}

// TestEncode sends every command with all of its fields, and with none, and
// receives the same.
func TestEncode(t *testing.T) {
	by := Caller{
		Kind: token.KindUser, Digest: token.Sum("me"), EmailIndex: "e", Address: netip.MustParseAddr("2001:db8::1"),
		RequestID: "q", Traceparent: "t", Origin: events.Origin{Address: &events.Sealed{Key: "k", Nonce: []byte{1}, Ciphertext: []byte{2}}}, Bulk: true,
	}
	all := samples()
	seen := map[string]bool{}
	for _, cmd := range all {
		v := reflect.ValueOf(cmd)
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Fatalf("the sample of %s leaves %s out", cmd.Verb(), v.Type().Field(i).Name)
			}
		}
		seen[cmd.Verb()] = true
		all = append(all, reflect.Zero(v.Type()).Interface().(Command))
	}
	if len(seen) != len(decoders) {
		t.Errorf("%d commands have a sample, %d a decoder", len(seen), len(decoders))
	}
	for _, cmd := range all {
		b, err := Encode(by, cmd)
		if err != nil {
			t.Errorf("%s: %v", cmd.Verb(), err)
			continue
		}
		gotBy, got, err := Decode(b)
		if err != nil {
			t.Errorf("%s: %v", cmd.Verb(), err)
			continue
		}
		if !reflect.DeepEqual(gotBy, by) {
			t.Errorf("%s: caller %+v", cmd.Verb(), gotBy)
		}
		if again, err := Encode(gotBy, got); err != nil || string(again) != string(b) {
			t.Errorf("%s: %s, then %s (%v)", cmd.Verb(), b, again, err)
		}
		if c, ok := cmd.(CreateToken); ok && len(c.Grant.Policies) > 0 {
			if r := got.(CreateToken).Grant.Policies[0].Resources; string(r) != string(c.Grant.Policies[0].Resources) {
				t.Errorf("resources became %s", r)
			}
		}
	}
}

// TestSystemStaysAtHome checks that nobody becomes the system over NATS.
func TestSystemStaysAtHome(t *testing.T) {
	b, err := Encode(Caller{System: true}, RevokeToken{})
	if err != nil {
		t.Fatal(err)
	}
	by, _, err := Decode(b)
	if err != nil || by.System {
		t.Errorf("%+v, %v", by, err)
	}
	for _, name := range []string{"System", "system", "-"} {
		_, _, err := Decode([]byte(`{"verb":"token.revoke","caller":{"` + name + `":true},"command":{}}`))
		if err == nil {
			t.Errorf("a caller with %q is accepted", name)
		}
	}
}
