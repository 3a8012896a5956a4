package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// incidentSelect is what tokens a revocation is about, as the API has it.
type incidentSelect struct {
	Owner         string `json:"owner,omitzero"`
	Account       string `json:"account,omitzero"`
	Template      string `json:"template,omitzero"`
	All           bool   `json:"all,omitzero"`
	NamePrefix    string `json:"name_prefix,omitzero"`
	Permission    string `json:"permission,omitzero"`
	Resource      string `json:"resource,omitzero"`
	CreatedBy     string `json:"created_by,omitzero"`
	UnusedSince   string `json:"unused_since,omitzero"`
	UsedSince     string `json:"used_since,omitzero"`
	CreatedBefore string `json:"created_before,omitzero"`
	Through       uint64 `json:"through,omitzero"`

	Reason  string `json:"reason,omitzero"`
	Confirm any    `json:"confirm,omitzero"`
	After   string `json:"after,omitzero"`
	Limit   int    `json:"limit,omitzero"`
}

// incidentView is the API's answer about some tokens.
type incidentView struct {
	Sweep    bool   `json:"sweep"`
	Tokens   uint64 `json:"tokens"`
	Examined int    `json:"examined"`
	Through  uint64 `json:"through"`
	First    []struct {
		ID        string    `json:"id"`
		Name      string    `json:"name"`
		OwnerKind string    `json:"owner_kind"`
		Owner     string    `json:"owner"`
		Status    string    `json:"status"`
		CreatedOn time.Time `json:"created_on"`
	} `json:"first"`
	Next     string `json:"next,omitzero"`
	APIKey   bool   `json:"api_key"`
	Revoked  uint64 `json:"revoked"`
	Sequence uint64 `json:"sequence,omitzero"`
	By       string `json:"by,omitzero"`
	Selected string `json:"selected,omitzero"`
	Last     string `json:"last_token_id,omitzero"`
}

const (
	incidentPath = "/client/v4/incident/revocations"

	incidentLook = 10_000 // tokens that one request looks at
	incidentName = 10     // tokens that a person is shown
)

// incidentFlags are those of the verb.
type incidentFlags struct {
	incidentSelect
	createdBefore, unused, used string
	dry, yes, wait              bool
	timeout, retryFor           time.Duration
}

// incidentCommand returns the verbs for when something has gone wrong.
func (a *App) incidentCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "incident", Short: "Revoke very many tokens at once"}
	cmd.AddCommand(a.incidentRevokeCommand())
	return cmd
}

