package command

import (
	"errors"
	"strings"

	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
)

// GrantFault is the public form of a refusal of a grant: the same whether the node
// that heard the request refuses it or the pen.
func GrantFault(err error, cat *catalogue.Catalogue) error {
	e, ok := errors.AsType[*token.GrantError](err)
	if !ok {
		return fault.Wrap(fault.InvalidPolicies, err)
	}
	out := fault.Wrap(grantCode(e), err).WithPointer(fault.Pointer(e.Pointer))
	if g, ok := cat.Group(e.Group); ok {
		return out.WithDetail(`(Permission group: "%s")`, fault.Public(g.Name))
	}
	return out.WithDetail("%s", fault.Public(e.Text)) // the text holds nothing that was sent
}

func grantCode(e *token.GrantError) fault.Code {
	switch e.Kind {
	case token.UnknownGroup:
		return fault.UnknownPermissionGroup
	case token.WrongScope:
		return fault.GroupScopeMismatch
	case token.NotHeld:
		return fault.GroupNotHeld
	}
	switch at := e.Pointer; {
	case at == "/not_before", at == "/expires_on":
		return fault.InvalidTimes
	case strings.HasPrefix(at, "/condition/request_ip/") && e.Kind == token.Invalid:
		return fault.InvalidCIDR
	case strings.HasPrefix(at, "/condition"):
		return fault.InvalidCondition
	case strings.HasSuffix(at, "/effect"):
		return fault.InvalidEffect
	case strings.HasSuffix(at, "/resources"):
		return fault.InvalidResources
	}
	return fault.InvalidPolicies
}
