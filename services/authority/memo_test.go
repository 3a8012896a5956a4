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

// TestMemoOutlivesARound begins rounds: what a commit changes and all that may
// have moved with people is asked for again, and the rest is not.
func TestMemoOutlivesARound(t *testing.T) {
	past := &oneUser{}
	m := newMemo(past)
	asked := func(what string, want int) {
		t.Helper()
		m.User(token.ID{1})
		if past.asked != want {
			t.Errorf("%s: the past was asked %d times, want %d", what, past.asked, want)
		}
	}
	asked("at first", 1)
	m.begin(false)
	asked("in the next round", 1)
	m.begin(true)
	asked("after people have changed", 2)

	kept, dropped := token.ID{3}, token.ID{4}
	m.tokens[kept], m.tokens[dropped] = found[aggregate.Token]{}, found[aggregate.Token]{}
	m.credentials[token.Digest{3}], m.credentials[token.Digest{4}] = found[aggregate.Credential]{}, found[aggregate.Credential]{}
	var changes layer
	changes.tokens.set(dropped, &aggregate.Token{}, 1)
	changes.drop(token.Digest{4}, 1)
	m.drop(&changes)
	if _, ok := m.tokens[kept]; !ok || len(m.tokens) != 1 {
		t.Errorf("tokens %v are left", m.tokens)
	}
	if _, ok := m.credentials[token.Digest{3}]; !ok || len(m.credentials) != 1 {
		t.Errorf("credentials %v are left", m.credentials)
	}
	for i := range memoMax {
		m.tokens[token.ID{5, byte(i)}] = found[aggregate.Token]{}
	}
	m.begin(false)
	asked("when it has become large", 3)
}
