package management

import (
	"context"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/revocations"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

const incidentPath = base + "/incident/revocations"

// The bounds of one request about many tokens.
const (
	defaultIncident = 100
	maxIncident     = 10_000 // rows that are looked at
	maxAtOnce       = 1000   // tokens that are named or revoked
)

// incidentBody selects tokens. An owner, an account, a template or all of them,
// with no other bound than when they were made, are revoked by one event, a sweep;
// everything else by one event each, a stretch of tokens by a request.
type incidentBody struct {
	Owner    string `json:"owner"` // an e-mail address or an id
	Account  string `json:"account"`
	Template string `json:"template"`
	All      bool   `json:"all"`

	NamePrefix  string `json:"name_prefix"`
	Permission  string `json:"permission"`   // a permission, or the id or the name of a permission group
	Resource    string `json:"resource"`     // a key: policies that name it, or all of its type
	CreatedBy   string `json:"created_by"`   // the id of a user, an account or a credential
	UnusedSince string `json:"unused_since"` // not used since, or never
	UsedSince   string `json:"used_since"`

	CreatedBefore string `json:"created_before"` // or at that time
	// Through is the number of the last event that may have made a token.
	Through uint64 `json:"through"`

	Reason string `json:"reason"`
	// Confirm is true, or how many tokens a preview has counted.
	Confirm jsontext.Value `json:"confirm"`
	After   string         `json:"after"` // what the answer before has in next
	Limit   int            `json:"limit"` // how many tokens to look at; of a sweep, to name
}

// incidentAnswer says what was found, or what was done.
type incidentAnswer struct {
	// Sweep says that one event revokes all.
	Sweep bool `json:"sweep"`
	// Tokens is how many the selection has: of a sweep in all, else in this
	// stretch, of which Examined were looked at.
	Tokens   uint64 `json:"tokens"`
	Examined int    `json:"examined"`
	// Through is the number of the last event that may have made one of them.
	Through uint64          `json:"through"`
	First   []incidentToken `json:"first"`
	Next    string          `json:"next,omitempty"` // where to go on; empty at the end
	// APIKey says that the owner has a Global API Key, which is no token.
	APIKey bool `json:"api_key"`

	Revoked  uint64   `json:"revoked"`
	Sequence uint64   `json:"sequence,omitzero"` // of the last event that this led to
	By       string   `json:"by,omitempty"`      // of the sweep, and so is Selected
	Selected string   `json:"selected,omitempty"`
	Last     token.ID `json:"last_token_id,omitzero"` // that was revoked by an event of its own
}

type incidentToken struct {
	ID        token.ID         `json:"id"`
	Name      string           `json:"name"`
	OwnerKind events.OwnerKind `json:"owner_kind"`
	Owner     token.ID         `json:"owner"`
	Status    string           `json:"status"`
	CreatedOn string           `json:"created_on"`
}

func incidentTokenOf(t *aggregate.Token) incidentToken {
	return incidentToken{t.ID, t.Name, t.OwnerKind, t.Owner, string(t.Status), seconds(t.Created)}
}

// previewIncident says which tokens are selected. Nothing is changed.
func (s *Service) previewIncident(x *web.Exchange) error {
	_, in, err := s.incident(x)
	if err != nil {
		return err
	}
	if err := s.find(x.Context(), in, maxAtOnce); err != nil {
		return err
	}
	return x.Result(in.answer)
}

// revokeIncident revokes the selected tokens.
func (s *Service) revokeIncident(x *web.Exchange) error {
	c, in, err := s.incident(x)
	if err != nil {
		return err
	}
	if err := s.checkReason(in.body.Reason); err != nil {
		return err
	}
	if err := s.find(x.Context(), in, maxAtOnce); err != nil {
		return err
	}
	if err := in.confirmed(); err != nil {
		return err
	}
	if in.answer.Sweep {
		err = s.sweep(x, c, in)
	} else {
		err = s.revokeEach(x, c, in)
	}
	if err != nil {
		return err
	}
	return x.Result(in.answer)
}

// confirmed wants the word of the caller, and of a sweep the number that they
// were shown if they give one.
func (in *incident) confirmed() error {
	given := string(in.body.Confirm)
	if given == "true" {
		return nil
	}
	n, err := strconv.ParseUint(given, 10, 63)
	switch {
	case err != nil || !in.answer.Sweep:
		return fault.New(fault.InvalidField).WithPointer("/confirm").WithDetail("true is needed; for a sweep the number that the preview has counted does as well")
	case n != in.answer.Tokens:
		return fault.New(fault.Conflict).WithPointer("/confirm").WithDetail("there are %d tokens now", int(in.answer.Tokens))
	}
	return nil
}

// sweep revokes the selection by one event. Without a bound it takes what there is
// when the pen decides, so that nothing escapes that was made since the count.
func (s *Service) sweep(x *web.Exchange, c *caller, in *incident) error {
	if in.answer.Tokens == 0 {
		return nil // nor is there anything in what was made since
	}
	cmd := command.Sweep{ID: s.IDs.New(), By: in.of.By, Selected: in.of.Template, Reason: in.body.Reason}
	if in.of.By == events.SweepOwner {
		cmd.Selected = in.of.Owner.String()
	}
	if in.bounded {
		cmd.Through = in.answer.Through
	}
	r, err := s.ask(x, c, cmd)
	if err != nil {
		return err
	}
	x.Sequence(r.Seq)
	s.settle(x.Context(), r.Seq)
	if r.Sweep != nil {
		in.answer.Through, in.answer.Sequence = r.Sweep.Through, r.Sweep.Seq
	}
	in.answer.Revoked, in.answer.By, in.answer.Selected = in.answer.Tokens, cmd.By, cmd.Selected
	if in.kind == events.OwnedByAccount {
		in.answer.By = events.SweepAccount
	}
	return nil
}

// getIncidentReceipts answers who has heard of a sweep, or of the revocation of a
// token, at a sequence.
func (s *Service) getIncidentReceipts(x *web.Exchange) error {
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	q := x.Request().URL.Query()
	seq, err := sequenceParameter(q)
	if err == nil && seq == 0 {
		err = fault.New(fault.InvalidParameter).WithDetail("sequence is that of the sweep, or of the token's revocation")
	}
	if err != nil {
		return err
	}
	wait, err := waitParameter(q)
	if err != nil {
		return err
	}
	of := revocations.SweepSubject(q.Get("by"), q.Get("selected"))
	id, selection := token.ID{}, aggregate.Selection{}
	if q.Has("token_id") {
		if id, err = token.ParseID(q.Get("token_id")); err != nil {
			return fault.New(fault.InvalidParameter).WithDetail("token_id is the id of a token")
		}
		of, selection = revocations.TokenSubject(id), s.ownerOf(id)
	} else {
		selection, _ = aggregate.SelectionOf(q.Get("by"), q.Get("selected"))
	}
	if _, err := s.mayEnd(c, selection); err != nil {
		return err
	}
	if s.Receipts == nil {
		return fault.New(fault.NotReady)
	}
	ctx, cancel := context.WithTimeout(x.Context(), s.ReadWait)
	defer cancel()
	if err := s.Receipts.Wait(ctx, s.Directory.Applied()); err != nil {
		return fault.Wrap(fault.NotReady, err)
	}
	e, ok, err := s.Receipts.About(of, seq)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.ObjectNotFound)
	}
	a, err := s.heard(x.Context(), id, e, wait)
	if err != nil {
		return err
	}
	return x.Result(a)
}

// ownerOf returns the selection of all that the owner of a token has; the zero
// one, which is an operator's, when there is no such token.
func (s *Service) ownerOf(id token.ID) aggregate.Selection {
	t, ok, err := s.Directory.Token(id)
	if err != nil || !ok {
		return aggregate.Selection{}
	}
	return aggregate.Selection{By: events.SweepOwner, Owner: t.Owner}
}

// incidentRoutes adds the routes about very many tokens.
func (s *Service) incidentRoutes(rt *web.Router) {
	rt.Handle(http.MethodPost, incidentPath, s.revokeIncident)
	rt.Handle(http.MethodPost, incidentPath+"/preview", s.previewIncident)
	rt.Handle(http.MethodGet, incidentPath+"/receipts", s.getIncidentReceipts)
}
