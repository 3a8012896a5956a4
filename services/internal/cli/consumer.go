package cli

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"watchword.dev/events/credentials"
)

type consumerView struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Region      string    `json:"region,omitzero"`
	Nkey        string    `json:"nkey"`
	Status      string    `json:"status"`
	EnrolledOn  time.Time `json:"enrolled_on"`
	Credentials string    `json:"credentials_file,omitzero"` // on this machine
}

func (a *App) consumerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "consumer", Short: "Enroll, list and retire programs that read the events"}
	cmd.AddCommand(a.consumerEnrollCommand(), a.consumerListCommand(), a.consumerRetireCommand())
	return cmd
}

func (a *App) consumerEnrollCommand() *cobra.Command {
	f := &enrollFlags{kind: credentials.Consumer}
	cmd := &cobra.Command{Use: "enroll NAME", Short: "Let a program read the events, and nothing else", Args: cobra.ExactArgs(1),
		Long: `Enroll a program that reads the events over NATS. Its nkey is made here, and the
seed never leaves this machine: the server is told the public half. Two new files
are written with mode 0600: NAME.nkey, the seed, and NAME.json, which names it.`,
		Example: "  watchword consumer enroll siem\n  watchword events tail -f --credentials siem.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			files, err := f.open(args[0])
			if err != nil {
				return err
			}
			body := map[string]any{"name": args[0], "nkey": files.public}
			if f.region != "" {
				body["region"] = f.region
			}
			var v consumerView
			if err := c.call(cmd.Context(), http.MethodPost, "/v1/consumers", body, &v); err != nil {
				files.discard()
				return err
			}
			if err := files.write(c, f, v.ID, v.Name, ""); err != nil {
				return Fail(ExitLocal, fmt.Errorf("consumer %s is enrolled, but its credentials file could not be written: %w", v.ID, err), "retire it and enroll it again")
			}
			v.Credentials = files.path()
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(v))
			}
			fmt.Fprintf(a.Out, "id      %s\nname    %s\nfile    %s\n        Give it, and the seed beside it, to the program.\n", v.ID, terminalSafe(v.Name), v.Credentials)
			return nil
		}}
	f.add(cmd)
	return cmd
}

func (a *App) consumerListCommand() *cobra.Command {
	return &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List programs that read the events", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			all := []consumerView{}
			if err := c.call(cmd.Context(), http.MethodGet, "/v1/consumers", nil, &all); err != nil {
				return err
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(all))
			}
			rows := make([][]string, 0, len(all))
			for _, v := range all {
				rows = append(rows, []string{v.ID, terminalSafe(v.Name), terminalSafe(v.Region), v.Status, day(v.EnrolledOn)})
			}
			return a.table([]string{"ID", "NAME", "REGION", "STATUS", "ENROLLED"}, rows)
		}}
}

func (a *App) consumerRetireCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: "retire ID", Short: "End a program's access for good, live connections included", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if err := c.call(cmd.Context(), http.MethodDelete, "/v1/consumers/"+url.PathEscape(args[0]), reasonBody(reason), nil); err != nil {
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
