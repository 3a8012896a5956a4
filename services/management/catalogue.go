package management

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events"
	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/services/internal/cataloguefile"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// maxAffected is how many of those that a catalogue affects an answer names.
const maxAffected = 100

// Catalogues is what publishing a catalogue reads of the directory.
type Catalogues interface {
	Catalogue() (aggregate.Catalogue, bool, error)
	EachToken(context.Context, func(*aggregate.Token) error) error
	EachMember(context.Context, func(*aggregate.Member) error) error
	EachResource(context.Context, func(*aggregate.Resource) error) error
}

// catalogueAnswer is the catalogue that holds. Version 0 is the built-in one.
type catalogueAnswer struct {
	Version     uint32             `json:"version"`
	PublishedOn string             `json:"published_on,omitempty"`
	Document    catalogue.Document `json:"document"`
}

// getCatalogue answers with the whole catalogue, for operators.
func (s *Service) getCatalogue(x *web.Exchange) error {
	if err := s.Operator(x); err != nil {
		return err
	}
	present, _, err := s.Directory.Catalogue()
	if err != nil {
		return err
	}
	cat, err := s.catalogues.Of(&present)
	if err != nil {
		return err
	}
	doc := cat.Document()
	doc.Numbers = catalogue.Numbers{} // of this installation only
	return x.Result(catalogueAnswer{Version: present.Version, PublishedOn: seconds(present.Published), Document: doc})
}

// publication is what publishing a catalogue changes, and whom it affects.
type publication struct {
	// Version is that of the catalogue which holds now: with dry_run the one
	// before, else the published one.
	Version  uint32                 `json:"version"`
	DryRun   bool                   `json:"dry_run"`
	Changes  []cataloguefile.Change `json:"changes"`
	Affected affected               `json:"affected"`
}

// affected are the tokens, members and resources that use what a catalogue
// takes away: how many, and the first of them.
type affected struct {
	TokenCount    int                `json:"token_count"`
	MemberCount   int                `json:"member_count"`
	ResourceCount int                `json:"resource_count"`
	Tokens        []affectedToken    `json:"tokens"`
	Members       []affectedMember   `json:"members"`
	Resources     []affectedResource `json:"resources"`
}

type affectedToken struct {
	ID        token.ID         `json:"id"`
	Name      string           `json:"name"`
	OwnerKind events.OwnerKind `json:"owner_kind"`
	Owner     token.ID         `json:"owner"`
	Uses      []string         `json:"uses"` // ids of groups, names of resource types
}

type affectedMember struct {
	ID      token.ID `json:"id"`
	Account token.ID `json:"account"`
	User    token.ID `json:"user"`
	Uses    []string `json:"uses"` // names of roles
}

type affectedResource struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Name string `json:"name"`
}

func (a *affected) none() bool { return a.TokenCount+a.MemberCount+a.ResourceCount == 0 }

// putCatalogue publishes a catalogue. With dry_run=true it only says what that
// would change; where it would take something away from somebody it needs
// force=true.
func (s *Service) putCatalogue(x *web.Exchange) error {
	c, err := s.operator(x)
	if err != nil {
		return err
	}
	q := x.Request().URL.Query()
	dry, err := oneOf(q, "dry_run", "false", "true")
	if err != nil {
		return err
	}
	force, err := oneOf(q, "force", "false", "true")
	if err != nil {
		return err
	}
	raw, err := x.Body(catalogue.MaxDocument)
	if err != nil {
		return err
	}
	var members map[string]jsontext.Value // what it says is looked at below
	if err := x.DecodeBytes(raw, &members); err != nil {
		return err
	}
	if err := s.fresh(x); err != nil {
		return err
	}
	present, _, err := s.Directory.Catalogue()
	if err != nil {
		return err
	}
	p, err := s.publication(x.Context(), &present, raw)
	if err != nil {
		return err
	}
	if p.DryRun = dry; dry || len(p.Changes) == 0 {
		return x.Result(p)
	}
	if a := &p.Affected; !a.none() && !force {
		return fault.New(fault.CatalogueInUse).WithDetail("%d tokens, %d members and %d resources use what it takes away",
			a.TokenCount, a.MemberCount, a.ResourceCount)
	}
	r, err := s.ask(x, c, command.PublishCatalogue{
		ID: s.IDs.New(), After: present.Version, Document: raw, Forced: force && !p.Affected.none(),
	})
	if err != nil {
		return err
	}
	x.Sequence(r.Seq)
	s.settle(x.Context(), r.Seq)
	p.Version++
	return x.Result(p)
}

