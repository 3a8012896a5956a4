package cli

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	json "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
)

func (a *App) tokenListCommand(f *tokenFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List tokens", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all := []tokenView{}
			q := url.Values{"per_page": {"1000"}, "include_expired": {fmt.Sprint(f.includeExpired)}}
			if f.name != "" {
				q.Set("name_prefix", f.name)
			}
			for page := 1; ; page++ {
				var some []tokenView
				q.Set("page", fmt.Sprint(page))
				if err := c.call(cmd.Context(), http.MethodGet, f.base()+"?"+q.Encode(), nil, &some); err != nil {
					return err
				}
				if len(some) == 0 {
					break
				}
				all = append(all, some...)
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(all))
			}
			rows := make([][]string, 0, len(all))
			for _, t := range all {
				rows = append(rows, []string{t.ID, terminalSafe(t.Name), t.Status, day(t.IssuedOn), day(t.LastUsedOn), day(t.ExpiresOn)})
			}
			return a.table([]string{"ID", "NAME", "STATUS", "ISSUED", "LAST USED", "EXPIRES"}, rows)
		}}
	cmd.Flags().BoolVar(&f.includeExpired, "include-expired", true, "also list expired tokens")
	cmd.Flags().StringVar(&f.name, "name", "", "only tokens whose names begin so, in the order of names")
	return cmd
}

func (a *App) tokenShowCommand(f *tokenFlags) *cobra.Command {
	return &cobra.Command{Use: "show ID", Aliases: []string{"get"}, Short: "Show a token", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var t tokenView
			if err := c.call(cmd.Context(), http.MethodGet, f.base()+"/"+url.PathEscape(args[0]), nil, &t); err != nil {
				return err
			}
			return a.printToken(t)
		}}
}

func (a *App) printToken(t tokenView) error {
	if asJSON, err := a.json(); asJSON || err != nil {
		return errors.Join(err, a.printJSON(t))
	}
	row := func(k, v string) {
		if v != "" {
			fmt.Fprintf(a.Out, "%-11s %s\n", k, v)
		}
	}
	row("id", t.ID)
	row("name", terminalSafe(t.Name))
	row("status", t.Status)
	row("issued", stamp(t.IssuedOn))
	row("modified", stamp(t.ModifiedOn))
	row("rolled", stamp(t.RolledOn))
	row("last used", stamp(t.LastUsedOn))
	row("not before", stamp(t.NotBefore))
	row("expires", stamp(t.ExpiresOn))
	if t.Condition != nil {
		row("from", strings.Join(t.Condition.RequestIP.In, ", "))
		row("not from", strings.Join(t.Condition.RequestIP.NotIn, ", "))
	}
	for _, p := range t.Policies {
		names := make([]string, 0, len(p.Groups))
		for _, g := range p.Groups {
			names = append(names, terminalSafe(g.Name))
		}
		row("policy", fmt.Sprintf("%s %s on %s", p.Effect, strings.Join(names, ", "), terminalSafe(string(p.Resources))))
	}
	return nil
}

func (a *App) tokenUpdateCommand(f *tokenFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "update ID", Short: "Change a token's name, policies, addresses or validity; its secret stays", Args: cobra.ExactArgs(1),
		Long: "Change a token. What the flags do not name stays as it is; the server replaces the whole token with the result.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			path := f.base() + "/" + url.PathEscape(args[0])
			var now map[string]jsontext.Value
			if err := c.call(cmd.Context(), http.MethodGet, path, nil, &now); err != nil {
				return err
			}
			change, err := a.body(cmd.Context(), c, f)
			if err != nil {
				return err
			}
			if f.name == "" {
				delete(change, "name")
			}
			body := map[string]any{}
			for _, k := range []string{"name", "policies", "condition", "expires_on", "not_before"} {
				if v, ok := now[k]; ok {
					body[k] = v
				}
			}
			if f.clearIP {
				delete(body, "condition")
			}
			if f.clearExpiry {
				delete(body, "expires_on")
			}
			for k, v := range change {
				body[k] = v
			}
			if f.status != "" {
				body["status"] = f.status
			}
			var t tokenView
			if err := c.call(cmd.Context(), http.MethodPut, path, body, &t); err != nil {
				return err
			}
			return a.printToken(t)
		},
	}
	f.scopeFlags(cmd)
	cmd.Flags().StringVar(&f.status, "status", "", "active or disabled")
	cmd.Flags().BoolVar(&f.clearIP, "clear-ip", false, "lift the restriction of addresses")
	cmd.Flags().BoolVar(&f.clearExpiry, "clear-expires", false, "lift the end of validity")
	return cmd
}