func (a *App) incidentRevokeCommand() *cobra.Command {
	f := &incidentFlags{}
	cmd := &cobra.Command{
		Use: "revoke {--owner|--account|--template|--all|--name-prefix|…}", Short: "Show which tokens are selected, ask, and revoke them", Args: cobra.NoArgs,
		Long: `Show how many tokens are selected and the first of them, ask, and revoke them for good.

An owner's, an account's or a template's tokens, or all of them, are revoked by one event, a sweep, however many they
are; it takes what there is when it happens, or with --created-before what was made until then. With any other flag
the tokens are revoked by one event each. A run that was cut off goes on when it is run again.

Nothing that is made after a sweep is touched by it. Global API Keys are no tokens and stay: a user's is revoked or
replaced by itself ("user key"). Operators revoke anything; others their own tokens and those of their account.`,
		Example: `  watchword incident revoke --owner ada@example.com --reason "laptop stolen" --wait
  watchword incident revoke --template edit-zone-dns --created-before 2026-11-01T00:00:00Z --dry-run
  watchword incident revoke --name-prefix ci- --permission dns.records.write --yes -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.revokeIncident(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.Owner, "owner", "", "the tokens of a user (e-mail address or id) or of an account (id)")
	fl.StringVar(&f.Account, "account", "", "the tokens that an account owns")
	fl.StringVar(&f.Template, "template", "", "the tokens that were made from a template")
	fl.BoolVar(&f.All, "all", false, "all tokens there are")
	fl.StringVar(&f.NamePrefix, "name-prefix", "", "only tokens whose names begin so")
	fl.StringVar(&f.Permission, "permission", "", "only tokens that allow this permission, or have the permission group with this id or name")
	fl.StringVar(&f.Resource, "resource", "", "only tokens with a policy that names this resource (its key), or all of its type")
	fl.StringVar(&f.CreatedBy, "created-by", "", "only tokens that this user, account or credential (id) has made")
	fl.StringVar(&f.unused, "unused-since", "", "only tokens that were not used since, e.g. 2026-06-01 or -90d")
	fl.StringVar(&f.used, "used-since", "", "only tokens that were used since, e.g. -2h")
	fl.StringVar(&f.createdBefore, "created-before", "", "only tokens that were made at or before a time, e.g. 2026-11-25T14:00:00Z or -1h")
	fl.Uint64Var(&f.Through, "through", 0, "only tokens whose creation has at most this number in the ledger")
	fl.StringVar(&f.Reason, "reason", "", "why, for the audit trail")
	fl.BoolVar(&f.dry, "dry-run", false, "only show what is selected")
	fl.BoolVar(&f.yes, "yes", false, "do not ask")
	fl.BoolVar(&f.wait, "wait", false, "wait until every enforcing instance has heard of the last revocation; exit code 4 when one does not in time")
	fl.DurationVar(&f.timeout, "timeout", 5*time.Second, "longest wait")
	fl.DurationVar(&f.retryFor, "retry-for", time.Minute, "for how long to try again what the server cannot take at the moment")
	return cmd
}

// times reads the flags that are times.
func (f *incidentFlags) times(now time.Time) error {
	for flag, to := range map[*string]*string{&f.unused: &f.UnusedSince, &f.used: &f.UsedSince, &f.createdBefore: &f.CreatedBefore} {
		if *flag == "" {
			continue
		}
		t, err := parseWhen(*flag, now)
		if err != nil {
			return err
		}
		*to = t.UTC().Format(time.RFC3339Nano)
	}
	return nil
}

func (a *App) revokeIncident(ctx context.Context, f *incidentFlags) error {
	if err := f.times(time.Now()); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	seen, err := a.previewIncident(ctx, c, f)
	if err != nil {
		return err
	}
	asJSON, err := a.json()
	if err != nil {
		return err
	}
	if !asJSON {
		if err := a.printIncident(seen); err != nil {
			return err
		}
	}
	if f.dry || seen.Tokens == 0 {
		if asJSON {
			return a.printJSON(seen)
		}
		_, err := fmt.Fprintln(a.Out, "Nothing was revoked.")
		return err
	}
	if !f.yes {
		if err := a.confirm(fmt.Sprintf("Revoke %d tokens for good? ", seen.Tokens)); err != nil {
			return err
		}
	}
	done, err := a.endIncident(ctx, c, f, seen)
	if err != nil {
		return err
	}
	if !asJSON {
		fmt.Fprintf(a.Out, "revoked %d tokens, up to sequence %d\n", done.Revoked, done.Sequence)
	} else if err := a.printJSON(done); err != nil {
		return err
	}
	if !f.wait || done.Sequence == 0 {
		return nil
	}
	q := url.Values{"sequence": {fmt.Sprint(done.Sequence)}}
	if done.Sweep {
		q.Set("by", done.By)
		q.Set("selected", done.Selected)
	} else {
		q.Set("token_id", done.Last)
	}
	return a.awaitReceipts(ctx, c, incidentPath+"/receipts?"+q.Encode(), f.timeout)
}

// previewIncident counts the selected tokens and returns them with the first.
func (a *App) previewIncident(ctx context.Context, c *client, f *incidentFlags) (*incidentView, error) {
	ask := f.incidentSelect
	ask.Limit = incidentName
	var seen incidentView
	if err := c.persist(ctx, f.retryFor, incidentPath+"/preview", ask, &seen); err != nil || seen.Sweep {
		return &seen, err
	}
	// What is made from now on is not part of it.
	ask.Through, ask.Limit = seen.Through, incidentLook
	show := newProgressLine(a.Err, 0)
	defer show.end()
	for next := seen.Next; next != ""; {
		ask.After = next
		var more incidentView
		if err := c.persist(ctx, f.retryFor, incidentPath+"/preview", ask, &more); err != nil {
			return nil, err
		}
		seen.Tokens, seen.Examined = seen.Tokens+more.Tokens, seen.Examined+more.Examined
		seen.First = append(seen.First, more.First[:min(len(more.First), max(incidentName-len(seen.First), 0))]...)
		show.at(0, fmt.Sprintf("%d of %d tokens are selected so far", seen.Tokens, seen.Examined))
		next = more.Next
	}
	seen.Next = ""
	return &seen, nil
}

// endIncident revokes what was seen.
func (a *App) endIncident(ctx context.Context, c *client, f *incidentFlags, seen *incidentView) (*incidentView, error) {
	ask := f.incidentSelect
	ask.Confirm = true
	if seen.Sweep {
		if ask.Limit = 1; !f.yes {
			ask.Confirm = seen.Tokens // somebody has read it
		}
		var done incidentView
		err := c.persist(ctx, f.retryFor, incidentPath, ask, &done)
		done.Next = ""
		return &done, err
	}
	ask.Through, ask.Limit = seen.Through, incidentLook
	show := newProgressLine(a.Err, int(seen.Tokens))
	defer show.end()
	all := incidentView{Through: seen.Through}
	for {
		var done incidentView
		if err := c.persist(ctx, f.retryFor, incidentPath, ask, &done); err != nil {
			return nil, stoppedIncident(err, all.Revoked, seen.Tokens)
		}
		all.Revoked, all.Tokens, all.Examined = all.Revoked+done.Revoked, all.Tokens+done.Tokens, all.Examined+done.Examined
		if done.Sequence > all.Sequence {
			all.Sequence, all.Last = done.Sequence, done.Last
		}
		show.at(int(all.Revoked), fmt.Sprintf("%d of %d revoked", all.Revoked, seen.Tokens))
		if ask.After = done.Next; ask.After == "" {
			return &all, nil
		}
	}
}

// stoppedIncident says how far a run came that was cut off.
func stoppedIncident(err error, revoked, of uint64) error {
	code := ExitLocal
	hints := []string{"run the same command again: what is revoked already is not found again"}
	if e, ok := errors.AsType[*Error](err); ok {
		code, hints = e.Code, append(e.Hints, hints...)
	}
	return Fail(code, fmt.Errorf("stopped after %d of %d tokens: %w", revoked, of, err), hints...)
}

func (a *App) printIncident(v *incidentView) error {
	if v.Tokens == 0 {
		return nil
	}
	rows := make([][]string, 0, len(v.First))
	for _, t := range v.First[:min(len(v.First), incidentName)] {
		rows = append(rows, []string{t.ID, terminalSafe(t.Name), t.OwnerKind + " " + t.Owner, t.Status, stamp(t.CreatedOn)})
	}
	if err := a.table([]string{"ID", "NAME", "OWNER", "STATUS", "CREATED"}, rows); err != nil {
		return err
	}
	if more := int(v.Tokens) - len(rows); more > 0 {
		fmt.Fprintf(a.Out, "and %d more\n", more)
	}
	how := "one event each"
	if v.Sweep {
		how = "one event for all"
	}
	if v.APIKey {
		fmt.Fprintln(a.Out, "The owner has a Global API Key, which stays: revoke or replace it by itself.")
	}
	_, err := fmt.Fprintf(a.Out, "%d tokens are selected: %s.\n", v.Tokens, how)
	return err
}

// confirm asks a person for their word.
func (a *App) confirm(question string) error {
	in, ok := a.In.(*os.File)
	if ok {
		info, err := in.Stat()
		ok = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	if !ok {
		return Fail(ExitLocal, errors.New("nobody can be asked here"), "--yes revokes without a question, --dry-run only shows what is selected")
	}
	fmt.Fprint(a.Err, question+`Type "yes": `)
	word, err := bufio.NewReader(in).ReadString('\n')
	if err != nil || strings.TrimSpace(word) != "yes" {
		return Fail(ExitLocal, errors.New("nothing was revoked"))
	}
	return nil
}
