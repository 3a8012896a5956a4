package events_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
	"watchword.dev/events/token"
)

func newEvent(like events.Event) events.Event {
	return reflect.New(reflect.TypeOf(like).Elem()).Interface().(events.Event)
}

// revoked returns the line of an example, to be broken by tests.
func revoked(t testing.TB) string {
	t.Helper()
	r := example(&events.TokenRevoked{Reason: "leaked"})
	line, err := events.Encode(&r.Envelope, r.Data)
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

// TestDecodeStrict changes one thing about a good line each time.
func TestDecodeStrict(t *testing.T) {
	good := revoked(t)
	var r events.Record
	if err := events.Decode([]byte(good), &r); err != nil {
		t.Fatal(err)
	}
	id := exampleID.ULID()
	prev := r.Prev.String()
	tests := []struct {
		name     string
		old, new string
		want     error
	}{
		{"empty", good, ``, events.ErrMalformed},
		{"not closed", good, good[:len(good)-1], events.ErrMalformed},
		{"something behind", good, good + " ", events.ErrMalformed},
		{"a newline behind", good, good + "\n", events.ErrMalformed},
		{"a second event behind", good, good + "\n" + good, events.ErrMalformed},
		{"space before", good, " " + good, events.ErrMalformed},
		{"space in the envelope", `"source":`, `"source": `, events.ErrMalformed},
		{"space in the data", `{"reason":`, `{ "reason":`, events.ErrMalformed},
		{"space behind the data", `"leaked"}}`, `"leaked"} }`, events.ErrMalformed},
		{"newline in the data", `{"reason":`, "{\n\"reason\":", events.ErrMalformed},
		{"reordered envelope", `"number":"42","epoch":2`, `"epoch":2,"number":"42"`, events.ErrMalformed},
		{"double member of the envelope", `,"number":"42"`, `,"number":"42","number":"42"`, events.ErrMalformed},
		{"unknown member of the envelope", `,"number":`, `,"colour":"red","number":`, events.ErrMalformed},
		{"double member of the data", `"reason":"leaked"`, `"reason":"leaked","reason":"leaked"`, events.ErrMalformed},
		{"unknown member of the data", `"reason":"leaked"`, `"reason":"leaked","colour":"red"`, events.ErrMalformed},
		{"other case in the data", `"reason"`, `"Reason"`, events.ErrMalformed},
		{"a default written out", `{"reason":"leaked"}`, `{"reason":""}`, events.ErrMalformed},
		{"null", `{"reason":"leaked"}`, `{"reason":null}`, events.ErrMalformed},
		{"null data", `{"reason":"leaked"}`, `null`, events.ErrMalformed},
		{"needless escape", `leaked`, `\u006ceaked`, events.ErrMalformed},
		{"broken escape", `leaked`, `\ud800`, events.ErrMalformed},
		{"bad UTF-8", `leaked`, "le\xffked", events.ErrMalformed},
		{"wrong kind of value", `"leaked"`, `7`, events.ErrMalformed},
		{"no data", `,"data":{"reason":"leaked"}`, ``, events.ErrMalformed},
		{"other version of CloudEvents", `"specversion":"1.0"`, `"specversion":"1.1"`, events.ErrMalformed},
		{"other content", `application/json`, `application/cbor`, events.ErrMalformed},
		{"unknown type", `token.revoked.v1`, `token.renounced.v1`, events.ErrUnknown},
		{"later version", `token.revoked.v1`, `token.revoked.v2`, events.ErrUnknown},
		{"schema of another type", `schema/token.revoked.v1`, `schema/token.rolled.v1`, events.ErrMalformed},
		{"other prefix of the type", `watchword.token`, `shibboleth.token`, events.ErrMalformed},
		{"id in lower case", id, strings.ToLower(id), events.ErrMalformed},
		{"id with a look-alike", id, id[:25] + "I", events.ErrMalformed},
		{"id too short", id, id[:25], events.ErrMalformed},
		{"id that overflows", id, "8" + id[1:], events.ErrMalformed},
		{"prev in upper case", prev, strings.ToUpper(prev), events.ErrMalformed},
		{"prev too short", prev, prev[:63], events.ErrMalformed},
		{"prev no hex", prev, "g" + prev[1:], events.ErrMalformed},
		{"time without milliseconds", `05.007Z`, `05Z`, events.ErrMalformed},
		{"time with an offset", `05.007Z`, `05.007+00:00`, events.ErrMalformed},
		{"no such day", `2026-01-02T`, `2026-02-30T`, events.ErrMalformed},
		{"no such hour", `T03:04`, `T24:04`, events.ErrMalformed},
		{"leap second", `04:05.007Z`, `04:60.007Z`, events.ErrMalformed},
		{"before 1970", `2026-01-02T`, `1969-01-02T`, events.ErrMalformed},
		{"number zero", `"number":"42"`, `"number":"0"`, events.ErrMalformed},
		{"number with a zero before", `"number":"42"`, `"number":"042"`, events.ErrMalformed},
		{"number with a sign", `"number":"42"`, `"number":"+42"`, events.ErrMalformed},
		{"number not quoted", `"number":"42"`, `"number":42`, events.ErrMalformed},
		{"number too large", `"number":"42"`, `"number":"9223372036854775808"`, events.ErrMalformed},
		{"number much too large", `"number":"42"`, `"number":"18446744073709551658"`, events.ErrMalformed},
		{"epoch zero", `"epoch":2`, `"epoch":0`, events.ErrMalformed},
		{"epoch too large", `"epoch":2`, `"epoch":2147483648`, events.ErrMalformed},
		{"epoch as a fraction", `"epoch":2`, `"epoch":2.0`, events.ErrMalformed},
		{"empty source", r.Source, ``, events.ErrMalformed},
		{"empty subject", r.Subject, ``, events.ErrMalformed},
		{"quote in the source", r.Source, `a\"b`, events.ErrMalformed},
		{"control character", r.Source, "a\x01b", events.ErrMalformed},
		{"not ASCII", r.Source, "é", events.ErrMalformed},
		{"attribute too long", r.Source, strings.Repeat("s", events.MaxText+1), events.ErrMalformed},
		{"zero id where none may stand", `"account":"` + r.Account.String(), `"account":"` + token.ID{}.String(), events.ErrMalformed},
		{"id no hex", `"account":"` + r.Account.String(), `"account":"x` + r.Account.String()[1:], events.ErrMalformed},
		{"empty request id", r.RequestID, ``, events.ErrMalformed},
		{"empty actor kind", `"actorkind":"user"`, `"actorkind":""`, events.ErrMalformed},
		{"no actor kind", `,"actorkind":"user"`, ``, events.ErrMalformed},
		{"too long", `leaked`, strings.Repeat("x", events.MaxLine), events.ErrMalformed},
		{"too deep", `"leaked"`, strings.Repeat(`[`, events.MaxDepth+1) + strings.Repeat(`]`, events.MaxDepth+1), events.ErrMalformed},
		{"much too deep", `"leaked"`, strings.Repeat(`{"a":`, 50_000), events.ErrMalformed},
		{"carriage return in the data", `{"reason":`, "{\r\"reason\":", events.ErrMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var broken string
			switch {
			case test.want == events.ErrUnknown:
				broken = strings.ReplaceAll(good, test.old, test.new)
			default:
				broken = strings.Replace(good, test.old, test.new, 1)
			}
			if broken == good {
				t.Fatal("the test does not change the line")
			}
			if err := events.Decode([]byte(broken), new(events.Record)); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}

// TestEncodeRefuses checks what could not be read back.
func TestEncodeRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*events.Envelope)
	}{
		{"no id", func(e *events.Envelope) { e.ID = token.ID{} }},
		{"no source", func(e *events.Envelope) { e.Source = "" }},
		{"no subject", func(e *events.Envelope) { e.Subject = "" }},
		{"no kind", func(e *events.Envelope) { e.Actor.Kind = "" }},
		{"no number", func(e *events.Envelope) { e.Number = 0 }},
		{"number too large", func(e *events.Envelope) { e.Number = 1 << 63 }},
		{"no epoch", func(e *events.Envelope) { e.Epoch = 0 }},
		{"epoch too large", func(e *events.Envelope) { e.Epoch = 1 << 31 }},
		{"early", func(e *events.Envelope) { e.Time = e.Time.AddDate(-100, 0, 0) }},
		{"late", func(e *events.Envelope) { e.Time = e.Time.AddDate(8000, 0, 0) }},
		{"quote", func(e *events.Envelope) { e.RequestID = `a"b` }},
		{"backslash", func(e *events.Envelope) { e.Traceparent = `a\b` }},
		{"line break", func(e *events.Envelope) { e.Subject = "a\nb" }},
		{"NUL", func(e *events.Envelope) { e.Source = "a\x00b" }},
		{"long", func(e *events.Envelope) { e.RequestID = strings.Repeat("x", events.MaxText+1) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := example(&events.TokenRevoked{})
			test.change(&r.Envelope)
			if line, err := events.Encode(&r.Envelope, r.Data); err == nil {
				t.Errorf("encoded: %s", line)
			}
		})
	}
	r := example(&events.TokenRevoked{Reason: strings.Repeat("x", events.MaxLine)})
	if _, err := events.Encode(&r.Envelope, r.Data); !errors.Is(err, events.ErrMalformed) {
		t.Errorf("a line that is too long: %v", err)
	}
}

