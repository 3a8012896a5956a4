package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// policyForm is what holds for the tokens of an account, as the API has it.
type policyForm struct {
	LifetimeSecondsMax int64  `json:"lifetime_seconds_max"`
	ExpiryRequired     bool   `json:"expiry_required"`
	AddressRequired    bool   `json:"address_required"`
	TokensMax          int32  `json:"tokens_max"`
	KeysEnd            string `json:"keys_end,omitempty"`
}

// policyStretch is the API's answer about some tokens of an account.
type policyStretch struct {
	Policy    policyForm     `json:"policy"`
	Tokens    int            `json:"tokens"`
	TokensMax int            `json:"tokens_max"`
	Over      int            `json:"over"`
	Examined  int            `json:"examined"`
	Next      string         `json:"next"`
	Changes   []policyChange `json:"changes"`
}

// policyChange is one token that breaks the policy.
type policyChange struct {
	ID           string   `json:"id"`
	Name         string   `json:"name"`
	Breaches     []string `json:"breaches"`
	Action       string   `json:"action"`
	ExpiresOn    string   `json:"expires_on,omitempty"`
	NewExpiresOn string   `json:"new_expires_on,omitempty"`
}

// policyReport is what a walk over all tokens of an account has found or done.
type policyReport struct {
	DryRun    bool           `json:"dry_run"`
	Policy    policyForm     `json:"policy"`
	Tokens    int            `json:"tokens"`
	TokensMax int            `json:"tokens_max"`
	Over      int            `json:"over"`
	Examined  int            `json:"examined"`
	Expire    int            `json:"expire"`
	Disable   int            `json:"disable"`
	Changes   []policyChange `json:"changes"`
}

// How many tokens one request is about: a change waits for the disk.
const (
	previewAtOnce = 1000
	applyAtOnce   = 100
)

// policyFlags are those of the verbs about policies.
type policyFlags struct {
	lifetime, keysEnd string
	expiry, address   bool
	tokens            int32
	dry               bool
	retryFor          time.Duration
}

// policyCommand returns the verbs about the policy of an account.
func (a *App) policyCommand() *cobra.Command {
	f := &policyFlags{}
	cmd := &cobra.Command{Use: "policy", Short: "What holds for all tokens of an account: show, set, preview and apply it"}
	show := &cobra.Command{Use: "show ACCOUNT", Short: "Show it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.showPolicy(cmd.Context(), args[0]) }}
	set := &cobra.Command{Use: "set ACCOUNT", Short: "Change what the flags name", Args: cobra.ExactArgs(1),
		Long: `Change what the flags name. It holds for tokens that are made, changed or enabled from then on;
tokens that are there already stay as they are until "policy apply".`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.setPolicy(cmd, args[0], f) }}
	preview := &cobra.Command{Use: "preview ACCOUNT", Short: "Say which of the tokens that are there break it, and what applying it would change", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.walkPolicy(cmd.Context(), args[0], nil, true, 0)
		}}
	apply := &cobra.Command{Use: "apply ACCOUNT", Short: "Bring the tokens that are there to it", Args: cobra.ExactArgs(1),
		Long: `Bring the account's own tokens to its policy. One without an end, or with one too far, ends when a token made now
would have to (in a year, where the policy only requires an end). One that no end mends, because it names no addresses,
is disabled; it can be enabled once somebody has given it some. Nothing is revoked, and nothing is done about tokens
beyond the number that the account may have: no more are made.

What is done already is left alone, so a run that was cut off goes on when it is run again. Tokens of users who reach
into the account are theirs to change.`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.applyPolicy(cmd.Context(), args[0], f) }}
	for _, c := range []*cobra.Command{set, apply} {
		c.Flags().BoolVar(&f.dry, "dry-run", false, "only say what applying it would change")
	}
	apply.Flags().DurationVar(&f.retryFor, "retry-for", time.Minute, "for how long to try again what the server cannot take at the moment")
	fl := set.Flags()
	fl.StringVar(&f.lifetime, "lifetime", "", "the longest life of a token, e.g. 90d or 12h; 0: no bound")
	fl.BoolVar(&f.expiry, "expiry-required", false, "every token needs an end")
	fl.BoolVar(&f.address, "address-required", false, "every token needs a condition on the client's address")
	fl.Int32Var(&f.tokens, "tokens-max", 0, "how many tokens the account may have; 0: what the installation allows")
	fl.StringVar(&f.keysEnd, "keys-end", "", "when Global API Keys are refused for the account: a date, a time or a time from now; never: not at all")
	cmd.AddCommand(show, set, preview, apply)
	return cmd
}

