package authority

import (
	"fmt"
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
// the pen lives, but for the catalogue.
type rules struct {
	// catalogue is that of the view of the decision under way.
	catalogue  *catalogue.Catalogue
	catalogues *aggregate.Catalogues

	limits   token.Limits
	graceMax time.Duration
	quota    command.Quota
	source   string // of the events
	// newID names events and policies. It is the only thing in a decision
	// that two tries do not share.
	newID func() token.ID
}

// outcome is what a command leads to: an event, or nothing because all is as
// it asks for already.
type outcome struct {
	draft       events.Draft // Data is nil when nothing needs to change
	redelivered bool

	// Whose state the result shows.
	token, enforcer, consumer, user, account, member token.ID
	resource                                         string // its key
	sweep                                            aggregate.Selection
}

// decide answers a command at the head with the one event that it causes, or
// with the rule that it breaks: a fault.Code or a *fault.Error. It changes
// nothing.
func (r *rules) decide(v *view, by *command.Caller, cmd command.Command, now time.Time) (outcome, error) {
	v.err = nil
	var err error
	if r.catalogue, err = r.catalogues.Of(v.published()); err != nil {
		return outcome{}, fault.Wrap(fault.Internal, err)
	}
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
	out, err := r.decideFor(v, p, cmd, now)
	if err != nil && p.keyEnded {
		return outcome{}, fault.APIKeysEnded
	}
	return out, err
}

func (r *rules) decideFor(v *view, p *principal, cmd command.Command, now time.Time) (outcome, error) {
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
	case command.Sweep:
		return r.sweep(v, p, &c, now)
	case command.NoteExpiry:
		return r.noteExpiry(v, p, &c, now)
	case command.EnrollEnforcer:
		return r.enrollEnforcer(v, p, &c, now)
	case command.RetireEnforcer:
		return r.retireEnforcer(v, p, &c, now)
	case command.EnrollConsumer:
		return r.enrollConsumer(v, p, &c, now)
	case command.RetireConsumer:
		return r.retireConsumer(v, p, &c, now)
	case command.PublishCatalogue:
		return r.publishCatalogue(v, p, &c, now)
	}
	return r.decideDirectory(v, p, cmd, now)
}

// decideDirectory answers the commands about users, accounts and what lies in
// them.
func (r *rules) decideDirectory(v *view, p *principal, cmd command.Command, now time.Time) (outcome, error) {
	switch c := cmd.(type) {
	case command.RegisterUser:
		return r.registerUser(v, p, &c, now)
	case command.UpdateUser:
		return r.updateUser(v, p, &c, now)
	case command.RemoveUser:
		return r.removeUser(v, p, &c, now)
	case command.IssueAPIKey:
		return r.issueAPIKey(v, p, &c, now)
	case command.RevokeAPIKey:
		return r.revokeAPIKey(v, p, &c, now)
	case command.CreateAccount:
		return r.createAccount(v, p, &c, now)
	case command.UpdateAccount:
		return r.updateAccount(v, p, &c, now)
	case command.RemoveAccount:
		return r.removeAccount(v, p, &c, now)
	case command.ChangePolicy:
		return r.changePolicy(v, p, &c, now)
	case command.ApplyPolicy:
		return r.applyPolicy(v, p, &c, now)
	case command.AddMember:
		return r.addMember(v, p, &c, now)
	case command.ChangeMember:
		return r.changeMember(v, p, &c, now)
	case command.RemoveMember:
		return r.removeMember(v, p, &c, now)
	case command.RegisterResource:
		return r.registerResource(v, p, &c, now)
	case command.UpdateResource:
		return r.updateResource(v, p, &c, now)
	case command.MoveResource:
		return r.moveResource(v, p, &c, now)
	case command.RemoveResource:
		return r.removeResource(v, p, &c, now)
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

// cleanText says whether s shows as what it is: no control characters, no line
// separators, and none of the format characters with which a text can be
// reordered or hidden, such as bidirectional overrides.
func cleanText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, c := range s {
		if unicode.In(c, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
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
