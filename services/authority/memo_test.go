package authority

import (
	"errors"
	"testing"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// oneUser is a past with one user, whose name changes with every look-up.
type oneUser struct {
	Past
	asked int
	fails error
}

func (p *oneUser) User(id token.ID) (aggregate.User, bool, error) {
	p.asked++
	return aggregate.User{ID: id, Seq: uint64(p.asked)}, id == token.ID{1}, p.fails
}

// TestMemo asks for what is there, what is not and what cannot be read.
func TestMemo(t *testing.T) {
	past := &oneUser{fails: errors.New("a bad block")}
	m := newMemo(past)
	if _, _, err := m.User(token.ID{1}); err == nil {
		t.Fatal("an error got lost")
	}
	past.fails = nil
	for range 3 {
		u, ok, err := m.User(token.ID{1})
		if err != nil || !ok || u.Seq != 2 {
			t.Errorf("got %+v, %v, %v, want what was read first", u, ok, err)
		}
		if _, ok, err := m.User(token.ID{2}); ok || err != nil {
			t.Errorf("nobody was found: %v, %v", ok, err)
		}
	}
	if past.asked != 3 {
		t.Errorf("the past was asked %d times, want once for each answer and once for the error", past.asked)
	}
	m.clear()
	if u, _, _ := m.User(token.ID{1}); u.Seq != 4 {
		t.Errorf("after clear got %+v, want a new look", u)
	}
	if names, err := m.RaisedTypes(); names != nil || err != nil {
		t.Errorf("a past without raised types has %v, %v", names, err)
	}
}