func (a *App) tokenRollCommand(f *tokenFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "roll ID", Short: "Replace a token's secret; the new one is shown this once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			file, err := openSecretFile(f.secretFile)
			if err != nil {
				return err
			}
			body := map[string]any{}
			if f.grace > 0 {
				body["grace"] = f.grace.String()
			}
			if f.force {
				body["force"] = true
			}
			var secret string
			if err := c.call(cmd.Context(), http.MethodPut, f.base()+"/"+url.PathEscape(args[0])+"/value", body, &secret); err != nil {
				file.discard()
				return err
			}
			return a.showSecret(c, f, file, tokenView{ID: args[0]}, secret)
		},
	}
	cmd.Flags().DurationVar(&f.grace, "grace", 0, "let the old secret work on for this long, e.g. 24h; default: it dies at once")
	cmd.Flags().BoolVar(&f.force, "force", false, "roll although the grace of an earlier roll still runs; its old secret dies")
	f.secretFlags(cmd)
	return cmd
}

func (a *App) tokenSwitchCommand(f *tokenFlags, verb, short string) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " ID", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var t tokenView
			if err := c.call(cmd.Context(), http.MethodPost, f.base()+"/"+url.PathEscape(args[0])+"/"+verb, reasonBody(f.reason), &t); err != nil {
				return err
			}
			return a.printToken(t)
		}}
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the audit trail")
	return cmd
}

func reasonBody(reason string) map[string]any {
	if reason == "" {
		return map[string]any{}
	}
	return map[string]any{"reason": reason}
}

func (a *App) tokenRevokeCommand(f *tokenFlags) *cobra.Command {
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{Use: "revoke ID...", Aliases: []string{"delete", "rm"}, Short: "End tokens for good", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			for _, id := range args {
				path := f.base() + "/" + url.PathEscape(id)
				if err := c.call(cmd.Context(), http.MethodDelete, path, reasonBody(f.reason), nil); err != nil {
					return err
				}
				if wait {
					if err := a.awaitReceipts(cmd.Context(), c, path+"/receipts", timeout); err != nil {
						return err
					}
					continue
				}
				if asJSON, err := a.json(); asJSON || err != nil {
					if err := errors.Join(err, a.printJSON(map[string]string{"id": id})); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintf(a.Out, "revoked %s\n", id)
			}
			return nil
		}}
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the audit trail")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until every enforcing instance refuses the token, and say how long each took; exit code 4 when one does not in time")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "longest wait for each token")
	return cmd
}

func (a *App) tokenVerifyCommand(f *tokenFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify", Short: "Ask whether a secret is good; it is read from --secret-file or standard input, never from the command line", Args: cobra.NoArgs,
		Example: "  watchword token verify --secret-file ci.secret\n  pass show ci-token | watchword token verify",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			name := f.secretFile
			if name == "" {
				name = "-"
			}
			b, err := a.readFile(name)
			if err != nil {
				return err
			}
			path := f.base() + "/verify"
			r, err := c.request(cmd.Context(), http.MethodGet, path, nil)
			if err != nil {
				return err
			}
			r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(b)))
			var v jsontext.Value
			if err := c.do(r, &v); err != nil {
				return err
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(v))
			}
			var t tokenView
			if err := json.Unmarshal(v, &t); err != nil {
				return Fail(ExitRemote, err)
			}
			fmt.Fprintf(a.Out, "%s %s\n", t.ID, t.Status)
			if t.Status != "active" {
				return Fail(ExitDenied, fmt.Errorf("the token is %s", t.Status))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&f.secretFile, "secret-file", "", "file that holds the secret (default: standard input)")
	return cmd
}
