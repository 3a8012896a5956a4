package management

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/events/usage"
	"watchword.dev/projections/directory"
	used "watchword.dev/projections/usage"
	"watchword.dev/services/internal/suggest"
	"watchword.dev/services/internal/summary"
	"watchword.dev/services/internal/web"
)

// legacyDays is how many days the report on API keys looks back unless it is
// told otherwise.
const legacyDays = 30

// legacyKey is one API key in the report: who has it, for what it is used, and
// the token that would do.
type legacyKey struct {
	UserID   token.ID `json:"user_id"`
	Email    string   `json:"email"`
	Name     string   `json:"name"`
	Operator bool     `json:"operator"`
	Kind     string   `json:"kind"`
	// LastUsedOn is absent when the key was never good for anything, as far
	// as reports go back; in the report on an account, there.
	LastUsedOn string          `json:"last_used_on,omitempty"`
	Allowed    uint64          `json:"allowed"`
	Refused    uint64          `json:"refused"`
	Rejected   uint64          `json:"rejected"`
	Used       []legacyUse     `json:"used"`
	Accounts   []legacyAccount `json:"accounts"`
	Warnings   []string        `json:"warnings"`
	Proposal   *legacyProposal `json:"proposal,omitzero"`
}

// legacyUse is something that a key was used for and was allowed.
type legacyUse struct {
	Permission string `json:"permission"`
	Type       string `json:"resource_type"`
	Resource   string `json:"resource"` // its key; empty when it is not known
	AccountID  string `json:"account_id"`
	Count      uint64 `json:"count"`
	LastUsedOn string `json:"last_used_on"`
}

type legacyAccount struct {
	ID      token.ID `json:"id"`
	Name    string   `json:"name"`
	KeysEnd string   `json:"keys_end,omitempty"`
}

// legacyProposal is the body of the request that creates the token, and what it
// would be able to do in words.
type legacyProposal struct {
	Name     string           `json:"name"`
	Policies []proposedPolicy `json:"policies"`
	Summary  []string         `json:"summary"`
	// Uncovered is what the key was used for and no token can do.
	Uncovered []string `json:"uncovered"`
}

// proposedPolicy is a policy as a request has it: without an id.
type proposedPolicy struct {
	Effect    token.Effect  `json:"effect"`
	Resources any           `json:"resources"`
	Groups    []groupAnswer `json:"permission_groups"`
}

// legacyReport tells who still uses API keys, page by page of the users:
// operators of all, and those who may read the tokens of an account of its
// members, as far as what lies in the account goes. Users without a key are
// left out, so that a page may be short and is not the last for it.
func (s *Service) legacyReport(x *web.Exchange) error {
	q := x.Request().URL.Query()
	ask, err := page(q)
	if err != nil {
		return err
	}
	days := legacyDays
	if v := q.Get("days"); v != "" {
		if days, err = strconv.Atoi(v); err != nil || days < 1 || days > used.KeptDays {
			return fault.New(fault.InvalidParameter).WithDetail("days is a number from 1 to %d", used.KeptDays)
		}
	}
	var account token.ID
	if x.Param("account_id") != "" {
		if account, err = x.ID("account_id"); err != nil {
			return err
		}
	}
	c, err := s.reader(x)
	if err != nil {
		return err
	}
	if s.Usage == nil {
		return fault.New(fault.NotReady)
	}
	users, total, err := s.keyHolders(c, account, ask)
	if err != nil {
		return err
	}
	r := legacyReader{s: s, account: account, now: s.Now(), roots: map[string]token.ID{}}
	r.since = r.now.AddDate(0, 0, 1-days)
	all := []legacyKey{}
	for i := range users {
		k, err := r.key(x.Context(), &users[i])
		if err != nil {
			return err
		}
		all = append(all, k)
	}
	var notes []web.Message
	if lost, err := s.Usage.Lost(r.since); err != nil {
		return err
	} else if lost > 0 {
		notes = append(notes, web.Message{Code: lostNote, Text: fmt.Sprintf("%d uses of tokens and keys had no room to be counted; what is listed may not be all", lost)})
	}
	return x.List(all, pageInfo(ask.Page, ask.PerPage, len(all), int(total)), notes...)
}

