package events_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
)

// line encodes one account.created with the given place.
func line(t *testing.T, number uint64, epoch uint32, prev events.Hash, at time.Time, data events.Event) []byte {
	t.Helper()
	d := eventstest.Drafts(int(number), 1)[0]
	d.Name, d.Number, d.Epoch, d.Prev, d.Time = data.EventName(), number, epoch, prev, at
	b, err := events.Encode(&d.Envelope, data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestChain puts one commit behind a position, with one thing wrong each time.
func TestChain(t *testing.T) {
	now := eventstest.Epoch
	at := events.Position{Seq: 9, Number: 20, Epoch: 3, Hash: events.HashLine([]byte("event 20")), Time: now}
	account, opened := &events.AccountCreated{Name: "a"}, &events.EpochOpened{Reason: "restored"}
	const accounts, epochs = "ww.event.account.created", "ww.event.epoch.opened"
	join := func(lines ...[]byte) []byte { return bytes.Join(lines, []byte("\n")) }

	good := line(t, 21, 3, at.Hash, now, account)
	next := line(t, 22, 3, events.HashLine(good), now, account)
	wrong := events.HashLine([]byte("another"))
	tests := []struct {
		name    string
		at      events.Position
		seq     uint64
		subject string
		payload []byte
		want    error
	}{
		{"good", at, 10, accounts, good, nil},
		{"two", at, 10, accounts, join(good, next), nil},
		{"same time", at, 10, accounts, line(t, 21, 3, at.Hash, at.Time, account), nil},
		{"new epoch", at, 10, epochs, line(t, 21, 4, at.Hash, now, opened), nil},
		{"the same epoch is opened", at, 10, epochs, line(t, 21, 3, at.Hash, now, opened), nil},
		{"first", events.Position{}, 1, accounts, line(t, 1, 1, events.Hash{}, now, account), nil},

		{"sequence skipped", at, 11, accounts, good, events.ErrGap},
		{"sequence repeated", at, 9, accounts, good, events.ErrGap},
		{"sequence rewound", at, 1, accounts, good, events.ErrGap},
		{"number skipped", at, 10, accounts, line(t, 22, 3, at.Hash, now, account), events.ErrGap},
		{"number repeated", at, 10, accounts, line(t, 20, 3, at.Hash, now, account), events.ErrGap},
		{"number skipped inside", at, 10, accounts, join(good, line(t, 23, 3, events.HashLine(good), now, account)), events.ErrGap},
		{"another predecessor", at, 10, accounts, line(t, 21, 3, wrong, now, account), events.ErrChain},
		{"another predecessor inside", at, 10, accounts, join(good, line(t, 22, 3, wrong, now, account)), events.ErrChain},
		{"both behind the same", at, 10, accounts, join(good, line(t, 22, 3, at.Hash, now, account)), events.ErrChain},
		{"older", at, 10, accounts, line(t, 21, 3, at.Hash, now.Add(-time.Millisecond), account), events.ErrChain},
		{"older inside", at, 10, accounts, join(line(t, 21, 3, at.Hash, now.Add(time.Hour), account), next), events.ErrChain},
		{"new epoch by another event", at, 10, accounts, line(t, 21, 4, at.Hash, now, account), events.ErrEpoch},
		{"epoch skipped", at, 10, epochs, line(t, 21, 5, at.Hash, now, opened), events.ErrEpoch},
		{"epoch before", at, 10, accounts, line(t, 21, 2, at.Hash, now, account), events.ErrEpoch},
		{"an older epoch opened", at, 10, epochs, line(t, 21, 2, at.Hash, now, opened), events.ErrEpoch},
		{"first of a later epoch", events.Position{}, 1, accounts, line(t, 1, 2, events.Hash{}, now, account), events.ErrEpoch},
		{"first with a predecessor", events.Position{}, 1, accounts, line(t, 1, 1, wrong, now, account), events.ErrChain},

		{"empty", at, 10, accounts, nil, events.ErrMalformed},
		{"newline at the end", at, 10, accounts, append(bytes.Clone(good), '\n'), events.ErrMalformed},
		{"only a newline", at, 10, accounts, []byte("\n"), events.ErrMalformed},
		{"empty line between", at, 10, accounts, join(good, nil, next), events.ErrMalformed},
		{"newline before", at, 10, accounts, join(nil, good), events.ErrMalformed},
		{"on another subject", at, 10, epochs, good, events.ErrMalformed},
		{"on the subject with a version", at, 10, accounts + ".v1", good, events.ErrMalformed},
		{"on half a subject", at, 10, "ww.event.account", good, events.ErrMalformed},
		{"on no subject of ours", at, 10, "account.created", good, events.ErrMalformed},
		{"on the bare prefix", at, 10, "ww.event.", good, events.ErrMalformed},
		{"two subjects in one commit", at, 10, accounts, join(good, line(t, 22, 3, events.HashLine(good), now, &events.AccountUpdated{})), events.ErrMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := events.DecodeCommit(test.at, test.seq, test.subject, test.payload, nil)
			if !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if err != nil {
				return
			}
			last := c.Records[len(c.Records)-1]
			want := events.Position{Seq: test.seq, Number: last.Number, Epoch: last.Epoch, Hash: last.Hash, Time: last.Time}
			if c.End != want {
				t.Errorf("ends at %+v, want %+v", c.End, want)
			}
			if !c.End.Ends(test.payload) || test.at.Ends(test.payload) {
				t.Error("Ends does not know the end")
			}
		})
	}
}

// TestCompose checks the places and times that Compose gives.
func TestCompose(t *testing.T) {
	drafts := eventstest.Drafts(1, 3)
	drafts[0].Time = eventstest.Epoch.Add(time.Second + 123456)
	drafts[1].Time = eventstest.Epoch // the clock went back
	drafts[2].Time = eventstest.Epoch.Add(time.Minute).In(time.FixedZone("", 3600))
	payload, c, err := events.Compose(events.Position{}, drafts)
	if err != nil {
		t.Fatal(err)
	}
	if c.Seq != 1 || c.Subject != "ww.event.account.created" || len(c.Records) != 3 || bytes.Count(payload, []byte("\n")) != 2 {
		t.Fatalf("composed %+v", c)
	}
	wantTimes := []time.Time{eventstest.Epoch.Add(time.Second), eventstest.Epoch.Add(time.Second), eventstest.Epoch.Add(time.Minute)}
	prev := events.Hash{}
	for i, r := range c.Records {
		if r.Number != uint64(i+1) || r.Epoch != 1 || r.Prev != prev || !r.Time.Equal(wantTimes[i]) || r.Time.Location() != time.UTC {
			t.Errorf("record %d: %+v", i, r.Envelope)
		}
		prev = r.Hash
	}

	epoch := []events.Draft{drafts[0]}
	epoch[0].Data = &events.EpochOpened{Reason: "promoted"}
	_, opened, err := events.Compose(c.End, epoch)
	if err != nil || opened.End.Epoch != 2 {
		t.Errorf("a new epoch: %+v, %v", opened.End, err)
	}
	_, after, err := events.Compose(opened.End, eventstest.Drafts(5, 1))
	if err != nil || after.End.Epoch != 2 || after.End.Seq != 3 || after.End.Number != 5 {
		t.Errorf("after the new epoch: %+v, %v", after.End, err)
	}
}

// TestComposeRefuses checks that what would stop a reader is not composed.
func TestComposeRefuses(t *testing.T) {
	two := eventstest.Drafts(1, 2)
	two[1].Data = &events.AccountUpdated{Name: "other subject"}
	bad := eventstest.Drafts(1, 1)
	bad[0].Source = "a\nb"
	utf := eventstest.Drafts(1, 1)
	utf[0].Data = &events.AccountCreated{Name: "\xff"}
	resources := eventstest.Drafts(1, 1)
	resources[0].Data = &events.TokenUpdated{Grant: grant()}
	resources[0].Data.(*events.TokenUpdated).Grant.Policies[0].Resources = []byte(`{"a":"*","a":"*"}`)
	deep := eventstest.Drafts(1, 1)
	deep[0].Data = &events.TokenUpdated{Grant: grant()}
	deep[0].Data.(*events.TokenUpdated).Grant.Policies[0].Resources = []byte(strings.Repeat("[", 40) + strings.Repeat("]", 40))
	for name, drafts := range map[string][]events.Draft{
		"nothing": nil, "two subjects": two, "bad source": bad, "bad UTF-8": utf, "double resource": resources, "too deep": deep,
	} {
		if payload, _, err := events.Compose(events.Position{}, drafts); err == nil {
			t.Errorf("%s: composed %s", name, payload)
		}
	}
}

// TestComposeRoundTrip composes commits of random events and reads them back,
// each behind the other.
func TestComposeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := events.Position{}
		var records []events.Record
		for range rapid.IntRange(1, 6).Draw(t, "commits") {
			data := rapid.SampledFrom(examples).Draw(t, "data")
			if at.Number == 0 { // a ledger does not begin with its second life
				data = &events.LogOpened{Brand: "ww", PulseKey: []byte{1}}
			}
			drafts := eventstest.Drafts(int(at.Number)+1, rapid.IntRange(1, 5).Draw(t, "events"))
			for i := range drafts {
				drafts[i].Data = data
				drafts[i].Time = eventstest.Epoch.Add(time.Duration(rapid.Int64Range(-1e15, 1e15).Draw(t, "time")))
				drafts[i].RequestID = rapid.StringMatching(`[ -!#-\[\]-~]{0,40}`).Draw(t, "request id")
				if rapid.Bool().Draw(t, "system") {
					drafts[i].Actor = events.Actor{Kind: events.ActorSystem}
				}
			}
			payload, c, err := events.Compose(at, drafts)
			if err != nil {
				t.Fatal(err)
			}
			again, err := events.DecodeCommit(at, at.Seq+1, c.Subject, bytes.Clone(payload), records)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c, again); diff != "" {
				t.Fatalf("composed and decoded differ:\n%s", diff)
			}
			for i := range again.Records {
				if diff := cmp.Diff(drafts[i].Data, again.Records[i].Data); diff != "" {
					t.Fatal(diff)
				}
			}
			records, at = again.Records, c.End
		}
	})
}

// TestPositionBinary checks the stored form of positions.
func TestPositionBinary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := events.Position{
			Seq: rapid.Uint64().Draw(t, "seq"), Number: rapid.Uint64().Draw(t, "number"), Epoch: rapid.Uint32().Draw(t, "epoch"),
			Hash: events.HashLine([]byte(rapid.String().Draw(t, "line"))),
		}
		if ms := rapid.Int64Range(0, 1<<43).Draw(t, "ms"); ms != 0 {
			want.Time = time.UnixMilli(ms).UTC()
		}
		b, err := want.AppendBinary([]byte("x"))
		if err != nil || b[0] != 'x' {
			t.Fatal(err)
		}
		got := events.Position{Seq: 7, Time: time.Now()}
		if err := got.UnmarshalBinary(b[1:]); err != nil || got != want {
			t.Fatalf("%+v became %+v, %v", want, got, err)
		}
		if got.UnmarshalBinary(b) == nil || got.UnmarshalBinary(b[2:]) == nil || got.UnmarshalBinary(nil) == nil {
			t.Fatal("another length was taken")
		}
	})
}
