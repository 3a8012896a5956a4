package events_test

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/token"
)

var update = flag.Bool("update", false, "write the wire files that are missing")

const (
	wireDir  = "testdata/wire"
	wireSums = "testdata/wire/SHA256SUMS"
)

// origin is a sealed address and agent, as in every event that a person causes.
var origin = events.Origin{
	Address: &events.Sealed{Key: "0192f3a4b5c6d7e8f90a1b2c3d4e5f60", Nonce: []byte("twelve bytes"), Ciphertext: []byte{0, 1, 2, 0xfe, 0xff}},
	Agent:   &events.Sealed{Key: "0192f3a4b5c6d7e8f90a1b2c3d4e5f60", Nonce: []byte("twelve bytas"), Ciphertext: []byte("sealed")},
}

var email = events.Sealed{Key: "0192f3a4b5c6d7e8f90a1b2c3d4e5f60", Nonce: []byte("twelve bytos"), Ciphertext: []byte("sealed too")}

// grant has all that a grant can have, the text of resources included.
func grant() token.Grant {
	return token.Grant{
		Policies: []token.Policy{
			{
				ID: eventstest.ID(10), Effect: token.EffectAllow,
				Groups:    []token.GroupRef{{ID: "4755a26eedb94da69e1066d98aa820be"}, {ID: "c8fed203ed3043cba015a93ad1616f1f"}},
				Resources: jsontext.Value(`{"com.cloudflare.api.account.zone.023e105f4ecef8ad9ca31a8372d0c353":"*"}`),
			},
			{
				Effect: token.EffectDeny, Groups: []token.GroupRef{{ID: "82e64a83756745bbbb1c9c2701bf816b"}},
				Resources: jsontext.Value(`{"com.cloudflare.api.account.8d81":{"com.cloudflare.api.account.zone.*":"*","\u0061":"*"}}`),
			},
		},
		Condition: &token.Condition{RequestIP: token.RequestIP{In: []string{"192.0.2.0/24", "2001:db8::/32"}, NotIn: []string{"192.0.2.7"}}},
		NotBefore: eventstest.Epoch,
		ExpiresOn: eventstest.Epoch.Add(36*time.Hour + 250*time.Millisecond),
	}
}

// examples has one event of each type of the Standard catalogue, with every
// field set.
var examples = []events.Event{
	&events.TokenCreated{
		Name: "déploiement de la boutique", OwnerKind: events.OwnedByUser, Owner: eventstest.ID(4), Secret: token.Sum("one"),
		Grant: grant(), Disabled: true, Request: "2cf24dba5fb0a30e", Origin: origin,
	},
	&events.TokenUpdated{Name: "deploy", Grant: grant(), Status: "disabled", Origin: origin},
	&events.TokenRolled{
		Secret: token.Sum("two"), GraceUntil: eventstest.Epoch.Add(time.Hour), Reason: events.RollRedelivery,
		Request: "2cf24dba5fb0a30e", Origin: origin,
	},
	&events.TokenDisabled{Reason: "under review", Origin: origin},
	&events.TokenEnabled{Reason: "reviewed", Origin: origin},
	&events.TokenRevoked{Reason: "found in a \"public\" repository <here>", Origin: origin},
	&events.TokenExpiring{ExpiresOn: eventstest.Epoch.Add(24 * time.Hour)},
	&events.TokenExpired{ExpiresOn: eventstest.Epoch.Add(24 * time.Hour)},
	&events.APIKeyIssued{Secret: token.Sum("three"), Origin: origin},
	&events.APIKeyRolled{Secret: token.Sum("four"), Origin: origin},
	&events.APIKeyRevoked{Reason: "no longer used", Origin: origin},
	&events.UserRegistered{Email: email, EmailIndex: "a1b2", Name: &email, Operator: true, Origin: origin},
	&events.UserUpdated{Email: email, EmailIndex: "a1b3", Name: &email, Origin: origin},
	&events.UserRemoved{Reason: "left", Origin: origin},
	&events.AccountCreated{Name: "Example 株式会社", Origin: origin},
	&events.AccountUpdated{Name: "Example", Origin: origin},
	&events.AccountRemoved{Reason: "closed", Origin: origin},
	&events.MemberAdded{Account: eventstest.ID(3), User: eventstest.ID(4), Roles: []string{"admin", "audit"}, Origin: origin},
	&events.MemberChanged{Account: eventstest.ID(3), User: eventstest.ID(4), Roles: []string{}, Origin: origin},
	&events.MemberRemoved{Account: eventstest.ID(3), User: eventstest.ID(4), Origin: origin},
	&events.ResourceRegistered{
		Type: "com.cloudflare.api.account.zone", Resource: "023e105f4ecef8ad9ca31a8372d0c353", Name: "example.com",
		Parent: "com.cloudflare.api.account.01000000000000000000000000000003", Origin: origin,
	},
	&events.ResourceUpdated{Type: "acme.project", Resource: "shop", Name: "Shop", Origin: origin},
	&events.ResourceMoved{Type: "acme.project", Resource: "shop", Parent: "com.cloudflare.api.account.01000000000000000000000000000003", Origin: origin},
	&events.ResourceRemoved{Type: "acme.project", Resource: "shop", Reason: "sold", Origin: origin},
	&events.CataloguePublished{Version: 3, Document: jsontext.Value(`{"name":"acme","resource_types":[]}`), Forced: true, Origin: origin},
	&events.PolicyChanged{
		LifetimeSecondsMax: 86400, ExpiryRequired: true, AddressRequired: true, TokensMax: 100,
		KeysEnd: eventstest.Epoch.Add(24 * time.Hour), Origin: origin,
	},
	&events.EnforcerEnrolled{Name: "edge", Region: "eu", Secret: token.Sum("five"), CeilingSeconds: 300, Origin: origin},
	&events.EnforcerRetired{Reason: "replaced", Origin: origin},
	&events.ConsumerEnrolled{Name: "siem", Region: "eu", Nkey: exampleNkey, Origin: origin},
	&events.ConsumerRetired{Reason: "replaced", Origin: origin},
	&events.RevocationSwept{By: events.SweepTemplate, Selected: "edit-dns", Through: 41, Reason: "leaked", Origin: origin},
	&events.LogOpened{Installation: eventstest.ID(1), Brand: "ww", PulseKey: []byte("thirty-two bytes of a public key")},
	&events.EpochOpened{Reason: "restored from a backup"},
	&events.PenOpened{Term: 7, Node: "n1"},
	&events.FormatRaised{Types: []string{"token.created.v2"}},
}