func policyPath(account string) string {
	return api + "/accounts/" + url.PathEscape(account) + "/token_policy"
}

func (a *App) showPolicy(ctx context.Context, account string) error {
	var p policyForm
	if err := a.Call(ctx, http.MethodGet, policyPath(account), nil, &p); err != nil {
		return err
	}
	return a.printPolicy(p)
}

// setPolicy changes what the flags name and keeps the rest.
func (a *App) setPolicy(cmd *cobra.Command, account string, f *policyFlags) error {
	var p policyForm
	if err := a.Call(cmd.Context(), http.MethodGet, policyPath(account), nil, &p); err != nil {
		return err
	}
	if err := f.change(&p, cmd.Flags().Changed, time.Now()); err != nil {
		return err
	}
	if f.dry {
		return a.walkPolicy(cmd.Context(), account, &p, true, 0)
	}
	if err := a.Call(cmd.Context(), http.MethodPut, policyPath(account), p, &p); err != nil {
		return err
	}
	return a.printPolicy(p)
}

// change puts what was given into p.
func (f *policyFlags) change(p *policyForm, given func(string) bool, now time.Time) error {
	if given("lifetime") {
		d, err := parseSpan(f.lifetime)
		if err != nil {
			return err
		}
		p.LifetimeSecondsMax = int64(d / time.Second)
	}
	if given("keys-end") {
		p.KeysEnd = ""
		if f.keysEnd != "never" {
			t, err := parseWhen(f.keysEnd, now)
			if err != nil {
				return err
			}
			p.KeysEnd = stamp(t)
		}
	}
	if given("expiry-required") {
		p.ExpiryRequired = f.expiry
	}
	if given("address-required") {
		p.AddressRequired = f.address
	}
	if given("tokens-max") {
		p.TokensMax = f.tokens
	}
	return nil
}

// parseSpan reads a number of whole seconds, such as 90d or 12h.
func parseSpan(s string) (time.Duration, error) {
	unit, number := time.Duration(1), s
	if days, ok := strings.CutSuffix(s, "d"); ok {
		unit, number = 24, days+"h"
	}
	d, err := time.ParseDuration(number)
	if err != nil || d < 0 || d%time.Second != 0 || unit*d/unit != d {
		return 0, Fail(ExitLocal, fmt.Errorf("cannot read the time %q", s), "use 90d, 12h or 30m, or 0 for no bound")
	}
	return unit * d, nil
}

func (a *App) printPolicy(p policyForm) error {
	if asJSON, err := a.json(); asJSON || err != nil {
		return errors.Join(err, a.printJSON(p))
	}
	or := func(is bool, yes, no string) string {
		if is {
			return yes
		}
		return no
	}
	life := time.Duration(p.LifetimeSecondsMax) * time.Second
	return a.table([]string{"LIFETIME", "EXPIRY", "ADDRESS", "TOKENS", "KEYS END"}, [][]string{{
		or(life > 0, span(life), "any"), or(p.ExpiryRequired || life > 0, "required", "optional"), or(p.AddressRequired, "required", "optional"),
		or(p.TokensMax > 0, fmt.Sprint(p.TokensMax), "default"), or(p.KeysEnd != "", p.KeysEnd, "never"),
	}})
}

// span is the shortest text of a duration: days where they are whole.
func span(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return d.String()
}

// applyPolicy applies the policy that stands when it begins. When somebody
// changes that meanwhile it ends.
func (a *App) applyPolicy(ctx context.Context, account string, f *policyFlags) error {
	if f.dry {
		return a.walkPolicy(ctx, account, nil, true, 0)
	}
	var p policyForm
	if err := a.Call(ctx, http.MethodGet, policyPath(account), nil, &p); err != nil {
		return err
	}
	return a.walkPolicy(ctx, account, &p, false, f.retryFor)
}

