package management

import (
	"errors"
	"slices"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"watchword.dev/events/aggregate"
	"watchword.dev/events/catalogue"
	"watchword.dev/events/fault"
	"watchword.dev/events/token"
	"watchword.dev/projections/directory"
	"watchword.dev/services/internal/command"
	"watchword.dev/services/internal/web"
)

// importDirectoryPath is where users, accounts, members and resources are made,
// or brought to what a row says, many at a time.
const importDirectoryPath = base + "/import/directory"

// importedEntry is a user, an account, a member or a resource. A user is known
// again by their address, an account by its id or else its name, a resource by
// its type and id.
type importedEntry struct {
	Kind     string   `json:"kind"`
	ID       string   `json:"id"`
	Email    string   `json:"email"`
	Name     string   `json:"name"`
	Operator bool     `json:"operator"` // of a new user
	Account  string   `json:"account"`  // id or name
	Roles    []string `json:"roles"`    // names or ids
	Type     string   `json:"type"`
	Parent   string   `json:"parent"` // key; or Account
	// Assumed are what the row names and the same import makes before it, so
	// that a dry run takes it for made: user, account or parent.
	Assumed []string `json:"assumed"`
}

// directoryImport is one request of an import of the directory.
type directoryImport struct {
	*importBatch
	mu     sync.Mutex // guards places
	places map[string]importPlace
}

// importPlace is the account that rows name.
type importPlace struct {
	st  *standing
	err error
}

// importDirectory makes what the rows say, each on its own: it may do what the
// caller may do by the routes for single things, and answers alike. Rows of one
// request are done in no order: what rests on another row comes in a later one.
func (s *Service) importDirectory(x *web.Exchange) error {
	c, err := s.commander(x)
	if err != nil {
		return err
	}
	dry, err := oneOf(x.Request().URL.Query(), "dry_run", "false", "true")
	if err != nil {
		return err
	}
	raw, err := x.Body(importBody)
	if err != nil {
		return err
	}
	var b struct {
		Entries []jsontext.Value `json:"entries"`
	}
	if err := x.DecodeBytes(raw, &b); err != nil {
		return err
	}
	switch n := len(b.Entries); {
	case n == 0:
		return fault.New(fault.InvalidField).WithPointer("/entries")
	case n > importRows:
		return fault.New(fault.BatchTooLarge).WithDetail("at most %d entries", importRows)
	}
	run := &directoryImport{places: map[string]importPlace{}}
	if run.importBatch, err = s.importBatch(x, c, dry); err != nil {
		return err
	}
	out, err := run.all(x, b.Entries, run.one)
	if err != nil {
		return err
	}
	return x.Result(struct {
		Entries []importOutcome `json:"entries"`
	}{out})
}

// one imports a row.
func (r *directoryImport) one(raw jsontext.Value) importOutcome {
	var b importedEntry
	if err := web.Unmarshal(raw, &b); err != nil {
		return r.refusal("", err)
	}
	kinds := map[string]func(*importedEntry) (importOutcome, error){
		"user": r.user, "account": r.account, "member": r.member, "resource": r.resource,
	}
	bring, ok := kinds[b.Kind]
	if !ok {
		return r.refusal("", fault.New(fault.InvalidField).WithPointer("/kind").WithDetail("user, account, member or resource"))
	}
	out, err := bring(&b)
	if err != nil {
		return r.refusal(out.ID, err)
	}
	return out
}

// send does what a row leads to, unless this is a dry run.
func (r *directoryImport) send(what, id string, cmds ...command.Command) (importOutcome, error) {
	out := importOutcome{Outcome: what, ID: id}
	if r.dry {
		return out, nil
	}
	whole := importUnchanged
	for _, cmd := range cmds {
		res, err := r.do(cmd)
		if err != nil {
			return out, err
		}
		if !res.Unchanged {
			whole = what
		}
	}
	out.Outcome = whole // another one may have been faster
	return out, nil
}

