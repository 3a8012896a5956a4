package cli

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// directoryFile is what an import makes of an organisation, in YAML. A table of
// comma-separated values has the same members as columns, and the kind first.
type directoryFile struct {
	Users     []entryIn `yaml:"users"`
	Accounts  []entryIn `yaml:"accounts"`
	Members   []entryIn `yaml:"members"`
	Resources []entryIn `yaml:"resources"`
}

// entryIn is one thing of a file. A user is known again by their address, an
// account by its id or else its name, a resource by its type and id.
type entryIn struct {
	kind     string
	ID       string   `yaml:"id"`
	Email    string   `yaml:"email"`
	Name     string   `yaml:"name"`
	Operator bool     `yaml:"operator"`
	Account  string   `yaml:"account"` // id or name
	Roles    []string `yaml:"roles"`
	Type     string   `yaml:"type"`
	Parent   string   `yaml:"parent"` // key; or Account
}

func (e *entryIn) String() string {
	switch e.kind {
	case "user":
		return "user " + e.Email
	case "member":
		return "member " + e.Email + " of " + e.Account
	case "resource":
		return "resource " + e.Type + "." + e.ID
	}
	return e.kind + " " + e.Name
}

// check refuses what could not be found again by the next run.
func (e *entryIn) check() error {
	switch {
	case e.kind == "user" && e.Email == "":
		return errors.New("a user needs an email")
	case e.kind == "account" && e.Name == "":
		return errors.New("an account needs a name")
	case e.kind == "member" && (e.Email == "" || e.Account == "" || len(e.Roles) == 0):
		return errors.New("a member needs an email, an account and roles")
	case e.kind == "resource" && (e.Type == "" || e.ID == "" || e.Name == "" || (e.Parent == "") == (e.Account == "")):
		return errors.New("a resource needs a type, an id, a name and either a parent or an account")
	}
	return nil
}