// walkPolicy walks over all tokens of an account and prints what a policy means
// for them, or brings them to it.
func (a *App) walkPolicy(ctx context.Context, account string, p *policyForm, preview bool, retryFor time.Duration) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	path, limit := policyPath(account)+"/apply", applyAtOnce
	if preview {
		path, limit = policyPath(account)+"/preview", previewAtOnce
	}
	report := policyReport{DryRun: preview, Changes: []policyChange{}}
	var show *progressLine
	for after := ""; ; {
		body := row{"limit": limit}
		if p != nil {
			body["policy"] = p
		}
		if after != "" {
			body["after"] = after
		}
		var s policyStretch
		if err := c.persist(ctx, retryFor, path, body, &s); err != nil {
			show.end()
			return report.stopped(err)
		}
		report.add(&s)
		if show == nil {
			show = newProgressLine(a.Err, s.Tokens)
		}
		show.at(report.Examined, fmt.Sprintf("%d of %d tokens, %d broke the policy", report.Examined, s.Tokens, len(report.Changes)))
		if after = s.Next; after == "" {
			show.end()
			return a.printReport(&report)
		}
	}
}

// persist sends a request again, for some time, while the server cannot take
// it.
func (c *client) persist(ctx context.Context, retryFor time.Duration, path string, in, out any) error {
	began := time.Now()
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := c.call(ctx, http.MethodPost, path, in, out)
		if err == nil || time.Since(began) >= retryFor {
			return err
		}
		if s, ok := errors.AsType[*statusError](err); ok && s.status < http.StatusInternalServerError && s.status != http.StatusTooManyRequests {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r *policyReport) add(s *policyStretch) {
	r.Policy, r.Tokens, r.TokensMax, r.Over = s.Policy, s.Tokens, s.TokensMax, s.Over
	r.Examined += s.Examined
	r.Changes = append(r.Changes, s.Changes...)
	for _, c := range s.Changes {
		if c.Action == "disable" {
			r.Disable++
		} else {
			r.Expire++
		}
	}
}

// stopped says how far a walk came that was cut off.
func (r *policyReport) stopped(err error) error {
	if r.DryRun || r.Examined == 0 {
		return err
	}
	code := ExitLocal
	hints := []string{"run the same command again: what is done already is left alone"}
	if e, ok := errors.AsType[*Error](err); ok {
		code, hints = e.Code, append(e.Hints, hints...)
	}
	return Fail(code, fmt.Errorf("stopped after %d of %d tokens: %w", r.Examined, r.Tokens, err), hints...)
}

// changesShown is how many tokens a person is shown.
const changesShown = 50

func (a *App) printChanges(all []policyChange) error {
	if len(all) == 0 {
		return nil
	}
	var rows [][]string
	for _, c := range all[:min(len(all), changesShown)] {
		then := "disabled"
		if c.Action == "expire" {
			then = "ends " + c.NewExpiresOn
		}
		rows = append(rows, []string{c.ID, terminalSafe(c.Name), strings.Join(c.Breaches, ", "), then})
	}
	err := a.table([]string{"ID", "NAME", "BREAKS", "THEN"}, rows)
	if more := len(all) - len(rows); err == nil && more > 0 {
		_, err = fmt.Fprintf(a.Out, "and %d more; -o json has all of them\n", more)
	}
	return err
}

func (a *App) printReport(r *policyReport) error {
	if asJSON, err := a.json(); asJSON || err != nil {
		return errors.Join(err, a.printJSON(r))
	}
	if err := a.printChanges(r.Changes); err != nil {
		return err
	}
	format := "%d of %d tokens broke the policy: %d got an end, %d were disabled.\n"
	if r.DryRun {
		format = "Nothing was changed. %d of %d tokens break the policy: %d would get an end, %d would be disabled.\n"
	}
	_, err := fmt.Fprintf(a.Out, format, len(r.Changes), r.Examined, r.Expire, r.Disable)
	if r.Over > 0 && err == nil {
		_, err = fmt.Fprintf(a.Out, "The account has %d tokens and may have %d: no more are made until %d are revoked.\n", r.Tokens, r.TokensMax, r.Over+1)
	}
	return err
}
