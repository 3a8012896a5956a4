package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/spf13/cobra"
)

func (a *App) importCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "import", Short: "Bring what another system knows into this one"}
	var dry bool
	var workers int
	dir := &cobra.Command{Use: "directory FILE.yaml|FILE.csv", Short: "Make the users, accounts, members and resources of a file", Args: cobra.ExactArgs(1),
		Long: `Make the users, accounts, members and resources of a file, or give those that are there what the file says.
Nothing is removed. What is as the file says is left alone, so an import that was cut off goes on when it is run again.

A file in YAML has up to four lists:

  users:
  - {email: ada@example.com, name: Ada}             # and operator: true, id
  accounts:
  - {name: Example Ltd}                             # and id
  members:
  - {email: ada@example.com, account: Example Ltd, roles: [Super Administrator]}
  resources:
  - {type: com.cloudflare.api.account.zone, id: 1f0c6b0f0a2b4c6d8e9f00112233aabb,
     name: example.com, account: Example Ltd}       # or parent: <key>

A table (.csv) has a header and the same names as columns: kind (user, account,
member or resource), id, email, name, operator (true or false), account, roles
(separated by ;), type, parent. A user is known again by the address, an account by
its id or else its name, a resource by type and id. In "account" stands an id or a name.`,
		Example: "  watchword import directory people.yaml --dry-run\n  watchword import directory people.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.importDirectory(cmd.Context(), args[0], dry, workers)
		},
	}
	dir.Flags().BoolVar(&dry, "dry-run", false, "only say what would change")
	dir.Flags().IntVar(&workers, "concurrency", 4, "how many requests of up to 1000 things are under way at a time")
	cmd.AddCommand(dir, a.importTokensCommand())
	return cmd
}

// importer is one import under way.
type importer struct {
	c    *client
	dry  bool
	show *progressLine

	mu       sync.Mutex // guards what follows
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
	if dry {
		assume(waves)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	im := &importer{c: c, dry: dry, counts: map[string]*tally{}}
	total := 0
	for _, w := range waves {
		total += len(w)
	}
	im.show = newProgressLine(a.Err, total)
	defer im.show.end()
	for _, w := range waves {
		if err := im.wave(ctx, w, workers); err != nil {
			return err
		}
	}
	im.show.end()
	return a.importSummary(im)
}

// wave imports what rests on nothing in the same wave.
func (im *importer) wave(ctx context.Context, all []*entryIn, workers int) error {
	s := rowSender{
		c: im.c, path: api + "/import/directory", member: "entries", dry: im.dry, retryFor: time.Minute,
		note: func(r batchRow, o *rowOutcome) { im.note(all[r.line], o) },
		sent: func() {},
	}
	read, err := s.all(ctx, workers, func(ctx context.Context, out chan<- []batchRow) error { return batchesOf(ctx, all, out) })
	if err == nil && read != nil {
		err = Fail(ExitLocal, read)
	}
	return err
}

// batchesOf cuts a wave into requests.
func batchesOf(ctx context.Context, all []*entryIn, out chan<- []batchRow) error {
	var batch []batchRow
	size := 0
	for i, e := range all {
		body, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("%v: %w", e, err)
		}
		batch, size = append(batch, batchRow{i, body}), size+len(body)
		if len(batch) < batchRows && size < batchBytes && i < len(all)-1 {
			continue
		}
		select {
		case out <- batch:
			batch, size = nil, 0
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// note counts what became of a thing.
func (im *importer) note(e *entryIn, o *rowOutcome) {
	im.mu.Lock()
	t := im.counts[e.Kind]
	if t == nil {
		t = &tally{}
		im.counts[e.Kind] = t
	}
	switch o.Outcome {
	case "created":
		t.Created++
	case "changed":
		t.Changed++
	case "unchanged":
		t.Unchanged++
	default:
		t.Failed++
		im.failures = append(im.failures, importFailure{e.line, fmt.Sprintf("%v: %s", e, o.Message)})
	}
	im.mu.Unlock()
	im.show.step()
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
	return Fail(ExitRemote, fmt.Errorf("%d things could not be imported", len(im.failures)), "mend what is named above and run the same command again: what is done already is left alone")
}
