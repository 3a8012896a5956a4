package authority

import (
	"context"

	"watchword.dev/events"
	"watchword.dev/services/internal/command"
)

// class is how urgent a command is.
type class int

const (
	urgent  class = iota // ends or suspends something: before everything that waits
	normal               // everything else
	bulk                 // imports: at most half of a commit
	classes = 3
)

// classOf returns how urgent a command is. A revocation is urgent whoever asks
// for it; but one of very many leaves the others their turn.
func classOf(by *command.Caller, cmd command.Command) class {
	switch cmd.(type) {
	case command.RevokeToken:
		if by.Bulk {
			return normal
		}
		return urgent
	case command.Sweep, command.DisableToken, command.RetireEnforcer, command.RetireConsumer:
		return urgent
	}
	if by.Bulk {
		return bulk
	}
	return normal
}

// expected returns the subject on which the command's event will most likely
// be: commands that wait for the same one become one commit. When the decision
// differs, the command is queued again under the other.
func expected(cmd command.Command) string {
	if subject, ok := subjects[cmd.Verb()]; ok {
		return subject
	}
	return cmd.Verb() // waits under its own name
}

// subjects are those of the events to which commands lead most often, by verb.
var subjects = map[string]string{
	command.CreateToken{}.Verb():      subjectOf(&events.TokenCreated{}),
	command.UpdateToken{}.Verb():      subjectOf(&events.TokenUpdated{}),
	command.RollToken{}.Verb():        subjectOf(&events.TokenRolled{}),
	command.DisableToken{}.Verb():     subjectOf(&events.TokenDisabled{}),
	command.EnableToken{}.Verb():      subjectOf(&events.TokenEnabled{}),
	command.RevokeToken{}.Verb():      subjectOf(&events.TokenRevoked{}),
	command.RegisterUser{}.Verb():     subjectOf(&events.UserRegistered{}),
	command.UpdateUser{}.Verb():       subjectOf(&events.UserUpdated{}),
	command.RemoveUser{}.Verb():       subjectOf(&events.UserRemoved{}),
	command.IssueAPIKey{}.Verb():      subjectOf(&events.APIKeyIssued{}),
	command.RevokeAPIKey{}.Verb():     subjectOf(&events.APIKeyRevoked{}),
	command.CreateAccount{}.Verb():    subjectOf(&events.AccountCreated{}),
	command.UpdateAccount{}.Verb():    subjectOf(&events.AccountUpdated{}),
	command.RemoveAccount{}.Verb():    subjectOf(&events.AccountRemoved{}),
	command.ChangePolicy{}.Verb():     subjectOf(&events.PolicyChanged{}),
	command.ApplyPolicy{}.Verb():      subjectOf(&events.TokenUpdated{}),
	command.AddMember{}.Verb():        subjectOf(&events.MemberAdded{}),
	command.ChangeMember{}.Verb():     subjectOf(&events.MemberChanged{}),
	command.RemoveMember{}.Verb():     subjectOf(&events.MemberRemoved{}),
	command.RegisterResource{}.Verb(): subjectOf(&events.ResourceRegistered{}),
	command.UpdateResource{}.Verb():   subjectOf(&events.ResourceUpdated{}),
	command.MoveResource{}.Verb():     subjectOf(&events.ResourceMoved{}),
	command.RemoveResource{}.Verb():   subjectOf(&events.ResourceRemoved{}),
	command.EnrollEnforcer{}.Verb():   subjectOf(&events.EnforcerEnrolled{}),
	command.RetireEnforcer{}.Verb():   subjectOf(&events.EnforcerRetired{}),
	command.PublishCatalogue{}.Verb(): subjectOf(&events.CataloguePublished{}),
	command.Sweep{}.Verb():            subjectOf(&events.RevocationSwept{}),
}

func subjectOf(e events.Event) string { return events.SubjectOf(e.EventName()) }

// state is where a command is on its way.
type state int

const (
	waiting state = iota // in a queue
	taken                // part of the commit under way
	done                 // answered
	gone                 // given up while it waited
)

// item is a command on its way. state, holder and the queues are the
// business of Pen.mu; once taken, the rest is the holder's until it is done.
type item struct {
	ctx     context.Context
	by      command.Caller
	cmd     command.Command
	class   class
	subject string
	ticket  uint64 // order of arrival
	tries   int

	state  state
	holder bool // was told to hold the pen

	wake   chan bool // true: hold the pen; false: it is answered
	result command.Result
	err    error
}

// queue is one class of waiting commands: a first-in first-out line for each
// subject.
type queue struct {
	lines []line
}

type line struct {
	subject string
	items   []*item
	first   int
}

func (q *queue) line(subject string) *line {
	for i := range q.lines {
		if q.lines[i].subject == subject {
			return &q.lines[i]
		}
	}
	q.lines = append(q.lines, line{subject: subject})
	return &q.lines[len(q.lines)-1]
}

func (q *queue) push(it *item) {
	l := q.line(it.subject)
	l.items = append(l.items, it)
}

// unshift puts a command back that was taken out: it is the oldest again.
func (q *queue) unshift(it *item) {
	l := q.line(it.subject)
	if l.first > 0 {
		l.first--
		l.items[l.first] = it
		return
	}
	l.items = append(l.items, nil)
	copy(l.items[1:], l.items)
	l.items[0] = it
}

// oldest returns the first command of the line that still waits, and drops
// those before it that were given up.
func (l *line) oldest() *item {
	for l.first < len(l.items) {
		if it := l.items[l.first]; it.state == waiting {
			return it
		}
		l.drop()
	}
	return nil
}

// drop takes the first command out of the line.
func (l *line) drop() {
	l.items[l.first] = nil
	l.first++
	if l.first == len(l.items) {
		l.items, l.first = l.items[:0], 0
	} else if l.first > 4096 && l.first > len(l.items)/2 {
		n := copy(l.items, l.items[l.first:])
		clear(l.items[n:])
		l.items, l.first = l.items[:n], 0
	}
}

// oldest returns the line whose first waiting command came before those of all
// the others, or nil when nothing waits.
func (q *queue) oldest() *line {
	var best *line
	var at uint64
	for i := range q.lines {
		if it := q.lines[i].oldest(); it != nil && (best == nil || it.ticket < at) {
			best, at = &q.lines[i], it.ticket
		}
	}
	return best
}
