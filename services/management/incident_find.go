package management

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/web"
)

// incident is a request about very many tokens.
type incident struct {
	body incidentBody
	of   aggregate.Selection
	kind events.OwnerKind // of the owner; empty when many own them
	// bounded says that tokens which were made later than some time or event
	// are left out.
	bounded bool
	before  time.Time // zero without such a bound
	after   token.ID
	filters []func(*aggregate.Token) (bool, error)

	tokens []aggregate.Token // found, at most as many as were asked for
	answer incidentAnswer
}

// incident reads a request, for those who may revoke what it selects.
func (s *Service) incident(x *web.Exchange) (*caller, *incident, error) {
	c, err := s.commander(x)
	if err != nil {
		return nil, nil, err
	}
	in := &incident{body: incidentBody{Limit: defaultIncident}}
	if err := x.Decode(&in.body); err != nil {
		return nil, nil, err
	}
	if err := s.selection(c, in); err != nil {
		return nil, nil, err
	}
	b := &in.body
	if b.Limit < 1 || b.Limit > maxIncident {
		return nil, nil, fault.New(fault.InvalidField).WithPointer("/limit").WithDetail("1 to %d", maxIncident)
	}
	if b.After != "" {
		if in.after, err = token.ParseID(b.After); err != nil {
			return nil, nil, fault.New(fault.InvalidField).WithPointer("/after")
		}
	}
	if err := s.filters(in); err != nil {
		return nil, nil, err
	}
	in.answer.Sweep, in.answer.First = len(in.filters) == 0, []incidentToken{}
	return c, in, s.border(in)
}

// selection finds out whose tokens, or which, the request is about.
func (s *Service) selection(c *caller, in *incident) error {
	b := &in.body
	if b.Owner != "" && b.Account != "" || b.All && (b.Owner != "" || b.Account != "" || b.Template != "") {
		return fault.New(fault.InvalidField).WithPointer("/owner").WithDetail("an owner, an account or all; a template by itself or beside an owner or an account")
	}
	in.of = aggregate.Selection{By: events.SweepAll}
	switch {
	case b.Owner != "" || b.Account != "":
		id, err := s.incidentOwner(c, b)
		if err != nil {
			return err
		}
		in.of = aggregate.Selection{By: events.SweepOwner, Owner: id}
	case b.Template != "":
		in.of = aggregate.Selection{By: events.SweepTemplate, Template: b.Template}
	case !b.All && b.NamePrefix+b.Permission+b.Resource+b.CreatedBy+b.UnusedSince+b.UsedSince == "":
		return fault.New(fault.InvalidField).WithPointer("/owner").WithDetail("nothing is selected: all is true for all tokens there are")
	}
	u, err := s.mayEnd(c, in.of)
	if err != nil {
		return err
	}
	if in.of.By == events.SweepOwner {
		if in.kind = events.OwnedByAccount; !u.ID.IsZero() {
			in.kind = events.OwnedByUser
		}
	}
	in.answer.APIKey = !u.Key.IsZero()
	return nil
}

// incidentOwner returns the owner whom a request names. To all but operators the
// address of somebody else is like one that nobody has.
func (s *Service) incidentOwner(c *caller, b *incidentBody) (token.ID, error) {
	name, at := b.Owner, fault.Pointer("/owner")
	if name == "" {
		name, at = b.Account, "/account"
	}
	if id, err := token.ParseID(name); err == nil {
		return id, nil
	}
	if b.Account != "" || !strings.Contains(name, "@") {
		return token.ID{}, fault.New(fault.InvalidField).WithPointer(at)
	}
	u, ok, err := s.Directory.UserByEmail(s.Sealer.EmailIndex(name))
	switch {
	case err != nil:
		return token.ID{}, err
	case !c.operator() && (!ok || u.ID != c.user.ID):
		return token.ID{}, fault.New(fault.NotPermitted)
	case !ok:
		return token.ID{}, fault.New(fault.UserNotFound)
	}
	return u.ID, nil
}

