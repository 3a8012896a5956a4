package authority

import (
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
)

// Bounds of what a command may say.
const (
	// GraceMax is the longest grace of a roll.
	GraceMax = 30 * 24 * time.Hour
	// RepeatWindow is how long after a request its declared repeat is known
	// as such. A repeat renews it.
	RepeatWindow = time.Minute

	nameMax   = 120 // characters
	reasonMax = 256 // bytes
	textMax   = 128 // bytes of a request digest, a region, a role
	rolesMax  = 32
)

// rules are what decisions rest on beside the state: they never change while
// the pen lives.
type rules struct {
	catalogue *catalogue.Catalogue
	limits    token.Limits
	graceMax  time.Duration
	source    string // of the events
	// newID names events and policies. It is the only thing in a decision
	// that two tries do not share.
	newID func() token.ID
}

// outcome is what a command leads to: an event, or nothing because all is as
// it asks for already.
type outcome struct {
	draft       events.Draft // Data is nil when nothing needs to change
	token       token.ID     // whose state the result shows
	enforcer    token.ID
	redelivered bool
}

// decide answers a command at the head with the one event that it causes, or
// with the rule that it breaks: a fault.Code or a *fault.Error. It changes
// nothing.
func (r *rules) decide(v *view, by *command.Caller, cmd command.Command, now time.Time) (outcome, error) {
	v.err = nil
	out, err := r.decideAs(v, by, cmd, now)
	if v.err != nil {
		// A row could not be read: whatever was decided without it is void.
		return outcome{}, fault.Wrap(fault.Internal, fmt.Errorf("authority: read the past: %w", v.err))
	}
	if err != nil {
		return outcome{}, err
	}
	if out.draft.Data != nil {
		if name := out.draft.Data.EventName(); !writable(name) && !v.raised(name) {
			return outcome{}, fault.Wrap(fault.Internal, fmt.Errorf("authority: %s is not raised", name))
		}
	}
	return out, nil
}

func (r *rules) decideAs(v *view, by *command.Caller, cmd command.Command, now time.Time) (outcome, error) {
	p, err := r.authenticate(v, by, now)
	if err != nil {
		return outcome{}, err
	}
	switch c := cmd.(type) {
	case command.CreateToken:
		return r.createToken(v, p, &c, now)
	case command.UpdateToken:
		return r.updateToken(v, p, &c, now)
	case command.RollToken:
		return r.rollToken(v, p, &c, now)
	case command.DisableToken:
		return r.switchToken(v, p, c.Target, c.Reason, aggregate.Disabled, now)
	case command.EnableToken:
		return r.switchToken(v, p, c.Target, c.Reason, aggregate.Active, now)
	case command.RevokeToken:
		return r.revokeToken(v, p, &c, now)
	case command.RegisterUser:
		return r.registerUser(v, p, &c, now)
	case command.IssueAPIKey:
		return r.issueAPIKey(v, p, &c, now)
	case command.CreateAccount:
		return r.createAccount(v, p, &c, now)
	case command.AddMember:
		return r.addMember(v, p, &c, now)
	case command.EnrollEnforcer:
		return r.enrollEnforcer(v, p, &c, now)
	case command.RetireEnforcer:
		return r.retireEnforcer(v, p, &c, now)
	}
	return outcome{}, fault.Wrap(fault.Internal, fmt.Errorf("authority: no rule for %T", cmd))
}

// draft makes an event that the principal causes.
func (r *rules) draft(p *principal, kind string, id, account token.ID, now time.Time, data events.Event) events.Draft {
	return events.Draft{
		Envelope: events.Envelope{
			ID: r.newID(), Source: r.source, Name: data.EventName(), Subject: kind + "/" + id.String(), Time: now,
			Account: account, Actor: p.actor,
			RequestID: attribute(p.caller.RequestID), Traceparent: attribute(p.caller.Traceparent),
		},
		Data: data,
	}
}

// attribute returns s if it can stand in an event's envelope. The ids of
// requests are a help for people; a strange one must not stop a command.
func attribute(s string) string {
	if len(s) > events.MaxText {
		return ""
	}
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return ""
		}
	}
	return s
}

// checkName says whether s can name a thing.
func checkName(s string) error {
	n := utf8.RuneCountInString(s)
	if n == 0 || n > nameMax {
		return fault.New(fault.InvalidName).WithPointer("/name").WithDetail("1 to %d characters", nameMax)
	}
	if !cleanText(s) {
		return fault.New(fault.InvalidText).WithPointer("/name")
	}
	return nil
}

func checkReason(s string) error {
	if len(s) > reasonMax || !cleanText(s) {
		return fault.New(fault.InvalidReason).WithPointer("/reason").WithDetail("at most %d bytes of text", reasonMax)
	}
	return nil
}

func cleanText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, c := range s {
		if unicode.IsControl(c) {
			return false
		}
	}
	return true
}

// checkSecret says whether d can become a new secret: nothing else may have it,
// or one of the two could not be found any more.
func checkSecret(v *view, d token.Digest) error {
	if d.IsZero() {
		return fault.New(fault.InvalidField).WithPointer("/secret")
	}
	if _, taken := v.credential(d); taken {
		return fault.Conflict
	}
	return nil
}

