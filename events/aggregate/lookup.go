package aggregate

import (
	"time"

	"watchword.dev/events"
	"watchword.dev/events/token"
)

// Owner is a user or an account, as the owner of tokens.
type Owner struct {
	Kind events.OwnerKind
	ID   token.ID
}

// Counts is how many tokens an owner has. Seq is the sequence of the last event
// that changed it; the zero value is an owner who never had any.
type Counts struct {
	Live uint64 // those that have not ended, whether or not they can be used
	All  uint64
	Seq  uint64
}

// Credential is what a digest leads to: the living thing that has this secret.
type Credential struct {
	Kind token.Kind
	ID   token.ID // of the token or the enforcer; of the user when Kind is token.KindKey
	// Until is when a secret that was replaced with a grace ends; zero for
	// the present one. Whoever asks compares it with the clock.
	Until time.Time
}

// RequestWindow is how long the ledger's readers remember by which request a
// secret came into being, measured in the time of events.
const RequestWindow = 10 * time.Minute

// Request is what the repeat of a request leads to: the secret that the first
// one caused.
type Request struct {
	Token         token.ID
	Number        uint64 // of the event
	Time          time.Time
	SecretVersion uint32 // of the token, right after the event
}