// mayEnd says whether the caller may revoke a whole selection, and returns its
// owner when that is a user. The authority decides for itself.
func (s *Service) mayEnd(c *caller, of aggregate.Selection) (aggregate.User, error) {
	var none aggregate.User
	if of.By != events.SweepOwner {
		if !c.operator() {
			return none, fault.New(fault.NotPermitted)
		}
		return none, nil
	}
	u, known, err := s.Directory.User(of.Owner)
	if err != nil {
		return none, err
	}
	switch {
	case c.operator() && known:
		return u, nil
	case c.operator():
		_, known, err := s.Directory.Account(of.Owner)
		if err == nil && !known {
			err = fault.New(fault.ObjectNotFound)
		}
		return none, err
	case known && u.ID == c.user.ID && c.may(writeUserTokens, userType+u.ID.String()):
		return u, nil
	case known:
		return none, fault.New(fault.NotPermitted)
	}
	if _, err := s.within(c, of.Owner, writeAccountTokens); err != nil {
		return none, fault.New(fault.NotPermitted) // also where there is no such account
	}
	return none, nil
}

// border finds the number of the last event that may have made a token which the
// request is about.
func (s *Service) border(in *incident) (err error) {
	at := s.Directory.Position()
	in.answer.Through = at.Number
	if in.before, err = parseTime(in.body.CreatedBefore, "/created_before"); err != nil {
		return err
	}
	if n := in.body.Through; n > 0 {
		if n > at.Number {
			return fault.New(fault.InvalidField).WithPointer("/through").WithDetail("the ledger ends at %d", int(at.Number))
		}
		in.answer.Through, in.bounded = n, true
	}
	if !in.before.IsZero() {
		if in.before.After(s.Now()) {
			return fault.New(fault.InvalidField).WithPointer("/created_before").WithDetail("that time has not come")
		}
		in.bounded = true
	}
	return nil
}

// errEnough ends a walk over tokens.
var errEnough = errors.New("management: enough tokens")

// find looks for the tokens that the request is about. Of a sweep it counts all
// and keeps the first; else it keeps those of a stretch, at most so many.
func (s *Service) find(ctx context.Context, in *incident, most int) error {
	a := &in.answer
	if a.Sweep && !in.bounded {
		n, err := s.Directory.LivingCount(in.of)
		if err != nil {
			return err
		}
		a.Tokens = n
		return s.look(ctx, in, in.after, min(in.body.Limit, most), in.body.Limit)
	}
	if !a.Sweep {
		err := s.look(ctx, in, in.after, most, in.body.Limit)
		a.Tokens = uint64(len(in.tokens))
		return err
	}
	return s.findBounded(ctx, in, min(in.body.Limit, most))
}

