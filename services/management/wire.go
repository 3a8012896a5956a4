package management

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// tokenBody is a token as clients send it. null and absent are the same, and
// what only the server gives (id, issued_on …) is ignored when it comes back.
type tokenBody struct {
	Name      string         `json:"name"`
	Status    string         `json:"status"`
	Policies  []policyBody   `json:"policies"`
	NotBefore string         `json:"not_before"`
	ExpiresOn string         `json:"expires_on"`
	Condition *conditionBody `json:"condition"`
	// Template makes the policies, with its holes filled by Parameters.
	Template   string            `json:"template"`
	Parameters map[string]values `json:"parameters"`
	// Widens lets the token give more than it holds, up to what its user
	// holds. On an update, absent keeps it.
	Widens *bool `json:"widens"`
}

type policyBody struct {
	Effect    string         `json:"effect"`
	Resources jsontext.Value `json:"resources"`
	Groups    []groupBody    `json:"permission_groups"`
}

type groupBody struct {
	ID string `json:"id"`
}

// conditionBody has both spellings: cloudflare-go up to v0 writes "request.ip",
// everything newer "request_ip". Requests may hold either, answers hold both.
type conditionBody struct {
	RequestIP *addressBody `json:"request_ip,omitzero"`
	Dotted    *addressBody `json:"request.ip,omitzero"`
}

// addressBody tells an absent list from an empty one: no "in" is everybody, an
// empty "in" is nobody.
type addressBody struct {
	In    []string `json:"in,omitzero"`
	NotIn []string `json:"not_in,omitzero"`
}

// grant checks b and returns the grant that it asks for, with policy ids of
// its own. What it accepts the authority may still refuse: it knows what the
// caller holds.
func (s *Service) grant(b *tokenBody) (token.Grant, error) {
	var g token.Grant
	if err := s.checkName(b.Name); err != nil {
		return g, err
	}
	for _, p := range b.Policies {
		q := token.Policy{ID: s.IDs.New(), Effect: token.Effect(p.Effect), Resources: p.Resources}
		for _, ref := range p.Groups {
			q.Groups = append(q.Groups, token.GroupRef{ID: ref.ID})
		}
		g.Policies = append(g.Policies, q)
	}
	var err error
	if g.Condition, err = b.Condition.condition(); err != nil {
		return g, err
	}
	// Seconds are what the API shows. Rounding never widens the validity.
	if g.NotBefore, err = parseTime(b.NotBefore, "/not_before"); err != nil {
		return g, err
	}
	if whole := g.NotBefore.Truncate(time.Second); whole.Before(g.NotBefore) {
		g.NotBefore = whole.Add(time.Second)
	}
	if g.ExpiresOn, err = parseTime(b.ExpiresOn, "/expires_on"); err != nil {
		return g, err
	}
	g.ExpiresOn = g.ExpiresOn.Truncate(time.Second)
	cat := s.Catalogue()
	if err := g.Validate(cat, s.Limits); err != nil {
		return g, command.GrantFault(err, cat)
	}
	if g, err = g.Normalize(); err != nil {
		return g, command.GrantFault(err, cat)
	}
	return g, nil
}

func (s *Service) checkName(name string) error {
	switch n := utf8.RuneCountInString(name); {
	case n > web.MaxName:
		return fault.New(fault.InvalidName).WithPointer("/name").WithDetail("at most %d characters", web.MaxName)
	case strings.TrimSpace(name) == "":
		return fault.New(fault.InvalidName).WithPointer("/name")
	case !web.ValidName(name), web.HoldsSecret(s.Format, name):
		return fault.New(fault.InvalidText).WithPointer("/name")
	}
	return nil
}

func (s *Service) checkReason(reason string) error {
	switch {
	case len(reason) > web.MaxReason:
		return fault.New(fault.InvalidReason).WithPointer("/reason").WithDetail("at most %d bytes", web.MaxReason)
	case !web.ValidReason(reason), web.HoldsSecret(s.Format, reason):
		return fault.New(fault.InvalidText).WithPointer("/reason")
	}
	return nil
}

// condition returns the condition that c asks for; nil when it says nothing.
func (c *conditionBody) condition() (*token.Condition, error) {
	if c == nil {
		return nil, nil
	}
	ip := c.RequestIP
	switch {
	case ip == nil:
		ip = c.Dotted
	case c.Dotted != nil && !sameAddresses(ip, c.Dotted):
		return nil, fault.New(fault.ConditionMismatch).WithPointer("/condition")
	}
	if ip == nil || ip.In == nil && len(ip.NotIn) == 0 {
		return nil, nil
	}
	return &token.Condition{RequestIP: token.RequestIP{In: ip.In, NotIn: ip.NotIn}}, nil
}

