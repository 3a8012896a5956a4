package cli

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

type enforcerView struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Region     string    `json:"region,omitzero"`
	Status     string    `json:"status"`
	EnrolledOn time.Time `json:"enrolled_on"`
	Key        string    `json:"key,omitzero"`
}

func (a *App) enforcerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "enforcer", Short: "Enroll, list and retire enforcing services"}
	cmd.AddCommand(a.enforcerEnrollCommand(), a.enforcerListCommand(), a.enforcerRetireCommand())
	return cmd
}

func (a *App) enforcerEnrollCommand() *cobra.Command {
	var region string
	f := &tokenFlags{}
	cmd := &cobra.Command{Use: "enroll NAME", Short: "Give an enforcing service a key; it is shown this once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			file, err := openSecretFile(f.secretFile)
			if err != nil {
				return err
			}
			body := map[string]any{"name": args[0]}
			if region != "" {
				body["region"] = region
			}
			var e enforcerView
			if err := c.call(cmd.Context(), http.MethodPost, "/v1/enforcers", body, &e); err != nil {
				file.discard()
				return err
			}
			key := e.Key
			if err := file.write(key); err != nil {
				fmt.Fprintf(a.Err, "watchword: cannot write the secret file (%v); the key is: %s\n", err, key)
				return Fail(ExitLocal, err)
			}
			if file != nil {
				e.Key = ""
			}
			asJSON, err := a.json()
			switch {
			case err != nil:
				return err
			case f.quiet && file == nil:
				fmt.Fprintln(a.Out, key)
			case f.quiet:
			case asJSON:
				return a.printJSON(e)
			case file != nil:
				fmt.Fprintf(a.Out, "id      %s\nname    %s\nkey     written to %s\n", e.ID, terminalSafe(e.Name), f.secretFile)
			default:
				fmt.Fprintf(a.Out, "id      %s\nname    %s\nkey     %s\n        This is the only time that it is shown.\n", e.ID, terminalSafe(e.Name), key)
			}
			return nil
		}}
	cmd.Flags().StringVar(&region, "region", "", "region in which it runs")
	f.secretFlags(cmd)
	return cmd
}

func (a *App) enforcerListCommand() *cobra.Command {
	return &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List enforcing services", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all := []enforcerView{}
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/enforcers", nil, &all); err != nil {
				return err
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(all))
			}
			rows := make([][]string, 0, len(all))
			for _, e := range all {
				rows = append(rows, []string{e.ID, terminalSafe(e.Name), terminalSafe(e.Region), e.Status, day(e.EnrolledOn)})
			}
			return a.table([]string{"ID", "NAME", "REGION", "STATUS", "ENROLLED"}, rows)
		}}
}

func (a *App) enforcerRetireCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: "retire ID", Short: "End an enforcing service's key for good", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if err := c.call(cmd.Context(), http.MethodDelete, "/v1/enforcers/"+url.PathEscape(args[0]), reasonBody(reason), nil); err != nil {
				return err
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(map[string]string{"id": args[0]}))
			}
			fmt.Fprintf(a.Out, "retired %s\n", args[0])
			return nil
		}}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit trail")
	return cmd
}

func (a *App) permissionsCommand() *cobra.Command {
	var name, scope string
	cmd := &cobra.Command{Use: "permissions", Short: "List the permission groups that policies can name", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			if name != "" {
				q.Set("name", name)
			}
			if scope != "" {
				q.Set("scope", scope)
			}
			var all []struct {
				ID          string   `json:"id"`
				Name        string   `json:"name"`
				Description string   `json:"description,omitzero"`
				Scopes      []string `json:"scopes"`
			}
			if err := c.call(cmd.Context(), http.MethodGet, "/client/v4/user/tokens/permission_groups?"+q.Encode(), nil, &all); err != nil {
				return err
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(all))
			}
			rows := make([][]string, 0, len(all))
			for _, g := range all {
				rows = append(rows, []string{g.ID, g.Name, fmt.Sprint(g.Scopes)})
			}
			return a.table([]string{"ID", "NAME", "SCOPES"}, rows)
		}}
	cmd.Flags().StringVar(&name, "name", "", "only the group with this name")
	cmd.Flags().StringVar(&scope, "scope", "", "only groups for this type of resource")
	return cmd
}
