package enforcer

import (
	"watchword.dev/events"
	"watchword.dev/events/token"
)

// effect is what an event may change for decisions that were made before it.
// The zero effect is none.
type effect struct {
	all     bool         // any decision
	place   bool         // those that rest on where a resource is registered
	foreign bool         // a secret of another system, whichever, that was not known
	id      token.ID     // those that rest on this token, user or account
	secret  token.Digest // those about this secret, which was not known
	ended   bool         // the token id verifies no more, whatever else
}

// effectOf is the one place that knows what an event type means for a decision
// that somebody keeps. A type that it does not know changes everything.
func effectOf(r *events.Record) effect {
	subject := r.SubjectID()
	switch d := r.Data.(type) {
	case *events.TokenCreated:
		return effect{secret: d.Secret, foreign: d.Foreign}
	case *events.TokenRolled:
		return effect{id: subject, secret: d.Secret}
	case *events.TokenUpdated, *events.TokenEnabled:
		return effect{id: subject}
	case *events.TokenDisabled, *events.TokenRevoked:
		return effect{id: subject, ended: true}
	case *events.APIKeyIssued:
		return effect{id: subject, secret: d.Secret}
	case *events.APIKeyRolled:
		return effect{id: subject, secret: d.Secret}
	case *events.APIKeyRevoked, *events.UserRegistered, *events.UserRemoved:
		return effect{id: subject}
	case *events.MemberAdded:
		return effect{id: d.User}
	case *events.MemberChanged:
		return effect{id: d.User}
	case *events.MemberRemoved:
		return effect{id: d.User}
	case *events.AccountCreated, *events.AccountRemoved, *events.PolicyChanged:
		// The account may be the one in which a registered resource lies.
		return effect{id: subject, place: true}
	case *events.ResourceRegistered, *events.ResourceMoved, *events.ResourceRemoved:
		return effect{place: true}
	case *events.RevocationSwept:
		return sweepEffect(d)
	case *events.TokenExpiring, *events.TokenExpired, // the clock tells
		*events.UserUpdated, *events.AccountUpdated, *events.ResourceUpdated, // names
		*events.EnforcerEnrolled, *events.ConsumerEnrolled, *events.ConsumerRetired,
		*events.PenOpened, *events.FormatRaised:
		return effect{}
	}
	// Among them a published catalogue, an enforcer that was retired, which may
	// be this one, and an epoch in which the ledger may be another.
	return effect{all: true}
}

func sweepEffect(d *events.RevocationSwept) effect {
	if d.By == events.SweepOwner || d.By == events.SweepAccount {
		if id, err := token.ParseID(d.Selected); err == nil {
			return effect{id: id}
		}
	}
	return effect{all: true}
}

// Revocation tells of something that ended for good.
type Revocation struct {
	// By says what ended: "token" for the token ID; "owner" for all tokens of
	// the user or account ID, which is gone or was swept; "account" for the
	// tokens that the account ID itself owns; "template" for those made from
	// Template; "all". Of the swept ones only those end that were created by an
	// event whose number is at most Through.
	By       string
	ID       token.ID
	Template string
	Through  uint64
	// Sequence is that of the event.
	Sequence uint64
}

// RevokedToken is what Revocation.By says of a single token; for the others
// see events.SweepOwner and its neighbours.
const RevokedToken = "token"

// revocationOf returns what a record revokes, if anything.
func revocationOf(r *events.Record) (Revocation, bool) {
	v := Revocation{ID: r.SubjectID(), Through: r.Number, Sequence: r.Seq}
	switch d := r.Data.(type) {
	case *events.TokenRevoked:
		v.By = RevokedToken
	case *events.UserRemoved, *events.AccountRemoved:
		v.By = events.SweepOwner
	case *events.RevocationSwept:
		v.By, v.ID, v.Through = d.By, token.ID{}, d.Through
		if d.By == events.SweepTemplate {
			v.Template = d.Selected
		} else if d.By != events.SweepAll {
			v.ID, _ = token.ParseID(d.Selected)
		}
	default:
		return v, false
	}
	return v, true
}
