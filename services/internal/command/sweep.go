package command

import "watchword.dev/events/token"

// Sweep revokes at once all tokens of a selection that there are, or those whose
// creation has a number up to Through. Its ID is that of the sweep: a second one
// with the same id changes nothing.
type Sweep struct {
	ID       token.ID `json:"id"`
	By       string   `json:"by"` // as in events.RevocationSwept, and so is Selected
	Selected string   `json:"selected,omitzero"`
	// Through is the number of an event; zero means all that there are.
	Through uint64 `json:"through,omitzero"`
	Reason  string `json:"reason,omitzero"`
}

// Verb names the command.
func (Sweep) Verb() string { return "revocation.sweep" }