// later are examples of fields that came to a type after its wire file, by the
// names of their own files.
var later = map[string]events.Event{
	"token.created.v1.template": &events.TokenCreated{
		Name: "dns", OwnerKind: events.OwnedByUser, Owner: eventstest.ID(4), Secret: token.SumForeign([32]byte{1}),
		Grant: grant(), Template: "edit-dns", TemplateVersion: 4, Widens: true, Foreign: true, Origin: origin,
	},
	"token.updated.v1.reason": &events.TokenUpdated{
		Name: "deploy", Grant: grant(), Reason: "token policy of account 01000000000000000000000000000003: lifetime_too_long", Origin: origin,
	},
	"token.updated.v1.widens":   &events.TokenUpdated{Name: "deploy", Grant: grant(), Widens: true},
	"enforcer.enrolled.v1.nkey": &events.EnforcerEnrolled{Name: "edge", Region: "eu", Secret: token.Sum("five"), Nkey: exampleNkey, Origin: origin},
	"epoch.opened.v1.stopped":   &events.EpochOpened{Reason: "promoted", PreviousStopped: true},
	"token.expiring.v1.days":    &events.TokenExpiring{ExpiresOn: eventstest.Epoch.Add(24 * time.Hour), DaysBefore: 7},
}

// exampleNkey is the public key of a seed of zeros.
const exampleNkey = "UA5WUJ54Z23KILLCUOUNAKTPBVZWKMQVO4O6EQ5GHLAERIMLLHNCTYM5"

// exampleID has letters in either of its forms.
var exampleID = token.ID{0x01, 0x9b, 0x7c, 0xde, 0xf0, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34, 0x56}

// example returns the record of an example as it stands in its wire file.
func example(data events.Event) events.Record {
	aggregate, _, _ := strings.Cut(data.EventName(), ".")
	r := events.Record{
		Envelope: events.Envelope{
			ID: exampleID, Source: "watchword/0192f3a4b5c6d7e8f90a1b2c3d4e5f60", Name: data.EventName(),
			Subject: aggregate + "/" + eventstest.ID(2).String(), Time: eventstest.Epoch.Add(7 * time.Millisecond),
			Number: 42, Epoch: 2, Prev: events.HashLine([]byte("the line before")),
			Account:     eventstest.ID(3),
			Actor:       events.Actor{Kind: events.ActorUser, ID: eventstest.ID(4), Credential: eventstest.ID(5)},
			RequestID:   "8f14e45f-ceea-467f-a8d1-7b1a2c3d4e5f",
			Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		},
		Data: data,
	}
	return r
}