// findBounded counts the tokens of a sweep with a bound one by one.
func (s *Service) findBounded(ctx context.Context, in *incident, most int) error {
	last, through := token.ID{}, uint64(0)
	for more := true; more; more = !last.IsZero() {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		last, err = s.Directory.LivingAfter(in.of, last, maxIncident, func(t *aggregate.Token) error {
			if !in.takes(t) {
				return nil
			}
			in.answer.Tokens++
			through = max(through, t.Number)
			switch {
			case t.ID.Compare(in.after) <= 0:
			case len(in.tokens) < most:
				in.keep(t)
			case in.answer.Next == "":
				in.answer.Next = in.tokens[most-1].ID.String()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if !in.before.IsZero() && through > 0 {
		in.answer.Through = through // no later one was made before that time
	}
	return nil
}

// look keeps the tokens of a stretch of at most so many rows.
func (s *Service) look(ctx context.Context, in *incident, after token.ID, most, rows int) error {
	next, err := s.Directory.LivingAfter(in.of, after, rows, func(t *aggregate.Token) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		in.answer.Examined++
		if !in.takes(t) {
			return nil
		}
		for _, fits := range in.filters {
			if ok, err := fits(t); err != nil || !ok {
				return err
			}
		}
		if in.keep(t); len(in.tokens) == most {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if !next.IsZero() {
		in.answer.Next = next.String()
	}
	return nil
}

func (in *incident) takes(t *aggregate.Token) bool {
	return t.Number <= in.answer.Through && (in.before.IsZero() || !t.Created.After(in.before))
}

func (in *incident) keep(t *aggregate.Token) {
	in.tokens = append(in.tokens, *t)
	in.answer.First = append(in.answer.First, incidentTokenOf(t))
}

// filters makes the filters of a request: what a sweep cannot say.
func (s *Service) filters(in *incident) error {
	b := &in.body
	add := func(fits func(*aggregate.Token) bool) {
		in.filters = append(in.filters, func(t *aggregate.Token) (bool, error) { return fits(t), nil })
	}
	if b.Template != "" && in.of.By == events.SweepOwner {
		add(func(t *aggregate.Token) bool { return t.Template == b.Template })
	}
	if b.NamePrefix != "" {
		add(func(t *aggregate.Token) bool { return strings.HasPrefix(t.Name, b.NamePrefix) })
	}
	if b.CreatedBy != "" {
		by, err := token.ParseID(b.CreatedBy)
		if err != nil {
			return fault.New(fault.InvalidField).WithPointer("/created_by")
		}
		add(func(t *aggregate.Token) bool { return t.Creator.ID == by || t.Creator.Credential == by })
	}
	if b.Permission != "" {
		groups := groupsWith(s.Catalogue(), b.Permission)
		if len(groups) == 0 {
			return fault.New(fault.InvalidField).WithPointer("/permission")
		}
		add(func(t *aggregate.Token) bool {
			return slices.ContainsFunc(t.Grant.Policies, func(p token.Policy) bool {
				return p.Effect == token.EffectAllow && slices.ContainsFunc(p.Groups, func(r token.GroupRef) bool { return groups[r.ID] })
			})
		})
	}
	if b.Resource != "" {
		cat := s.Catalogue()
		kind, id, ok := cat.TypeOf(b.Resource)
		if !ok {
			return fault.New(fault.InvalidField).WithPointer("/resource")
		}
		add(func(t *aggregate.Token) bool { return reaches(&t.Grant, cat, kind, id, b.Resource) })
	}
	return s.usageFilters(in)
}

// groupsWith returns the ids of the permission groups that have a permission, or
// that have this id or name.
func groupsWith(cat *catalogue.Catalogue, what string) map[string]bool {
	ids := map[string]bool{}
	for _, g := range cat.Groups() {
		if g.ID == what || g.Name == what || slices.Contains(g.Permissions, what) {
			ids[g.ID] = true
		}
	}
	if _, former := cat.FormerGroupNumber(what); former {
		ids[what] = true
	}
	return ids
}

// reaches reports whether a policy that allows something names a resource, or all
// of its type. What an older catalogue has named is compared as text.
func reaches(g *token.Grant, cat *catalogue.Catalogue, kind catalogue.TypeNumber, id, key string) bool {
	return slices.ContainsFunc(g.Policies, func(p token.Policy) bool {
		if p.Effect != token.EffectAllow {
			return false
		}
		matchers, err := token.ParseResources(p.Resources, cat)
		if err != nil {
			return strings.Contains(string(p.Resources), `"`+key+`"`)
		}
		return slices.ContainsFunc(matchers, func(m token.Matcher) bool {
			return m.Inner.Matches(kind, id) || m.Nested && m.Outer.Matches(kind, id)
		})
	})
}

// usageFilters makes the filters by when a token was last used.
func (s *Service) usageFilters(in *incident) error {
	unused, err := parseTime(in.body.UnusedSince, "/unused_since")
	if err != nil {
		return err
	}
	used, err := parseTime(in.body.UsedSince, "/used_since")
	if err != nil {
		return err
	}
	if unused.IsZero() && used.IsZero() {
		return nil
	}
	if s.Usage == nil {
		return fault.New(fault.NotReady)
	}
	in.filters = append(in.filters, func(t *aggregate.Token) (bool, error) {
		span, _, err := s.Usage.Span(t.ID)
		return err == nil && (unused.IsZero() || span.Last.Before(unused)) && (used.IsZero() || !span.Last.Before(used)), err
	})
	return nil
}
