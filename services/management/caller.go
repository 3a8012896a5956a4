package management

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// The permissions of the management API, and the types of the resources that
// they are about.
const (
	readUserTokens    = "user.tokens.read"
	readUserDetails   = "user.details.read"
	readMemberships   = "user.memberships.read"
	readAccountTokens = "account.tokens.read"
	readAccount       = "account.settings.read"
	writeAccount      = "account.settings.write"
	readZone          = "zone.read"

	userType    = "com.cloudflare.api.user."
	accountType = "com.cloudflare.api.account."
)

// caller is who asked, as the directory knows them.
type caller struct {
	user  aggregate.User   // zero for account tokens
	token *aggregate.Token // nil for API keys
	// What the token's grant is evaluated with.
	grant     token.Compiled
	catalogue *catalogue.Catalogue
	address   netip.Addr
	now       time.Time

	mu      sync.Mutex  // guards what follows: the rows of an import are judged side by side
	header  http.Header // of the answer, for those who come by an API key
	account token.ID    // in which the request was last found to be about something
	needs   []need      // what the request has needed, for the count of uses
}

// about remembers in which account the request was found to be about something.
func (c *caller) about(id token.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.account = id
}

// lastAbout returns what about was last told.
func (c *caller) lastAbout() token.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.account
}

// person is under whose key the caller's personal fields are sealed: the user,
// or the account for its tokens.
func (c *caller) person() token.ID {
	if c.token != nil {
		return c.token.Owner
	}
	return c.user.ID
}

// byAccount returns the account whose token the caller used.
func (c *caller) byAccount() (token.ID, bool) {
	if c.token != nil && c.token.OwnerKind == events.OwnedByAccount {
		return c.token.Owner, true
	}
	return token.ID{}, false
}

// may reports whether the caller's credential allows permission on a resource,
// which is named last, after what it lies in. An API key allows everything that
// its user may do.
func (c *caller) may(permission string, chain ...string) bool {
	ok := c.allows(permission, chain...)
	c.need(permission, ok, chain...)
	return ok
}

// allows is may for a question that is no use of the credential.
func (c *caller) allows(permission string, chain ...string) bool {
	ok := c.token == nil
	if !ok {
		_, _, ok = c.grant.Evaluate(c.catalogue, c.catalogue.Permission(permission), chain, c.address, c.now)
	}
	return ok
}

// operator reports whether the caller is one of those who run the
// installation, with their API key: no token stands for that.
func (c *caller) operator() bool { return c.token == nil && c.user.Operator }

// presented returns the credential of x if it is one that somebody could have.
// Nobody is asked for that: what has no valid form costs nothing.
func presented(x *web.Exchange) (web.Credential, error) {
	cred, err := x.Credential()
	switch {
	case err != nil:
		return cred, err
	case cred.None():
		return cred, fault.New(fault.MissingCredentials)
	case cred.Kind == token.KindUser, cred.Kind == token.KindAccount, cred.Key():
		return cred, nil
	}
	return cred, fault.New(fault.InvalidAccessToken)
}

// authenticate finds out who sent x from what the directory knows now, and
// counts the request as theirs.
func (s *Service) authenticate(x *web.Exchange) (*caller, error) {
	cred, err := presented(x)
	if err != nil {
		return nil, err
	}
	if cred.Key() {
		c, err := s.byKey(cred)
		if err != nil {
			return nil, err
		}
		x.Recognised()
		if err := s.sunset(x, c); err != nil {
			s.countRejected(x, c)
			return nil, err
		}
		return c, s.admit(x, c, c.user.ID)
	}
	c, err := s.byToken(x, cred)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, fault.New(fault.InvalidAccessToken)
	}
	switch state(c) {
	case token.ReasonNone:
		return c, s.admit(x, c, c.token.ID)
	case token.ReasonAddress:
		s.countRejected(x, c)
		return nil, addressRefused(x)
	}
	s.countRejected(x, c)
	return nil, fault.New(fault.InactiveAccessToken)
}

// admit counts the request as the principal's, and what it needs as a use of
// their credential.
func (s *Service) admit(x *web.Exchange, c *caller, principal token.ID) error {
	x.AtEnd(func(err error) { s.countUse(c, err) })
	return x.Admit(principal)
}

func (s *Service) byKey(cred web.Credential) (*caller, error) {
	found, ok, err := s.Directory.Credential(cred.Secret.Digest())
	if err != nil {
		return nil, err
	}
	if !ok || found.Kind != token.KindKey {
		return nil, fault.New(fault.InvalidAPIKey)
	}
	u, ok, err := s.Directory.User(found.ID)
	if err != nil {
		return nil, err
	}
	if !ok || u.Status != aggregate.Active || u.EmailIndex != s.Sealer.EmailIndex(cred.Email) {
		return nil, fault.New(fault.InvalidAPIKey)
	}
	return &caller{user: u, now: s.Now()}, nil
}

