package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	json "github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"watchword.dev/events/catalogue"
	"watchword.dev/services/internal/cataloguefile"
	"watchword.dev/services/introspection/routes"
)

// routesFlags say against which catalogue a file of routes is held.
type routesFlags struct {
	file    string
	builtin bool
}

func (f *routesFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "catalogue", "", "hold it against this catalogue file, without a server")
	cmd.Flags().BoolVar(&f.builtin, "builtin", false, "hold it against the built-in catalogue, without a server")
	cmd.MarkFlagsMutuallyExclusive("catalogue", "builtin")
}

func (a *App) routesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "routes", Short: "Check the file that says what requests behind a proxy need (serve --routes)"}
	cmd.AddCommand(a.routesCheckCommand(), a.routesExplainCommand())
	return cmd
}

func (a *App) routesCheckCommand() *cobra.Command {
	var f routesFlags
	cmd := &cobra.Command{Use: "check FILE", Short: "Check a file of routes against the catalogue that holds", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := a.routeFile(cmd, &f, args[0])
			if err != nil {
				return err
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(map[string]int{"routes": m.Len()}))
			}
			fmt.Fprintf(a.Out, "%s: good, %d routes\n", terminalSafe(args[0]), m.Len())
			return nil
		}}
	f.add(cmd)
	return cmd
}

// explanation is what routes explain tells.
type explanation struct {
	Line       int      `json:"line"`
	Path       string   `json:"path"`
	Permission string   `json:"permission"`
	Resource   []string `json:"resource"`
}

func (a *App) routesExplainCommand() *cobra.Command {
	var f routesFlags
	var host string
	cmd := &cobra.Command{Use: "explain FILE METHOD PATH", Short: "Say which permission a request needs, and on what", Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := a.routeFile(cmd, &f, args[0])
			if err != nil {
				return err
			}
			need, ok, err := m.Find(strings.ToUpper(args[1]), host, args[2])
			if err != nil {
				return Fail(ExitDenied, fmt.Errorf("refused whatever the token: %w", err))
			}
			if !ok {
				return Fail(ExitDenied, errors.New("refused whatever the token: no route is for it"))
			}
			if asJSON, err := a.json(); asJSON || err != nil {
				return errors.Join(err, a.printJSON(explanation{need.Line, need.Path, need.Permission, need.Resource}))
			}
			fmt.Fprintf(a.Out, "%s:%d: %s\n  needs %s\n", terminalSafe(args[0]), need.Line, terminalSafe(need.Path), need.Permission)
			for i, key := range need.Resource {
				fmt.Fprintf(a.Out, "  %s %s\n", []string{"on", "in it"}[min(i, 1)], terminalSafe(key))
			}
			return nil
		}}
	f.add(cmd)
	cmd.Flags().StringVar(&host, "host", "", "host that the client asks")
	return cmd
}

// routeFile reads a file of routes and holds it against a catalogue. What is
// wrong with it is told with file, line and column.
func (a *App) routeFile(cmd *cobra.Command, f *routesFlags, name string) (*routes.Map, error) {
	cat, err := a.heldCatalogue(cmd, f)
	if err != nil {
		return nil, err
	}
	in := a.In
	if name != "-" {
		opened, err := os.Open(name)
		if err != nil {
			return nil, Fail(ExitLocal, err)
		}
		defer opened.Close()
		in = opened
	}
	raw, err := io.ReadAll(io.LimitReader(in, cataloguefile.MaxBytes+1))
	if err != nil {
		return nil, Fail(ExitLocal, err)
	}
	m, err := routes.Load(raw, cat)
	if err != nil {
		return nil, Fail(ExitLocal, fmt.Errorf("%s:%s", name, terminalSafe(err.Error())))
	}
	return m, nil
}

func (a *App) heldCatalogue(cmd *cobra.Command, f *routesFlags) (*catalogue.Catalogue, error) {
	switch {
	case f.builtin:
		return catalogue.Cloudflare(), nil
	case f.file != "":
		_, cat, err := a.catalogueFile(f.file)
		return cat, err
	}
	v, err := a.present(cmd)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(v.Document)
	if err != nil {
		return nil, err
	}
	return catalogue.FromDocument(nil, raw)
}
