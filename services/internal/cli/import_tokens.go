package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
)

// maxFailures bounds what a report names.
const maxFailures = 10_000

const importTokensRoute = "/client/v4/import/tokens"

// tokenImportFlags say how tokens are imported.
type tokenImportFlags struct {
	format   string
	dry      bool
	workers  int
	retryFor time.Duration
}

func (a *App) importTokensCommand() *cobra.Command {
	f := &tokenImportFlags{}
	cmd := &cobra.Command{Use: "tokens FILE|-", Short: "Take over tokens of another system, with the secrets that they have", Args: cobra.ExactArgs(1),
		Long: `Take over tokens of another system, so that their secrets go on working.

The file is a table (.csv, with a header), lines of JSON (.jsonl), or a list in
YAML (.yaml). Its columns or members:

  owner        e-mail address or id of a user, or id of an account: it must hold
               what the token gives
  name         up to 120 characters
  secret       as the other system made it, or sha256:<64 hexadecimal digits>.
               It does not leave this machine: its digest is sent, and nothing
               of it is printed
  permissions  permission groups, by name or id; in a table separated by ;
  resources    keys such as com.cloudflare.api.account.zone.<id>
  policies     instead of those two, policies as the API takes them (JSON)
  template     instead of policies, a template of the catalogue, and
  parameters   what fills it: in a table zone=<id>;zone=<id>
  not_before, expires_on   times (RFC 3339) or dates
  ip, not_ip   the addresses or prefixes that may use it, or may not
  status       active or disabled

A row that is refused is named by its line and does not stop the others. An
owner's quota of tokens bounds imports, too: raise it before. What was imported
is left as it has become, so an import that was cut off goes on when it is run
again.`,
		Example: `  watchword import tokens legacy.csv --dry-run
  other-system export | watchword import tokens - --format jsonl`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.importTokens(cmd.Context(), args[0], f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.format, "format", "", "csv, jsonl or yaml (default: by the file's name, for - jsonl)")
	fl.BoolVar(&f.dry, "dry-run", false, "only say what would become of each")
	fl.IntVar(&f.workers, "concurrency", 4, "how many requests of up to 1000 tokens are under way at a time")
	fl.DurationVar(&f.retryFor, "retry-for", time.Minute, "for how long to try again what the server cannot take at the moment")
	return cmd
}

// tokenImport is one import of tokens under way.
type tokenImport struct {
	c     *client
	flags *tokenImportFlags
	show  *progressLine
	read  *atomic.Int64 // bytes of the file

	groups map[string][]groupView // by name
	seen   map[[16]byte]int       // beginning of a digest → line

	mu       sync.Mutex // guards what follows
	counts   tokenTally
	failures []tokenFailure
}

// tokenTally is what became of the rows.
type tokenTally struct {
	Created   int `json:"created"`
	Unchanged int `json:"unchanged"`
	Conflict  int `json:"conflict"`
	Refused   int `json:"refused"`
}

func (t *tokenTally) all() int { return t.Created + t.Unchanged + t.Conflict + t.Refused }

// tokenFailure is why a row was not imported.
type tokenFailure struct {
	Line    int    `json:"line"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Pointer string `json:"pointer,omitzero"`
}

func (a *App) importTokens(ctx context.Context, name string, f *tokenImportFlags) error {
	in, size := a.In, int64(0)
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return Fail(ExitLocal, err)
		}
		defer file.Close()
		if info, err := file.Stat(); err == nil {
			size = info.Size()
		}
		in = file
	}
	if f.format == "" {
		f.format = formatOf(name)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	counted := &countingReader{r: in}
	im := &tokenImport{
		c: c, flags: f, show: newProgressLine(a.Err, int(size)), read: &counted.n,
		groups: map[string][]groupView{}, seen: map[[16]byte]int{},
	}
	err = im.run(ctx, counted)
	im.show.end()
	return errors.Join(a.tokenSummary(im, err == nil), err)
}

func formatOf(name string) string {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".csv":
		return "csv"
	case ".yaml", ".yml":
		return "yaml"
	}
	return "jsonl"
}

// countingReader tells how much of a file was read.
type countingReader struct {
	r io.Reader
	n atomic.Int64
}

// Read implements io.Reader.
func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// run reads the file and sends it in batches, some at a time. What cannot be
// sent at all ends the import.
func (im *tokenImport) run(ctx context.Context, in io.Reader) error {
	var groups []groupView
	if err := im.c.call(ctx, http.MethodGet, "/client/v4/user/tokens/permission_groups", nil, &groups); err != nil {
		return err
	}
	for _, g := range groups {
		im.groups[g.Name] = append(im.groups[g.Name], g)
	}
	read, err := im.sender().all(ctx, im.flags.workers, func(ctx context.Context, out chan<- []batchRow) error {
		return im.batches(ctx, in, out)
	})
	if err == nil && read != nil {
		err = Fail(ExitLocal, read)
	}
	return err
}

// batches cuts the file into requests.
func (im *tokenImport) batches(ctx context.Context, in io.Reader, out chan<- []batchRow) error {
	var batch []batchRow
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		select {
		case out <- batch:
			batch, size = nil, 0
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	err := eachToken(im.flags.format, in, func(row *tokenRow) error {
		body, err := im.body(row)
		if err != nil {
			im.refuse(row.line, err)
			return nil
		}
		if len(batch) == batchRows || size+len(body) > batchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		batch, size = append(batch, batchRow{row.line, body}), size+len(body)
		return nil
	}, im.refuse)
	return errors.Join(err, flush())
}

// refuse counts a row that is not sent.
func (im *tokenImport) refuse(line int, why error) {
	im.note(line, refusedRow(why))
}

// note counts what became of a row.
func (im *tokenImport) note(line int, o *rowOutcome) {
	im.mu.Lock()
	defer im.mu.Unlock()
	switch o.Outcome {
	case "created":
		im.counts.Created++
		return
	case "unchanged":
		im.counts.Unchanged++
		return
	case "conflict":
		im.counts.Conflict++
	default:
		im.counts.Refused++
	}
	if len(im.failures) < maxFailures {
		im.failures = append(im.failures, tokenFailure{line, o.Reason, o.Message, o.Pointer})
	}
}

// body is a row as it is sent: the same bytes whenever the file is read.
func (im *tokenImport) body(row *tokenRow) (jsontext.Value, error) {
	digest, err := row.digest()
	if err != nil {
		return nil, err
	}
	if first, twice := im.seen[[16]byte(digest[:])]; twice {
		return nil, fmt.Errorf("the secret is that of line %d", first)
	}
	im.seen[[16]byte(digest[:])] = row.line
	out := map[string]any{"owner": row.Owner, "secret": "d0:" + hex.EncodeToString(digest[:sha256.Size])}
	for name, text := range map[string]string{
		"name": row.Name, "template": row.Template, "not_before": row.NotBefore, "expires_on": row.ExpiresOn, "status": row.Status,
	} {
		if text != "" {
			out[name] = text
		}
	}
	if len(row.Parameters) > 0 {
		out["parameters"] = row.Parameters
	}
	if row.Template == "" {
		if out["policies"], err = im.policies(row); err != nil {
			return nil, err
		}
	}
	ip := map[string]any{}
	if row.IP != nil {
		ip["in"] = row.IP
	}
	if len(row.NotIP) > 0 {
		ip["not_in"] = row.NotIP
	}
	if len(ip) > 0 {
		out["condition"] = map[string]any{"request_ip": ip}
	}
	return json.Marshal(out, json.Deterministic(true))
}

// policies are those of a row, with the ids of the groups.
func (im *tokenImport) policies(row *tokenRow) ([]map[string]any, error) {
	all := row.Policies
	if len(all) == 0 {
		p := policyRow{Resources: map[string]any{}}
		for _, g := range row.Permissions {
			p.Groups = append(p.Groups, groupRow(g))
		}
		for _, key := range row.Resources {
			p.Resources[key] = "*"
		}
		all = []policyRow{p}
	}
	out := make([]map[string]any, 0, len(all))
	for _, p := range all {
		groups := make([]map[string]string, 0, len(p.Groups))
		for _, g := range p.Groups {
			id, err := im.groupID(string(g), p.Resources)
			if err != nil {
				return nil, err
			}
			groups = append(groups, map[string]string{"id": id})
		}
		if p.Effect == "" {
			p.Effect = "allow"
		}
		out = append(out, map[string]any{"effect": p.Effect, "permission_groups": groups, "resources": p.Resources})
	}
	return out, nil
}

// groupID finds a permission group by its id or name. Where two groups have the
// same name it takes the one whose scope fits a resource.
func (im *tokenImport) groupID(nameOrID string, resources map[string]any) (string, error) {
	if isID(nameOrID) {
		return nameOrID, nil
	}
	named := im.groups[nameOrID]
	if len(named) == 1 {
		return named[0].ID, nil
	}
	for _, g := range named {
		if slices.ContainsFunc(g.Scopes, func(scope string) bool { return names(resources, scope) }) {
			return g.ID, nil
		}
	}
	return "", errors.New("a permission group is not known by this name, or not for these resources")
}

// names says whether resources of this type stand in a policy, by themselves or
// in others.
func names(resources map[string]any, kind string) bool {
	for key, value := range resources {
		if rest, ok := strings.CutPrefix(key, kind+"."); ok && !strings.Contains(rest, ".") {
			return true
		}
		if inner, ok := value.(map[string]any); ok && names(inner, kind) {
			return true
		}
	}
	return false
}

// sender sends the rows of the import.
func (im *tokenImport) sender() *rowSender {
	return &rowSender{
		c: im.c, path: importTokensRoute, member: "tokens", dry: im.flags.dry, retryFor: im.flags.retryFor,
		note: func(r batchRow, o *rowOutcome) { im.note(r.line, o) },
		sent: func() {
			im.mu.Lock()
			done := im.counts.all()
			im.mu.Unlock()
			im.show.at(int(im.read.Load()), fmt.Sprintf("%d tokens", done))
		},
	}
}

// tokenReport is the summary for programs.
type tokenReport struct {
	DryRun   bool           `json:"dry_run"`
	Complete bool           `json:"complete"` // all of the file was read and answered
	Counts   tokenTally     `json:"counts"`
	Failures []tokenFailure `json:"failures"`
	LeftOut  int            `json:"failures_left_out"`
}

// tokenSummary says what became of the rows; whole that all of them were read
// and answered.
func (a *App) tokenSummary(im *tokenImport, whole bool) error {
	slices.SortFunc(im.failures, func(x, y tokenFailure) int { return x.Line - y.Line })
	failed := im.counts.Conflict + im.counts.Refused
	if asJSON, err := a.json(); err != nil {
		return err
	} else if asJSON {
		if im.failures == nil {
			im.failures = []tokenFailure{}
		}
		if err := a.printJSON(tokenReport{im.flags.dry, whole, im.counts, im.failures, failed - len(im.failures)}); err != nil {
			return err
		}
	} else if whole || im.counts.all() > 0 {
		if im.flags.dry {
			fmt.Fprintln(a.Out, "Nothing was changed; this is what would be:")
		}
		n := &im.counts
		if err := a.table([]string{"CREATED", "UNCHANGED", "CONFLICT", "REFUSED"},
			[][]string{{fmt.Sprint(n.Created), fmt.Sprint(n.Unchanged), fmt.Sprint(n.Conflict), fmt.Sprint(n.Refused)}}); err != nil {
			return err
		}
	}
	const shown = 20
	for i, f := range im.failures {
		if i == shown {
			fmt.Fprintf(a.Err, "  and %d more; -o json names them\n", failed-shown)
			break
		}
		where := ""
		if f.Pointer != "" {
			where = " (at " + f.Pointer + ")"
		}
		fmt.Fprintf(a.Err, "  line %d: %s%s [%s]\n", f.Line, terminalSafe(f.Message), terminalSafe(where), f.Reason)
	}
	switch {
	case !whole:
		return nil // there is an error that says why
	case failed > 0:
		return Fail(ExitRemote, fmt.Errorf("%d tokens could not be imported", failed), "mend what is named above and run the same command again: what is done already is left alone")
	}
	return nil
}
