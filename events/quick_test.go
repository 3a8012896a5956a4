package events

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// quickSeeds are data that the quick decoders take or decline, by the name of
// what is special about them. Each is of token.created or of token.updated.
var quickSeeds = []struct {
	name  string
	data  string
	taken bool
}{
	{"least", quickData(`[]`, ``, ``), true},
	{"one policy", quickData(`[`+quickPolicy+`]`, ``, ``), true},
	{"more policies than room", quickData(`[`+strings.Repeat(quickPolicy+`,`, 9)+quickPolicy+`]`, ``, ``), true},
	{"no id", quickData(`[{"effect":"deny","permission_groups":[],"resources":{}}]`, ``, ``), true},
	{"nested", quickData(`[{"effect":"allow","permission_groups":[{"id":"g"},{"id":"h"}],"resources":{"a":{"b":"*","c":"*"},"d":"*"}}]`, ``, ``), true},
	{"UTF-8", strings.Replace(quickData(`[]`, ``, ``), `"n"`, `"株式会社"`, 1), true},
	{"DEL", strings.Replace(quickData(`[]`, ``, ``), `"n"`, "\"\x7f\"", 1), true},
	{"HTML", strings.Replace(quickData(`[]`, ``, ``), `"n"`, `"<a&b>"`, 1), true},
	{"line separator", strings.Replace(quickData(`[]`, ``, ``), `"n"`, "\"\u2028\"", 1), true},
	{"replacement character", strings.Replace(quickData(`[]`, ``, ``), `"n"`, "\"\ufffd\"", 1), true},
	{"condition", quickData(`[]`, `,"condition":{"request_ip":{"in":["192.0.2.0/24"],"not_in":["192.0.2.1"]}}`, ``), true},
	{"only not_in", quickData(`[]`, `,"condition":{"request_ip":{"not_in":["192.0.2.1"]}}`, ``), true},
	{"nobody", quickData(`[]`, `,"condition":{"request_ip":{"in":[]}}`, ``), true},
	{"times", quickData(`[]`, `,"not_before":"2026-01-02T03:04:05Z","expires_on":"2026-01-02T03:04:05.25Z"`, ``), true},
	{"rest", quickData(`[]`, ``, `,"disabled":true,"request_digest":"ab","origin":{"address":{"k":"x","n":"AAAA","ct":""},"agent":{"k":"x","n":"AA==","ct":"AAA="}}`), true},
	{"made from a template", quickData(`[]`, ``, `,"disabled":true,"template":"edit-dns","template_version":4294967295,"widens":true,"foreign":true,"request_digest":"ab"`), true},
	{"version too large", quickData(`[]`, ``, `,"template":"t","template_version":4294967296`), false},
	{"version zero", quickData(`[]`, ``, `,"template":"t","template_version":0`), false},
	{"only agent", quickData(`[]`, ``, `,"origin":{"agent":{"k":"x","n":"AA==","ct":"AAA="}}`), true},
	{"updated", `{"name":"n","grant":{"policies":[]},"status":"active"}`, true},

	{"space", strings.Replace(quickData(`[]`, ``, ``), `,`, `, `, 1), false},
	{"escape", strings.Replace(quickData(`[]`, ``, ``), `"n"`, `"\n"`, 1), false},
	{"bad UTF-8", strings.Replace(quickData(`[]`, ``, ``), `"n"`, "\"\xff\"", 1), false},
	{"surrogate in UTF-8", strings.Replace(quickData(`[]`, ``, ``), `"n"`, "\"\xed\xa0\x80\"", 1), false},
	{"control", strings.Replace(quickData(`[]`, ``, ``), `"n"`, "\"\x1f\"", 1), false},
	{"null policies", quickData(`null`, ``, ``), false},
	{"zero id", quickData(`[{"id":"00000000000000000000000000000000","effect":"deny","permission_groups":[],"resources":{}}]`, ``, ``), false},
	{"double resource", quickData(`[{"effect":"deny","permission_groups":[],"resources":{"a":"*","a":"*"}}]`, ``, ``), false},
	{"double nested", quickData(`[{"effect":"deny","permission_groups":[],"resources":{"a":{"b":"*","b":"*"}}}]`, ``, ``), false},
	{"nested twice", quickData(`[{"effect":"deny","permission_groups":[],"resources":{"a":{"b":{"c":"*"}}}}]`, ``, ``), false},
	{"many resources", quickData(`[{"effect":"deny","permission_groups":[],"resources":{"1":"","2":"","3":"","4":"","5":"","6":"","7":"","8":"","9":""}}]`, ``, ``), false},
	{"strange resources", quickData(`[{"effect":"deny","permission_groups":[],"resources":[1,true,null]}]`, ``, ``), false},
	{"empty condition", quickData(`[]`, `,"condition":{}`, ``), false},
	{"empty request_ip", quickData(`[]`, `,"condition":{"request_ip":{}}`, ``), false},
	{"null in", quickData(`[]`, `,"condition":{"request_ip":{"in":null}}`, ``), false},
	{"time with zeros", quickData(`[]`, `,"expires_on":"2026-01-02T03:04:05.250Z"`, ``), false},
	{"time with a bare dot", quickData(`[]`, `,"expires_on":"2026-01-02T03:04:05.Z"`, ``), false},
	{"time in microseconds", quickData(`[]`, `,"expires_on":"2026-01-02T03:04:05.000001Z"`, ``), false},
	{"time with offset", quickData(`[]`, `,"expires_on":"2026-01-02T03:04:05+02:00"`, ``), false},
	{"the zero time", quickData(`[]`, `,"expires_on":"0001-01-01T00:00:00Z"`, ``), false},
	{"an early time", quickData(`[]`, `,"expires_on":"1950-01-01T00:00:00Z"`, ``), false},
	{"no such time", quickData(`[]`, `,"expires_on":"2026-02-30T00:00:00Z"`, ``), false},
	{"disabled false", quickData(`[]`, ``, `,"disabled":false`), false},
	{"empty digest", quickData(`[]`, ``, `,"request_digest":""`), false},
	{"empty origin", quickData(`[]`, ``, `,"origin":{}`), false},
	{"loose base64", quickData(`[]`, ``, `,"origin":{"agent":{"k":"x","n":"AB==","ct":""}}`), false},
	{"base64 without padding", quickData(`[]`, ``, `,"origin":{"agent":{"k":"x","n":"AA","ct":""}}`), false},
	{"more behind", quickData(`[]`, ``, ``) + ` `, false},
	{"cut", strings.TrimSuffix(quickData(`[]`, ``, ``), `}`), false},
	{"revoked", `{}`, true},
	{"revoked for a reason", `{"reason":"leaked"}`, true},
	{"revoked from somewhere", `{"origin":{"agent":{"k":"x","n":"AA==","ct":""}}}`, true},
	{"revoked for a reason from somewhere", `{"reason":"leaked","origin":{"agent":{"k":"x","n":"AA==","ct":""}}}`, true},
	{"revoked for no reason", `{"reason":""}`, false},
	{"revoked, with a comma", `{,"origin":{"agent":{"k":"x","n":"AA==","ct":""}}}`, false},
	{"unknown member", quickData(`[]`, ``, `,"colour":"red"`), false},
}