// publication compares a document with what holds, and looks at everything for
// what it takes away, if it takes anything away.
func (s *Service) publication(ctx context.Context, present *aggregate.Catalogue, raw []byte) (*publication, error) {
	old, err := s.catalogues.Of(present)
	if err != nil {
		return nil, err
	}
	next, err := catalogue.FromDocument(old, raw)
	if err != nil {
		return nil, command.CatalogueFault(err)
	}
	p := &publication{Version: present.Version, Changes: cataloguefile.Diff(old.Document(), next.Document())}
	if p.Changes == nil {
		p.Changes = []cataloguefile.Change{}
	}
	return p, s.affects(ctx, cataloguefile.NarrowedBy(p.Changes), old, &p.Affected)
}

// affects finds who uses what a catalogue narrows.
func (s *Service) affects(ctx context.Context, n cataloguefile.Narrowed, old *catalogue.Catalogue, a *affected) error {
	a.Tokens, a.Members, a.Resources = []affectedToken{}, []affectedMember{}, []affectedResource{}
	groups, types, roles := n[cataloguefile.KindGroup], n[cataloguefile.KindType], n[cataloguefile.KindRole]
	if len(groups)+len(types) > 0 {
		if err := s.Directory.EachToken(ctx, func(t *aggregate.Token) error {
			if uses := usesOf(t, groups, types, old); t.Status != aggregate.Revoked && len(uses) > 0 {
				a.TokenCount++
				a.Tokens = few(a.Tokens, affectedToken{t.ID, t.Name, t.OwnerKind, t.Owner, uses})
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if len(roles) > 0 {
		if err := s.Directory.EachMember(ctx, func(m *aggregate.Member) error {
			if uses := among(m.Roles, roles); m.Status == aggregate.Active && len(uses) > 0 {
				a.MemberCount++
				a.Members = few(a.Members, affectedMember{m.ID, m.Account, m.User, uses})
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if len(types) == 0 {
		return nil
	}
	return s.Directory.EachResource(ctx, func(r *aggregate.Resource) error {
		if r.Status == aggregate.Active && types[r.Type] {
			a.ResourceCount++
			a.Resources = few(a.Resources, affectedResource{r.Type, r.Resource, r.Name})
		}
		return nil
	})
}

// usesOf returns what of the groups and types a token names.
func usesOf(t *aggregate.Token, groups, types map[string]bool, old *catalogue.Catalogue) []string {
	var named []string
	for _, p := range t.Grant.Policies {
		for _, g := range p.Groups {
			named = append(named, g.ID)
		}
	}
	uses := among(named, groups)
	if len(types) == 0 {
		return uses
	}
	named = named[:0]
	for _, p := range t.Grant.Policies {
		matchers, err := token.ParseResources(p.Resources, old)
		if err != nil {
			continue // it names what was dropped before
		}
		for _, m := range matchers {
			if named = append(named, old.TypeName(m.Inner.Type)); m.Nested {
				named = append(named, old.TypeName(m.Outer.Type))
			}
		}
	}
	return append(uses, among(named, types)...)
}

// among returns those of names that are in the set, each once.
func among(names []string, set map[string]bool) []string {
	var in []string
	seen := map[string]bool{}
	for _, n := range names {
		if set[n] && !seen[n] {
			seen[n] = true
			in = append(in, n)
		}
	}
	return in
}

// few appends to a list that does not become long.
func few[T any](list []T, v T) []T {
	if len(list) < maxAffected {
		list = append(list, v)
	}
	return list
}
