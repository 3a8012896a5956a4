package aggregate

import "watchword.dev/events"

// ReasonOwnerRemoved is the Reason of a token that ended because its owner did.
const ReasonOwnerRemoved = "owner removed"

// EndWithOwner ends the token at r, the record that removed the token's owner.
// A token that has ended before stays as it is.
func (t *Token) EndWithOwner(r *events.Record) {
	if t.Status == Revoked {
		return
	}
	t.end(r.Time, ReasonOwnerRemoved)
	t.Modified, t.Seq = r.Time, r.Seq
}

// EndWith ends the membership at r, the record that removed its user or its
// account. A membership that has ended before stays as it is.
func (m *Member) EndWith(r *events.Record) {
	if m.Status == Revoked {
		return
	}
	m.Status, m.Seq = Revoked, r.Seq
}