// TestWire holds each event type to its bytes. A wire file is what may stand in
// a ledger somewhere: it is added with its type and never changed. -update
// writes what is missing; it does not touch what is there.
func TestWire(t *testing.T) {
	sums := readSums(t)
	all := maps.Clone(later)
	for _, data := range examples {
		all[data.EventName()] = data
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		data := all[name]
		t.Run(name, func(t *testing.T) {
			want := example(data)
			path := filepath.Join(wireDir, name+".json")
			line, err := events.Encode(&want.Envelope, want.Data)
			if err != nil {
				t.Fatal(err)
			}
			file, err := os.ReadFile(path)
			if os.IsNotExist(err) && *update && sums[name+".json"] == "" {
				file = append(slices.Clip(line), '\n')
				addWire(t, name+".json", file)
			} else if err != nil {
				t.Fatalf("%v (run with -update to add a new type)", err)
			}
			stored, ok := bytes.CutSuffix(file, []byte("\n"))
			if !ok || !bytes.Equal(stored, line) {
				t.Fatalf("Encode and the wire file differ:\n got %s\nwant %s", line, stored)
			}
			want.Line, want.Hash = stored, events.HashLine(stored)
			var got events.Record
			if err := events.Decode(stored, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWireFiles checks that there is a file for each name that the catalogue
// decodes, and that no file has changed since it was added.
func TestWireFiles(t *testing.T) {
	sums := readSums(t)
	for _, name := range events.Standard.Names() {
		if _, ok := sums[name+".json"]; !ok {
			t.Errorf("no wire file for %s", name)
		}
	}
	files, err := filepath.Glob(filepath.Join(wireDir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(sums) {
		t.Errorf("%d wire files, but %s names %d", len(files), wireSums, len(sums))
	}
	for name, sum := range sums {
		b, err := os.ReadFile(filepath.Join(wireDir, name))
		if err != nil {
			t.Error(err)
		} else if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != sum {
			t.Errorf("%s has changed. What is written stays readable as it is: add a version instead", name)
		}
	}
}

// readSums reads the sums of the wire files, in the form of sha256sum.
func readSums(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile(wireSums)
	if err != nil && !(os.IsNotExist(err) && *update) {
		t.Fatal(err)
	}
	sums := map[string]string{}
	for line := range strings.Lines(string(b)) {
		sum, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			t.Fatalf("%s: a strange line: %q", wireSums, line)
		}
		sums[name] = sum
	}
	return sums
}

func addWire(t *testing.T, name string, file []byte) {
	t.Helper()
	if err := os.MkdirAll(wireDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(wireDir, name), file, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(wireSums, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "%x  %s\n", sha256.Sum256(file), name); err != nil {
		t.Fatal(err)
	}
}

// TestMinimal checks the zero value of each type: everything that may be left
// out is.
func TestMinimal(t *testing.T) {
	for _, data := range examples {
		zero := zeroOf(t, data)
		r := example(zero)
		r.Account, r.Actor, r.RequestID, r.Traceparent = token.ID{}, events.Actor{Kind: events.ActorSystem}, "", ""
		line, err := events.Encode(&r.Envelope, r.Data)
		if err != nil {
			t.Fatalf("%s: %v", r.Name, err)
		}
		for _, absent := range []string{"origin", "account\"", "actorid", "credid", "requestid", "traceparent", "reason\":\"\"", "grace_until"} {
			if bytes.Contains(line, []byte(`"`+absent)) && !strings.HasPrefix(r.Name, "epoch") && !strings.HasPrefix(r.Name, "member") {
				t.Errorf("%s has %q: %s", r.Name, absent, line)
			}
		}
		var got events.Record
		if err := events.Decode(line, &got); err != nil {
			t.Errorf("%s: %v", r.Name, err)
		}
	}
}

// zeroOf returns the zero event of the type of data, by way of the catalogue.
func zeroOf(t *testing.T, data events.Event) events.Event {
	t.Helper()
	zero := newEvent(data)
	if zero.EventName() != data.EventName() {
		t.Fatalf("%s became %s", data.EventName(), zero.EventName())
	}
	return zero
}
