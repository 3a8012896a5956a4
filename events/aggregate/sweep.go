package aggregate

import (
	"fmt"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

// ReasonSwept is the Reason of a token that a sweep has ended which gave none.
const ReasonSwept = "swept"

// Selection is what a sweep is about. An account's own tokens have one selection,
// by whichever of the two words a sweep names them.
type Selection struct {
	By       string   `json:"by"` // events.SweepOwner, SweepTemplate or SweepAll
	Owner    token.ID `json:"owner,omitzero"`
	Template string   `json:"template,omitzero"`
}

// Sweep is a sweep of tokens: of those of a selection the one that reaches
// furthest, which is all that counts.
type Sweep struct {
	Selection
	ID      token.ID  `json:"id"`
	Through uint64    `json:"through"` // the number of the last creation that it is about
	Reason  string    `json:"reason,omitzero"`
	Time    time.Time `json:"time"`
	Seq     uint64    `json:"seq"`
}

// SelectionOf returns the selection that a sweep's By and Selected name; false
// when they name none.
func SelectionOf(by, selected string) (Selection, bool) {
	switch by {
	case events.SweepOwner, events.SweepAccount:
		id, err := token.ParseID(selected)
		return Selection{By: events.SweepOwner, Owner: id}, err == nil && !id.IsZero()
	case events.SweepTemplate:
		return Selection{By: by, Template: selected}, selected != ""
	case events.SweepAll:
		return Selection{By: by}, selected == ""
	}
	return Selection{}, false
}

// SweepOf returns the sweep of a record, whose data is a RevocationSwept. One
// that names nothing, or that reaches further than what was there before it, is
// ErrImpossible.
func SweepOf(r *events.Record) (Sweep, error) {
	d, ok := r.Data.(*events.RevocationSwept)
	if !ok {
		return Sweep{}, fmt.Errorf("%w: %s is no sweep", ErrImpossible, r.Name)
	}
	of, ok := SelectionOf(d.By, d.Selected)
	if !ok || d.Through >= r.Number || r.SubjectID().IsZero() {
		return Sweep{}, fmt.Errorf("%w: event %d sweeps %q %q through %d", ErrImpossible, r.Number, d.By, d.Selected, d.Through)
	}
	return Sweep{Selection: of, ID: r.SubjectID(), Through: d.Through, Reason: d.Reason, Time: r.Time, Seq: r.Seq}, nil
}

// Takes reports whether the sweep is about a token, ended or not.
func (s *Sweep) Takes(t *Token) bool { return t.Number <= s.Through && s.Selects(t) }

// Selects reports whether a token, whenever it was made, is of the selection.
func (s *Selection) Selects(t *Token) bool {
	switch s.By {
	case events.SweepOwner:
		return t.Owner == s.Owner
	case events.SweepTemplate:
		return t.Template == s.Template
	}
	return s.By == events.SweepAll
}

// EndSwept ends the token by a sweep that takes it. A token that has ended before
// stays as it is.
func (t *Token) EndSwept(s *Sweep) {
	if t.Status == Revoked {
		return
	}
	reason := s.Reason
	if reason == "" {
		reason = ReasonSwept
	}
	t.end(s.Time, reason)
	t.Modified, t.Seq = s.Time, s.Seq
}