// sameAddresses reports whether two lists mean the same, in the same order. No
// "in" and an empty one do not mean the same.
func sameAddresses(a, b *addressBody) bool {
	same := func(a, b []string) bool {
		if len(a) != len(b) {
			return false
		}
		for i := range a {
			if a[i] != b[i] {
				return false
			}
		}
		return true
	}
	return (a.In == nil) == (b.In == nil) && same(a.In, b.In) && same(a.NotIn, b.NotIn)
}

func parseTime(s string, at fault.Pointer) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.IsZero() {
		return time.Time{}, fault.New(fault.InvalidTimes).WithPointer(at)
	}
	return t.UTC(), nil
}

// tokenAnswer is a token as clients see it. What is unset is absent, because
// some of them read null as a value.
type tokenAnswer struct {
	ID         token.ID       `json:"id"`
	Name       string         `json:"name"`
	Status     string         `json:"status"`
	IssuedOn   string         `json:"issued_on"`
	ModifiedOn string         `json:"modified_on"`
	RolledOn   string         `json:"rolled_on,omitempty"`
	LastUsedOn string         `json:"last_used_on,omitempty"` // when read, once it was used
	NotBefore  string         `json:"not_before,omitempty"`
	ExpiresOn  string         `json:"expires_on,omitempty"`
	Policies   []policyAnswer `json:"policies"`
	Condition  *conditionBody `json:"condition,omitzero"`
	// Template and TemplateVersion are those that the token was made from.
	Template        string `json:"template,omitempty"`
	TemplateVersion uint32 `json:"template_version,omitzero"`
	Widens          bool   `json:"widens,omitzero"`
	Value           string `json:"value,omitempty"` // the secret, at creation only
}

type policyAnswer struct {
	ID        token.ID       `json:"id"`
	Effect    token.Effect   `json:"effect"`
	Resources jsontext.Value `json:"resources"`
	Groups    []groupAnswer  `json:"permission_groups"`
}

type groupAnswer struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
}

// The statuses of a token that clients know, and the one of verify's answer
// for a token whose time has not come.
const (
	statusActive      = "active"
	statusDisabled    = "disabled"
	statusExpired     = "expired"
	statusNotYetValid = "not_yet_valid"
)

// answer returns t as clients see it now. Order and bytes of what they sent
// are kept.
func (s *Service) answer(t *aggregate.Token) tokenAnswer {
	a := tokenAnswer{
		ID: t.ID, Name: t.Name, Status: status(t, s.Now()),
		IssuedOn: seconds(t.Created), ModifiedOn: seconds(t.Modified), RolledOn: seconds(t.Rolled),
		NotBefore: seconds(t.Grant.NotBefore), ExpiresOn: seconds(t.Grant.ExpiresOn),
		Policies: s.policies(t.Grant.Policies),
		Template: t.Template, TemplateVersion: t.TemplateVersion, Widens: t.Widens,
	}
	if c := t.Grant.Condition; c != nil {
		ip := &addressBody{In: c.RequestIP.In, NotIn: c.RequestIP.NotIn}
		a.Condition = &conditionBody{RequestIP: ip, Dotted: ip}
	}
	return a
}

// policies returns policies as clients see them.
func (s *Service) policies(all []token.Policy) []policyAnswer {
	cat := s.Catalogue()
	out := make([]policyAnswer, 0, len(all))
	for _, p := range all {
		q := policyAnswer{ID: p.ID, Effect: p.Effect, Resources: p.Resources, Groups: make([]groupAnswer, 0, len(p.Groups))}
		for _, ref := range p.Groups {
			g, _ := cat.Group(ref.ID) // a group that is gone has no name
			q.Groups = append(q.Groups, groupAnswer{ID: ref.ID, Name: g.Name})
		}
		out = append(out, q)
	}
	return out
}

// status is computed: the clock alone makes a token expired.
func status(t *aggregate.Token, now time.Time) string {
	switch {
	case expired(t, now):
		return statusExpired
	case t.Status == aggregate.Disabled:
		return statusDisabled
	}
	return statusActive
}

func expired(t *aggregate.Token, now time.Time) bool {
	return !t.Grant.ExpiresOn.IsZero() && !now.Before(t.Grant.ExpiresOn)
}

// seconds writes a time as the API shows it, or nothing for no time.
func seconds(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Truncate(time.Second).Format(time.RFC3339)
}