// registerUser makes a person known. The system alone does that so far.
func (r *rules) registerUser(v *view, p *principal, c *command.RegisterUser, now time.Time) (outcome, error) {
	if !p.system {
		return outcome{}, fault.NotPermitted
	}
	if c.ID.IsZero() || c.EmailIndex == "" || len(c.EmailIndex) > textMax {
		return outcome{}, fault.InvalidField
	}
	if u, ok := v.user(c.ID); ok {
		if u.Status == aggregate.Active && u.EmailIndex == c.EmailIndex && u.Operator == c.Operator {
			return outcome{}, nil
		}
		return outcome{}, fault.Conflict
	}
	if v.emailTaken(c.EmailIndex) {
		return outcome{}, fault.Conflict
	}
	return outcome{draft: r.draft(p, "user", c.ID, token.ID{}, now, &events.UserRegistered{
		Email: c.Email, EmailIndex: c.EmailIndex, Name: c.Name, Operator: c.Operator, Origin: p.caller.Origin,
	})}, nil
}

// issueAPIKey gives a user a key or replaces it: the system for anybody, users
// by their present key for themselves.
func (r *rules) issueAPIKey(v *view, p *principal, c *command.IssueAPIKey, now time.Time) (outcome, error) {
	if !p.system && (p.token != nil || p.user.ID != c.User) {
		return outcome{}, fault.NotPermitted
	}
	u, ok := v.user(c.User)
	if !ok || u.Status != aggregate.Active {
		return outcome{}, fault.UserNotFound
	}
	if u.Key == c.Secret && !c.Secret.IsZero() {
		return outcome{}, nil
	}
	if err := checkSecret(v, c.Secret); err != nil {
		return outcome{}, err
	}
	var data events.Event = &events.APIKeyIssued{Secret: c.Secret, Origin: p.caller.Origin}
	if !u.Key.IsZero() {
		data = &events.APIKeyRolled{Secret: c.Secret, Origin: p.caller.Origin}
	}
	return outcome{draft: r.draft(p, "apikey", c.User, token.ID{}, now, data)}, nil
}

func (r *rules) createAccount(v *view, p *principal, c *command.CreateAccount, now time.Time) (outcome, error) {
	if !p.system {
		return outcome{}, fault.NotPermitted
	}
	if c.ID.IsZero() {
		return outcome{}, fault.InvalidField
	}
	if err := checkName(c.Name); err != nil {
		return outcome{}, err
	}
	if a, ok := v.account(c.ID); ok {
		if a.Status == aggregate.Active && a.Name == c.Name {
			return outcome{}, nil
		}
		return outcome{}, fault.Conflict
	}
	return outcome{draft: r.draft(p, "account", c.ID, c.ID, now, &events.AccountCreated{Name: c.Name, Origin: p.caller.Origin})}, nil
}

func (r *rules) addMember(v *view, p *principal, c *command.AddMember, now time.Time) (outcome, error) {
	if !p.system {
		return outcome{}, fault.NotPermitted
	}
	if c.ID.IsZero() || len(c.Roles) == 0 || len(c.Roles) > rolesMax ||
		slices.ContainsFunc(c.Roles, func(s string) bool { return s == "" || len(s) > textMax || !cleanText(s) }) {
		return outcome{}, fault.InvalidField
	}
	if !v.accountActive(c.Account) {
		return outcome{}, fault.AccountNotFound
	}
	if u, ok := v.user(c.User); !ok || u.Status != aggregate.Active {
		return outcome{}, fault.UserNotFound
	}
	if m, ok := v.member(c.Account, c.User); ok {
		if m.ID == c.ID && slices.Equal(m.Roles, c.Roles) {
			return outcome{}, nil
		}
		return outcome{}, fault.Conflict
	}
	return outcome{draft: r.draft(p, "member", c.ID, c.Account, now, &events.MemberAdded{
		Account: c.Account, User: c.User, Roles: c.Roles, Origin: p.caller.Origin,
	})}, nil
}

// operates says whether the principal runs the installation: the system, or an
// operator by their API key. Events then name the operator as such.
func (p *principal) operates() bool {
	if p.system {
		return true
	}
	if p.user == nil || p.token != nil || !p.user.Operator {
		return false
	}
	p.actor.Kind = events.ActorOperator
	return true
}

func (r *rules) enrollEnforcer(v *view, p *principal, c *command.EnrollEnforcer, now time.Time) (outcome, error) {
	if !p.operates() {
		return outcome{}, fault.NotPermitted
	}
	if err := checkName(c.Name); err != nil {
		return outcome{}, err
	}
	if c.ID.IsZero() || len(c.Region) > textMax || !cleanText(c.Region) || c.CeilingSeconds < 0 {
		return outcome{}, fault.InvalidField
	}
	if n, ok := v.enforcer(c.ID); ok {
		if n.Status == aggregate.Active && n.Secret == c.Secret && n.Name == c.Name {
			return outcome{enforcer: c.ID}, nil
		}
		return outcome{}, fault.Conflict
	}
	if err := checkSecret(v, c.Secret); err != nil {
		return outcome{}, err
	}
	return outcome{enforcer: c.ID, draft: r.draft(p, "enforcer", c.ID, token.ID{}, now, &events.EnforcerEnrolled{
		Name: c.Name, Region: c.Region, Secret: c.Secret, CeilingSeconds: c.CeilingSeconds, Origin: p.caller.Origin,
	})}, nil
}

func (r *rules) retireEnforcer(v *view, p *principal, c *command.RetireEnforcer, now time.Time) (outcome, error) {
	if !p.operates() {
		return outcome{}, fault.NotPermitted
	}
	if err := checkReason(c.Reason); err != nil {
		return outcome{}, err
	}
	if n, ok := v.enforcer(c.ID); !ok || n.Status != aggregate.Active {
		return outcome{}, fault.EnforcerNotFound
	}
	return outcome{enforcer: c.ID, draft: r.draft(p, "enforcer", c.ID, token.ID{}, now, &events.EnforcerRetired{
		Reason: c.Reason, Origin: p.caller.Origin,
	})}, nil
}
