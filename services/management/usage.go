package management

import (
	"errors"
	"slices"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/events/usage"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// need is a permission that a request has needed.
type need struct {
	permission string
	chain      []string
	held       bool
}

// maxNeeds bounds what is remembered of one request: lists ask for every
// element.
const maxNeeds = 4

// need remembers that the request needs a permission. What is not held is
// remembered only when nothing else is: a list leaves it out.
func (c *caller) need(permission string, held bool, chain ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.needs) == maxNeeds || !held && len(c.needs) > 0 {
		return
	}
	if held {
		c.needs = slices.DeleteFunc(c.needs, func(n need) bool { return !n.held })
	}
	if slices.ContainsFunc(c.needs, func(n need) bool { return n.permission == permission && slices.Equal(n.chain, chain) }) {
		return
	}
	c.needs = append(c.needs, need{permission, chain, held})
}

// The permissions that commands need; the authority decides on them.
const (
	writeUserTokens    = "user.tokens.write"
	writeAccountTokens = "account.tokens.write"
)

// commands remembers what a command needs. Those that only operators may give
// need no permission.
func (c *caller) commands(cmd command.Command) {
	switch cmd := cmd.(type) {
	case command.CreateToken:
		c.tokenCommand(cmd.Target)
	case command.UpdateToken:
		c.tokenCommand(cmd.Target)
	case command.RollToken:
		c.tokenCommand(cmd.Target)
	case command.DisableToken:
		c.tokenCommand(cmd.Target)
	case command.EnableToken:
		c.tokenCommand(cmd.Target)
	case command.RevokeToken:
		c.tokenCommand(cmd.Target)
	case command.UpdateAccount:
		c.accountCommand(cmd.ID)
	case command.ChangePolicy:
		c.accountCommand(cmd.Account)
	case command.AddMember:
		c.accountCommand(cmd.Account)
	case command.ChangeMember:
		c.accountCommand(cmd.Account)
	case command.RemoveMember:
		c.accountCommand(cmd.Account)
	case command.RegisterResource, command.UpdateResource, command.MoveResource, command.RemoveResource:
		c.accountCommand(c.lastAbout())
	}
}

func (c *caller) tokenCommand(t command.Target) {
	if t.OwnerKind == events.OwnedByAccount {
		c.need(writeAccountTokens, true, accountType+t.Owner.String())
		return
	}
	c.need(writeUserTokens, true, userType+c.user.ID.String())
}

func (c *caller) accountCommand(id token.ID) {
	if !id.IsZero() {
		c.need(writeAccount, true, accountType+id.String())
	}
}

// credential returns what the caller came by.
func (c *caller) credential() (token.ID, usage.Kind) {
	switch {
	case c.token == nil:
		return c.user.ID, usage.APIKey
	case c.token.Foreign:
		return c.token.ID, usage.ForeignToken
	case c.token.OwnerKind == events.OwnedByAccount:
		return c.token.ID, usage.AccountToken
	}
	return c.token.ID, usage.UserToken
}

// countUse counts a request of a caller who was let in, which ended in err.
func (s *Service) countUse(c *caller, err error) {
	if s.Count == nil {
		return
	}
	id, kind := c.credential()
	result := usage.Allowed
	if refusal(err) {
		result = usage.Refused
	}
	lane := s.Count.Lane()
	if len(c.needs) == 0 {
		lane.Use(id, kind, "", nil, result)
	}
	for _, n := range c.needs {
		lane.Use(id, kind, n.permission, n.chain, result)
	}
}

// countRejected counts a request of a caller whose credential is not good now,
// once it has ended: it may be looked at twice.
func (s *Service) countRejected(x *web.Exchange, c *caller) {
	if s.Count == nil {
		return
	}
	x.AtEnd(func(error) {
		id, kind := c.credential()
		s.Count.Lane().Use(id, kind, "", nil, usage.Rejected)
	})
}

// refusal says whether a request was refused for what the caller may not do.
func refusal(err error) bool {
	return err != nil && slices.ContainsFunc([]fault.Code{
		fault.NotPermitted, fault.PermissionMissing, fault.ListNotPermitted, fault.AccountTokenRefused, fault.GroupNotHeld,
		fault.RoleNotHeld, fault.AccountNotFound, fault.APIKeysEnded,
	}, func(code fault.Code) bool { return errors.Is(err, code) })
}

// lastUsed returns when a token was last used, or no time when it never was, or
// while that is not to be had: nobody is refused a token for it.
func (s *Service) lastUsed(id token.ID) time.Time {
	if s.Usage == nil {
		return time.Time{}
	}
	span, _, err := s.Usage.Span(id)
	if err != nil {
		s.Log.Error("when a token was last used cannot be read", "error", err)
	}
	return span.Last
}
