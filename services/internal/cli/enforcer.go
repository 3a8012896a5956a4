package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"watchword.dev/events/credentials"
)

type enforcerView struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Region      string    `json:"region,omitzero"`
	Ceiling     int32     `json:"ceiling_seconds,omitzero"`
	Nkey        string    `json:"nkey,omitzero"`
	Status      string    `json:"status"`
	EnrolledOn  time.Time `json:"enrolled_on"`
	Key         string    `json:"key,omitzero"`
	Credentials string    `json:"credentials_file,omitzero"` // on this machine
	Kind        string    `json:"kind,omitzero"`
	// Instances are its processes.
	Instances []instanceView `json:"instances,omitzero"`
}

func (a *App) enforcerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "enforcer", Aliases: []string{"enforcers"}, Short: "Enroll, list and retire enforcing services, and see how far they are"}
	cmd.AddCommand(a.enforcerEnrollCommand(), a.enforcerListCommand(), a.enforcerShowCommand(), a.enforcerLagCommand(), a.enforcerRetireCommand())
	return cmd
}

func (a *App) enforcerEnrollCommand() *cobra.Command {
	f, secret := &enrollFlags{kind: credentials.Enforcer}, &tokenFlags{}
	var ceiling time.Duration
	var httpOnly bool
	cmd := &cobra.Command{Use: "enroll NAME", Short: "Let an enforcing service ask and follow the events", Args: cobra.ExactArgs(1),
		Long: `Enroll an enforcing service. It gets a key, with which it asks over HTTP and which
is shown this once, and an nkey, with which it logs in to NATS: to follow the
events, and to say what it has applied.

The nkey is made here, and its seed never leaves this machine: the server is told
the public half. Two new files are written with mode 0600: NAME.nkey, the seed,
and NAME.json, which names it, the key and the addresses; give both to the service.`,
		Example: "  watchword enforcer enroll edge-1 --region eu-1\n  watchword enforcer enroll edge-1 --credentials /etc/edge/watchword.json --ceiling 5s",
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]any{"name": args[0]}
			if f.region != "" {
				body["region"] = f.region
			}
			if ceiling != 0 {
				if ceiling < time.Second || ceiling%time.Second != 0 {
					return Fail(ExitLocal, errors.New("--ceiling is in whole seconds"))
				}
				body["ceiling_seconds"] = int64(ceiling / time.Second)
			}
			return a.enrollEnforcer(cmd.Context(), f, secret, body, httpOnly)
		}}
	f.add(cmd)
	cmd.Flags().DurationVar(&ceiling, "ceiling", 0, "greatest age of an answer that it may use, below the bounds of the server")
	cmd.Flags().BoolVar(&httpOnly, "http-only", false, "no nkey and no credentials file: it asks over HTTP only")
	secret.secretFlags(cmd)
	return cmd
}

// enrollEnforcer makes the files first, so that a wrong path is found before
// anything is created on the server.
func (a *App) enrollEnforcer(ctx context.Context, f *enrollFlags, secret *tokenFlags, body map[string]any, httpOnly bool) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var files *enrollFiles
	if !httpOnly {
		if files, err = f.open(body["name"].(string)); err != nil {
			return err
		}
		body["nkey"] = files.public
	}
	file, err := openSecretFile(secret.secretFile)
	if err != nil {
		files.discard()
		return err
	}
	var e enforcerView
	if err := c.call(ctx, http.MethodPost, "/v1/enforcers", body, &e); err != nil {
		file.discard()
		files.discard()
		return err
	}
	err = file.write(e.Key)
	if err == nil {
		err = files.write(c, f, e.ID, e.Name, e.Key)
	}
	if err != nil {
		fmt.Fprintf(a.Err, "watchword: cannot write the secret file (%v); the key is: %s\n", err, e.Key)
		return Fail(ExitLocal, err)
	}
	e.Credentials = files.path()
	return a.showEnforcer(e, secret, file != nil)
}

// showEnforcer shows what was enrolled, and the key unless it is in a file of
// its own.
func (a *App) showEnforcer(e enforcerView, secret *tokenFlags, inFile bool) error {
	key := e.Key
	if inFile {
		e.Key = ""
	}
	asJSON, err := a.json()
	switch {
	case err != nil:
		return err
	case secret.quiet && !inFile:
		fmt.Fprintln(a.Out, key)
		return nil
	case secret.quiet:
		return nil
	case asJSON:
		return a.printJSON(e)
	}
	fmt.Fprintf(a.Out, "id      %s\nname    %s\n", e.ID, terminalSafe(e.Name))
	if inFile {
		fmt.Fprintf(a.Out, "key     written to %s\n", secret.secretFile)
	} else {
		fmt.Fprintf(a.Out, "key     %s\n        This is the only time that it is shown.\n", key)
	}
	if e.Credentials != "" {
		fmt.Fprintf(a.Out, "file    %s\n        Give it, and the seed beside it, to the service.\n", e.Credentials)
	}
	return nil
}

func (a *App) enforcerListCommand() *cobra.Command {
	return &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List enforcing services", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := a.enforcers(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(all))
			}
			rows := make([][]string, 0, len(all))
			for _, e := range all {
				rows = append(rows, []string{e.ID, terminalSafe(e.Name), terminalSafe(e.Region), e.Status, fmt.Sprint(e.live()), day(e.EnrolledOn)})
			}
			return a.table([]string{"ID", "NAME", "REGION", "STATUS", "LIVE", "ENROLLED"}, rows)
		}}
}

func (a *App) enforcerRetireCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: "retire ID", Short: "End an enforcing service's access for good, live connections included", Args: cobra.ExactArgs(1),
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