// user registers a person, or changes their name.
func (r *directoryImport) user(b *importedEntry) (importOutcome, error) {
	var none importOutcome
	if !r.c.operator() {
		return none, fault.New(fault.NotPermitted)
	}
	if err := r.s.checkPerson(&personBody{Email: &b.Email, Name: &b.Name}); err != nil {
		return none, err
	}
	index := r.s.Sealer.EmailIndex(b.Email)
	u, ok, err := r.s.Directory.UserByEmail(index)
	if err != nil {
		return none, err
	}
	if !ok {
		id, err := chosen(b.ID, r.s.IDs.New())
		if err != nil || r.dry {
			return importOutcome{Outcome: importCreated, ID: id.String()}, err
		}
		cmd, err := r.s.registration(r.ctx, id, b.Email, b.Name)
		if err != nil {
			return none, err
		}
		cmd.Operator = b.Operator
		return r.send(importCreated, id.String(), cmd)
	}
	name, err := r.s.show(r.ctx, u.Name)
	if err != nil || name == b.Name {
		return importOutcome{Outcome: importUnchanged, ID: u.ID.String()}, err
	}
	cmd := command.UpdateUser{ID: u.ID, NoName: b.Name == ""}
	if !cmd.NoName {
		if cmd.Name, err = r.s.seal(r.ctx, u.ID, b.Name); err != nil {
			return none, err
		}
	}
	return r.send(importChanged, u.ID.String(), cmd)
}

// account makes an account, or changes the name of the one with this id.
func (r *directoryImport) account(b *importedEntry) (importOutcome, error) {
	var none importOutcome
	if err := r.s.checkName(b.Name); err != nil {
		return none, err
	}
	ref := b.ID
	if ref == "" {
		ref = b.Name
	} else if _, err := chosen(ref, token.ID{}); err != nil {
		return none, err
	}
	st, err := r.find(ref)
	switch {
	case errors.Is(err, fault.AccountNotFound) && r.c.operator():
		id, err := chosen(b.ID, r.s.IDs.New())
		if err != nil {
			return none, err
		}
		return r.send(importCreated, id.String(), command.CreateAccount{ID: id, Name: b.Name})
	case err != nil:
		return none, err
	case st.account.Name == b.Name:
		return importOutcome{Outcome: importUnchanged, ID: st.account.ID.String()}, nil
	}
	return r.send(importChanged, st.account.ID.String(), command.UpdateAccount{ID: st.account.ID, Name: b.Name})
}

// find returns what the caller is in an account that a row names by its id or
// its name.
func (r *directoryImport) find(ref string) (*standing, error) {
	if id, err := token.ParseID(ref); err == nil {
		return r.s.standing(r.c, id)
	}
	var named []*standing
	if r.c.operator() {
		found, err := r.s.Directory.AllAccounts(directory.Listing{Name: ref, Page: 1, PerPage: 2})
		if err != nil {
			return nil, err
		}
		for i := range found.Items {
			named = append(named, &standing{account: found.Items[i], all: true})
		}
	} else {
		all, err := r.s.standings(r.c)
		if err != nil {
			return nil, err
		}
		named = slices.DeleteFunc(all, func(st *standing) bool { return st.account.Name != ref })
	}
	switch len(named) {
	case 0:
		return nil, fault.New(fault.AccountNotFound)
	case 1:
		return named[0], nil
	}
	return nil, fault.New(fault.InvalidField).WithPointer("/account").WithDetail("several accounts have this name: say which by its id")
}

// made reports whether a dry run takes for made what is not there: only
// operators make all that a row can rest on.
func (r *directoryImport) made(b *importedEntry, what string) bool {
	return r.dry && r.c.operator() && slices.Contains(b.Assumed, what)
}

// place is find for what lies in an account: many rows name the same. It
// returns nil for one that a dry run takes for made.
func (r *directoryImport) place(b *importedEntry) (*standing, error) {
	ref := b.Account
	r.mu.Lock()
	p, ok := r.places[ref]
	r.mu.Unlock()
	if !ok {
		p.st, p.err = r.find(ref)
		switch {
		case errors.Is(p.err, fault.AccountNotFound):
			p.err = fault.New(fault.AccountNotFound).WithPointer("/account")
		case p.err == nil && !r.s.holds(r.c, p.st, writeAccount):
			p = importPlace{err: fault.New(fault.NotPermitted)}
		}
		r.mu.Lock()
		r.places[ref] = p
		r.mu.Unlock()
	}
	if errors.Is(p.err, fault.AccountNotFound) && r.made(b, "account") {
		return nil, nil
	}
	return p.st, p.err
}