// TestReusedRecord checks that nothing of the event before is left in a record
// that is used again.
func TestReusedRecord(t *testing.T) {
	full := example(examples[0])
	bare := example(&events.TokenRevoked{})
	bare.Account, bare.Actor, bare.RequestID, bare.Traceparent = token.ID{}, events.Actor{Kind: events.ActorOperator}, "", ""
	bare.Source = "watchword/another"
	var used, fresh events.Record
	for _, r := range []events.Record{full, bare} {
		line, err := events.Encode(&r.Envelope, r.Data)
		if err != nil {
			t.Fatal(err)
		}
		fresh = events.Record{}
		if err := errors.Join(events.Decode(line, &used), events.Decode(line, &fresh)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(used, fresh) {
			t.Errorf("used %+v\nfresh %+v", used, fresh)
		}
	}
}

// TestDataIsACopy checks that an event outlives the bytes that it was decoded
// from.
func TestDataIsACopy(t *testing.T) {
	for _, data := range examples {
		r := example(data)
		line, err := events.Encode(&r.Envelope, r.Data)
		if err != nil {
			t.Fatal(err)
		}
		var got events.Record
		if err := events.Decode(line, &got); err != nil {
			t.Fatal(err)
		}
		for i := range line {
			line[i] = '#'
		}
		again, err := events.Encode(&got.Envelope, got.Data)
		if err != nil || bytes.Contains(again, []byte("##")) {
			t.Errorf("%s: %v: %s", r.Name, err, again)
		}
	}
}

// createdV0 is how token.created might have looked before there were grants.
// It exists in this test only.
type createdV0 struct {
	Name   string       `json:"name"`
	Owner  token.ID     `json:"owner"`
	Secret token.Digest `json:"secret_digest"`
	Zone   string       `json:"zone"`
}

func (createdV0) EventName() string { return "token.created.v0" }

// createdV00 is even older.
type createdV00 struct {
	Name string `json:"name"`
}

func (createdV00) EventName() string { return "token.created.v00" }

// TestOlderVersion reads events of shapes that are no longer written.
func TestOlderVersion(t *testing.T) {
	catalogue := events.NewCatalogue(
		events.Current[events.TokenCreated](),
		events.Older(func(old *createdV0) (events.Event, error) {
			if old.Zone == "" {
				return nil, fmt.Errorf("%w: no zone", events.ErrMalformed)
			}
			return &events.TokenCreated{
				Name: old.Name, OwnerKind: events.OwnedByUser, Owner: old.Owner, Secret: old.Secret,
				Grant: token.Grant{Policies: []token.Policy{{
					Effect: token.EffectAllow, Groups: []token.GroupRef{{ID: "everything"}},
					Resources: []byte(`{"com.cloudflare.api.account.zone.` + old.Zone + `":"*"}`),
				}}},
			}, nil
		}),
		events.Older(func(old *createdV00) (events.Event, error) {
			return &createdV0{Name: old.Name, Zone: "z1"}, nil
		}),
		events.Older(func(*events.TokenRevoked) (events.Event, error) { return &events.TokenDisabled{}, nil }),
	)
	tests := []struct {
		name, data string
		want       error
		token      string
	}{
		{"token.created.v0", `{"name":"a","owner":"` + eventstest.ID(4).String() + `","secret_digest":"` + token.Sum("s").String() + `","zone":"z9"}`, nil, "a"},
		{"token.created.v00", `{"name":"b"}`, nil, "b"},
		{"token.created.v0", `{"name":"a","owner":"` + eventstest.ID(4).String() + `","secret_digest":"` + token.Sum("s").String() + `","zone":""}`, events.ErrMalformed, ""},
		{"token.created.v0", `{"zone":"z","name":"a"}`, events.ErrMalformed, ""},
		{"token.created.v3", `{}`, events.ErrUnknown, ""},
		{"token.revoked.v1", `{}`, events.ErrUnknown, ""}, // becomes what the catalogue does not have
	}
	for _, test := range tests {
		ev, err := catalogue.DecodeData(test.name, []byte(test.data))
		if !errors.Is(err, test.want) {
			t.Errorf("%s %s: error %v, want %v", test.name, test.data, err, test.want)
		}
		if test.want != nil {
			continue
		}
		created, ok := ev.(*events.TokenCreated)
		if !ok || created.Name != test.token || len(created.Grant.Policies) != 1 {
			t.Errorf("%s became %+v", test.name, ev)
		}
	}
}

// TestDoubleName checks that a catalogue with two types of one name does not
// get past the start of a program.
func TestDoubleName(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	events.NewCatalogue(events.Current[events.TokenRevoked](), events.Current[events.TokenRevoked]())
}

// TestNames checks the form of every name, and that its subject is one of the
// stream's.
func TestNames(t *testing.T) {
	for _, name := range events.Standard.Names() {
		parts := strings.Split(name, ".")
		if len(parts) != 3 || parts[2] != "v1" || strings.ToLower(name) != name {
			t.Errorf("%q is not <aggregate>.<verb>.v1", name)
		}
		if got, want := events.SubjectOf(name), "ww.event."+parts[0]+"."+parts[1]; got != want {
			t.Errorf("the subject of %s is %q, want %q", name, got, want)
		}
	}
	if len(examples) != len(events.Standard.Names()) {
		t.Errorf("%d examples for %d types", len(examples), len(events.Standard.Names()))
	}
}

func TestSubjectID(t *testing.T) {
	tests := map[string]token.ID{
		"token/" + eventstest.ID(7).String(): eventstest.ID(7),
		"token":                              {},
		"token/":                             {},
		"token/xyz":                          {},
		"":                                   {},
	}
	for subject, want := range tests {
		if got := (&events.Envelope{Subject: subject}).SubjectID(); got != want {
			t.Errorf("%q: %v, want %v", subject, got, want)
		}
	}
}