const quickPolicy = `{"id":"0100000000000000000000000000000a","effect":"allow","permission_groups":[{"id":"4755a26eedb94da69e1066d98aa820be"}],` +
	`"resources":{"com.cloudflare.api.account.zone.023e105f4ecef8ad9ca31a8372d0c353":"*"}}`

// quickData is the data of a token.created.
func quickData(policies, grant, rest string) string {
	return `{"name":"n","owner_kind":"user","owner":"01000000000000000000000000000004","secret_digest":"d1:` +
		strings.Repeat("ab", 32) + `","grant":{"policies":` + policies + grant + `}` + rest + `}`
}

// agree checks the promise of a quick decoder on one piece of data: whatever it
// takes, the library's decoder takes too and returns the same. It says whether
// it was taken.
func agree(t *testing.T, quick func([]byte) (Event, bool), slow func([]byte) (Event, error), data []byte) bool {
	t.Helper()
	before := bytes.Clone(data)
	got, taken := quick(data)
	if !bytes.Equal(before, data) {
		t.Fatal("the data has changed")
	}
	if !taken {
		return false
	}
	if err := checkDepth(data); err != nil {
		t.Fatalf("taken, but %v: %q", err, data)
	}
	want, err := slow(data)
	if err != nil {
		t.Fatalf("taken, but the library says %v: %q", err, data)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%q\n quick %+v\n slow  %+v", data, got, want)
	}
	for i := range data {
		data[i] = '#'
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatal("the event shares memory with the data")
	}
	return true
}

// agreeAll tries all quick decoders.
func agreeAll(t *testing.T, data []byte) bool {
	t.Helper()
	created := agree(t, quickTokenCreated, decodeData[TokenCreated], bytes.Clone(data))
	updated := agree(t, quickTokenUpdated, decodeData[TokenUpdated], bytes.Clone(data))
	revoked := agree(t, quickTokenRevoked, decodeData[TokenRevoked], bytes.Clone(data))
	return created || updated || revoked
}

// TestQuick checks that the seeds are taken or declined as they say, so that
// the fast path is not lost without notice.
func TestQuick(t *testing.T) {
	for _, seed := range quickSeeds {
		if taken := agreeAll(t, []byte(seed.data)); taken != seed.taken {
			t.Errorf("%s: taken %v, want %v: %s", seed.name, taken, seed.taken, seed.data)
		}
	}
}

// FuzzQuick holds the quick decoders to the library's.
func FuzzQuick(f *testing.F) {
	for _, seed := range quickSeeds {
		f.Add([]byte(seed.data))
	}
	f.Fuzz(func(t *testing.T, data []byte) { agreeAll(t, data) })
}

// TestGroupsApart checks that appending to what one policy has does not write
// into what the next one has.
func TestGroupsApart(t *testing.T) {
	ev, ok := quickTokenCreated([]byte(quickData(`[`+quickPolicy+`,`+quickPolicy+`]`, ``, ``)))
	if !ok {
		t.Fatal("declined")
	}
	p := ev.(*TokenCreated).Grant.Policies
	want := p[1].Groups[0].ID
	p[0].Groups = append(p[0].Groups, p[0].Groups...)
	p[0].Groups[1].ID = "other"
	p[0].Resources = append(p[0].Resources, "#####"...)
	if p[1].Groups[0].ID != want || p[1].Resources[0] != '{' {
		t.Errorf("the second policy became %+v", p[1])
	}
}