// readDirectory reads a file into waves: what stands in a later one rests on
// the ones before.
func readDirectory(name string, r io.Reader) ([][]*entryIn, error) {
	var f directoryFile
	var err error
	if strings.EqualFold(filepath.Ext(name), ".csv") {
		f, err = readTable(r)
	} else {
		d := yaml.NewDecoder(r)
		d.KnownFields(true)
		if err = d.Decode(&f); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	waves, seen := make([][]*entryIn, 4), map[string]bool{}
	for i, kind := range []string{"user", "account", "member", "resource"} {
		all := [][]entryIn{f.Users, f.Accounts, f.Members, f.Resources}[i]
		for k := range all {
			all[k].kind = kind
			if err := all[k].check(); err != nil {
				return nil, fmt.Errorf("%s %d: %w", kind, k+1, err)
			}
			key := all[k].String() + " " + all[k].ID
			if seen[key] {
				return nil, fmt.Errorf("%v stands twice", &all[k])
			}
			seen[key] = true
			waves[i] = append(waves[i], &all[k])
		}
	}
	byDepth, err := layers(waves[3])
	return append(waves[:3], byDepth...), err
}

// layers puts resources behind those of the same file in which they lie.
func layers(all []*entryIn) (out [][]*entryIn, err error) {
	left := map[string]*entryIn{}
	for _, e := range all {
		left[e.Type+"."+e.ID] = e
	}
	for len(left) > 0 {
		var layer []*entryIn
		for _, e := range all {
			if key := e.Type + "." + e.ID; left[key] == e && left[e.Parent] == nil {
				layer = append(layer, e)
			}
		}
		if len(layer) == 0 {
			return nil, errors.New("some resources lie in each other")
		}
		for _, e := range layer {
			delete(left, e.Type+"."+e.ID)
		}
		out = append(out, layer)
	}
	return out, nil
}

// readTable reads the same from comma-separated values with a header. Roles are
// separated by semicolons.
func readTable(r io.Reader) (f directoryFile, err error) {
	c := csv.NewReader(r)
	header, err := c.Read()
	if err != nil {
		return f, err
	}
	for {
		fields, err := c.Read()
		if errors.Is(err, io.EOF) {
			return f, nil
		}
		if err != nil {
			return f, err
		}
		var e entryIn
		kind := ""
		to := map[string]*string{"kind": &kind, "id": &e.ID, "email": &e.Email, "name": &e.Name, "account": &e.Account, "type": &e.Type, "parent": &e.Parent}
		line, _ := c.FieldPos(0)
		for i, name := range header {
			switch p := to[name]; {
			case p != nil:
				*p = fields[i]
			case name == "roles" && fields[i] != "":
				e.Roles = strings.Split(fields[i], ";")
			case name == "operator":
				e.Operator = fields[i] == "true"
			case name != "roles":
				return f, fmt.Errorf("unknown column %q", name)
			}
		}
		into := map[string]*[]entryIn{"user": &f.Users, "account": &f.Accounts, "member": &f.Members, "resource": &f.Resources}[kind]
		if into == nil {
			return f, fmt.Errorf("line %d: kind must be user, account, member or resource", line)
		}
		*into = append(*into, e)
	}
}

func (a *App) importCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "import", Short: "Bring what another system knows into this one"}
	var dry bool
	var workers int
	dir := &cobra.Command{Use: "directory FILE.yaml|FILE.csv", Short: "Make the users, accounts, members and resources of a file", Args: cobra.ExactArgs(1),
		Long: `Make the users, accounts, members and resources of a file, or give those that are there what the file says.
Nothing is removed. What is as the file says is left alone, so an import that was cut off goes on when it is run again.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.importDirectory(cmd.Context(), args[0], dry, workers)
		},
	}
	dir.Flags().BoolVar(&dry, "dry-run", false, "only say what would change")
	dir.Flags().IntVar(&workers, "concurrency", 16, "how many requests are under way at a time")
	cmd.AddCommand(dir, a.importTokensCommand())
	return cmd
}

// importer is one import under way.
type importer struct {
	c   *client
	dry bool

	mu       sync.Mutex // guards what follows
	accounts map[string]*lookup[string]
	members  map[string]*lookup[map[string]row]
	counts   map[string]*tally
	failures []string
}

// tally is what became of the things of one kind.
type tally struct {
	Created   int `json:"created"`
	Changed   int `json:"changed"`
	Unchanged int `json:"unchanged"`
	Failed    int `json:"failed"`
}

// lookup is something that is asked for once, however many want it.
type lookup[T any] struct {
	once sync.Once
	v    T
	err  error
}

func (a *App) importDirectory(ctx context.Context, name string, dry bool, workers int) error {
	f, err := os.Open(name)
	if err != nil {
		return Fail(ExitLocal, err)
	}
	defer f.Close()
	waves, err := readDirectory(name, f)
	if err != nil {
		return Fail(ExitLocal, fmt.Errorf("%s: %w", name, err))
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	c.bulk = true
	im := &importer{c: c, dry: dry, accounts: map[string]*lookup[string]{}, members: map[string]*lookup[map[string]row]{}, counts: map[string]*tally{}}
	total := 0
	for _, w := range waves {
		total += len(w)
	}
	show := newProgressLine(a.Err, total)
	for _, w := range waves {
		if err := im.wave(ctx, w, max(workers, 1), show); err != nil {
			show.end()
			return err
		}
	}
	show.end()
	return a.importSummary(im)
}

// wave imports what rests on nothing in the same wave.
func (im *importer) wave(ctx context.Context, all []*entryIn, workers int, show *progressLine) error {
	next := make(chan *entryIn)
	var running sync.WaitGroup
	for range min(workers, len(all)) {
		running.Go(func() {
			for e := range next {
				what, err := im.one(ctx, e)
				im.note(e, what, err)
				show.step()
			}
		})
	}
	defer running.Wait()
	defer close(next)
	for _, e := range all {
		select {
		case next <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (im *importer) note(e *entryIn, what outcome, err error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	t := im.counts[e.kind]
	if t == nil {
		t = &tally{}
		im.counts[e.kind] = t
	}
	switch {
	case err != nil:
		t.Failed++
		im.failures = append(im.failures, fmt.Sprintf("%v: %v", e, err))
	case what == created:
		t.Created++
	case what == changed:
		t.Changed++
	default:
		t.Unchanged++
	}
}

// outcome is what became of one thing.
type outcome int

const (
	unchanged outcome = iota
	created
	changed
)

func (im *importer) one(ctx context.Context, e *entryIn) (outcome, error) {
	switch e.kind {
	case "user":
		return im.user(ctx, e)
	case "account":
		return im.account(ctx, e)
	case "member":
		return im.member(ctx, e)
	}
	return im.resource(ctx, e)
}

// write sends a change unless this is a dry run.
func (im *importer) write(ctx context.Context, what outcome, method, path string, body row) (outcome, error) {
	if im.dry {
		return what, nil
	}
	return what, im.c.call(ctx, method, path, body, nil)
}

func (im *importer) user(ctx context.Context, e *entryIn) (outcome, error) {
	var found []row
	if err := im.c.call(ctx, http.MethodGet, api+"/users?email="+url.QueryEscape(e.Email), nil, &found); err != nil {
		return 0, err
	}
	b := row{"name": e.Name}
	if len(found) > 0 {
		if found[0].text("name") == e.Name {
			return unchanged, nil
		}
		return im.write(ctx, changed, http.MethodPatch, api+"/users/"+found[0].text("id"), b)
	}
	b["email"], b["operator"] = e.Email, e.Operator
	if e.ID != "" {
		b["id"] = e.ID
	}
	return im.write(ctx, created, http.MethodPost, api+"/users", b)
}

func (im *importer) account(ctx context.Context, e *entryIn) (outcome, error) {
	var now row
	if e.ID == "" {
		id, err := im.accountNamed(ctx, e.Name)
		if err != nil {
			return 0, err
		}
		if id != "" {
			return unchanged, nil
		}
	} else {
		switch err := im.c.call(ctx, http.MethodGet, api+"/accounts/"+url.PathEscape(e.ID), nil, &now); {
		case err == nil && now.text("name") == e.Name:
			return unchanged, nil
		case err == nil:
			return im.write(ctx, changed, http.MethodPut, api+"/accounts/"+e.ID, row{"name": e.Name})
		case !isAbsent(err):
			return 0, err
		}
	}
	b := row{"name": e.Name}
	if e.ID != "" {
		b["id"] = e.ID
	}
	return im.write(ctx, created, http.MethodPost, api+"/accounts", b)
}

// accountNamed returns the id of the only account with this name; "" for none.
func (im *importer) accountNamed(ctx context.Context, name string) (string, error) {
	var found []row
	if err := im.c.call(ctx, http.MethodGet, api+"/accounts?all=true&name=equal:"+url.QueryEscape(name), nil, &found); err != nil {
		return "", err
	}
	if len(found) > 1 {
		return "", fmt.Errorf("%d accounts have the name %q: say which by its id", len(found), name)
	}
	if len(found) == 0 {
		return "", nil
	}
	return found[0].text("id"), nil
}

// once returns the look-up of a key.
func once[T any](im *importer, m map[string]*lookup[T], key string, ask func() (T, error)) (T, error) {
	im.mu.Lock()
	l := m[key]
	if l == nil {
		l = &lookup[T]{}
		m[key] = l
	}
	im.mu.Unlock()
	l.once.Do(func() { l.v, l.err = ask() })
	return l.v, l.err
}

// accountID returns the id of an account that an entry names by id or name.
func (im *importer) accountID(ctx context.Context, account string) (string, error) {
	if isID(account) {
		return account, nil
	}
	id, err := once(im, im.accounts, account, func() (string, error) { return im.accountNamed(ctx, account) })
	if err == nil && id == "" && !im.dry {
		err = fmt.Errorf("no account has the name %q", account)
	}
	return id, err
}

func (im *importer) member(ctx context.Context, e *entryIn) (outcome, error) {
	id, err := im.accountID(ctx, e.Account)
	if err != nil {
		return 0, err
	}
	path := api + "/accounts/" + id + "/members"
	known, err := once(im, im.members, id, func() (map[string]row, error) {
		by := map[string]row{}
		if id == "" {
			return by, nil // a dry run, and the account is not there yet
		}
		all, err := im.c.list(ctx, path, url.Values{})
		if im.dry && isAbsent(err) {
			err = nil
		}
		for _, m := range all {
			by[m.text("email")] = m
		}
		return by, err
	})
	if err != nil {
		return 0, err
	}
	m, ok := known[e.Email]
	if !ok {
		return im.write(ctx, created, http.MethodPost, path, row{"email": e.Email, "roles": e.Roles})
	}
	have := strings.Split(m.text("roles"), ", ")
	want := slices.Clone(e.Roles)
	slices.Sort(have)
	slices.Sort(want)
	if slices.Equal(have, want) {
		return unchanged, nil
	}
	return im.write(ctx, changed, http.MethodPut, path+"/"+m.text("id"), row{"roles": e.Roles})
}

func (im *importer) resource(ctx context.Context, e *entryIn) (outcome, error) {
	parent := e.Parent
	if parent == "" {
		id, err := im.accountID(ctx, e.Account)
		if err != nil {
			return 0, err
		}
		parent = "com.cloudflare.api.account." + id
	}
	path := api + "/resources/" + url.PathEscape(e.Type) + "/" + url.PathEscape(e.ID)
	var now row
	switch err := im.c.call(ctx, http.MethodGet, path, nil, &now); {
	case err == nil && now.text("name") == e.Name && now.text("parent") == parent:
		return unchanged, nil
	case err == nil:
		return im.write(ctx, changed, http.MethodPut, path, row{"name": e.Name, "parent": parent})
	case !isAbsent(err):
		return 0, err
	}
	return im.write(ctx, created, http.MethodPost, api+"/resources", row{"type": e.Type, "id": e.ID, "name": e.Name, "parent": parent})
}

// isAbsent reports whether the server says that there is no such thing.
func isAbsent(err error) bool {
	e, ok := errors.AsType[*statusError](err)
	return ok && e.status == http.StatusNotFound
}

// importSummary says what has changed, and what could not be.
func (a *App) importSummary(im *importer) error {
	asJSON, err := a.json()
	if err != nil {
		return err
	}
	if asJSON {
		if err := a.printJSON(map[string]any{"dry_run": im.dry, "counts": im.counts, "failures": im.failures}); err != nil {
			return err
		}
	} else {
		var rows [][]string
		for _, kind := range []string{"user", "account", "member", "resource"} {
			if t := im.counts[kind]; t != nil {
				rows = append(rows, []string{kind, fmt.Sprint(t.Created), fmt.Sprint(t.Changed), fmt.Sprint(t.Unchanged), fmt.Sprint(t.Failed)})
			}
		}
		header := []string{"KIND", "CREATED", "CHANGED", "UNCHANGED", "FAILED"}
		if im.dry {
			fmt.Fprintln(a.Out, "Nothing was changed; this is what would be:")
		}
		if err := a.table(header, rows); err != nil {
			return err
		}
	}
	if len(im.failures) == 0 {
		return nil
	}
	slices.Sort(im.failures)
	const shown = 20
	for i, f := range im.failures {
		if i == shown {
			fmt.Fprintf(a.Err, "  and %d more\n", len(im.failures)-shown)
			break
		}
		fmt.Fprintf(a.Err, "  %s\n", terminalSafe(f))
	}
	return Fail(ExitRemote, fmt.Errorf("%d things could not be imported", len(im.failures)), "run the same command again: what is done already is left alone")
}

// progressLine shows on a terminal how far an import is.
type progressLine struct {
	w     io.Writer // nil where nobody looks
	total int

	mu    sync.Mutex
	done  int
	shown time.Time
}

func newProgressLine(w io.Writer, total int) *progressLine {
	p := &progressLine{total: total}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			p.w = w
		}
	}
	return p
}

// step says that one thing more is done.
func (p *progressLine) step() {
	p.mu.Lock()
	p.done++
	done := p.done
	p.mu.Unlock()
	p.at(done, fmt.Sprintf("%d of %d", done, p.total))
}

// at shows that so much of the total is done, in words beside the bar.
func (p *progressLine) at(done int, words string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil || time.Since(p.shown) < 100*time.Millisecond {
		return
	}
	p.shown = time.Now()
	const width = 30
	full := min(width*done/max(p.total, 1), width)
	fmt.Fprintf(p.w, "\r\x1b[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", width-full), words)
}

func (p *progressLine) end() {
	if p.w != nil {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