// lostNote is the code of the message that some uses are missing.
const lostNote = 10001

// keyHolders returns those of one page of users who have an API key, and how
// many users there are.
func (s *Service) keyHolders(c *caller, account token.ID, ask directory.Listing) ([]aggregate.User, uint64, error) {
	var users []aggregate.User
	var total uint64
	switch {
	case !account.IsZero():
		if _, err := s.within(c, account, readAccountTokens); err != nil {
			return nil, 0, err
		}
		found, err := s.Directory.MembersPage(account, ask)
		if err != nil {
			return nil, 0, err
		}
		total = found.Total
		for _, m := range found.Items {
			u, ok, err := s.Directory.User(m.User)
			if err != nil {
				return nil, 0, err
			}
			if ok {
				users = append(users, u)
			}
		}
	case c.operator():
		found, err := s.Directory.AllUsers(ask)
		if err != nil {
			return nil, 0, err
		}
		users, total = found.Items, found.Total
	default:
		return nil, 0, fault.New(fault.NotPermitted)
	}
	return slices.DeleteFunc(users, func(u aggregate.User) bool { return u.Status != aggregate.Active || u.Key.IsZero() }), total, nil
}

// legacyReader reads one report.
type legacyReader struct {
	s          *Service
	account    token.ID // zero for a report on all
	since, now time.Time
	roots      map[string]token.ID // of resources whose account was looked up
}

func (r *legacyReader) key(ctx context.Context, u *aggregate.User) (legacyKey, error) {
	k := legacyKey{UserID: u.ID, Operator: u.Operator, Kind: usage.APIKey.String(), Used: []legacyUse{}, Warnings: []string{}}
	var err error
	if k.Email, err = r.s.show(ctx, &u.Email); err != nil {
		return k, err
	}
	if k.Name, err = r.s.show(ctx, u.Name); err != nil {
		return k, err
	}
	if k.Accounts, err = r.accounts(u); err != nil {
		return k, err
	}
	h, err := r.s.Usage.History(u.ID, r.since, r.now)
	if err != nil {
		return k, err
	}
	var last time.Time
	var uses []suggest.Use
	bare := uint64(0)
	for _, use := range h.Uses {
		if use.Kind != usage.APIKey {
			continue
		}
		in, err := r.accountOf(use.What)
		if err != nil {
			return k, err
		}
		if !r.account.IsZero() && in != r.account {
			continue
		}
		if use.Result != usage.Rejected && use.Last.After(last) {
			last = use.Last
		}
		switch use.Result {
		case usage.Refused:
			k.Refused += use.Count
			continue
		case usage.Rejected:
			k.Rejected += use.Count
			continue
		}
		k.Allowed += use.Count
		if use.Permission == "" {
			bare += use.Count
			continue
		}
		k.Used = append(k.Used, legacyUseOf(use, in))
		uses = append(uses, suggest.Use{Permission: use.Permission, Type: use.Type, ID: use.ID, Account: in})
	}
	slices.SortFunc(k.Used, func(a, b legacyUse) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Permission, b.Permission), cmp.Compare(a.AccountID, b.AccountID))
	})
	if r.account.IsZero() {
		span, _, err := r.s.Usage.Span(u.ID)
		if err != nil {
			return k, err
		}
		last = span.Last
	}
	k.LastUsedOn = seconds(last)
	k.Proposal, err = r.proposal(u, uses)
	r.warn(&k, bare)
	return k, err
}

func legacyUseOf(use used.Use, in token.ID) legacyUse {
	l := legacyUse{Permission: use.Permission, Type: use.Type, Count: use.Count, LastUsedOn: seconds(use.Last)}
	if use.ID != "" {
		l.Resource = aggregate.ResourceKey(use.Type, use.ID)
	}
	if !in.IsZero() {
		l.AccountID = in.String()
	}
	return l
}

