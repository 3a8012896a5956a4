package management

import (
	"context"
	"errors"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/web"
)

// What verify says beside its result. The text of the first is what scripts
// look for, so no other may contain it.
var (
	noteActive      = web.Message{Code: 10000, Text: "This API Token is valid and active"}
	noteDisabled    = web.Message{Code: 10001, Text: "This API Token is disabled"}
	noteExpired     = web.Message{Code: 10002, Text: "This API Token has expired"}
	noteNotYetValid = web.Message{Code: 10003, Text: "This API Token cannot be used before its time"}
)

// verifyAnswer is what verify tells about a token.
type verifyAnswer struct {
	ID        token.ID `json:"id"`
	Status    string   `json:"status"`
	NotBefore string   `json:"not_before,omitempty"`
	ExpiresOn string   `json:"expires_on,omitempty"`
}

// verifyToken says whether the presented secret is a token of this route's
// kind, and what state that is in. A secret of the other kind is as unknown as
// one that never was: wrangler tells the kinds apart by that. It is only not
// counted as a wrong credential: nobody is throttled for finding that out.
func (s *Service) verifyToken(x *web.Exchange, of ownership) error {
	account, err := of.account(x)
	if err != nil {
		return err
	}
	cred, err := presented(x)
	switch {
	case errors.Is(err, fault.InvalidAccessToken), err == nil && cred.Key():
		return fault.New(fault.InvalidAPIToken)
	case err != nil:
		return err
	}
	least, err := web.AtLeast(x.Request().Header)
	if err != nil {
		return err
	}
	if err := s.fresh(x); err != nil {
		return s.verifyByIndex(x, cred, of, account, least, err)
	}
	if err := s.reach(x, least); err != nil {
		return err
	}
	c, err := s.byToken(x, cred)
	if err != nil {
		return err
	}
	if c == nil || c.token.OwnerKind != of.kind || of.kind == events.OwnedByAccount && c.token.Owner != account {
		return fault.New(fault.InvalidAPIToken)
	}
	reason := state(c)
	if reason == token.ReasonNone {
		x.AtEnd(func(err error) { s.countUse(c, err) })
	} else {
		s.countRejected(x, c)
	}
	return verified(x, c.token.ID, c.token.Grant.NotBefore, c.token.Grant.ExpiresOn, reason)
}

// reach waits for the sequence that the client names, which may lie behind the
// head: it was told of it elsewhere, or the head has moved since.
func (s *Service) reach(x *web.Exchange, least uint64) error {
	if least == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(x.Context(), s.ReadWait)
	defer cancel()
	if err := s.Reached.Wait(ctx, least); err != nil {
		return fault.Wrap(fault.WaitTimedOut, err)
	}
	x.Sequence(s.Directory.Applied())
	return nil
}

// verifyByIndex answers while the head is not to be had, for the reason in
// cause. What the index knows is good within its bound, but what it does not
// know may have come into being since: that is no "invalid". Nor is it good for
// who asks for a later sequence.
func (s *Service) verifyByIndex(x *web.Exchange, cred web.Credential, of ownership, account token.ID, least uint64, cause error) error {
	if s.Verifier == nil {
		return cause
	}
	id, reason := s.Verifier.Identify(cred.Secret.Reveal(), x.Address)
	x.Sequence(id.Sequence)
	if id.Sequence < least {
		return cause
	}
	switch reason {
	case token.ReasonUnknown, token.ReasonStale, token.ReasonNotReady:
		if cred.Kind != of.secrets() {
			return fault.New(fault.InvalidAPIToken) // whoever has it, it is none of these
		}
		return cause
	case token.ReasonRevoked, token.ReasonMalformed:
		return fault.New(fault.InvalidAPIToken)
	}
	x.Recognised()
	if cred.Kind != of.secrets() || !account.IsZero() && id.Owner != account {
		return fault.New(fault.InvalidAPIToken)
	}
	return verified(x, id.Token, id.NotBefore, id.ExpiresOn, reason)
}

// verified answers about a token that is known, and counts the request as the
// token's unless it comes from where it may not.
func verified(x *web.Exchange, id token.ID, notBefore, expiresOn time.Time, reason token.Reason) error {
	if reason == token.ReasonAddress {
		return addressRefused(x)
	}
	if err := x.Admit(id); err != nil {
		return err
	}
	a := verifyAnswer{ID: id, NotBefore: seconds(notBefore), ExpiresOn: seconds(expiresOn)}
	switch reason {
	case token.ReasonNone:
		a.Status = statusActive
		return x.Result(a, noteActive)
	case token.ReasonDisabled:
		a.Status = statusDisabled
		return x.Result(a, noteDisabled)
	case token.ReasonExpired:
		a.Status = statusExpired
		return x.Result(a, noteExpired)
	case token.ReasonNotYetValid:
		a.Status = statusNotYetValid
		return x.Result(a, noteNotYetValid)
	}
	return fault.New(fault.NotReady)
}
