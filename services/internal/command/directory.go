package command

import (
	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/token"
)

// UpdateUser changes what is known of a person. Email comes with EmailIndex or
// not at all; without it, and without Name, each stays as it is.
type UpdateUser struct {
	ID         token.ID       `json:"id"`
	Email      *events.Sealed `json:"email,omitzero"`
	EmailIndex string         `json:"email_index,omitzero"`
	Name       *events.Sealed `json:"name,omitzero"`
	NoName     bool           `json:"no_name,omitzero"` // forgets the name
}

// RemoveUser ends a user, with their tokens, key and memberships.
type RemoveUser struct {
	ID     token.ID `json:"id"`
	Reason string   `json:"reason,omitzero"`
}

// RevokeAPIKey ends a user's Global API Key.
type RevokeAPIKey struct {
	User   token.ID `json:"user"`
	Reason string   `json:"reason,omitzero"`
}

// UpdateAccount renames an account.
type UpdateAccount struct {
	ID   token.ID `json:"id"`
	Name string   `json:"name"`
}

// RemoveAccount ends an account, with its tokens and memberships and the
// resources that lie in it.
type RemoveAccount struct {
	ID     token.ID `json:"id"`
	Reason string   `json:"reason,omitzero"`
}

// ChangePolicy replaces what holds for the tokens that reach into an account.
type ChangePolicy struct {
	Account token.ID         `json:"account"`
	Policy  aggregate.Policy `json:"policy"`
}

// ChangeMember replaces a member's roles. A membership of another account is as
// unknown as one that does not exist.
type ChangeMember struct {
	ID      token.ID `json:"id"`
	Account token.ID `json:"account"`
	Roles   []string `json:"roles"`
}

// RemoveMember ends a membership.
type RemoveMember struct {
	ID      token.ID `json:"id"`
	Account token.ID `json:"account"`
}

// RegisterResource makes a resource known: Type and Resource are its key,
// Parent is the key of what it lies in. The authority names the registration.
type RegisterResource struct {
	Type     string `json:"type"`
	Resource string `json:"resource"`
	Name     string `json:"name"`
	Parent   string `json:"parent"`
}

// UpdateResource renames a resource.
type UpdateResource struct {
	Type     string `json:"type"`
	Resource string `json:"resource"`
	Name     string `json:"name"`
}

// MoveResource lays a resource, with all that lies in it, into another one.
type MoveResource struct {
	Type     string `json:"type"`
	Resource string `json:"resource"`
	Parent   string `json:"parent"`
}

// RemoveResource ends a registration. What lies in the resource is nobody's
// until it is moved.
type RemoveResource struct {
	Type     string `json:"type"`
	Resource string `json:"resource"`
	Reason   string `json:"reason,omitzero"`
}

// The verbs.
func (UpdateUser) Verb() string       { return "user.update" }
func (RemoveUser) Verb() string       { return "user.remove" }
func (RevokeAPIKey) Verb() string     { return "apikey.revoke" }
func (UpdateAccount) Verb() string    { return "account.update" }
func (RemoveAccount) Verb() string    { return "account.remove" }
func (ChangePolicy) Verb() string     { return "policy.change" }
func (ChangeMember) Verb() string     { return "member.change" }
func (RemoveMember) Verb() string     { return "member.remove" }
func (RegisterResource) Verb() string { return "resource.register" }
func (UpdateResource) Verb() string   { return "resource.update" }
func (MoveResource) Verb() string     { return "resource.move" }
func (RemoveResource) Verb() string   { return "resource.remove" }
