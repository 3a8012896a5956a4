package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
)

// legacyKeyView is an API key in the report.
type legacyKeyView struct {
	UserID     string    `json:"user_id"`
	Email      string    `json:"email"`
	Name       string    `json:"name"`
	Operator   bool      `json:"operator"`
	Kind       string    `json:"kind"`
	LastUsedOn time.Time `json:"last_used_on,omitzero"`
	Allowed    uint64    `json:"allowed"`
	Refused    uint64    `json:"refused"`
	Rejected   uint64    `json:"rejected"`
	Used       []struct {
		Permission string    `json:"permission"`
		Type       string    `json:"resource_type"`
		Resource   string    `json:"resource"`
		AccountID  string    `json:"account_id"`
		Count      uint64    `json:"count"`
		LastUsedOn time.Time `json:"last_used_on,omitzero"`
	} `json:"used"`
	Accounts []struct {
		ID      string    `json:"id"`
		Name    string    `json:"name"`
		KeysEnd time.Time `json:"keys_end,omitzero"`
	} `json:"accounts"`
	Warnings []string            `json:"warnings"`
	Proposal *legacyProposalView `json:"proposal,omitzero"`
}

type legacyProposalView struct {
	Name      string       `json:"name"`
	Policies  []policyView `json:"policies"`
	Summary   []string     `json:"summary"`
	Uncovered []string     `json:"uncovered"`
}

func (a *App) legacyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "legacy", Short: "Find out who still uses API keys, and replace them"}
	var since, account string
	report := &cobra.Command{
		Use: "report", Short: "List API keys, what they are used for, and the token that would do", Args: cobra.NoArgs,
		Long: `List who has an API key, when it was last used and what for, and for each the
narrowest token that would do the same, as a command for its user. Operators see
all keys; with --account, those who may read an account's tokens see its members'
keys and their uses in that account.`,
		Example: "  watchword legacy report --since 30d\n  watchword legacy report --account <account id> -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			days, err := sinceDays(since)
			if err != nil {
				return err
			}
			return a.legacyReport(cmd.Context(), account, days)
		},
	}
	report.Flags().StringVar(&since, "since", "30d", "how far to look back: days up to 90d, or a duration such as 72h")
	report.Flags().StringVar(&account, "account", "", "only members of this account, and their uses in it")
	cmd.AddCommand(report)
	return cmd
}

// sinceDays reads how many days to look back; a part of a day is one.
func sinceDays(s string) (int, error) {
	text, unit := s, time.Hour
	if days, ok := strings.CutSuffix(s, "d"); ok {
		text, unit = days+"h", 24*time.Hour
	}
	d, err := time.ParseDuration(text)
	days := (int64(d/time.Hour*unit) + int64(24*time.Hour) - 1) / int64(24*time.Hour)
	if err != nil || d <= 0 || days < 1 || days > 90 {
		return 0, Fail(ExitLocal, fmt.Errorf("--since %q is not between 1d and 90d", s), "use 30d or 72h")
	}
	return int(days), nil
}

func (a *App) legacyReport(ctx context.Context, account string, days int) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	path := "/client/v4/legacy/report"
	if account != "" {
		path = "/client/v4/accounts/" + url.PathEscape(account) + "/legacy/report"
	}
	all := []legacyKeyView{}
	notes := []string{}
	for page, pages := 1, 1; page <= pages; page++ {
		var some []legacyKeyView
		answer, err := c.page(ctx, path+"?per_page=1000&days="+strconv.Itoa(days)+"&page="+strconv.Itoa(page), &some)
		if err != nil {
			return err
		}
		all, pages, notes = append(all, some...), answer.pages, answer.notes
	}
	if asJSON, err := a.json(); asJSON || err != nil {
		return errors.Join(err, a.printJSON(all))
	}
	for _, n := range notes {
		fmt.Fprintf(a.Err, "note: %s\n", terminalSafe(n))
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(a.Out, "Nobody has an API key.")
		return err
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].LastUsedOn.After(all[j].LastUsedOn) })
	for i := range all {
		if i > 0 {
			fmt.Fprintln(a.Out)
		}
		a.showLegacyKey(c, &all[i], days)
	}
	return nil
}

