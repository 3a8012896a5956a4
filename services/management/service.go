package management

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/events/usage"
	"watchword.dev/projections/directory"
	used "watchword.dev/projections/usage"
	"watchword.dev/projections/verifyindex"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/prefill"
	"watchword.dev/services/internal/web"
)

// Authority decides commands and knows the head.
type Authority = command.Authority

// Directory is what reads rest on. Every value belongs to whoever asked.
type Directory interface {
	Credential(token.Digest) (aggregate.Credential, bool, error)
	Token(token.ID) (aggregate.Token, bool, error)
	Tokens(directory.TokenQuery) (directory.Page[aggregate.Token], error)
	TokensAfter(o directory.Owner, after token.ID, most int) ([]aggregate.Token, error)
	TokenCounts(directory.Owner) (directory.Counts, bool, error)
	LivingCount(directory.Selection) (uint64, error)
	LivingAfter(of directory.Selection, after token.ID, most int, visit func(*aggregate.Token) error) (token.ID, error)
	Position() events.Position
	User(token.ID) (aggregate.User, bool, error)
	UserByEmail(index string) (aggregate.User, bool, error)
	AllUsers(directory.Listing) (directory.Page[aggregate.User], error)
	Account(token.ID) (aggregate.Account, bool, error)
	AllAccounts(directory.Listing) (directory.Page[aggregate.Account], error)
	Member(token.ID) (aggregate.Member, bool, error)
	MembersPage(account token.ID, ask directory.Listing) (directory.Page[aggregate.Member], error)
	Resource(key string) (aggregate.Resource, bool, error)
	Resources(directory.ResourceQuery) (directory.Page[aggregate.Resource], error)
	MemberOf(account, user token.ID) (aggregate.Member, bool, error)
	Memberships(user token.ID) ([]aggregate.Member, error)
	Enforcers() ([]aggregate.Enforcer, error)
	Consumers() ([]aggregate.Consumer, error)
	Catalogues
	// Applied is the last sequence that queries see.
	Applied() uint64
}

// Waiter waits until a projection has reached a sequence.
type Waiter interface {
	Wait(ctx context.Context, seq uint64) error
}

// Verifier recognises secrets without the pen. verifyindex.Index is one.
type Verifier interface {
	Identify(secret string, from netip.Addr) (verifyindex.Identity, token.Reason)
}

// Usage knows what credentials were used for. The projection of that name is
// one.
type Usage interface {
	Span(token.ID) (used.Span, bool, error)
	History(id token.ID, since, now time.Time) (used.History, error)
	Lost(since time.Time) (uint64, error)
}

// Sealer keeps personal fields.
type Sealer interface {
	Seal(ctx context.Context, person token.ID, text string) (events.Sealed, error)
	Show(ctx context.Context, s events.Sealed) (string, error)
	EmailIndex(email string) string
}

// Config is what a Service needs. All fields without a default must be set.
type Config struct {
	Authority Authority
	Directory Directory
	Reached   Waiter // for the directory
	// Verifier answers token verification while no pen can be asked for the
	// head, as long as it is fresh enough. Nil means to answer 503 then.
	Verifier Verifier
	// Count counts what credentials are used for here, and Usage knows what
	// they were used for everywhere. Nil means not to.
	Count *usage.Recorder
	Usage Usage
	// Receipts knows who has heard of a revocation. Nil means that nobody does
	// here.
	Receipts Receipts
	// Settle are the projections of this node that a write gives SettleTime to
	// reach its sequence before it is answered, so that whoever uses the
	// answer here sees its effect. None, or no time, means not to wait.
	Settle     []Waiter
	SettleTime time.Duration

	Sealer Sealer
	// RequestKey keys the digests by which repeated requests are known: 32
	// bytes, the same on all nodes.
	RequestKey []byte
	// Catalogue returns the present one.
	Catalogue func() *catalogue.Catalogue
	Format    token.Format
	IDs       *token.Generator // nil: a generator of its own
	Now       func() time.Time // nil: time.Now
	// ReadWait bounds how long a read waits for the head; 2 s when zero.
	ReadWait time.Duration
	// CommandWait bounds a command; 10 s when zero.
	CommandWait time.Duration
	Limits      token.Limits // zero: token.DefaultLimits
	Log         *slog.Logger // nil: slog.Default()
	// Quota is the authority's, to be shown; it is the authority that keeps it.
	Quota command.Quota
}