// byToken returns the caller who has this token's secret, whatever the state
// of the token, or nil when nobody has it. Only who is let in by that state is
// counted as the token's: one who found the secret and asks from elsewhere must
// not use up what its owner may send.
func (s *Service) byToken(x *web.Exchange, cred web.Credential) (*caller, error) {
	if cred.Kind != token.KindUser && cred.Kind != token.KindAccount {
		return nil, nil
	}
	now := s.Now()
	found, ok, err := s.Directory.Credential(cred.Secret.Digest())
	if err != nil || !ok || found.Kind != cred.Kind {
		return nil, err
	}
	if !found.Until.IsZero() && !now.Before(found.Until) {
		return nil, nil
	}
	t, ok, err := s.Directory.Token(found.ID)
	if err != nil || !ok || t.Status == aggregate.Revoked {
		return nil, err
	}
	x.Recognised()
	c := &caller{token: &t, catalogue: s.Catalogue(), address: x.Address, now: now}
	if t.OwnerKind == events.OwnedByUser {
		if c.user, ok, err = s.Directory.User(t.Owner); err != nil || !ok || c.user.Status != aggregate.Active {
			return nil, err
		}
	}
	if c.grant, err = token.Compile(t.Grant, c.catalogue); err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	return c, nil
}

// state says whether the caller's token can be used now and from here, and if
// not, why not.
func state(c *caller) token.Reason {
	reason, _, _ := c.grant.Evaluate(c.catalogue, catalogue.PermissionRef(0), nil, c.address, c.now)
	switch {
	case reason == token.ReasonAddress:
		return reason
	case c.token.Status == aggregate.Disabled:
		return token.ReasonDisabled
	case reason == token.ReasonUnknownPermission:
		return token.ReasonNone // everything before the permission holds
	}
	return reason
}

func addressRefused(x *web.Exchange) error {
	f := fault.New(fault.AddressRefused)
	if !x.Address.IsValid() {
		return f
	}
	return f.WithDetail("%v", x.Address)
}

// reader authenticates the sender of a read at the head.
func (s *Service) reader(x *web.Exchange) (*caller, error) {
	if _, err := presented(x); err != nil {
		return nil, err
	}
	if err := s.fresh(x); err != nil {
		return nil, err
	}
	return s.authenticate(x)
}

// writer finds out who sends a command, before anything else is read of it.
// The authority authenticates and authorises for itself, at its own head; here
// it is known whose personal fields are to be sealed, and strangers go no
// further.
//
// The directory is asked as it is: what it knows of a secret's owner does not
// change. Only a stranger is looked for again at the head. An account that the
// caller does not belong to is refused here, in the same words as one that
// does not exist; zero is no account.
func (s *Service) writer(x *web.Exchange, account token.ID) (*caller, error) {
	if _, err := presented(x); err != nil {
		return nil, err
	}
	if c, err := s.knownWriter(x, account); err == nil || errors.Is(err, fault.RateLimited) {
		return c, err
	}
	if err := s.fresh(x); err != nil {
		return nil, err
	}
	return s.knownWriter(x, account)
}

func (s *Service) knownWriter(x *web.Exchange, account token.ID) (*caller, error) {
	c, err := s.authenticate(x)
	if err != nil || account.IsZero() {
		return c, err
	}
	_, err = s.belonging(c, account)
	return c, err
}

// sender is the caller as a command names them: by the digest of what they
// presented, and with where they sent it from sealed.
func (s *Service) sender(x *web.Exchange, c *caller) (command.Caller, error) {
	cred, err := x.Credential()
	if err != nil {
		return command.Caller{}, err
	}
	by := command.Caller{
		Kind: cred.Kind, Digest: cred.Secret.Digest(), Address: x.Address,
		RequestID: x.RequestID, Traceparent: x.Traceparent, Bulk: x.Request().Header.Get(web.BulkHeader) == "true",
	}
	if cred.Key() {
		by.EmailIndex = s.Sealer.EmailIndex(cred.Email)
	}
	by.Origin, err = s.origin(x, c.person())
	return by, err
}

// origin seals from where a command came.
func (s *Service) origin(x *web.Exchange, person token.ID) (events.Origin, error) {
	var o events.Origin
	var err error
	if x.Address.IsValid() {
		if o.Address, err = s.seal(x.Context(), person, x.Address.String()); err != nil {
			return o, err
		}
	}
	if agent := x.UserAgent(); agent != "" {
		o.Agent, err = s.seal(x.Context(), person, agent)
	}
	return o, err
}

func (s *Service) seal(ctx context.Context, person token.ID, text string) (*events.Sealed, error) {
	f, err := s.Sealer.Seal(ctx, person, text)
	if err != nil {
		return nil, fault.Wrap(fault.NotReady, err)
	}
	return &f, nil
}
