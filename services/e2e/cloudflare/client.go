package cloudflare

import (
	"context"
	"net/http"
	"time"
)

// Client is one of Cloudflare's clients. A function that is nil, and what a
// Can denies, it cannot do; everything else it must.
type Client struct {
	Name  string
	Kinds []Kind
	Can   Can

	User        func(context.Context, As) (User, error)
	Accounts    func(context.Context, As) ([]Named, error)
	Account     func(ctx context.Context, as As, id string) (Named, error)
	Memberships func(context.Context, As) ([]Named, error) // the accounts
	Zones       func(ctx context.Context, as As, name string) ([]Zone, error)

	// Refusal reads the API's refusal out of an error: HTTP status and first
	// code. Other errors are none.
	Refusal func(error) (status, code int, ok bool)
}

// Can is what only newer clients can do.
type Can struct {
	Page        bool // through a list, in both directions
	Filter      bool // permission groups by name and scope
	SendEmptyIn bool // the condition that nobody meets
	Count       bool // its repeats of a request, in a header
}

// Kind is one of the two sets of token routes.
type Kind struct {
	Name, Prefix string

	Create func(context.Context, As, Wish) (Token, error)
	Get    func(ctx context.Context, as As, id string) (Token, error)
	Update func(ctx context.Context, as As, id string, w Wish) (Token, error)
	List   func(ctx context.Context, as As, perPage int, descending bool) ([]Token, error)
	// Rolls are the ways in which the client's users send a roll.
	Rolls  []func(ctx context.Context, as As, id string) (string, error)
	Delete func(ctx context.Context, as As, id string) error
	Verify func(context.Context, As) (State, error)
	Groups func(ctx context.Context, as As, name, scope string) ([]Group, error)
}

// As is where and as whom a client asks: with a token, with a Global API Key,
// or with neither.
type As struct {
	BaseURL    string
	Email, Key string
	Token      string
	AccountID  string // of account tokens
	Repeats    int    // how often the client may repeat a request
	HTTP       *http.Client
}

// Wish is what a token shall be. The zero value of a field is not sent, but
// for the name and the policies of clients that always send them.
type Wish struct {
	Name               string
	Policies           []Policy
	Condition          *Condition
	NotBefore, Expires time.Time
	Status             string // updates only
}

// Token is what clients say of a token.
type Token struct {
	ID, Name, Status, Secret string
	Issued, Modified         time.Time
	NotBefore, Expires       time.Time
	Policies                 []Policy
	Condition                *Condition
}

// Policy is one of a token's. A resource's value is "*" or a map of strings;
// clients from v6 on cannot mix the two.
type Policy struct {
	ID, Effect string
	Resources  map[string]any
	Groups     []Group
}

// Condition limits addresses. An empty list is not the same as none.
type Condition struct{ In, NotIn []string }

// Group is a permission group.
type Group struct {
	ID, Name, Category string
	Scopes             []string
}

// State is what verify says.
type State struct {
	ID, Status         string
	NotBefore, Expires time.Time
}

// User is the user that a client sees.
type User struct{ ID, Email string }

// Named is an account.
type Named struct{ ID, Name string }

// Zone is a zone.
type Zone struct{ ID, Name, Status, AccountID string }