// member makes a user a member of an account, or gives them other roles.
func (r *directoryImport) member(b *importedEntry) (importOutcome, error) {
	var none importOutcome
	if b.Account == "" {
		return none, fault.New(fault.InvalidField).WithPointer("/account")
	}
	if !web.ValidEmail(b.Email) {
		return none, fault.New(fault.InvalidField).WithPointer("/email")
	}
	roles, err := r.s.roleNames(b.Roles)
	if err != nil {
		return none, err
	}
	st, err := r.place(b)
	if err != nil {
		return none, err
	}
	u, known, err := r.s.Directory.UserByEmail(r.s.Sealer.EmailIndex(b.Email))
	if err != nil {
		return none, err
	}
	var m aggregate.Member
	ok := false
	if known && st != nil {
		if m, ok, err = r.s.Directory.MemberOf(st.account.ID, u.ID); err != nil {
			return none, err
		}
	}
	switch {
	case !ok && !r.c.givesRoles(): // they learn nothing of who has an address
		return none, fault.New(fault.RoleNotHeld).WithPointer("/roles")
	case !known && !r.made(b, "user"):
		return none, fault.New(fault.UserNotFound).WithPointer("/email")
	case !known, st == nil:
		return importOutcome{Outcome: importCreated}, nil
	case !ok:
		id := r.s.IDs.New()
		return r.send(importCreated, id.String(), command.AddMember{ID: id, Account: st.account.ID, User: u.ID, Roles: roles})
	case sameTexts(m.Roles, roles):
		return importOutcome{Outcome: importUnchanged, ID: m.ID.String()}, nil
	}
	return r.send(importChanged, m.ID.String(), command.ChangeMember{ID: m.ID, Account: st.account.ID, Roles: roles})
}

// sameTexts says whether both have the same members in any order.
func sameTexts(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// resource registers a resource, or gives it another name or parent.
func (r *directoryImport) resource(b *importedEntry) (importOutcome, error) {
	var none importOutcome
	if err := r.checkResource(b); err != nil {
		return none, err
	}
	if b.Account != "" {
		st, err := r.place(b)
		if err != nil || st == nil {
			return importOutcome{Outcome: importCreated, ID: b.ID}, err
		}
		b.Parent = st.key()
	}
	l, err := r.s.locate(r.c, aggregate.ResourceKey(b.Type, b.ID))
	switch {
	case errors.Is(err, fault.ResourceNotFound):
		err := r.mayLieIn(b)
		if err != nil {
			return none, err
		}
		return r.send(importCreated, b.ID, command.RegisterResource{Type: b.Type, Resource: b.ID, Name: b.Name, Parent: b.Parent})
	case err != nil:
		return none, err
	}
	var cmds []command.Command
	if l.Name != b.Name {
		cmds = append(cmds, command.UpdateResource{Type: b.Type, Resource: b.ID, Name: b.Name})
	}
	if l.Parent != b.Parent {
		if err := r.mayLieIn(b); err != nil {
			return none, err
		}
		cmds = append(cmds, command.MoveResource{Type: b.Type, Resource: b.ID, Parent: b.Parent})
	}
	if len(cmds) == 0 {
		return importOutcome{Outcome: importUnchanged, ID: b.ID}, nil
	}
	return r.send(importChanged, b.ID, cmds...)
}

func (r *directoryImport) checkResource(b *importedEntry) error {
	if _, ok := r.s.Catalogue().TypeNumber(b.Type); !ok {
		return fault.New(fault.InvalidResourceType).WithPointer("/type")
	}
	if !catalogue.ValidID(b.ID) {
		return fault.New(fault.InvalidField).WithPointer("/id").WithDetail("up to %d letters, digits, _ and -", catalogue.MaxID)
	}
	if (b.Account == "") == (b.Parent == "") {
		return fault.New(fault.InvalidParent).WithPointer("/parent").WithDetail("either a parent or an account")
	}
	return r.s.checkName(b.Name)
}

// mayLieIn says whether the caller may lay something into the parent of a row.
// The account of a row was looked at when it was found.
func (r *directoryImport) mayLieIn(b *importedEntry) error {
	if b.Account != "" {
		return nil
	}
	err := r.s.writable(r.c, b.Parent)
	if r.made(b, "parent") && (errors.Is(err, fault.InvalidParent) || errors.Is(err, fault.AccountNotFound)) {
		return nil
	}
	return err
}
