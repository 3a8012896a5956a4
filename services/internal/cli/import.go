package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
)

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
	failures []importFailure
}

// importFailure is why an entry was not imported.
type importFailure struct {
	Line int    `json:"line"`
	Text string `json:"text"`
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
		im.failures = append(im.failures, importFailure{e.line, fmt.Sprintf("%v: %v", e, err)})
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
	slices.SortFunc(im.failures, func(x, y importFailure) int { return x.Line - y.Line })
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
	const shown = 20
	for i, f := range im.failures {
		if i == shown {
			fmt.Fprintf(a.Err, "  and %d more\n", len(im.failures)-shown)
			break
		}
		fmt.Fprintf(a.Err, "  line %d: %s\n", f.Line, terminalSafe(f.Text))
	}
	return Fail(ExitRemote, fmt.Errorf("%d things could not be imported", len(im.failures)), "run the same command again: what is done already is left alone")
}
