package events_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"testing"

	"watchword.dev/events"
	"watchword.dev/events/eventstest"
)

func encode64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// FuzzDecode holds Decode to its promise: what it takes is exactly what Encode
// writes, and what it does not take is malformed or unknown.
func FuzzDecode(f *testing.F) {
	for _, data := range examples {
		r := example(data)
		line, err := events.Encode(&r.Envelope, r.Data)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		before := bytes.Clone(line)
		var r events.Record
		err := events.Decode(line, &r)
		if !bytes.Equal(before, line) {
			t.Fatal("Decode has changed the line")
		}
		if err != nil {
			if !errors.Is(err, events.ErrMalformed) && !errors.Is(err, events.ErrUnknown) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		again, err := events.Encode(&r.Envelope, r.Data)
		if err != nil {
			t.Fatalf("decoded, but not encoded: %v", err)
		}
		if !bytes.Equal(again, line) {
			t.Fatalf("another form was taken:\n %s\n %s", line, again)
		}
		if r.Hash != events.HashLine(line) || !bytes.Equal(r.Line, line) {
			t.Fatal("not the line's hash")
		}
	})
}

// FuzzDecodeCommit checks that a commit that is taken is contiguous and is what
// its lines encode to.
func FuzzDecodeCommit(f *testing.F) {
	for n := range 4 {
		payload, c, err := events.Compose(events.Position{}, eventstest.Drafts(1, n+1))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint64(1), c.Subject, payload)
	}
	f.Fuzz(func(t *testing.T, seq uint64, subject string, payload []byte) {
		c, err := events.DecodeCommit(events.Position{}, seq, subject, payload, nil)
		if err != nil {
			return
		}
		var again []byte
		var at events.Hash
		for i := range c.Records {
			r := &c.Records[i]
			if r.Number != uint64(i+1) || r.Seq != seq || r.Prev != at || events.SubjectOf(r.Name) != subject {
				t.Fatalf("record %d: %+v", i, r)
			}
			line, err := events.Encode(&r.Envelope, r.Data)
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				again = append(again, '\n')
			}
			again, at = append(again, line...), r.Hash
		}
		if !bytes.Equal(again, payload) || c.End.Hash != at || c.End.Seq != 1 || seq != 1 {
			t.Fatalf("another form was taken:\n %s\n %s", payload, again)
		}
	})
}

// FuzzOpenPulse checks that only what the key has signed is opened.
func FuzzOpenPulse(f *testing.F) {
	public, private := keyPair("a")
	want := events.Pulse{Term: 3, Epoch: 1, Sequence: 9, Number: 20, Time: eventstest.Epoch, Node: "n1"}
	good, err := want.Sign(private)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte(`"term":3`), []byte(`"term":4`), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := events.OpenPulse(b, public); err == nil && !bytes.Equal(b, good) {
			t.Fatalf("opened %s", b)
		}
	})
}