// Service answers the management API.
type Service struct {
	Config
	catalogues aggregate.Catalogues
}

// New returns a service with the defaults of cfg filled in.
func New(cfg Config) (*Service, error) {
	if cfg.Authority == nil || cfg.Directory == nil || cfg.Reached == nil || cfg.Sealer == nil || cfg.Catalogue == nil {
		return nil, errors.New("management: authority, directory, reached, sealer and catalogue are needed")
	}
	if len(cfg.RequestKey) < 32 {
		return nil, errors.New("management: the request key needs 32 bytes")
	}
	if cfg.IDs == nil {
		cfg.IDs = token.NewGenerator(nil)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.ReadWait == 0 {
		cfg.ReadWait = 2 * time.Second
	}
	if cfg.CommandWait == 0 {
		cfg.CommandWait = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Limits == (token.Limits{}) {
		cfg.Limits = token.DefaultLimits
	}
	return &Service{Config: cfg}, nil
}

// base is where Cloudflare's clients expect the API.
const base = "/client/v4"

// Routes adds the service's routes to rt.
func (s *Service) Routes(rt *web.Router) {
	s.tokenRoutes(rt, base+"/user/tokens", userOwned)
	s.tokenRoutes(rt, base+"/accounts/{account_id}/tokens", accountOwned)

	rt.Handle(http.MethodGet, base+"/user", s.getUser)
	rt.Handle(http.MethodGet, base+"/memberships", s.listMemberships)

	s.directoryRoutes(rt)
	s.incidentRoutes(rt)
	rt.Handle(http.MethodGet, prefill.Path, s.readLink)
	rt.Handle(http.MethodPost, importPath, s.importTokens)
	rt.Exempt(importPath)
	rt.Handle(http.MethodPost, importDirectoryPath, s.importDirectory)
	rt.Handle(http.MethodGet, base+"/catalogue", s.getCatalogue)
	rt.Handle(http.MethodPut, base+"/catalogue", s.putCatalogue)

	rt.Handle(http.MethodGet, "/v1/enforcers", s.listEnforcers)
	rt.Handle(http.MethodPost, "/v1/enforcers", s.enrollEnforcer)
	rt.Handle(http.MethodDelete, "/v1/enforcers/{enforcer_id}", s.retireEnforcer)
	rt.Handle(http.MethodGet, "/v1/consumers", s.listConsumers)
	rt.Handle(http.MethodPost, "/v1/consumers", s.enrollConsumer)
	rt.Handle(http.MethodDelete, "/v1/consumers/{consumer_id}", s.retireConsumer)
}

// directoryRoutes adds the routes about who and what there is.
func (s *Service) directoryRoutes(rt *web.Router) {
	for _, r := range []struct {
		method, path string
		handle       web.Handler
	}{
		{http.MethodGet, "/accounts", s.listAccounts},
		{http.MethodPost, "/accounts", s.createAccount},
		{http.MethodGet, "/accounts/{account_id}", s.getAccount},
		{http.MethodPut, "/accounts/{account_id}", s.updateAccount},
		{http.MethodDelete, "/accounts/{account_id}", s.removeAccount},
		{http.MethodGet, "/accounts/{account_id}/members", s.listMembers},
		{http.MethodPost, "/accounts/{account_id}/members", s.addMember},
		{http.MethodGet, "/accounts/{account_id}/members/{member_id}", s.getMember},
		{http.MethodPut, "/accounts/{account_id}/members/{member_id}", s.changeMember},
		{http.MethodDelete, "/accounts/{account_id}/members/{member_id}", s.removeMember},
		{http.MethodGet, "/accounts/{account_id}/roles", s.listRoles},
		{http.MethodGet, "/accounts/{account_id}/token_policy", s.getTokenPolicy},
		{http.MethodPut, "/accounts/{account_id}/token_policy", s.putTokenPolicy},
		{http.MethodPost, "/accounts/{account_id}/token_policy/preview", s.previewTokenPolicy},
		{http.MethodPost, "/accounts/{account_id}/token_policy/apply", s.applyTokenPolicy},
		{http.MethodGet, "/zones", s.listZones},
		{http.MethodPost, "/zones", s.createZone},
		{http.MethodGet, "/zones/{zone}", s.getZone},
		{http.MethodPatch, "/zones/{zone}", s.updateZone},
		{http.MethodDelete, "/zones/{zone}", s.removeZone},
		{http.MethodGet, "/resources", s.listResources},
		{http.MethodPost, "/resources", s.registerResource},
		{http.MethodGet, "/resources/{type}/{id}", s.getResource},
		{http.MethodPut, "/resources/{type}/{id}", s.updateResource},
		{http.MethodDelete, "/resources/{type}/{id}", s.removeResource},
		{http.MethodGet, "/users", s.listUsers},
		{http.MethodPost, "/users", s.registerUser},
		{http.MethodGet, "/users/{user_id}", s.getPerson},
		{http.MethodPatch, "/users/{user_id}", s.updatePerson},
		{http.MethodDelete, "/users/{user_id}", s.removePerson},
		{http.MethodPost, "/users/{user_id}/api_key", s.issueKey},
		{http.MethodDelete, "/users/{user_id}/api_key", s.revokeKey},
		{http.MethodPut, "/user/api_key", s.rollOwnKey},
		{http.MethodDelete, "/user/api_key", s.revokeOwnKey},
		{http.MethodGet, "/legacy/report", s.legacyReport},
		{http.MethodGet, "/accounts/{account_id}/legacy/report", s.legacyReport},
	} {
		rt.Handle(r.method, base+r.path, r.handle)
	}
}

// tokenRoutes adds the routes that user tokens and account tokens share.
func (s *Service) tokenRoutes(rt *web.Router, at string, of ownership) {
	for _, r := range []struct {
		method, path string
		handle       func(*web.Exchange, ownership) error
	}{
		{http.MethodGet, "", s.listTokens},
		{http.MethodPost, "", s.createToken},
		{http.MethodGet, "/verify", s.verifyToken},
		{http.MethodGet, "/permission_groups", s.listGroups},
		{http.MethodGet, "/{token_id}", s.getToken},
		{http.MethodPut, "/{token_id}", s.updateToken},
		{http.MethodDelete, "/{token_id}", s.revokeToken},
		{http.MethodGet, "/{token_id}/receipts", s.getReceipts},
		{http.MethodPut, "/{token_id}/value", s.rollToken},
		{http.MethodPost, "/{token_id}/disable", s.disableToken},
		{http.MethodPost, "/{token_id}/enable", s.enableToken},
	} {
		rt.Handle(r.method, at+r.path, func(x *web.Exchange) error { return r.handle(x, of) })
	}
}

// ownership says under whose tokens a route stands.
type ownership struct{ kind events.OwnerKind }

var (
	userOwned    = ownership{events.OwnedByUser}
	accountOwned = ownership{events.OwnedByAccount}
)

// secrets returns the kind of the secrets of such tokens.
func (o ownership) secrets() token.Kind {
	if o.kind == events.OwnedByAccount {
		return token.KindAccount
	}
	return token.KindUser
}

// target returns the token and owner that a path names. The owner is zero
// under /user: it is the caller.
func (o ownership) target(x *web.Exchange) (command.Target, error) {
	t := command.Target{OwnerKind: o.kind}
	var err error
	if t.Owner, err = o.account(x); err != nil {
		return t, err
	}
	t.ID, err = x.ID("token_id")
	return t, err
}

// account returns the account that a path names; zero under /user.
func (o ownership) account(x *web.Exchange) (token.ID, error) {
	if o.kind != events.OwnedByAccount {
		return token.ID{}, nil
	}
	return x.ID("account_id")
}

// fresh waits until the directory has reached the head of the ledger as of
// now, and says in the answer what it rests on.
func (s *Service) fresh(x *web.Exchange) error {
	ctx, cancel := context.WithTimeout(x.Context(), s.ReadWait)
	defer cancel()
	head, err := s.Authority.Head(ctx)
	if err != nil {
		if f, ok := errors.AsType[*fault.Error](err); ok {
			return f
		}
		return fault.Wrap(fault.NoPen, err)
	}
	if err := s.Reached.Wait(ctx, head); err != nil {
		return fault.Wrap(fault.NotReady, err)
	}
	x.Sequence(max(head, s.Directory.Applied()))
	return nil
}