// accounts returns the accounts of a user, with the day on which keys end
// there; in the report on one account only that.
func (r *legacyReader) accounts(u *aggregate.User) ([]legacyAccount, error) {
	all := []legacyAccount{}
	members, err := r.s.Directory.Memberships(u.ID)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		if !r.account.IsZero() && m.Account != r.account {
			continue
		}
		a, ok, err := r.s.Directory.Account(m.Account)
		if err != nil {
			return nil, err
		}
		if ok && a.Status == aggregate.Active {
			all = append(all, legacyAccount{a.ID, a.Name, seconds(a.Policy.KeysEnd)})
		}
	}
	return all, nil
}

// accountOf returns the account in which something was used: by the chain that
// was asked about, and else by where the resource is registered now.
func (r *legacyReader) accountOf(w usage.What) (token.ID, error) {
	if !w.Account.IsZero() || w.ID == "" {
		return w.Account, nil
	}
	key := aggregate.ResourceKey(w.Type, w.ID)
	if in, known := r.roots[key]; known {
		return in, nil
	}
	var in token.ID
	for at, depth := key, 0; depth < token.MaxChain; depth++ {
		if kind, id, ok := catalogue.SplitKey(at); ok && kind+"." == accountType {
			in, _ = token.ParseID(id) // another id is nobody's
			break
		}
		up, ok, err := r.s.Directory.Resource(at)
		if err != nil {
			return in, err
		}
		if !ok {
			break
		}
		at = up.Parent
	}
	r.roots[key] = in
	return in, nil
}

// proposal returns the token that would do what a key was used for, or nil when
// that is nothing that a token could do.
func (r *legacyReader) proposal(u *aggregate.User, uses []suggest.Use) (*legacyProposal, error) {
	cat := r.s.Catalogue()
	policies, left := suggest.Policies(cat, uses)
	if len(policies) == 0 && len(left) == 0 {
		return nil, nil
	}
	p := &legacyProposal{Name: "instead of an API key", Policies: []proposedPolicy{}, Summary: []string{}, Uncovered: []string{}}
	for _, use := range left {
		what := use.Permission
		if use.ID != "" {
			what += " on " + aggregate.ResourceKey(use.Type, use.ID)
		}
		p.Uncovered = append(p.Uncovered, what)
	}
	slices.Sort(p.Uncovered)
	for _, policy := range policies {
		q := proposedPolicy{Effect: policy.Effect, Resources: policy.Resources}
		for _, ref := range policy.Groups {
			g, _ := cat.Group(ref.ID)
			q.Groups = append(q.Groups, groupAnswer{ref.ID, g.Name})
		}
		p.Policies = append(p.Policies, q)
	}
	words, err := summary.Of(p.Name, token.Grant{Policies: policies}, cat, r.s.resourceName)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	p.Summary = words.Sentences
	return p, nil
}

// warn says what somebody who is to replace the key must know.
func (r *legacyReader) warn(k *legacyKey, bare uint64) {
	add := func(format string, args ...any) { k.Warnings = append(k.Warnings, fmt.Sprintf(format, args...)) }
	for _, a := range k.Accounts {
		end, err := time.Parse(time.RFC3339, a.KeysEnd)
		switch {
		case err != nil: // none is set
		case !r.now.Before(end):
			add("API keys have ended in account %s on %s", a.ID, end.Format("2 January 2006"))
		default:
			add("API keys end in account %s on %s, in %d days", a.ID, end.Format("2 January 2006"), int(end.Sub(r.now).Hours()/24))
		}
	}
	if bare > 0 {
		if k.Operator {
			add("%d requests needed no permission, or were an operator's, which no token can replace", bare)
		} else {
			add("%d requests needed no permission: any token will do", bare)
		}
	}
	if k.Proposal != nil && len(k.Proposal.Uncovered) > 0 {
		add("it was used for something that no permission group of the catalogue gives on that resource")
	}
	if k.LastUsedOn == "" {
		add("it was never used, as far as reports go back (90 days at most)")
	} else if k.Allowed+k.Refused == 0 {
		add("it was not used in these days")
	}
}
