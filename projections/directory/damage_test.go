package directory

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"watchword.dev/events"
	"watchword.dev/events/token"
	"watchword.dev/projections/projectiontest"
	"watchword.dev/projections/projector"
)

// TestDamagedRows checks that a row that cannot be read is an error to whoever
// asks and to whatever is applied on it, never an absence.
func TestDamagedRows(t *testing.T) {
	s, begin := newLedger(t)
	d := closing(t, openMem(t, vfs.NewMem()))
	apply(t, d, begin...)
	const email = "user's index"
	id, owner := s.id(), Owner{Kind: events.OwnedByUser, ID: s.user}
	apply(t, d, s.create(id, token.Digest{7}, "q"))
	count, err := ownerKey(tableCount, owner)
	if err != nil {
		t.Fatal(err)
	}
	revoke := []events.Commit{s.commit("token", id, &events.TokenRevoked{})}
	list := func() error {
		_, err := d.Tokens(TokenQuery{Owner: owner, Listing: Listing{Page: 1, PerPage: 9}})
		return err
	}
	tests := []struct {
		name  string
		key   []byte
		value []byte // nil deletes
		ask   func() error
	}{
		{"token", idKey(tableToken, id), []byte(`{"id":1}`), func() error { _, _, err := d.Token(id); return err }},
		{"token, unknown member", idKey(tableToken, id), []byte(`{"colour":"red"}`), func() error { _, _, err := d.Token(id); return err }},
		{"token, applying", idKey(tableToken, id), []byte(`{`), func() error { return d.Apply(revoke) }},
		{"token, listed", idKey(tableToken, id), nil, list},
		{"count", count, []byte{1}, list},
		{"count, wrong", count, encodeCounts(Counts{Live: 2, All: 2}), list},
		{"credential", digestKey(token.Digest{7}), []byte("short"), func() error { _, _, err := d.Credential(token.Digest{7}); return err }},
		{"address", textKey(tableEmail, email), []byte("short"), func() error { _, _, err := d.UserByEmail(email); return err }},
		{"user by address", idKey(tableUser, s.user), nil, func() error { _, _, err := d.UserByEmail(email); return err }},
		{"request", requestKey(stretchOf(s.now), "q"), []byte("short"), func() error { _, _, err := d.Request("q"); return err }},
	}
	db := d.Store().DB()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			good, closer, err := db.Get(tt.key)
			if err != nil {
				t.Fatal(err)
			}
			good = bytes.Clone(good)
			closer.Close()
			if tt.value == nil {
				err = db.Delete(tt.key, nil)
			} else {
				err = db.Set(tt.key, tt.value, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.ask(); !errors.Is(err, projector.ErrDamaged) {
				t.Errorf("got %v, want %v", err, projector.ErrDamaged)
			}
			if err := db.Set(tt.key, good, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			if err := list(); err != nil {
				t.Errorf("after the repair: %v", err)
			}
		})
	}
}

// TestDamagedFile checks that bytes that have changed on the disk under Pebble
// are an error to whoever asks, and end nothing else.
func TestDamagedFile(t *testing.T) {
	rng := projectiontest.Seed(t)
	story, fs := projectiontest.Tell(rng, 300), vfs.NewMem()
	d := openMem(t, fs)
	apply(t, d, story.Commits...)
	if err := errors.Join(d.Store().DB().Flush(), d.Close()); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("directory")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if !strings.HasSuffix(n, ".sst") {
			continue
		}
		f, err := fs.OpenReadWrite(fs.PathJoin("directory", n), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		// The rows are in the first half: with the rest the file opens.
		if _, err := f.WriteAt([]byte("damage"), info.Size()/3); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	d = closing(t, openMem(t, fs))
	damaged := 0
	for id, want := range story.Tokens {
		switch got, ok, err := d.Token(id); {
		case errors.Is(err, projector.ErrDamaged):
			damaged++
		case err != nil, !ok, got.Name != want.Name:
			t.Errorf("token %v: %v, %v", id, ok, err)
		}
	}
	if damaged == 0 {
		t.Error("the damage met no token: the test is of no use")
	}
}