// showLegacyKey prints what is known of one key, and what would replace it.
func (a *App) showLegacyKey(c *client, k *legacyKeyView, days int) {
	who := k.Email
	if k.Name != "" {
		who = k.Name + " <" + k.Email + ">"
	}
	if k.Operator {
		who += ", operator"
	}
	fmt.Fprintf(a.Out, "%s\n", terminalSafe(who))
	row := func(what, format string, args ...any) {
		fmt.Fprintf(a.Out, "  %-11s %s\n", what, terminalSafe(fmt.Sprintf(format, args...)))
	}
	row("user", "%s", k.UserID)
	last := stamp(k.LastUsedOn)
	if last == "" {
		last = "never"
	}
	row("last used", "%s", last)
	row("uses", "%d allowed, %d refused, %d after it had ended, in %d days", k.Allowed, k.Refused, k.Rejected, days)
	for _, u := range k.Used {
		on := u.Resource
		if on == "" {
			on = "some " + u.Type
			if u.AccountID != "" {
				on += " of account " + u.AccountID
			}
		}
		row("used for", "%s on %s: %d times, last %s", u.Permission, on, u.Count, stamp(u.LastUsedOn))
	}
	for _, w := range k.Warnings {
		row("warning", "%s", w)
	}
	if k.Proposal == nil {
		return
	}
	for _, s := range k.Proposal.Summary {
		row("a token", "%s", s)
	}
	for _, u := range k.Proposal.Uncovered {
		row("no token", "%s", u)
	}
	if len(k.Proposal.Policies) > 0 {
		fmt.Fprintf(a.Out, "\n  As this user:\n  %s\n", creatingCommand(k.Proposal))
	}
}

// creatingCommand is the command that creates a token: with flags where they can
// say it, and else with its policies.
func creatingCommand(p *legacyProposalView) string {
	line := "watchword token create --name " + shellQuote(p.Name)
	if flags, ok := flagsFor(p.Policies); ok {
		return line + flags
	}
	policies := make([]policyView, len(p.Policies))
	for i, q := range p.Policies {
		policies[i] = policyView{Effect: q.Effect, Resources: q.Resources}
		for _, g := range q.Groups {
			policies[i].Groups = append(policies[i].Groups, groupView{ID: g.ID})
		}
	}
	b, err := json.Marshal(policies)
	if err != nil {
		return line + " --policies FILE"
	}
	return "echo " + shellQuote(string(b)) + " | " + line + " --policies -"
}

// flagsFor says in flags what one policy on plain resources allows.
func flagsFor(policies []policyView) (string, bool) {
	if len(policies) != 1 {
		return "", false
	}
	var resources map[string]jsontext.Value
	if json.Unmarshal(policies[0].Resources, &resources) != nil {
		return "", false
	}
	var b strings.Builder
	for _, g := range policies[0].Groups {
		b.WriteString(" --permission " + shellQuote(g.Name))
	}
	keys := make([]string, 0, len(resources))
	for key, v := range resources {
		if v.Kind() != jsontext.KindString || strings.HasSuffix(key, "*") {
			return "", false
		}
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		if zone, ok := strings.CutPrefix(key, "com.cloudflare.api.account.zone."); ok {
			b.WriteString(" --zone " + shellQuote(zone))
		} else {
			b.WriteString(" --resource " + shellQuote(key))
		}
	}
	return b.String(), true
}

// shellQuote makes one word of s for a POSIX shell.
func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// listed is what an answer says beside its page.
type listed struct {
	pages int
	notes []string
}

// page is call for one page of a list.
func (c *client) page(ctx context.Context, path string, out any) (listed, error) {
	r, err := c.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return listed{}, err
	}
	if err := c.authorize(r); err != nil {
		return listed{}, err
	}
	e, err := c.answer(r)
	if err != nil {
		return listed{}, err
	}
	var info struct {
		TotalPages int `json:"total_pages"`
	}
	err = errors.Join(json.Unmarshal(e.Result, out), json.Unmarshal(e.Info, &info))
	if err != nil {
		return listed{}, Fail(ExitRemote, fmt.Errorf("the server's answer does not fit: %w", err))
	}
	l := listed{pages: info.TotalPages}
	for _, m := range e.Messages {
		l.notes = append(l.notes, m.Message)
	}
	return l, nil
}
