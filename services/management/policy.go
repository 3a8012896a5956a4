package management

import (
	"context"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// The bounds of a stretch of tokens that one request looks at.
const (
	defaultStretch = 100
	maxStretch     = 1000
)

// stretchBody asks for one stretch of an account's tokens, in the order of
// their making.
type stretchBody struct {
	// Policy is the one to preview instead of the account's, or the one that
	// was previewed and must still be the account's.
	Policy *policyForm `json:"policy"`
	After  string      `json:"after"` // what the answer before has in next
	Limit  int         `json:"limit"` // how many tokens to look at
}

// stretchAnswer is what a policy means for one stretch of an account's tokens,
// or what was done there.
type stretchAnswer struct {
	Policy policyForm `json:"policy"`
	// Tokens is how many the account has in all, TokensMax how many it may
	// have under the policy (0: any number), Over how many there are too many.
	Tokens    uint64 `json:"tokens"`
	TokensMax int32  `json:"tokens_max"`
	Over      uint64 `json:"over"`
	// Examined is how many this stretch has, and Next where to go on; empty at
	// the end.
	Examined int            `json:"examined"`
	Next     string         `json:"next,omitempty"`
	Changes  []changeAnswer `json:"changes"`
}

// changeAnswer is one token that breaks the policy.
type changeAnswer struct {
	ID       token.ID     `json:"id"`
	Name     string       `json:"name"` // empty for who may not read the account's tokens
	Breaches []fault.Code `json:"breaches"`
	Action   string       `json:"action"` // actionExpire or actionDisable
	// ExpiresOn is the token's end now, NewExpiresOn the one that it gets.
	ExpiresOn    string `json:"expires_on,omitempty"`
	NewExpiresOn string `json:"new_expires_on,omitempty"`
}

// What is done about a token.
const (
	actionExpire  = "expire"
	actionDisable = "disable"
)

// stretch is one stretch of an account's tokens under a policy.
type stretch struct {
	account aggregate.Account
	policy  aggregate.Policy
	tokens  []aggregate.Token
	named   bool // the caller may read the account's tokens
	answer  stretchAnswer
}

// note adds a token that breaks the policy to the answer.
func (st *stretch) note(t *aggregate.Token, m command.Mending) {
	a := changeAnswer{ID: t.ID, Breaches: m.Breaches, Action: actionDisable, ExpiresOn: seconds(t.Grant.ExpiresOn)}
	if st.named {
		a.Name = t.Name
	}
	if !m.ExpiresOn.IsZero() {
		a.Action, a.NewExpiresOn = actionExpire, seconds(m.ExpiresOn)
	}
	st.answer.Changes = append(st.answer.Changes, a)
}

// previewTokenPolicy says what applying the account's policy, or the one in the
// body, would change. Nothing is changed.
func (s *Service) previewTokenPolicy(x *web.Exchange) error {
	_, st, err := s.stretch(x, true)
	if err != nil {
		return err
	}
	for i := range st.tokens {
		t := &st.tokens[i]
		if m := command.Mend(st.policy, t, s.Now()); len(m.Breaches) > 0 {
			st.note(t, m)
		}
	}
	return x.Result(st.answer)
}

// applyTokenPolicy brings a stretch of the account's tokens to its policy, one
// event each. What fails in the middle goes on with the same request, or with a
// walk from the beginning: what is done is left alone.
func (s *Service) applyTokenPolicy(x *web.Exchange) error {
	c, st, err := s.stretch(x, false)
	if err != nil {
		return err
	}
	by, err := s.sender(x, c)
	if err != nil {
		return err
	}
	by.Bulk = true // others go first
	last := uint64(0)
	for i := range st.tokens {
		t := &st.tokens[i]
		m := command.Mend(st.policy, t, s.Now())
		if len(m.Breaches) == 0 {
			continue
		}
		r, err := s.applyTo(x.Context(), by, st, t.ID)
		if err != nil {
			return err
		}
		if r.Unchanged || r.Token == nil { // somebody else was faster
			continue
		}
		if r.Token.Status == aggregate.Active { // by the pen's clock, not by this node's
			m.ExpiresOn = r.Token.Grant.ExpiresOn
		}
		st.note(t, m)
		last = r.Seq
	}
	if last > 0 {
		x.Sequence(last)
		s.settle(x.Context(), last)
	}
	return x.Result(st.answer)
}

func (s *Service) applyTo(ctx context.Context, by command.Caller, st *stretch, id token.ID) (command.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, s.CommandWait)
	defer cancel()
	r, err := s.Authority.Do(ctx, by, command.ApplyPolicy{Account: st.account.ID, Token: id, Policy: st.policy})
	if err != nil {
		return r, outcome(err)
	}
	return r, nil
}

// stretch reads which tokens a request is about, under which policy, for those
// who may change that policy. Only a preview may be about another one than the
// account's.
func (s *Service) stretch(x *web.Exchange, preview bool) (*caller, *stretch, error) {
	c, in, err := s.accountOf(x)
	if err != nil {
		return nil, nil, err
	}
	if !s.holds(c, in, writeAccount) {
		return nil, nil, fault.New(fault.NotPermitted)
	}
	b := stretchBody{Limit: defaultStretch}
	if err := x.DecodeOptional(&b); err != nil {
		return nil, nil, err
	}
	if b.Limit < 1 || b.Limit > maxStretch {
		return nil, nil, fault.New(fault.InvalidField).WithPointer("/limit").WithDetail("1 to %d", maxStretch)
	}
	var after token.ID
	if b.After != "" {
		if after, err = token.ParseID(b.After); err != nil {
			return nil, nil, fault.New(fault.InvalidField).WithPointer("/after")
		}
	}
	st := &stretch{account: in.account, policy: in.account.Policy, named: s.holds(c, in, readAccountTokens)}
	if b.Policy != nil {
		if st.policy, err = b.Policy.policy("/policy"); err != nil {
			return nil, nil, err
		}
		if !preview && !command.SamePolicy(st.policy, in.account.Policy) {
			return nil, nil, fault.New(fault.Conflict).WithPointer("/policy")
		}
	}
	return c, st, s.gather(st, after, b.Limit)
}

// gather reads the tokens of a stretch and how many there are.
func (s *Service) gather(st *stretch, after token.ID, limit int) error {
	o := directory.Owner{Kind: events.OwnedByAccount, ID: st.account.ID}
	n, _, err := s.Directory.TokenCounts(o)
	if err != nil {
		return err
	}
	if st.tokens, err = s.Directory.TokensAfter(o, after, limit); err != nil {
		return err
	}
	st.answer = stretchAnswer{
		Policy: policyFormOf(st.policy), Tokens: n.Live, TokensMax: s.Quota.Of(st.policy),
		Examined: len(st.tokens), Changes: []changeAnswer{},
	}
	if most := uint64(st.answer.TokensMax); most > 0 && n.Live > most {
		st.answer.Over = n.Live - most
	}
	if len(st.tokens) == limit {
		st.answer.Next = st.tokens[limit-1].ID.String()
	}
	return nil
}
